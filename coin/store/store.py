"""The chain's store: adds blocks, and finds outputs, transactions and histories by index.

`ChainStore.add` checks a run of blocks against all rules and writes those that are right in one transaction:
they are durable when it returns. Whatever it reads is one state of the database. It is blocking, for one
thread at a time for writing and one for reading. It checks no signatures: whoever adds blocks has done that
before, since it takes nearly all of the time.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Final

from attrs import frozen

from coin.chain.address import Address
from coin.chain.block import Block, Header, decode_block
from coin.chain.params import Chain
from coin.chain.rules import (
    Applied,
    BlockError,
    Head,
    RuleError,
    Signers,
    apply_block,
    check_header,
    genesis_head,
)  # fmt: skip
from coin.chain.transaction import Transaction, Unspent, decode_transaction
from coin.store.schema import SCHEMA, amount, stored
from meshnet.errors import LocalError
from meshnet.storage.database import Connection, Database, open_database
from meshnet.storage.disk import Disk, StrPath

HEADER: Final = 124


@frozen
class Confirmed:
    """A transaction of the chain, the block it is in, that block's time, its place in the order of all."""

    transaction: Transaction
    block: int
    time: int
    number: int


@frozen
class Kept:
    """An output of the chain. If it is spent, `spent_by` is a transaction id and `spent_in` a block."""

    unspent: Unspent
    spent_by: bytes | None
    spent_in: int | None


@frozen
class Added:
    """What became of a run of blocks: what each one taken changed, and why the next was not, if so."""

    applied: tuple[Applied, ...]
    refused: RuleError | None = None


_OUTPUT = (
    "SELECT substr(block.data, 5, 8), tx.block, tx.id, address.address, output.coins, output.hours "
    "FROM output JOIN tx ON tx.number = output.tx JOIN block ON block.sequence = tx.block "
    "JOIN address ON address.number = output.address "
)
"""The columns of which `_unspent` makes an output; bytes 5 to 12 of a header are its time."""


_BLOCK_AT = "SELECT data FROM block WHERE sequence = ?"
_BLOCK_OF = "SELECT data FROM block WHERE hash = ?"


