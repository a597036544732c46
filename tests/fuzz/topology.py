"""Targets of the topology: one record, one frame, and a neighbour that says one thing after the other."""

from __future__ import annotations

import contextlib

from meshnet.errors import CodecError
from meshnet.limits import RECORDS_OWED, RECORDS_WANTED, SYNC_BURST, SYNC_RATE
from meshnet.topology import frames
from meshnet.topology.book import Book
from meshnet.topology.record import LARGEST, Record, parse, recall
from meshnet.topology.spread import Spread
from meshnet.topology.sync import Answer, Catalogue, Cutter, Look, Shown, framed
from tests.fuzz.target import MEGABYTE, Choices, Target, piece
from tests.support.topology import UNIX, data, name, record, row

LONGEST = 4_096
KINDS = {kind: at for at, kind in enumerate(frames.KINDS)}


def link_state(held: bytes) -> None:
    """Bytes of a record; what is read says the same when it is written again."""
    made = recall(held)
    assert len(held) <= LARGEST
    assert len(made.links) == len(made.statement.links)
    assert made.expires > made.issued


def frame(held: bytes) -> None:
    """The first byte is the kind, the rest a frame of it."""
    kind, body = frames.KINDS[held[0] % 5] if held else frames.OFFER, held[1:]
    if kind == frames.OFFER:
        assert frames.put_rows(frames.read_rows(body)) == body
    elif kind == frames.ASK:
        assert frames.put_ask(frames.read_ask(body)) == body
    elif kind == frames.DIGEST:
        digest = frames.read_digest(body)
        assert frames.put_digest(digest.level, digest.digests) == body
    elif kind == frames.SUMMARY:
        frames.read_summary(body)
    else:
        parse(body)


def _believing(held: bytes) -> Record:
    """A record whoever signed it, so that mutated ones get further."""
    return recall(held)


def neighbour(held: bytes) -> None:
    """Frames of two neighbours in turn, time passing between them; queues stay within their limits, and the
    graph is made of links that both ends state."""
    book = Book(1, name(1), _believing)
    spread = Spread(book)
    for number in (2, 3):
        spread.up(name(number), 1e6, 0.0)
    spread.publish(record(1, [row(2), row(3)]), 0.0)
    choices, now = Choices(held), 0.0
    while choices:
        head = choices.number()
        now += 0.5 * (head >> 4)
        with contextlib.suppress(CodecError):
            kind = frames.KINDS[(head % 16 >> 1) % 5]
            spread.receive(name(2 + head % 2), kind, choices.piece(), now, UNIX + now)
        spread.tick(now, UNIX + now)
        for number in (2, 3):
            spread.frames(name(number), now)
            state = spread._peers[name(number)]
            assert 0 <= state.wanted <= RECORDS_WANTED
            assert len(state.owed) <= RECORDS_OWED
        due = spread.deadline()
        assert due is None or due == due
    for here, node in book.graph.nodes.items():
        for there, edge in node.edges.items():
            assert book.graph.nodes[there].edges[here].delay == edge.delay
            assert there in node.record.links


def look(held: bytes) -> None:
    """The first byte says who speaks, a caller or a service; the rest comes in pieces, time passing between
    them. What is answered can be read, and stays within the share of one caller."""
    records = {each.name: each for each in map(recall, _records())}
    catalogue = Catalogue.of((each.name, each.issued) for each in records.values())
    caller, said, now, sent = bool(held[:1] > b"\x7f"), Choices(held[1:]), 0.0, 0
    answer = Answer(
        lambda: catalogue,
        lambda who: records[who].data if who in records else None,
        lambda who, issued: who not in records,
        lambda given: None,
        0.0,
    )
    asking = Look(Shown(), lambda who: 0, whole=True)
    while said:
        now += 0.1
        if caller:
            answer.receive(said.piece())
            out = answer.output(now, 1 << 16)
            sent += len(out)
            assert all(kind in frames.KINDS for kind, _ in Cutter().feed(out))
        else:
            asking.receive(said.piece())
            asking.output()
    assert sent <= SYNC_BURST + now * SYNC_RATE + (1 << 16)


def _looks() -> list[bytes]:
    rows = [(each.name, each.issued) for each in map(recall, _records())]
    asked = [(frames.OFFER, frames.put_rows(rows[:1])), (frames.DIGEST, frames.put_digest(0, [1]))]
    told = [(frames.SUMMARY, frames.put_summary(0, [0], False, rows)), (frames.RECORD, _records()[0])]
    names = [(frames.ASK, frames.put_ask([who for who, _ in rows]))]
    questions = b"".join(piece(framed(kind, body)) for kind, body in [*asked, *names])
    answers = b"".join(piece(framed(kind, body)) for kind, body in told)
    return [b"\xff" + questions, b"\0" + answers]


def _records() -> list[bytes]:
    return [
        data(2, [row(1), row(3)]),
        data(3, [row(1)], country=b"DE", latitude=52, longitude=13),
        data(4, []),
    ]


def _frames() -> list[tuple[int, bytes]]:
    rows = [(name(number), UNIX) for number in (1, 2, 4)]
    return [
        (frames.OFFER, frames.put_rows(rows)),
        (frames.ASK, frames.put_ask([name(1), name(2)])),
        (frames.RECORD, _records()[0]),
        (frames.DIGEST, frames.put_digest(2, [1, 2, 3, 4])),
        (frames.SUMMARY, frames.put_summaries(2, [1, 3], rows)[0]),
    ]


def _single() -> list[bytes]:
    return [bytes([KINDS[kind]]) + body for kind, body in _frames()]


def _talks() -> list[bytes]:
    said = [bytes([0x10 | KINDS[kind] << 1]) + piece(body) for kind, body in _frames()]
    told = [bytes([0x10 | KINDS[frames.RECORD] << 1]) + piece(each) for each in _records()]
    return [b"".join(said), b"".join(told), said[3] + said[4] + told[1] + said[1]]


TARGETS = (
    Target("link-state", link_state, _records, (CodecError,), longest=LONGEST),
    Target("topology-frames", frame, _single, (CodecError,), longest=LONGEST),
    Target("topology-look", look, _looks, (CodecError,), 2 * MEGABYTE, LONGEST),
    Target("topology-talk", neighbour, _talks, (), 2 * MEGABYTE, LONGEST),
)
