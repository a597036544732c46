"""Links over circuits: a node too far for one circuit is reached over a waypoint, a neighbour at a distance.

    this node ══ circuit of up to 8 hops ══ waypoint ── circuit of up to 7 more hops ── target
              └──── a link, over a stream ────┘

The waypoint's mesh port 3 takes streams as connections of links, from anybody whom `[link] accept` lets in.
The handshake on them is that of any link, so the waypoint knows this node as it knows every neighbour, and
whose circuits come over it as little as any first relay does. Bytes are copied once each way, in a later
turn: a link's writing never runs inside a session's reading.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final

from attrs import define, field
from twisted.internet.defer import Deferred

from meshnet.cipher.keys import PublicKey, parse_public_key
from meshnet.errors import ConfigError, LinkLostError, LocalError, MeshError, TimedOutError, UnreachableError
from meshnet.limits import THROUGH_IDLE, THROUGH_LINKS, THROUGH_PIPE, THROUGH_SECONDS
from meshnet.streams import PortListener, Stream, StreamReader
from meshnet.topology.record import Name, name_of
from meshnet.transports.interface import Attach, ByteSink, Listener

if TYPE_CHECKING:
    from meshnet.node.router import Router

PORT: Final = 3
"""The mesh port on which nodes take links over streams."""

Reached = Callable[[MeshError | None, float], None]
"""Told once whether the link to a waypoint stands."""


class _Carrier:
    """A stream as a link's connection: a `ByteCarrier` and the stream's reader."""

    remote = ""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._stream: Stream | None = None
        self._sink: ByteSink | None = None
        self._received = bytearray()
        self._written = bytearray()
        self._paused = False
        self._short = False
        self._planned = False
        self._over: MeshError | None = None

    def join(self, stream: Stream, attach: Attach) -> None:
        """Makes a connection of a stream that stands."""
        self._stream = stream
        self._sink = attach(self)

    # ByteCarrier

    def write(self, data: memoryview) -> int:
        """Bytes taken, as far as the pipe goes."""
        if self._over is not None:
            return len(data)
        taken = min(len(data), THROUGH_PIPE - len(self._written))
        self._written += data[:taken]
        self._short = taken < len(data)
        self._plan()
        return taken

    def pause(self) -> None:
        """Receives no more until `resume`."""
        self._paused = True

    def resume(self) -> None:
        """Receives again."""
        self._paused = False
        self._plan()

    def close(self) -> None:
        """Ends the connection; `lost` follows."""
        self._end(LinkLostError("closed by this side"))

    # StreamReader

    def data_received(self, data: memoryview) -> None:
        """Keeps it for a later turn; the stream's window bounds how much."""
        self._received += data
        self._plan()

    def finished(self) -> None:
        """The other side has closed the connection."""
        self._end(LinkLostError("the other side closed the connection"))

    def lost(self, why: MeshError) -> None:
        """The stream is gone."""
        self._stream = None
        self._end(LinkLostError(str(why)))

    def drained(self) -> None:
        """The stream takes bytes again."""
        self._plan()

    # turns

    def _plan(self) -> None:
        if not self._planned:
            self._planned = True
            self._router.soon(self._work)

    def _end(self, why: MeshError) -> None:
        if self._over is None:
            self._over = why
            self._plan()

    def _work(self, now: float) -> None:
        self._planned = False
        stream, sink = self._stream, self._sink
        if self._over is not None:
            self._sink = None
            if stream is not None:
                self._stream = None
                stream.reset()
            if sink is not None:
                sink.lost(self._over)
            return
        if stream is None or sink is None:
            return
        if self._written:
            taken = stream.write(bytes(self._written))
            del self._written[:taken]
        if self._received and not self._paused:
            self._deliver(stream, sink)
        if self._short and not self._written and self._over is None:
            self._short = False
            sink.drained()

    def _deliver(self, stream: Stream, sink: ByteSink) -> None:
        passed = 0
        while passed < len(self._received) and not self._paused and self._over is None:
            room = sink.buffer()
            size = min(len(room), len(self._received) - passed)
            room[:size] = self._received[passed : passed + size]
            passed += size
            sink.filled(size)
        del self._received[:passed]
        if self._stream is not None:
            stream.consumed(passed)
        if self._received and not self._paused:
            self._plan()


