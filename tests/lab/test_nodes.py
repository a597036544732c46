"""Plans of nodes: what they write is what a node reads."""

from __future__ import annotations

import stat
import tomllib
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from lab.demos.multihop import plans
from lab.nodes import chain, toml
from meshnet.node.config import load
from meshnet.node.dropins import find_dropins


class PlanTests(SynchronousTestCase):
    """Five nodes in a row."""

    def test_toml(self) -> None:
        """What is written is read back the same."""
        sections = {
            "node": {"name": 'a "b" ü', "n": 3, "on": True, "list": ["x", "y"], "none": []},
            "link": {"listen": [], "peer": [{"key": "k", "address": "tcp:h:1"}, {"key": "l"}]},
            "route": [{"to": "a", "via": ["b"]}],
        }
        self.assertEqual(tomllib.loads(toml(sections)), sections)

    def test_chain(self) -> None:
        """Each dials the next; the last dials nobody; keys are private."""
        with TemporaryDirectory() as name:
            row = chain(Path(name), {"a": "user", "b": "relay", "c": "user"})
            for plan, following in pairwise(row):
                self.assertEqual(plan.peers, ((following.public, following.link),))
            self.assertEqual(row[-1].peers, ())
            row[0].write()
            self.assertEqual(stat.S_IMODE((Path(name) / "a" / "key").stat().st_mode), 0o600)

    def test_the_demonstration_is_a_valid_config(self) -> None:
        """The node's own reader accepts all five files."""
        with TemporaryDirectory() as name:
            row = plans(Path(name))
            apps = find_dropins().apps
            settings = {plan.name: load(plan.write(), apps) for plan in row}
        relays = tuple(plan.public for plan in row[1:-1])
        self.assertEqual(settings["alice"].apps["vpn"].socks.via, relays)
        self.assertEqual(settings["bob"].apps["vpn"].exit.source, "127.0.0.9")
        self.assertEqual(
            [settings[name].relay.enabled for name in ("alice", "r1", "bob")], [False, True, False]
        )
