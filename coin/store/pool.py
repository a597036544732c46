"""Loose transactions: right ones that are in no block yet. Kept in the store, so that none is lost.

What breaks a hard rule never comes in; what breaks a soft one stays, marked with it, and goes into no block
made here. Of several that spend one output a few may stay until a block has one of them: the others leave
with it. With the pool full, whoever burns the fewest hours for its bytes makes room; what no block takes is
forgotten after days. Waiting only adds to the hours of an input, so a new head can make a refused one right,
and a right one wrong only by spending what it spends: `refresh` looks at the refused ones alone.

Blocking, like the store: `add` and `refresh` write, the others read. No clock: wall seconds come in.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

from attrs import frozen

from coin.chain.address import Address
from coin.chain.amounts import MOST
from coin.chain.params import Chain
from coin.chain.rules import (
    Find,
    HardRuleError,
    RuleError,
    Signers,
    SoftRuleError,
    check_form,
    check_soft,
    check_spending,
    find_inputs,
    signers,
)  # fmt: skip
from coin.chain.transaction import Transaction, Unspent, decode_transaction
from coin.store.rows import find_unspent
from coin.store.verdicts import signers_or_none
from meshnet.limits import COIN_POOL, COIN_POOL_BYTES, COIN_POOL_SECONDS
from meshnet.storage.database import Connection, Database, Reader

CONFLICTS: Final = 4
"""Loose transactions that spend the same output."""
NEVER: Final = -6_795_364_578_871_345_152
"""The time of what has not happened, in nanoseconds: the Go node's zero time."""
_NANO: Final = 1_000_000_000
_HIGHEST: Final = (1 << 63) - 1


@frozen
class Taken:
    """What became of a transaction: whether it is `new` in the pool, and the rule it breaks (a soft one
    leaves it in). `full`: there was no room for its fee."""

    id: bytes
    new: bool
    refused: RuleError | None = None
    full: bool = False


@frozen
class Loose:
    """A transaction of the pool. Times in nanoseconds since 1970, `announced` may be `NEVER`; `fee` in hours,
    `rate` what it burns for each 1,024 bytes (-1 if `refused`); `rule` the name of the soft rule it breaks
    and `refusal` the sentence, both empty if none."""

    transaction: Transaction
    received: int
    checked: int
    announced: int
    fee: int
    rate: int
    rule: str
    refusal: str

    @property
    def refused(self) -> SoftRuleError | None:
        """The soft rule it breaks."""
        return SoftRuleError(self.rule, self.refusal) if self.rule else None


class PoolReader:
    """Questions to the pool of a store."""

    def __init__(self, database: Database | Reader, chain: Chain) -> None:
        self._reads = database
        self._chain = chain

    def __len__(self) -> int:
        return int(self._rows("SELECT count(*) FROM loose")[0][0])

    @property
    def size(self) -> int:
        """Bytes of all together."""
        return int(self._rows("SELECT coalesce(sum(size), 0) FROM loose")[0][0])

    def get(self, number: bytes) -> Loose | None:
        """The one of an id."""
        rows = self._rows(_LOOSE + "WHERE id = ?", number)
        return _loose(rows[0]) if rows else None

    def all(self) -> list[Loose]:
        """All, the oldest first."""
        return [_loose(row) for row in self._rows(_LOOSE + "ORDER BY received, number")]

    def valid(self) -> list[bytes]:
        """Ids of those that break no rule, those that burn most for their bytes first."""
        return [row[0] for row in self._rows("SELECT id FROM loose WHERE rate >= 0 ORDER BY rate DESC, id")]

    def spenders(self, output: bytes) -> list[bytes]:
        """Ids of those that spend an output: more than one are in conflict."""
        statement = "SELECT id FROM loose_input JOIN loose ON number = loose WHERE output = ? ORDER BY id"
        return [row[0] for row in self._rows(statement, output)]

    def touching(self, address: Address) -> list[Loose]:
        """Those that spend what an address owns or give to it; who burns most for its bytes first."""
        return [_loose(row) for row in self._rows(_TOUCHING, address)]

    def unknown(self, ids: Sequence[bytes]) -> list[bytes]:
        """Those of the ids that are neither here nor in the chain."""
        statement = (
            "SELECT 1 WHERE EXISTS (SELECT 1 FROM loose WHERE id = ?1) "
            "OR EXISTS (SELECT 1 FROM tx WHERE id = ?1)"
        )
        return self._reads.read(
            lambda connection: [each for each in ids if not connection.execute(statement, (each,))]
        )

    def candidates(self) -> Mapping[Transaction, int]:
        """Those that a block may take now, and the hours they burn."""
        limits, locked = self._chain.block, self._chain.locked

        def look(connection: Connection) -> dict[Transaction, int]:
            found = {}
            time = _head_time(connection)
            for row in connection.execute(_LOOSE + "ORDER BY rate DESC, id"):
                it = _loose(row).transaction
                try:
                    inputs = find_inputs(it, finder(connection))
                    found[it] = check_soft(it, inputs, time, limits, locked)
                except RuleError:
                    continue
            return found

        return self._reads.read(look)

    def _rows(self, statement: str, *parameters: bytes) -> list[tuple[Any, ...]]:
        return self._reads.read(lambda connection: connection.execute(statement, parameters))


