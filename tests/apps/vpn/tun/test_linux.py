"""A device of Linux, and its kernel as the judge of what `apps.vpn.packets` does to packets."""

from __future__ import annotations

import select
import socket
import subprocess
import sys
import threading
import unittest
from collections.abc import Callable
from ipaddress import IPv4Interface, IPv4Network, IPv6Interface, IPv6Network, ip_interface
from random import Random

from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.packets.cut import Pieces, singles
from apps.vpn.packets.faults import Fault
from apps.vpn.packets.headers import check
from apps.vpn.packets.merge import Intake
from apps.vpn.tun.device import CSUM, TSO4, TSO6, check_name
from apps.vpn.tun.linux import LinuxDevice, open_linux
from apps.vpn.tun.rtnetlink import NetlinkError, add_route, set_mtu
from meshnet.errors import LocalError
from tests.support.netns import Namespace, why_not

WHY_NOT = why_not() if sys.platform == "linux" else "this is not Linux"
HOSTS = ("10.9.0.1", "10.9.0.2"), ("fd09::1", "fd09::2")


class NameTests(SynchronousTestCase):
    """`check_name`."""

    def test_names(self) -> None:
        """What Linux takes, and what it does not."""
        for name in ("mesh0", "mesh%d", "a-b_c.d", "fifteen-letters"):
            check_name(name)
        for name in ("", "%d", "a b", "a/b", "sixteen-letters.", "fifteen-lette%d-", "a%s", "a%d%d", "é"):
            self.assertRaises(ValueError, check_name, name)


