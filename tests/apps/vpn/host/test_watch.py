"""Noticing what others change: any bytes of the kernel, the file, and a real namespace."""

from __future__ import annotations

from pathlib import Path
from struct import pack

from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.host import watch
from apps.vpn.host.watch import FILE_SECONDS, TYPES, HostWatch
from meshnet.node.clock import NodeClock
from meshnet.transports.changes import changes_in, kernel_socket
from tests.support.hosts import hosts_for
from tests.support.nodes import new_folder
from tests.support.reactors import OwnReactor


def test_kinds() -> None:
    """Addresses, routes, rules; also behind something else. Neighbours and links are not of interest."""
    for kind, interest in (
        (20, True),
        (21, True),
        (24, True),
        (25, True),
        (32, True),
        (33, True),
        (16, False),
    ):
        message = pack("=IHHII", 16, kind, 0, 0, 0)
        assert changes_in(message, TYPES) is interest
        assert changes_in(pack("=IHHII", 16, 28, 0, 0, 0) + message, TYPES) is interest


class WatchTests(SynchronousTestCase):
    """Who asked is told."""

    def test_file(self) -> None:
        """Another content, another file, none: each is told once."""
        self.patch(watch, "kernel_socket", lambda *_: None)
        file, clock, told = new_folder(self) / "resolv.conf", Clock(), list[int]()
        look = HostWatch(clock, NodeClock(clock).call_later, file, lambda: told.append(1))

        def after() -> int:
            clock.advance(FILE_SECONDS)
            clock.advance(FILE_SECONDS)
            seen = len(told)
            told.clear()
            return seen

        self.assertEqual(after(), 0)
        file.write_text("nameserver 192.0.2.1\n")
        self.assertEqual(after(), 1)
        file.write_text("nameserver 192.0.2.100\n")
        self.assertEqual(after(), 1)
        file.unlink()
        self.assertEqual(after(), 1)
        look.stop()
        self.assertEqual(clock.getDelayedCalls(), [])

    def test_kernel(self) -> None:
        """A rule, a route, an address, a table of nftables: each is told by a real kernel."""
        host = hosts_for(self, "ip", "nft").add("a")
        world = OwnReactor()
        self.addCleanup(world.close)
        told: list[int] = []
        self.patch(watch, "SETTLE", 0.0)
        self.patch(watch, "AGAIN", 0.0)
        self.patch(watch, "kernel_socket", lambda *which: host.inside(lambda: kernel_socket(*which)))
        later = NodeClock(world.reactor).call_later
        look = HostWatch(world.reactor, later, Path("/nowhere"), lambda: told.append(1))
        for command in (
            ("ip", "rule", "add", "pref", "100", "lookup", "99"),
            ("ip", "addr", "add", "127.0.0.9/32", "dev", "lo"),
            ("ip", "route", "add", "blackhole", "192.0.2.0/24"),
            ("nft", "add", "table", "inet", "x"),
            ("nft", "flush", "ruleset"),
            ("ip", "-6", "rule", "delete", "pref", "32766"),
        ):
            told.clear()
            host.run(*command)
            world.until(lambda: bool(told))
        look.stop()
        self.assertEqual(world.left(), [])
