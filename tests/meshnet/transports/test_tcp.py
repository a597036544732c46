"""TCP on loopback: addresses, names, and what stands in the way of a connection."""

from __future__ import annotations

import errno
import socket
import threading
from typing import Any
from unittest import SkipTest
from unittest.mock import Mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import ConfigError, LocalError, MeshError, UnreachableError
from meshnet.transports import tcp
from meshnet.transports.conformance import Sink
from meshnet.transports.interface import ByteCarrier
from meshnet.transports.sockets import MARK, SocketCarrier, mark
from meshnet.transports.tcp import (
    ADDRESSES_TRIED,
    KEEP_IDLE,
    NOTSENT_LOWAT,
    UNACKNOWLEDGED,
    TcpTransport,
    join,
    split,
    tune,
)
from tests.support.reactors import OwnReactor

SO_MARK = 36


class AddressTests(SynchronousTestCase):
    """Texts."""

    def test_split_and_join(self) -> None:
        """Names, IPv4, IPv6 in brackets; what was split joins to the same."""
        for text, host, port in (
            ("127.0.0.1:7001", "127.0.0.1", 7001),
            ("relay.example:1", "relay.example", 1),
            ("[::1]:65535", "::1", 65535),
            ("[fe80::1%eth0]:0", "fe80::1%eth0", 0),
        ):
            self.assertEqual(split(text), (host, port))
            self.assertEqual(join(host, port), text)

    @given(st.text(max_size=30))
    def test_any_text(self, text: str) -> None:
        """Either an address or one sentence."""
        try:
            host, port = split(text)
        except ConfigError as error:
            self.assertIn("host:port", str(error))
            return
        self.assertTrue(host.strip() and host.isprintable() and 0 <= port <= 65_535)


