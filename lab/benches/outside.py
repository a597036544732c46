"""Programs beside a node, for bench `attach`: a source and a sink of bytes with `mesh:` endpoints.

`python -m lab.benches.outside sink DIR` takes a port of the node in DIR; `… source DIR STRING SECONDS`
sends to it so long and prints what came, in Mbit/s. Nothing in them knows more of the mesh than strings.
"""

from __future__ import annotations

import struct
import sys
import time
from collections.abc import Callable, Coroutine
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString, connectProtocol, serverFromString
from twisted.internet.interfaces import IHalfCloseableProtocol, IPushProducer
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure
from zope.interface import implementer

PORT = 1_010
PIECE = bytes(256 << 10)
REPORT = struct.Struct(">QQ")


@implementer(IHalfCloseableProtocol)
class Sink(Protocol):
    """Counts what it reads, and tells the source when that has finished."""

    transport: Any

    def __init__(self) -> None:
        self.bytes = 0
        self.first = self.last = 0.0

    def dataReceived(self, data: bytes) -> None:
        """Counts and forgets."""
        self.last = time.monotonic()
        if not self.bytes:
            self.first = self.last
        self.bytes += len(data)

    def readConnectionLost(self) -> None:
        """Says what came, and in which time."""
        self.transport.write(REPORT.pack(self.bytes, int((self.last - self.first) * 1e6)))
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The report is out."""


@implementer(IPushProducer, IHalfCloseableProtocol)
class Source(Protocol):
    """Writes as fast as the transport takes it."""

    transport: Any

    def __init__(self) -> None:
        self.report: Deferred[float] = Deferred()
        self.answer = b""
        self.paused = self.ending = False

    def connectionMade(self) -> None:
        """Begins."""
        self.transport.registerProducer(self, True)
        self.resumeProducing()

    def resumeProducing(self) -> None:
        """There is room."""
        self.paused = False
        while not self.paused and not self.ending:
            self.transport.write(PIECE)

    def pauseProducing(self) -> None:
        """There is none."""
        self.paused = True

    def stopProducing(self) -> None:
        """The connection has ended."""
        self.ending = True

    def end(self) -> None:
        """Writes no more."""
        self.ending = True
        self.transport.unregisterProducer()
        self.transport.loseWriteConnection()

    def dataReceived(self, data: bytes) -> None:
        """The sink's report."""
        self.answer += data

    def readConnectionLost(self) -> None:
        """The report is there."""
        self.transport.loseConnection()

    def writeConnectionLost(self) -> None:
        """The sink will answer."""

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """Tells what was reported."""
        if len(self.answer) == REPORT.size:
            size, micros = REPORT.unpack(self.answer)
            self.report.callback(size * 8 / micros)
        else:
            self.report.errback(reason)


async def sink(reactor: Any, node: str) -> None:
    """Until it is ended."""
    await serverFromString(reactor, f"mesh:{PORT}:node={node}").listen(Factory.forProtocol(Sink))
    print("listens", flush=True)
    await Deferred()


async def source(reactor: Any, node: str, where: str, seconds: str) -> None:
    """One stream."""
    protocol: Source = await connectProtocol(clientFromString(reactor, f"{where}:node={node}"), Source())
    reactor.callLater(float(seconds), protocol.end)
    print(await protocol.report)


def main(name: str, *arguments: str) -> None:
    """The program of that name."""
    programs: dict[str, Callable[..., Coroutine[Any, Any, None]]] = {"sink": sink, "source": source}
    run = programs[name]
    react(lambda reactor: Deferred.fromCoroutine(run(reactor, *arguments)))


if __name__ == "__main__":
    main(*sys.argv[1:])
