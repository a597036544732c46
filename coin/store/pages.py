"""Pages of transactions: of all, of one address, of several; by page number or from a number on.

The order is that of time: by block, and inside a block by transaction id, as the Go node gives them. Numbers
of transactions grow with the blocks, so a page is a range of numbers, widened to whole blocks at both ends
where it has to be cut by ids. An offset is walked from the nearer end over an index alone; the pages of all
transactions and the last page of an address cost what the first does. Each function reads the one state that
its connection sees.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import takewhile
from typing import Final

from attrs import frozen

from coin.chain.address import Address
from coin.chain.block import decode_block
from coin.chain.transaction import Transaction, Unspent
from coin.store.rows import CONFIRMED, OUTPUT, Confirmed, confirmed_of, unspent_of
from meshnet.storage.database import Connection
from meshnet.storage.disk import CorruptFileError

_HIGHEST: Final = (1 << 63) - 1
_AT_ONCE: Final = 500
"""Values of one IN (…)."""


@frozen
class Page:
    """Some transactions, in order, of `total` that were asked about."""

    transactions: tuple[Confirmed, ...]
    total: int


class _Asked:
    """The numbers of the transactions that were asked about, smallest first."""

    def __init__(self, connection: Connection, addresses: Sequence[Address] | None) -> None:
        self._connection = connection
        self._source = "SELECT number AS tx FROM tx WHERE 1"
        self._owners: tuple[int, ...] = ()
        if addresses is None:
            self.total = count(connection)
            return
        marks = ",".join("?" * len(addresses))
        rows = connection.execute(
            f"SELECT number, txs FROM address WHERE address IN ({marks})",  # noqa: S608
            tuple(addresses),
        )
        self._owners = tuple(number for number, _ in rows)
        marks = ",".join("?" * len(rows))
        distinct = "DISTINCT " if len(rows) > 1 else ""
        self._source = f"SELECT {distinct}tx FROM history WHERE address IN ({marks})"  # noqa: S608
        if len(rows) > 1:
            statement = f"SELECT count(*) FROM ({self._source})"  # noqa: S608
            self.total = int(connection.execute(statement, self._owners)[0][0])
        else:
            self.total = sum(count for _, count in rows)

    def numbers(self, start: int, end: int) -> list[int]:
        """Those from place `start` up to, without, place `end`."""
        if not self._owners:  # all: there is no gap between them
            return list(range(start + 1, end + 1))
        backward = start > self.total - end
        offset, order = (self.total - end, "DESC") if backward else (start, "ASC")
        statement = f"{self._source} ORDER BY tx {order} LIMIT ? OFFSET ?"
        rows = self._connection.execute(statement, (*self._owners, end - start, offset))
        return sorted(number for (number,) in rows)

    def beside(self, number: int, *, above: bool) -> Iterator[int]:
        """Those above or below `number`, the nearest first."""
        side, order = (">", "ASC") if above else ("<", "DESC")
        column = "tx" if self._owners else "number"
        statement = f"{self._source} AND {column} {side} ? ORDER BY tx {order}"
        return (row[0] for row in self._connection.rows(statement, (*self._owners, number)))


def page(
    connection: Connection, addresses: Sequence[Address] | None, offset: int, limit: int, *, newest: bool
) -> Page:
    """`limit` transactions behind the first `offset`, of all (None) or of those that touch any of some
    addresses; the newest first or the oldest."""
    if addresses is not None and not addresses:
        return Page((), 0)
    asked = _Asked(connection, addresses)
    start, end = (asked.total - offset - limit, asked.total - offset) if newest else (offset, offset + limit)
    start, end = max(start, 0), min(max(end, 0), asked.total)
    if start >= end:
        return Page((), asked.total)
    numbers = asked.numbers(start, end)
    first, last = _place(connection, numbers[0])[0], _place(connection, numbers[-1])[0]
    below = _run(connection, asked.beside(numbers[0], above=False), first)
    above = _run(connection, asked.beside(numbers[-1], above=True), last)
    order = sorted([*below, *numbers, *above], key=lambda number: _place(connection, number))
    chosen = order[len(below) : len(below) + end - start]
    found = confirmed(connection, chosen)
    return Page(tuple(reversed(found) if newest else found), asked.total)


def _place(connection: Connection, number: int) -> tuple[int, bytes]:
    block, identity = connection.execute("SELECT block, id FROM tx WHERE number = ?", (number,))[0]
    return block, identity


def _run(connection: Connection, numbers: Iterator[int], block: int) -> list[int]:
    """Those of a block, from the front."""
    return list(takewhile(lambda number: _place(connection, number)[0] == block, numbers))


def confirmed(connection: Connection, numbers: Sequence[int]) -> list[Confirmed]:
    """The transactions of these numbers, which are there, in that order."""
    found: dict[int, Confirmed] = {}
    for at in range(0, len(numbers), _AT_ONCE):
        part = numbers[at : at + _AT_ONCE]
        rows = connection.execute(CONFIRMED + f"WHERE tx.number IN ({','.join('?' * len(part))})", part)
        found.update((each.number, each) for each in map(confirmed_of, rows))
    return [found[number] for number in numbers]


def page_from(
    connection: Connection, owner: int | None, number: int | None, limit: int, *, newest: bool
) -> tuple[list[Confirmed], bool]:
    """At most `limit` transactions behind that of a number (None: from the first), of an address's row or of
    all (None), the newest first or the oldest; and whether there are more. In the order of their numbers."""
    bound = number if number is not None else _HIGHEST if newest else 0
    side, order = ("<", "DESC") if newest else (">", "ASC")
    table, column, where = (
        ("tx", "number", "1") if owner is None else ("history", "tx", f"address = {owner:d}")
    )
    statement = (
        f"SELECT {column} FROM {table} WHERE {where} AND {column} {side} ? "  # noqa: S608
        f"ORDER BY {column} {order} LIMIT ?"
    )
    found = [each for (each,) in connection.execute(statement, (min(bound, _HIGHEST), limit + 1))]
    return confirmed(connection, found[:limit]), len(found) > limit


def count(connection: Connection) -> int:
    """How many transactions there are."""
    return int(connection.execute("SELECT coalesce(max(number), 0) FROM tx")[0][0])


def spent_by(connection: Connection, it: Transaction) -> tuple[Unspent, ...]:
    """The outputs that a transaction spends, in its order, whether or not they are spent already; those that
    are not in the chain are left out."""
    statement = OUTPUT + "WHERE output.id = ?"
    return tuple(unspent_of(row) for each in it.inputs for row in connection.execute(statement, (each,)))


def first_number(connection: Connection, sequence: int) -> int:
    """The number of the first transaction of a block; of the next one to come if there is no such block."""
    rows = connection.execute("SELECT data FROM block WHERE sequence = ?", (sequence,))
    if not rows:
        return count(connection) + 1
    first = decode_block(rows[0][0]).transactions[0].id
    found = connection.execute("SELECT number FROM tx WHERE id = ?", (first,))
    if not found:
        raise CorruptFileError(f"block {sequence} is damaged: check the store")
    return int(found[0][0])


def touching(
    connection: Connection, addresses: Sequence[Address] | None, start: int, end: int, limit: int
) -> list[int]:
    """Numbers from `start` up to, without, `end` of transactions that touch any of some addresses (None: all
    transactions), the smallest `limit` of them."""
    if addresses is None:
        return list(range(start, min(end, start + limit)))
    marks = ",".join("?" * len(addresses))
    statement = (
        "SELECT DISTINCT tx FROM history JOIN address ON address.number = history.address "  # noqa: S608
        f"WHERE address.address IN ({marks}) AND tx >= ? AND tx < ? ORDER BY tx LIMIT ?"
    )
    return [number for (number,) in connection.execute(statement, (*addresses, start, end, limit))]
