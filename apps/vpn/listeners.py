"""Local TCP ports whose connections go into the mesh: SOCKS5 and forwards.

A listener takes at most so many connections at a time and closes the next at once; a SOCKS client has
`HANDSHAKE_SECONDS` to say what it wants. What a client sends ahead of its answer waits, bounded.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from secrets import token_bytes
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.internet.interfaces import IAddress
from twisted.internet.protocol import Factory
from twisted.logger import Logger
from twisted.python.failure import Failure

from apps.vpn.callers import AssociationCaller, Caller, ExitCaller, MeshCaller
from apps.vpn.datagrams import ASSOCIATION
from apps.vpn.destination import Destination
from apps.vpn.failures import Failures
from apps.vpn.messages import Code, as_reason, code_of, request
from apps.vpn.settings import Forward, Socks
from apps.vpn.socks import Asked, Associated, Over, Send, SocksMachine, State
from apps.vpn.socks_datagrams import Answers, SocksDatagrams
from apps.vpn.splice import Role, Side
from meshnet.cipher.address import Target, proves
from meshnet.cipher.keys import BadKeyError, PublicKey, parse_dns_label
from meshnet.errors import LocalError, MeshError, UsageError
from meshnet.node.app import Json, MeshNode
from meshnet.node.binding import not_bound

HANDSHAKE_SECONDS: Final = 30.0
"""From a SOCKS client's connection to its request."""
FORWARD_STREAMS: Final = 1_024
"""Connections of one forward at a time."""
BACKLOG: Final = 128

_SENTENCES: Final = {
    "not_socks5": "a program spoke something else than SOCKS5",
    "no_method": "a program does not offer the kind of login that is wanted: none, or name and password",
    "bad_password": "a program gave a wrong name or password",
    "command_not_supported": "a program asked for something else than CONNECT and UDP ASSOCIATE",
    "address_not_supported": "a program asked for an address of an unknown kind",
    "failed": "a program asked for a name that cannot be one",
    "too_much_early": "a program sent too much before it had its answer",
    "handshake_timeout": f"a program did not say within {HANDSHAKE_SECONDS:.0f} s where it wants to go",
}
"""What the short names of refusals mean."""

_log = Logger()


