"""A circuit that begins at this node: the onion, the check of what comes back, and its life.

    creating ── CREATED ──→ open ──→ closing ──→ gone         creating ── FAILED, 12 s, link lost ──→ gone
    open     ── DESTROY, link lost, three bad cells, idle, 20 min, our wish ──→ gone

A closing circuit still receives for 10 s, so that another one can take over without loss. The route is the
caller's; nothing here chooses.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final, Protocol, cast

from automat import TypeMachineBuilder

from meshnet.cipher.address import Target, proves
from meshnet.cipher.keys import BadKeyError, PublicKey, SecretKey
from meshnet.cipher.sphinx import BuiltOnion, build
from meshnet.circuit.created import ForgedSlot, read
from meshnet.circuit.end import CircuitEnd, Layers
from meshnet.circuit.epochs import IDENTITY, OnionKey
from meshnet.circuit.events import Built, CircuitFailed, CircuitLost
from meshnet.circuit.failure import bare, describe, hop_name, opened
from meshnet.circuit.interface import SessionEnd
from meshnet.circuit.keys import BACKWARD, FORWARD, MASK, circuit_key, layer_key, offset, sequence_start
from meshnet.circuit.messages import CELL_FORWARD, CREATE, NO_PATH_KEY, Create, HopTerms
from meshnet.circuit.shared import Shared, Stated
from meshnet.circuit.side import Side
from meshnet.circuit.tail import Way
from meshnet.circuit.timers import Timer
from meshnet.codec import encode
from meshnet.errors import CircuitError, Reason
from meshnet.limits import CIRCUIT_LIFE, CREATE_SECONDS, EXPIRY_STEP, LATE_CELLS, SMALLEST_CELL

CREATING: Final = "creating"
OPEN: Final = "open"
CLOSING: Final = "closing"
GONE: Final = "gone"

PATIENCE: Final = CREATE_SECONDS + 2  # the relays' own time-outs must reach us: they say where it hangs


def expiry_at(unix: float) -> int:
    """The expiry that origins give their onions (docs/wire-format.md §3)."""
    return (int(unix) // EXPIRY_STEP + 3) * EXPIRY_STEP


def associated_data(network_id: int, expiry: int) -> bytes:
    """What a circuit's onion is bound to."""
    return network_id.to_bytes(4, "big") + b"circ" + expiry.to_bytes(4, "big")


def seals(way: Way, stated: Stated, unix: float) -> list[OnionKey]:
    """For which key each hop's layer is: the one that the node states and still has, else its identity's.

    The nodes of a tail have theirs from the tail, but for the introduction node, which is known by its key.
    What is stated is signed by the node itself; no answer of a relay ever changes this choice.
    """
    return [
        (stated(key, unix) if told.encrypted is None or told.path_key is not None else None)
        or OnionKey(IDENTITY, key)
        for key, told in zip(way.hops, way.told, strict=True)
    ]


def payloads(
    way: Way, first_message: bytes, idle: int, layers: Sequence[OnionKey]
) -> list[tuple[PublicKey, bytes]]:
    """The key of each hop's layer, and its payload, the last hop's with the first Noise message."""
    found: list[tuple[PublicKey, bytes]] = []
    following = [layer.epoch or None for layer in layers[1:]]
    for layer, told, epoch in zip(layers, way.told, [*following, None], strict=True):
        terms = HopTerms(
            next_node=told.next_node,
            suite=0,
            idle=idle,
            epoch=epoch,
            encrypted=told.encrypted,
            path_key=told.path_key,
            first_message=first_message if len(found) + 1 == len(way.hops) else None,
        )
        found.append((layer.key, encode(terms)))
    return found


class _Inputs(Protocol):
    """What happens to a circuit at its origin."""

    def answered(self, slots: bytes, now: float) -> None:
        """CREATED came."""

    def failed(self, error: CircuitError, now: float) -> None:
        """FAILED or DESTROY came, or the link is gone: there is nobody to tell."""

    def given_up(self, error: CircuitError, now: float) -> None:
        """We end it, since something is wrong."""

    def retired(self, now: float) -> None:
        """Another circuit takes over."""

    def closed(self, now: float) -> None:
        """We end it, nothing is wrong."""

    def _stands(self, reply: bytes, now: float) -> None:
        """CREATED was right."""


