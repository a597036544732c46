"""An outsider's program for demonstrations: an HTTP download over an endpoint string, stock Twisted.

`python -m lab.demos.fetch STRING PATH RATE` reads at most RATE bytes a second (0: no limit) and writes JSON
lines: `{"bytes": n}` now and then, at last `{"done": true, "status", "bytes", "sha256", "seconds"}`, or
`{"error": sentence}`. It knows of the mesh only what stands in the string.
"""

from __future__ import annotations

import hashlib
import json
import sys
from typing import Any

from attrs import define, field, frozen
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import clientFromString
from twisted.internet.protocol import Protocol, connectionDone
from twisted.internet.task import react
from twisted.python.failure import Failure
from twisted.web.client import Agent, ResponseDone
from twisted.web.iweb import IAgentEndpointFactory
from zope.interface import implementer

SAY_EVERY = 1 << 20


@implementer(IAgentEndpointFactory)
@frozen
class Always:
    """Every URL leads to the same endpoint."""

    reactor: Any
    string: str

    def endpointForURI(self, uri: Any) -> Any:
        """The endpoint."""
        return clientFromString(self.reactor, self.string)


@define(eq=False)
class Body(Protocol):
    """Hashes a body as it comes, not faster than asked."""

    reactor: Any
    rate: int
    done: Deferred[None] = field(factory=Deferred)
    transport: Any = None
    size: int = 0
    told: int = 0
    begun: float = 0.0
    sha256: Any = field(factory=hashlib.sha256)

    def connectionMade(self) -> None:
        """The head has come."""
        self.begun = self.reactor.seconds()

    def dataReceived(self, data: bytes) -> None:
        """Hashes, and pauses where it is ahead of its rate."""
        self.sha256.update(data)
        self.size += len(data)
        if self.size - self.told >= SAY_EVERY:
            self.told = self.size
            say(bytes=self.size)
        ahead = self.size / self.rate - (self.reactor.seconds() - self.begun) if self.rate else 0.0
        if ahead > 0.01:
            self.transport.pauseProducing()
            self.reactor.callLater(ahead, self.transport.resumeProducing)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """All of it, or an error."""
        if reason.check(ResponseDone):
            self.done.callback(None)
        else:
            self.done.errback(reason)


def say(**facts: Any) -> None:
    """One line."""
    print(json.dumps(facts), flush=True)


async def fetch(reactor: Any, string: str, path: str, rate: str) -> None:
    """The download."""
    try:
        agent = Agent.usingEndpointFactory(reactor, Always(reactor, string))
        response = await agent.request(b"GET", f"http://server{path}".encode())
        body = Body(reactor, int(rate))
        response.deliverBody(body)
        await body.done
    except Exception as error:
        say(error=str(error))
        raise SystemExit(1) from None
    seconds = reactor.seconds() - body.begun
    say(done=True, status=response.code, bytes=body.size, sha256=body.sha256.hexdigest(), seconds=seconds)


if __name__ == "__main__":
    react(lambda reactor: Deferred.fromCoroutine(fetch(reactor, *sys.argv[1:4])))