class SocksSide(Side):
    """A SOCKS client."""

    to_mesh = True

    def __init__(self, listener: SocksListener) -> None:
        super().__init__(listener.role)
        self._listener = listener
        self._machine = SocksMachine(listener.credentials)
        self._caller: Caller | None = None
        self._datagrams: SocksDatagrams | None = None
        self._stop_waiting: Callable[[], None] | None = None

    def opened(self) -> None:
        """Waits for the client to say what it wants."""
        self.transport.setTcpNoDelay(True)
        self._stop_waiting = self._listener.node.clock.call_later(HANDSHAKE_SECONDS, self._waited)

    def received(self, data: bytes) -> None:
        """Bytes of the SOCKS conversation, or sent ahead of our answer."""
        for event in self._machine.receive(data):
            if isinstance(event, Send):
                self.transport.write(event.data)
            elif isinstance(event, Asked):
                self._asked(event.where)
            elif isinstance(event, Associated):
                self._associate(event.port)
            elif isinstance(event, Over):
                self._listener.fail(event.reason, _SENTENCES[event.reason])
                self._give_up()
                self.transport.loseConnection()
        if self._machine.state is State.DECIDING and self._machine.held:
            self.transport.pauseProducing()

    def readConnectionLost(self) -> None:
        """A client that leaves before it asked is done; one that asked may have said all it wants to."""
        super().readConnectionLost()
        if self.other is None and self._machine.state is not State.DECIDING:
            self.transport.loseConnection()

    def closed(self, reason: Failure) -> None:
        """The client left."""
        self._give_up()

    def mesh_failed(self, why: MeshError) -> None:
        """Shown by `status`."""
        self._listener.note(str(why))

    def _asked(self, where: Destination) -> None:
        self._stop()
        try:
            caller = self._listener.call(where)
        except BadKeyError as problem:
            self._denied(Failure(problem))
            return
        self._caller = caller
        caller.answered.addCallbacks(self._granted, self._denied)

    def _associate(self, port: int) -> None:
        """Takes UDP beside this connection, for as long as it stands."""
        self._stop()
        listener, name = self._listener, token_bytes(ASSOCIATION)
        self._datagrams = SocksDatagrams(listener.answers, name, self.transport.getPeer().host, port)
        own = self.transport.getHost().host
        try:
            listener.node.reactor.listenUDP(0, self._datagrams, interface=own, maxPacketSize=65_535)
        except CannotListenError as problem:
            self._denied(Failure(LocalError(not_bound(show((own, 0)), problem))))
            return
        caller = AssociationCaller(listener.role, listener.node, name, self.transport.loseConnection)
        self._caller = caller
        caller.answered.addCallbacks(self._associated, self._denied)
        settings = listener.settings
        caller.call_exit(listener.node, settings.exit, settings.via, settings.identity, settings.policy)

    def _associated(self, caller: Caller) -> None:
        assert self._datagrams is not None
        settings = self._listener.settings
        try:
            self._datagrams.start(settings.exit, settings.via, settings.identity, settings.policy)
        except LocalError as problem:
            caller.abandon()
            self._denied(Failure(problem))
            return
        self.role.counts.open += 1
        self.role.counts.streams += 1
        bound = self._datagrams.transport.getHost()
        self.transport.write(self._machine.granted(Destination(ip_address(bound.host), bound.port)))
        self.transport.resumeProducing()
        caller.transport.resumeProducing()

    def _granted(self, caller: Caller) -> None:
        self._caller = None
        self.transport.write(self._machine.granted())
        theirs = bytes(caller.early) if isinstance(caller, ExitCaller) else b""
        self.join(caller, self._machine.early(), theirs)

    def _denied(self, failure: Failure) -> None:
        self._caller = None
        why = failure.value
        self._listener.fail(as_reason(why), str(why))
        if not self.gone:
            code = Code.HOST_UNREACHABLE if isinstance(why, BadKeyError) else code_of(why)
            self.transport.write(self._machine.denied(code))
            self.transport.loseConnection()

    def _waited(self) -> None:
        self._stop_waiting = None
        self._listener.fail("handshake_timeout", _SENTENCES["handshake_timeout"])
        self.transport.abortConnection()

    def _stop(self) -> None:
        if self._stop_waiting is not None:
            self._stop_waiting()
            self._stop_waiting = None

    def _give_up(self) -> None:
        self._stop()
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.abandon()
        datagrams, self._datagrams = self._datagrams, None
        if datagrams is not None:
            self.role.counts.open -= datagrams.started
            datagrams.close()


class ForwardSide(Side):
    """A client of a forward: paused until the stream stands."""

    to_mesh = True

    def __init__(self, listener: ForwardListener) -> None:
        super().__init__(listener.role)
        self._listener = listener
        self._caller: MeshCaller | None = None

    def opened(self) -> None:
        """Opens the stream."""
        self.transport.setTcpNoDelay(True)
        self.transport.pauseProducing()
        caller, settings = MeshCaller(self.role), self._listener.settings
        self._caller = caller
        caller.answered.addCallbacks(self._granted, self._denied)
        caller.call(
            self._listener.node, settings.to, settings.port, settings.via, settings.identity, settings.policy
        )

    def closed(self, reason: Failure) -> None:
        """The client left."""
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.abandon()

    def mesh_failed(self, why: MeshError) -> None:
        """Shown by `status`."""
        self._listener.note(str(why))

    def _granted(self, caller: MeshCaller) -> None:
        self._caller = None
        self.join(caller)

    def _denied(self, failure: Failure) -> None:
        self._caller = None
        self._listener.fail(as_reason(failure.value), str(failure.value))
        if not self.gone:
            self.transport.abortConnection()


