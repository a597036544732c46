"""The API of a node's chain: listens, checks each request in the Go node's order, and finds who answers it.

Checks: password, media type (version 2), Host, Origin, CSRF token, the path, the method, the set; then the
parameters in the order of the endpoint. It keeps nothing of a client between two requests.
"""

from __future__ import annotations

import inspect
import secrets
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Concatenate, Final, ParamSpec, TypeVar
from urllib.parse import parse_qsl

from attrs import define
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.internet.error import CannotListenError
from twisted.logger import Logger

from coin.api.admission import Admission
from coin.api.answer import Answer, to_json
from coin.api.endpoint import ApiSet, Endpoint, Given, Table, version_of
from coin.api.golang.decoding import BadBodyError
from coin.api.guard import Guard, new_guard
from coin.api.keys import Keys
from coin.api.notes import Notes
from coin.api.refusals import JSON, ApiError, bad, refusal_of
from coin.api.served_wallets import ServedWallets
from coin.api.server import SWEEP_SECONDS, ApiFactory, ApiRequest
from coin.api.settings import ApiSection
from coin.api.streams import Streams
from coin.api.table import TABLE
from coin.api.tokens import KEY_SIZE, Tokens
from coin.api.view import View
from coin.api.withdrawal_book import open_book
from coin.api.withdrawals import NodeChain, tell_withdrawal
from coin.api.withdrawing import Withdrawing
from coin.chain.params import Chain
from coin.events.history import Piece, read_piece
from coin.events.hub import Hub
from coin.events.wanted import Wanted
from coin.replication.network import Network
from coin.replication.service import Peers
from coin.replication.store_books import StoreBooks
from meshnet.errors import ConfigError, LocalError, MeshError
from meshnet.limits import COIN_API_FIELDS
from meshnet.node.app import Clock
from meshnet.storage.disk import Disk
from meshnet.storage.files import read_secret
from meshnet.storage.service import DiskThread

_log = Logger()
P = ParamSpec("P")
T = TypeVar("T")
FORM: Final = b"application/x-www-form-urlencoded"
_LARGEST_PASSWORD: Final = 4_096
KEYS: Final = "api-keys.json"
WITHDRAWALS: Final = "withdrawals.db"
WITHDRAWAL_SWEEPS: Final = 5
"""Withdrawals are looked after every so many seconds."""
_BODIES: Final = ("POST", "PUT", "PATCH")


@define
class Parts:
    """What the API is about: a chain that runs on this node; `folder` is its data's."""

    chain: Chain
    books: StoreBooks
    network: Network
    peers: Peers
    publishes: bool
    folder: Path


