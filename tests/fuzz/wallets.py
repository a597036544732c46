"""Targets that others give to people: wallets, secrets under a password, transactions to sign, payments."""

from __future__ import annotations

import base64
import json

from coin.chain.address import address_text
from coin.chain.hashing import sha256
from coin.chain.seeds import point_hash
from coin.chain.spending import Payment
from coin.wallet.encryption import XOR, open_sealed
from coin.wallet.errors import WalletError
from coin.wallet.kinds import Collection
from coin.wallet.offline import DocumentError, read_unsigned, sign_unsigned
from coin.wallet.payment import Wish, created_json, funds_of, plan_payment
from coin.wallet.recipients import parse_payments
from coin.wallet.wallet import decode_wallet, new_bip44, new_collection, new_wallet, new_watching
from coin.wallet.words import words_of
from meshnet.cipher.keys import SecretKey
from meshnet.errors import UsageError
from tests.coin.wallet.test_encryption import QUICK, counted
from tests.coin.wallet.test_payment import FIRST, SECOND, WALLET, node, unspent
from tests.fuzz.target import MEGABYTE, Target

WORDS = words_of(bytes(16))


def wallet(data: bytes) -> None:
    """The bytes of a wallet's file; what is taken is written, read again, and grows."""
    found = decode_wallet(data)
    again = decode_wallet(found.encode())
    assert again.encode() == found.encode()
    assert again.texts == found.texts
    if found.grows:
        found.grow(1)


def _wallets() -> list[bytes]:
    accounts = new_bip44(WORDS, "a", "a.wlt", 0, 1)
    collection: Collection = new_collection("c", "c.wlt", 0)
    collection.add(SecretKey(b"\1" * 32))
    watching = new_watching(accounts.chains("external")[0].parent.xpub, "x", "x.wlt", 0)
    plain = new_wallet("seed", "d", "d.wlt", 0)
    made = [accounts, collection, watching, plain, plain.locked(QUICK, counted())]
    return [each.encode() for each in made]


def sealed(data: bytes) -> None:
    """Secrets under the old cipher, whose password costs nothing; the first hash is right."""
    open_sealed(base64.b64encode(sha256(data) + data).decode(), XOR, "pwd")


def _sealed() -> list[bytes]:
    rest = (7).to_bytes(4, "little") + b"secrets" + bytes(21)
    nonce, plain, blocks = bytes(32), sha256(rest) + rest, b""
    for number in range(2):
        place = bytes([number << 1]).ljust(32, b"\0")
        mask = sha256(point_hash(b"pwd") + sha256(place + sha256(nonce)))
        blocks += bytes(a ^ b for a, b in zip(plain[number * 32 :][:32], mask, strict=True))
    return [nonce + blocks]


def document(data: bytes) -> None:
    """A transaction to sign, and the signatures of a wallet that some of it may belong to."""
    sign_unsigned(read_unsigned(data.decode("utf-8", "replace")), WALLET)


def _documents() -> list[bytes]:
    funds = funds_of(WALLET, node(unspent(1), unspent(2, SECOND)))
    plan = plan_payment(funds, Wish((Payment(FIRST, 7_000_000),)))
    made = created_json(plan, plan.transaction(), funds)
    return [json.dumps(each).encode() for each in (made, {"data": made})]


def payments(data: bytes) -> None:
    """A list of payments."""
    assert parse_payments(data.decode("utf-8", "replace"))


TARGETS = [
    Target("wallet", wallet, _wallets, (WalletError,), 2 * MEGABYTE, 4_096),
    Target("sealed", sealed, _sealed, (WalletError,), MEGABYTE, 500),
    Target("document", document, _documents, (DocumentError, WalletError), 2 * MEGABYTE, 4_096),
    Target(
        "payments",
        payments,
        lambda: [f"address,coins\n{address_text(FIRST)},1.5,7\n# x\n".encode()],
        (UsageError,),
        MEGABYTE,
        1_000,
    ),
]
