"""A simulated network in virtual time: loss, delay, reorder, duplication, MTU, rate and partitions.

Everything happens on a `VirtualClock` and comes from a seed: the same seed and the same
calls give the same run. Places are named by strings. `Pipe` carries datagrams one way;
`lab.simulation.transport` builds streams on the same conditions. It never touches a socket or real time.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable

from attrs import define, evolve, frozen

from lab.simulation.clock import VirtualClock

EVENTS = 5_000_000
"""A run that needs more events than this does not end."""


@frozen
class Conditions:
    """What happens to traffic between two places, one way. Seconds, bytes, and probabilities from 0 to 1.

    `jitter` is added evenly from 0; datagrams overtake each other by it. `reorder` of the datagrams wait
    one more `delay`. `mtu` is the largest datagram. `rate` is in bytes a second (None: infinite) and `queue`
    the bytes that wait for it before datagrams are dropped. On streams a lost segment arrives later.
    """

    delay: float = 0.01
    jitter: float = 0.0
    loss: float = 0.0
    duplicate: float = 0.0
    reorder: float = 0.0
    mtu: int | None = None
    rate: float | None = None
    queue: int = 256 << 10


@define
class Counts:
    """What became of the datagrams of a pipe."""

    sent: int = 0
    delivered: int = 0
    lost: int = 0
    duplicated: int = 0
    too_large: int = 0
    queue_full: int = 0
    cut_off: int = 0


class Network:
    """Places, the conditions between them, and who is cut off from whom."""

    def __init__(
        self, seed: int = 0, conditions: Conditions | None = None, clock: VirtualClock | None = None
    ) -> None:
        self.seed = seed
        self.clock = VirtualClock() if clock is None else clock
        self._default = conditions or Conditions()
        self._special: dict[tuple[str, str], Conditions] = {}
        self._groups: list[frozenset[str]] = []
        self._healed: list[Callable[[], None]] = []

    def random(self, purpose: str) -> random.Random:
        """A generator of its own for each purpose, so that one does not disturb another."""
        return random.Random(f"{self.seed}/{purpose}")

    def bytes_source(self, purpose: str) -> Callable[[int], bytes]:
        """Seeded bytes for a core that asks for `random: Callable[[int], bytes]`."""
        return self.random(purpose).randbytes

    # conditions

    def conditions(self, source: str, target: str) -> Conditions:
        """What traffic from one place to the other meets."""
        return self._special.get((source, target), self._default)

    def change(self, source: str, target: str, *, one_way: bool = False, **changes: object) -> None:
        """Changes fields of `Conditions` between two places, from now on, both ways unless told."""
        pairs = [(source, target)] if one_way else [(source, target), (target, source)]
        for pair in pairs:
            self._special[pair] = evolve(self.conditions(*pair), **changes)  # type: ignore[arg-type]

    def partition(self, *groups: Iterable[str]) -> None:
        """Nothing passes between these groups, nor between them and places that are in none."""
        self._groups = [frozenset(group) for group in groups]

    def heal(self) -> None:
        """Ends all partitions; what streams held back flows again."""
        self._groups = []
        waiting, self._healed = self._healed, []
        for call in waiting:
            call()

    def connected(self, source: str, target: str) -> bool:
        """Whether anything passes from one place to the other."""
        return all((source in group) == (target in group) for group in self._groups)

    def when_healed(self, call: Callable[[], None]) -> None:
        """Calls when the present partitions end."""
        self._healed.append(call)

    def pipe(self, source: str, target: str, receive: Callable[[bytes], None]) -> Pipe:
        """A way for datagrams from one place to the other."""
        return Pipe(self, source, target, receive)

    # time

    def run(self, seconds: float) -> None:
        """Lets time pass; each call runs at its own time."""
        self._run(self.clock.seconds() + seconds, lambda: False)

    def run_until(self, done: Callable[[], bool], limit: float = 60.0) -> bool:
        """Lets time pass until `done()`, at most `limit` seconds; whether it is done."""
        if not done():
            self._run(self.clock.seconds() + limit, done)
        return done()

    def _run(self, end: float, done: Callable[[], bool]) -> None:
        clock = self.clock
        for _ in range(EVENTS):
            following = clock.following()
            if following is None or following > end:
                clock.advance(max(0.0, end - clock.seconds()))
                return
            clock.advance(max(0.0, following - clock.seconds()))
            if done():
                return
        raise RuntimeError(f"the simulation did not come to rest in {EVENTS:,} events (seed {self.seed})")


class Pipe:
    """Datagrams from one place to another; `counts` says what became of them."""

    def __init__(self, network: Network, source: str, target: str, receive: Callable[[bytes], None]) -> None:
        self.counts = Counts()
        self._network = network
        self._source = source
        self._target = target
        self._receive = receive
        self._random = network.random(f"pipe {source} {target}")
        self._busy_until = 0.0

    def send(self, data: bytes | bytearray | memoryview) -> None:
        """Sends one datagram (copied); it may arrive never, late, twice or out of order."""
        counts, conditions = self.counts, self._network.conditions(self._source, self._target)
        counts.sent += 1
        if conditions.mtu is not None and len(data) > conditions.mtu:
            counts.too_large += 1
        elif not self._network.connected(self._source, self._target):
            counts.cut_off += 1
        elif self._random.random() < conditions.loss:
            counts.lost += 1
        else:
            self._depart(bytes(data), conditions)

    def _depart(self, data: bytes, conditions: Conditions) -> None:
        now, wait = self._network.clock.seconds(), 0.0
        if conditions.rate is not None:
            start = max(now, self._busy_until)
            if (start - now) * conditions.rate > conditions.queue:
                self.counts.queue_full += 1
                return
            self._busy_until = start + len(data) / conditions.rate
            wait = self._busy_until - now
        copies = 1
        if self._random.random() < conditions.duplicate:
            self.counts.duplicated += 1
            copies = 2
        for _ in range(copies):
            late = conditions.delay if self._random.random() < conditions.reorder else 0.0
            delay = wait + conditions.delay + late + self._random.uniform(0, conditions.jitter)
            self._network.clock.callLater(delay, self._arrive, data)

    def _arrive(self, data: bytes) -> None:
        if not self._network.connected(self._source, self._target):
            self.counts.cut_off += 1
            return
        self.counts.delivered += 1
        self._receive(data)
