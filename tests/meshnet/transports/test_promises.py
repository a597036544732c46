"""TCP, memory and the simulated network keep what the interface promises."""

from __future__ import annotations

from collections.abc import Callable

from lab.simulation.network import Conditions, Network
from lab.simulation.transport import Internet
from meshnet.transports.memory import MemoryTransport
from meshnet.transports.tcp import TcpTransport
from tests.support import transports as promises
from tests.support.reactors import OwnReactor


class TcpWorld(OwnReactor):
    """Loopback sockets."""

    bad = (
        "127.0.0.1",
        ":7001",
        "127.0.0.1:x",
        "127.0.0.1:65536",
        "127.0.0.1:-1",
        "host:",
        "[::1]",
        "a:٣",
        "a\0b:1",
        "a\nb:1",
        " :1",
    )
    host = "127.0.0.1"

    def __init__(self) -> None:
        super().__init__()
        self.near = self.far = TcpTransport(self.reactor)

    def address(self) -> str:
        return f"{self.host}:0"

    def turns(self, number: int = 30) -> None:
        super().turns(number)


class Tcp6World(TcpWorld):
    """The same over IPv6."""

    host = "[::1]"


class MemoryWorld(OwnReactor):
    """Inside one process."""

    bad: tuple[str, ...] = ()

    def __init__(self) -> None:
        super().__init__()
        self.near = self.far = MemoryTransport(self.reactor)

    def address(self) -> str:
        return "here"


class SimulatedWorld:
    """In virtual time."""

    bad = (":1",)

    def __init__(self) -> None:
        self.network = Network(3, Conditions(delay=0.01, jitter=0.01, loss=0.1))
        self.internet = Internet(self.network)
        self.near, self.far = self.internet.transport("a"), self.internet.transport("b")

    def address(self) -> str:
        return "b:1"

    def until(self, done: Callable[[], object]) -> None:
        assert self.network.run_until(lambda: bool(done()), 600), "nothing more happened"

    def turns(self) -> None:
        self.network.run(5.0)

    def left(self) -> list[object]:
        self.turns()
        return [*self.network.clock.getDelayedCalls(), *self.internet.connections]


class TcpTests(
    promises.StreamPromises, promises.EndPromises, promises.AddressPromises, promises.FaultPromises
):
    """TCP over IPv4."""

    def make(self) -> promises.World:
        world = TcpWorld()
        self.addCleanup(world.close)
        return world


class Tcp6Tests(promises.StreamPromises, promises.AddressPromises):
    """TCP over IPv6."""

    def make(self) -> promises.World:
        world = Tcp6World()
        self.addCleanup(world.close)
        return world


class MemoryTests(
    promises.StreamPromises, promises.EndPromises, promises.AddressPromises, promises.FaultPromises
):
    """Memory."""

    def make(self) -> promises.World:
        world = MemoryWorld()
        self.addCleanup(world.close)
        return world


class SimulatedTests(promises.StreamPromises, promises.EndPromises, promises.AddressPromises):
    """The simulated network."""

    def make(self) -> promises.World:
        return SimulatedWorld()
