"""Links under a reactor: listens, dials, joins carriers with lanes, and decides which lane serves a link.

    carrier ⇄ Connection ⇄ lane ─ tables, control ─→ link
                                 ←─── outlet ───────┘

Of two connections between the same pair the one dialled by the smaller key stays; a newer one from the same
dialler replaces the older (docs/wire-format.md §1). Before the smaller key's older connection beats a newer
one it is pinged, since it may be dead without our knowing. The loser is still read for a while, never
written. After an hour the dialler makes a fresh connection, for fresh keys. One turn of the reactor reads the
clock once. What goes wrong on a connection, be it a fault of ours, ends that connection and no other.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from attrs import define, field, frozen
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet.cipher.aead import Backend
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import LinkLostError, LocalError, MeshError, RefusedError
from meshnet.limits import HALF_OPEN_LINKS, LINK_SURVIVES, LINKS
from meshnet.link.dialler import DiallerCore, DiallerInputs, make_dialler
from meshnet.link.frame import Hello
from meshnet.link.lane import Lane
from meshnet.link.link import FrameReceiver, Link
from meshnet.link.outlet import Outbox
from meshnet.transports.interface import ByteCarrier, ByteSink, Listener
from meshnet.transports.registry import Transports

TICK: Final = 1.0
LOSER_READ: Final = 5.0
CHALLENGE_LEAST: Final = 1.0
CHALLENGE_RTTS: Final = 4
RENEW: Final = 3_600.0  # a connection this old is replaced by its dialler
QUIET: Final = 10.0  # seconds between lines of the log about strangers' handshakes
RENEW_AGAIN: Final = 60.0  # after a try that failed

_log = Logger()


class Clock(Protocol):
    """Time and later calls (`meshnet.node.clock`)."""

    @property
    def now(self) -> Callable[[], float]:
        """Monotonic seconds."""

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls after `delay` seconds; returns what cancels it."""


class LinkOwner(Protocol):
    """Who uses the links: the router."""

    def link_up(self, link: Link, now: float) -> None:
        """A connection serves this link, for the first time or again."""

    def link_gone(self, link: Link, now: float) -> None:
        """It has had no connection for `LINK_SURVIVES` seconds: its labels mean nothing any more."""

    def link_restarted(self, link: Link, now: float) -> None:
        """The neighbour has come back after a restart: its labels mean nothing any more, the link goes on."""


@frozen
class Identity:
    """Who this node is on its links, and whom it accepts (None: anyone)."""

    secret: SecretKey
    network_id: int
    backend: Backend
    accept: frozenset[PublicKey] | None = None


@define(eq=False)
class Peer:
    """A configured neighbour to dial."""

    key: PublicKey
    address: str
    dialler: DiallerInputs = field(init=False)
    core: DiallerCore = field(init=False)
    renew_at: float = 0.0
    """Not before this, and not before the connection is old."""


@define(eq=False)
class Challenge:
    """A newer connection that waits whether the link's present one, pinged, still answers."""

    connection: Connection
    hello: Hello
    token: int
    cancel: Callable[[], None]


class Connection:
    """A carrier and its lane; the transport's sink."""

    __slots__ = (
        "_links",
        "_now",
        "_outbox",
        "address",
        "born",
        "buffer",
        "carrier",
        "closing",
        "lane",
        "link",
        "why",
    )

    def __init__(self, links: Links, carrier: ByteCarrier, lane: Lane, address: str) -> None:
        self._links = links
        self.carrier = carrier
        self.lane = lane
        self.address = address
        self.buffer = lane.buffer
        self._now = links.now
        self._outbox = links.outbox
        self.born = links.now()
        self.link: Link | None = None
        self.closing = False
        self.why: MeshError | None = None

    def filled(self, size: int) -> None:
        """Bytes have come: open them, act on them, then send what that made."""
        outbox, now = self._outbox, self._now()
        outbox.reading = True
        try:
            if self.lane.filled(size, now):
                self.send_acts()
        except MeshError as problem:
            self.close(problem)
        except Exception:
            self._failed()
        try:
            outbox.flush(now)
        except Exception:
            _unsent()

    def drained(self) -> None:
        """The carrier takes bytes again."""
        link = self.link
        if link is not None and link.lane is self.lane:
            outbox, now = self._outbox, self._now()
            outbox.reading = True
            try:
                link.outlet.drained(now)
            except Exception:
                self._failed()
            try:
                outbox.flush(now)
            except Exception:
                _unsent()

    def lost(self, why: MeshError) -> None:
        """The connection has ended."""
        self._links.ended(self, self.lane.ended(self.why or why))

    def close(self, why: MeshError) -> None:
        """Ends the connection for this reason."""
        if not self.closing:
            self.closing = True
            self.why = why
            self.carrier.close()

    def _failed(self) -> None:
        """A fault of our own: it costs this connection and a report, not the node."""
        _log.failure("a connection over {address} failed", address=self.address)
        self.close(LinkLostError("an internal error, see the log"))

    def send_acts(self) -> None:
        """Gives the handshake's bytes to the carrier, which is empty and takes so few at once."""
        acts = self.lane.outgoing
        if self.carrier.write(memoryview(bytes(acts))) < len(acts):
            raise LinkLostError("the connection does not take even a handshake")
        acts.clear()


