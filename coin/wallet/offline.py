"""Signing without a node: a document that says what a transaction spends, checked as far as hashes reach.

An input's id is the hash of where it came from, its owner, coins and first hours. So a document cannot lie
about these, whoever wrote it: what a transaction pays is what is shown. What it burns depends on the time of
the last block, which only a node knows: `fee` is as the document says.
"""

from __future__ import annotations

import json
from collections.abc import Collection, Sequence
from typing import Any, Final

from attrs import frozen

from coin.chain.address import Address, parse_address
from coin.chain.amounts import parse_coins
from coin.chain.signatures import UNSIGNED
from coin.chain.transaction import Output, Transaction, Unspent, decode_transaction
from coin.wallet.base import Wallet
from coin.wallet.errors import WalletError
from meshnet.errors import CodecError, UsageError
from meshnet.node.app import Json

LARGEST = 16 << 20
"""Characters of a document."""


class DocumentError(WalletError):
    """Text that is no transaction to sign, or one whose parts contradict each other."""


@frozen
class Unsigned:
    """A transaction and what it spends, in the order of its inputs; `document` is what it was read from."""

    transaction: Transaction
    spent: tuple[Unspent, ...]
    document: Json

    @property
    def complete(self) -> bool:
        """Whether every input is signed."""
        return UNSIGNED not in self.transaction.signatures

    def outputs(self, own: Sequence[Address]) -> tuple[list[Output], list[Output]]:
        """What others get, and what comes back to any of `own`."""
        mine = set(own)
        outputs = self.transaction.outputs
        return [each for each in outputs if each.address not in mine], [
            each for each in outputs if each.address in mine
        ]

    @property
    def fee(self) -> str:
        """Hours that are burnt, as the document says."""
        return str(self.document["transaction"].get("fee", "?"))[:20]


_NOT_ONE: Final = (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError)
"""What JSON of another form raises when it is read as ours; 1e999 is a number without end there."""


def read_unsigned(text: str) -> Unsigned:
    """Reads and checks a document; raises DocumentError."""
    try:
        if len(text) > LARGEST:
            raise ValueError
        document = json.loads(text)
        if "data" in document:  # as the API answers
            document = document["data"]
        transaction = decode_transaction(bytes.fromhex(document["encoded_transaction"]))
        spent = tuple(_unspent(each) for each in document["transaction"]["inputs"])
    except (*_NOT_ONE, CodecError, UsageError):
        raise DocumentError(
            "This is no transaction to sign; take what coin wallet send --unsigned wrote."
        ) from None
    if tuple(each.id for each in spent) != transaction.inputs:
        raise DocumentError("The document does not say truly what the transaction spends; do not sign it.")
    _check(transaction, spent)
    return Unsigned(transaction, spent, document)


def _unspent(row: Any) -> Unspent:
    """An input; its id is made of what it says, so a false word makes another id."""
    source = bytes.fromhex(row["txid"])
    hours = int(row["hours"])
    if len(source) != 32 or not 0 <= hours < 1 << 64:
        raise ValueError
    time, block = int(row.get("timestamp", 0)), int(row.get("block", 0))
    if not (0 <= time < 1 << 64 and 0 <= block < 1 << 64):
        raise ValueError
    return Unspent(time, block, source, parse_address(row["address"]), parse_coins(row["coins"]), hours)


def _check(transaction: Transaction, spent: Sequence[Unspent]) -> None:
    """Raises DocumentError for what no node would take, or nobody should sign."""
    if transaction.inner != transaction.true_inner or transaction.length != len(transaction.raw):
        raise DocumentError("The transaction is damaged: its hash or length is wrong.")
    if len(transaction.signatures) != len(transaction.inputs):
        raise DocumentError("The transaction has not as many places for signatures as inputs.")
    if len(set(transaction.inputs)) != len(transaction.inputs) or not transaction.inputs:
        raise DocumentError("The transaction spends nothing, or the same output twice.")
    if sum(each.coins for each in spent) != sum(each.coins for each in transaction.outputs):
        raise DocumentError("The transaction gives more or fewer coins than it spends.")


def sign_inputs(
    transaction: Transaction,
    owners: Sequence[Address],
    wallet: Wallet,
    indexes: Collection[int] | None = None,
) -> Transaction:
    """The transaction with the signatures of a wallet; `owners` are those of its inputs, in order. `indexes`:
    exactly these inputs, which must be the wallet's and not signed yet; None: all that are. Raises
    WalletError, EncryptedError, UnsuitableError."""
    keys = {each.address: each.key for each in wallet.entries}
    empty = [each == UNSIGNED for each in transaction.signatures]
    if indexes is None:
        wanted = {place for place, owner in enumerate(owners) if owner in keys and empty[place]}
    else:
        wanted = set(indexes)
        for place in wanted:
            if not 0 <= place < len(owners):
                raise WalletError(f"There is no input {place}; the last is {len(owners) - 1}.")
            if not empty[place]:
                raise WalletError(f"Input {place} is signed already.")
    chosen = [
        keys.get(owner) or wallet.key_of(owner) if place in wanted else None
        for place, owner in enumerate(owners)
    ]
    return transaction.signed(chosen)


def sign_unsigned(unsigned: Unsigned, wallet: Wallet) -> Unsigned:
    """The same with all signatures that the wallet can give. Raises WalletError if it owns nothing of it,
    EncryptedError, UnsuitableError."""
    owners = [each.address for each in unsigned.spent]
    if not set(owners) & set(wallet.addresses):
        raise WalletError("Nothing that this transaction spends belongs to the wallet.")
    signed = sign_inputs(unsigned.transaction, owners, wallet)
    described = unsigned.document["transaction"]
    rows = zip(described.get("outputs", []), signed.unspents(0, 1), strict=False)
    shown = {
        **described,
        "txid": signed.id.hex(),
        "sigs": [each.hex() for each in signed.signatures],
        "outputs": [{**row, "uxid": each.id.hex()} for row, each in rows],
    }
    document = {**unsigned.document, "transaction": shown, "encoded_transaction": signed.raw.hex()}
    return Unsigned(signed, unsigned.spent, document)
