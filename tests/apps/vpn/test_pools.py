"""Addresses that an exit lends."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn import pools
from apps.vpn.pools import POOL4, POOL6, REST_SECONDS, Pools, Seat


def ticket(number: int) -> bytes:
    return number.to_bytes(16, "big")


class PoolsTests(SynchronousTestCase):
    def test_pairs(self) -> None:
        """Clients have the same number in both pools; the first address is the exit's own."""
        both = Pools()
        first, second = both.take(0, ticket(1)), both.take(0, ticket(2))
        assert first is not None and second is not None
        self.assertEqual((both.own4, both.own6), (POOL4[1], POOL6[1]))
        self.assertEqual((first.v4, first.v6), (POOL4[2], POOL6[2]))
        self.assertEqual((second.v4, second.v6), (POOL4[3], POOL6[3]))

    def test_one_family(self) -> None:
        """A family without a pool has no addresses."""
        seat = Pools(None, POOL6).take(0, ticket(1))
        assert seat is not None
        self.assertEqual((seat.v4, seat.v6), (None, POOL6[2]))
        self.assertRaises(ValueError, Pools, None, None)
        self.assertRaises(ValueError, Pools, IPv4Network("10.0.0.0/31"), None)

    def test_quarantine(self) -> None:
        """An address given back is nobody's for a while; with a full pool a newcomer waits so long."""
        small = Pools(IPv4Network("10.0.0.0/29"), None)
        self.assertEqual(small.size, 5)
        seats = [small.take(0, ticket(number)) for number in range(1, 6)]
        self.assertIsNone(small.take(0, ticket(9)))
        third = seats[2]
        assert third is not None
        small.give_back(third, 100)
        self.assertIsNone(small.take(100 + REST_SECONDS - 1, ticket(9)))
        again = small.take(100 + REST_SECONDS, ticket(9))
        assert again is not None
        self.assertEqual(str(again.v4), "10.0.0.4")
        self.assertIsNone(small.resume(100 + REST_SECONDS, ticket(3)))
        self.assertIs(small.resume(100 + REST_SECONDS, ticket(9)), again)

    def test_resume(self) -> None:
        """A ticket gets its seat back while it rests, and while it is taken; not afterwards."""
        both = Pools()
        seat = both.take(0, ticket(1))
        assert seat is not None
        self.assertIs(both.resume(1, ticket(1)), seat)
        self.assertEqual(both.taken, 1)
        both.give_back(seat, 10)
        self.assertEqual(both.taken, 0)
        self.assertIs(both.resume(11, ticket(1)), seat)
        self.assertEqual((both.taken, both.resting), (1, 0))
        both.give_back(seat, 20)
        self.assertIsNone(both.resume(20 + REST_SECONDS, ticket(1)))
        self.assertIsNone(both.resume(0, ticket(7)))

    def test_churn_is_bounded(self) -> None:
        """Clients that come and go at once use up what may rest, and no memory beyond it."""
        self.patch(pools, "RESTING", 10)
        both = Pools()
        for number in range(10):
            seat = both.take(number, ticket(number))
            assert seat is not None
            both.give_back(seat, number)
        self.assertIsNone(both.take(10, ticket(99)))
        self.assertEqual((both.resting, len(both._tickets)), (10, 10))
        self.assertIsNotNone(both.take(REST_SECONDS, ticket(99)))


class PoolsMachine(RuleBasedStateMachine):
    """Clients come, come back and go: nobody ever shares an address, and nothing is lost."""

    def __init__(self) -> None:
        super().__init__()
        self.pools = Pools(IPv4Network("10.0.0.0/28"), IPv6Network("fd00::/124"))
        self.now = 0.0
        self.number = 0
        self.there: dict[bytes, Seat] = {}
        self.gone: dict[bytes, tuple[Seat, float]] = {}

    @rule(seconds=st.sampled_from((0.0, 1.0, REST_SECONDS / 2, REST_SECONDS)))
    def wait(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def come(self) -> None:
        self.number += 1
        mine = ticket(self.number)
        seat = self.pools.take(self.now, mine)
        if seat is None:
            assert len(self.there) + len(self.gone) >= self.pools.size
            return
        self.gone = {old: was for old, was in self.gone.items() if was[0] is not seat}
        self.there[mine] = seat

    @precondition(lambda self: self.there)
    @rule(data=st.data())
    def go(self, data: st.DataObject) -> None:
        mine = data.draw(st.sampled_from(sorted(self.there)))
        seat = self.there.pop(mine)
        self.pools.give_back(seat, self.now)
        self.gone[mine] = (seat, self.now + REST_SECONDS)

    @precondition(lambda self: self.gone)
    @rule(data=st.data())
    def come_back(self, data: st.DataObject) -> None:
        mine = data.draw(st.sampled_from(sorted(self.gone)))
        seat, until = self.gone[mine]
        found = self.pools.resume(self.now, mine)
        assert (found is seat) == (self.now < until)
        if found is not None:
            self.there[mine] = self.gone.pop(mine)[0]

    @invariant()
    def nobody_shares(self) -> None:
        addresses = [seat.v4 for seat in self.there.values()]
        assert len(set(addresses)) == len(addresses) == self.pools.taken
        assert {self.pools.own4}.isdisjoint(addresses)
        assert self.pools.resting == len(self.gone)


ChurnTests = PoolsMachine.TestCase
ChurnTests.settings = settings(max_examples=30, stateful_step_count=30)
