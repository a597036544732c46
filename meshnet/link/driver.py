"""Links under a reactor: listens, joins carriers with lanes, and lets connections serve as contests decide.

    transports ─ attach ─→ Connection ─ up ─→ Link ─ seat ─→ Contest ─ Serves, Ask, Ends ─→ here
    configured neighbours: `service.py` dials them and is told here which lanes stand

Which connection serves a lane is `contest.py`'s to say (docs/wire-format.md §1). When the machine has slept
or its network has changed, all links are asked at once whether they still stand.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final, Protocol

from attrs import evolve, frozen
from twisted.logger import Logger

from meshnet.cipher.aead import Backend
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import LinkLostError, LocalError, MeshError, ProtocolError, RefusedError
from meshnet.limits import HALF_OPEN_LINKS, LANES_IN_ALL, LINK_SURVIVES, LINKS
from meshnet.link.connection import Connection
from meshnet.link.contest import Ask, Serves, patience
from meshnet.link.frame import Hello
from meshnet.link.lane import Lane
from meshnet.link.link import FrameReceiver, Link
from meshnet.link.outlet import Outbox
from meshnet.link.seat import Seat
from meshnet.link.service import Calls, Peer
from meshnet.transports.interface import Attach, ByteCarrier, Listener
from meshnet.transports.registry import Transports

TICK: Final = 1.0
SLEPT: Final = 5.0  # a tick later than this: the machine has slept, or stood still as long
QUIET: Final = 10.0  # seconds between lines of the log about strangers' handshakes

_log = Logger()


Watch = Callable[[Callable[[], None]], Callable[[], None]]
"""Given what to call when the machine's network has changed, returns what ends that."""


def _nothing() -> None:
    """What there is to end where nothing was begun."""


def no_watch(changed: Callable[[], None]) -> Callable[[], None]:
    """Where nobody notices."""
    return _nothing


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
        """A connection serves a lane of this link, for the first time or again."""

    def link_gone(self, link: Link, now: float) -> None:
        """It has had no connection for `LINK_SURVIVES` seconds: its labels mean nothing any more."""

    def link_restarted(self, link: Link, now: float) -> None:
        """The neighbour has come back after a restart: its labels mean nothing any more, the link goes on."""


