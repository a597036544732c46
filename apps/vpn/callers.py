"""Sides that go out: over the mesh to a port, over the mesh to an exit, over TCP to an address.

Each has an `answered` Deferred, which fires with the side once bytes may be joined to it, or fails with a
MeshError; `abandon` gives up at any time, and then nothing of it stays.
"""

from __future__ import annotations

import errno
from collections.abc import Callable, Sequence
from typing import Any, Final

from twisted.internet import error
from twisted.internet.defer import Deferred
from twisted.internet.endpoints import HostnameEndpoint, TCP4ClientEndpoint, TCP6ClientEndpoint
from twisted.internet.protocol import Factory
from twisted.python.failure import Failure

from apps.vpn.messages import (
    EXIT_PORT,
    LARGEST_REPLY,
    Code,
    ConnectError,
    ExitReply,
    associate,
    refusal,
    take,
)
from apps.vpn.splice import Role, Side
from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey
from meshnet.errors import CodecError
from meshnet.node.app import MeshNode
from meshnet.stream_transport import MeshAddress, connect_transport

ANSWER_SECONDS: Final = 150.0
"""So long an exit may take to answer; it gives up sooner itself."""


class Caller(Side):
    """A side that goes out."""

    def __init__(self, role: Role) -> None:
        super().__init__(role)
        self.answered: Deferred[Any] = Deferred()
        self.done = False  # `answered` has fired or will not

    def answer(self) -> None:
        """The other side can be joined now."""
        if not self.done:
            self.done = True
            self.answered.callback(self)

    def fail(self, why: Failure | BaseException) -> None:
        """There will be no connection."""
        if not self.done:
            self.done = True
            self.answered.errback(why)

    def abandon(self) -> None:
        """Nobody waits any more: ends the connection, now or when it comes."""
        self.done = True
        if self.transport is not None and not self.gone:
            self.transport.abortConnection()

    def closed(self, reason: Failure) -> None:
        """It ended before it was joined."""
        self.fail(reason)


class MeshCaller(Caller):
    """A stream to a mesh port; answered as soon as it is open."""

    def call(
        self,
        node: MeshNode,
        target: Target,
        port: int,
        via: Sequence[PublicKey] | None,
        identity: str,
        policy: str | None = None,
    ) -> None:
        """Opens the stream."""
        d = connect_transport(node, target, port, self._wanted, via=via, identity=identity, policy=policy)
        d.addErrback(self.fail)

    def opened(self) -> None:
        """The stream stands."""
        self.answer()

    def _wanted(self, peer: MeshAddress) -> MeshCaller | None:
        return None if self.done else self


class ExitCaller(MeshCaller):
    """A stream to an exit that does what `asking` (a request's bytes) says; answered when the exit says so.

    What the exit sent behind its answer is in `early`.
    """

    def __init__(self, role: Role, node: MeshNode, asking: bytes) -> None:
        super().__init__(role)
        self._asking = asking
        self._clock = node.clock
        self.early = bytearray()
        self._stop_waiting: Any = None

    def call_exit(
        self,
        node: MeshNode,
        target: Target,
        via: Sequence[PublicKey] | None,
        identity: str,
        policy: str | None = None,
    ) -> None:
        """Opens the stream and asks."""
        self.call(node, target, EXIT_PORT, via, identity, policy)

    def opened(self) -> None:
        """Asks."""
        self._stop_waiting = self._clock.call_later(ANSWER_SECONDS, self._waited)
        self.transport.write(self._asking)

    def received(self, data: bytes) -> None:
        """Reads the reply."""
        self.early += data
        if self.done:
            return
        try:
            found = take(ExitReply, self.early, LARGEST_REPLY)
        except CodecError as problem:
            self._give_up(ConnectError(Code.FAILED, f"the exit sent something else than a reply: {problem}"))
            return
        if found is None:
            return
        if found.code != Code.OK:
            self._give_up(refusal(found))
            return
        self._stop_waiting()
        self.transport.pauseProducing()  # until it is joined
        self.answer()

    def readConnectionLost(self) -> None:
        """Without a reply this is the end."""
        super().readConnectionLost()
        if not self.done:
            self._give_up(ConnectError(Code.FAILED, "the exit ended the stream without a reply"))

    def closed(self, reason: Failure) -> None:
        """It ended before it was joined."""
        if self._stop_waiting is not None:
            self._stop_waiting()
        super().closed(reason)

    def _waited(self) -> None:
        self._give_up(ConnectError(Code.TIMED_OUT, "the exit did not answer in time"))

    def _give_up(self, why: ConnectError) -> None:
        self._stop_waiting()
        self.fail(why)
        self.transport.abortConnection()


