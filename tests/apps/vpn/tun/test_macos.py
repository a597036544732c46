"""A utun device of macOS, with a pair of sockets for its kernel: what goes in and out is as its ABI says."""

from __future__ import annotations

import errno
import socket
from collections.abc import Sequence
from ipaddress import IPv4Interface, IPv6Interface, IPv6Network

from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.host.tools import Answer
from apps.vpn.packets.merge import Intake
from apps.vpn.tun.macos import MacDevice, commands, open_macos
from apps.vpn.tun.reader import Tun
from meshnet.errors import LocalError, MissingDependencyError
from tests.support.packets import plain, superpacket, tcp, udp, vouched
from tests.support.tuns import FakeCarrier, FakeReactor, bodies, frames

FOUR = "10.0.0.1", "10.0.0.2"
SIX = "fc00::1", "fc00::2"
INET, INET6 = b"\0\0\0\x02", b"\0\0\0\x1e"


class FakeControl(socket.socket):
    """A socket that says what its interface is called."""

    def getsockopt(self, *_: int) -> bytes:  # type: ignore[override]
        return b"lo\0\0"


class DeviceTests(SynchronousTestCase):
    """`MacDevice`."""

    def setUp(self) -> None:
        near, self.kernel = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.addCleanup(self.kernel.close)
        self.kernel.settimeout(5)
        self.device = MacDevice(near, "utun7", 7, 1_500)
        self.addCleanup(self.device.close)

    def test_read(self) -> None:
        """Packets come without their family, with a plain header; nothing is joined."""
        intake = Intake(self.device.read, merges=False)
        self.assertIsNone(intake.take())
        packets = [udp(*FOUR, (1, 2), b"x" * 100), udp(*SIX, (1, 2), b"y" * 1_400)]
        for family, packet in zip((INET, INET6), packets, strict=True):
            self.kernel.send(family + packet)
        found = [bytes(intake.take() or b"") for _ in packets]
        self.assertEqual(found, [plain(packet) for packet in packets])

    def test_scattered(self) -> None:
        """Buffers are filled one behind the other, and no further than the packet."""
        self.kernel.send(INET + udp(*FOUR, (1, 2), b"abc"))
        first, second, third = bytearray(15), bytearray(100), bytearray(b"!")
        size = self.device.read((first, second, third))
        self.assertEqual(bytes(first + second)[:size], plain(udp(*FOUR, (1, 2), b"abc")))
        self.assertEqual(third, b"!")

    def test_write(self) -> None:
        """What Linux leaves to its kernel is done here: sums and segments."""
        one, many = udp(*SIX, (1, 2), b"abc"), tcp(*FOUR, (1, 2), bytes(2_500))
        self.device.write(memoryview(bytearray(plain(one))))
        self.device.write(memoryview(bytearray(vouched(one))))
        self.assertEqual([self.kernel.recv(9_000) for _ in range(2)], [INET6 + one] * 2)
        self.device.write(memoryview(bytearray(superpacket(many, 1_000))))
        found = [self.kernel.recv(9_000) for _ in range(3)]
        self.assertEqual([len(each) for each in found], [4 + 40 + size for size in (1_000, 1_000, 500)])
        self.assertEqual({each[:4] for each in found}, {INET})

    def test_under_a_reactor(self) -> None:
        """The same reader and flows as over any device."""
        reactor = FakeReactor()
        tun = Tun(self.device, reactor, reactor.seconds)
        flow = tun.single()
        tun.start()
        flow.carry(FakeCarrier())
        packets = [udp(*FOUR, (1, port), b"x") for port in range(5)]
        for packet in packets:
            self.kernel.send(INET + packet)
        reactor.read()
        self.assertEqual(frames(bodies(flow, 9_000)[0]), [plain(packet) for packet in packets])
        body = len(plain(packets[0])).to_bytes(2, "big") + plain(packets[0])
        flow.packets_received(memoryview(bytearray(body)), False)
        self.assertEqual(self.kernel.recv(100), INET + packets[0])

    def test_full(self) -> None:
        """A kernel that takes no more costs the packet."""
        frame = memoryview(bytearray(plain(udp(*FOUR, (1, 2), bytes(1_000)))))
        with self.assertRaises(BlockingIOError):
            for _ in range(10_000):
                self.device.write(frame)

    def test_close(self) -> None:
        """It goes with its descriptor."""
        self.device.close()
        self.device.close()
        self.assertEqual(self.device.fileno(), -1)
        self.assertFalse(self.device.alive())


class OpenTests(SynchronousTestCase):
    """`open_macos`."""

    def connect(self, name: str) -> socket.socket:
        self.asked.append(name)
        return FakeControl(socket.AF_UNIX, socket.SOCK_DGRAM)

    def setUp(self) -> None:
        self.asked: list[str] = []
        self.ran: list[tuple[str, ...]] = []
        self.answer = Answer(0)

    def run_tool(self, command: Sequence[str], text: str) -> Answer:
        self.ran.append(tuple(command))
        return self.answer

    def test_open(self) -> None:
        """A utun's own name is asked for; any other means the next. Then ifconfig and route set it up."""
        addresses, routes = [IPv6Interface("fc00::1/128")], [IPv6Network("fc00::/8")]
        for name in ("mesh%d", "utun9", "utun"):
            device = open_macos(name, 1_500, addresses, routes, run=self.run_tool, connect=self.connect)
            self.assertEqual(device.name, "lo")
            device.close()
        self.assertEqual(self.asked, ["", "utun9", ""])
        self.assertEqual(self.ran[:3], commands("lo", 1_500, addresses, routes))

    def test_commands(self) -> None:
        """In the words of ifconfig(8) and route(8)."""
        found = commands("utun3", 1_400, [IPv4Interface("10.0.0.2/32"), IPv6Interface("fd00::2/64")], [])
        self.assertEqual(
            [" ".join(words) for words in found],
            [
                "/sbin/ifconfig utun3 mtu 1400 up",
                "/sbin/ifconfig utun3 inet 10.0.0.2 10.0.0.2 netmask 255.255.255.255 alias",
                "/sbin/ifconfig utun3 inet6 fd00::2 prefixlen 64 alias",
            ],
        )
        route = commands("utun3", 1_400, [], [IPv6Network("fc00::/8")])[-1]
        self.assertEqual(" ".join(route), "/sbin/route -q -n add -inet6 fc00::/8 -interface utun3")

    def test_refusals(self) -> None:
        """Sentences, and no socket left open."""
        for problem, error in (
            (PermissionError(errno.EPERM, "no"), MissingDependencyError),
            (OSError(errno.EBUSY, "busy"), LocalError),
            (OSError(errno.ENOENT, "none"), LocalError),
        ):

            def connect(name: str, problem: OSError = problem) -> socket.socket:
                raise problem

            self.assertRaises(error, open_macos, "utun1", 1_500, run=self.run_tool, connect=connect)
        self.answer = Answer(1, "", "ifconfig: no such interface")
        error_ = self.assertRaises(
            LocalError, open_macos, "utun1", 1_500, run=self.run_tool, connect=self.connect
        )
        self.assertEqual(str(error_), "Cannot set up lo: ifconfig: no such interface.")
