"""Invites of a node: which addresses they name."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import UsageError
from meshnet.node.config import LinkSettings, PeerSettings
from meshnet.node.invitation import Inviter, InviteRequest
from meshnet.topology.invite import read_invite
from tests.support.nodes import link_snapshot
from tests.support.topology import UNIX, key


def make(
    listening: list[str],
    *links: dict[str, Any],
    peers: tuple[PeerSettings, ...] = (),
    accept: Any = "any",
    **request: Any,
) -> dict[str, Any]:
    """An invite of node 1 on a machine that is 192.0.2.9 and 2001:db8::9."""
    machine = {4: "192.0.2.9", 6: "2001:db8::9"}.get
    inviter = Inviter(key(1), 77, lambda: float(UNIX), machine)
    return inviter.make(InviteRequest(**request), listening, links, LinkSettings(accept=accept, peer=peers))


def addresses(made: dict[str, Any]) -> list[list[str]]:
    """What each peer is dialled at, as the invite says."""
    return [list(peer.addresses) for peer in read_invite(made["invite"]).peers]


class Made(SynchronousTestCase):
    """What an invite names."""

    def test_own_listeners(self) -> None:
        """A listener on all addresses is named by the machine's; those of the machine alone come last."""
        made = make(["tcp:127.0.0.1:1", "tcp:0.0.0.0:2", "tcp:[::]:3", "abstract:x"])
        self.assertEqual(
            addresses(made),
            [["tcp:192.0.2.9:2", "tcp:[2001:db8::9]:3", "tcp:192.0.2.9:3", "tcp:127.0.0.1:1"]],
        )
        invite = read_invite(made["invite"])
        self.assertEqual((invite.network, invite.expiry), (77, UNIX + 7 * 86_400))
        self.assertEqual(made["notes"], [])

    def test_given_addresses(self) -> None:
        """What the operator says stands alone."""
        made = make(["tcp:0.0.0.0:2"], addresses=("tcp:gate.example:443",), seconds=3_600)
        self.assertEqual(addresses(made), [["tcp:gate.example:443"]])
        self.assertEqual(made["expires"], UNIX + 3_600)

    def test_neighbours(self) -> None:
        """Neighbours of the config that stand follow in its order, with the address that served first; those
        that are down or dialled this node by themselves do not."""
        configured = (
            PeerSettings(key(3).public, "tcp:192.0.2.1:7001"),
            PeerSettings(key(2).public, ("tcp:192.0.2.7:1", "tcp:192.0.2.1:7001")),
            PeerSettings(key(4).public, "tcp:192.0.2.4:1"),
        )
        links = [link_snapshot(key(n).public, up=n != 4) for n in (2, 3, 4, 5)]
        made = make([], *links, peers=configured)
        self.assertEqual([peer["key"] for peer in made["peers"]], [key(3).public.hex(), key(2).public.hex()])
        self.assertEqual(addresses(made)[1], ["tcp:192.0.2.1:7001", "tcp:192.0.2.7:1"])

    def test_nobody(self) -> None:
        """Where nobody can be dialled there is no invite."""
        with self.assertRaisesRegex(UsageError, "set \\[link\\] listen"):
            make([])

    def test_notes(self) -> None:
        """The operator hears what newcomers will run into."""
        self.assertIn("--address", make(["tcp:127.0.0.1:1"])["notes"][0])
        self.assertIn("[link] accept", make(["tcp:192.0.2.1:1"], accept=(key(2).public,))["notes"][0])
        links = [link_snapshot(key(n).public, address="tcp:192.0.2.1:1") for n in (2, 3)]
        long = tuple(PeerSettings(key(n).public, f"tcp:{'h' * 150}:1") for n in (2, 3))
        made = make(["tcp:192.0.2.1:1"], *links, peers=long)
        self.assertEqual(made["notes"], ["1 more peer did not fit into the text."])
        with self.assertRaisesRegex(UsageError, "longer than 200"):
            make([], addresses=("tcp:" + "h" * 300 + ":1",))
