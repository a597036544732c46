"""The network as the API shows it: peers in all their states, and the end of a connection."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from coin.api.settings import ApiSection
from coin.replication.introduction import Ourselves
from coin.replication.messages import AnnounceBlocks, encode_frame
from coin.store.store import open_store
from tests.support.chains import small_chain
from tests.support.coinapi import DISK, Served

NETWORK = "/api/v1/network"


class Wire:
    """A connection that keeps what is sent."""

    def __init__(self) -> None:
        self.sent = 0
        self.closed = False

    def send(self, frame: bytes) -> None:
        """Counts it."""
        self.sent += 1

    def close(self) -> None:
        """Is closed."""
        self.closed = True


class Peers(SynchronousTestCase):
    def setUp(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, folder)
        self.chain = small_chain()
        store = open_store(DISK, folder / "chain.db", self.chain)
        self.addCleanup(store.close)
        self.served = Served(store, ApiSection(csrf=False, sets=("STATUS", "NET_CTRL")))
        self.wire = Wire()

    def join(self, place: str, mirror: int, *, outgoing: bool = False, ready: bool = True) -> Any:
        """A peer."""
        now = self.served.clock.now()
        peer = self.served.network.connected(self.wire, place, f"tcp:{place}:6000", now, outgoing=outgoing)
        assert peer is not None
        if ready:
            said = Ourselves(self.chain, mirror, 6001).introduction()
            peer.filled(encode_frame(said) + encode_frame(AnnounceBlocks(9)), now)
        return peer

    def addresses(self, **query: str) -> list[str]:
        """Whom a question finds."""
        found = self.served.get(f"{NETWORK}/connections", **query).json["connections"]
        return [each["address"] for each in found]

    def test_one(self) -> None:
        """All that is told of a peer."""
        peer = self.join("192.0.2.1", 5)
        self.served.reactor_clock.advance(3)
        found = self.served.get(f"{NETWORK}/connection", addr="192.0.2.1:6000").json
        limits = {"burn_factor": 10, "max_transaction_size": 32_768, "max_decimals": 3}
        self.assertEqual(
            {name: value for name, value in found.items() if name != "user_agent"},
            {
                "id": peer.number,
                "address": "192.0.2.1:6000",
                "last_sent": 1_600_000_000,
                "last_received": 1_600_000_000,
                "connected_at": 1_600_000_000,
                "outgoing": False,
                "state": "introduced",
                "mirror": 5,
                "listen_port": 6001,
                "height": 9,
                "is_trusted_peer": False,
                "unconfirmed_verify_transaction": limits,
            },
        )
        progress = self.served.get("/api/v1/blockchain/progress").json
        self.assertEqual((progress["current"], progress["highest"]), (0, 9))
        self.assertEqual(progress["peers"], [{"address": "192.0.2.1:6000", "height": 9}])
        self.assertEqual(self.served.get("/api/v1/health").json["incoming_connections"], 1)

    def test_states(self) -> None:
        """By state and direction; those that are dialled only if asked for."""
        self.join("192.0.2.1", 5)
        self.join("192.0.2.2", 6, outgoing=True)
        self.join("192.0.2.3", 7, ready=False)
        self.served.api.parts.peers.dialling = ["tcp:192.0.2.4:6000"]  # type: ignore[misc]
        first, second, third, fourth = (f"192.0.2.{each}:6000" for each in range(1, 5))
        self.assertEqual(self.addresses(), [first, second, third])
        self.assertEqual(self.addresses(states="introduced"), [first, second])
        self.assertEqual(self.addresses(states="pending,connected"), [third, fourth])
        self.assertEqual(self.addresses(direction="outgoing"), [second])
        self.assertEqual(self.addresses(direction="incoming"), [first, third])
        self.assertEqual(self.served.get("/api/v1/health").json["open_connections"], 3)

    def test_disconnect(self) -> None:
        """A connection ends by its number, once."""
        peer = self.join("192.0.2.1", 5)
        for wrong, text in (("", "id is required"), ("0", "invalid id"), ("x", "invalid id")):
            answer = self.served.post(f"{NETWORK}/connection/disconnect", id=wrong)
            self.assertEqual(answer.text, f"400 Bad Request - {text}\n")
        answer = self.served.post(f"{NETWORK}/connection/disconnect", id=peer.number)
        self.assertEqual((answer.status, answer.json), (200, {}))
        self.assertTrue(self.wire.closed)
        self.assertEqual(self.addresses(), [])
        self.assertEqual(self.served.post(f"{NETWORK}/connection/disconnect", id=peer.number).status, 404)
