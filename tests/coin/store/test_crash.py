"""The power fails while a chain is stored: what was acknowledged is there, and all of it fits together."""

from __future__ import annotations

import contextlib
from collections.abc import Hashable, Iterator

import pytest

from coin.chain.rules import signers
from coin.chain.transaction import Output
from coin.store.blockfile import read_blocks, write_blocks
from coin.store.store import ChainStore, open_store
from lab.crash.search import Search, Workload
from lab.crash.sqlite import available, connect_on
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import EXT4, MODELS, STRICT, Model
from tests.support.chains import Ledger, owner, small_chain
from tests.support.old_stores import write_old_store

pytestmark = pytest.mark.skipif(not available(), reason="APSW is not installed; ./mesh test installs it")

CHAIN = small_chain(1_000_000_000)
LEDGER = Ledger(CHAIN)
for _ in range(3):
    LEDGER.add(LEDGER.block(LEDGER.pay(1, Output(owner(1), 1_000_000_000, 1_000))))
LOOSE = LEDGER.pay(1, Output(owner(2), 1_000_000_000, 0))
LAST = LEDGER.block(LOOSE)


@contextlib.contextmanager
def opened(disk: SimulatedDisk) -> Iterator[ChainStore]:
    """The store, open; after an exception its files are left as they are."""
    store = open_store(disk, "/d/chain.db", CHAIN, connect=connect_on(disk), separate_reader=False)
    yield store
    store.close()


def content(store: ChainStore) -> Hashable:
    """What matters: how high it is, and the pool; AssertionError if it does not fit together."""
    height = store.head.header.sequence
    assert store.head.hash == [*LEDGER.blocks, LAST][height].hash
    assert store.coins(owner(1)) + store.coins(owner(2)) == 1_000_000_000
    assert store.unspent_count() == len(store.all_unspents()) == 1
    return height, tuple(store.pool.valid())


def work(disk: SimulatedDisk, witness: Witness) -> None:
    """Two blocks in one commit, one alone, a loose transaction, the block that has it."""

    def add(store: ChainStore, *numbers: int) -> None:
        blocks = [[*LEDGER.blocks, LAST][number] for number in numbers]
        added = store.add(blocks, [[signers(each) for each in block.transactions] for block in blocks])
        assert added.refused is None

    with opened(disk) as store:
        witness.begins((0, ()))
        witness.holds()
        witness.begins((2, ()))
        add(store, 1, 2)
        witness.holds()
        witness.begins((3, ()))
        add(store, 3)
        witness.holds()
        witness.begins((3, (LOOSE.id,)))
        assert store.pool.add([LOOSE], 1.7e9)[0].refused is None
        witness.holds()
        witness.begins((4, ()))
        add(store, 4)
        witness.holds()


def found(disk: SimulatedDisk) -> Hashable:
    """What a restart finds."""
    with opened(disk) as store:
        return content(store)


def made(disk: SimulatedDisk) -> None:
    """An empty store."""
    disk.mkdir("/d")
    with opened(disk):
        pass


def chain_store() -> Workload:
    """The chain's store at work."""
    return Workload("chain store", work, found, made, (0, ()))


def old_store() -> Workload:
    """A store of the first version, opened: its tables are brought up to date."""

    def prepare(disk: SimulatedDisk) -> None:
        disk.mkdir("/d")
        connect = connect_on(disk)
        write_old_store(disk, "/d/chain.db", CHAIN, LEDGER.blocks, connect=connect, separate_reader=False)

    def program(disk: SimulatedDisk, witness: Witness) -> None:
        with opened(disk) as store:
            witness.holds()
            witness.begins((4, ()))
            added = store.add([LAST], [[signers(each) for each in LAST.transactions]])
            assert added.refused is None
            witness.holds()

    def recover(disk: SimulatedDisk) -> Hashable:
        with opened(disk) as store:
            assert store.check().whole
            return content(store)

    return Workload("old chain store", program, recover, prepare, (3, ()))


def block_file() -> Workload:
    """A file of blocks, written over another."""

    def program(disk: SimulatedDisk, witness: Witness) -> None:
        for count in (2, 4):
            witness.begins(count)
            write_blocks(disk, "/d/blocks", LEDGER.blocks[:count])
            witness.holds()

    def recover(disk: SimulatedDisk) -> Hashable:
        return len(list(read_blocks(disk, "/d/blocks"))) if disk.exists("/d/blocks") else None

    return Workload("block file", program, recover, lambda disk: disk.mkdir("/d"), relied_on=False)


def test_nothing_is_lost() -> None:
    """Every acknowledged block and loose transaction is there; a run of blocks wholly or not at all."""
    report = Search(chain_store(), EXT4, most=2, deeper=1, kills=False).run()
    print(report)
    assert not report.lost, "\n".join(map(str, report.losses))


def test_an_old_store() -> None:
    """Whenever the power fails while an old store is brought up to date, all of it is there afterwards."""
    report = Search(old_store(), EXT4, most=1, deeper=1, kills=False).run()
    print(report)
    assert not report.lost, "\n".join(map(str, report.losses))


def test_block_files() -> None:
    """The old file or the new one, never a part."""
    report = Search(block_file(), STRICT, most=64, deeper=4).run()
    print(report)
    assert not report.lost, "\n".join(map(str, report.losses))


@pytest.mark.long
@pytest.mark.parametrize("model", MODELS, ids=str)
def test_nothing_is_lost_in_more_states(model: Model) -> None:
    """The same with many states at each point, cuts while a cut is recovered from, and kills."""
    for workload in (chain_store(), old_store()):
        report = Search(workload, model, most=200, deeper=8).run()
        print(report)
        assert not report.lost, "\n".join(map(str, report.losses))
