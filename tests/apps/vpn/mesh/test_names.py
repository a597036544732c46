"""Names of the mesh: who is called what, and what the DNS server says of it."""

from __future__ import annotations

from ipaddress import IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import CannotListenError
from twisted.names import dns
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.host.tools import Answer, Tools
from apps.vpn.mesh.addresses import Addresses
from apps.vpn.mesh.names import NameServer, answer, tell_system
from meshnet.cipher.keys import SecretKey, dns_label, mesh_ipv6
from meshnet.errors import LocalError, MissingDependencyError
from meshnet.limits import TUN_LEARNED
from tests.support.nodes import new_folder

OWN, ANN, STRANGER = (SecretKey(bytes([n]) * 32).public for n in (1, 2, 3))


def new_names() -> Addresses:
    names = Addresses(OWN, "Home")
    names.take({"Ann": ANN})
    return names


def ask(name: str, kind: int = dns.AAAA, names: Addresses | None = None, **more: int) -> dns.Message:
    """What comes back."""
    query = dns.Message(7, recDes=1, **more)
    query.addQuery(name.encode(), kind)
    data = answer(query.toStr(), names or new_names())
    assert data is not None
    reply = dns.Message()
    reply.fromStr(data)
    assert (reply.id, reply.answer, reply.queries) == (7, 1, query.queries)
    return reply


class AddressTests(SynchronousTestCase):
    """`Addresses`."""

    def test_names(self) -> None:
        """Names of the config in any case, our own, and keys."""
        names = new_names()
        for name, key in (("ann", ANN), ("ANN", ANN), ("home", OWN), (dns_label(STRANGER), STRANGER)):
            self.assertEqual(names.find(name), mesh_ipv6(key))
        for name in ("bob", "", "a" * 53, dns_label(STRANGER)[:-1]):
            self.assertIsNone(names.find(name))
        self.assertEqual((names.name(ANN), names.name(STRANGER)), ("Ann", dns_label(STRANGER)))

    def test_learned(self) -> None:
        """A key that was asked for by its name can be called by its address; so many, the latest."""
        names = new_names()
        self.assertIsNone(names.key(mesh_ipv6(STRANGER).packed))
        names.find(dns_label(STRANGER))
        self.assertEqual(names.key(mesh_ipv6(STRANGER).packed), STRANGER)
        for number in range(TUN_LEARNED - 1):
            names._learned[number.to_bytes(16, "big")] = ANN
        names.learn(SecretKey(b"\x09" * 32).public)
        self.assertIsNone(names.key(mesh_ipv6(STRANGER).packed))
        names.take({})
        self.assertIsNone(names.key(mesh_ipv6(ANN).packed))


class AnswerTests(SynchronousTestCase):
    """`answer`, with Twisted's own messages as the other side."""

    def test_address(self) -> None:
        """AAAA of a known name, in any case."""
        for name in ("ann.mesh", "ANN.Mesh"):
            reply = ask(name)
            self.assertEqual((reply.rCode, reply.auth), (dns.OK, 1))
            self.assertEqual(reply.answers[0].payload.address, mesh_ipv6(ANN).packed)
            self.assertEqual(reply.answers[0].name.name.lower(), b"ann.mesh")

    def test_nothing(self) -> None:
        """A name that is there has no IPv4 address; one that is not does not exist."""
        reply = ask("ann.mesh", dns.A)
        self.assertEqual((reply.rCode, reply.answers), (dns.OK, []))
        self.assertEqual(ask("mesh", dns.SOA).rCode, dns.OK)
        for name in ("bob.mesh", "www.ann.mesh", "x" * 53 + ".mesh"):
            self.assertEqual(ask(name).rCode, dns.ENAME)

    def test_reverse(self) -> None:
        """The name of an address that is known."""
        for key, name in ((ANN, b"Ann.mesh"), (STRANGER, f"{dns_label(STRANGER)}.mesh".encode())):
            names = new_names()
            names.learn(key)
            reply = ask(mesh_ipv6(key).reverse_pointer, dns.PTR, names)
            self.assertEqual([each.payload.name.name for each in reply.answers], [name])
        self.assertEqual(ask(IPv6Address("fc00::1").reverse_pointer, dns.PTR).rCode, dns.ENAME)
        for name in ("c.f.ip6.arpa", "x.c.f.ip6.arpa", "aa." + IPv6Address("fc00::1").reverse_pointer):
            self.assertIn(ask(name, dns.PTR).rCode, (dns.ENAME, dns.EREFUSED))

    def test_others(self) -> None:
        """Whatever is not ours is refused, so that the next server is asked."""
        for name in ("example.org", "mesh.example.org", "1.0.0.127.in-addr.arpa", "amesh"):
            self.assertEqual(ask(name).rCode, dns.EREFUSED)
        self.assertEqual(ask("ann.mesh", opCode=dns.OP_STATUS).rCode, dns.ENOTIMP)

    @given(st.binary(max_size=100))
    def test_any_bytes(self, data: bytes) -> None:
        """Whatever comes is answered or not, and never raises."""
        answer(data, new_names())

    def test_answers_are_not_answered(self) -> None:
        """Two servers never talk to each other for ever."""
        reply = dns.Message(7, answer=1)
        reply.addQuery(b"ann.mesh", dns.AAAA)
        self.assertIsNone(answer(reply.toStr(), new_names()))
        self.assertIsNone(answer(dns.Message(7).toStr(), new_names()))


