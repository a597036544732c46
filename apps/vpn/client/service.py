"""The VPN of this machine under a reactor: one tunnel through one exit, kept up until somebody ends it.

Joins the life of a tunnel (`life.py`) with calls of the exit (`call.py`), the interface (`apps.vpn.tun`) and
the machine (`system.py`, in the host's thread). Between a loss and the next lease the interface and all that
leads into it stand, so packets wait or are dropped, and none leaves another way.

It never touches the machine itself, and no packet passes through here.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from functools import partial
from pathlib import Path
from random import SystemRandom
from typing import Any, Final

from twisted.internet.defer import Deferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure

from apps.vpn.client import system
from apps.vpn.client.call import ExitCall
from apps.vpn.client.doctor import examine
from apps.vpn.client.health import Health
from apps.vpn.client.life import TunnelCore, tunnel_life
from apps.vpn.client.rates import Rates
from apps.vpn.host.counters import Counters
from apps.vpn.host.firewall import TABLE
from apps.vpn.host.host import BOOK, RESOLV, Host
from apps.vpn.host.service import HostThread
from apps.vpn.host.watch import HostWatch
from apps.vpn.lease import Lease, LeaseError, Offloads, RefusalCode, Wants, Wish
from apps.vpn.packets.virtio import AHEAD
from apps.vpn.settings import Tunnel
from apps.vpn.tun.device import LARGEST_SUPERPACKET, QUEUE_LENGTH, Device
from apps.vpn.tun.flow import PacketFlow
from apps.vpn.tun.linux import open_linux
from apps.vpn.tun.mtu import KeptMtu
from apps.vpn.tun.reader import Tun
from apps.vpn.tun.rtnetlink import set_up
from apps.vpn.ways import pick_way
from meshnet.cipher.address import Address, node_key, proves
from meshnet.cipher.keys import PublicKey
from meshnet.errors import LinkLostError, LocalError, MeshError, UsageError
from meshnet.node.app import Json, MeshNode
from meshnet.streams import Stream

EVENTS: Final = 32
"""Things that happened, the last of which `describe` shows."""
HOPELESS: Final = frozenset({RefusalCode.NO_SUCH_FAMILY, RefusalCode.MALFORMED})
"""What an exit will say again tomorrow."""

STALLED: Final = 10.0
"""Seconds without a sign of the exit, though it was sent something, until another way is picked."""
GLANCE: Final = 0.05
LONGEST_LOOK: Final = 3.0
"""Seconds between glances for a sign of the exit while somebody looks, and of all of them at most."""
FAULTS: Final = 8
"""Sentences of what could not be done that are shown, the last ones."""

_log = Logger()


class TunnelClient:
    """The tunnel of one node. `own` tells what else of the node stands in the machine; `open_device` makes an
    interface (its name and MTU); `may` raises MissingDependencyError where nothing can be changed."""

    def __init__(
        self,
        node: MeshNode,
        host: HostThread,
        *,
        own: Callable[[], system.Own] = system.Own,
        open_device: Callable[[str, int], Device] = open_linux,
        resolv: Path = RESOLV,
        may: Callable[[], None] = system.require_rights,
    ) -> None:
        self._node = node
        self._host = host
        self._own = own
        self._open_device = open_device
        self._resolv = resolv
        self._may = may
        self._random = SystemRandom()
        self._core = TunnelCore(
            dial=self._dial,
            hang_up=self._hang_up,
            make=self._make,
            unmake=self._unmake,
            stands=self._stands,
            later=node.clock.call_later,
            jitter=self._random.random,
        )
        self._life = tunnel_life(self._core)
        self._settings: Tunnel | None = None
        self._lasting = False
        self._waiting: list[Deferred[Json]] = []
        self._ended: list[Deferred[list[str]]] = []
        self._call: ExitCall | None = None
        self._lease: Lease | None = None
        self._ticket = b""
        self._tun: Tun | None = None
        self._flow: PacketFlow | None = None
        self._mtu: KeptMtu | None = None
        self._kept_in = Counters(TABLE)
        self._raised: system.Raised | None = None
        self._watch: HostWatch | None = None
        self._faults: list[str] = []
        self._events: deque[tuple[float, str]] = deque(maxlen=EVENTS)
        self._since = 0.0
        self._stopping = False
        self.redials = 0
        self.repairs = 0
        self.rates = Rates()
        self._health = Health()
        self._stop_ticking: Callable[[], None] = lambda: None

    # what users ask for

    async def begin(self, settings: Tunnel | None) -> None:
        """At the node's start: what an earlier run has left is undone, but for a kill switch; then the tunnel
        of the config is begun, which is tried for ever. A kill switch of the config stands on return. Raises
        LocalError where the config asks for what this machine does not let us do."""
        wanted = settings if settings is not None and settings.up else None
        if wanted is not None:
            self.check(wanted)
        elif not self._node.disk.exists(self._node.data / BOOK):
            return
        try:
            self._raised = await self._host.call(system.lower_rest)
        except MeshError as why:
            self._told(Failure(why), "what an earlier run has left was not undone")
        if self._stopping:
            return
        if wanted is not None:
            await self._begin_lasting(wanted)
        elif self._raised is not None:
            self._guard()
            self._life.held(LocalError("The kill switch of an earlier run holds everything back."))

    async def _begin_lasting(self, settings: Tunnel) -> None:
        self._settings, self._lasting = settings, True
        if settings.killswitch:
            self._raised = await self._host.call(system.raise_block(settings, self._own()))
        if not self._stopping:
            self._guard()
            self._life.up()

    def up(self, settings: Tunnel) -> Deferred[Json]:
        """Fires with `describe` when packets pass; fails with why they do not: then nothing has changed."""
        if self._core.state not in ("down", "blocked"):
            raise UsageError("The VPN is up, or on its way; end it with `meshnet vpn down` first.")
        self.check(settings)
        self._settings, self._lasting = settings, False
        self._faults.clear()
        up: Deferred[Json] = Deferred()
        self._waiting.append(up)
        self._life.up()
        return up

    def down(self) -> Deferred[list[str]]:
        """Fires when all is as before, with sentences of what could not be undone."""
        ended: Deferred[list[str]] = Deferred()
        self._ended.append(ended)
        self._settle(LocalError("The VPN was ended before it was up."))
        self._life.down()
        return ended

    def stop(self) -> Deferred[Any]:
        """At the node's end: all is undone, but a kill switch, which only `down` or the doctor lifts."""
        self._stopping = True
        if self._core.state == "down":
            return succeed(None)
        self._settle(LocalError("The node was stopped."))
        if self._raised is not None and self._raised.blocks and self._core.state != "ending":
            _log.warn("the kill switch stays: nothing leaves this machine until `meshnet vpn doctor`")
            self._core.disarm()
            self._hang_up()
            self._close()
            return self._host.call(system.lower_rest).addErrback(self._told, "the VPN was not undone")
        return self.down()

    def refresh(self) -> None:
        """Something else of this node has come or gone in the machine."""
        if self._core.state == "up" and self._lease is not None:
            work = system.raise_tunnel(self._wanted, self._lease, self._own())
            self._host.call(work).addErrback(self._told, "the tunnel was not adapted")

    def repair(self) -> Deferred[list[str]]:
        """Looks at the machine now; what others have changed and was put back, in sentences."""
        return self._host.call(_repair)

    def examine(self) -> Deferred[list[Json]]:
        """For the doctor: looks after the machine, and lifts the kill switch of an earlier run."""
        standing = self._core.state not in ("down", "blocked")
        if self._core.state == "blocked":
            self.down()
        return self._host.call(lambda host: examine(host, (system.OWNER,), standing))

    # the life's side

    def check(self, settings: Tunnel) -> None:
        """Raises UsageError for what leads to this node itself, MissingDependencyError without the right to
        change this machine's network."""
        if settings.exit == self._node.public_key:
            raise UsageError("The exit is this node itself; name another node.")
        if self._node.public_key in (settings.via or ()):
            raise UsageError("The route passes this node itself; leave its own key out of via.")
        self._may()

    def _dial(self) -> None:
        settings = self._wanted
        try:
            device = self._device(settings)
            call = ExitCall(
                self._node,
                settings.exit,
                self._way(settings),
                settings.identity,
                Wish(
                    Wants.V4 | Wants.V6 | (Wants.DNS if settings.dns else 0),
                    Offloads(device.offloads),
                    settings.mtu,
                    self._ticket,
                ),
                granted=self._granted,
                over=self._over,
                ways=partial(self._another_way, settings) if settings.hops else None,
            )
        except MeshError as why:
            self._later(partial(self._fail, why))
            return
        self._call = call
        call.start()

    def _way(self, settings: Tunnel) -> tuple[PublicKey, ...] | None:
        if not settings.hops:
            return settings.via
        node = self._node
        known = [target for target in node.known().values() if not isinstance(target, Address)]
        target = node_key(settings.exit)
        choose = self._random.choice
        return pick_way(settings.hops, target, node.public_key, node.neighbours(), known, choose)

    def _another_way(self, settings: Tunnel) -> tuple[PublicKey, ...]:
        """Relays for the next circuit, which `describe` shows from then on."""
        way = self._way(settings) or ()
        if self._call is not None:
            self._call.via = way
        return way

    def _device(self, settings: Tunnel) -> Device:
        """The interface, which waits for packets as soon as routes lead there."""
        if self._tun is None:
            device = self._open_device(settings.interface, settings.mtu)
            node = self._node
            self._tun = Tun(device, node.reactor, node.clock.now, self._gone, node.turn)
            self._flow = self._tun.single()
            self._tun.too_large = lambda frame, most: self._narrow(most)
            self._mtu = KeptMtu(device, self._node.reactor, self._note)
            self._tun.start()
        return self._tun.device

    def _granted(self, lease: Lease) -> None:
        first, self._lease = self._core.state == "dialling", lease
        self._ticket = lease.ticket
        if self._mtu is not None:
            self._mtu.limit(lease.mtu)
        if first:
            self._life.answered()

    def _narrow(self, largest: int) -> None:
        """So many bytes of packets fit into the largest cell of the way now."""
        if self._mtu is not None and largest:
            self._mtu.fits(largest - AHEAD)

    def _over(self, why: MeshError) -> None:
        """The call has ended, or came to nothing."""
        self._call = None
        if self._core.state == "up":
            self._note(f"the exit was lost: {why}")
            self.redials += 1
            self._life.lost(why)
        else:
            self._fail(why)

    def _fail(self, why: MeshError) -> None:
        """An attempt came to nothing: another, unless that is hopeless, or somebody waits for this one."""
        if self._stopping:
            return
        hopeless = isinstance(why, LeaseError) and why.code in HOPELESS
        if self._lasting or (self._raised is not None and not hopeless and not self._waiting):
            if self._core.why is None or str(self._core.why) != str(why):
                self._note(f"no lease: {why}")
            self._life.failed(why)
        elif self._raised is not None and self._raised.blocks:
            self._life.held(why)
            self._settle(why)
        else:
            self._life.refused(why)

    def _make(self) -> None:
        settings, lease = self._wanted, self._lease
        assert lease is not None
        made = self._host.call(system.raise_tunnel(settings, lease, self._own()))
        made.addCallbacks(self._made, self._unmade)

    def _made(self, raised: system.Raised) -> None:
        self._raised = raised
        if self._core.state != "making" or self._stopping:
            return
        stream = self._call.stream if self._call is not None else None
        if stream is None or self._flow is None:
            self._life.failed(self._core.why or LocalError("The exit was lost again."))
            return
        self._flow.carry(stream)
        stream.carry(self._flow, self._flow)
        stream.packets_ready()
        self._life.made()

    def _stands(self) -> None:
        """Packets pass."""
        self._guard()
        self._since = self._node.clock.now()
        self._note("up")
        self.rates.clear()
        self._health = Health()
        self._stop_ticking()
        self._tick()
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(self.describe())

    def _tick(self) -> None:
        """Once a second while packets pass, or should."""
        clock = self._node.clock
        self._stop_ticking = clock.call_later(1.0, self._tick)
        now, stream = clock.now(), self._call.stream if self._call is not None else None
        self.rates.sample(now, *self.totals())
        if stream is None or self._flow is None or self._core.state != "up":
            return
        self._look(stream)
        self._narrow(stream.largest_packets)
        if self._health.silent(now) >= STALLED and self._wanted.hops:
            call, self._call = self._call, None
            if call is not None:
                call.end()
            self._over(LinkLostError(f"nothing came through for {STALLED:.0f} s; another way is tried"))

    def _unmade(self, failure: Failure) -> None:
        if self._core.state == "making":
            self._fail(_error(failure))

    def _hang_up(self) -> None:
        call, self._call = self._call, None
        if call is not None:
            call.end()
        if self._flow is not None:
            self._flow.stop()

    def _close(self) -> None:
        self._stop_ticking()
        if self._watch is not None:
            self._watch.stop()
            self._watch = None
        self._forget_mtu()
        tun, self._tun, self._flow = self._tun, None, None
        if tun is not None:
            tun.stop()

    def _forget_mtu(self) -> None:
        if self._mtu is not None:
            self._mtu.stop()
            self._mtu = None

    def _unmake(self) -> None:
        """Undoes it all. The guards go before the interface, so that nothing slips out in between."""
        self._host.call(system.lower).addCallbacks(self._undone, self._not_undone)

    def _not_undone(self, failure: Failure) -> None:
        self._undone([str(_error(failure))])

    def _undone(self, faults: list[str]) -> None:
        self._close()
        self._faults = faults
        self._raised = self._lease = None
        self._ticket = b""
        why = self._core.why
        self._note("down")
        self._life.undone()
        self._settle(why or LocalError("The VPN was ended."))
        ended, self._ended = self._ended, []
        for each in ended:
            each.callback(faults)

    # what happens to the machine

    def _guard(self) -> None:
        """From now on what others change is noticed."""
        if self._watch is None:
            later = self._node.clock.call_later
            self._watch = HostWatch(self._node.reactor, later, self._resolv, self._changed)

    def _gone(self, why: MeshError) -> None:
        """The interface was removed under us: with it goes the call, and the next attempt makes another."""
        self._forget_mtu()
        self._tun = self._flow = None
        self._note(str(why))
        call, self._call = self._call, None
        if call is not None:
            call.end()
        if self._core.state == "up":
            self._life.lost(why)
        elif self._core.state in ("dialling", "making"):
            self._life.failed(why)

    def _changed(self) -> None:
        """Somebody has changed addresses, routes, rules, tables or resolv.conf: perhaps ours."""
        self._life.hurry()
        self._lift()
        if self._raised is not None and self._core.state != "ending":
            self.repair().addCallback(self._repaired).addErrback(self._told, "what was changed stays so")

    def _lift(self) -> None:
        """An interface that somebody has set down is up again: its routes go with it, and packets past it."""
        if self._tun is None or self._tun.device.alive():
            return
        device = self._tun.device
        try:
            set_up(device.name, device.index, device.mtu, LARGEST_SUPERPACKET, QUEUE_LENGTH)
        except MeshError as why:  # gone altogether, which its reader tells
            self._note(str(why))
        else:
            self.repairs += 1
            self._note(f"put back: {device.name} was set down by somebody, and is up")

    def _repaired(self, sentences: list[str]) -> None:
        self.repairs += len(sentences)
        self._faults.clear()
        for each in sentences:
            self._note(f"put back: {each}")

    # what is told

    def look(self) -> Deferred[Json]:
        """`describe`, after a sign of the exit, or after it would have come: who asks is told how it is now,
        also when no packet has passed for long."""
        clock, stream = self._node.clock, self._call.stream if self._call is not None else None
        if stream is None or self._core.state != "up":
            return succeed(self.describe())
        self._look(stream)
        flow, until = stream.flow(), clock.now() + LONGEST_LOOK
        if not self._health.stalled(clock.now(), flow.rtt):
            self._health.ask(clock.now())
            stream.probe()
        told: Deferred[Json] = Deferred()

        def glance() -> None:
            now, here = clock.now(), self._call is not None and self._call.stream is stream
            if here:
                self._look(stream)
            if here and self._health.waits and now < until and not self._health.stalled(now, flow.rtt):
                clock.call_later(GLANCE, glance)
            else:
                told.callback(self.describe())

        glance()
        return told

    def _look(self, stream: Stream) -> None:
        flow = stream.flow()
        held = self._flow is not None and self._flow.held
        self._health.look(self._node.clock.now(), flow.heard, bool(flow.in_flight or held))

    def describe(self) -> Json:
        """For `vpn status`."""
        settings, lease, core = self._settings, self._lease, self._core
        raised = self._raised
        shown: Json = {"state": self._state(), "why": None if core.why is None else str(core.why)}
        shown["kill_switch"] = raised.kill_switch if raised is not None else "off"
        if settings is not None and core.state != "down":
            via = self._call.via if self._call is not None else settings.via
            shown |= {
                "exit": proves(settings.exit).hex(),
                "via": [key.hex() for key in self._node.route_to(settings.exit, via)],
                "interface": settings.interface,
                "split": list(settings.split),
                "outside": list(settings.outside),
                "names": raised.names if raised is not None else settings.dns,
                "attempts": core.attempts,
            }
        if lease is not None:
            shown["lease"] = {
                "v4": None if lease.v4 is None else str(lease.v4),
                "v6": None if lease.v6 is None else str(lease.v6),
                "dns": [str(each) for each in lease.dns],
                "mtu": lease.mtu,
                "rate": lease.rate,
            }
            shown["mtu"] = lease.mtu if self._tun is None else self._tun.device.mtu
        if core.state == "up":
            shown["up_seconds"] = round(self._node.clock.now() - self._since, 1)
            shown["stalled_seconds"] = round(self._health.silent(self._node.clock.now()), 1)
            shown["rates"] = self.rates.describe()
            shown |= self._described_flow()
        if raised is not None:
            shown["kept_in"] = self._kept_in.look()
        shown |= {"redials": self.redials, "repairs": self.repairs}
        shown["notes"] = [*(raised.notes if raised is not None else ()), *self._faults]
        shown["events"] = [{"unix": round(unix, 3), "text": text} for unix, text in self._events]
        return shown

    def _described_flow(self) -> Json:
        stream = self._call.stream if self._call is not None else None
        if stream is None or self._flow is None:
            return {}
        flow = stream.flow()
        gone = flow.cells_out - flow.cells_arrived
        under_way = round(flow.in_flight * flow.cells_out / flow.bytes_out) if flow.bytes_out else 0
        return {
            "rtt_ms": round(flow.rtt * 1e3, 3),
            "loss": round(max(0, gone - under_way) / flow.cells_out, 6) if flow.cells_out else 0.0,
            "marked": flow.marked_in,
            "packets": self._flow.as_json(),
        }

    def _state(self) -> str:
        state = self._core.state
        if state in ("dialling", "waiting", "making"):
            return "connecting" if self._lease is None else "reconnecting"
        return "stalled" if self.stalled else state

    def totals(self) -> tuple[int, int]:
        """Bytes that came through the interface's flow, and that went."""
        return (0, 0) if self._flow is None else (self._flow.bytes_in, self._flow.bytes_out)

    @property
    def is_up(self) -> bool:
        """Whether packets pass."""
        return self._core.state == "up" and not self.stalled

    @property
    def stalled(self) -> bool:
        """Whether it is up, and nothing comes through."""
        stream = self._call.stream if self._call is not None else None
        if stream is None or self._core.state != "up":
            return False
        return self._health.stalled(self._node.clock.now(), stream.flow().rtt)

    @property
    def _wanted(self) -> Tunnel:
        assert self._settings is not None
        return self._settings

    def _settle(self, why: MeshError) -> None:
        """Whoever waits for it to be up waits in vain."""
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.errback(why)

    def _note(self, text: str) -> None:
        self._events.append((self._node.clock.unix(), text))
        _log.info("tunnel: {text}", text=text)

    def _told(self, failure: Failure, what: str) -> None:
        why = _error(failure)
        if str(why) not in self._faults:
            self._faults = [*self._faults[1 - FAULTS :], str(why)]
        _log.error("{what}: {why}", what=what, why=why)

    def _later(self, call: Callable[[], None]) -> None:
        self._node.clock.call_later(0.0, call)


def _repair(host: Host) -> list[str]:
    return [change.sentence for change in host.repair(system.OWNER)]


def _error(failure: Failure) -> MeshError:
    why = failure.value
    if isinstance(why, MeshError):
        return why
    _log.failure("changing the system", failure)
    return LocalError(f"This should not have happened ({type(why).__name__}: {why}).")