class AssociationCaller(ExitCaller):
    """A stream that stands for UDP at an exit; `over` is called once when it ends after it was answered."""

    def __init__(self, role: Role, node: MeshNode, name: bytes, over: Callable[[], None]) -> None:
        super().__init__(role, node, associate(name))
        self._over: Callable[[], None] | None = over

    def received(self, data: bytes) -> None:
        """The reply; afterwards an exit has nothing to say."""
        if self.done:
            self.transport.abortConnection()
        else:
            super().received(data)

    def readConnectionLost(self) -> None:
        """The exit ends it."""
        super().readConnectionLost()
        self.transport.loseConnection()

    def abandon(self) -> None:
        """The program has gone."""
        self._over = None
        super().abandon()

    def closed(self, reason: Failure) -> None:
        """It has ended."""
        answered = self.done
        super().closed(reason)
        over, self._over = self._over, None
        if answered and over is not None:
            over()


class TcpCaller(Caller):
    """A TCP connection to an address of the old internet."""

    _connecting: Deferred[Any] | None = None

    def call(self, reactor: Any, host: str, port: int, *, timeout: float, source: str = "") -> None:
        """Connects; `host` may be a name, and is looked up then. `source` is the address to bind to."""
        bind = (source, 0) if source else None
        seconds = max(1, round(timeout))
        endpoint: Any
        if _is_ip(host):
            made = TCP6ClientEndpoint if ":" in host else TCP4ClientEndpoint
            endpoint = made(reactor, host, port, timeout=seconds, bindAddress=bind)
        else:
            endpoint = HostnameEndpoint(reactor, host, port, timeout=seconds, bindAddress=bind)
        factory = Factory()
        factory.noisy = False
        factory.buildProtocol = lambda address: self  # type: ignore[method-assign, assignment]
        self._connecting = endpoint.connect(factory)
        self._connecting.addErrback(self._failed, f"{host}:{port}")

    def opened(self) -> None:
        """The connection stands."""
        if self.done:
            self.transport.abortConnection()
            return
        self.transport.setTcpNoDelay(True)
        self.answer()

    def abandon(self) -> None:
        """Nobody waits any more."""
        super().abandon()
        if self._connecting is not None:
            self._connecting.cancel()

    def _failed(self, failure: Failure, place: str) -> None:
        self.fail(tcp_error(failure.value, place))


def _is_ip(host: str) -> bool:
    return ":" in host or host.replace(".", "").isdigit()


def tcp_error(why: BaseException | None, place: str) -> ConnectError:
    """The error for a failed TCP connection to `place`, which is part of the sentence."""
    if isinstance(why, error.ConnectBindError):
        return ConnectError(
            Code.FAILED, f"cannot connect from the configured source address: {why.osError}", "source"
        )
    if isinstance(why, error.ConnectionRefusedError):
        return ConnectError(Code.REFUSED, f"{place} refused the connection")
    if isinstance(why, error.TimeoutError | error.UserError):
        return ConnectError(Code.TIMED_OUT, f"{place} did not answer in time")
    if isinstance(why, error.DNSLookupError | error.UnknownHostError):
        return ConnectError(Code.HOST_UNREACHABLE, f"{place}: no such name", "no_such_name")
    if isinstance(why, error.NoRouteError):
        return ConnectError(Code.NETWORK_UNREACHABLE, f"{place}: network unreachable")
    if isinstance(why, error.ConnectError) and why.osError == errno.EHOSTUNREACH:
        return ConnectError(Code.HOST_UNREACHABLE, f"{place}: host unreachable")
    return ConnectError(Code.FAILED, f"{place}: {type(why).__name__}")
