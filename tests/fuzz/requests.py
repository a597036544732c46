"""Targets of the coin's REST API: what clients, web pages and whoever else may send to it."""

from __future__ import annotations

import json
import tempfile
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from coin.api.golang.decoding import BadBodyError
from coin.api.keys import Keys
from coin.api.notes import Notes
from coin.api.refusals import ApiError
from coin.api.service import Api, _pairs
from coin.api.settings import ApiSection
from coin.api.table import TABLE
from coin.chain.address import address_text
from coin.store.store import open_store
from coin.wallet.folder import Folder, NewWallet
from lab.simulation.disk import SimulatedDisk
from meshnet.errors import LocalError
from meshnet.limits import COIN_API_CONNECTIONS
from meshnet.storage.disk import CorruptFileError
from meshnet.storage.files import write_file, write_secret
from tests.fuzz.target import MEGABYTE, Choices, Target
from tests.support.chains import key, owner, small_chain
from tests.support.coinapi import DISK, HOST, Connection, Served

BODIES = [each for each in TABLE if each.body is not None]
PLAIN = [each for each in TABLE if each.body is None]
PAYING = (
    "/api/v3/withdrawals",
    "/api/v2/transaction",
    "/api/v1/wallet/transaction",
    "/api/v2/wallet/transaction/sign",
    "/api/v2/transaction/verify",
)


@cache
def _served() -> Served:
    folder = tempfile.TemporaryDirectory(prefix="meshnet-fuzz-")
    store = open_store(DISK, Path(folder.name) / "chain.db", small_chain())
    sets = ("READ", "STATUS", "TXN", "NET_CTRL")
    served = Served(store, ApiSection(csrf=False, sets=sets), folder=Path(folder.name), publishes=True)
    served.folder = folder  # type: ignore[attr-defined]  # it lasts as long
    return served


def connection(data: bytes) -> None:
    """What comes over a connection, in pieces; no answer is a failure of ours."""
    choices, client = Choices(data), Connection(_served())
    api: Api = _served().api
    before = dict(api.factory.counts)
    while choices and not client.closed:
        client.send(choices.piece() or choices.rest())
    client.leave()
    assert len(api.factory.channels) < COIN_API_CONNECTIONS
    assert api.factory.counts.get(500, 0) == before.get(500, 0)


def body(data: bytes) -> None:
    """Byte 0: which endpoint's; the rest is JSON. A refusal blames who sent it."""
    which = BODIES[data[0] % len(BODIES)] if data else BODIES[0]
    assert which.body is not None
    try:
        which.body.read(data[1:])
    except ApiError as refused:
        assert 400 <= refused.status < 500, refused


def _connections() -> list[bytes]:
    head = f"Host: {HOST}\r\n"
    form = "addrs=2jBbGxZRGoQG1mqhPBnXnLTxK6oxsTf8os6"
    made = [
        f"GET /api/v1/balance?{form} HTTP/1.1\r\n{head}\r\n",
        f"POST /api/v1/balance HTTP/1.1\r\n{head}Content-Type: application/x-www-form-urlencoded\r\n"
        f"Content-Length: {len(form)}\r\n\r\n{form}",
        f"POST /api/v2/address/verify HTTP/1.1\r\n{head}Content-Type: application/json\r\n"
        'Transfer-Encoding: chunked\r\n\r\n5\r\n{"a":\r\n3\r\n1} \r\n0\r\n\r\n',
        f"GET /api/v1/blocks?start=0&end=9&verbose=1 HTTP/1.1\r\n{head}Accept-Encoding: gzip\r\n\r\n",
        f"OPTIONS / HTTP/1.0\r\nOrigin: http://{HOST}\r\nAccess-Control-Request-Method: POST\r\n\r\n",
    ]
    return [len(each).to_bytes(2, "big") + each.encode() for each in made]


def query(data: bytes) -> None:
    """Byte 0: which endpoint's; the rest is a query. What is read fits, and a refusal blames who sent it."""
    which = PLAIN[data[0] % len(PLAIN)] if data else PLAIN[0]
    try:
        which.read(dict(reversed(_pairs(data[1:].decode("utf-8", "replace")))))
    except ApiError as refused:
        assert 400 <= refused.status < 500, refused


