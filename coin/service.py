"""The coin on a running node: chain, store, pool, network, publisher; what its routes answer.

GET  /status
GET  /block        which: a number or a hash; none: the last
GET  /blocks       first, count: as many as fit
GET  /transaction  id
GET  /address      address, limit, before: the newest transactions first
GET  /output       id              GET /balance  addresses, with commas between
GET  /outputs      address, addresses                     GET /used      the same
GET  /history      the same, offset, limit: the newest first, of all of them together
GET  /pending      GET /supply     GET /richlist count    GET /peers
POST /transaction  raw: hex        takes a signed transaction and passes it on
POST /verify       looks at all of the store; answers when that is over, or in between
GET  /keys         the API's keys   POST /keys   name, scopes, rate: a new one   POST /keys/revoke   id
"""

from __future__ import annotations

import random
import secrets
from collections.abc import Callable, Mapping
from typing import Any

from twisted.application.service import Service
from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from zope.interface import implementer

from coin.api.key_routes import KeyRoutes
from coin.api.service import Api, Parts
from coin.chain.params import Chain
from coin.counts import CoinCollector
from coin.holdings import Holdings
from coin.questions import Nothing, Questions
from coin.replication.addresses import Addresses
from coin.replication.introduction import Ourselves
from coin.replication.network import Network
from coin.replication.publisher import Promise, Publisher
from coin.replication.service import Peers, sentence
from coin.replication.store_books import StoreBooks
from coin.settings import CoinSection, CoinSettings, load_chain
from coin.store.service import ChainService
from coin.store.signing import Signing
from coin.store.store import open_store
from coin.upkeep import EVERY, Upkeep
from meshnet.errors import LocalError
from meshnet.node.app import IAppService, Json, MeshNode, Route
from meshnet.node.identity import read_key
from meshnet.node.schema import read_body
from meshnet.storage.files import make_directory
from meshnet.storage.quarantine import Quarantine
from meshnet.storage.service import DiskThread

_log = Logger()
STORE = "chain.db"
PROMISE = "published"
VERIFY_SECONDS = 5.0


