"""Rows of the chain's tables as values: the statements that several parts need, and what their rows mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from coin.chain.address import Address
from coin.chain.block import Header
from coin.chain.rules import Head
from coin.chain.transaction import Transaction, Unspent, decode_transaction
from coin.store.schema import amount
from meshnet.errors import CodecError
from meshnet.storage.database import Connection
from meshnet.storage.disk import CorruptFileError

OUTPUT: Final = (
    "SELECT output.born, tx.block, tx.id, address.address, output.coins, output.hours, output.id, "
    "output.number FROM output JOIN tx ON tx.number = output.tx "
    "JOIN address ON address.number = output.address "
)
"""Outputs, of which `unspent_of` makes a value; to be narrowed by WHERE."""
CONFIRMED: Final = (
    "SELECT substr(block.data, tx.start + 1, tx.size), tx.block, block.time, tx.number, tx.id "
    "FROM tx JOIN block ON block.sequence = tx.block "
)
"""Transactions, of which `confirmed_of` makes a value."""


@frozen
class Confirmed:
    """A transaction of the chain, the block it is in, that block's time, its place in the order of all."""

    transaction: Transaction
    block: int
    time: int
    number: int


def confirmed_of(row: Sequence[Any]) -> Confirmed:
    """A row of `CONFIRMED`; raises CorruptFileError if those are not the bytes of that id."""
    data, block, time, number, identity = row
    try:
        transaction = decode_transaction(data)
    except CodecError:
        transaction = None
    if transaction is None or transaction.id != identity:
        raise CorruptFileError(f"transaction {identity.hex()} of block {block} is damaged: check the store")
    return Confirmed(transaction, block, time, number)


def unspent_of(row: Sequence[Any]) -> Unspent:
    """A row of `OUTPUT`; raises CorruptFileError if its columns are not those of its id."""
    time, block, source, address, coins, hours, identity, _ = row
    # The genesis output alone has no source.
    found = Unspent(time, block, source if block else bytes(32), Address(address), coins, amount(hours))
    if found.id != identity:
        raise CorruptFileError(f"output {identity.hex()} of block {block} is damaged: check the store")
    return found


def block_time(connection: Connection, sequence: int) -> int:
    """The time of a block that is there."""
    return int(connection.execute("SELECT time FROM block WHERE sequence = ?", (sequence,))[0][0])


def find_unspent(connection: Connection, number: bytes) -> Unspent | None:
    """The output of that id if it is unspent."""
    rows = connection.execute(OUTPUT + "WHERE output.id = ? AND output.spent IS NULL", (number,))
    return unspent_of(rows[0]) if rows else None


def read_head(connection: Connection) -> Head:
    """The last block; raises CorruptFileError if there is none."""
    rows = connection.execute(
        "SELECT hash, substr(data, 1, 124), total FROM block ORDER BY sequence DESC LIMIT 1"
    )
    if not rows:
        raise CorruptFileError("the store has no first block: remove it, or repair it")
    digest, data, total = rows[0]
    return Head(Header.decode(data), digest, total)
