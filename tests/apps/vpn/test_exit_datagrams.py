"""UDP at an exit: what goes out, what comes back, and what a client cannot make it hold."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Any

from twisted.internet.error import MessageLengthError

from apps.vpn import exit_datagrams
from apps.vpn.datagrams import ANSWERS_PORT, from_mesh, to_mesh
from apps.vpn.destination import Destination
from apps.vpn.exit_datagrams import IDLE_SECONDS, LOOKUPS, NAME_SECONDS, RESOLVE_SECONDS, WAITING
from apps.vpn.messages import EXIT_PORT, LARGEST_REPLY, Code, ExitReply, associate, take
from apps.vpn.policy import rule
from apps.vpn.ports import ExitPort
from apps.vpn.settings import Exit
from meshnet.node.app import Datagram
from tests.apps.vpn.test_ports import Base, Client

NAME = b"n" * 16


class AssociationTests(Base):
    def setUp(self) -> None:
        super().setUp()
        self.heard: list[Datagram] = []
        self.user.listen_datagrams(ANSWERS_PORT, self.heard.append)

    def start(self, **settings: Any) -> Client:
        self.port = ExitPort(self.node, self.role, settings=Exit(enabled=True, **settings))  # type: ignore[arg-type]
        self.port.apply()
        return self.associate(NAME)

    def associate(self, name: bytes) -> Client:
        client = self.open()
        client.stream.write(associate(name))
        self.mesh.flush()
        return client

    def code(self, client: Client) -> int:
        answer = take(ExitReply, client.data, LARGEST_REPLY)
        assert answer is not None
        return answer.code

    def send(self, host: str, port: int = 53, payload: bytes = b"ask", name: bytes = NAME) -> None:
        where = Destination(host if host[-1].isalpha() else ip_address(host), port)
        data = to_mesh(name, where, payload)
        self.user.send_datagram(self.node.public_key, EXIT_PORT, data, source=ANSWERS_PORT)
        self.mesh.flush()

    @property
    def sent(self) -> list[tuple[bytes, tuple[str, int]]]:
        """All that went out to the old internet."""
        return [each for socket in self.reactor.udp for each in socket.sent]

    @property
    def refused(self) -> dict[str, int]:
        return self.role.counts.refused

    def test_there_and_back(self) -> None:
        """Datagrams leave from one port per family; answers come back with where they are from."""
        client = self.start()
        self.assertEqual(self.code(client), Code.OK)
        self.send("8.8.8.8")
        self.send("9.9.9.9", 123, b"time")
        self.send("2606:4700::1", 443, b"quic")
        self.assertEqual(
            self.sent,
            [(b"ask", ("8.8.8.8", 53)), (b"time", ("9.9.9.9", 123)), (b"quic", ("2606:4700::1", 443))],
        )
        self.assertEqual([socket.host.host for socket in self.reactor.udp], ["0.0.0.0", "::"])
        self.reactor.udp[0].arrive(b"answer", "8.8.8.8", 53)
        self.reactor.udp[1].arrive(b"yes", "2606:4700::1", 443)
        self.mesh.flush()
        found = [from_mesh(each.data) for each in self.heard]
        self.assertEqual(
            found,
            [
                (NAME, Destination(ip_address("8.8.8.8"), 53), b"answer"),
                (NAME, Destination(ip_address("2606:4700::1"), 443), b"yes"),
            ],
        )
        counts = self.role.counts
        self.assertEqual((counts.open, counts.from_mesh, counts.to_mesh), (1, 11, 9))

    def test_source(self) -> None:
        """A fixed source address is bound to; the other family has none then."""
        self.start(source="192.0.2.9")
        self.send("8.8.8.8")
        self.assertEqual(self.reactor.udp[0].host.host, "192.0.2.9")
        self.send("2606:4700::1")
        self.assertEqual((len(self.sent), self.refused), (1, {"network_unreachable": 1}))

    def test_policy(self) -> None:
        """The policy is asked about the resolved address; a name cannot lead into a private network."""
        self.start(deny=(rule("public:25"), rule("*.evil.example")))
        self.reactor.names["rebind.example"] = ["192.168.1.1"]
        self.reactor.names["mixed.example"] = ["10.0.0.1", "8.8.8.8"]
        self.reactor.names["www.evil.example"] = ["8.8.4.4"]
        for host, port in (
            ("10.0.0.1", 53),
            ("127.0.0.1", 53),
            ("8.8.8.8", 25),
            ("rebind.example", 53),
            ("www.evil.example", 53),
            ("mixed.example", 53),
        ):
            self.send(host, port)
        self.assertEqual(self.sent, [(b"ask", ("8.8.8.8", 53))])
        self.assertEqual(self.refused, {"private": 3, "denied": 2})

    def test_other_rules(self) -> None:
        """Changed rules hold for the next datagram, also to where one went before."""
        self.start()
        self.send("8.8.8.8")
        self.port.change(None, (), (rule("8.8.8.8"),), ())
        self.send("8.8.8.8")
        self.assertEqual((len(self.sent), self.refused), (1, {"denied": 1}))
        self.reactor.udp[0].arrive(b"late", "8.8.8.8", 53)
        self.assertEqual(self.refused["uninvited"], 1)

    def test_names(self) -> None:
        """A name is looked up once, and again when what was found is old."""
        self.start()
        self.reactor.names["dns.example"] = ["8.8.8.8"]
        for _ in range(5):
            self.send("dns.example")
        self.assertEqual((len(self.sent), self.reactor.asked), (5, ["dns.example"]))
        self.reactor.advance(NAME_SECONDS)
        self.send("dns.example")
        self.assertEqual(len(self.reactor.asked), 2)
        self.send("nowhere.example")
        self.send("nowhere.example")
        self.assertEqual((len(self.reactor.asked), self.refused), (3, {"no_such_name": 1}))

    def test_slow_names(self) -> None:
        """Few names at a time, and few datagrams for each, wait for a resolver."""
        self.start()
        for number in range(LOOKUPS + 2):
            self.reactor.names[f"slow{number}.example"] = None
            self.send(f"slow{number}.example")
        for _ in range(WAITING + 3):
            self.send("slow0.example")
        self.assertEqual(self.refused, {"lookups": 2 + 4})
        self.reactor.advance(RESOLVE_SECONDS)
        self.assertEqual((self.sent, self.refused["no_such_name"]), ([], LOOKUPS))
        self.reactor.names["slow0.example"] = ["8.8.8.8"]
        self.reactor.advance(NAME_SECONDS)
        self.send("slow0.example")
        self.assertEqual(len(self.sent), 1)

    def test_uninvited(self) -> None:
        """Hosts that the client never sent to are not heard; nor is anything for no association."""
        self.start()
        self.send("8.8.8.8")
        self.reactor.udp[0].arrive(b"scan", "9.9.9.9", 53)
        self.send("8.8.8.8", name=b"x" * 16)
        self.mesh.flush()
        self.assertEqual(self.heard, [])
        self.assertEqual(self.refused, {"uninvited": 1, "no_association": 1})

    def test_tables_are_bounded(self) -> None:
        """Only the latest destinations and hosts are remembered."""
        self.patch(exit_datagrams, "PLACES", 4)
        self.patch(exit_datagrams, "HOSTS", 4)
        self.start()
        for number in range(1, 10):
            self.send(f"8.8.8.{number}")
        (association,) = self.port.associations._all.values()
        self.assertEqual((len(association._places), len(association._hosts)), (4, 4))
        self.reactor.udp[0].arrive(b"a", "8.8.8.1", 53)
        self.reactor.udp[0].arrive(b"b", "8.8.8.9", 53)
        self.mesh.flush()
        self.assertEqual([bytes(from_mesh(each.data)[2]) for each in self.heard], [b"b"])

    def test_rate(self) -> None:
        """Beyond a client's rate datagrams are dropped, both ways together."""
        self.start(rate=1_000)
        for _ in range(200):
            self.send("8.8.8.8", payload=bytes(1_000))
        passed = len(self.sent)
        self.assertEqual(passed, 132)  # the burst, 128 KiB, and the packet that empties it
        self.assertEqual(self.refused, {"rate": 200 - passed})
        self.reactor.udp[0].arrive(b"x", "8.8.8.8", 53)
        self.mesh.flush()
        self.assertEqual(self.heard, [])

    def test_not_sent(self) -> None:
        """What the kernel does not take is dropped and counted."""
        self.start()
        self.send("8.8.8.8")
        for error in (OSError(101, "unreachable"), MessageLengthError("too long")):
            self.reactor.udp[0].error = error
            self.send("8.8.8.8")
        self.assertEqual(self.refused, {"not_sent": 2})

    def test_idle(self) -> None:
        """An association that nobody uses ends, with its stream and its sockets."""
        client = self.start()
        self.send("8.8.8.8")
        self.reactor.advance(IDLE_SECONDS - 1)
        self.reactor.udp[0].arrive(b"x", "8.8.8.8", 53)
        self.reactor.advance(IDLE_SECONDS - 1)
        self.mesh.flush()
        self.assertFalse(client.ended)
        self.reactor.advance(1)
        self.mesh.flush()
        self.assertTrue(client.ended)
        client.stream.finish()
        self.mesh.flush()
        self.check_nothing_left()

    def test_client_leaves(self) -> None:
        """The end of the stream is that of the association."""
        for leave in ("finish", "reset"):
            client = self.associate(NAME) if leave == "reset" else self.start()
            self.send("8.8.8.8")
            getattr(client.stream, leave)()
            self.mesh.flush()
            self.send("8.8.8.8")
            self.assertEqual(self.refused.pop("no_association"), 1)
            self.check_nothing_left()

    def test_same_name(self) -> None:
        """A name that is taken, or anything behind the request, is refused."""
        self.start()
        second = self.associate(NAME)
        self.assertEqual((self.code(second), second.ended), (Code.FAILED, True))
        third = self.open()
        third.stream.write(associate(b"3" * 16) + b"more")
        self.mesh.flush()
        self.assertEqual(self.code(third), Code.FAILED)
        self.assertEqual(self.role.counts.open, 1)

    def test_talkative(self) -> None:
        """A client that says more on the stream has broken it."""
        client = self.start()
        client.stream.write(b"?")
        self.mesh.flush()
        self.assertIsNotNone(client.why)
        self.check_nothing_left()

    def test_malformed(self) -> None:
        """A mesh datagram that is none of ours is counted."""
        self.start()
        for data in (b"", b"x" * 17, to_mesh(NAME, Destination("a.b", 1), b"")[:-4]):
            self.user.send_datagram(self.node.public_key, EXIT_PORT, data)
        self.mesh.flush()
        self.assertEqual(self.refused, {"malformed": 3})

    def check_nothing_left(self) -> None:
        self.assertTrue(all(socket.stopped for socket in self.reactor.udp))
        self.assertEqual((self.role.counts.open, self.role.sides), (0, set()))
        self.assertEqual(self.port.associations._all, {})
        self.assertEqual(self.reactor.getDelayedCalls(), [])