class OriginCircuit:
    """One circuit of ours along `route`, the last hop included; `hops` are the keys that they are known by,
    `epochs` those of the keys that their layers are for. `max_cell` is set with `Built`."""

    __slots__ = (
        "_ephemerals", "_incoming", "_life", "_outgoing", "_shared", "_timer", "_way", "born", "end",
        "epochs", "hops", "idle", "label", "max_cell", "route", "setup", "shared_secrets", "side", "state",
    )  # fmt: skip

    def __init__(
        self, shared: Shared, side: Side, route: tuple[Target, ...], way: Way, idle: int, now: float
    ) -> None:
        self._shared = shared
        self.side = side
        self.route = route
        self._way = way
        self.hops = way.hops
        self.epochs: tuple[int, ...] = ()
        self.idle = idle
        self.born = now
        self.setup = 0.0
        self.max_cell = 0
        self.end: CircuitEnd | None = None
        self.state = CREATING
        self.shared_secrets: tuple[bytes, ...] = ()
        self._ephemerals: tuple[SecretKey, ...] = ()
        self._incoming = self._outgoing = Layers(0)
        self._life: _Inputs = _machine(self)
        self.label = side.draw()
        side.enter(self.label, self)
        self._timer: Timer = shared.timers.add(now + PATIENCE, self._due)

    def send(self, first_message: bytes, unix: float) -> bool:
        """Builds the onion and sends CREATE; false if the link does not take it."""
        shared = self._shared
        expiry = expiry_at(unix)
        layers = seals(self._way, shared.stated, unix)
        self.epochs = tuple(layer.epoch for layer in layers)
        onion: BuiltOnion = build(
            SecretKey.draw(shared.random),
            payloads(self._way, first_message, self.idle, layers),
            associated_data(shared.network_id, expiry),
        )
        self.shared_secrets, self._ephemerals = onion.shared_secrets, onion.ephemerals
        self.side.onward.take(1, self.born)
        create = Create(self.label, expiry, self.epochs[0], self._way.path_key, onion.packet)
        return self.side.send(CREATE, create, self.label)

    # What the router calls

    def attach(self, session: SessionEnd) -> CircuitEnd:
        """Joins the session to the open circuit, once; answers `Built`. Raises CircuitError if it is gone."""
        if self.state != OPEN:
            raise CircuitError("the circuit ended as soon as it stood", Reason.LINK_LOST)
        if self.end is not None:
            raise ValueError("a circuit has one session")
        self.end = CircuitEnd(
            session,
            self.side.link.outlet(self.label),
            CELL_FORWARD,
            self.label,
            incoming=self._incoming,
            outgoing=self._outgoing,
            max_cell=self.max_cell,
            opened=True,
            broken=self._broken,
            now=self.born + self.setup,
        )
        self.side.open(self.label, self.end.receive)
        return self.end

    def retire(self, now: float) -> None:
        """Sends no more, receives for 10 s, then closes."""
        self._life.retired(now)

    def close(self, now: float) -> None:
        """Ends the circuit, since nobody needs it any more."""
        self._life.closed(now)

    # What the side calls (`LabelUser`)

    def created(self, slots: bytes, now: float) -> None:
        """CREATED."""
        self._life.answered(slots, now)

    def failed(self, code: int, onion: bytes, now: float) -> None:
        """FAILED, with an error onion or, by the neighbour itself, bare; too late if the circuit stands."""
        if self.state != CREATING:
            self.stray()
            return
        if onion:
            error = opened(self.shared_secrets, self.hops, onion)
        elif self._way.path_key != NO_PATH_KEY:  # nodes of a tail say nothing else
            error = describe(self.hops, 0, Reason.BLINDED)
        else:
            error = bare(self.hops, code)
        self._life.failed(error, now)

    def destroyed(self, side: Side, reason: int, onion: bytes, now: float) -> None:
        """DESTROY, with a relay's error or bare."""
        if onion:
            error = opened(self.shared_secrets, self.hops, onion)
        else:
            error = CircuitError("the other end closed the circuit", Reason.LINK_LOST)
        self._life.failed(error, now)

    def connection_lost(self, side: Side, now: float) -> None:
        """CREATE or its answer may have been under way: better a new circuit than to wait for this one."""
        if self.state == CREATING:
            text = f"the connection to {hop_name(self.hops, 0)} was lost meanwhile"
            self._life.given_up(CircuitError(text, Reason.LINK_LOST, 0), now)

    def link_lost(self, side: Side, now: float) -> None:
        """The link to the first hop is gone."""
        text = f"the link to {hop_name(self.hops, 0)} is gone"
        self._life.failed(CircuitError(text, Reason.LINK_LOST, 0), now)

    def _due(self, now: float) -> None:
        if self.state == CREATING:
            text = f"no answer came from {hop_name(self.hops, 0)} or behind it"
            self._life.given_up(CircuitError(text, Reason.TIMEOUT), now)
            return
        if self.state == CLOSING:
            self._life.closed(now)
            return
        used = self.end.used if self.end is not None else self.born
        if now >= self.born + CIRCUIT_LIFE:
            self._life.given_up(CircuitError("the circuit has reached its greatest age", Reason.EXPIRED), now)
        elif now >= used + self.idle:
            text = f"the circuit carried nothing for {self.idle} s"
            self._life.given_up(CircuitError(text, Reason.IDLE), now)
        else:
            self._timer = self._shared.timers.add(min(self.born + CIRCUIT_LIFE, used + self.idle), self._due)

    def _broken(self, now: float, fault: Exception | None) -> None:
        error = CircuitError("cells came back changed: three did not open", Reason.FORGED)
        if fault is not None:
            error = CircuitError(f"something is wrong in this node: {fault!r}", Reason.REFUSED)
            error.__cause__ = fault
        self._life.given_up(error, now)

    # What the machine does

    def check(self, slots: bytes, inputs: _Inputs, now: float) -> None:
        """Reads CREATED: every hop's key and the last hop's reply, else who is to blame."""
        try:
            found, reply = read(self.shared_secrets, slots, self._shared.backend)
        except ForgedSlot as fault:
            inputs.given_up(self._forged(fault.hop), now)
            return
        for hop, slot in enumerate(found):
            if slot.max_cell < SMALLEST_CELL:
                text = f"it takes cells of {slot.max_cell} bytes only"
                inputs.given_up(describe(self.hops, hop, Reason.NOT_UNDERSTOOD, text), now)
                return
        self.max_cell = min(slot.max_cell for slot in found)
        keys: list[bytes] = []
        for hop, (slot, secret, own) in enumerate(
            zip(found, self.shared_secrets, self._ephemerals, strict=True)
        ):
            try:
                keys.append(circuit_key(secret, own, slot.key))
            except BadKeyError:
                inputs.given_up(describe(self.hops, hop, Reason.FORGED, "its key is no key"), now)
                return
        self._outgoing = self._layers(keys, FORWARD)
        self._incoming = self._layers(keys, BACKWARD)
        inputs._stands(reply, now)

    def _layers(self, keys: Sequence[bytes], direction: bytes) -> Layers:
        """Every relay's layer with its own seq of packet number 0, and ours."""
        *relays, last = keys
        offsets = [offset(ck, direction) for ck in relays]
        seq = sequence_start(last, direction)
        if direction == FORWARD:
            seq -= sum(offsets)
        starts = []
        for step in offsets if direction == FORWARD else reversed(offsets):
            starts.append(seq & MASK)
            seq += step
        if direction == FORWARD:
            start = (starts[0] if starts else seq) & MASK
        else:
            start = seq & MASK
            starts.reverse()
        stream = self._shared.backend.stream
        layers = [(stream(layer_key(ck, direction)), first) for ck, first in zip(relays, starts, strict=True)]
        return Layers(start, layers)

    def _forged(self, hop: int) -> CircuitError:
        who = hop_name(self.hops, hop)
        if hop:
            who = f"{hop_name(self.hops, hop - 1)} or {who}"
        return CircuitError(f"{who} changed the answer on its way back", Reason.FORGED, hop)

    def stands(self, reply: bytes, now: float) -> None:
        """The circuit is open."""
        shared = self._shared
        self.state = OPEN
        self.setup = now - self.born
        self._ephemerals = ()
        shared.past.opened += 1
        by_epoch = sum(epoch != IDENTITY for epoch in self.epochs)
        shared.past.hops_by_epoch += by_epoch
        shared.past.hops_by_identity += len(self.epochs) - by_epoch
        shared.timers.cancel(self._timer)
        self._timer = shared.timers.add(now + self.idle, self._due)
        shared.events.append(Built(self, reply, self.max_cell, self.setup))

    def drain(self, now: float) -> None:
        """Receives for a while."""
        self.state = CLOSING
        if self.end is not None:
            self.end.close()
        self._shared.timers.cancel(self._timer)
        self._timer = self._shared.timers.add(now + LATE_CELLS, self._due)

    def tell_relays(self) -> None:
        """DESTROY, which every relay passes on."""
        self.side.destroy(self.label)

    def tell_router(self, error: CircuitError) -> None:
        """Reports the end."""
        past = self._shared.past
        if self.state == CREATING:
            past.failed += 1
            self._shared.events.append(CircuitFailed(self, error))
        else:
            past.lost += 1
            self._shared.events.append(CircuitLost(self, error))

    def leave(self, now: float) -> None:
        """Gives back the label and everything held."""
        shared = self._shared
        shared.timers.cancel(self._timer)
        self.side.release(self.label, now)
        if self.end is not None:
            self.end.close()
            shared.past.add_end(self.end)
        self.shared_secrets = self._ephemerals = ()
        self.state = GONE
        self._life = _over

    def stray(self) -> None:
        """A frame came that fits no state."""
        self.side.stray += 1

    def snapshot(self, now: float) -> dict[str, Any]:
        """For status pages; JSON-able."""
        shown: dict[str, Any] = {
            "role": "origin",
            "state": self.state,
            "route": [proves(target).hex() for target in self.route],
            "age": round(now - self.born, 3),
            "setup_ms": round(self.setup * 1e3, 3),
            "max_cell": self.max_cell,
            "epochs": list(self.epochs),
        }
        if self.end is not None:
            shown["idle"] = round(now - self.end.used, 3)
            shown |= self.end.snapshot()
        return shown


