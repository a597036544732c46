"""The chain's store: adds blocks, and finds outputs, transactions and histories by index.

`ChainStore.add` checks a run of blocks against all rules and writes those that are right in one transaction:
they are durable when it returns. Whatever it reads is one state of the database. It is blocking, for one
thread at a time for writing and one for reading. Signatures are nearly all of the work: whoever adds blocks
has them checked before, as by `signing.py` in other processes. The pool of loose transactions is in
`ChainStore.pool`; what is in a block leaves it with that block.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, TypeVar

from attrs import frozen

from coin.chain.address import Address
from coin.chain.block import Block, decode_block
from coin.chain.params import Chain
from coin.chain.rules import (
    Applied,
    Head,
    RuleError,
    Signers,
    apply_block,
    check_header,
    signers,
)  # fmt: skip
from coin.chain.transaction import Transaction, Unspent
from coin.store.batch import Batch
from coin.store.figures import Balance, Supply, balances, richest, supply, unspents_of
from coin.store.integrity import Progress, Report, check, rebuild_from, refill, reindex, whole_block
from coin.store.pages import Page, count, page, spent_by
from coin.store.pool import Pool
from coin.store.rows import (
    CONFIRMED,
    OUTPUT,
    Confirmed,
    confirmed_of,
    find_unspent,
    read_head,
    unspent_of,
)  # fmt: skip
from coin.store.schema import SCHEMA
from coin.store.verdicts import Known
from meshnet.errors import LocalError
from meshnet.storage.database import Connection, Database, Found, Work, open_database
from meshnet.storage.disk import Disk, StrPath
from meshnet.storage.quarantine import Quarantine
from meshnet.storage.sqlite import Connect, connect_sqlite

T = TypeVar("T")


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


_BLOCK_AT = "SELECT data FROM block WHERE sequence = ?"
_BLOCK_OF = "SELECT data FROM block WHERE hash = ?"


class ChainStore:
    """An open store. `head` is the last block's; it changes in `add` and `repair` alone. `notes` say
    what the operator should know of its opening, in sentences."""

    def __init__(self, database: Database, chain: Chain) -> None:
        self._database = database
        self.chain = chain
        self.pool = Pool(database, chain)
        self.notes = tuple(database.notes)
        self.head: Head = database.read(read_head)
        self._supply: Supply | None = None

    @property
    def separate_reader(self) -> bool:
        """Whether it may be read while it is written."""
        return self._database.separate_reader

    @property
    def orderly(self) -> bool:
        """Whether it was new, or closed in order and unchanged since: then nothing needs to be looked at."""
        return self._database.found in (Found.NEW, Found.CLEAN)

    # -- writing

    def add(
        self,
        blocks: Sequence[Block],
        signed: Sequence[Sequence[Signers | None]],
        refusals: Sequence[str] | None = None,
    ) -> Added:
        """Adds blocks that follow the head; `signed` are the signers of each one's transactions (None where
        a signature is wrong), `refusals` what the chain's seal says of each, if it was asked already.

        The first that breaks a rule ends the run: those before it stay, `refused` says why. Durable when it
        returns; raises StorageError, and then nothing was added.
        """
        head, applied = self.head, []
        refused: RuleError | None = None
        known = zip(blocks, refusals, strict=True) if refusals is not None else ()
        seal = Known(self.chain.seal, {block.hash: refusal for block, refusal in known})
        with self._database.transaction() as connection:
            batch = Batch(connection)
            for block, owners in zip(blocks, signed, strict=True):
                try:
                    check_header(block, head, seal)
                    change = apply_block(block, head, batch.find, _complete(block, owners))
                except RuleError as error:
                    refused = error
                    break
                batch.add(block, change)
                head = change.head
                applied.append(change)
            batch.write()
        self.head = head
        return Added(tuple(applied), refused)

    # -- reading

    def look(self, work: Work[T]) -> T:
        """The result of `work`, which sees one state of the database throughout and writes nothing."""
        return self._database.read(work)

    def find(self, number: bytes) -> Unspent | None:
        """The output of that id if it is unspent."""
        return self._database.read(lambda connection: find_unspent(connection, number))

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
        return self._database.read(
            lambda connection: page(connection, addresses, offset, limit, newest=newest)
        )

    def spent_by(self, transactions: Iterable[Transaction]) -> list[tuple[Unspent, ...]]:
        """What each transaction spends, in its order; outputs that the chain does not have are left out."""
        return self._database.read(lambda connection: [spent_by(connection, each) for each in transactions])

    def transaction_count(self, address: Address | None = None) -> int:
        """How many transactions there are, or touch an address."""
        if address is None:
            return self._database.read(count)
        rows = self._rows("SELECT txs FROM address WHERE address = ?", address)
        return int(rows[0][0]) if rows else 0

    def unspents(self, address: Address) -> list[Unspent]:
        """What an address owns, the oldest first."""
        return self._database.read(lambda connection: unspents_of(connection, address))

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

        return self._database.read(work)

    def output(self, number: bytes) -> Kept | None:
        """The output of an id, spent or not."""

        def work(connection: Connection) -> Kept | None:
            rows = connection.execute(OUTPUT + "WHERE output.id = ?", (number,))
            return _kept(connection, rows[0]) if rows else None

        return self._database.read(work)

    def coins(self, address: Address) -> int:
        """Droplets that an address owns."""
        rows = self._rows("SELECT coins FROM address WHERE address = ?", address)
        return int(rows[0][0]) if rows else 0

    def balance(self, addresses: Iterable[Address]) -> dict[Address, Balance]:
        """What each address owns now, and will when the pool is in blocks (of two loose transactions that
        spend the same, the one that burns more). Coins and hours are the indexes' sums."""
        return self._database.read(lambda connection: balances(connection, self.chain, addresses))

    def richest(self, count: int, *, without: frozenset[Address] = frozenset()) -> list[tuple[Address, int]]:
        """The addresses that own most, and their droplets; the richest first. Of those that own the same,
        locked ones come first, then the smaller."""
        return self._database.read(lambda connection: richest(connection, self.chain, count, without))

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
            known = self._supply = self._database.read(lambda connection: supply(connection, self.chain))
        return known

    def _rows(self, statement: str, *parameters: bytes | int) -> list[tuple[Any, ...]]:
        return self._database.read(lambda connection: connection.execute(statement, parameters))

    # -- integrity

    def check(self, progress: Progress = lambda sequence: None) -> Report:
        """Reads all again: is every block whole, does every index follow from them? Seconds or minutes,
        on a connection of its own: with a separate reader nobody waits for it."""
        return self._database.read_aside(lambda connection: check(connection, self.chain, progress))

    def restore_block(self, block: Block) -> None:
        """Puts right the bytes of a damaged block, fetched from another node. LocalError if it is not that
        block: its hash, body and seal must be right."""
        sequence = block.header.sequence
        rows = self._rows("SELECT hash FROM block WHERE sequence = ?", sequence)
        after = self._rows("SELECT substr(data, 29, 32) FROM block WHERE sequence = ?", sequence + 1)
        names = {row[0] for row in (*rows, *after)}
        if block.hash not in names or whole_block(block.encode(), block.hash, self.chain) is None:
            raise LocalError(f"That is not block {sequence} of this store.")
        with self._database.transaction() as connection:
            connection.execute(
                "UPDATE block SET hash = ?, time = ?, data = ? WHERE sequence = ?",
                (block.hash, block.header.time, block.encode(), sequence),
            )

    def repair(self) -> int:
        """Makes all indexes again from the blocks. Those from the first damaged one on are removed, and come
        again from other nodes: restore it before to keep them. How many were removed."""
        with self._database.transaction() as connection:
            removed = reindex(connection, self.chain)
            head = read_head(connection)
        self.head, self._supply = head, None
        return removed

    def close(self) -> None:
        """Closes the database in order."""
        self._database.close()


