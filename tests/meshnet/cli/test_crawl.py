"""`crawl` and `route-service`: what they ask a node, write, print and exit with."""

from __future__ import annotations

import io
import json
from contextlib import redirect_stdout
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cli.crawl import AT_A_TIME, CRAWL, PARTIAL, SCHEMA, crawl
from meshnet.cli.main import _Parser
from meshnet.errors import UsageError
from meshnet.node.app import Json
from tests.support.nodes import new_folder


def key(number: int) -> str:
    """66 hex digits."""
    return f"02{number:064x}"


class FakeApi:
    """A node that knows `count` others, of whom every third does not answer."""

    def __init__(self, count: int, services: list[Json] | None = None) -> None:
        self.asked: list[tuple[str, str]] = []
        self.services = services or []
        nodes = [{"key": key(n), "country": "DE" if n % 2 else None, "marks": []} for n in range(count + 1)]
        self.map = {"own": key(0), "nodes": nodes, "links": []}
        self.batches: list[int] = []
        self.serves: Json | None = None

    def __call__(self, method: str, path: str, body: Json | None) -> Json:
        self.asked.append((method, path))
        if path == "/topology/sync":
            return {"services": self.services, "serves": None}
        if path == "/topology":
            return self.map
        if path == "/route-service":
            return {"services": self.services, "serves": self.serves}
        assert path == "/probe" and body is not None
        self.batches.append(len(body["targets"]))
        return {"probed": [self.probed(each) for each in body["targets"]]}

    @staticmethod
    def probed(target: str) -> Json:
        if int(target, 16) % 3 == 0:
            return {"key": target, "error": "no answer"}
        return {"key": target, "rtt_ms": 2.0, "setup_ms": 3.0}


class Crawls(SynchronousTestCase):
    """Snapshots."""

    def run_verb(self, number: int, api: Any, *words: str) -> tuple[int, str]:
        """Exit code and what was printed."""
        parser, out = _Parser(), io.StringIO()
        parser.add_argument("--json", action="store_true")
        CRAWL[number].arguments(parser)
        with redirect_stdout(out):
            code = CRAWL[number].run(parser.parse_args(words), api)
        return code, out.getvalue()

    def test_whole(self) -> None:
        """Every node but our own is probed, in batches; the file has the schema and all of it."""
        api, file = FakeApi(40), new_folder(self) / "network.json"
        code, told = self.run_verb(0, api, "--out", str(file))
        self.assertEqual(code, 0)
        self.assertEqual(sum(api.batches), 40)
        self.assertLessEqual(max(api.batches), AT_A_TIME)
        snapshot = json.loads(file.read_text())
        self.assertEqual((snapshot["schema"], snapshot["complete"]), (SCHEMA, True))
        answers = {int(each["key"][2:], 16): each["answers"] for each in snapshot["nodes"]}
        self.assertIsNone(answers[0])
        self.assertTrue(all(answers[n] == bool(int(key(n), 16) % 3) for n in range(1, 41)))
        self.assertIn("41 nodes", told)

    def test_budget(self) -> None:
        """Where time runs out, what was found is there, and the rest is said to be missing."""
        times = iter([0.0, 1.0, 100.0, 200.0])
        snapshot = crawl(FakeApi(40), 50.0, clock=lambda: next(times))
        self.assertFalse(snapshot["complete"])
        self.assertEqual(sum(each["answers"] is not None for each in snapshot["nodes"]), AT_A_TIME)
        self.assertIn("24 of 40 nodes were not probed", snapshot["why"][0])

    def test_partial(self) -> None:
        """A service that did not answer makes it partial; without probes no node is asked."""
        service = {"key": key(9), "complete": False, "why": "timed out", "lists": 0, "records": 0, "bytes": 0}
        api = FakeApi(3, [service])
        code, told = self.run_verb(0, api, "--no-probes", "--json")
        self.assertEqual(code, PARTIAL)
        self.assertEqual(api.batches, [])
        self.assertIn("timed out", json.loads(told)["why"][0])

    def test_wrong_seconds(self) -> None:
        """A budget that is none is refused in a sentence."""
        self.assertRaises(UsageError, self.run_verb, 0, FakeApi(1), "--seconds", "-1")

    def test_route_service(self) -> None:
        """Starting, stopping and looking ask the right thing; what does not go together is refused."""
        for words, method in (((), "POST"), (("--stop",), "DELETE"), (("--status",), "GET")):
            api = FakeApi(1)
            code, told = self.run_verb(1, api, *words)
            self.assertEqual((code, api.asked), (0, [(method, "/route-service")]))
            self.assertIn("no route service", told)
        api.serves = {"records": 5, "database": "f", "looks": 1, "questions": 2, "refused": 0,
                      "sent_bytes": 1_000, "callers": 0, "notes": ["a note"]}  # fmt: skip
        self.assertIn("5 records", self.run_verb(1, api, "--database", "f")[1])
        self.assertRaises(UsageError, self.run_verb, 1, api, "--database", "f", "--stop")
