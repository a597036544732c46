"""TCP, UNIX sockets, memory and the simulated network keep what the interface promises."""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path
from shutil import rmtree

from lab.simulation.network import Conditions, Network
from lab.simulation.transport import Internet
from meshnet.transports import conformance as promises
from meshnet.transports.memory import MemoryTransport
from meshnet.transports.tcp import TcpTransport
from meshnet.transports.unix import UnixTransport
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


class UnixWorld(OwnReactor):
    """Sockets in a directory of their own; `turns` as often as it takes the kernel."""

    bad = (
        "relative/path",
        "/",
        "/run/",
        "/run/a\nb",
        "/" + "x" * 200,
        "/run/a:mode=999",
        "/run/a:mode=",
        "/run/a:mode=1777",
    )

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp())
        self.near = self.far = UnixTransport(self.reactor)

    def address(self) -> str:
        return f"{self.directory}/sock"

    def turns(self, number: int = 30) -> None:
        super().turns(number)

    def close(self) -> None:
        super().close()
        rmtree(self.directory)


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


class TcpTests(promises.TransportTests):
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


class UnixTests(promises.TransportTests):
    """UNIX sockets."""

    def make(self) -> promises.World:
        world = UnixWorld()
        self.addCleanup(world.close)
        return world


class MemoryTests(promises.TransportTests):
    """Memory."""

    def make(self) -> promises.World:
        world = MemoryWorld()
        self.addCleanup(world.close)
        return world


class SimulatedTests(promises.StreamPromises, promises.EndPromises, promises.AddressPromises):
    """The simulated network."""

    def make(self) -> promises.World:
        return SimulatedWorld()
