"""`./mesh lab`: real nodes in network namespaces, and nothing of them afterwards."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from lab.command import MOST_NODES, main
from lab.hosted import Hosted
from lab.namespaces import SPACES, Hosts
from lab.processes import ROOT, environment, python
from lab.shapes import parse, shape
from meshnet.errors import UsageError
from meshnet.node.config import load
from meshnet.node.dropins import find_dropins
from tests.support.hosts import hosts_for


def runs(pid: int) -> bool:
    """Whether a process does; one that is over and that nobody has asked about does not."""
    file = Path(f"/proc/{pid}/stat")
    return file.exists() and file.read_text().rpartition(")")[2].split()[0] != "Z"


def lab(*words: str) -> subprocess.CompletedProcess[str]:
    """The command, as a person runs it."""
    return subprocess.run(
        [*python("-m", "lab"), "lab", *words],
        env=environment(),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        stdin=subprocess.DEVNULL,
    )


class CommandTests(SynchronousTestCase):
    """What needs no root."""

    def test_usage(self) -> None:
        """What does not fit together is refused before anything is made."""
        for words in (
            [],
            ["--keep", "line:2"],
            ["--stop"],
            ["--stop", "--state", "x", "line:2"],
            ["a", "--on", "b"],
        ):
            self.assertEqual(self.assertRaises(SystemExit, main, words).code, 2, words)
        for words in (["moon:3"], [f"line:{MOST_NODES + 1}"], ["line:2", "--run", "true", "--on", "n7"]):
            self.assertEqual(main(words), 2, words)

    def test_a_foreign_state(self) -> None:
        """`--stop` removes only what is a lab's."""
        with TemporaryDirectory() as name:
            self.assertEqual(main(["--stop", "--state", name]), 2)
            file = Path(name) / "inner" / "lab.json"
            file.parent.mkdir()
            for text in ("[{}]", "{", '[{"name": "..", "namespace": "x"}]'):
                file.write_text(text)
                self.assertEqual(main(["--stop", "--state", str(file.parent)]), 2)
            self.assertTrue(file.exists())


class HostedTests(SynchronousTestCase):
    """Plans of nodes for a shape; skipped without root."""

    def test_configs(self) -> None:
        """A node's own reader takes them; they name every other node, and the shortest ways."""
        hosts = hosts_for(self, "ip", "nft")
        with TemporaryDirectory() as name:
            text = b"[[host]]\nname='n0'\nrelay=false\nconfig.exit.enabled=true\n"
            text += b"".join(b"[[link]]\nbetween=['n%d','n%d']\nloss=0.5\n" % (n, n + 1) for n in range(3))
            built = Hosted.build(
                parse(text, toml=True), hosts, Path(name), lambda place: {"log": {"level": "warn"}}
            )
            settings = load(built.plans["n0"].folder / "node.toml", find_dropins().apps)
            self.assertEqual(settings.lookup("n3"), built.plans["n3"].public)
            routes = {route.to: route.via for route in settings.route}
            n1, n2, n3 = (built.plans[f"n{number}"].public for number in (1, 2, 3))
            self.assertEqual(routes, {n2: (n1,), n3: (n1, n2)})
            self.assertEqual((settings.relay.enabled, settings.log.level), (False, "warn"))
            self.assertTrue(settings.apps["vpn"].exit.enabled)
            wrong = parse(
                b"[[host]]\nname='x'\nconfig.link.peer=[]\n[[link]]\nbetween=['x','y']\n", toml=True
            )
            self.assertRaises(UsageError, Hosted.build, wrong, hosts, Path(name))

    def test_run(self) -> None:
        """A command in a host uses its node; its exit code is the lab's; nothing stays."""
        hosts_for(self, "ip")
        before = set(SPACES.iterdir())
        command = "meshnet ping n2 --json && meshnet links --json >/dev/null && ip -br address && exit 7"
        done = lab("line:3", "--run", command, "--on", "n0")
        self.assertEqual(done.returncode, 7, done.stderr)
        pinged, _, interfaces = done.stdout.rpartition("}\n")
        self.assertEqual(json.loads(pinged + "}")["received"], 3)
        self.assertIn("to-n1", interfaces)
        self.assertNotIn("to-n2", interfaces)
        self.assertEqual(set(SPACES.iterdir()), before)

    def test_kept(self) -> None:
        """`--keep` leaves everything up, another lab does not sweep it away, `--stop` ends it all."""
        hosts_for(self, "ip")
        with TemporaryDirectory() as name:
            state = ["--state", f"{name}/kept"]
            done = lab("line:2", "--keep", "--json", *state)
            self.assertEqual(done.returncode, 0, done.stderr)
            try:
                rows = json.loads(done.stdout)
                self.assertEqual([row["name"] for row in rows], ["n0", "n1"])
                self.assertEqual(lab("line:2", "--keep", *state).returncode, 1)
                with Hosts():
                    self.assertTrue(all((SPACES / row["namespace"]).exists() for row in rows))
            finally:
                self.assertEqual(lab("--stop", *state).returncode, 0)
            self.assertFalse(any((SPACES / row["namespace"]).exists() for row in rows))
            self.assertFalse(any(runs(row["pid"]) for row in rows))
            self.assertEqual(list((Path(name) / "kept").iterdir()), [])


class ShapeTests(SynchronousTestCase):
    """What the largest lab is."""

    def test_the_largest_lab_has_ways(self) -> None:
        """In a grid every host is known to every other."""
        self.assertEqual(len(shape("grid:8x8").routes("n0")), MOST_NODES - 1)
