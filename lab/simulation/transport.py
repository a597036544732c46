"""A transport over the simulated network: ordered streams with delay, rate, back-pressure and cuts.

Addresses are `sim:PLACE` or `sim:PLACE:PORT`. A carrier takes at most `WINDOW` bytes that its peer has not
read, and of those that the rate of the line holds back no more than `limit_unsent` said: beyond that, `write`
is short and `drained()` follows. Bytes never change, get lost or overtake each
other; a lost segment comes late. A partition holds bytes back; `sever` ends connections at both ends.
"""

from __future__ import annotations

from collections import deque

from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger

from lab.simulation.network import Network
from meshnet.errors import ConfigError, LinkLostError, LocalError, MeshError, TimedOutError, UnreachableError
from meshnet.transports.interface import Attach, ByteSink, Listener

WINDOW = 256 << 10
SEGMENT = 16 << 10
SMALLEST_SEGMENT = 1_500  # where a line is slow: about what it carries in SEGMENT_SECONDS
SEGMENT_SECONDS = 0.002
RESEND_AFTER = 0.2
CONNECT_SECONDS = 10.0

_log = Logger()


class Internet:
    """Who listens where, and which connections stand; shared by the transports of one network."""

    def __init__(self, network: Network) -> None:
        self.network = network
        self.listeners: dict[str, SimulatedListener] = {}
        self.connections: list[Connection] = []

    def transport(self, place: str) -> SimulatedTransport:
        """The transport of the node at this place."""
        return SimulatedTransport(self, place)

    def sever(self, one: str, other: str) -> int:
        """Resets all connections between two places; how many there were."""
        found = [line for line in self.connections if {one, other} == line.places]
        for line in found:
            line.reset("the connection was cut")
        return len(found)

    def remove(self, place: str) -> None:
        """A node is gone: its listeners, and its connections, which the other ends see reset."""
        for rest in [rest for rest in self.listeners if place_of(rest) == place]:
            del self.listeners[rest]
        for line in [line for line in self.connections if place in line.places]:
            line.reset("the peer is gone")


def place_of(rest: str) -> str:
    """The place in an address: all before the first colon."""
    return rest.split(":")[0]


class SimulatedListener:
    """A listening address of the simulated network."""

    def __init__(self, internet: Internet, rest: str, attach: Attach) -> None:
        self.address = f"sim:{rest}"
        self.attach = attach
        self._internet = internet
        self._rest = rest

    def stop(self) -> None:
        """Accepts no more; connections stay."""
        self._internet.listeners.pop(self._rest, None)


class SimulatedTransport:
    """What a node at one place uses to reach the others (meshnet/transports/interface.py, Transport)."""

    name = "sim"

    def __init__(self, internet: Internet, place: str) -> None:
        self._internet = internet
        self._place = place

    def check(self, rest: str) -> None:
        """Raises ConfigError unless `rest` is PLACE or PLACE:PORT."""
        if not place_of(rest):
            raise ConfigError(f"sim:{rest} is no simulated address; write sim:PLACE or sim:PLACE:PORT")

    def listen(self, rest: str, attach: Attach) -> Deferred[Listener]:
        """Takes an address; fails with LocalError if it is taken."""
        if rest in self._internet.listeners:
            return fail(LocalError(f"sim:{rest} is in use"))
        listener = SimulatedListener(self._internet, rest, attach)
        self._internet.listeners[rest] = listener
        return succeed(listener)

    def dial(self, rest: str, attach: Attach) -> Deferred[None]:
        """Connects in one round trip; UnreachableError if nobody listens, TimedOutError if cut off."""
        network, target = self._internet.network, place_of(rest)
        done: Deferred[None] = Deferred()

        def accept() -> None:
            if done.called:  # cancelled
                return
            listener = self._internet.listeners.get(rest)
            if not network.connected(self._place, target):
                give_up = TimedOutError(f"sim:{rest} did not answer in {CONNECT_SECONDS:g} s")
                network.clock.callLater(CONNECT_SECONDS, done.errback, give_up)
            elif listener is None:
                network.clock.callLater(
                    delay, done.errback, UnreachableError(f"nobody listens on sim:{rest}")
                )
            else:
                line = Connection(self._internet, self._place, target)
                try:
                    line.far.begin(listener.attach)
                except Exception:
                    _log.failure("a connection to sim:{rest} could not be taken", rest=rest)
                    line.far.close()
                network.clock.callLater(delay, connected, line)

        def connected(line: Connection) -> None:
            if done.called:
                line.near.close()
                return
            if not line.standing:
                done.errback(UnreachableError(f"sim:{rest} closed the connection"))
                return
            try:
                line.near.begin(attach)
            except Exception:
                line.near.close()
                done.errback()
            else:
                done.callback(None)

        delay = network.conditions(self._place, target).delay
        network.clock.callLater(delay, accept)
        return done


class Connection:
    """Two ends and the bytes between them."""

    def __init__(self, internet: Internet, dialler: str, listener: str) -> None:
        self._internet = internet
        self.places = {dialler, listener}
        self.standing = True
        number = len(internet.connections)
        self.near = SimulatedCarrier(self, internet.network, dialler, listener, number)
        self.far = SimulatedCarrier(self, internet.network, listener, dialler, number)
        self.near.peer, self.far.peer = self.far, self.near
        internet.connections.append(self)

    def reset(self, why: str) -> None:
        """Ends both ends at once; bytes in flight are gone."""
        self.forget()
        for end in (self.near, self.far):
            end.end(LinkLostError(why))

    def forget(self) -> None:
        """It no longer stands."""
        if self.standing:
            self.standing = False
            self._internet.connections.remove(self)


