"""The book: what is taken, what must wait, what is forgotten."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from meshnet.limits import RECORD_AHEAD, RECORD_BURST, RECORD_STEP
from meshnet.topology import book as book_module
from meshnet.topology.book import LEVELS, Book, Verdict, bucket
from meshnet.topology.record import LinkRow, Name
from tests.support.topology import UNIX, data, name, record, row

PEER = name(2)


class Taking(SynchronousTestCase):
    """One record after the other."""

    def setUp(self) -> None:
        """Node 1, linked to node 2."""
        self.book = Book(1, name(1))
        self.book.publish(record(1, [row(2), row(3)]), 0.0)
        self.take(data(2, [row(1)]), Verdict.NEW)
        self.book.news()

    def take(self, made: bytes, verdict: Verdict, now: float = 0.0) -> None:
        """Offers a record, and says what must become of it."""
        self.assertEqual(self.book.take(made, PEER, now, UNIX), verdict)

    def test_newer_replaces(self) -> None:
        """The later one holds, the same again is known, an earlier one is old."""
        self.take(data(2, [row(1)], issued=UNIX + 5), Verdict.NEW)
        self.take(data(2, [row(1)], issued=UNIX + 5), Verdict.KNOWN)
        self.take(data(2, [row(1)]), Verdict.OLDER)
        self.assertEqual(self.book.issued(name(2)), UNIX + 5)
        self.assertEqual([each.issued for each in self.book.news()], [UNIX + 5])

    def test_refused(self) -> None:
        """Forged, expired, of the future, of another network, of this node itself."""
        forged = bytearray(data(3, [row(1)]))
        forged[-1] ^= 1
        self.take(bytes(forged), Verdict.MALFORMED)
        self.take(bytes(300), Verdict.MALFORMED)
        self.take(b"", Verdict.MALFORMED)
        self.take(data(3, [row(1)], issued=UNIX - 180 * 60), Verdict.EXPIRED)
        self.take(data(3, [row(1)], issued=UNIX + RECORD_AHEAD + 1), Verdict.AHEAD)
        self.take(data(3, [row(1)], life=0xFFFF), Verdict.AHEAD)
        self.take(data(3, [row(1)], network=2), Verdict.NETWORK)
        self.take(data(1, [], issued=UNIX + 1), Verdict.OWN)
        ours = bytearray(data(1, [], issued=UNIX + 1))
        ours[38:42] = b"\xff" * 4
        self.take(bytes(ours), Verdict.MALFORMED)
        self.assertEqual(len(self.book), 2)

    def test_clocks_differ(self) -> None:
        """A node whose clock is an hour wrong, either way, is heard."""
        self.take(data(3, [row(1)], issued=UNIX + 3_600), Verdict.NEW)
        self.take(data(2, [row(1)], issued=UNIX + 1), Verdict.NEW)
        fresh = Book(1, name(1))
        fresh.publish(record(1, [row(2)]), 0.0)
        self.assertEqual(fresh.take(data(2, [row(1)], issued=UNIX - 3_600), PEER, 0, UNIX), Verdict.NEW)

    def test_flapping(self) -> None:
        """A node that changes too often is heard once a minute."""
        for i in range(RECORD_BURST - 1):
            self.take(data(2, [row(1)], issued=UNIX + 1 + i), Verdict.NEW)
        self.take(data(2, [row(1)], issued=UNIX + 90), Verdict.OFTEN)
        self.take(data(2, [row(1)], issued=UNIX + 90), Verdict.NEW, now=RECORD_STEP + 1)

    def test_apart(self) -> None:
        """Nodes behind no known link wait; the record that connects them brings all of them."""
        self.take(data(5, [row(4), row(6)]), Verdict.APART)
        self.take(data(6, [row(5)]), Verdict.APART)
        self.take(data(4, [row(3), row(5)]), Verdict.APART)
        self.assertEqual((self.book.attached, len(self.book)), (2, 5))
        self.take(data(3, [row(1), row(4)]), Verdict.NEW)
        self.assertEqual(self.book.attached, 6)
        self.assertEqual({each.name for each in self.book.news()}, {name(i) for i in (3, 4, 5, 6)})

    def test_strangers_are_few(self) -> None:
        """Keys without a link to the network hold as many places as one neighbour has, the newest ones."""
        limit = 40
        self.patch(book_module, "RECORDS_APART_PER_PEER", limit)
        cheap = [data(number, []) for number in range(100, 160)]
        for made in cheap:
            self.take(made, Verdict.APART)
        self.assertEqual((len(self.book), self.book.attached), (2 + limit, 2))
        self.assertEqual(len(self.book.graph), 2 + limit)
        self.assertIsNone(self.book.get(name(100)))
        self.assertIsNotNone(self.book.get(name(159)))

    def test_disconnected(self) -> None:
        """Who loses the last link is told of no longer; who comes back is."""
        self.take(data(3, [row(1)]), Verdict.NEW)
        before = self.book.digests(0)
        self.take(data(3, [], issued=UNIX + 1), Verdict.NEW)
        self.book.tick(100.0, UNIX)
        self.assertEqual(self.book.attached, 2)
        self.take(data(3, [row(1)], issued=UNIX + 2), Verdict.NEW, now=200.0)
        self.assertEqual(self.book.attached, 3)
        self.assertNotEqual(self.book.digests(0), before)

    def test_expiry(self) -> None:
        """A record that is not renewed goes, and all that it connected."""
        self.take(data(3, [row(1), row(4)], issued=UNIX - 3_600), Verdict.NEW)
        self.take(data(4, [row(3)]), Verdict.NEW)
        self.book.tick(10.0, UNIX + 2 * 3_600 + 1)
        self.assertIsNone(self.book.get(name(3)))
        self.assertEqual(self.book.attached, 2)


class Digests(SynchronousTestCase):
    """Comparing two books."""

    def test_equal_or_not(self) -> None:
        """The same records give the same digests in whatever order they came; one that differs shows in its
        bucket, at every level."""
        one, other = Book(1, name(1)), Book(1, name(1))
        rows = [row(i) for i in range(2, 30)]
        made = [data(i, [row(1)]) for i in range(2, 30)]
        for book, order in ((one, made), (other, made[::-1])):
            book.publish(record(1, rows), 0.0)
            for each in order:
                book.take(each, PEER, 0.0, UNIX)
        for level in range(LEVELS + 1):
            self.assertEqual(one.digests(level), other.digests(level))
        other.take(data(7, [row(1)], issued=UNIX + 1), PEER, 0.0, UNIX)
        for level in range(LEVELS + 1):
            mine, theirs = one.digests(level), other.digests(level)
            self.assertEqual(len(mine), 1 << level)
            differ = {i for i in range(1 << level) if mine[i] != theirs[i]}
            self.assertEqual(differ, {bucket(name(7), level)})
            self.assertIn((name(7), UNIX + 1), other.entries(differ, level))

    def test_nearest_first(self) -> None:
        """Entries come by their distance, so that a stranger can connect each to one before."""
        book = Book(1, name(1))
        book.publish(record(1, [row(2)]), 0.0)
        for i in range(2, 10):
            links: list[LinkRow] = [row(i - 1), row(i + 1)]
            book.take(data(i, links), PEER, 0.0, UNIX)
        order: list[Name] = [each for each, _ in book.entries({0}, 0)]
        self.assertEqual(order, [name(i) for i in range(1, 10)])
