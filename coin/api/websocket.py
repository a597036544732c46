"""Events over a WebSocket (RFC 6455): `wsproto` knows frames, this knows what they say.

    from us      the JSON of each event as a text; `start` first; `watching` when a change of addresses holds,
                 `error` for a message that was wrong; a ping when nothing was said for a while; at the end a
                 close frame that says why
    to us        {"watch": [ADDRESS …]} and {"unwatch": [ADDRESS …]}, texts of at most `COIN_EVENT_MESSAGE`
                 characters; each counts as a request of the key; at most `COIN_EVENT_FRAMES` frames a second

Nothing is compressed, since what many hear would be packed for each. While a client does not read, it is not
read either, so what it sends cannot make answers pile up.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any, Final

from attrs import frozen

from coin.api.refusals import ApiError, body_of
from coin.api.server import ApiRequest
from coin.api.streams import Asked, Stream, Streams, said
from coin.chain.address import Address, parse_address
from coin.events.content import Event
from meshnet.errors import MeshError, UsageError
from meshnet.limits import COIN_EVENT_ADDRESSES, COIN_EVENT_FRAMES, COIN_EVENT_MESSAGE
from meshnet.node.app import Json
from meshnet.node.schema import read_body

try:
    from wsproto.connection import Connection, ConnectionState, ConnectionType
    from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage
    from wsproto.utilities import generate_accept_token
except ImportError:  # an extra
    Connection = None  # type: ignore[assignment,misc]

SILENT_SECONDS: Final = 60.0
"""After which a client that answers no ping is over."""
GOING, NO_TEXT, POLICY, TOO_LARGE = 1001, 1003, 1008, 1009
"""Why a connection is closed, RFC 6455 §7.4.1."""


@frozen
class Change:
    """What a client says."""

    watch: tuple[str, ...] = ()
    unwatch: tuple[str, ...] = ()


def wants_socket(request: ApiRequest) -> bool:
    """Whether a request asks for a WebSocket."""
    return (request.header(b"upgrade") or b"").lower() == b"websocket"


def accept_token(request: ApiRequest) -> bytes:
    """The proof that we understood a request for a WebSocket; raises ApiError."""
    if Connection is None:
        raise ApiError(501, "WebSockets need wsproto: install meshnet[websocket].")
    key = request.header(b"sec-websocket-key") or b""
    upgrades = b"upgrade" in (request.header(b"connection") or b"").lower()
    if request.word != "GET" or not upgrades or len(key) != 24:
        raise ApiError(400, "This is no WebSocket handshake: see RFC 6455 §4.1.", field="Sec-WebSocket-Key")
    if request.header(b"sec-websocket-version") != b"13":
        known = ((b"Sec-WebSocket-Version", b"13"),)
        raise ApiError(426, "A WebSocket has version 13 here.", headers=known)
    return bytes(generate_accept_token(key))


class Socket(Stream):
    """A client's WebSocket. `counts` is asked for each message; it raises ApiError if there are too many."""

    def __init__(
        self, streams: Streams, request: ApiRequest, asked: Asked, counts: Callable[[], None]
    ) -> None:
        self._token = accept_token(request)
        super().__init__(streams, request, asked)
        self._counts = counts
        self._frames = Connection(ConnectionType.SERVER)
        self._text: list[str] = []
        self._size = 0
        self._heard = streams.hub.now()
        self._left = COIN_EVENT_FRAMES
        self._addresses = asked.wanted.addresses

    def head(self) -> bytes:
        """The handshake's answer. From now on bytes are frames."""
        self._channel.takes = self._received
        return (
            b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Accept: " + self._token + b"\r\n\r\n"
        )

    # -- to the client

    def event(self, event: Event) -> None:
        """Its JSON."""
        self._send(TextMessage(event.text))

    def say(self, kind: str, known: Json) -> None:
        """A text."""
        self._send(TextMessage(said(kind, known)))

    def keep_alive(self) -> None:
        """A ping."""
        self._send(Ping())

    def tick(self, now: float) -> None:
        """Ends a connection whose other end is gone."""
        if now - self._heard > SILENT_SECONDS and self._listener.paused_since is None:
            self._close(POLICY, "No answer to pings.")
        self._left = COIN_EVENT_FRAMES
        super().tick(now)

    def end(self, why: str) -> None:
        """See `Ear`."""
        self._close(GOING, why)

    def _send(self, message: TextMessage | Ping | Pong) -> None:
        if not self._ended and self._frames.state is ConnectionState.OPEN:
            self.write(self._frames.send(message))

    def _close(self, code: int, why: str) -> None:
        if self._ended:
            return
        if self._frames.state in (ConnectionState.OPEN, ConnectionState.REMOTE_CLOSING):
            self.write(self._frames.send(CloseConnection(code, why)))
        self._listener.close()
        self.hang_up()

    # -- from the client

    def pauseProducing(self) -> None:
        """See `Stream`; nor is anything read."""
        super().pauseProducing()
        self._channel.transport.pauseProducing()

    def resumeProducing(self) -> None:
        """See `Stream`."""
        self._channel.transport.resumeProducing()
        super().resumeProducing()

    def _received(self, data: bytes) -> None:
        if not self._ended:
            self._heard = self._streams.hub.now()
            self._frames.receive_data(data)
            for event in self._frames.events():
                self._take(event)

    def _take(self, event: Any) -> None:
        if self._ended:
            return
        self._left -= 1
        if self._left < 0:
            self._close(POLICY, f"There may be {COIN_EVENT_FRAMES} frames in a second.")
        elif isinstance(event, Ping):
            self._send(event.response())
        elif isinstance(event, CloseConnection):  # also what breaks the protocol, with its code
            self._close(event.code, event.reason or "")
        elif isinstance(event, BytesMessage):
            self._close(NO_TEXT, "Messages are texts.")
        elif isinstance(event, TextMessage):
            self._text.append(event.data)
            self._size += len(event.data)
            if self._size > COIN_EVENT_MESSAGE:
                self._close(TOO_LARGE, f"A message has at most {COIN_EVENT_MESSAGE} characters.")
            elif event.message_finished:
                text = "".join(self._text)
                self._text.clear()
                self._size = 0
                self._message(text)

    def _message(self, text: str) -> None:
        try:
            self._counts()
            self._change(text)
        except MeshError as error:
            refused = error if isinstance(error, ApiError) else ApiError(400, str(error))
            self.say("error", json.loads(body_of(refused, 3)[0]))

    def _change(self, text: str) -> None:
        try:
            body = json.loads(text)
        except (ValueError, RecursionError):
            raise UsageError("A message is a JSON object.") from None
        said = read_body(Change, body)
        if self._addresses is None:
            raise UsageError("This connection hears of all addresses; name some when it is opened.")
        added, gone = (frozenset[Address](map(parse_address, each)) for each in (said.watch, said.unwatch))
        after = (self._addresses | added) - gone
        if len(after) > COIN_EVENT_ADDRESSES:
            raise UsageError(f"One connection watches at most {COIN_EVENT_ADDRESSES} addresses.")
        self._addresses = after

        def holds() -> None:
            listener = self._listener
            listener.wanted.addresses = set(after)
            place = f"{listener.place.height}.{listener.place.index}"
            self.say("watching", {"addresses": len(after), "from": place})

        self._listener.change(holds)
