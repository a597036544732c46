"""The verb `join`: nodes made of invites, and what it refuses."""

from __future__ import annotations

import json
import time
import tomllib
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from meshnet.topology.invite import FirstPeer, make_invite
from tests.meshnet.cli.test_main import run
from tests.support.nodes import new_folder
from tests.support.topology import key


def invite(network: int = 77, life: int = 3_600, *addresses: str) -> str:
    """An invite of node 1, with node 2 beside it."""
    first = FirstPeer(key(1).public, addresses or ("tcp:192.0.2.1:7001", "sneakernet:box"))
    peers = [first] if addresses else [first, FirstPeer(key(2).public, ("tcp:192.0.2.2:7001",))]
    return make_invite(key(1), network, int(time.time()) + life, peers)


def config(folder: Path) -> dict[str, object]:
    """The config there."""
    return tomllib.loads((folder / "node.toml").read_text())


class JoinTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self) / "n"

    def test_a_new_node(self) -> None:
        """A key and a config with the invite's network and peers, without addresses nobody here can dial."""
        code, out, err = run("join", invite(), str(self.folder), "--name", "ann", "--relay", "--json")
        self.assertEqual((code, err), (0, ""))
        told, table = json.loads(out), config(self.folder)
        self.assertEqual(table["node"], {"name": "ann", "network": 77})
        self.assertEqual(table["relay"], {"enabled": True})
        self.assertEqual(
            table["link"]["peer"],  # type: ignore[index]
            [
                {"key": key(1).public.hex(), "address": "tcp:192.0.2.1:7001"},
                {"key": key(2).public.hex(), "address": "tcp:192.0.2.2:7001"},
            ],
        )
        self.assertTrue(told["made"])
        self.assertEqual(told["inviter"], key(1).public.hex())
        self.assertEqual((self.folder / "key").stat().st_mode & 0o777, 0o600)
        self.assertEqual(run("config", "check", str(self.folder))[0], 0)

    def test_a_node_that_is_there(self) -> None:
        """Peers that are new are added behind what stands there, and only once."""
        peer = f"{key(1).public.hex()}@tcp:old:1"
        run("init", str(self.folder), "--network", "77", "--peer", peer)
        file = self.folder / "node.toml"
        before = file.read_text() + "\n[about]\nname = true  # by hand\n"
        file.write_text(before)
        code, out, err = run("join", "  " + invite().upper() + "\n", str(self.folder))
        self.assertEqual((code, err), (0, ""))
        self.assertIn("1 peer was added", out)
        self.assertTrue(file.read_text().startswith(before))
        self.assertEqual(run("config", "check", str(self.folder))[0], 0)
        once = file.read_text()
        code, out, _ = run("join", invite(), str(file), "--json")
        self.assertEqual((code, json.loads(out)["added"], file.read_text()), (0, [], once))

    def test_refused(self) -> None:
        """What cannot be used is one sentence, exit code 2, and nothing is made."""
        for text, words in (
            (invite(life=-90_000), "expired 1 day ago"),
            (invite()[:-5], "damaged"),
            ("hello", "is no invite"),
            (invite(77, 3_600, "sneakernet:box"), "only sneakernet"),
        ):
            code, out, err = run("join", text, str(self.folder))
            self.assertEqual((code, out, err.count("\n")), (2, "", 1), err)
            self.assertIn(words, err)
            self.assertFalse(self.folder.exists())

    def test_refused_where_a_node_is(self) -> None:
        """Another network, options of new nodes, and peers in a form that nothing can be added to."""
        run("init", str(self.folder), "--network", "78")
        file = self.folder / "node.toml"
        for more, network, words in (
            ([], 77, "is of network 78"),
            (["--relay"], 78, "edit it for anything but new peers"),
        ):
            before = file.read_text()
            code, _, err = run("join", invite(network), str(self.folder), *more)
            self.assertEqual((code, err.count("\n")), (2, 1), err)
            self.assertIn(words, err)
            self.assertEqual(file.read_text(), before)
        listed = f'peer = [{{key = "{key(3).public.hex()}", address = "tcp:h:1"}}]'
        file.write_text(f"[node]\nnetwork = 77\n[link]\n{listed}\n")
        code, _, err = run("join", invite(), str(self.folder))
        self.assertEqual(code, 2)
        self.assertIn("[[link.peer]] sections", err)
