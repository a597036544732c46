"""Lines of a node's log."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.logger import Logger, LogLevel
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import SecretKey
from meshnet.errors import ConfigError, StorageError
from meshnet.limits import LOG_BURST, LOG_RECENT, LOG_WINDOW
from meshnet.node.config import LogSettings, from_table
from meshnet.node.logs import NodeLog, json_line, part_of, text_line
from tests.support.nodes import new_folder


class Out(list[str]):
    """Standard error."""

    def write(self, line: str) -> None:
        self.append(line)


class LogTests(SynchronousTestCase):
    def setUp(self) -> None:
        """A log that writes to a list."""
        self.out, self.now = Out(), 1_000_000_000.0
        self.log = NodeLog(self.out)

    def emit(self, text: str, part: str = "meshnet.link.driver", level: str = "info", **fields: Any) -> None:
        """One event, at `now`."""
        observer: Any = lambda event: self.log({**event, "log_time": self.now})  # noqa: E731
        logger = Logger(part, observer=observer)
        logger.emit(LogLevel.levelWithName(level), text, **fields)

    def test_text(self) -> None:
        """Time, level, part and message on one line."""
        self.emit("link to {peer} up", peer="02ab")
        self.assertEqual(self.out, ["2001-09-09T01:46:40.000Z info  link: link to 02ab up\n"])

    def test_json(self) -> None:
        """One object per line, with what the message was made of."""
        self.log.apply(LogSettings(format="json"))
        self.emit("{count} lost: {why}", count=3, why=ValueError("x\ny"), secret=SecretKey(b"\x07" * 32))
        self.assertEqual(self.out[0].count("\n"), 1)
        found = json.loads(self.out[0])
        self.assertEqual(found["message"], "3 lost: x\ny")
        self.assertEqual((found["part"], found["level"], found["fields"]["count"]), ("link", "info", 3))
        self.assertNotIn("07" * 32, self.out[0])

    def test_levels(self) -> None:
        """The level of a part beats that of all; Twisted's own lines come from warnings on."""
        self.log.apply(LogSettings(level="warn", parts={"link": "debug"}))
        self.emit("a", level="debug")
        self.emit("b", part="apps.vpn.service")
        self.emit("c", part="apps.vpn.service", level="error")
        self.assertEqual([line.split()[-1] for line in self.out], ["a", "c"])
        self.log.apply(LogSettings())
        self.assertFalse(self.log.wants("twisted", "info"))
        self.assertTrue(self.log.wants("twisted", "warn"))
        self.assertTrue(NodeLog(self.out, "debug").wants("twisted", "debug"))

    def test_command_line_beats_config(self) -> None:
        """`up --log-level error` holds whatever the config says."""
        self.log = NodeLog(self.out, "error")
        self.log.apply(LogSettings(level="debug"))
        self.emit("a", level="warn")
        self.assertEqual(self.out, [])

    def test_failures(self) -> None:
        """A traceback belongs to its line."""
        try:
            raise ZeroDivisionError("a bug")
        except ZeroDivisionError:
            Logger("meshnet.node", observer=self.log).failure("it broke")
        self.assertIn("it broke", self.out[0])
        self.assertIn("ZeroDivisionError: a bug", self.out[0])

    def test_flood(self) -> None:
        """Lines of one kind are counted beyond a number, others go on, and the count is told."""
        for number in range(LOG_BURST + 50):
            self.emit("no link over {address}", address=number)
        self.emit("something else")
        self.assertEqual(len(self.out), LOG_BURST + 2)
        self.assertIn("50 lines were left out", self.out[-2])
        self.now += LOG_WINDOW
        self.emit("no link over {address}", address=1)
        self.assertEqual(len(self.out), LOG_BURST + 3)

    def test_recent(self) -> None:
        """The last lines are kept, no more than the limit."""
        for number in range(LOG_RECENT + 10):
            self.now += LOG_WINDOW
            self.emit("line {number}", number=number)
        self.assertEqual(len(self.log.recent), LOG_RECENT)
        self.assertTrue(self.log.recent[-1].endswith(f"line {LOG_RECENT + 9}"))

    def test_file(self) -> None:
        """Appended to, only its owner reads it; moved away, it is made anew on `reopen`."""
        path = new_folder(self) / "mesh.log"
        path.write_text("before\n")
        self.log.apply(LogSettings(file=path))
        self.emit("one")
        path.rename(path.with_suffix(".1"))
        self.emit("two")
        self.log.reopen()
        self.emit("three")
        self.assertEqual(len(path.with_suffix(".1").read_text().splitlines()), 3)
        self.assertTrue(path.read_text().endswith("three\n"))
        self.assertEqual(path.stat().st_mode & 0o777, 0o600)
        self.log.apply(LogSettings())
        self.emit("four")
        self.assertEqual(len(self.out), 1)

    def test_file_that_cannot_be(self) -> None:
        """A sentence, and the log goes on where it was."""
        self.assertRaises(StorageError, self.log.apply, LogSettings(file=Path("/nowhere/mesh.log")))
        self.emit("here")
        self.assertEqual(len(self.out), 1)

    def test_broken_events(self) -> None:
        """What cannot be formatted never raises."""
        self.emit("{missing}")
        self.log({"log_level": None})
        self.log({})

    @given(st.text(max_size=80))
    def test_strangers_text(self, text: str) -> None:
        """Whatever a stranger sent: no control characters for the terminal, JSON on one line."""
        line = text_line(0.0, "link", "info", text, {})
        self.assertFalse(any((ord(c) < 32 and c not in "\t\n") or 127 <= ord(c) < 160 for c in line))
        encoded = json_line(0.0, "link", "info", text, {"why": text})
        self.assertNotIn("\n", encoded)
        self.assertEqual(json.loads(encoded)["fields"]["why"], text)

    def test_parts(self) -> None:
        """By package; apps by their name."""
        for namespace, part in (
            ("meshnet.link.driver", "link"), ("apps.vpn.service", "vpn"), ("coin.store", "coin"),
            ("twisted.internet", "twisted"), ("log_legacy", "twisted"), ("other.thing", "other"),
        ):  # fmt: skip
            self.assertEqual(part_of(namespace), part)

    def test_config(self) -> None:
        """A part that is none is refused with the choices."""
        table = {"log": {"parts": {"lnk": "debug"}}}
        error = self.assertRaises(ConfigError, from_table, table, Path("node.toml"))
        self.assertIn("log.parts.lnk", str(error))
        self.assertIn("link", str(error))
        settings = from_table({"log": {"parts": {"link": "debug"}}}, Path("node.toml"))
        self.assertEqual(settings.log.parts, {"link": "debug"})
