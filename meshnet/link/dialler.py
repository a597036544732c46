"""Keeps one lane to a configured neighbour connected: dials, waits, dials again.

The waiting time doubles from half a second to a minute, with jitter, and starts anew after a success. A
neighbour with several addresses is tried at each in turn before the long wait; the one that worked last is
tried first. A connection that lost against the neighbour's own one counts as success
(docs/wire-format.md §1).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from attrs import define, field
from automat import TypeMachineBuilder

from meshnet.errors import MeshError

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 60.0
NEXT_ADDRESS: Final = 0.05  # seconds before the next address of the same neighbour


class DiallerInputs(Protocol):
    """What happens to a dialler."""

    def start(self) -> None:
        """Dial now."""

    def standing(self) -> None:
        """The lane is up, whoever dialled it."""

    def failed(self, why: MeshError) -> None:
        """The attempt came to nothing, or the lane has lost its connection."""

    def waited(self) -> None:
        """The time to wait is over."""

    def hurry(self) -> None:
        """The world has changed: do not wait any longer."""

    def stop(self) -> None:
        """Dial no more."""


@define(eq=False)
class DiallerCore:
    """What a dialler works with: `dial` begins an attempt, `later` runs a call after seconds and returns
    what cancels it, `jitter` gives a number from 0 to 1. `place` of `places` is the address to dial."""

    dial: Callable[[], None]
    later: Callable[[float, Callable[[], None]], Callable[[], None]]
    jitter: Callable[[], float]
    places: int = 1
    place: int = 0
    wait: float = FIRST_WAIT
    why: MeshError | None = None
    attempts: int = 0
    _tried: int = field(default=0, init=False)
    _cancel: Callable[[], None] | None = field(default=None, alias="cancel")

    def next_place(self) -> None:
        """This address did not do."""
        self.place = (self.place + 1) % self.places
        self._tried += 1

    def arm(self, inputs: DiallerInputs) -> None:
        """Waits, longer each time that all addresses were tried."""
        wait = NEXT_ADDRESS
        if not 0 < self._tried < self.places:
            self._tried = 0
            wait, self.wait = self.wait, min(self.wait * 2, LONGEST_WAIT)
        self._cancel = self.later(wait * (0.5 + self.jitter()), inputs.waited)

    def disarm(self) -> None:
        """Waits no more."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def renew(self) -> None:
        """The next failure is the first."""
        self.disarm()
        self.wait, self._tried = FIRST_WAIT, 0


_builder = TypeMachineBuilder(DiallerInputs, DiallerCore)
_idle = _builder.state("idle")
_dialling = _builder.state("dialling")
_standing = _builder.state("standing")
_waiting = _builder.state("waiting")
_stopped = _builder.state("stopped")


@_idle.upon(DiallerInputs.start).to(_dialling)
@_waiting.upon(DiallerInputs.waited).to(_dialling)
def _attempt(inputs: DiallerInputs, core: DiallerCore) -> None:
    core.attempts += 1
    core.dial()


@_waiting.upon(DiallerInputs.hurry).to(_dialling)
def _hurry(inputs: DiallerInputs, core: DiallerCore) -> None:
    core.renew()
    core.attempts += 1
    core.dial()


@_dialling.upon(DiallerInputs.standing).to(_standing)
@_waiting.upon(DiallerInputs.standing).to(_standing)
def _stands(inputs: DiallerInputs, core: DiallerCore) -> None:
    core.renew()
    core.why = None


@_dialling.upon(DiallerInputs.failed).to(_waiting)
def _failed(inputs: DiallerInputs, core: DiallerCore, why: MeshError) -> None:
    core.why = why
    core.next_place()
    core.arm(inputs)


@_standing.upon(DiallerInputs.failed).to(_waiting)
def _lost(inputs: DiallerInputs, core: DiallerCore, why: MeshError) -> None:
    core.why = why
    core.arm(inputs)


@_idle.upon(DiallerInputs.stop).to(_stopped)
@_dialling.upon(DiallerInputs.stop).to(_stopped)
@_standing.upon(DiallerInputs.stop).to(_stopped)
@_waiting.upon(DiallerInputs.stop).to(_stopped)
def _stop(inputs: DiallerInputs, core: DiallerCore) -> None:
    core.disarm()


_idle.upon(DiallerInputs.standing).loop().returns(None)
_idle.upon(DiallerInputs.failed).loop().returns(None)
_idle.upon(DiallerInputs.hurry).loop().returns(None)
_dialling.upon(DiallerInputs.hurry).loop().returns(None)
_standing.upon(DiallerInputs.standing).loop().returns(None)
_standing.upon(DiallerInputs.hurry).loop().returns(None)
_waiting.upon(DiallerInputs.failed).loop().returns(None)
_stopped.upon(DiallerInputs.start).loop().returns(None)
_stopped.upon(DiallerInputs.standing).loop().returns(None)
_stopped.upon(DiallerInputs.waited).loop().returns(None)
_stopped.upon(DiallerInputs.hurry).loop().returns(None)
_stopped.upon(DiallerInputs.stop).loop().returns(None)
_stopped.upon(DiallerInputs.failed).loop().returns(None)

make_dialler = _builder.build()
