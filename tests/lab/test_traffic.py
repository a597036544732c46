"""Reading what programs print."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lab.namespaces import CommandError
from lab.traffic import Transfer, read_ping

PING = """PING 10.210.0.6 (10.210.0.6) 56(84) bytes of data.
64 bytes from 10.210.0.6: icmp_seq=1 ttl=63 time=0.411 ms
64 bytes from 10.210.0.6: icmp_seq=3 ttl=63 time=12 ms

--- 10.210.0.6 ping statistics ---
3 packets transmitted, 2 received, 33.3333% packet loss, time 41ms
rtt min/avg/max/mdev = 0.411/6.2/12/1.000 ms
"""


class ReadTests(SynchronousTestCase):
    """Texts and numbers."""

    def test_ping(self) -> None:
        """Times, and what got lost."""
        read = read_ping(PING)
        self.assertEqual((read.times, read.sent, read.lost), ((0.411, 12.0), 3, 1))
        self.assertRaises(CommandError, read_ping, "ping: unknown host")

    def test_rates(self) -> None:
        """Per second of the receiver; nothing in no time is nothing."""
        transfer = Transfer(3_000_000, 2.0, 2_500, 4_000)
        self.assertEqual((transfer.mbps, transfer.packets_per_second), (12.0, 1_250.0))
        self.assertEqual(Transfer(0, 0.0).mbps, 0.0)
