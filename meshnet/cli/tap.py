"""`twist meshnet --config node.toml`: the same node under Twisted's own runner."""

from __future__ import annotations

import atexit
import os
import sys

from twisted.internet.defer import Deferred
from twisted.python import usage
from twisted.python.failure import Failure

from meshnet.cli.key import ask_password
from meshnet.cli.show import tell
from meshnet.errors import MeshError
from meshnet.node.clock import steady
from meshnet.node.dropins import find_dropins
from meshnet.node.node import Node
from meshnet.node.start import open_kind


class Options(usage.Options):
    """The options of `twist meshnet`."""

    optParameters = [["config", "c", "node.toml", "The node's config file."]]  # noqa: RUF012  (Twisted's way)


class TwistNode(Node):
    """A node that ends its program, with its exit code, when it cannot start."""

    def startService(self) -> None:
        """Starts; raises SystemExit if that fails before the reactor runs."""
        self.finished = Deferred()
        self.finished.addCallback(lambda _: self.reactor.stop())
        super().startService()
        self.ready().addErrback(self._failed)
        if self.failure is not None:
            sys.exit(tell(self.failure.value))

    def _failed(self, failure: Failure) -> None:
        if self.reactor.running:
            atexit.register(_leave, tell(failure.value))
            self.reactor.stop()


def _leave(code: int) -> None:
    """Twisted's runner knows no exit codes but those of signals, so this comes after it."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def makeService(options: Options) -> Node:
    """The node of a config file; a wrong one ends the program with one sentence and its exit code."""
    from twisted.internet import reactor

    steady(reactor)
    try:
        return open_kind(TwistNode, options["config"], reactor, find_dropins(), ask_password)
    except MeshError as error:
        sys.exit(tell(error))