class SimulatedCarrier:
    """One end of a connection (meshnet/transports/interface.py, ByteCarrier)."""

    peer: SimulatedCarrier

    def __init__(self, line: Connection, network: Network, own: str, other: str, number: int) -> None:
        self.remote = f"sim:{other}"
        self._line = line
        self._network = network
        self._own = own
        self._other = other
        self._random = network.random(f"stream {own} {other} {number}")
        self._sink: ByteSink | None = None
        self._unread = 0  # bytes we wrote that the peer has not read
        self._short = False
        self._unsent = WINDOW  # bytes that may wait for the line
        self._draining = False
        self._busy_until = 0.0
        self._last_arrival = 0.0
        self._arrived: deque[bytes | None] = deque()  # None: the peer closed
        self._paused = False
        self._delivering = False
        self._ended = False
        self._why: MeshError | None = None

    def begin(self, attach: Attach) -> None:
        """Gives this end its sink; what has arrived meanwhile follows in a later turn."""
        self._sink = attach(self)
        if self._why is not None:  # it was closed meanwhile
            self._network.clock.callLater(0, self._sink.lost, self._why)
        self._network.clock.callLater(0, self._deliver)

    # ByteCarrier

    def write(self, data: memoryview) -> int:
        """Takes what fits into the window; `drained()` follows a short write."""
        if self._ended:
            return 0
        rate = self._network.conditions(self._own, self._other).rate
        free, segment = WINDOW - self._unread, SEGMENT
        if rate is not None:
            segment = min(max(int(rate * SEGMENT_SECONDS), SMALLEST_SEGMENT), SEGMENT)
            waits = max(self._busy_until - self._network.clock.seconds(), 0.0)
            room = max(self._unsent - int(waits * rate), 0)
            if room < min(free, len(data)):  # not the window, but the line
                free = room
                self._drain_soon(waits + (room - self._unsent / 2) / rate)
        size = min(len(data), free)
        self._short = size < len(data)
        for start in range(0, size, segment):
            self._depart(bytes(data[start : min(start + segment, size)]))
        return size

    def limit_unsent(self, size: int) -> None:
        """So many bytes may wait for the line."""
        self._unsent = size

    def _drain_soon(self, delay: float) -> None:
        if not self._draining:
            self._draining = True
            self._network.clock.callLater(max(delay, 0.001), self._sent)

    def _sent(self) -> None:
        """Half of what may wait for the line has left."""
        self._draining = False
        if WINDOW - self._unread >= SEGMENT:
            self._drain()

    def _drain(self) -> None:
        if self._short and not self._ended and self._sink is not None:
            self._short = False
            self._sink.drained()

    def pause(self) -> None:
        """Delivers nothing until `resume()`."""
        self._paused = True

    def resume(self) -> None:
        """Delivers again, in a later turn."""
        self._paused = False
        self._network.clock.callLater(0, self._deliver)

    def close(self) -> None:
        """Ends this end now; the peer reads what was sent, then it ends too."""
        if not self._ended:
            self._depart(None)
            self._line.forget()
            self.end(LinkLostError("the connection was closed here"))

    # below the interface

    def end(self, why: MeshError) -> None:
        """Delivers nothing more; `lost(why)` follows in a later turn."""
        if self._ended:
            return
        self._ended = True
        self._why = why
        self._arrived.clear()
        sink = self._sink
        if sink is not None:
            self._network.clock.callLater(0, sink.lost, why)

    def _depart(self, data: bytes | None) -> None:
        clock = self._network.clock
        conditions = self._network.conditions(self._own, self._other)
        size = len(data) if data is not None else 0
        self._unread += size
        self._busy_until = max(clock.seconds(), self._busy_until)
        if conditions.rate is not None:
            self._busy_until += size / conditions.rate
        arrival = self._busy_until + conditions.delay + self._random.uniform(0, conditions.jitter)
        while self._random.random() < conditions.loss:
            arrival += RESEND_AFTER + 2 * conditions.delay
        self._last_arrival = max(arrival, self._last_arrival)
        clock.callLater(self._last_arrival - clock.seconds(), self.peer.arrive, data)

    def arrive(self, data: bytes | None) -> None:
        """A segment (None: the peer closed) reaches this end."""
        if not self._network.connected(self._other, self._own):
            self._network.when_healed(lambda: self.arrive(data))
            return
        if not self._ended:
            self._arrived.append(data)
            self._deliver()

    def _deliver(self) -> None:
        if self._delivering or self._sink is None:
            return
        self._delivering = True
        try:
            while self._arrived and not self._paused and not self._ended:
                data = self._arrived.popleft()
                if data is None:
                    self._line.forget()
                    self.end(LinkLostError("the peer closed the connection"))
                else:
                    self._pass_on(data)
        finally:
            self._delivering = False

    def _pass_on(self, data: bytes) -> None:
        assert self._sink is not None
        buffer = self._sink.buffer()
        size = min(len(buffer), len(data))
        if size < len(data):
            self._arrived.appendleft(data[size:])
        buffer[:size] = data[:size]
        self._sink.filled(size)
        delay = self._network.conditions(self._own, self._other).delay
        self._network.clock.callLater(delay, self.peer.read_by_peer, size)

    def read_by_peer(self, size: int) -> None:
        """The peer has read `size` bytes: the window opens, by a segment at least, else by ever less."""
        self._unread -= size
        if not self._draining and WINDOW - self._unread >= SEGMENT:
            self._drain()
