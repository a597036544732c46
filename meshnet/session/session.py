"""An end-to-end session over a circuit: the pure core behind `Stream`s, datagrams and pings.

Sans-IO. Cells come in by `Path.receive` and go out by `Path.fill`, both by call; streams tell their readers
by call; everything else is an event. `wake(path)` is called when something to send appears outside of `fill`:
the owner then lets the circuit ask `fill` (and does so once at the start, when the circuit is attached).
`notify(session)` is called when `events()` has something or `deadline()` has become earlier than what it last
said; it must not call into the session but plan to. A session with nothing in flight has no deadline and
costs nothing.

One circuit is one `Path`; a session may have several (`paths`) and sends over one of them.
"""

from __future__ import annotations

from collections.abc import Callable
from math import inf

from attrs import frozen

from meshnet.cipher.aead import TAG_SIZE, Buffer
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import (
    CodecError,
    Drop,
    MeshError,
    ProtocolError,
    RefusedError,
    UnreachableError,
    UsageError,
)  # fmt: skip
from meshnet.limits import (
    LARGEST_CELL,
    SEND_BUFFER,
    SESSION_BUFFER,
    SMALLEST_SEND,
    STREAM_HELD,
    STREAM_WINDOW,
    STREAMS,
)  # fmt: skip
from meshnet.session import items
from meshnet.session.carried import Carried
from meshnet.session.codes import Code, SessionFaultError
from meshnet.session.events import (
    AppFailed,
    Closed,
    DatagramReceived,
    Event,
    Opened,
    Ponged,
)  # fmt: skip
from meshnet.session.held import Held
from meshnet.session.inbox import Inbox, NoRoom
from meshnet.session.keys import CircuitKeys, caller_auth
from meshnet.session.life import new_life
from meshnet.session.memory import Account, Memory
from meshnet.session.packing import Outbox
from meshnet.session.path import Path
from meshnet.session.paths import Paths
from meshnet.session.streams import Stream
from meshnet.streams import Flow, StreamReader

EVENTS = 1_024
"""Datagrams beyond this many events not yet fetched are dropped."""
PINGS = 64
"""Pings waiting for their answer; the oldest is given up."""
CLOSING_PROBES = 3
"""How many probe time-outs CLOSE is repeated."""

Accept = Callable[[Stream], StreamReader | None]


@frozen
class SessionLimits:
    """What one session may hold: bytes unread of a stream and in all, unacknowledged of a stream.

    `streams` counts those of one opener.
    """

    stream_window: int = STREAM_WINDOW
    session_buffer: int = SESSION_BUFFER
    send_buffer: int = SEND_BUFFER
    streams: int = STREAMS


def _refuse(stream: Stream) -> StreamReader | None:
    """Accepts no stream."""
    return None


