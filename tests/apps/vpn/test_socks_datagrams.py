"""UDP of programs through a SOCKS port, without sockets; the exit at the other end is a real one."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.error import CannotListenError

from apps.vpn.counts import Counts
from apps.vpn.datagrams import ANSWERS_PORT, to_program
from apps.vpn.destination import Destination
from apps.vpn.exit_datagrams import IDLE_SECONDS
from apps.vpn.listeners import SocksListener
from apps.vpn.messages import EXIT_PORT, Code
from apps.vpn.ports import ExitPort
from apps.vpn.settings import Exit, Socks
from apps.vpn.socks import reply
from apps.vpn.socks_datagrams import SENDING, Answers, SocksDatagrams
from apps.vpn.splice import Role
from meshnet.errors import UnreachableError
from tests.apps.vpn.test_listeners import HELLO, Base
from tests.support.tcp import LocalTransport, UdpTransport

ASK = b"\x05\x03\x00\x01" + bytes(6)
PROGRAM = ("127.0.0.7", 50_001)
THERE = Destination(ip_address("8.8.8.8"), 53)
BOUND = Destination(ip_address("127.0.0.1"), 40_000)


class SocksDatagramTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.exit = ExitPort(self.far, Role(Counts()), settings=Exit(enabled=True))  # type: ignore[arg-type]
        self.exit.apply()
        made = Socks(exit=self.far.public_key, via=())
        self.answers = Answers(self.user, self.role.counts)  # type: ignore[arg-type]
        self.listener = SocksListener(self.user, self.role, settings=made, answers=self.answers)  # type: ignore[arg-type]
        self.listener.bind(made.listen)

    def ask(self, request: bytes = ASK) -> tuple[LocalTransport, UdpTransport]:
        """A program, and the socket that it was given."""
        client = self.reactor.connect()
        client.arrive(HELLO + request)
        self.mesh.flush()
        return client, [each for each in self.reactor.udp if isinstance(each.protocol, SocksDatagrams)][-1]

    @property
    def outside(self) -> UdpTransport:
        """The exit's socket."""
        return self.reactor.udp[-1]

    @property
    def refused(self) -> dict[str, int]:
        return self.role.counts.refused

    def assert_nothing_left(self) -> None:
        super().assert_nothing_left()
        self.assertTrue(all(socket.stopped for socket in self.reactor.udp))
        self.assertEqual((self.role.counts.open, self.answers._all), (0, {}))
        self.assertNotIn(ANSWERS_PORT, self.user.datagram_ports)
        self.assertEqual(self.exit.role.counts.open, 0)

    def test_there_and_back(self) -> None:
        """A program's datagram leaves the exit, the answer comes back with where it is from."""
        client, inside = self.ask()
        self.assertEqual(client.taken, b"\x05\x00" + reply(Code.OK, BOUND))
        inside.arrive(to_program(THERE, b"ask"), *PROGRAM)
        self.mesh.flush()
        self.assertEqual(self.outside.sent, [(b"ask", ("8.8.8.8", 53))])
        self.outside.arrive(b"answer", "8.8.8.8", 53)
        self.mesh.flush()
        self.assertEqual(inside.sent, [(to_program(THERE, b"answer"), PROGRAM)])
        counts = self.role.counts
        self.assertEqual((counts.open, counts.streams, counts.to_mesh, counts.from_mesh), (1, 1, 3, 6))
        client.finish()
        self.assert_nothing_left()

    def test_names_are_for_the_exit(self) -> None:
        """A name goes to the exit as it is, and is looked up there alone."""
        _, inside = self.ask()
        self.reactor.names["dns.example"] = ["9.9.9.9"]
        inside.arrive(to_program(Destination("dns.example", 53), b"q"), *PROGRAM)
        self.mesh.flush()
        self.assertEqual(
            (self.reactor.asked, self.outside.sent), (["dns.example"], [(b"q", ("9.9.9.9", 53))])
        )

    def test_strangers(self) -> None:
        """Only the program may use its socket: its host, and its first port or the one it named."""
        _, inside = self.ask()
        good = to_program(THERE, b"ask")
        inside.arrive(good, "127.0.0.8", PROGRAM[1])
        inside.arrive(good, *PROGRAM)
        inside.arrive(good, PROGRAM[0], PROGRAM[1] + 1)
        _, named = self.ask(ASK[:-2] + b"\xc3\x52")
        named.arrive(good, PROGRAM[0], 50_003)
        named.arrive(good, PROGRAM[0], 50_002)
        self.assertEqual((self.refused, self.role.counts.to_mesh), ({"stranger": 3}, 6))

    def test_what_is_dropped(self) -> None:
        """Fragments, other bytes, names of the mesh, and what the node does not take."""
        _, inside = self.ask()
        for data in (b"", b"\0\0\1" + to_program(THERE, b"")[3:], b"hello"):
            inside.arrive(data, *PROGRAM)
        inside.arrive(to_program(Destination("far.mesh", 53), b""), *PROGRAM)
        self.user.datagrams_taken = False
        inside.arrive(to_program(THERE, b""), *PROGRAM)
        self.mesh.connect_error = UnreachableError("no way")
        inside.arrive(to_program(THERE, b""), *PROGRAM)
        self.assertEqual(self.refused, {"malformed": 3, "not_sent": 2, "queue": 1})

    def test_without_a_circuit(self) -> None:
        """While there is no circuit so many datagrams wait, and no more."""
        _, inside = self.ask()
        waiting: list[Deferred[bool]] = []

        def send(*args: Any, **more: Any) -> Deferred[bool]:
            waiting.append(Deferred())
            return waiting[-1]

        self.patch(self.user, "send_datagram", send)
        for _ in range(SENDING + 5):
            inside.arrive(to_program(THERE, b""), *PROGRAM)
        self.assertEqual((len(waiting), self.refused), (SENDING, {"queue": 5}))
        waiting[0].callback(True)
        inside.arrive(to_program(THERE, b""), *PROGRAM)
        self.assertEqual(len(waiting), SENDING + 1)

    def test_early_answers(self) -> None:
        """A program that never sent, or whose buffer is full, gets nothing; nor what others sent."""
        _, inside = self.ask()
        name = inside.protocol.name
        inside.protocol.answer(b"x", 1)
        inside.arrive(to_program(THERE, b""), *PROGRAM)
        inside.error = OSError(11, "full")
        inside.protocol.answer(b"x", 1)
        self.mesh.flush()
        receive = self.user.datagram_ports[ANSWERS_PORT]
        for data in (b"", bytes(16) + b"\1\0\1\4\1\1\1\1x", name + b"\3\0\1\3a.bx"):
            receive(_Datagram(data))  # type: ignore[arg-type]
        self.assertEqual(self.refused, {"uninvited": 1, "not_sent": 1, "malformed": 1, "no_association": 2})

    def test_exit_ends_it(self) -> None:
        """When the exit ends an idle association, the program's connection ends."""
        client, _ = self.ask()
        self.reactor.advance(IDLE_SECONDS)
        self.mesh.flush()
        self.assertEqual(client.closed, "lost")
        self.assert_nothing_left()

    def test_exit_says_more(self) -> None:
        """An exit that sends bytes on the stream has broken it."""
        client, _ = self.ask()
        self.far.streams[-1].write(b"?")
        self.mesh.flush()
        self.assertEqual(client.closed, "lost")
        self.assert_nothing_left()

    def test_no_exit(self) -> None:
        """Without an exit the program is told, and its socket goes."""
        self.exit.stop()
        client, inside = self.ask()
        self.assertEqual(client.taken[2:3], b"\x05")
        self.assertNotEqual(client.taken[3], Code.OK)
        self.assertTrue(inside.stopped)
        self.assert_nothing_left()

    def test_ports_taken(self) -> None:
        """Where no UDP socket is left, or the datagram port is taken, the program is told."""
        other = self.user.listen_datagrams(ANSWERS_PORT, lambda datagram: None)
        client, inside = self.ask()
        self.assertEqual((client.taken[3], inside.stopped), (Code.FAILED, True))
        other.stop()

        def taken(port: int, protocol: Any, interface: str = "", maxPacketSize: int = 0) -> Any:
            raise CannotListenError(interface, port, OSError(24, "Too many open files"))

        self.patch(self.reactor, "listenUDP", taken)
        client = self.reactor.connect()
        client.arrive(HELLO + ASK)
        self.mesh.flush()
        self.assertEqual(client.taken[3], Code.FAILED)
        self.assert_nothing_left()

    def test_leaving_early(self) -> None:
        """A program that leaves while the exit is asked leaves nothing behind."""
        client = self.reactor.connect()
        client.arrive(HELLO + ASK)
        client.break_off()
        self.assert_nothing_left()
        self.assertNotIn(EXIT_PORT, self.user.datagram_ports)


class _Datagram:
    """A datagram of a stranger."""

    def __init__(self, data: bytes) -> None:
        self.data = data
