"""What Prometheus sees of a node, read from plain counts when it asks.

One registry per node. Base units, a HELP for every series, bounded labels: the busiest neighbours have
series of their own, all others are summed as `other`. A neighbour keeps its series while its link lives,
so that no counter ever runs backwards. Nothing here is called per cell.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Final

from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from twisted.web.resource import Resource
from twisted.web.server import Request, Site

from meshnet.circuit.admission import REFUSALS
from meshnet.control.server import QuietSite
from meshnet.errors import Drop

CONTENT_TYPE: Final = b"text/plain; version=0.0.4; charset=utf-8"
OTHER: Final = "other"

_LINK_COUNTERS: Final = (
    ("bytes_in", "meshnet_link_received_bytes", "Bytes received from this neighbour, encryption included."),
    ("bytes_out", "meshnet_link_sent_bytes", "Bytes sent to this neighbour, encryption included."),
    ("cells_in", "meshnet_link_received_cells", "Cells received from this neighbour."),
    ("connections", "meshnet_link_connections", "Connections that have carried this link."),
    ("control_dropped", "meshnet_link_dropped_frames", "Control frames for which there was no room."),
)
"""Key of a link's snapshot, name of the series, help."""
_NODE_COUNTERS: Final = (
    (
        "bytes_in",
        "meshnet_received_bytes",
        "Bytes received over all links there ever were, encryption included.",
    ),
    ("bytes_out", "meshnet_sent_bytes", "Bytes sent over all links there ever were, encryption included."),
)

Snapshot = Mapping[str, Any]


class Neighbours:
    """Running sums over links that come and go; who has series of its own.

    What a neighbour did before it got series of its own stays with `other`, so that all series together are
    what `totals` says, but for links that have gone.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._last: dict[str, dict[str, int]] = {}
        self.own: dict[str, dict[str, int]] = {}
        """By peer, what it did since it has series of its own."""
        self.totals: dict[str, int] = _zeros()
        self.other: dict[str, int] = _zeros()

    def update(self, links: Sequence[Snapshot]) -> None:
        """Takes in what has been counted since the last time."""
        present = {str(link["peer"]) for link in links}
        for gone in self._last.keys() - present:
            del self._last[gone]
            self.own.pop(gone, None)
        free = self.most - len(self.own)
        if free > 0:
            rest = [link for link in links if link["peer"] not in self.own]
            rest.sort(key=lambda link: -(link.get("bytes_in", 0) + link.get("bytes_out", 0)))
            self.own.update((str(link["peer"]), _zeros()) for link in rest[:free])
        for link in links:
            self._count(str(link["peer"]), link)

    def _count(self, peer: str, link: Snapshot) -> None:
        last = self._last.setdefault(peer, {})
        sums = self.own.get(peer, self.other)
        for key in self.totals:
            value = int(link.get(key, 0))
            grown = max(0, value - last.get(key, 0))
            last[key] = value
            self.totals[key] += grown
            sums[key] += grown


def _zeros() -> dict[str, int]:
    return dict.fromkeys((key for key, _, _ in _LINK_COUNTERS), 0)


TOTALS: Final[Mapping[str, str]] = {
    "cells_relayed": "Cells of others passed on, both directions.",
    "cells_marked": "Of these, those that got the congestion bit here, since their queue was long or stood.",
    "bytes_relayed": "Bytes of the bodies of these cells, without their heads, both directions.",
    "end_cells_received": "Cells received by circuits that begin or end here.",
    "end_bytes_received": "Bytes of these cells, their heads of 12 bytes included.",
    "end_cells_sent": "Cells sent by circuits that begin or end here.",
    "end_bytes_sent": "Bytes of these cells, their heads of 12 bytes included.",
    "creates": "Requests to set up a circuit received from neighbours.",
    "creates_refused": "Requests to set up a circuit refused here.",
    "onions_by_epoch": "Requests to set up a circuit whose onion was opened with a key that changes.",
    "hops_by_epoch": "Hops of circuits begun here whose layer of the onion was for a key that changes.",
    "hops_by_identity": "Other hops of them: for the identity key, which its thief could open later.",
    "circuits_relayed": "Circuits of others set up through this node.",
    "circuits_accepted": "Circuits of others that end here.",
    "circuits_opened": "Circuits begun here.",
    "circuits_failed": "Circuits begun here that could not be set up.",
    "circuits_lost": "Circuits of any kind that ended other than by their owner's wish.",
    "circuits_renewed": "Circuits begun here that took over the session of another that still stood.",
    "losses_survived": "Sessions begun here that lost their last circuit and went on over a new one.",
    "renewals_failed": "Attempts to give a session a new circuit that failed.",
    "spares_built": "Circuits begun here that were kept in reserve.",
    "spares_used": "Times that a session went on over a circuit that was in reserve.",
    "spares_failed": "Attempts to make a circuit to be kept in reserve that failed.",
    "probes": "Circuits asked for by ping and trace; they are in circuits_opened or circuits_failed, too.",
    "stray_frames": "Circuit frames that fit no circuit.",
    "handshakes_failed": "Connections that ended before their handshake did.",
    "strangers_turned_away": "Connections hung up on before their handshake, since too many came.",
    "links_refused": "Neighbours refused by [link] accept or for lack of room.",
}
"""The router's counts and what they say."""


