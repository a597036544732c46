"""A circuit that ends at this node: its life at the last hop.

    opening ── answer ──→ open ──→ gone          opening ── refusal, DESTROY, 10 s, link lost ──→ gone
    open    ── DESTROY, link lost, three bad cells, idle, 20 min, our wish ──→ gone

The router learns of it by `Arrived`, and answers with the second Noise message and a session, or refuses
with a reason that travels back in our error onion.
"""

from __future__ import annotations

from functools import partial
from typing import Any, Final, Protocol, cast

from automat import TypeMachineBuilder

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit import created
from meshnet.circuit.end import CircuitEnd, Layers
from meshnet.circuit.events import CircuitLost
from meshnet.circuit.failure import blinded_onion, error_onion
from meshnet.circuit.interface import SessionEnd
from meshnet.circuit.keys import BACKWARD, FORWARD, circuit_key, sequence_start
from meshnet.circuit.messages import CELL_BACKWARD, ERROR
from meshnet.circuit.shared import Shared
from meshnet.circuit.side import Side
from meshnet.circuit.tail import Place, rounded
from meshnet.circuit.timers import Timer
from meshnet.errors import CircuitError, Reason
from meshnet.limits import CIRCUIT_LIFE, CREATE_SECONDS

OPENING: Final = "opening"
OPEN: Final = "open"
GONE: Final = "gone"

_BROKEN: Final = "three cells did not open"
_FAULT: Final = "something is wrong in the node at its end"


class _Inputs(Protocol):
    """What happens to a circuit at its last hop."""

    def answered(self, reply: bytes, session: SessionEnd, now: float) -> None:
        """The router takes it."""

    def ended_above(self, error: CircuitError, now: float) -> None:
        """DESTROY came, or the link is gone."""

    def refused(self, reason: Reason, text: str, now: float) -> None:
        """The router does not want it, and the origin learns why."""

    def given_up(self, reason: Reason, text: str, now: float, fault: Exception | None = None) -> None:
        """We end it by ourselves, and both the origin and the router learn why, of `fault` only he."""

    def closed(self, now: float) -> None:
        """We end it, nothing is wrong."""


class Arrival:
    """One circuit that ends here. `upstream` is the neighbour it came by, not its origin. `path_id` is what a
    blinded tail says of it, None where there is none."""

    __slots__ = (
        "_life", "_shared", "_timer", "born", "end", "ephemeral", "first_message", "idle", "label",
        "path_id", "place", "shared_secret", "side", "state", "upstream",
    )  # fmt: skip

    def __init__(
        self,
        shared: Shared,
        side: Side,
        label: int,
        first_message: bytes,
        shared_secret: bytes,
        ephemeral: PublicKey,
        idle: float,
        now: float,
        place: Place = Place.OPEN,
        path_id: bytes | None = None,
    ) -> None:
        self._shared = shared
        self.place = place
        self.path_id = path_id
        self.side = side
        self.upstream = side.peer
        self.label = label
        self.first_message = first_message
        self.shared_secret = shared_secret
        self.ephemeral = ephemeral
        self.idle = idle
        self.born = now
        self.end: CircuitEnd | None = None
        self.state = OPENING
        self._life: _Inputs = _machine(self)
        side.enter(label, self)
        shared.transits_and_arrivals += 1
        self._timer: Timer = shared.timers.add(now + CREATE_SECONDS, self._due)

    # What the router calls, by `Circuits`

    def answer(self, reply: bytes, session: SessionEnd, now: float) -> None:
        """Takes the circuit; does nothing if it is gone already."""
        self._life.answered(reply, session, now)

    def refuse(self, reason: Reason, text: str, now: float) -> None:
        """Refuses or ends the circuit with an error for the origin."""
        self._life.refused(reason, text, now)

    def close(self, now: float) -> None:
        """Ends the circuit, since nobody needs it any more."""
        self._life.closed(now)

    # What the side calls (`LabelUser`)

    def created(self, slots: bytes, now: float) -> None:
        """CREATED from upstream fits nothing."""
        self.side.stray += 1

    def failed(self, code: int, onion: bytes, now: float) -> None:
        """FAILED from upstream fits nothing."""
        self.side.stray += 1

    def destroyed(self, side: Side, reason: int, onion: bytes, now: float) -> None:
        """DESTROY, from upstream."""
        self._life.ended_above(CircuitError("the other end closed the circuit", Reason.LINK_LOST), now)

    def connection_lost(self, side: Side, now: float) -> None:
        """Upstream knows, and says whether the circuit goes on."""

    def link_lost(self, side: Side, now: float) -> None:
        """The link of `side` is gone."""
        text = f"the link to {self.upstream.hex()[:8]}… is gone"
        self._life.ended_above(CircuitError(text, Reason.LINK_LOST), now)

    def _due(self, now: float) -> None:
        end = self.end
        if end is None:
            self._life.given_up(Reason.TIMEOUT, "no answer was found in time", now)
        elif now >= self.born + CIRCUIT_LIFE:
            self._life.given_up(Reason.EXPIRED, "", now)
        elif now >= end.used + self.idle:
            self._life.given_up(Reason.IDLE, "", now)
        else:
            self._timer = self._shared.timers.add(
                min(self.born + CIRCUIT_LIFE, end.used + self.idle), self._due
            )

    # What the machine does

    def open(self, reply: bytes, session: SessionEnd, now: float) -> None:
        """Draws our key, sends CREATED and lets cells through."""
        shared = self._shared
        own = SecretKey.draw(shared.random)
        ck = circuit_key(self.shared_secret, own, self.ephemeral)
        max_cell = self.max_cell
        self.end = CircuitEnd(
            session,
            self.side.link.outlet(self.label),
            CELL_BACKWARD,
            self.label,
            incoming=Layers(sequence_start(ck, FORWARD)),
            outgoing=Layers(sequence_start(ck, BACKWARD)),
            max_cell=max_cell,
            opened=False,
            broken=self._broken,
            now=now,
        )
        self.side.open(self.label, self.end.receive)
        slots = created.answer(self.shared_secret, own.public, max_cell, reply, shared.random, shared.backend)
        self.side.created(self.label, slots)
        self.state = OPEN
        shared.past.arrivals += 1
        shared.timers.cancel(self._timer)
        self._timer = shared.timers.add(now + self.idle, self._due)

    def _broken(self, now: float, fault: Exception | None) -> None:
        self._life.given_up(Reason.REFUSED, _BROKEN if fault is None else _FAULT, now, fault)

    @property
    def max_cell(self) -> int:
        """The largest cell body that we announce."""
        return rounded(self.side.link.max_cell, self.place)

    def tell_up(self, reason: Reason, text: str, now: float) -> None:
        """Our error onion: FAILED before CREATED, DESTROY after it. At the end of a tail it says nothing, and
        comes late by chance where the tail is only this node."""
        onion = blinded_onion(self.shared_secret)
        if self.place is Place.OPEN:
            onion = error_onion(self.shared_secret, reason, text)
        say = partial(self.side.failed, self.label, onion)
        if self.state != OPENING:
            say = partial(self.side.destroy, self.label, ERROR, onion)
        if self.place is Place.INTRODUCTION:
            self._shared.hesitate(lambda now: say(), now)
        else:
            say()

    def tell_router(self, error: CircuitError) -> None:
        """Reports the end of a circuit that the router knows."""
        self._shared.past.lost += 1
        self._shared.events.append(CircuitLost(self, error))

    def leave(self, now: float) -> None:
        """Gives back the label and everything held."""
        shared = self._shared
        shared.timers.cancel(self._timer)
        self.side.release(self.label, now)
        if self.end is not None:
            self.end.close()
            shared.past.add_end(self.end)
        shared.transits_and_arrivals -= 1
        self.shared_secret = b""
        self.state = GONE
        self._life = _over

    def snapshot(self, now: float) -> dict[str, Any]:
        """For status pages; JSON-able."""
        shown: dict[str, Any] = {
            "role": "last",
            "state": self.state,
            "upstream": self.upstream.hex(),
            "age": round(now - self.born, 3),
        }
        if self.end is not None:
            shown["idle"] = round(now - self.end.used, 3)
            shown |= self.end.snapshot()
        return shown


