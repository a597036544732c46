"""The exit's name server: queries go on as they are, answers come back to who asked, little can be held."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet import error
from twisted.names import dns
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.forwarder import (
    ANSWER_SECONDS,
    CONNECTIONS_EACH,
    IDLE_SECONDS,
    LARGEST_QUERY,
    NO_SUCH_NAME,
    REFUSED,
    WAITING_EACH,
    Forwarder,
    question,
    said,
)
from meshnet.errors import LocalError
from tests.support.streams import FakeClock
from tests.support.tcp import LocalTransport, NamedReactor, UdpTransport

CLIENT = ("10.181.0.2", 5_353)


def query(name: str = "www.Example.org", number: int = 0x1234, kind: int = dns.A) -> bytes:
    """A query as a resolver makes it."""
    message = dns.Message(number, recDes=1)
    message.addQuery(name.encode(), kind)
    return bytes(message.toStr())


def answer(asked: bytes, address: str = "192.0.2.1") -> bytes:
    """An answer to a query."""
    message = dns.Message()
    message.fromStr(asked)
    message.answer = 1
    message.answers.append(dns.RRHeader(message.queries[0].name.name, dns.A, payload=dns.Record_A(address)))
    return bytes(message.toStr())


class QuestionTests(SynchronousTestCase):
    def test_queries(self) -> None:
        """Names as another library writes them."""
        for name in ("www.example.org", "a", "x" * 63 + ".example"):
            found, asked = question(query(name))
            self.assertEqual(found, name)
            self.assertIn(asked, query(name))
        self.assertEqual(question(query("WWW.Example.ORG"))[0], "www.example.org")

    def test_said(self) -> None:
        """A refusal is one for another library, too: number, question, code."""
        asked = query("bad.example")
        message = dns.Message()
        message.fromStr(said(asked, REFUSED, question(asked)[1]))
        self.assertEqual((message.id, message.answer, message.rCode, message.recDes), (0x1234, 1, 5, 1))
        self.assertEqual(str(message.queries[0].name), "bad.example")

    def test_bad(self) -> None:
        """What is no query with one question."""
        good = query("example.org")
        two = good[:5] + b"\2" + good[6:] + b"\1b\0\0\1\0\1"
        for data in (
            b"",
            good[:12],
            good[:-1],
            good[:20],
            answer(good),
            two,
            good[:12] + b"\xc0\x0c\0\1\0\1",
        ):
            self.assertRaises(ValueError, question, data)
        self.assertRaises(ValueError, question, good + bytes(LARGEST_QUERY))
        self.assertRaises(ValueError, question, query()[:12] + (b"\x3f" + b"x" * 63) * 5 + b"\0\0\1\0\1")

    @given(st.binary(max_size=300), st.booleans())
    def test_any_bytes(self, data: bytes, headed: bool) -> None:
        """Any bytes are a question or raise ValueError."""
        try:
            question(query()[:12] + data if headed else data)
        except ValueError:
            pass


class ForwarderTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = NamedReactor()
        clock: Any = FakeClock(self.reactor)
        judge = {"evil.example": REFUSED}
        servers = ("9.9.9.9", "2620:fe::fe")
        self.forwarder = Forwarder(self.reactor, clock, servers, lambda name: judge.get(name, 0))
        self.forwarder.start(["10.181.0.1"])
        self.local: UdpTransport = self.reactor.udp[0]

    @property
    def asking(self) -> UdpTransport:
        """The last socket towards a server."""
        return self.reactor.udp[-1]

    def test_udp(self) -> None:
        """A query goes to the server under another number, its answer to the client under the old one."""
        self.local.arrive(query(), *CLIENT)
        ((asked, server),) = self.asking.sent
        self.assertEqual((server, asked[2:]), (("9.9.9.9", 53), query()[2:]))
        self.asking.arrive(answer(asked), "9.9.9.9", 53)
        self.assertEqual(self.local.sent, [(answer(query()), CLIENT)])
        self.assertTrue(self.asking.stopped)
        self.check_nothing_waits()

    def test_forged(self) -> None:
        """An answer to another number or question is not heard."""
        self.local.arrive(query(), *CLIENT)
        ((asked, _),) = self.asking.sent
        other = bytes([asked[0] ^ 1]) + asked[1:]
        for forged in (answer(other), answer(asked[:2] + query("other.example")[2:]), asked, b"", asked[:5]):
            self.asking.arrive(forged, "9.9.9.9", 53)
        self.assertEqual(self.local.sent, [])
        self.asking.arrive(answer(asked.replace(b"Example", b"eXAMPLE")), "9.9.9.9", 53)
        self.assertEqual(len(self.local.sent), 1)

    def test_judged(self) -> None:
        """A denied name is refused, a name of the mesh is none here; nobody is asked."""
        for name, code in (("evil.example", REFUSED), ("a.mesh", NO_SUCH_NAME), ("MESH", NO_SUCH_NAME)):
            self.local.arrive(query(name), *CLIENT)
            self.assertEqual(self.local.sent.pop()[0][3] & 15, code)
        self.assertEqual(len(self.reactor.udp), 1)
        self.assertEqual((self.forwarder.queries, self.forwarder.refused), (0, {"denied": 1, "mesh": 2}))

    def test_silent_server(self) -> None:
        """A query without an answer is forgotten; the next goes to the next server."""
        self.local.arrive(query(), *CLIENT)
        self.reactor.advance(ANSWER_SECONDS)
        self.check_nothing_waits()
        self.local.arrive(query(), *CLIENT)
        self.assertEqual(self.asking.sent[0][1], ("2620:fe::fe", 53))
        self.asking.protocol.connectionRefused()
        self.local.arrive(query(), *CLIENT)
        self.assertEqual(self.asking.sent[0][1], ("9.9.9.9", 53))
        self.assertEqual(self.forwarder.refused, {"unanswered": 2})

    def test_floods(self) -> None:
        """One client may have so many under way; others still can ask."""
        for _ in range(WAITING_EACH + 5):
            self.local.arrive(query(), *CLIENT)
        self.assertEqual(self.forwarder.refused, {"waiting": 5})
        self.local.arrive(query(), "10.181.0.3", 1)
        self.assertEqual(self.forwarder.queries, WAITING_EACH + 1)
        self.reactor.advance(ANSWER_SECONDS)
        self.check_nothing_waits()

    def test_no_socket(self) -> None:
        """Where no socket is left the query is lost, and nothing else."""

        def taken(*args: Any, **more: Any) -> Any:
            raise error.CannotListenError("", 0, OSError(24, "Too many open files"))

        self.patch(self.reactor, "listenUDP", taken)
        self.local.arrive(query(), *CLIENT)
        self.check_nothing_waits()

    def test_malformed(self) -> None:
        """What is no query is not passed on."""
        self.local.arrive(b"x" * 40, *CLIENT)
        self.assertEqual((len(self.reactor.udp), self.forwarder.refused), (1, {"malformed": 1}))

    def connect(self) -> LocalTransport:
        factory = self.reactor.tcpServers[0][1]
        address = type("Address", (), {"host": CLIENT[0]})()
        protocol = factory.buildProtocol(address)
        if protocol is None:
            raise ConnectionRefusedError
        return LocalTransport(self.reactor, protocol)

    def framed(self, data: bytes) -> bytes:
        return len(data).to_bytes(2, "big") + data

    def test_tcp(self) -> None:
        """Over TCP a query goes on over TCP; the next one waits for its answer."""
        client = self.connect()
        client.arrive(self.framed(query()))
        self.assertFalse(client.reading)
        host, port, factory = self.reactor.tcpClients[0][:3]
        self.assertEqual((host, port), ("9.9.9.9", 53))
        server = LocalTransport(self.reactor, factory.buildProtocol(None))
        asked = bytes(server.taken)[2:]
        server.arrive(self.framed(answer(asked)))
        self.reactor.advance(0)
        self.assertEqual(client.taken, self.framed(answer(query())))
        self.assertTrue(client.reading)
        self.assertEqual(server.closed, "aborted")
        self.reactor.advance(IDLE_SECONDS)
        self.reactor.advance(0)
        self.assertEqual(client.closed, "aborted")
        self.check_nothing_waits()

    def test_tcp_failures(self) -> None:
        """A server that refuses or leaves, a client that says too much, and too many of them."""
        client = self.connect()
        client.arrive(self.framed(query()))
        refused = Failure(error.ConnectionRefusedError())
        self.reactor.tcpClients[0][2].clientConnectionFailed(None, refused)
        self.assertEqual(self.forwarder.refused, {"unanswered": 1})
        second = self.connect()
        second.arrive(b"\xff\xff" + bytes(10))
        self.reactor.advance(0)
        self.assertEqual(second.closed, "aborted")
        for _ in range(CONNECTIONS_EACH - 1):
            self.connect()
        self.assertRaises(ConnectionRefusedError, self.connect)
        self.forwarder.stop()
        self.reactor.advance(0)
        self.assertEqual((self.forwarder._open, self.forwarder._connections), (set(), {}))
        self.check_nothing_waits()

    def test_ports_taken(self) -> None:
        """A port that is taken is a sentence, and the others go."""

        def taken(*args: Any, **more: Any) -> Any:
            raise error.CannotListenError("10.181.0.1", 53, OSError(98, "Address already in use"))

        self.patch(self.reactor, "listenTCP", taken)
        failed = self.assertRaises(LocalError, self.forwarder.start, ["10.181.0.1"])
        self.assertIn("10.181.0.1", str(failed))
        self.assertTrue(self.reactor.udp[-1].stopped)

    def test_stopped(self) -> None:
        """Nothing stays of a forwarder that is stopped while queries are under way."""
        self.local.arrive(query(), *CLIENT)
        self.forwarder.stop()
        self.assertTrue(all(socket.stopped for socket in self.reactor.udp))
        self.check_nothing_waits()

    def check_nothing_waits(self) -> None:
        self.assertEqual((self.forwarder._asking, self.forwarder._waiting), (set(), {}))
        self.assertEqual(self.reactor.getDelayedCalls(), [])