class Pool(PoolReader):
    """The pool of a store. `time` of the head comes with each call that needs it, from the store."""

    def __init__(self, database: Database, chain: Chain) -> None:
        super().__init__(database, chain)
        self._database = database

    def add(
        self,
        transactions: Sequence[Transaction],
        unix: float,
        signed: Sequence[Signers | None] | None = None,
    ) -> list[Taken]:
        """Takes in those that it can, all in one commit: durable when it returns. `signed` are their
        `signers` if they were found already, None for one whose signatures are wrong. Raises StorageError."""
        if signed is None:
            signed = [signers_or_none(each) for each in transactions]
        with self._database.transaction() as connection:
            room = _Room(connection)
            time = _head_time(connection)
            return [
                self._add(connection, room, each, who, time, int(unix * _NANO))
                for each, who in zip(transactions, signed, strict=True)
            ]

    def _add(
        self, connection: Connection, room: _Room, it: Transaction, who: Signers | None, time: int, unix: int
    ) -> Taken:
        known = connection.execute("SELECT rule, refusal FROM loose WHERE id = ?", (it.id,))
        if known:
            connection.execute("UPDATE loose SET checked = ? WHERE id = ?", (unix, it.id))
            return Taken(it.id, False, SoftRuleError(*known[0]) if known[0][0] else None)
        try:
            check_form(it)
            inputs = find_inputs(it, finder(connection))
            fee = check_spending(it, inputs, signers(it) if who is None else who, time, block=False)
        except HardRuleError as error:
            return Taken(it.id, False, error)
        refused = self._soft(it, inputs, time)
        rate = _rate(fee, len(it.raw), refused)
        if not room.make(it, rate):
            return Taken(it.id, False, refused, full=True)
        put(connection, it, inputs, (unix, unix, NEVER), fee, refused)
        room.take(len(it.raw))
        return Taken(it.id, True, refused)

    def _soft(self, it: Transaction, inputs: Sequence[Unspent], time: int) -> SoftRuleError | None:
        try:
            check_soft(it, inputs, time, self._chain.pool, self._chain.locked)
        except SoftRuleError as error:
            return error
        return None

    def refresh(self, unix: float) -> list[bytes]:
        """Forgets the old ones, and looks again at those that break a soft rule. The ids of those that break
        none any more: others may be told of them now."""
        with self._database.transaction() as connection:
            oldest = int((unix - COIN_POOL_SECONDS) * _NANO)
            connection.execute("DELETE FROM loose WHERE received < ?", (oldest,))
            time = _head_time(connection)
            righted = []
            for row in connection.execute(_LOOSE + "WHERE rate < 0"):
                it = _loose(row).transaction
                try:
                    inputs = find_inputs(it, finder(connection))
                    refused = self._soft(it, inputs, time)
                    fee = check_spending(
                        it, inputs, tuple(each.address for each in inputs), time, block=False
                    )
                except HardRuleError:
                    connection.execute("DELETE FROM loose WHERE id = ?", (it.id,))
                    continue
                if refused is None:
                    righted.append(it.id)
                connection.execute(
                    "UPDATE loose SET checked = ?, fee = ?, rate = ?, rule = ?, refusal = ? WHERE id = ?",
                    (int(unix * _NANO), *_columns(it, fee, refused), it.id),
                )
            return righted

    def announced(self, ids: Iterable[bytes], unix: float) -> None:
        """Others were told of these."""
        rows = [(int(unix * _NANO), each) for each in ids]
        with self._database.transaction() as connection:
            connection.execute_many("UPDATE loose SET announced = ? WHERE id = ?", rows)