def totals(counts: Mapping[str, int]) -> Iterable[Metric]:
    """The router's counts; one that has no text here yet gets its name as help."""
    for name, value in counts.items():
        text = TOTALS.get(name, f"Count of {name.replace('_', ' ')}.")
        yield CounterMetricFamily(f"meshnet_{name}", text, value=value)


def limits(values: Mapping[str, float]) -> Metric:
    """The operator's limits as configured; 0 of max_rate: none."""
    family = GaugeMetricFamily(
        "meshnet_relay_limit", "Limits of [relay] in the config, by key; switches are 0 or 1.", labels=["key"]
    )
    for key, value in values.items():
        family.add_metric([key], value)
    return family


def info(version: str, public_key: str, name: str) -> Metric:
    """Always 1; who this is."""
    family = GaugeMetricFamily(
        "meshnet_node_info", "This node; always 1.", labels=["version", "public_key", "name"]
    )
    family.add_metric([version, public_key, name], 1)
    return family


def gauge(name: str, text: str, value: float) -> Metric:
    """A gauge without labels."""
    return GaugeMetricFamily(name, text, value=value)


_PATH_GAUGES: Final = (
    ("rtt_ms", 1e-3, "meshnet_path_round_trip_seconds", "Smoothed round trip"),
    ("lost_there", 1.0, "meshnet_path_lost_there_ratio", "Share of cells lost on the way there"),
    ("lost_back", 1.0, "meshnet_path_lost_back_ratio", "Share of cells lost on the way back"),
    ("delivery_rate", 1.0, "meshnet_path_delivery_bytes_per_second", "Delivery rate"),
)