def _unsent() -> None:
    """A fault while sending what a turn made: whose it was is not known, the connection did nothing wrong."""
    _log.failure("sending failed")


class Links:
    """All links of a node."""

    def __init__(
        self,
        identity: Identity,
        transports: Transports,
        clock: Clock,
        random: Callable[[int], bytes],
        owner: LinkOwner,
        receivers: Mapping[int, FrameReceiver],
    ) -> None:
        self.identity = identity
        self.now: Callable[[], float] = clock.now
        self.outbox = Outbox(lambda call: clock.call_later(0, call), clock.now)
        self.by_key: dict[PublicKey, Link] = {}
        self.peers: dict[PublicKey, Peer] = {}
        self.handshakes_failed = 0
        self._quiet_until = 0.0
        self._unsaid = 0
        self.refused = 0
        self._transports = transports
        self._clock = clock
        self._random = random
        self._owner = owner
        self._receivers = receivers
        self._instance = int.from_bytes(random(8), "big")
        self._connections: dict[Lane, Connection] = {}
        self._half_open: dict[Connection, None] = {}
        self._challenges: dict[PublicKey, Challenge] = {}
        self._attempts: set[Deferred[None]] = set()
        self._timers: dict[object, Callable[[], None]] = {}
        self._listeners: list[Listener] = []
        self._cancel_tick: Callable[[], None] | None = None
        self._running = False

    async def start(self, addresses: list[str]) -> list[str]:
        """Binds all addresses; returns them as bound. Raises LocalError or ConfigError."""
        self._running = True
        self._cancel_tick = self._clock.call_later(TICK, self._tick)
        for address in addresses:
            transport, rest = self._transports.find(address)
            listener = await transport.listen(rest, self._attacher(None, address))
            if not self._running:
                listener.stop()
                raise LocalError("the node was stopped while it started")
            self._listeners.append(listener)
        return [listener.address for listener in self._listeners]

    def stop(self) -> None:
        """Stops listening and dialling, and closes every connection. Nothing of it is left a turn later."""
        self._running = False
        if self._cancel_tick is not None:
            self._cancel_tick()
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        for peer in self.peers.values():
            peer.dialler.stop()
        for attempt in list(self._attempts):
            attempt.cancel()
        for cancel in list(self._timers.values()):
            cancel()
        self._timers.clear()
        self._challenges.clear()
        for connection in list(self._connections.values()):
            connection.close(LinkLostError("this node is stopping"))

    def add_peer(self, key: PublicKey, address: str) -> None:
        """Keeps a connection to `key` at `address` from now on. Raises ConfigError, LocalError."""
        self._transports.find(address)
        if key == self.identity.secret.public:
            raise LocalError("a node cannot be its own neighbour")
        peer = Peer(key, address)
        peer.core = DiallerCore(lambda: self._dial(peer), self._clock.call_later, self._jitter)
        peer.dialler = make_dialler(peer.core)
        self.peers[key] = peer
        peer.dialler.start()

    def standing(self, key: PublicKey) -> Link | None:
        """The link to `key` if a connection serves it."""
        link = self.by_key.get(key)
        return link if link is not None and link.up else None

    @property
    def half_open(self) -> int:
        """Connections that have not finished their handshake."""
        return len(self._half_open)

    # What lanes tell (LaneOwner)

    def identified(self, lane: Lane, peer: PublicKey) -> None:
        """Raises RefusedError if `peer` may not link with this node."""
        accept = self.identity.accept
        if accept is not None and peer not in accept:
            self.refused += 1
            raise RefusedError(f"{peer.hex()} is not in [link] accept")
        if peer == self.identity.secret.public:
            raise RefusedError("this node dialled itself")
        self._check_room(peer)

    def up(self, lane: Lane, hello: Hello, now: float) -> None:
        """A lane stands: it serves its link, or loses against the one that does. Raises RefusedError."""
        connection = self._connections[lane]
        self._half_open.pop(connection, None)
        key = lane.remote
        assert key is not None  # known to both sides after the handshake
        link = self.by_key.get(key)
        if link is None:
            if not lane.dialled:
                self._check_room(key)  # others may have come since act three
            link = self.by_key[key] = Link(key, self.outbox, self._receivers)
        connection.link = link
        peer = self.peers.get(key)
        if peer is not None:
            peer.dialler.standing()
        old = link.lane
        same_dialler = old is not None and old.dialled == lane.dialled
        if old is None or link.is_another(hello) or same_dialler or self._smaller_dialled(lane):
            if (challenge := self._end_challenge(key)) is not None:
                self._retire(challenge.connection)
            self._take_over(connection, link, hello, now)
        else:
            self._challenge(connection, link, hello, now)

    def ended(self, connection: Connection, why: MeshError) -> None:
        """A connection is gone."""
        lane = connection.lane
        self._connections.pop(lane, None)
        if self._half_open.pop(connection, 0) is None:
            self._handshake_failed(connection, why)
        key, link = lane.remote, connection.link
        if key is None:
            return
        challenge = self._challenges.get(key)
        if challenge is not None and challenge.connection is connection:
            self._end_challenge(key)
        served = link is not None and link.lane is lane
        if link is not None and served:
            link.stop(self.now())
            _log.info("link to {peer} lost: {why}", peer=key.hex(), why=str(why))
            if (challenge := self._end_challenge(key)) is not None:
                self._take_over(challenge.connection, link, challenge.hello, self.now())
        peer = self.peers.get(key) if self._running else None
        if peer is not None and (lane.dialled or served) and self.standing(key) is None:
            peer.dialler.failed(why)

    # Inside

    def _attacher(self, remote: PublicKey | None, address: str) -> Callable[[ByteCarrier], ByteSink]:
        def attach(carrier: ByteCarrier) -> Connection:
            identity = self.identity
            ephemeral = SecretKey.draw(self._random)
            lane = Lane(
                identity.secret,
                identity.network_id,
                ephemeral,
                identity.backend,
                self,
                self.now(),
                self._instance,
            )
            shown = address if remote is not None else carrier.remote or address
            connection = Connection(self, carrier, lane, shown)
            self._connections[lane] = connection
            if not self._running:  # it was accepted, or stood, in the turn that stopped us
                connection.close(LinkLostError("this node is stopping"))
                return connection
            self._half_open[connection] = None
            if remote is None:
                lane.accept()
                self._bound_half_open()
            else:
                lane.dial(remote)
                self._later(0, lambda: self._begin(connection))
            return connection

        return attach

    def _begin(self, connection: Connection) -> None:
        """Sends act one, once the transport has finished making the connection."""
        if not connection.closing:
            try:
                connection.send_acts()
            except MeshError as problem:
                connection.close(problem)

    def _bound_half_open(self) -> None:
        """Under a flood of half-open handshakes the oldest goes: an honest one takes milliseconds. Those we
        dialled ourselves are as many as the config names, and stay."""
        while len(self._half_open) > HALF_OPEN_LINKS:
            oldest = next((one for one in self._half_open if not one.lane.dialled), None)
            if oldest is None:
                return
            del self._half_open[oldest]
            why = LinkLostError("too many half-open handshakes")
            self._handshake_failed(oldest, why)
            oldest.close(why)

    def _handshake_failed(self, connection: Connection, why: MeshError) -> None:
        """Counts it, and says it; of strangers only now and then, or they could fill the disk with it."""
        self.handshakes_failed += 1
        now = self.now()
        if not connection.lane.dialled:
            if now < self._quiet_until:
                self._unsaid += 1
                return
            self._quiet_until = now + QUIET
        unsaid, self._unsaid = self._unsaid, 0
        more = f" ({unsaid} more since the last such line)" if unsaid else ""
        _log.info("no link over {address}: {why}{more}", address=connection.address, why=str(why), more=more)

    def _check_room(self, peer: PublicKey) -> None:
        if peer not in self.by_key and len(self.by_key) >= LINKS:
            self.refused += 1
            raise RefusedError(f"there are {LINKS} links already")

    def _dial(self, peer: Peer) -> None:
        if self.standing(peer.key) is not None:
            peer.dialler.standing()
        else:
            self._attempt(peer)

    def _attempt(self, peer: Peer) -> None:
        transport, rest = self._transports.find(peer.address)
        attempt = maybeDeferred(transport.dial, rest, self._attacher(peer.key, peer.address))
        self._attempts.add(attempt)
        attempt.addErrback(self._dial_failed, peer)
        attempt.addBoth(lambda _: self._attempts.discard(attempt))

    def _dial_failed(self, failure: Failure, peer: Peer) -> None:
        why = failure.value
        if isinstance(why, CancelledError):
            return
        if not isinstance(why, MeshError):
            _log.failure("dialling {address} failed", failure, address=peer.address)
            why = LinkLostError(f"dialling {peer.address} failed: {failure.getErrorMessage()}")
        if self.standing(peer.key) is None:
            peer.dialler.failed(why)

    def _jitter(self) -> float:
        return self._random(1)[0] / 255

    def _smaller_dialled(self, lane: Lane) -> bool:
        """Whether the smaller of both keys dialled this lane."""
        assert lane.remote is not None  # known to both sides after the handshake
        ours = self.identity.secret.public
        return lane.dialled == (ours < lane.remote)

    def _take_over(self, connection: Connection, link: Link, hello: Hello, now: float) -> None:
        old = self._connections.get(link.lane) if link.lane is not None else None
        lane = connection.lane
        if lane.outgoing:
            connection.send_acts()
        restarted = link.is_another(hello)
        if restarted:
            link.outlet.forget()
        link.serve(lane, hello, connection.carrier.write, connection.address, now)
        if old is not None:
            self._retire(old)
        if restarted:
            _log.info("{peer} has restarted", peer=link.peer.hex())
            self._owner.link_restarted(link, now)
        _log.info("link to {peer} up over {address}", peer=link.peer.hex(), address=connection.address)
        self._owner.link_up(link, now)

    def _retire(self, loser: Connection) -> None:
        why = LinkLostError("another connection serves this link")
        self._later(LOSER_READ, lambda: loser.close(why))

    def _challenge(self, connection: Connection, link: Link, hello: Hello, now: float) -> None:
        """The older connection may stay if it still answers; both are read meanwhile."""
        connection.lane.serve(link, link.control)
        challenge = self._challenges.get(link.peer)
        if challenge is not None:  # the same dialler has come again: the question stands
            self._retire(challenge.connection)
            challenge.connection, challenge.hello = connection, hello
            return
        token = link.ping(now)
        # Where no ping has been answered yet, the handshake just done tells: it took one to two round trips.
        trip = link.telemetry.rtt if link.telemetry.pongs else (now - connection.born) / 2
        patience = max(CHALLENGE_LEAST, CHALLENGE_RTTS * trip)
        cancel = self._later(patience, lambda: self._decide(link))
        self._challenges[link.peer] = Challenge(connection, hello, token, cancel)

    def _decide(self, link: Link) -> None:
        challenge = self._end_challenge(link.peer)
        if challenge is None:
            return
        if link.telemetry.waits_for(challenge.token):
            self._take_over(challenge.connection, link, challenge.hello, self.now())
        else:
            self._retire(challenge.connection)

    def _end_challenge(self, key: PublicKey) -> Challenge | None:
        """The challenge of this link, if there is one, which is over now."""
        challenge = self._challenges.pop(key, None)
        if challenge is not None:
            challenge.cancel()
        return challenge

    def _later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls after `delay` seconds unless cancelled or stopped; returns what cancels it."""
        timer = object()

        def run() -> None:
            del self._timers[timer]
            call()

        cancel_call = self._clock.call_later(delay, run)
        self._timers[timer] = cancel_call

        def cancel() -> None:
            if self._timers.pop(timer, None) is not None:
                cancel_call()

        return cancel

    def _renew(self, link: Link, now: float) -> None:
        """A connection that we dialled an hour ago gets a successor."""
        peer = self.peers.get(link.peer)
        if peer is None or link.lane is None or not link.lane.dialled:
            return
        if now >= link.up_since + RENEW and now >= peer.renew_at:
            peer.renew_at = now + RENEW_AGAIN
            self._attempt(peer)

    def _tick(self) -> None:
        """Once a second: deadlines of handshakes, telemetry, links gone for good."""
        self._cancel_tick = self._clock.call_later(TICK, self._tick)
        now = self.now()
        for connection in list(self._half_open):
            self._checked(connection, lambda connection=connection: connection.lane.tick(now))  # type: ignore[misc]
        for link in list(self.by_key.values()):
            lane = link.lane
            if lane is not None and lane in self._connections:
                self._checked(self._connections[lane], lambda link=link: link.tick(now))  # type: ignore[misc]
                self._renew(link, now)
            else:
                link.tick(now)
            if link.lost_at is not None and now - link.lost_at >= LINK_SURVIVES:
                del self.by_key[link.peer]
                self._owner.link_gone(link, now)

    def _checked(self, connection: Connection, tick: Callable[[], None]) -> None:
        try:
            tick()
        except MeshError as problem:
            connection.close(problem)
