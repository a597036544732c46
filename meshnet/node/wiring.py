"""Gives a router what the config says: limits, neighbours, backend, and where it keeps replay tags."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from meshnet.cipher import aead
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.policy import Policy
from meshnet.node.app import Json
from meshnet.node.config import LinkSettings, RelaySettings
from meshnet.node.node import Node
from meshnet.node.replay import ReplayKeeper
from meshnet.node.router import Router
from meshnet.transports.registry import Transports


class NodeRouter(Router):
    """A router that also says what only its operator wants to know."""

    def brief(self) -> Json:
        """More of what stands and what was refused."""
        totals = self.circuits.totals
        return {
            **super().brief(),
            "roles": self.circuits.standing,
            "refused": {reason.name.lower(): number for reason, number in totals.refused.items()},
            "waiting_bytes": self.circuits.waiting,
            "half_open": self.links.half_open,
        }

    def pulse(self) -> Json:
        """What is sampled each second: a `brief` whose links hold only counts (a tenth of the work)."""
        links = [
            {
                "peer": link.peer.hex(),
                "up": link.up,
                "bytes_in": link.bytes_received,
                "bytes_out": link.bytes_sent,
                "cells_in": link.cells_received,
                "connections": link.connections,
                "control_dropped": link.outlet.control_dropped,
            }
            for link in self.links.by_key.values()
        ]
        return {"links": links, "circuits": sum(self.circuits.standing.values()), "dropped": self.dropped}

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
) -> NodeRouter:
    """The router of this node, not yet started."""
    settings = node.settings
    return NodeRouter(
        secret,
        settings.node.network,
        transports=transports,
        clock=node.clock,
        random=random,
        backend=aead.backend(settings.node.cipher),
        policy=circuit_policy(settings.relay),
        memory=ReplayKeeper(node.disk, node.data, settings.node.key, node.reactor),
        accept=accepted(settings.link),
    )
