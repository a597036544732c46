"""Endpoints of a process of its own: stock Twisted protocols through the doors of two nodes."""

from __future__ import annotations

import datetime
import os
from io import BytesIO
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import (
    clientFromString,
    connectProtocol,
    serverFromString,
    wrapClientTLS,
)
from twisted.internet.error import ConnectionAborted, ConnectionDone
from twisted.internet.interfaces import IHalfCloseableProtocol, IListeningPort, IPullProducer
from twisted.internet.protocol import Factory, Protocol
from twisted.internet.ssl import Certificate, PrivateCertificate, optionsForClientTLS
from twisted.protocols import amp
from twisted.protocols.basic import LineReceiver
from twisted.protocols.tls import TLSMemoryBIOFactory
from twisted.protocols.wire import Echo
from twisted.web.client import Agent, FileBodyProducer, readBody
from twisted.web.iweb import IAgentEndpointFactory
from twisted.web.resource import Resource
from twisted.web.server import Site
from zope.interface import implementer
from zope.interface.verify import verifyObject

from meshnet.control.attach import FIRST_PAUSE, LONGEST_PAUSE
from meshnet.control.door import Door
from meshnet.errors import LocalError, MeshError, RefusedError, UnreachableError, UsageError
from meshnet.stream_transport import MeshAddress
from tests.support.doors import DoorCase, run
from tests.support.nodes import sentence_of


