"""Looks at a route service: bytes between two cores, nothing in between."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from random import Random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import CodecError
from meshnet.limits import RECORDS_ASKED, SYNC_BURST, SYNC_DIGESTS, SYNC_RATE
from meshnet.topology import frames
from meshnet.topology.book import Book, Verdict
from meshnet.topology.record import Name, Record, name_of, read
from meshnet.topology.sync import Answer, Catalogue, Cutter, Look, Shown, framed
from tests.support.topology import UNIX, data, key, name, record, row

SEED = 21


class Service:
    """A route service with these records."""

    def __init__(self, records: list[Record]) -> None:
        self.records = {each.name: each for each in records}
        self.taken: list[bytes] = []

    def answer(self) -> Answer:
        """For one caller."""
        return Answer(
            lambda: Catalogue.of((each.name, each.issued) for each in self.records.values()),
            lambda name: self.records[name].data if name in self.records else None,
            lambda name, issued: name not in self.records or self.records[name].issued < issued,
            self.taken.append,
            0.0,
        )


def row_of(count: int, issued: int = UNIX) -> list[Record]:
    """Nodes 1 … count in a row."""
    return [
        record(n, [row(o) for o in (n - 1, n + 1) if 1 <= o <= count], issued=issued)
        for n in range(1, count + 1)
    ]


def run(look: Look, answer: Answer, piece: int = 1 << 20) -> list[bytes]:
    """The whole look; the records that came. Bytes go in pieces, and time never lacks."""
    found: list[bytes] = []
    now = 0.0
    for _ in range(10_000):
        asked = look.output()
        for start in range(0, len(asked), piece):
            answer.receive(asked[start : start + piece])
        now += 10.0
        told = answer.output(now, 1 << 16)
        for start in range(0, len(told), piece):
            found += look.receive(told[start : start + piece])
        if look.done:
            return found
    raise AssertionError("the look has no end")


class Looks(SynchronousTestCase):
    """What comes of looks."""

    def look(self, shown: Shown, service: Service, **more: object) -> tuple[list[Name], Look]:
        """Names that came."""
        look = Look(shown, lambda name: 0, whole=True, **more)  # type: ignore[arg-type]
        return [name_of(each[5:38]) for each in run(look, service.answer(), 997)], look

    def test_first(self) -> None:
        """The first look brings every record once, more than fit into one SUMMARY or one ASK."""
        service = Service(row_of(1_100))
        names, look = self.look(Shown(), service)
        self.assertEqual(len(names), 1_100)
        self.assertEqual(set(names), set(service.records))
        self.assertEqual(look.records, 1_100)

    def test_nothing_new(self) -> None:
        """A second look costs its digests."""
        service, shown = Service(row_of(100)), Shown()
        self.look(shown, service)
        names, look = self.look(shown, service)
        self.assertEqual(names, [])
        self.assertLess(look.received, 64)

    def test_changes(self) -> None:
        """What is new, what has changed and what is gone: the next look brings only that."""
        service, shown = Service(row_of(100)), Shown()
        self.look(shown, service)
        newer = record(7, [row(6)], issued=UNIX + 5)
        other = record(500, [row(1)])
        service.records[newer.name], service.records[other.name] = newer, other
        del service.records[name(9)]
        names, _ = self.look(shown, service)
        self.assertEqual(set(names), {name(7), name(500)})
        self.assertEqual(shown.rows, {each.name: each.issued for each in service.records.values()})

    def test_questions_tell_nothing(self) -> None:
        """Two callers who know different parts of the network ask the same, byte for byte, if neither wants
        its questions to speak of it."""
        service = Service(row_of(60))
        asked = []
        for known in ([], [name(n) for n in range(1, 30)]):
            look = Look(Shown(), dict.fromkeys(known, UNIX).get, whole=True)  # type: ignore[arg-type]
            answer, said, now = service.answer(), b"", 0.0
            while not look.done:
                out = look.output()
                said += out
                answer.receive(out)
                now += 1.0
                look.receive(answer.output(now, 1 << 20))
            asked.append(said)
        self.assertEqual(asked[0], asked[1])

    def test_known_ones(self) -> None:
        """Who does not mind asks only for what it lacks."""
        service = Service(row_of(60))
        known = {name(n) for n in range(1, 30)}
        look = Look(Shown(), lambda each: UNIX if each in known else 0, whole=False)
        self.assertEqual(len(run(look, service.answer())), 60 - len(known))

    def test_refused(self) -> None:
        """What the caller could not keep is asked again in the next look."""
        service, shown = Service(row_of(10)), Shown()
        _, look = self.look(shown, service)
        look.refused(name(3))
        self.assertEqual(self.look(shown, service)[0], [name(3)])

    def test_own_record(self) -> None:
        """A caller may give its own record, once; the service asks for it if it lacks it."""
        service, own = Service(row_of(5)), record(50, [row(1)])
        self.look(Shown(), service, own=own)
        self.assertEqual(service.taken, [own.data])
        service.records[own.name] = own
        self.look(Shown(), service, own=own)
        self.assertEqual(len(service.taken), 1)

    def test_far_before_near(self) -> None:
        """A book that expects a service's records keeps more than a neighbour may tell it of what is not
        connected yet."""
        book = Book(1, name(1))
        book.expect(name(99), 100_000)
        for number in range(2, 300):
            each = data(number, [row(number - 1), row(number + 1)])
            self.assertIs(book.take(each, name(99), 0.0, float(UNIX)), Verdict.APART)
        book.publish(record(1, [row(2)]), 0.0)
        self.assertEqual(book.attached, 299)


class Vectors(SynchronousTestCase):
    """The bytes of looks, as docs/wire-format.md §9 has them."""

    def test_look(self) -> None:
        """Both sides of a first look say what the vector says."""
        case = json.loads((Path(__file__).parents[2] / "vectors" / "look.json").read_text())
        service = Service([read(bytes.fromhex(each)) for each in case["records"]])
        own = read(bytes.fromhex(case["own"]))
        look, answer = Look(Shown(), lambda name: 0, whole=True, own=own), service.answer()
        for turn in case["turns"]:
            asked = look.output()
            self.assertEqual(asked.hex(), turn["caller"])
            answer.receive(asked)
            told = answer.output(0.0, 1 << 20)
            self.assertEqual(told.hex(), turn["service"])
            look.receive(told)
        self.assertTrue(look.done)
        self.assertEqual(service.taken, [own.data])


class Hostile(SynchronousTestCase):
    """Callers and services that break the rules."""

    def test_rate(self) -> None:
        """A caller gets its share of bytes and no more, however much it asks for."""
        answer = Service(row_of(40)).answer()
        answer._tokens = 500.0
        answer.receive(framed(frames.DIGEST, frames.put_digest(0, [1])))
        first = len(answer.output(0.0, 1 << 30))
        answer.receive(framed(frames.ASK, frames.put_ask([name(n) for n in range(1, 41)])))
        first += len(answer.output(0.0, 1 << 30))
        self.assertLess(first, 2_000)
        self.assertIsNotNone(answer.due())
        later = len(answer.output(0.001, 1 << 30))
        self.assertLess(later, 0.001 * SYNC_RATE + 400)
        self.assertLess(SYNC_RATE, SYNC_BURST)

    def test_breaches(self) -> None:
        """Asking before the answer, too many digests, frames of no look and records nobody wanted end it."""
        digest = framed(frames.DIGEST, frames.put_digest(0, [1]))
        ask = framed(frames.ASK, frames.put_ask([name(1)]))
        summary = framed(frames.SUMMARY, frames.put_summary(0, [], False, []))
        loose = framed(frames.RECORD, data(3, [row(1)]))
        for said in (
            digest + digest,
            digest + ask,
            summary,
            loose,
            framed(30, b""),
            b"\xff\xff\x00",
            b"\0\0\0",
        ):
            self.assertRaises(CodecError, Service(row_of(3)).answer().receive, said)
        answer = Service(row_of(3)).answer()
        for _ in range(SYNC_DIGESTS):
            answer.receive(digest)
            answer.output(0.0, 1 << 20)
        self.assertRaises(CodecError, answer.receive, digest)

    def test_offers(self) -> None:
        """A caller that offers a thousand records is asked for some, and then for none."""
        answer, asked = Service([]).answer(), 0
        for part in range(3):
            rows = [(name(part * 1_000 + n), UNIX) for n in range(1, 200)]
            answer.receive(framed(frames.OFFER, frames.put_rows(rows)))
            for kind, body in Cutter().feed(answer.output(0.0, 1 << 20)):
                self.assertEqual(kind, frames.ASK)
                asked += len(frames.read_ask(body))
        self.assertEqual(asked, RECORDS_ASKED)

    def test_lying_service(self) -> None:
        """Names of other buckets, records not asked for and answers to nothing end a look."""
        unasked = framed(frames.RECORD, data(3, [row(1)]))
        offer = framed(frames.OFFER, frames.put_rows([]))
        stray = framed(frames.SUMMARY, frames.put_summary(0, [], False, [(name(1), UNIX)]))
        for said in (unasked, offer, stray, framed(frames.ASK, frames.put_ask([name(1)])), framed(37, b"\0")):
            look = Look(Shown(), lambda name: 0, whole=True)
            self.assertRaises(CodecError, look.receive, said)

    @given(st.binary(max_size=200), st.booleans())
    def test_any_bytes(self, said: bytes, caller: bool) -> None:
        """Any bytes are read or raise CodecError, on both sides; what is held stays below a frame."""
        answer, look = Service(row_of(3)).answer(), Look(Shown(), lambda name: 0, whole=True)
        with contextlib.suppress(CodecError):
            if caller:
                answer.receive(said)
                answer.output(0.0, 1 << 16)
            else:
                look.receive(said)

    @given(st.integers(0, 1 << 32))
    def test_pieces(self, seed: int) -> None:
        """However changes and looks follow each other, the caller ends with what the service has."""
        random = Random(seed)
        service, shown = Service(row_of(12)), Shown()
        for step in range(4):
            for number in random.sample(range(1, 13), 4):
                service.records.pop(name(number), None)
                if random.random() < 0.6:
                    made = record(number, [], issued=UNIX + step + 1)
                    service.records[made.name] = made
            run(Look(shown, lambda name: 0, whole=True), service.answer(), random.randrange(1, 300))
            self.assertEqual(shown.rows, {each.name: each.issued for each in service.records.values()})
        self.assertNotIn(name_of(key(77).public), shown.rows)
