"""A small SOCKS5 client and an HTTP GET over it, blocking, for demonstrations and tests.

Only CONNECT without authentication (RFC 1928). It knows nothing of the mesh: it is an outsider's program.
"""

from __future__ import annotations

import hashlib
import ipaddress
import socket
import struct
import time
from collections.abc import Callable

from attrs import define, field

from meshnet.errors import MeshError, RefusedError, UnreachableError

REPLIES = {
    1: "general failure",
    2: "refused by policy",
    3: "network unreachable",
    4: "host unreachable",
    5: "connection refused",
    6: "time to live expired",
    7: "command not supported",
    8: "address type not supported",
}
PIECE = 256 << 10
TEXT = 1000  # bytes of an answer that are kept


class SocksError(UnreachableError):
    """The proxy said no; `reply` is its number (RFC 1928 §6)."""

    def __init__(self, reply: int) -> None:
        super().__init__(f"the SOCKS proxy answered {reply}: {REPLIES.get(reply, 'unknown')}")
        self.reply = reply


class CutOffError(UnreachableError):
    """The connection ended before all was there."""


@define
class Fetch:
    """A download: how far it is, and what came of it."""

    size: int = 0
    expected: int = 0
    status: int = 0
    seconds: float = 0.0
    sha256: str = ""
    text: bytes = field(default=b"", repr=False)

    @property
    def mbps(self) -> float:
        """Megabits a second, headers apart."""
        return self.size * 8 / self.seconds / 1e6 if self.seconds else 0.0


def connect(proxy: tuple[str, int], host: str, port: int, timeout: float = 20.0) -> socket.socket:
    """A connection to host:port through a SOCKS5 proxy; raises SocksError."""
    connection = socket.create_connection(proxy, timeout)
    try:
        connection.sendall(b"\x05\x01\x00")
        if _exactly(connection, 2) != b"\x05\x00":
            raise RefusedError("the SOCKS proxy wants a password")
        connection.sendall(b"\x05\x01\x00" + _address(host) + struct.pack(">H", port))
        _, reply, _, kind = _exactly(connection, 4)
        length = {1: 4, 4: 16}.get(kind) or _exactly(connection, 1)[0]
        _exactly(connection, length + 2)
        if reply:
            raise SocksError(reply)
        return connection
    except BaseException:
        connection.close()
        raise


def _address(host: str) -> bytes:
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return struct.pack("BB", 3, len(host)) + host.encode("ascii")
    return bytes([1 if address.version == 4 else 4]) + address.packed


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise CutOffError("the SOCKS proxy closed the connection")
        data += piece
    return data


def get(
    url: tuple[str, int, str],
    proxy: tuple[str, int] | None = None,
    progress: Callable[[Fetch], None] | None = None,
    timeout: float = 20.0,
) -> Fetch:
    """HTTP GET of (host, port, path), through a proxy or directly.

    Raises SocksError, CutOffError (with how much had come), or UnreachableError.
    """
    host, port, path = url
    fetch = Fetch()
    try:
        connection = (
            connect(proxy, host, port, timeout) if proxy else socket.create_connection((host, port), timeout)
        )
        with connection:
            connection.sendall(f"GET {path} HTTP/1.1\r\nHost: {host}\r\nConnection: close\r\n\r\n".encode())
            _receive(connection, fetch, progress)
    except MeshError:
        raise
    except OSError as error:
        why = error.strerror.lower() if error.strerror else str(error)
        if not fetch.expected:
            raise UnreachableError(f"{host}:{port}: {why}") from None
        raise CutOffError(f"{why} after {fetch.size:,} of {fetch.expected:,} bytes") from None
    return fetch


def _receive(connection: socket.socket, fetch: Fetch, progress: Callable[[Fetch], None] | None) -> None:
    begun = time.monotonic()
    sha = hashlib.sha256()
    head = b""
    while b"\r\n\r\n" not in head:
        piece = connection.recv(4096)
        if not piece:
            raise CutOffError("the connection ended before the answer's head was there")
        head += piece
    head, _, piece = head.partition(b"\r\n\r\n")
    fetch.status, fetch.expected = _head(head)
    while True:
        sha.update(piece)
        fetch.size += len(piece)
        if len(fetch.text) < TEXT:
            fetch.text += bytes(piece[: TEXT - len(fetch.text)])
        fetch.seconds = time.monotonic() - begun
        if progress:
            progress(fetch)
        if fetch.size >= fetch.expected:
            break
        piece = connection.recv(PIECE)
        if not piece:
            raise CutOffError(f"the connection ended after {fetch.size:,} of {fetch.expected:,} bytes")
    fetch.sha256 = sha.hexdigest()


def _head(head: bytes) -> tuple[int, int]:
    """Status and Content-Length."""
    first, *lines = head.decode("latin-1").split("\r\n")
    fields = dict(line.lower().split(": ", 1) for line in lines if ": " in line)
    try:
        return int(first.split()[1]), int(fields["content-length"])
    except (IndexError, KeyError, ValueError):
        raise UnreachableError(f"that is no HTTP answer: {first[:80]!r}") from None
