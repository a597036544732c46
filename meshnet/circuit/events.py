"""What happened to circuits that begin or end at this node, for its router."""

from __future__ import annotations

from typing import TYPE_CHECKING

from attrs import frozen

from meshnet.errors import CircuitError

if TYPE_CHECKING:
    from meshnet.circuit.arrival import Arrival
    from meshnet.circuit.origin import OriginCircuit


@frozen(eq=False)
class Arrived:
    """A circuit wants to end here: answer or refuse it within 10 s."""

    arrival: Arrival


@frozen(eq=False)
class Built:
    """A circuit of ours stands. `reply` is the second Noise message, 49 bytes; the circuit carries cells of
    up to `max_cell` bytes; setting it up took `setup` seconds."""

    circuit: OriginCircuit
    reply: bytes
    max_cell: int
    setup: float


@frozen(eq=False)
class CircuitFailed:
    """A circuit of ours did not come about."""

    circuit: OriginCircuit
    error: CircuitError


@frozen(eq=False)
class CircuitLost:
    """A circuit that begins or ends here has ended, and not by our wish."""

    circuit: OriginCircuit | Arrival
    error: CircuitError


@frozen
class TickDue:
    """`Circuits.tick` is wanted at this time, though the usual one may come later."""

    when: float


Event = Arrived | Built | CircuitFailed | CircuitLost | TickDue
