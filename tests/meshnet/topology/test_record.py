"""Link-state records: their bytes, and what is refused."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import BadKeyError
from meshnet.errors import CodecError
from meshnet.limits import LINKS_STATED
from meshnet.topology import record as records
from meshnet.topology.record import LinkRow, Record, issue, moved, peek, read, recall
from tests.support.topology import data, key, name, record, row, statement


class Bytes(SynchronousTestCase):
    """What a record is made of."""

    def test_size(self) -> None:
        """166 bytes, and 26 for each link: what a network of ten thousand costs to carry."""
        for links in (0, 1, 6):
            self.assertEqual(len(data(1, [row(i + 2) for i in range(links)])), 166 + 26 * links)
        self.assertEqual(records.LARGEST, 166 + 26 * LINKS_STATED)

    def test_round_trip(self) -> None:
        """What was stated is read, and the bytes are kept as they came."""
        made = data(1, [row(2), row(3)], country=b"DE", latitude=50, longitude=-120)
        found = read(made)
        self.assertEqual(found.data, made)
        self.assertEqual((found.name, found.key), (name(1), key(1).public))
        self.assertEqual(set(found.links), {name(2), name(3)})
        self.assertEqual((found.country, found.place), ("DE", (50, -120)))
        self.assertEqual(peek(made), (found.name, found.issued))
        self.assertEqual(recall(made).statement, found.statement)
        self.assertIsNone(record(1, []).place)

    @given(st.integers(0, 217), st.integers(1, 255))
    def test_any_change(self, position: int, flip: int) -> None:
        """A record with one byte changed is refused, wherever it is."""
        made = bytearray(data(1, [row(2), row(3)]))
        made[position] ^= flip
        with self.assertRaises(CodecError):
            read(bytes(made))

    @given(st.binary(max_size=400))
    def test_anything(self, junk: bytes) -> None:
        """Arbitrary bytes raise CodecError, and nothing else."""
        for call in (read, peek, recall):
            with contextlib.suppress(CodecError):
                call(junk)
        with self.assertRaises(CodecError):
            read(junk)


class Refused(SynchronousTestCase):
    """Statements that are signed and still none."""

    def refuse(self, **changes: object) -> None:
        """A record with these changes must not be read."""
        with self.assertRaises(CodecError):
            read(issue(statement(key=key(1).public, **changes), key(1)))

    def test_statements(self) -> None:
        """A version, country, place, life, link or key that cannot be."""
        self.refuse(version=2)
        self.refuse(country=b"de")
        self.refuse(country=b"D\0")
        self.refuse(latitude=91, longitude=0)
        self.refuse(latitude=0, longitude=181)
        self.refuse(life=0)
        self.refuse(links=(LinkRow(name(1), 0, 0, 0, 0),))
        self.refuse(epoch=1, onion_key=bytes(33))

    def test_twice(self) -> None:
        """A neighbour stated twice is no statement."""
        with self.assertRaises(Exception) as caught:
            data(1, [row(2), row(2)])
        self.assertIsNotNone(caught.exception)

    def test_of_another(self) -> None:
        """Nobody issues a record about another key."""
        with self.assertRaises(BadKeyError):
            issue(statement(key=key(2).public), key(1))


class Moved(SynchronousTestCase):
    """When a node has something new to say."""

    def test_quarter(self) -> None:
        """More than a quarter counts, less does not; a link that comes or goes always does."""
        before: Record = record(1, [row(2, 40_000)])
        rows = before.statement.links
        self.assertFalse(moved(rows, [row(2, 48_000)], 0.25))
        self.assertTrue(moved(rows, [row(2, 60_000)], 0.25))
        self.assertTrue(moved(rows, [row(2, 40_000, capacity=10_000)], 0.25))
        self.assertTrue(moved(rows, [row(2, 40_000), row(3)], 0.25))
        self.assertTrue(moved(rows, [], 0.25))

    def test_noise(self) -> None:
        """Tenths of milliseconds and a lost packet in thousands are noise."""
        self.assertFalse(moved([row(2, 100)], [row(2, 900)], 0.25))
        self.assertFalse(moved([row(2, loss=0)], [row(2, loss=60)], 0.25))
        self.assertTrue(moved([row(2, loss=0)], [row(2, loss=700)], 0.25))
