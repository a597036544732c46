"""Many nodes in one process, for those that are only company: `python -m lab.crowd CONFIG …`.

They are whole nodes with keys, configs and control sockets of their own; they share a reactor and an
interpreter, so that twenty of them cost a bench as much memory as two. Says `stand` when all of them do.
"""

from __future__ import annotations

import sys

from twisted.internet import reactor
from twisted.python.failure import Failure

from meshnet.cli.running import begin_logging, raise_file_limit
from meshnet.node.clock import steady
from meshnet.node.start import open_node


def main(configs: list[str]) -> None:
    """Runs the nodes of these config files until it is ended."""
    begin_logging("info", sys.stderr)
    steady(reactor)
    raise_file_limit()
    nodes = [open_node(config, reactor) for config in configs]

    standing = list[None]()

    def stands(_: None) -> None:
        standing.append(None)
        if len(standing) == len(nodes):
            print("stand", flush=True)

    def start() -> None:
        for node in nodes:
            node.startService()
            node.ready().addCallbacks(stands, failed)

    def failed(failure: Failure) -> None:
        print(failure.value, flush=True)
        reactor.stop()

    reactor.callWhenRunning(start)
    for node in nodes:
        reactor.addSystemEventTrigger("before", "shutdown", node.stopService)
    reactor.run()


if __name__ == "__main__":
    main(sys.argv[1:])
