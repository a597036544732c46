"""HTTP as clients and attackers speak it: bounds, deadlines, what is no HTTP at all."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from coin.api.settings import ApiSection
from coin.chain.address import address_text
from coin.store.store import open_store
from meshnet.limits import (
    COIN_API_BODY,
    COIN_API_CONNECTIONS,
    COIN_API_HEAD,
    COIN_API_HEADERS,
    COIN_API_IDLE_SECONDS,
    COIN_API_READ_SECONDS,
    COIN_API_WRITE_SECONDS,
)
from tests.support.chains import owner, small_chain
from tests.support.coinapi import DISK, HOST, Connection, Served

OWNER = address_text(owner(1))
GET = f"GET /api/v1/version HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode()


class Case(SynchronousTestCase):
    section = ApiSection(csrf=False, sets=("READ", "TXN", "STORAGE", "NET_CTRL"))

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        store = open_store(DISK, self.folder / "chain.db", small_chain())
        self.addCleanup(store.close)
        self.served = Served(store, self.section, folder=self.folder)

    def wait(self, seconds: float, step: float = 0.5) -> None:
        """Lets time pass, and the sweep with it."""
        self.served.reactor_clock.pump([step] * int(seconds / step))


class Http(Case):
    def test_keep_alive(self) -> None:
        """Requests of one connection are answered one after the other, also those sent together."""
        client = self.served.connect()
        client.send(GET + GET)
        self.assertEqual([client.response().status for _ in range(2)], [200, 200])
        for at in range(1, len(GET), 7):
            client.send(GET[:at])
            client.send(GET[at:])
            self.assertEqual(client.response().status, 200)
        self.assertFalse(client.closed)

    def test_close(self) -> None:
        """Who wants no more, or speaks HTTP/1.0, gets one answer."""
        for request in (
            GET.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"),
            GET.replace(b"1.1", b"1.0"),
        ):
            client = self.served.connect()
            client.send(request + GET)
            self.assertEqual(client.response().headers["connection"], "close")
            self.assertTrue(client.closed)
            self.assertEqual(client.transport.value(), b"")

    def test_head_of_an_answer(self) -> None:
        """Length, type and time; no server's name."""
        answer = self.served.get("/api/v1/version")
        self.assertEqual(set(answer.headers), {"content-type", "content-length", "date", "vary"})
        self.assertEqual(answer.headers["date"], "Sun, 13 Sep 2020 12:26:40 GMT")

    def test_gzip(self) -> None:
        """Long answers are packed for who takes that, with the same value."""
        plain = self.served.get("/api/v3/openapi.json")
        packed = self.served.get("/api/v3/openapi.json", {"Accept-Encoding": "br, gzip"})
        self.assertNotIn("content-encoding", plain.headers)
        self.assertEqual(packed.headers["content-encoding"], "gzip")
        self.assertLess(int(packed.headers["content-length"]), int(plain.headers["content-length"]) // 4)
        self.assertEqual(packed.body, plain.body)
        short = self.served.get("/api/v1/version", {"Accept-Encoding": "gzip"})
        self.assertNotIn("content-encoding", short.headers)

    def test_chunked_body(self) -> None:
        """A body in chunks is a body."""
        client = self.served.connect()
        client.send(
            f"POST /api/v2/address/verify HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\n\r\n3\r\n{} \r\n0\r\n\r\n".encode()
        )
        self.assertEqual(client.response().json["error"]["message"], "address is required")

    def test_head_and_options(self) -> None:
        """Methods that no endpoint has are not allowed; scripts of own pages may ask what is."""
        self.assertEqual(self.served.connect().ask("HEAD", "/api/v1/version").status, 405)
        self.assertEqual(self.served.connect().ask("OPTIONS", "/api/v1/version").status, 405)
        page = {"Origin": f"http://{HOST}"}
        asked = {**page, "Access-Control-Request-Method": "POST"}
        answer = self.served.connect().ask("OPTIONS", "/api/v1/version", asked)
        self.assertEqual(answer.status, 204)
        self.assertEqual(answer.headers["access-control-allow-origin"], f"http://{HOST}")
        self.assertIn("X-CSRF-Token", answer.headers["access-control-allow-headers"])
        told = self.served.get("/api/v1/version", page).headers
        self.assertEqual(told["access-control-allow-origin"], f"http://{HOST}")


class Attacks(Case):
    def refused(self, request: bytes, status: int) -> None:
        """A request that is no HTTP gets a status and the end; what follows it is not looked at."""
        client = self.served.connect()
        client.send(request)
        self.assertEqual(client.response().status, status)
        self.assertTrue(client.closed)
        client.send(GET)
        self.assertEqual(client.transport.value(), b"")

    def test_no_http(self) -> None:
        """Wrong request lines, headers and lengths."""
        for request in (
            b"x\r\n\r\n",
            b"\x16\x03\x01\x02\x00\x01\r\n\r\n",
            GET.replace(b"Host:", b"Host"),
            GET.replace(b"Host:", b"Ho st:"),
            GET.replace(b"\r\n\r\n", b"\r\nContent-Length: x\r\n\r\n"),
            GET.replace(b"\r\n\r\n", b"\r\nContent-Length: -1\r\n\r\n"),
            GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            GET.replace(b"\r\n\r\n", b"\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"),
            GET.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: gzip\r\n\r\n"),
            GET.replace(b"\r\n\r\n", b"\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
        ):
            with self.subTest(request=request):
                self.refused(request, 400)

    def test_smuggled(self) -> None:
        """A request behind a wrong header is not carried out."""
        body = b'{"type": "txid", "key": "a", "val": "b"}'
        self.refused(
            f"POST /api/v2/data HTTP/1.1\r\nHost: {HOST}\r\nWrong\r\nContent-Type: application/json\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body,
            400,
        )
        self.assertEqual(self.served.get("/api/v2/data", type="txid").json, {"data": {}})

    def test_floods_of_headers(self) -> None:
        """Too many, too long, all together too long, without an end."""
        many = b"".join(b"X-%d: y\r\n" % each for each in range(COIN_API_HEADERS + 1))
        self.refused(GET[:-2] + many + b"\r\n", 431)
        self.refused(GET[:-2] + b"X: " + b"y" * COIN_API_HEAD + b"\r\n\r\n", 431)
        line = b"X: " + b"y" * (COIN_API_HEAD // 4) + b"\r\n"
        self.refused(GET[:-2] + line * 5 + b"\r\n", 431)
        self.refused(b"GET /" + b"a" * (COIN_API_HEAD + 10), 431)

    def test_huge_bodies(self) -> None:
        """Are not kept, and refused when they are over."""
        for path in ("/api/v1/blocks", "/api/v2/address/verify"):
            client = self.served.connect()
            client.send(
                f"POST {path} HTTP/1.1\r\nHost: {HOST}\r\nContent-Type: application/json\r\n"
                f"Content-Length: {4 * COIN_API_BODY}\r\n\r\n".encode()
            )
            for _ in range(4):
                client.send(b"x" * COIN_API_BODY)
            self.assertEqual(client.response().status, 413)

    def test_long_query(self) -> None:
        """A thousand addresses fit into a path."""
        addresses = ",".join([OWNER] * 1_000)
        self.assertEqual(self.served.get("/api/v1/balance", addrs=addresses).status, 200)

    def test_slow_loris(self) -> None:
        """A request that does not come to its end is ended, however steadily it comes."""
        client = self.served.connect()
        client.send(GET[:5])
        for at in range(int(COIN_API_READ_SECONDS) + 2):
            self.wait(1)
            client.send(GET[5 + at : 6 + at])
        self.assertTrue(client.closed)

    def test_silence(self) -> None:
        """Who connects and says nothing is ended soon; who was answered may think longer."""
        silent, client = self.served.connect(), self.served.connect()
        client.send(GET)
        self.assertEqual(client.response().status, 200)
        self.wait(COIN_API_READ_SECONDS + 2)
        self.assertEqual((silent.closed, client.closed), (True, False))
        client.send(GET)
        self.assertEqual(client.response().status, 200)
        self.wait(COIN_API_IDLE_SECONDS - 2)
        self.assertFalse(client.closed)
        self.wait(4)
        self.assertTrue(client.closed)

    def test_who_does_not_read(self) -> None:
        """A client that takes no answer is ended."""
        client = self.served.connect()
        client.channel.pauseProducing()  # the transport's buffer is full
        client.send(GET)
        self.wait(COIN_API_WRITE_SECONDS + 2)
        self.assertTrue(client.closed)

    def test_crowds(self) -> None:
        """Only so many connections; with one less there is room again."""
        clients = [self.served.connect() for _ in range(COIN_API_CONNECTIONS)]
        self.assertIsNone(self.served.api.factory.buildProtocol(None))
        clients[0].channel.connectionLost()
        self.assertEqual(Connection(self.served).ask("GET", "/api/v1/version").status, 200)

    def test_gone_before_the_answer(self) -> None:
        """A client that leaves while it is answered costs nothing."""
        from twisted.internet.defer import Deferred

        waiting: Deferred[None] = Deferred()
        self.served.api.look = lambda call: waiting  # type: ignore[method-assign,assignment]
        client = self.served.connect()
        client.send(GET.replace(b"version", b"coinSupply"))
        client.channel.connectionLost()
        self.assertEqual(self.successResultOf(waiting.addErrback(lambda failure: None)), None)
        self.assertEqual(self.served.api.factory.channels, set())
