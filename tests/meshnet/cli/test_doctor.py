"""What the doctor finds, of nodes that run and nodes that do not."""

from __future__ import annotations

import contextlib
import io
import json
import os
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from lab.nodes import Network, chain
from lab.processes import Processes
from meshnet.cli.main import main
from meshnet.node import checks
from meshnet.node.checks import Finding
from meshnet.node.config import from_table
from meshnet.node.dropins import Dropins, find_dropins
from meshnet.storage.disk import RealDisk
from meshnet.storage.quarantine import Quarantine
from tests.meshnet.cli.test_main import A, B
from tests.support.nodes import link_snapshot, new_folder


def doctor(*argv: str) -> tuple[int, dict[str, Any]]:
    """Exit code and report."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(("doctor", *argv, "--json"), find_dropins())
    return code, json.loads(out.getvalue())


def texts(report: dict[str, Any], level: str) -> str:
    """All findings of a level."""
    return "\n".join(f"{f['check']}: {f['text']}" for f in report["findings"] if f["level"] == level)


class StoppedTests(SynchronousTestCase):
    """A node that does not run."""

    def setUp(self) -> None:
        """A fresh node."""
        self.folder = new_folder(self) / "node"
        with contextlib.redirect_stdout(io.StringIO()):
            main(("init", str(self.folder), "--listen", "tcp:127.0.0.1:0"), find_dropins())

    def problem(self, *words: str) -> None:
        """The doctor finds one, with these words; every sentence is one."""
        code, report = doctor(str(self.folder))
        self.assertEqual(code, 1)
        self.assertFalse(report["ok"])
        for word in words:
            self.assertIn(word, texts(report, "problem"))
        for finding in report["findings"]:
            self.assertTrue(finding["text"].endswith("."), finding)

    def test_fresh(self) -> None:
        """Nothing is wrong but that it does not run: exit code 7."""
        code, report = doctor(str(self.folder))
        self.assertEqual((code, report["problems"], report["warnings"]), (7, 0, 1), report)
        self.assertIn("meshnet up", texts(report, "warning"))

    def test_nothing_is_changed(self) -> None:
        """It only looks."""
        before = sorted((path, path.stat().st_mtime_ns) for path in self.folder.rglob("*"))
        doctor(str(self.folder))
        self.assertEqual(sorted((path, path.stat().st_mtime_ns) for path in self.folder.rglob("*")), before)

    def test_key(self) -> None:
        """Readable by others; then missing."""
        (self.folder / "key").chmod(0o644)
        self.problem("key: ", "chmod 600")
        (self.folder / "key").unlink()
        self.problem("key: ", "There is no key")

    def test_config(self) -> None:
        """Wrong: the sentence names the place."""
        with (self.folder / "node.toml").open("a") as file:
            file.write("\n[metrics]\nlisten = 7\n")
        self.problem("config: ", "metrics.listen")

    def test_no_node(self) -> None:
        """Where there is none, it says so."""
        code, report = doctor(str(new_folder(self)))
        self.assertEqual(code, 1)
        self.assertIn("meshnet init", texts(report, "problem"))

    def test_port_taken(self) -> None:
        """Names key, address and reason."""
        with socket.create_server(("127.0.0.1", 0)) as server:
            port = server.getsockname()[1]
            with (self.folder / "node.toml").open("a") as file:
                file.write(
                    f'\n[metrics]\nlisten = "127.0.0.1:{port}"\n'
                    f'[socks]\nexit = "{A.hex()}"\nlisten = "127.0.0.1:{port}"\n'
                )
            self.problem("metrics.listen", "socks.listen", str(port), "in use")

    def test_data(self) -> None:
        """Others may write; something was set aside; a killed node has left its socket."""
        data = self.folder / "data"
        damaged = data / "replay.log"
        damaged.write_bytes(b"x")
        Quarantine(RealDisk(), data / "quarantine", lambda: 1e9).take("its checksum is wrong", damaged)
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(data / "control.sock"))
        code, report = doctor(str(self.folder))
        self.assertEqual((code, report["problems"]), (7, 0), report)
        for words in ("replay.log was set aside (its checksum is wrong)", "left of a node that was killed"):
            self.assertIn(words, texts(report, "warning"))
        data.chmod(0o777)
        self.problem("chmod 700")

    def test_lock_held(self) -> None:
        """A process has the data directory and does not answer."""
        lock = RealDisk().lock(self.folder / "data" / "lock")
        self.addCleanup(lock.release)
        self.problem("lock: ", "fuser")

    def test_for_a_person(self) -> None:
        """A line for each finding, no colours in a pipe."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out):
            main(("doctor", str(self.folder)), find_dropins())
        for line in out.getvalue().splitlines():
            self.assertIn(line.split()[0], ("ok", "warning", "PROBLEM"))


