"""A circuit that leads on through this node: its life, from CREATE to teardown.

    opening ── CREATED ──→ open ──→ gone            opening ── FAILED, DESTROY, 10 s, link lost ──→ gone
    open    ── DESTROY, link lost, idle, 20 min ──→ gone

What a neighbour downstream says of itself is passed on under our layer; what it says bare becomes an error
onion of our own, and we make at most one per circuit. Cells never come here: they go through two `Hop`s.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Protocol, cast

from automat import TypeMachineBuilder

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.cipher.onion_error import add_layer
from meshnet.circuit import created
from meshnet.circuit.failure import blinded_onion, error_onion, next_reason
from meshnet.circuit.keys import BACKWARD, FORWARD, circuit_key, layer_key, offset
from meshnet.circuit.messages import CELL_BACKWARD, CELL_FORWARD, ERROR
from meshnet.circuit.relay import Hop
from meshnet.circuit.shared import Shared
from meshnet.circuit.side import Side
from meshnet.circuit.tail import Place, rounded
from meshnet.circuit.timers import Timer
from meshnet.errors import Reason
from meshnet.limits import CIRCUIT_LIFE, CREATE_SECONDS

OPENING: Final = "opening"
OPEN: Final = "open"
GONE: Final = "gone"


class _Inputs(Protocol):
    """What happens to a circuit at a relay."""

    def created(self, slots: bytes, now: float) -> None:
        """CREATED came from downstream."""

    def failed(self, code: int, onion: bytes, now: float) -> None:
        """FAILED came from downstream."""

    def ended_above(self, now: float) -> None:
        """DESTROY came from upstream, or the link there is gone: nobody is left to tell."""

    def ended_below(self, onion: bytes, now: float) -> None:
        """DESTROY came from downstream."""

    def given_up(self, reason: Reason, now: float) -> None:
        """We end it: the link downstream is gone, or the time is over."""


class Transit:
    """One circuit between two neighbours: `up` created `up_label`, we created `down_label` at `down`."""

    __slots__ = (
        "_life", "_shared", "_timer", "backward", "born", "down", "down_label", "ephemeral", "forward",
        "idle", "place", "shared_secret", "state", "up", "up_label",
    )  # fmt: skip

    def __init__(
        self,
        shared: Shared,
        up: Side,
        up_label: int,
        down: Side,
        down_label: int,
        shared_secret: bytes,
        ephemeral: PublicKey,
        idle: float,
        place: Place,
        now: float,
    ) -> None:
        self._shared = shared
        self.place = place
        self.up = up
        self.up_label = up_label
        self.down = down
        self.down_label = down_label
        self.shared_secret = shared_secret
        self.ephemeral = ephemeral
        self.idle = idle
        self.born = now
        self.forward: Hop | None = None
        self.backward: Hop | None = None
        self.state = OPENING
        self._life: _Inputs = _machine(self)
        up.enter(up_label, self)
        down.enter(down_label, self)
        shared.transits_and_arrivals += 1
        self._timer: Timer = shared.timers.add(now + CREATE_SECONDS, self._due)

    # What the sides call (`LabelUser`)

    def created(self, slots: bytes, now: float) -> None:
        """CREATED, from downstream."""
        self._life.created(slots, now)

    def failed(self, code: int, onion: bytes, now: float) -> None:
        """FAILED, from downstream."""
        self._life.failed(code, onion, now)

    def destroyed(self, side: Side, reason: int, onion: bytes, now: float) -> None:
        """DESTROY, from either side; an error onion travels backward only."""
        if side is self.up:
            self._life.ended_above(now)
        else:
            self._life.ended_below(onion if reason == ERROR else b"", now)

    def connection_lost(self, side: Side, now: float) -> None:
        """CREATE or its answer may have been under way downstream: the origin hears so at once."""
        if side is self.down and self.state == OPENING:
            self._life.given_up(Reason.LINK_LOST, now)

    def link_lost(self, side: Side, now: float) -> None:
        """The link of `side` is gone."""
        if side is self.up:
            self._life.ended_above(now)
        else:
            self._life.given_up(Reason.LINK_LOST, now)

    def _due(self, now: float) -> None:
        """Looks at the time: 10 s for CREATED, then idleness and age."""
        forward, backward = self.forward, self.backward
        if forward is None or backward is None:
            self._life.given_up(Reason.TIMEOUT, now)
            return
        used = max(forward.used, backward.used)
        if now >= self.born + CIRCUIT_LIFE:
            self._life.given_up(Reason.EXPIRED, now)
        elif now >= used + self.idle:
            self._life.given_up(Reason.IDLE, now)
        else:
            self._timer = self._shared.timers.add(min(self.born + CIRCUIT_LIFE, used + self.idle), self._due)

    # What the machine does

    def open(self, slots: bytes, now: float) -> None:
        """Draws our key, adds our slot, and lets cells through."""
        shared = self._shared
        own = SecretKey.draw(shared.random)
        ck = circuit_key(self.shared_secret, own, self.ephemeral)
        self.forward = self._hop(ck, FORWARD, self.down, CELL_FORWARD, self.down_label, now)
        self.backward = self._hop(ck, BACKWARD, self.up, CELL_BACKWARD, self.up_label, now)
        rate = shared.rate
        for side, label, hop in (
            (self.up, self.up_label, self.forward),
            (self.down, self.down_label, self.backward),
        ):
            if rate:
                side.open(label, hop.limited(rate))
            else:
                side.open(label, hop.relay, hop.run)
        answer = created.insert(self.shared_secret, own.public, self.max_cell, slots, shared.backend)
        self.up.created(self.up_label, answer)
        self.state = OPEN
        shared.past.relays += 1
        shared.timers.cancel(self._timer)
        self._timer = shared.timers.add(now + self.idle, self._due)

    def _hop(self, ck: bytes, direction: bytes, to: Side, kind: int, label: int, now: float) -> Hop:
        layer = self._shared.backend.stream(layer_key(ck, direction))
        step = offset(ck, direction)
        return Hop(to.link.outlet(label), kind, label, layer, step, self.max_cell, now, self._shared.pool)

    @property
    def max_cell(self) -> int:
        """The largest cell body that both neighbours take."""
        return rounded(min(self.up.link.max_cell, self.down.link.max_cell), self.place)

    def tell_up(self, onion: bytes, now: float) -> None:
        """Sends what went wrong towards the origin; b"": nothing did. An introduction node hesitates, so that
        the time does not tell how far behind it that was."""
        up, label = self.up, self.up_label
        if not onion:
            up.destroy(label)
            return
        say = partial(up.failed, label, onion)
        if self.state != OPENING:
            say = partial(up.destroy, label, ERROR, onion)
        if self.place is Place.INTRODUCTION:
            self._shared.hesitate(lambda now: say(), now)
        else:
            say()

    def error(self, reason: Reason) -> bytes:
        """Our own error onion; callers end the circuit with it, so that it stays the only one."""
        if self.place is not Place.OPEN:
            return blinded_onion(self.shared_secret)
        return error_onion(self.shared_secret, reason)

    def layered(self, onion: bytes) -> bytes:
        """An error onion from downstream, under our layer; in a tail our own instead."""
        if self.place is not Place.OPEN:
            return blinded_onion(self.shared_secret)
        return add_layer(self.shared_secret, onion)

    def leave(self, now: float) -> None:
        """Gives back both labels and everything held."""
        shared = self._shared
        shared.timers.cancel(self._timer)
        self.up.release(self.up_label, now)
        self.down.release(self.down_label, now)
        if self.forward is not None and self.backward is not None:
            self.forward.close()
            self.backward.close()
            shared.past.add_hops(self.forward, self.backward)
        shared.transits_and_arrivals -= 1
        self.shared_secret = b""
        self.state = GONE
        self._life = _over  # the machine refers to us; nothing is left to the garbage collector

    def stray(self) -> None:
        """A frame came that fits no state."""
        self.down.stray += 1

    def snapshot(self, now: float) -> dict[str, Any]:
        """For status pages; JSON-able."""
        shown: dict[str, Any] = {
            "role": "relay",
            "state": self.state,
            "upstream": self.up.peer.hex(),
            "downstream": self.down.peer.hex(),
            "age": round(now - self.born, 3),
        }
        if self.forward is not None and self.backward is not None:
            shown["idle"] = round(now - max(self.forward.used, self.backward.used), 3)
            shown["forward"] = self.forward.snapshot()
            shown["backward"] = self.backward.snapshot()
        return shown


_builder = TypeMachineBuilder(_Inputs, Transit)
_opening = _builder.state(OPENING)
_open = _builder.state(OPEN)
_gone = _builder.state(GONE)


@_opening.upon(_Inputs.created).to(_open)
def _created(inputs: _Inputs, transit: Transit, slots: bytes, now: float) -> None:
    transit.open(slots, now)


@_opening.upon(_Inputs.failed).to(_gone)
def _failed(inputs: _Inputs, transit: Transit, code: int, onion: bytes, now: float) -> None:
    transit.tell_up(transit.layered(onion) if onion else transit.error(next_reason(code)), now)
    transit.leave(now)


@_opening.upon(_Inputs.ended_above).to(_gone)
@_open.upon(_Inputs.ended_above).to(_gone)
def _ended_above(inputs: _Inputs, transit: Transit, now: float) -> None:
    transit.down.destroy(transit.down_label)
    transit.leave(now)


@_opening.upon(_Inputs.ended_below).to(_gone)
def _refused_below(inputs: _Inputs, transit: Transit, onion: bytes, now: float) -> None:
    transit.tell_up(transit.layered(onion) if onion else transit.error(Reason.LINK_LOST), now)
    transit.leave(now)


@_open.upon(_Inputs.ended_below).to(_gone)
def _ended_below(inputs: _Inputs, transit: Transit, onion: bytes, now: float) -> None:
    transit.tell_up(transit.layered(onion) if onion else b"", now)
    transit.leave(now)


@_opening.upon(_Inputs.given_up).to(_gone)
@_open.upon(_Inputs.given_up).to(_gone)
def _given_up(inputs: _Inputs, transit: Transit, reason: Reason, now: float) -> None:
    transit.tell_up(transit.error(reason), now)
    if reason is not Reason.LINK_LOST:
        transit.down.destroy(transit.down_label)
    transit.leave(now)


@_open.upon(_Inputs.created).loop()
def _created_again(inputs: _Inputs, transit: Transit, slots: bytes, now: float) -> None:
    transit.stray()


@_open.upon(_Inputs.failed).loop()
def _failed_late(inputs: _Inputs, transit: Transit, code: int, onion: bytes, now: float) -> None:
    transit.stray()


_gone.upon(_Inputs.created).loop().returns(None)
_gone.upon(_Inputs.failed).loop().returns(None)
_gone.upon(_Inputs.ended_above).loop().returns(None)
_gone.upon(_Inputs.ended_below).loop().returns(None)
_gone.upon(_Inputs.given_up).loop().returns(None)

_machine = _builder.build()
_over = _machine(cast(Transit, None), _gone)
