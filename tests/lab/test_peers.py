"""Other overlay networks in hosts of the lab: what reaches the far end has passed the middle, encrypted."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
from twisted.trial.unittest import SynchronousTestCase

from lab.benches.contest import build_row
from lab.capture import Capture, Seen
from lab.peers import ALL
from lab.processes import Processes
from lab.traffic import Server, flood, ping, tcp
from meshnet.errors import UsageError
from tests.support.hosts import hosts_for

PATTERN = bytes.fromhex("6d6573686e6574a5")


class PeersTests(SynchronousTestCase):
    """Real ones; skipped without root or where a network is not installed."""

    def passes(self, name: str) -> None:
        """Brings one up over a relay, and looks at the cables while it is used."""
        hosts = hosts_for(self, "ip", "ping", *ALL[name].programs)
        row = build_row(hosts, 3)
        cables = tuple(end.name for end in row[1].cables.values())
        with TemporaryDirectory() as folder, Processes() as processes:
            network = ALL[name](row, Path(folder) / name)
            network.up(processes)
            try:

                def wanted(seen: Seen) -> bool:
                    return seen.interface in cables

                with Capture(row[1], snap=2_000, wanted=wanted) as capture:
                    words = ["ping", "-n", "-c", "5", "-i", "0.01", "-p", PATTERN.hex(), "-s", "400"]
                    row[0].run(*words, network.address)
                self.assertGreaterEqual(network.cpu_seconds(), 0)
            finally:
                network.down()
            self.assertFalse(any(process.running for process in network.processes))
        seen = [[each for each in capture.whole() if each.interface == cable] for cable in cables]
        large = [sum(len(each.data) > 400 for each in packets) for packets in seen]
        self.assertTrue(all(count >= 10 for count in large), large)  # there and back, on both cables
        clear = any(PATTERN in each.data for packets in seen for each in packets)
        self.assertEqual(clear, name == "kernel")

    def test_kernel(self) -> None:
        """Without an overlay the test sees what it looks for."""
        self.passes("kernel")

    @pytest.mark.long
    def test_yggdrasil(self) -> None:
        """TCP links."""
        self.passes("yggdrasil")

    def test_wireguard_go(self) -> None:
        """Two tunnels."""
        self.passes("wireguard-go")

    @pytest.mark.long
    def test_nebula(self) -> None:
        """A relay."""
        self.passes("nebula")

    @pytest.mark.long
    def test_tinc(self) -> None:
        """Links of a mesh."""
        self.passes("tinc")

    def test_rows_of_a_wrong_length(self) -> None:
        """Where a network has a middle only, more hosts are refused."""
        hosts = hosts_for(self, "ip", "ping", "wireguard-go")
        with TemporaryDirectory() as folder, Processes() as processes:
            network = ALL["wireguard-go"](build_row(hosts, 4), Path(folder))
            self.assertRaises(UsageError, network.up, processes)


@pytest.mark.long
class TrafficTests(SynchronousTestCase):
    """What iperf3 and ping say, over the kernel."""

    def test_what_arrives(self) -> None:
        """Bytes, datagrams and echoes are counted by who receives them."""
        hosts = hosts_for(self, "ip", "ping", "iperf3", "nft")
        row = build_row(hosts, 3)
        with TemporaryDirectory() as folder, Processes() as processes:
            network = ALL["kernel"](row, Path(folder))
            network.up(processes)
            server = Server.start(processes, row[-1], network.address, Path(folder) / "log")
            flow = tcp(row[0], server, 1)
            self.assertGreater(flow.mbps, 0)
            self.assertGreater(flow.seconds, 0)
            packets = flood(row[0], server, 1, rate="9.6M")
            self.assertTrue(0 < packets.packets <= packets.sent)
            self.assertEqual(packets.bytes, packets.packets * 1_200)
            self.assertEqual(ping(row[0], network.address, 3).lost, 0)
            self.assertEqual(ping(row[0], "10.210.99.1", 1).lost, 1)
