"""The coin on two nodes: real sockets, real stores, one chain; what its questions answer."""

from __future__ import annotations

import contextlib
import shutil
import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest
from twisted.internet import reactor as _reactor  # noqa: TID251  (real sockets)
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import TCP4ClientEndpoint
from twisted.internet.protocol import Factory, Protocol, connectionDone
from twisted.internet.task import deferLater
from twisted.python.failure import Failure
from twisted.trial.unittest import TestCase

from coin.api.settings import ApiSection
from coin.chain.address import address_text
from coin.chain.spending import Payment
from coin.newchain import chain_file, new_chain
from coin.service import CoinService
from coin.settings import CoinSection, CoinSettings
from coin.wallet.payment import sign_payment
from coin.wallet.wallet import new_wallet
from meshnet.cipher.keys import SecretKey
from meshnet.errors import RefusedError, UsageError
from meshnet.node.clock import NodeClock
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import write_secret

reactor: Any = _reactor
SECONDS = 20.0


class _Heard(Protocol):
    """A client that asks once and keeps what it hears."""

    def __init__(self, target: str, key: str) -> None:
        self.data = b""
        self.over = False
        self._asked = f"GET {target} HTTP/1.1\r\nAuthorization: Bearer {key}\r\n\r\n"

    def connectionMade(self) -> None:
        """Asks."""
        transport: Any = self.transport
        transport.write(self._asked.encode())

    def dataReceived(self, data: bytes) -> None:
        """Hears."""
        self.data += data

    def connectionLost(self, reason: Failure = connectionDone) -> None:
        """The end."""
        self.over = True


