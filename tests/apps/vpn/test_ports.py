"""The exit and served ports, without sockets."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

import attrs
from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.counts import Counts
from apps.vpn.destination import Destination
from apps.vpn.messages import (
    EXIT_PORT,
    LARGEST_REPLY,
    Code,
    ExitReply,
    request,
    take,
)
from apps.vpn.policy import rule
from apps.vpn.ports import REQUEST_SECONDS, RESOLVE_SECONDS, ExitPort, ServePort
from apps.vpn.settings import Exit, Serve
from apps.vpn.splice import Role
from meshnet.errors import LocalError, MeshError, RefusedError, UnreachableError, UsageError
from meshnet.session.codes import StreamResetError
from tests.support.streams import FakeMesh, FakeStream
from tests.support.tcp import NamedReactor


class Client:
    """The far end of a stream to a port: reads everything, credits everything unless told to stop."""

    def __init__(self) -> None:
        self.stream: Any = None
        self.data = bytearray()
        self.ended = False
        self.why: MeshError | None = None
        self.crediting = True

    def data_received(self, data: memoryview) -> None:
        self.data += data
        if self.crediting:
            self.stream.consumed(len(data))

    def finished(self) -> None:
        self.ended = True

    def lost(self, why: MeshError) -> None:
        self.why = why

    def drained(self) -> None:
        pass


class Base(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = NamedReactor()
        self.mesh = FakeMesh(self.reactor, window=1 << 18)
        self.user, self.node = self.mesh.node("user"), self.mesh.node("exit")
        self.role = Role(Counts())

    def open(self, port: int = EXIT_PORT, identity: str = "anonymous") -> Client:
        client = Client()
        d = self.user.connect(self.node.public_key, port, client, via=(), identity=identity)
        self.mesh.flush()
        client.stream = self.successResultOf(d)
        return client

    @property
    def far(self) -> FakeStream:
        return self.node.streams[-1]


class ExitTests(Base):
    def start(self, **settings: Any) -> ExitPort:
        self.port = ExitPort(self.node, self.role, settings=Exit(enabled=True, **settings))  # type: ignore[arg-type]
        self.port.apply()
        return self.port

    def ask(self, host: Any, port: int = 80) -> Client:
        client = self.open()
        client.stream.write(request(_where(host, port)))
        self.mesh.flush()
        return client

    def answer(self, client: Client) -> ExitReply | None:
        return take(ExitReply, client.data, LARGEST_REPLY)

    def check_refused(self, client: Client, code: Code, text: str, reason: str) -> None:
        answer = self.answer(client)
        assert answer is not None
        self.assertEqual(Code(answer.code), code)
        self.assertIn(text, answer.text)
        self.assertTrue(client.ended)
        self.assertEqual(self.role.counts.refused, {reason: 1})
        client.stream.finish()
        self.mesh.flush()
        self.assertEqual(self.role.sides, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_connects(self) -> None:
        """It dials the resolved address from its source address, answers, and passes bytes and ends."""
        self.start(source="127.0.0.9", allow=(rule("127.0.0.0/8"),))
        self.reactor.names["intra.example"] = ["127.0.0.5"]
        client = self.ask("intra.example", 8080)
        self.assertEqual(self.reactor.dialled, [("127.0.0.5", 8080)])
        self.assertEqual(self.reactor.tcpClients[0][4], ("127.0.0.9", 0))
        client.stream.write(b"early")
        self.mesh.flush()
        server = self.reactor.accept()
        self.mesh.flush()
        answer = self.answer(client)
        assert answer is not None
        self.assertEqual(answer.code, Code.OK)
        self.assertEqual(server.taken, b"early")
        server.arrive(b"hello")
        client.stream.write(b"there")
        client.stream.finish()
        self.mesh.flush()
        self.assertEqual((client.data, server.taken, server.write_closed), (b"hello", b"earlythere", True))
        self.assertEqual((server.closed, client.ended), ("", False))
        server.finish()
        self.mesh.flush()
        self.assertEqual((server.closed, client.ended), ("lost", True))
        counts = self.role.counts
        self.assertEqual((counts.open, counts.streams, counts.to_mesh, counts.from_mesh), (0, 1, 5, 10))
        self.assertEqual(self.role.sides, set())

    def test_slow_server_closes_the_window(self) -> None:
        """A server that takes nothing makes the exit credit nothing more; memory stays within the window."""
        self.start()
        client = self.ask(_ip("8.8.8.8"))
        server = self.reactor.accept()
        self.mesh.flush()
        server.stuck = True
        sent = 0
        while size := client.stream.write(bytes(10_000)):
            sent += size
            self.mesh.flush(10)
        self.assertLess(sent, self.mesh.window + 100_000)
        self.assertLess(self.far.credited, 100_000)
        server.stuck = False
        server.release()
        self.mesh.flush()
        self.assertEqual(len(server.taken), sent)
        self.assertEqual(self.far.credited, self.far.delivered)

    def test_slow_client_pauses_the_server(self) -> None:
        """A client that credits nothing stops the exit's reading of the server."""
        self.start()
        client = self.ask(_ip("8.8.8.8"))
        server = self.reactor.accept()
        self.mesh.flush()
        self.answer(client)
        client.crediting = False
        sent = 0
        while server.reading:
            server.arrive(bytes(50_000))
            sent += 50_000
            self.mesh.flush(10)
        self.assertLess(sent, self.mesh.window + 100_000)
        client.crediting = True
        client.stream.consumed(len(client.data))
        self.mesh.flush()
        self.assertTrue(server.reading)
        self.assertEqual(len(client.data), sent)

    def test_losses(self) -> None:
        """A server that resets resets the stream; a stream that is lost aborts the connection."""
        self.start()
        client = self.ask(_ip("8.8.8.8"))
        server = self.reactor.accept()
        self.mesh.flush()
        server.break_off()
        self.mesh.flush()
        self.assertIsInstance(client.why, StreamResetError)
        client = self.ask(_ip("8.8.8.8"))
        server = self.reactor.accept()
        client.stream.reset()
        self.mesh.flush()
        self.assertEqual(server.closed, "aborted")

    def test_private_names(self) -> None:
        """A name that resolves to private addresses is refused, whatever the lists say of the name."""
        self.start(allow=(rule("public"), rule("rebind.example")))
        self.reactor.names["rebind.example"] = ["192.168.1.1", "::1"]
        self.check_refused(self.ask("rebind.example"), Code.NOT_ALLOWED, "not a public address", "private")
        self.assertEqual(self.reactor.dialled, [])

    def test_mixed_names(self) -> None:
        """Of a name with public and private addresses only the public ones are tried, as addresses."""
        self.start()
        self.reactor.names["mixed.example"] = ["10.0.0.1", "8.8.8.8", "169.254.169.254"]
        self.ask("mixed.example")
        self.assertEqual(self.reactor.dialled, [("8.8.8.8", 80)])
        self.assertEqual(self.reactor.asked, ["mixed.example"])

    def test_numbers_as_names(self) -> None:
        """An address written as a name goes through the resolver and the same check."""
        self.start()
        self.reactor.names["2130706433"] = ["127.0.0.1"]
        self.check_refused(self.ask("2130706433"), Code.NOT_ALLOWED, "2130706433", "private")

    def test_denied_and_unlisted(self) -> None:
        """Deny-list and allow-list each say their own."""
        self.start(allow=(rule("8.0.0.0/8"),), deny=(rule("8.8.8.8"),))
        self.check_refused(self.ask(_ip("8.8.8.8")), Code.NOT_ALLOWED, "deny-list", "denied")
        self.role.counts.refused.clear()
        self.check_refused(self.ask(_ip("9.9.9.9")), Code.NOT_ALLOWED, "allow-list", "not_listed")

    def test_no_such_name(self) -> None:
        """A name without addresses, and one whose look-up hangs."""
        self.start()
        self.check_refused(self.ask("nowhere.example"), Code.HOST_UNREACHABLE, "no such name", "no_such_name")
        self.role.counts.refused.clear()
        self.reactor.names["slow.example"] = None
        client = self.ask("slow.example")
        self.assertEqual(client.data, b"")
        self.reactor.advance(RESOLVE_SECONDS)
        self.mesh.flush()
        self.check_refused(client, Code.HOST_UNREACHABLE, "no such name", "no_such_name")

    def test_failed_connections(self) -> None:
        """What the old internet says becomes a code."""
        self.start()
        for why, code, reason in (
            (error.ConnectionRefusedError(), Code.REFUSED, "refused"),
            (error.TimeoutError(), Code.TIMED_OUT, "timed_out"),
            (error.NoRouteError(), Code.NETWORK_UNREACHABLE, "network_unreachable"),
            (error.ConnectError(113), Code.HOST_UNREACHABLE, "host_unreachable"),
            (error.ConnectBindError(99), Code.FAILED, "source"),
            (error.ConnectError(1), Code.FAILED, "failed"),
        ):
            client = self.ask(_ip("8.8.8.8"))
            self.reactor.decline(why)
            self.mesh.flush()
            self.check_refused(client, code, "", reason)
            self.role.counts.refused.clear()

    def test_next_address(self) -> None:
        """The next address of a name is tried when one fails, three at most."""
        self.start()
        self.reactor.names["many.example"] = [f"8.8.8.{number}" for number in range(1, 9)]
        client = self.ask("many.example")
        for _ in range(3):
            self.reactor.decline(error.ConnectionRefusedError())
            self.mesh.flush()
        self.assertEqual(self.reactor.dialled, [(f"8.8.8.{number}", 80) for number in (1, 2, 3)])
        self.check_refused(client, Code.REFUSED, "8.8.8.3:80 refused", "refused")

    def test_source_family(self) -> None:
        """With an IPv4 source no IPv6 address is tried."""
        self.start(source="192.0.2.9")
        self.reactor.names["both.example"] = ["2606:4700::1111", "8.8.8.8"]
        client = self.ask(_ip("2606:4700::1111"))
        self.check_refused(client, Code.NETWORK_UNREACHABLE, "no address of the kind", "network_unreachable")
        self.ask("both.example")
        self.assertEqual(self.reactor.dialled, [("8.8.8.8", 80)])

    def test_malformed(self) -> None:
        """Garbage instead of a request is answered and ended."""
        self.start()
        client = self.open()
        client.stream.write(b"GET / HTTP/1.1\r\n\r\n")
        self.mesh.flush()
        self.check_refused(client, Code.FAILED, "longer than", "malformed")

    def test_silence(self) -> None:
        """A stream without a request does not stay."""
        self.start()
        client = self.open()
        client.stream.write(b"\x00")
        self.mesh.flush()
        self.reactor.advance(REQUEST_SECONDS)
        self.mesh.flush()
        self.check_refused(client, Code.TIMED_OUT, "no request", "request_timeout")

    def test_leaving_early(self) -> None:
        """A caller that leaves before, during and after the look-up leaves nothing behind."""
        self.start()
        self.open().stream.reset()
        self.reactor.names["slow.example"] = None
        self.ask("slow.example").stream.reset()
        self.ask(_ip("8.8.8.8")).stream.reset()
        self.open().stream.finish()
        self.mesh.flush()
        self.reactor.advance(REQUEST_SECONDS)
        self.assertEqual(self.role.sides, set())
        self.assertEqual(self.reactor.connectors[0].stoppedConnecting, True)

    def test_callers(self) -> None:
        """Only the callers listed, and they must say who they are."""
        self.start(callers=(self.user.public_key,))
        self.assertIsInstance(self.open(identity="anonymous").why, RefusedError)
        self.assertIsNone(self.open(identity="node").why)
        self.assertEqual(self.role.counts.refused, {"caller": 1})

    def test_max_streams(self) -> None:
        """No more streams at a time than said; one that ended makes room."""
        self.start(max_streams=2)
        first = self.open()
        self.open()
        self.assertIsInstance(self.open().why, RefusedError)
        first.stream.reset()
        self.mesh.flush()
        self.assertIsNone(self.open().why)
        self.assertEqual(self.role.counts.refused, {"max_streams": 1})

    def test_changes(self) -> None:
        """Rules come and go at run time; off gives the port back, on takes it."""
        port = self.start()
        port.change(None, (rule("127.0.0.1"),), (rule("public:25"),), ("public",))
        described = port.describe()
        self.assertEqual((described["allow"], described["deny"]), (["127.0.0.1"], ["public:25"]))
        self.assertRaises(UsageError, port.change, None, (), (), ("10.0.0.0/8",))
        port.change(False, (), (), ())
        self.assertEqual((port.listening, self.node.ports), (False, {}))
        self.node.listen(EXIT_PORT, lambda stream: None)
        self.assertRaises(LocalError, port.change, True, (), (), ())