def _queries() -> list[bytes]:
    texts = {
        "address": "2jBbGxZRGoQG1mqhPBnXnLTxK6oxsTf8os6",
        "hash": "00" * 32,
        "order": "oldest",
        "place": "7.3",
        "kinds": "block,withdrawal",
        "cursor": "12.500",
    }
    found = []
    for number, each in enumerate(PLAIN):
        pairs = {it.name: texts.get(it.kind.format.rstrip("es"), "1") for it in each.parameters}
        found += [bytes([number]), bytes([number]) + urlencode(pairs).encode()]
    return found


@cache
def _paying() -> Served:
    """One with wallets, one of them with coins."""
    folder = tempfile.TemporaryDirectory(prefix="meshnet-fuzz-")
    where = Path(folder.name)
    store = open_store(DISK, where / "chain.db", small_chain())
    wallets = Folder(DISK, str(where / "wallets"), lambda size: bytes(size), lambda: 1.0)
    wallets.open()
    secret = key(1).secret.hex()
    wallets.create(NewWallet("collection", "paying", keys=[secret], filename="paying.wlt"))
    section = ApiSection(csrf=False, keys="none", sets=("READ", "TXN", "WALLET"), wallets=where / "wallets")
    served = Served(store, section, folder=where, publishes=True)
    served.folder = folder  # type: ignore[attr-defined]  # it lasts as long
    return served


def paying(data: bytes) -> None:
    """Byte 0: which request that makes, signs or pays; the rest is its body. No answer is a failure of ours;
    a withdrawal that was taken is the same when it is asked for again."""
    served = _paying()
    path = PAYING[data[0] % len(PAYING)] if data else PAYING[0]
    head = {"Content-Type": "application/json"}
    first = served.once("POST", path, head, data[1:])
    assert first.status < 500 or first.status == 503, first
    if path == PAYING[0] and first.status == 200:
        assert served.once("POST", path, head, data[1:]).json["txid"] == first.json["txid"]


def _payments() -> list[bytes]:
    to = [{"address": address_text(owner(2)), "coins": "1"}]
    hours = {"type": "auto", "mode": "share", "share_factor": "0.5"}
    asked: list[Any] = [
        {"id": "1", "wallet": "paying.wlt", "to": to},
        {"to": to, "addresses": [address_text(owner(1))], "hours_selection": hours},
        {"to": [{**to[0], "hours": "1"}], "wallet_id": "paying.wlt", "hours_selection": {"type": "manual"}},
        {"wallet_id": "paying.wlt", "encoded_transaction": "00"},
        {"encoded_transaction": "00", "unsigned": True},
    ]
    return [bytes([number]) + json.dumps(each).encode() for number, each in enumerate(asked)]


def keys(data: bytes) -> None:
    """The file of the API's keys; what is read is kept when one is revoked."""
    disk = SimulatedDisk()
    write_secret(disk, "/keys", data)
    found = Keys(disk, "/keys")
    for each in list(found)[:1]:
        found.revoke(each.id)
        assert [it.id for it in Keys(disk, "/keys")] == [it.id for it in found]


def _keys() -> list[bytes]:
    disk = SimulatedDisk()
    made = Keys(disk, "/keys")
    for number in range(2):
        made.make(f"key {number}", ["read", "send"], 100, bytes([number]) * 36, 1_600_000_000)
    return [bytes(disk.snapshot()["/keys"] or b"")]


def notes(data: bytes) -> None:
    """A file of notes; what is read is written the same."""
    disk = SimulatedDisk()
    disk.mkdir("/notes")
    write_file(disk, "/notes/client.json", data)
    before = dict(Notes(disk, Path("/notes")).all("client"))
    Notes(disk, Path("/notes")).set("client", "more", "x")
    assert Notes(disk, Path("/notes")).all("client") == {**before, "more": "x"}


TARGETS = [
    Target("coin-api-query", query, _queries),
    Target("coin-api-pay", paying, _payments, (), 4 * MEGABYTE, 1_500),
    Target("coin-api-keys", keys, _keys, (LocalError,), MEGABYTE, 1_500),
    Target("coin-api-notes", notes, lambda: [b'{"a": "b", "c": ""}'], (CorruptFileError,)),
    Target("coin-api", connection, _connections, (), 4 * MEGABYTE),
    Target("coin-api-body", body, lambda: [b'\0{"address": "a", "to": [{"coins": null}]}'], (BadBodyError,)),
]
