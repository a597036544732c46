"""Shapes of networks: words, graphs of meshnet-lab, our own files."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.shapes import Shape, parse, read, shape
from meshnet.errors import UsageError
from tests.support.vectors import vectors

OURS = b"""
[[host]]
name = "alice"
relay = false
config.socks.listen = "127.0.0.1:1080"

[[link]]
between = ["alice", "r1"]
loss = 0.01

[[link]]
between = ["r1", "bob"]
mtu = 1400
"""


def pairs(shape: Shape) -> set[frozenset[str]]:
    """Who is joined with whom."""
    return {frozenset(cable.between) for cable in shape.cables}


class WordTests(SynchronousTestCase):
    """Shapes by a word."""

    def test_sizes(self) -> None:
        """As many hosts and cables as the word says."""
        for word, hosts, cables in (
            ("line:2", 2, 1),
            ("line:5", 5, 4),
            ("ring:3", 3, 3),
            ("star:5", 5, 4),
            ("grid:3x3", 9, 12),
            ("grid:1x4", 4, 3),
            ("grid:4x1", 4, 3),
        ):
            made = shape(word)
            self.assertEqual((len(made.hosts), len(pairs(made)), len(made.cables)), (hosts, cables, cables))

    def test_grid(self) -> None:
        """Rows are joined within and with the next, ends of rows are not."""
        self.assertEqual(
            pairs(shape("grid:2x2")),
            {frozenset(pair) for pair in (("n0", "n1"), ("n2", "n3"), ("n0", "n2"), ("n1", "n3"))},
        )

    def test_wrong_words(self) -> None:
        """What is no shape is said, with the choices."""
        for word in ("line", "line:1", "ring:2", "line:2000", "grid:0x5", "grid:3", "moon:3", "", "a.yaml"):
            self.assertRaises(UsageError, shape, word)
        self.assertIn("choices", str(self.assertRaises(UsageError, shape, "moon:3")))
        self.assertIn("No such file", str(self.assertRaises(UsageError, shape, "none.json")))


class FileTests(SynchronousTestCase):
    """Shapes in files."""

    def test_ours(self) -> None:
        """Every key has its effect; hosts that only links name are there."""
        made = parse(OURS, toml=True)
        self.assertEqual(list(made.hosts), ["alice", "r1", "bob"])
        self.assertEqual(made.hosts["alice"].config, {"socks": {"listen": "127.0.0.1:1080"}})
        self.assertEqual([made.hosts[name].relay for name in made.hosts], [False, True, True])
        self.assertEqual([(each.loss, each.mtu) for each in made.cables], [(0.01, 1500), (0.0, 1400)])

    def test_a_graph(self) -> None:
        """Both directions of a link are one; numbers are names; hosts only links name are there."""
        graph = {
            "nodes": [{"id": 0, "x": 1}, {"id": "b"}],
            "links": [
                {"source": 0, "target": "b"},
                {"source": "b", "target": 0},
                {"source": "b", "target": "c"},
            ],
        }
        made = parse(json.dumps(graph).encode(), toml=False)
        self.assertEqual(list(made.hosts), ["0", "b", "c"])
        self.assertEqual([cable.between for cable in made.cables], [("0", "b"), ("b", "c")])

    def test_wrong_files(self) -> None:
        """Each mistake is a sentence."""
        for data, toml, word in (
            (b"[]", False, "links"),
            (b"{", False, "Expecting"),
            (b'{"links": [{"source": 1}]}', False, "target"),
            (b'{"links": [{"source": 1, "target": 1}]}', False, "different"),
            (b'{"links": [{"source": true, "target": 1}]}', False, "names no host"),
            (b'{"links": [{"source": "a/b", "target": 1}]}', False, "letters"),
            (b'{"links": []}', False, "0 hosts"),
            (b"[[link]]\nbetween = ['a']", True, "different"),
            (b"[[link]]\nbetween = ['a', 'b']\nlos = 1", True, "loss"),
            (b"[[link]]\nbetween = ['a', 'b']\n[[link]]\nbetween = ['b', 'a']", True, "twice"),
            (b"[[host]]\nname = 'a'\n[[host]]\nname = 'a'", True, "twice"),
            (b"[[link]]\nbetween = ['a', 'b']\nloss = 2", True, "between 0 and 1"),
            (b"\xff", True, "decode"),
            (b"[" * 100_000, False, "recursion"),
        ):
            with TemporaryDirectory() as folder:
                file = Path(folder) / f"shape.{'toml' if toml else 'json'}"
                file.write_bytes(data)
                said = str(self.assertRaises(UsageError, read, file))
            self.assertIn(word, said)
            self.assertTrue(said.endswith("."), said)

    @given(st.binary(max_size=100), st.booleans())
    def test_any_bytes(self, data: bytes, toml: bool) -> None:
        """A file of anything is a shape or a sentence."""
        try:
            parse(data, toml)
        except (UsageError, ValueError):
            pass

    def test_published_graphs(self) -> None:
        """Those of meshnet-lab are read; what they say of themselves is what there is."""
        for name, hosts, cables in (
            ("grid4/grid4-0049.json", 49, 84),
            ("basics/two_hop.json", 3, 2),
            ("basics/small_cross.json", 5, 4),
        ):
            made = read(vectors(f"topologies/meshnet-lab/{name}"))
            self.assertEqual((len(made.hosts), len(made.cables)), (hosts, cables), name)


class RouteTests(SynchronousTestCase):
    """Ways through a shape."""

    def test_shortest(self) -> None:
        """The fewest relays lead, and never over a host that is none."""
        routes = shape("ring:5").routes("n0")
        self.assertEqual(routes, {"n1": (), "n4": (), "n2": ("n1",), "n3": ("n4",)})
        self.assertEqual(shape("line:4").routes("n0")["n3"], ("n1", "n2"))
        self.assertEqual(parse(OURS, toml=True).routes("bob"), {"r1": (), "alice": ("r1",)})
        self.assertEqual(parse(OURS, toml=True).routes("r1"), {"alice": (), "bob": ()})
        lonely = parse(b"[[host]]\nname = 'c'\n" + OURS, toml=True)
        self.assertEqual(lonely.routes("c"), {})
