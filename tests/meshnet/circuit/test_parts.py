"""The small parts: labels, timers, buckets, keys, sentences."""

from __future__ import annotations

import random
from functools import partial

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher import onion_error
from meshnet.cipher.hashing import hkdf, hmac256
from meshnet.cipher.keys import SecretKey
from meshnet.circuit import keys
from meshnet.circuit.failure import bare, describe, error_onion, opened
from meshnet.circuit.labels import TOP, Labels
from meshnet.circuit.policy import Bucket
from meshnet.circuit.timers import Timers
from meshnet.errors import Reason
from meshnet.limits import LABEL_QUARANTINE

ROUTE = [SecretKey(bytes([number]) * 32).public for number in (1, 2, 3)]


class LabelTests(SynchronousTestCase):
    def labels(self, ours_greater: bool, source: random.Random) -> Labels:
        one, other = b"\x03", b"\x02"
        return Labels(one if ours_greater else other, other if ours_greater else one, source.randbytes)

    @given(st.booleans(), st.integers(0, 15), st.sampled_from([1, 2, 4, 8, 16]), st.integers())
    def test_drawn(self, greater: bool, residue: int, modulus: int, seed: int) -> None:
        """Top bit by the greater key, residue as asked, never one in use or at rest."""
        labels = self.labels(greater, random.Random(seed))
        taken: set[int] = set()
        for _ in range(20):
            label = labels.draw(taken, residue % modulus, modulus)
            self.assertNotIn(label, taken)
            self.assertFalse(labels.rests(label, 0.0))
            self.assertEqual(bool(label & TOP), greater)
            self.assertEqual(label % modulus, residue % modulus)
            self.assertTrue(labels.is_ours(label))
            taken.add(label)
            labels.rest(label, 0.0)

    def test_draws_again(self) -> None:
        """A draw that is in use or at rest is thrown away."""
        draws = iter([bytes(3) + b"\x01", bytes(3) + b"\x02", bytes(3) + b"\x03"])
        labels = Labels(b"a", b"b", lambda size: next(draws))
        labels.rest(1, 0.0)
        self.assertEqual(labels.draw({2}), 3)

    def test_rest(self) -> None:
        """Sixty seconds from the first time."""
        labels = self.labels(True, random.Random(1))
        labels.rest(5, 0.0)
        labels.rest(5, 30.0)
        self.assertTrue(labels.rests(5, LABEL_QUARANTINE - 1))
        self.assertFalse(labels.rests(5, LABEL_QUARANTINE))
        self.assertEqual(len(labels), 0)


class TimerTests(SynchronousTestCase):
    def test_in_order(self) -> None:
        """Calls come in order of time, then of adding; cancelled ones never."""
        timers = Timers()
        made: list[tuple[float, float]] = []
        for when in (3, 1, 2, 1):
            timers.add(when, partial(lambda when, now: made.append((when, now)), when))
        timers.cancel(timers.add(0.5, print))
        timers.cancel(None)
        self.assertEqual(timers.next(), 1)
        timers.run(2.5)
        self.assertEqual(made, [(1, 2.5), (1, 2.5), (2, 2.5)])
        self.assertEqual(timers.next(), 3)

    @given(st.lists(st.tuples(st.integers(0, 50), st.booleans()), max_size=60))
    def test_against_a_list(self, entries: list[tuple[int, bool]]) -> None:
        timers = Timers()
        made: list[int] = []
        added = []
        for when, stop in entries:
            call = partial(lambda when, now: made.append(when), when)
            added.append((timers.add(when, call), when, stop))
        for timer, _, stop in added:
            if stop:
                timers.cancel(timer)
                timers.cancel(timer)
        timers.run(25)
        expected = sorted(when for when, stop in entries if not stop)
        self.assertEqual(made, [when for when in expected if when <= 25])
        left = [when for when in expected if when > 25]
        self.assertEqual(timers.next(), left[0] if left else None)

    def test_cancelled_ones_are_let_go(self) -> None:
        """Many short lives leave no heap behind."""
        timers = Timers()
        for _ in range(10_000):
            timers.cancel(timers.add(1e6, print))
        self.assertLess(len(timers._heap), 3_000)


class BucketTests(SynchronousTestCase):
    def test_rate_and_burst(self) -> None:
        bucket = Bucket(10.0, 5.0, 0.0)
        self.assertEqual([bucket.take(1, 0.0) for _ in range(6)], [True] * 5 + [False])
        self.assertTrue(bucket.take(1, 0.11))
        self.assertFalse(bucket.take(1, 0.11))
        self.assertFalse(bucket.take(6, 100.0))
        self.assertFalse(Bucket(10.0, 1.0, 5.0).take(2, 1.0))  # a clock before its start gives nothing


class KeyTests(SynchronousTestCase):
    def test_as_on_the_wire(self) -> None:
        """Both ends derive the same ck; all else is HMACs as in docs/wire-format.md §3."""
        ours, theirs = SecretKey(b"1" * 32), SecretKey(b"2" * 32)
        secret = b"s" * 32
        ck = keys.circuit_key(secret, ours, theirs.public)
        self.assertEqual(ck, keys.circuit_key(secret, theirs, ours.public))
        self.assertEqual(ck, hkdf(secret, ours.ecdh(theirs.public)))
        self.assertEqual(keys.layer_key(ck, keys.FORWARD), hmac256(ck, b"cellf"))
        self.assertEqual(keys.offset(ck, keys.BACKWARD), int.from_bytes(hmac256(ck, b"offb")[:8], "big"))
        self.assertEqual(keys.sequence_start(ck, b"f"), int.from_bytes(hmac256(ck, b"seqf")[:8], "big"))


class SentenceTests(SynchronousTestCase):
    def test_every_reason_has_a_sentence(self) -> None:
        for reason in Reason:
            if reason is not Reason.FORGED:
                self.assertNotIn("failed:", str(describe(ROUTE, 1, reason, "x")))
                self.assertTrue(str(describe(ROUTE, 1, reason)).startswith("relay 2 (024d4b6c…) "), reason)

    def test_bare(self) -> None:
        self.assertEqual(bare(ROUTE, 4).reason, Reason.BUSY)
        self.assertRaises(ValueError, bare, ROUTE, 5)

    def test_unprintable_text_is_not_shown(self) -> None:
        """A relay cannot write to our terminal."""
        onion = error_onion(b"1" * 32, Reason.REFUSED, "a\x1b[2Jb\n")
        error = opened([b"1" * 32, b"2" * 32, b"3" * 32], ROUTE, onion)
        self.assertTrue(str(error).endswith(": a?[2Jb?"), str(error))

    def test_long_text_is_cut(self) -> None:
        onion = error_onion(b"1" * 32, Reason.REFUSED, "ä" * 300)
        self.assertEqual(str(opened([b"1" * 32], ROUTE[:1], onion)).count("ä"), 100)

    @given(st.binary(max_size=256))
    def test_any_content(self, content: bytes) -> None:
        """Whatever a hop seals, the origin gets an error that names it."""
        error = opened([b"1" * 32, b"2" * 32], ROUTE[:2], onion_error.create(b"1" * 32, content))
        self.assertEqual(error.hop, 0)
        self.assertIsNot(error.reason, Reason.FORGED)
