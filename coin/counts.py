"""What the coin measures, and how Prometheus reads it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from coin.api.service import Api
from coin.replication.network import Network
from coin.replication.store_books import StoreBooks
from coin.upkeep import Upkeep


class CoinCollector(Collector):
    """Reads the figures of a running coin when Prometheus asks; nothing while there is none."""

    def __init__(
        self,
        parts: Callable[[], tuple[StoreBooks, Network] | None],
        upkeep: Callable[[], Upkeep | None],
        api: Callable[[], Api | None],
    ) -> None:
        self._parts = parts
        self._upkeep = upkeep
        self._api = api

    def describe(self) -> list[Any]:
        """Nothing is read when it is registered."""
        return []

    def collect(self) -> Iterator[Metric]:
        """See docs/operations.md."""
        parts = self._parts()
        if parts is None:
            return
        books, network = parts
        head = books.store.head.header
        yield GaugeMetricFamily("coin_height", "Number of the last block.", head.sequence)
        yield GaugeMetricFamily(
            "coin_highest", "Highest block that a peer says there is, or our own.", network.sync.highest
        )
        yield GaugeMetricFamily("coin_head_timestamp_seconds", "Time of the last block.", head.time)
        yield GaugeMetricFamily(
            "coin_block_interval_seconds", "Time between the last two blocks taken.", books.interval
        )
        yield GaugeMetricFamily("coin_pool_transactions", "Transactions in no block yet.", books.loose_count)
        yield GaugeMetricFamily("coin_pool_bytes", "Bytes of them.", books.loose_bytes)
        yield CounterMetricFamily("coin_blocks", "Blocks taken since the start.", books.executed)
        yield CounterMetricFamily(
            "coin_verify_seconds",
            "Time from taking blocks to having them checked and stored.",
            books.busy_seconds,
        )
        peers = GaugeMetricFamily("coin_peers", "Peers, by direction.", labels=["direction"])
        outgoing = sum(peer.outgoing for peer in network.peers.values())
        peers.add_metric(["out"], outgoing)
        peers.add_metric(["in"], len(network.peers) - outgoing)
        yield peers
        yield GaugeMetricFamily(
            "coin_bans", "Peers that are banned now.", len(network.conduct.bans(network.now))
        )
        upkeep = self._upkeep()
        if upkeep is not None:
            damaged, mended = upkeep.damaged, upkeep.mended
            yield CounterMetricFamily(
                "coin_damaged_blocks", "Stored blocks that were found damaged.", damaged
            )
            yield CounterMetricFamily("coin_mended_blocks", "Of them, those that peers gave again.", mended)
            wrong = float(upkeep.state in ("mending", "damaged"))
            yield GaugeMetricFamily("coin_store_damaged", "1 while the store is not whole, as known.", wrong)
        yield from _api(self._api())
        events = CounterMetricFamily("coin_events", "What happened with peers, by name.", labels=["event"])
        for name, count in sorted(network.counts.items()):
            events.add_metric([name.replace(" ", "_").lower()], count)
        yield events


def _api(api: Api | None) -> Iterator[Metric]:
    if api is None:
        return
    clients, hub = len(api.factory.channels), api.streams.hub
    yield GaugeMetricFamily("coin_api_connections", "Connections of clients of the REST API.", clients)
    answers = CounterMetricFamily("coin_api_answers", "Answers of the REST API.", labels=["status"])
    for status, count in sorted(api.factory.counts.items()):
        answers.add_metric([str(status)], count)
    yield answers
    if api.withdrawing is not None:
        waiting = api.withdrawing.count
        yield GaugeMetricFamily("coin_withdrawals_open", "Withdrawals that are in no block yet.", waiting)
    listeners = len(hub.listeners)
    yield GaugeMetricFamily("coin_listeners", "Who listens to events of the chain.", listeners)
    what = "Of them, those that were parted with: they read nothing."
    yield CounterMetricFamily("coin_listeners_dropped", what, hub.dropped)
