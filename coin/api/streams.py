"""Events on a connection: server-sent events (WHATWG HTML §9.2); a WebSocket is `websocket.py`.

    server-sent events    event: KIND, id: HEIGHT.INDEX, data: JSON; a comment when nothing was said for
                          `KEEPALIVE_SECONDS`; `event: end` with why, before we end it
    WebSocket             the same JSON as texts; pings; a close frame says why

Both begin with `start`, which says where the chain is and from which place events come. A client that comes
again gives the last id it has seen.

What a client has not fetched is bounded by the connection's own buffer: beyond that its listener is paused,
and the store remembers for it (`coin/events/hub.py`).
"""

from __future__ import annotations

import json
from typing import Any, Final

from attrs import frozen
from twisted.internet.interfaces import IPushProducer
from zope.interface import implementer

from coin.api.server import ApiRequest
from coin.events.content import Event
from coin.events.hub import Hub, Listener
from coin.events.wanted import Place, Wanted

KEEPALIVE_SECONDS: Final = 15.0


@frozen
class Asked:
    """What a client asked for: events, and from where on (None: from the next block). `key` is the id of who
    asks, empty where no key is needed."""

    wanted: Wanted
    place: Place | None = None
    key: str = ""


@implementer(IPushProducer)
class Stream:
    """A client's events on its connection. Subclasses say how they are written."""

    def __init__(self, streams: Streams, request: ApiRequest, asked: Asked) -> None:
        self.key = asked.key
        self._streams = streams
        self._request = request
        self._channel: Any = request.channel
        self._said = streams.hub.now()
        self._ended = False
        self._listener: Listener = streams.hub.listen(asked.wanted, asked.place, self)

    def begin(self) -> None:
        """Says hello, then whatever there is."""
        request, listener = self._request, self._listener
        self._channel.streams = True
        request.notifyFinish().addBoth(lambda _: self.lost())
        self._streams.open.add(self)
        request.registerProducer(self, True)
        self.write(self.head())
        place = f"{listener.place.height}.{listener.place.index}"
        self.say("start", {"height": self._streams.hub.height, "from": place})
        listener.pump()

    def head(self) -> bytes:
        """What is sent before all events."""
        raise NotImplementedError

    def event(self, event: Event) -> None:
        """See `Ear`."""
        raise NotImplementedError

    def say(self, kind: str, known: dict[str, Any]) -> None:
        """Something that is no event of the chain."""
        raise NotImplementedError

    def end(self, why: str) -> None:
        """See `Ear`: tells it, and closes the connection."""
        raise NotImplementedError

    def keep_alive(self) -> None:
        """Shows that somebody is there."""
        raise NotImplementedError

    def write(self, data: bytes) -> None:
        """Sends bytes."""
        self._said = self._streams.hub.now()
        self._channel.transport.write(data)

    def tick(self, now: float) -> None:
        """About once a second."""
        if now - self._said >= KEEPALIVE_SECONDS and self._listener.paused_since is None:
            self.keep_alive()

    def leave(self, why: str) -> None:
        """Ends it from our side."""
        self._listener.leave(why)

    def lost(self) -> None:
        """The connection is gone."""
        self._ended = True
        self._streams.open.discard(self)
        self._listener.close()

    def hang_up(self) -> None:
        """Closes the connection; what cannot be sent within a while is dropped."""
        if not self._ended:
            self._ended = True
            self._channel.streams = False  # now its deadline ends it, if it must
            self._channel.since = self._streams.hub.now()
            self._channel.leaving = True
            self._request.unregisterProducer()
            self._channel.loseConnection()

    # -- IPushProducer

    def pauseProducing(self) -> None:
        """The connection's buffer is full."""
        self._listener.pause()

    def resumeProducing(self) -> None:
        """It takes more."""
        self._listener.resume()

    def stopProducing(self) -> None:
        """It is gone."""


class SentEvents(Stream):
    """Server-sent events."""

    def head(self) -> bytes:
        """The answer's head; the body ends with the connection. Proxies must not hold it back."""
        date = self._channel.factory.date()
        return (
            b"HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nCache-Control: no-store\r\n"
            b"X-Accel-Buffering: no\r\nConnection: close\r\nDate: %s\r\n" % date + b"\r\nretry: 1000\n\n"
        )

    def event(self, event: Event) -> None:
        """An event with its id; a client gives that back as Last-Event-ID."""
        place = f"id: {event.place}\n" if event.place else ""
        self.write(f"event: {event.kind}\n{place}data: {event.text}\n\n".encode())

    def say(self, kind: str, known: dict[str, Any]) -> None:
        """Without an id."""
        self.write(f"event: {kind}\ndata: {said(kind, known)}\n\n".encode())

    def keep_alive(self) -> None:
        """A comment."""
        self.write(b":\n\n")

    def end(self, why: str) -> None:
        """See `Ear`."""
        if not self._ended:
            self.say("end", {"message": why})
            self.hang_up()


def said(kind: str, known: dict[str, Any]) -> str:
    """The JSON of what is no event of the chain."""
    return json.dumps({"kind": kind, **known}, separators=(",", ":"))


class Streams:
    """All clients that hear events of a hub."""

    def __init__(self, hub: Hub) -> None:
        self.hub = hub
        self.open: set[Stream] = set()

    def tick(self) -> None:
        """About once a second."""
        self.hub.tick()
        now = self.hub.now()
        for stream in list(self.open):
            stream.tick(now)

    def revoked(self, key: str) -> None:
        """A key was revoked: who came with it is told so."""
        for stream in [each for each in self.open if each.key == key]:
            stream.leave("The key was revoked.")

    def stop(self) -> None:
        """Ends all."""
        self.hub.stop()
