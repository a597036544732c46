"""How records travel: news are offered to neighbours and asked for; those who meet compare what they hold.

A neighbour that has news offers names; who lacks them asks one of those that offered, and offers them on. So
a record crosses each link once or twice as 12 bytes and reaches a node once as a whole. Neighbours that meet,
and all of them every few minutes, exchange digests by buckets, and summaries of the buckets that differ, so
that what was missed (a partition, a loss) is found. Everything keeps to a share of the link (`SPREAD_SHARE`).

In a network that is too large for that (`pass_on`) neighbours tell each other their own records, and nothing
else: all others come from route services.

Sans-IO: `receive` takes frames, `frames` gives those that a neighbour may be sent now, `deadline` and `tick`
are as everywhere. What a neighbour does wrong raises CodecError or costs that neighbour its place in queues.
"""

from __future__ import annotations

from collections import deque
from math import inf
from typing import Final

from attrs import define, field

from meshnet.cipher.aead import Buffer
from meshnet.limits import (
    ASK_SECONDS,
    OFFER_SECONDS,
    OFFERS,
    RECORDS_ASKED,
    RECORDS_OWED,
    RECORDS_WANTED,
    SPREAD_BURST,
    SPREAD_LEAST,
    SPREAD_SHARE,
    SUMMARY_SECONDS,
)  # fmt: skip
from meshnet.topology import frames
from meshnet.topology.book import LEVELS, Book, Verdict
from meshnet.topology.frames import Row
from meshnet.topology.record import Name, Record, peek

FEW: Final = 8  # records in a bucket, about
LEAST_TOKENS: Final = 1_024.0  # bytes; with fewer nothing is sent: a bundle for each record would cost much
Frame = tuple[int, bytes]
"""Kind and body."""


@define(slots=True, eq=False)
class _Want:
    """A record that somebody has and we do not: who offered it, whom it was asked of and when."""

    issued: int
    offered: list[Name]
    asked: Name | None = None
    at: float = 0.0


@define(slots=True, eq=False)
class _Peer:
    """What is to be said to a neighbour, and what it may still be sent: `tokens` bytes."""

    rate: float
    tokens: float
    at: float
    compare_at: float
    news: dict[Name, int] = field(factory=dict)
    news_at: float = inf
    ask: dict[Name, None] = field(factory=dict)
    asked: int = 0
    wanted: int = 0
    owed: dict[Name, None] = field(factory=dict)
    answers: deque[Frame] = field(factory=deque)


