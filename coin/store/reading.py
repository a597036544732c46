"""What can be asked of a chain's store: outputs, transactions, histories, balances, sums; all by index.

`StoreReader` has the questions; each sees one state of the database. `SteadyReader` has a connection of its
own, so that nobody else waits for it, and answers several questions out of one state. Both are blocking, for
one thread at a time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol, TypeVar

from attrs import frozen

from coin.chain.address import Address
from coin.chain.block import Block, decode_block
from coin.chain.params import Chain
from coin.chain.rules import Head
from coin.chain.transaction import Transaction, Unspent
from coin.store.figures import Balance, Supply, balances, richest, supply, unspents_of
from coin.store.pages import Page, count, page, spent_by
from coin.store.pool import PoolReader
from coin.store.rows import (
    CONFIRMED,
    OUTPUT,
    Confirmed,
    confirmed_of,
    find_unspent,
    read_head,
    unspent_of,
)  # fmt: skip
from meshnet.storage.database import Connection, Reader, Work

T = TypeVar("T")


class Reads(Protocol):
    """A database, or a reader of it."""

    def read(self, work: Work[T]) -> T:
        """The result of `work`, which sees one state of the database."""


@frozen
class Kept:
    """An output of the chain. If it is spent, `spent_by` is a transaction id and `spent_in` a block."""

    unspent: Unspent
    spent_by: bytes | None
    spent_in: int | None


_BLOCK_AT = "SELECT data FROM block WHERE sequence = ?"
_BLOCK_OF = "SELECT data FROM block WHERE hash = ?"


class StoreReader:
    """Questions to a store. `head` is the last block's that it knows, `pool` the loose transactions."""

    def __init__(self, database: Reads, chain: Chain, pool: PoolReader) -> None:
        self._reads = database
        self.chain = chain
        self.pool = pool
        self.head: Head = database.read(read_head)
        self._supply: Supply | None = None

    def look(self, work: Work[T]) -> T:
        """The result of `work`, which sees one state of the database throughout and writes nothing."""
        return self._reads.read(work)

    def find(self, number: bytes) -> Unspent | None:
        """The output of that id if it is unspent."""
        return self._reads.read(lambda connection: find_unspent(connection, number))

    def block(self, which: int | bytes) -> Block | None:
        """The block of a sequence or a hash."""
        statement = _BLOCK_AT if isinstance(which, int) else _BLOCK_OF
        rows = self._reads.read(lambda connection: connection.execute(statement, (which,)))
        return decode_block(rows[0][0]) if rows else None

    def raw_blocks(self, start: int, count: int, most_bytes: int) -> list[bytes]:
        """Signed blocks from sequence `start` on: at most `count`, at most `most_bytes` together."""
        found: list[bytes] = []

        def work(connection: Connection) -> None:
            left = most_bytes
            statement = "SELECT data FROM block WHERE sequence >= ? ORDER BY sequence LIMIT ?"
            for (data,) in connection.rows(statement, (start, count)):
                left -= len(data)
                if left < 0:
                    break
                found.append(data)

        self._reads.read(work)
        return found

    def transaction(self, number: bytes) -> Confirmed | None:
        """The transaction of an id, if it is in a block."""
        rows = self._rows(CONFIRMED + "WHERE tx.id = ?", number)
        return confirmed_of(rows[0]) if rows else None

    def history(
        self, address: Address, limit: int, *, before: int | None = None, after: int | None = None
    ) -> list[Confirmed]:
        """Transactions that touch an address: the newest `limit` first, older than number `before`; or with
        `after` the oldest first, newer than that."""
        newest = after is None
        bound = after if after is not None else 1 << 62 if before is None else before
        statement = (
            CONFIRMED
            + "JOIN history ON history.tx = tx.number JOIN address ON address.number = history.address "
            + f"WHERE address.address = ? AND history.tx {'<' if newest else '>'} ? "
            + f"ORDER BY history.tx {'DESC' if newest else 'ASC'} LIMIT ?"
        )
        return [confirmed_of(row) for row in self._rows(statement, address, bound, limit)]

    def page(
        self, addresses: Sequence[Address] | None, offset: int, limit: int, *, newest: bool = False
    ) -> Page:
        """`limit` transactions behind the first `offset`: of all, or (at most 1,000 addresses) of those that
        touch any of some. Ordered by block, then by id; the oldest first, or the `newest`."""
        return self._reads.read(lambda connection: page(connection, addresses, offset, limit, newest=newest))

    def spent_by(self, transactions: Iterable[Transaction]) -> list[tuple[Unspent, ...]]:
        """What each transaction spends, in its order; outputs that the chain does not have are left out."""
        return self._reads.read(lambda connection: [spent_by(connection, each) for each in transactions])

    def transaction_count(self, address: Address | None = None) -> int:
        """How many transactions there are, or touch an address."""
        if address is None:
            return self._reads.read(count)
        rows = self._rows("SELECT txs FROM address WHERE address = ?", address)
        return int(rows[0][0]) if rows else 0

    def unspents(self, address: Address) -> list[Unspent]:
        """What an address owns, the oldest first."""
        return self._reads.read(lambda connection: unspents_of(connection, address))

    def all_unspents(self) -> list[Unspent]:
        """All that is unspent, the oldest first."""
        return [
            unspent_of(row)
            for row in self._rows(OUTPUT + "WHERE output.spent IS NULL ORDER BY output.number")
        ]

    def outputs(self, address: Address, limit: int, *, before: int | None = None) -> list[tuple[int, Kept]]:
        """All that an address was ever given, spent or not: the newest `limit` first, each with its number,
        older than number `before`."""

        def work(connection: Connection) -> list[tuple[int, Kept]]:
            statement = OUTPUT + (
                "WHERE address.address = ? AND output.number < ? ORDER BY output.number DESC LIMIT ?"
            )
            bound = 1 << 62 if before is None else before
            rows = connection.execute(statement, (address, bound, limit))
            return [(row[7], _kept(connection, row)) for row in rows]

        return self._reads.read(work)

    def output(self, number: bytes) -> Kept | None:
        """The output of an id, spent or not."""

        def work(connection: Connection) -> Kept | None:
            rows = connection.execute(OUTPUT + "WHERE output.id = ?", (number,))
            return _kept(connection, rows[0]) if rows else None

        return self._reads.read(work)

    def coins(self, address: Address) -> int:
        """Droplets that an address owns."""
        rows = self._rows("SELECT coins FROM address WHERE address = ?", address)
        return int(rows[0][0]) if rows else 0

    def balance(self, addresses: Iterable[Address]) -> dict[Address, Balance]:
        """What each address owns now, and will when the pool is in blocks (of two loose transactions that
        spend the same, the one that burns more). Coins and hours are the indexes' sums."""
        return self._reads.read(lambda connection: balances(connection, self.chain, addresses))

    def richest(self, count: int, *, without: frozenset[Address] = frozenset()) -> list[tuple[Address, int]]:
        """The addresses that own most, and their droplets; the richest first. Of those that own the same,
        locked ones come first, then the smaller."""
        return self._reads.read(lambda connection: richest(connection, self.chain, count, without))

    def address_count(self) -> int:
        """How many addresses own something."""
        return int(self._rows("SELECT owners FROM tally")[0][0])

    def unspent_count(self) -> int:
        """How many outputs are unspent."""
        return int(self._rows("SELECT unspents FROM tally")[0][0])

    def supply(self) -> Supply:
        """The coins and hours of the chain. The hours are summed once for each head, over all unspent
        outputs."""
        known, head = self._supply, self.head
        if known is None or known.head.hash != head.hash:
            known = self._supply = self._reads.read(lambda connection: supply(connection, self.chain))
        return known

    def _rows(self, statement: str, *parameters: bytes | int) -> list[tuple[Any, ...]]:
        return self._reads.read(lambda connection: connection.execute(statement, parameters))


class SteadyReader(StoreReader):
    """Questions over a connection of its own. Inside `steadily` all answers, and `head`, are of one state."""

    def __init__(self, reader: Reader, chain: Chain) -> None:
        super().__init__(reader, chain, PoolReader(reader, chain))
        self._reader = reader

    @contextlib.contextmanager
    def steadily(self) -> Iterator[SteadyReader]:
        """Looks at the present state, until the block is left."""
        with self._reader.steadily():
            self.head = self._reader.read(read_head)
            yield self

    def close(self) -> None:
        """Ends the connection."""
        self._reader.close()


def _kept(connection: Connection, row: Sequence[Any]) -> Kept:
    spent = connection.execute(
        "SELECT tx.id, tx.block FROM output JOIN tx ON tx.number = output.spent WHERE output.number = ?",
        (row[7],),
    )
    by, where = spent[0] if spent else (None, None)
    return Kept(unspent_of(row), by, where)