@unittest.skipIf(WHY_NOT, WHY_NOT)
class DeviceTests(SynchronousTestCase):
    """`open_linux`."""

    def namespace(self) -> Namespace:
        namespace = Namespace()
        self.addCleanup(namespace.close)
        return namespace

    def open(
        self, where: Namespace, hosts: tuple[str, ...], name: str = "test%d", **more: int
    ) -> LinuxDevice:
        addresses = [ip_interface(f"{host}/{'64' if ':' in host else '24'}") for host in hosts]
        device = where.run(open_linux, name, 1_500, addresses, **more)
        self.addCleanup(device.close)
        return device

    def test_life(self) -> None:
        """It is up with its addresses and routes, and gone when it is closed."""
        where = self.namespace()
        device = where.run(
            open_linux,
            "test%d",
            9_000,
            [IPv4Interface("10.9.0.1/32"), IPv6Interface("fd09::1/128")],
            [IPv4Network("10.9.0.0/16"), IPv6Network("fd09::/16")],
        )
        self.assertEqual((device.name, device.mtu), ("test0", 9_000))
        names = where.run(socket.if_nameindex)
        self.assertIn((device.index, "test0"), names)
        for host, family in (("10.9.1.1", socket.AF_INET), ("fd09::2", socket.AF_INET6)):
            with where.run(socket.socket, family, socket.SOCK_DGRAM) as sock:
                sock.connect((host, 9))
                self.assertEqual(sock.getsockname()[0], "10.9.0.1" if family == socket.AF_INET else "fd09::1")
        second = self.open(where, ())
        self.assertEqual(second.name, "test1")
        where.run(set_mtu, "test1", second.index, 1_280)
        device.close()
        device.close()
        self.assertEqual(device.fileno(), -1)
        self.assertNotIn("test0", [name for _, name in where.run(socket.if_nameindex)])

    def test_set_down(self) -> None:
        """Somebody sets it down, and up."""
        where = self.namespace()
        device = where.run(open_linux, "test%d", 1_500)
        self.addCleanup(device.close)
        self.assertTrue(device.alive())
        for word, alive in (("down", False), ("up", True)):
            where.run(lambda word=word: subprocess.run(["ip", "link", "set", "test0", word], check=True))
            self.assertIs(device.alive(), alive)

    def test_refusals(self) -> None:
        """A name that is taken, a route that cannot be: sentences, and nothing is left behind."""
        where = self.namespace()
        self.open(where, (), "test0")
        self.assertRaises(LocalError, where.run, open_linux, "test0", 1_500)
        self.assertRaises(LocalError, where.run, open_linux, "lo", 1_500)
        self.assertRaises(NetlinkError, where.run, add_route, "none", 77, IPv4Network("10.0.0.0/8"))
        self.assertRaises(NetlinkError, where.run, open_linux, "test1", 70_000)
        self.assertEqual([name for _, name in where.run(socket.if_nameindex) if name != "lo"], ["test0"])

    def joined(self, pass_on: Callable[[memoryview, LinuxDevice], None], **more: int) -> list[Namespace]:
        """Two namespaces whose devices are joined by a thread; `pass_on` gets each frame of one."""
        spaces = [self.namespace(), self.namespace()]
        devices = [
            self.open(space, tuple(pair[n] for pair in HOSTS), **more) for n, space in enumerate(spaces)
        ]
        ways = [(Intake(device.read), devices[1 - n]) for n, device in enumerate(devices)]
        ended = threading.Event()

        def join() -> None:
            while not ended.is_set():
                ready, _, _ = select.select(devices, (), (), 0.05)
                for device, (intake, other) in zip(devices, ways, strict=True):
                    while device in ready and (frame := intake.take()) is not None:
                        self.faults.append(check(frame))
                        pass_on(frame, other)

        self.faults: list[Fault] = []
        thread = threading.Thread(target=join)
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(ended.set)
        return spaces

    def exchange(self, here: Namespace, there: Namespace, random: Random) -> None:
        """A megabyte by TCP and some datagrams, in both families; all arrive as they were."""
        for family, (_, host) in zip((socket.AF_INET, socket.AF_INET6), HOSTS, strict=True):
            self.stream(here, there, family, host, random.randbytes(1_000_000))
            sizes = [random.choice((100, 1_200, 1_200, 1_200)) for _ in range(60)]
            self.datagrams(here, there, family, host, [random.randbytes(size) for size in sizes])

    def stream(self, here: Namespace, there: Namespace, family: int, host: str, data: bytes) -> None:
        """The same bytes come out of a TCP connection."""
        with (
            there.run(socket.socket, family, socket.SOCK_STREAM) as server,
            here.run(socket.socket, family, socket.SOCK_STREAM) as client,
        ):
            server.bind((host, 0))
            server.listen()
            client.settimeout(10)
            client.connect(server.getsockname()[:2])
            stream, _ = server.accept()
            sender = threading.Thread(target=lambda: (client.sendall(data), client.shutdown(1)))
            sender.start()
            stream.settimeout(10)
            got = bytearray()
            while piece := stream.recv(1 << 20):
                got += piece
            sender.join()
            stream.close()
            self.assertEqual(got, data)

    def datagrams(self, here: Namespace, there: Namespace, family: int, host: str, data: list[bytes]) -> None:
        """The same datagrams come, in order."""
        with (
            there.run(socket.socket, family, socket.SOCK_DGRAM) as receiver,
            here.run(socket.socket, family, socket.SOCK_DGRAM) as sender,
        ):
            receiver.bind((host, 0))
            receiver.settimeout(10)
            for each in data:
                sender.sendto(each, receiver.getsockname()[:2])
            self.assertEqual([receiver.recv(2_000) for _ in data], data)

    def test_whole(self) -> None:
        """Superpackets, and packets that were joined, go as they are: the far kernel takes them apart."""
        here, there = self.joined(lambda frame, device: device.write(frame))
        self.exchange(here, there, Random(1))
        self.assertEqual(set(self.faults), {Fault.NONE})

    def test_cut(self) -> None:
        """Cut into superpackets of any size, they are the same to the far kernel."""
        random, room = Random(2), memoryview(bytearray(65_536))

        def pass_on(frame: memoryview, device: LinuxDevice) -> None:
            if not frame[1]:
                device.write(frame)
                return
            pieces = Pieces(frame)
            while pieces.least:
                size = pieces.next(room[: max(pieces.least, random.randrange(1_500, 40_000))])
                self.faults.append(check(room[:size]))
                device.write(room[:size])

        here, there = self.joined(pass_on)
        self.exchange(here, there, random)
        self.assertEqual(set(self.faults), {Fault.NONE})

    def test_singles(self) -> None:
        """Segmented here, with checksums made here: the far kernel looks at each, and finds no wrong one."""

        def pass_on(frame: memoryview, device: LinuxDevice) -> None:
            for each in singles(frame):
                device.write(each)

        here, there = self.joined(pass_on)
        self.exchange(here, there, Random(3))
        for table in ("Tcp", "Udp"):
            self.assertEqual(there.run(counter, table, "InCsumErrors"), 0)

    def test_without_offloads(self) -> None:
        """A kernel that has none gives single, complete packets, and what it is given is cut for it."""
        here, there = self.joined(lambda frame, device: device.write(frame), offloads=0)
        self.exchange(here, there, Random(4))
        where = self.namespace()
        self.assertEqual(self.open(where, ()).offloads & CSUM, CSUM)
        self.assertEqual(self.open(where, (), offloads=CSUM | TSO4 | TSO6).offloads, CSUM | TSO4 | TSO6)

    def test_udp_cut_for_older_kernels(self) -> None:
        """Superpackets of UDP are cut where the kernel does not know them."""
        here, there = self.namespace(), self.namespace()
        sender = self.open(here, ("10.9.0.1",))
        receiver = self.open(there, ("10.9.0.2",), offloads=CSUM | TSO4 | TSO6)
        intake = Intake(sender.read)
        while intake.take() is not None:
            pass
        with (
            here.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as source,
            there.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as target,
        ):
            target.bind(("10.9.0.2", 700))
            target.settimeout(5)
            for number in range(5):
                source.sendto(bytes([number]) * 100, ("10.9.0.2", 700))
            frame = intake.take()
            assert frame is not None
            self.assertEqual(frame[1], 5)
            receiver.write(frame)
            self.assertEqual([target.recv(200)[:1] for _ in range(5)], [bytes([n]) for n in range(5)])

    def test_wrong_checksum(self) -> None:
        """What arrives complete with a wrong checksum is dropped by the receiving kernel, which counts it."""
        from tests.support.packets import plain, udp

        where = self.namespace()
        device = self.open(where, ("10.9.0.2",))
        packet = udp("10.9.0.1", "10.9.0.2", (1, 700), b"x" * 9)
        with where.run(socket.socket, socket.AF_INET, socket.SOCK_DGRAM) as target:
            target.bind(("10.9.0.2", 700))
            target.settimeout(5)
            wrong = bytearray(plain(packet))
            wrong[-1] ^= 1
            device.write(memoryview(wrong))
            device.write(memoryview(plain(packet)))
            self.assertEqual(target.recv(100), b"x" * 9)
        self.assertEqual(where.run(counter, "Udp", "InCsumErrors"), 1)


def counter(table: str, name: str) -> int:
    """A count of /proc/net/snmp in this thread's namespace."""
    with open("/proc/thread-self/net/snmp") as file:
        names, values = [line.split() for line in file if line.startswith(f"{table}:")]
    return int(values[names.index(name)])
