"""A publisher and its store through every power cut: no block twice, none lost that others may have."""

from __future__ import annotations

import pytest

from coin.chain.params import Chain
from coin.chain.rules import signers
from coin.chain.transaction import Output
from coin.replication.publisher import Promise, Publisher
from coin.store.store import ChainStore, open_store
from coin.wallet.keeping import create_wallet, load_wallet, save_wallet
from coin.wallet.wallet import new_wallet
from lab.crash.search import Report, Search, Workload
from lab.crash.sqlite import available, connect_on
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import EXT4, STRICT, Model
from meshnet.storage.files import sweep
from tests.support.chains import HOUR, START, Ledger, key, owner, small_chain

needs_apsw = pytest.mark.skipif(not available(), reason="APSW is not installed; ./mesh test installs it")
CHAIN: Chain = small_chain()


def opened(disk: SimulatedDisk) -> tuple[Publisher, ChainStore]:
    """As the node of a publisher starts: what was promised is stored first."""
    sweep(disk, "/d")
    publisher = Publisher(CHAIN, key(0), Promise(disk, "/d/promise"))
    store = open_store(disk, "/d/chain.db", CHAIN, connect=connect_on(disk), separate_reader=False)
    owed = publisher.owed(store.head)
    if owed is not None:
        added = store.add([owed], [[signers(each) for each in owed.transactions]])
        assert added.refused is None
    return publisher, store


def publish(disk: SimulatedDisk, witness: Witness) -> None:
    """Two blocks, each told to others as soon as it is signed."""
    ledger = Ledger(CHAIN)
    publisher, store = opened(disk)
    for number in (1, 2):
        payment = ledger.pay(number, Output(owner(number + 1), ledger.of(number)[0].coins, 0))
        unix = START + number * HOUR
        fee = ledger.check(ledger.block(payment)).fee
        ahead = Publisher(CHAIN, key(0), Promise(SimulatedDisk(), "/promise"))
        expected = ahead.make(store.head, {payment: fee}, unix)
        assert expected is not None
        witness.begins((number, expected.hash))
        block = publisher.make(store.head, {payment: fee}, unix)
        witness.holds()
        assert block is not None and block.hash == expected.hash
        added = store.add([block], [[signers(payment)]])
        assert added.refused is None, added.refused
        ledger.add(block)
    store.close()


def head(disk: SimulatedDisk) -> tuple[int, bytes]:
    """What a restarted node ends with; it would follow on that and on nothing else."""
    publisher, store = opened(disk)
    found = store.head
    assert not publisher.refusal(found, START), "it would never make a block again"
    store.close()
    return found.header.sequence, found.hash


def prepare(disk: SimulatedDisk) -> None:
    disk.mkdir("/d")
    opened(disk)[1].close()


PUBLISHER = Workload("publisher", publish, head, prepare, (0, CHAIN.genesis.hash))


def nothing_lost(report: Report) -> None:
    print(report)
    assert not report.lost, "\n".join(map(str, report.losses))


@needs_apsw
def test_a_signed_block_stays() -> None:
    """After each cut the node ends with the block that was signed last; before it was told, perhaps with the
    one before."""
    nothing_lost(Search(PUBLISHER, STRICT, most=3, depth=0, kills=False).run())


@needs_apsw
@pytest.mark.long
@pytest.mark.parametrize("model", [STRICT, EXT4], ids=str)
def test_a_signed_block_stays_in_more_states(model: Model) -> None:
    """The same with more states at each point, with cuts of recoveries, and after kills."""
    nothing_lost(Search(PUBLISHER, model, most=40, deeper=3).run())


def grow(disk: SimulatedDisk, witness: Witness) -> None:
    """A new wallet, and an address more."""
    wallet = new_wallet("seed words of no wallet", "label", "wallet", START)
    witness.begins(wallet.encode())
    create_wallet(disk, "/d/wallet", wallet)
    witness.holds()
    wallet.grow(1)
    witness.begins(wallet.encode())
    save_wallet(disk, "/d/wallet", wallet)
    witness.holds()


def loaded(disk: SimulatedDisk) -> bytes | None:
    return load_wallet(disk, "/d/wallet").encode() if disk.exists("/d/wallet") else None


def test_a_wallet_stays() -> None:
    """A wallet that was saved has all its addresses after each cut."""
    workload = Workload("wallet", grow, loaded, lambda disk: disk.mkdir("/d"))
    nothing_lost(Search(workload, STRICT.with_sector(64), most=200, deeper=8).run())
