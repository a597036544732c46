"""The exit for IP packets: one interface, a lease for each client, and the system made to pass them on.

    stream of a client ─▶ Tenant ─ packets ─▶ mesh-exit (TUN) ─ kernel: rules, NAT ─▶ the old internet
                                   ◀─ by destination address ─

The kernel forwards, filters and translates (`ruleset.py`); here packets only get in and out, with their
source addresses looked at. What is changed in the system is in the host's book under the owner `exit`, and is
undone when the gateway stops, or at the next start if it could not. The interface and what hangs on it go by
themselves with the process. Who takes them away meanwhile (a firewall that is loaded anew flushes all tables)
is noticed within a tenth of a second, and they are put back; if they cannot be, nothing passes any more.

`apply` makes it as the settings say, from whatever it was; calls wait for each other.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from ipaddress import IPv4Interface, IPv6Interface, ip_address
from pathlib import Path
from secrets import token_bytes
from typing import Final

from attrs import Factory, define, evolve, field, frozen
from twisted.internet.defer import Deferred, DeferredLock
from twisted.logger import Logger

from apps.vpn.forwarder import REFUSED, Forwarder
from apps.vpn.host.changes import AnyChange, Sysctl
from apps.vpn.host.counters import Counters, Read, read_counters
from apps.vpn.host.host import BOOK, RESOLV, Host
from apps.vpn.host.look import Look
from apps.vpn.host.service import HostThread
from apps.vpn.host.watch import HostWatch
from apps.vpn.lease import PACKETS_PORT, TICKET_SIZE, Lease, Offloads, RefusalCode, Wants, Wish
from apps.vpn.packets import icmp
from apps.vpn.packets.faults import Fault, named
from apps.vpn.packets.headers import target
from apps.vpn.packets.virtio import AHEAD
from apps.vpn.pools import REST_SECONDS, Pools, Seat
from apps.vpn.ruleset import COUNT_PROBE, PREFERENCES, table, unmarked
from apps.vpn.ruleset import Gateway as Rules
from apps.vpn.settings import Exit
from apps.vpn.tenant import Tenant, TenantFlow
from apps.vpn.tun.device import LEAST_MTU, Device
from apps.vpn.tun.linux import open_linux
from apps.vpn.tun.mtu import KeptMtu
from apps.vpn.tun.reader import Tun
from apps.vpn.tun.rtnetlink import set_up
from meshnet.errors import LocalError, MeshError
from meshnet.node.app import Json, MeshNode
from meshnet.streams import PortListener, Stream, StreamReader

OWNER: Final = "exit"
"""In the host's book."""
INTERFACE: Final = "mesh-exit"
TABLE: Final = "meshnet_exit"
MTU: Final = 1_500
LARGEST_FORWARDED: Final = 65_536
"""As much as kernels and cards join when they receive; an interface that takes less gets single packets.
Flows cut what is larger than a cell."""
QUEUE_LENGTH: Final = 1_000
"""Packets that wait in the kernel; senders elsewhere are not stopped by it being full."""
AGAIN_SECONDS: Final = 5.0
"""From the loss of the interface to the next attempt."""
SERVERS: Final = 3
"""Name servers of the system that are asked (as by its own resolver)."""

_FORWARD4: Final = "net/ipv4/ip_forward"
_FORWARD6: Final = "net/ipv6/conf/all/forwarding"

_log = Logger()

Open = Callable[[str, int, Sequence[IPv4Interface | IPv6Interface]], Device]


def open_device(name: str, mtu: int, addresses: Sequence[IPv4Interface | IPv6Interface]) -> Device:
    """The interface, up. Raises MissingDependencyError where there is none, or no right to have one."""
    device = open_linux(name, mtu, addresses)
    set_up(device.name, device.index, mtu, LARGEST_FORWARDED, QUEUE_LENGTH)
    return device


def watch_host(gateway: Gateway, changed: Callable[[], None]) -> HostWatch:
    """Notices of what others change."""
    node = gateway.node
    return HostWatch(node.reactor, node.clock.call_later, gateway.resolv, changed)


@frozen
class Ground:
    """What the machine was before: whether it forwarded nothing of IPv4, has IPv6, can count connections; and
    interfaces that would lose their IPv6 routes to forwarding (`accept_ra` 1)."""

    alone: bool
    has_v6: bool
    counts: bool
    advertised: tuple[str, ...] = ()


