"""What a session has to send, and how it goes into cells: rare items first, then datagrams, then streams.

Streams take turns, one piece of a cell each; the packets that one carries have turns of their own. What a
cell carried is noted as tuples whose first member is the item's type (`recovery.Contents`):

    (DATA, stream, start, end, fin) · (OPEN | RESET | STOP | WINDOW, stream) · (SESSION_WINDOW,) · (DATAGRAM,)
    (PACKETS, carried)
    (AUTH | CELL_LIMIT | PING | PONG | SPARE | USE | PROBE | REPORT, path, item): about one circuit, and kept
    there (`session.path`)

`arrived` and `lost` get them back, whichever circuit carried them. A lost item goes again only if it still
says something: DATA by what is missing, WINDOW with the newest limit; PING, PONG, PROBE, REPORT, DATAGRAM and
PACKETS never.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

from meshnet.limits import DATAGRAM_QUEUE, DATAGRAM_QUEUE_BYTES, SESSION_FIRST_WINDOW
from meshnet.session import items
from meshnet.session.carried import Carried
from meshnet.session.items import (
    AUTH,
    CELL_LIMIT,
    DATA,
    DATA_HEADER,
    DATAGRAM,
    DATAGRAM_HEADER,
    OPEN,
    PACKETS,
    RESET,
    SESSION_WINDOW,
    SPARE,
    STOP,
    USE,
    WINDOW,
)  # fmt: skip
from meshnet.session.recovery import Contents
from meshnet.session.streams import Stream

SLIVER = 64
"""A stream gets no piece smaller than this behind something else; the next cell is better."""


class Silent:
    """What a circuit has to send of a session that sends over another one: nothing."""

    __slots__ = ()
    work = False
    companion = None

    def whole(self) -> int:
        """Nothing."""
        return 0

    packets = None

    def settle(self, packets: Carried) -> None:
        """Never asked: it has none."""

    def pack(
        self, room: memoryview, pos: int, limit: int, contents: Contents, now: float, largest: int
    ) -> int:
        """Adds nothing."""
        return pos

    def fit(self, limit: int) -> int:
        """There is nothing."""
        return 0


SILENT = Silent()


class Outbox:
    """Everything a session waits to send. `release` is called with how many bytes of streams arrived and are
    held no longer.

    `session_limit` gives the limit a SESSION-WINDOW should name now. `companion` is whose packets came last:
    his answers may go with our acknowledgements. `drained` lists streams whose reader is
    owed `drained()`.
    """

    __slots__ = (
        "_datagram_bytes", "_datagrams", "_items", "_listed", "_ready", "_release", "_session_limit",
        "_session_window_said", "_starved", "companion", "credit", "drained", "granted",
    )  # fmt: skip

    def __init__(
        self,
        session_limit: Callable[[], int],
        release: Callable[[int], None],
    ) -> None:
        self._session_limit = session_limit
        self._release = release
        self._items: deque[tuple[Any, ...]] = deque()
        self._datagrams: deque[tuple[int, int, bytes]] = deque()
        self._datagram_bytes = 0
        self._ready: deque[Stream | Carried] = deque()
        self._starved: dict[Stream, None] = {}  # ready, but the session's window is used up
        self._listed: set[tuple[Any, ...]] = set()  # OPEN, RESET and STOP in `_items`
        self._session_window_said = False
        self.granted = SESSION_FIRST_WINDOW  # bytes the peer takes in all
        self.credit = SESSION_FIRST_WINDOW  # of these, not yet used
        self.drained: list[Stream] = []
        self.companion: Carried | None = None

    @property
    def work(self) -> bool:
        """Whether there is anything to send, were it not for windows."""
        return bool(self._ready or self._items or self._datagrams)

    @property
    def packets(self) -> Carried | None:
        """The packets of one stream, if they are all there is to send."""
        ready = self._ready
        if len(ready) != 1 or self._items or self._datagrams:
            return None
        only = ready[0]
        return only if type(only) is Carried else None

    def whole(self) -> int:
        """Bytes of plaintext that the next cell needs because what is next cannot be cut; 0 if it can.
        Packets whose turn it would be, and that turn out to be none, lose it: no cell is made for them."""
        if self._datagrams:
            return DATAGRAM_HEADER + len(self._datagrams[0][2])
        ready = self._ready
        while ready and type(head := ready[0]) is Carried:
            if whole := head.whole():
                return whole
            ready.popleft()
            head.listed = False
        return 0

    def fit(self, limit: int) -> int:
        """`whole`, where a cell takes at most `limit`: a datagram that no cell takes never leaves. Packets
        may be cut by their source, when it is given the whole cell."""
        while (whole := self.whole()) > limit:
            if not self._datagrams:
                return limit
            self._datagram_bytes -= len(self._datagrams.popleft()[2])
        return whole

    # what is to be sent

    def list(self, stream: Stream) -> None:
        """The stream has something to send."""
        if not stream.listed:
            stream.listed = True
            self._ready.append(stream)

    def list_packets(self, carried: Carried) -> None:
        """A stream has packets to send."""
        if not carried.listed:
            carried.listed = True
            self._ready.append(carried)

    def say(self, kind: int, stream: Stream) -> None:
        """OPEN, RESET, STOP or WINDOW of a stream."""
        what = (kind, stream)
        self._items.append(what)
        self._listed.add(what)

    def say_session_window(self) -> None:
        """A new limit for the sum of all streams."""
        if not self._session_window_said:
            self._session_window_said = True
            self._items.append((SESSION_WINDOW,))

    def add_datagram(self, source: int, target: int, data: bytes) -> bool:
        """False if too many wait."""
        if len(self._datagrams) >= DATAGRAM_QUEUE or self._datagram_bytes + len(data) > DATAGRAM_QUEUE_BYTES:
            return False
        self._datagrams.append((source, target, data))
        self._datagram_bytes += len(data)
        return True

    def grant(self, limit: int) -> None:
        """The peer takes `limit` bytes in all."""
        if limit > self.granted:
            self.credit += limit - self.granted
            self.granted = limit
            starved, self._starved = self._starved, {}
            for stream in starved:
                if stream.sending.ready():
                    self.list(stream)

    def clear(self) -> None:
        """The session is over."""
        self._items.clear()
        self._listed.clear()
        self._datagrams.clear()
        self._ready.clear()
        self._starved.clear()
        self.drained.clear()
        self.companion = None

    # into a cell

    def pack(
        self, room: memoryview, pos: int, limit: int, contents: Contents, now: float, largest: int
    ) -> int:
        """Fills `room` from `pos` to at most `limit`, notes in `contents` what; the position reached.

        `largest` is what `limit` is at most on this circuit: a packet waits for a larger cell if there can
        be one.
        """
        if self._items:
            pos = self._pack_items(room, pos, limit, contents)
        if self._datagrams:
            pos = self._pack_datagrams(room, pos, limit, contents)
        ready = self._ready
        while ready:
            space = limit - pos - DATA_HEADER
            if space < 1 or (pos and space < SLIVER):
                break
            turn = ready.popleft()
            if type(turn) is Carried:
                end = self._pack_packets(turn, room, pos, limit, largest, now)
                if end > pos:
                    contents.append(turn.contents)
                    pos = end
                if turn.listed and ready[0] is turn:
                    break  # it has written as much as fits; what is left would only tear the next packet
            elif type(turn) is Stream:
                pos = self._pack_stream(turn, room, pos, limit, contents)
        return pos

    def settle(self, packets: Carried) -> None:
        """Its turn is over if none are left."""
        if packets.listed and not packets.whole():
            packets.listed = False
            self._ready.remove(packets)

    def _pack_stream(self, stream: Stream, room: memoryview, pos: int, limit: int, contents: Contents) -> int:
        """One turn of a stream; the position reached."""
        half = stream.sending
        start, end = half.piece(limit - pos - DATA_HEADER, self.credit)
        size = end - start
        fin = half.finishing and end == half.end
        if not size and not (fin and not half.fin_sent):
            stream.listed = False
            if half.ready():
                self._starved[stream] = None
            return pos
        items.put_data(room, pos, stream.id, start, size, fin)
        pos += DATA_HEADER
        half.ring.take(start, size, room[pos : pos + size])
        self.credit -= half.sent(start, end, fin)
        contents.append((DATA, stream, start, end, fin))
        if not half.ready():
            stream.listed = False
        elif 2 * size < limit:
            self._ready.appendleft(stream)  # what others left of their cell was no turn
        else:
            self._ready.append(stream)
        return pos + size

    def _pack_packets(
        self, carried: Carried, room: memoryview, pos: int, limit: int, largest: int, now: float
    ) -> int:
        """One turn of a stream's packets; the position reached. Still `listed` if it comes again: as the
        next, where there was no room."""
        ready = self._ready
        stream = carried.stream
        carried.listed = False
        if stream.over or stream.carried is not carried:
            return pos
        whole = carried.whole()
        if not whole:
            return pos
        if pos + whole > limit and (pos or limit < largest):
            carried.listed = True
            ready.appendleft(carried)
            return pos
        end = carried.pack(room, pos, limit, now)
        if carried.listed or stream.over:
            return end
        if end > pos:
            if carried.whole():
                carried.listed = True
                ready.append(carried)
        elif carried.whole() > whole:  # it has looked, and needs more than it had guessed
            carried.listed = True
            ready.appendleft(carried)
        return end

    def _pack_items(self, room: memoryview, pos: int, limit: int, contents: Contents) -> int:
        queue = self._items
        while queue:
            what = queue[0]
            data = self._encode(what)
            if pos + len(data) > limit:
                break
            queue.popleft()
            self._said(what)
            if data:
                room[pos : pos + len(data)] = data
                pos += len(data)
                contents.append(what)
        return pos

    def _encode(self, what: tuple[Any, ...]) -> bytes:
        """The item as it is true now; empty if there is no need for it any more."""
        kind = what[0]
        if kind == SESSION_WINDOW:
            return items.item(kind, self._session_limit())
        stream: Stream = what[1]
        receiving, sending = stream.receiving, stream.sending
        if kind == OPEN:
            return b"" if stream.over else items.open_item(stream.id, stream.port, receiving.limit)
        if kind == RESET:
            assert sending.reset_code is not None
            return items.item(kind, stream.id, sending.reset_code, sending.end)
        if kind == STOP:
            return b"" if receiving.done else items.item(kind, stream.id, stream.stop_code)
        if receiving.done or receiving.size is not None or receiving.stopped:
            return b""
        return items.item(WINDOW, stream.id, receiving.grant())

    def _said(self, what: tuple[Any, ...]) -> None:
        kind = what[0]
        if kind in (OPEN, RESET, STOP):
            self._listed.discard(what)
        elif kind == WINDOW:
            what[1].window_said = False
        elif kind == SESSION_WINDOW:
            self._session_window_said = False

    def _pack_datagrams(self, room: memoryview, pos: int, limit: int, contents: Contents) -> int:
        queue = self._datagrams
        while queue:
            source, target, data = queue[0]
            size = len(data)
            if pos + DATAGRAM_HEADER + size > limit:
                break
            queue.popleft()
            self._datagram_bytes -= size
            items.put_datagram(room, pos, source, target, size)
            pos += DATAGRAM_HEADER
            room[pos : pos + size] = data
            pos += size
            contents.append((DATAGRAM,))
        return pos

    # what became of it

    def arrived(self, contents: Contents) -> None:
        """A cell with this was acknowledged."""
        for what in contents:
            kind = what[0]
            if kind == DATA:
                stream: Stream = what[1]
                half = stream.sending
                freed = half.acknowledged(what[2], what[3], what[4])
                if freed:
                    self._release(freed)
                    if stream.starved:
                        stream.starved = False
                        self.drained.append(stream)
                if half.done:
                    stream.check_end()
            elif kind == PACKETS:
                what[1].cells_arrived += 1
            elif kind == RESET:
                what[1].send_done()
            elif kind == OPEN:
                what[1].arrived()
            elif kind == AUTH:
                what[1].auth_arrived()

    def lost(self, contents: Contents) -> None:
        """A cell with this got lost, or may have: what still matters is listed again."""
        for what in contents:
            kind = what[0]
            if kind == DATA:
                stream: Stream = what[1]
                stream.sending.lost(what[2], what[3], what[4])
                if stream.sending.ready():
                    self.list(stream)
            elif kind in (AUTH, CELL_LIMIT, SPARE, USE):
                what[1].say_again(what)
            elif kind == SESSION_WINDOW:
                self.say_session_window()
            elif kind == WINDOW:
                if not what[1].window_said:
                    what[1].window_said = True
                    self._items.append(what)
            elif kind in (OPEN, RESET, STOP) and what not in self._listed:
                self.say(kind, what[1])
