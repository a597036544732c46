"""SOCKS ports and forwards, without sockets; the exit at the other end is a real one."""

from __future__ import annotations

from typing import Any

from twisted.internet import error
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.callers import ANSWER_SECONDS
from apps.vpn.counts import Counts
from apps.vpn.listeners import HANDSHAKE_SECONDS, ForwardListener, SocksListener
from apps.vpn.messages import EXIT_PORT, Code
from apps.vpn.ports import ExitPort
from apps.vpn.settings import Exit, Forward, Socks
from apps.vpn.socks import reply
from apps.vpn.socks_datagrams import Answers
from apps.vpn.splice import Role
from meshnet.cipher.keys import SecretKey, dns_label
from meshnet.errors import CircuitError, LocalError, Reason, RefusedError, TimedOutError, UnreachableError
from tests.support.streams import FakeMesh
from tests.support.tcp import LocalTransport, NamedReactor

HELLO = b"\x05\x01\x00"
ASK = b"\x05\x01\x00\x01\x08\x08\x08\x08\x00\x50"
OK = b"\x05\x00" + reply(Code.OK)


class Base(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = NamedReactor()
        self.mesh = FakeMesh(self.reactor, window=1 << 18)
        self.user, self.far = self.mesh.node("user"), self.mesh.node("far")
        self.role = Role(Counts())

    def assert_nothing_left(self) -> None:
        self.mesh.flush()
        self.assertEqual(self.role.sides, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])


class SocksTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.exit = ExitPort(self.far, Role(Counts()), settings=Exit(enabled=True))  # type: ignore[arg-type]
        self.exit.apply()

    def start(self, **settings: Any) -> SocksListener:
        made = Socks(exit=self.far.public_key, via=(), **settings)
        answers = Answers(self.user, self.role.counts)  # type: ignore[arg-type]
        self.listener = SocksListener(self.user, self.role, settings=made, answers=answers)  # type: ignore[arg-type]
        self.listener.bind(made.listen)
        return self.listener

    def ask(self, *said: bytes) -> LocalTransport:
        client = self.reactor.connect()
        for piece in said or (HELLO, ASK):
            client.arrive(piece)
        self.mesh.flush()
        return client

    def check_refused(self, client: LocalTransport, code: Code, reason: str) -> None:
        self.mesh.flush()
        self.assertEqual(client.taken[2:], reply(code))
        self.assertEqual(client.closed, "lost")
        self.assertEqual(self.role.counts.refused, {reason: 1})
        self.assert_nothing_left()

    def test_through_the_exit(self) -> None:
        """A client's connection goes to the exit by the route and identity of the settings, and back."""
        self.start(identity="node")
        client = self.ask()
        self.assertEqual(self.user.routes, [(self.far.public_key, (), "node")])
        self.assertEqual(self.reactor.dialled, [("8.8.8.8", 80)])
        self.assertEqual(client.taken, b"\x05\x00")
        server = self.reactor.accept()
        self.mesh.flush()
        self.assertEqual(client.taken, OK)
        client.arrive(b"GET /")
        server.arrive(b"200")
        self.mesh.flush()
        self.assertEqual((server.taken, client.taken[len(OK) :]), (b"GET /", b"200"))
        client.finish()
        server.finish()
        self.mesh.flush()
        self.assertEqual((client.closed, server.closed), ("lost", "lost"))
        self.assertEqual((self.role.counts.to_mesh, self.role.counts.from_mesh), (5, 3))
        self.assert_nothing_left()

    def test_everything_at_once(self) -> None:
        """A client that sends ahead, and ends, before its answer: nothing is lost, reading pauses."""
        self.start()
        client = self.ask(HELLO + ASK + b"early ")
        self.assertFalse(client.reading)
        server = self.reactor.accept()
        server.arrive(b"greeting")  # before the exit's answer has gone far
        self.mesh.flush()
        self.assertTrue(client.reading)
        client.arrive(b"late")
        client.finish()
        self.mesh.flush()
        self.assertEqual((server.taken, server.write_closed), (b"early late", True))
        self.assertEqual(client.taken, OK + b"greeting")

    def test_end_before_the_answer(self) -> None:
        """A client that has said all before its answer still gets what comes."""
        self.start()
        client = self.ask(HELLO + ASK)
        client.finish()
        server = self.reactor.accept()
        self.mesh.flush()
        self.assertTrue(server.write_closed)
        server.arrive(b"time of day")
        server.finish()
        self.mesh.flush()
        self.assertEqual(client.taken, OK + b"time of day")
        self.assert_nothing_left()

    def test_slow_client(self) -> None:
        """A client that reads nothing closes the stream's window: the exit pauses the server."""
        self.start()
        client = self.ask()
        server = self.reactor.accept()
        self.mesh.flush()
        client.stuck = True
        sent = 0
        while server.reading:
            server.arrive(bytes(50_000))
            sent += 50_000
            self.mesh.flush(20)
        self.assertLess(sent, self.mesh.window + 250_000)
        client.stuck = False
        client.release()
        self.mesh.flush()
        self.assertTrue(server.reading)
        self.assertEqual(len(client.taken), len(OK) + sent)

    def test_circuit_lost(self) -> None:
        """When the stream is lost the client's connection is reset, not ended in order."""
        self.start()
        client = self.ask()
        self.reactor.accept()
        self.mesh.flush()
        self.user.streams[0].lose(CircuitError("relay 2 has gone", Reason.LINK_LOST, 1))
        self.mesh.flush()
        self.assertEqual(client.closed, "aborted")
        self.assertEqual(self.role.counts.open, 0)

    def test_client_resets(self) -> None:
        """A client that resets resets the stream, and the exit the server's connection."""
        self.start()
        client = self.ask()
        server = self.reactor.accept()
        self.mesh.flush()
        client.break_off()
        self.mesh.flush()
        self.assertEqual(server.closed, "aborted")
        self.assert_nothing_left()

    def test_errors(self) -> None:
        """What went wrong on the way becomes a reply code."""
        self.start()
        for why, code, reason in (
            (UnreachableError("no way"), Code.HOST_UNREACHABLE, "host_unreachable"),
            (TimedOutError("no answer"), Code.TIMED_OUT, "timed_out"),
            (RefusedError("no"), Code.NOT_ALLOWED, "not_allowed"),
            (CircuitError("no", Reason.REFUSED, 1), Code.NOT_ALLOWED, "not_allowed"),
            (LocalError("no"), Code.FAILED, "local"),
        ):
            self.mesh.connect_error = why
            self.check_refused(self.ask(), code, reason)
            self.assertEqual(self.listener.describe()["last_error"], str(why))
            self.role.counts.refused.clear()

    def test_errors_of_the_exit(self) -> None:
        """The exit's codes reach the client."""
        self.start()
        client = self.ask()
        self.reactor.decline(error.ConnectionRefusedError())
        self.check_refused(client, Code.REFUSED, "refused")
        self.role.counts.refused.clear()
        private = b"\x05\x01\x00\x01\x0a\x00\x00\x01\x00\x50"
        self.check_refused(self.ask(HELLO, private), Code.NOT_ALLOWED, "not_allowed")

    def test_no_exit_there(self) -> None:
        """A node that is no exit refuses the stream."""
        self.exit.stop()
        self.start()
        self.check_refused(self.ask(), Code.NOT_ALLOWED, "not_allowed")

    def test_odd_exits(self) -> None:
        """An exit that ends without a reply, sends garbage, or says nothing."""
        self.exit.stop()
        streams: list[Any] = []

        def accept(stream: Any) -> Any:
            streams.append(stream)
            return _Deaf()

        self.far.listen(EXIT_PORT, accept)
        self.start()
        client = self.ask()
        streams.pop().finish()
        self.check_refused(client, Code.FAILED, "failed")
        self.role.counts.refused.clear()
        client = self.ask()
        streams.pop().write(b"HTTP/1.1 400 Bad Request\r\n")
        self.check_refused(client, Code.FAILED, "failed")
        self.role.counts.refused.clear()
        client = self.ask()
        self.reactor.advance(ANSWER_SECONDS)
        self.check_refused(client, Code.TIMED_OUT, "timed_out")

    def test_leaving_early(self) -> None:
        """A client that leaves while its connection is being made: also a late stream is given up."""
        self.start()
        client = self.ask()
        client.break_off()
        self.assert_nothing_left()
        client = self.reactor.connect()
        client.arrive(HELLO + ASK)
        client.break_off()  # before the stream stands
        self.assert_nothing_left()
        self.assertEqual(self.role.counts.refused, {})

    def test_odd_clients(self) -> None:
        """Garbage, silence, and an end before the request."""
        self.start()
        client = self.ask(b"GET / HTTP/1.1\r\n")
        self.assertEqual((client.closed, bytes(client.taken)), ("lost", b""))
        self.reactor.connect().finish()
        self.assert_nothing_left()
        client = self.ask(HELLO)
        self.reactor.advance(HANDSHAKE_SECONDS)
        self.assertEqual(client.closed, "aborted")
        self.assertEqual(self.role.counts.refused, {"not_socks5": 1, "handshake_timeout": 1})
        self.assertIn("did not say within 30 s", self.listener.failures.last)
        self.assert_nothing_left()

    def test_too_much_early(self) -> None:
        """A client that floods before its answer is dropped with its stream."""
        self.start()
        client = self.ask(HELLO + ASK)
        client.reading = True
        client.arrive(bytes(1 << 20))
        self.assertEqual(client.closed, "lost")
        self.assert_nothing_left()

    def test_password(self) -> None:
        """Credentials of the settings are asked for."""
        self.start(username="ann", password="secret")
        client = self.ask(b"\x05\x01\x02", b"\x01\x03ann\x06secret")
        self.assertEqual(client.taken, b"\x05\x02\x01\x00")
        self.assertEqual(self.ask(HELLO).taken, b"\x05\xff")
        self.assertIn("kind of login", self.listener.failures.last)
        self.ask(b"\x05\x01\x02", b"\x01\x03ann\x06Secret")
        self.assertIn("wrong name or password", self.listener.failures.last)
        self.assertRaises(ValueError, Socks, exit=self.far.public_key, username="ann")

    def test_max_streams(self) -> None:
        """No more clients at a time than said; one that left makes room."""
        self.start(max_streams=1)
        first = self.reactor.connect()
        self.assertRaises(ConnectionRefusedError, self.reactor.connect)
        first.break_off()
        self.mesh.flush()
        self.reactor.connect()
        self.assertEqual(self.role.counts.refused, {"max_streams": 1})
        self.assertIn("1 connections are open", self.listener.failures.last)

    def test_every_refusal_has_a_sentence(self) -> None:
        """Whatever ends a client's SOCKS conversation is told in words."""
        self.start()
        said = [b"\x04\x01", b"\x05\x01\x07", b"\x05\x01\x00\x05\x02\x00\x01\x08\x08\x08\x08\x00\x50"]
        said += [b"\x05\x01\x00\x05\x01\x00\x09\x08\x08", b"\x05\x01\x00\x05\x01\x00\x03\x01 \x00\x50"]
        told = set()
        for each in said:
            self.ask(each)
            told.add(self.listener.failures.last)
        self.assertEqual(len(told), len(said))
        self.assertEqual(sum(self.role.counts.refused.values()), len(said))

    def test_mesh_names(self) -> None:
        """A name under .mesh leads straight to that node's port, over the configured route."""
        self.start()
        key = SecretKey(bytes(31) + b"\x07").public
        for name in (f"{dns_label(key)}.mesh", f"www.{dns_label(key).upper()}.MESH"):
            said = b"\x05\x01\x00\x03" + bytes([len(name)]) + name.encode() + b"\x00\x16"
            self.ask(HELLO, said)
            self.assertEqual(self.user.routes.pop(), (key, None, "anonymous"))
        self.ask(HELLO, b"\x05\x01\x00\x03\x08far.mesh\x00\x16")
        self.assertEqual(self.user.routes.pop(), (self.far.public_key, None, "anonymous"))
        self.role.counts.refused.clear()
        self.check_refused(
            self.ask(HELLO, b"\x05\x01\x00\x03\x06a.mesh\x00\x16"), Code.HOST_UNREACHABLE, "local"
        )

    def test_port_in_use(self) -> None:
        """A port that is taken: a sentence that names it."""

        def taken(port: int, factory: Any, backlog: int = 50, interface: str = "") -> Any:
            raise error.CannotListenError(interface, port, OSError(98, "Address already in use"))

        self.reactor.listenTCP = taken  # type: ignore[method-assign]
        failure = self.assertRaises(LocalError, self.start)
        self.assertIn("127.0.0.1:1080", str(failure))


