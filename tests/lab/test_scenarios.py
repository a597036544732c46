"""`./mesh lab simulate`: a transfer in virtual time."""

from __future__ import annotations

import json
from contextlib import redirect_stdout
from io import StringIO
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lab.scenarios import main


class ScenarioTests(SynchronousTestCase):
    """The command."""

    def run_lab(self, *arguments: str) -> tuple[int, dict[str, Any]]:
        """Exit code and report, without what depends on the machine."""
        output = StringIO()
        with redirect_stdout(output):
            code = main([*arguments, "--json"])
        report = json.loads(output.getvalue())
        del report["real_seconds"]
        return code, report

    def test_same_seed_same_result(self) -> None:
        """The report is a function of the arguments."""
        wild = ("--megabytes", "1", "--loss", "0.01", "--jitter", "2", "--rate", "50", "--seed")
        code, report = self.run_lab(*wild, "3")
        self.assertEqual((code, report["ok"], report["bytes"]), (0, True, 1_000_000))
        self.assertEqual(self.run_lab(*wild, "3"), (code, report))
        self.assertNotEqual(self.run_lab(*wild, "4")[1], report)

    def test_no_relays(self) -> None:
        """Two neighbours need none."""
        self.assertEqual(self.run_lab("--relays", "0", "--megabytes", "0.1")[0], 0)

    def test_not_in_time(self) -> None:
        """What does not arrive in time is said, with exit code 1."""
        code, report = self.run_lab("--rate", "1", "--megabytes", "1", "--limit", "1")
        self.assertEqual((code, report["ok"], report["error"]), (1, False, None))
