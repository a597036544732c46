"""Endpoint strings find the node in this process and carry any Twisted protocol."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import CancelledError
from twisted.internet.endpoints import clientFromString, serverFromString
from twisted.internet.error import ConnectionDone
from twisted.internet.interfaces import IListeningPort, IStreamClientEndpoint, IStreamServerEndpoint
from twisted.internet.protocol import Factory, Protocol
from twisted.plugin import IPlugin, getPlugins
from twisted.protocols.wire import Echo
from twisted.trial.unittest import SynchronousTestCase
from zope.interface.verify import verifyObject

from lab.simulation.nodes import Collector
from meshnet.endpoints import (
    NODES,
    MeshClientEndpoint,
    MeshClientParser,
    MeshServerEndpoint,
    MeshServerParser,
    Nodes,
)
from meshnet.errors import LocalError, RefusedError, UnreachableError, UsageError
from meshnet.stream_transport import MeshAddress
from tests.support.streams import FakeMesh, FakeStream, a_key


class Collect(Protocol):
    def __init__(self) -> None:
        self.data = b""
        self.lost: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason


class Base(SynchronousTestCase):
    def setUp(self) -> None:
        self.mesh = FakeMesh()
        self.a, self.b = self.mesh.node("a"), self.mesh.node("b")
        self.nodes = Nodes()
        self.nodes.add("a", self.a)
        self.nodes.add("b", self.b)


class EndpointTests(Base):
    def test_echo(self) -> None:
        """A server and a client endpoint of two nodes carry a protocol; the port is given back."""
        server = MeshServerEndpoint(7, name="b", nodes=self.nodes)
        verifyObject(IStreamServerEndpoint, server)
        port: Any = self.successResultOf(server.listen(Factory.forProtocol(Echo)))
        verifyObject(IListeningPort, port)
        self.assertEqual(port.getHost(), MeshAddress(self.b.public_key, 7))
        client = MeshClientEndpoint("b", 7, name="a", nodes=self.nodes)
        verifyObject(IStreamClientEndpoint, client)
        d = client.connect(Factory.forProtocol(Collect))
        self.mesh.flush()
        protocol: Any = self.successResultOf(d)
        protocol.transport.write(b"hello")
        self.mesh.flush()
        self.assertEqual(protocol.data, b"hello")
        protocol.transport.loseConnection()
        self.mesh.flush()
        self.assertTrue(protocol.lost.check(ConnectionDone))
        self.successResultOf(port.stopListening())
        self.assertEqual(self.b.ports, {})
        self.assert_refused(self._connect(client))

    def assert_refused(self, d: Any) -> None:
        """A refusal fails the connection: no protocol is made."""
        self.failureResultOf(d, RefusedError)

    def _connect(self, client: MeshClientEndpoint) -> Any:
        d = client.connect(Factory.forProtocol(Collect))
        self.mesh.flush()
        return d

    def test_route_and_identity(self) -> None:
        """`via` and `identity` reach the node; names become keys."""
        self._connect(MeshClientEndpoint("b", 7, ("a", "b"), "node", "a", self.nodes)).addErrback(
            lambda failure: None
        )
        keys = (self.a.public_key, self.b.public_key)
        self.assertEqual(self.a.routes, [(self.b.public_key, keys, "node")])

    def test_callers(self) -> None:
        """A server that names its callers refuses others and the anonymous."""
        server = MeshServerEndpoint(7, ("a",), "b", self.nodes)
        self.successResultOf(server.listen(Factory.forProtocol(Echo)))
        anonymous = self._connect(MeshClientEndpoint("b", 7, None, "anonymous", "a", self.nodes))
        self.assert_refused(anonymous)
        named = self.successResultOf(self._connect(MeshClientEndpoint("b", 7, None, "node", "a", self.nodes)))
        self.assertEqual((named.transport.getPeer().port, named.lost), (7, None))

    def test_failures(self) -> None:
        """A node that is away, a taken port, a factory that declines: errors of the Deferred."""
        away = self._connect(MeshClientEndpoint(a_key(99).hex(), 7, None, "node", "a", self.nodes))
        self.failureResultOf(away, UnreachableError)
        server = MeshServerEndpoint(7, name="b", nodes=self.nodes)
        self.successResultOf(server.listen(Factory.forProtocol(Echo)))
        self.failureResultOf(server.listen(Factory.forProtocol(Echo)), LocalError)
        factory = Factory()
        factory.buildProtocol = lambda address: None  # type: ignore[method-assign, assignment]
        d = MeshClientEndpoint("b", 7, name="a", nodes=self.nodes).connect(factory)
        self.mesh.flush()
        self.failureResultOf(d, LocalError)

    def test_ends_on_the_way(self) -> None:
        """Cancelled while the far side is asked, the stream is reset; what comes before the protocol is
        there reaches it."""

        def cancel(stream: FakeStream) -> Collector:
            d.cancel()
            return Collector(stream=stream)

        self.b.listen(8, cancel)
        d = MeshClientEndpoint("b", 8, name="a", nodes=self.nodes).connect(Factory.forProtocol(Collect))
        self.mesh.flush()
        self.failureResultOf(d, CancelledError)
        self.assertTrue(all(stream.gone for stream in self.a.streams + self.b.streams))

        def greet(stream: FakeStream) -> Collector:
            stream.write(b"hello")
            return Collector(stream=stream)

        self.b.listen(9, greet)
        d = self._connect(MeshClientEndpoint("b", 9, name="a", nodes=self.nodes))
        protocol: Any = self.successResultOf(d)
        self.assertEqual((protocol.data, protocol.lost), (b"hello", None))

    def test_which_node(self) -> None:
        """None, several, an unknown name: the sentence says what runs."""
        for name, text in (("c", "running: a, b"), (None, "say which by node=")):
            error = self.failureResultOf(
                MeshClientEndpoint("b", 7, name=name, nodes=self.nodes).connect(Factory()), UsageError
            )
            self.assertIn(text, str(error.value))
        empty = MeshServerEndpoint(7, nodes=Nodes()).listen(Factory())
        self.assertIn("no mesh node runs", str(self.failureResultOf(empty, UsageError).value))
        self.assertRaises(LocalError, self.nodes.add, "a", self.a)


class StringTests(Base):
    def test_dropins(self) -> None:
        """The parsers are dropins that Twisted finds by their prefix."""
        found = [type(plugin) for plugin in getPlugins(IPlugin) if getattr(plugin, "prefix", "") == "mesh"]
        self.assertEqual(sorted(map(str, found)), sorted(map(str, (MeshClientParser, MeshServerParser))))

    def test_through_twisted(self) -> None:
        """clientFromString and serverFromString work with the node that announced itself."""
        self.addCleanup(NODES.add("here", self.b))
        server = serverFromString(self.mesh.reactor, "mesh:80")
        self.successResultOf(server.listen(Factory.forProtocol(Echo)))
        client = clientFromString(
            self.mesh.reactor, f"mesh:{self.b.public_key.hex()}:80:via=:node=here:as=node"
        )
        d = client.connect(Factory.forProtocol(Collect))
        self.mesh.flush()
        self.successResultOf(d)
        self.assertEqual(self.b.routes, [(self.b.public_key, (), "node")])

    def test_fields(self) -> None:
        """Every part of a string arrives where it belongs."""
        client = MeshClientParser(self.nodes).parseStreamClient(None, "b", "80", via="a, b", node="a")
        self.assertEqual(client, MeshClientEndpoint("b", 80, ("a", "b"), "anonymous", "a", self.nodes))
        server = MeshServerParser(self.nodes).parseStreamServer(None, port="81", callers="a,b")
        self.assertEqual(server, MeshServerEndpoint(81, ("a", "b"), None, self.nodes))

    def test_wrong_strings(self) -> None:
        """Wrong strings are refused at once."""
        wrong: list[tuple[tuple[str, ...], dict[str, str]]] = [
            ((), {}),
            (("b",), {}),
            (("b", "0"), {}),
            (("b", "65536"), {}),
            (("b", "-1"), {}),
            (("b", "x"), {}),
            (("b", "1", "2"), {}),
            (("b", "1"), {"colour": "red"}),
            (("b", "1"), {"as": "me"}),
        ]
        for args, options in wrong:
            self.assertRaises(UsageError, MeshClientParser().parseStreamClient, None, *args, **options)
        self.assertRaises(UsageError, MeshServerParser().parseStreamServer, None, "b", "1")
        self.assertRaises(UsageError, MeshServerParser().parseStreamServer, None, "1", x="y")
