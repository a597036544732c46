"""Rates and their graphs, and looking at a node again and again."""

from __future__ import annotations

import contextlib
import io
import json
from argparse import Namespace
from typing import Any
from unittest import mock

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cli import stats
from meshnet.cli.watch import watch
from meshnet.node.rings import History

AMOUNTS = st.lists(st.floats(0, 1e12), max_size=400)


class FakeNode:
    """Answers /history out of real rings: `bytes_in` grows by 1,000 a second, `links` is 3."""

    def __init__(self, seconds: int) -> None:
        self.history = History()
        for second in range(seconds):
            self.history.feed(float(second), {"bytes_in": 1_000.0 * second, "creates": 0.0}, {"links": 3.0})

    def __call__(self, method: str, path: str, body: Any) -> dict[str, Any]:
        if path == "/links":
            rates = {"1s": 1_500.0, "10s": 1.0, "1min": 2.0, "1h": 3.0}
            link = {"peer": "02" * 33, "name": "bob", "up": True, "rates_in": rates, "rates_out": rates}
            return {"links": [link, {"peer": "03" * 33, "name": None, "up": False}]}
        if path.startswith("/history/"):
            return self.past(path)
        ring = path.partition("=")[2]
        step = {"1s": 1.0, "10s": 10.0, "1min": 60.0, "1h": 3_600.0}[ring]
        return {"step_seconds": step, "gauges": ["links"], "series": self.history.series(ring)}

    def past(self, path: str) -> dict[str, Any]:
        """One link or path, with the same figures."""
        what, ring = path.removeprefix("/history/").split("?ring=")
        of = self("GET", f"/history?ring={ring}", None)
        trail = {"nodes": ["02" * 33, "03" * 33], "gauges": ["links"], "series": of["series"]}
        return {"step_seconds": of["step_seconds"], what: [trail]}


def shown(**more: Any) -> str:
    """What the verb prints for a node of 100 s."""
    out = io.StringIO()
    arguments = Namespace(
        **{
            "json": False,
            "ring": "1s",
            "all": False,
            "watch": False,
            "every": 2.0,
            "links": False,
            "paths": False,
            **more,
        }
    )
    with contextlib.redirect_stdout(out):
        assert stats.STATS.run(arguments, FakeNode(100)) == 0
    return out.getvalue()


class StatsTests(SynchronousTestCase):
    def test_links_and_paths(self) -> None:
        """Of each link or path the same means, named by its nodes."""
        for what in ("links", "paths"):
            told = shown(**{what: True})
            self.assertRegex(told, r"02020202 → 03030303 bytes_in +1.0 kB/s")
            self.assertRegex(told, r"02020202 → 03030303 links +3 ")
            found = json.loads(shown(**{what: True}, json=True))["series"]
            self.assertEqual(found["02020202 → 03030303 bytes_in"]["1min"], 1_000.0)

    def test_rates(self) -> None:
        """A steady counter has the same rate over every span, also over those longer than the node is old."""
        series = json.loads(shown(json=True))["series"]
        self.assertEqual([series["bytes_in"][span] for span in ("1s", "10s", "1min")], [1_000.0] * 3)
        self.assertLess(abs(series["bytes_in"]["1h"] - 1_000), 20)  # its first step has no growth
        self.assertEqual([series["links"][span] for span in ("1s", "10s", "1min", "1h")], [3.0] * 4)
        self.assertTrue(series["links"]["gauge"])

    def test_for_a_person(self) -> None:
        """What has done something, in units; what has not only on demand; links by their names."""
        text = shown()
        self.assertIn("1.0 kB/s", text)
        self.assertIn("link bob in", text)
        self.assertNotIn("creates", text)
        self.assertIn("creates", shown(all=True))

    def test_young_node(self) -> None:
        """A node that has no sample yet has no rates, and nothing fails."""
        self.assertEqual(stats.collect(FakeNode(0), "1h")["series"], {})
        self.assertEqual(stats.collect(FakeNode(1), "1h")["series"]["bytes_in"]["1h"], 0.0)

    @given(AMOUNTS, st.integers(1, 400))
    def test_mean(self, steps: list[float], count: int) -> None:
        """A rate lies between the least and the greatest step."""
        found = stats.rate(steps, count, 1.0)
        if steps:
            self.assertLessEqual(min(steps) * (1 - 1e-9), found)
            self.assertLessEqual(found, max(steps) * (1 + 1e-9))
        else:
            self.assertEqual(found, 0.0)

    @given(AMOUNTS)
    def test_sparkline(self, values: list[float]) -> None:
        """One block per value; the highest gets the full one if there is any."""
        line = stats.sparkline(values)
        self.assertEqual(len(line), min(40, len(values)))
        self.assertEqual("█" in line, any(value > 0 for value in values[-40:]))


class WatchTests(SynchronousTestCase):
    def looks(self, terminal: bool) -> str:
        """What is written in two looks that Ctrl-C ends."""
        out = io.StringIO()
        out.isatty = lambda: terminal  # type: ignore[method-assign]
        sleep = mock.Mock(side_effect=[None, KeyboardInterrupt])
        with (
            contextlib.redirect_stdout(out),
            mock.patch("time.sleep", sleep),
            self.assertRaises(KeyboardInterrupt),
        ):
            watch(lambda: print("seen"), Namespace(watch=True, every=0.5))
        self.assertEqual(sleep.call_args_list, [mock.call(0.5)] * 2)
        return out.getvalue()

    def test_in_a_pipe(self) -> None:
        """Look after look, no control characters."""
        self.assertEqual(self.looks(False), "seen\nseen\n")

    def test_on_a_terminal(self) -> None:
        """Each over the one before; the cursor is left on a line of its own."""
        text = self.looks(True)
        self.assertEqual(text.count("seen"), 2)
        self.assertEqual(text.count("\x1b[H"), 2)
        self.assertTrue(text.endswith("\n"))