_builder = TypeMachineBuilder(_Inputs, OriginCircuit)
_creating = _builder.state(CREATING)
_open = _builder.state(OPEN)
_closing = _builder.state(CLOSING)
_gone = _builder.state(GONE)


@_creating.upon(_Inputs.answered).loop()
def _answered(inputs: _Inputs, circuit: OriginCircuit, slots: bytes, now: float) -> None:
    circuit.check(slots, inputs, now)


@_creating.upon(_Inputs._stands).to(_open)
def _stands(inputs: _Inputs, circuit: OriginCircuit, reply: bytes, now: float) -> None:
    circuit.stands(reply, now)


@_creating.upon(_Inputs.failed).to(_gone)
@_open.upon(_Inputs.failed).to(_gone)
def _failed(inputs: _Inputs, circuit: OriginCircuit, error: CircuitError, now: float) -> None:
    circuit.tell_router(error)
    circuit.leave(now)


@_creating.upon(_Inputs.given_up).to(_gone)
@_open.upon(_Inputs.given_up).to(_gone)
def _given_up(inputs: _Inputs, circuit: OriginCircuit, error: CircuitError, now: float) -> None:
    circuit.tell_relays()
    circuit.tell_router(error)
    circuit.leave(now)


@_creating.upon(_Inputs.closed).to(_gone)
@_open.upon(_Inputs.closed).to(_gone)
@_closing.upon(_Inputs.closed).to(_gone)
def _closed(inputs: _Inputs, circuit: OriginCircuit, now: float) -> None:
    circuit.tell_relays()
    circuit.leave(now)