class ThroughTransport:
    """The transport `mesh:<key>`: connections that are streams to the mesh port of a node."""

    name = "mesh"

    def __init__(self, through: Through) -> None:
        self._through = through

    def check(self, rest: str) -> None:
        """Raises ConfigError unless it is a key."""
        try:
            parse_public_key(rest)
        except MeshError as error:
            raise ConfigError(f"No address: mesh:{rest[:80]}; {error}.") from None

    def dial(self, rest: str, attach: Attach) -> Deferred[None]:
        """A stream to that node's port for links, and a connection of it."""
        return self._through.dial(parse_public_key(rest), attach)

    def listen(self, rest: str, attach: Attach) -> Deferred[Listener]:
        """Fails: the port is taken by itself."""
        raise LocalError("Links over the mesh are taken by every relay; nothing listens at an address.")


@define(eq=False)
class _Waypoint:
    """A neighbour over a circuit: the relays on the way, who waits for it, since when nobody used it."""

    via: tuple[PublicKey, ...]
    waiters: list[Reached] = field(factory=list)
    idle_since: float = 0.0
    cancel: Callable[[], None] = lambda: None


class Through:
    """The waypoints of one node, and its port for those whose waypoint it is."""

    def __init__(self, router: Router) -> None:
        self._router = router
        self._waypoints: dict[PublicKey, _Waypoint] = {}
        self._accepted = 0
        self.transport = ThroughTransport(self)

    def __len__(self) -> int:
        return len(self._waypoints)

    def start(self) -> PortListener:
        """Takes the port; raises LocalError if it is taken."""
        return self._router.listen(PORT, self._accept)

    def _accept(self, stream: Stream) -> StreamReader | None:
        """A link over a stream; refused where there are too many."""
        if self._accepted >= THROUGH_LINKS:
            return None
        carrier = _Taken(self._router, self._left)
        self._accepted += 1
        attach = self._router.links.accepter("mesh:")
        self._router.soon(lambda now: carrier.join(stream, attach))
        return carrier

    def _left(self) -> None:
        self._accepted -= 1

    # waypoints of ours

    def reach(self, waypoint: PublicKey, via: tuple[PublicKey, ...], told: Reached, now: float) -> None:
        """Makes a link to a node over the relays `via`, or waits for the one on its way."""
        if self._router.links.standing(waypoint) is not None:
            told(None, now)
            return
        known = self._waypoints.get(waypoint)
        if known is None:
            if len(self._waypoints) >= THROUGH_LINKS:
                told(UnreachableError(f"{THROUGH_LINKS} links over circuits stand already"), now)
                return
            known = self._waypoints[waypoint] = _Waypoint(via, idle_since=now)
            known.cancel = self._router.later(THROUGH_SECONDS, lambda now: self._late(waypoint, now))
            self._router.add_peer(waypoint, f"mesh:{waypoint.hex()}")
        known.waiters.append(told)

    def up(self, peer: PublicKey, now: float) -> None:
        """A link stands."""
        known = self._waypoints.get(peer)
        if known is not None:
            known.cancel()
            waiters, known.waiters = known.waiters, []
            for told in waiters:
                told(None, now)

    def _late(self, waypoint: PublicKey, now: float) -> None:
        known = self._waypoints.pop(waypoint, None)
        if known is not None:
            self._router.remove_peer(waypoint)
            for told in known.waiters:
                told(TimedOutError("the waypoint did not take a link in time"), now)

    def tick(self, now: float) -> None:
        """A link over a circuit that carried no circuit for long is given up."""
        for key, known in list(self._waypoints.items()):
            link = self._router.links.standing(key)
            if known.waiters or (link is not None and (link.forward or link.backward)):
                known.idle_since = now
            elif now >= known.idle_since + THROUGH_IDLE:
                del self._waypoints[key]
                self._router.remove_peer(key)

    def names(self) -> set[Name]:
        """The waypoints now."""
        return {name_of(key) for key in self._waypoints}

    def dial(self, key: PublicKey, attach: Attach) -> Deferred[None]:
        """A connection over a stream to a waypoint; fails as calls do."""
        known = self._waypoints.get(key)
        carrier = _Carrier(self._router)
        via = known.via if known is not None else ()
        d = self._router.connect(key, PORT, carrier, via=via, identity="anonymous")
        return d.addCallback(lambda stream: carrier.join(stream, attach))


class _Taken(_Carrier):
    """A connection that somebody else made."""

    def __init__(self, router: Router, left: Callable[[], None]) -> None:
        super().__init__(router)
        self._left: Callable[[], None] | None = left

    def _end(self, why: MeshError) -> None:
        left, self._left = self._left, None
        if left is not None:
            left()
        super()._end(why)