class ChainStore:
    """An open store. `head` is the last block's; it changes in `add` alone."""

    def __init__(self, database: Database, chain: Chain) -> None:
        self._database = database
        self.chain = chain
        self.head: Head = database.read(_read_head)
        (self._numbers,) = database.read(_counts)

    # -- writing

    def add(self, blocks: Sequence[Block], signed: Sequence[Sequence[Signers]]) -> Added:
        """Adds blocks that follow the head; `signed` are the signers of each one's transactions.

        The first that breaks a rule ends the run: those before it stay, `refused` says why. Durable when it
        returns; raises StorageError, and then nothing was added.
        """
        head, applied = self.head, []
        refused: RuleError | None = None
        fresh: dict[bytes, Unspent] = {}
        gone: set[bytes] = set()
        with self._database.transaction() as connection:
            batch = _Batch(connection, *self._numbers)

            def find(number: bytes) -> Unspent | None:
                if number in gone:
                    return None
                return fresh.get(number) or _find(connection, number)

            for block, owners in zip(blocks, signed, strict=True):
                try:
                    check_header(block, head, self.chain.seal)
                    change = apply_block(block, head, find, owners)
                except RuleError as error:
                    refused = error
                    break
                for each in change.spent:
                    gone.add(each.id)
                    fresh.pop(each.id, None)
                fresh.update((each.id, each) for each in change.made)
                batch.add(block, change)
                head = change.head
                applied.append(change)
            batch.write()
        self.head = head
        self._numbers = batch.numbers
        return Added(tuple(applied), refused)

    # -- reading

    def find(self, number: bytes) -> Unspent | None:
        """The output of that id if it is unspent."""
        return self._database.read(lambda connection: _find(connection, number))

    def block(self, which: int | bytes) -> Block | None:
        """The block of a sequence or a hash."""
        statement = _BLOCK_AT if isinstance(which, int) else _BLOCK_OF
        rows = self._database.read(lambda connection: connection.execute(statement, (which,)))
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

        self._database.read(work)
        return found

    def transaction(self, number: bytes) -> Confirmed | None:
        """The transaction of an id, if it is in a block."""
        rows = self._database.read(
            lambda connection: connection.execute(_CONFIRMED + "WHERE tx.id = ?", (number,))
        )
        return _confirmed(rows[0]) if rows else None

    def history(
        self, address: Address, limit: int, *, before: int | None = None, after: int | None = None
    ) -> list[Confirmed]:
        """Transactions that touch an address: the newest `limit` first, older than number `before`; or with
        `after` the oldest first, newer than that."""
        newest = after is None
        bound = (1 << 62 if before is None else before) if newest else after
        statement = (
            _CONFIRMED
            + "JOIN history ON history.tx = tx.number JOIN address ON address.number = history.address "
            + f"WHERE address.address = ? AND history.tx {'<' if newest else '>'} ? "
            + f"ORDER BY history.tx {'DESC' if newest else 'ASC'} LIMIT ?"
        )
        rows = self._database.read(lambda connection: connection.execute(statement, (address, bound, limit)))
        return [_confirmed(row) for row in rows]

    def unspents(self, address: Address) -> list[Unspent]:
        """What an address owns, the oldest first."""
        statement = _OUTPUT + "WHERE address.address = ? AND output.spent IS NULL ORDER BY output.number"
        rows = self._database.read(lambda connection: connection.execute(statement, (address,)))
        return [_unspent(row) for row in rows]

    def all_unspents(self) -> list[Unspent]:
        """All that is unspent, the oldest first."""
        statement = _OUTPUT + "WHERE output.spent IS NULL ORDER BY output.number"
        return [
            _unspent(row) for row in self._database.read(lambda connection: connection.execute(statement))
        ]

    def output(self, number: bytes) -> Kept | None:
        """The output of an id, spent or not."""

        def work(connection: Connection) -> Kept | None:
            rows = connection.execute(_OUTPUT + "WHERE output.id = ?", (number,))
            if not rows:
                return None
            spent = connection.execute(
                "SELECT tx.id, tx.block FROM output JOIN tx ON tx.number = output.spent WHERE output.id = ?",
                (number,),
            )
            by, where = spent[0] if spent else (None, None)
            return Kept(_unspent(rows[0]), by, where)

        return self._database.read(work)

    def coins(self, address: Address) -> int:
        """Droplets that an address owns."""
        statement = "SELECT coins FROM address WHERE address = ?"
        rows = self._database.read(lambda connection: connection.execute(statement, (address,)))
        return int(rows[0][0]) if rows else 0

    def richest(self, count: int) -> list[tuple[Address, int]]:
        """The addresses that own most, and their droplets; the richest first."""
        statement = "SELECT address, coins FROM address WHERE coins > 0 ORDER BY coins DESC LIMIT ?"
        return [
            (Address(address), coins)
            for address, coins in self._database.read(
                lambda connection: connection.execute(statement, (count,))
            )
        ]

    def address_count(self) -> int:
        """How many addresses own something."""
        statement = "SELECT count(*) FROM address WHERE coins > 0"
        return int(self._database.read(lambda connection: connection.execute(statement))[0][0])

    def close(self) -> None:
        """Closes the database in order."""
        self._database.close()


def open_store(disk: Disk, path: StrPath, chain: Chain, **options: object) -> ChainStore:
    """Opens the store of `chain` at `path`, or makes it with the chain's first block.

    `options` go to `open_database`. Raises LocalError if it holds another chain, and StorageError.
    """
    database = open_database(disk, path, SCHEMA, **options)  # type: ignore[arg-type]
    try:
        first = database.read(lambda c: c.execute("SELECT hash FROM block WHERE sequence = 0"))
        if not first:
            _begin(database, chain)
        elif first[0][0] != chain.genesis.hash:
            raise LocalError(
                f"{path} holds another chain than {chain.name}; name another file, or that chain."
            )
        return ChainStore(database, chain)
    except BaseException:
        database.close()
        raise


def _begin(database: Database, chain: Chain) -> None:
    head, made = genesis_head(chain.genesis)
    with database.transaction() as connection:
        batch = _Batch(connection, 1, 1)
        batch.add(chain.genesis, Applied((), made, 0, head, ((),)))
        batch.write()


