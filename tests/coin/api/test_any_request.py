"""Requests made from the API's description, right and wrong by chance: every answer is one that it describes,
and none is a failure of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin.api.document import document
from coin.api.settings import ApiSection, SetName
from coin.chain.address import address_text
from coin.chain.rules import signers
from coin.chain.transaction import Output
from coin.store.store import open_store
from coin.wallet import encryption
from coin.wallet.folder import Folder, NewWallet
from lab.processes import free_ports
from tests.coin.api.live_server import SEED
from tests.support.chains import Ledger, key, owner, small_chain
from tests.support.coinapi import DISK, Served

COINS = 1_000_000_000
WALLET = "paying.wlt"
FORM = "application/x-www-form-urlencoded"
STREAMS = ("/api/v3/events",)
"""Answered for as long as the client listens: they have tests of their own."""
OPERATIONS = [
    (method.upper(), path, operation)
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
    if path not in STREAMS
]


def ledger() -> Ledger:
    """Three blocks, one with two transactions."""
    made = Ledger(small_chain(COINS))
    half = COINS // 2
    made.add(made.block(made.pay(1, Output(owner(1), half, 50), Output(owner(2), half, 50))))
    made.add(made.block(made.pay(1, Output(owner(3), half, 5)), made.pay(2, Output(owner(1), half, 6))))
    return made


LEDGER = ledger()
LOOSE = LEDGER.pay(1, Output(owner(4), COINS // 2, 1))
KNOWN_HASHES = [
    *(block.hash.hex() for block in LEDGER.blocks),
    *(it.id.hex() for block in LEDGER.blocks for it in block.transactions),
    *(each.hex() for each in LEDGER.unspent),
    LOOSE.id.hex(),
]
ADDRESSES = [address_text(owner(each)) for each in range(6)]


@pytest.fixture(scope="module")
def node() -> Iterator[Served]:
    """One that serves everything."""
    folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
    store = open_store(DISK, folder / "chain.db", LEDGER.chain)
    for block in LEDGER.blocks[1:]:
        assert store.add([block], [[signers(it) for it in block.transactions]]).refused is None
    store.pool.add([LOOSE], 1_700_000_500.0)
    wallets = Folder(DISK, str(folder / "wallets"), lambda size: bytes(size), lambda: 1_700_000_000.0)
    wallets.open()
    secret = key(3).secret.hex()
    wallets.create(NewWallet("collection", "paying", keys=[secret], filename=WALLET))
    sets: tuple[SetName, ...] = (
        "READ",
        "STATUS",
        "TXN",
        "NET_CTRL",
        "STORAGE",
        "WALLET",
        "INSECURE_WALLET_SEED",
    )
    section = ApiSection(csrf=False, sets=sets, wallets=folder / "wallets", keys="none")
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(encryption._COSTS, encryption.SCRYPT, 1 << 4)
        served = Served(store, section, folder=folder, publishes=True)
        yield served
    assert served.api.withdrawing is not None
    served.api.withdrawing.close()
    store.close()
    shutil.rmtree(folder)


HASHES = st.sampled_from(KNOWN_HASHES)
JUNK = st.text(max_size=12) | st.sampled_from(
    ["", "0", "-1", "1e9", "true", "null", "%", "&=", "\x00", "é" * 9]
)
FORMATS: dict[str, st.SearchStrategy[str]] = {
    "hash": HASHES,
    "address": st.sampled_from(ADDRESSES),
    "addresses": st.lists(st.sampled_from(ADDRESSES), max_size=4).map(",".join),
    "hashes": st.lists(HASHES, max_size=4).map(",".join),
    "numbers": st.lists(st.integers(0, 4), max_size=4).map(lambda each: ",".join(map(str, each))),
    "states": st.sampled_from(["pending", "connected,introduced"]),
    "direction": st.sampled_from(["incoming", "outgoing"]),
    "order": st.sampled_from(["asc", "DESC"]),
}
TYPES: dict[str, st.SearchStrategy[str]] = {
    "boolean": st.sampled_from(["0", "1", "true", "false"]),
    "integer": (st.integers(0, 5) | st.integers(-(1 << 65), 1 << 65)).map(str),
    "string": st.sampled_from(
        [
            "txid",
            "client",
            LOOSE.raw.hex(),
            *ADDRESSES,
            WALLET,
            "auto",
            "share",
            "0.5",
            "manual",
            "1",
            "bip44",
        ]
    ),
}


def texts(schema: Any) -> st.SearchStrategy[str]:
    """Texts of a parameter: most are right, some are anything."""
    if "$ref" in schema:
        schema = document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]
    right = FORMATS.get(schema.get("format", ""), TYPES.get(schema.get("type", "string"), JUNK))
    return right | right | right | JUNK


def some(fields: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[dict[str, Any]]:
    """Any of some fields, each with a value."""
    return st.fixed_dictionaries({}, optional=fields)


def values(schema: Any) -> st.SearchStrategy[Any]:
    """Values of a field of a JSON body."""
    odd = st.none() | st.integers() | st.lists(st.integers(), max_size=2) | st.booleans() | JUNK
    if schema.get("type") == "array":
        right: st.SearchStrategy[Any] = st.lists(values(schema["items"]), max_size=3)
    elif schema.get("type") == "object":
        right = some({name: values(each) for name, each in schema["properties"].items()})
    else:
        right = st.booleans() if schema.get("type") == "boolean" else texts(schema)
    return right | right | odd


def requests(operation: Any) -> st.SearchStrategy[dict[str, Any]]:
    """Query, form and body of an operation."""
    query = some({each["name"]: texts(each["schema"]) for each in operation.get("parameters", ())})
    content = operation.get("requestBody", {}).get("content", {})
    made: dict[str, st.SearchStrategy[Any]] = {"query": query}
    if FORM in content:
        fields = content[FORM]["schema"]["properties"]
        made["form"] = some({name: texts(schema) for name, schema in fields.items()})
    if "application/json" in content:
        fields = content["application/json"]["schema"].get("properties", {})
        whole = some({name: values(schema) for name, schema in fields.items()}).map(json.dumps)
        made["body"] = whole | whole | whole | JUNK
    return st.fixed_dictionaries(made)


@pytest.mark.parametrize(
    ("method", "path", "operation"), OPERATIONS, ids=[each[2]["operationId"] for each in OPERATIONS]
)
def test_operations(node: Served, method: str, path: str, operation: Any) -> None:
    """Each operation, with whatever it may get; the answer is held against the description."""

    @given(requests(operation))
    def ask(made: dict[str, Any]) -> None:
        if "body" in made:
            answer = node.once(
                method, path, {"Content-Type": "application/json"}, made["body"].encode("utf-8", "replace")
            )
        elif "form" in made:
            answer = node.post(path, method=method, **made["form"])
        elif method == "GET":
            answer = node.get(path, **made["query"])
        else:
            answer = node.delete(path, **made["query"])
        assert answer.status != 500, answer.text

    ask()


@pytest.mark.parametrize(
    "method", ["GET", "POST", "PUT", "DELETE", "PATCH", "TRACE", "CONNECT", "get", "\xff"]
)
def test_methods(node: Served, method: str) -> None:
    """A method that a path has not, at every path."""
    for path in document()["paths"]:
        if method.lower() not in document()["paths"][path] or method == "get":
            answer = node.once(method, path, {"Content-Type": "application/json"}, b"{}")
            assert answer.status in (400, 401, 405), path


SERVER = """
import sys
from twisted.internet import reactor
from tests.coin.api import live_server
live_server.serve(reactor, sys.argv[1], int(sys.argv[2]))
"""


@pytest.mark.long
@pytest.mark.skipif(shutil.which("schemathesis") is None, reason="schemathesis is not installed (pip)")
def test_schemathesis(tmp_path: Path) -> None:
    """A tool that knows nothing of us reads the description and finds no failure in two minutes."""
    wallets = Folder(DISK, str(tmp_path / "wallets"), lambda size: bytes(size), lambda: 1.0)
    wallets.open()
    wallets.create(NewWallet("deterministic", "paying", seed=SEED, filename=WALLET))
    (port,) = free_ports(1)
    root = Path(__file__).resolve().parents[3]
    command = [sys.executable, "-c", SERVER, str(tmp_path), str(port)]
    server = subprocess.Popen(command, cwd=root, stdout=subprocess.PIPE)
    try:
        assert server.stdout is not None and server.stdout.readline() == b"ready\n"
        url = f"http://127.0.0.1:{port}"
        checks = "not_a_server_error,status_code_conformance,content_type_conformance"
        done = subprocess.run(
            [
                *("schemathesis", "run", f"{url}/api/v3/openapi.json", "--url", url, "--max-time", "120"),
                *("--checks", f"{checks},response_schema_conformance", "--exclude-path", "/api/v3/events"),
            ],
            cwd=tmp_path,
            env={**os.environ, "NO_COLOR": "1"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-8_000:]
    finally:
        server.terminate()
        server.wait()