def survey(host: Host) -> Ground:
    """Cleans up behind a gateway that was killed, and looks at the machine. Raises MissingDependencyError
    without nftables, LocalError where the old changes cannot be undone."""
    host.tools.require_nft()
    faults = host.undo(OWNER)
    if faults:
        raise LocalError(f"What an earlier run changed could not be undone: {' '.join(faults)}")
    look = host.look()
    present = {name for name, _ in look.networks()}
    if INTERFACE not in present:  # of nobody who runs: of one whose book is gone
        _remove_strays(host, look)
    names = sorted(present - {"lo", INTERFACE})
    keys = [f"net/ipv6/conf/{name}/accept_ra" for name in names]
    advertised = tuple(key for key in keys if look.sysctl(key) == 1)
    counts = host.would_take(COUNT_PROBE)
    return Ground(look.sysctl(_FORWARD4) == 0, look.sysctl(_FORWARD6) is not None, counts, advertised)


def _remove_strays(host: Host, look: Look) -> None:
    found = [rule for version in (4, 6) for rule in look.rules(version) if rule.preference in PREFERENCES]
    if found:
        host.remove(OWNER, found)


def name_servers(text: str) -> tuple[str, ...]:
    """The name servers of a resolv.conf, the first three; what is no address, or one of a link, is passed
    over."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver" and "%" not in words[1]:
            try:
                found.append(str(ip_address(words[1])))
            except ValueError:
                continue
    return tuple(found[:SERVERS])


@define(eq=False)
class Gateway:
    """An exit for packets of one node. `counts` are since the start, those of clients that left included."""

    node: MeshNode
    host: HostThread
    open_device: Open = open_device
    resolv: Path = RESOLV
    watch: Callable[[Gateway, Callable[[], None]], HostWatch] = watch_host
    read_counters: Read = read_counters
    repairs: int = field(default=0, init=False)
    leases: int = field(default=0, init=False)
    refused: dict[str, int] = field(factory=dict, init=False)
    tenants: dict[int, Tenant] = field(factory=dict, init=False)
    why: str = field(default="", init=False)
    forwarder: Forwarder | None = field(default=None, init=False)
    _lock: DeferredLock = field(factory=DeferredLock, init=False)
    _settings: Exit = field(factory=Exit, init=False)
    _pools: Pools | None = field(default=None, init=False)
    _tun: Tun | None = field(default=None, init=False)
    _mtu: KeptMtu | None = field(default=None, init=False)
    _rules: Rules | None = field(default=None, init=False)
    _ground: Ground | None = field(default=None, init=False)
    _asking: set[Tenant] = field(factory=set, init=False)
    _flows: dict[bytes, TenantFlow] = field(factory=dict, init=False)
    _listener: PortListener | None = field(default=None, init=False)
    _rejected: Counters = field(
        default=Factory(lambda self: Counters(TABLE, self.read_counters), takes_self=True), init=False
    )
    _past: _Totals = field(factory=lambda: _Totals(), init=False)
    _later: Callable[[], None] | None = field(default=None, init=False)
    _watch: HostWatch | None = field(default=None, init=False)

    @property
    def on(self) -> bool:
        """Whether packets pass."""
        return self._tun is not None

    async def begin(self, settings: Exit) -> None:
        """At the node's start: undoes what an earlier run has left, then makes it as the settings say. Raises
        as `apply`."""
        if settings.packets:
            await self.apply(settings)
        elif self.node.disk.exists(self.node.data / BOOK):
            for fault in await self.host.call(lambda host: host.undo(OWNER)):
                _log.warn("{fault}", fault=fault)

    async def apply(self, settings: Exit) -> None:
        """Makes it as the settings say. Raises LocalError, MissingDependencyError; then it is off."""
        await self._lock.acquire()
        try:
            await self._apply(settings)
        finally:
            self._lock.release()

    async def stop(self) -> list[str]:
        """Off; sentences of what could not be undone in the system."""
        await self._lock.acquire()
        try:
            self._settings = evolve(self._settings, packets=False)
            return await self._stop("the exit is being turned off")
        finally:
            self._lock.release()

    async def _apply(self, settings: Exit) -> None:
        old, self._settings = self._settings, settings
        if self._later is not None:
            self._later()
            self._later = None
        moved = any(getattr(old, name) != getattr(settings, name) for name in ("pool4", "pool6", "dns"))
        if self.on and (moved or not settings.packets):
            for fault in await self._stop("the exit changes; ask again"):
                _log.warn("{fault}", fault=fault)
        if settings.packets and not self.on:
            try:
                await self._start(settings)
            except MeshError as why:
                self._settings = evolve(settings, packets=False)
                self.why = str(why)
                raise
        elif self.on:
            await self._change(old, settings)

    # life

    async def _start(self, settings: Exit) -> None:
        ground = await self.host.call(survey)
        pools = Pools(settings.pool4, settings.pool6 if ground.has_v6 else None)
        try:
            self._open(pools)
            self._pools, self._ground = pools, ground
            await self.host.call(lambda host: host.apply(OWNER, self._changes()))
            self._serve_names(settings)
            self._listener = self.node.listen(PACKETS_PORT, self._accept)
        except BaseException:
            await self._stop("the exit could not be started")
            raise
        assert self._tun is not None
        self._tun.start()
        self._watch = self.watch(self, self._changed)
        self.why = ""
        _log.info("IP packets leave here over {name}", name=INTERFACE)

    def _open(self, pools: Pools) -> None:
        own: list[IPv4Interface | IPv6Interface] = []
        if pools.pool4 is not None:
            own.append(IPv4Interface((pools.pool4[1], pools.pool4.prefixlen)))
        if pools.pool6 is not None:
            own.append(IPv6Interface((pools.pool6[1], pools.pool6.prefixlen)))
        device = self.open_device(INTERFACE, MTU, own)
        self._tun = Tun(device, self.node.reactor, self.node.clock.now, self._lost, self.node.turn)
        self._tun.routed(self._find)
        self._tun.too_large = self._too_large
        self._mtu = KeptMtu(device, self.node.reactor, _noted, self._mtu_changed)

    def _changes(self) -> list[AnyChange]:
        """Of the system; the rules come before the first packet can pass."""
        assert self._pools is not None and self._ground is not None
        pools, ground, settings = self._pools, self._ground, self._settings
        source = ip_address(settings.source) if settings.source else None
        own = (pools.pool4, pools.pool6, pools.own4, pools.own6)
        self._rules = Rules(TABLE, INTERFACE, *own, source, ground.alone, ground.counts)
        changes: list[AnyChange] = [table(self._rules, settings.policy), *unmarked(self._rules)]
        if pools.pool6 is not None:
            changes += [Sysctl(key, 2) for key in ground.advertised]
            changes.append(Sysctl(_FORWARD6, 1))
        if pools.pool4 is not None:
            changes.append(Sysctl(_FORWARD4, 1))
        return changes

    def _serve_names(self, settings: Exit) -> None:
        """Without a server to ask there is no forwarder, and no lease names one."""
        assert self._pools is not None
        servers = settings.dns or name_servers(_read(self.resolv))
        if not servers:
            _log.warn("no name servers are known here: clients get none; name some in [exit] dns")
            return
        self.forwarder = Forwarder(self.node.reactor, self.node.clock, servers, self._judge)
        self.forwarder.start([str(own) for own in (self._pools.own4, self._pools.own6) if own is not None])

    def _judge(self, name: str) -> int:
        rules = self._settings.policy.deny
        return REFUSED if any(rule.name and rule.names(name) for rule in rules) else 0

    async def _change(self, old: Exit, settings: Exit) -> None:
        """While it runs: other rules, another rate. What stands goes on."""
        if (old.allow, old.deny, old.source) != (settings.allow, settings.deny, settings.source):
            await self.host.call(lambda host: host.apply(OWNER, self._changes()))
        if old.rate != settings.rate:
            for tenant in self.tenants.values():
                assert tenant.lease is not None
                tenant.change(evolve(tenant.lease, rate=settings.rate))

    async def _stop(self, why: str) -> list[str]:
        watch, self._watch = self._watch, None
        if watch is not None:
            watch.stop()
        listener, self._listener = self._listener, None
        if listener is not None:
            listener.stop()
        for tenant in (*self._asking, *self.tenants.values()):
            tenant.deny(RefusalCode.STOPPED, why)
        forwarder, self.forwarder = self.forwarder, None
        if forwarder is not None:
            await forwarder.stop()
        mtu, self._mtu = self._mtu, None
        if mtu is not None:
            mtu.stop()
        tun, self._tun = self._tun, None
        if tun is not None:
            tun.stop()
        if self._later is not None:
            self._later()
            self._later = None
        return await self.host.call(lambda host: host.undo(OWNER))

    def _changed(self) -> None:
        """Somebody has changed addresses, tables or resolv.conf: perhaps ours."""
        if self.forwarder is not None and not self._settings.dns:
            self.forwarder.servers = name_servers(_read(self.resolv)) or self.forwarder.servers
        Deferred.fromCoroutine(self._repair()).addErrback(
            lambda failure: _log.failure("not put back", failure)
        )

    async def _repair(self) -> None:
        """Puts back what is missing; without it nothing passes."""
        await self._lock.acquire()
        try:
            if self._tun is None:
                return
            if not self._tun.device.alive():
                self._lost(LocalError(f"The interface {INTERFACE} was set down by somebody."))
                return
            for change in await self.host.call(lambda host: host.repair(OWNER)):
                self.repairs += 1
                _log.warn("put back what somebody took away: {what}", what=change.sentence)
        except MeshError as why:
            await self._stop("the exit's rules were taken away")
            self._settings = evolve(self._settings, packets=False)
            self.why = f"Somebody took the exit's rules away, and they cannot be put back: {why}"
            _log.error("{why}", why=self.why)
        finally:
            self._lock.release()

    def _lost(self, why: MeshError) -> None:
        """The interface was taken away under us: cleans up, and tries again."""
        self.why = str(why)
        _log.warn("{why}", why=self.why)
        Deferred.fromCoroutine(self._recover()).addErrback(
            lambda failure: _log.failure("the exit's interface does not come back", failure)
        )

    async def _recover(self) -> None:
        await self._lock.acquire()
        try:
            await self._stop("the exit has lost its interface")
        finally:
            self._lock.release()
        if self._settings.packets:
            self._later = self.node.clock.call_later(AGAIN_SECONDS, self._try_again)

    def _try_again(self) -> None:
        self._later = None
        again = Deferred.fromCoroutine(self.apply(self._settings))
        again.addErrback(lambda failure: _log.warn("{why}", why=str(failure.value)))

    # clients

    def _accept(self, stream: Stream) -> StreamReader | None:
        callers = self._settings.callers
        if callers != "any" and stream.peer not in callers:
            self._refuse("caller")
            return None
        if len(self.tenants) + len(self._asking) >= 2 * self._settings.max_clients:
            self._refuse("max_clients")
            return None
        tenant = Tenant(stream, self.node.clock, self._decide, self._gone)
        self._asking.add(tenant)
        return tenant

    def _decide(self, tenant: Tenant, wish: Wish) -> None:
        """A client says what it wants."""
        assert self._pools is not None and self._tun is not None
        mtu = self._mtu_for(tenant, wish)
        if mtu < LEAST_MTU:
            self._deny(tenant, RefusalCode.FAILED, "the path carries only packets that are too small")
            return
        seat = self._seat(tenant, wish)
        if seat is None:
            return
        lease = self._lease(seat, wish, mtu)
        if lease.v4 is None and lease.v6 is None:
            self._pools.give_back(seat, self.node.clock.now())
            self._deny(tenant, RefusalCode.NO_SUCH_FAMILY, "the exit has no addresses of that kind")
            return
        self._asking.discard(tenant)
        self.tenants[seat.number] = tenant
        flow = TenantFlow(self._tun, self.node.clock, lease)
        for address in (lease.v4, lease.v6):
            if address is not None:
                self._flows[address.packed] = flow
        self.leases += 1
        tenant.admit(seat, lease, flow)

    def _mtu_for(self, tenant: Tenant, wish: Wish) -> int:
        """The largest packet that it wants, the interface passes, and a cell takes."""
        assert self._tun is not None
        return min(wish.mtu, self._tun.device.mtu, tenant.most - AHEAD)

    def _mtu_changed(self) -> None:
        """The interface has another MTU: clients are told."""
        for tenant in self.tenants.values():
            assert tenant.lease is not None and tenant.wish is not None
            mtu = max(LEAST_MTU, self._mtu_for(tenant, tenant.wish))
            if mtu != tenant.lease.mtu:
                tenant.change(evolve(tenant.lease, mtu=mtu))

    def _seat(self, tenant: Tenant, wish: Wish) -> Seat | None:
        """A seat: that of its ticket, whoever sat there until now, or a free one. None: it was denied."""
        assert self._pools is not None
        now = self.node.clock.now()
        caller = bytes(tenant.caller) if tenant.caller is not None else None
        if wish.ticket:
            seat = self._pools.resume(now, wish.ticket, caller)
            if seat is not None:
                old = self.tenants.get(seat.number)
                if old is not None:
                    old.deny(RefusalCode.REPLACED, "its ticket came over another stream")
                    self._pools.resume(now, wish.ticket, caller)  # who went has just given it back
                return seat
        if len(self.tenants) >= self._settings.max_clients:
            self._deny(tenant, RefusalCode.FULL, "as many clients are there as may be")
            return None
        seat = self._pools.take(now, token_bytes(TICKET_SIZE), caller)
        if seat is None:
            self._deny(tenant, RefusalCode.FULL, "no address is free; try again in some minutes")
        return seat

    def _lease(self, seat: Seat, wish: Wish, mtu: int) -> Lease:
        assert self._pools is not None and self._tun is not None
        v4 = seat.v4 if wish.wants & Wants.V4 else None
        v6 = seat.v6 if wish.wants & Wants.V6 else None
        own = ((v4, self._pools.own4), (v6, self._pools.own6))
        named_ = wish.wants & Wants.DNS and self.forwarder is not None
        dns = tuple(there for mine, there in own if mine is not None and there is not None and named_)
        offloads = Offloads(self._tun.device.offloads)
        return Lease(v4, v6, dns, mtu, offloads, self._settings.rate, int(REST_SECONDS), seat.ticket)

    def _deny(self, tenant: Tenant, code: RefusalCode, text: str) -> None:
        self._refuse(code.name.lower())
        tenant.deny(code, text)

    def _refuse(self, reason: str) -> None:
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def _gone(self, tenant: Tenant) -> None:
        """A stream has ended, with a lease or without."""
        self._asking.discard(tenant)
        seat, flow, lease = tenant.seat, tenant.flow, tenant.lease
        if seat is None or flow is None or lease is None or self._pools is None:
            return
        del self.tenants[seat.number]
        for address in (lease.v4, lease.v6):
            if address is not None:
                del self._flows[address.packed]
        flow.stop()
        self._past.add(flow)
        self._pools.give_back(seat, self.node.clock.now())

    def _find(self, frame: memoryview) -> TenantFlow | None:
        flow = self._flows.get(target(frame))
        if flow is None and self._tun is not None:
            self._tun.strays[Fault.UNKNOWN] += 1
        return flow

    def _too_large(self, frame: memoryview, most: int) -> None:
        """Tells the sender of a packet that no cell of the path takes. It seems to come from the client: the
        kernel takes nothing from its own address, and translates this as all that clients send."""
        packet = icmp.too_big(frame, target(frame), most - AHEAD)
        if packet is not None and self._tun is not None:
            self._tun.write(packet)

    # what it shows

    def totals(self) -> _Totals:
        """Of all clients since the start."""
        sums = _Totals()
        sums.add(self._past)
        for tenant in self.tenants.values():
            if tenant.flow is not None:
                sums.add(tenant.flow)
        return sums

    def describe(self) -> Json:
        """What `status` and the verb show."""
        settings, pools, totals = self._settings, self._pools, self.totals()
        return {
            "on": self.on,
            "why": self.why,
            "port": PACKETS_PORT,
            "interface": INTERFACE,
            "mtu": MTU if self._tun is None else self._tun.device.mtu,
            "pool4": None if settings.pool4 is None else str(settings.pool4),
            "pool6": None if settings.pool6 is None else str(settings.pool6),
            "dns": list(self.forwarder.servers) if self.forwarder is not None else [],
            "max_clients": settings.max_clients,
            "seats_resting": 0 if pools is None else pools.resting,
            "leases": self.leases,
            "repairs": self.repairs,
            "refused": dict(sorted(self.refused.items())),
            "packets_in": totals.frames_in,
            "bytes_in": totals.bytes_in,
            "packets_out": totals.frames_out,
            "bytes_out": totals.bytes_out,
            "dropped_in": named(totals.dropped_in),
            "dropped_out": named(totals.dropped_out),
            "rejected": self._rejected.look(),
            "queries": 0 if self.forwarder is None else self.forwarder.queries,
            "clients": [tenant.describe() for tenant in self.tenants.values()],
        }


class _Totals:
    """Sums over clients; `in` is from the mesh, `out` to it."""

    __slots__ = ("bytes_in", "bytes_out", "dropped_in", "dropped_out", "frames_in", "frames_out")

    def __init__(self) -> None:
        self.bytes_in = self.bytes_out = self.frames_in = self.frames_out = 0
        self.dropped_in = [0] * len(Fault)
        self.dropped_out = [0] * len(Fault)

    def add(self, other: TenantFlow | _Totals) -> None:
        """The counts of a flow, or of other sums."""
        self.bytes_in += other.bytes_in
        self.bytes_out += other.bytes_out
        self.frames_in += other.frames_in
        self.frames_out += other.frames_out
        self.dropped_in = [a + b for a, b in zip(self.dropped_in, other.dropped_in, strict=True)]
        self.dropped_out = [a + b for a, b in zip(self.dropped_out, other.dropped_out, strict=True)]


def _noted(what: str) -> None:
    _log.warn("{what}", what=what)


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