@_creating.upon(_Inputs.retired).to(_gone)
def _abandoned(inputs: _Inputs, circuit: OriginCircuit, now: float) -> None:
    circuit.tell_relays()
    circuit.leave(now)


@_open.upon(_Inputs.retired).to(_closing)
def _retired(inputs: _Inputs, circuit: OriginCircuit, now: float) -> None:
    circuit.drain(now)


@_closing.upon(_Inputs.failed).to(_gone)
@_closing.upon(_Inputs.given_up).to(_gone)
def _ended_closing(inputs: _Inputs, circuit: OriginCircuit, error: CircuitError, now: float) -> None:
    circuit.leave(now)


@_open.upon(_Inputs.answered).loop()
@_closing.upon(_Inputs.answered).loop()
def _answered_again(inputs: _Inputs, circuit: OriginCircuit, slots: bytes, now: float) -> None:
    circuit.stray()


_closing.upon(_Inputs.retired).loop().returns(None)
_gone.upon(_Inputs.answered).loop().returns(None)
_gone.upon(_Inputs._stands).loop().returns(None)
_gone.upon(_Inputs.failed).loop().returns(None)
_gone.upon(_Inputs.given_up).loop().returns(None)
_gone.upon(_Inputs.retired).loop().returns(None)
_gone.upon(_Inputs.closed).loop().returns(None)

_machine = _builder.build()
_over = _machine(cast(OriginCircuit, None), _gone)
