"""Suspects, and guards."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.limits import SUSPECTS
from meshnet.topology.guards import COUNT, GONE, LIFE, Guard, keep
from meshnet.topology.record import Name
from meshnet.topology.suspicion import HALF_LIFE, Suspicion
from tests.support.topology import UNIX, graph, name


class Suspects(SynchronousTestCase):
    """Relays in circuits that died."""

    def test_third_time(self) -> None:
        """The relay that was in three dead circuits is one; those beside it, once each, are not."""
        suspicion = Suspicion()
        for other in (2, 3, 4):
            suspicion.died([name(1), name(other)], 0.0)
        self.assertEqual(suspicion.suspects(0.0), {name(1)})

    def test_innocent(self) -> None:
        """A relay that carries more circuits than die over it is none."""
        suspicion = Suspicion()
        suspicion.died([name(1)], 0.0)
        for _ in range(5):
            suspicion.lived([name(1)], 0.0)
        for _ in range(3):
            suspicion.died([name(1)], 0.0)
        self.assertEqual(suspicion.suspects(0.0), set())

    def test_fades(self) -> None:
        """After hours it may try again, and one death is then one."""
        suspicion = Suspicion()
        for _ in range(4):
            suspicion.died([name(1)], 0.0)
        self.assertEqual(suspicion.suspects(HALF_LIFE), {name(1)})
        self.assertEqual(suspicion.suspects(3 * HALF_LIFE), set())
        suspicion.died([name(1)], 3 * HALF_LIFE)
        self.assertEqual(suspicion.suspects(3 * HALF_LIFE), set())

    def test_bounded(self) -> None:
        """However many relays there are, those that matter are kept and the table is small."""
        suspicion = Suspicion()
        for _ in range(3):
            suspicion.died([name(1)], 0.0)
        for number in range(2 * SUSPECTS):
            suspicion.died([Name(number.to_bytes(8, "big"))], 1.0)
        self.assertLessEqual(len(suspicion), SUSPECTS)
        self.assertEqual(suspicion.suspects(1.0), {name(1)})


class Guards(SynchronousTestCase):
    """The two that are kept."""

    def setUp(self) -> None:
        """Node 1; its neighbours 2 and 3; behind them 4 to 9."""
        links = {(1, 2): 10, (1, 3): 10} | {(a, b): 10 for a in (2, 3) for b in range(4, 10)}
        self.graph = graph(links)
        self.random = Random(7).randbytes

    def test_kept(self) -> None:
        """Two relays behind our neighbours, the same again for 30 days, others afterwards."""
        first = keep((), self.graph, name(1), UNIX, self.random)
        self.assertEqual(len(first), COUNT)
        self.assertTrue({each.name for each in first} <= {name(i) for i in range(4, 10)})
        later = keep(first, self.graph, name(1), UNIX + LIFE - 10, self.random)
        self.assertEqual([each.name for each in later], [each.name for each in first])
        over = keep(later, self.graph, name(1), UNIX + LIFE, self.random)
        self.assertEqual({each.since for each in over}, {UNIX + LIFE})

    def test_gone(self) -> None:
        """One that is away for an hour stays; one that is gone for days is replaced, the other kept."""
        gone = Guard(name(70), UNIX, UNIX)
        stays = Guard(name(4), UNIX, UNIX)
        soon = keep((gone, stays), self.graph, name(1), UNIX + 3_600, self.random)
        self.assertEqual([each.name for each in soon], [name(70), name(4)])
        late = keep((gone, stays), self.graph, name(1), UNIX + GONE, self.random)
        self.assertEqual(late[0].name, name(4))
        self.assertEqual(len(late), COUNT)
        self.assertNotIn(name(70), [each.name for each in late])

    def test_suspect(self) -> None:
        """A guard that is suspected is none any more."""
        kept = keep((Guard(name(4), UNIX, UNIX),), self.graph, name(1), UNIX, self.random, {name(4)})
        self.assertNotIn(name(4), [each.name for each in kept])

    @given(st.integers(-(10**9), 10**9), st.integers(-(10**9), 10**9))
    def test_any_clock(self, since: int, unix: int) -> None:
        """A clock that jumps leaves two guards, none of them from the future."""
        kept = keep((Guard(name(4), since, since),), self.graph, name(1), unix, self.random)
        self.assertEqual(len(kept), COUNT)
        self.assertTrue(all(each.since <= unix and each.seen <= unix for each in kept))
