"""Joins the pure cores: links bring cells and frames, circuits route them, sessions end them.

    link.forward/backward[label] ─→ Hop ─→ another link's outlet             (a relay; nothing here is called)
                                 └→ CircuitEnd ⇄ session path ⇄ streams      (an end)
    CREATE … DESTROY ─→ Circuits ─→ events ─→ here

No cell passes this file: it only ties the ends together and acts on what happens now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet.cipher.address import Target, proves
from meshnet.cipher.aead import Backend
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.arrival import Arrival
from meshnet.circuit.end import CircuitEnd
from meshnet.circuit.events import Arrived, Built, CircuitFailed, CircuitLost, Event, TickDue
from meshnet.circuit.messages import FRAME_KINDS
from meshnet.circuit.origin import OriginCircuit
from meshnet.circuit.policy import Policy
from meshnet.circuit.shared import nothing_stated
from meshnet.circuit.table import Circuits
from meshnet.errors import (
    CircuitError,
    Drop,
    MeshError,
    ProtocolError,
    UnreachableError,
)
from meshnet.limits import SESSION_SURVIVES
from meshnet.link.driver import Identity, Links, Watch, no_watch
from meshnet.link.link import Link
from meshnet.node.answering import Answering
from meshnet.node.app import Clock, Datagram, Json, Receive, Ways
from meshnet.node.calls import Calls, Waiter
from meshnet.node.conversation import Conversation, Course, Journey, Leg, Route
from meshnet.node.courses import Courses
from meshnet.node.dialling import Dialling, Standing, Told
from meshnet.node.figures import Figures
from meshnet.node.onion_keys import OnionKeys
from meshnet.node.probes import probe
from meshnet.node.renewal import TICK, Renewals
from meshnet.node.replay import ReplayMemory
from meshnet.node.services import Service, Services
from meshnet.node.through import Through
from meshnet.node.topology import Topology
from meshnet.session.codes import Code
from meshnet.session.events import (
    AppFailed,
    Closed,
    DatagramReceived,
    Joined,
    Moved,
    PathDead,
    Ponged,
    Turned,
)
from meshnet.session.memory import Memory
from meshnet.session.session import Session
from meshnet.streams import Accept, PortListener, Stream, StreamReader
from meshnet.topology.frames import KINDS
from meshnet.transports.registry import Transports

SLEPT: Final = 10.0  # seconds between ticks, by either clock, after which circuits are looked at

_log = Logger()


class Router(Figures):
    """One per node. Everything it needs comes by argument; `start` binds, `stop` ends everything."""

    def __init__(
        self,
        secret: SecretKey,
        network_id: int,
        *,
        transports: Transports,
        clock: Clock,
        random: Callable[[int], bytes],
        backend: Backend,
        policy: Policy,
        memory: ReplayMemory,
        accept: frozenset[PublicKey] | None = None,
        lanes: int = 1,
        watch: Watch = no_watch,
        onion_keys: OnionKeys | None = None,
    ) -> None:
        self._secret = secret
        self._network_id = network_id
        self._clock = clock
        self._random = random
        self._backend = backend
        self.services = Services(secret)
        self._calls = Calls(self, secret)
        self.renewals = Renewals(self, random)
        self.answering = Answering(self, network_id, clock.unix, random, backend)
        self._sessions: dict[Session, Conversation] = {}
        self._conversations: dict[OriginCircuit | Arrival, Conversation] = {}
        self._pongs: dict[tuple[Session, int], Callable[[float], None]] = {}
        self._past_drops = [0] * len(Drop)
        self._policy = policy
        self._memory = memory
        self.onion_keys = onion_keys or OnionKeys(secret, random)
        self.session_memory = Memory()
        self._cancel_tick: Callable[[], None] | None = None
        self._ticked = 0.0, 0.0
        self.through = Through(self)
        transports = transports.beside(self.through.transport)
        identity = Identity(secret, network_id, backend, accept, lanes)
        receivers = dict.fromkeys(FRAME_KINDS, self._frame) | dict.fromkeys(KINDS, self._told)
        self.links = Links(identity, transports, clock, random, self, receivers, watch)
        self.circuits: Circuits
        self.dialling: Dialling
        self.on_link: Callable[[PublicKey], None] = lambda peer: None
        self.topology: Topology | None = None
        self.courses: Courses | None = None

    def know(self, topology: Topology) -> None:
        """The node knows the network; to be said before `start`."""
        self.topology = topology
        self.courses = Courses(self, topology)

    # -- life

    async def start(self, addresses: list[str]) -> list[str]:
        """Binds the link addresses; returns them as bound. Raises LocalError, ConfigError."""
        now, unix = self._clock.now(), self._clock.unix()
        replays = self._memory.open(unix)
        self.onion_keys.start(now, unix, anew=replays.refused_until > unix)
        self.circuits = Circuits(
            self._secret,
            self._network_id,
            policy=self._policy,
            replay=replays,
            random=self._random,
            neighbours=self.links.standing,
            backend=self._backend,
            ring=self.onion_keys.ring,
            stated=nothing_stated if self.topology is None else self.topology.stated,
        )
        self.dialling = Dialling(self.circuits, self._network_id, self._clock, self._random, self._backend)
        self._ticked = now, unix
        self._cancel_tick = self.later(TICK, self._tick)
        if self.topology is not None:
            self.topology.start(now)
            if self._policy.enabled:
                self.through.start()
        return await self.links.start(addresses)

    def add_peer(self, key: PublicKey, *addresses: str) -> None:
        """Keeps a link to this neighbour, at the first of its addresses that answers."""
        self.links.add_peer(key, *addresses)

    def remove_peer(self, key: PublicKey) -> None:
        """Dials this neighbour no more and ends its link."""
        self.links.remove_peer(key)

    def move_peer(self, key: PublicKey, *addresses: str) -> None:
        """Dials this neighbour at other addresses from now on; its link stays."""
        self.links.move_peer(key, *addresses)

    def accept_only(self, accept: frozenset[PublicKey] | None) -> None:
        """Who may link from now on (None: anyone); the links of others end."""
        self.links.accept_only(accept)

    def limit(self, policy: Policy) -> None:
        """Other limits for circuits from now on; what stands stays."""
        self._policy = policy
        self.circuits.limit(policy)

    def stop(self) -> Deferred[None]:
        """Tells the other ends, then closes every link; fires when the replay tags are on the disk."""
        if self._cancel_tick is None:
            return succeed(None)
        now, why = self._clock.now(), MeshError("this node is stopping")
        self._cancel_tick()
        self._cancel_tick = None
        if self.topology is not None:
            self.topology.stop()
        self.dialling.stop(why, now)
        for conversation in list(self._sessions.values()):
            if conversation.session is not None:
                conversation.session.close(Code.GONE, str(why), now)
        self.links.outbox.flush(now)
        for each in list(self.circuits):
            if isinstance(each, OriginCircuit | Arrival):
                self.circuits.destroy(each, now)
        for conversation in list(self._sessions.values()):
            self._forget(conversation, why, now)
            conversation.ended(why, now)
        self.links.outbox.flush(now)
        self.links.stop()
        return self._memory.close()

    # -- what the node offers

    def connect(
        self,
        target: Target,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[PublicKey] | None,
        identity: str,
        policy: str | None = None,
        ways: Ways | None = None,
    ) -> Deferred[Stream]:
        """A stream to `port` of `target` over a standing circuit if there is one: through the relays `via`,
        or with None along a way that `policy` (None: the config's) allows. Later circuits of its session take
        the `ways`, if they are given.

        Fails with CircuitError, RefusedError, UsageError and what else a circuit can fail with.
        """

        def open_stream(session: Session, now: float) -> Stream:
            self._sessions[session].ways = ways or self._sessions[session].ways
            return session.open(port, now, reader)

        return self._calls.call(self._journey(target, via, policy), identity, open_stream)

    def _journey(self, target: Target, via: Sequence[PublicKey] | None, policy: str | None) -> Journey:
        if via is None and self.courses is not None:
            return Course(target, policy)
        return (*(via or ()), target)

    def send_datagram(
        self,
        target: Target,
        port: int,
        data: bytes,
        *,
        source: int,
        via: Sequence[PublicKey] | None,
        identity: str,
        policy: str | None = None,
    ) -> Deferred[bool]:
        """One datagram to `port` of `target`; false if it was not taken. Fails as `connect` does."""
        return self._calls.call(
            self._journey(target, via, policy),
            identity,
            lambda session, now: session.send_datagram(port, data, source),
        )

    def listen_datagrams(self, port: int, receive: Receive) -> PortListener:
        """Takes a datagram port; raises LocalError if it is taken."""
        return self.services.own.ports.listen_datagrams(port, receive)

    def listen(self, port: int, accept: Accept) -> PortListener:
        """Takes a mesh port; raises LocalError if it is taken."""
        return self.services.own.ports.listen(port, accept)

    def renew(self, target: Target | None) -> Deferred[list[Json]]:
        """Gives every session begun here a new circuit now, of those to `target` if it is given; fires with
        `route`, `streams`, and `error` where that failed, for each."""
        return self.renewals.renew_all(
            [
                conversation
                for conversation in self._sessions.values()
                if conversation.route and target in (None, conversation.route[-1])
            ]
        )

    def leave(self, service: Service) -> None:
        """Ends every session of a service that is no more."""
        now = self._clock.now()
        for conversation in list(self._sessions.values()):
            if conversation.service is service and conversation.session is not None:
                conversation.session.close(Code.GONE, "", now)
        self.links.outbox.flush(now)

    def ping(self, target: Target, via: Sequence[PublicKey], count: int) -> Deferred[Json]:
        """Sets up an anonymous circuit of its own, asks `count` times, and takes it down again."""
        from meshnet.node.ping import Ping

        return Ping(self, (*via, target), count).result

    def dial_circuit(self, route: Route, told: Told) -> OriginCircuit | None:
        """Begins a circuit along `route`; `told` hears of it. None if it failed at once."""
        if self._cancel_tick is None:
            told(MeshError("this node does not run"), self._clock.now())
            return None
        return self.dialling.dial(route, told)

    def dial(self, journey: Journey, identity: SecretKey | None, waiter: Waiter) -> None:
        """Begins a circuit along a route, or one of those of a course, and a session over it; `waiter` is
        told."""
        if isinstance(journey, Course):
            assert self.courses is not None  # or there were no course
            self.courses.begin(journey, identity, waiter)
            return

        def told(outcome: Standing | MeshError, now: float) -> None:
            waiter(self.converse(outcome, journey, identity, now), now)

        self.dial_circuit(journey, told)

    def next_route(self, conversation: Conversation) -> Route:
        """Where the next circuit of a conversation goes that lost its last one."""
        if conversation.ways is not None:
            return (*conversation.ways(), conversation.route[-1])
        return conversation.route if self.courses is None else self.courses.next_route(conversation)

    def hang_up(self, conversation: Conversation, now: float) -> None:
        """Ends a conversation that nobody needs any more."""
        self._forget(conversation, MeshError("it was hung up"), now)

    def now(self) -> float:
        """Monotonic seconds."""
        return self._clock.now()

    def on_pong(self, session: Session, token: int, told: Callable[[float], None]) -> None:
        """`told(seconds)` is called when the answer to this ping comes."""
        self._pongs[session, token] = told

    # -- turns (conversation.Turns)

    def soon(self, call: Callable[[float], None]) -> None:
        """Runs `call(now)` in a later turn, and sends what it made."""
        self._clock.call_later(0, lambda: self.turn(call))

    def later(self, delay: float, call: Callable[[float], None]) -> Callable[[], None]:
        """The same after `delay` seconds; returns what cancels it."""
        return self._clock.call_later(delay, lambda: self.turn(call))

    def turn(self, call: Callable[[float], None]) -> None:
        """Runs `call(now)`, and sends what it made."""
        outbox, now = self.links.outbox, self._clock.now()
        outbox.reading = True
        try:
            call(now)
        finally:
            outbox.flush(now)

    def _tick(self, now: float) -> None:
        """Twice a second: what circuits have due, and a sign of life for quiet streams."""
        self._cancel_tick = self.later(TICK, self._tick)
        unix = self._clock.unix()
        slept = max(now - self._ticked[0], unix - self._ticked[1])  # which clock stands while asleep depends
        self._ticked = now, unix
        self.circuits.tick(now, unix)
        self._memory.sync()
        self.onion_keys.tick(now, unix)
        self._circuit_events(now)
        for conversation in list(self._sessions.values()):
            if conversation.route:
                if slept >= SLEPT and conversation.session is not None:
                    conversation.session.paths.doubt(now)
                self.renewals.tick(conversation, now)
                probe(conversation, now)
                if self.courses is not None:
                    self.courses.tick(conversation, now)
        if self.topology is not None:
            self.topology.tick(now)
            self.through.tick(now)

    # -- what links tell (LinkOwner)

    def link_up(self, link: Link, now: float) -> None:
        """Circuits use it when they need it; the node may wait for it. Where one has ended meanwhile, the
        neighbour must know."""
        if link.connections > 1:
            self.circuits.link_again(link.peer, now, after_none=link.up_since == now)
            self._circuit_events(now)
        if self.topology is not None:
            self.topology.link_up(link, now)
            self.through.up(link.peer, now)
        self.on_link(link.peer)

    def link_restarted(self, link: Link, now: float) -> None:
        """Circuits over it are lost; new ones may be made at once."""
        self.circuits.link_lost(link.peer, now)
        self._circuit_events(now)

    def link_gone(self, link: Link, now: float) -> None:
        """Circuits over it are lost."""
        for index, number in enumerate(link.drops):
            self._past_drops[index] += number
        self.circuits.link_lost(link.peer, now)
        self._circuit_events(now)

    def _frame(self, link: Link, kind: int, body: memoryview, now: float) -> None:
        try:
            self.circuits.receive(link, kind, body, now, self._clock.unix())
        except ProtocolError:
            raise
        except Exception:  # a fault of ours, maybe met in what comes from afar: not the neighbour's
            _log.failure("a frame of kind {kind} could not be acted on", kind=kind)
        self._circuit_events(now)

    def _told(self, link: Link, kind: int, body: memoryview, now: float) -> None:
        if self.topology is not None:
            self.topology.receive(link, kind, body, now)

    def links_now(self) -> list[Link]:
        """All links, standing or not."""
        return list(self.links.by_key.values())

    # -- what circuits tell

    def _circuit_events(self, now: float) -> None:
        while events := self.circuits.events():
            for event in events:
                try:
                    self._act(event, now)
                except Exception:  # ours or an app's: the link whose frame this was did nothing wrong
                    _log.failure("acting on a circuit's event failed ({event})", event=type(event).__name__)

    def _act(self, event: Event, now: float) -> None:
        if isinstance(event, Arrived):
            self.answering.arrived(event.arrival, len(self._sessions), now)
        elif isinstance(event, Built):
            self.dialling.built(event, now)
        elif isinstance(event, CircuitFailed):
            self.dialling.failed(event.circuit, event.error, now)
        elif isinstance(event, CircuitLost):
            if event.error.__cause__ is not None:
                _log.failure("a session failed", Failure(event.error.__cause__))
            self._lost(event.circuit, event.error, now)
        elif isinstance(event, TickDue):
            self.later(max(event.when - now, 0.0), self._circuits_due)

    def _circuits_due(self, now: float) -> None:
        """What does not wait for the next tick."""
        if self._cancel_tick is not None:
            self.circuits.tick(now, self._clock.unix())
            self._circuit_events(now)

    def converse(
        self, standing: Standing | MeshError, route: Route, identity: SecretKey | None, now: float
    ) -> Conversation | MeshError:
        """A session over a circuit of ours, if it came about."""
        if isinstance(standing, MeshError):
            return standing
        conversation = Conversation(self, route, self.services.own, now)
        leg = Leg(standing.circuit, now, self.renewals.fresh_until(now))
        session = Session(
            standing.keys,
            wake=leg.wake,
            notify=conversation.notify,
            accept=conversation.service.ports.accept,
            memory=self.session_memory,
            peer=proves(route[-1]),
            identity=identity,
            max_cell=standing.max_cell,
            trip=standing.setup,
            survives=SESSION_SURVIVES,
        )
        try:
            end = standing.circuit.attach(session.path)
        except CircuitError as problem:
            return problem
        self.begin(conversation, session, leg, end)
        end.wake()
        return conversation

    def begin(self, conversation: Conversation, session: Session, leg: Leg, end: CircuitEnd) -> None:
        """A conversation has its session, over this circuit."""
        leg.path = session.path
        conversation.session = session
        self._sessions[session] = conversation
        self.add_leg(conversation, leg, end)

    def add_leg(self, conversation: Conversation, leg: Leg, end: CircuitEnd) -> None:
        """A conversation has this circuit."""
        leg.end = end
        conversation.legs[leg.circuit] = leg
        self._conversations[leg.circuit] = conversation

    def drop(self, conversation: Conversation, leg: Leg, now: float) -> None:
        """A conversation needs this circuit no more."""
        self.circuits.destroy(leg.circuit, now)
        self._conversations.pop(leg.circuit, None)
        conversation.lose(leg.circuit, UnreachableError("the circuit was replaced"), now)

    def _lost(self, circuit: OriginCircuit | Arrival, error: CircuitError, now: float) -> None:
        conversation = self._conversations.pop(circuit, None)
        if conversation is None:
            return
        leg = conversation.legs.get(circuit)
        conversation.lose(circuit, error, now)
        if leg is not None:
            self._missing(conversation, leg, error, now)

    def _missing(self, conversation: Conversation, leg: Leg, error: MeshError, now: float) -> None:
        """A circuit is gone, not by our wish; the conversation may go on."""
        session = conversation.session
        if self.courses is not None:
            self.courses.lost(conversation, leg, now)
        if session is None or not session.live:
            return
        if conversation.route:
            self.renewals.lost(conversation, leg.path, error, now)
        elif not conversation.legs:
            self.answering.orphans[conversation] = None

    # -- what sessions tell

    def settle(self, conversation: Conversation, now: float) -> None:
        """Acts on the events of a session."""
        session = conversation.session
        if session is None:
            return
        for event in session.events():
            if isinstance(event, Ponged):
                told = self._pongs.pop((session, event.token), None)
                if told is not None:
                    told(event.trip)
            elif isinstance(event, DatagramReceived):
                self._datagram(conversation.service, session, event)
            elif isinstance(event, AppFailed):
                _log.error("a stream's reader failed: {error!r}", error=event.error)
            elif isinstance(event, Joined):
                self.renewals.joined(conversation, event.path, now)
            elif isinstance(event, Turned):
                self._turned(conversation, event, now)
            elif isinstance(event, Moved):
                self._moved(conversation, event, now)
            elif isinstance(event, PathDead):
                self._path_dead(conversation, event, now)
            elif isinstance(event, Closed):
                self._forget(conversation, event.error, now)
                conversation.ended(event.error, now)

    def _turned(self, conversation: Conversation, event: Turned, now: float) -> None:
        self.renewals.turned(conversation, event, now)
        if self.courses is not None:
            self.courses.spares.turned(conversation)

    def _path_dead(self, conversation: Conversation, event: PathDead, now: float) -> None:
        leg = conversation.leg_of(event.path)
        if leg is not None:
            self.circuits.destroy(leg.circuit, now)
            del conversation.legs[leg.circuit]
            self._conversations.pop(leg.circuit, None)
            self._missing(conversation, leg, event.error, now)

    def _moved(self, conversation: Conversation, event: Moved, now: float) -> None:
        """A circuit that came joined the session of another conversation."""
        leg, heir = conversation.leg_of(event.path), self._sessions.get(event.session)
        if leg is None:
            return
        del conversation.legs[leg.circuit]
        if heir is None:  # it has ended since
            self.circuits.destroy(leg.circuit, now)
            self._conversations.pop(leg.circuit, None)
            return
        heir.legs[leg.circuit] = leg
        self._conversations[leg.circuit] = heir
        self.answering.orphans.pop(heir, None)

    def _datagram(self, service: Service, session: Session, event: DatagramReceived) -> None:
        def reply(data: bytes) -> bool:
            return session.send_datagram(event.source, data, event.target) if event.source else False

        try:
            service.ports.receive(event.target, Datagram(event.source, event.data, session.peer, reply))
        except Exception:  # an app's code: its fault costs a line in the log
            _log.failure("the app on datagram port {port} failed", port=event.target)

    def _forget(self, conversation: Conversation, why: MeshError, now: float) -> None:
        session = conversation.session
        for circuit in conversation.legs:
            self.circuits.destroy(circuit, now)
            self._conversations.pop(circuit, None)
        conversation.legs.clear()
        conversation.stop()
        if session is None:
            return
        self._sessions.pop(session, None)
        self.answering.orphans.pop(conversation, None)
        self._calls.forget(conversation)
        self.renewals.forget(conversation, why, now)
        if self.courses is not None:
            self.courses.spares.forget(conversation, now)
        for key in [key for key in self._pongs if key[0] is session]:
            del self._pongs[key]
