"""The chain's store: adds blocks, and finds outputs, transactions and histories by index.

`ChainStore.add` checks a run of blocks against all rules and writes those that are right in one transaction:
they are durable when it returns. It is blocking, for one thread at a time for writing and one for reading
(`reading.py`); `beside` gives readers for further threads. Signatures are nearly all of the work: whoever
adds blocks has them checked before, as by `signing.py` in other processes. The pool of loose transactions is
in `ChainStore.pool`; what is in a block leaves it with that block.
"""

from __future__ import annotations

from collections.abc import Sequence

from attrs import frozen

from coin.chain.block import Block
from coin.chain.params import Chain
from coin.chain.rules import (
    Applied,
    RuleError,
    Signers,
    apply_block,
    check_header,
    signers,
)  # fmt: skip
from coin.store.batch import Batch
from coin.store.integrity import Progress, Report, check, rebuild_from, refill, reindex, whole_block
from coin.store.pool import Pool
from coin.store.reading import SteadyReader, StoreReader
from coin.store.rows import read_head
from coin.store.schema import SCHEMA
from coin.store.verdicts import Known
from meshnet.errors import LocalError
from meshnet.storage.database import Database, Found, open_database
from meshnet.storage.disk import Disk, StrPath
from meshnet.storage.quarantine import Quarantine
from meshnet.storage.sqlite import Connect, connect_sqlite


@frozen
class Added:
    """What became of a run of blocks: what each one taken changed, and why the next was not, if so."""

    applied: tuple[Applied, ...]
    refused: RuleError | None = None


class ChainStore(StoreReader):
    """An open store. `head` is the last block's; it changes in `add` and `repair` alone. `notes` say
    what the operator should know of its opening, in sentences."""

    pool: Pool

    def __init__(self, database: Database, chain: Chain) -> None:
        super().__init__(database, chain, Pool(database, chain))
        self._database = database
        self.notes = tuple(database.notes)

    def beside(self) -> SteadyReader:
        """A reader over a connection of its own, for another thread; to be closed before the store."""
        return SteadyReader(self._database.reader(), self.chain)

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
