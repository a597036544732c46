"""What the lab starts, it ends."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from lab.processes import ChildError, Processes, environment, free_ports, python

SLEEPER = python("-c", "import time; print('up', flush=True); time.sleep(600)")
PARENT = """
import sys
from pathlib import Path
from lab.processes import Processes, python
with Processes() as processes:
    child = processes.start("child", python("-c", "import time; time.sleep(600)"), Path(sys.argv[1]))
    print(child.pid, flush=True)
    child.wait_for(lambda: False, 600, "never")
"""


def alive(pid: int) -> bool:
    """Whether a process runs (a zombie does not)."""
    try:
        os.kill(pid, 0)
        stat = Path(f"/proc/{pid}/stat")
        return not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (ProcessLookupError, FileNotFoundError):
        return False


class ProcessTests(SynchronousTestCase):
    """Children that are Python programs."""

    def setUp(self) -> None:
        folder = tempfile.TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.log = Path(folder.name) / "log"

    def test_start_and_stop(self) -> None:
        """Leaving the block ends the children."""
        with Processes() as processes:
            child = processes.start("child", SLEEPER, self.log)
            child.wait_for(lambda: "up" in child.tail(), 10, "its word")
            self.assertTrue(child.running)
        self.assertFalse(child.running)

    def test_ended_early(self) -> None:
        """A child that ends is reported with the end of its log."""
        with Processes() as processes:
            child = processes.start("child", python("-c", "raise SystemExit('no port left')"), self.log)
            error = self.assertRaises(ChildError, child.wait_for, lambda: False, 10, "its port")
        self.assertIn("no port left", str(error))

    def test_a_killed_lab_takes_its_children_along(self) -> None:
        """SIGTERM, SIGHUP and SIGKILL to the lab end what it started."""
        killed = [signal.SIGKILL] if sys.platform == "linux" else []
        for number in [signal.SIGTERM, signal.SIGHUP, *killed]:
            command = python("-c", PARENT, str(self.log))
            lab = subprocess.Popen(command, stdout=subprocess.PIPE, env=environment())
            assert lab.stdout is not None
            child = int(lab.stdout.readline())
            lab.send_signal(number)
            lab.wait(10)
            lab.stdout.close()
            limit = time.monotonic() + 10
            while alive(child) and time.monotonic() < limit:
                pass
            self.assertFalse(alive(child))

    def test_free_ports(self) -> None:
        """They are different, and free."""
        ports = free_ports(10)
        self.assertEqual(len(set(ports)), 10)
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", ports[0]))
