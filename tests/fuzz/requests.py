"""Targets of the coin's REST API: what clients, web pages and whoever else may send to it."""

from __future__ import annotations

import tempfile
from functools import cache
from pathlib import Path

from coin.api.golang.decoding import BadBodyError
from coin.api.refusals import ApiError
from coin.api.service import Api
from coin.api.settings import ApiSection
from coin.api.table import TABLE
from coin.store.store import open_store
from meshnet.limits import COIN_API_CONNECTIONS
from tests.fuzz.target import MEGABYTE, Choices, Target
from tests.support.chains import small_chain
from tests.support.coinapi import DISK, HOST, Connection, Served

BODIES = [each for each in TABLE if each.body is not None]


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


TARGETS = [
    Target("coin-api", connection, _connections, (), 4 * MEGABYTE),
    Target("coin-api-body", body, lambda: [b'\0{"address": "a", "to": [{"coins": null}]}'], (BadBodyError,)),
]
