"""Is the store whole? Reads every block again and holds the indexes against what blocks say; mends them.

The blocks are the truth. Their bytes are bound by their hashes, each header names the hash before it, the
body's hash binds the transactions, and the publisher's seal lies on each: so no byte of a block can change
unnoticed, and a block that is wrong can be taken from anybody who gives bytes of the same hash. The indexes
follow from the blocks, so a wrong one is made again. Blocking; `check` reads one state of the database.

What SQLite itself finds damaged when the store is opened, and what `check` cannot read, is rebuilt: the
file goes to the quarantine, and a new one is filled with the whole blocks that can be read from the first
one on (`refill`). The rest comes from other nodes, like any block.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator
from itertools import count, zip_longest
from typing import Any, Final

from attrs import frozen

from coin.chain.block import Block, decode_block
from coin.chain.params import Chain
from coin.chain.rules import (
    Applied,
    Head,
    RuleError,
    Signers,
    apply_block,
    check_header,
    check_loose,
    find_inputs,
    genesis_head,
)  # fmt: skip
from coin.chain.transaction import Transaction, decode_transaction
from coin.store.batch import Batch
from coin.store.pool import finder, put
from coin.store.schema import INDEXES, SCHEMA
from meshnet.errors import CodecError, StorageError
from meshnet.storage.database import Connection, Damage, Rebuild
from meshnet.storage.sqlite import Connect, connect_sqlite

Progress = Callable[[int], None]
"""Told the sequence of the block that is looked at, now and then, twice over all blocks; it may wait, or
raise to end the check."""
RUN: Final = 500
PACE: Final = 100
"""Blocks between two calls of `Progress`: some tens of milliseconds."""
MOST_FAULTS: Final = 100
_TABLES: Final = {
    "block": "sequence, total",
    "tx": "number, id, block, start, size, output",
    "address": "number, address, coins, outputs, txs",
    "output": "number, id, tx, address, coins, hours, spent, born",
    "history": "address, tx",
    "tally": "one, unspents, owners",
}


@frozen
class Report:
    """What was found: sequences of blocks whose bytes are wrong, and sentences about the rest, `MOST_FAULTS`
    of each at most. `blocks` were looked at."""

    blocks: int
    damaged: tuple[int, ...]
    faults: tuple[str, ...]

    @property
    def whole(self) -> bool:
        """Whether nothing is wrong."""
        return not self.damaged and not self.faults


def check(connection: Connection, chain: Chain, progress: Progress = lambda sequence: None) -> Report:
    """Looks at all of the store. The indexes are compared with what the blocks make of an empty database
    beside this one, in memory, if no block is wrong; SQLite's own check comes first."""
    faults = [f"The database is damaged: {row[0]}." for row in _own_check(connection) if row[0] != "ok"]
    damaged: list[int] = []
    expected, previous = 0, None
    for sequence, digest, time, data in connection.rows(
        "SELECT sequence, hash, time, data FROM block ORDER BY sequence"
    ):
        if sequence % PACE == 0:
            progress(sequence)
        if sequence != expected:
            faults.append(f"Block {expected} is missing.")
            expected = sequence
        block = whole_block(data, digest, chain)
        if block is None or (previous is not None and block.header.previous != previous):
            damaged.append(sequence)
        elif block.header.sequence != sequence or block.header.time != time:
            faults.append(f"The row of block {sequence} is not what its bytes say.")
        previous = digest
        expected += 1
    if not damaged and not faults:
        faults += _compare(connection, chain, progress)
    return Report(expected, tuple(damaged[:MOST_FAULTS]), tuple(faults[:MOST_FAULTS]))


def whole_block(data: bytes, digest: bytes, chain: Chain) -> Block | None:
    """The block of these bytes if they are those of that hash, sealed; else None."""
    try:
        block = decode_block(data)
    except CodecError:
        return None
    if block.hash != digest or block.body_hash != block.header.body or chain.seal.refusal(block):
        return None
    return block


def _own_check(connection: Connection) -> list[tuple[Any, ...]]:
    try:
        return connection.execute(f"PRAGMA integrity_check({MOST_FAULTS})")
    except StorageError as error:
        return [(str(error),)]


def _compare(connection: Connection, chain: Chain, progress: Progress) -> list[str]:
    """Holds each table against what the blocks make of an empty database, which is in memory and about twice
    as large as the blocks."""
    shadow = connect_sqlite(":memory:")
    try:
        for migration in SCHEMA.migrations:
            for statement in migration.split(";\n"):  # type: ignore[union-attr]
                shadow.execute(statement)
        shadow.execute("BEGIN")
        refused = refill(shadow, chain, _stored(connection, progress))
        faults = [refused] if refused else []
        for table, columns in _TABLES.items():
            faults += _differences(connection, shadow, table, columns)
        return faults
    finally:
        shadow.close()


def _stored(connection: Connection, progress: Progress) -> Iterator[Block]:
    for sequence, data in connection.rows("SELECT sequence, data FROM block ORDER BY sequence"):
        if sequence and sequence % PACE == 0:
            progress(sequence)
        yield decode_block(data)


