"""The app on a running node: its listeners, those of the config and those added at run time.

    GET POST DELETE /socks      POST: the keys of [socks]; DELETE: listen
    GET POST DELETE /forward    POST: the keys of [[forward]]; DELETE: listen
    GET POST DELETE /serve      POST: the keys of [[serve]]; DELETE: port
    GET POST DELETE /tunnel     POST: the keys of [vpn] that differ; DELETE: take it down
    POST            /doctor     looks after what the tunnel has changed in the system
    GET POST        /exit       POST: enabled, packets, rate, allow, deny (added), remove (from either list)
    GET POST        /tun        POST: up, and keys of [tun] that shall differ

What is added lasts until the node stops; what shall stay stands in the config.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sized
from typing import Any, Final, TypeVar

from attrs import evolve, frozen
from twisted.application.service import Service
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed
from twisted.logger import Logger
from twisted.python.failure import Failure
from zope.interface import implementer

from apps.vpn.client.collector import TunnelCollector
from apps.vpn.client.routes import TunnelRoutes
from apps.vpn.client.service import TunnelClient
from apps.vpn.client.system import Own
from apps.vpn.counts import ROLES, Counts, GatewayCollector, TunCollector, VpnCollector
from apps.vpn.gateway import INTERFACE, Gateway
from apps.vpn.host.service import host_of
from apps.vpn.listeners import ForwardListener, LocalListener, SocksListener, show
from apps.vpn.mesh.control import MeshInterface
from apps.vpn.ports import ExitPort, MeshPort, ServePort
from apps.vpn.settings import Exit, Forward, Rate, RuleText, Serve, Socks, VpnSettings
from apps.vpn.socks_datagrams import Answers
from apps.vpn.splice import Role
from meshnet.cipher.address import Target, proves
from meshnet.cipher.keys import PublicKey
from meshnet.errors import ConfigError, LocalError, UsageError
from meshnet.node.app import IAppService, IReloads, Json, MeshNode, Reloaded, Route
from meshnet.node.schema import HostPort, Port, read_body

T = TypeVar("T")
L = TypeVar("L", bound=LocalListener)

LISTENERS: Final = 1_024
"""Listeners of each kind."""

_log = Logger()


@frozen
class NoArguments:
    """Body of a GET."""


@frozen
class ByListen:
    """Names a local listener by its bound address."""

    listen: HostPort


@frozen
class ByPort:
    """Names a served port, and the hidden service whose it is."""

    port: Port
    address: str = ""


@frozen
class ChangeExit:
    """What to change of the exit; `remove` takes rules from either list by their text."""

    enabled: bool | None = None
    packets: bool | None = None
    rate: Rate | None = None
    allow: tuple[RuleText, ...] = ()
    deny: tuple[RuleText, ...] = ()
    remove: tuple[str, ...] = ()


@implementer(IAppService, IReloads)
class VpnService(Service):
    """All listeners of one node."""

    def __init__(self, node: MeshNode, settings: VpnSettings) -> None:
        self._node = node
        self._settings = settings
        self._roles = {name: Role(Counts()) for name in ROLES}
        self._socks: dict[str, SocksListener] = {}
        self._forwards: dict[str, ForwardListener] = {}
        self._served: dict[tuple[str, int], ServePort] = {}
        self._answers = Answers(node, self._roles["socks"].counts)
        self._exit = ExitPort(node, self._roles["exit"], settings=settings.exit)
        self._host = host_of(node)
        self._gateway = Gateway(node, self._host)
        self._tunnel = TunnelClient(node, self._host, own=self._own)
        self._tunnel_routes = TunnelRoutes(self._tunnel, settings.vpn, node.lookup)
        node.registry.register(TunnelCollector(self._tunnel))
        self._tun = MeshInterface(node, settings.tun)
        self._collector = VpnCollector({name: role.counts for name, role in self._roles.items()})
        node.registry.register(self._collector)
        node.registry.register(GatewayCollector(self._gateway.describe))
        node.registry.register(TunCollector(self._tun))

    def startService(self) -> Deferred[None]:
        """Binds what the config names; raises LocalError if something is taken. Fires when packets pass, if
        they shall; fails with LocalError where they cannot."""
        super().startService()
        settings = self._settings
        try:
            if settings.socks is not None:
                self.add_socks(settings.socks)
            for forward in settings.forward:
                self.add_forward(forward)
            for serve in settings.serve:
                self.add_serve(serve)
            self._exit.apply()
            self._tun.start()
        except LocalError:
            self.stopService()
            raise
        return Deferred.fromCoroutine(self._begin_packets(settings)).addErrback(self._not_started)

    async def _begin_packets(self, settings: VpnSettings) -> None:
        """A kill switch stands before the node dials anybody."""
        await self._tunnel.begin(settings.vpn)
        await self._gateway.begin(settings.exit)

    def _not_started(self, failure: Failure) -> Deferred[None]:
        return self.stopService().addCallback(lambda done: failure)

    def stopService(self) -> Deferred[None]:
        """Closes every listener and every connection, and undoes what was changed in the system."""
        super().stopService()
        self._tun.down()
        local: list[LocalListener] = [*self._socks.values(), *self._forwards.values()]
        mesh: list[MeshPort] = [*self._served.values(), self._exit]
        waiting = [listener.stop() for listener in local]
        for port in mesh:
            port.stop()
        waiting += [role.stop() for role in self._roles.values()]
        waiting.append(Deferred.fromCoroutine(self._stop_packets()))
        for listeners in (self._socks, self._forwards, self._served):
            listeners.clear()
        return DeferredList(waiting, consumeErrors=True).addCallback(lambda results: None)

    async def _stop_packets(self) -> None:
        await self._tunnel.stop()
        if self._gateway.on:
            for fault in await self._gateway.stop():
                _log.warn("{fault}", fault=fault)
        await self._host.close()

    def _own(self) -> Own:
        """What of this node stands in the machine beside the tunnel."""
        mesh, interfaces, servers = self._tun, [], []
        if self._gateway.on:
            interfaces.append(INTERFACE)
        if mesh.network is not None:
            interfaces.append(mesh.network.tun.device.name)
            servers += [str(mesh.network.address)] if mesh.server is not None else []
        return Own(tuple(interfaces), tuple(servers))

    # what can be added

    def add_socks(self, settings: Socks) -> SocksListener:
        """Binds a SOCKS5 port; raises LocalError, UsageError for a route over this node itself."""
        self._check("exit", settings.exit, settings.via)
        listener = SocksListener(self._node, self._roles["socks"], settings=settings, answers=self._answers)
        _room(self._socks)
        listener.bind(settings.listen)
        self._socks[listener.address] = listener
        return listener

    def add_forward(self, settings: Forward) -> ForwardListener:
        """Binds a forward; raises LocalError, UsageError for a route over this node itself."""
        self._check("to", settings.to, settings.via)
        listener = ForwardListener(self._node, self._roles["forward"], settings=settings)
        _room(self._forwards)
        listener.bind(settings.listen)
        self._forwards[listener.address] = listener
        return listener

    def add_serve(self, settings: Serve) -> ServePort:
        """Serves a mesh port; raises LocalError, UsageError for a hidden service that is not there."""
        port = ServePort(self._node, self._roles["serve"], settings=settings)
        _room(self._served)
        port.listen(settings.port, settings.address or None)
        self._served[settings.address, settings.port] = port
        return port

    def _check(self, key: str, target: Target, via: tuple[PublicKey, ...] | None) -> None:
        if target == self._node.public_key:
            raise UsageError(f"{key} = {proves(target).hex()} is this node's own key; name another node.")
        if self._node.public_key in (via or ()):
            raise UsageError("The route passes this node itself; leave its own key out of via.")

    # IReloads

    def check(self, settings: VpnSettings) -> None:
        """Raises ConfigError for a route over this node itself."""
        try:
            if settings.socks is not None:
                self._check("socks.exit", settings.socks.exit, settings.socks.via)
            for index, forward in enumerate(settings.forward):
                self._check(f"forward.{index}.to", forward.to, forward.via)
            if settings.vpn is not None:
                self._tunnel.check(settings.vpn)
        except UsageError as error:
            raise ConfigError(str(error)) from None

    async def reload(self, settings: VpnSettings) -> Reloaded:
        """Closes listeners that the config no longer has, then opens new ones. Connections stay, and so does
        what a command added."""
        old, failed = self._settings, list[str]()
        kinds: list[tuple[str, tuple[Any, ...], tuple[Any, ...], dict[Any, Any], Callable[[Any], Any]]] = [
            ("socks", _some(old.socks), _some(settings.socks), self._socks, self.add_socks),
            ("forward", old.forward, settings.forward, self._forwards, self.add_forward),
            ("serve", old.serve, settings.serve, self._served, self.add_serve),
        ]
        applied, holds = [], dict[str, tuple[Any, ...]]()
        for kind, before, after, open_, _ in kinds:
            gone = [each for each in before if each not in after]
            for key in [key for key, listener in open_.items() if listener.settings in gone]:
                await maybeDeferred(open_.pop(key).stop)
            applied += [f"{kind}: {_named(each)} closed" for each in gone]
        for kind, before, after, _, add in kinds:
            holds[kind] = tuple(each for each in after if each in before)
            for each in [each for each in after if each not in before]:
                try:
                    add(each)
                except LocalError as error:
                    failed.append(f"{kind}: {error}")
                    continue
                holds[kind] += (each,)
                applied.append(f"{kind}: {_named(each)} opened")
        if settings.exit != old.exit:
            self._exit.settings = settings.exit
            self._exit.apply()
            try:
                await self._gateway.apply(settings.exit)
            except LocalError as error:
                failed.append(f"exit: {error}")
            applied.append("exit")
        if settings.vpn != old.vpn:
            self._tunnel_routes.configured = settings.vpn
            applied.append("vpn: from the next `meshnet vpn up` on")
        if settings.tun != old.tun:
            failed += [f"tun: {problem}" for problem in self._tun.change_to(settings.tun)]
            applied.append("tun")
        self._settings = evolve(
            old,
            tun=settings.tun,
            socks=next(iter(holds["socks"]), None),
            forward=holds["forward"],
            serve=holds["serve"],
            exit=settings.exit,
            vpn=settings.vpn,
        )
        return Reloaded(self._settings, tuple(applied), tuple(failed))

    # IAppService

    def status(self) -> Json:
        """Every listener, and the counts of each role."""
        return {
            "socks": [each.describe() for each in self._socks.values()],
            "forward": [each.describe() for each in self._forwards.values()],
            "serve": [each.describe() for each in self._served.values()],
            "exit": {**self._exit.describe(), "packets": self._gateway.describe()},
            "tunnel": self._tunnel.describe(),
            "tun": self._tun.status(),
            "counts": {name: role.counts.as_json() for name, role in self._roles.items()},
        }

    def routes(self) -> Mapping[str, Route]:
        """As in the module's docstring."""
        return {
            "GET /socks": lambda body: self._list(body, "socks"),
            "POST /socks": lambda body: self.add_socks(self._read(Socks, body)).describe(),
            "DELETE /socks": lambda body: self._remove_local(body, self._socks),
            "GET /forward": lambda body: self._list(body, "forward"),
            "POST /forward": lambda body: self.add_forward(self._read(Forward, body)).describe(),
            "DELETE /forward": lambda body: self._remove_local(body, self._forwards),
            "GET /serve": lambda body: self._list(body, "serve"),
            "POST /serve": lambda body: self.add_serve(self._read(Serve, body)).describe(),
            "DELETE /serve": self._remove_served,
            "GET /tun": lambda body: self._tun.show(body),
            "POST /tun": self._change_tun,
            "GET /exit": lambda body: self._list(body, "exit"),
            "POST /exit": self._change_exit,
            "GET /tunnel": lambda body: self._tunnel_routes.show(body),
            "POST /tunnel": lambda body: self._tunnel_routes.up(body),
            "DELETE /tunnel": lambda body: self._tunnel_routes.down(body),
            "POST /doctor": lambda body: self._tunnel_routes.doctor(body),
        }

    def _read(self, cls: type[T], body: Json) -> T:
        return read_body(cls, body, self._node.lookup)

    def _list(self, body: Json, name: str) -> Json:
        self._read(NoArguments, body)
        status = self.status()
        return {name: status[name], "counts": status["counts"][name]}

    def _remove_local(self, body: Json, listeners: dict[str, L]) -> Deferred[Json]:
        address = show(self._read(ByListen, body).listen)
        listener = listeners.pop(address, None)
        if listener is None:
            raise UsageError(f"Nothing listens on {address}; there are: {', '.join(listeners) or 'none'}.")
        return listener.stop().addCallback(lambda done: {"removed": address})

    def _remove_served(self, body: Json) -> Deferred[Json]:
        asked = self._read(ByPort, body)
        port = self._served.pop((asked.address, asked.port), None)
        if port is None:
            served = ", ".join(" of ".join((str(n), *([name] if name else []))) for name, n in self._served)
            of = f" of {asked.address}" if asked.address else ""
            raise UsageError(f"Mesh port {asked.port}{of} is not served; there are: {served or 'none'}.")
        port.stop()
        return succeed({"removed": asked.port})

    def _change_tun(self, body: Json) -> Json | Deferred[Json]:
        try:
            return self._tun.change(body)
        finally:  # the tunnel lets it send, and resolv.conf names its server
            self._tunnel.refresh()

    def _change_exit(self, body: Json) -> Json | Deferred[Json]:
        change = self._read(ChangeExit, body)
        self._exit.change(change.enabled, change.allow, change.deny, change.remove)
        wanted = self._exit.settings
        if change.rate is not None:
            wanted = evolve(wanted, rate=change.rate)
        if change.packets is not None:
            wanted = evolve(wanted, packets=change.packets)
        self._exit.settings = wanted
        if not (wanted.packets or self._gateway.on):
            return self._told_exit()
        return Deferred.fromCoroutine(self._change_gateway(wanted))

    async def _change_gateway(self, wanted: Exit) -> Json:
        try:
            await self._gateway.apply(wanted)
        except LocalError:
            self._exit.settings = evolve(wanted, packets=False)
            raise
        finally:
            self._tunnel.refresh()
        return self._told_exit()

    def _told_exit(self) -> Json:
        return {"exit": self.status()["exit"]}


def _some(settings: Socks | None) -> tuple[Socks, ...]:
    return () if settings is None else (settings,)


def _named(settings: Socks | Forward | Serve) -> str:
    return f"port {settings.port}" if isinstance(settings, Serve) else show(settings.listen)


def _room(listeners: Sized) -> None:
    if len(listeners) >= LISTENERS:
        raise LocalError(f"There are {LISTENERS} of these already; remove some.")