class ForwardTests(Base):
    def start(self) -> ForwardListener:
        made = Forward(listen=("127.0.0.1", 0), to=self.far.public_key, port=22, via=())
        self.listener = ForwardListener(self.user, self.role, settings=made)  # type: ignore[arg-type]
        self.listener.bind(made.listen)
        return self.listener

    def test_forwards(self) -> None:
        """A connection becomes a stream to the mesh port, paused until it stands."""
        echoes: list[bytes] = []

        class Echo:
            def __init__(self, stream: Any) -> None:
                self.stream = stream

            def data_received(self, data: memoryview) -> None:
                echoes.append(bytes(data))
                self.stream.consumed(len(data))
                self.stream.write(data)

            def finished(self) -> None:
                self.stream.finish()

            def lost(self, why: Exception) -> None:
                pass

            def drained(self) -> None:
                pass

        self.far.listen(22, Echo)
        self.start()
        client = self.reactor.connect()
        self.assertFalse(client.reading)
        self.mesh.flush()
        client.arrive(b"hello")
        client.finish()
        self.mesh.flush()
        self.assertEqual((client.taken, echoes, client.closed), (b"hello", [b"hello"], "lost"))
        self.assert_nothing_left()

    def test_a_far_side_that_wants_no_more(self) -> None:
        """After its STOP a client that was held back is read again, into nothing, and gets the answer."""
        self.far.listen(22, lambda stream: _Deaf())
        self.start()
        client = self.reactor.connect()
        self.mesh.flush()
        client.arrive(bytes(self.mesh.window + 1))
        self.mesh.flush()
        self.assertFalse(client.reading)
        (stream,) = self.far.streams
        stream.stop()
        self.mesh.flush()
        self.assertTrue(client.reading)
        client.arrive(b"nobody reads this")
        stream.write(b"answer")
        stream.finish()
        self.mesh.flush()
        self.assertEqual((client.taken, client.closed), (b"answer", "lost"))
        self.assert_nothing_left()

    def test_nobody_there(self) -> None:
        """No such port there: the connection is reset."""
        self.start()
        client = self.reactor.connect()
        self.mesh.flush()
        self.assertEqual(client.closed, "aborted")
        self.assertEqual(self.role.counts.refused, {"not_allowed": 1})
        self.assertIn("22", self.listener.describe()["last_error"])

    def test_leaving_early(self) -> None:
        """A client that leaves before the stream stands: the stream is reset when it comes."""
        self.far.listen(22, lambda stream: _Deaf())
        self.start()
        client = self.reactor.connect()
        client.break_off()
        self.mesh.flush()
        self.assertTrue(self.user.streams[0].gone)
        self.assert_nothing_left()


class _Deaf:
    def data_received(self, data: memoryview) -> None:
        pass

    def finished(self) -> None:
        pass

    def lost(self, why: Exception) -> None:
        pass

    def drained(self) -> None:
        pass
