"""Targets of events of the coin's API: what is asked to hear, and what is sent on a WebSocket."""

from __future__ import annotations

import json
import shutil
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote_from_bytes

from twisted.internet.testing import StringTransport
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType
from wsproto.events import CloseConnection, Ping, TextMessage

from coin.api.settings import ApiSection
from coin.chain.address import address_text
from coin.store.store import open_store
from meshnet.storage.disk import RealDisk
from tests.fuzz.target import MEGABYTE, Target
from tests.support.chains import owner, small_chain
from tests.support.coinapi import Connection, Served


@cache
def _served() -> Served:
    folder = Path(tempfile.mkdtemp(prefix="meshnet-fuzz-"))
    store = open_store(RealDisk(), folder / "chain.db", small_chain())
    shutil.rmtree(folder)  # what is open stays
    return Served(store, ApiSection(keys="none", header_check=False))


def websocket(data: bytes) -> None:
    """Byte 0: in which pieces; then what a client sends. Nobody listens afterwards."""
    served = _served()
    size, rest = (data[0] or 1 if data else 1), data[1:]
    connection: Any = Connection(served)
    asked = f"GET /api/v3/events?addresses={address_text(owner(1))} HTTP/1.1"
    wanted = "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13"
    connection.send(f"{asked}\r\n{wanted}\r\nSec-WebSocket-Key: {'A' * 22}==\r\n\r\n".encode())
    transport: StringTransport = connection.transport
    assert b" 101 " in transport.value()[:20]
    for at in range(0, len(rest), size):
        if not transport.disconnecting:
            connection.send(rest[at : at + size])
    connection.channel.connectionLost()
    assert not served.api.streams.hub.listeners


def _sent() -> list[bytes]:
    found = []
    text = address_text(owner(2))
    for said in ({"watch": [text]}, {"unwatch": [text, text]}, {"watch": [], "unwatch": []}, {"what": 1}):
        frames = Frames(ConnectionType.CLIENT)
        whole = frames.send(TextMessage(json.dumps(said))) + frames.send(Ping(b"x"))
        found += [b"\xff" + whole, b"\x03" + whole + frames.send(CloseConnection(1000, "bye"))]
    return found


def events(data: bytes) -> None:
    """Byte 0: a query, a body, or the header that says what was heard last. Whoever may listen hears where
    the chain is; others are told why not. Nobody listens afterwards."""
    served = _served()
    mode, rest = (data[0] % 3 if data else 0), data[1:]
    connection: Any = Connection(served)
    if mode == 0:
        connection.send(b"GET /api/v3/events?%s HTTP/1.1\r\n\r\n" % quote_from_bytes(rest, "&=,.").encode())
    elif mode == 1:
        head = b"POST /api/v3/events HTTP/1.1\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n"
        connection.send(head % len(rest) + rest)
    else:
        line = rest.translate(None, b"\r\n\0")
        connection.send(b"GET /api/v3/events HTTP/1.1\r\nLast-Event-ID: %s\r\n\r\n" % line)
    said: bytes = connection.transport.value()
    assert (said[9:12] == b"200" and b"event: start" in said) or said[9:10] == b"4", said[:200]
    connection.leave()
    assert not served.api.streams.hub.listeners


def _listened() -> list[bytes]:
    text = address_text(owner(2))
    wanted = f"kinds=address,withdrawal&addresses={text}&confirmations=3&from=0"
    body = {"kinds": ["block", "pending"], "addresses": [text], "confirmations": 2, "from": "0.1"}
    return [b"\0" + wanted.encode(), b"\1" + json.dumps(body).encode(), b"\x02" + b"0.2", b"\x02" + b"7"]


TARGETS = (
    Target("coin-websocket", websocket, _sent, most=2 * MEGABYTE),
    Target("coin-events", events, _listened, most=2 * MEGABYTE, longest=1_500),
)