class _Room:
    """What may still come into the pool, in a transaction that writes."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._count, self._size = connection.execute(
            "SELECT count(*), coalesce(sum(size), 0) FROM loose INDEXED BY loose_rate"
        )[0]

    def make(self, it: Transaction, rate: int) -> bool:
        """Removes others that are worth less until there is room; False if there is none, or if its inputs
        are spent too often already."""
        look = self._connection.execute
        for number in it.inputs:
            (spenders,) = look("SELECT count(*) FROM loose_input WHERE output = ?", (number,))[0]
            if spenders >= CONFLICTS:
                return False
        while self._count >= COIN_POOL or self._size + len(it.raw) > COIN_POOL_BYTES:
            least = look(
                "SELECT number, rate, size FROM loose ORDER BY rate, received DESC, number DESC LIMIT 1"
            )
            if not least or least[0][1] >= rate:
                return False
            look("DELETE FROM loose WHERE number = ?", (least[0][0],))
            self._count -= 1
            self._size -= least[0][2]
        return True

    def take(self, size: int) -> None:
        """One more of so many bytes is in."""
        self._count += 1
        self._size += size


_LOOSE: Final = "SELECT data, received, checked, announced, fee, rate, rule, refusal FROM loose "
_TOUCHING: Final = (
    _LOOSE + "JOIN loose_address ON loose = number WHERE address = ? ORDER BY rate DESC, received, number"
)


def loose_touching(connection: Connection, addresses: Sequence[Address]) -> dict[Address, list[Loose]]:
    """The loose transactions that touch each of some addresses, as `Pool.touching` gives them; addresses that
    none touches are left out."""
    if not connection.execute("SELECT 1 FROM loose LIMIT 1"):
        return {}
    look = connection.execute
    touched = (each for each in addresses if look("SELECT 1 FROM loose_address WHERE address = ?", (each,)))
    return {each: [_loose(row) for row in look(_TOUCHING, (each,))] for each in touched}


def _loose(row: Sequence[Any]) -> Loose:
    return Loose(decode_transaction(row[0]), *row[1:])


def _rate(fee: int, size: int, refused: RuleError | None) -> int:
    return -1 if refused is not None else min(min(fee * 1024, MOST) // size, _HIGHEST)


def _columns(it: Transaction, fee: int, refused: SoftRuleError | None) -> tuple[int, int, str, str]:
    rule, refusal = (refused.rule, str(refused)) if refused is not None else ("", "")
    return min(fee, _HIGHEST), _rate(fee, len(it.raw), refused), rule, refusal


def put(
    connection: Connection,
    it: Transaction,
    inputs: Sequence[Unspent],
    times: tuple[int, int, int],
    fee: int,
    refused: SoftRuleError | None,
) -> None:
    """Writes a transaction that was checked; `times`: received, checked, announced, in nanoseconds."""
    fee, rate, rule, refusal = _columns(it, fee, refused)
    connection.execute(
        "INSERT INTO loose (id, received, checked, announced, fee, rate, size, rule, refusal, data) "
        "VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (it.id, *times, fee, rate, len(it.raw), rule, refusal, it.raw),
    )
    number = connection.last_row()
    connection.execute_many(
        "INSERT INTO loose_input (output, loose) VALUES (?, ?)", [(each, number) for each in it.inputs]
    )
    touched = {each.address for each in inputs} | {each.address for each in it.outputs}
    connection.execute_many(
        "INSERT INTO loose_address (address, loose) VALUES (?, ?)", [(each, number) for each in touched]
    )


def finder(connection: Connection) -> Find:
    """Gives the unspent outputs that a connection sees."""
    return lambda number: find_unspent(connection, number)


def _head_time(connection: Connection) -> int:
    return int(connection.execute("SELECT time FROM block ORDER BY sequence DESC LIMIT 1")[0][0])