@implementer(IAppService)
class CoinService(Service):
    """The coin of one node; idle without a section `[coin]`."""

    def __init__(self, node: MeshNode, settings: CoinSettings) -> None:
        self._node = node
        self._section = settings.coin
        self.chain: Chain | None = None
        self.books: StoreBooks | None = None
        self.network: Network | None = None
        self.peers: Peers | None = None
        self.publisher: Publisher | None = None
        self.upkeep: Upkeep | None = None
        self.api: Api | None = None
        self.notes: list[str] = []
        self._publishing = False
        self._cancel: list[Callable[[], None]] = []
        node.registry.register(CoinCollector(self._parts, lambda: self.upkeep, lambda: self.api))

    def _parts(self) -> tuple[StoreBooks, Network] | None:
        return None if self.books is None or self.network is None else (self.books, self.network)

    # -- life

    def startService(self) -> Deferred[None]:
        """Opens the store, listens, dials; fails with LocalError, StorageError or ConfigError."""
        super().startService()
        if self._section is None:
            return succeed(None)
        return Deferred.fromCoroutine(self._start(self._section))

    async def _start(self, section: CoinSection) -> None:
        node, clock = self._node, self._node.clock
        chain = self.chain = load_chain(node.disk, section.chain)
        make_directory(node.disk, str(section.data))
        key = None if section.publish is None else read_key(node.disk, section.publish)
        thread = DiskThread(node.reactor)
        quarantine = Quarantine(node.disk, str(section.data / "quarantine"), clock.unix)
        path = str(section.data / STORE)
        store = await thread.call(open_store, node.disk, path, chain, quarantine=quarantine)
        service = ChainService(node.reactor, store, Signing(chain.seal))
        self.books = StoreBooks(service, clock.now, clock.unix)
        try:
            await self.books.read(self.books.count_pool)
            if key is not None:
                promise = Promise(node.disk, str(section.data / PROMISE))
                self.notes += promise.notes
                self.publisher = Publisher(chain, key, promise)
            self._join(section, chain)
            assert self.network is not None and self.peers is not None
            self.upkeep = Upkeep(service, self.network, self._say)
            if section.api is not None:
                parts = Parts(
                    chain, self.books, self.network, self.peers, self.publisher is not None, section.data
                )
                self.api = Api(node.reactor, clock, node.disk, section.api, parts)
                self.notes += await self.api.open()
                self.api.start()
        except BaseException:
            await self.stopService()
            raise
        self._every(1.0, self._tick)
        self._every(60.0, self._refresh)
        self._every(EVERY, self.upkeep.begin)
        if not store.orderly:
            self.upkeep.begin()
        if self.publisher is not None:
            self._every(section.interval, self._publish)

    def _join(self, section: CoinSection, chain: Chain) -> None:
        assert self.books is not None
        node = self._node
        ourselves = Ourselves(chain, secrets.randbits(32), section.listen[0][1] if section.listen else 0)
        trusted = [f"tcp:{host}:{port}" for host, port in section.peers]
        trusted += [f"mesh:{key.hex()}" for key in section.mesh_peers if key != node.public_key]
        if section.exchange:
            trusted += [f"tcp:{each}" for each in chain.peers]
        addresses = Addresses(trusted, random.SystemRandom().randrange)
        self.network = Network(ourselves, self.books, addresses, node.clock.now(), self._say)
        self.peers = Peers(
            node, self.network, mesh_port=section.mesh_port, strangers=section.exchange, unix=node.clock.unix
        )
        self.peers.listen(section.listen)

    def stopService(self) -> Deferred[None]:
        """Leaves all peers and closes the store."""
        super().stopService()
        for cancel in self._cancel:
            cancel()
        self._cancel.clear()
        return Deferred.fromCoroutine(self._stop())

    async def _stop(self) -> None:
        api, self.api = self.api, None
        if api is not None:
            await api.stop()
        peers, self.peers = self.peers, None
        if peers is not None:
            await peers.stop()
        books, self.books = self.books, None
        self.network = self.upkeep = None
        if books is not None:
            await books.close()

    def _every(self, seconds: float, call: Callable[[], None]) -> None:
        """Calls again and again, until it stops."""
        place = len(self._cancel)

        def again() -> None:
            if self.books is None:
                return
            self._cancel[place] = self._node.clock.call_later(seconds, again)
            call()

        self._cancel.append(self._node.clock.call_later(seconds, again))

    def _say(self, text: str) -> None:
        _log.info("coin: {text}", text=text)

    def _tick(self) -> None:
        assert self.network is not None and self.peers is not None
        self.network.tick(self._node.clock.now())
        self.peers.tick()

    def _refresh(self) -> None:
        assert self.books is not None
        Deferred.fromCoroutine(self.books.refresh()).addCallback(self._righted).addErrback(self._failed)

    def _righted(self, ids: list[bytes]) -> None:
        if ids and self.network is not None:
            self.network.announce(ids)

    def _failed(self, failure: Any) -> None:
        _log.warn("coin: {text}", text=sentence(failure.value))

    def _publish(self) -> None:
        if not self._publishing:
            self._publishing = True
            Deferred.fromCoroutine(self._make()).addErrback(self._failed)

    async def _make(self) -> None:
        try:
            books, network, publisher = self.books, self.network, self.publisher
            assert books is not None and network is not None and publisher is not None
            block = await books.publish(publisher)
            if block is not None and self.network is not None:
                self._say(f"made block {block.header.sequence}, {len(block.transactions)} transactions")
                network.made(block.header.sequence)
        finally:
            self._publishing = False

    # -- IAppService

    def status(self) -> Json:
        """Chain, height, peers, pool."""
        if self._section is None:
            return {"running": False, "why": "the config has no section [coin]"}
        if self.books is None or self.network is None or self.chain is None:
            return {"running": False, "why": "it has not started yet"}
        head, network = self.books.store.head, self.network
        return {
            "running": True,
            "chain": self.chain.name,
            "burn": min(each.burn for each in (self.chain.user, self.chain.pool, self.chain.block)),
            "genesis": self.chain.genesis.hash.hex(),
            "height": head.header.sequence,
            "head": head.hash.hex(),
            "time": head.header.time,
            "highest": network.sync.highest,
            "peers": len(network.peers),
            "pool": self.books.loose_count,
            "publishes": self.publisher is not None,
            "listen": self.peers.tcp_ports if self.peers is not None else [],
            "api": self.api.port if self.api is not None else None,
            "store": self.upkeep.report() if self.upkeep is not None else None,
            "notes": self.notes,
        }

    def routes(self) -> Mapping[str, Route]:
        """As in the module's docstring."""

        def ask(name: str) -> Route:
            def route(body: Json) -> Any:
                return getattr(Questions(*self._need()), name)(body)

            return route

        def hold(name: str) -> Route:
            def route(body: Json) -> Any:
                return getattr(Holdings(self._need()[1]), name)(body)

            return route

        return {
            "GET /status": lambda body: self.status(),
            "GET /block": ask("block"),
            "GET /blocks": ask("blocks"),
            "GET /transaction": ask("transaction"),
            "GET /address": ask("address"),
            "GET /outputs": hold("outputs"),
            "GET /used": hold("used"),
            "GET /history": hold("history"),
            "GET /output": ask("output"),
            "GET /balance": ask("balance"),
            "GET /pending": ask("pending"),
            "GET /supply": ask("supply"),
            "GET /richlist": ask("richlist"),
            "GET /peers": ask("peers"),
            "POST /transaction": ask("inject"),
            "POST /verify": self._verify,
            "GET /keys": lambda body: self._api().list(body),
            "POST /keys": lambda body: self._api().make(body),
            "POST /keys/revoke": lambda body: self._api().revoke(body),
        }

    def _verify(self, body: Json) -> Deferred[Json]:
        """Begins a look at the store, or joins the one that runs; answers within `VERIFY_SECONDS`."""
        read_body(Nothing, body)
        self._need()
        upkeep = self.upkeep
        assert upkeep is not None
        if upkeep.state != "checking":
            upkeep.begin()
        answer: Deferred[Json] = Deferred()

        def over(result: object = None) -> None:
            if not answer.called:
                cancel()
                answer.callback(upkeep.report())

        cancel = self._node.clock.call_later(VERIFY_SECONDS, over)
        upkeep.settled().addCallback(over)
        return answer

    def _api(self) -> KeyRoutes:
        self._need()
        api = self.api
        if api is None:
            raise LocalError("The coin has no API on this node: write a section [coin.api] into its config.")
        return KeyRoutes(api.admission.keys, api.write, api.streams.revoked, self._node.clock.unix)

    def _need(self) -> tuple[Chain, StoreBooks, Network]:
        if self.chain is None or self.books is None or self.network is None:
            raise LocalError(f"The coin does not run on this node: {self.status()['why']}.")
        return self.chain, self.books, self.network