@define(eq=False)
class LocalListener:
    """A TCP port of this machine. `address` is where it is bound, once it is."""

    node: MeshNode
    role: Role
    address: str = field(default="", init=False)
    failures: Failures = field(init=False)
    _port: Any = field(default=None, init=False)
    _sides: set[Side] = field(factory=set, init=False)

    def __attrs_post_init__(self) -> None:
        self.failures = Failures(self.node.clock)

    @property
    def called(self) -> str:
        """What the log calls it."""
        return self.address

    def note(self, text: str) -> None:
        """A client was refused or lost for this reason, a sentence."""
        self.failures.note(self.called, text)

    def fail(self, reason: str, text: str) -> None:
        """The same, and counted under this short name."""
        self.role.counts.refuse(reason)
        self.note(text)

    def side(self) -> Side:
        """A side for a fresh connection."""
        raise NotImplementedError

    def most(self) -> int:
        """Connections at a time."""
        return FORWARD_STREAMS

    def bind(self, listen: tuple[str, int]) -> None:
        """Binds; raises LocalError with what to do if that fails."""
        host, port = listen
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = self._build  # type: ignore[method-assign, assignment]
        try:
            self._port = self.node.reactor.listenTCP(port, factory, backlog=BACKLOG, interface=host)
        except CannotListenError as problem:
            raise LocalError(not_bound(show(listen), problem)) from None
        bound = self._port.getHost()
        self.address = show((bound.host, bound.port))

    def stop(self) -> Deferred[None]:
        """Accepts no more; connections stay."""
        port, self._port = self._port, None
        return maybeDeferred(port.stopListening if port is not None else lambda: None)

    def describe(self) -> Json:
        """What `status` and the verbs show."""
        return {"listen": self.address, **self.failures.describe()}

    def _build(self, address: IAddress) -> Side | None:
        self._sides = {side for side in self._sides if not side.gone}
        if len(self._sides) >= self.most():
            self.fail("max_streams", f"{self.most()} connections are open already, and more may not be")
            return None
        side = self.side()
        self._sides.add(side)
        return side


@define(eq=False)
class SocksListener(LocalListener):
    """A SOCKS5 port."""

    settings: Socks = field(kw_only=True)
    answers: Answers = field(kw_only=True)

    @property
    def called(self) -> str:
        """What the log calls it."""
        return f"SOCKS5 on {self.address}"

    def bind(self, listen: tuple[str, int]) -> None:
        """Binds, and warns of a proxy that is open to others."""
        LocalListener.bind(self, listen)
        if not self.settings.username and not _only_local(listen[0]):
            _log.warn(
                "SOCKS5 on {place} serves everybody who can reach it; set username and password in [socks]",
                place=self.address,
            )

    @property
    def credentials(self) -> tuple[bytes, bytes] | None:
        """What programs must say, if anything."""
        if not self.settings.username:
            return None
        return self.settings.username.encode(), self.settings.password.encode()

    def side(self) -> Side:
        """A client."""
        return SocksSide(self)

    def most(self) -> int:
        """By config."""
        return self.settings.max_streams

    def call(self, where: Destination) -> Caller:
        """Starts to connect: to a mesh port for a name under .mesh, else through the exit."""
        settings = self.settings
        if isinstance(where.host, str) and where.host.endswith(".mesh"):
            direct = MeshCaller(self.role)
            target = mesh_target(where.host, self.node.lookup)
            direct.call(self.node, target, where.port, None, settings.identity)
            return direct
        caller = ExitCaller(self.role, self.node, request(where))
        caller.call_exit(self.node, settings.exit, settings.via, settings.identity, settings.policy)
        return caller

    def describe(self) -> Json:
        """With its exit."""
        return {
            **LocalListener.describe(self),
            "exit": proves(self.settings.exit).hex(),
            "via": show_via(self.settings.via),
            "policy": self.settings.policy,
            "identity": self.settings.identity,
        }


@define(eq=False)
class ForwardListener(LocalListener):
    """A port that stands for a mesh port."""

    settings: Forward = field(kw_only=True)

    @property
    def called(self) -> str:
        """What the log calls it."""
        return f"the forward on {self.address}"

    def side(self) -> Side:
        """A client."""
        return ForwardSide(self)

    def describe(self) -> Json:
        """With its target."""
        return {
            **LocalListener.describe(self),
            "to": proves(self.settings.to).hex(),
            "port": self.settings.port,
            "via": show_via(self.settings.via),
            "policy": self.settings.policy,
            "identity": self.settings.identity,
        }


def mesh_target(host: str, lookup: Callable[[str], Target]) -> Target:
    """The key in a name such as `<53 characters>.mesh`, or what a known name stands for in `<name>.mesh`;
    raises BadKeyError."""
    label = host.removesuffix(".mesh").rpartition(".")[2]
    try:
        return parse_dns_label(label)
    except BadKeyError:
        pass
    try:
        return lookup(label)
    except UsageError as problem:
        raise BadKeyError(str(problem)) from None


def _only_local(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def show(address: tuple[str, int]) -> str:
    """host:port, IPv6 in brackets."""
    host, port = address
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def show_via(via: tuple[PublicKey, ...] | None) -> list[str] | None:
    """A route in JSON; None: the configured one."""
    return None if via is None else [key.hex() for key in via]
