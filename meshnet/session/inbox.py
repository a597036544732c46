"""What the items of received cells do: streams found, bytes delivered, windows opened.

An `Inbox` is the `items.Sink` of one session. It holds the table of streams and the session's receive window.
Whatever breaks a rule raises SessionFaultError, which closes the session; a cell that would need more memory
than allowed raises `NoRoom` and is not acknowledged. Calls of readers cannot raise into it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError
from meshnet.limits import (
    SESSION_FIRST_WINDOW,
    SESSION_LEAST_WINDOW,
    SMALLEST_CELL,
    STREAM_FIRST_WINDOW,
    STREAM_HELD,
)  # fmt: skip
from meshnet.session.codes import Code, SessionFaultError, session_error, stream_error
from meshnet.session.events import DatagramReceived
from meshnet.session.items import AUTH_ANONYMOUS, AUTH_CALLER, WINDOW
from meshnet.session.keys import check_caller
from meshnet.session.receiving import ReceiveHalf
from meshnet.session.sending import SendHalf
from meshnet.session.streams import Stream

if TYPE_CHECKING:
    from meshnet.session.path import Path
    from meshnet.session.session import Session


class NoRoom(Exception):  # noqa: N818  # no error: the cell comes again
    """The cell cannot be taken now and must come again."""


class Inbox:
    """The receiving side of a session. `path`, `now`, `marked` are those of the cell being read.

    `table` holds the living streams by id, `own_count` and `peer_count` how many each side opened.
    `received`, `consumed` and `limit` are the session's sums of bytes. `packets_dropped` counts PACKETS for
    streams that carry none.
    """

    __slots__ = (
        "_first_own", "_own_next", "_peer_next", "_session", "consumed", "limit", "marked",
        "now", "own_count", "packets_dropped", "path", "peer_count", "received", "table",
    )  # fmt: skip

    def __init__(self, session: Session, path: Path, initiator: bool) -> None:
        self._session = session
        self._first_own = 0 if initiator else 1
        self._own_next = self._first_own
        self._peer_next = 1 - self._first_own
        self.path = path
        self.now = 0.0
        self.marked = False
        self.packets_dropped = 0
        self.table: dict[int, Stream] = {}
        self.own_count = 0
        self.peer_count = 0
        self.received = 0
        self.consumed = 0
        self.limit = SESSION_FIRST_WINDOW

    # the table

    def add_own(self, port: int) -> Stream:
        """A new stream of ours, not yet announced."""
        limits = self._session.limits
        sending = SendHalf(STREAM_FIRST_WINDOW, limits.send_buffer)
        receiving = ReceiveHalf(limits.stream_window, limits.stream_window)
        self._session.account.take(STREAM_HELD)
        stream = Stream(self._session, self._own_next, port, sending, receiving)
        self.table[stream.id] = stream
        self._own_next += 2
        self.own_count += 1
        return stream

    @property
    def next_own(self) -> int:
        """The id of our next stream."""
        return self._own_next

    def remove(self, stream: Stream) -> None:
        """Both directions are done."""
        if self.table.pop(stream.id, None) is None:
            return
        self._session.account.give(STREAM_HELD)
        if stream.id % 2 == self._first_own:
            self.own_count -= 1
        else:
            self.peer_count -= 1

    def _find(self, stream_id: int) -> Stream | None:
        """The stream of an item, made if the peer may open it; None if it is gone."""
        stream = self.table.get(stream_id)
        if stream is not None or not self._session.live:
            return stream
        if stream_id % 2 == self._first_own:
            if stream_id >= self._own_next:
                raise SessionFaultError(Code.STREAM_STATE, "an item is about a stream that was never opened")
            return None
        if stream_id < self._peer_next:
            return None
        limits = self._session.limits
        # Streams above the limit are refused one by one; but they live until the RESET has arrived,
        # and whoever opens twice as many does not listen.
        if self.peer_count + (stream_id - self._peer_next) // 2 >= 2 * limits.streams:
            raise SessionFaultError(Code.LIMIT, "too many streams were opened at once")
        cost = STREAM_HELD * ((stream_id - self._peer_next) // 2 + 1)
        if cost > self._session.account.room():
            raise NoRoom
        self._session.account.take(cost)
        for number in range(self._peer_next, stream_id + 2, 2):
            sending = SendHalf(STREAM_FIRST_WINDOW, limits.send_buffer)
            receiving = ReceiveHalf(STREAM_FIRST_WINDOW, limits.stream_window)
            self.table[number] = Stream(self._session, number, 0, sending, receiving)
            self.peer_count += 1
        self._peer_next = stream_id + 2
        return self.table[stream_id]

    def credit(self, size: int) -> None:
        """`size` received bytes are held no longer."""
        self._session.account.give(size)
        self.consumed += size
        buffer = self._session.limits.session_buffer
        if self.consumed + buffer - self.limit >= buffer // 2:
            self._session.outbox.say_session_window()

    def grant(self) -> int:
        """The session's new limit, now binding: as much as memory has room for, and always a little."""
        session = self._session
        most = max(self.received - self.consumed + session.account.room(), SESSION_LEAST_WINDOW)
        self.limit = max(self.limit, self.consumed + min(most, session.limits.session_buffer))
        return self.limit

    # readers

    def call(self, stream: Stream, method: Callable[..., object], *arguments: Any) -> object:
        """Calls an app; if it raises, its stream is reset and the owner hears of it. Returns what it did."""
        try:
            return method(*arguments)
        except Exception as error:
            self._session.app_failed(stream, error)
            return None

    # items about the circuit

    def ack(self, largest: int, delay: int, marks: int, ranges: list[tuple[int, int]]) -> None:
        """ACK."""
        if self.path.recovery.acknowledged(largest, delay, marks, ranges, self.now):
            self._session.timer(self.path.deadline())

    def ping(self, token: int) -> None:
        """PING."""
        self.path.acks.hurry()
        if token:
            self.path.pong(token)

    def pong(self, token: int) -> None:
        """PONG."""
        self._session.ponged(token, self.now)

    def probe(self, token: int) -> None:
        """PROBE."""
        self.path.acks.hurry()
        self.path.report(token, self.now)

    def report(self, token: int, time: int, received: int, sent: int) -> None:
        """REPORT."""
        self.path.reported(token, time, received, sent, self.now)

    def spare(self) -> None:
        """SPARE: the circuit is kept in reserve."""
        if self._first_own == 0:
            raise SessionFaultError(Code.MALFORMED, "SPARE from the last hop")
        self._session.paths.rest(self.path)

    def use(self) -> None:
        """USE: the other side sends over this circuit from now on."""
        self._session.paths.follow(self.path, self.now)

    def auth(self, kind: int, body: bytes) -> None:
        """AUTH: the first is looked at, the same again is harmless, another one is a fault."""
        if self._first_own == 0:
            raise SessionFaultError(Code.AUTH, "only the origin of a circuit sends AUTH")
        path = self.path
        if path.auth is not None:
            if path.auth != (kind, body):
                raise SessionFaultError(Code.AUTH, "a second, different AUTH")
            return
        caller: PublicKey | None = None
        if kind == AUTH_CALLER:
            caller = check_caller(path.keys, body)
        if caller is None and kind != AUTH_ANONYMOUS:
            # The same words for a wrong proof and for a session that is not known.
            raise SessionFaultError(Code.AUTH, "AUTH does not prove what it claims")
        path.auth = (kind, body)
        path.stands = True
        self._session.authenticated(caller)

    def cell_limit(self, size: int) -> None:
        """CELL-LIMIT: our cells on this circuit are no larger."""
        if self._first_own == 0 or size < SMALLEST_CELL:
            raise SessionFaultError(Code.MALFORMED, "CELL-LIMIT from the last hop, or below 1200 bytes")
        self.path.shrink(size)

    def close(self, code: int, text: str) -> None:
        """CLOSE."""
        self._session.peer_closed(self.path, code, session_error(code, text), self.now)

    def datagram(self, source: int, target: int, data: memoryview) -> None:
        """DATAGRAM."""
        self._session.tell_datagram(DatagramReceived(source, target, bytes(data)))

    def packets(self, stream_id: int, body: memoryview) -> None:
        """PACKETS: straight to the sink; dropped where there is none, since nobody waits for them."""
        stream = self.table.get(stream_id)
        if stream is None or stream.carried is None or stream.over:
            self.packets_dropped += 1
            return
        self._session.outbox.companion = stream.carried
        stream.carried.received(body, self.marked)

    # items about streams

    def open(self, stream_id: int, port: int, window: int) -> None:
        """OPEN: asks the owner who reads it."""
        stream = self._find(stream_id)
        if stream is None or stream.announced:
            return
        if stream_id % 2 == self._first_own or not port:
            raise SessionFaultError(Code.STREAM_STATE, "OPEN of a stream that cannot be opened")
        stream.announced = stream.met = True
        stream.port = port
        self._raise_limit(stream, window)
        if stream.over:
            return
        session = self._session
        if self.peer_count > session.limits.streams:
            stream.reset(Code.TOO_MANY)
            return
        reader = self.call(stream, session.accept, stream)
        if stream.over or not session.live:
            return
        if reader is None:
            stream.reset(Code.REFUSED)
            return
        stream.reader = reader  # type: ignore[assignment]  # what `accept` returned
        receiving = stream.receiving
        if receiving.window > receiving.limit and not stream.window_said:
            stream.window_said = True
            session.outbox.say(WINDOW, stream)
        self._deliver_early(stream)

    def data(self, stream_id: int, offset: int, data: memoryview, fin: bool) -> None:
        """DATA: straight to the reader if it is the next piece."""
        stream = self.table.get(stream_id)
        if stream is None:
            stream = self._find(stream_id)
            if stream is None:
                return
        half = stream.receiving
        end = offset + len(data)
        if fin or end > half.highest:
            account = self._session.account
            if end - half.highest > account.room() and not half.stopped:
                raise NoRoom
            grown = half.extend(end, fin)
            if grown:
                account.take(grown)
                self.received += grown
                if self.received > self.limit:
                    raise SessionFaultError(Code.FLOW_CONTROL, "more bytes than the session's window allows")
                if half.stopped:
                    half.consumed += grown
                    self.credit(grown)
        if half.done:
            return
        if half.stopped:
            if half.size is not None:
                stream.receive_done()
            return
        reader = stream.reader
        if offset != half.delivered or reader is None or half.early.starts:
            if not half.keep(offset, data):
                raise NoRoom
            if reader is not None:
                self._deliver_early(stream)
            return
        if end > offset:
            half.delivered = end
            try:
                reader.data_received(data)
            except Exception as error:
                self._session.app_failed(stream, error)
        if half.size is not None:
            self._finish(stream)

    def _deliver_early(self, stream: Stream) -> None:
        """Gives the reader what has become contiguous."""
        half, reader = stream.receiving, stream.reader
        assert reader is not None
        while not (half.done or half.stopped):
            data = half.take()
            if data is None:
                break
            self.call(stream, reader.data_received, data)
        self._finish(stream)

    def _finish(self, stream: Stream) -> None:
        """Tells the reader if the last byte has been delivered."""
        half, reader = stream.receiving, stream.reader
        if half.complete and not half.done and not half.stopped and reader is not None:
            half.done = True
            self.call(stream, reader.finished)
            stream.check_end()

    def window(self, stream_id: int, limit: int) -> None:
        """WINDOW."""
        stream = self._find(stream_id)
        if stream is not None:
            self._raise_limit(stream, limit)

    def _raise_limit(self, stream: Stream, limit: int) -> None:
        half = stream.sending
        if limit > half.limit:
            half.limit = limit
            if half.ready():
                self._session.outbox.list(stream)

    def session_window(self, limit: int) -> None:
        """SESSION-WINDOW."""
        self._session.outbox.grant(limit)

    def reset(self, stream_id: int, code: int, size: int) -> None:
        """RESET: the reader hears it, unless it asked for it."""
        stream = self._find(stream_id)
        if stream is None:
            return
        half = stream.receiving
        grown = half.extend(size, True)
        self._session.account.take(grown)  # and given back below
        self.received += grown
        if self.received > self.limit:
            raise SessionFaultError(Code.FLOW_CONTROL, "more bytes than the session's window allows")
        asked, complete = half.stopped, half.done
        if not complete:
            self.credit(half.drop())
            half.done = True
        if not asked and not stream.over and not (complete and stream.sending.done):
            self.lose(stream, stream_error(code, stream.port))
            stream.cut(Code.CANCELLED)
        stream.check_end()

    def lose(self, stream: Stream, why: MeshError) -> None:
        """Tells the reader, once, that the stream is over."""
        stream.over = True
        stream.starved = False
        self._session.credit(stream.receiving.drop())
        if stream.reader is not None:
            self.call(stream, stream.reader.lost, why)

    def stop(self, stream_id: int, code: int) -> None:
        """STOP: our direction ends; a waiting writer is woken, and finds it `stopped`.

        Where the peer's direction has ended before, no RESET of it will come: then this is what tells the
        reader that not all of ours was wanted.
        """
        stream = self._find(stream_id)
        if stream is None:
            return
        cut_short = stream.sending.reset_code is None and not stream.sending.done
        stream.cut(code)
        if cut_short and stream.receiving.complete and not stream.over:
            self.lose(stream, stream_error(code, stream.port))
            return
        if stream.starved and stream.reader is not None:
            stream.starved = False
            self.call(stream, stream.reader.drained)
