"""The control API over real sockets, with routes of the test's own."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path
from typing import Any

from twisted.internet import reactor  # noqa: TID251  (real sockets)
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from meshnet.control.client import ControlClient
from meshnet.control.messages import LARGEST_BODY
from meshnet.control.server import claim_socket, local_site, token_site
from meshnet.errors import LocalError, MeshError, TimedOutError, UnreachableError, UsageError
from tests.support.nodes import new_folder

TOKEN = b"0123456789abcdef"


def ask(family: int, address: Any, request: bytes) -> tuple[int, Any]:
    """Sends bytes, reads one answer to the end; status and JSON."""
    with socket.socket(family) as connection:
        connection.settimeout(10)
        connection.connect(address)
        connection.sendall(request)
        data = b""
        while more := connection.recv(65_536):
            data += more
    head, _, body = data.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def request(method: str = "GET", path: str = "/echo", body: bytes = b"", **headers: str) -> bytes:
    fields = {"Host": "localhost", "Connection": "close", "Content-Length": str(len(body)), **headers}
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class ServerCase(TestCase):
    def setUp(self) -> None:
        self.waiting: Deferred[dict[str, Any]] = Deferred()
        self.cancelled = 0

        def never(body: dict[str, Any]) -> Deferred[dict[str, Any]]:
            return Deferred(lambda _: setattr(self, "cancelled", self.cancelled + 1))

        self.routes: dict[str, Any] = {
            "GET /echo": lambda body: {"got": body},
            "POST /echo": lambda body: {"got": body},
            "GET /never": never,
        }


class SocketTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        self.path = Path("/tmp") / f"meshnet-control-{id(self)}.sock"
        port = reactor.listenUNIX(str(self.path), local_site(self.routes), mode=0o600)  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)

    def ask(self, data: bytes) -> Deferred[tuple[int, Any]]:
        return deferToThread(ask, socket.AF_UNIX, str(self.path), data)

    async def test_query_and_body(self) -> None:
        """A GET has its query as text, a POST its JSON."""
        client = ControlClient(self.path, 10)
        self.assertEqual(
            await deferToThread(client.call, "GET", "/echo", {"a": "b c"}), {"got": {"a": "b c"}}
        )
        self.assertEqual(
            await deferToThread(client.call, "POST", "/echo", {"a": [1, None]}), {"got": {"a": [1, None]}}
        )
        self.assertEqual(await deferToThread(client.call, "POST", "/echo"), {"got": {}})

    async def test_bad_bodies(self) -> None:
        """Not JSON, not an object, NaN, too deep, too large: each a 400 with a sentence."""
        for body, words in (
            (b"{", "not JSON"),
            (b"\xff", "not JSON"),
            (b"[]", "not a JSON object"),
            (b'{"a": NaN}', "not JSON"),
            (b'{"a":' * 50_000, "not JSON"),
            (b" " * (LARGEST_BODY + 1), "larger than"),
        ):
            status, answer = await self.ask(request("POST", body=body))
            self.assertEqual((status, answer["error"]["code"]), (400, "usage"))
            self.assertIn(words, answer["error"]["message"])

    async def test_unknown(self) -> None:
        """A path or method that is not there."""
        for method, path in (
            ("GET", "/nothing"),
            ("DELETE", "/echo"),
            ("GET", "/echo/"),
            ("GET", "/../echo"),
        ):
            status, answer = await self.ask(request(method, path))
            self.assertEqual((status, answer["error"]["code"]), (404, "not_found"))

    async def test_client_that_goes(self) -> None:
        """What a route waits for is cancelled when its client has gone."""
        client = ControlClient(self.path, 0.1)
        await self.assertFailure(deferToThread(client.call, "GET", "/never"), TimedOutError)
        while not self.cancelled:
            later: Deferred[None] = Deferred()
            reactor.callLater(0.01, later.callback, None)  # type: ignore[attr-defined]
            await later
        self.assertEqual(self.cancelled, 1)

    async def test_live_socket_is_kept(self) -> None:
        """A socket that answers is not taken away."""
        error = await self.assertFailure(deferToThread(claim_socket, self.path), LocalError)
        self.assertIn("meshnet stop", str(error))
        self.assertTrue(self.path.exists())


class LoopbackTests(ServerCase):
    def setUp(self) -> None:
        super().setUp()
        hosts: set[bytes] = set()
        site = token_site(self.routes, TOKEN, lambda: frozenset(hosts))
        port = reactor.listenTCP(0, site, interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        self.host = f"127.0.0.1:{port.getHost().port}"
        hosts.add(self.host.encode())
        self.address = ("127.0.0.1", port.getHost().port)

    async def test_guard(self) -> None:
        """Right host, no origin, right token, or nothing."""
        right = {"Host": self.host, "Authorization": f"Bearer {TOKEN.decode()}"}
        for headers, expected in (
            (right, 200),
            ({**right, "Authorization": "Bearer " + "0" * 16}, 403),
            ({**right, "Authorization": "Basic x"}, 403),
            ({"Host": self.host}, 403),
            ({**right, "Host": "evil.example"}, 403),
            ({**right, "Origin": f"http://{self.host}"}, 403),
        ):
            status, answer = await deferToThread(ask, socket.AF_INET, self.address, request(**headers))
            self.assertEqual(status, expected, (headers, answer))


class ClientTests(SynchronousTestCase):
    def test_nobody_there(self) -> None:
        """A missing or dead socket is unreachable, with what to do."""
        path = new_folder(self) / "control.sock"
        error = self.assertRaises(UnreachableError, ControlClient(path).call, "GET", "/status")
        self.assertIn("meshnet up", str(error))

    def test_garbage(self) -> None:
        """A server that speaks something else is one sentence."""
        for answer in (
            b"hello\r\n\r\n",
            b"HTTP/1.1 200 OK\r\n\r\nnot json",
            b"HTTP/1.1 200 OK\r\n\r\n[]",
            b"",
        ):
            path = Path("/tmp") / f"meshnet-garbage-{id(self)}.sock"
            with socket.socket(socket.AF_UNIX) as listening:
                listening.bind(str(path))
                self.addCleanup(path.unlink, missing_ok=True)
                listening.listen(1)
                self.one_answer(listening, answer, path)
            path.unlink()

    def one_answer(self, listening: socket.socket, answer: bytes, path: Path) -> None:
        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                connection.recv(65_536)
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        error = self.assertRaises(MeshError, ControlClient(path, 10).call, "GET", "/status")
        thread.join()
        self.assertNotIsInstance(error, UsageError)
