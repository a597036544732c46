"""What this app counts, and how Prometheus reads it.

One `Counts` per role (socks, forward, serve, exit): plain integers that the data path adds to. Reasons of
refusals are the short names of codes and policies, never text of a peer.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

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
