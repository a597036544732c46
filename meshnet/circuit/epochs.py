"""Onion keys that change every six hours, so that who gets a node's keys later opens no onion of before.

    epoch = (unix // 21,600) mod 65,535 + 1          0 stands for the identity key   (docs/wire-format.md §3)

A ring has two such keys: that of the epoch which the clock shows, and the one in use before it, for origins
that have not heard of the change. So a key opens onions for twelve hours of running, and is then forgotten.
A clock that jumps makes a key for where it lands; when it comes back, the key it left is still there.

Stores nothing, reads no clock, and states no key to anybody: `roll` and `recall` say what has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from attrs import field, frozen

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.limits import EPOCH_SECONDS, EPOCHS

IDENTITY: Final = 0
"""The epoch of onions that are for a node's identity key, which never changes."""

_HALF: Final = EPOCHS // 2


@frozen
class OnionKey:
    """An onion key as others know it."""

    epoch: int
    key: PublicKey


@frozen
class EpochKey:
    """An onion key of our own; `epoch` is 1 to 65,535."""

    epoch: int
    secret: SecretKey = field(repr=False)

    @property
    def stated(self) -> OnionKey:
        """What others may know of it."""
        return OnionKey(self.epoch, self.secret.public)


@frozen
class Change:
    """What a ring made, and what it forgot and nobody may keep."""

    made: EpochKey | None = None
    forgotten: tuple[EpochKey, ...] = ()


def epoch_at(unix: float) -> int:
    """The epoch at a time, 1 to 65,535; the numbers come again after 44 years."""
    return int(unix // EPOCH_SECONDS) % EPOCHS + 1


def behind(epoch: int, unix: float) -> int:
    """How many epochs `epoch` lies behind the one at `unix`; negative ahead of it."""
    return (epoch_at(unix) - epoch + _HALF) % EPOCHS - _HALF


def fresh(epoch: int, unix: float) -> bool:
    """Whether the node that states a key of this epoch still has it: by our clock it is that of now, the one
    before, or the next, since clocks differ by up to two hours."""
    return epoch != IDENTITY and abs(behind(epoch, unix)) <= 1


class KeyRing:
    """The keys that open onions at one node. Empty but for the identity's until `recall` or `roll`."""

    __slots__ = ("_before", "_current", "_recalled", "_secrets")

    def __init__(self, identity: SecretKey) -> None:
        self._current: EpochKey | None = None
        self._before: EpochKey | None = None
        self._recalled = frozenset({IDENTITY})
        self._secrets = {IDENTITY: identity}

    def find(self, epoch: int) -> SecretKey | None:
        """What opens onions of this epoch; None if we have no key of it."""
        return self._secrets.get(epoch)

    def recalled(self, epoch: int) -> bool:
        """Whether the key of this epoch is from an earlier run, as the identity's is: onions for it may have
        been opened then."""
        return epoch in self._recalled

    @property
    def current(self) -> EpochKey | None:
        """The key to be stated; None before the first `roll`."""
        return self._current

    @property
    def keys(self) -> tuple[EpochKey, ...]:
        """Those that change, the current one first."""
        return tuple(key for key in (self._current, self._before) if key is not None)

    def recall(self, kept: Sequence[EpochKey], unix: float) -> Change:
        """Takes back the keys of an earlier run, into an empty ring: that of now, the one before, and none
        that is older. Those ahead of the clock are not old: it may be set right yet."""
        living: dict[int, EpochKey] = {}
        for key in sorted(kept, key=lambda key: _age(key, unix)):
            if behind(key.epoch, unix) <= 1 and len(living) < 2:
                living.setdefault(key.epoch, key)
        self._hold(*living.values())
        self._recalled |= living.keys()
        return Change(forgotten=tuple(key for key in kept if living.get(key.epoch) is not key))

    def roll(self, unix: float, random: Callable[[int], bytes]) -> Change:
        """Makes the key of `unix` the current one, drawn from `random` unless the ring has it; the one that
        was current stays, any other goes."""
        epoch = epoch_at(unix)
        if self._current is not None and self._current.epoch == epoch:
            return _NOTHING
        if self._before is not None and self._before.epoch == epoch:  # the clock has come back
            self._hold(self._before, self._current)
            return _NOTHING
        made = EpochKey(epoch, SecretKey.draw(random))
        forgotten = () if self._before is None else (self._before,)
        self._hold(made, self._current)
        return Change(made, forgotten)

    def _hold(self, current: EpochKey | None = None, before: EpochKey | None = None) -> None:
        self._current, self._before = current, before
        identity = self._secrets[IDENTITY]
        self._secrets = {IDENTITY: identity, **{key.epoch: key.secret for key in self.keys}}


def _age(key: EpochKey, unix: float) -> int:
    """Sorts keys by how likely onions for them are: now, one epoch ago, then the nearest ahead."""
    age = behind(key.epoch, unix)
    return age if age >= 0 else 1 - age


_NOTHING: Final = Change()
