"""Beacons on the machine's local networks: sends ours, hears others, and has the router dial a few.

UDP port 7783, to 239.255.77.83 (RFC 2365) and ff12::4d53 (RFC 4291, link-local, not assigned), on each
interface that broadcasts: cables and radio, not tunnels; of these only on those that the config names, if it
names any. Hops are limited to one: no router passes them on.
Beacons of both families are heard; ours are sent over that in which the node listens, since who hears one
dials where it came from. Without IPv6, or without a network at all, the node runs all the same. Who is found
is a neighbour until he is silent or the node ends; what the config names is never touched.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from struct import pack, unpack_from
from typing import Any, Final, Protocol

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.internet.interfaces import IReadDescriptor
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError
from meshnet.node.app import Clock, Json
from meshnet.node.config import LinkSettings
from meshnet.topology.beacon import SIZE, Beacons, Found, Lost
from meshnet.transports.tcp import join, split

PORT: Final = 7_783
GROUPS: Final = {socket.AF_INET: "239.255.77.83", socket.AF_INET6: "ff12::4d53"}
DATAGRAMS_PER_TURN: Final = 32
_SIOCGIFFLAGS: Final = 0x8913
_IP_MULTICAST_ALL: Final = 49  # ip(7)
_IPV6_MULTICAST_ALL: Final = 29  # linux/in6.h
_WANTED: Final = 0x1 | 0x2 | 0x1000  # up, broadcasts, multicasts (netdevice(7))

_log = Logger()


class Dialling(Protocol):
    """What is needed of the router."""

    def add_peer(self, key: PublicKey, *addresses: str) -> None:
        """Keeps a link to this neighbour."""

    def remove_peer(self, key: PublicKey) -> None:
        """Ends it."""


def interfaces(names: Sequence[str] = ()) -> list[tuple[int, str]]:
    """Number and name of each interface that is up, broadcasts and multicasts; of these names, if there are
    any."""
    there = socket.if_nameindex()
    return [(number, name) for number, name in there if (not names or name in names) and _fits(name)]


def _fits(name: str) -> bool:
    try:
        from fcntl import ioctl

        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            flags = unpack_from("=H", ioctl(probe, _SIOCGIFFLAGS, pack("16sH14x", name.encode(), 0)), 16)[0]
    except OSError:  # not Linux
        return not name.startswith(("lo", "utun", "tun", "gif", "stf", "mesh"))
    return bool(flags & _WANTED == _WANTED)


@implementer(IReadDescriptor)
class Ear:
    """A socket that hears beacons of one family, and sends ours."""

    def __init__(
        self, reactor: Any, family: socket.AddressFamily, hear: Callable[[bytes, str], None]
    ) -> None:
        self._reactor = reactor
        self.family = family
        self._hear = hear
        self._joined: set[int] = set()
        self._socket = socket.socket(family, socket.SOCK_DGRAM)
        try:
            self._socket.setblocking(False)
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
                self._socket.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_HOPS, 1)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
            self._only_joined()
            self._socket.bind(("::" if family == socket.AF_INET6 else GROUPS[family], PORT))
        except OSError:
            self._socket.close()
            raise
        reactor.addReader(self)

    def say(self, data: bytes, where: Sequence[tuple[int, str]]) -> int:
        """Sends to the group on each of these interfaces, if there is anything; joins those that are new. On
        how many it was sent."""
        sent = 0
        for number, _ in where:
            with suppress(OSError):  # an interface without an address of this family, or just gone
                self._on(number)
                if data:
                    self._socket.sendto(data, self._group(number))
                    sent += 1
        return sent

    def _only_joined(self) -> None:
        """Linux: not what comes by interfaces where only other programs of the machine have joined."""
        with suppress(OSError):
            if self.family == socket.AF_INET6:
                self._socket.setsockopt(socket.IPPROTO_IPV6, _IPV6_MULTICAST_ALL, 0)
            else:
                self._socket.setsockopt(socket.IPPROTO_IP, _IP_MULTICAST_ALL, 0)

    def _group(self, number: int) -> tuple[Any, ...]:
        group = (GROUPS[self.family], PORT)
        return (*group, 0, number) if self.family == socket.AF_INET6 else group

    def _on(self, number: int) -> None:
        if self.family == socket.AF_INET6:
            level, out, enter = socket.IPPROTO_IPV6, socket.IPV6_MULTICAST_IF, socket.IPV6_JOIN_GROUP
            one = pack("=I", number)
            group = socket.inet_pton(self.family, GROUPS[self.family]) + one
        else:
            level, out, enter = socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.IP_ADD_MEMBERSHIP
            tail = bytes(4) + pack("=i", number)
            one, group = bytes(4) + tail, socket.inet_aton(GROUPS[self.family]) + tail
        if number not in self._joined:
            with suppress(OSError):  # joined before, under another life of the interface
                self._socket.setsockopt(level, enter, group)
            self._joined.add(number)
        self._socket.setsockopt(level, out, one)

    def fileno(self) -> int:
        """The socket's."""
        return self._socket.fileno()

    def doRead(self) -> None:
        """A few datagrams; the rest in the next turn."""
        for _ in range(DATAGRAMS_PER_TURN):
            try:
                data, source = self._socket.recvfrom(SIZE + 1)
            except OSError:
                return
            if self.family == socket.AF_INET or source[0].startswith("fe80:"):  # of this network alone
                self._hear(data, _host(source))

    def connectionLost(self, reason: Failure) -> None:
        """The reactor ends."""
        self.stop()

    def logPrefix(self) -> str:
        """For Twisted's log."""
        return "beacons"

    def stop(self) -> None:
        """Hears no more."""
        if self._socket.fileno() >= 0:
            self._reactor.removeReader(self)
            self._socket.close()


