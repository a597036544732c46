"""The neighbours that the config names: each of their lanes is dialled, and dialled again, until it stands.

Lane 0 is dialled first; its HELLO tells how many lanes there are, and the others follow. While no lane of a
neighbour stands only lane 0 is tried. What becomes of a connection once its transport has made it, the driver
of the links knows; it tells here which lanes stand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Protocol

from attrs import define, field
from twisted.internet.defer import CancelledError, Deferred, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet.cipher.keys import PublicKey
from meshnet.errors import LinkLostError, MeshError
from meshnet.link.dialler import DiallerCore, DiallerInputs, make_dialler
from meshnet.transports.interface import Attach
from meshnet.transports.registry import Transports

_log = Logger()

Later = Callable[[float, Callable[[], None]], Callable[[], None]]


class CallOwner(Protocol):
    """Who makes connections of what transports bring: the driver of the links."""

    def attacher(self, key: PublicKey, number: int, address: str) -> Attach:
        """What takes a fresh connection to lane `number` of this neighbour."""

    def served(self, key: PublicKey, number: int) -> bool:
        """Whether that lane stands."""


@define(eq=False)
class Call:
    """One lane of a configured neighbour, kept connected."""

    peer: Peer
    number: int
    core: DiallerCore = field(init=False)
    dialler: DiallerInputs = field(init=False)


@define(eq=False)
class Peer:
    """A configured neighbour; it may have several addresses. `calls` are its lanes, by number."""

    key: PublicKey
    addresses: tuple[str, ...]
    calls: list[Call] = field(factory=list)

    @property
    def attempts(self) -> int:
        """Connections tried, over all lanes."""
        return sum(call.core.attempts for call in self.calls)

    @property
    def why(self) -> MeshError | None:
        """Why the last attempt failed; None if the lane stands or was not tried yet."""
        return self.calls[0].core.why


class Calls:
    """All configured neighbours of a node, by key in `peers`."""

    def __init__(
        self, owner: CallOwner, transports: Transports, later: Later, jitter: Callable[[], float]
    ) -> None:
        self.peers: dict[PublicKey, Peer] = {}
        self.attempts: set[Deferred[None]] = set()
        """Those under way in a transport."""
        self._owner = owner
        self._transports = transports
        self._later = later
        self._jitter = jitter

    def add(self, key: PublicKey, addresses: tuple[str, ...]) -> None:
        """Dials from now on. Raises ConfigError for what is no address."""
        for address in addresses:
            self._transports.find(address)
        peer = self.peers[key] = Peer(key, addresses)
        self._grow(peer, 1)

    def remove(self, key: PublicKey) -> None:
        """Dials this neighbour no more. An attempt under way ends with a connection that nobody wants."""
        peer = self.peers.pop(key, None)
        if peer is not None:
            self._shrink(peer, 0)

    def stop(self) -> None:
        """Dials no more; attempts under way are given up."""
        for call in self._all():
            call.dialler.stop()
        for attempt in list(self.attempts):
            attempt.cancel()

    def stands(self, key: PublicKey, number: int, lanes: int) -> None:
        """A connection of this lane has exchanged HELLOs, whoever dialled; the link has so many lanes."""
        peer = self.peers.get(key)
        if peer is not None:
            self._shrink(peer, lanes)
            if number < len(peer.calls):
                peer.calls[number].dialler.standing()
            self._grow(peer, lanes)

    def failed(self, key: PublicKey, number: int, why: MeshError) -> None:
        """An attempt has failed, or the lane has lost its connection."""
        peer = self.peers.get(key)
        if peer is not None and number < len(peer.calls):
            peer.calls[number].dialler.failed(why)

    def alone(self, key: PublicKey) -> None:
        """No lane of this neighbour stands any more: lane 0 is tried until it does."""
        peer = self.peers.get(key)
        if peer is not None:
            self._shrink(peer, 1)

    def renew(self, key: PublicKey, number: int) -> None:
        """Makes one more connection of a lane that stands."""
        peer = self.peers.get(key)
        if peer is not None and number < len(peer.calls):
            self.attempt(peer.calls[number])

    def hurry(self) -> None:
        """Nobody waits for his next attempt any longer."""
        for call in list(self._all()):
            call.dialler.hurry()

    def attempt(self, call: Call) -> None:
        """Asks the transport for a connection, whether the lane stands or not."""
        address = call.peer.addresses[call.core.place]
        transport, rest = self._transports.find(address)
        attach = self._owner.attacher(call.peer.key, call.number, address)
        attempt = maybeDeferred(transport.dial, rest, attach)
        self.attempts.add(attempt)
        attempt.addErrback(self._attempt_failed, call, address)
        attempt.addBoth(lambda _: self.attempts.discard(attempt))

    def _all(self) -> Iterator[Call]:
        for peer in self.peers.values():
            yield from peer.calls

    def _grow(self, peer: Peer, lanes: int) -> None:
        for number in range(len(peer.calls), lanes):
            call = Call(peer, number)
            call.core = DiallerCore(
                lambda call=call: self._dial(call),  # type: ignore[misc]
                self._later,
                self._jitter,
                len(peer.addresses),
                peer.calls[0].core.place if peer.calls else 0,
            )
            call.dialler = make_dialler(call.core)
            peer.calls.append(call)
            call.dialler.start()

    def _shrink(self, peer: Peer, lanes: int) -> None:
        for call in peer.calls[lanes:]:
            call.dialler.stop()
        del peer.calls[lanes:]

    def _dial(self, call: Call) -> None:
        if self._owner.served(call.peer.key, call.number):
            call.dialler.standing()
        else:
            self.attempt(call)

    def _attempt_failed(self, failure: Failure, call: Call, address: str) -> None:
        why = failure.value
        if isinstance(why, CancelledError):
            return
        if not isinstance(why, MeshError):
            _log.failure("dialling {address} failed", failure, address=address)
            why = LinkLostError(f"dialling {address} failed: {failure.getErrorMessage()}")
        if not self._owner.served(call.peer.key, call.number):
            call.dialler.failed(why)