class ServiceTests(TestCase):
    """A publisher and a follower over TCP on loopback."""

    timeout = 60

    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.wallet = new_wallet("the first coins of a test", "test", "test.wlt", 0, 3)
        publisher = SecretKey(b"\7" * 32)
        chain = new_chain("test", 1_000, self.wallet.addresses[0], publisher, 1_700_000_000)
        (self.folder / "test.toml").write_text(chain_file(chain))
        write_secret(RealDisk(), str(self.folder / "publisher"), publisher.secret.hex().encode() + b"\n")

    def service(self, name: str, **more: Any) -> CoinService:
        """A coin on a stand-in for a node."""
        listener = SimpleNamespace(stop=lambda: None)
        node: Any = SimpleNamespace(
            public_key=SecretKey(name.encode().ljust(32, b"\1")).public,
            clock=NodeClock(reactor),
            disk=RealDisk(),
            reactor=reactor,
            registry=CollectorRegistry(),
            listen=lambda port, accept: listener,
        )
        section = CoinSection(
            chain=self.folder / "test.toml", data=self.folder / name, exchange=False, **more
        )
        made = CoinService(node, CoinSettings(section))
        self.addCleanup(made.stopService)
        return made

    async def until(self, ready: Callable[[], bool]) -> None:
        """Waits, with a limit."""
        limit = reactor.seconds() + SECONDS
        while not ready():
            self.assertLess(reactor.seconds(), limit, "it did not happen")
            await deferLater(reactor, 0.02, lambda: None)

    async def ask(self, service: CoinService, route: str, body: dict[str, Any] | None = None) -> Any:
        """What a route answers."""
        answer: Any = service.routes()[route](body or {})
        return await answer if isinstance(answer, Deferred) else answer

    async def pay(self, service: CoinService, coins: int) -> Any:
        """A payment to the wallet's second address, through a node."""
        texts = ",".join(map(address_text, self.wallet.addresses))
        outputs = await self.ask(service, "GET /outputs", {"addresses": texts})
        payment = Payment(self.wallet.addresses[1], coins)

        def call(method: str, route: str, body: dict[str, Any] | None) -> Any:
            return outputs if body else service.status()

        made, _ = sign_payment(self.wallet, payment, call)
        return await self.ask(service, "POST /transaction", {"raw": made.raw.hex()})

    async def test_two_nodes(self) -> None:
        """A payment given to the follower gets into a block of the publisher and back; all questions are
        answered alike; a second start finds everything."""
        maker = self.service(
            "maker", listen=(("127.0.0.1", 0),), publish=self.folder / "publisher", interval=0.1
        )
        await maker.startService()
        assert maker.peers is not None
        follower = self.service("follower", peers=(("127.0.0.1", maker.peers.tcp_ports[0]),))
        await follower.startService()
        await self.until(lambda: follower.status()["peers"] == 1)
        paid = await self.pay(follower, 25_000_000)
        self.assertTrue(paid["valid"])
        await self.until(lambda: follower.status()["height"] == 1 and follower.status()["pool"] == 0)
        second = address_text(self.wallet.addresses[1])
        for service in (maker, follower):
            found = await self.ask(service, "GET /transaction", {"id": paid["txid"]})
            self.assertEqual((found["block_seq"], found["confirmations"]), (1, 1))
            page = await self.ask(service, "GET /address", {"address": second})
            self.assertEqual(page["confirmed"]["coins"], "25.000000")
            self.assertEqual([each["transaction"]["txid"] for each in page["transactions"]], [paid["txid"]])
            several = {"addresses": ",".join(map(address_text, self.wallet.addresses))}
            used = await self.ask(service, "GET /used", several)
            self.assertEqual(used["used"], [address_text(each) for each in self.wallet.addresses[:2]])
            told = await self.ask(service, "GET /history", several)
            self.assertEqual((told["total"], told["pending"]), (2, []))
            self.assertEqual(told["transactions"][0]["transaction"]["txid"], paid["txid"])
            block = await self.ask(service, "GET /block", {"which": "1"})
            same = await self.ask(service, "GET /block", {"which": block["header"]["block_hash"]})
            self.assertEqual(block, same)
            supply = await self.ask(service, "GET /supply")
            self.assertEqual(supply["current_supply"], "1000.000000")
            checked = await self.ask(service, "POST /verify")
            self.assertEqual((checked["state"], checked["checked"]), ("whole", 2))
            rich = await self.ask(service, "GET /richlist", {"count": "1"})
            self.assertEqual(rich["richlist"][0]["coins"], "975.000000")
            self.assertEqual(await self.ask(service, "GET /pending"), {"pending": []})
            text = generate_latest(service._node.registry).decode()  # type: ignore[arg-type]
            self.assertIn("coin_height 1.0", text)
        await follower.stopService()
        again = self.service("follower")
        await again.startService()
        self.assertEqual(again.status()["height"], 1)

    async def test_events(self) -> None:
        """Over a socket: a key is made, a payment is heard of when its block is there, and when the key is
        revoked the stream ends."""
        section = ApiSection(listen=("127.0.0.1", 0))
        maker = self.service("maker", publish=self.folder / "publisher", interval=0.1, api=section)
        await maker.startService()
        assert maker.api is not None
        key = await self.ask(maker, "POST /keys", {"name": "shop", "scopes": ["events"]})
        second = address_text(self.wallet.addresses[1])
        heard = _Heard(f"/api/v3/events?kinds=address&addresses={second}", key["key"])
        endpoint = TCP4ClientEndpoint(reactor, "127.0.0.1", maker.api.port)
        await endpoint.connect(Factory.forProtocol(lambda: heard))
        await self.until(lambda: b"event: start" in heard.data)
        await self.pay(maker, 25_000_000)
        await self.until(lambda: b"id: 1.2" in heard.data)
        self.assertIn(b'"received":"25.000000"', heard.data)
        text = generate_latest(maker._node.registry).decode()  # type: ignore[arg-type]
        self.assertIn("coin_listeners 1.0", text)
        listed = await self.ask(maker, "GET /keys")
        self.assertEqual([each["id"] for each in listed["keys"]], [key["id"]])
        await self.ask(maker, "POST /keys/revoke", {"id": key["id"]})
        await self.until(lambda: heard.over)
        self.assertIn(b"The key was revoked.", heard.data)

    async def test_mends(self) -> None:
        """Bytes of a stored block, and of an index, are changed after a node was killed: it finds them
        by itself at the start, gets the block from its peer and makes the index again."""
        maker = self.service(
            "maker", listen=(("127.0.0.1", 0),), publish=self.folder / "publisher", interval=0.1
        )
        await maker.startService()
        assert maker.peers is not None
        peers = (("127.0.0.1", maker.peers.tcp_ports[0]),)
        follower = self.service("follower", peers=peers)
        await follower.startService()
        for height in (1, 2):
            await self.pay(maker, 5_000_000)
            await self.until(lambda: follower.status()["height"] == height)  # noqa: B023
        state = self.folder / "follower" / "chain.db.state"
        killed = state.read_bytes() if state.exists() else None  # what a kill would leave
        await follower.stopService()
        state.unlink() if killed is None else state.write_bytes(killed)
        with contextlib.closing(sqlite3.connect(self.folder / "follower" / "chain.db")) as spoilt:
            (data,) = spoilt.execute("SELECT data FROM block WHERE sequence = 1").fetchone()
            bad = data[:150] + bytes([data[150] ^ 1]) + data[151:]
            spoilt.execute("UPDATE block SET data = ? WHERE sequence = 1", (bad,))
            spoilt.execute("UPDATE address SET coins = coins + 1 WHERE number = 1")
            spoilt.commit()
        again = self.service("follower", peers=peers)
        await again.startService()
        await self.until(lambda: again.status()["store"]["state"] == "whole")
        found = again.status()["store"]
        self.assertEqual((found["damaged"], found["mended"], found["repaired"]), (1, 1, 1))
        self.assertEqual(again.status()["head"], maker.status()["head"])
        block = await self.ask(again, "GET /block", {"which": "1"})
        self.assertEqual(block, await self.ask(maker, "GET /block", {"which": "1"}))
        self.assertEqual((await self.ask(again, "POST /verify"))["state"], "whole")
        text = generate_latest(again._node.registry).decode()  # type: ignore[arg-type]
        self.assertIn("coin_mended_blocks_total 1.0", text)

    async def test_bad_questions(self) -> None:
        """Wrong input is answered with a sentence; without a section nothing runs and it says so."""
        alone = self.service("alone")
        await alone.startService()
        for route, body in (
            ("GET /block", {"which": "99"}),
            ("GET /block", {"which": "x"}),
            ("GET /transaction", {"id": "00" * 32}),
            ("GET /transaction", {"id": "zz"}),
            ("GET /address", {"address": "nobody"}),
            ("GET /output", {"id": "11" * 32}),
            ("POST /transaction", {"raw": "00"}),
            ("POST /transaction", {"raw": "xyz"}),
        ):
            with self.assertRaises(UsageError):
                await self.ask(alone, route, body)
        paid = await self.pay(alone, 1_000_000)
        with self.assertRaises(RefusedError):
            raw = await self.ask(alone, "GET /pending")
            self.assertEqual(raw["pending"][0]["transaction"]["txid"], paid["txid"])
            await self.ask(alone, "POST /transaction", {"raw": _unsigned(self.wallet.addresses[0])})
        idle = CoinService(
            SimpleNamespace(registry=CollectorRegistry()),  # type: ignore[arg-type]
            CoinSettings(),
        )
        await idle.startService()
        self.assertFalse(idle.status()["running"])


def _unsigned(address: Any) -> str:
    from coin.chain.transaction import Output, new_transaction

    return new_transaction([b"\1" * 32], [Output(address, 1_000, 1)]).raw.hex()
