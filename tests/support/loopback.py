"""A server and clients with real sockets on loopback."""

from __future__ import annotations

import socket
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.protocol import Protocol, connectionDone
from twisted.python.failure import Failure


class Blob(Protocol):
    """Answers its caller's first bytes with 3 MB of them and ends; notes where callers come from."""

    callers: list[str]
    size = 3_000_000
    transport: Any

    def connectionMade(self) -> None:
        self.callers.append(self.transport.getPeer().host)

    def dataReceived(self, data: bytes) -> None:
        self.transport.write(data * (self.size // len(data)))
        self.transport.loseConnection()


class Collect(Protocol):
    """Collects bytes; `done` fires with them at the end, and `why` says how it came."""

    def __init__(self) -> None:
        self.data = bytearray()
        self.done: Deferred[bytes] = Deferred()
        self.why: Failure | None = None

    def dataReceived(self, data: bytes) -> None:
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        self.why = reason
        self.done.callback(bytes(self.data))


def fetch(proxy: str, port: int, body: bytes) -> bytes:
    """A SOCKS client with blocking sockets: sends `body` to a port of 127.0.0.1, ends, reads to the end.

    Returns the ten bytes of the reply if it is a refusal.
    """
    host, _, number = proxy.rpartition(":")
    with socket.create_connection((host, int(number)), timeout=20) as client:
        client.sendall(b"\x05\x01\x00")
        assert client.recv(2) == b"\x05\x00"
        client.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + port.to_bytes(2, "big"))
        answer = client.recv(10, socket.MSG_WAITALL)
        return answer if answer[1] != 0 else talk(client, body)


def talk(client: socket.socket, body: bytes) -> bytes:
    """Sends, ends, reads to the end; the body has to fit the buffers on the way."""
    client.sendall(body)
    client.shutdown(socket.SHUT_WR)
    received = bytearray()
    while piece := client.recv(1 << 16):
        received += piece
    return bytes(received)
