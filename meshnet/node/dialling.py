"""Circuits of ours on their way: the first half of the handshake with the last hop, and who waits.

What it makes is a circuit and the keys of its two ends, nothing of sessions: whoever asked begins a session
with it, or lets it join one.
"""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, frozen

from meshnet.cipher.address import Address, Target, proves
from meshnet.cipher.aead import Backend
from meshnet.cipher.keys import SecretKey
from meshnet.circuit.events import Built
from meshnet.circuit.origin import OriginCircuit
from meshnet.circuit.table import Circuits
from meshnet.errors import CircuitError, HandshakeError, MeshError, Reason, UsageError
from meshnet.node.app import Clock
from meshnet.node.conversation import Route
from meshnet.session import keys as end_to_end


@frozen(eq=False)
class Standing:
    """A circuit of ours that stands, and the keys of its ends. It carries cells of up to `max_cell` bytes;
    `setup` is how many seconds it took."""

    circuit: OriginCircuit
    keys: end_to_end.CircuitKeys
    max_cell: int
    setup: float


Told = Callable[[Standing | MeshError, float], None]
"""Told once what became of a circuit."""


@define(eq=False)
class _Dialled:
    """The handshake's first half, and who waits."""

    opening: end_to_end.Opening
    told: Told


class Dialling:
    """One per running router."""

    def __init__(
        self,
        circuits: Circuits,
        network_id: int,
        clock: Clock,
        random: Callable[[int], bytes],
        backend: Backend,
    ) -> None:
        self._circuits = circuits
        self._network_id = network_id
        self._clock = clock
        self._random = random
        self._backend = backend
        self._dialled: dict[OriginCircuit, _Dialled] = {}

    def __len__(self) -> int:
        return len(self._dialled)

    def dial(self, route: Route, told: Told) -> OriginCircuit | None:
        """Begins a circuit along `route`. None if it failed at once: `told` has heard of it then."""
        now = self._clock.now()
        ephemeral = SecretKey.draw(self._random)
        try:
            self._check(route[-1])
            opening = end_to_end.start(proves(route[-1]), self._network_id, ephemeral, self._backend)
            circuit = self._circuits.open(route, opening.first, now, self._clock.unix())
        except MeshError as problem:
            told(problem, now)
            return None
        self._dialled[circuit] = _Dialled(opening, told)
        return circuit

    def give_up(self, circuit: OriginCircuit, now: float) -> None:
        """Nobody waits for it any more; harmless if it has come."""
        if self._dialled.pop(circuit, None) is not None:
            self._circuits.destroy(circuit, now)

    def stop(self, why: MeshError, now: float) -> None:
        """Whoever waits is told `why`."""
        for circuit in list(self._dialled):
            self._tell(circuit, why, now)

    # what circuits tell

    def built(self, event: Built, now: float) -> None:
        """A circuit stands."""
        circuit = event.circuit
        dialled = self._dialled.get(circuit)
        if dialled is None:
            return
        try:
            keys = dialled.opening.finish(event.reply)
        except HandshakeError as problem:
            self._circuits.destroy(circuit, now)
            text = f"the last hop could not prove its key: {problem}"
            self._tell(circuit, CircuitError(text, Reason.FORGED), now)
            return
        self._tell(circuit, Standing(circuit, keys, event.max_cell, event.setup), now)

    def failed(self, circuit: OriginCircuit, error: CircuitError, now: float) -> None:
        """A circuit did not come about."""
        self._tell(circuit, error, now)

    def _tell(self, circuit: OriginCircuit, outcome: Standing | MeshError, now: float) -> None:
        dialled = self._dialled.pop(circuit, None)
        if dialled is not None:
            dialled.told(outcome, now)

    def _check(self, target: Target) -> None:
        """Raises UsageError for an address that is of no use here or any more."""
        if isinstance(target, Address):
            refusal = target.refusal(self._network_id, self._clock.unix())
            if refusal:
                raise UsageError(refusal)
