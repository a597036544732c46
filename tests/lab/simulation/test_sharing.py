"""How circuits and streams share a slow link between two relays, in virtual time."""

from __future__ import annotations

from statistics import quantiles
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.network import Conditions
from lab.simulation.nodes import Mesh
from meshnet.errors import MeshError

RATE = 1.25e6  # bytes a second between the relays
BULK, ECHO = 7, 8


class Reader:
    """Counts what it reads; an echo sends it back."""

    def __init__(self, stream: Any = None, echo: bool = False) -> None:
        self.stream = stream
        self.echo = echo
        self.count = 0

    def data_received(self, data: memoryview) -> None:
        self.count += len(data)
        self.stream.consumed(len(data))
        if self.echo:
            self.stream.write(bytes(data))

    def finished(self) -> None:
        pass

    def lost(self, why: MeshError) -> None:
        pass

    def drained(self) -> None:
        pass


class Bulk(Reader):
    """Writes for ever."""

    block = bytes(100_000)

    def drained(self) -> None:
        while self.stream.write(self.block) == len(self.block):
            pass


class Asker(Reader):
    """Asks a hundred bytes every tenth of a second and notes how long the answer takes."""

    def __init__(self, mesh: Mesh) -> None:
        super().__init__()
        self.clock = mesh.network.clock
        self.asked: list[float] = []
        self.trips: list[float] = []

    def ask(self) -> None:
        self.asked.append(self.clock.seconds())
        self.stream.write(bytes(100))
        self.clock.callLater(0.1, self.ask)

    def data_received(self, data: memoryview) -> None:
        super().data_received(data)
        while self.count >= 100:
            self.count -= 100
            self.trips.append(self.clock.seconds() - self.asked.pop(0))


class Deaf:
    """Congestion control that keeps a large window, whatever it is told."""

    window = 1 << 20
    slow_start = False
    events = 0

    def __init__(self, before: Any) -> None:
        self.standing = before.standing

    def acknowledged(self, *rest: Any) -> None:
        pass

    def sample(self, *rest: Any, **more: Any) -> None:
        pass

    def cut(self, *rest: Any, **more: Any) -> None:
        pass

    def collapse(self) -> None:
        pass


class SharingTests(SynchronousTestCase):
    """Two callers, two relays, one exit; 10 Mbit/s between the relays, 30 ms of round trip."""

    def setUp(self) -> None:
        self.mesh = mesh = Mesh((), 1, Conditions(delay=0.005))
        for name in ("one", "other", "r1", "r2", "exit"):
            mesh.add(name)
        for pair in (("one", "r1"), ("other", "r1"), ("r1", "r2"), ("r2", "exit")):
            mesh.link(*pair)
        mesh.network.change("r1", "r2", rate=RATE)
        self.assertTrue(mesh.linked())
        self.bulk: list[Reader] = []

        def accept(stream: Any) -> Reader:
            self.bulk.append(Reader(stream))
            return self.bulk[-1]

        mesh["exit"].router.listen(BULK, accept)
        mesh["exit"].router.listen(ECHO, lambda stream: Reader(stream, echo=True))

    def connect(self, caller: str, reader: Any, port: int, identity: str = "anonymous") -> Any:
        """A stream through both relays; those of another identity get a circuit of their own."""
        mesh = self.mesh
        reader.stream = mesh.wait(
            mesh[caller].router.connect(
                mesh["exit"].public, port, reader, via=mesh.route("r1", "r2"), identity=identity
            )
        )
        reader.drained()
        return reader

    def rates(self, seconds: float) -> list[float]:
        """Bytes a second of each bulk stream, from now on."""
        before = [reader.count for reader in self.bulk]
        self.mesh.network.run(seconds)
        return [(reader.count - count) / seconds for reader, count in zip(self.bulk, before, strict=True)]

    def test_circuits_share(self) -> None:
        """One that comes later gets its half; the link is full, nothing is dropped, the queue stays small."""
        self.connect("one", Bulk(), BULK)
        self.mesh.network.run(5)
        self.connect("other", Bulk(), BULK)
        self.mesh.network.run(5)
        first, second = self.rates(8)
        self.assertLess(max(first, second) / min(first, second), 1.5)
        self.assertGreater(first + second, 0.9 * RATE)
        relay = self.mesh["r1"].router
        self.assertEqual(relay.dropped, {})
        self.assertLess(relay.circuits.pool.used, 1 << 19)

    def test_streams_share(self) -> None:
        """Two streams of one circuit get the same."""
        for _ in range(2):
            self.connect("one", Bulk(), BULK)
        self.mesh.network.run(2)
        first, second = self.rates(6)
        self.assertLess(abs(first - second), 0.05 * first)
        self.assertGreater(first + second, 0.9 * RATE)

    def test_small_streams_beside_bulk(self) -> None:
        """What is small is answered nearly as soon as on an idle link, sooner where it has its own circuit;
        the bulk beside it keeps the link full."""
        self.connect("one", Bulk(), BULK)
        same = self.connect("one", Asker(self.mesh), ECHO)
        own = self.connect("other", Asker(self.mesh), ECHO)
        same.ask()
        own.ask()
        self.mesh.network.run(5)
        same.trips.clear()
        own.trips.clear()
        self.assertGreater(sum(self.rates(8)), 0.9 * RATE)
        slow, fast = (quantiles(asker.trips, n=20)[18] for asker in (same, own))
        self.assertLess(slow, 0.08)
        self.assertLess(fast, 0.06)
        self.assertLessEqual(fast, slow)

    def test_a_greedy_circuit(self) -> None:
        """One whose ends heed neither delay nor marks fills its own queue and loses cells; another that sends
        little waits for a few of its turns only."""
        greedy = self.connect("one", Bulk(), BULK)
        (session,) = self.mesh["one"].router._sessions
        session.path.congestion = session.path.recovery.congestion = Deaf(session.path.congestion)
        own = self.connect("other", Asker(self.mesh), ECHO)
        own.ask()
        self.mesh.network.run(3)
        own.trips.clear()
        (rate,) = self.rates(8)
        self.assertGreater(rate, 0.8 * RATE)
        relay = self.mesh["r1"].router
        self.assertGreater(relay.dropped["stood"], 10)
        self.assertGreater(relay.totals["cells_marked"], 100)
        self.assertLess(quantiles(own.trips, n=20)[18], 0.1)
        self.assertFalse(greedy.stream.stopped)
