"""The book of withdrawals: what was asked under which id, and the one signed transaction that pays it.

A row is durable when `record` returns, and it is written before anybody hears of its transaction; after that
nothing but what became of it is changed, and no row is ever removed. So an id has one transaction for ever.

    withdrawal   number → id, what was asked (canonical JSON without a password), wallet, when, signed bytes,
                 when it was first passed on (0: not yet); its block (−1: none will have it), and then why

Blocking, for the thread that writes beside the chain. No clock: wall seconds come in.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import frozen

from coin.chain.transaction import Transaction, decode_transaction
from meshnet.storage.database import Connection, Database, Schema, open_database
from meshnet.storage.disk import Disk, StrPath
from meshnet.storage.sqlite import Connect, connect_sqlite

APPLICATION: Final = 0x4D57_4452  # "MWDR"
NEVER: Final = -1
"""As a block: none will have it."""
_FIRST: Final = """
CREATE TABLE withdrawal (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    asked TEXT NOT NULL,
    wallet TEXT NOT NULL,
    created INTEGER NOT NULL,
    data BLOB NOT NULL,
    sent INTEGER NOT NULL,
    block INTEGER NOT NULL,
    why TEXT NOT NULL
) STRICT;
CREATE INDEX withdrawal_open ON withdrawal (number) WHERE block = 0;
"""
SCHEMA: Final = Schema(APPLICATION, (_FIRST,))
_ROWS: Final = "SELECT id, asked, wallet, created, data, sent, block, why, number FROM withdrawal "


@frozen
class Withdrawal:
    """A withdrawal that is recorded. `asked` is canonical JSON, `created` and `sent` unix seconds (0: not
    sent yet), `block` the one that has it (0: none yet, `NEVER`: `why`)."""

    id: str
    asked: str
    wallet: str
    created: int
    transaction: Transaction
    sent: int = 0
    block: int = 0
    why: str = ""

    @property
    def settled(self) -> bool:
        """Whether nothing will change any more."""
        return self.block != 0


@frozen
class Row:
    """A withdrawal and the number of its row: they grow in the order in which they were recorded."""

    number: int
    withdrawal: Withdrawal


class WithdrawalBook:
    """The rows of a database. Raises StorageError."""

    def __init__(self, database: Database) -> None:
        self._database = database

    def find(self, id: str) -> Withdrawal | None:
        """The one of an id."""
        rows = self._database.read(lambda it: it.execute(_ROWS + "WHERE id = ?", (id,)))
        return _withdrawal(rows[0]) if rows else None

    def open(self) -> list[Withdrawal]:
        """Those that are not settled, the oldest first."""
        rows = self._database.read(lambda it: it.execute(_ROWS + "WHERE block = 0 ORDER BY number"))
        return [_withdrawal(row) for row in rows]

    def page(self, after: int | None, limit: int, *, newest: bool, open_only: bool) -> list[Row]:
        """Those that follow row `after` in this order (None: from the beginning), at most `limit`."""
        order, than = ("DESC", "<") if newest else ("ASC", ">")
        # No number is as large as the one, or as small as the other.
        start = after if after is not None else (1 << 63) - 1 if newest else 0
        which = "block = 0 AND " if open_only else ""
        statement = f"{_ROWS}WHERE {which}number {than} ? ORDER BY number {order} LIMIT ?"
        rows = self._database.read(lambda it: it.execute(statement, (start, limit)))
        return [Row(row[-1], _withdrawal(row)) for row in rows]

    @property
    def count(self) -> int:
        """How many there are: none is ever removed."""
        rows = self._database.read(lambda it: it.execute("SELECT max(number) FROM withdrawal"))
        return int(rows[0][0] or 0)

    def record(self, it: Withdrawal) -> None:
        """Writes a new one; ConstraintError if there is one of that id."""
        row = (it.id, it.asked, it.wallet, it.created, it.transaction.raw, it.sent, it.block, it.why)

        def work(connection: Connection) -> None:
            connection.execute(
                "INSERT INTO withdrawal (id, asked, wallet, created, data, sent, block, why) "
                "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
                row,
            )

        self._database.write(work)

    def sent(self, ids: Sequence[str], unix: int) -> None:
        """Some were passed on; of when, the first time counts."""
        rows = [(unix, each) for each in ids]
        statement = "UPDATE withdrawal SET sent = ? WHERE id = ? AND sent = 0"
        self._database.write(lambda connection: connection.execute_many(statement, rows))

    def settle(self, settled: Sequence[Withdrawal]) -> None:
        """What became of some, for good."""
        rows = [(each.block, each.why, each.id) for each in settled]
        statement = "UPDATE withdrawal SET block = ?, why = ? WHERE id = ? AND block = 0"
        self._database.write(lambda connection: connection.execute_many(statement, rows))

    def close(self) -> None:
        """Closes the database in order."""
        self._database.close()


def open_book(disk: Disk, path: StrPath, *, connect: Connect = connect_sqlite) -> WithdrawalBook:
    """The book at `path`, made if it is not there. One that is damaged is refused, never made anew: without
    it a withdrawal could be paid twice. Raises StorageError."""
    return WithdrawalBook(open_database(disk, str(path), SCHEMA, connect=connect, separate_reader=False))


def _withdrawal(row: Sequence[Any]) -> Withdrawal:
    id, asked, wallet, created, data, sent, block, why, _ = row
    return Withdrawal(id, asked, wallet, created, decode_transaction(data), sent, block, why)
