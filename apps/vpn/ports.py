"""Mesh ports that lead out of the mesh: the exit and served ports.

An exit reads a request, resolves the name itself, asks its policy about each resolved address, and connects
to that very address; it answers before any byte of the connection. A served port connects to its target at
once. A stream is refused before anything is read of it where its caller or the number of streams says so.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from attrs import define, evolve, field
from twisted.python.failure import Failure

from apps.vpn.callers import TcpCaller
from apps.vpn.destination import Address, Destination
from apps.vpn.exit_datagrams import Association, Associations
from apps.vpn.failures import Failures
from apps.vpn.listeners import show
from apps.vpn.messages import (
    EXIT_PORT,
    LARGEST_REQUEST,
    Code,
    ConnectError,
    ExitRequest,
    as_reason,
    asked,
    code_of,
    reply,
    take,
)
from apps.vpn.policy import Rule
from apps.vpn.resolve import resolve
from apps.vpn.settings import Callers, Exit, Serve
from apps.vpn.splice import Role, Side
from meshnet.cipher.keys import PublicKey
from meshnet.errors import CodecError, UsageError
from meshnet.node.app import Json, MeshNode
from meshnet.stream_transport import UNREACHABLE, accept_transport
from meshnet.streams import PortListener, Stream, StreamReader

REQUEST_SECONDS: Final = 10.0
"""From an exit stream's beginning to the end of its request."""
RESOLVE_SECONDS: Final = 10.0
ATTEMPTS: Final = 3
"""Addresses of one name that an exit tries."""
SERVE_STREAMS: Final = 1_024
"""Streams of one served port at a time."""
SERVE_CONNECT_SECONDS: Final = 10.0
RULES: Final = 4_096
"""Rules in one list."""

_REFUSALS: Final = {
    "denied": "the exit's deny-list names {}",
    "private": "{} is not a public address, and the exit's allow-list does not open it",
    "not_listed": "{} is not on the exit's allow-list",
}


_TURNED_AWAY: Final = {
    "caller": "somebody called who is not one of its callers",
    "max_streams": "as many streams are open as may be",
}


class PortSide(Side):
    """A stream from the mesh that is to be joined to a TCP connection; paused until then."""

    def __init__(self, role: Role) -> None:
        super().__init__(role)
        self.early = bytearray()
        self._caller: TcpCaller | None = None

    def received(self, data: bytes) -> None:
        """Keeps what came before the joint: one delivery, since the stream is paused."""
        self.early += data

    def closed(self, reason: Failure) -> None:
        """The caller left."""
        caller, self._caller = self._caller, None
        if caller is not None:
            caller.abandon()

    def start(self, caller: TcpCaller, call: Callable[[], None]) -> None:
        """Calls out; `ready` or `failed` follows."""
        self._caller = caller
        caller.to_mesh = True
        caller.answered.addCallbacks(self._answered, self._unanswered)
        call()

    def ready(self, caller: TcpCaller) -> None:
        """The TCP connection stands."""
        self.join(caller, bytes(self.early))
        self.early.clear()

    def failed(self, why: BaseException | None) -> None:
        """It does not."""
        self.role.counts.refuse(as_reason(why))
        self.transport.reset_connection(UNREACHABLE)

    def _answered(self, caller: TcpCaller) -> None:
        self._caller = None
        self.ready(caller)

    def _unanswered(self, failure: Failure) -> None:
        self._caller = None
        self.failed(failure.value)


class ServeSide(PortSide):
    """A stream to a served port."""

    def __init__(self, port: ServePort) -> None:
        super().__init__(port.role)
        self._port = port

    def opened(self) -> None:
        """Connects to the target."""
        self.transport.pauseProducing()
        caller = TcpCaller(self.role)
        host, number = self._port.settings.target
        reactor = self._port.node.reactor
        self.start(caller, lambda: caller.call(reactor, host, number, timeout=SERVE_CONNECT_SECONDS))

    def failed(self, why: BaseException | None) -> None:
        """Its operator may want to know."""
        self._port.note(str(why))
        super().failed(why)


