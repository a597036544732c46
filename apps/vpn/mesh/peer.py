"""The packets between this node and one other: called when there are some, until they have stopped.

    idle ──packet──▶ calling ──answered──▶ joined ──quiet, alone──▶ idle
                        │ failed              │ broke                ▲
                        └───────▶ resting ◀───┘          rested ─────┘

Either side may call. Where both have, packets go over the call of the smaller key, from both sides; the other
call is given up. A call that comes to nothing is followed by a rest, longer each time, in which packets are
answered as unreachable at once.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Protocol

from attrs import define
from automat import TypeMachineBuilder

from apps.vpn.tun.flow import PacketFlow
from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError
from meshnet.streams import Stream

FIRST_REST: Final = 1.0
LONGEST_REST: Final = 30.0
STANDS: Final = 5.0
"""Seconds that a call lives which did not come to nothing."""
GIVEN_UP: Final = 5.0
"""Seconds after which the call that is not used is ended: what is on its way there arrives."""


class PeerInputs(Protocol):
    """What happens to it."""

    def packet(self) -> None:
        """A packet waits for this node."""

    def answered(self, stream: Stream) -> None:
        """Our call has its stream; whether the other side takes it is not known yet."""

    def failed(self, why: MeshError) -> None:
        """Our call came to nothing."""

    def called(self, stream: Stream) -> None:
        """The other side calls."""

    def alone(self) -> None:
        """Both calls are over."""

    def broke(self, why: MeshError) -> None:
        """Our call was over as soon as it stood, refused as a rule, and there is no other."""

    def quiet(self) -> None:
        """Nothing has passed for long."""

    def rested(self) -> None:
        """The rest is over."""

    def stop(self) -> None:
        """The interface goes down."""


@define(eq=False)
class PeerCore:
    """What a peer works with.

    `dial` begins a call, `later` runs a call after seconds and returns what cancels it, `refuse` answers what
    waits as unreachable. `smaller` is true if our key is the smaller one. `theirs` and `ours` are the streams
    of their call and ours, `since` is when ours stood.
    """

    key: PublicKey
    address: bytes
    flow: PacketFlow
    smaller: bool
    dial: Callable[[PeerCore], None]
    later: Callable[[float, Callable[[], None]], Callable[[], None]]
    refuse: Callable[[PacketFlow], None]
    state: str = "idle"
    ours: Stream | None = None
    theirs: Stream | None = None
    via: tuple[PublicKey, ...] = ()
    since: float = 0.0
    why: MeshError | None = None
    rest: float = FIRST_REST
    calls: int = 0
    _cancel: Callable[[], None] | None = None
    _used: Stream | None = None
    _aside: Stream | None = None

    @property
    def stream(self) -> Stream | None:
        """The one that packets go over."""
        first, second = (self.ours, self.theirs) if self.smaller else (self.theirs, self.ours)
        return first or second

    def settle(self) -> None:
        """Packets go over the right stream; the other is only listened to, and given up if it is ours."""
        used = self.stream
        if used is not None and used is not self._used:
            self._used = used
            used.carry(self.flow, self.flow)
            self.flow.carry(used)
        other = self.theirs if used is self.ours else self.ours
        if other is not None and other is not self._aside:
            self._aside = other
            other.carry(_NOTHING, self.flow)
            if other is self.ours:
                self.later(GIVEN_UP, other.reset)

    def arm(self, inputs: PeerInputs) -> None:
        """Rests, longer each time."""
        self._cancel = self.later(self.rest, inputs.rested)
        self.rest = min(self.rest * 2, LONGEST_REST)

    def disarm(self) -> None:
        """Rests no more."""
        if self._cancel is not None:
            self._cancel()
            self._cancel = None

    def hang_up(self) -> None:
        """Ends both calls."""
        streams = [each for each in (self.ours, self.theirs) if each is not None]
        self.ours = self.theirs = self._used = self._aside = None
        for stream in streams:
            stream.reset()

    def drop(self, stream: Stream) -> bool:
        """A stream is over; whether it was one of ours that was in use, and none is left."""
        if stream is self.ours:
            self.ours = None
        elif stream is self.theirs:
            self.theirs = None
        else:
            return False
        if self._used is stream:
            self._used = None
            self.flow.uncarry()
        self.settle()
        return self.stream is None


class _Nothing:
    """A source without packets."""

    def waiting(self) -> int:
        return 0

    def accompany(self) -> None:
        pass

    def pour(self, room: memoryview, now: float) -> int:
        return 0


_NOTHING: Final = _Nothing()

_builder = TypeMachineBuilder(PeerInputs, PeerCore)
_idle = _builder.state("idle")
_calling = _builder.state("calling")
_joined = _builder.state("joined")
_resting = _builder.state("resting")
_stopped = _builder.state("stopped")


@_idle.upon(PeerInputs.packet).to(_calling)
def _call(inputs: PeerInputs, core: PeerCore) -> None:
    core.state = "calling"
    core.calls += 1
    core.dial(core)


@_idle.upon(PeerInputs.answered).to(_joined)
@_calling.upon(PeerInputs.answered).to(_joined)
@_resting.upon(PeerInputs.answered).to(_joined)
@_joined.upon(PeerInputs.answered).to(_joined)
def _answered(inputs: PeerInputs, core: PeerCore, stream: Stream) -> None:
    core.state = "joined"
    core.disarm()
    old, core.ours = core.ours, stream
    if old is not None:
        old.reset()
    core.settle()


@_idle.upon(PeerInputs.called).to(_joined)
@_calling.upon(PeerInputs.called).to(_joined)
@_resting.upon(PeerInputs.called).to(_joined)
@_joined.upon(PeerInputs.called).to(_joined)
def _called(inputs: PeerInputs, core: PeerCore, stream: Stream) -> None:
    core.state = "joined"
    core.disarm()
    core.rest, core.why = FIRST_REST, None
    old, core.theirs = core.theirs, stream
    if old is not None:
        old.reset()
    core.settle()


@_calling.upon(PeerInputs.failed).to(_resting)
@_joined.upon(PeerInputs.broke).to(_resting)
def _failed(inputs: PeerInputs, core: PeerCore, why: MeshError) -> None:
    core.state = "resting"
    core.why = why
    core.refuse(core.flow)
    core.arm(inputs)


@_resting.upon(PeerInputs.rested).to(_idle)
def _rested(inputs: PeerInputs, core: PeerCore) -> None:
    core.state = "idle"


@_joined.upon(PeerInputs.alone).to(_idle)
def _alone(inputs: PeerInputs, core: PeerCore) -> None:
    core.state = "idle"
    if core.flow.waiting():
        inputs.packet()


@_joined.upon(PeerInputs.quiet).to(_idle)
def _quiet(inputs: PeerInputs, core: PeerCore) -> None:
    core.state = "idle"
    core.hang_up()


@_idle.upon(PeerInputs.stop).to(_stopped)
@_calling.upon(PeerInputs.stop).to(_stopped)
@_joined.upon(PeerInputs.stop).to(_stopped)
@_resting.upon(PeerInputs.stop).to(_stopped)
def _stop(inputs: PeerInputs, core: PeerCore) -> None:
    core.state = "stopped"
    core.disarm()
    core.hang_up()
    core.flow.stop()


@_stopped.upon(PeerInputs.answered).to(_stopped)
@_stopped.upon(PeerInputs.called).to(_stopped)
def _too_late(inputs: PeerInputs, core: PeerCore, stream: Stream) -> None:
    stream.reset()


_idle.upon(PeerInputs.failed).loop().returns(None)
_idle.upon(PeerInputs.quiet).loop().returns(None)
_calling.upon(PeerInputs.packet).loop().returns(None)
_calling.upon(PeerInputs.quiet).loop().returns(None)
_joined.upon(PeerInputs.packet).loop().returns(None)
_joined.upon(PeerInputs.failed).loop().returns(None)
_resting.upon(PeerInputs.packet).loop().returns(None)
_resting.upon(PeerInputs.failed).loop().returns(None)
_resting.upon(PeerInputs.quiet).loop().returns(None)
_stopped.upon(PeerInputs.packet).loop().returns(None)
_stopped.upon(PeerInputs.failed).loop().returns(None)
_stopped.upon(PeerInputs.alone).loop().returns(None)
_stopped.upon(PeerInputs.broke).loop().returns(None)
_stopped.upon(PeerInputs.quiet).loop().returns(None)
_stopped.upon(PeerInputs.rested).loop().returns(None)
_stopped.upon(PeerInputs.stop).loop().returns(None)

make_peer = _builder.build()
