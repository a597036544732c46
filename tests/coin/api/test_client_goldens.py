"""What the Go node's command prints with our API behind it: it puts an answer under one more name."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coin.api.settings import ApiSection
from coin.chain.skycoin import SKYCOIN
from tests.support.coinapi import Served, golden_store
from tests.support.vectors import vectors

LOOSE = "701d23fd513bad325938ba56869f9faba19384a8ec3dd41833aff147eac53947"
TX0 = "d556c1c7abf1e86138316b8c17183665512dc67633c04cf236a8b7f332cb4add"
BLOCKS: dict[str, tuple[str, dict[str, Any]]] = {
    "block0": ("/api/v1/blocks", {"start": 0, "end": 0}),
    "blocks180": ("/api/v1/blocks", {"start": 180, "end": 180}),
    "blocks0-5": ("/api/v1/blocks", {"start": 0, "end": 5}),
    "last-blocks0": ("/api/v1/last_blocks", {"num": 0}),
    "last-blocks1": ("/api/v1/last_blocks", {"num": 1}),
    "last-blocks2": ("/api/v1/last_blocks", {"num": 2}),
}
TRANSACTIONS = {
    "genesis-transaction": TX0,
    "genesis-transaction-cli": TX0,
    "unconfirmed-transaction-cli": LOOSE,
}
STATUS = {
    "status": ("blockchain-180", False, True),
    "status-no-unconfirmed": ("blockchain-180-no-unconfirmed", False, True),
    "status-csrf-enabled-header-check-disabled": ("blockchain-180", True, False),
    "status-csrf-enabled-header-check-disabled-no-unconfirmed": (
        "blockchain-180-no-unconfirmed",
        True,
        False,
    ),
}
"""The node's database, whether it asks for tokens, whether it checks Host."""
OURS = ("version", "user_agent", "uptime", "started_at", "csp_enabled", "wallet_api_enabled")
"""What says which program answers and how it was started; it was a desktop's with a wallet."""
ELSEWHERE = {
    *("address-balance", "address-outputs", "two-addresses-outputs", "wallet-balance", "wallet-outputs"),
    *("wallet-history", "decode-raw-transaction", "recompute-transaction-hash", "list-addresses"),
    *(f"create-wallet-bip44{each}" for each in ("", "-encrypt", "-with-passphrase")),
    *(f"create-wallet-collection-{each}" for each in ("1", "2", "empty", "encrypt")),
    *(f"create-wallet-deterministic{each}" for each in ("", "-encrypt", "-n-2")),
    *("create-wallet-xpub", "generate-addresses", "generate-addresses-2", "generate-addresses-encrypted"),
}
"""Compared with our verbs in tests/coin/wallet/test_verbs.py."""
NOT = {
    "generate-address-collection": "addresses of keys that are not published with it",
    "show-config": "where that command has its files",
}


def printed(name: str) -> Any:
    """What the command printed."""
    return json.loads(vectors(f"skycoin/cli-golden/{name}.golden").read_text())


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """Both databases of a Go node."""
    made = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
    yield made
    shutil.rmtree(made)


def served(folder: Path, name: str, *, csrf: bool = False, check: bool = True) -> Iterator[Served]:
    """A node with one of them."""
    store = golden_store(folder, vectors("skycoin/db") / f"{name}.db", SKYCOIN)
    yield Served(store, ApiSection(csrf=csrf, header_check=check))
    store.close()


@pytest.fixture(scope="module")
def node(folder: Path) -> Iterator[Served]:
    """The one whose pool has a transaction."""
    yield from served(folder, "blockchain-180")


@pytest.mark.parametrize("name", BLOCKS)
def test_blocks(node: Served, name: str) -> None:
    """`blocks` and `lastBlocks` print an answer as it is."""
    path, query = BLOCKS[name]
    assert json.dumps(node.get(path, **query).json) == json.dumps(printed(name))


@pytest.mark.parametrize("name", TRANSACTIONS)
def test_transaction(node: Served, name: str) -> None:
    """`transaction` puts it under that name."""
    answer = node.get("/api/v1/transaction", txid=TRANSACTIONS[name]).json
    assert {"transaction": answer} == printed(name)
    if name.endswith("-cli"):  # the other file is older: its names have another order
        assert json.dumps({"transaction": answer}) == json.dumps(printed(name))


@pytest.mark.parametrize("name", STATUS)
def test_status(folder: Path, tmp_path: Path, name: str) -> None:
    """`status` shows the node's health: the same names in the same order, the same values of chain, rules and
    settings."""
    database, csrf, check = STATUS[name]
    for node in served(tmp_path, database, csrf=csrf, check=check):
        answer, known = node.get("/api/v1/health").json, printed(name)["status"]
        theirs, ours = known.pop("fiber", {}), answer.pop("fiber")  # one of the files is older
        for each in theirs.keys() - {"version_url"}:
            assert ours[each] == theirs[each]
        assert list(answer) == list(known)
        for each in OURS:
            assert type(answer.pop(each)) is type(known.pop(each))
        assert answer["blockchain"].pop("time_since_last_block")
        known["blockchain"].pop("time_since_last_block")
        assert json.dumps(answer) == json.dumps(known)


def test_all_files() -> None:
    """Every file is compared, here or elsewhere, or listed with a reason."""
    names = {each.stem for each in vectors("skycoin/cli-golden").glob("*.golden")}
    assert {*BLOCKS, *TRANSACTIONS, *STATUS} | ELSEWHERE | set(NOT) == names