class ExitSide(PortSide):
    """A stream to the exit."""

    def __init__(self, port: ExitPort) -> None:
        super().__init__(port.role)
        self._port = port
        self._stop_waiting: Callable[[], None] | None = None
        self._left: list[Address] = []
        self._where: Destination | None = None
        self._association: Association | None = None

    def opened(self) -> None:
        """Waits for the request."""
        self._stop_waiting = self._port.node.clock.call_later(REQUEST_SECONDS, self._waited)

    def received(self, data: bytes) -> None:
        """Reads the request; what follows it waits."""
        if self._association is not None:  # its client has nothing to say here
            self.transport.abortConnection()
            return
        self.early += data
        if self._where is not None:
            return
        try:
            found = take(ExitRequest, self.early, LARGEST_REQUEST)
            if found is None:
                return
            wanted = asked(found)
        except CodecError as problem:
            self.failed(ConnectError(Code.FAILED, str(problem), "malformed"))
            return
        self._stop()
        if isinstance(wanted, bytes):
            self._associate(wanted)
            return
        self._where = wanted
        self.transport.pauseProducing()
        self._resolve(self._where)

    def readConnectionLost(self) -> None:
        """Without a request this is the end."""
        super().readConnectionLost()
        if self._where is None:  # of an association this is the end as well
            self.transport.loseConnection()

    def closed(self, reason: Failure) -> None:
        """The caller left."""
        self._stop()
        if self._association is not None:
            self.role.counts.open -= 1
            self._port.associations.close(self._association)
        super().closed(reason)

    def _associate(self, name: bytes) -> None:
        """UDP under this name, for as long as the stream stands."""
        if not self.early:
            self._association = self._port.associations.open(name, self.transport.loseConnection)
        if self._association is None:
            text = "an association has a fresh name, and nothing behind it"
            self.failed(ConnectError(Code.FAILED, text, "malformed"))
            return
        self.role.counts.open += 1
        self.role.counts.streams += 1
        self.transport.write(reply(Code.OK))

    def ready(self, caller: TcpCaller) -> None:
        """Says so, then joins."""
        self.transport.write(reply(Code.OK))
        super().ready(caller)

    def failed(self, why: BaseException | None) -> None:
        """Tries the next address, or says why not."""
        if self.gone:
            return
        if self._left:
            self._try()
            return
        self._stop()
        self.role.counts.refuse(as_reason(why))
        self.transport.write(reply(code_of(why), str(why)))
        self.transport.loseConnection()

    def _resolve(self, where: Destination) -> None:
        if isinstance(where.host, str):
            node = self._port.node
            resolve(node.reactor, node.clock, where.host, RESOLVE_SECONDS).addCallback(self._resolved)
        else:
            self._resolved([where.host])

    def _resolved(self, found: list[Address]) -> None:
        where = self._where
        if self.gone or where is None:
            return
        name = where.host if isinstance(where.host, str) else ""
        if not found:
            self.failed(ConnectError(Code.HOST_UNREACHABLE, f"{name}: no such name", "no_such_name"))
            return
        policy = self._port.settings.policy
        verdicts = [(address, policy.refusal(name, address, where.port)) for address in found]
        allowed = [address for address, verdict in verdicts if not verdict]
        if not allowed:
            verdict = verdicts[0][1]
            text = _REFUSALS[verdict].format(name or where.host)
            self.failed(ConnectError(Code.NOT_ALLOWED, text, verdict))
            return
        source = self._port.settings.source
        if source:
            version = ip_address(source).version
            allowed = [address for address in allowed if address.version == version]
        self._left = allowed[:ATTEMPTS]
        if not self._left:
            text = f"{where} has no address of the kind that this exit connects from"
            self.failed(ConnectError(Code.NETWORK_UNREACHABLE, text))
            return
        self._seconds = self._port.settings.connect_timeout / len(self._left)
        self._try()

    def _try(self) -> None:
        assert self._where is not None
        address, port = self._left.pop(0), self._where.port
        caller = TcpCaller(self.role)
        reactor, source = self._port.node.reactor, self._port.settings.source
        self.start(
            caller,
            lambda: caller.call(reactor, str(address), port, timeout=self._seconds, source=source),
        )

    def _waited(self) -> None:
        self._stop_waiting = None
        self.failed(ConnectError(Code.TIMED_OUT, "no request came", "request_timeout"))

    def _stop(self) -> None:
        if self._stop_waiting is not None:
            self._stop_waiting()
            self._stop_waiting = None


@define(eq=False)
class MeshPort:
    """A mesh port that accepts streams from some callers, so many at a time."""

    node: MeshNode
    role: Role
    _listener: PortListener | None = field(default=None, init=False)
    _sides: set[Side] = field(factory=set, init=False)

    @property
    def callers(self) -> Callers:
        """Who may connect."""
        raise NotImplementedError

    def most(self) -> int:
        """Streams at a time."""
        raise NotImplementedError

    def side(self) -> Side:
        """A side for a fresh stream."""
        raise NotImplementedError

    def note(self, text: str) -> None:
        """A stream was refused or failed for this reason, a sentence."""

    def listen(self, port: int, service: str | None = None) -> None:
        """Takes the mesh port, perhaps of a hidden service; raises LocalError if it is taken."""
        self._listener = self.node.listen(port, self._accept, service)

    def stop(self) -> None:
        """Accepts no more; streams stay."""
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()

    @property
    def listening(self) -> bool:
        """Whether it accepts streams."""
        return self._listener is not None

    def _accept(self, stream: Stream) -> StreamReader | None:
        refusal = self._refusal(stream.peer)
        if refusal:
            self.role.counts.refuse(refusal)
            self.note(_TURNED_AWAY[refusal])
            return None
        side = self.side()
        self._sides.add(side)
        return accept_transport(self.node, stream, lambda peer: side)

    def _refusal(self, caller: PublicKey | None) -> str:
        if self.callers != "any" and caller not in self.callers:
            return "caller"
        self._sides = {side for side in self._sides if not side.gone}
        return "max_streams" if len(self._sides) >= self.most() else ""


