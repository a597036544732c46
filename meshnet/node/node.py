"""A node, put together: key, router, links, apps, control API, metrics.

The composition root: everything gets what it needs by argument, from here. A node that cannot bind or read
what its config names does not start; an app that is broken costs a sentence in the log and in `status`.
Nothing here touches a cell.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final

import attrs
from prometheus_client.core import Metric
from twisted.application.service import Service
from twisted.internet.defer import Deferred, fail, maybeDeferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from meshnet import __version__
from meshnet.cipher.address import Address, Target, node_key, proves
from meshnet.cipher.keys import PublicKey, SecretKey, public_key
from meshnet.endpoints import NODES
from meshnet.errors import CircuitError, LocalError, MeshError, Reason, UnreachableError, UsageError
from meshnet.node import about
from meshnet.node.api import node_routes
from meshnet.node.app import Clock, Json, Receive, Route, Ways
from meshnet.node.apps import Apps
from meshnet.node.config import Settings
from meshnet.node.faces import Faces
from meshnet.node.hidden import HiddenServices
from meshnet.node.invitation import Inviter, InviteRequest
from meshnet.node.lan import Lan, lan_facts, port_of, wanted
from meshnet.node.logs import NodeLog
from meshnet.node.metrics import Neighbours, NodeCollector, gauge, info, limits, new_registry, totals
from meshnet.node.presence import Presence, absence
from meshnet.node.reload import check, take_over
from meshnet.node.rings import History
from meshnet.node.route_lookup import RouteLookup
from meshnet.node.routing import Routing
from meshnet.node.space import SpaceWatch
from meshnet.node.state import Redaction, dump
from meshnet.node.topology import Topology
from meshnet.node.trails import Trails, link_sample
from meshnet.storage.disk import Disk, LockedError
from meshnet.storage.files import make_directory, sweep
from meshnet.storage.quarantine import NAME as QUARANTINE
from meshnet.storage.quarantine import Quarantine
from meshnet.streams import Accept, PortListener, Stream, StreamReader
from meshnet.topology.beacon import Beacons

SAMPLE_SECONDS: Final = 1.0
STOP_DELAY: Final = 0.1  # seconds between the answer to /stop and the end

_log = Logger()


class Node(Service):
    """One node under a reactor. `router` is made by the caller; `apps` are objects that provide IApp.

    `startService` begins to start it; `ready` tells when it stands or why it does not.
    """

    name: str

    def __init__(
        self,
        settings: Settings,
        secret: SecretKey,
        *,
        reactor: Any,
        clock: Clock,
        disk: Disk,
        router: Callable[[Node], Routing],
        apps: Sequence[Any] = (),
        notes: Iterable[str] = (),
    ) -> None:
        self.settings = settings
        self.public_key = secret.public
        self._inviter = Inviter(secret, settings.node.network, clock.unix)
        self._beacons = partial(Beacons, secret, settings.node.network)
        self._lan: Lan | None = None
        self.name = settings.node.name or secret.public.hex()[:16]
        self.data: Path = settings.node.data
        self.reactor = reactor
        self.clock = clock
        self.disk = disk
        self.quarantine = Quarantine(disk, settings.node.data / QUARANTINE, clock.unix)
        self.space = SpaceWatch(disk, settings.node.data, reactor)
        self.history = History()
        self.links_past, self.paths_past = Trails(), Trails()
        self.notes = [*settings.notes, *notes]
        self.listening: list[str] = []
        self.finished: Deferred[None] | None = None
        """Set by whoever runs the node and wants to know of POST /stop; it is fired then."""
        self.reread: Callable[[], Settings] | None = None
        """Reads the config again; raises ConfigError. None where there is no file."""
        self.log: NodeLog | None = None
        """Where lines of the log go, if the node has a say in it: as the foreground program does."""
        self._reloading = False
        self._apps = Apps(apps)
        self._faces = Faces(reactor, disk, settings)
        self._routes: dict[str, Route] = {}
        most = settings.metrics.neighbours if settings.metrics is not None else 20
        self._neighbours = Neighbours(most)
        self._presence = Presence()
        self.lookup_service = RouteLookup(self)
        self._waiting: list[Deferred[None]] = []
        self.failure: Failure | None = None
        """Why the node could not start."""
        self._settled = False
        self._undo: list[Callable[[], Any]] = []
        self._lag = 0.0
        self._probes = 0
        self._started_unix = 0.0
        self._next_sample = 0.0
        self._cancel_sample: Callable[[], None] = lambda: None
        self._make_router = router
        self._made: Routing | None = None
        self._hidden: HiddenServices | None = None
        self._new_registry()

    @property
    def _router(self) -> Routing:
        """Made when it is first needed: at the start, when the data directory is ours."""
        if self._made is None:
            self._made = self._make_router(self)
        return self._made

    # -- life

    def startService(self) -> None:
        """Starts; see `ready`."""
        super().startService()
        self.failure, self._settled = None, False
        Deferred.fromCoroutine(self._start()).addBoth(self._settle)

    def ready(self) -> Deferred[None]:
        """Fires when the node stands; fails with a MeshError if it could not start."""
        waiting: Deferred[None] = Deferred()
        self._waiting.append(waiting)
        self._tell()
        return waiting

    def linked(self, peer: PublicKey | str | None = None) -> Deferred[None]:
        """Fires when the node stands and is linked with this configured neighbour, a key or a name; with
        None, with any of them. Fails as `ready` does, with UsageError if [[link.peer]] does not name it,
        and with UnreachableError if the node is stopped before. It may be cancelled."""
        peers = {each.key for each in self.settings.link.peer}
        try:
            asked = self.lookup(peer) if isinstance(peer, str) else peer
            wanted = peers if asked is None else {node_key(asked)}
        except UsageError as error:
            return fail(error)
        if not wanted or wanted - peers:
            whom = "anybody" if peer is None else peer if isinstance(peer, str) else peer.hex()
            return fail(UsageError(f"This node does not dial {whom}; name the neighbour in [[link.peer]]."))
        return self.ready().addCallback(lambda _: self._presence.wait(wanted))

    def stopService(self) -> Deferred[None]:
        """Fires when everything is closed."""
        super().stopService()
        return Deferred.fromCoroutine(self._stop())

    def _settle(self, result: Failure | None) -> None:
        if isinstance(result, Failure) and not isinstance(result.value, MeshError):
            _log.failure("the node could not start", result)
        self.failure = result if isinstance(result, Failure) else None
        self._settled = True
        self._tell()

    def _tell(self) -> None:
        if not self._settled:
            return
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            if self.failure is not None:
                each.errback(self.failure)
            else:
                each.callback(None)

    async def _start(self) -> None:
        try:
            await self._start_parts()
        except BaseException:
            await self._stop()
            raise

    async def _start_parts(self) -> None:
        settings = self.settings
        self._take_data()
        self._new_registry()
        self._undo.append(self._faces.stop)
        self._undo.append(self._router.stop)
        self._router.on_link = lambda peer: self._presence.came(peer, self.clock.now())
        self._undo.append(self._forget_links)
        self.listening = await self._router.start(list(settings.link.listen))
        self._open_hidden()
        self._undo.append(NODES.add(self.name, self))
        self._routes.update(node_routes(self))
        self._start_about()
        self._undo.append(self.lookup_service.stop)
        self.lookup_service.start()
        self._undo.append(self._apps.stop)
        await self._apps.start(self, settings, self._routes, self.notes.append)
        for peer in settings.link.peer:
            self._router.add_peer(peer.key, *peer.addresses)
        self._start_lan()
        self._faces.start_metrics(self.registry)
        self._faces.start_door(self)
        self._faces.start_control(self._routes)
        self._started_unix = self.clock.unix()
        self._next_sample = self.clock.now() + SAMPLE_SECONDS
        self._undo.append(self._stop_sampling)
        self._sample()
        for note in self.notes:
            _log.warn("{note}", note=note)

    def _open_hidden(self) -> None:
        """The hidden services of the last run can be reached again."""
        self._hidden = HiddenServices(
            self.disk,
            self.data,
            self.settings.node.network,
            self.public_key,
            self._router.services,
            unix=self.clock.unix,
            reaches=lambda key: any(
                link["up"] and link["peer"] == key.hex() for link in self._brief()["links"]
            ),
            leave=self._router.leave,
        )
        self.notes += [fault for fault in self._hidden.load() if fault not in self.notes]

    def _new_registry(self) -> None:
        """For each start, since apps register anew."""
        self.registry = new_registry()
        self.registry.register(NodeCollector(self._brief, self._facts, self._neighbours))

    def _take_data(self) -> None:
        """The data directory is this node's alone while it runs."""
        make_directory(self.disk, self.data)
        try:
            lock = self.disk.lock(self.data / "lock")
        except LockedError:
            raise LocalError(
                f"Another node uses {self.data}; stop it, or give this one its own [node] data."
            ) from None
        self._undo.append(lock.release)
        sweep(self.disk, self.data)
        self.space.begin()

    def _start_lan(self) -> None:
        """Beacons on the local networks, if the operator wants them."""
        if not self.settings.lan.enabled:
            return
        at = port_of(self.listening)
        if at is None:
            raise LocalError("[lan] needs a [link] listen that others can dial, such as tcp:0.0.0.0:7001.")
        core = self._beacons(at[0], lambda key: wanted(self.settings.link, key), self.neighbours, os.urandom)
        self._lan = Lan(self.reactor, self.clock, core, self._router, at[1], self.settings.lan.interfaces)
        self._undo.append(self._lan.stop)
        self.notes += [note for note in self._lan.start() if note not in self.notes]

    def _start_about(self) -> None:
        """The node's own services, if its operator allows any."""
        serving = about.offer(self, self.settings.about)
        if serving is not None:
            self._undo.append(serving.stop)

    async def _stop(self) -> None:
        """Undoes the start, last first; a part that fails to stop does not keep the others from it.

        The control socket goes late: who asked for the end sees by it that the node has ended.
        """
        self._routes.clear()
        undo, self._undo = self._undo, []
        for step in reversed(undo):
            try:
                await maybeDeferred(step)
            except Exception:
                _log.failure("a part of the node did not stop cleanly")
        self._made = self._hidden = self._lan = None

    def stop_soon(self) -> None:
        """Tells whoever runs this node to end it, after the answer has gone out."""
        finished, self.finished = self.finished, None
        if finished is None:
            raise UsageError("This node runs inside another program; stop that one.")
        self.clock.call_later(STOP_DELAY, lambda: finished.callback(None))

    async def reload(self) -> Json:
        """Reads the config again and takes over what can be without a restart: `applied`, `restart` (keys
        for the next start), `failed` (sentences). Raises ConfigError: then nothing has changed."""
        if self.reread is None or not self._routes:
            raise UsageError("This node runs without a config file of its own, or not yet.")
        if self._reloading:
            raise LocalError("A reload is under way; wait for its end.")
        new = self.reread()
        check(self.settings, new, self.public_key, self._apps.running)
        if self.log is not None:
            self.log.apply(new.log)
        self._reloading = True
        if self._lan is not None:
            self._lan.leave([peer.key for peer in new.link.peer])
        try:
            report = await take_over(self.settings, new, self._router, self._apps.running)
        finally:
            self._reloading = False
        self.settings = report.settings
        if report.settings.metrics is not None:
            self._neighbours.most = report.settings.metrics.neighbours
        _log.info("config read again: {report}", report=report.sentence)
        return report.as_json()

    # -- what apps use (MeshNode)

    def turn(self, call: Callable[[float], None]) -> None:
        """Runs an event of a descriptor; see MeshNode."""
        self._router.turn(call)

    def connect(
        self,
        target: Target,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
        ways: Ways | None = None,
    ) -> Deferred[Stream]:
        """Opens a stream; see MeshNode."""
        route = self._given(target, via, policy)
        stream = self._router.connect(
            target, port, reader, via=route, identity=identity, policy=policy, ways=ways
        )
        return stream.addErrback(self._explained, (*(route or ()), target))

    def send_datagram(
        self,
        target: Target,
        port: int,
        data: bytes,
        *,
        source: int = 0,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
    ) -> Deferred[bool]:
        """Sends one datagram; see MeshNode."""
        route = self._given(target, via, policy)
        sent = self._router.send_datagram(
            target, port, data, source=source, via=route, identity=identity, policy=policy
        )
        return sent.addErrback(self._explained, (*(route or ()), target))

    def listen_datagrams(self, port: int, receive: Receive, service: str | None = None) -> PortListener:
        """Takes a datagram port; see MeshNode."""
        if service is not None:
            return self.hidden.find(service).ports.listen_datagrams(port, receive)
        return self._router.listen_datagrams(port, receive)

    def listen(self, port: int, accept: Accept, service: str | None = None) -> PortListener:
        """Takes a mesh port; see MeshNode."""
        if service is not None:
            return self.hidden.find(service).ports.listen(port, accept)
        return self._router.listen(port, accept)

    def service_key(self, text: str) -> PublicKey:
        """The key of one of this node's hidden services; see MeshNode."""
        return self.hidden.find(text).public

    @property
    def hidden(self) -> HiddenServices:
        """The hidden services of this node; raises LocalError unless it runs."""
        if self._hidden is None:
            raise LocalError("This node does not run.")
        return self._hidden

    def lookup(self, text: str) -> Target:
        """What hex digits, an address or a pet name stand for; raises UsageError."""
        target = self.settings.lookup(text)
        if isinstance(target, Address):
            refusal = target.refusal(self.settings.node.network, self.clock.unix())
            if refusal:
                raise UsageError(refusal)
        return target

    def known(self) -> Mapping[str, Target]:
        """Pet names of the config; see MeshNode."""
        return self.settings.names

    def neighbours(self) -> list[PublicKey]:
        """Who is linked now; see MeshNode."""
        return [public_key(bytes.fromhex(link["peer"])) for link in self._brief()["links"] if link["up"]]

    def key_of(self, address: IPv6Address) -> PublicKey | None:
        """Whose mesh address this is; see MeshNode."""
        topology = self._router.topology
        return None if topology is None else topology.whose(address)

    # -- what the control API asks

    def route_to(self, target: Target, via: Sequence[PublicKey] | None) -> tuple[PublicKey, ...]:
        """The relays to `target`: those given, else the configured route's, else the best way known, else
        none."""
        given = self._given(target, via, None)
        if given is not None:
            return given
        try:
            return self.topology.routes(target, None, self.clock.now())[0][:-1]  # type: ignore[return-value]
        except UnreachableError:
            return ()

    def _given(
        self, target: Target, via: Sequence[PublicKey] | None, policy: str | None
    ) -> tuple[PublicKey, ...] | None:
        """The relays that somebody named; None where the topology is to find some. Raises UsageError."""
        if via is not None:
            if policy is not None:
                raise UsageError("Name the relays or a policy, not both.")
            return tuple(via)
        if policy is not None:
            self.topology.policy(policy)
            return None
        configured = self.settings.route_to(target)
        return configured if configured or self._router.topology is None else None

    @property
    def keeps_topology(self) -> bool:
        """Whether there is a topology."""
        return self._router.topology is not None

    @property
    def topology(self) -> Topology:
        """What this node knows of the network; raises LocalError where it does not want to know."""
        if self._router.topology is None:
            raise LocalError("This node keeps no topology; set [topology] enabled, or name the relays.")
        return self._router.topology

    def invite(self, request: InviteRequest) -> Json:
        """A signed invite into this node's network; raises UsageError where nobody could be dialled."""
        return self._inviter.make(request, self.listening, self._brief()["links"], self.settings.link)

    def ping(self, target: Target, via: Sequence[PublicKey] | None, count: int) -> Deferred[Json]:
        """Measures a circuit of its own; such circuits are counted apart, too."""
        self._probes += 1
        route = self.route_to(target, via)
        return self._router.ping(target, route, count).addErrback(self._explained, (*route, target))

    def renew(self, target: Target | None) -> Deferred[list[Json]]:
        """Gives every session begun here, or those to `target`, a new circuit; their streams go on."""
        return self._router.renew(target)

    def _explained(self, failure: Failure, route: Sequence[Target]) -> Failure:
        """Where our own first link is missing: what is known of it, and what to do."""
        error = failure.value
        if not isinstance(error, CircuitError) or error.reason is not Reason.NO_LINK or error.hop is not None:
            return failure
        first = (route[0].introduction if isinstance(route[0], Address) else route[0]).hex()
        link = next((link for link in self.links() if link["peer"] == first), None)
        text = f"there is no link to {self._called(first)}"
        if link is not None:
            text += f", the first node of the route: {absence(link['lost_seconds'], link['why'] or '')}"
        elif len(route) == 1:
            text += ": name the relays to it with --via or in a [[route]]"
        else:
            text += ", the first node of the route: it is no [[link.peer]] here, and does not dial us"
        return Failure(CircuitError(text, Reason.NO_LINK))

    def _called(self, key: str) -> str:
        name = next((name for name, known in self.settings.names.items() if proves(known).hex() == key), "")
        return f"{name} ({key[:8]}…)" if name else f"{key[:8]}…"

    def links(self) -> list[Json]:
        """Neighbours, also configured ones that are not linked: those say since when (`lost_seconds`, None:
        it never was) and `why`. `attempts` counts our dials. `name` is the pet name if there is one."""
        links, now = [dict(link) for link in self._brief()["links"]], self.clock.now()
        present, waiting = {link["peer"] for link in links}, self._router.waiting()
        self._presence.look(links, now)
        for peer in self.settings.link.peer:
            if peer.key.hex() not in present:
                address = peer.addresses[0]
                links.append({"peer": peer.key.hex(), "address": address, "up": False, "rtt_ms": None})
        for link in links:
            link["lost_seconds"] = None if link["up"] else self._presence.lost_seconds(link["peer"], now)
            link["why"] = None if link["up"] else waiting.get(link["peer"], "it dials us, we do not dial it")
        names = {proves(target).hex(): name for name, target in self.settings.names.items()}
        dials = self._router.dials()
        for link in links:
            link["attempts"] = dials.get(link["peer"], 0)
        return [{**link, "name": names.get(link["peer"])} for link in links]

    def circuits(self) -> list[Json]:
        """Circuits that begin, end or pass here."""
        return list(self._router.snapshot()["circuits"])

    def status(self) -> Json:
        """One JSON object: who, where, how many, what was dropped, which limits hold, what apps say."""
        settings, brief = self.settings, self._brief()
        counted = self._neighbours.totals
        self._neighbours.update(brief["links"])
        return {
            "name": self.name,
            "public_key": self.public_key.hex(),
            "network": settings.node.network,
            "version": __version__,
            "pid": os.getpid(),
            "uptime_seconds": round(self.clock.unix() - self._started_unix, 1),
            "listen": self.listening,
            "metrics": self._faces.metrics,
            "control": {"socket": str(settings.control_socket), "url": self._faces.control},
            "door": {"socket": _text(settings.attach_socket), **self._faces.door_now()},
            "links": {"up": _up(brief["links"]), "configured": len(settings.link.peer)},
            "circuits": brief["circuits"],
            "bytes": {"received": counted["bytes_in"], "sent": counted["bytes_out"]},
            "totals": self._totals(),
            "dropped": brief["dropped"],
            "onion_keys": brief.get("onion_keys"),
            "accept": "any" if settings.link.accept == "any" else [key.hex() for key in settings.link.accept],
            "limits": attrs.asdict(settings.relay),
            "lan": None if self._lan is None else self._lan.status(),
            "apps": self._apps.status(),
            "routes": self.lookup_service.status(),
            "disk": {"free_bytes": self.space.free, "low": self.space.low},
            "notes": [*self.notes, *self._router.faults, *self.hidden.faults(), *self.space.notes],
        }

    def state(self) -> Json:
        """A dump for a bug report, without secrets and names."""
        log = self.log.recent if self.log is not None else ()
        return dump(self.settings, self.status(), self._router.snapshot(), log, self.reactor, Redaction())

    # -- figures

    def _sample(self) -> None:
        """Once a second: how late the reactor is, and one sample for the rings."""
        now = self.clock.now()
        self._lag = max(0.0, now - self._next_sample)
        self.space.tick(now)
        brief = self._router.pulse()
        self._presence.look(brief["links"], now)
        self._neighbours.update(brief["links"])
        counters: dict[str, float] = {**self._neighbours.totals, **self._totals()}
        counters["dropped"] = sum(brief["dropped"].values())
        gauges = {
            "links": float(_up(brief["links"])),
            "circuits": float(brief["circuits"]),
            "sessions": float(brief.get("sessions", 0)),
            "lag_seconds": self._lag,
        }
        self.history.feed(now, counters, gauges)
        self.links_past.feed(
            now, (((link["peer"],), link_sample(link)) for link in brief["links"] if link["up"])
        )
        self.paths_past.feed(now, brief.get("paths", {}).items())
        self._next_sample = now + SAMPLE_SECONDS
        self._cancel_sample = self.clock.call_later(SAMPLE_SECONDS, self._sample)

    def _forget_links(self) -> None:
        self._presence.stop(UnreachableError("the node was stopped before it was linked"))

    def _stop_sampling(self) -> None:
        self._cancel_sample()

    def _totals(self) -> dict[str, int]:
        return {**self._router.totals, "probes": self._probes}

    def _brief(self) -> Json:
        return self._router.brief()

    def _facts(self) -> Iterable[Metric]:
        yield gauge("meshnet_start_time_seconds", "When this node started, Unix time.", self._started_unix)
        yield gauge("meshnet_reactor_lag_seconds", "How late the last one-second timer ran.", self._lag)
        yield info(__version__, self.public_key.hex(), self.name)
        yield limits({name: float(value) for name, value in attrs.asdict(self.settings.relay).items()})
        yield from totals(self._totals())
        yield from self.space.facts()
        yield from self._faces.facts()
        yield from lan_facts(self._lan)
        yield from self.lookup_service.facts()


def _text(path: Path | None) -> str | None:
    return None if path is None else str(path)


def _up(links: Sequence[Json]) -> int:
    return sum(1 for link in links if link["up"])
