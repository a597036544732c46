"""The life of a tunnel, from somebody wanting it to everything being as before.

    down ─up─▶ dialling ─answered─▶ making ─made─▶ up ─lost─▶ dialling
    dialling ─failed─▶ waiting ─waited─▶ dialling
    dialling ─refused─▶ ending,  ─held─▶ blocked ─up─▶ dialling
    anything ─down─▶ ending ─undone─▶ down

While it dials again everything that leads packets into the tunnel stands, so nothing goes another way; who
gave up on the exit with a kill switch is blocked until somebody says `up` or `down`. The machine decides
nothing else: what is made and undone is told to the core, whose owner answers with the next input.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from attrs import define, field
from automat import TypeMachineBuilder

from meshnet.errors import MeshError

FIRST_WAIT: Final = 0.5
LONGEST_WAIT: Final = 8.0
"""Seconds between attempts; short, since nothing goes out meanwhile."""


class TunnelInputs(Protocol):
    """What happens to a tunnel."""

    def up(self) -> None:
        """Somebody wants it."""

    def answered(self) -> None:
        """The exit has given a lease."""

    def made(self) -> None:
        """The system leads packets into it."""

    def lost(self, why: MeshError) -> None:
        """The stream to the exit is over, or the interface is gone."""

    def failed(self, why: MeshError) -> None:
        """An attempt came to nothing; another may not."""

    def refused(self, why: MeshError) -> None:
        """No attempt will do, and nothing has to be held back."""

    def held(self, why: MeshError) -> None:
        """No attempt will do, and the kill switch holds: also where it does since an earlier run."""

    def waited(self) -> None:
        """The time to wait is over."""

    def hurry(self) -> None:
        """The world has changed: do not wait any longer."""

    def down(self) -> None:
        """Somebody wants it no more."""

    def undone(self) -> None:
        """All is as before."""


@define(eq=False)
class TunnelCore:
    """What a tunnel's life works with. `dial` begins an attempt and `hang_up` ends it or its stream; `make`
    has the system changed and `unmake` changed back; `stands` is told when packets pass; `later` runs a call
    after seconds and returns what cancels it, `jitter` gives a number from 0 to 1. `why` is what went
    wrong last, until it is up."""

    dial: Callable[[], None]
    hang_up: Callable[[], None]
    make: Callable[[], None]
    unmake: Callable[[], None]
    stands: Callable[[], None]
    later: Callable[[float, Callable[[], None]], Callable[[], None]]
    jitter: Callable[[], float]
    state: str = "down"
    attempts: int = 0
    wait: float = FIRST_WAIT
    why: MeshError | None = None
    _cancel: Callable[[], None] | None = field(default=None, alias="cancel")

    def begin(self) -> None:
        """An attempt."""
        self.disarm()
        self.state = "dialling"
        self.attempts += 1
        self.dial()

    def arm(self, inputs: TunnelInputs) -> None:
        """Waits, longer each time."""
        self.state = "waiting"
        wait, self.wait = self.wait, min(self.wait * 2, LONGEST_WAIT)
        self._cancel = self.later(wait * (0.5 + self.jitter()), inputs.waited)

    def disarm(self) -> None:
        """Waits no more."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None


_builder = TypeMachineBuilder(TunnelInputs, TunnelCore)
_down = _builder.state("down")
_dialling = _builder.state("dialling")
_waiting = _builder.state("waiting")
_making = _builder.state("making")
_up = _builder.state("up")
_blocked = _builder.state("blocked")
_ending = _builder.state("ending")


@_down.upon(TunnelInputs.up).to(_dialling)
@_blocked.upon(TunnelInputs.up).to(_dialling)
def _begin(inputs: TunnelInputs, core: TunnelCore) -> None:
    core.attempts, core.wait, core.why = 0, FIRST_WAIT, None
    core.begin()


@_waiting.upon(TunnelInputs.waited).to(_dialling)
def _again(inputs: TunnelInputs, core: TunnelCore) -> None:
    core.begin()


@_waiting.upon(TunnelInputs.hurry).to(_dialling)
def _hurry(inputs: TunnelInputs, core: TunnelCore) -> None:
    core.wait = FIRST_WAIT
    core.begin()


@_dialling.upon(TunnelInputs.answered).to(_making)
def _answered(inputs: TunnelInputs, core: TunnelCore) -> None:
    core.state = "making"
    core.make()


@_making.upon(TunnelInputs.made).to(_up)
def _made(inputs: TunnelInputs, core: TunnelCore) -> None:
    core.state, core.wait, core.attempts, core.why = "up", FIRST_WAIT, 0, None
    core.stands()


@_up.upon(TunnelInputs.lost).to(_dialling)
def _lost(inputs: TunnelInputs, core: TunnelCore, why: MeshError) -> None:
    core.why = why
    core.hang_up()
    core.begin()


@_dialling.upon(TunnelInputs.failed).to(_waiting)
@_making.upon(TunnelInputs.failed).to(_waiting)
def _failed(inputs: TunnelInputs, core: TunnelCore, why: MeshError) -> None:
    core.why = why
    core.hang_up()
    core.arm(inputs)


@_dialling.upon(TunnelInputs.refused).to(_ending)
@_making.upon(TunnelInputs.refused).to(_ending)
def _refused(inputs: TunnelInputs, core: TunnelCore, why: MeshError) -> None:
    core.why = why
    _finish(core)


@_dialling.upon(TunnelInputs.held).to(_blocked)
@_making.upon(TunnelInputs.held).to(_blocked)
@_down.upon(TunnelInputs.held).to(_blocked)
def _held(inputs: TunnelInputs, core: TunnelCore, why: MeshError) -> None:
    core.state, core.why = "blocked", why
    core.hang_up()


@_down.upon(TunnelInputs.down).to(_ending)
@_dialling.upon(TunnelInputs.down).to(_ending)
@_waiting.upon(TunnelInputs.down).to(_ending)
@_making.upon(TunnelInputs.down).to(_ending)
@_up.upon(TunnelInputs.down).to(_ending)
@_blocked.upon(TunnelInputs.down).to(_ending)
def _end(inputs: TunnelInputs, core: TunnelCore) -> None:
    core.why = None
    _finish(core)


def _finish(core: TunnelCore) -> None:
    core.state = "ending"
    core.disarm()
    core.hang_up()
    core.unmake()


@_ending.upon(TunnelInputs.undone).to(_down)
def _undone(inputs: TunnelInputs, core: TunnelCore) -> None:
    core.state = "down"


_STATES: Final = (_down, _dialling, _waiting, _making, _up, _blocked, _ending)
for _input, _taken in (
    (TunnelInputs.up, (_down, _blocked)),
    (TunnelInputs.answered, (_dialling,)),
    (TunnelInputs.made, (_making,)),
    (TunnelInputs.lost, (_up,)),
    (TunnelInputs.failed, (_dialling, _making)),
    (TunnelInputs.refused, (_dialling, _making)),
    (TunnelInputs.held, (_dialling, _making, _down)),
    (TunnelInputs.waited, (_waiting,)),
    (TunnelInputs.hurry, (_waiting,)),
    (TunnelInputs.down, tuple(state for state in _STATES if state is not _ending)),
    (TunnelInputs.undone, (_ending,)),
):
    for _state in _STATES:
        if _state not in _taken:  # what comes late, or twice, changes nothing
            _state.upon(_input).loop().returns(None)

tunnel_life = _builder.build()
"""A tunnel that is down, with this core."""
