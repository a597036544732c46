"""The answers that a Go node gave with 181 blocks: ours are the same values in the same order."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from coin.chain.address import parse_address
from coin.chain.amounts import parse_coins
from coin.chain.skycoin import SKYCOIN
from coin.chain.transaction import Output, Transaction, new_transaction
from tests.support.coinapi import Served, golden_store
from tests.support.vectors import vectors

GENESIS = "2jBbGxZRGoQG1mqhPBnXnLTxK6oxsTf8os6"
FIRST = "0551a1e5af999fe8fff529f6f2ab341e1e33db95135eef1b2be44fe6981349f3"
ELEVEN = "70584db7fb8ab88b8dbcfed72ddc42a1aeb8c4882266dbb78439ba3efcd0458d"
SPENT = "fe6762d753d626115c8dd3a053b5fb75d6d419a8d0fb1478c5fffc1fe41c5f20"
LOOSE = "701d23fd513bad325938ba56869f9faba19384a8ec3dd41833aff147eac53947"
TX0 = "d556c1c7abf1e86138316b8c17183665512dc67633c04cf236a8b7f332cb4add"
TX101 = "e8fe5290afba3933389fd5860dca2cbcc81821028be9c65d0bb7cf4e8d2c4c18"
TX105 = "41ec724bd40c852096379d1ae57d3f27606877fa95ac9c082fbf63900e6c5cb5"
ALL = "ALJVNKYL7WGxFBSriiZuwZKWD4b7fbV1od"
TWO = "2THDupTBEo7UqB6dsVizkYUvkKq82Qn4gjf"
QX = "qxmeHkwgAMfwXyaQrwv9jq3qt228xMuoT5"
IN = "212mwY3Dmey6vwnWpiph99zzCmopXTqeVEN"
OUT = "R6aHqKWSQfvpdo2fGSrq4F1RYXkBWR9HHJ"
RICH = "2kvLEyXwAYvHfJuFCkjnYNRTUfHPyWgVwKt"
OTHER = "2JJ8pgq8EDAnrzf9xxBJapE2qkYLefW4uF8"
NOBODY = "prRXwTcDK24hs6AFxj69UuWae3LzhrsPW9"
UNUSED = ("2RRpfMDmPHEyG4LWmNYT6eWj5VcmUfCJY6D", "2b8ourW8fbTkC1yQBSLseVt6srhXvNMHvn9")
HASHES = (
    "9e53268a18f8d32a44b4fb183033b49bebfe9d0da3bf3ef2ad1d560500aa54c6,"
    "d91e07318227651129b715d2db448ae245b442acd08c8b4525a934f0e87efce9,"
    "01f9c1d6c83dbc1c993357436cdf7f214acd0bfa107ff7f1466d1b18ec03563e,"
    f"{SPENT},{LOOSE},540582ee4128b733f810f149e908d984a5f403ad2865108e6c1c5423aeefc759"
)
PAIR = f"{RICH},{OTHER}"
BLOCKS = {
    "block-hash": {"hash": ELEVEN},
    "block-hash-genesis": {"hash": FIRST},
    "block-seq-0": {"seq": 0},
    "block-seq-1": {"seq": 1},
    "block-seq-100": {"seq": 100},
}
RANGES = {
    "all": {"start": 0, "end": 180},
    "end-less-than-start": {"start": 10, "end": 9},
    "first-1": {"start": 1, "end": 1},
    "first-10": {"start": 1, "end": 10},
    "last-10": {"start": 170, "end": 180},
}
Case = tuple[str, Mapping[str, Any]]


def _verbose(name: str) -> str:
    """`block-seq-0` → `block-seq-verbose-0`, as the files are called."""
    kind, how, *rest = name.split("-")
    return "-".join((kind, how, "verbose", *rest))


ONE = "/api/v1/block"
MANY = "/api/v1/blocks"
TRANSACTION = "/api/v1/transaction"
SEVERAL = "/api/v1/transactions"
PAGES = "/api/v2/transactions"
LONG = {"verbose": 1}
CASES: dict[str, Case] = {
    **{f"{name}.golden": (ONE, which) for name, which in BLOCKS.items()},
    **{f"{_verbose(name)}.golden": (ONE, {**which, **LONG}) for name, which in BLOCKS.items()},
    **{f"blocks-{name}.golden": (MANY, which) for name, which in RANGES.items()},
    **{f"blocks-verbose-{name}.golden": (MANY, {**which, **LONG}) for name, which in RANGES.items()},
    "blocks-verbose-genesis.golden": (MANY, {"start": 0, "end": 0, **LONG}),
    "blocks-3-5-7.golden": (MANY, {"seqs": "3,5,7"}),
    "blocks-3-5-7-verbose.golden": (MANY, {"seqs": "3,5,7", **LONG}),
    "block-last.golden": ("/api/v1/last_blocks", {"num": 1}),
    "block-last-verbose.golden": ("/api/v1/last_blocks", {"num": 1, **LONG}),
    "blockchain-metadata.golden": ("/api/v1/blockchain/metadata", {}),
    "blockchain-progress.golden": ("/api/v1/blockchain/progress", {}),
    f"balance-{TWO}.golden": ("/api/v1/balance", {"addrs": f"{TWO},{TWO}"}),
    "balance-noaddrs.golden": ("/api/v1/balance", {"addrs": NOBODY}),
    "balance-two-addrs.golden": ("/api/v1/balance", {"addrs": f"{TWO},{QX}"}),
    "balance-affected-by-unconfirmed-txns.golden": ("/api/v1/balance", {"addrs": f"{OUT},{IN}"}),
    "outputs-noargs.golden": ("/api/v1/outputs", {}),
    "outputs-addrs.golden": ("/api/v1/outputs", {"addrs": f"{ALL},{TWO},{QX},{IN}"}),
    "outputs-hashes.golden": ("/api/v1/outputs", {"hashes": HASHES}),
    "uxout.golden": ("/api/v1/uxout", {"uxid": SPENT}),
    "uxout-spent-179.golden": (
        "/api/v1/uxout",
        {"uxid": "8e55f10a0615a0737e6906132e09ac08a206971ba4b656f004acc7f4b7889bc8"},
    ),
    "uxout-addr.golden": ("/api/v1/address_uxouts", {"address": TWO}),
    "uxout-noaddr.golden": ("/api/v1/address_uxouts", {"address": NOBODY}),
    "coinsupply.golden": ("/api/v1/coinSupply", {}),
    "richlist-default.golden": ("/api/v1/richlist", {}),
    "richlist-all.golden": ("/api/v1/richlist", {"n": 0}),
    "richlist-8.golden": ("/api/v1/richlist", {"n": 8, "include-distribution": "false"}),
    "richlist-150-include-distribution.golden": (
        "/api/v1/richlist",
        {"n": 150, "include-distribution": "true"},
    ),
    "richlist-all-include-distribution.golden": (
        "/api/v1/richlist",
        {"n": 0, "include-distribution": 1},
    ),
    "network-default-peers.golden": ("/api/v1/network/defaultConnections", {}),
    "network-trusted-peers.golden": ("/api/v1/network/connections/trust", {}),
    "network-exchanged-peers.golden": ("/api/v1/network/connections/exchange", {}),
    "pending-transactions.golden": ("/api/v1/pendingTxs", {}),
    "verbose-pending-transactions.golden": ("/api/v1/pendingTxs", LONG),
    "genesis-transaction.golden": (TRANSACTION, {"txid": TX0}),
    "genesis-transaction-verbose.golden": (TRANSACTION, {"txid": TX0, **LONG}),
    "genesis-transaction-encoded.golden": (TRANSACTION, {"txid": TX0, "encoded": 1}),
    "transaction-block-101.golden": (TRANSACTION, {"txid": TX101}),
    "transaction-verbose-block-101.golden": (TRANSACTION, {"txid": TX101, **LONG}),
    "transaction-encoded-block-101.golden": (TRANSACTION, {"txid": TX101, "encoded": 1}),
    "transaction-encoded-block-105.golden": (TRANSACTION, {"txid": TX105, "encoded": 1}),
    "transaction-unconfirmed.golden": (TRANSACTION, {"txid": LOOSE}),
    "transaction-unconfirmed-verbose.golden": (TRANSACTION, {"txid": LOOSE, **LONG}),
    "transaction-unconfirmed-encoded.golden": (TRANSACTION, {"txid": LOOSE, "encoded": 1}),
    **{f"address-transactions-{each}.golden": (SEVERAL, {"addrs": each, **LONG}) for each in UNUSED},
    f"address-transactions-{GENESIS}.golden": (SEVERAL, {"addrs": GENESIS, **LONG}),
    f"address-transactions-{ALL}.golden": (SEVERAL, {"addrs": ALL, **LONG}),
    f"address-transactions-incoming-{IN}.golden": (SEVERAL, {"addrs": IN, **LONG}),
    f"address-transactions-outgoing-{OUT}.golden": (SEVERAL, {"addrs": OUT, **LONG}),
    "all-unconfirmed-txns.golden": (SEVERAL, {"confirmed": 0}),
    "all-unconfirmed-txns-verbose.golden": (SEVERAL, {"confirmed": 0, **LONG}),
    "confirmed-and-unconfirmed-transactions.golden": (SEVERAL, {"addrs": IN}),
    "confirmed-and-unconfirmed-transactions-verbose.golden": (SEVERAL, {"addrs": IN, **LONG}),
    "unconfirmed-excluded-from-transactions.golden": (SEVERAL, {"addrs": IN, "confirmed": 1}),
    "unconfirmed-excluded-from-transactions-verbose.golden": (
        SEVERAL,
        {"addrs": IN, "confirmed": 1, **LONG},
    ),
    "empty-addrs-transactions.golden": (SEVERAL, {"confirmed": "true"}),
    "empty-addrs-transactions-verbose.golden": (SEVERAL, {"confirmed": "true", **LONG}),
    "empty-addrs-transactions-all.golden": (SEVERAL, {}),
    "empty-addrs-transactions-verbose-all.golden": (SEVERAL, LONG),
    "genesis-addr-transactions.golden": (SEVERAL, {"addrs": GENESIS}),
    "genesis-addr-transactions-verbose.golden": (SEVERAL, {"addrs": GENESIS, **LONG}),
    "single-addr-transactions.golden": (SEVERAL, {"addrs": RICH}),
    "single-addr-transactions-verbose.golden": (SEVERAL, {"addrs": RICH, **LONG}),
    "multiple-addr-transactions.golden": (SEVERAL, {"addrs": PAIR}),
    "multiple-addr-transactions-verbose.golden": (SEVERAL, {"addrs": PAIR, **LONG}),
    "genesis-addr-transactions-v2.golden": (PAGES, {"addrs": GENESIS}),
    "single-addr-transactions-v2.golden": (PAGES, {"addrs": RICH}),
    "multiple-addr-transactions-all.golden": (PAGES, {"addrs": PAIR}),
    "transactions-page-1-with-default-limit": (PAGES, {"page": 1}),
    "transactions-page-1-with-default-limit-verbose": (PAGES, {"page": 1, **LONG}),
    "transactions-page-1-with-default-page-size": (PAGES, {"page": 1, "limit": 10}),
    "transactions-page-1-with-default-page-size-verbose": (PAGES, {"limit": 10, **LONG}),
    "transactions-page-10-with-size-5": (PAGES, {"page": 10, "limit": 5}),
    "transactions-page-19-with-size-10": (PAGES, {"page": 19, "limit": 10}),
}
"""What is asked with GET of the node whose pool has a transaction."""
QUIET: dict[str, Case] = {
    "blockchain-metadata-no-unconfirmed.golden": ("/api/v1/blockchain/metadata", {}),
    "no-unconfirmed-txns.golden": (SEVERAL, {"confirmed": 0}),
    "no-unconfirmed-outputs-noargs.golden": ("/api/v1/outputs", {}),
    "no-unconfirmed-outputs-addrs.golden": ("/api/v1/outputs", {"addrs": f"{ALL},{TWO},{QX}"}),
    "no-unconfirmed-outputs-hashes.golden": ("/api/v1/outputs", {"hashes": HASHES}),
}
"""The same of the one whose pool is empty."""


@pytest.fixture(scope="module")
def nodes() -> Iterator[dict[str, Served]]:
    """Both nodes."""
    folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
    found = vectors("skycoin/db")
    stores = {
        name: golden_store(folder, found / f"{name}.db", SKYCOIN)
        for name in ("blockchain-180", "blockchain-180-no-unconfirmed")
    }
    yield {name: Served(store) for name, store in stores.items()}
    for store in stores.values():
        store.close()
    shutil.rmtree(folder)


OTHERS = {
    "address-transactions-R6aHqKWSQfvpdo2fGSrq4F1RYXkBWR9HHJ.golden": "of a longer chain",
    "genesis-raw-tx.golden": "an empty file; the answer is checked below",
    "transaction-block-517.golden": "of a longer chain",
    "transaction-encoded.golden": "of a longer chain",
    "transaction-verbose-block-517.golden": "of a longer chain",
    "uxout-spent.golden": "of a longer chain",
    "wallet-balance-bip44.golden": "of a wallet: test_wallets.py",
    "wallet-balance-deterministic.golden": "of a wallet: test_wallets.py",
    "wallet-balance-xpub.golden": "of a wallet: test_wallets.py",
    "wallet-bip44-transactions.golden": "of a wallet: test_wallets.py",
    "wallet-bip44-transactions-verbose.golden": "of a wallet: test_wallets.py",
    "wallet-deterministic-transactions.golden": "of a wallet: test_wallets.py",
    "wallet-deterministic-transactions-verbose.golden": "of a wallet: test_wallets.py",
    "wallet-xpub-transactions.golden": "of a wallet: test_wallets.py",
    "wallet-xpub-transactions-verbose.golden": "of a wallet: test_wallets.py",
}
"""Files that 181 blocks do not determine, or that come with the wallets."""


def same(found: Any, name: str) -> None:
    """The value is that of a file, in the same order."""
    right = json.loads((vectors("skycoin/api-golden") / name).read_text())
    assert json.dumps(found) == json.dumps(right)


@pytest.mark.parametrize("name", CASES)
def test_with_a_pool(nodes: dict[str, Served], name: str) -> None:
    """What is asked with GET."""
    path, query = CASES[name]
    answer = nodes["blockchain-180"].get(path, **query)
    assert answer.status == 200, answer.text
    same(answer.json["data"] if "/v2/" in path else answer.json, name)


VERIFIED = {
    "verify-transaction-invalid-empty.golden": "soft constraint: Transaction has zero coinhour fee",
    "verify-transaction-invalid-bad-sig.golden": "hard constraint: Signature not valid for hash",
}
"""What is wrong with the transaction in a file."""


def bytes_of(name: str) -> str:
    """The transaction of a file, which is in it as JSON alone, in hex."""
    shown = json.loads((vectors("skycoin/api-golden") / name).read_text())["transaction"]
    if not shown["length"]:
        return Transaction(0, 0, bytes(32), (), (), ()).raw.hex()
    outputs = tuple(
        Output(parse_address(each["address"]), parse_coins(each["coins"]), int(each["hours"]))
        for each in shown["outputs"]
    )
    made = new_transaction([bytes.fromhex(each["uxid"]) for each in shown["inputs"]], outputs)
    signatures = tuple(bytes.fromhex(each) for each in shown["sigs"])
    return Transaction(made.length, 0, made.inner, signatures, made.inputs, outputs).raw.hex()


@pytest.mark.parametrize("unsigned", [True, False])
@pytest.mark.parametrize("name", VERIFIED)
def test_verify(nodes: dict[str, Served], name: str, unsigned: bool) -> None:
    """What is wrong with a transaction, and the transaction with it."""
    body = {"encoded_transaction": bytes_of(name), "unsigned": unsigned}
    answer = nodes["blockchain-180"].post("/api/v2/transaction/verify", body)
    assert answer.status == 422
    assert answer.json["error"] == {"message": f"Transaction violates {VERIFIED[name]}", "code": 422}
    same(answer.json["data"], name)


def test_verify_address(nodes: dict[str, Served]) -> None:
    """An address that is one."""
    answer = nodes["blockchain-180"].post(
        "/api/v2/address/verify", {"address": "7cpQ7t3PZZXvjTst8G7Uvs7XH4LeM8fBPD"}
    )
    same(answer.json["data"], "verify-address.golden")


@pytest.mark.parametrize("name", QUIET)
def test_without(nodes: dict[str, Served], name: str) -> None:
    """The same while nothing waits."""
    path, query = QUIET[name]
    same(nodes["blockchain-180-no-unconfirmed"].get(path, **query).json, name)


def test_raw(nodes: dict[str, Served]) -> None:
    """Bytes of transactions in hex, of a block and of the pool."""
    node = nodes["blockchain-180"]
    for number in (TX0, LOOSE):
        told = node.get(TRANSACTION, txid=number, encoded=1).json["encoded_transaction"]
        assert node.get("/api/v1/rawtx", txid=number).json == told


def test_all_files() -> None:
    """Every file is asked for, or listed with a reason."""
    names = {each.name for each in vectors("skycoin/api-golden").iterdir()}
    asked = {*CASES, *QUIET, *VERIFIED, "verify-address.golden"}
    assert asked | set(OTHERS) == names
    assert not asked & set(OTHERS)
