"""Captures: what passes is seen, and what was missed is said."""

from __future__ import annotations

import contextlib
import socket
import struct
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.capture import Capture, Ends, MissedPacketsError, ends
from lab.impair import drop, dropped, heal, plain
from lab.namespaces import Host, require
from meshnet.errors import MissingDependencyError, UsageError
from tests.support.hosts import hosts_for

UDP4 = (
    bytes.fromhex("450000210000400040110000c0000201c6336402")
    + struct.pack(">HHHH", 1000, 53, 13, 0)
    + b"hello"
)


class EndsTests(SynchronousTestCase):
    """Who talks to whom."""

    def test_udp(self) -> None:
        """Addresses and ports of a packet."""
        self.assertEqual(ends(UDP4), Ends("192.0.2.1", "198.51.100.2", 17, 1000, 53))

    def test_a_later_fragment_has_no_ports(self) -> None:
        """What stands where ports would be is payload there."""
        later = UDP4[:6] + b"\0\x10" + UDP4[8:]
        self.assertEqual(ends(later), Ends("192.0.2.1", "198.51.100.2", 17))

    @given(st.binary(max_size=80))
    def test_any_bytes(self, data: bytes) -> None:
        """Nothing is raised, whatever it is."""
        ends(data)


class CaptureTests(SynchronousTestCase):
    """In real hosts; skipped without root."""

    def setUp(self) -> None:
        self.hosts = hosts_for(self, "ip")
        self.a, self.b = self.hosts.add("a"), self.hosts.add("b")
        self.hosts.cable(self.a, self.b)

    def send(self, host: Host, count: int, size: int = 10) -> None:
        """Datagrams to the other host's port 7, where nobody listens."""
        (end,) = host.cables.values()
        with host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as out:
            for _ in range(count):
                out.sendto(bytes(size), (str(end.far4), 7))

    def test_all_that_passes(self) -> None:
        """Both hosts see the packets, each its own way, and the file has them."""
        with Capture(self.a) as near, Capture(self.b, self.b.towards(self.a).name) as far:
            self.send(self.a, 3)
        left = [seen.ends for seen in near.leaving() if seen.ends and seen.ends.dport == 7]
        self.assertEqual(left, [Ends("10.210.0.1", "10.210.0.2", 17, left[0].sport, 7)] * 3)
        came = [seen for seen in far.whole() if seen.ends == left[0]]
        self.assertEqual([seen.outgoing for seen in came], [False] * 3)
        self.assertEqual(near.leaving("no-such-interface"), [])
        with TemporaryDirectory() as folder:
            file = Path(folder) / "near.pcap"
            near.save(file)
            self.assertEqual(file.stat().st_size, 24 + sum(16 + 16 + len(each.data) for each in near.packets))

    def test_tcpdump_reads_the_file(self) -> None:
        """Another program sees the same in it."""
        try:
            require("tcpdump")
        except MissingDependencyError as error:
            self.skipTest(str(error))
        with Capture(self.a) as near:
            self.send(self.a, 2)
        with TemporaryDirectory() as folder:
            near.save(Path(folder) / "near.pcap")
            told = self.a.run("tcpdump", "-nr", f"{folder}/near.pcap", "udp", "dst", "port", "7")
        self.assertEqual(told.count("10.210.0.2.7: UDP, length 10"), 2)

    def test_what_was_missed_is_said(self) -> None:
        """A capture that lost packets proves nothing."""
        with Capture(self.a) as near:
            near.lost = 1
        self.assertRaises(MissedPacketsError, near.leaving)

    def test_loss(self) -> None:
        """The share is dropped that was asked for, as the receiver sees it; then nothing is."""
        hosts_for(self, "nft")
        with self.b.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as server:
            server.bind(("10.210.0.2", 7))
            server.setblocking(False)
            drop(self.b, 0.25, self.b.towards(self.a).name)
            came = self.arrived(server, 2_000)
            self.assertTrue(1_400 < came < 1_600, came)  # 1,500 ± 5 standard deviations
            self.assertLessEqual(2_000 - came, dropped(self.b))
            drop(self.b, 1.0)
            self.assertEqual(self.arrived(server, 10), 0)
            heal(self.b)
            heal(self.b)
            self.assertEqual(self.arrived(server, 10), 10)
        self.assertRaises(UsageError, drop, self.b, 1.5)

    def arrived(self, server: socket.socket, count: int) -> int:
        """How many of so many datagrams arrive; between namespaces they do so before `sendto` returns."""
        came = 0
        for _ in range(0, count, 10):  # the socket's buffer holds at least ten
            self.send(self.a, 10)
            with contextlib.suppress(BlockingIOError):
                while server.recv(100):
                    came += 1
        return came

    def test_plain_cables(self) -> None:
        """Without offloads no packet is larger than the cable's MTU."""
        largest = []
        for offloads in (True, False):
            if not offloads:
                plain(self.a)
                plain(self.b)
            with self.b.inside(lambda: socket.create_server((str(self.b.towards(self.a).own4), 0))) as server:
                near = self.a.inside(lambda: socket.create_connection(server.getsockname()))
                far, _ = server.accept()
                with near, far, Capture(self.a) as capture:
                    near.sendall(bytes(200_000))
                    left = 200_000
                    while left:
                        left -= len(far.recv(left))
            # snap cuts what is kept; the total length stands in the header
            sizes = [int.from_bytes(seen.data[2:4], "big") for seen in capture.whole() if seen.outgoing]
            largest.append(max(sizes))
        self.assertGreater(largest[0], 1_500)
        self.assertLessEqual(largest[1], 1_500)