class Session:
    """One end of a session. `keys` are those of its first circuit and say which end it is.

    At the origin `peer` is the key that was called and `identity` who we say we are (None: anonymous). At the
    last hop `peer` is the caller once AUTH told, or None. `accept` is asked for each stream the other side
    opens; None refuses it. `max_cell` is the path's largest body, `trip` the round trip that set-up took.
    `memory` is what all sessions of a node share; without it the session has one of its own. `joinable` are
    the sessions of the same service by their id, for circuits that join one of them. `survives` is how many
    seconds streams outlive their last circuit.

    `live` is true until the session begins to close; `trusted` once AUTH has been opened (at the origin:
    always), `confirmed` once both ends know it. `paths` are its circuits, the newest last; `path` is the one
    it sends over, or the last one there was. `datagrams_dropped` counts those that nobody fetched in time.
    """

    __slots__ = (
        "_closing_until", "_events", "_fault", "_inbox", "_last_words", "_life", "_next_token", "_notify",
        "_pings", "_planned", "_reading", "_stirred", "_unsaid", "accept", "account", "confirmed",
        "datagrams_dropped", "held", "joinable", "keys", "limits", "live", "outbox", "path", "paths", "peer",
        "trusted",
    )  # fmt: skip

    def __init__(
        self,
        keys: CircuitKeys,
        *,
        wake: Callable[[Path], object],
        notify: Callable[[Session], object] = lambda session: None,
        accept: Accept = _refuse,
        peer: PublicKey | None = None,
        identity: SecretKey | None = None,
        max_cell: int = LARGEST_CELL,
        trip: float | None = None,
        limits: SessionLimits = SessionLimits(),
        memory: Memory | None = None,
        joinable: dict[bytes, Session] | None = None,
        survives: float = 0.0,
    ) -> None:
        self.keys = keys
        self._notify = notify
        self.accept = accept
        self.peer = peer
        self.limits = limits
        self.account = Account(Memory() if memory is None else memory)
        self.live = True
        self.trusted = keys.initiator
        self.confirmed = False
        self.joinable = {} if joinable is None else joinable
        self.datagrams_dropped = 0
        self._life = new_life(self)
        self._events: list[Event] = []
        self._planned = inf  # the deadline the owner knows of
        self.held = Held(self.account)
        self._reading = 0
        self._stirred = False
        self._pings: dict[int, float] = {}
        self._next_token = 1
        self._closing_until: float | None = None
        self._last_words = b""  # our CLOSE
        self._unsaid = False  # it is to be sent
        self._fault: MeshError | None = None  # why it ended
        self.outbox = Outbox(lambda: self._inbox.grant(), self.account.give)
        self.path = Path(self, keys, max_cell, trip, wake)
        self.path.outbox = self.outbox
        self.paths = Paths(self, self.path, survives)
        self._inbox = Inbox(self, self.path, keys.initiator)
        if keys.initiator:
            anonymous = items.auth_item(items.AUTH_ANONYMOUS)
            auth = anonymous if identity is None else caller_auth(keys, identity)
            self.path.say_auth(auth)
        if limits.session_buffer > self._inbox.limit:
            self.outbox.say_session_window()

    def __repr__(self) -> str:
        side = "origin" if self.keys.initiator else "last hop"
        state = "live" if self.live else "ended"
        return f"<Session {side} {state}, {len(self._inbox.table)} streams>"

    # what an owner does

    @property
    def identity(self) -> PublicKey | None:
        """At the last hop: who the caller proved to be; None if anonymous or not known yet."""
        return None if self.keys.initiator else self.peer

    @property
    def streams(self) -> int:
        """How many streams live, both sides' together."""
        return len(self._inbox.table)

    @property
    def wanted(self) -> bool:
        """Whether there is a stream whose reader still hears of it."""
        return any(not stream.over for stream in self._inbox.table.values())

    @property
    def packets_dropped(self) -> int:
        """PACKETS that came for streams that carry none."""
        return self._inbox.packets_dropped

    @property
    def fault(self) -> MeshError:
        """Why it ended."""
        return self._fault or UnreachableError("the session has ended")

    @property
    def idle(self) -> bool:
        """Whether no stream lives, nothing waits to be sent and nothing is in flight."""
        return not (self._inbox.table or self.outbox.work or any(each.recovery.sent for each in self.paths))

    def open(self, port: int, now: float, reader: StreamReader) -> Stream:
        """A new stream to `port` (1 to 65,535) of the other side; usable at once.

        Raises UsageError for a bad port, RefusedError when too many streams are open, and the session's own
        error when it has ended.
        """
        if not 1 <= port <= 0xFFFF:
            raise UsageError(f"a port is 1 to 65535, not {port}")
        if not self.live:
            raise self.fault
        inbox = self._inbox
        if inbox.own_count >= self.limits.streams or inbox.next_own > items.LARGEST_STREAM:
            raise RefusedError(f"the session has {inbox.own_count} streams open; no more are allowed")
        if self.account.room() < STREAM_HELD:
            raise RefusedError("the streams of this node hold too much memory; try again later")
        stream = inbox.add_own(port)
        stream.announced = True
        stream.reader = reader
        self.outbox.say(items.OPEN, stream)
        self._stir()
        return stream

    def send_datagram(self, port: int, data: Buffer, source: int = 0) -> bool:
        """Sends `data` (copied) to `port`, once; false if too many wait or the path cannot carry it."""
        if not 1 <= port <= 0xFFFF or not 0 <= source <= 0xFFFF:
            raise UsageError(f"a port is 1 to 65535, not {port}")
        if (
            not self.live
            or not self.paths
            or len(data) + items.DATAGRAM_HEADER + TAG_SIZE > self.path.max_cell
        ):
            return False
        taken = self.outbox.add_datagram(source, port, bytes(data))
        self._stir()
        return taken

    def ping(self, now: float) -> int:
        """Asks the other side for a sign; `Ponged` with the returned token follows unless a cell is lost."""
        token = self._next_token
        self._next_token += 1
        if self.live:
            self._pings[token] = now
            if len(self._pings) > PINGS:
                del self._pings[next(iter(self._pings))]
            self.path.ping(token)
            self._stir()
        return token

    def close(self, code: int, text: str, now: float) -> None:
        """Ends the session: streams are lost, CLOSE tells the other side. Harmless if it has ended."""
        self._life.close(code, text, now)

    def events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When `tick` should be called; None: never, as things are. Later calls of `tick` are harmless."""
        deadline = self._closing_until
        if self.live:
            deadline = self.paths.deadline() if self.trusted else self.held.due
        self._planned = inf if deadline is None else deadline
        return deadline

    def tick(self, now: float) -> None:
        """Time has passed. Ask `deadline` again afterwards."""
        self._planned = inf
        if self._closing_until is not None:
            if now >= self._closing_until:
                self._life.expire()
            return
        if not self.live:
            return
        if not self.trusted:
            if self.held.due is not None and now >= self.held.due:
                self._fault = RefusedError("the caller did not say who it is")
                self.close(Code.AUTH, "AUTH did not come", now)
            return
        self.paths.tick(now)

    # cells (called by Path)

    def receive(self, path: Path, number: int, body: memoryview, now: float, marked: bool) -> Drop:
        """The same as `path.receive`."""
        return path.receive(number, body, now, marked)

    def fill(self, path: Path, room: memoryview, now: float) -> int:
        """The same as `path.fill`."""
        return path.fill(room, now)

    def opened(self, path: Path, number: int, plain: memoryview, now: float, marked: bool) -> Drop:
        """Cell `number` has been opened: tells its items to the inbox."""
        if not self.live:
            if self._closing_until is not None:
                self._hear_farewell(path, plain)
            return Drop.LATE
        if not self.trusted:
            if not plain or plain[0] != items.AUTH:
                return self._hold(number, plain, now, marked)
            handed = self.paths.hand_over(path, number, plain, now, marked)
            if handed is not None:
                return handed
        inbox = self._inbox
        inbox.path = path
        inbox.now = now
        inbox.marked = marked
        self._reading += 1
        try:
            asks = items.read(plain, inbox)
        except NoRoom:
            return self._read(path, now, Drop.NO_ROOM)
        except (CodecError, SessionFaultError) as error:
            code = error.code if isinstance(error, SessionFaultError) else Code.MALFORMED
            self._read(path, now, Drop.MALFORMED)
            self._fault = ProtocolError(f"the other node broke the protocol: {error}")
            self.close(code, str(error), now)
            return Drop.MALFORMED
        acks = path.acks
        acks.received(number, now, asks, marked)
        if acks.deadline is not None and acks.deadline < self._planned:
            self.timer(acks.deadline)
        self._read(path, now, Drop.NONE)
        if self.held.due is not None and self.held and self.trusted:
            for earlier, kept, mark in self.held.take():
                self.opened(path, earlier, memoryview(kept), now, mark)
        return Drop.NONE

    def _read(self, path: Path, now: float, drop: Drop) -> Drop:
        """The end of reading a cell: owed calls, and sending what came of it."""
        outbox = self.outbox
        if outbox.drained:
            drained, outbox.drained = outbox.drained, []
            for stream in drained:
                if not stream.over and stream.reader is not None:
                    self._inbox.call(stream, stream.reader.drained)
        self._reading -= 1
        if not self._reading:
            if path is not self.path and (self._stirred or self.outbox.work):
                self.path.wake(self.path)
            asked = path.acks.due or path.recovery.probes or path.own or self.outbox.work
            if self._stirred or (asked and path.wants()):
                self._stirred = False
                path.wake(path)
        return drop

    def _hold(self, number: int, plain: memoryview, now: float, marked: bool) -> Drop:
        """A cell before AUTH: kept if there is room, else dropped without being acknowledged."""
        if not self.held.keep(number, plain, now, marked):
            return Drop.NOT_OPEN
        self.timer(self.held.due)
        return Drop.NONE

    def farewell(self, path: Path, room: memoryview, now: float) -> int:
        """What `fill` sends while the session is closing: CLOSE, once for each time it is asked for."""
        words = self._last_words
        if not self._unsaid or not (path.keys.initiator or path.heard) or len(words) + TAG_SIZE > len(room):
            return 0
        self._unsaid = False
        room[: len(words)] = words
        return path.seal(room, len(words))

    def _hear_farewell(self, path: Path, plain: memoryview) -> None:
        """A cell after our CLOSE: the other side has not heard it yet, unless it says CLOSE too."""
        if plain and plain[0] == items.CLOSE:
            self._life.expire()
            return
        self._unsaid = True
        path.wake(path)

    # what streams and the inbox ask (streams.Owner)

    def has_bytes(self, stream: Stream) -> None:
        """The stream has something to send."""
        if self.live:
            self.outbox.list(stream)
            self._stir()

    def say(self, kind: int, stream: Stream) -> None:
        """An item about a stream is to be sent."""
        if self.live:
            self.outbox.say(kind, stream)
            self._stir()

    def credit(self, size: int) -> None:
        """Received bytes are held no longer."""
        if size and self.live:
            self._inbox.credit(size)
            self._stir()

    def room(self, buffered: int) -> int:
        """Bytes that a stream with so many unacknowledged may take more, as far as memory goes."""
        return max(self.account.send_room(), SMALLEST_SEND - buffered, 0)

    def hold(self, size: int) -> None:
        """A stream was given bytes to send."""
        self.account.take(size)

    def release(self, size: int) -> None:
        """Bytes to send are dropped."""
        self.account.give(size)

    def forget(self, stream: Stream) -> None:
        """Both directions of a stream are done."""
        stream.carried = None
        self._inbox.remove(stream)

    def has_packets(self, carried: Carried) -> None:
        """A stream has packets to send."""
        if self.live:
            self.outbox.list_packets(carried)
            self._stir()

    @property
    def largest_packets(self) -> int:
        """Bytes of packets that a cell takes on the circuit that is sent over."""
        return self.path.max_cell - TAG_SIZE - items.PACKETS_HEADER

    @property
    def flow(self) -> Flow:
        """How that circuit fares."""
        path = self.path
        return Flow(path.rtt, path.delivery_rate, path.cwnd, path.in_flight, heard=path.window.next)

    def probe(self) -> None:
        """Asks for an acknowledgement over that circuit."""
        if self.live:
            self.path.ping(0)
            self._stir()

    def authenticated(self, caller: PublicKey | None) -> None:
        """AUTH was believed."""
        self.trusted = True
        self.peer = caller
        self.joinable[self.keys.session_id] = self
        self._life.confirm()

    def ponged(self, token: int, now: float) -> None:
        """An answer to a ping."""
        asked = self._pings.pop(token, None)
        if asked is not None:
            self.tell(Ponged(token, now - asked))

    def peer_closed(self, path: Path, code: int, error: MeshError, now: float) -> None:
        """CLOSE was received; over a circuit that has not joined yet it is only about that."""
        if path.stands or not self.confirmed:
            self._life.peer_closed(error)
        else:
            self.paths.refused(path, code, error, now)

    def auth_arrived(self, path: Path) -> None:
        """At the origin: AUTH of this circuit was acknowledged."""
        self._life.confirm()
        if self.live:
            self.paths.confirmed(path)

    def tell_datagram(self, event: DatagramReceived) -> None:
        """A datagram was received."""
        if len(self._events) < EVENTS:
            self.tell(event)
        else:
            self.datagrams_dropped += 1

    def app_failed(self, stream: Stream, error: Exception) -> None:
        """A reader raised."""
        self.tell(AppFailed(stream, error))
        if not stream.over:
            stream.reset(Code.INTERNAL)

    def end(self, why: MeshError) -> None:
        """Its last circuit is gone, and no other is waited for."""
        self._life.lose(why)

    def lose_streams(self, which: Callable[[Stream], bool], why: MeshError) -> None:
        """Ends some streams; readers are told `why`; the other side hears that they end when it can."""
        for stream in [each for each in self._inbox.table.values() if not each.over and which(each)]:
            self._inbox.lose(stream, why)
            stream.reset(Code.CANCELLED)

    def timer(self, deadline: float | None) -> None:
        """There is a new deadline; tells the owner if it is earlier than what he knows."""
        if deadline is not None and deadline < self._planned:
            self._planned = deadline
            self._notify(self)

    # life (life.Mortal)

    def on_open(self) -> None:
        """It is open."""
        self.confirmed = True
        self.tell(Opened(self.identity))

    def on_closing(self, code: int, text: str, now: float) -> None:
        """CLOSE is to be sent, and sent again to whoever still sends."""
        self._last_words = items.close_item(code, text)
        self._unsaid = True
        self._end(self._fault or UnreachableError(f"this node closed the session: {text}"))
        self._closing_until = now + CLOSING_PROBES * self.path.recovery.probe_timeout()
        self.path.wake(self.path)
        self.timer(self._closing_until)
        if not self.paths:
            self._life.expire()

    def on_closed(self, error: MeshError | None, by_peer: bool) -> None:
        """It is over."""
        if error is not None:
            self._end(error)
        self._closing_until = None
        self._unsaid = False
        self.tell(Closed(self.fault, by_peer))

    # inside

    def _end(self, error: MeshError) -> None:
        """Streams are lost and everything held is given back."""
        self.live = False
        self._fault = error
        self.paths.waits_until = None
        if self.joinable.get(self.keys.session_id) is self:
            del self.joinable[self.keys.session_id]
        inbox = self._inbox
        streams = list(inbox.table.values())
        inbox.table.clear()
        inbox.own_count = inbox.peer_count = 0
        self.outbox.clear()
        self.held.take()
        self._pings.clear()
        for path in self.paths:
            path.own.clear()
            path.recovery.forget()
        self.account.close()
        for stream in streams:
            told = stream.over
            stream.abandon()
            if not told:
                inbox.lose(stream, error)

    def tell(self, event: Event) -> None:
        """An event for the owner."""
        self._events.append(event)
        self._notify(self)

    def _stir(self) -> None:
        """Something to send has appeared."""
        if self._reading:
            self._stirred = True
        else:
            self.path.wake(self.path)