def open_store(
    disk: Disk,
    path: StrPath,
    chain: Chain,
    *,
    connect: Connect = connect_sqlite,
    separate_reader: bool = True,
    quarantine: Quarantine | None = None,
) -> ChainStore:
    """Opens the store of `chain` at `path`, or makes it with the chain's first block.

    With a `quarantine`, a damaged one goes there, and a new one is made of the blocks that can be read from
    it; without, it is refused. Raises LocalError if it holds another chain, and StorageError.
    """
    database = open_database(
        disk,
        path,
        SCHEMA,
        connect=connect,
        separate_reader=separate_reader,
        quarantine=quarantine,
        rebuild=rebuild_from(connect, chain) if quarantine is not None else None,
    )
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


def _complete(block: Block, signed: Sequence[Signers | None]) -> list[Signers]:
    """The signers of a block's transactions; raises the error of one whose signature is wrong."""
    pairs = zip(block.transactions, signed, strict=True)
    return [signers(each) if who is None else who for each, who in pairs]


def _begin(database: Database, chain: Chain) -> None:
    with database.transaction() as connection:
        refill(connection, chain, [chain.genesis])


def _kept(connection: Connection, row: Sequence[Any]) -> Kept:
    spent = connection.execute(
        "SELECT tx.id, tx.block FROM output JOIN tx ON tx.number = output.spent WHERE output.number = ?",
        (row[7],),
    )
    by, where = spent[0] if spent else (None, None)
    return Kept(unspent_of(row), by, where)
