"""What Prometheus reads of the tunnel."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

if TYPE_CHECKING:
    from apps.vpn.client.service import TunnelClient


class TunnelCollector(Collector):
    """Reads a tunnel when Prometheus asks."""

    def __init__(self, tunnel: TunnelClient) -> None:
        self._tunnel = tunnel

    def collect(self) -> Iterator[Metric]:
        """Four families."""
        tunnel = self._tunnel
        up = GaugeMetricFamily(
            "meshnet_vpn_tunnel_up", "Whether packets pass the tunnel.", float(tunnel.is_up)
        )
        size = CounterMetricFamily(
            "meshnet_vpn_tunnel_bytes", "Bytes of packets, by direction.", labels=["direction"]
        )
        came, went = tunnel.totals()
        size.add_metric(["in"], came)
        size.add_metric(["out"], went)
        redials = CounterMetricFamily(
            "meshnet_vpn_tunnel_redials", "Times that the exit was lost and called again.", tunnel.redials
        )
        repairs = CounterMetricFamily(
            "meshnet_vpn_tunnel_repairs",
            "Changes of the system that others undid and that were put back.",
            tunnel.repairs,
        )
        yield from (up, size, redials, repairs)
