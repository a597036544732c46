"""HTTP/1.1 for the API, on Twisted's parser: bounds, deadlines, the order of the checks, one writer.

What a client sends is bounded before it is looked at: the head by `COIN_API_HEAD` and `COIN_API_HEADERS`, the
body by `COIN_API_BODY`, the time from a request's first byte by `COIN_API_READ_SECONDS`, the time until its
answer is fetched by `COIN_API_WRITE_SECONDS`. A connection answers one request after the other; further ones
wait unread. Nothing is logged of a request: no address and no id of a client's goes to the disk.
"""

from __future__ import annotations

from collections.abc import Callable
from email.utils import formatdate
from io import BytesIO
from typing import Any, Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.internet.protocol import ServerFactory, connectionDone
from twisted.logger import Logger
from twisted.python.failure import Failure
from twisted.web.http import HTTPChannel, Request

from coin.api.answer import Answer
from coin.api.keys import Key
from coin.api.refusals import REASONS, ApiError, body_of
from meshnet.limits import (
    COIN_API_BODY,
    COIN_API_CONNECTIONS,
    COIN_API_HEAD,
    COIN_API_HEADERS,
    COIN_API_IDLE_SECONDS,
    COIN_API_READ_SECONDS,
    COIN_API_WRITE_SECONDS,
)

SWEEP_SECONDS: Final = 1.0
_log = Logger()
Serve = Callable[["ApiRequest"], "Deferred[Answer | None]"]
"""Answers a request; None: it was taken over, and sends for itself."""


class _Body(BytesIO):
    """A body that stops growing at `COIN_API_BODY`."""

    overflow = False

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > COIN_API_BODY:
            self.overflow = True
            return len(data)
        return super().write(data)


class ApiRequest(Request):
    """A request. `word` is its method, `where` its path, `query` what follows the question mark; `version` is
    that of the errors it gets; `key` the API key that it came with, if that is good."""

    version = 1
    key: Key | None = None
    word = ""
    where = ""
    query = ""
    data = b""

    def __init__(self, channel: Any, queued: object = False) -> None:
        super().__init__(channel, parsePOSTFormSubmission=False)

    def gotLength(self, length: int | None) -> None:
        """The body's length, None if chunked: either way it goes into a bounded buffer."""
        self.content = _Body()

    def header(self, name: bytes) -> bytes | None:
        """The value of a header, the last one if there are several."""
        found = self.requestHeaders.getRawHeaders(name)
        return found[-1] if found else None

    def requestReceived(self, command: bytes, path: bytes, version: bytes) -> None:
        """All of it is there."""
        content: Any = self.content
        self.method, self.uri, self.clientproto = command, path, version
        self.word = command.decode("latin-1")
        self.where, _, self.query = path.decode("latin-1").partition("?")
        factory: ApiFactory = self.channel.factory
        if content.overflow:
            self.refuse(ApiError(413, f"a body has at most {COIN_API_BODY} bytes"))
            return
        self.data = content.getvalue()
        serving = factory.serve(self)
        self.notifyFinish().addErrback(lambda _: serving.cancel())  # the client has gone
        serving.addCallbacks(self._answered, self._failed)

    def _answered(self, answer: Answer | None) -> None:
        if answer is not None:
            self.answer(answer)

    def _failed(self, failure: Failure) -> None:
        if failure.check(CancelledError) and self._disconnected:
            return
        if isinstance(failure.value, ApiError):
            self.refuse(failure.value)
            return
        _log.failure("a request of the coin's API failed", failure)
        self.refuse(ApiError(500))

    def refuse(self, error: ApiError) -> None:
        """Answers with an error."""
        body, kind = body_of(error, self.version)
        headers = error.headers
        if not kind.startswith(b"application"):
            headers += ((b"X-Content-Type-Options", b"nosniff"),)
        self.answer(Answer(error.status, body, kind, headers=headers))

    def answer(self, answer: Answer) -> None:
        """Sends it, and is done; to a client that has gone, nothing."""
        if self._disconnected or self.finished:
            return
        channel = self.channel
        self.code, self.startedWriting = answer.status, 1
        head = [
            b"HTTP/1.1 %d %s\r\nContent-Type: %s\r\nContent-Length: %d\r\nDate: %s\r\n"
            % (
                answer.status,
                REASONS[answer.status].encode(),
                answer.kind,
                len(answer.body),
                channel.factory.date(),
            )
        ]
        if answer.packed:
            head.append(b"Content-Encoding: gzip\r\n")
        head += [b"%s: %s\r\n" % pair for pair in answer.headers]
        head.append(b"Vary: Accept-Encoding\r\n\r\n" if channel.persistent else _CLOSING)
        if self.method != b"HEAD":
            head.append(answer.body)
        channel.writeSequence(head)
        channel.factory.count(answer.status)
        self.finish()


