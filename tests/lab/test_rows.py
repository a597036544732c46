"""Rows say what was measured and whether it is enough."""

from __future__ import annotations

import json
import sys
import types
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from lab.benches import command
from lab.benches.rows import Row, row_of, table


class RowTests(SynchronousTestCase):
    """Figures."""

    def test_median_and_spread(self) -> None:
        """The value is the median, the spread half the distance of the quartiles."""
        row = row_of("x", [1.0, 2.0, 3.0, 4.0, 100.0], "ms")
        self.assertEqual((row.value, row.n, row.met), (3.0, 5, None))
        self.assertEqual(row.spread, (52.0 - 1.5) / 2)
        self.assertEqual(row_of("x", [1.0], "ms").spread, 0.0)

    def test_targets(self) -> None:
        """A target counts from the side that is better; the target itself is enough."""
        self.assertTrue(Row("x", 5.0, "ms", 1, target=5.0).met)
        self.assertFalse(Row("x", 5.1, "ms", 1, target=5.0).met)
        self.assertTrue(Row("x", 5.0, "1/s", 1, target=5.0, better="higher").met)
        self.assertFalse(Row("x", 4.9, "1/s", 1, target=5.0, better="higher").met)

    def test_json_keys(self) -> None:
        """The keys that scripts rely on, in their order."""
        keys = ["name", "value", "unit", "n", "spread", "target", "met", "note"]
        self.assertEqual(list(Row("x", 1.23456, "ms", 1).as_json()), keys)

    def test_table(self) -> None:
        """A missed target is printed as missed."""
        text = table([Row("a", 5.1, "ms", 3, target=5.0), Row("long_name", 1.0, "", 1, note="why")])
        self.assertIn("MISSED", text.splitlines()[0])
        self.assertTrue(text.splitlines()[1].endswith("why"))


class CommandTests(SynchronousTestCase):
    """The command over a bench that needs no time."""

    def bench(self, row: Row, *arguments: str) -> tuple[int, str]:
        """Exit code and output of a bench with this row."""
        module = types.ModuleType("lab.benches.relay")
        module.run = lambda options: [row]  # type: ignore[attr-defined]
        self.patch(command, "importlib", types.SimpleNamespace(import_module=lambda name: module))
        output = StringIO()
        with redirect_stdout(output):
            code = command.main(["relay", *arguments])
        return code, output.getvalue()

    def test_exit_codes(self) -> None:
        """0 if all is met or nothing was asked, 1 for a missed target."""
        self.assertEqual(self.bench(Row("x", 1.0, "", 1))[0], 0)
        self.assertEqual(self.bench(Row("x", 1.0, "", 1, target=2.0))[0], 0)
        self.assertEqual(self.bench(Row("x", 3.0, "", 1, target=2.0))[0], 1)

    def test_json_and_out(self) -> None:
        """--json prints the rows, --out writes the same."""
        with TemporaryDirectory() as folder:
            file = Path(folder) / "rows.json"
            _, text = self.bench(Row("x", 1.0, "ms", 1), "--json", "--out", str(file))
            self.assertEqual(json.loads(text)[0]["name"], "x")
            self.assertEqual(file.read_text(), text)

    def test_unknown_name(self) -> None:
        """A bench that is not there is a usage error."""
        self.patch(sys, "stderr", StringIO())
        error = self.assertRaises(SystemExit, command.main, ["nothing"])
        self.assertEqual(error.code, 2)
