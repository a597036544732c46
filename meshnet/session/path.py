"""One circuit of a session: opening and sealing cells, what is in flight, when to acknowledge.

A cell's body is sealed with the direction's key, nonce = packet number, associated data = direction
(docs/wire-format.md §5). Cells are sealed and opened in place: `fill` writes the plaintext into the caller's
room and seals it over itself, `receive` opens the body over itself and hands out views of it. Nothing is
allocated per cell but the record of what it carried.

A path satisfies what a circuit's end asks of a session: `number`, `receive`, `fill`.

Who receives acknowledges many cells at once; who sends knows how soon he needs to hear, and asks by a PING
several times in what may be in flight (as RFC 9000 leaves to extensions).

Of a session with several paths one sends what the session has to say (`outbox`); the others acknowledge,
probe, and say only what is about their own circuit (`own`): AUTH, CELL-LIMIT, SPARE, USE, PING, PROBE and
their answers.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from struct import Struct
from typing import TYPE_CHECKING, Final

from meshnet.cipher.aead import TAG_SIZE, BadTag
from meshnet.cipher.hashing import hmac256
from meshnet.codec.varint import write_varint
from meshnet.errors import Drop, UnreachableError
from meshnet.limits import CELLS_IN_FLIGHT, PACKETS, PONGS_WAITING, SMALLEST_CELL
from meshnet.session.acks import Acks
from meshnet.session.congestion import Congestion
from meshnet.session.items import AUTH, CELL_LIMIT, PING, PONG, PROBE, REPORT, SPARE, USE, item
from meshnet.session.keys import CircuitKeys
from meshnet.session.packing import SILENT, Outbox, Silent
from meshnet.session.probing import Probing
from meshnet.session.rate import DeliveryRate
from meshnet.session.recovery import Contents, Recovery
from meshnet.session.window import ReplayWindow

if TYPE_CHECKING:
    from meshnet.session.carried import Carried
    from meshnet.session.session import Session

SKIP_LEAST: Final = 256  # cells between two numbers left out
SKIP_MOST: Final = 1_024
ASK: Final = 2  # bytes of a PING that asks for an acknowledgement
ASKS: Final = 4  # such PINGs in what may be in flight
ASK_CELLS: Final = 8  # and no more than one in so many cells
ASKS_AT_FIRST: Final = 16  # the same in slow start, which wants to see many round trips
ACK_BESIDE: Final = 32  # bytes of an ACK beside what cannot be cut
WHOLE_BESIDE: Final = ACK_BESIDE + TAG_SIZE
SMALL: Final = 16 << 10  # packets that would not have filled a cell: as a rule none are left

_NONCE: Final = Struct("<4xQ").pack


def skipped_numbers(keys: CircuitKeys) -> Iterator[int]:
    """Packet numbers that this end leaves out, ascending, known to nobody else: a peer that acknowledges
    cells before they have come, so as to be sent more than the path carries, will name one of them."""
    number, block = 0, keys.ephemeral.secret
    while True:
        block = hmac256(block, b"skip" + keys.send_ad)
        number += SKIP_LEAST + int.from_bytes(block[:4], "big") % (SKIP_MOST - SKIP_LEAST)
        yield number


class Path:
    """A circuit as its session sees it.

    `number` is the packet number of the cell that `fill` made last, `more` whether it may make another one.
    Counts: `cells_sent`, `bytes_sent`, `cells_received`, `bytes_received` (bodies with tag, opened ones
    only), `bad_tags`, `replayed`.
    `heard` says that a cell has been opened; the last hop sends none before. `stands` says that AUTH was
    acknowledged (at the last hop: believed): both ends know whose circuit it is. `auth` is the AUTH that
    came. `spare` says that it is kept in reserve. `probing` is what probes told, None before the first.
    `wake(path)` is called when something to send appears outside of `fill`.
    """

    __slots__ = (
        "_open", "_pongs", "_receive_ad", "_seal", "_send_ad", "_skip", "_skips", "_unasked", "acks", "auth",
        "bad_tags", "bytes_received", "bytes_sent", "cells_received", "cells_sent", "congestion", "heard",
        "keys", "max_cell", "more", "number", "outbox", "own", "probing", "rate", "recovery", "replayed",
        "session", "spare", "stands", "wake", "window",
    )  # fmt: skip

    def __init__(
        self,
        session: Session,
        keys: CircuitKeys,
        max_cell: int,
        trip: float | None,
        wake: Callable[[Path], object],
    ) -> None:
        self.session = session
        self.keys = keys
        self.wake = wake
        self.outbox: Outbox | Silent = SILENT
        self.own: deque[tuple[int, Path, bytes]] = deque()
        self.auth: tuple[int, bytes] | None = None
        self.stands = False
        self.spare = False
        self.probing: Probing | None = None
        self._pongs = 0
        self.max_cell = max_cell
        self._seal = keys.backend.aead(keys.send).encrypt_into
        self._open = keys.backend.aead(keys.receive).decrypt_into
        self._send_ad = keys.send_ad
        self._receive_ad = keys.receive_ad
        self.window = ReplayWindow()
        self.acks = Acks()
        self.rate = DeliveryRate(max_cell)
        self.congestion = Congestion()
        self.recovery = Recovery(
            self.rate, self.congestion, session.outbox.arrived, session.outbox.lost, trip
        )
        self._skips = skipped_numbers(keys)
        self._skip = next(self._skips)
        self._unasked = 0  # bytes sent since the last cell that asked to be acknowledged at once
        self.number = -1
        self.more = True
        self.heard = False
        self.cells_sent = self.bytes_sent = 0
        self.cells_received = self.bytes_received = 0
        self.bad_tags = self.replayed = 0

    def __repr__(self) -> str:
        side = "origin" if self.keys.initiator else "last hop"
        return f"<Path {side}, {self.recovery.in_flight} bytes in flight>"

    @property
    def rtt(self) -> float:
        """The smoothed round trip in seconds; 0.0 until measured."""
        return self.recovery.trip

    @property
    def delivery_rate(self) -> float:
        """Bytes per second that have been measured to arrive; 0.0 until measured."""
        return self.rate.rate

    @property
    def cell_size(self) -> int:
        """Bytes of body, tag included, that the next cell may take: what `fill` should be given room for."""
        size = self.rate.cell_size
        return size if size >= self.max_cell else self._sized(self.outbox.whole())

    def _sized(self, whole: int) -> int:
        """The same, where `whole` bytes of plaintext cannot be cut."""
        size = self.rate.cell_size
        if whole and whole + WHOLE_BESIDE > size:
            return min(whole + WHOLE_BESIDE, self.max_cell)
        return size

    def shrink(self, size: int) -> None:
        """Some relay of the circuit carries only bodies up to `size` bytes."""
        rate = self.rate
        self.max_cell = rate.largest_cell = min(size, self.max_cell)
        rate.cell_size = min(rate.cell_size, self.max_cell)

    @property
    def cwnd(self) -> int:
        """Bytes that may be in flight."""
        return self.congestion.window

    @property
    def in_flight(self) -> int:
        """Bytes sent and neither acknowledged nor lost."""
        return self.recovery.in_flight

    # receiving

    def receive(self, number: int, body: memoryview, now: float, marked: bool) -> Drop:
        """Opens cell `number`; `body` is writable and borrowed until return.

        Everything in it has been passed on when this returns NONE.
        """
        if not 0 <= number < PACKETS:
            return Drop.TOO_LARGE
        window = self.window
        if number != window.next and (drop := window.check(number)):
            self.replayed += 1
            return drop
        size = len(body)
        plain = body[: size - TAG_SIZE] if size >= TAG_SIZE else body[:0]
        try:
            self._open(_NONCE(number), body, self._receive_ad, plain)
        except (BadTag, ValueError):  # ValueError: shorter than a tag
            self.bad_tags += 1
            return Drop.BAD_TAG
        if number == window.next:
            window.next = number + 1
        else:
            window.accept(number)
        self.heard = True
        self.cells_received += 1
        self.bytes_received += size
        return self.session.opened(self, number, plain, now, marked)

    # sending

    def fill(self, room: memoryview, now: float) -> int:
        """Seals the next cell into `room`; its size with the tag, 0 if there is nothing to send now."""
        session = self.session
        if not session.live or not session.trusted:
            return session.farewell(self, room, now)
        recovery, acks, outbox, own = self.recovery, self.acks, self.outbox, self.own
        self.more = True
        if recovery.next >= PACKETS:
            session.paths.give_up(self, UnreachableError("the circuit has used up its packet numbers"), now)
            return 0
        if acks.due and outbox.companion is not None and not outbox.work:
            outbox.companion.accompany()
        pos = 0
        contents: Contents = []
        given = len(room)
        if given >= self.max_cell <= self.rate.cell_size and not (own or recovery.probes):
            packets = outbox.packets
            if packets is not None:
                return self._fill_packets(packets, room, now)
        largest = (given if given < self.max_cell else self.max_cell) - TAG_SIZE
        whole = outbox.fit(largest)
        work = outbox.work or own
        wished = self._sized(whole)
        limit = (given if given < wished else wished) - TAG_SIZE
        size = self._allowed(limit, whole) if work or recovery.probes else 0
        if size > 0:
            pos = self._pack(room, size, whole, largest, contents, now)
        elif acks.due:
            pos = acks.write(room, 0, limit, now)
        if not outbox.work and not recovery.probes:
            self.rate.idle(recovery.in_flight + (pos and pos + TAG_SIZE))
        if not pos:
            if outbox.whole() > whole:
                self.wake(self)  # a packet turned out to be larger than its source had guessed
            return 0
        if recovery.next == self._skip:
            recovery.skip()
            self._skip = next(self._skips)
        if contents:
            first = not recovery.sent
            recovery.record(now, pos + TAG_SIZE, contents)
            if first:
                session.timer(recovery.deadline())
        return self.seal(room, pos)

    def _fill_packets(self, packets: Carried, room: memoryview, now: float) -> int:
        """`fill` where packets are all there is to send, on a path that takes the largest cells.

        The same with everything at hand, but that packets are not cut to what is left of the window: it may
        be exceeded by half a cell.
        """
        recovery, acks, size = self.recovery, self.acks, self.max_cell - TAG_SIZE
        sent = recovery.sent
        window = self.congestion.window
        if sent and (2 * (window - recovery.in_flight - TAG_SIZE) < size or len(sent) >= CELLS_IN_FLIGHT):
            end = acks.write(room, 0, size, now) if acks.due else 0
            return self.seal(room, end) if end else 0
        # Packets go first: there they are wanted before it is looked at what arrived here.
        end = packets.pack(room, 0, size - ASK - (ACK_BESIDE if acks.waiting else 0), now)
        if end < SMALL:  # else there may be more: who asks for the next cell finds out
            self.outbox.settle(packets)
            if not end and packets.listed:  # one that needs all of a cell
                end = packets.pack(room, 0, size, now)
                self.outbox.settle(packets)
            self.more = packets.listed
        if not end:
            if not self.outbox.work:
                self.rate.idle(recovery.in_flight)
            end = acks.write(room, 0, size, now) if acks.due else 0
            return self.seal(room, end) if end else 0
        if acks.waiting:
            end = acks.write(room, end, min(end + ACK_BESIDE, size), now)
            self.more = self.more or acks.due  # there was no room
        unasked = self._unasked = self._unasked + end
        asks = unasked >= ASK_CELLS * size or 2 * unasked >= window
        if asks and end + ASK <= size and self._asks(0):
            self._unasked = 0
            room[end], room[end + 1] = PING, 0
            end += ASK
        if recovery.next == self._skip:
            recovery.skip()
            self._skip = next(self._skips)
        first = not sent
        recovery.record(now, end + TAG_SIZE, [packets.contents])
        if first:
            self.session.timer(recovery.deadline())
        if not self.more:
            self.rate.idle(recovery.in_flight)
        return self.seal(room, end)

    def _allowed(self, limit: int, whole: int) -> int:
        """Bytes of plaintext that may be sent now, at most `limit`; 0 if the window is used up. What cannot
        be cut takes `whole` of them: it may exceed the window by half of itself, or alone by all."""
        recovery = self.recovery
        if recovery.probes:
            # As large as what it says again: new data behind it may be what the other side has no room for.
            return min(limit, max(recovery.oldest_size, SMALLEST_CELL) - TAG_SIZE)
        free = self.congestion.window - recovery.in_flight - TAG_SIZE
        if free < limit:
            # The rest of a window is used only if it is worth a cell.
            if 2 * free < (whole or limit) and recovery.sent:
                return 0
            limit = max(free, min(whole + ACK_BESIDE, limit)) if whole else free
        return limit if len(recovery.sent) < CELLS_IN_FLIGHT else 0

    def _pack(
        self, room: memoryview, size: int, whole: int, largest: int, contents: Contents, now: float
    ) -> int:
        """Fills a cell of at most `size` bytes; the position reached."""
        acks, pos = self.acks, 0
        if acks.waiting:
            pos = acks.write(room, 0, max(size - whole, ACK_BESIDE), now)
        if self.own:
            pos = self._pack_own(room, pos, size, contents)
        asks = self._asks(size)
        limit = size - ASK if asks and whole + ASK <= size else size
        pos = self.outbox.pack(room, pos, limit, contents, now, largest)
        if contents:
            self._unasked += pos
            if asks and pos + ASK <= size:
                self._unasked = 0
                room[pos], room[pos + 1] = PING, 0
                pos += ASK
        elif self.recovery.probes and pos + ASK <= size:
            pos = self._ping(room, pos, contents)
        return pos

    def _asks(self, size: int) -> bool:
        """Whether this cell of `size` bytes asks to be acknowledged: some do in every round trip, more while
        the window doubles, and every eighth one where the window holds few."""
        congestion = self.congestion
        window, sent = congestion.window, self._unasked + size
        if sent * (ASKS_AT_FIRST if congestion.slow_start else ASKS) < window:
            return False
        return sent >= ASK_CELLS * size or 2 * sent >= window

    def _pack_own(self, room: memoryview, pos: int, limit: int, contents: Contents) -> int:
        """What is about this circuit; the position reached."""
        own = self.own
        while own and pos + len(own[0][2]) <= limit:
            what = own.popleft()
            end = pos + len(what[2])
            room[pos:end] = what[2]
            pos = end
            contents.append(what)
            if what[0] in (PONG, REPORT):
                self._pongs -= 1
        return pos

    def _ping(self, room: memoryview, pos: int, contents: Contents) -> int:
        room[pos] = PING
        contents.append((PING, self, b""))
        return write_varint(0, room, pos + 1)

    def seal(self, room: memoryview, size: int) -> int:
        """Seals `size` bytes of plaintext at the start of `room` over themselves; the size of the body."""
        number = self.recovery.next
        whole = size + TAG_SIZE
        self._seal(_NONCE(number), room[:size], self._send_ad, room[:whole])
        self.number = number
        self.recovery.next = number + 1
        self.cells_sent += 1
        self.bytes_sent += whole
        return whole

    # what is about the circuit itself

    def say_auth(self, auth: bytes) -> None:
        """AUTH goes before everything else, then what the path carries."""
        limit = item(CELL_LIMIT, self.max_cell)
        self.own.extendleft(((CELL_LIMIT, self, limit), (AUTH, self, auth)))

    def say_again(self, what: tuple[int, Path, bytes]) -> None:
        """It got lost; nobody waits for it if the circuit is given up."""
        if self in self.session.paths:
            self.own.appendleft(what) if what[0] == AUTH else self.own.append(what)

    def ping(self, token: int) -> None:
        """PING, to be answered over this circuit."""
        self.own.append((PING, self, item(PING, token)))

    def pong(self, token: int) -> None:
        """PONG, unless too many wait already."""
        if self._pongs < PONGS_WAITING:
            self._pongs += 1
            self.own.append((PONG, self, item(PONG, token)))

    def probe(self, now: float) -> None:
        """PROBE, to be answered over this circuit by what the other end has counted."""
        if self.probing is None:
            self.probing = Probing()
        token = self.probing.ask(self.cells_sent + 1, now)
        self.own.append((PROBE, self, item(PROBE, token)))
        self.wake(self)

    def report(self, token: int, now: float) -> None:
        """REPORT, unless too many answers wait already."""
        if self.probing is None:
            self.probing = Probing()
        if self._pongs < PONGS_WAITING:
            self._pongs += 1
            counts = self.cells_received, self.cells_sent + 1
            self.own.append((REPORT, self, item(REPORT, token, self.probing.time(now), *counts)))

    def reported(self, token: int, time: int, received: int, sent: int, now: float) -> None:
        """The answer to a probe."""
        if self.probing is not None:
            self.probing.told(token, time, received, sent, self.cells_received, now)

    def say_spare(self) -> None:
        """SPARE, behind AUTH: this circuit is kept in reserve."""
        self.spare = True
        self.own.append((SPARE, self, item(SPARE)))

    def say_use(self) -> None:
        """USE: it is in reserve no longer."""
        self.spare = False
        self.own.append((USE, self, item(USE)))

    def auth_arrived(self) -> None:
        """Our AUTH was acknowledged."""
        self.session.auth_arrived(self)

    def move(self, session: Session) -> None:
        """The circuit belongs to another session from now on; nothing was sent on it yet."""
        self.session = session
        self.recovery.report_to(session.outbox.arrived, session.outbox.lost)

    def quit(self) -> None:
        """The circuit is gone: what was in flight goes back to the session."""
        self.outbox = SILENT
        self.own.clear()
        self.recovery.abandon()

    # time

    def wants(self) -> bool:
        """Whether `fill` would have something to send."""
        recovery = self.recovery
        if self.acks.due or recovery.probes:
            return True
        if not (self.outbox.work or self.own):
            return False
        whole = self.outbox.whole()
        if not (self.outbox.work or self.own):  # packets that turned out to be none
            return False
        return self._allowed(self._sized(whole) - TAG_SIZE, whole) > 0

    def deadline(self) -> float | None:
        """When `tick` has something to do, or None."""
        acks, recovery = self.acks.deadline, self.recovery.deadline()
        if acks is None or (recovery is not None and recovery < acks):
            return recovery
        return acks

    def tick(self, now: float) -> None:
        """Time has passed."""
        self.acks.tick(now)
        self.recovery.tick(now)