_builder = TypeMachineBuilder(_Inputs, Arrival)
_opening = _builder.state(OPENING)
_open = _builder.state(OPEN)
_gone = _builder.state(GONE)


@_opening.upon(_Inputs.answered).to(_open)
def _answered(inputs: _Inputs, arrival: Arrival, reply: bytes, session: SessionEnd, now: float) -> None:
    arrival.open(reply, session, now)


@_opening.upon(_Inputs.ended_above).to(_gone)
@_open.upon(_Inputs.ended_above).to(_gone)
def _ended_above(inputs: _Inputs, arrival: Arrival, error: CircuitError, now: float) -> None:
    arrival.leave(now)
    arrival.tell_router(error)


@_opening.upon(_Inputs.refused).to(_gone)
@_open.upon(_Inputs.refused).to(_gone)
def _refused(inputs: _Inputs, arrival: Arrival, reason: Reason, text: str, now: float) -> None:
    arrival.tell_up(reason, text, now)
    arrival.leave(now)


@_opening.upon(_Inputs.given_up).to(_gone)
@_open.upon(_Inputs.given_up).to(_gone)
def _given_up(
    inputs: _Inputs, arrival: Arrival, reason: Reason, text: str, now: float, fault: Exception | None = None
) -> None:
    arrival.tell_up(reason, text, now)
    arrival.leave(now)
    why = text or reason.name.lower() if fault is None else repr(fault)
    error = CircuitError(f"the circuit was closed: {why}", reason)
    error.__cause__ = fault
    arrival.tell_router(error)


@_opening.upon(_Inputs.closed).to(_gone)
def _closed_unanswered(inputs: _Inputs, arrival: Arrival, now: float) -> None:
    arrival.tell_up(Reason.REFUSED, "", now)
    arrival.leave(now)


@_open.upon(_Inputs.closed).to(_gone)
def _closed(inputs: _Inputs, arrival: Arrival, now: float) -> None:
    arrival.side.destroy(arrival.label)
    arrival.leave(now)


_open.upon(_Inputs.answered).loop().returns(None)
_gone.upon(_Inputs.answered).loop().returns(None)
_gone.upon(_Inputs.ended_above).loop().returns(None)
_gone.upon(_Inputs.refused).loop().returns(None)
_gone.upon(_Inputs.given_up).loop().returns(None)
_gone.upon(_Inputs.closed).loop().returns(None)

_machine = _builder.build()
_over = _machine(cast(Arrival, None), _gone)
