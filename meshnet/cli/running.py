"""Runs a node in the foreground, and says how it logs.

It takes the reactor by argument. Logs go to stderr as text, one line each, from a level on.
"""

from __future__ import annotations

import json
import os
from typing import Any, TextIO

from twisted.internet.defer import Deferred
from twisted.logger import (
    FilteringLogObserver,
    LogLevel,
    LogLevelFilterPredicate,
    globalLogBeginner,
    textFileLogObserver,
)
from twisted.python.failure import Failure

from meshnet.cli.show import tell
from meshnet.node.clock import steady
from meshnet.node.node import Node


def begin_logging(level: str, out: TextIO) -> None:
    """Text lines of this level and above to `out`, and nothing anywhere else.

    Twisted's own lines about ports and its main loop are shown only with `debug`.
    """
    wanted = LogLevelFilterPredicate(LogLevel.levelWithName(level))
    if level == "info":
        for namespace in ("twisted", "log_legacy"):
            wanted.setLogLevelForNamespace(namespace, LogLevel.warn)
    observer = FilteringLogObserver(textFileLogObserver(out), [wanted])
    globalLogBeginner.beginLoggingTo([observer], redirectStandardIO=False, discardBuffer=True)


class Foreground:
    """Runs one node until SIGTERM, SIGINT or POST /stop; `code` is then the exit code."""

    def __init__(self, node: Node, reactor: Any, as_json: bool) -> None:
        self.code = 0
        self._node = node
        self._reactor = reactor
        self._json = as_json

    def run(self) -> int:
        """Returns when the node has stopped. The ready line is the only thing on stdout."""
        steady(self._reactor)
        self._reactor.callWhenRunning(self._start)
        self._reactor.addSystemEventTrigger("before", "shutdown", self._node.stopService)
        self._reactor.run()
        return self.code

    def _start(self) -> None:
        self._node.finished = Deferred()
        self._node.finished.addCallback(lambda _: self._reactor.stop())
        self._node.startService()
        self._node.ready().addCallbacks(self._ready, self._failed)

    def _ready(self, _: None) -> None:
        print(ready_line(self._node, self._json), flush=True)

    def _failed(self, failure: Failure) -> None:
        self.code = tell(failure.value)
        self._reactor.stop()


def ready_line(node: Node, as_json: bool) -> str:
    """What `up` prints when the node stands: its key, where it listens, its control socket."""
    status = node.status()
    facts = {
        "ready": True,
        "public_key": status["public_key"],
        "listen": status["listen"],
        "metrics": status["metrics"],
        "control": status["control"]["socket"],
        "pid": os.getpid(),
    }
    if as_json:
        return json.dumps(facts)
    listens = " ".join(status["listen"]) or "nothing"
    return f"ready {status['public_key']} listens on {listens}, control {status['control']['socket']}"
