"""Runs a node in the foreground, and says how it logs.

It takes the reactor by argument. SIGHUP reads the config again and opens the log's file anew.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import signal
from typing import Any, Final, TextIO

from twisted.internet.defer import Deferred
from twisted.logger import Logger, globalLogBeginner
from twisted.python.failure import Failure

from meshnet.cli.show import as_told, tell
from meshnet.errors import StorageError
from meshnet.node.clock import steady
from meshnet.node.logs import NodeLog
from meshnet.node.node import Node

_log = Logger()
FILES: Final = 65_536  # open at most, sockets among them


def begin_logging(level: str | None, out: TextIO) -> NodeLog:
    """Lines to `out`, or where the config says, and nothing anywhere else. `level` beats the config's."""
    log = NodeLog(_Flushed(out), level)
    globalLogBeginner.beginLoggingTo([log], redirectStandardIO=False, discardBuffer=True)
    return log


class _Flushed:
    """A stream whose lines are seen at once; a reader that has gone is nobody's error."""

    def __init__(self, out: TextIO) -> None:
        self._out = out

    def write(self, line: str) -> None:
        """A line."""
        with contextlib.suppress(OSError, ValueError):
            self._out.write(line)
            self._out.flush()


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
        raise_file_limit()
        self._reactor.callWhenRunning(self._start)
        signal.signal(signal.SIGHUP, lambda *_: self._reactor.callFromThread(self._reload))
        self._reactor.addSystemEventTrigger("before", "shutdown", self._node.stopService)
        self._reactor.run()
        return self.code

    def _start(self) -> None:
        self._node.finished = Deferred()
        self._node.finished.addCallback(lambda _: self._reactor.stop())
        self._node.startService()
        self._node.ready().addCallbacks(self._ready, self._failed)

    def _reload(self) -> None:
        """SIGHUP: a wrong config costs a line in the log."""
        try:
            if self._node.log is not None:
                self._node.log.reopen()
        except StorageError as error:
            _log.error("{why}", why=str(error))
        done: Deferred[Any] = Deferred.fromCoroutine(self._node.reload())
        done.addErrback(lambda failure: _log.error("{why}", why=str(as_told(failure.value))))

    def _ready(self, _: None) -> None:
        print(ready_line(self._node, self._json), flush=True)

    def _failed(self, failure: Failure) -> None:
        self.code = tell(failure.value)
        self._reactor.stop()


def raise_file_limit(wanted: int = FILES) -> int:
    """Lets this process open as many files as the system grants it, at most `wanted`; returns how many.

    The usual first limit of 1,024 is below what a busy relay's links need.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    granted = wanted if hard == resource.RLIM_INFINITY else min(hard, wanted)
    if soft == resource.RLIM_INFINITY or soft >= granted:
        return soft
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (granted, hard))
    except (OSError, ValueError):
        return soft
    return granted


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
