"""The outsider's SOCKS client and the demonstration's web server."""

from __future__ import annotations

import socket
import threading
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from lab.demos.origin import Origin, digest
from lab.socks import CutOffError, SocksError, connect, get
from meshnet.errors import UnreachableError


class OriginTests(SynchronousTestCase):
    """A server for one address."""

    def serve(self, only: str) -> int:
        """Its port."""
        server = Origin(("127.0.0.1", 0), only)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.addCleanup(thread.join)
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        return int(server.server_address[1])

    def test_served(self) -> None:
        """The right source gets the bytes that `digest` promises, at any size."""
        port = self.serve("127.0.0.1")
        for size in (0, 1, 3_000_000):
            fetch = get(("127.0.0.1", port, f"/{size}"))
            self.assertEqual((fetch.status, fetch.size, fetch.sha256), (200, size, digest(size)))

    def test_refused(self) -> None:
        """Another source gets 403 and is told why; nonsense gets 404."""
        port = self.serve("127.0.0.9")
        fetch = get(("127.0.0.1", port, "/1000"))
        self.assertEqual(fetch.status, 403)
        self.assertIn(b"127.0.0.1 may not fetch", fetch.text)
        self.assertEqual(get(("127.0.0.1", self.serve("127.0.0.1"), "/x")).status, 404)


class SocksTests(SynchronousTestCase):
    """The client against scripted proxies."""

    def proxy(self, script: Callable[[socket.socket], None]) -> tuple[str, int]:
        """A server that runs the script on one connection."""
        server = socket.create_server(("127.0.0.1", 0))

        def run() -> None:
            connection, _ = server.accept()
            with connection:
                script(connection)

        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(server.close)
        self.addCleanup(thread.join)
        return "127.0.0.1", int(server.getsockname()[1])

    def test_connect_and_get(self) -> None:
        """The request is as RFC 1928 says, and the answer is read to its length."""
        seen: list[bytes] = []

        def script(connection: socket.socket) -> None:
            seen.append(connection.recv(3))
            connection.sendall(b"\x05\x00")
            seen.append(connection.recv(18))
            connection.sendall(b"\x05\x00\x00\x01\x00\x00\x00\x00\x00\x00")
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello")

        fetch = get(("example.org", 80, "/"), self.proxy(script))
        self.assertEqual((fetch.size, fetch.text), (5, b"hello"))
        self.assertEqual(seen, [b"\x05\x01\x00", b"\x05\x01\x00\x03\x0bexample.org\x00P"])

    def test_refusal(self) -> None:
        """The proxy's number becomes an error with its meaning."""

        def script(connection: socket.socket) -> None:
            connection.recv(3)
            connection.sendall(b"\x05\x00")
            connection.recv(10)
            connection.sendall(b"\x05\x04\x00\x01\x00\x00\x00\x00\x00\x00")

        error = self.assertRaises(SocksError, connect, self.proxy(script), "127.0.0.1", 80)
        self.assertEqual((error.reply, str(error)), (4, "the SOCKS proxy answered 4: host unreachable"))

    def test_cut_off(self) -> None:
        """A download that ends early is an error that says how far it came."""

        def script(connection: socket.socket) -> None:
            connection.recv(1000)
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhel")

        host, port = self.proxy(script)
        error = self.assertRaises(CutOffError, get, (host, port, "/"))
        self.assertEqual(str(error), "the connection ended after 3 of 5 bytes")

    def test_nobody(self) -> None:
        """No server is an error of ours, not a traceback."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
        self.assertRaises(UnreachableError, get, ("127.0.0.1", port, "/"))
