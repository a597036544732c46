"""The exit's side of UDP: associations, each with sockets of its own towards the old internet.

An association belongs to a stream (`ports.py`) and ends with it. Its datagrams leave from one socket per
family, so that a program keeps its port towards everybody; only hosts that it sent to may answer. Names are
resolved here, each resolved address asked of the policy; what is found is remembered for `NAME_SECONDS`.
Everything that a client can make it hold is bounded by the numbers below; what is too much is dropped and
counted, as datagrams are.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from ipaddress import ip_address
from typing import Any, Final

from attrs import define, field
from twisted.internet.error import CannotListenError, MessageLengthError
from twisted.internet.protocol import DatagramProtocol

from apps.vpn.bucket import Bucket
from apps.vpn.counts import Counts
from apps.vpn.datagrams import from_mesh, to_mesh
from apps.vpn.destination import Address, Destination, plain
from apps.vpn.resolve import resolve
from apps.vpn.settings import Exit
from meshnet.errors import CodecError
from meshnet.node.app import Datagram, MeshNode

IDLE_SECONDS: Final = 300.0
"""An association without a datagram either way ends after so long."""
NAME_SECONDS: Final = 60.0
"""So long an address of a name is remembered, found or not."""
PLACES: Final = 256
"""Destinations that one association remembers, the latest."""
HOSTS: Final = 1_024
"""Hosts that may answer one association, the latest it sent to."""
LOOKUPS: Final = 16
"""Names of one association that are looked up at a time."""
WAITING: Final = 8
"""Datagrams that wait for one of them."""
RESOLVE_SECONDS: Final = 10.0


@define
class _Place:
    """What is known of a destination: its address (None: nothing goes there) and until when."""

    address: Address | None
    until: float


@define(eq=False)
class Association:
    """One of them. `over` is called once, when it ends by itself."""

    name: bytes
    node: MeshNode
    settings: Callable[[], Exit]
    counts: Counts
    over: Callable[[], None]
    bucket: Bucket
    _reply: Callable[[bytes], bool] | None = None
    _sockets: dict[int, _Socket] = field(factory=dict)
    _places: OrderedDict[Destination, _Place] = field(factory=OrderedDict)
    _hosts: OrderedDict[str, None] = field(factory=OrderedDict)
    _lookups: dict[Destination, list[bytes]] = field(factory=dict)
    _judged_by: Exit | None = None
    _active: float = 0.0
    _stop_watching: Callable[[], None] | None = None
    _closed: bool = False

    def start(self) -> None:
        """Watches for idleness from now on."""
        self._active = self.node.clock.now()
        self._watch(IDLE_SECONDS)

    def close(self) -> None:
        """Ends it; nothing is sent or received any more."""
        self._closed = True
        if self._stop_watching is not None:
            self._stop_watching()
            self._stop_watching = None
        for each in self._sockets.values():
            each.transport.stopListening()
        self._sockets.clear()
        self._lookups.clear()
        self._reply = None

    # from the client

    def send(self, where: Destination, payload: memoryview, reply: Callable[[bytes], bool]) -> None:
        """A datagram of the client; answers go back the way that the latest came."""
        self._reply = reply
        now = self._active = self.node.clock.now()
        if not self.bucket.take(len(payload), now):
            self.counts.refuse("rate")
            return
        settings = self.settings()
        if settings is not self._judged_by:  # other rules: nothing that the old ones allowed
            self._places.clear()
            self._hosts.clear()
            self._judged_by = settings
        place = self._places.get(where)
        if place is not None and place.until > now:
            self._emit(where, place, payload)
        elif isinstance(where.host, str):
            self._look_up(where, where.host, payload)
        else:
            self._emit(where, self._judge(where, [where.host]), payload)

    def _look_up(self, where: Destination, name: str, payload: memoryview) -> None:
        waiting = self._lookups.get(where)
        if waiting is not None and len(waiting) < WAITING:
            waiting.append(bytes(payload))
        elif waiting is None and len(self._lookups) < LOOKUPS:
            self._lookups[where] = [bytes(payload)]
            found = resolve(self.node.reactor, self.node.clock, name, RESOLVE_SECONDS)
            found.addCallback(lambda addresses: self._resolved(where, addresses))
        else:
            self.counts.refuse("lookups")

    def _resolved(self, where: Destination, addresses: list[Address]) -> None:
        waiting = self._lookups.pop(where, [])
        if not self._closed:
            place = self._judge(where, addresses)
            for payload in waiting:
                self._emit(where, place, memoryview(payload))

    def _judge(self, where: Destination, addresses: list[Address]) -> _Place:
        """What the policy says of a destination with these addresses; remembered."""
        settings = self.settings()
        name = where.host if isinstance(where.host, str) else ""
        verdict, chosen = "no_such_name", None
        source = ip_address(settings.source) if settings.source else None
        for address in addresses:
            verdict = settings.policy.refusal(name, address, where.port)
            if not verdict and source is not None and source.version != address.version:
                verdict = "network_unreachable"
            if not verdict:
                chosen = plain(address)
                break
        if chosen is None:
            self.counts.refuse(verdict)
        place = self._places[where] = _Place(chosen, self.node.clock.now() + NAME_SECONDS)
        self._places.move_to_end(where)
        if len(self._places) > PLACES:
            self._places.popitem(last=False)
        return place

    def _emit(self, where: Destination, place: _Place, payload: memoryview) -> None:
        if place.address is None:
            return
        host = str(place.address)
        self._hosts[host] = None
        self._hosts.move_to_end(host)
        if len(self._hosts) > HOSTS:
            self._hosts.popitem(last=False)
        try:
            self._socket(place.address.version).transport.write(bytes(payload), (host, where.port))
        except (OSError, MessageLengthError, CannotListenError):  # no such network, too large, no socket left
            self.counts.refuse("not_sent")
            return
        self.counts.from_mesh += len(payload)

    def _socket(self, version: int) -> _Socket:
        found = self._sockets.get(version)
        if found is None:
            found = _Socket(self)
            interface = self.settings().source or ("::" if version == 6 else "0.0.0.0")  # noqa: S104
            self.node.reactor.listenUDP(0, found, interface=interface, maxPacketSize=65_535)
            self._sockets[version] = found
        return found

    # from the old internet

    def answer(self, host: str, port: int, data: bytes) -> None:
        """A datagram of a host; those that the client never sent to are not heard."""
        address = plain(ip_address(host.partition("%")[0]))
        if str(address) not in self._hosts or port == 0 or self._reply is None:
            self.counts.refuse("uninvited")
            return
        now = self._active = self.node.clock.now()
        if not self.bucket.take(len(data), now):
            self.counts.refuse("rate")
        elif self._reply(to_mesh(self.name, Destination(address, port), data)):
            self.counts.to_mesh += len(data)
        else:
            self.counts.refuse("queue")

    def _watch(self, seconds: float) -> None:
        self._stop_watching = self.node.clock.call_later(seconds, self._look)

    def _look(self) -> None:
        left = self._active + IDLE_SECONDS - self.node.clock.now()
        if left > 0:
            self._watch(left)
            return
        self._stop_watching = None
        self.counts.refuse("idle")
        self.over()


class _Socket(DatagramProtocol):
    """A UDP socket of an association."""

    transport: Any

    def __init__(self, association: Association) -> None:
        self._association = association

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """An answer, perhaps."""
        self._association.answer(addr[0], addr[1], datagram)


@define(eq=False)
class Associations:
    """Those of an exit, by name; a mesh datagram for none of them is dropped."""

    node: MeshNode
    settings: Callable[[], Exit]
    counts: Counts
    _all: dict[bytes, Association] = field(factory=dict)

    def open(self, name: bytes, over: Callable[[], None]) -> Association | None:
        """A fresh one; None if there is one of this name."""
        if name in self._all:
            return None
        bucket = Bucket(self.settings().rate, self.node.clock.now())
        made = Association(name, self.node, self.settings, self.counts, over, bucket)
        self._all[name] = made
        made.start()
        return made

    def close(self, association: Association) -> None:
        """Its stream has ended."""
        if self._all.pop(association.name, None) is not None:
            association.close()

    def receive(self, datagram: Datagram) -> None:
        """A mesh datagram to the exit's port."""
        try:
            name, where, payload = from_mesh(datagram.data)
        except CodecError:
            self.counts.refuse("malformed")
            return
        association = self._all.get(name)
        if association is None:
            self.counts.refuse("no_association")
        else:
            association.send(where, payload, datagram.reply)
