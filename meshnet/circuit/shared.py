"""What all circuits of one node share: its key, its limits, time, randomness, and what it has counted."""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from attrs import define, evolve, field

from meshnet.cipher.aead import Backend
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.end import CircuitEnd
from meshnet.circuit.epochs import KeyRing, OnionKey
from meshnet.circuit.events import Event, TickDue
from meshnet.circuit.interface import Neighbour, Random
from meshnet.circuit.messages import CELL_HEAD
from meshnet.circuit.policy import Bucket, Policy, Pool
from meshnet.circuit.relay import Hop
from meshnet.circuit.side import LateSteps, Side
from meshnet.circuit.timers import Call, Timers
from meshnet.errors import Drop, Reason
from meshnet.limits import HIDDEN_DELAY, LARGEST_CELL

Stated = Callable[[PublicKey, float], OnionKey | None]
"""The onion key that a node states of itself and still has at this unix time, as far as we know."""


def nothing_stated(node: PublicKey, unix: float) -> OnionKey | None:
    """Of nobody."""
    return None


def _per_drop() -> list[int]:
    return [0] * len(Drop)


@define
class Totals:
    """Counts of a node since its start; `drops` is indexed by `Drop`. Bytes relayed are those of the cells'
    bodies, bytes of ends include the 12-byte heads.

    Cells and bytes relayed are those of circuits that lead on through this node; ends are not in them.
    """

    creates: int = 0
    """CREATE frames received."""
    relays: int = 0
    """Circuits that were set up through this node."""
    arrivals: int = 0
    """Circuits that were set up to this node."""
    opened: int = 0
    """Circuits that this node set up."""
    failed: int = 0
    """Circuits that this node could not set up."""
    lost: int = 0
    """Circuits of any kind that ended other than by their owner's wish."""
    stray: int = 0
    """Frames that fitted no circuit."""
    onions_by_epoch: int = 0
    """CREATE frames whose onion was for one of our onion keys that change."""
    hops_by_epoch: int = 0
    """Hops of circuits begun here whose layer was for an onion key that changes."""
    hops_by_identity: int = 0
    """The others of these hops."""
    refused: dict[Reason, int] = field(factory=dict)
    """CREATE frames refused here, by what was answered."""
    cells_forward: int = 0
    bytes_forward: int = 0
    marked: int = 0
    """Cells that got the congestion bit here."""
    cells_back: int = 0
    bytes_back: int = 0
    end_cells_in: int = 0
    end_bytes_in: int = 0
    end_cells_out: int = 0
    end_bytes_out: int = 0
    drops: list[int] = field(factory=_per_drop)

    def refuse(self, reason: Reason) -> None:
        """Counts a refused CREATE."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def add_hops(self, forward: Hop, backward: Hop) -> None:
        """Adds what a relayed circuit has carried."""
        self.cells_forward += forward.cells
        self.bytes_forward += forward.bytes
        self.cells_back += backward.cells
        self.bytes_back += backward.bytes
        self.marked += forward.marked + backward.marked
        self.add_drops(forward.drops)
        self.add_drops(backward.drops)

    def add_end(self, end: CircuitEnd) -> None:
        """Adds what a circuit's end has received and sent."""
        self.end_cells_in += end.cells_in
        self.end_bytes_in += end.bytes_in
        self.end_cells_out += end.cells_out
        self.end_bytes_out += end.bytes_out
        self.add_drops(end.drops)

    def copy(self) -> Totals:
        """The same numbers, to be counted on."""
        return evolve(self, refused=dict(self.refused), drops=list(self.drops))

    def add_drops(self, drops: list[int]) -> None:
        """Adds drops by reason."""
        if any(drops):
            for index, number in enumerate(drops):
                self.drops[index] += number


class Shared:
    """One per node; `past` holds the counts of circuits that are gone."""

    __slots__ = (
        "backend", "events", "late_steps", "network_id", "past", "policy", "pool", "random", "rate", "ring",
        "secret", "sides", "standing", "stated", "timers", "transits_and_arrivals",
    )  # fmt: skip

    def __init__(
        self,
        secret: SecretKey,
        network_id: int,
        policy: Policy,
        random: Random,
        neighbours: Callable[[PublicKey], Neighbour | None],
        backend: Backend,
        ring: KeyRing | None = None,
        stated: Stated = nothing_stated,
    ) -> None:
        self.secret = secret
        self.ring = KeyRing(secret) if ring is None else ring
        self.stated = stated
        self.network_id = network_id
        self.policy = policy
        self.random = random
        self.backend = backend
        self.standing = neighbours
        self.sides: dict[PublicKey, Side] = {}
        self.timers = Timers()
        self.late_steps = LateSteps()
        self.events: list[Event] = []
        self.past = Totals()
        self.transits_and_arrivals = 0
        self.pool = Pool()
        """What waits in the queues of all circuits."""
        self.rate: Bucket | None = None
        """Bytes per second for all relaying."""
        if policy.max_rate:
            self.rate = Bucket(policy.max_rate, _burst(policy.max_rate), 0.0)

    def limit(self, policy: Policy) -> None:
        """Other limits from now on. What stands stays, above a lower number of circuits too; circuits that
        were set up where there was no rate keep none."""
        self.policy = policy
        if self.rate is not None:
            self.rate.adjust(*((policy.max_rate, _burst(policy.max_rate)) if policy.max_rate else (inf, inf)))
        elif policy.max_rate:
            self.rate = Bucket(policy.max_rate, _burst(policy.max_rate), 0.0)
        for side in self.sides.values():
            side.limit(policy)

    def hesitate(self, call: Call, now: float) -> None:
        """Makes `call(now)` after a random 0–100 ms, and says when: those are shorter than most ticks."""
        share = int.from_bytes(self.random(4), "big") / (1 << 32)
        when = now + share * HIDDEN_DELAY
        self.timers.add(when, call)
        self.events.append(TickDue(when))

    def side(self, link: Neighbour, now: float) -> Side:
        """What is kept for `link`, made at first use."""
        side = self.sides.get(link.peer)
        if side is None or side.link is not link:
            if side is not None:
                self.lose(side, now)
            side = Side(link, self.secret.public, self.policy, self.random, self.late_steps, now)
            self.sides[link.peer] = side
        return side

    def side_towards(self, peer: PublicKey, now: float) -> Side | None:
        """The same for a neighbour with a standing link; None if there is none."""
        link = self.standing(peer)
        return None if link is None else self.side(link, now)

    def lose(self, side: Side, now: float) -> None:
        """The link of `side` is gone: so are the circuits over it."""
        if self.sides.get(side.peer) is side:
            del self.sides[side.peer]
        for label in list(side.circuits):
            circuit = side.circuits.get(label)
            if circuit is not None:
                circuit.link_lost(side, now)
        self.past.stray += side.stray


def _burst(rate: float) -> float:
    """What may pass at once: a second of it, and always one cell."""
    return max(rate, LARGEST_CELL + CELL_HEAD)
