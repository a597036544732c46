"""`meshnet tun`: the mesh interface of a running node, up and down.

GET  /tun                 what it is and whom it reaches
POST /tun   up: true, and the keys of [tun] that shall differ; up: false
"""

from __future__ import annotations

from ipaddress import IPv6Address, IPv6Interface
from typing import Any

import attrs
from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.internet.threads import deferToThreadPool
from twisted.logger import Logger
from twisted.python.failure import Failure

from apps.vpn.host.tools import find_tools, run
from apps.vpn.mesh.addresses import NETWORK
from apps.vpn.mesh.names import NameServer, tell_system
from apps.vpn.mesh.network import MeshNetwork, OpenDevice
from apps.vpn.settings import Callers, Hops, Mtu, Tun
from apps.vpn.tun.device import Device
from apps.vpn.tun.flow import Totals
from apps.vpn.tun.system import open_device
from meshnet.errors import LocalError, MeshError, UsageError
from meshnet.node.app import Json, MeshNode
from meshnet.node.schema import read_body, read_query

_log = Logger()


@frozen
class NoArguments:
    """Body of a GET."""


@frozen
class ChangeTun:
    """Body of POST /tun."""

    up: bool
    name: str | None = None
    mtu: Mtu | None = None
    hops: Hops | None = None
    callers: Callers | None = None


def open_mesh(settings: Tun, address: IPv6Interface) -> Device:
    """The interface of this system, with its address and the route to the mesh. Raises LocalError,
    MissingDependencyError."""
    return open_device(settings.name, settings.mtu, [address], [NETWORK])


class MeshInterface:
    """The interface of one node, whether up or not. `gone` holds why the last one vanished."""

    def __init__(self, node: MeshNode, settings: Tun, open_device: OpenDevice = open_mesh) -> None:
        self.settings = settings
        self.network: MeshNetwork | None = None
        self.gone: MeshError | None = None
        self.server: NameServer | None = None
        self.names_note = self.names_asked = ""
        self._telling: Deferred[None] | None = None
        self._past = Totals()
        self._node = node
        self._open = open_device

    def start(self) -> None:
        """Up, if the config says so; raises LocalError, UsageError."""
        if self.settings.enabled:
            self.up(self.settings)

    def up(self, settings: Tun) -> None:
        """Brings it up; raises LocalError, UsageError."""
        if self.network is not None:
            name = self.network.tun.device.name
            raise LocalError(f"The mesh interface {name} is up already; `meshnet tun down` first.")
        network = MeshNetwork(self._node, settings, self._open, self._vanished)
        network.start()
        self.network, self.gone, self.names_note, self.names_asked = network, None, "", ""
        if settings.dns:
            self._serve_names(network)

    def down(self) -> None:
        """Takes it down; harmless if it is."""
        server, self.server = self.server, None
        if server is not None:
            server.stop()
        network, self.network = self.network, None
        if network is not None:
            network.stop()
            self._past.add(network.sums())

    def change_to(self, settings: Tun) -> list[str]:
        """Takes over other settings of the config: down, and up again if they say so. Why not, if so."""
        self.settings = settings
        self.down()
        try:
            self.start()
        except LocalError as problem:
            return [str(problem)]
        return []

    def _vanished(self, why: MeshError) -> None:
        _log.warn("{why}", why=why)
        self.gone = why
        self.down()

    def _serve_names(self, network: MeshNetwork) -> None:
        server = NameServer(self._node.reactor, network.address, network.names, network.refresh)
        try:
            server.start()
        except LocalError as problem:
            self.names_note = str(problem)
            return
        self.server = server
        reactor = self._node.reactor
        self._telling = deferToThreadPool(
            reactor, reactor.getThreadPool(), self._tell, network.tun.device.name, network.address
        ).addCallbacks(self._told, self._untold)

    @staticmethod
    def _tell(device: str, address: IPv6Address) -> str:
        return tell_system(find_tools(), run, device, address)

    def _told(self, asked: str) -> None:
        self._telling, self.names_asked = None, asked

    def _untold(self, failure: Failure) -> None:
        self._telling, self.names_note = None, str(failure.value)

    # what is asked of it

    def status(self) -> Json:
        """`up`, and what the interface says of itself."""
        if self.network is None:
            return {"up": False, "gone": str(self.gone) if self.gone is not None else None}
        names = {
            "server": str(self.network.address) if self.server is not None else None,
            "asked": self.server.asked if self.server is not None else 0,
            "note": self.names_note or None,
            "done": self.names_asked or None,
        }
        return {"gone": None, **self.network.status(), "names": names}

    def sums(self) -> Totals:
        """What has passed since the node's start."""
        sums = Totals()
        sums.add(self._past)
        if self.network is not None:
            sums.add(self.network.sums())
        return sums

    @property
    def reached(self) -> int:
        """Nodes that packets pass to or from now."""
        return self.network.reached if self.network is not None else 0

    def show(self, body: Json) -> Json:
        """GET /tun."""
        read_query(NoArguments, body)
        return self.status()

    def change(self, body: Json) -> Json | Deferred[Json]:
        """POST /tun: up, it answers when it is known who asks for names here."""
        asked = read_body(ChangeTun, body, self._node.lookup)
        if not asked.up:
            self.down()
            return self.status()
        given: dict[str, Any] = {
            name: value
            for name in ("name", "mtu", "hops", "callers")
            if (value := getattr(asked, name)) is not None
        }
        try:
            settings = attrs.evolve(self.settings, **given)
        except ValueError as problem:
            raise UsageError(f"{str(problem)[0].upper()}{str(problem)[1:]}.") from None
        self.up(settings)
        if self._telling is None:
            return self.status()
        known: Deferred[Json] = Deferred()

        def tell(result: None) -> None:
            known.callback(self.status())

        self._telling.addCallback(tell)
        return known