@frozen
class Identity:
    """Who this node is on its links, whom it accepts (None: anyone), and how many lanes it wants."""

    secret: SecretKey
    network_id: int
    backend: Backend
    accept: frozenset[PublicKey] | None = None
    lanes: int = 1


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
        watch: Watch = no_watch,
    ) -> None:
        self.identity = identity
        self.now: Callable[[], float] = clock.now
        self.outbox = Outbox(lambda call: clock.call_later(0, call), clock.now)
        self.by_key: dict[PublicKey, Link] = {}
        self.calls = Calls(self, transports, clock.call_later, self._jitter)
        self.handshakes_failed = 0
        self._quiet_until = 0.0
        self._unsaid = 0
        self.refused = 0
        self._transports = transports
        self._clock = clock
        self._random = random
        self._owner = owner
        self._receivers = receivers
        self._watch = watch
        self._unwatch: Callable[[], None] = _nothing
        self._instance = int.from_bytes(random(8), "big")
        self._connections: dict[Lane, Connection] = {}
        self._half_open: dict[Connection, None] = {}
        self._deadlines: dict[Seat, Callable[[], None]] = {}
        self._timers: dict[object, Callable[[], None]] = {}
        self._listeners: list[Listener] = []
        self._cancel_tick: Callable[[], None] | None = None
        self._next_tick = 0.0
        self._running = False

    async def start(self, addresses: list[str]) -> list[str]:
        """Binds all addresses; returns them as bound. Raises LocalError or ConfigError."""
        self._running = True
        self._next_tick = self.now() + TICK
        self._cancel_tick = self._clock.call_later(TICK, self._tick)
        self._unwatch = self._watch(lambda: self.check("the network of this machine has changed"))
        for address in addresses:
            transport, rest = self._transports.find(address)
            listener = await transport.listen(rest, self.accepter(address))
            if not self._running:
                listener.stop()
                raise LocalError("the node was stopped while it started")
            self._listeners.append(listener)
        return [listener.address for listener in self._listeners]

    def stop(self) -> None:
        """Stops listening and dialling, and closes every connection. Nothing of it is left a turn later."""
        self._running = False
        self._unwatch()
        self._unwatch = _nothing
        if self._cancel_tick is not None:
            self._cancel_tick()
        for listener in self._listeners:
            listener.stop()
        self._listeners.clear()
        self.calls.stop()
        for cancel in list(self._timers.values()):
            cancel()
        self._timers.clear()
        self._deadlines.clear()
        for connection in list(self._connections.values()):
            connection.close(LinkLostError("this node is stopping"))

    def add_peer(self, key: PublicKey, *addresses: str) -> None:
        """Keeps connections to `key` from now on, at the first of `addresses` that answers. Raises
        ConfigError, LocalError."""
        if key == self.identity.secret.public:
            raise LocalError("a node cannot be its own neighbour")
        self.calls.add(key, addresses)

    def remove_peer(self, key: PublicKey) -> None:
        """Dials `key` no more and ends its link; if it dials us and is accepted, it may come back."""
        self.calls.remove(key)
        self._close(LinkLostError("the neighbour is no longer in the config"), lambda peer: peer == key)

    def move_peer(self, key: PublicKey, *addresses: str) -> None:
        """Dials `key` at other addresses from now on; connections that stand stay. Raises ConfigError."""
        self.calls.remove(key)
        self.calls.add(key, addresses)
        link = self.by_key.get(key)
        for number in link.standing if link is not None else ():
            self.calls.stands(key, number, link.lanes if link is not None else 1)

    def accept_only(self, accept: frozenset[PublicKey] | None) -> None:
        """Who may link from now on (None: anyone); the links of others end."""
        self.identity = evolve(self.identity, accept=accept)
        if accept is not None:
            self._close(RefusedError("no longer in [link] accept"), lambda peer: peer not in accept)

    def _close(self, why: MeshError, of: Callable[[PublicKey], bool]) -> None:
        for connection in list(self._connections.values()):
            if connection.lane.remote is not None and of(connection.lane.remote):
                connection.close(why)

    @property
    def peers(self) -> Mapping[PublicKey, Peer]:
        """The configured neighbours."""
        return self.calls.peers

    def standing(self, key: PublicKey) -> Link | None:
        """The link to `key` if a connection serves it."""
        link = self.by_key.get(key)
        return link if link is not None and link.up else None

    @property
    def turned_away(self) -> int:
        """Connections that listening sockets hung up on before their handshake."""
        return sum(int(getattr(listener, "turned_away", 0)) for listener in self._listeners)

    @property
    def half_open(self) -> int:
        """Connections that have not finished their handshake."""
        return len(self._half_open)

    def check(self, why: str) -> None:
        """The machine has slept, or its network has changed: asks every neighbour whether it is still there,
        with little patience, and dials at once whom it waits to dial."""
        now = self.now()
        _log.info("{why}: all links are checked", why=why)
        for link in self.by_key.values():
            for seat in link.seats:
                seat.check(now)
        self.calls.hurry()

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
        """HELLO came: the connection takes part in the contest for its lane. Raises RefusedError if there is
        no room, ProtocolError if there is no such lane."""
        connection = self._connections[lane]
        self._half_open.pop(connection, None)
        key = lane.remote
        assert key is not None  # known to both sides after the handshake
        link = self._link(lane, key, hello)
        connection.send_acts()
        if link.is_another(hello):
            self._restart(link, hello, now)
        else:
            link.greet(hello)
        seat = link.seats[lane.number]
        connection.link, connection.seat = link, seat
        self.calls.stands(key, lane.number, link.lanes)
        link.read(lane.number, lane)
        if not lane.dialled:
            self._vouch(connection.address)
        # Where no ping has been answered yet, the handshake just done tells: it took one to two round trips.
        trip = seat.telemetry.rtt if seat.telemetry.pongs else (now - connection.born) / 2
        seat.contest.arrived(connection, self._smaller_dialled(lane), now, patience(trip))
        self._settle(link, seat, now)

    # What connections tell (ConnectionOwner)

    def ended(self, connection: Connection, why: MeshError) -> None:
        """A connection is gone."""
        lane, now = connection.lane, self.now()
        self._connections.pop(lane, None)
        if self._half_open.pop(connection, 0) is None:
            self._handshake_failed(connection, why)
        link, seat = connection.link, connection.seat
        served = False
        if link is not None and seat is not None:
            served = seat.lane is lane
            if served:
                link.stop(seat.number, now)
                _log.info("{lane} lost: {why}", lane=_named(link, seat), why=str(why))
            seat.contest.lost(connection, now)
            self._settle(link, seat, now)
        key = lane.remote
        if key is None or not self._running:
            return
        if (lane.dialled or served) and not self.served(key, lane.number):
            self.calls.failed(key, lane.number, why)
        if served and self.standing(key) is None:
            self.calls.alone(key)

    def failed(self, what: str) -> None:
        """A fault of our own is logged."""
        _log.failure("{what} failed", what=what)

    # What the dialling asks (CallOwner)

    def served(self, key: PublicKey, number: int) -> bool:
        """Whether a connection serves this lane."""
        link = self.by_key.get(key)
        return link is not None and number in link.standing

    def attacher(self, key: PublicKey, number: int, address: str) -> Attach:
        """Makes connections of what was dialled."""

        def attach(carrier: ByteCarrier) -> Connection:
            connection = self._connection(carrier, address)
            connection.lane.dial(key, number)
            self._later(0, lambda: self._begin(connection, key))
            return connection

        return attach

    # Inside

    def accepter(self, address: str) -> Attach:
        """Makes connections of what others dialled; `address` stands where a carrier knows none."""

        def attach(carrier: ByteCarrier) -> Connection:
            connection = self._connection(carrier, carrier.remote or address)
            connection.lane.accept()
            self._bound_half_open()
            return connection

        return attach

    def _connection(self, carrier: ByteCarrier, address: str) -> Connection:
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
            identity.lanes,
        )
        connection = Connection(self, carrier, lane, address)
        self._connections[lane] = connection
        if self._running:
            self._half_open[connection] = None
        else:  # it was accepted, or stood, in the turn that stopped us
            connection.close(LinkLostError("this node is stopping"))
        return connection

    def _begin(self, connection: Connection, key: PublicKey) -> None:
        """Sends act one, once the transport has finished making the connection."""
        if key not in self.peers:
            connection.close(LinkLostError("the neighbour is no longer in the config"))
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

    def _check_lanes(self, peer: PublicKey, more: int) -> None:
        """Lanes cost memory before they carry anything, and a HELLO asks for sixteen with one byte."""
        if more <= 0 or peer in self.calls.peers:
            return
        if sum(link.lanes for link in self.by_key.values()) + more > LANES_IN_ALL:
            self.refused += 1
            raise RefusedError(f"all links together would have more than {LANES_IN_ALL} lanes")

    def _link(self, lane: Lane, key: PublicKey, hello: Hello) -> Link:
        """The link that this connection is of, made where there is none."""
        link = self.by_key.get(key)
        lanes = max(hello.lanes, self.identity.lanes)
        if lane.number >= lanes:  # we dialled it while the neighbour had more
            raise ProtocolError(f"the link has {lanes} lanes, there is no lane {lane.number}")
        self._check_lanes(key, lanes - (link.lanes if link is not None else 0))
        if link is None:
            if not lane.dialled:
                self._check_room(key)  # others may have come since act three
            link = Link(key, self.outbox, self._receivers, self.identity.lanes)
            self.by_key[key] = link
        return link

    def _vouch(self, remote: str) -> None:
        """From there a neighbour has come: floods of strangers shall not keep it from coming again."""
        for listener in self._listeners:
            if (know := getattr(listener, "know", None)) is not None:
                know(remote)

    def _restart(self, link: Link, hello: Hello, now: float) -> None:
        """The neighbour runs anew: its connections of before end, and all circuits over this link."""
        for seat in link.seats:
            seat.contest.forget()
            self._settle(link, seat, now)
        link.greet(hello)
        _log.info("{peer} has restarted", peer=link.peer.hex())
        self._owner.link_restarted(link, now)

    def _settle(self, link: Link, seat: Seat, now: float) -> None:
        """Does what the contest for a lane has decided, and comes back when it is due."""
        contest = seat.contest
        for event in contest.events():
            if isinstance(event, Serves):
                self._serve(event.connection, link, seat, now)
            elif isinstance(event, Ask):
                seat.ask(now)
            else:
                event.connection.close(LinkLostError("another connection serves this link"))
        if (cancel := self._deadlines.pop(seat, None)) is not None:
            cancel()
        if (due := contest.deadline()) is not None and self._running:
            self._deadlines[seat] = self._later(max(0.0, due - now), lambda: self._due(link, seat))

    def _due(self, link: Link, seat: Seat) -> None:
        now = self.now()
        seat.contest.tick(now)
        self._settle(link, seat, now)

    def _serve(self, connection: Connection, link: Link, seat: Seat, now: float) -> None:
        lane = connection.lane
        link.serve(seat.number, lane, connection.carrier.write, connection.address, now)
        if limit := getattr(connection.carrier, "limit_unsent", None):
            seat.outlet.limit_unsent = limit
            limit(seat.outlet.pace.unsent)
        _log.info("{lane} up over {address}", lane=_named(link, seat), address=connection.address)
        self._owner.link_up(link, now)

    def _smaller_dialled(self, lane: Lane) -> bool:
        """Whether the smaller of both keys dialled this lane."""
        assert lane.remote is not None  # known to both sides after the handshake
        ours = self.identity.secret.public
        return lane.dialled == (ours < lane.remote)

    def _jitter(self) -> float:
        return self._random(1)[0] / 255

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

    def _tick(self) -> None:
        """Once a second: deadlines of handshakes, telemetry, old connections, links gone for good."""
        self._cancel_tick = self._clock.call_later(TICK, self._tick)
        now = self.now()
        late, self._next_tick = now - self._next_tick, now + TICK
        if late > SLEPT:
            self.check(f"this machine slept or stood still for {late:.0f} s")
        for connection in list(self._half_open):
            _checked(connection, connection.lane, now)
        for link in list(self.by_key.values()):
            link.tick(now)
            for seat in link.seats:
                lane = seat.lane
                if lane is not None and lane in self._connections:
                    _checked(self._connections[lane], seat, now)
                    if lane.dialled and seat.contest.renewal(now):
                        self.calls.renew(link.peer, seat.number)
            if link.lost_at is not None and now - link.lost_at >= LINK_SURVIVES:
                del self.by_key[link.peer]
                self._owner.link_gone(link, now)


def _checked(connection: Connection, part: Lane | Seat, now: float) -> None:
    try:
        part.tick(now)
    except MeshError as problem:
        connection.close(problem)


def _named(link: Link, seat: Seat) -> str:
    """For the log."""
    lane = f"lane {seat.number} of the " if link.lanes > 1 else ""
    return f"{lane}link to {link.peer.hex()}"
