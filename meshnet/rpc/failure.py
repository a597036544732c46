"""Why a call failed: codes on the wire, and the errors they are on both sides.

    FAIL      code u16 · UTF-8 text, to the end

What an implementation raises on purpose travels: exactly RefusedError, UsageError, UnreachableError and
TimedOutError with their sentence, a `CallError` with its own code from 256 on. Of their subclasses only the
kind travels, since their texts speak of this node's own affairs; of anything else only that it happened.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Final

from meshnet.errors import (
    MeshError,
    ProtocolError,
    RefusedError,
    RemoteError,
    TimedOutError,
    UnreachableError,
    UsageError,
)
from meshnet.limits import RPC_TEXT


class Fault(IntEnum):
    """Codes of FAIL and CLOSE; those of applications start at `APPLICATION`."""

    NONE = 0  # CLOSE: nothing is wrong, the connection is not needed any more
    CANCELLED = 1  # the caller gave up
    DEADLINE = 2  # not done in the time that the caller gave
    NOT_OFFERED = 3  # no such service or method, or not for this caller
    SCHEMA = 4  # declared otherwise on the two sides
    INTERNAL = 5  # the implementation failed; no text
    REFUSED = 6  # RefusedError
    USAGE = 7  # UsageError: the request makes no sense
    UNREACHABLE = 8  # UnreachableError: what the service itself needs does not answer
    TIMED_OUT = 9  # TimedOutError: of something the service itself waited for
    BUSY = 10  # too much at a time
    PROTOCOL = 11  # CLOSE: bytes that break the rules


APPLICATION: Final = 256
"""The first code that applications may use for their own."""


class CallError(RemoteError):
    """A call failed with a code of the application; raise it in an implementation with `code` ≥ 256.

    On the caller's side `code` is what came.
    """

    def __init__(self, text: str, code: int = APPLICATION) -> None:
        super().__init__(text)
        self.code = code


class InternalError(RemoteError):
    """The implementation on the other side failed; why stands in that node's log only."""


class NotOfferedError(RefusedError):
    """The other side does not offer this service or method, or not to us."""


class SchemaError(RemoteError):
    """A method is declared otherwise on the other side."""


class BusyError(RefusedError):
    """Too many calls at a time; try again later."""


class CallLostError(UnreachableError):
    """The connection ended before the answer; whether the call was carried out is unknown."""


class CancelledCallError(MeshError):
    """The call was cancelled."""


class BrokenPeerError(ProtocolError):
    """The other side broke the rules; the connection is over."""


_TRAVELS: Final[dict[type[BaseException], int]] = {
    RefusedError: Fault.REFUSED,
    UsageError: Fault.USAGE,
    UnreachableError: Fault.UNREACHABLE,
    TimedOutError: Fault.TIMED_OUT,
    BusyError: Fault.BUSY,
    NotOfferedError: Fault.NOT_OFFERED,
    CancelledCallError: Fault.CANCELLED,
}
_KINDS: Final[dict[int, type[MeshError]]] = {
    Fault.DEADLINE: TimedOutError,
    Fault.NOT_OFFERED: NotOfferedError,
    Fault.SCHEMA: SchemaError,
    Fault.INTERNAL: InternalError,
    Fault.REFUSED: RefusedError,
    Fault.USAGE: UsageError,
    Fault.UNREACHABLE: UnreachableError,
    Fault.TIMED_OUT: TimedOutError,
    Fault.BUSY: BusyError,
    Fault.CANCELLED: CancelledCallError,
}
_SAYS: Final[dict[int, str]] = {
    Fault.CANCELLED: "was given up",
    Fault.DEADLINE: "was not answered in time",
    Fault.NOT_OFFERED: "is not offered by the other side",
    Fault.SCHEMA: "is declared otherwise on the other side; run the same version on both",
    Fault.INTERNAL: "failed on the other side",
    Fault.REFUSED: "was refused",
    Fault.USAGE: "was refused as a wrong request",
    Fault.UNREACHABLE: "failed: what it needs does not answer",
    Fault.TIMED_OUT: "failed: what it needs did not answer in time",
    Fault.BUSY: "was refused: too much is going on there",
}


def to_wire(error: BaseException) -> tuple[int, str]:
    """Code and text that the caller is told of what an implementation raised."""
    kind = type(error)
    if kind in _TRAVELS:
        return _TRAVELS[kind], str(error)
    if isinstance(error, CallError):
        return max(APPLICATION, min(error.code, 0xFFFF)), str(error)
    for base in kind.__mro__:
        if base in _TRAVELS:
            return _TRAVELS[base], ""
    return Fault.INTERNAL, ""


def from_wire(code: int, text: str, what: str) -> MeshError:
    """The error of the call `what` (service.method) for its caller."""
    if code >= APPLICATION:
        return CallError(text or f"{what} failed with code {code}", code)
    kind = _KINDS.get(code)
    if kind is None:
        return RemoteError(text or f"{what} failed with the unknown code {code}")
    return kind(text or f"{what} {_SAYS[code]}.")


def said(text: str) -> bytes:
    """A text as it travels: UTF-8, cut at a character to RPC_TEXT bytes."""
    return text.encode(errors="replace")[:RPC_TEXT].decode(errors="ignore").encode()


def heard(data: bytes) -> str:
    """A text as it is shown: what cannot be printed is replaced, so that it cannot play with a terminal."""
    text = data[:RPC_TEXT].decode(errors="replace")
    return "".join(each if each.isprintable() else "\N{REPLACEMENT CHARACTER}" for each in text)
