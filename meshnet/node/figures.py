"""What a router shows of itself: for `status`, for metrics, once a second for the rings.

Reads plain counts that links, circuits and sessions keep anyway; changes nothing. `pulse` is the cheapest,
`snapshot` lists every circuit.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from meshnet.cipher.address import proves
from meshnet.circuit.arrival import Arrival
from meshnet.circuit.origin import OriginCircuit
from meshnet.circuit.table import Circuits
from meshnet.errors import Drop
from meshnet.link.driver import Links
from meshnet.node.app import Clock, Json
from meshnet.node.conversation import Conversation, Leg
from meshnet.node.courses import Courses
from meshnet.node.measured import all_figures, figures, probed
from meshnet.node.onion_keys import OnionKeys
from meshnet.node.renewal import Renewals
from meshnet.node.replay import ReplayMemory
from meshnet.node.spares import Spares
from meshnet.session.memory import Memory
from meshnet.session.session import Session


class Figures:
    """The part of a router that answers questions; `Router` fills the attributes."""

    links: Links
    circuits: Circuits
    _clock: Clock
    _conversations: dict[OriginCircuit | Arrival, Conversation]
    _sessions: dict[Session, Conversation]
    _past_drops: list[int]
    session_memory: Memory
    _memory: ReplayMemory
    renewals: Renewals
    courses: Courses | None
    onion_keys: OnionKeys

    @property
    def spares(self) -> Spares | None:
        """Circuits in reserve; None for a node that does not know the network."""
        return None if self.courses is None else self.courses.spares

    def _begun(self) -> Iterator[Leg]:
        """Circuits begun here that belong to a session."""
        for circuit, conversation in self._conversations.items():
            leg = conversation.legs.get(circuit)
            if leg is not None and isinstance(circuit, OriginCircuit) and leg.end is not None:
                yield leg

    def brief(self) -> Json:
        """`links` (JSON objects), `circuits` (a number), `roles` (circuits by what this node is in them),
        `dropped` and `refused` (reason to count), `waiting_bytes`, `session_bytes`, `half_open`, `onion_keys`
        (see `OnionKeys.figures`)."""
        now = self._clock.now()
        roles = self.circuits.standing
        return {
            "links": [link.snapshot(now) for link in self.links.by_key.values()],
            "circuits": sum(roles.values()),
            "roles": roles,
            "dropped": self.dropped,
            "refused": {
                reason.name.lower(): number for reason, number in self.circuits.totals.refused.items()
            },
            "waiting_bytes": self.circuits.waiting,
            "session_bytes": self.session_memory.used,
            "spares": self.spares.standing if self.spares is not None else 0,
            "paths": all_figures(leg.path for leg in self._begun()),
            "half_open": self.links.half_open,
            "onion_keys": self.onion_keys.figures(),
        }

    def snapshot(self) -> Json:
        """`links`, `circuits` (lists of JSON objects), `dropped` (reason to count)."""
        now = self._clock.now()
        return {**self.brief(), "circuits": [self._shown(circuit, now) for circuit in self.circuits]}

    def _shown(self, circuit: Any, now: float) -> Json:
        shown: Json = circuit.snapshot(now)
        conversation = self._conversations.get(circuit)
        if conversation is not None and conversation.session is not None:
            session, path = conversation.session, conversation.legs[circuit].path
            shown["streams"] = session.streams
            shown["paths"] = len(session.paths)
            shown["sending"] = path is session.path
            shown["spare"] = path.spare
            shown["rtt_ms"] = round(path.rtt * 1e3, 3)
            shown["delivery_rate"] = round(path.delivery_rate)
            shown.update(probed(path))
            shown["cell_size"] = path.cell_size
            shown["window"] = path.cwnd
            shown["lost_cells"] = path.recovery.lost_cells
            shown["bad_tags"] = path.bad_tags
            shown["replayed"] = path.replayed
            shown["probes"] = path.recovery.probes_sent
            shown["datagrams_dropped"] = session.datagrams_dropped
            shown["packets_dropped"] = session.packets_dropped
        return shown

    @property
    def dropped(self) -> dict[str, int]:
        """Cells dropped, by reason, as they came or from the queues in which they waited, since the start."""
        counts = list(self._past_drops)
        counts[Drop.STOOD] += self.circuits.pool.stood
        for link in self.links.by_key.values():
            for index, number in enumerate(link.drops):
                counts[index] += number
        return {drop.name.lower(): n for drop, n in zip(Drop, counts, strict=True) if n}

    @property
    def totals(self) -> dict[str, int]:
        """Counts since the start, by the names of the metrics."""
        totals = self.circuits.totals
        return {
            "cells_relayed": totals.cells_forward + totals.cells_back,
            "cells_marked": totals.marked,
            "bytes_relayed": totals.bytes_forward + totals.bytes_back,
            "end_cells_received": totals.end_cells_in,
            "end_bytes_received": totals.end_bytes_in,
            "end_cells_sent": totals.end_cells_out,
            "end_bytes_sent": totals.end_bytes_out,
            "creates": totals.creates,
            "creates_refused": sum(totals.refused.values()),
            "onions_by_epoch": totals.onions_by_epoch,
            "hops_by_epoch": totals.hops_by_epoch,
            "hops_by_identity": totals.hops_by_identity,
            "circuits_relayed": totals.relays,
            "circuits_accepted": totals.arrivals,
            "circuits_opened": totals.opened,
            "circuits_failed": totals.failed,
            "circuits_lost": totals.lost,
            "circuits_renewed": self.renewals.renewed,
            "losses_survived": self.renewals.survived,
            "renewals_failed": self.renewals.failed,
            "spares_built": self.spares.built if self.spares is not None else 0,
            "spares_used": self.spares.used if self.spares is not None else 0,
            "spares_failed": self.spares.failed if self.spares is not None else 0,
            "stray_frames": totals.stray,
            "handshakes_failed": self.links.handshakes_failed,
            "strangers_turned_away": self.links.turned_away,
            "links_refused": self.links.refused,
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
                "control_dropped": link.control_dropped,
                "rtt_ms": link.telemetry.rtt * 1e3 if link.telemetry.pongs else None,
                "loss": link.telemetry.loss,
            }
            for link in self.links.by_key.values()
        ]
        return {
            "links": links,
            "circuits": sum(self.circuits.standing.values()),
            "sessions": len(self._sessions),
            "paths": self._paths_now(),
            "dropped": self.dropped,
        }

    def _paths_now(self) -> dict[tuple[str, ...], dict[str, float]]:
        """By their nodes, the paths of circuits begun here: what was measured of the newest circuit; cells
        sent and lost of all of them together."""
        found: dict[tuple[str, ...], dict[str, float]] = {}
        for leg in self._begun():
            circuit, path = leg.circuit, leg.path
            assert isinstance(circuit, OriginCircuit)
            key = tuple(proves(each).hex() for each in circuit.route)
            sums = found.get(key, {"cells": 0.0, "lost_cells": 0.0})
            found[key] = {
                **figures(path),
                "cells": sums["cells"] + path.recovery.next,
                "lost_cells": sums["lost_cells"] + path.recovery.lost_cells,
            }
        return found

    @property
    def faults(self) -> list[str]:
        """What is wrong with this node now, in sentences."""
        return [fault for fault in (self._memory.fault, self.onion_keys.fault) if fault]

    def waiting(self) -> Mapping[str, str]:
        """Peers (hex) that are dialled and not linked: why the last attempt failed, or nothing."""
        peers = [peer for peer in self.links.peers.values() if self.links.standing(peer.key) is None]
        return {peer.key.hex(): str(peer.why or "") for peer in peers}

    def dials(self) -> Mapping[str, int]:
        """How many connections to each configured peer (hex) were tried, over all lanes."""
        return {peer.key.hex(): peer.attempts for peer in self.links.peers.values()}
