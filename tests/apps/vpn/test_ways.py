"""Ways picked among known nodes."""

from __future__ import annotations

from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.ways import pick_way
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import UsageError

KEYS = [SecretKey(bytes([n]) * 32).public for n in range(1, 12)]
OWN, TARGET, *OTHERS = KEYS


class PickTests(SynchronousTestCase):
    """`pick_way`."""

    @given(st.integers(1, 8), st.sets(st.sampled_from(KEYS)), st.sets(st.sampled_from(KEYS)), st.integers())
    def test_picks(self, hops: int, near: set[PublicKey], known: set[PublicKey], seed: int) -> None:
        """As long as asked, a neighbour first, nobody twice, neither end on the way; or a sentence."""
        usable = {*near, *known} - {OWN, TARGET}
        try:
            way = pick_way(hops, TARGET, OWN, near, known, Random(seed).choice)
        except UsageError:
            self.assertTrue(len(usable) < hops - 1 or not near - {OWN, TARGET})
            return
        self.assertEqual(len({*way, OWN, TARGET}), hops + 1)
        self.assertLessEqual({*way}, usable)
        self.assertTrue(not way or way[0] in near)

    def test_by_chance(self) -> None:
        """Every relay has its turn."""
        random = Random(1)
        ways = [pick_way(3, TARGET, OWN, OTHERS[:3], OTHERS, random.choice) for _ in range(300)]
        self.assertEqual({way[0] for way in ways}, {*OTHERS[:3]})
        self.assertEqual({way[1] for way in ways}, {*OTHERS})

    def test_length(self) -> None:
        """A way has bounds."""
        for hops in (0, 9, -1):
            self.assertRaises(UsageError, pick_way, hops, TARGET, OWN, OTHERS, OTHERS, Random(1).choice)