class TcpTests(SynchronousTestCase):
    """Real sockets."""

    def setUp(self) -> None:
        self.world = OwnReactor()
        self.addCleanup(self.world.close)
        self.transport = TcpTransport(self.world.reactor)
        self.sinks: list[Sink] = []

    def attach(self, carrier: ByteCarrier) -> Sink:
        self.sinks.append(Sink(carrier))
        return self.sinks[-1]

    def resolve_to(self, answer: Any) -> list[tuple[Any, ...]]:
        """Names are looked up here from now on; the names asked for."""
        asked: list[tuple[Any, ...]] = []
        real = socket.getaddrinfo

        def look_up(host: str, port: int, type: int, flags: int = 0) -> Any:
            if flags & socket.AI_NUMERICHOST:
                return real(host, port, type=type, flags=flags)
            asked.append((host, port))
            if isinstance(answer, BaseException):
                raise answer
            return answer(port)

        self.patch(socket, "getaddrinfo", look_up)
        return asked

    def close_all(self) -> None:
        for sink in self.sinks:
            sink.carrier.close()
        self.assertEqual(self.world.left(), [])

    def test_port_in_use(self) -> None:
        """The sentence says what to do; so does that of an address this machine does not have."""
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))
            taken.listen()
            rest = join(*taken.getsockname())
            error = self.assertRaises(LocalError, self.world.result, self.transport.listen(rest, self.attach))
            self.assertIn(f"tcp:{rest}: the port is in use", str(error))
        error = self.assertRaises(
            LocalError, self.world.result, self.transport.listen("192.0.2.1:0", self.attach)
        )
        self.assertIn("no such address", str(error))
        self.close_all()

    def test_names_that_cannot_be(self) -> None:
        """A label of 70 letters is no name: a sentence for who dials, and for who listens."""
        for name in ("x" * 70, "a..b"):
            rest = f"{name}:7001"
            for attempt in (self.transport.dial(rest, self.attach), self.transport.listen(rest, self.attach)):
                error = self.assertRaises(MeshError, self.world.result, attempt)
                self.assertIn("name", str(error).lower())
        self.close_all()

    def test_unknown_name(self) -> None:
        """A look-up that fails, in its thread."""
        asked = self.resolve_to(socket.gaierror(socket.EAI_NONAME, "Name or service not known"))
        error = self.assertRaises(
            UnreachableError, self.world.result, self.transport.dial("no.such.name:7001", self.attach)
        )
        self.assertIn("no.such.name is unknown", str(error))
        self.assertEqual(asked, [("no.such.name", 7001)])
        self.close_all()

    def test_a_name_that_is_known(self) -> None:
        """What cannot be looked up any more is dialled where it was; so is what takes too long."""
        listener = self.world.result(self.transport.listen("127.0.0.1:0", self.attach))
        port = int(listener.address.rpartition(":")[2])
        self.resolve_to(lambda port: [(socket.AF_INET, socket.SOCK_STREAM, 0, "", ("127.0.0.1", port))])
        self.world.result(self.transport.dial(f"some.name:{port}", self.attach))
        self.resolve_to(socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution"))
        self.world.result(self.transport.dial(f"some.name:{port}", self.attach))
        answer = threading.Event()
        self.addCleanup(answer.set)
        self.resolve_to(lambda port: answer.wait(60))
        self.patch(tcp, "LOOK_UP_AGAIN", 0.01)
        self.world.result(self.transport.dial(f"some.name:{port}", self.attach))
        answer.set()
        self.world.until(lambda: len(self.sinks) == 6)
        listener.stop()
        self.close_all()

    def test_marked(self) -> None:
        """The kernel knows sockets of links from others: those that dial, that listen, that were accepted."""
        with socket.socket() as probe:
            if not mark(probe):
                raise SkipTest("This process may not mark sockets: it needs CAP_NET_ADMIN, on Linux.")
        listener = self.world.result(self.transport.listen("127.0.0.1:0", self.attach))
        self.world.result(self.transport.dial(listener.address.removeprefix("tcp:"), self.attach))
        self.world.until(lambda: len(self.sinks) == 2)
        sockets = [listener._socket, *(sink.carrier._socket for sink in self.sinks)]  # type: ignore[attr-defined]
        self.assertEqual([each.getsockopt(socket.SOL_SOCKET, SO_MARK) for each in sockets], [MARK] * 3)
        listener.stop()
        self.close_all()

    def test_a_name_with_several_addresses(self) -> None:
        """The first that answers is taken; those before it may be anything, also of families not here."""
        listener = self.world.result(self.transport.listen("127.0.0.1:0", self.attach))
        port = int(listener.address.rpartition(":")[2])
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))  # bound, not listening: refuses
            refusing = silent.getsockname()
            stream = socket.SOCK_STREAM
            self.resolve_to(
                lambda port: [
                    (9_999, stream, 0, "", ("nowhere", port)),
                    (socket.AF_INET, stream, 0, "", refusing),
                    (socket.AF_INET, stream, 0, "", ("127.0.0.1", port)),
                ]
            )
            self.world.result(self.transport.dial(f"some.name:{port}", self.attach))
        self.world.until(lambda: len(self.sinks) == 2)
        listener.stop()
        self.close_all()

    def test_a_name_with_too_many_addresses(self) -> None:
        """Only the first few are tried; the last one's reason is told, with the name that was asked for."""
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            entry = (socket.AF_INET, socket.SOCK_STREAM, 0, "", silent.getsockname())
            made: list[object] = []
            real = socket.socket
            self.patch(socket, "socket", lambda *a, **k: made.append(1) or real(*a, **k))  # type: ignore[func-returns-value]
            self.resolve_to(lambda port: [entry] * 50)
            error = self.assertRaises(
                UnreachableError, self.world.result, self.transport.dial("many.names:1", self.attach)
            )
        self.assertEqual(len(made), ADDRESSES_TRIED)
        self.assertIn("tcp:many.names:1: nothing listens there", str(error))
        self.resolve_to(lambda port: [])
        error = self.assertRaises(
            UnreachableError, self.world.result, self.transport.dial("no.addresses:1", self.attach)
        )
        self.assertIn("no address", str(error))
        self.close_all()

    def test_no_descriptors(self) -> None:
        """Where no socket can be made the dial fails with a sentence."""

        def exhausted(*_: object, **__: object) -> object:
            raise OSError(errno.EMFILE, "Too many open files")

        self.patch(socket, "socket", exhausted)
        error = self.assertRaises(
            UnreachableError, self.world.result, self.transport.dial("127.0.0.1:1", self.attach)
        )
        self.assertIn("open files", str(error))
        self.assertRaises(LocalError, self.world.result, self.transport.listen("127.0.0.1:0", self.attach))

    def test_cancelled_on_its_way(self) -> None:
        """Neither a dial that waits for a name nor one that connects leaves anything."""
        self.resolve_to(lambda port: [])
        for rest in ("slow.name:1", "127.0.0.1:1"):
            dialled = self.transport.dial(rest, self.attach)
            if not dialled.called:
                dialled.cancel()
            dialled.addErrback(lambda _: None)
            self.assertEqual(self.world.left(), [])
        self.assertEqual(self.sinks, [])

    def test_tune(self) -> None:
        """Options that a socket does not have are left."""
        one, other = socket.socketpair()
        with one, other:
            tune(one)
        with socket.socket() as sock:
            tune(sock)
            self.assertTrue(sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY))
            self.assertTrue(sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE))
            for option, value in (
                ("TCP_USER_TIMEOUT", UNACKNOWLEDGED * 1_000),
                ("TCP_KEEPIDLE", KEEP_IDLE),
                ("TCP_NOTSENT_LOWAT", NOTSENT_LOWAT),
            ):
                if hasattr(socket, option):
                    self.assertEqual(sock.getsockopt(socket.IPPROTO_TCP, getattr(socket, option)), value)

    def test_less_unsent(self) -> None:
        """The kernel is told to hold less where the lane is slow; closed sockets and others are left."""
        reactor, sink = Mock(), Mock()
        with socket.socket() as sock:
            carrier = SocketCarrier(reactor, sock, lambda carrier: sink)
            carrier.limit_unsent(16 << 10)
            if hasattr(socket, "TCP_NOTSENT_LOWAT"):
                said = sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)
                self.assertEqual(said, 16 << 10)
            carrier.close()
            carrier.limit_unsent(8 << 10)
        one, other = socket.socketpair()
        with one, other:
            SocketCarrier(reactor, one, lambda carrier: sink).limit_unsent(16 << 10)