class ServeTests(Base):
    def start(self, **settings: Any) -> None:
        serve = Serve(port=22, target=("127.0.0.1", 2222))
        self.port = ServePort(self.node, self.role, settings=attrs.evolve(serve, **settings))  # type: ignore[arg-type]
        self.port.listen(22)

    def test_serves(self) -> None:
        """A stream becomes a connection to the target; what came before it stands waits."""
        self.start()
        client = self.open(22)
        client.stream.write(b"hello")
        self.mesh.flush()
        self.assertEqual(self.reactor.dialled, [("127.0.0.1", 2222)])
        server = self.reactor.accept()
        self.mesh.flush()
        server.arrive(b"SSH-2.0")
        self.mesh.flush()
        self.assertEqual((server.taken, client.data), (b"hello", b"SSH-2.0"))
        self.assertTrue(server.no_delay)

    def test_target_away(self) -> None:
        """A target that refuses resets the stream with a code that says so."""
        self.start()
        client = self.open(22)
        self.reactor.decline(error.ConnectionRefusedError())
        self.mesh.flush()
        self.assertIsInstance(client.why, UnreachableError)
        self.assertEqual(self.role.counts.refused, {"refused": 1})

    def test_callers(self) -> None:
        """Others than the callers are refused."""
        self.start(callers=(self.node.public_key,))
        self.assertIsInstance(self.open(22, "node").why, RefusedError)

    def test_stop(self) -> None:
        """Stopping gives the port back; streams stay."""
        self.start()
        client = self.open(22)
        server = self.reactor.accept()
        self.mesh.flush()
        self.port.stop()
        server.arrive(b"still")
        self.mesh.flush()
        self.assertEqual((client.data, self.node.ports), (b"still", {}))


def _where(host: Any, port: int) -> Destination:
    return Destination(host, port)


def _ip(text: str) -> Any:
    return ip_address(text)
