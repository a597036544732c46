"""The API over real sockets: a program that pays and waits, as one written for the Go node would."""

from __future__ import annotations

import json
import shutil
import tempfile
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from prometheus_client import generate_latest
from twisted.internet import reactor as _reactor  # noqa: TID251  (real sockets)
from twisted.internet.error import ConnectionRefusedError
from twisted.internet.task import deferLater
from twisted.trial.unittest import TestCase
from twisted.web.client import Agent, FileBodyProducer, HTTPConnectionPool, readBody
from twisted.web.http_headers import Headers

from coin.chain.address import address_text
from coin.chain.transaction import Output, new_transaction
from tests.coin.api.live_server import WALLET, service

reactor: Any = _reactor
SECONDS = 20.0


class Client:
    """A program of somebody else's: it fetches a token before it changes something."""

    def __init__(self, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.pool = HTTPConnectionPool(reactor)
        self._agent = Agent(reactor, pool=self.pool)

    async def ask(self, method: str, path: str, kind: str = "", body: bytes = b"", token: str = "") -> Any:
        """Status and value."""

        given = {b"Content-Type": [kind.encode()], b"X-CSRF-Token": [token.encode()]}
        headers = Headers(given if kind else {})
        sent = FileBodyProducer(BytesIO(body)) if body else None
        answer = await self._agent.request(method.encode(), f"{self.url}{path}".encode(), headers, sent)
        text = (await readBody(answer)).decode()
        return answer.code, json.loads(text) if text[:1] in '{["' else text

    async def get(self, path: str, **query: Any) -> Any:
        """The value."""
        status, value = await self.ask("GET", f"/api/v1/{path}?{urlencode(query)}")
        assert status == 200, value
        return value

    async def post(self, path: str, body: Any) -> Any:
        """Status and value, with a fresh token."""
        token = (await self.get("csrf"))["csrf_token"]
        return await self.ask("POST", path, "application/json", json.dumps(body).encode(), token)


class Live(TestCase):
    timeout = 60

    async def test_pay(self) -> None:
        """Outputs, a signed transaction, injected, in a block; the API is gone with the coin."""
        folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, folder)
        coin = service(reactor, folder, 0)
        self.addCleanup(coin.stopService)
        await coin.startService()
        client = Client(coin.status()["api"])
        self.addCleanup(client.pool.closeCachedConnections)
        first, second = map(address_text, WALLET.addresses[:2])
        outputs = (await client.get("outputs", addrs=first))["head_outputs"]
        inputs = [bytes.fromhex(each["hash"]) for each in outputs]
        paid = [Output(WALLET.addresses[1], 5_000_000, 1), Output(WALLET.addresses[0], 995_000_000, 1)]
        made = new_transaction(inputs, paid).signed([WALLET.entries[0].key] * len(inputs))
        raw = {"rawtx": made.raw.hex()}
        self.assertEqual(await client.post("/api/v1/injectTransaction", raw), (200, made.id.hex()))
        limit = reactor.seconds() + SECONDS
        while not (found := await client.get("transaction", txid=made.id.hex()))["status"]["confirmed"]:
            self.assertLess(reactor.seconds(), limit, "no block has it")
            await deferLater(reactor, 0.02, lambda: None)
        self.assertEqual(found["status"]["block_seq"], 1)
        balance = await client.get("balance", addrs=second)
        self.assertEqual(balance["confirmed"], {"coins": 5_000_000, "hours": 1})
        text = f"400 Bad Request - Transaction violates hard constraint: unspent output of {inputs[0].hex()} "
        self.assertEqual(
            await client.post("/api/v1/injectTransaction", raw), (400, f"{text}does not exist\n")
        )
        figures = generate_latest(coin._node.registry).decode()  # type: ignore[arg-type]
        self.assertIn('coin_api_answers_total{status="400"} 1.0', figures)
        self.assertIn("coin_api_connections 1.0", figures)
        await client.pool.closeCachedConnections()
        await coin.stopService()
        with self.assertRaises(ConnectionRefusedError):
            await client.get("version")
