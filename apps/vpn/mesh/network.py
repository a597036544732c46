"""The mesh interface of a node: packets to `fc00::/8` travel as packets of streams between the two nodes.

A packet to an address whose key is known calls that node's mesh port MESH_PORT and says who calls
(`identity = "node"`). What comes over a stream must come from the address of the key at its other end, so
that an address here proves a key, as nowhere else. The stream itself carries no bytes; those that come are
for later versions, and thrown away.

Nobody's addresses, nodes that cannot be reached, and packets that fit into no cell are answered by ICMPv6.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from ipaddress import IPv6Address, IPv6Interface
from random import SystemRandom
from typing import Final

from attrs import evolve
from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from apps.vpn.bucket import Bucket
from apps.vpn.mesh.addresses import NETWORK, Addresses
from apps.vpn.mesh.peer import FIRST_REST, STANDS, PeerCore, PeerInputs, make_peer
from apps.vpn.packets import icmp
from apps.vpn.packets.faults import Fault, named
from apps.vpn.packets.virtio import AHEAD, HEADER
from apps.vpn.settings import Tun as TunSettings
from apps.vpn.tun.device import MOST_MTU, Device
from apps.vpn.tun.flow import PacketFlow, Totals
from apps.vpn.tun.mtu import KeptMtu
from apps.vpn.tun.reader import Tun
from apps.vpn.tun.rtnetlink import add_address, add_route
from apps.vpn.ways import pick_way
from meshnet.cipher.keys import PublicKey, mesh_ipv6
from meshnet.errors import LocalError, MeshError
from meshnet.limits import TUN_ANSWERS_PER_SECOND
from meshnet.node.app import Json, MeshNode
from meshnet.streams import PortListener, Stream, StreamReader

MESH_PORT: Final = 1_082
"""The mesh port of a node's mesh interface."""
REFRESH_SECONDS: Final = 1.0
"""How often it is looked up at most who is known."""
LOOK_SECONDS: Final = 5.0
"""How often flows are looked at for having become quiet."""

_log = Logger()

OpenDevice = Callable[[TunSettings, IPv6Interface], Device]
"""Opens the interface with its address, and with the route to the mesh."""


def _noted(what: str) -> None:
    _log.warn("{what}", what=what)


class PeerReader:
    """One of the streams of a peer: says when it is over."""

    def __init__(self, network: MeshNetwork, peer: Peer) -> None:
        self.stream: Stream | None = None
        self._network = network
        self._peer = peer

    def data_received(self, data: memoryview) -> None:
        """Words of later versions."""
        if self.stream is not None:
            self.stream.consumed(len(data))

    def finished(self) -> None:
        """Nothing is said beside packets anyway."""

    def lost(self, why: MeshError) -> None:
        """The stream is over."""
        if self.stream is not None:
            self._peer.lost(self.stream, why)

    def drained(self) -> None:
        """Nothing was written."""


class Peer:
    """Another node, as long as packets pass."""

    def __init__(self, network: MeshNetwork, core: PeerCore) -> None:
        self.core = core
        self.inputs: PeerInputs = make_peer(core)
        self._network = network

    def lost(self, stream: Stream, why: MeshError) -> None:
        """One of the two streams is over."""
        ours = stream is self.core.ours
        if not self.core.drop(stream):
            return
        if ours and self._network.now() - self.core.since < STANDS:
            self.inputs.broke(why)
        else:
            self.core.rest = FIRST_REST
            self.inputs.alone()


