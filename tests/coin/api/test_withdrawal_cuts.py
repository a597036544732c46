"""Withdrawals through every power cut: an id never has two transactions, one that was told of stays."""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from typing import Any

import pytest
from twisted.internet.defer import Deferred, maybeDeferred

from coin.api.withdrawal_book import Withdrawal, open_book
from coin.api.withdrawing import Asked, Fate, Withdrawing
from coin.chain.transaction import Output, Transaction, new_transaction
from lab.crash.search import Report, Search, Workload
from lab.crash.sqlite import available, connect_on
from lab.crash.witness import Witness
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import EXT4, STRICT, Model
from tests.support.chains import key, owner

needs_apsw = pytest.mark.skipif(not available(), reason="APSW is not installed; ./mesh test installs it")
OUTPUTS = [bytes([number]) * 32 for number in range(1, 9)]
Sent = dict[str, bytes]


class Wire:
    """All that others ever heard: whatever was sent stays known, the power may go or not. So from then on
    the book must have it."""

    def __init__(self, holds: Callable[[], None] = lambda: None) -> None:
        self.heard: list[Transaction] = []
        self._holds = holds

    async def send(self, transactions: Sequence[Transaction]) -> Collection[bytes]:
        """Everybody hears."""
        self._holds()
        self.heard += transactions
        return frozenset(each.id for each in transactions)

    async def fates(self, withdrawals: Sequence[Withdrawal]) -> Sequence[Fate]:
        """No block comes; the pool forgets."""
        return [Fate() for _ in withdrawals]


class Node:
    """A node that pays withdrawals, from its start to its death. What it signs differs each time, as it
    would with another choice of outputs."""

    def __init__(self, disk: SimulatedDisk, wire: Wire, life: int) -> None:
        self.book = open_book(disk, "/d/withdrawals.db", connect=connect_on(disk))
        self.flow = Withdrawing(self.book, wire, maybeDeferred, lambda: 1.0)
        self._life = life
        done(self.flow.start())

    def pay(self, id: str) -> bytes:
        """Asks for one; the id of its transaction."""

        async def make(kept: Collection[bytes]) -> Transaction:
            free = next(each for each in OUTPUTS if each not in kept)
            made = new_transaction([free], [Output(owner(2), 1_000 + self._life, 0)])
            return made.signed([key(1)])

        found: Withdrawal = done(self.flow.withdraw(Asked(id, "w.wlt", {"to": []}), make))
        return found.transaction.id

    def stop(self) -> None:
        """Ends in order."""
        self.flow.close()


def done(waiting: Any) -> Any:
    """The result of what is over already; raises what it failed with."""
    found: list[Any] = []
    work = waiting if isinstance(waiting, Deferred) else Deferred.fromCoroutine(waiting)
    work.addBoth(found.append)
    (result,) = found
    if isinstance(result, BaseException) or hasattr(result, "raiseException"):
        result.raiseException()
    return result


def of_all(heard: Sequence[Transaction], paid: Sent) -> None:
    """Nobody ever heard of two transactions that pay the same id, nor of one that the book does not have."""
    unknown = {each.id for each in heard} - set(paid.values())
    assert not unknown, f"sent, and not in the book: {unknown}"


def pay_two(disk: SimulatedDisk, witness: Witness) -> None:
    """Two withdrawals, one of them asked for twice, and a look after them."""
    wire = Wire(witness.holds)
    node = Node(disk, wire, 0)
    paid: Sent = {}
    for id in ("a", "b", "a"):
        told = [(name, number) for name, number in paid.items()]
        if id not in paid:
            expected = expected_of(node, 0)
            witness.begins(tuple(sorted([*told, (id, expected)])))
        found = node.pay(id)
        assert paid.setdefault(id, found) == found
    done(node.flow.tick())
    of_all(wire.heard, paid)
    node.stop()


def expected_of(node: Node, life: int) -> bytes:
    """What the next one will be."""
    free = next(each for each in OUTPUTS if each not in node.flow.kept)
    return new_transaction([free], [Output(owner(2), 1_000 + life, 0)]).signed([key(1)]).id


def restarted(disk: SimulatedDisk) -> tuple[tuple[str, bytes], ...]:
    """What the book has after a cut. Asked again in another life, each id has what it had, and all that was
    recorded is heard of again, once."""
    wire = Wire()
    node = Node(disk, wire, 1)
    found = {each.id: each.transaction.id for each in node.book.open()}
    for id in found:
        assert node.pay(id) == found[id], "paid twice"
    done(node.flow.tick())
    assert {each.id for each in wire.heard} == set(found.values()), "not sent again, or something else"
    inputs = [number for each in node.book.open() for number in each.transaction.inputs]
    assert len(set(inputs)) == len(inputs), "two withdrawals spend the same"
    node.stop()
    return tuple(sorted(found.items()))


def prepare(disk: SimulatedDisk) -> None:
    disk.mkdir("/d")
    Node(disk, Wire(), 0).stop()


WORKLOAD = Workload("withdrawals", pay_two, restarted, prepare, ())


def nothing_lost(report: Report) -> None:
    print(report)
    assert not report.lost, "\n".join(map(str, report.losses))


@needs_apsw
def test_paid_once() -> None:
    """After each cut an id has its one transaction or none; none only if nobody can have heard of one."""
    nothing_lost(Search(WORKLOAD, STRICT, most=2, depth=0, kills=False).run())


@needs_apsw
@pytest.mark.long
@pytest.mark.parametrize("model", [STRICT, EXT4], ids=str)
def test_paid_once_in_more_states(model: Model) -> None:
    """The same with more states at each point, with cuts of recoveries, and after kills."""
    nothing_lost(Search(WORKLOAD, model, most=30, deeper=3).run())
