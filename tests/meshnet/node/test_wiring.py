"""Nodes with real routers in one process, linked over TCP."""

from __future__ import annotations

import socket
from pathlib import Path
from secrets import token_bytes
from typing import Any

from twisted.internet import reactor  # noqa: TID251  (real sockets)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase, TestCase

from meshnet.cipher.keys import SecretKey
from meshnet.endpoints import MeshClientEndpoint, MeshServerEndpoint
from meshnet.errors import CircuitError, MeshError, Reason
from meshnet.limits import CREATE_BURST
from meshnet.node.clock import NodeClock
from meshnet.node.config import LinkSettings, PeerSettings, RelaySettings, from_table
from meshnet.node.node import Node
from meshnet.node.reload import accepted, circuit_policy
from meshnet.node.wiring import make_router
from meshnet.storage.disk import RealDisk
from meshnet.transports.registry import Transports
from meshnet.transports.tcp import TcpTransport
from tests.support.nodes import eventually, new_folder

KEYS = [SecretKey(bytes(31) + bytes([number])) for number in range(1, 5)]


class SettingsTests(SynchronousTestCase):
    def test_policy(self) -> None:
        """Every limit of [relay] reaches the circuits."""
        policy = circuit_policy(RelaySettings(False, 5, 6, 7, 8.0, 9, 10.0))
        self.assertEqual(
            (policy.enabled, policy.max_rate, policy.max_circuits, policy.max_circuits_per_neighbour),
            (False, 5, 6, 7),
        )
        self.assertEqual((policy.creates_per_second, policy.create_burst), (8.0, 9))
        self.assertEqual(policy.creates_in_all, 10.0)
        self.assertEqual(circuit_policy(RelaySettings()).create_burst, CREATE_BURST)

    def test_accept(self) -> None:
        """`any` is everyone; a list is that list and the peers that are dialled."""
        self.assertIsNone(accepted(LinkSettings()))
        peer = PeerSettings(KEYS[1].public, "tcp:a:1")
        listed = LinkSettings(accept=(KEYS[0].public,), peer=(peer,))
        self.assertEqual(accepted(listed), {KEYS[0].public, KEYS[1].public})


