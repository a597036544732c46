"""Mesh interfaces of several nodes, without kernel and network."""

from __future__ import annotations

from ipaddress import IPv6Interface
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.mesh.network import LOOK_SECONDS, MESH_PORT, REFRESH_SECONDS, MeshNetwork
from apps.vpn.mesh.peer import GIVEN_UP, STANDS
from apps.vpn.settings import Tun as TunSettings
from meshnet.cipher.keys import SecretKey, mesh_ipv6
from meshnet.errors import LocalError, MeshError, UnreachableError
from tests.support.packets import plain, udp
from tests.support.streams import FakeMesh, FakeNode
from tests.support.tuns import FakeDevice, FakeReactor

UNREACHABLE = 1
TOO_BIG = 2


class Host:
    """A node with its interface."""

    def __init__(self, mesh: FakeMesh, name: str, **settings: Any) -> None:
        self.node: FakeNode = mesh.node(name)
        self.device = FakeDevice()
        self.gone: list[MeshError] = []
        self.opened: list[IPv6Interface] = []
        self.network = MeshNetwork(
            self.node,  # type: ignore[arg-type]  # the streams are stand-ins
            TunSettings(**settings),
            self._open,
            self.gone.append,
        )

    def _open(self, settings: TunSettings, address: IPv6Interface) -> FakeDevice:
        self.opened.append(address)
        return self.device

    @property
    def address(self) -> str:
        return str(mesh_ipv6(self.node.public_key))

    def says(self, to: str, payload: bytes = b"x", source: str = "") -> bytes:
        """A program here sends a datagram; the frame that it makes."""
        frame = plain(udp(source or self.address, to, (1, 2), payload))
        self.device.frames.append(frame)
        return frame

    def states(self) -> list[str]:
        return [peer["state"] for peer in self.network.status()["peers"]]

    def answers(self) -> list[int]:
        """Types of the ICMPv6 errors that programs here got."""
        return [frame[50] for frame in self.device.written if frame[16] == 58]


