"""All circuits of a node: those that pass, those that end here, those that begin here.

`Circuits` takes the frames that set circuits up and end them, decides what may be, and hands each circuit
its own frames. It does no I/O and never sees a cell: those go by the links' tables straight to a `Hop` or a
`CircuitEnd`. Whatever ends a circuit is told to the router by an event, except what the router asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from meshnet.cipher.address import Target
from meshnet.cipher.aead import Backend
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.cipher.sphinx import BadOnion
from meshnet.circuit.admission import Admission
from meshnet.circuit.arrival import OPEN, OPENING, Arrival
from meshnet.circuit.end import CircuitEnd
from meshnet.circuit.epochs import KeyRing
from meshnet.circuit.events import Event
from meshnet.circuit.interface import Neighbour, Random, SessionEnd
from meshnet.circuit.messages import (
    CREATE,
    CREATED,
    DESTROY,
    FAILED,
    FIRST_MESSAGE,
    Create,
    Created,
    Destroy,
    Failed,
)
from meshnet.circuit.origin import CREATING, OriginCircuit
from meshnet.circuit.policy import Policy, Pool
from meshnet.circuit.replay import Replays
from meshnet.circuit.shared import Shared, Stated, Totals, nothing_stated
from meshnet.circuit.side import LabelUser, Side
from meshnet.circuit.tail import Way, find_way
from meshnet.circuit.transit import Transit
from meshnet.codec import decode
from meshnet.errors import CircuitError, CodecError, ProtocolError, Reason, UsageError
from meshnet.limits import CIRCUIT_IDLE, CIRCUIT_LIFE, HOPS

Circuit = Transit | Arrival | OriginCircuit


class Circuits:
    """One per node. `neighbours` gives the standing link to a key, None where there is none now; `ring` opens
    onions (without it, only those for the identity key), `stated` tells which onion keys others have.

    Times are monotonic seconds (`now`) and unix seconds (`unix`); after every call that takes `now`, the
    router reads `events()`.
    """

    def __init__(
        self,
        secret: SecretKey,
        network_id: int,
        *,
        policy: Policy,
        replay: Replays,
        random: Random,
        neighbours: Callable[[PublicKey], Neighbour | None],
        backend: Backend,
        ring: KeyRing | None = None,
        stated: Stated = nothing_stated,
    ) -> None:
        self._shared = Shared(secret, network_id, policy, random, neighbours, backend, ring, stated)
        self._replays = replay
        self._admission = Admission(self._shared, replay)

    def limit(self, policy: Policy) -> None:
        """Other limits from now on; what stands stays."""
        self._shared.limit(policy)
        self._admission.limit(policy)

    # Frames and links

    def receive(self, link: Neighbour, kind: int, body: memoryview, now: float, unix: float) -> None:
        """Takes a frame of one of `messages.FRAME_KINDS`. Raises ProtocolError if the connection must be
        closed: the neighbour does not keep to the format."""
        try:
            side = self._shared.side(link, now)
            if kind == CREATE:
                self._admission.create(side, decode(Create, body), now, unix)
            elif kind == CREATED:
                self._created(side, decode(Created, body), now)
            elif kind == FAILED:
                self._failed(side, decode(Failed, body), now)
            elif kind == DESTROY:
                self._destroy(side, decode(Destroy, body), now)
            else:
                raise ProtocolError(f"frame kind {kind} does not belong to circuits")
        except CodecError as fault:
            raise ProtocolError(f"a frame of kind {kind} is malformed: {fault}") from fault

    def link_lost(self, peer: PublicKey, now: float) -> None:
        """The link to `peer` is gone for good, not only its connection."""
        side = self._shared.sides.get(peer)
        if side is not None:
            self._shared.lose(side, now)

    def link_again(self, peer: PublicKey, now: float, *, after_none: bool = False) -> None:
        """Another connection serves the link to `peer`: what was under way on the one before may be lost, and
        is if there was none for a while (`after_none`)."""
        side = self._shared.sides.get(peer)
        if side is None:
            return
        if after_none:
            for circuit in list(side.circuits.values()):
                circuit.connection_lost(side, now)
        side.repeat_destroys(now)

    # Circuits of ours

    def open(
        self,
        route: Sequence[Target],
        first_message: bytes,
        now: float,
        unix: float,
        *,
        idle: int = CIRCUIT_IDLE,
    ) -> OriginCircuit:
        """Starts a circuit along `route`, carrying the first Noise message (49 bytes); `Built` or
        `CircuitFailed` follows. The route has 1 to 8 nodes, the last hop included, or the address of a hidden
        service in its place, whose tail counts. The circuit ends when it carries nothing for `idle` seconds.
        Raises UsageError for a route that cannot be, CircuitError if we have no link to its start.
        """
        if not route:
            raise UsageError(f"a route has 1 to {HOPS} nodes")
        way = self._way(route)
        hops = way.hops
        if len(hops) > HOPS:
            raise UsageError(f"a route has 1 to {HOPS} nodes, not {len(hops)}")
        if self._shared.secret.public in hops:
            raise UsageError("a route must not pass our own node")
        if len(set(hops)) < len(hops):
            raise UsageError("a route must not pass a node twice")
        if len(first_message) != FIRST_MESSAGE:
            raise UsageError(f"the first message has {FIRST_MESSAGE} bytes, not {len(first_message)}")
        if not 1 <= idle <= CIRCUIT_LIFE:
            raise UsageError(f"a circuit idles out after 1 to {CIRCUIT_LIFE} s, not {idle}")
        side = self._shared.side_towards(way.neighbour, now)
        first = way.neighbour.hex()[:8]
        if side is None:
            raise CircuitError(f"there is no link to {first}…, the first node of the route", Reason.NO_LINK)
        circuit = OriginCircuit(self._shared, side, tuple(route), way, idle, now)
        if not circuit.send(first_message, unix):
            circuit.close(now)
            raise CircuitError(f"the link to {first}… takes nothing now", Reason.BUSY)
        return circuit

    def _way(self, route: Sequence[Target]) -> Way:
        """Where the route leads, by which keys."""
        try:
            return find_way(route, self._shared.secret)
        except BadOnion as fault:
            raise UsageError(f"the address is of no use: {fault}") from None

    def retire(self, circuit: OriginCircuit, now: float) -> None:
        """Another circuit takes over: this one sends no more, receives for 10 s, and closes."""
        circuit.retire(now)

    # Circuits that end here

    def answer(self, arrival: Arrival, reply: bytes, session: SessionEnd, now: float) -> CircuitEnd:
        """Takes a circuit, with the second Noise message (49 bytes). Raises CircuitError if it is gone."""
        if len(reply) != FIRST_MESSAGE:
            raise UsageError(f"the reply has {FIRST_MESSAGE} bytes, not {len(reply)}")
        arrival.answer(reply, session, now)
        if arrival.end is None or arrival.state != OPEN:
            raise CircuitError("the circuit was given up before it was answered", Reason.LINK_LOST)
        return arrival.end

    def refuse(self, arrival: Arrival, reason: Reason, text: str, now: float) -> None:
        """Sends the origin an error instead, or later; no event follows. Harmless if the circuit is gone."""
        if arrival.state == OPENING:
            self._shared.past.refuse(reason)
        arrival.refuse(reason, text, now)

    def destroy(self, circuit: OriginCircuit | Arrival, now: float) -> None:
        """Ends a circuit; no event follows. Harmless if it is gone."""
        circuit.close(now)

    # Time and what came of it

    def deadline(self) -> float | None:
        """When `tick` is due."""
        times = [
            time for time in (self._shared.timers.next(), self._shared.late_steps.next()) if time is not None
        ]
        return min(times) if times else None

    def tick(self, now: float, unix: float) -> None:
        """Does what is due, and forgets expired onions."""
        self._shared.late_steps.settle(now)
        self._shared.timers.run(now)
        self._replays.settle(unix)

    def events(self) -> list[Event]:
        """What has happened since the last call, in order."""
        events = self._shared.events
        if events:
            self._shared.events = []
        return events

    # Frames of circuits that exist

    def _created(self, side: Side, frame: Created, now: float) -> None:
        circuit = self._downstream(side, frame.label)
        if circuit is not None:
            circuit.created(frame.slots, now)

    def _failed(self, side: Side, frame: Failed, now: float) -> None:
        if not frame.sound:
            raise ProtocolError(f"FAILED with code {frame.code} and an onion of {len(frame.onion)} bytes")
        circuit = self._downstream(side, frame.label)
        if circuit is not None:
            circuit.failed(frame.code, frame.onion, now)

    def _destroy(self, side: Side, frame: Destroy, now: float) -> None:
        if not frame.sound:
            raise ProtocolError(
                f"DESTROY with reason {frame.reason} and an onion of {len(frame.onion)} bytes"
            )
        circuit = side.circuits.get(frame.label)
        if circuit is not None:
            circuit.destroyed(side, frame.reason, frame.onion, now)
        elif not side.labels.rests(frame.label, now):
            side.stray += 1
            if not side.labels.crowded:
                side.labels.rest(frame.label, now)

    def _downstream(self, side: Side, label: int) -> LabelUser | None:
        """The circuit that we opened towards `side` under `label`; None, and counted, if there is none."""
        circuit = side.circuits.get(label) if side.labels.is_ours(label) else None
        if circuit is None:
            side.stray += 1
        return circuit

    # Numbers

    def __iter__(self) -> Iterator[Circuit]:
        """Every circuit once."""
        for side in self._shared.sides.values():
            for label, circuit in side.circuits.items():
                if isinstance(circuit, Transit) and not (circuit.up is side and circuit.up_label == label):
                    continue
                if isinstance(circuit, Transit | Arrival | OriginCircuit):
                    yield circuit

    def snapshot(self, now: float) -> list[dict[str, Any]]:
        """Every circuit, for status pages; JSON-able."""
        return [circuit.snapshot(now) for circuit in self]

    @property
    def totals(self) -> Totals:
        """Counts since the start, over circuits that are gone and those that stand; a fresh copy."""
        totals = self._shared.past.copy()
        totals.creates = self._admission.creates
        totals.stray += sum(side.stray for side in self._shared.sides.values())
        for circuit in self:
            if isinstance(circuit, Transit):
                if circuit.forward is not None and circuit.backward is not None:
                    totals.add_hops(circuit.forward, circuit.backward)
            elif circuit.end is not None:
                totals.add_end(circuit.end)
        return totals

    @property
    def standing(self) -> dict[str, int]:
        """How many circuits there are now: `relay`, `last`, `origin`, and `opening` of any kind."""
        counts = {"relay": 0, "last": 0, "origin": 0, "opening": 0}
        names = {Transit: "relay", Arrival: "last", OriginCircuit: "origin"}
        for circuit in self:
            counts["opening" if circuit.state in ("opening", CREATING) else names[type(circuit)]] += 1
        return counts

    @property
    def pool(self) -> Pool:
        """What waits in the queues of all relayed circuits together, and its limit."""
        return self._shared.pool

    @property
    def waiting(self) -> int:
        """Bytes of cells that wait in the queues of all relayed circuits."""
        return sum(
            circuit.forward.queued + circuit.backward.queued
            for circuit in self
            if isinstance(circuit, Transit) and circuit.forward is not None and circuit.backward is not None
        )
