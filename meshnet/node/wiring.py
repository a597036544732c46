"""Gives a router what the config says: limits, neighbours, backend, and where it keeps replay tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from twisted.internet.defer import Deferred

from meshnet.cipher import aead
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.policy import Policy
from meshnet.circuit.replay import Replays
from meshnet.node.config import LinkSettings, RelaySettings
from meshnet.node.node import Node
from meshnet.node.replay import ReplayKeeper
from meshnet.node.router import Router
from meshnet.transports.registry import Transports


class KeptRouter(Router):
    """A router whose replay log lasts."""

    def __init__(self, keeper: ReplayKeeper, *arguments: Any, **more: Any) -> None:
        super().__init__(*arguments, **more)
        self._keeper = keeper

    async def start(self, addresses: list[str]) -> list[str]:
        """Binds the link addresses; from now on what was seen is saved."""
        self._keeper.start()
        return await super().start(addresses)

    def stop(self) -> Deferred[None]:
        """Ends every circuit and link, then saves what was seen."""
        super().stop()
        return Deferred.fromCoroutine(self._keeper.stop())

    def waiting(self) -> Mapping[str, str]:
        """Peers (hex) that are dialled and not linked: why the last attempt failed, or nothing."""
        peers = [peer for peer in self.links.peers.values() if self.links.standing(peer.key) is None]
        return {peer.key.hex(): str(peer.core.why or "") for peer in peers}


def circuit_policy(relay: RelaySettings) -> Policy:
    """[relay] as the circuits' policy."""
    return Policy(
        enabled=relay.enabled,
        max_rate=relay.max_rate,
        max_circuits=relay.max_circuits,
        max_circuits_per_neighbour=relay.max_circuits_per_neighbour,
        creates_per_second=relay.creates_per_second,
        create_burst=relay.create_burst,
    )


def accepted(link: LinkSettings) -> frozenset[PublicKey] | None:
    """Who may link: None for anyone; the dialled peers always."""
    if link.accept == "any":
        return None
    return frozenset(link.accept) | {peer.key for peer in link.peer}


def make_router(
    node: Node, secret: SecretKey, transports: Transports, random: Callable[[int], bytes]
) -> KeptRouter:
    """The router of this node, not yet started; reads the replay log. Raises StorageError."""
    settings = node.settings
    keeper = ReplayKeeper(node.disk, node.data, settings.node.key, node.reactor, node.clock)
    return KeptRouter(
        keeper,
        secret,
        settings.node.network,
        transports=transports,
        clock=node.clock,
        random=random,
        backend=aead.backend(settings.node.cipher),
        policy=circuit_policy(settings.relay),
        replays=Replays(keeper.log, node.clock.unix()),
        accept=accepted(settings.link),
    )
