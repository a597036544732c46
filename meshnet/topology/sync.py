"""The whole graph from a route service, over a stream (docs/wire-format.md §9).

    length u16 | kind u8 | body        one behind the other; length counts kind and body; kinds of `frames`

A look: the caller may OFFER its own record and sends a DIGEST of what the service has shown it before. The
service answers with the SUMMARY of the buckets that differ, the last part without `more`; the caller ASKs for
what it lacks, the service answers with the records that it holds, and an OFFER without rows. The caller ends
the look by ending the stream.

Whoever asks for everything says nothing: a caller compares only what this service has shown it, and asks for
all that has changed since, so that neither a destination nor its own place in the network can be told from
its questions. Sans-IO; reads no clock. What a caller can make a service hold or do has a maximum.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from struct import Struct
from typing import Final

from attrs import define

from meshnet.cipher.aead import Buffer
from meshnet.errors import CodecError
from meshnet.limits import (
    OFFERS,
    RECORDS_ASKED,
    SYNC_ASKED,
    SYNC_BURST,
    SYNC_DIGESTS,
    SYNC_RATE,
    SYNC_RECORDS,
)
from meshnet.topology import frames
from meshnet.topology.book import LEVELS, bucket, mark_of
from meshnet.topology.frames import Row
from meshnet.topology.record import LARGEST, Name, Record, peek

LARGEST_FRAME: Final = max(LARGEST, 8 * (1 << LEVELS) + 1, 4 + 2 * (1 << LEVELS) + 2 + 12 * OFFERS) + 1
FEW: Final = 8  # records in a bucket, about
_HEAD: Final = Struct(">HB")


def framed(kind: int, body: bytes) -> bytes:
    """A frame as it stands in the stream."""
    return _HEAD.pack(len(body) + 1, kind) + body


class Cutter:
    """Bytes of a stream, cut into frames."""

    def __init__(self) -> None:
        self._held = bytearray()

    def feed(self, data: Buffer) -> Iterator[tuple[int, bytes]]:
        """Kind and body of each frame that is whole now; raises CodecError for one that is too long."""
        self._held += data
        while len(self._held) >= _HEAD.size:
            length, kind = _HEAD.unpack_from(self._held)
            if not 1 <= length <= LARGEST_FRAME:
                raise CodecError(f"a frame of a look has 1 to {LARGEST_FRAME} bytes, not {length}")
            if len(self._held) < length + 2:
                return
            body = bytes(self._held[3 : length + 2])
            del self._held[: length + 2]
            yield kind, body


class Shown:
    """What a service has shown: names, and when their records were issued. Kept from look to look."""

    def __init__(self) -> None:
        self.rows: dict[Name, int] = {}
        self._digests = [0] * (1 << LEVELS)

    def __len__(self) -> int:
        return len(self.rows)

    def put(self, name: Name, issued: int) -> None:
        """It has this record."""
        self.forget(name)
        self.rows[name] = issued
        self._digests[bucket(name, LEVELS)] ^= mark_of(name, issued)

    def forget(self, name: Name) -> None:
        """It has none of this name, or it is to be asked again."""
        issued = self.rows.pop(name, None)
        if issued is not None:
            self._digests[bucket(name, LEVELS)] ^= mark_of(name, issued)

    def digests(self, level: int) -> list[int]:
        """As `Book.digests`."""
        return fold(self._digests, level)

    @property
    def level(self) -> int:
        """How many buckets pay: about eight records in each."""
        return min((len(self.rows) // FEW).bit_length(), LEVELS)


def fold(digests: list[int], level: int) -> list[int]:
    """Digests of 2^12 buckets as those of 2^level."""
    width = 1 << (LEVELS - level)
    found = []
    for start in range(0, len(digests), width):
        digest = 0
        for each in digests[start : start + width]:
            digest ^= each
        found.append(digest)
    return found


class Look:
    """A caller's side of one look. `output` is to be sent after `receive` and at the beginning.

    `knows` says when the record that the caller holds of a node was issued (0: none); with `whole`, what it
    holds from elsewhere is asked for all the same, so that the questions say nothing of it. `own` is a record
    to offer. `done` is true when all was answered, `received` counts bytes.
    """

    def __init__(
        self, shown: Shown, knows: Callable[[Name], int], *, whole: bool, own: Record | None = None
    ) -> None:
        self._shown = shown
        self._knows = knows
        self._whole = whole
        self._own = own
        self._cutter = Cutter()
        self._level = shown.level
        self._out = bytearray()
        self._buckets: set[int] | None = None
        self._listed: dict[Name, int] = {}
        self._wants: deque[Name] = deque()
        self._asked: dict[Name, int] = {}
        self.done = False
        self.received = 0
        self.records = 0
        if own is not None:
            self._say(frames.OFFER, frames.put_rows([(own.name, own.issued)]))
        self._say(frames.DIGEST, frames.put_digest(self._level, shown.digests(self._level)))

    def output(self) -> bytes:
        """What is to be sent now."""
        out, self._out = bytes(self._out), bytearray()
        return out

    def receive(self, data: Buffer) -> list[bytes]:
        """Bytes of the stream; the records that came with them, unchecked. Raises CodecError."""
        self.received += len(data)
        found = []
        for kind, body in self._cutter.feed(data):
            if kind == frames.RECORD:
                found.append(self._record(body))
            elif kind == frames.SUMMARY:
                self._summary(body)
            elif kind == frames.OFFER:
                self._answered(frames.read_rows(body))
            elif kind == frames.ASK:
                self._offered(frames.read_ask(body))
            else:
                raise CodecError(f"a route service sends no frame of kind {kind}")
        return found

    def refused(self, name: Name) -> None:
        """A record that came is not kept now, and may be another time."""
        self._shown.forget(name)

    def _say(self, kind: int, body: bytes) -> None:
        self._out += framed(kind, body)

    def _summary(self, body: bytes) -> None:
        level, buckets, more, rows = frames.read_summary(body)
        if self._listed is None or self.done or self._asked or level != self._level:
            raise CodecError("a SUMMARY came that nobody asked for")
        if self._buckets is None:
            self._buckets = set(buckets)
        for name, issued in rows:
            if bucket(name, level) not in self._buckets:
                raise CodecError("a SUMMARY has a name of a bucket that it does not speak of")
            self._listed[name] = issued
        if len(self._listed) > SYNC_RECORDS:
            raise CodecError(f"a route service lists more than {SYNC_RECORDS} records")
        if not more:
            self._compare(self._buckets, level)

    def _compare(self, buckets: set[int], level: int) -> None:
        shown = self._shown
        for name in [each for each in shown.rows if bucket(each, level) in buckets]:
            if name not in self._listed:
                shown.forget(name)
        for name, issued in self._listed.items():
            if shown.rows.get(name) == issued:
                continue
            if not self._whole and self._knows(name) >= issued:
                shown.put(name, issued)
            else:
                self._wants.append(name)
        if len(shown) + len(self._wants) > SYNC_RECORDS:
            raise CodecError(f"a route service lists more than {SYNC_RECORDS} records")
        self._ask()

    def _ask(self) -> None:
        names = list(islice(self._wants, SYNC_ASKED))
        for _ in names:
            self._wants.popleft()
        self._asked = {name: self._listed[name] for name in names}
        if names:
            self._say(frames.ASK, frames.put_ask(names))
        else:
            self.done = True

    def _record(self, body: bytes) -> bytes:
        name, issued = peek(body)
        if self._asked.pop(name, None) is None:
            raise CodecError("a route service sent a record that was not asked for")
        self._shown.put(name, issued)
        self.records += 1
        return body

    def _answered(self, rows: list[Row]) -> None:
        if rows or self._buckets is None or self.done:
            raise CodecError("a route service offers nothing but what was asked for")
        self._ask()

    def _offered(self, names: Iterable[Name]) -> None:
        for name in names:
            if self._own is None or name != self._own.name:
                raise CodecError("a route service asked for a record that was not offered")
            self._say(frames.RECORD, self._own.data)


@define(eq=False, slots=True)
class Catalogue:
    """Names and when their records were issued, in 2^12 buckets, with their digests: what looks are answered
    from. It is made now and then, so that looks cost what they ask for."""

    buckets: list[list[Row]]
    digests: list[int]
    size: int

    @classmethod
    def of(cls, rows: Iterable[Row]) -> Catalogue:
        """Of these rows."""
        buckets: list[list[Row]] = [[] for _ in range(1 << LEVELS)]
        digests, size = [0] * (1 << LEVELS), 0
        for name, issued in rows:
            place = bucket(name, LEVELS)
            buckets[place].append((name, issued))
            digests[place] ^= mark_of(name, issued)
            size += 1
        return cls(buckets, digests, size)


class Answer:
    """A service's side of one look. `catalogue` gives what is listed now, `find` the bytes of a record;
    `lacks` says which that a caller offers are wanted, and `take` gets them.

    One DIGEST or ASK is answered at a time; who asks again before that breaks the rules, as who asks too
    often does. `output` gives what may be sent now, and `due` when there is more.
    """

    def __init__(
        self,
        catalogue: Callable[[], Catalogue],
        find: Callable[[Name], bytes | None],
        lacks: Callable[[Name, int], bool],
        take: Callable[[bytes], None],
        now: float,
    ) -> None:
        self._catalogue = catalogue
        self._find = find
        self._lacks = lacks
        self._take = take
        self._cutter = Cutter()
        self._running: Iterator[bytes] = iter(())
        self._busy = False
        self._first = bytearray()  # asks of our own go before answers
        self._digests_left = SYNC_DIGESTS
        self._wanted: set[Name] = set()
        self._may_want = RECORDS_ASKED
        self._tokens, self._at = float(SYNC_BURST), now
        self.sent = 0

    def receive(self, data: Buffer) -> None:
        """Bytes of the stream; raises CodecError."""
        for kind, body in self._cutter.feed(data):
            if kind == frames.DIGEST:
                self._compare(frames.read_digest(body))
            elif kind == frames.ASK:
                self._begin(self._records(frames.read_ask(body)))
            elif kind == frames.OFFER:
                self._offered(frames.read_rows(body))
            elif kind == frames.RECORD:
                self._record(body)
            else:
                raise CodecError(f"a caller of a route service sends no frame of kind {kind}")

    def output(self, now: float, room: int) -> bytes:
        """What may be sent now: about `room` bytes, and not more than the caller's share."""
        self._tokens = min(self._tokens + max(now - self._at, 0.0) * SYNC_RATE, float(SYNC_BURST))
        self._at = now
        out, self._first = bytes(self._first), bytearray()
        parts, size, most = [out], len(out), min(float(room), self._tokens)
        while size < most:
            part = next(self._running, None)
            if part is None:
                self._busy = False
                break
            parts.append(part)
            size += len(part)
        self._tokens -= size
        self.sent += size
        return b"".join(parts)

    def due(self) -> float | None:
        """In how many seconds there is something to send; None: when the caller asks again."""
        if not self._busy and not self._first:
            return None
        return max(0.0, (1.0 - self._tokens) / SYNC_RATE)

    def _begin(self, answer: Iterator[bytes]) -> None:
        if self._busy:
            raise CodecError("a route service answers one question after the other")
        self._busy, self._running = True, answer

    def _compare(self, digest: frames.Digest) -> None:
        if digest.level > LEVELS:
            raise CodecError(f"there is no DIGEST of level {digest.level}")
        if not self._digests_left:
            raise CodecError("a caller of a route service compares too often; a look has one DIGEST")
        self._digests_left -= 1
        catalogue = self._catalogue()
        ours = fold(catalogue.digests, digest.level)
        pairs = enumerate(zip(ours, digest.digests, strict=True))
        differ = [place for place, (mine, theirs) in pairs if mine != theirs]
        self._begin(self._summaries(catalogue, digest.level, differ))

    @staticmethod
    def _summaries(catalogue: Catalogue, level: int, differ: list[int]) -> Iterator[bytes]:
        width = 1 << (LEVELS - level)
        rows = (
            row
            for place in differ
            for each in catalogue.buckets[place * width : (place + 1) * width]
            for row in each
        )
        part = list(islice(rows, OFFERS))
        named: list[int] = differ
        while True:
            following = list(islice(rows, OFFERS))
            body = frames.put_summary(level, named, bool(following), part)
            yield framed(frames.SUMMARY, body)
            if not following:
                return
            part, named = following, []

    def _records(self, names: Iterable[Name]) -> Iterator[bytes]:
        for name in names:
            data = self._find(name)
            if data is not None:
                yield framed(frames.RECORD, data)
        yield framed(frames.OFFER, frames.put_rows([]))

    def _offered(self, rows: list[Row]) -> None:
        wanted = [name for name, issued in rows if self._lacks(name, issued)][: self._may_want]
        if wanted:
            self._may_want -= len(wanted)
            self._wanted.update(wanted)
            self._first += framed(frames.ASK, frames.put_ask(wanted))

    def _record(self, body: bytes) -> None:
        name, _ = peek(body)
        if name not in self._wanted:
            raise CodecError("a caller sent a record that was not asked for")
        self._wanted.discard(name)
        self._take(body)
