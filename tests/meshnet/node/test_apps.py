"""The life of apps: in order, and none at the cost of another."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, cast

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import LocalError
from meshnet.node.app import Json
from meshnet.node.apps import Apps


class Quirk:
    """An app and its service, failing where told to."""

    settings = dict

    def __init__(self, name: str, told: list[str], fails: str = "", error: Exception | None = None) -> None:
        self.name = name
        self.told = told
        self.fails = fails
        self.error = error or RuntimeError("oh")

    def _say(self, what: str) -> None:
        self.told.append(f"{what} {self.name}")
        if what == self.fails:
            raise self.error

    def make_service(self, node: Any, settings: Any) -> Quirk:
        self._say("make")
        return self

    def routes(self) -> dict[str, Any]:
        return {"GET /": lambda body: {}}

    def startService(self) -> None:
        self._say("start")

    def stopService(self) -> None:
        self._say("stop")

    def status(self) -> Json:
        self._say("status")
        return {"is": self.name}


class AppsTests(SynchronousTestCase):
    def start(self, apps: Apps) -> tuple[dict[str, Any], list[str]]:
        """Their routes, and what was noted."""
        routes: dict[str, Any] = {}
        notes: list[str] = []
        settings = cast(Any, SimpleNamespace(apps={}))
        self.successResultOf(
            Deferred.fromCoroutine(apps.start(cast(Any, None), settings, routes, notes.append))
        )
        return routes, notes

    def test_order(self) -> None:
        """Started first to last, stopped last to first; one that does not start is noted and passed over."""
        told: list[str] = []
        apps = Apps([Quirk("a", told), Quirk("b", told, "start"), Quirk("c", told)])
        routes, notes = self.start(apps)
        self.assertEqual(notes, ["App b did not start: RuntimeError: oh"])
        self.assertEqual((list(apps.running), len(routes)), (["a", "c"], 2))
        told.clear()
        self.successResultOf(Deferred.fromCoroutine(apps.stop()))
        self.assertEqual((told, apps.running), (["stop c", "stop a"], {}))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)

    def test_faults_cost_no_other_app(self) -> None:
        """One whose status fails says so in its place; one that fails to stop keeps no other from it."""
        told: list[str] = []
        apps = Apps([Quirk("a", told), Quirk("b", told, "stop"), Quirk("c", told, "status")])
        self.start(apps)
        self.assertEqual(
            apps.status(), {"a": {"is": "a"}, "b": {"is": "b"}, "c": {"error": "RuntimeError: oh"}}
        )
        self.successResultOf(Deferred.fromCoroutine(apps.stop()))
        self.assertEqual(told[-3:], ["stop c", "stop b", "stop a"])
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 2)

    def test_the_operators_business(self) -> None:
        """A LocalError stops the start; what had started can be stopped."""
        told: list[str] = []
        apps = Apps([Quirk("a", told), Quirk("b", told, "start", LocalError("The port is taken."))])
        starting = Deferred.fromCoroutine(
            apps.start(cast(Any, None), cast(Any, SimpleNamespace(apps={})), {}, print)
        )
        self.failureResultOf(starting, LocalError)
        self.successResultOf(Deferred.fromCoroutine(apps.stop()))
        self.assertEqual(told[-1], "stop a")
