"""A node whose router is a stand-in, for tests of what surrounds it."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.policy import Policy
from meshnet.errors import CircuitError, LocalError, MeshError, Reason
from meshnet.node.app import Receive, Ways
from meshnet.node.clock import NodeClock
from meshnet.node.config import from_table
from meshnet.node.node import Node
from meshnet.node.services import Service, Services
from meshnet.node.topology import Topology
from meshnet.storage.disk import RealDisk
from meshnet.streams import Accept, PortListener, Stream, StreamReader


def new_folder(case: SynchronousTestCase) -> Path:
    """A temporary directory that goes with the test."""
    folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
    case.addCleanup(shutil.rmtree, folder, ignore_errors=True)
    return folder


def link_snapshot(peer: PublicKey, **more: Any) -> dict[str, Any]:
    """A link as the router's snapshot shows it."""
    rates = {"1s": 100, "10s": 80, "1min": 50, "1h": 10}
    return {
        "peer": peer.hex(),
        "address": "tcp:192.0.2.1:7001",
        "up": True,
        "dialled": True,
        "lanes": 1,
        "lanes_up": 1,
        "delay_there_ms": 1.5,
        "delay_back_ms": 1.0,
        "delay_uncertainty_ms": 0.5,
        "connections": 1,
        "rtt_ms": 2.5,
        "loss": 0.0,
        "bytes_in": 1_000,
        "bytes_out": 2_000,
        "cells_in": 7,
        "control_dropped": 0,
        "rates_in": rates,
        "rates_out": rates,
        **more,
    }


@define(eq=False)
class FakeRouter:
    """Keeps what it is asked; `unreachable` keys cannot be pinged; `taken` addresses cannot be bound."""

    links: list[dict[str, Any]] = field(factory=list)
    circuits: list[dict[str, Any]] = field(factory=list)
    dropped: dict[str, int] = field(factory=dict)
    totals: dict[str, int] = field(factory=dict)
    faults: list[str] = field(factory=list)
    peers: list[tuple[PublicKey, str]] = field(factory=list)
    pinged: list[tuple[Target, tuple[PublicKey, ...], int]] = field(factory=list)
    unreachable: set[PublicKey] = field(factory=set)
    taken: set[str] = field(factory=set)
    connected: list[tuple[Any, ...]] = field(factory=list)
    renewed: list[dict[str, Any]] = field(factory=list)
    no_link: CircuitError | None = None
    running: bool = False
    why: dict[str, str] = field(factory=dict)
    on_link: Callable[[PublicKey], None] = lambda peer: None
    services: Services = field(factory=lambda: Services(SecretKey(b"\x01" * 32)))
    changes: list[tuple[Any, ...]] = field(factory=list)
    left: list[Service] = field(factory=list)
    topology: Topology | None = None

    def leave(self, service: Service) -> None:
        self.left.append(service)

    async def start(self, addresses: list[str]) -> list[str]:
        for address in addresses:
            if address in self.taken:
                raise LocalError(f"Cannot listen on {address}: address already in use.")
        self.running = True
        return addresses

    def add_peer(self, key: PublicKey, *addresses: str) -> None:
        self.peers += [(key, address) for address in addresses]

    def remove_peer(self, key: PublicKey) -> None:
        self.changes.append(("remove", key))

    def move_peer(self, key: PublicKey, *addresses: str) -> None:
        self.changes.append(("move", key, *addresses))

    def accept_only(self, accept: frozenset[PublicKey] | None) -> None:
        self.changes.append(("accept", accept))

    def limit(self, policy: Policy) -> None:
        self.changes.append(("limit", policy))

    def turn(self, call: Callable[[float], None]) -> None:
        """At once."""
        call(0.0)

    def stop(self) -> None:
        self.running = False

    def connect(
        self,
        target: Target,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[PublicKey] | None,
        identity: str,
        policy: str | None = None,
        ways: Ways | None = None,
    ) -> Deferred[Stream]:
        self.connected.append((target, port, tuple(via or ()), identity))
        return fail(CircuitError("no link to the first hop", Reason.NO_LINK, 0))

    def listen(self, port: int, accept: Accept) -> PortListener:
        raise LocalError(f"mesh port {port} is taken")

    def send_datagram(
        self,
        target: Target,
        port: int,
        data: bytes,
        *,
        source: int,
        via: Sequence[PublicKey] | None,
        identity: str,
        policy: str | None = None,
    ) -> Deferred[bool]:
        return succeed(False)

    def listen_datagrams(self, port: int, receive: Receive) -> PortListener:
        raise LocalError(f"mesh port {port} is taken")

    def ping(self, target: Target, via: Sequence[PublicKey], count: int) -> Deferred[dict[str, Any]]:
        self.pinged.append((target, tuple(via), count))
        if self.no_link is not None:
            return fail(self.no_link)
        if self.unreachable & {target, *via}:
            return fail(CircuitError("hop 2 has no link to the next", Reason.NO_LINK, 1))
        report = {"setup_ms": 4.0, "sent": count, "received": count}
        return succeed({**report, "rtt_ms": 2.0, "rtt_min_ms": 1.5, "rtt_max_ms": 2.5})

    def renew(self, target: Target | None) -> Deferred[list[dict[str, Any]]]:
        found = [each for each in self.renewed if target is None or each["route"][-1] == target.hex()]  # type: ignore[union-attr]
        return succeed(found)

    def waiting(self) -> dict[str, str]:
        return {peer.hex(): self.why.get(peer.hex(), "") for peer, _ in self.peers}

    def dials(self) -> dict[str, int]:
        return {peer.hex(): 1 for peer, _ in self.peers}

    def pulse(self) -> dict[str, Any]:
        return self.brief()

    def brief(self) -> dict[str, Any]:
        return {**self.snapshot(), "circuits": len(self.circuits)}

    def snapshot(self) -> dict[str, Any]:
        return {"links": self.links, "circuits": self.circuits, "dropped": self.dropped}


def make_node(
    folder: Path,
    reactor: Any,
    table: Mapping[str, Any] | None = None,
    router: FakeRouter | None = None,
    apps: Sequence[Any] = (),
    now: Callable[[], float] | None = None,
) -> tuple[Node, FakeRouter]:
    """A node that keeps its things in `folder`, not yet started."""
    fake = router or FakeRouter()
    settings = from_table(table or {}, folder / "node.toml", apps)
    clock = NodeClock(reactor) if now is None else NodeClock(reactor, now)
    node = Node(
        settings,
        SecretKey.generate(),
        reactor=reactor,
        clock=clock,
        disk=RealDisk(),
        router=lambda node: fake,
        apps=apps,
    )
    return node, fake


def sentence_of(error: MeshError | None) -> str:
    """An error's text, which must be there."""
    assert error is not None
    return str(error)


async def eventually(holds: Callable[[], bool], seconds: float = 20.0) -> None:
    """Lets the reactor run until `holds()`; AssertionError if that takes too long."""
    from twisted.internet import reactor  # noqa: TID251  (the test's own)

    there: Any = reactor
    limit = there.seconds() + seconds
    while not holds():
        assert there.seconds() < limit, "it never came true"
        later: Deferred[None] = Deferred()
        there.callLater(0.01, later.callback, None)
        await later
