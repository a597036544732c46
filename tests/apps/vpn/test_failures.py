"""What the operator sees of failures: the last sentence, and a bounded number of lines."""

from __future__ import annotations

from typing import Any

from twisted.internet.task import Clock
from twisted.logger import LogLevel, globalLogPublisher
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.failures import LOG_SECONDS, Failures
from meshnet.node.clock import NodeClock


class FailuresTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = Clock()
        self.lines: list[str] = []
        globalLogPublisher.addObserver(self.seen)
        self.addCleanup(globalLogPublisher.removeObserver, self.seen)
        self.failures = Failures(NodeClock(self.reactor, self.reactor.seconds))

    def seen(self, event: dict[str, Any]) -> None:
        if event.get("log_namespace") == "apps.vpn.failures":
            assert event["log_level"] is LogLevel.info
            self.lines.append(event["log_format"].format(**event))

    def test_one_line_a_second(self) -> None:
        """A line at once, then none for a second; the next counts what was left out."""
        for number in range(5):
            self.failures.note("SOCKS5 on a:1", f"no way {number}")
        self.assertEqual(self.lines, ["SOCKS5 on a:1: no way 0"])
        self.reactor.advance(LOG_SECONDS)
        self.failures.note("SOCKS5 on a:1", "no way 5")
        self.assertEqual(self.lines[1:], ["SOCKS5 on a:1: no way 5 (4 more since the last such line)"])
        self.reactor.advance(LOG_SECONDS)
        self.failures.note("SOCKS5 on a:1", "no way {6}")
        self.assertEqual(self.lines[2:], ["SOCKS5 on a:1: no way {6}"])

    def test_the_last_one(self) -> None:
        """Its sentence and its age, also of one that was not logged."""
        self.assertEqual(self.failures.describe(), {"last_error": "", "last_error_seconds": None})
        self.failures.note("a", "first")
        self.failures.note("a", "second")
        self.reactor.advance(12)
        self.assertEqual(self.failures.describe(), {"last_error": "second", "last_error_seconds": 12.0})