_CLOSING: Final = b"Vary: Accept-Encoding\r\nConnection: close\r\n\r\n"


class ApiChannel(HTTPChannel):
    """A connection, with deadlines. `since` is when the present request began to come, or to be answered;
    `streams` that whoever answers it minds the time himself; `takes` gets all bytes when it speaks another
    protocol; `leaving` that its last bytes are on their way."""

    requestFactory: Any = ApiRequest
    maxHeaders = COIN_API_HEADERS
    totalHeadersSize = COIN_API_HEAD
    MAX_LENGTH = COIN_API_HEAD
    factory: ApiFactory

    def __init__(self) -> None:
        super().__init__()
        self.since: float | None = None
        self.idle = 0.0
        self.streams = False
        self.takes: Callable[[bytes], None] | None = None
        self.leaving = False
        self.turned_away = False

    def connectionMade(self) -> None:
        """A client is there: its first request is to come."""
        super().connectionMade()
        self.since = self.idle = self.factory.now()
        self.factory.channels.add(self)

    def dataReceived(self, data: bytes) -> None:
        """The first byte of a request begins its time."""
        if self.takes is not None:
            self.takes(data)
            return
        if self.since is None:
            self.since = self.factory.now()
        super().dataReceived(data)

    def allContentReceived(self) -> None:
        """Now it is to be answered."""
        if not self.turned_away:
            self.since = self.factory.now()
            super().allContentReceived()

    def requestDone(self, request: Any) -> None:
        """It is answered; what was sent meanwhile is read now."""
        self.idle = self.factory.now()
        self.since = self.idle if self._dataBuffer else None
        super().requestDone(request)

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """It is gone."""
        self.factory.channels.discard(self)
        super().connectionLost(reason)

    def lineReceived(self, line: bytes) -> None:
        """A line of the head; what follows a wrong one is not looked at."""
        if not self.turned_away:
            super().lineReceived(line)

    def lineLengthExceeded(self, line: bytes) -> None:
        """The head is too long."""
        self._turn_away(431)

    def _respondToBadRequestAndDisconnect(self) -> None:  # the parser calls it, of whatever is no HTTP
        large = self._receivedHeaderSize > COIN_API_HEAD or self._receivedHeaderCount > COIN_API_HEADERS
        self._turn_away(431 if large else 400)

    def _turn_away(self, status: int) -> None:
        if self.turned_away:
            return
        self.turned_away = True
        text = b"%d %s" % (status, REASONS[status].encode())
        self.write(
            b"HTTP/1.1 %s\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: %d\r\n"
            b"Connection: close\r\n\r\n%s" % (text, len(text), text)
        )
        self.factory.count(status)
        self.loseConnection()

    def sweep(self, now: float) -> None:
        """Ends a connection whose time is over."""
        if self.streams:
            return
        if self._handlingRequest or self._waitingForTransport:
            limit, since = COIN_API_WRITE_SECONDS, self.since if self._handlingRequest else self.idle
        elif self.since is not None:
            limit, since = COIN_API_READ_SECONDS, self.since
        else:
            limit, since = COIN_API_IDLE_SECONDS, self.idle
        if since is not None and now - since > limit:
            self.abort()

    def abort(self) -> None:
        """Ends it at once."""
        transport: Any = self.transport
        if transport is not None:
            transport.abortConnection()


class ApiFactory(ServerFactory[ApiChannel]):
    """Makes connections. `serve` answers; `now` and `unix` are clocks. `counts` are answers by status."""

    noisy = False

    def __init__(self, serve: Serve, now: Callable[[], float], unix: Callable[[], float]) -> None:
        self.serve = serve
        self.now = now
        self.unix = unix
        self.channels: set[ApiChannel] = set()
        self.counts: dict[int, int] = {}
        self.refused = 0
        self._date = (0, b"")

    def buildProtocol(self, addr: Any) -> ApiChannel | None:
        """A new connection, if there is room."""
        if len(self.channels) >= COIN_API_CONNECTIONS:
            self.refused += 1
            return None
        channel = ApiChannel()
        channel.factory = self
        return channel

    def date(self) -> bytes:
        """The time as HTTP writes it."""
        second = int(self.unix())
        if self._date[0] != second:
            self._date = (second, formatdate(second, usegmt=True).encode())
        return self._date[1]

    def count(self, status: int) -> None:
        """An answer was sent."""
        self.counts[status] = self.counts.get(status, 0) + 1

    def log(self, request: Any) -> None:
        """Nothing is logged."""

    def sweep(self) -> None:
        """Looks at the deadlines, about once a second."""
        now = self.now()
        for channel in list(self.channels):
            channel.sweep(now)

    def close(self) -> None:
        """Ends all connections."""
        for channel in list(self.channels):
            if not channel.leaving:
                channel.abort()