class FakeTransport:
    """Where answers go."""

    def __init__(self) -> None:
        self.sent: list[tuple[bytes, tuple[str, int]]] = []

    def write(self, data: bytes, address: tuple[str, int]) -> None:
        self.sent.append((data, address))


class ServerTests(SynchronousTestCase):
    """`NameServer`, `tell_system`."""

    def test_this_machine_only(self) -> None:
        """Other nodes can send packets to the address, and get nothing."""
        fresh: list[int] = []
        server = NameServer(None, mesh_ipv6(OWN), new_names(), lambda: fresh.append(1))
        server.transport = transport = FakeTransport()
        query = dns.Message(7)
        query.addQuery(b"ann.mesh", dns.AAAA)
        for host in (str(mesh_ipv6(OWN)), str(mesh_ipv6(ANN))):
            server.datagramReceived(query.toStr(), (host, 5_000))
        server.datagramReceived(b"nonsense", (str(mesh_ipv6(OWN)), 5_000))
        self.assertEqual([address for _, address in transport.sent], [(str(mesh_ipv6(OWN)), 5_000)])
        self.assertEqual((server.asked, server.refused, len(fresh)), (1, 1, 2))

    def test_taken(self) -> None:
        """A port that is taken is a sentence."""

        class Full:
            def listenUDP(self, port: int, protocol: object, interface: str, size: int) -> None:
                raise CannotListenError(interface, port, OSError("in use"))

        server = NameServer(Full(), mesh_ipv6(OWN), new_names(), lambda: None)
        error = self.assertRaises(LocalError, server.start)
        self.assertIn("in use", str(error))
        server.stop()

    def test_resolved(self) -> None:
        """systemd-resolved is told by its tool; without it, the sentence says what to do."""
        said: list[tuple[str, ...]] = []

        def run(command: tuple[str, ...], text: str = "") -> Answer:
            said.append(tuple(command[1:]))
            return Answer(0)

        folder = new_folder(self)
        empty = folder / "none"
        told = tell_system(Tools(None, None, "/bin/resolvectl"), run, "mesh0", mesh_ipv6(OWN), empty)
        self.assertEqual(told, "systemd-resolved asks it for all under .mesh")
        self.assertEqual(said[1:], [("dns", "mesh0", str(mesh_ipv6(OWN))), ("domain", "mesh0", "~mesh")])
        error = self.assertRaises(
            MissingDependencyError, tell_system, Tools(None, None, None), run, "mesh0", mesh_ipv6(OWN), empty
        )
        self.assertIn(f"nameserver {mesh_ipv6(OWN)}", str(error))
        self.assertRaises(
            MissingDependencyError,
            tell_system,
            Tools(None, None, "/bin/resolvectl"),
            lambda command, text: Answer(1),
            "mesh0",
            mesh_ipv6(OWN),
            empty,
        )
        told = folder / "resolv.conf"
        told.write_text(f"nameserver {mesh_ipv6(OWN)}\nnameserver 192.0.2.1\n")
        tell_system(Tools(None, None, None), run, "mesh0", mesh_ipv6(OWN), told)