class MeshNetwork:
    """The interface and its peers; `start` and `stop` once each.

    `gone` is told when the interface vanishes. `names` is what is known of others.
    """

    def __init__(
        self,
        node: MeshNode,
        settings: TunSettings,
        open_device: OpenDevice,
        gone: Callable[[MeshError], None],
    ) -> None:
        self.settings = settings
        self.address = mesh_ipv6(node.public_key)
        self.names = Addresses(node.public_key, node.name)
        self._node = node
        self._gone = gone
        self._open = open_device
        self._peers: dict[bytes, Peer] = {}
        self._by_key: dict[PublicKey, Peer] = {}
        self._listener: PortListener | None = None
        self._answers = Bucket(TUN_ANSWERS_PER_SECOND, node.clock.now())
        self._cancel: Callable[[], None] = lambda: None
        self._choose = SystemRandom().choice
        self._refreshed = -REFRESH_SECONDS
        self.totals = Totals()
        self.tun: Tun
        self._mtu: KeptMtu

    def start(self) -> None:
        """Opens the interface and the mesh port; raises LocalError, UsageError."""
        node = self._node
        self.refresh()
        self._listener = node.listen(MESH_PORT, self._accept)
        try:
            device = self._open(self.settings, IPv6Interface(f"{self.address}/128"))
        except BaseException:
            self._listener.stop()
            raise
        self.tun = Tun(device, node.reactor, node.clock.now, self._vanished, node.turn)
        self.tun.too_large = self._too_large
        self.tun.routed(self._find)
        self._mtu = KeptMtu(device, node.reactor, _noted, self._mtu_changed, MOST_MTU)
        self.tun.start()
        self._cancel = node.clock.call_later(LOOK_SECONDS, self._look)

    def stop(self) -> None:
        """Hangs up on everybody; the interface goes."""
        self._cancel()
        if self._listener is not None:
            self._listener.stop()
            self._listener = None
        for peer in list(self._peers.values()):
            self._forget(peer)
        self._mtu.stop()
        self.tun.stop()

    def _mtu_changed(self) -> None:
        """With an MTU that was too small for IPv6 the address went, and the route."""
        device = self.tun.device
        try:
            add_address(device.name, device.index, IPv6Interface(f"{self.address}/128"))
            add_route(device.name, device.index, NETWORK)
        except MeshError as why:
            _log.warn("{why}", why=why)

    def now(self) -> float:
        """Monotonic seconds."""
        return self._node.clock.now()

    def refresh(self) -> None:
        """Reads again who is known, if that was not done just now: the config may have been read again, a
        neighbour have come."""
        if self.now() - self._refreshed >= REFRESH_SECONDS:
            self._refreshed = self.now()
            self.names.take(self._node.known(), self._node.neighbours())

    def sums(self) -> Totals:
        """What has passed since the start, by all peers together."""
        sums = evolve(
            self.totals, dropped_in=[*self.totals.dropped_in], dropped_out=[*self.totals.dropped_out]
        )
        for peer in self._peers.values():
            sums.add(peer.core.flow)
        for fault, number in enumerate(self.tun.strays):
            sums.dropped_out[fault] += number
        return sums

    @property
    def reached(self) -> int:
        """Nodes that packets pass to or from now."""
        return sum(peer.core.state == "joined" for peer in self._peers.values())

    def status(self) -> Json:
        """The interface and who is reached over it."""
        device = self.tun.device
        return {
            "interface": device.name,
            "address": str(self.address),
            "mtu": device.mtu,
            "up": device.alive(),
            "offloads": device.offloads,
            "peers": [self._describe(peer.core) for peer in self._peers.values()],
            "superseded": self.tun.superseded,
            "dropped": named(self.tun.strays),
        }

    def _describe(self, core: PeerCore) -> Json:
        stream = core.stream
        figures = stream.flow() if stream is not None else None
        return {
            "key": core.key.hex(),
            "name": self.names.name(core.key),
            "address": str(mesh_ipv6(core.key)),
            "state": core.state,
            "called": "by us"
            if stream is not None and stream is core.ours
            else "by them"
            if stream
            else None,
            "via": [key.hex() for key in core.via] if stream is core.ours else None,
            "rtt_ms": round(figures.rtt * 1000, 3) if figures is not None and figures.rtt else None,
            "rate": round(figures.rate) if figures is not None else 0,
            "why": str(core.why) if core.why is not None else None,
            **core.flow.as_json(),
        }

    # packets of the device

    def _find(self, frame: memoryview) -> PacketFlow | None:
        address = bytes(frame[HEADER + 24 : HEADER + 40])
        peer = self._peers.get(address)
        if peer is None or peer.core.state not in ("joined", "calling"):
            return self._wake(frame, address, peer)
        return peer.core.flow

    def _wake(self, frame: memoryview, address: bytes, peer: Peer | None) -> PacketFlow | None:
        """A packet to who is not called yet."""
        if frame[HEADER] >> 4 != 6 or address[0] != 0xFC:
            self.tun.strays[Fault.TARGET] += 1  # multicast of the kernel's own, as a rule
            return None
        if bytes(frame[HEADER + 8 : HEADER + 24]) != self.address.packed:
            self.tun.strays[Fault.SOURCE] += 1
            return None
        if peer is None:
            key = self._key(address)
            if key is None or key == self._node.public_key:
                self.tun.strays[Fault.UNKNOWN] += 1
                self._answer(frame)
                return None
            peer = self._new(key, address)
            if peer is None:
                self.tun.strays[Fault.FULL] += 1
                self._answer(frame)
                return None
        peer.inputs.packet()
        if peer.core.state == "resting":
            peer.core.flow.dropped_out[Fault.GONE] += 1
            self._answer(frame)
            return None
        return peer.core.flow

    def _key(self, address: bytes) -> PublicKey | None:
        key = self.names.key(address)
        if key is None:
            self.refresh()
            key = self.names.key(address) or self._node.key_of(IPv6Address(address))
        return key

    def _new(self, key: PublicKey, address: bytes) -> Peer | None:
        """A peer, if one more may be."""
        if len(self._peers) >= self.settings.max_peers and not self._forget_one():
            return None
        own = self.address.packed

        def admit(frame: memoryview) -> int:
            if frame[HEADER] >> 4 != 6 or frame[HEADER + 8 : HEADER + 24] != address:
                return Fault.SOURCE
            return Fault.NONE if frame[HEADER + 24 : HEADER + 40] == own else Fault.TARGET

        clock = self._node.clock
        core = PeerCore(
            key,
            address,
            self.tun.flow(admit),
            smaller=self._node.public_key < key,
            dial=self._dial,
            later=clock.call_later,
            refuse=lambda flow: flow.refuse(self._answer),
        )
        peer = self._peers[address] = self._by_key[key] = Peer(self, core)
        return peer

    def _forget_one(self) -> bool:
        """Forgets who has been quiet the longest, if anybody is."""
        quiet = [peer for peer in self._peers.values() if peer.core.state in ("idle", "resting")]
        if not quiet:
            return False
        self._forget(min(quiet, key=lambda peer: peer.core.flow.used))
        return True

    def _forget(self, peer: Peer) -> None:
        peer.inputs.stop()
        self.totals.add(peer.core.flow)
        self._peers.pop(peer.core.address, None)
        self._by_key.pop(peer.core.key, None)

    def _answer(self, frame: memoryview) -> None:
        """Tells a program here that its packet goes nowhere."""
        packet = icmp.unreachable(frame, self.address.packed)
        if packet is not None and self._answers.take(len(packet), self._node.clock.now()):
            self.tun.write(packet)

    def _too_large(self, frame: memoryview, most: int) -> None:
        packet = icmp.too_big(frame, self.address.packed, most - AHEAD)
        if packet is not None and self._answers.take(len(packet), self._node.clock.now()):
            self.tun.write(packet)

    # streams

    def _dial(self, core: PeerCore) -> None:
        peer = self._peers[core.address]
        reader = PeerReader(self, peer)
        try:
            via = self._way(core.key)
            ways = None if self.settings.hops is None else partial(self._another_way, core)
            opening = self._node.connect(core.key, MESH_PORT, reader, via=via, identity="node", ways=ways)
        except MeshError as problem:
            peer.inputs.failed(problem)
            return
        core.via = self._node.route_to(core.key, via)
        self._await(opening, peer, reader)

    def _await(self, opening: Deferred[Stream], peer: Peer, reader: PeerReader) -> None:
        def opened(stream: Stream) -> None:
            reader.stream = stream
            peer.core.since = self.now()
            peer.inputs.answered(stream)

        def unopened(failure: Failure) -> None:
            if not isinstance(failure.value, MeshError):
                _log.failure("a call of the mesh interface failed", failure)
            why = failure.value if isinstance(failure.value, MeshError) else MeshError("a fault of ours")
            peer.inputs.failed(why)

        opening.addCallbacks(opened, unopened)

    def _way(self, key: PublicKey) -> tuple[PublicKey, ...] | None:
        """The relays to a node, where they are to be picked; None for those of the config."""
        if self.settings.hops is None:
            return None
        node = self._node
        known = [PublicKey(target) for target in node.known().values() if isinstance(target, bytes)]
        return pick_way(self.settings.hops, key, node.public_key, node.neighbours(), known, self._choose)

    def _another_way(self, core: PeerCore) -> tuple[PublicKey, ...]:
        """Relays for the next circuit of a stream that stands."""
        core.via = self._way(core.key) or ()
        return core.via

    def _accept(self, stream: Stream) -> StreamReader | None:
        key = stream.peer
        callers = self.settings.callers
        if key is None or key == self._node.public_key or (callers != "any" and key not in callers):
            return None
        peer = self._by_key.get(key)
        if peer is None:
            self.names.learn(key)
            peer = self._new(key, mesh_ipv6(key).packed)
            if peer is None:
                return None
        reader = PeerReader(self, peer)
        reader.stream = stream
        peer.inputs.called(stream)
        return reader

    # time

    def _look(self) -> None:
        self._cancel = self._node.clock.call_later(LOOK_SECONDS, self._look)
        now = self._node.clock.now()
        for peer in list(self._peers.values()):
            if now - peer.core.flow.used < self.settings.idle:
                continue
            if peer.core.state == "idle":
                self._forget(peer)
            else:
                peer.inputs.quiet()

    def _vanished(self, why: MeshError) -> None:
        self.stop()
        self._gone(LocalError(f"{why} `meshnet tun up` makes it anew."))