class Spread:
    """One per node, over its `book`. `sent` and `received` count bytes of frames, heads included."""

    def __init__(self, book: Book) -> None:
        self._book = book
        self._peers: dict[Name, _Peer] = {}
        self._wants: dict[Name, _Want] = {}
        self._waiting: deque[Name] = deque()  # wants that nobody has been asked for
        self._retry_at = inf
        self._passes_on = True
        self.sent = 0
        self.records_sent = 0
        self.received = 0

    # neighbours

    def up(self, peer: Name, capacity: float, now: float) -> None:
        """A link to `peer` stands; `capacity` is in bytes per second, 0 unknown."""
        self.down(peer)
        state = self._peers[peer] = _Peer(_rate(capacity), SPREAD_BURST, now, now)
        if not self._passes_on:
            self._only_own(state, now)

    def down(self, peer: Name) -> None:
        """It stands no more."""
        gone = self._peers.pop(peer, None)
        if gone is not None:
            for name in [name for name, want in self._wants.items() if peer in want.offered]:
                self._disown(name, peer)

    def measured(self, peer: Name, capacity: float) -> None:
        """What a link carries, in bytes per second."""
        known = self._peers.get(peer)
        if known is not None:
            known.rate = _rate(capacity)

    @property
    def passes_on(self) -> bool:
        """Whether records of others are told to neighbours, and taken from them."""
        return self._passes_on

    def pass_on(self, on: bool, now: float) -> None:
        """From now on they are, or are not: then only neighbours' own are exchanged."""
        if on == self._passes_on:
            return
        self._passes_on = on
        for name in list(self._wants) if not on else ():
            for peer in [each for each in self._wants[name].offered if each != name]:
                self._disown(name, peer)
        for state in self._peers.values():
            if on:
                state.compare_at = now
            else:
                self._only_own(state, now)

    def _only_own(self, state: _Peer, now: float) -> None:
        state.compare_at = inf
        state.news.clear()
        state.answers.clear()
        issued = self._book.issued(self._book.own)
        if issued:
            self._have_news(state, self._book.own, issued, now)

    def publish(self, record: Record, now: float) -> None:
        """This node's own record."""
        self._book.publish(record, now)
        self._tell(None, now)

    def learn(self, data: bytes, source: Name, now: float, unix: float) -> Verdict:
        """A record that came otherwise than from a neighbour; none is told of it."""
        verdict = self._book.take(data, source, now, unix, heard=False)
        self._tell(None, now)
        return verdict

    # frames in

    def receive(self, peer: Name, kind: int, body: Buffer, now: float, unix: float) -> None:
        """A frame of a neighbour. Raises CodecError for one that is no such frame."""
        state = self._peers.get(peer)
        if state is None:
            return
        self.received += len(body) + 3
        if kind == frames.RECORD:
            self._record(peer, state, bytes(body), now, unix)
        elif kind == frames.OFFER:
            self._offered(peer, state, frames.read_rows(body), now)
        elif kind == frames.ASK:
            for name in frames.read_ask(body):
                if len(state.owed) < RECORDS_OWED:
                    state.owed[name] = None
        elif kind == frames.DIGEST:
            self._compare(state, frames.read_digest(body))
        elif kind == frames.SUMMARY:
            self._summary(peer, state, body, now)

    def _record(self, peer: Name, state: _Peer, data: bytes, now: float, unix: float) -> None:
        name, issued = peek(data)
        verdict = self._book.take(data, peer, now, unix)
        if verdict is Verdict.KNOWN:
            self._book.hear(name, issued)
        want = self._wants.get(name)
        if want is not None and self._book.issued(name) >= want.issued:
            self._fulfil(name, want)
        elif want is not None and verdict not in (Verdict.OLDER, Verdict.KNOWN):
            self._disown(name, peer)
        if verdict in (Verdict.NEW, Verdict.APART, Verdict.KNOWN):
            state.news.pop(name, None)
        if verdict is Verdict.OLDER:
            self._have_news(state, name, self._book.issued(name), now)
        self._tell(peer, now)

    def _tell(self, source: Name | None, now: float) -> None:
        """What has become news is offered to all but who told it."""
        for record in self._book.news():
            name, issued = record.name, record.issued
            if not self._passes_on and name != self._book.own:
                continue
            for peer, state in self._peers.items():
                if peer != source and name != peer:
                    self._have_news(state, name, issued, now)

    def _have_news(self, state: _Peer, name: Name, issued: int, now: float) -> None:
        if not state.news:
            state.news_at = now + OFFER_SECONDS
        state.news[name] = issued

    def _offered(self, peer: Name, state: _Peer, rows: list[Row], now: float) -> None:
        book, news = self._book, state.news
        for name, issued in rows:
            held = book.issued(name)
            if held >= issued:
                if held == issued:
                    book.hear(name, issued)
                if news and news.get(name, inf) <= issued:
                    del news[name]
                continue
            if (name == book.own and not held) or (name != peer and not self._passes_on):
                continue
            want = self._wants.get(name)
            if want is None:
                if state.wanted >= RECORDS_WANTED:
                    continue
                want = self._wants[name] = _Want(issued, [])
                self._waiting.append(name)
            if peer not in want.offered:
                want.offered.append(peer)
                state.wanted += 1
            want.issued = max(want.issued, issued)
        self._ask(now)
        self._tell(peer, now)

    def _compare(self, state: _Peer, digest: frames.Digest) -> None:
        """Answers with all that we hold in the buckets that differ."""
        if digest.level > LEVELS or not self._passes_on:
            return
        own = self._book.digests(digest.level)
        differ = [
            i for i, (mine, theirs) in enumerate(zip(own, digest.digests, strict=True)) if mine != theirs
        ]
        if differ and not any(kind == frames.SUMMARY for kind, _ in state.answers):
            rows = self._book.entries(set(differ), digest.level)
            for body in frames.put_summaries(digest.level, differ, rows):
                state.answers.append((frames.SUMMARY, body))

    def _summary(self, peer: Name, state: _Peer, body: Buffer, now: float) -> None:
        """Their side of buckets that differ: what we lack is asked for, what they lack is offered."""
        level, buckets, _, rows = frames.read_summary(body)
        self._offered(peer, state, rows, now)
        if buckets and self._passes_on:
            for name, issued in self._book.entries(set(buckets), level):
                self._have_news(state, name, issued, now)
        for name, issued in rows:
            if state.news.get(name, inf) <= issued:
                del state.news[name]

    # wants

    def _ask(self, now: float) -> None:
        """Asks for what is wanted, as far as neighbours may be asked more."""
        later: deque[Name] = deque()
        while self._waiting:
            name = self._waiting.popleft()
            want = self._wants.get(name)
            if want is None or want.asked is not None:
                continue
            able = [peer for peer in want.offered if self._peers[peer].asked < RECORDS_ASKED]
            if not able:
                later.append(name)
                if len(later) > RECORDS_ASKED:
                    break
                continue
            peer = min(able, key=lambda each: self._peers[each].asked)
            state = self._peers[peer]
            state.asked += 1
            state.ask[name] = None
            want.asked, want.at = peer, now
            self._retry_at = min(self._retry_at, now + ASK_SECONDS)
        later.extend(self._waiting)
        self._waiting = later

    def _fulfil(self, name: Name, want: _Want) -> None:
        del self._wants[name]
        self._unask(name, want)
        for peer in want.offered:
            self._peers[peer].wanted -= 1

    def _unask(self, name: Name, want: _Want) -> None:
        if want.asked is not None and want.asked in self._peers:
            state = self._peers[want.asked]
            state.asked -= 1
            state.ask.pop(name, None)
        want.asked = None

    def _disown(self, name: Name, peer: Name) -> None:
        """`peer` does not send what it offered."""
        want = self._wants[name]
        if peer in want.offered:
            want.offered.remove(peer)
            if peer in self._peers:
                self._peers[peer].wanted -= 1
        if want.asked == peer:
            self._unask(name, want)
        if not want.offered:
            self._unask(name, want)
            del self._wants[name]
        elif want.asked is None:
            self._waiting.append(name)

    # frames out

    def due(self, now: float) -> list[Name]:
        """Neighbours whom there may be something to say to now: mostly few of all."""
        return [
            peer
            for peer, state in self._peers.items()
            if state.answers
            or state.ask
            or state.owed
            or (state.news and now >= state.news_at)
            or now >= state.compare_at
        ]

    def frames(self, peer: Name, now: float) -> list[Frame]:
        """What `peer` is to be sent now, within its share of the link."""
        state = self._peers.get(peer)
        if state is None:
            return []
        state.tokens = min(state.tokens + max(now - state.at, 0.0) * state.rate, float(SPREAD_BURST))
        state.at = now
        out: list[Frame] = []
        if state.tokens < LEAST_TOKENS:
            return out
        while state.tokens > 0:
            frame = self._next(state, now)
            if frame is None:
                break
            out.append(frame)
            state.tokens -= len(frame[1]) + 3
            self.sent += len(frame[1]) + 3
        return out

    def _next(self, state: _Peer, now: float) -> Frame | None:
        if now >= state.compare_at:
            state.compare_at = now + SUMMARY_SECONDS
            level = min(max((self._book.attached // FEW).bit_length(), 0), LEVELS)
            return frames.DIGEST, frames.put_digest(level, self._book.digests(level))
        if state.answers:
            return state.answers.popleft()
        if state.ask:
            names = list(state.ask)[:OFFERS]
            for name in names:
                del state.ask[name]
            return frames.ASK, frames.put_ask(names)
        if state.news and now >= state.news_at:
            rows = list(state.news.items())[:OFFERS]
            for name, _ in rows:
                del state.news[name]
            if not state.news:
                state.news_at = inf
            return frames.OFFER, frames.put_rows(rows)
        while state.owed:
            name = next(iter(state.owed))
            del state.owed[name]
            record = self._book.get(name) if self._book.is_heard(name) else None
            if record is not None:
                self.records_sent += 1
                return frames.RECORD, record.data
        return None

    # time

    def deadline(self) -> float | None:
        """When `tick`, and then `frames` of every neighbour, should be called next."""
        due = self._retry_at
        for state in self._peers.values():
            said = state.compare_at
            if state.answers or state.ask or state.owed:
                said = 0.0
            elif state.news and state.news_at < said:
                said = state.news_at
            if said < due:
                lacks = LEAST_TOKENS + 1.0 - state.tokens
                funded = state.at + lacks / state.rate if lacks > 0.0 else state.at
                due = min(due, max(said, funded))
        return None if due == inf else due

    def tick(self, now: float, unix: float) -> None:
        """Time has passed: who does not answer is asked no more."""
        self._book.tick(now, unix)
        self._tell(None, now)
        if now < self._retry_at:
            return
        self._retry_at = inf
        for name, want in list(self._wants.items()):
            if want.asked is None:
                continue
            if now >= want.at + ASK_SECONDS:
                self._disown(name, want.asked)
            else:
                self._retry_at = min(self._retry_at, want.at + ASK_SECONDS)
        self._ask(now)


def _rate(capacity: float) -> float:
    return max(SPREAD_SHARE * capacity, float(SPREAD_LEAST))
