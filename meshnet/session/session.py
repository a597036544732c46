"""An end-to-end session over a circuit: the pure core behind `Stream`s, datagrams and pings.

Sans-IO. Cells come in by `Path.receive` and go out by `Path.fill`, both by call; streams tell their readers
by call; everything else is an event. `wake(path)` is called when something to send appears outside of `fill`:
the owner then lets the circuit ask `fill` (and does so once at the start, when the circuit is attached).
`notify(session)` is called when `events()` has something or `deadline()` has become earlier than what it last
said; it must not call into the session but plan to. A session with nothing in flight has no deadline and
costs nothing.

One circuit is one `Path`, which holds everything that is per circuit, so more can be added; in this version a
session has exactly one, and an AUTH that joins another session is answered by CLOSE.
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
    AUTH_HELD,
    AUTH_SECONDS,
    LARGEST_CELL,
    PACKET_HELD,
    SEND_BUFFER,
    SESSION_BUFFER,
    SESSION_SILENCE,
    SMALLEST_SEND,
    STREAM_HELD,
    STREAM_WINDOW,
    STREAMS,
)  # fmt: skip
from meshnet.session import items
from meshnet.session.codes import Code, SessionFaultError
from meshnet.session.events import AppFailed, Closed, DatagramReceived, Event, Opened, PathDead, Ponged
from meshnet.session.inbox import Inbox, NoRoom
from meshnet.session.keys import CircuitKeys, caller_auth
from meshnet.session.life import new_life
from meshnet.session.memory import Account, Memory
from meshnet.session.packing import Outbox
from meshnet.session.path import Path
from meshnet.session.streams import Stream
from meshnet.streams import StreamReader

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
    """One end of a session. `keys` are those of its circuit and say which end it is.

    At the origin `peer` is the key that was called and `identity` who we say we are (None: anonymous). At the
    last hop `peer` is the caller once AUTH told, or None. `accept` is asked for each stream the other side
    opens; None refuses it. `max_cell` is the path's largest body, `trip` the round trip that set-up took.
    `memory` is what all sessions of a node share; without it the session has one of its own.

    `live` is true until the session begins to close; `trusted` once AUTH has been opened (at the origin:
    always). `datagrams_dropped` counts those that nobody fetched in time.
    """

    __slots__ = (
        "_auth_due", "_closing_until", "_events", "_fault", "_held", "_held_bytes", "_inbox", "_last_words",
        "_life", "_next_token", "_notify", "_pings", "_planned", "_reading", "_stirred", "_unsaid", "_wake",
        "accept", "account", "datagrams_dropped", "limits", "live", "outbox", "path", "peer", "trusted",
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
    ) -> None:
        self._wake = wake
        self._notify = notify
        self.accept = accept
        self.peer = peer
        self.limits = limits
        self.account = Account(Memory() if memory is None else memory)
        self.live = True
        self.trusted = keys.initiator
        self.datagrams_dropped = 0
        self._life = new_life(self)
        self._events: list[Event] = []
        self._planned = inf  # the deadline the owner knows of
        self._held: list[tuple[int, bytes, bool]] = []
        self._held_bytes = 0
        self._auth_due: float | None = None
        self._reading = 0
        self._stirred = False
        self._pings: dict[int, float] = {}
        self._next_token = 1
        self._closing_until: float | None = None
        self._last_words = b""  # our CLOSE
        self._unsaid = False  # it is to be sent
        self._fault: MeshError | None = None  # why it ended
        self.outbox = Outbox(lambda: self._inbox.grant(), self._confirmed, self.account.give)
        self.path = Path(self, keys, max_cell, trip)
        self._inbox = Inbox(self, self.path, keys.initiator)
        if keys.initiator:
            anonymous = items.auth_item(items.AUTH_ANONYMOUS)
            auth = anonymous if identity is None else caller_auth(keys, identity)
            self.outbox.say_auth(auth, max_cell)
        if limits.session_buffer > self._inbox.limit:
            self.outbox.say_session_window()

    def __repr__(self) -> str:
        side = "origin" if self.path.keys.initiator else "last hop"
        state = "live" if self.live else "ended"
        return f"<Session {side} {state}, {len(self._inbox.table)} streams>"

    # what an owner does

    @property
    def identity(self) -> PublicKey | None:
        """At the last hop: who the caller proved to be; None if anonymous or not known yet."""
        return None if self.path.keys.initiator else self.peer

    @property
    def streams(self) -> int:
        """How many streams live, both sides' together."""
        return len(self._inbox.table)

    @property
    def idle(self) -> bool:
        """Whether no stream lives, nothing waits to be sent and nothing is in flight."""
        return not (self._inbox.table or self.outbox.work or self.path.recovery.sent)

    def open(self, port: int, now: float, reader: StreamReader) -> Stream:
        """A new stream to `port` (1 to 65,535) of the other side; usable at once.

        Raises UsageError for a bad port, RefusedError when too many streams are open, and the session's own
        error when it has ended.
        """
        if not 1 <= port <= 0xFFFF:
            raise UsageError(f"a port is 1 to 65535, not {port}")
        if not self.live:
            raise self._fault or UnreachableError("the session has ended")
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
        if not self.live or len(data) + items.DATAGRAM_HEADER + TAG_SIZE > self.path.max_cell:
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
            self.outbox.ping(token)
            self._stir()
        return token

    def close(self, code: int, text: str, now: float) -> None:
        """Ends the session: streams are lost, CLOSE tells the other side. Harmless if it has ended."""
        self._life.close(code, text, now)

    def path_lost(self, path: Path, why: MeshError) -> None:
        """The circuit is gone; with it, as it is the only one, the session."""
        self._life.lose(why)

    def events(self) -> list[Event]:
        """What happened since the last call."""
        events, self._events = self._events, []
        return events

    def deadline(self) -> float | None:
        """When `tick` should be called; None: never, as things are. Later calls of `tick` are harmless."""
        deadline = self._closing_until
        if self.live:
            deadline = self.path.deadline() if self.trusted else self._auth_due
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
            if self._auth_due is not None and now >= self._auth_due:
                self._fault = RefusedError("the caller did not say who it is")
                self.close(Code.AUTH, "AUTH did not come", now)
            return
        path = self.path
        if path.recovery.dead(now):
            error = UnreachableError(
                f"the other end has not answered for {SESSION_SILENCE:.0f} seconds; the circuit is given up"
            )
            self._tell(PathDead(path, error))
            self.path_lost(path, error)
            return
        path.tick(now)
        if path.wants():
            self._wake(path)

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
                self._hear_farewell(plain)
            return Drop.LATE
        if not self.trusted and (not plain or plain[0] != items.AUTH):
            return self._hold(number, plain, now, marked)
        inbox = self._inbox
        inbox.path = path
        inbox.now = now
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
        if self._held and self.trusted:
            self._take_held(path, now)
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
        if not self._reading and (self._stirred or path.wants()):
            self._stirred = False
            self._wake(path)
        return drop

    def _hold(self, number: int, plain: memoryview, now: float, marked: bool) -> Drop:
        """A cell before AUTH: kept if there is room, else dropped without being acknowledged."""
        cost = len(plain) + PACKET_HELD
        if self._held_bytes + cost > AUTH_HELD:
            return Drop.NOT_OPEN
        if cost > self.account.room():
            return Drop.NOT_OPEN
        self.account.take(cost)
        self._held_bytes += cost
        self._held.append((number, bytes(plain), marked))
        if self._auth_due is None:
            self._auth_due = now + AUTH_SECONDS
            self.timer(self._auth_due)
        return Drop.NONE

    def _take_held(self, path: Path, now: float) -> None:
        self.account.give(self._held_bytes)
        held, self._held, self._held_bytes = self._held, [], 0
        for number, plain, marked in held:
            self.opened(path, number, memoryview(plain), now, marked)

    def farewell(self, path: Path, room: memoryview, now: float) -> int:
        """What `fill` sends while the session is closing: CLOSE, once for each time it is asked for."""
        words = self._last_words
        if not self._unsaid or not (path.keys.initiator or path.heard) or len(words) + TAG_SIZE > len(room):
            return 0
        self._unsaid = False
        room[: len(words)] = words
        return path.seal(room, len(words))

    def _hear_farewell(self, plain: memoryview) -> None:
        """A cell after our CLOSE: the other side has not heard it yet, unless it says CLOSE too."""
        if plain and plain[0] == items.CLOSE:
            self._life.expire()
            return
        self._unsaid = True
        self._wake(self.path)

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
        self._inbox.remove(stream)

    def authenticated(self, caller: PublicKey | None) -> None:
        """AUTH was believed."""
        self.trusted = True
        self.peer = caller
        self._life.confirm()

    def ponged(self, token: int, now: float) -> None:
        """An answer to a ping."""
        asked = self._pings.pop(token, None)
        if asked is not None:
            self._tell(Ponged(token, now - asked))

    def peer_closed(self, error: MeshError) -> None:
        """CLOSE was received."""
        self._life.peer_closed(error)

    def tell_datagram(self, event: DatagramReceived) -> None:
        """A datagram was received."""
        if len(self._events) < EVENTS:
            self._tell(event)
        else:
            self.datagrams_dropped += 1

    def app_failed(self, stream: Stream, error: Exception) -> None:
        """A reader raised."""
        self._tell(AppFailed(stream, error))
        if not stream.over:
            stream.reset(Code.INTERNAL)

    def timer(self, deadline: float | None) -> None:
        """There is a new deadline; tells the owner if it is earlier than what he knows."""
        if deadline is not None and deadline < self._planned:
            self._planned = deadline
            self._notify(self)

    # life (life.Mortal)

    def on_open(self) -> None:
        """It is open."""
        self._tell(Opened(self.identity))

    def on_closing(self, code: int, text: str, now: float) -> None:
        """CLOSE is to be sent, and sent again to whoever still sends."""
        self._last_words = items.close_item(code, text)
        self._unsaid = True
        self._end(self._fault or UnreachableError(f"this node closed the session: {text}"))
        self._closing_until = now + CLOSING_PROBES * self.path.recovery.probe_timeout()
        self._wake(self.path)
        self.timer(self._closing_until)

    def on_closed(self, error: MeshError | None, by_peer: bool) -> None:
        """It is over."""
        if error is not None:
            self._end(error)
        self._closing_until = None
        self._unsaid = False
        self._tell(Closed(self._fault or UnreachableError("the session has ended"), by_peer))

    # inside

    def _confirmed(self) -> None:
        self._life.confirm()

    def _end(self, error: MeshError) -> None:
        """Streams are lost and everything held is given back."""
        self.live = False
        self._fault = error
        inbox = self._inbox
        streams = list(inbox.table.values())
        inbox.table.clear()
        inbox.own_count = inbox.peer_count = 0
        self.outbox.clear()
        self._held.clear()
        self._pings.clear()
        recovery = self.path.recovery
        recovery.sent.clear()
        recovery.in_flight = 0
        self.account.close()
        for stream in streams:
            told = stream.over
            stream.abandon()
            if not told:
                inbox.lose(stream, error)

    def _tell(self, event: Event) -> None:
        self._events.append(event)
        self._notify(self)

    def _stir(self) -> None:
        """Something to send has appeared."""
        if self._reading:
            self._stirred = True
        else:
            self._wake(self.path)
