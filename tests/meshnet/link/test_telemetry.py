"""What a link knows of itself, against a plain model."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.link.telemetry import PINGS_REMEMBERED, SPANS, Telemetry, Throughput


class ThroughputTests(SynchronousTestCase):
    """Rates over 1 s, 10 s, 1 min and 1 h."""

    def near(self, one: float, other: float, most: float) -> None:
        self.assertLessEqual(abs(one - other), most, f"{one} is not {other}")

    @given(
        st.lists(st.integers(0, 10_000_000), min_size=2, max_size=30), st.integers(1, 9), st.floats(0, 1e6)
    )
    def test_against_a_model(self, steps: list[int], times: int, start: float) -> None:
        """Ticked once a second, each rate is the mean of the seconds of its span, or of what is known."""
        throughput, count = Throughput(), 0
        steps = steps * times
        counts: list[int] = []
        for second, step in enumerate(steps):
            count += step
            counts.append(count)
            throughput.tick(count, start + second)
        for span in (1, 10, 60):
            first = max(0, len(counts) - 1 - span)
            expected = (counts[-1] - counts[first]) / (len(counts) - 1 - first)
            self.near(throughput.rate(span), expected, max(1.0, expected * 1e-6))

    def test_an_hour(self) -> None:
        """A steady flow shows the same over every span, also after two hours; a pause shows in each."""
        throughput = Throughput()
        for second in range(7_200):
            throughput.tick(second * 1_000, float(second))
        for _, span in SPANS:
            self.near(throughput.rate(span), 1_000, 1)
        for second in range(7_200, 7_200 + 1_800):
            throughput.tick(7_199_000, float(second))
        self.assertEqual(throughput.rates()["1min"], 0)
        self.near(throughput.rate(3_600), 500, 15)

    def test_nothing_known(self) -> None:
        """Before two ticks there is no rate."""
        throughput = Throughput()
        self.assertEqual(throughput.rates(), {name: 0 for name, _ in SPANS})
        throughput.tick(1_000_000, 5.0)
        self.assertEqual(throughput.rates(), {name: 0 for name, _ in SPANS})

    def test_memory(self) -> None:
        """However long it runs, it keeps the same few entries."""
        throughput = Throughput()
        for second in range(10_000):
            throughput.tick(second, float(second))
        self.assertLessEqual(len(throughput._seconds) + len(throughput._minutes), 124)

    def test_a_stalled_clock(self) -> None:
        """Late ticks are no faster flow: the rate is over the time that passed."""
        throughput = Throughput()
        throughput.tick(0, 0.0)
        throughput.tick(1_000, 0.0)
        self.assertEqual(throughput.rate(1), 0)
        throughput.tick(8_000, 8.0)
        self.assertEqual(throughput.rate(10), 1_000)


class PingTests(SynchronousTestCase):
    """Round trips and loss."""

    def test_round_trip(self) -> None:
        """The first answer sets it, later ones move it as RFC 9002 says; the least is kept."""
        telemetry = Telemetry()
        self.assertEqual(telemetry.pong(telemetry.ping(0.0), 0.100), 0.0)
        self.assertAlmostEqual(telemetry.rtt, 0.1)
        self.assertAlmostEqual(telemetry.rtt_var, 0.05)
        telemetry.pong(telemetry.ping(1.0), 1.020)
        self.assertAlmostEqual(telemetry.rtt, 0.1 - 0.08 / 8)
        self.assertAlmostEqual(telemetry.rtt_var, 0.05 + (0.08 - 0.05) / 4)
        self.assertAlmostEqual(telemetry.rtt_min, 0.02)

    def test_strays(self) -> None:
        """Answers nobody asked for, and doubled ones, change nothing."""
        telemetry = Telemetry()
        self.assertIsNone(telemetry.pong(7, 1.0))
        token = telemetry.ping(0.0)
        self.assertEqual(telemetry.pong(token, 0.1), 0.0)
        self.assertFalse(telemetry.pong(token, 0.9))
        self.assertEqual((telemetry.pongs, telemetry.rtt), (1, 0.1))

    def test_loss(self) -> None:
        """Unanswered pings count once they are given up, not while they may still be answered."""
        telemetry = Telemetry()
        self.assertEqual(telemetry.loss, 0)
        tokens = [telemetry.ping(float(number)) for number in range(PINGS_REMEMBERED + 10)]
        self.assertEqual(telemetry.loss, 1)
        for token in tokens[10:]:
            telemetry.pong(token, 100.0)
        self.assertAlmostEqual(telemetry.loss, 10 / (PINGS_REMEMBERED + 10))

    def test_silence(self) -> None:
        """How long the oldest open ping has waited; a lost connection's pings count neither way."""
        telemetry = Telemetry()
        self.assertEqual(telemetry.unanswered(9.0), 0)
        first = telemetry.ping(1.0)
        telemetry.ping(2.0)
        self.assertEqual(telemetry.unanswered(9.0), 8)
        telemetry.pong(first, 9.0)
        self.assertEqual(telemetry.unanswered(9.0), 7)
        telemetry.reset_pings()
        self.assertEqual((telemetry.unanswered(9.0), telemetry.loss), (0, 0))

    @given(st.lists(st.tuples(st.sampled_from(["ping", "pong", "stray", "reset"]), st.integers(0, 9))))
    def test_loss_is_a_share(self, events: list[tuple[str, int]]) -> None:
        """Whatever comes, loss lies between 0 and 1 and the counts agree."""
        telemetry, asked = Telemetry(), []
        for number, (event, which) in enumerate(events):
            if event == "ping":
                asked.append(telemetry.ping(float(number)))
            elif event == "pong" and asked:
                telemetry.pong(asked.pop(which % len(asked)), float(number))
            elif event == "stray":
                telemetry.pong(10_000 + which, float(number))
            elif event == "reset":
                telemetry.reset_pings()
            self.assertTrue(0 <= telemetry.loss <= 1)
            self.assertLessEqual(telemetry.pongs, telemetry.pings)
            self.assertGreaterEqual(telemetry.rtt, 0)

    def test_delivery_rate(self) -> None:
        """What the neighbour received between two PONGs, by its clock; a new connection starts anew."""
        telemetry = Telemetry()
        telemetry.delivered(1_000, 1, 5_000_000)
        self.assertEqual(telemetry.delivery_rate, 0)
        telemetry.delivered(3_000, 2, 7_000_000)
        self.assertEqual((telemetry.delivery_rate, telemetry.peer_cells), (1_000, 2))
        telemetry.delivered(9_000, 3, 6_000_000)  # its clock went back: no rate is better than a wrong one
        self.assertEqual(telemetry.delivery_rate, 1_000)
        telemetry.reset_pings()
        telemetry.delivered(50, 1, 9_000_000)
        self.assertEqual((telemetry.delivery_rate, telemetry.peer_bytes), (1_000, 50))
