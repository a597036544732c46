"""A node's two sides of route lookup: it asks route services, and may be one (docs/topology.md).

As `[topology] route_services` and `[route_service]` of the config say; the latter also until the node stops,
when the control API asks for it.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Protocol

import attrs
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.internet.defer import Deferred, DeferredList, maybeDeferred, succeed

from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError, UsageError
from meshnet.node import route_service
from meshnet.node.app import Json
from meshnet.node.config import Settings
from meshnet.node.graph_store import Place, open_store
from meshnet.node.route_service import RouteService
from meshnet.node.route_sync import RouteSync
from meshnet.node.topology import Topology
from meshnet.topology.book import Verdict


class Node(route_service.Node, Place, Protocol):
    """What is needed of a node."""

    public_key: PublicKey
    settings: Settings

    @property
    def keeps_topology(self) -> bool:
        """Whether there is a topology."""

    @property
    def topology(self) -> Topology:
        """What it knows of the network; raises LocalError where it does not want to know."""

    def ping(self, target: Target, via: None, count: int) -> Deferred[Json]:
        """Measures a circuit."""


class RouteLookup:
    """One per node; `start` and `stop` with it."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.sync: RouteSync | None = None
        self.service: RouteService | None = None

    def start(self) -> None:
        """As the config says; raises LocalError, StorageError, UsageError."""
        settings = self._node.settings
        if settings.topology.route_services and self._node.keeps_topology:
            self.sync = RouteSync(self._node, self._node.topology, settings.topology.route_services)
            self.sync.start()
        if settings.route_service.enabled:
            self.serve(None)

    def serve(self, database: str | None) -> None:
        """Is a route service from now on; raises UsageError if it is one already."""
        if self.service is not None:
            raise UsageError("This node is a route service already; stop that first (--stop).")
        topology = self._node.topology
        settings = self._node.settings.route_service
        if database is not None:
            settings = attrs.evolve(settings, database=database)
        store = open_store(self._node, settings.database)
        made = RouteService(self._node, topology, settings, store)
        try:
            made.start()
        except MeshError:
            Deferred.fromCoroutine(store.close())
            raise
        self.service = made

    def answered(self) -> Deferred[None]:
        """Fires when the service's database was asked; at once where there is none."""
        return succeed(None) if self.service is None else self.service.asked()

    def unserve(self) -> Deferred[None]:
        """No longer; fires when what it knew is written."""
        service, self.service = self.service, None
        return succeed(None) if service is None else Deferred.fromCoroutine(service.stop())

    def stop(self) -> Deferred[None]:
        """Both end."""
        if self.sync is not None:
            self.sync.stop()
            self.sync = None
        return self.unserve()

    def status(self) -> Json:
        """`services` that are asked, and `serves`: what others ask of this one."""
        return {
            "services": [] if self.sync is None else self.sync.status(),
            "serves": None if self.service is None else self.service.status(),
        }

    async def refresh(self) -> Json:
        """Asks all services now; the same as `status`."""
        if self.sync is not None:
            await self.sync.now()
        return self.status()

    async def ask(self, at: PublicKey, source: PublicKey | None, target: PublicKey, policy: str) -> Json:
        """A route service is asked for ways; from this node unless `source` is given."""
        return await route_service.ask(self._node, at, source or self._node.public_key, target, policy)

    async def probe(self, targets: Iterable[PublicKey]) -> list[Json]:
        """Each of these is pinged once, all at a time: `rtt_ms` and `setup_ms`, or `error`."""
        found = list(targets)
        asked = [maybeDeferred(self._node.ping, target, None, 1) for target in found]
        outcomes: list[Any] = await DeferredList(asked, consumeErrors=True)
        rows: list[Json] = []
        for target, (right, outcome) in zip(found, outcomes, strict=True):
            if right:
                rows.append(
                    {"key": target.hex(), "setup_ms": outcome["setup_ms"], "rtt_ms": outcome["rtt_ms"]}
                )
            else:
                rows.append({"key": target.hex(), "error": str(outcome.value)})
        return rows

    def facts(self) -> Iterable[Metric]:
        """For /metrics; zeros where there is no topology."""
        topology = self._node.topology if self._node.keeps_topology else None
        figures = {} if topology is None else topology.figures()
        for name, text in _GAUGES.items():
            yield GaugeMetricFamily(f"meshnet_topology_{name}", text, value=figures.get(name, 0))
        for name, text in _COUNTERS.items():
            yield CounterMetricFamily(f"meshnet_topology_{name}", text, value=figures.get(name, 0))
        taken = CounterMetricFamily(
            "meshnet_topology_received_records",
            "Link-state records received, by what became of them.",
            labels=["verdict"],
        )
        for verdict in Verdict:
            taken.add_metric([verdict.value], 0 if topology is None else topology.book.counts[verdict])
        yield taken
        yield from self._served()

    def _served(self) -> Iterable[Metric]:
        looks = CounterMetricFamily(
            "meshnet_topology_looks", "Looks at route services, by how they ended.", labels=["outcome"]
        )
        services = [] if self.sync is None else self.sync.services
        looks.add_metric(["whole"], sum(each.looks for each in services))
        looks.add_metric(["failed"], sum(each.failures for each in services))
        yield looks
        load = None if self.service is None else self.service.load()
        for name, text in _SERVED.items():
            value = 0 if load is None else getattr(load, name)
            yield CounterMetricFamily(f"meshnet_route_service_{name}", text, value=value)
        callers = 0 if load is None else load.callers
        yield GaugeMetricFamily("meshnet_route_service_callers", "Looks under way here.", value=callers)


_GAUGES = {
    "nodes": "Nodes that links connect with this one, as far as is known, itself included.",
    "apart": "Records of nodes that are not connected, as far as is known.",
    "suspects": "Relays avoided since circuits died over them.",
}
_COUNTERS = {
    "published": "Records that this node issued of itself.",
    "sent_records": "Link-state records sent to neighbours.",
    "sent_bytes": "Bytes of topology frames sent to neighbours, their heads included.",
    "received_bytes": "Bytes of topology frames received from neighbours, their heads included.",
}
_SERVED = {
    "looks": "Looks that callers began here.",
    "questions": "Questions for ways answered here.",
    "refused": "Looks and questions refused here for lack of room.",
    "sent_bytes": "Bytes of looks sent to callers, without heads of items and cells.",
}
