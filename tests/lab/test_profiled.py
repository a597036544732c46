"""A command under the profiler, from a signal on."""

from __future__ import annotations

import os
import pstats
import signal
import subprocess
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lab.nodes import Node, chain
from lab.processes import Processes, python


class ProfiledTests(SynchronousTestCase):
    """A real node."""

    def test_only_what_follows_the_signal(self) -> None:
        """What the node does then is in the profile, its start is not."""
        with tempfile.TemporaryDirectory() as name, Processes() as processes:
            (plan,) = chain(Path(name), {"n0": "relay"})
            config, stats = str(plan.write()), Path(name) / "n0.pstats"
            words = python("-m", "lab.profiled", str(stats), "up", "--config", config)
            node = Node(plan, processes.start("n0", words, Path(name) / "log"))
            node.wait_for_links(0)
            os.kill(node.process.pid, signal.SIGUSR1)
            node.call("GET", "/status")
            node.process.stop()
            named = {function for _, _, function in pstats.Stats(str(stats)).stats}  # type: ignore[attr-defined]
        self.assertTrue(any("poll" in function for function in named), named)
        self.assertNotIn("<built-in method builtins.compile>", named)

    def test_the_exit_code_is_the_commands(self) -> None:
        """Also of a command that fails at once."""
        with tempfile.TemporaryDirectory() as name:
            words = python("-m", "lab.profiled", f"{name}/stats", "config", "check", f"{name}/none")
            done = subprocess.run(words, capture_output=True, text=True)
            self.assertTrue(Path(f"{name}/stats").exists())
        self.assertEqual(done.returncode, 2, done.stderr)