class NetworkTests(SynchronousTestCase):
    """`MeshNetwork`."""

    def setUp(self) -> None:
        self.reactor = FakeReactor()
        self.mesh = FakeMesh(self.reactor)
        self.hosts: list[Host] = []

    def host(self, name: str, **settings: Any) -> Host:
        host = Host(self.mesh, name, **settings)
        self.hosts.append(host)
        return host

    def pair(self, **settings: Any) -> tuple[Host, Host]:
        """Two that are up, the first with the smaller key or not, as it comes."""
        a, b = self.host("ann", **settings), self.host("bob", **settings)
        for host in (a, b):
            host.network.start()
        return a, b

    def settle(self) -> None:
        """Everything that is under way arrives."""
        for _ in range(10):
            self.reactor.read()
            self.mesh.flush(20)

    # packets

    def test_there_and_back(self) -> None:
        """A packet calls the other node, and the answer comes over the same stream."""
        a, b = self.pair()
        self.assertEqual(a.opened, [IPv6Interface(f"{a.address}/128")])
        sent = a.says(b.address)
        self.settle()
        self.assertEqual(b.device.written, [sent])
        back = b.says(a.address)
        self.settle()
        self.assertEqual(a.device.written, [back])
        self.assertEqual(a.node.routes, [(b.node.public_key, None, "node")])
        self.assertEqual(b.node.routes, [])
        told = a.network.status()["peers"][0]
        self.assertEqual((told["name"], told["called"], told["state"]), ("bob", "by us", "joined"))
        self.assertEqual(b.network.status()["peers"][0]["called"], "by them")

    def test_both_call(self) -> None:
        """Where both call at once, one call stays, and no packet is lost."""
        a, b = self.pair()
        for number in range(5):
            a.says(b.address, bytes([number]))
            b.says(a.address, bytes([number]))
        self.settle()
        self.assertEqual([len(host.device.written) for host in (a, b)], [5, 5])
        self.reactor.advance(GIVEN_UP)
        self.settle()
        self.assertEqual(
            {host.network.status()["peers"][0]["called"] for host in (a, b)}, {"by us", "by them"}
        )
        a.says(b.address)
        b.says(a.address)
        self.settle()
        self.assertEqual([len(host.device.written) for host in (a, b)], [6, 6])
        self.assertEqual([stream.gone for host in (a, b) for stream in host.node.streams].count(False), 2)

    def test_unknown(self) -> None:
        """An address that nobody known has is answered at once; what is not of the mesh is dropped."""
        a, _ = self.pair()
        a.says("fc00::77")
        a.says("ff02::1")
        a.says("fd00::1")
        self.settle()
        self.assertEqual(a.answers(), [UNREACHABLE])
        self.assertEqual(a.network.status()["dropped"], {"unknown": 1, "target": 2})

    def test_not_our_source(self) -> None:
        """Packets from another address of this machine cannot go: the far side would drop them."""
        a, b = self.pair()
        a.says(b.address, source="fd00::1")
        self.settle()
        self.assertEqual((a.network.status()["dropped"], b.device.written), ({"source": 1}, []))

    def test_spoofed(self) -> None:
        """Only packets from the caller's own address, to ours, come in."""
        a, b = self.pair()
        a.says(b.address)
        self.settle()
        a.says(b.address, source="fc00::1")  # after the first, the flow takes what it is given
        frame = plain(udp(a.address, "fc00::9", (1, 2), b"x"))
        flow = next(iter(b.network._peers.values())).core.flow
        flow.packets_received(memoryview(len(frame).to_bytes(2, "big") + frame), False)
        self.settle()
        self.assertEqual(len(b.device.written), 1)
        self.assertEqual(b.network.status()["peers"][0]["dropped_in"], {"source": 1, "target": 1})

    def test_too_large(self) -> None:
        """What fits into no cell of the way is answered with the size that would."""
        a, b = self.pair()
        a.says(b.address)
        self.settle()
        for stream in a.node.streams:
            type(stream).largest_packets = 1_312  # type: ignore[assignment]
        self.addCleanup(setattr, type(stream), "largest_packets", 60_900)
        a.says(b.address, bytes(1_400))
        self.settle()
        self.assertEqual(a.answers(), [TOO_BIG])
        self.assertEqual(int.from_bytes(a.device.written[-1][54:58], "big"), 1_300)

    # calls that fail

    def test_no_way(self) -> None:
        """Who cannot be reached is answered as unreachable, without a call for each packet; later again."""
        a, b = self.pair()
        self.mesh.connect_error = UnreachableError("no way")
        for _ in range(3):
            a.says(b.address)
            self.settle()
        self.assertEqual(a.answers(), [UNREACHABLE] * 3)
        self.assertEqual(len(a.node.routes), 1)
        told = a.network.status()["peers"][0]
        self.assertEqual((told["state"], told["why"]), ("resting", "no way"))
        self.mesh.connect_error = None
        self.reactor.advance(1.0)
        a.says(b.address)
        self.settle()
        self.assertEqual(len(b.device.written), 1)

    def test_refused(self) -> None:
        """A node whose interface is down refuses: a failed call, not a reason to call again at once."""
        a, b = self.pair()
        b.network.stop()
        a.says(b.address)
        self.settle()
        a.says(b.address)
        self.settle()
        self.assertEqual((len(a.node.routes), a.states()), (1, ["resting"]))
        self.assertEqual(a.answers()[-1], UNREACHABLE)

    def test_lost(self) -> None:
        """When a stream is lost the next packet makes another."""
        a, b = self.pair()
        a.says(b.address)
        self.settle()
        self.reactor.advance(STANDS)
        for stream in list(a.node.streams):
            stream.lose(UnreachableError("lost"))
        for stream in list(b.node.streams):
            stream.lose(UnreachableError("lost"))
        self.settle()
        self.assertEqual((a.states(), b.states()), (["idle"], ["idle"]))
        a.says(b.address)
        self.settle()
        self.assertEqual((len(b.device.written), a.states()), (2, ["joined"]))

    def test_callers(self) -> None:
        """Who is not on the list, or does not say who he is, gets no stream."""
        a = self.host("ann")
        b = self.host("bob", callers=(a.node.public_key,))
        c = self.host("cyd")
        for host in (a, b, c):
            host.network.start()
        c.says(b.address)
        a.says(b.address)
        self.settle()
        self.assertEqual((len(b.device.written), c.states()), (1, ["resting"]))
        accept = b.node.ports[MESH_PORT]

        class Anonymous:
            peer = None

        self.assertIsNone(accept(Anonymous()))  # type: ignore[arg-type]

    def test_hops(self) -> None:
        """Relays may be picked by chance, anew for each call; too few of them is a sentence."""
        a, b = self.pair(hops=2)
        a.says(b.address)
        self.settle()
        self.assertIn("no other neighbour is linked", a.network.status()["peers"][0]["why"])
        self.host("cyd")
        self.reactor.advance(1.0)
        a.says(b.address)
        self.settle()
        self.assertEqual([via for _, via, _ in a.node.routes], [(self.hosts[2].node.public_key,)])

    # bounds and time

    def test_idle(self) -> None:
        """Who has nothing to say is hung up on, then forgotten; packets call anew."""
        a, b = self.pair(idle=10.0)
        a.says(b.address)
        self.settle()
        for _ in range(4):
            self.reactor.advance(LOOK_SECONDS)
            self.settle()
        self.assertEqual((a.states(), b.states()), ([], []))
        self.assertTrue(all(stream.gone for stream in a.node.streams))
        a.says(b.address)
        self.settle()
        self.assertEqual(len(b.device.written), 2)

    def test_most_peers(self) -> None:
        """So many at a time: who has ended makes room, who is talking stays."""
        a, b, c = (self.host(name, max_peers=1) for name in ("ann", "bob", "cyd"))
        for host in (a, b, c):
            host.network.start()
        a.says(b.address)
        self.settle()
        a.says(c.address)
        self.settle()
        self.assertEqual((a.network.status()["dropped"], a.answers()), ({"full": 1}, [UNREACHABLE]))
        c.says(a.address)
        self.settle()
        self.assertEqual(c.states(), ["resting"])
        for stream in list(a.node.streams):
            stream.reset()
        for stream in list(b.node.streams):
            stream.lose(UnreachableError("lost"))
        next(iter(a.network._peers.values())).inputs.quiet()
        self.settle()
        sent = a.says(c.address)
        self.settle()
        self.assertEqual(c.device.written[-1], sent)

    def test_answers_are_limited(self) -> None:
        """A program that floods nobody's address is not answered each time."""
        a, _ = self.pair()
        for _ in range(2_000):
            a.says("fc00::77", bytes(1_000))
        for _ in range(300):
            self.reactor.read()
        self.assertLess(len(a.answers()), 500)
        self.assertGreater(len(a.answers()), 10)

    # its life

    def test_stop(self) -> None:
        """Everything ends: the port, the streams, the device; calls under way that succeed are hung up."""
        a, b = self.pair()
        a.says(b.address)
        self.reactor.read()
        a.network.stop()
        self.mesh.flush()
        self.assertEqual((a.node.ports, a.device.closed), ({}, True))
        self.assertTrue(all(stream.gone for stream in a.node.streams))
        b.network.stop()
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_gone(self) -> None:
        """An interface that is removed under us ends the network, with a sentence."""
        a, b = self.pair()
        a.says(b.address)
        self.settle()
        a.device.broken = OSError(77, "File descriptor in bad state")
        self.reactor.read()
        self.settle()
        sentence = (
            "The interface fake0 is gone: File descriptor in bad state. `meshnet tun up` makes it anew."
        )
        self.assertEqual([str(why) for why in a.gone], [sentence])
        self.assertTrue(all(stream.gone for stream in a.node.streams))
        self.assertEqual(a.node.ports, {})

    def test_cannot_open(self) -> None:
        """Without a device nothing is taken."""
        host = self.host("ann")

        def refuse(*_: object) -> FakeDevice:
            raise LocalError("No right.")

        host.network._open = refuse
        self.assertRaises(LocalError, host.network.start)
        self.assertEqual(host.node.ports, {})

    def test_call_under_way(self) -> None:
        """Packets wait for a call under way, and for one call only."""
        a, b = self.pair()
        waiting: Deferred[Any] = Deferred()
        connect, a.node.connect = a.node.connect, lambda *args, **more: waiting  # type: ignore[method-assign]
        for number in range(3):
            a.says(b.address, bytes([number]))
            self.settle()
        self.assertEqual(a.states(), ["calling"])
        a.node.connect = connect  # type: ignore[method-assign]
        waiting.errback(UnreachableError("no way"))
        self.assertEqual((a.states(), a.answers()), (["resting"], [UNREACHABLE]))

    def test_neighbours_are_known(self) -> None:
        """A neighbour that has come since is found, and who stands in the topology."""
        a, b = self.pair()
        stranger = SecretKey(b"\x09" * 32).public
        a.says(str(mesh_ipv6(stranger)))
        self.settle()
        self.assertEqual(a.answers(), [UNREACHABLE])
        third = SecretKey(b"\x0a" * 32).public
        a.node.key_of = lambda address: third if address == mesh_ipv6(third) else None  # type: ignore[method-assign]
        a.says(str(mesh_ipv6(third)))
        self.settle()
        self.assertEqual(a.node.routes[-1][0], third)
        a.node.neighbours = lambda: [stranger, b.node.public_key]  # type: ignore[method-assign]
        self.reactor.advance(REFRESH_SECONDS)
        a.says(str(mesh_ipv6(stranger)))
        self.settle()
        self.assertEqual(a.node.routes[-1][0], stranger)