@define(eq=False)
class ServePort(MeshPort):
    """A mesh port that stands for a local address."""

    settings: Serve = field(kw_only=True)
    failures: Failures = field(init=False)

    def __attrs_post_init__(self) -> None:
        self.failures = Failures(self.node.clock)

    def note(self, text: str) -> None:
        """Logged, and shown by `status`."""
        self.failures.note(f"served mesh port {self.settings.port}", text)

    @property
    def callers(self) -> Callers:
        """By config."""
        return self.settings.callers

    def most(self) -> int:
        """A fixed number."""
        return SERVE_STREAMS

    def side(self) -> Side:
        """A stream."""
        return ServeSide(self)

    def describe(self) -> Json:
        """What `status` and the verb show."""
        return {
            "port": self.settings.port,
            "target": show(self.settings.target),
            "callers": show_callers(self.settings.callers),
            "address": self.settings.address,
            **self.failures.describe(),
        }


@define(eq=False)
class ExitPort(MeshPort):
    """The exit; its settings may change while it runs and count for new streams."""

    settings: Exit = field(kw_only=True)
    associations: Associations = field(init=False)
    _datagrams: PortListener | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.associations = Associations(self.node, lambda: self.settings, self.role.counts)

    def listen(self, port: int, service: str | None = None) -> None:
        """Takes the mesh port, and the datagram port of its number."""
        super().listen(port, service)
        self._datagrams = self.node.listen_datagrams(port, self.associations.receive, service)

    def stop(self) -> None:
        """Accepts no more; streams and associations stay, but their datagrams come no more."""
        super().stop()
        listener, self._datagrams = self._datagrams, None
        if listener is not None:
            listener.stop()

    @property
    def callers(self) -> Callers:
        """By config."""
        return self.settings.callers

    def most(self) -> int:
        """By config."""
        return self.settings.max_streams

    def side(self) -> Side:
        """A stream."""
        return ExitSide(self)

    def apply(self) -> None:
        """Listens, or stops, as the settings say."""
        if self.settings.enabled and not self.listening:
            self.listen(EXIT_PORT)
        elif not self.settings.enabled and self.listening:
            self.stop()

    def change(
        self,
        enabled: bool | None,
        allow: tuple[Rule, ...],
        deny: tuple[Rule, ...],
        remove: tuple[str, ...],
    ) -> None:
        """Turns it on or off, adds rules, and removes rules (from either list) by their text.

        Raises UsageError for a text that is in no list.
        """
        old = self.settings
        known = {entry.text for entry in (*old.allow, *old.deny)}
        for text in remove:
            if text not in known:
                raise UsageError(f"No rule {text!r}; there are: {', '.join(sorted(known)) or 'none'}.")
        self.settings = evolve(
            old,
            enabled=old.enabled if enabled is None else enabled,
            allow=_merge(old.allow, allow, remove),
            deny=_merge(old.deny, deny, remove),
        )
        self.apply()

    def describe(self) -> Json:
        """What `status` and the verb show."""
        settings = self.settings
        return {
            "enabled": settings.enabled,
            "port": EXIT_PORT,
            "callers": show_callers(settings.callers),
            "allow": [entry.text for entry in settings.allow],
            "deny": [entry.text for entry in settings.deny],
            "max_streams": settings.max_streams,
            "source": settings.source,
            "connect_timeout": settings.connect_timeout,
            "rate": settings.rate,
        }


def _merge(old: tuple[Rule, ...], more: tuple[Rule, ...], remove: tuple[str, ...]) -> tuple[Rule, ...]:
    merged: dict[str, Any] = {entry.text: entry for entry in (*old, *more) if entry.text not in remove}
    if len(merged) > RULES:
        raise UsageError(f"A list has at most {RULES} rules.")
    return tuple(merged.values())


def show_callers(callers: Callers) -> str | list[str]:
    """`any`, or keys in hex."""
    return "any" if callers == "any" else [key.hex() for key in callers]
