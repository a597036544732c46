"""Joins the pure cores: links bring cells and frames, circuits route them, sessions end them.

    link.forward/backward[label] ─→ Hop ─→ another link's outlet             (a relay; nothing here is called)
                                 └→ CircuitEnd ⇄ session path ⇄ streams      (an end)
    CREATE … DESTROY ─→ Circuits ─→ events ─→ here

No cell passes this file: it only ties the ends together and acts on what happens now and then.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred, fail, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet.cipher.aead import Backend
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.arrival import Arrival
from meshnet.circuit.events import Arrived, Built, CircuitFailed, CircuitLost, Event
from meshnet.circuit.messages import FRAME_KINDS
from meshnet.circuit.origin import OriginCircuit
from meshnet.circuit.policy import Policy
from meshnet.circuit.table import Circuits
from meshnet.errors import CircuitError, Drop, HandshakeError, MeshError, ProtocolError, Reason, UsageError
from meshnet.limits import CIRCUIT_LIFE, SESSIONS
from meshnet.link.driver import Identity, Links
from meshnet.link.link import Link
from meshnet.node.app import Clock, Datagram, Json, Receive
from meshnet.node.conversation import Conversation, Route
from meshnet.node.figures import Figures
from meshnet.node.replay import ReplayMemory
from meshnet.node.services import Service, Services
from meshnet.session import keys as end_to_end
from meshnet.session.events import AppFailed, Closed, DatagramReceived, PathDead, Ponged
from meshnet.session.memory import Memory
from meshnet.session.session import Session
from meshnet.streams import Accept, PortListener, Stream, StreamReader
from meshnet.transports.registry import Transports

TICK: Final = 0.5
KEEP_ALIVE: Final = 20.0  # a circuit with open streams is used at least this often
FRESH: Final = CIRCUIT_LIFE * 3 / 4  # an older circuit takes no new streams
IDENTITIES: Final = ("anonymous", "node")

_log = Logger()

T = TypeVar("T")

Waiter = Callable[[Conversation | MeshError, float], None]
"""Told once when a circuit stands or fails."""


@define(eq=False)
class _Dialled:
    """A circuit of ours on its way: the handshake's first half, and who waits for it."""

    opening: end_to_end.Opening
    identity: SecretKey | None
    route: Route
    waiters: list[Waiter] = field(factory=list)


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
    ) -> None:
        self._secret = secret
        self._network_id = network_id
        self._clock = clock
        self._random = random
        self._backend = backend
        self.services = Services(secret)
        self._dialled: dict[OriginCircuit, _Dialled] = {}
        self._calls: dict[tuple[Route, str], OriginCircuit] = {}
        self._conversations: dict[OriginCircuit | Arrival, Conversation] = {}
        self._pongs: dict[tuple[Session, int], Callable[[float], None]] = {}
        self._past_drops = [0] * len(Drop)
        self._policy = policy
        self._memory = memory
        self.session_memory = Memory()
        self._cancel_tick: Callable[[], None] | None = None
        identity = Identity(secret, network_id, backend, accept, lanes)
        receivers = dict.fromkeys(FRAME_KINDS, self._frame)
        self.links = Links(identity, transports, clock, random, self, receivers)
        self.circuits: Circuits
        self.on_link: Callable[[PublicKey], None] = lambda peer: None

    # -- life

    async def start(self, addresses: list[str]) -> list[str]:
        """Binds the link addresses; returns them as bound. Raises LocalError, ConfigError."""
        self.circuits = Circuits(
            self._secret,
            self._network_id,
            policy=self._policy,
            replay=self._memory.open(self._clock.unix()),
            random=self._random,
            neighbours=self.links.standing,
            backend=self._backend,
        )
        self._cancel_tick = self.later(TICK, self._tick)
        return await self.links.start(addresses)

    def add_peer(self, key: PublicKey, *addresses: str) -> None:
        """Keeps a link to this neighbour, at the first of its addresses that answers."""
        self.links.add_peer(key, *addresses)

    def stop(self) -> Deferred[None]:
        """Tells the other ends, then closes every link; fires when the replay tags are on the disk."""
        if self._cancel_tick is None:
            return succeed(None)
        now, why = self._clock.now(), MeshError("this node is stopping")
        self._cancel_tick()
        self._cancel_tick = None
        for dialled in list(self._dialled.values()):
            self._tell(dialled, why, now)
        self._dialled.clear()
        self._calls.clear()
        for circuit in list(self.circuits):
            if not isinstance(circuit, OriginCircuit | Arrival):
                continue
            self.circuits.destroy(circuit, now)
            conversation = self._conversations.pop(circuit, None)
            if conversation is not None:
                conversation.lose(why, now)
                conversation.stop()
        self.links.outbox.flush(now)
        self.links.stop()
        return self._memory.close()

    # -- what the node offers

    def connect(
        self, target: PublicKey, port: int, reader: StreamReader, *, via: Sequence[PublicKey], identity: str
    ) -> Deferred[Stream]:
        """A stream to `port` of `target` through the relays `via`, over a standing circuit if there is one.

        Fails with CircuitError, RefusedError, UsageError and what else a circuit can fail with.
        """
        if identity not in IDENTITIES:
            return fail(UsageError(f"identity is one of {', '.join(IDENTITIES)}, not {identity!r}"))
        return self._call((*via, target), identity, lambda session, now: session.open(port, now, reader))

    def send_datagram(
        self,
        target: PublicKey,
        port: int,
        data: bytes,
        *,
        source: int,
        via: Sequence[PublicKey],
        identity: str,
    ) -> Deferred[bool]:
        """One datagram to `port` of `target`; false if it was not taken. Fails as `connect` does."""
        if identity not in IDENTITIES:
            return fail(UsageError(f"identity is one of {', '.join(IDENTITIES)}, not {identity!r}"))
        return self._call(
            (*via, target), identity, lambda session, now: session.send_datagram(port, data, source)
        )

    def listen_datagrams(self, port: int, receive: Receive) -> PortListener:
        """Takes a datagram port; raises LocalError if it is taken."""
        return self.services.own.ports.listen_datagrams(port, receive)

    def listen(self, port: int, accept: Accept) -> PortListener:
        """Takes a mesh port; raises LocalError if it is taken."""
        return self.services.own.ports.listen(port, accept)

    def ping(self, target: PublicKey, via: Sequence[PublicKey], count: int) -> Deferred[Json]:
        """Sets up an anonymous circuit of its own, asks `count` times, and takes it down again."""
        from meshnet.node.ping import Ping

        return Ping(self, (*via, target), count).result

    def dial(self, route: Route, identity: SecretKey | None, waiter: Waiter) -> OriginCircuit | None:
        """Begins a circuit along `route`; `waiter` is told. None if it failed at once."""
        now = self._clock.now()
        if self._cancel_tick is None:
            waiter(MeshError("this node does not run"), now)
            return None
        ephemeral = SecretKey.draw(self._random)
        try:
            opening = end_to_end.start(route[-1], self._network_id, ephemeral, self._backend)
            circuit = self.circuits.open(route, opening.first, now, self._clock.unix())
        except MeshError as problem:
            waiter(problem, now)
            return None
        self._dialled[circuit] = _Dialled(opening, identity, route, [waiter])
        return circuit

    def hang_up(self, conversation: Conversation, now: float) -> None:
        """Ends a conversation that nobody needs any more."""
        self.circuits.destroy(conversation.circuit, now)
        self._forget(conversation)

    def on_pong(self, session: Session, token: int, told: Callable[[float], None]) -> None:
        """`told(seconds)` is called when the answer to this ping comes."""
        self._pongs[session, token] = told

    # -- turns (conversation.Turns)

    def soon(self, call: Callable[[float], None]) -> None:
        """Runs `call(now)` in a later turn, and sends what it made."""
        self._clock.call_later(0, lambda: self._turn(call))

    def later(self, delay: float, call: Callable[[float], None]) -> Callable[[], None]:
        """The same after `delay` seconds; returns what cancels it."""
        return self._clock.call_later(delay, lambda: self._turn(call))

    def _turn(self, call: Callable[[float], None]) -> None:
        outbox, now = self.links.outbox, self._clock.now()
        outbox.reading = True
        try:
            call(now)
        finally:
            outbox.flush(now)

    def _tick(self, now: float) -> None:
        """Twice a second: what circuits have due, and a sign of life for quiet streams."""
        self._cancel_tick = self.later(TICK, self._tick)
        self.circuits.tick(now, self._clock.unix())
        self._memory.sync()
        self._circuit_events(now)
        for conversation in list(self._conversations.values()):
            session, end = conversation.session, conversation.end
            if session is None or end is None or not conversation.route or not session.streams:
                continue
            if now - max(end.used, conversation.pinged) >= KEEP_ALIVE:
                conversation.pinged = now
                session.ping(now)

    # -- what links tell (LinkOwner)

    def link_up(self, link: Link, now: float) -> None:
        """Circuits use it when they need it; the node may wait for it. Where one has ended meanwhile, the
        neighbour must know."""
        if link.connections > 1:
            self.circuits.link_again(link.peer, now)
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
            self._arrived(event.arrival, now)
        elif isinstance(event, Built):
            self._built(event, now)
        elif isinstance(event, CircuitFailed):
            self._failed(event.circuit, event.error, now)
        elif isinstance(event, CircuitLost):
            if event.error.__cause__ is not None:
                _log.failure("a session failed", Failure(event.error.__cause__))
            self._lost(event.circuit, event.error, now)

    def _arrived(self, arrival: Arrival, now: float) -> None:
        """A circuit ends here: answer the handshake, and listen to what the session brings."""
        if len(self._conversations) >= SESSIONS:
            self.circuits.refuse(arrival, Reason.BUSY, f"{SESSIONS} sessions are open already", now)
            return
        service = self.services.of(arrival)
        ephemeral = SecretKey.draw(self._random)
        try:
            reply, keys = end_to_end.respond(
                service.secret, self._network_id, arrival.first_message, ephemeral, self._backend
            )
        except HandshakeError:
            self.circuits.refuse(arrival, Reason.UNKNOWN_SERVICE, "", now)
            return
        conversation = Conversation(self, arrival, (), service, now)
        session = Session(
            keys,
            wake=conversation.wake,
            notify=conversation.notify,
            accept=service.ports.accept,
            memory=self.session_memory,
            max_cell=arrival.side.link.max_cell,
        )
        conversation.session = session
        try:
            conversation.end = self.circuits.answer(arrival, reply, session.path, now)
        except CircuitError:
            return  # it was taken down meanwhile
        self._conversations[arrival] = conversation

    def _built(self, event: Built, now: float) -> None:
        circuit = event.circuit
        dialled = self._dialled.pop(circuit)
        try:
            keys = dialled.opening.finish(event.reply)
        except HandshakeError as problem:
            self.circuits.destroy(circuit, now)
            self._uncall(circuit)
            error = CircuitError(f"the last hop could not prove its key: {problem}", Reason.FORGED)
            self._tell(dialled, error, now)
            return
        service = self.services.own
        conversation = Conversation(self, circuit, dialled.route, service, now)
        session = Session(
            keys,
            wake=conversation.wake,
            notify=conversation.notify,
            accept=service.ports.accept,
            memory=self.session_memory,
            peer=dialled.route[-1],
            identity=dialled.identity,
            max_cell=event.max_cell,
            trip=event.setup,
        )
        conversation.session = session
        try:
            conversation.end = circuit.attach(session.path)
        except CircuitError as problem:
            self._uncall(circuit)
            self._tell(dialled, problem, now)
            return
        self._conversations[circuit] = conversation
        self._tell(dialled, conversation, now)
        conversation.end.wake()

    def _failed(self, circuit: OriginCircuit, error: CircuitError, now: float) -> None:
        dialled = self._dialled.pop(circuit, None)
        self._uncall(circuit)
        if dialled is not None:
            self._tell(dialled, error, now)

    def _lost(self, circuit: OriginCircuit | Arrival, error: CircuitError, now: float) -> None:
        conversation = self._conversations.get(circuit)
        if conversation is not None:
            conversation.lose(error, now)
            self._forget(conversation)

    @staticmethod
    def _tell(dialled: _Dialled, outcome: Conversation | MeshError, now: float) -> None:
        waiters, dialled.waiters = dialled.waiters, []
        for waiter in waiters:
            waiter(outcome, now)

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
            elif isinstance(event, PathDead | Closed):
                self.hang_up(conversation, now)
                conversation.ended(event.error, now)

    def _datagram(self, service: Service, session: Session, event: DatagramReceived) -> None:
        def reply(data: bytes) -> bool:
            return session.send_datagram(event.source, data, event.target) if event.source else False

        try:
            service.ports.receive(event.target, Datagram(event.source, event.data, session.peer, reply))
        except Exception:  # an app's code: its fault costs a line in the log
            _log.failure("the app on datagram port {port} failed", port=event.target)

    def _forget(self, conversation: Conversation) -> None:
        self._conversations.pop(conversation.circuit, None)
        self._uncall(conversation.circuit)
        conversation.stop()
        session = conversation.session
        for key in [key for key in self._pongs if key[0] is session]:
            del self._pongs[key]

    # -- calls

    def _call(self, route: Route, identity: str, use: Callable[[Session, float], T]) -> Deferred[T]:
        """What `use` makes of a session along `route`, over a standing circuit or a new one."""
        result: Deferred[T] = Deferred()

        def told(outcome: Conversation | MeshError, now: float) -> None:
            if result.called:  # given up meanwhile
                return
            try:
                if isinstance(outcome, MeshError):
                    raise outcome
                assert outcome.session is not None  # a conversation that is told of has one
                answer = use(outcome.session, now)
            except MeshError as problem:
                result.errback(problem)
            else:
                result.callback(answer)

        self._await(route, identity, told)
        return result

    def _await(self, route: Route, identity: str, waiter: Waiter) -> None:
        """Tells `waiter` of a conversation along `route`."""
        now = self._clock.now()
        circuit = self._calls.get((route, identity))
        if circuit is not None:
            conversation = self._conversations.get(circuit)
            if conversation is not None:
                session = conversation.session
                if session is not None and session.live and now - conversation.born < FRESH:
                    waiter(conversation, now)
                    return
            elif circuit in self._dialled:
                self._dialled[circuit].waiters.append(waiter)
                return
            del self._calls[route, identity]
        circuit = self.dial(route, self._secret if identity == "node" else None, waiter)
        if circuit is not None:
            self._calls[route, identity] = circuit

    def _uncall(self, circuit: OriginCircuit | Arrival) -> None:
        """Nobody is sent over this circuit any more."""
        if isinstance(circuit, OriginCircuit):
            for identity in IDENTITIES:
                if self._calls.get((circuit.route, identity)) is circuit:
                    del self._calls[circuit.route, identity]
