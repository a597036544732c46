"""How the contest's figures become rows."""

from __future__ import annotations

import cProfile
import pstats
import time

from twisted.trial.unittest import SynchronousTestCase

from lab.benches.rows import Options
from lab.benches.vpn import OVER_RELAYS, TARGETS, UNDER_LOSS, costs, in_turn, ratio, run
from meshnet.errors import UsageError


class RowTests(SynchronousTestCase):
    """Pure parts."""

    def test_names(self) -> None:
        """The rows are those that were asked for."""
        self.assertEqual(
            [target.name for target in (*TARGETS, OVER_RELAYS, UNDER_LOSS)],
            [
                "vpn_tcp_ratio",
                "vpn_udp_ratio",
                "vpn_cpu_per_gb_ratio",
                "vpn_rtt_idle_ratio",
                "vpn_rtt_loaded_ratio",
                "vpn_tcp_3relay_ratio",
                "vpn_loss1_vs_wireguard_go",
            ],
        )

    def test_ratio(self) -> None:
        """It is taken within each round; the median counts."""
        row = ratio(TARGETS[0], [2.0, 9.0, 4.0], [1.0, 3.0, 4.0], "yggdrasil", 3)
        self.assertEqual((row.value, row.n, row.met), (2.0, 3, True))
        self.assertIn("4 over 3 of yggdrasil", row.note)
        less = ratio(TARGETS[2], [7.0], [10.0], "yggdrasil", 3)
        self.assertEqual((less.value, less.met), (0.7, False))

    def test_in_turn(self) -> None:
        """Every round begins with another one; each gets as many."""
        order: list[str] = []
        taken = in_turn(["a", "b", "c"], 3, lambda name: order.append(name) or len(order))
        self.assertEqual("".join(order), "abcbcacab")
        self.assertEqual(taken, {"a": [1, 6, 8], "b": [2, 4, 9], "c": [3, 5, 7]})

    def test_costs(self) -> None:
        """Waiting is no cost; the dearest stands first."""
        profile = cProfile.Profile()
        profile.runcall(lambda: (time.sleep(0.01), sorted(range(100_000), key=lambda n: -n)))
        text = costs(pstats.Stats(profile), 2)
        self.assertNotIn("sleep", text)
        self.assertEqual(len(text.splitlines()), 3)
        self.assertIn("sort", text)

    def test_unknown_network(self) -> None:
        """It is refused before anything is built."""
        self.assertIn("choices", str(self.assertRaises(UsageError, run, Options(against=("openvpn",)))))