class MeshTests(TestCase):
    async def node(
        self,
        number: int,
        table: dict[str, Any] | None = None,
        to: Node | None = None,
        folder: Path | None = None,
    ) -> Node:
        """Starts node `number`, which dials `to`."""
        folder = folder or new_folder(self)
        secret = KEYS[number]
        link: dict[str, Any] = {"listen": ["tcp:127.0.0.1:0"]}
        if to is not None:
            link["peer"] = [{"key": to.public_key.hex(), "address": to.listening[0]}]
        control = {"socket": str(folder / "control.sock")}  # the local door lies beside it
        table = {"node": {"name": f"n{number}"}, "link": link, "control": control, **(table or {})}
        transports = Transports([TcpTransport(reactor)])
        node = Node(
            from_table(table, folder / "node.toml"),
            secret,
            reactor=reactor,
            clock=NodeClock(reactor),  # type: ignore[arg-type]
            disk=RealDisk(),
            router=lambda node: make_router(node, secret, transports, token_bytes),
        )
        (folder / ".key.new").touch()
        node.startService()
        await node.ready()
        self.addCleanup(node.stopService)
        return node

    async def row(self, *tables: dict[str, Any] | None) -> list[Node]:
        """Nodes in a row, each linked to the next."""
        nodes: list[Node] = []
        for number, table in reversed(list(enumerate(tables))):
            nodes.insert(0, await self.node(number, table, nodes[0] if nodes else None))
        for place, node in enumerate(nodes):
            links = len(nodes[max(0, place - 1) : place + 2]) - 1
            await eventually(lambda node=node, links=links: node.status()["links"]["up"] == links)  # type: ignore[misc]
        return nodes

    async def test_ping_through_relays(self) -> None:
        """The route's relays carry the circuit; their counts and metrics show it."""
        a, b, c = await self.row(None, None, None)
        report = await a.ping(c.public_key, [b.public_key], 2)
        self.assertEqual((report["sent"], report["received"]), (2, 2))
        self.assertEqual(b.status()["totals"]["circuits_relayed"], 1)
        self.assertGreater(b.registry.get_sample_value("meshnet_cells_relayed_total") or 0, 0)
        self.assertEqual(b.registry.get_sample_value("meshnet_links"), 2)
        self.assertEqual(b.registry.get_sample_value("meshnet_relay_limit", {"key": "max_rate"}), 0)

    async def test_names_that_cannot_be_looked_up(self) -> None:
        """A node that is started anew, where nobody knows names any more, dials a neighbour where it was."""
        far, folder = await self.node(1), new_folder(self)
        port = far.listening[0].rpartition(":")[2]
        peer = {"key": far.public_key.hex(), "address": f"tcp:localhost:{port}"}
        link = {"listen": ["tcp:127.0.0.1:0"], "peer": [peer]}
        near = await self.node(0, {"link": link}, folder=folder)
        await near.linked()
        await near.stopService()
        real = socket.getaddrinfo

        def look_up(host: str, *words: Any, **more: Any) -> Any:
            if host == "localhost":
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
            return real(host, *words, **more)

        self.patch(socket, "getaddrinfo", look_up)
        again = await self.node(0, {"link": link}, folder=folder)
        await again.linked()

    async def test_pulse_is_part_of_brief(self) -> None:
        """What is sampled each second says what the whole says."""
        a, _ = await self.row(None, None)
        router: Any = a._router
        pulse, brief = router.pulse(), router.brief()
        self.assertEqual(pulse["circuits"], brief["circuits"])
        self.assertTrue(pulse["links"][0].items() <= brief["links"][0].items())

    async def test_a_relay_that_refuses(self) -> None:
        """The origin learns which hop refused and why; both are counted."""
        a, b, c = await self.row(None, {"relay": {"enabled": False}}, None)
        error = await self.assertFailure(a.ping(c.public_key, [b.public_key], 1), CircuitError)
        self.assertEqual((error.reason, error.hop, error.exit_code), (Reason.REFUSED, 0, 5))
        self.assertEqual(b.status()["totals"]["creates_refused"], 1)
        labels = {"reason": "refused"}
        self.assertEqual(b.registry.get_sample_value("meshnet_circuits_refused_total", labels), 1)
        self.assertEqual(b.status()["limits"]["enabled"], False)

    async def test_no_such_neighbour(self) -> None:
        """A direct route to a node that is no neighbour fails at once."""
        (a,) = await self.row(None)
        error = await self.assertFailure(a.ping(KEYS[3].public, [], 1), MeshError)
        self.assertEqual(error.exit_code, 4)

    async def test_a_link_refused_by_policy(self) -> None:
        """Who is not in `accept` gets no link; the links page says why."""
        b = await self.node(1, {"link": {"listen": ["tcp:127.0.0.1:0"], "accept": []}})
        a = await self.node(0, None, b)
        await eventually(lambda: b.status()["totals"]["links_refused"] > 0)
        await eventually(lambda: bool(a.links()[0].get("why")))
        self.assertFalse(a.links()[0]["up"])
        self.assertEqual(b.status()["accept"], [])

    async def test_endpoint_strings(self) -> None:
        """In-process programs reach each other by key and port through a relay."""
        from twisted.internet.protocol import Factory, Protocol

        a, b, c = await self.row(None, None, None)
        done: Deferred[bytes] = Deferred()

        class Echo(Protocol):
            def dataReceived(self, data: bytes) -> None:
                self.transport.write(data.upper())  # type: ignore[union-attr]

        class Ask(Protocol):
            def connectionMade(self) -> None:
                self.transport.write(b"hello")  # type: ignore[union-attr]

            def dataReceived(self, data: bytes) -> None:
                self.transport.loseConnection()  # type: ignore[union-attr]
                done.callback(data)

        port = await MeshServerEndpoint(7, name="n2").listen(Factory.forProtocol(Echo))
        via = (b.public_key.hex(),)
        client = MeshClientEndpoint(c.public_key.hex(), 7, via=via, name="n0")
        await client.connect(Factory.forProtocol(Ask))
        self.assertEqual(await done, b"HELLO")
        await port.stopListening()
        self.assertEqual({circuit["role"] for circuit in b.circuits()}, {"relay"})
        self.assertEqual(a.circuits()[0]["route"], [b.public_key.hex(), c.public_key.hex()])

    async def test_starts_again(self) -> None:
        """A stopped node can be started again in the same process."""
        (a,) = await self.row(None)
        await a.stopService()
        a.startService()
        await a.ready()
        self.assertEqual(a.status()["links"]["up"], 0)
