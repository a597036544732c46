"""The coin's REST API without a socket: requests are bytes, answers are read from a transport in memory.

`Served` has a real store, pool and network (with no peers); the reading thread is the test itself, time
stands still until a test moves it. Every answer is held against the API's description.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from urllib.parse import urlencode

from attrs import frozen
from twisted.internet.address import IPv4Address
from twisted.internet.defer import Deferred, maybeDeferred, succeed
from twisted.internet.task import Clock
from twisted.internet.testing import StringTransport

from coin.api.endpoint import Table
from coin.api.service import Api, Parts
from coin.api.settings import ApiSection
from coin.api.table import TABLE
from coin.chain.params import Chain
from coin.chain.rules import signers
from coin.replication.addresses import Addresses
from coin.replication.introduction import Ourselves
from coin.replication.network import Network
from coin.replication.store_books import StoreBooks
from coin.store.feed import feed
from coin.store.gofile import read_go_file
from coin.store.pool import put
from coin.store.reading import StoreReader
from coin.store.signing import Signing
from coin.store.store import ChainStore, open_store
from meshnet.node.clock import NodeClock
from meshnet.storage.disk import RealDisk
from tests.support.described import check_answer

DISK = RealDisk()
PORT = 6420
HOST = f"127.0.0.1:{PORT}"
NOW = 1_600_000_000.0


@frozen
class Response:
    """An answer: status, headers by small letters, body unpacked."""

    status: int
    headers: Mapping[str, str]
    body: bytes

    @property
    def json(self) -> Any:
        """The value; AssertionError if it is none."""
        assert self.headers["content-type"] == "application/json", self
        return json.loads(self.body)

    @property
    def text(self) -> str:
        """The body as text."""
        return self.body.decode()


class _AtOnce:
    """A chain service whose threads are the test."""

    def __init__(self, store: ChainStore) -> None:
        self.store = store
        self.added: Callable[..., None] = lambda blocks, changes: None
        self.came: Callable[..., None] = lambda it, owners, why: None

    @property
    def height(self) -> int:
        return self.store.head.header.sequence

    def read(self, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Deferred[Any]:
        return maybeDeferred(call, *args, **kwargs)

    write = read

    def ask(self, call: Callable[[StoreReader], Any]) -> Deferred[Any]:
        return maybeDeferred(call, self.store)

    async def inject(self, transactions: Any, unix: float) -> Any:
        taken = self.store.pool.add(transactions, unix)
        for it, each in zip(transactions, taken, strict=True):
            if each.new:
                self.came(it, signers(it), str(each.refused or ""))
        return taken

    def add(self, blocks: Any) -> None:
        """Blocks come."""
        added = self.store.add(blocks, [[signers(it) for it in block.transactions] for block in blocks])
        assert added.refused is None
        self.added(blocks, added.applied)


class _Reactor:
    """Takes a port and gives it back."""

    def listenTCP(self, port: int, factory: Any, interface: str = "") -> Any:
        place = SimpleNamespace(port=port or PORT)
        return SimpleNamespace(getHost=lambda: place, stopListening=lambda: None)


class Served:
    """An API over a store; `clock` is its time, `api` itself."""

    def __init__(
        self,
        store: ChainStore,
        section: ApiSection | None = None,
        *,
        folder: Path = Path("/nowhere"),
        publishes: bool = False,
        table: Table = TABLE,
    ) -> None:
        self.store = store
        self.reactor_clock = Clock()
        self.clock = NodeClock(
            self.reactor_clock, self.reactor_clock.seconds, lambda: NOW + self.reactor_clock.seconds()
        )
        service: Any = _AtOnce(store)
        self.books = StoreBooks(service, self.clock.now, self.clock.unix)
        chain = store.chain
        trusted = [f"tcp:{each}" for each in chain.peers]
        self.network = Network(Ourselves(chain, 7), self.books, Addresses(trusted, lambda count: 0), 0.0)
        peers: Any = SimpleNamespace(dialling=())
        parts = Parts(chain, self.books, self.network, peers, publishes, folder)
        self.api = Api(_Reactor(), self.clock, DISK, section or ApiSection(csrf=False), parts, table)
        self.api._writer = SimpleNamespace(call=maybeDeferred, close=lambda: succeed(None))  # type: ignore[assignment]
        if self.api.wallets is not None:
            self.api.wallets.service._thread = self.api._writer
        Deferred.fromCoroutine(self.api.open()).addErrback(lambda failure: failure.raiseException())
        self.api.start()

    def once(self, method: str, target: str, headers: Any = None, body: bytes = b"") -> Response:
        """The answer to one request of a connection of its own."""
        client = self.connect()
        answer = client.ask(method, target, headers, body)
        client.leave()
        return answer

    def connect(self) -> Connection:
        """A new connection."""
        return Connection(self)

    def get(self, path: str, /, headers: Mapping[str, str] | None = None, **query: Any) -> Response:
        """What GET answers."""
        return self.once("GET", f"{path}?{urlencode(query)}" if query else path, headers)

    def delete(self, path: str, /, **query: Any) -> Response:
        """What DELETE answers."""
        return self.once("DELETE", f"{path}?{urlencode(query)}")

    def post(
        self,
        path: str,
        /,
        body: Any = None,
        headers: Mapping[str, str] | None = None,
        method: str = "POST",
        **form: Any,
    ) -> Response:
        """What POST answers; `body` as JSON, or a form."""
        kind = "application/json" if body is not None else "application/x-www-form-urlencoded"
        data = json.dumps(body) if body is not None else urlencode(form)
        return self.once(method, path, {"Content-Type": kind, **(headers or {})}, data.encode())


class Connection:
    """A client's connection."""

    channel: Any
    transport: Any

    def __init__(self, served: Served) -> None:
        place = IPv4Address("TCP", "127.0.0.1", 1)
        self.channel = served.api.factory.buildProtocol(place)
        self.transport = StringTransport(peerAddress=place)
        self.channel.makeConnection(self.transport)

    @property
    def closed(self) -> bool:
        """Whether the server has ended it."""
        return bool(self.transport.disconnecting or self.transport.disconnected)

    def leave(self) -> None:
        """The client goes."""
        if self.channel in self.channel.factory.channels:
            self.channel.connectionLost()

    def send(self, data: bytes) -> None:
        """Bytes arrive."""
        self.channel.dataReceived(data)

    def ask(
        self, method: str, target: str, headers: Mapping[str, str] | None = None, body: bytes = b""
    ) -> Response:
        """One request and its answer."""
        given = {"Host": HOST, **(headers or {})}
        if body or method in ("POST", "PUT"):
            given["Content-Length"] = str(len(body))
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)
        found = self.response(method == "HEAD")
        if method != "HEAD":
            check_answer(
                method, target.partition("?")[0], found.status, found.headers["content-type"], found.body
            )
        return found

    def response(self, empty: bool = False) -> Response:
        """The next answer."""
        data = self.transport.value()
        assert data, "nothing was answered"
        head, _, rest = data.partition(b"\r\n\r\n")
        first, *lines = head.decode("latin-1").split("\r\n")
        headers = {name.lower(): value.strip() for name, _, value in (each.partition(":") for each in lines)}
        size = 0 if empty else int(headers["content-length"])
        body = rest[:size]
        assert len(body) == size, "the answer is cut"
        self.transport.clear()
        self.transport.io.write(rest[size:])
        if headers.get("content-encoding") == "gzip":
            body = zlib.decompress(body, zlib.MAX_WBITS | 16)
        return Response(int(first.split()[1]), headers, body)


def golden_store(folder: Path, database: Path, chain: Chain) -> ChainStore:
    """The chain of a Go node's database with its pool, in a store of ours."""
    store = open_store(DISK, folder / f"{database.stem}.store", chain)
    go = read_go_file(DISK, database)
    feed(store, Signing(chain.seal, 0), go.blocks())
    for each in go.unconfirmed():
        inputs = [store.find(number) for number in each.transaction.inputs]
        assert None not in inputs
        with store._database.transaction() as connection:
            put(
                connection,
                each.transaction,
                inputs,  # type: ignore[arg-type]
                (each.received, each.checked, each.announced),
                0,
                None,
            )
    return store