class NodeCollector:
    """Turns a node's counts into series at scrape time.

    `read` gives the router's brief; `facts` gives all that is not about links or drops.
    """

    def __init__(
        self,
        read: Callable[[], Snapshot],
        facts: Callable[[], Iterable[Metric]],
        neighbours: Neighbours,
    ) -> None:
        self._read = read
        self._facts = facts
        self._neighbours = neighbours

    def describe(self) -> list[Metric]:
        """Nothing: names are known only at scrape time."""
        return []

    def collect(self) -> Iterable[Metric]:
        """Every series of the node."""
        snapshot = self._read()
        links = snapshot.get("links", [])
        self._neighbours.update(links)
        yield from self._links(links)
        yield self._dropped(snapshot.get("dropped", {}))
        yield from self._circuits(snapshot)
        yield from self._facts()

    def _links(self, links: Sequence[Snapshot]) -> Iterable[Metric]:
        up = sum(1 for link in links if link["up"])
        yield gauge("meshnet_links", "Neighbours linked now.", up)
        neighbours = self._neighbours
        for key, name, text in _NODE_COUNTERS:
            yield CounterMetricFamily(name, text, value=neighbours.totals[key])
        for key, name, text in _LINK_COUNTERS:
            family = CounterMetricFamily(name, text, labels=["peer"])
            for peer, sums in {**neighbours.own, OTHER: neighbours.other}.items():
                family.add_metric([peer], sums[key])
            yield family
        own = [link for link in links if link["peer"] in neighbours.own]
        trip = GaugeMetricFamily(
            "meshnet_link_round_trip_seconds", "Smoothed round trip to this neighbour.", labels=["peer"]
        )
        loss = GaugeMetricFamily(
            "meshnet_link_loss_ratio", "Share of pings this neighbour has not answered.", labels=["peer"]
        )
        yield from self._delays(own)
        for link in own:
            if link.get("rtt_ms") is not None:
                trip.add_metric([link["peer"]], link["rtt_ms"] / 1e3)
                loss.add_metric([link["peer"]], link.get("loss", 0.0))
        yield trip
        yield loss
        yield self._throughput(own)

    @staticmethod
    def _delays(links: Sequence[Snapshot]) -> Iterable[Metric]:
        delay = GaugeMetricFamily(
            "meshnet_link_delay_seconds",
            "How long a ping took to this neighbour, and its answer back; right within the uncertainty.",
            labels=["peer", "direction"],
        )
        around = GaugeMetricFamily(
            "meshnet_link_delay_uncertainty_seconds",
            "By how much both delays of this neighbour may be wrong, up or down.",
            labels=["peer"],
        )
        lanes = GaugeMetricFamily("meshnet_link_lanes", "Lanes that stand now.", labels=["peer"])
        for link in links:
            if link.get("delay_there_ms") is not None:
                delay.add_metric([link["peer"], "there"], link["delay_there_ms"] / 1e3)
                delay.add_metric([link["peer"], "back"], link["delay_back_ms"] / 1e3)
                around.add_metric([link["peer"]], link["delay_uncertainty_ms"] / 1e3)
            lanes.add_metric([link["peer"]], link.get("lanes_up", 0))
        yield from (delay, around, lanes)

    def _circuits(self, snapshot: Snapshot) -> Iterable[Metric]:
        yield gauge("meshnet_circuits", "Circuits that begin, end or pass here.", snapshot["circuits"])
        roles = GaugeMetricFamily(
            "meshnet_circuits_by_role", "The same by this node's role.", labels=["role"]
        )
        for role, number in snapshot.get("roles", {}).items():
            roles.add_metric([role], number)
        yield roles
        refused = CounterMetricFamily(
            "meshnet_circuits_refused",
            "Requests to set up a circuit refused here, by reason.",
            labels=["reason"],
        )
        reasons = {reason.name.lower(): 0 for reason in REFUSALS}
        for name, number in {**reasons, **snapshot.get("refused", {})}.items():
            refused.add_metric([name], number)
        yield refused
        waiting = snapshot.get("waiting_bytes", 0)
        yield gauge(
            "meshnet_waiting_bytes",
            "Bytes of relayed cells that wait in queues, their heads of 12 bytes included.",
            waiting,
        )
        yield gauge(
            "meshnet_session_bytes",
            "Bytes that peers make sessions hold, without heads: streams, what is unread or unacknowledged.",
            snapshot.get("session_bytes", 0),
        )
        yield gauge("meshnet_spare_circuits", "Circuits in reserve now.", snapshot.get("spares", 0))
        yield from self._paths(snapshot.get("paths", {}))
        yield gauge(
            "meshnet_onion_key_epoch",
            "Number of the onion key that this node states; one more every six hours.",
            snapshot.get("onion_keys", {}).get("epoch", 0),
        )
        half = snapshot.get("half_open", 0)
        yield gauge("meshnet_half_open_connections", "Connections in their handshake.", half)

    @staticmethod
    def _paths(measured: Mapping[str, Mapping[str, float]]) -> Iterable[Metric]:
        for key, scale, name, text in _PATH_GAUGES:
            family = GaugeMetricFamily(
                name, f"{text} of the circuits begun here: least, median, most.", labels=["of"]
            )
            for of, value in measured.get(key, {}).items():
                family.add_metric([of], value * scale)
            yield family

    def _throughput(self, links: Sequence[Snapshot]) -> Metric:
        family = GaugeMetricFamily(
            "meshnet_link_throughput_bytes_per_second",
            "Mean throughput over a span of time, by direction.",
            labels=["peer", "direction", "span"],
        )
        for link in links:
            for direction, key in (("received", "rates_in"), ("sent", "rates_out")):
                for span, rate in link.get(key, {}).items():
                    family.add_metric([link["peer"], direction, span], rate)
        return family

    def _dropped(self, dropped: Mapping[str, int]) -> Metric:
        family = CounterMetricFamily("meshnet_dropped_cells", "Cells dropped, by reason.", labels=["reason"])
        reasons = {drop.name.lower(): 0 for drop in Drop if drop is not Drop.NONE}
        for reason, count in {**reasons, **dropped}.items():
            family.add_metric([reason], count)
        return family


class MetricsResource(Resource):
    """GET /metrics in the text format."""

    isLeaf = True

    def __init__(self, registry: CollectorRegistry) -> None:
        super().__init__()
        self._registry = registry

    def render_GET(self, request: Request) -> bytes:
        """All series of the registry."""
        if request.path != b"/metrics":
            request.setResponseCode(404)
            return b"Metrics are at /metrics.\n"
        request.setHeader(b"content-type", CONTENT_TYPE)
        return generate_latest(self._registry)


def metrics_site(registry: CollectorRegistry) -> Site:
    """An HTTP server of one registry."""
    return QuietSite(MetricsResource(registry), timeout=60)


def new_registry() -> CollectorRegistry:
    """A registry for one node, with the process's own figures."""
    registry = CollectorRegistry()
    ProcessCollector(registry=registry)
    return registry