def port_of(listening: Sequence[str]) -> tuple[int, socket.AddressFamily] | None:
    """The TCP port, and the family, at which others of the local network reach this node; None if there is
    none. The first listener decides."""
    for address in listening:
        transport, _, rest = address.partition(":")
        if transport == "tcp":
            host, port = split(rest)
            if not host.startswith("127.") and host != "::1":
                return port, socket.AF_INET6 if ":" in host else socket.AF_INET
    return None


def wanted(settings: LinkSettings, key: PublicKey) -> bool:
    """Whether a node may be dialled for having been heard: one that might dial us, and that the config does
    not dial already."""
    accepted = settings.accept == "any" or key in settings.accept
    return accepted and all(peer.key != key for peer in settings.peer)


def _host(source: Any) -> str:
    """An address to dial; a link-local one with its interface."""
    host = str(source[0])
    if len(source) == 4 and source[3] and "%" not in host:
        with suppress(OSError):
            return f"{host}%{socket.if_indextoname(source[3])}"
    return host


class Lan:
    """Beacons of one node, from `start` until `stop`, on the interfaces of these `names` (none: on all that
    `where` tells). `sent` counts datagrams."""

    def __init__(
        self,
        reactor: Any,
        clock: Clock,
        core: Beacons,
        router: Dialling,
        family: socket.AddressFamily,
        names: Sequence[str] = (),
        where: Callable[[Sequence[str]], list[tuple[int, str]]] = interfaces,
    ) -> None:
        self._reactor = reactor
        self._clock = clock
        self._core = core
        self._router = router
        self._family = family
        self._names = names
        self._where = where
        self.sent = 0
        self._ears: list[Ear] = []
        self._cancel: Callable[[], None] = lambda: None
        self.peers: dict[PublicKey, str] = {}
        """Whom this node dials for having heard them, and where."""

    def start(self) -> list[str]:
        """Begins; sentences about what does not work here."""
        notes = []
        for family in GROUPS:
            try:
                self._ears.append(Ear(self._reactor, family, self._hear))
            except OSError as problem:
                notes.append(f"No beacons over {family.name[3:]}: {problem.strerror or problem}.")
        self._turn()
        missing = sorted(set(self._names) - {name for _, name in self._where(self._names)})
        off = [f"[lan] interfaces: {name} is missing, or is down, or does not broadcast." for name in missing]
        return off if self._ears else notes

    def stop(self) -> None:
        """Sends and hears no more. Links stay until the router ends them."""
        self._cancel()
        for ear in self._ears:
            ear.stop()
        self._ears.clear()

    def leave(self, keys: Sequence[PublicKey]) -> None:
        """These are the config's from now on."""
        for key in keys:
            if self.peers.pop(key, None) is not None:
                self._router.remove_peer(key)

    def status(self) -> Json:
        """How many are heard, and who is dialled."""
        return {
            "heard": self._core.heard,
            "sent": self.sent,
            "received": self._core.received,
            "dropped": self._core.dropped,
            "dialled": {key.hex(): address for key, address in self.peers.items()},
        }

    def _hear(self, data: bytes, host: str) -> None:
        before = self._core.deadline()
        self._core.receive(data, host, self._clock.now(), self._clock.unix())
        if self._core.deadline() < before:
            self._plan()

    def _turn(self) -> None:
        data, told = self._core.tick(self._clock.now(), self._clock.unix())
        if data is not None:
            where = self._where(self._names)
            for ear in self._ears:
                self.sent += ear.say(data if ear.family == self._family else b"", where)
        for event in told:
            self._take(event)
        self._plan()

    def _take(self, event: Found | Lost) -> None:
        if isinstance(event, Lost):
            if self.peers.pop(event.key, None) is not None:
                self._router.remove_peer(event.key)
            return
        address = f"tcp:{join(event.host, event.port)}"
        try:
            self._router.add_peer(event.key, address)
        except MeshError as error:
            _log.warn("a node of the local network cannot be dialled: {why}", why=str(error))
            return
        self.peers[event.key] = address
        _log.info("found {key} on the local network, at {at}", key=event.key.hex()[:16], at=address)

    def _plan(self) -> None:
        self._cancel()
        delay = max(self._core.deadline() - self._clock.now(), 0.05)
        self._cancel = self._clock.call_later(delay, self._turn)


def lan_facts(lan: Lan | None) -> Iterable[Metric]:
    """Its metrics; zeros for a node that sends no beacons."""
    status = {} if lan is None else lan.status()
    beacons = CounterMetricFamily(
        "meshnet_lan_beacons",
        "Beacons sent, received and believed, refused: late, too many, of another network, or none.",
        labels=["outcome"],
    )
    for outcome, key in (("sent", "sent"), ("received", "received"), ("refused", "dropped")):
        beacons.add_metric([outcome], status.get(key, 0))
    yield beacons
    yield GaugeMetricFamily("meshnet_lan_heard", "Nodes of local networks heard.", status.get("heard", 0))
    dialled = len(status.get("dialled", ()))
    yield GaugeMetricFamily("meshnet_lan_dialled", "Of them those that this node dials.", dialled)