def self_signed(name: str) -> Any:
    """A certificate for that host name, and its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    who = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    now = datetime.datetime.now(datetime.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(who)
        .issuer_name(who)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - datetime.timedelta(hours=1))
        .not_valid_after(now + datetime.timedelta(hours=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    return PrivateCertificate.loadPEM(certificate.public_bytes(form[0]) + key.private_bytes(*form))


@implementer(IHalfCloseableProtocol)
class Collect(Protocol):
    """Keeps what comes and how it ends."""

    transport: Any

    def __init__(self) -> None:
        self.data = b""
        self.read_ended = False
        self.lost: Any = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def readConnectionLost(self) -> None:
        self.read_ended = True

    def writeConnectionLost(self) -> None:
        pass

    def connectionLost(self, reason: Any = None) -> None:
        self.lost = reason


class AttachCase(DoorCase):
    """A program at the door of node a, another at that of node b; no node runs in their process."""

    def setUp(self) -> None:
        super().setUp()
        self.far = self.folder / "far.sock"
        self.far_door = self.new_far_door()

    def new_far_door(self) -> Door:
        """The door of node b."""
        door = Door(self.b, self.reactor, self.far, os.urandom)
        door.start()
        self.addCleanup(door.stop)
        return door

    async def serve(self, factory: Any, port: int = 80, more: str = "") -> Any:
        """A port of node b, taken by a program."""
        endpoint = serverFromString(self.reactor, f"mesh:{port}:node={self.far}{more}")
        listening: Any = await endpoint.listen(factory)
        self.addCleanup(lambda: listening.stopListening())
        return listening

    async def settled(self) -> None:
        """No streams are left, on either side."""
        await self.until(lambda: not self.door.callers and len(self.far_door.callers) <= 1)
        for _ in range(5):
            await self.turn()

    def client(self, port: int = 80, more: str = "") -> Any:
        """The way to it for a program at node a."""
        return clientFromString(self.reactor, f"mesh:b:{port}:node={self.path}{more}")


class TransportTests(AttachCase):
    @run
    async def test_echo(self) -> None:
        """Bytes both ways, addresses, and an orderly end."""
        served: list[Any] = []

        class Remembered(Echo):
            def connectionMade(self) -> None:
                served.append(self)

        port = await self.serve(Factory.forProtocol(Remembered))
        verifyObject(IListeningPort, port)
        client = await connectProtocol(self.client(more=":as=node"), Collect())
        client.transport.write(b"hello")
        await self.until(lambda: client.data == b"hello")
        self.assertEqual(client.transport.getPeer(), MeshAddress(self.b.public_key, 80))
        self.assertEqual(served[0].transport.getPeer(), MeshAddress(self.a.public_key, 0))
        self.assertEqual(served[0].transport.getHost(), MeshAddress(self.b.public_key, 80))
        self.assertEqual(port.getHost(), MeshAddress(self.b.public_key, 80))
        client.transport.loseConnection()
        await self.until(lambda: client.lost is not None)
        self.assertTrue(client.lost.check(ConnectionDone))
        await port.stopListening()
        await self.until(
            lambda: not self.far_door.callers and not self.door.callers and 80 not in self.b.ports
        )

    @run
    async def test_many_bytes(self) -> None:
        """Megabytes through both doors, by a pull producer at one end; pausing at the other stops them."""
        collect = Collect()

        @implementer(IPullProducer)
        class Pull:
            left = 400

            def resumeProducing(self) -> None:
                self.left -= 1
                client.transport.write(bytes([self.left % 256]) * 10_000)
                if not self.left:
                    client.transport.unregisterProducer()
                    client.transport.loseConnection()

            def stopProducing(self) -> None:
                pass

        factory = Factory()
        factory.buildProtocol = lambda address: collect  # type: ignore[method-assign, assignment]
        await self.serve(factory)
        client: Any = await connectProtocol(self.client(), Collect())
        await self.until(lambda: collect.transport is not None)
        collect.transport.pauseProducing()
        pull = Pull()
        client.transport.registerProducer(pull, False)
        for _ in range(50):
            await self.turn()
        self.assertGreater(pull.left, 0)
        collect.transport.resumeProducing()
        await self.until(lambda: collect.read_ended)
        self.assertEqual(collect.data, b"".join(bytes([n % 256]) * 10_000 for n in reversed(range(400))))
        collect.transport.loseConnection()
        await self.settled()

    @run
    async def test_half_close(self) -> None:
        """Each direction ends by itself."""
        collect = Collect()
        factory = Factory()
        factory.buildProtocol = lambda address: collect  # type: ignore[method-assign, assignment]
        await self.serve(factory)
        client: Any = await connectProtocol(self.client(), Collect())
        client.transport.write(b"question")
        client.transport.loseWriteConnection()
        await self.until(lambda: collect.read_ended)
        self.assertEqual((collect.data, collect.lost, client.lost), (b"question", None, None))
        collect.transport.write(b"answer")
        collect.transport.loseWriteConnection()
        await self.until(lambda: collect.lost is not None and client.lost is not None)
        self.assertEqual(client.data, b"answer")
        self.assertTrue(client.lost.check(ConnectionDone) and collect.lost.check(ConnectionDone))

    @run
    async def test_abort(self) -> None:
        """Who aborts hears ConnectionAborted; a node that goes ends connections with an error."""
        await self.serve(Factory.forProtocol(Echo))
        first: Any = await connectProtocol(self.client(), Collect())
        first.transport.abortConnection()
        second: Any = await connectProtocol(self.client(), Collect())
        second.transport.write(b"x")
        await self.until(lambda: second.data == b"x" and first.lost is not None)
        self.assertTrue(first.lost.check(ConnectionAborted))
        self.far_door.stop()
        await self.until(lambda: second.lost is not None)
        self.assertTrue(second.lost.check(UnreachableError), second.lost)

    @run
    async def test_errors(self) -> None:
        """Nothing listens, nobody is there, no node runs, a port is taken: at once, and in words."""
        refused = connectProtocol(self.client(99), Collect())
        self.assertIn("99 is not open", sentence_of(await self.assertFailure(refused, RefusedError)))
        await self.serve(Factory.forProtocol(Echo))
        taken = serverFromString(self.reactor, f"mesh:80:node={self.far}").listen(Factory())
        self.assertIn("taken", sentence_of(await self.assertFailure(taken, LocalError)))
        for where in ("/nowhere/attach.sock", str(self.folder / "no.sock")):
            for d in (
                serverFromString(self.reactor, f"mesh:80:node={where}").listen(Factory()),
                connectProtocol(clientFromString(self.reactor, f"mesh:b:80:node={where}"), Collect()),
            ):
                error = self.failureResultOf(d, MeshError)  # at once, without a turn of the reactor
                self.assertRegex(str(error.value), "^No node answers on .*; start it with meshnet up.$")
        words = clientFromString(self.reactor, f"mesh:b c:80:node={self.path}")
        self.failureResultOf(words.connect(Factory()), UsageError)

    @run
    async def test_callers(self) -> None:
        """A server that names its callers is reached by nobody else."""
        named = serverFromString(self.reactor, f"mesh:80:node={self.far}:callers=bob").listen(Factory())
        self.assertIn("hex digits", sentence_of(await self.assertFailure(named, UsageError)))
        key = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798"
        await self.serve(Factory.forProtocol(Echo), more=f":callers={key}")
        stranger: Any = await connectProtocol(self.client(), Collect())
        await self.until(lambda: stranger.lost is not None or stranger.read_ended)
        stranger.transport.loseConnection()
        await self.settled()


class ProtocolTests(AttachCase):
    @run
    async def test_http(self) -> None:
        """Twisted's HTTP client and server: a page, and a body of some megabytes each way."""

        class Twice(Resource):
            isLeaf = True

            def render_POST(self, request: Any) -> bytes:
                return bytes(request.content.read() * 2)

        @implementer(IAgentEndpointFactory)
        class OverMesh:
            def endpointForURI(_, uri: Any) -> Any:
                return self.client()

        await self.serve(Site(Twice()))
        agent = Agent.usingEndpointFactory(self.reactor, OverMesh())
        body = bytes(range(256)) * 4_000
        response = await agent.request(b"POST", b"http://b/", None, FileBodyProducer(BytesIO(body)))
        self.assertEqual(response.code, 200)
        self.assertEqual(await readBody(response), body * 2)

    @run
    async def test_lines(self) -> None:
        """LineReceiver, both sides."""
        said: Deferred[bytes] = Deferred()

        class Upper(LineReceiver):
            def lineReceived(self, line: bytes) -> None:
                self.sendLine(line.upper())

        class Ask(LineReceiver):
            def connectionMade(self) -> None:
                self.sendLine(b"hello")

            def lineReceived(self, line: bytes) -> None:
                said.callback(line)
                self.transport.loseConnection()

        await self.serve(Factory.forProtocol(Upper))
        await connectProtocol(self.client(), Ask())
        self.assertEqual(await said, b"HELLO")
        await self.settled()

    @run
    async def test_amp(self) -> None:
        """AMP calls, many at a time."""

        class Sum(amp.Command):
            arguments = ((b"a", amp.Integer()), (b"b", amp.Integer()))
            response = ((b"total", amp.Integer()),)

        class Adder(amp.AMP):
            @Sum.responder
            def sum(self, a: int, b: int) -> dict[str, int]:
                return {"total": a + b}

        await self.serve(Factory.forProtocol(Adder))
        client: Any = await connectProtocol(self.client(), amp.AMP())
        answers = await gatherResults([client.callRemote(Sum, a=n, b=1) for n in range(200)])
        self.assertEqual([answer["total"] for answer in answers], list(range(1, 201)))
        client.transport.loseConnection()
        await self.settled()

    @run
    async def test_tls(self) -> None:
        """TLS over the mesh: wrapClientTLS on one side, a TLS factory on the other, megabytes."""
        certificate = self_signed("b.example")
        factory = TLSMemoryBIOFactory(certificate.options(), False, Factory.forProtocol(Echo))
        await self.serve(factory)
        trust = optionsForClientTLS("b.example", trustRoot=Certificate(certificate.original))
        client: Any = await connectProtocol(wrapClientTLS(trust, self.client()), Collect())
        data = bytes(range(256)) * 8_000
        client.transport.write(data)
        await self.until(lambda: len(client.data) == len(data))
        self.assertEqual(client.data, data)
        client.transport.loseConnection()
        await self.settled()


class RestartTests(AttachCase):
    @run
    async def test_restart(self) -> None:
        """When the node comes back its ports are taken again, with the same factory."""
        factory = Factory.forProtocol(Echo)
        port = await self.serve(factory)
        self.far_door.stop()
        await self.until(lambda: 80 not in self.b.ports)
        for _ in range(5):
            await self.turn()
        self.far_door = self.new_far_door()
        await self.until(lambda: 80 in self.b.ports)
        client: Any = await connectProtocol(self.client(), Collect())
        client.transport.write(b"again")
        await self.until(lambda: client.data == b"again")
        self.assertLess(FIRST_PAUSE, LONGEST_PAUSE)
        await port.stopListening()
        self.far_door.stop()
        self.new_far_door()
        await self.turn()
        self.assertNotIn(80, self.b.ports)
