"""The web server of the demonstration: some megabytes, for one source address only.

`python -m lab.demos.origin --only 127.0.0.9` prints its port and serves GET /SIZE[/RATE]: SIZE seeded bytes,
at most RATE bytes a second. Anybody else gets 403, with the reason.
"""

from __future__ import annotations

import argparse
import hashlib
import random
import time
from functools import cache
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

LARGEST = 256 << 20
BLOCK = 1 << 20


@cache
def _block() -> bytes:
    return random.Random("origin").randbytes(BLOCK)


def digest(size: int) -> str:
    """SHA-256 of what the server answers for this size, in hex."""
    sha = hashlib.sha256()
    for start in range(0, size, BLOCK):
        sha.update(_block()[: min(BLOCK, size - start)])
    return sha.hexdigest()


class Origin(ThreadingHTTPServer):
    """Serves one source address."""

    daemon_threads = True

    def __init__(self, address: tuple[str, int], only: str) -> None:
        super().__init__(address, Answer)
        self.only = only


class Answer(BaseHTTPRequestHandler):
    """One request."""

    server: Origin
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Seeded bytes, or 403, or 404 for what is no size."""
        source = self.client_address[0]
        parts = [int(part) for part in self.path.strip("/").split("/") if part.isascii() and part.isdigit()]
        if source != self.server.only:
            self._say(403, f"{source} may not fetch here, only {self.server.only}\n")
        elif not parts or parts[0] > LARGEST:
            self._say(404, "ask for /SIZE or /SIZE/RATE, in bytes and bytes a second\n")
        else:
            self._send(parts[0], parts[1] if len(parts) > 1 else 0)

    def _say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def _send(self, size: int, rate: int) -> None:
        self.send_response(200)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        piece = min(BLOCK, rate // 10) if rate else BLOCK
        for start in range(0, size, BLOCK):
            block = memoryview(_block())[: min(BLOCK, size - start)]
            for offset in range(0, len(block), piece):
                self.wfile.write(block[offset : offset + piece])
                if rate:
                    time.sleep(piece / rate)

    def log_message(self, format: str, *values: object) -> None:
        """No log: the demonstration has its own words."""


def main() -> None:
    """Serves until it is ended."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", required=True)
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0)
    options = parser.parse_args()
    server = Origin((options.host, options.port), options.only)
    print(f"port {server.server_address[1]}", flush=True)
    server.serve_forever()


if __name__ == "__main__":
    main()