class Api:
    """See the module. `started` is when, in wall seconds; `sets` what is served of the `table`."""

    def __init__(
        self,
        reactor: Any,
        clock: Clock,
        disk: Disk,
        section: ApiSection,
        parts: Parts,
        table: Table = TABLE,
    ) -> None:
        self.parts = parts
        self.section = section
        self.clock = clock
        self.disk = disk
        self.table = table
        self.sets = frozenset(ApiSet(name) for name in section.sets)
        self.started = clock.unix()
        self.tokens = Tokens(secrets.token_bytes(KEY_SIZE)) if section.csrf else None
        self.factory = ApiFactory(self._serve, clock.now, clock.unix)
        self.guard: Guard | None = None
        self._notes = Notes(disk, parts.folder / "notes")
        self._writer = DiskThread(reactor)
        self._reactor = reactor
        self.admission = Admission(Keys(disk, str(parts.folder / KEYS)), section.keys)
        service = parts.books.service
        self.streams = Streams(Hub(service.height, partial(_piece, parts.books), clock.now))
        service.added = self.streams.hub.added
        service.came = lambda it, who, why: self.streams.hub.came(it, who, clock.unix(), why)
        self.wallets: ServedWallets | None = None
        self.withdrawing: Withdrawing | None = None
        if section.wallets is not None:
            self.wallets = ServedWallets(reactor, disk, str(section.wallets), clock, parts.books.store)
        elif {ApiSet.WALLET, ApiSet.INSECURE_WALLET_SEED} & self.sets:
            raise ConfigError("[coin.api] serves wallets: name their folder, `wallets`, or leave WALLET out.")
        self._sweeps = 0
        self._port: Any = None
        self._cancel: Callable[[], None] | None = None

    # -- life

    @property
    def port(self) -> int:
        """Where it listens."""
        return int(self._port.getHost().port)

    async def open(self) -> list[str]:
        """Reads the wallets and takes up what withdrawals were begun; sentences about wallets that are left
        out. Raises StorageError."""
        if self.wallets is None:
            return []
        await self.wallets.open()
        book = await self.write(open_book, self.disk, self.parts.folder / WITHDRAWALS)
        chain = NodeChain(self.parts, self.look, self.clock.unix)
        self.withdrawing = Withdrawing(book, chain, self.write, self.clock.unix)
        self.withdrawing.told = partial(tell_withdrawal, self.parts.books, self.streams.hub)
        await self.withdrawing.start()
        return self.wallets.service.folder.notes

    def start(self) -> None:
        """Listens; raises LocalError, ConfigError."""
        host, port = self.section.listen
        try:
            self._port = self._reactor.listenTCP(port, self.factory, interface=host.strip("[]"))
        except CannotListenError as error:
            why = error.socketError
            raise LocalError(f"Cannot listen on {host}:{port} ([coin.api] listen): {why}.") from None
        self.guard = new_guard(
            host,
            self.port,
            listed=self.section.hosts,
            check=self.section.header_check,
            pair=self._pair(),
            tokens=self.tokens,
            realm=f"{self.parts.chain.name} daemon",
        )
        self._sweep()

    def _pair(self) -> bytes | None:
        password = b""
        if self.section.password is not None:
            lines = read_secret(self.disk, self.section.password, _LARGEST_PASSWORD).splitlines()
            if not lines or not lines[0]:
                raise ConfigError(f"{self.section.password} has no password in its first line.")
            password = lines[0]
        user = self.section.username.encode()
        return user + b":" + password if user or password else None

    def _sweep(self) -> None:
        self.factory.sweep()
        self.streams.tick()
        self._sweeps += 1
        if self.withdrawing is not None and self._sweeps % WITHDRAWAL_SWEEPS == 0:
            self.look_after_withdrawals(self.withdrawing)
        self._cancel = self.clock.call_later(SWEEP_SECONDS, self._sweep)

    def look_after_withdrawals(self, withdrawing: Withdrawing) -> None:
        """Sends again what lies about, settles what a block has."""
        work = Deferred.fromCoroutine(withdrawing.tick())
        work.addErrback(lambda failure: _log.failure("withdrawals could not be looked after", failure))

    def stop(self) -> Deferred[Any]:
        """Takes no more, and ends all connections."""
        if self._cancel is not None:
            self._cancel()
        self.streams.stop()
        self.factory.close()
        port, self._port = self._port, None
        stopped = maybeDeferred(port.stopListening) if port is not None else succeed(None)
        waits: list[Deferred[Any]] = [stopped]
        if self.withdrawing is not None:
            waits.append(self.write(self.withdrawing.close))
        if self.wallets is not None:
            waits.append(Deferred.fromCoroutine(self.wallets.close()))
        return DeferredList([*waits, self._writer.close()], consumeErrors=True)

    # -- answering

    def note(
        self, call: Callable[Concatenate[Notes, P], T], *args: P.args, **kwargs: P.kwargs
    ) -> Deferred[T]:
        """Reads or keeps notes, one after the other."""
        return self._writer.call(call, self._notes, *args, **kwargs)

    def write(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> Deferred[T]:
        """Runs what writes to files beside the chain, one after the other."""
        return self._writer.call(call, *args, **kwargs)

    def look(self, call: Callable[[View], T]) -> Deferred[T]:
        """What `call` finds in the store, in a thread of its own; what it gives must be whole."""
        return self.parts.books.service.ask(lambda store: call(View(store)))

    def _serve(self, request: ApiRequest) -> Deferred[Answer | None]:
        return Deferred.fromCoroutine(self._answer(request))

    async def _answer(self, request: ApiRequest) -> Answer | None:
        methods, named = self.table.find(request.where)
        request.version = version_of(request.where) if methods or request.where.startswith("/api/v3/") else 1
        headers = self._check(request, methods)
        try:
            if headers is not None and request.word == "OPTIONS":
                return Answer(204, b"", JSON, headers=headers)
            endpoint = self._endpoint(request, methods)
            self.admission.check(request, endpoint, self.clock.now())
            given = endpoint.read({**_texts(request, endpoint), **named})
            answer = await self._ask(request, endpoint, given)
        except ApiError:
            raise
        except MeshError as error:
            raise refusal_of(error) from error
        if answer is None or not headers:
            return answer
        return Answer(answer.status, answer.body, answer.kind, answer.packed, (*answer.headers, *headers))

    def _check(self, request: ApiRequest, methods: Mapping[str, Endpoint]) -> Any:
        """All that comes before the method; what scripts of other pages are told, None if that is nothing."""
        guard = self.guard
        assert guard is not None
        request.key = self.admission.key_of(request)
        if request.key is None:
            guard.check_user(request.header)
        if request.version == 2 and request.word == "POST" and not _is_json(request.header(b"content-type")):
            raise ApiError(415)
        guard.check_place(request.header)
        if request.key is None and all(each.csrf for each in methods.values()):
            guard.check_token(request.word, request.header, self.clock.unix())
        origin = request.header(b"origin")
        if origin is None or origin not in guard.pages:
            return None
        allowed = [(b"Access-Control-Allow-Origin", origin)]
        if request.word == "OPTIONS":
            if request.header(b"access-control-request-method") is None:
                return None
            allowed += _PREFLIGHT
        return tuple(allowed)

    def _endpoint(self, request: ApiRequest, methods: Mapping[str, Endpoint]) -> Endpoint:
        if not methods:
            raise ApiError(404)
        endpoint = methods.get(request.word)
        if endpoint is None:
            raise ApiError(405)
        if endpoint.sets and endpoint.sets.isdisjoint(self.sets):
            raise ApiError(403, "Endpoint is disabled")
        return endpoint

    async def _ask(self, request: ApiRequest, endpoint: Endpoint, given: Given) -> Answer | None:
        packs = b"gzip" in (request.header(b"accept-encoding") or b"")
        if endpoint.look is not None:
            look = endpoint.look
            return await self.look(lambda view: _made(endpoint, look(view, given), packs))
        if endpoint.act is not None:
            found = endpoint.act(self, given)
            return _made(endpoint, await found if inspect.isawaitable(found) else found, packs)
        assert endpoint.take is not None
        endpoint.take(self, request, given)
        return None


_PREFLIGHT: Final = (
    (b"Access-Control-Allow-Methods", b"GET, POST"),
    (b"Access-Control-Allow-Headers", b"Origin, Accept, Content-Type, X-Requested-With, X-CSRF-Token"),
)


def _piece(books: StoreBooks, wanted: Wanted, start: int, height: int) -> Deferred[Piece]:
    return books.read(books.store.look, lambda connection: read_piece(connection, wanted, start, height))


def _is_json(kind: bytes | None) -> bool:
    return kind is not None and (kind == JSON or kind.startswith(JSON + b";"))


def _made(endpoint: Endpoint, value: Any, packs: bool) -> Answer:
    if isinstance(value, Answer):
        return value.pack() if packs else value
    answer = Answer(200, to_json({"data": value} if endpoint.version == 2 else value), JSON)
    return answer.pack() if packs else answer


def _texts(request: ApiRequest, endpoint: Endpoint) -> Mapping[str, Any]:
    """What was sent: fields of the query and the form, the latter first; or those of a JSON body."""
    if endpoint.body is not None:
        try:
            return endpoint.body.read(request.data)
        except BadBodyError as error:
            raise bad(str(error)) from None
    pairs = _pairs(request.query)
    kind = (request.header(b"content-type") or b"").partition(b";")[0].strip().lower()
    if request.word in _BODIES and kind == FORM:
        pairs = _pairs(request.data.decode("utf-8", "replace")) + pairs
    return dict(reversed(pairs))


def _pairs(text: str) -> list[tuple[str, str]]:
    if not text:
        return []
    try:
        return parse_qsl(text, keep_blank_values=True, max_num_fields=COIN_API_FIELDS)
    except ValueError:
        raise bad(f"a request has at most {COIN_API_FIELDS} parameters") from None
