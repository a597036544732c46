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


class UdpClient:
    """A program that sends UDP through a SOCKS port, with blocking sockets."""

    def __init__(self, proxy: str) -> None:
        host, _, number = proxy.rpartition(":")
        self.control = socket.create_connection((host, int(number)), timeout=20)
        self.control.sendall(b"\x05\x01\x00" + b"\x05\x03\x00\x01" + bytes(6))
        answer = self.control.makefile("rb").read(2 + 10)
        assert answer[:4] == b"\x05\x00\x05\x00", answer.hex()
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.settimeout(20)
        self.socket.connect((socket.inet_ntoa(answer[6:10]), int.from_bytes(answer[10:], "big")))

    def send(self, data: bytes, host: str, port: int) -> None:
        """A datagram to an IPv4 address or a name."""
        named = any(letter.isalpha() for letter in host)
        address = bytes((3, len(host))) + host.encode() if named else b"\1" + socket.inet_aton(host)
        self.socket.send(bytes(3) + address + port.to_bytes(2, "big") + data)

    def receive(self) -> tuple[bytes, str, int]:
        """The next answer, and from whom."""
        data = self.socket.recv(65_535)
        assert data[:4] == b"\0\0\0\1"
        return data[10:], socket.inet_ntoa(data[4:8]), int.from_bytes(data[8:10], "big")

    def close(self) -> None:
        """Leaves."""
        self.socket.close()
        self.control.close()