class _Batch:
    """Rows of a run of blocks, gathered so that each table is written by one call."""

    def __init__(self, connection: Connection, tx: int, output: int) -> None:
        self._connection = connection
        self.numbers = (tx, output)
        self._blocks: list[tuple[int, bytes, bytes, bytes]] = []
        self._txs: list[tuple[int, bytes, int, int, int]] = []
        self._outputs: list[tuple[int, bytes, int, int, int, int]] = []
        self._spent: list[tuple[int, bytes]] = []
        self._history: set[tuple[int, int]] = set()
        self._owned: dict[int, list[int]] = {}  # by address number: droplets and outputs more than before
        self._addresses: dict[Address, int] = {}

    def add(self, block: Block, change: Applied) -> None:
        """Notes a block and what it changes."""
        tx, output = self.numbers
        sequence = block.header.sequence
        self._blocks.append((sequence, block.hash, block.encode(), change.head.unspents))
        start = HEADER + 4
        made = iter(change.made)
        for transaction, inputs in zip(block.transactions, change.inputs, strict=True):
            size = len(transaction.raw)
            self._txs.append((tx, transaction.id, sequence, start, size))
            start += size
            for unspent in inputs:
                self._own(tx, unspent, -1)
                self._spent.append((tx, unspent.id))
            for _ in transaction.outputs:
                unspent = next(made)
                owner = self._own(tx, unspent, 1)
                self._outputs.append(
                    (output, unspent.id, tx, owner, stored(unspent.coins), stored(unspent.hours))
                )
                output += 1
            tx += 1
        self.numbers = (tx, output)

    def _own(self, tx: int, unspent: Unspent, sign: int) -> int:
        number = self._addresses.get(unspent.address)
        if number is None:
            number = self._addresses[unspent.address] = self._address(unspent.address)
        self._history.add((number, tx))
        more = self._owned.setdefault(number, [0, 0])
        more[0] += sign * unspent.coins
        more[1] += sign
        return number

    def _address(self, address: Address) -> int:
        rows = self._connection.execute("SELECT number FROM address WHERE address = ?", (address,))
        if rows:
            return int(rows[0][0])
        self._connection.execute("INSERT INTO address (address, coins, outputs) VALUES (?, 0, 0)", (address,))
        return self._connection.last_row()

    def write(self) -> None:
        """Writes all that was noted."""
        write = self._connection.execute_many
        write("INSERT INTO block (sequence, hash, data, total) VALUES (?, ?, ?, ?)", self._blocks)
        write("INSERT INTO tx (number, id, block, start, size) VALUES (?, ?, ?, ?, ?)", self._txs)
        write(
            "INSERT INTO output (number, id, tx, address, coins, hours) VALUES (?, ?, ?, ?, ?, ?)",
            self._outputs,
        )
        write("UPDATE output SET spent = ? WHERE id = ?", self._spent)
        write("INSERT INTO history (address, tx) VALUES (?, ?)", sorted(self._history))
        write(
            "UPDATE address SET coins = coins + ?, outputs = outputs + ? WHERE number = ?",
            [(coins, outputs, number) for number, (coins, outputs) in self._owned.items()],
        )
        write("DELETE FROM loose WHERE id = ?", [(row[1],) for row in self._txs])


_CONFIRMED = (
    "SELECT substr(block.data, tx.start + 1, tx.size), tx.block, substr(block.data, 5, 8), tx.number "
    "FROM tx JOIN block ON block.sequence = tx.block "
)


def _confirmed(row: Sequence[object]) -> Confirmed:
    data, block, time, number = row
    assert isinstance(data, bytes) and isinstance(time, bytes)
    assert isinstance(block, int) and isinstance(number, int)
    return Confirmed(decode_transaction(data), block, int.from_bytes(time, "little"), number)


def _unspent(row: Iterable[object]) -> Unspent:
    time, block, source, address, coins, hours = row
    assert isinstance(time, bytes) and isinstance(source, bytes) and isinstance(address, bytes)
    assert isinstance(block, int) and isinstance(coins, int) and isinstance(hours, int)
    return Unspent(
        int.from_bytes(time, "little"),
        block,
        source if block else bytes(32),  # the genesis output alone has no source
        Address(address),
        amount(coins),
        amount(hours),
    )


def _find(connection: Connection, number: bytes) -> Unspent | None:
    rows = connection.execute(_OUTPUT + "WHERE output.id = ? AND output.spent IS NULL", (number,))
    return _unspent(rows[0]) if rows else None


def _read_head(connection: Connection) -> Head:
    rows = connection.execute("SELECT hash, data, total FROM block ORDER BY sequence DESC LIMIT 1")
    if not rows:
        raise BlockError("empty", "The store has no first block.")
    digest, data, total = rows[0]
    return Head(Header.decode(data[:HEADER]), digest, total)


def _counts(connection: Connection) -> tuple[tuple[int, int]]:
    """The numbers of the next transaction and output."""
    rows = connection.execute(
        "SELECT (SELECT coalesce(max(number), 0) + 1 FROM tx), "
        "(SELECT coalesce(max(number), 0) + 1 FROM output)"
    )
    return ((rows[0][0], rows[0][1]),)
