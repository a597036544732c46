"""What this app counts, and how Prometheus reads it.

One `Counts` per role (socks, forward, serve, exit): plain integers that the data path adds to. The gateway
counts by itself, and is only read here. Reasons of refusals are the short names of codes and policies, never
text of a peer.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from apps.vpn.packets.faults import named
from apps.vpn.ruleset import COUNTERS

if TYPE_CHECKING:
    from apps.vpn.mesh.control import MeshInterface

ROLES: Final = ("socks", "forward", "serve", "exit")


class Counts:
    """Counts of one role. `to_mesh` and `from_mesh` are bytes; `open` the streams that are open now."""

    __slots__ = ("from_mesh", "open", "refused", "streams", "to_mesh")

    def __init__(self) -> None:
        self.open = 0
        self.streams = 0
        self.to_mesh = 0
        self.from_mesh = 0
        self.refused: dict[str, int] = {}

    def refuse(self, reason: str) -> None:
        """One stream or connection was refused or failed, for this reason."""
        self.refused[reason] = self.refused.get(reason, 0) + 1

    def as_json(self) -> dict[str, object]:
        """For `status`."""
        return {
            "open": self.open,
            "streams": self.streams,
            "bytes_to_mesh": self.to_mesh,
            "bytes_from_mesh": self.from_mesh,
            "refused": dict(sorted(self.refused.items())),
        }


class VpnCollector(Collector):
    """Reads the counts of all roles when Prometheus asks."""

    def __init__(self, roles: Mapping[str, Counts]) -> None:
        self._roles = roles

    def collect(self) -> Iterator[Metric]:
        """Four families, labelled by role."""
        opened = GaugeMetricFamily("meshnet_vpn_streams_open", "Streams open now.", labels=["role"])
        streams = CounterMetricFamily(
            "meshnet_vpn_streams", "Streams joined since the start.", labels=["role"]
        )
        size = CounterMetricFamily(
            "meshnet_vpn_bytes", "Bytes passed on, by direction.", labels=["role", "direction"]
        )
        refused = CounterMetricFamily(
            "meshnet_vpn_refusals", "Streams refused or failed, by reason.", labels=["role", "reason"]
        )
        for role, counts in self._roles.items():
            opened.add_metric([role], counts.open)
            streams.add_metric([role], counts.streams)
            size.add_metric([role, "to_mesh"], counts.to_mesh)
            size.add_metric([role, "from_mesh"], counts.from_mesh)
            for reason, number in counts.refused.items():
                refused.add_metric([role, reason], number)
        yield from (opened, streams, size, refused)


class GatewayCollector(Collector):
    """Reads what the exit for packets says of itself when Prometheus asks."""

    def __init__(self, describe: Callable[[], Mapping[str, Any]]) -> None:
        self._describe = describe

    def collect(self) -> Iterator[Metric]:
        """Eight families; directions as those of bytes."""
        told = self._describe()
        ways = (("from_mesh", "in"), ("to_mesh", "out"))
        clients = GaugeMetricFamily("meshnet_vpn_exit_clients", "Clients that have a lease now.")
        clients.add_metric([], len(told["clients"]))
        leases = CounterMetricFamily("meshnet_vpn_exit_leases", "Leases given since the start.")
        leases.add_metric([], told["leases"])
        refused = CounterMetricFamily(
            "meshnet_vpn_exit_refusals", "Clients that got no lease, by reason.", labels=["reason"]
        )
        for reason, number in told["refused"].items():
            refused.add_metric([reason], number)
        packets = CounterMetricFamily(
            "meshnet_vpn_exit_packets", "Packets of clients, superpackets being one.", labels=["direction"]
        )
        size = CounterMetricFamily(
            "meshnet_vpn_exit_bytes", "Bytes of packets of clients.", labels=["direction"]
        )
        dropped = CounterMetricFamily(
            "meshnet_vpn_exit_dropped_packets", "Packets dropped, by reason.", labels=["direction", "reason"]
        )
        for label, key in ways:
            packets.add_metric([label], told[f"packets_{key}"])
            size.add_metric([label], told[f"bytes_{key}"])
            for reason, number in told[f"dropped_{key}"].items():
                dropped.add_metric([label, reason], number)
        rejected = CounterMetricFamily(
            "meshnet_vpn_exit_rejected_packets",
            "Packets that the rules of the system rejected, by reason.",
            labels=["reason"],
        )
        for reason in COUNTERS:
            rejected.add_metric([reason], told["rejected"].get(reason, 0))
        queries = CounterMetricFamily("meshnet_vpn_exit_queries", "Names that clients asked for.")
        queries.add_metric([], told["queries"])
        yield from (clients, leases, refused, packets, size, dropped, rejected, queries)


class TunCollector(Collector):
    """Reads the counts of the mesh interface when Prometheus asks."""

    def __init__(self, tun: MeshInterface) -> None:
        self._tun = tun

    def collect(self) -> Iterator[Metric]:
        """Four families; directions as those of bytes."""
        sums = self._tun.sums()
        peers = GaugeMetricFamily("meshnet_tun_peers", "Nodes that packets pass to or from now.")
        peers.add_metric([], self._tun.reached)
        packets = CounterMetricFamily(
            "meshnet_tun_packets",
            "Packets of the mesh interface, superpackets being one.",
            labels=["direction"],
        )
        size = CounterMetricFamily("meshnet_tun_bytes", "Bytes of them.", labels=["direction"])
        dropped = CounterMetricFamily(
            "meshnet_tun_dropped_packets", "Packets dropped, by reason.", labels=["direction", "reason"]
        )
        packets.add_metric(["from_mesh"], sums.frames_in)
        packets.add_metric(["to_mesh"], sums.frames_out)
        size.add_metric(["from_mesh"], sums.bytes_in)
        size.add_metric(["to_mesh"], sums.bytes_out)
        for direction, counts in (("from_mesh", sums.dropped_in), ("to_mesh", sums.dropped_out)):
            for reason, number in named(counts).items():
                dropped.add_metric([direction, reason], number)
        yield from (peers, packets, size, dropped)
