"""Whose fault it is, what the user is told, and which code travels on the wire.

Every error that leaves a core is a `MeshError`. `LocalError` means the caller (or the operator) did
something wrong, `RemoteError` that a peer did. The text of an error is one sentence for the person who
reads it: what happened and what to do. The numbers of `Drop` name metrics, those of `Reason` travel in
error onions (docs/wire-format.md §3).
"""

from __future__ import annotations

from enum import IntEnum


class MeshError(Exception):
    """The root of all errors of this project; `exit_code` is what a command returns for it."""

    exit_code = 1


class LocalError(MeshError):
    """The caller's own fault."""


class RemoteError(MeshError):
    """A peer sent or did something wrong."""


class UsageError(LocalError):
    """Wrong arguments on a command line or in a control request."""

    exit_code = 2


class ConfigError(UsageError):
    """A config file is wrong; the text names the key, the value and the choices."""


class MissingDependencyError(LocalError):
    """Something that is not installed, or a platform that is not supported."""

    exit_code = 3


class UnreachableError(MeshError):
    """Nothing answers there, or no way leads there."""

    exit_code = 4


class RefusedError(RemoteError):
    """A policy (ours or a peer's) says no."""

    exit_code = 5


class TimedOutError(MeshError):
    """No answer in time."""

    exit_code = 6


class CodecError(RemoteError):
    """Bytes that are not a message; the only error that decoding raises."""


class EncodeError(LocalError):
    """A message holds a value that its declaration does not allow, or its buffer is too small."""


class HandshakeError(RemoteError):
    """A link handshake failed; the text starts with the step, as in `act two: bad tag`."""


class ProtocolError(RemoteError):
    """An authenticated peer broke the protocol; its connection is closed."""


class LinkLostError(UnreachableError):
    """A connection to a neighbour has ended."""


class StorageError(LocalError):
    """The disk did not do what it was asked (full, failing, not writable)."""


class Reason(IntEnum):
    """Why a circuit was refused or ended: the first byte of an error onion (docs/wire-format.md §3).

    1–4 also travel bare in FAILED. A relay reports its neighbour's bare 1–4 as `NEXT_…`.
    """

    BAD_ONION = 1
    WRONG_EPOCH = 2
    REPLAY = 3
    BUSY = 4
    CLOCK_SKEW = 5
    NO_LINK = 6
    REFUSED = 7
    TIMEOUT = 8
    LINK_LOST = 9
    NOT_UNDERSTOOD = 10
    UNKNOWN_SERVICE = 11
    IDLE = 12
    EXPIRED = 13
    BLINDED = 14
    NEXT_BAD_ONION = 17
    NEXT_WRONG_EPOCH = 18
    NEXT_REPLAY = 19
    NEXT_BUSY = 20
    FORGED = 32
    """Never on the wire: what the origin says of an answer that nobody of the route can have made."""


class CircuitError(UnreachableError):
    """A circuit could not be set up, or ended.

    `hop` is the index of the hop that says so (0 is the neighbour), None if unknown;
    `reason` what it said.
    """

    def __init__(self, text: str, reason: Reason, hop: int | None = None) -> None:
        super().__init__(text)
        self.reason = reason
        self.hop = hop

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """A refusal exits 5, a time-out 6, all else 4 (unreachable)."""
        return {Reason.REFUSED: 5, Reason.TIMEOUT: 6}.get(self.reason, 4)


class Drop(IntEnum):
    """What became of a cell; all but NONE are counted by name and are nobody's exception."""

    NONE = 0
    UNKNOWN_LABEL = 1
    REPLAYED = 2
    TOO_OLD = 3
    JUMPED = 4
    QUEUE_FULL = 5
    BAD_TAG = 6
    NOT_OPEN = 7
    TOO_LARGE = 8
    MALFORMED = 9
    LATE = 10
    RATE = 11
    NO_ROOM = 12
    STOOD = 13