def _differences(ours: Connection, right: Connection, table: str, columns: str) -> list[str]:
    statement = f"SELECT {columns} FROM {table} ORDER BY 1, 2"  # noqa: S608  (names of ours)
    pairs = zip_longest(ours.rows(statement), right.rows(statement))
    wrong = [one or other for one, other in pairs if one != other]
    if not wrong:
        return []
    return [f"Table {table} has {len(wrong)} rows that do not follow from the blocks, first {wrong[0][0]}."]


def refill(connection: Connection, chain: Chain, blocks: Iterable[Block], *, rows: bool = True) -> str:
    """Makes the indexes of blocks, the first one of the chain first, in empty tables, and the blocks' own
    rows unless not `rows`. Signatures are not checked again: the hashes bind them. Stops at a block that does
    not follow from those before it: why, a sentence; empty if all did."""
    head: Head | None = None
    batch, waiting = Batch(connection), 0
    why = ""
    for block in blocks:
        if head is None:
            head, made = genesis_head(chain.genesis)
            if block.hash != head.hash:
                why = "The first block is not that of this chain."
                break
            change = Applied((), made, 0, head, ((),))
        else:
            try:
                check_header(block, head, _TRUSTED)
                change = apply_block(block, head, batch.find, _owners(block, batch))
            except RuleError as error:
                why = f"Block {block.header.sequence} does not follow from those before it: {error}"
                break
            head = change.head
        if rows:
            batch.add(block, change)
        else:
            batch.index(block, change)
        waiting += 1
        if waiting == RUN:
            batch.write()
            batch, waiting = Batch(connection), 0
    batch.write()
    return why


def reindex(connection: Connection, chain: Chain) -> int:
    """Makes all indexes again from the blocks, in the caller's transaction. Blocks from the first one that is
    not whole on are removed, to be fetched again; how many."""
    for table in INDEXES:
        connection.execute(f"DELETE FROM {table}")  # noqa: S608
    good = 0

    def whole() -> Iterator[Block]:
        nonlocal good
        previous = b""
        for sequence, digest, data in connection.execute(
            "SELECT sequence, hash, data FROM block ORDER BY sequence"
        ):
            block = whole_block(data, digest, chain)
            if block is None or sequence != good or (previous and block.header.previous != previous):
                return
            yield block
            previous, good = digest, good + 1

    blocks = list(whole())
    if not blocks:
        blocks = [chain.genesis]
    (before,) = connection.execute("SELECT count(*) FROM block")[0]
    connection.execute("DELETE FROM block")
    refill(connection, chain, blocks)
    return int(before) - len(blocks)


def rebuild_from(connect: Connect, chain: Chain) -> Rebuild:
    """What `open_database` calls when the database is damaged: fills the new one with the whole blocks that
    can be read from the old one, which lies in the quarantine."""

    def rebuild(connection: Connection, damage: Damage) -> None:
        blocks = list(_salvaged(connect, damage.quarantined, chain)) if damage.quarantined else []
        refill(connection, chain, blocks or [chain.genesis])
        for it, times in _salvaged_loose(connect, damage.quarantined) if damage.quarantined else ():
            with contextlib.suppress(RuleError):
                inputs = find_inputs(it, finder(connection))
                time = connection.execute("SELECT max(time) FROM block")[0][0]
                put(connection, it, inputs, times, check_loose(it, inputs, time), None)

    return rebuild


def _salvaged(connect: Connect, path: str, chain: Chain) -> Iterator[Block]:
    """Whole blocks of a damaged database, from the first one to the first that cannot be read."""
    with contextlib.suppress(StorageError):
        old = connect(path)
        try:
            previous = None
            for sequence in count():
                rows = old.execute("SELECT hash, data FROM block WHERE sequence = ?", (sequence,))
                block = whole_block(rows[0][1], rows[0][0], chain) if rows else None
                if block is None or (previous is not None and block.header.previous != previous):
                    return
                yield block
                previous = block.hash
        finally:
            old.close()


def _salvaged_loose(connect: Connect, path: str) -> list[tuple[Transaction, tuple[int, int, int]]]:
    """The loose transactions that can be read from a damaged database, and their times."""
    found = []
    with contextlib.suppress(StorageError):
        old = connect(path)
        try:
            for data, *times in old.execute("SELECT data, received, checked, announced FROM loose"):
                with contextlib.suppress(CodecError, TypeError):
                    found.append((decode_transaction(data), (times[0], times[1], times[2])))
        finally:
            old.close()
    return found


def _owners(block: Block, batch: Batch) -> list[Signers]:
    """Who must have signed."""
    found = []
    for it in block.transactions:
        found.append(tuple(each.address for each in find_inputs(it, batch.find)))
    return found


class _Trusted:
    """The seal of blocks that were looked at already."""

    def refusal(self, block: Block) -> str:
        """None."""
        return ""


_TRUSTED: Final = _Trusted()
