"""Onions seen before: each is acted on once (docs/wire-format.md §3).

An onion is known by the first 16 bytes of its hmac. Tags are kept by expiry, in slots of 300 s, and a slot
is forgotten when its onions could not be accepted any more. A tag is in the log before its CREATE is acted
on; the log makes it durable within a second. When the log was incomplete at the start, all onions that may
have been seen before are refused. A full set refuses; it never forgets early.
"""

from __future__ import annotations

from typing import Final, Protocol

from meshnet.errors import Reason, StorageError
from meshnet.limits import (
    EXPIRY_AHEAD,
    EXPIRY_PAST,
    EXPIRY_STEP,
    REPLAY_IN_ALL,
    REPLAY_PER_NEIGHBOUR,
    REPLAY_SKEWED,
)

TAG: Final = 16
_SKEWED_SECONDS: Final = EXPIRY_AHEAD + EXPIRY_PAST


class ReplayLog(Protocol):
    """Where tags outlive the process."""

    def load(self, unix: float) -> tuple[dict[int, set[bytes]], int]:
        """All tags by slot, and the unix time up to which expiries must be refused because tags may be
        missing (0: none are). Called once, before all else. Raises StorageError."""

    def append(self, slot: int, tag: bytes) -> None:
        """Adds a tag; written when this returns, durable after the next sync. Raises StorageError."""

    def drop(self, slot: int) -> None:
        """Forgets a slot. Raises StorageError."""


class NoLog:
    """A `ReplayLog` that keeps nothing: for tests and for keys that live only as long as the process."""

    def load(self, unix: float) -> tuple[dict[int, set[bytes]], int]:
        """Nothing is missing."""
        return {}, 0

    def append(self, slot: int, tag: bytes) -> None:
        """Nothing is kept."""

    def drop(self, slot: int) -> None:
        """Nothing is there."""


class _Generation:
    """The tags of one slot, and how many each neighbour brought."""

    __slots__ = ("counts", "tags")

    def __init__(self, tags: set[bytes]) -> None:
        self.tags = tags
        self.counts: dict[bytes, int] = {}


def slot_of(expiry: int) -> int:
    """The slot that an onion with this expiry (unix seconds) is remembered in."""
    return -(-expiry // EXPIRY_STEP)


class Replays:
    """All onions that this node has acted on and that have not expired."""

    def __init__(self, log: ReplayLog, unix: float) -> None:
        self._log = log
        self.fault: StorageError | None = None
        """Why the log did not take the last onion, and that was refused; None when it did."""
        tags, self.refused_until = log.load(unix)
        self._slots = {slot: _Generation(found) for slot, found in tags.items()}
        self._size = sum(len(found) for found in tags.values())
        self._oldest = 0  # the first slot that `settle` left when it was called last
        self._forgotten = 0  # slots up to this one are over for good, also if the clock goes back
        self._skewed: set[bytes] = set()
        self._skewed_before: set[bytes] = set()  # the half hour before
        self._skewed_since = unix
        self.settle(unix)

    def __len__(self) -> int:
        return self._size

    def timely(self, expiry: int, unix: float) -> bool:
        """Whether an onion with this expiry may be accepted now."""
        return unix - EXPIRY_PAST <= expiry <= unix + EXPIRY_AHEAD and slot_of(expiry) > self._forgotten

    def refused(self, expiry: int, tag: bytes, *, old_key: bool = True) -> Reason | None:
        """Why an onion is not worth peeling: REPLAY, or BUSY after a start without all tags, unless the key
        that it is for was made since then, which no onion of before can be for."""
        generation = self._slots.get(slot_of(expiry))
        if generation is not None and tag in generation.tags:
            return Reason.REPLAY
        if tag in self._skewed or tag in self._skewed_before:
            return Reason.REPLAY
        return Reason.BUSY if old_key and expiry <= self.refused_until else None

    def admit(self, expiry: int, tag: bytes, peer: bytes) -> Reason | None:
        """Remembers a timely onion that `peer` brought. Else REPLAY, or BUSY: full, or the log failed."""
        slot = slot_of(expiry)
        generation = self._slots.get(slot)
        if generation is None:
            generation = self._slots[slot] = _Generation(set())
        if tag in generation.tags:
            return Reason.REPLAY
        if self._size >= REPLAY_IN_ALL or self.brought_by(peer) >= REPLAY_PER_NEIGHBOUR:
            return Reason.BUSY
        generation.tags.add(tag)
        generation.counts[peer] = generation.counts.get(peer, 0) + 1
        self._size += 1
        try:
            self._log.append(slot, tag)
        except StorageError as error:
            self.fault = error
            return Reason.BUSY
        self.fault = None
        return None

    def admit_skewed(self, tag: bytes, unix: float) -> Reason | None:
        """The same for an onion that is not timely. Its error onion must not be made twice (one-time
        stream); these tags are only kept for half an hour to an hour and not logged."""
        if abs(unix - self._skewed_since) >= _SKEWED_SECONDS:
            self._skewed, self._skewed_before = set(), self._skewed
            self._skewed_since = unix
        if tag in self._skewed or tag in self._skewed_before:
            return Reason.REPLAY
        if len(self._skewed) >= REPLAY_SKEWED:
            return Reason.BUSY
        self._skewed.add(tag)
        return None

    def brought_by(self, peer: bytes) -> int:
        """How many remembered onions came from `peer` since the start."""
        return sum(generation.counts.get(peer, 0) for generation in self._slots.values())

    def settle(self, unix: float) -> None:
        """Forgets slots that are over; call it now and then, by whatever clock there is."""
        oldest = slot_of(int(unix) - EXPIRY_PAST)
        if oldest == self._oldest:
            return
        self._oldest = oldest
        # A clock that was ahead at the start is no reason to refuse for longer than after any start.
        self.refused_until = min(self.refused_until, int(unix) + EXPIRY_AHEAD)
        for slot in [slot for slot in self._slots if slot < oldest]:
            self._size -= len(self._slots.pop(slot).tags)
            self._forgotten = max(self._forgotten, slot)
            try:
                self._log.drop(slot)
            except StorageError:
                pass  # the file is dropped at the next start