class CheckTests(SynchronousTestCase):
    """Single checks, with what a node would say."""

    def found(self, findings: Any, level: str = "") -> list[str]:
        """The texts of a level, or all."""
        return [each.text for each in findings if level in ("", each.level)]

    def test_installation(self) -> None:
        """Broken dropins, few file descriptors, a wrong clock."""
        broken = Dropins(broken=("Dropin meshnet_x cannot be loaded (ImportError: y).",))
        findings = list(checks.installation(broken, ["Transport z is not available: w."], 0.0))
        self.assertEqual([f.level for f in findings if f.check == "dropins"], ["warning", "warning"])
        self.assertIn("problem", {f.level for f in findings if f.check == "clock"})
        self.patch(checks, "NEEDED", {"twisted": (99, 0), "no-such-package": (1, 0)})
        self.assertEqual(len(self.found(checks.installation(Dropins(), [], 2e9), "problem")), 2)

    def test_links(self) -> None:
        """Down with since and why; lossy; none at all."""
        down = {
            "peer": B.hex(),
            "name": "bob",
            "up": False,
            "lost_seconds": 30.0,
            "why": "nothing listens there",
        }
        lossy = link_snapshot(A, loss=0.2, name=None)
        warnings = self.found(checks.links([down, lossy]), "warning")
        self.assertIn("lost 30 s ago: nothing listens there", warnings[0])
        self.assertIn("80%", warnings[1])
        self.assertEqual(len(self.found(checks.links([down]), "problem")), 1)
        self.assertEqual(self.found(checks.links([link_snapshot(A)]), "warning"), [])

    def test_figures(self) -> None:
        """Late, short of descriptors, clocks, limits; silent where all is well."""
        page = (
            "meshnet_reactor_lag_seconds 0.5\nprocess_open_fds 90.0\nprocess_max_fds 100.0\n"
            'meshnet_circuits_refused_total{reason="clock_skew"} 3.0\n'
            'meshnet_circuits_refused_total{reason="busy"} 4.0\n'
        )
        self.assertEqual([f.check for f in checks.figures(page)], ["load", "open files", "clock", "limits"])
        self.assertEqual(list(checks.figures("meshnet_reactor_lag_seconds 0.001\n")), [])

    def test_hidden(self) -> None:
        """Expired, soon to expire, out of reach."""
        addresses = [
            {"expires_unix": 900, "state": "ready"},
            {"expires_unix": 2_000, "state": "ready"},
            {"expires_unix": 900_000, "state": "there is no link to its last relay"},
            {"expires_unix": 900_000, "state": "ready"},
        ]
        findings = list(checks.hidden([{"name": "shop", "addresses": addresses}], 1_000.0))
        self.assertEqual([f.level for f in findings], ["warning", "warning", "problem"])
        self.assertTrue(all("meshnet address renew shop" in f.text for f in findings))

    def test_password(self) -> None:
        """An encrypted key whose password is nowhere: a warning; one that others read: a problem."""
        folder = new_folder(self)
        with contextlib.redirect_stdout(io.StringIO()):
            main(("init", str(folder / "n")), find_dropins())
            word = folder / "word"
            word.write_text("a long word\n")
            word.chmod(0o600)
            main(("key", "encrypt", str(folder / "n"), "--new-password-file", str(word)), find_dropins())
        look: Callable[[dict[str, Any]], list[Finding]] = lambda node: list(  # noqa: E731
            checks.key_file(RealDisk(), from_table({"node": node}, folder / "n" / "node.toml"), {})
        )
        self.assertEqual([f.level for f in look({})], ["ok", "warning"])
        self.assertEqual([f.level for f in look({"password_file": str(word)})], ["ok"])
        word.chmod(0o644)
        self.assertEqual([f.level for f in look({"password_file": str(word)})], ["ok", "problem"])


def test_running_nodes() -> None:
    """Two real nodes: nothing is wrong. One is stopped: the other's doctor says who is gone and why."""
    with tempfile.TemporaryDirectory(prefix="doctor-") as folder, Processes() as processes:
        row = chain(Path(folder), {"alice": "user", "bob": "relay"})
        network = Network.start(processes, [evolve(plan) for plan in row])
        alice, bob = network["alice"], network["bob"]
        here = str(alice.plan.folder)
        code, report = doctor(here)
        assert code == 0, report
        bob.process.stop()
        alice.process.wait_for(lambda: alice.links_up() == 0, 20.0, "the end of the link")
        code, report = doctor(here)
        assert code == 1, report
        assert "no link" in texts(report, "problem")
        assert bob.plan.public.hex()[:16] in texts(report, "warning")
        os.utime(alice.plan.folder / "node.toml", (4e9, 4e9))
        assert "meshnet reload" in texts(doctor(here)[1], "warning")
        with (alice.plan.folder / "node.toml").open("a") as file:
            file.write("\n[nonsense\n")
        (alice.plan.folder / "data" / "control.sock").symlink_to(alice.plan.socket)
        report = doctor(here)[1]
        assert "is not TOML" in texts(report, "problem")
        assert "does not run" not in texts(report, "warning"), "it runs, whatever its config says by now"
