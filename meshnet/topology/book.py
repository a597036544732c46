"""The records a node holds: which are taken, which replace others, which must go.

A record is **attached** if a chain of links that both ends state leads from it to this node; only these are
told to others and used for paths, so that keys without links cost an attacker's neighbour little and the rest
of the network nothing. The others wait **apart**, few of each neighbour, until a link to them appears. All
are in `graph`; who has no edge to the rest is on no path.

What neighbours told, and this node's own, is **heard**: that is compared with neighbours and told on. What
came from a route service is used for paths like the rest, and told to no neighbour until one of them names it
too; so what only services know does not flood a network that is too large for that.

The book never sends anything and reads no clock: `now` is monotonic seconds, `unix` the wall clock's.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from hashlib import sha256
from math import inf
from typing import Final

from attrs import define

from meshnet.errors import CodecError
from meshnet.limits import (
    RECORD_AHEAD,
    RECORD_BURST,
    RECORD_LIFE,
    RECORD_STEP,
    RECORDS,
    RECORDS_APART,
    RECORDS_APART_PER_PEER,
)  # fmt: skip
from meshnet.topology.graph import Graph
from meshnet.topology.record import Name, Record, peek, read

LEVELS: Final = 12
"""Digests are kept for 2¹² buckets, by the first bits of a name."""
SWEEP_SECONDS: Final = 5.0  # between looks at what has become disconnected


class Verdict(Enum):
    """What became of a record that was offered."""

    NEW = "new"
    APART = "apart"
    """Kept, but not connected to this node as far as is known."""
    KNOWN = "known"
    OLDER = "older"
    """A later one is held."""
    MALFORMED = "malformed"
    """Or its signature does not hold."""
    EXPIRED = "expired"
    AHEAD = "ahead"
    """Issued too far in the future, or for too long."""
    NETWORK = "network"
    """Of another network."""
    CLASH = "clash"
    """Another key has this name."""
    OFTEN = "often"
    """Its node issues too many."""
    FULL = "full"
    OWN = "own"
    """Of this node, and not made by it now: from before a loss of its memory."""


@define(slots=True, eq=False)
class _Entry:
    record: Record
    source: Name
    tokens: float
    at: float
    heard: bool
    attached: bool = False


class Book:
    """`counts` has how often each verdict was given. `graph` is made of what is held. `reading` makes a
    record of bytes, or raises CodecError; a simulation of many books may share what it has checked."""

    def __init__(self, network: int, own: Name, reading: Callable[[bytes], Record] = read) -> None:
        self.network = network
        self.own = own
        self._read = reading
        self.graph = Graph()
        self.counts = dict.fromkeys(Verdict, 0)
        self._entries: dict[Name, _Entry] = {}
        self._apart: dict[Name, dict[Name, None]] = {}  # by neighbour: the oldest first
        self._apart_count = 0
        self._digests = [0] * (1 << LEVELS)
        self._soonest = inf  # none of those held expires before; a sweep makes it exact
        self._sweep_at = 0.0
        self._loose = False  # an edge is gone: some may be disconnected
        self._news: list[Record] = []
        self.most = RECORDS
        """Records of connected nodes that are held; more for a route service."""
        self._sources: dict[Name, int] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def attached(self) -> int:
        """How many records are of nodes connected to this one, its own included."""
        return len(self._entries) - self._apart_count

    def get(self, name: Name) -> Record | None:
        """The record held of a node."""
        entry = self._entries.get(name)
        return None if entry is None else entry.record

    def issued(self, name: Name) -> int:
        """When the record held of a node was issued; 0 if there is none."""
        entry = self._entries.get(name)
        return 0 if entry is None else entry.record.issued

    def news(self) -> list[Record]:
        """Records heard that became attached, or changed and are, since the last call."""
        news, self._news = self._news, []
        return news

    # taking

    def take(self, data: bytes, source: Name, now: float, unix: float, *, heard: bool = True) -> Verdict:
        """A record that the neighbour `source` sent, or another source that is not `heard`. Its signature is
        looked at only if all else is right."""
        verdict = self._take(data, source, now, unix, heard)
        self.counts[verdict] += 1
        return verdict

    def _take(self, data: bytes, source: Name, now: float, unix: float, heard: bool) -> Verdict:
        try:
            name, issued = peek(data)
        except CodecError:
            return Verdict.MALFORMED
        if name == self.own:
            return self._take_own(data, issued)
        entry = self._entries.get(name)
        if entry is not None:
            if issued <= entry.record.issued:
                return Verdict.KNOWN if issued == entry.record.issued else Verdict.OLDER
            if not _pay(entry, now):
                return Verdict.OFTEN
        elif self.attached >= self.most:
            return Verdict.FULL
        if issued > unix + RECORD_AHEAD:
            return Verdict.AHEAD
        try:
            record = self._read(data)
        except CodecError:
            return Verdict.MALFORMED
        if record.statement.network != self.network:
            return Verdict.NETWORK
        if record.expires <= unix:
            return Verdict.EXPIRED
        if record.statement.life * 60 > RECORD_LIFE:
            return Verdict.AHEAD
        if entry is not None and entry.record.key != record.key:
            return Verdict.CLASH
        return self._put(record, source, now, heard)

    def _take_own(self, data: bytes, issued: int) -> Verdict:
        """A record of this node, which others can only have from it."""
        if issued <= self.issued(self.own):
            return Verdict.KNOWN
        try:
            return Verdict.OWN if self._read(data).name == self.own else Verdict.MALFORMED
        except CodecError:
            return Verdict.MALFORMED

    def hear(self, name: Name, issued: int) -> None:
        """A neighbour has named a record. If it is held, and came otherwise, it is heard now."""
        entry = self._entries.get(name)
        if entry is not None and not entry.heard and entry.record.issued == issued:
            entry.heard = True
            if entry.attached:
                self._toggle(entry.record)
                self._news.append(entry.record)

    def is_heard(self, name: Name) -> bool:
        """Whether a neighbour may be told it."""
        entry = self._entries.get(name)
        return entry is not None and entry.heard

    def publish(self, record: Record, now: float) -> None:
        """This node's own record, made now."""
        self._put(record, self.own, now, True)

    def _put(self, record: Record, source: Name, now: float, heard: bool) -> Verdict:
        name = record.name
        entry = self._entries.get(name)
        if entry is None:
            entry = self._entries[name] = _Entry(record, source, RECORD_BURST - 1.0, now, heard)
            self._set_apart(entry)
        else:
            if entry.attached:
                self._toggle(entry.record, entry.heard)
                self._toggle(record, heard)
                if any(other not in record.links for other in entry.record.links):
                    self._loose = True
            entry.record, entry.heard = record, heard
        self._soonest = min(self._soonest, record.expires)
        self.graph.put(record)
        if name == self.own or self._touches(name):
            self._attach(name)
        if not entry.attached:
            return Verdict.APART
        if heard:
            self._news.append(record)
        return Verdict.NEW

    def _touches(self, name: Name) -> bool:
        return any(self._entries[other].attached for other in self.graph.beside(name))

    def _attach(self, name: Name) -> None:
        """This node and all that were apart behind it are connected now."""
        todo, listed = [name], {name}
        for each in todo:
            entry = self._entries[each]
            if not entry.attached:
                self._leave_apart(entry)
                entry.attached = True
                self._toggle(entry.record, entry.heard)
                if each != name and entry.heard:
                    self._news.append(entry.record)
            for other in self.graph.beside(each):
                if other not in listed and not self._entries[other].attached:
                    listed.add(other)
                    todo.append(other)

    # apart

    def expect(self, source: Name, records: int) -> None:
        """So many more records of this source may be apart: a route service sends the far before the near. 0
        ends it; what is apart then stays until others need the room."""
        if records:
            self._sources[source] = records
        else:
            self._sources.pop(source, None)

    def _set_apart(self, entry: _Entry) -> None:
        mine = self._apart.setdefault(entry.source, {})
        extra = self._sources.get(entry.source, 0)
        if len(mine) >= RECORDS_APART_PER_PEER + extra:
            self._drop(next(iter(mine)))
        elif self._apart_count >= RECORDS_APART + sum(self._sources.values()):
            most = max(self._apart.values(), key=len)
            self._drop(next(iter(most)))
        self._apart.setdefault(entry.source, {})[entry.record.name] = None
        self._apart_count += 1

    def _leave_apart(self, entry: _Entry) -> None:
        mine = self._apart.get(entry.source, {})
        if entry.record.name in mine:
            del mine[entry.record.name]
            self._apart_count -= 1
            if not mine:
                del self._apart[entry.source]

    def _drop(self, name: Name) -> None:
        """Forgets a record."""
        entry = self._entries.pop(name)
        if entry.attached:
            self._toggle(entry.record, entry.heard)
            self._loose = True
        else:
            self._leave_apart(entry)
        self.graph.remove(name)

    # time

    def tick(self, now: float, unix: float) -> None:
        """Forgets what has expired, and looks for what is connected no longer. At most every few seconds."""
        if now < self._sweep_at:
            return
        self._sweep_at = now + SWEEP_SECONDS
        if unix >= self._soonest:
            for name in [name for name, entry in self._entries.items() if entry.record.expires <= unix]:
                if name != self.own:
                    self._drop(name)
            self._soonest = min((each.record.expires for each in self._entries.values()), default=inf)
        if self._loose:
            self._loose = False
            connected = set(self.graph.component(self.own))
            for name, entry in list(self._entries.items()):
                if entry.attached and name not in connected:
                    self._toggle(entry.record, entry.heard)
                    entry.attached = False
                    self._set_apart(entry)

    # comparing with others

    def _toggle(self, record: Record, heard: bool = True) -> None:
        if heard:
            self._digests[bucket(record.name, LEVELS)] ^= mark_of(record.name, record.issued)

    def digests(self, level: int) -> list[int]:
        """One number of 64 bits for each of 2^level buckets, from what is attached and heard: equal if
        the same records are. `level` is 0 to 12."""
        fold = 1 << (LEVELS - level)
        found = []
        for start in range(0, 1 << LEVELS, fold):
            digest = 0
            for each in self._digests[start : start + fold]:
                digest ^= each
            found.append(digest)
        return found

    def rows(self) -> list[tuple[Name, int]]:
        """Attached names, with when they were issued."""
        return [(name, each.record.issued) for name, each in self._entries.items() if each.attached]

    def entries(self, buckets: set[int], level: int) -> list[tuple[Name, int]]:
        """Names heard and attached in these of 2^level buckets, with when they were issued, the nearest
        first."""
        return [
            (name, self._entries[name].record.issued)
            for name in self.graph.component(self.own)
            if bucket(name, level) in buckets and self._entries[name].heard
        ]


def bucket(name: Name, level: int) -> int:
    """Which of 2^level buckets a name belongs to."""
    return int.from_bytes(name[:2], "big") >> (16 - level)


def mark_of(name: Name, issued: int) -> int:
    """What a record adds to the digest of its bucket."""
    return int.from_bytes(sha256(name + issued.to_bytes(4, "big")).digest()[:8], "big")


def _pay(entry: _Entry, now: float) -> bool:
    """Whether a node may change its record now: a few times at once, then once a minute."""
    entry.tokens = min(entry.tokens + max(now - entry.at, 0.0) / RECORD_STEP, float(RECORD_BURST))
    entry.at = now
    if entry.tokens < 1.0:
        return False
    entry.tokens -= 1.0
    return True
