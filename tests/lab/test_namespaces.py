"""Hosts in network namespaces: they work, and nothing of them stays."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from lab.namespaces import (
    FILES,
    PREFIX,
    SPACES,
    CommandError,
    Host,
    Hosts,
    inside,
    orphans,
    require,
    started,
    sweep,
)
from lab.processes import Processes, environment, python
from meshnet.errors import MissingDependencyError, TimedOutError, UsageError
from tests.support.hosts import hosts_for

LAB = """
import time
from lab.namespaces import Hosts
from lab.processes import Processes, python
from pathlib import Path
import sys
with Hosts() as hosts, Processes() as processes:
    host = hosts.add("a")
    child = host.start(processes, "child", python("-c", "import time; time.sleep(600)"), Path(sys.argv[1]))
    print(host.space, flush=True)
    time.sleep(600)
"""


class NameTests(SynchronousTestCase):
    """Whose a namespace is."""

    def test_orphans(self) -> None:
        """Only those of our form whose process is gone, or whose number another process has by now."""
        mine = f"{PREFIX}{os.getpid()}-{started(os.getpid())}-0-a"
        reused = f"{PREFIX}{os.getpid()}-{started(os.getpid()) + 1}-0-a"
        gone = f"{PREFIX}4194999-17-0-a"
        others = ["ns1", f"{PREFIX}kept-0a1b2c-0-a", "x" + gone, f"{PREFIX}a"]
        self.assertEqual(orphans([mine, reused, gone, *others]), [reused, gone])

    def test_missing_programs(self) -> None:
        """What is not there is named by its Debian package."""
        error = self.assertRaises(MissingDependencyError, require, "sh", "no-such-program")
        self.assertIn("apt install no-such-program", str(error))


class HostTests(SynchronousTestCase):
    """Real ones; skipped without root."""

    def setUp(self) -> None:
        self.hosts = hosts_for(self, "ip")

    def pair(self) -> tuple[Host, Host]:
        """Two hosts with a cable."""
        a, b = self.hosts.add("a"), self.hosts.add("b")
        self.hosts.cable(a, b)
        return a, b

    def exchange(self, server: Host, client: Host, family: int, address: str) -> bytes:
        """What a datagram of ours says at the other end."""
        kind = socket.SOCK_DGRAM
        far = server.inside(lambda: socket.socket(family, kind))
        near = client.inside(lambda: socket.socket(family, kind))
        with far, near:
            far.bind((address, 7))
            far.settimeout(5)
            near.sendto(b"hello", (address, 7))
            return far.recv(100)

    def test_both_families_over_a_cable(self) -> None:
        """Packets get from one host to the other, and to no third."""
        a, b = self.pair()
        end = a.towards(b)
        self.assertEqual(self.exchange(b, a, socket.AF_INET, str(end.far4)), b"hello")
        self.assertEqual(self.exchange(b, a, socket.AF_INET6, str(end.far6)), b"hello")
        self.assertEqual(b.towards(a).own4, end.far4)
        lonely = self.hosts.add("c")
        with lonely.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as near:
            self.assertRaises(OSError, near.sendto, b"x", (str(end.far4), 7))

    def test_over_a_router(self) -> None:
        """A host that forwards joins two others that have routes over it."""
        a, r, b = (self.hosts.add(name) for name in "arb")
        self.hosts.cable(a, r)
        self.hosts.cable(r, b)
        r.forward()
        a.configure(f"route add default via {a.towards(r).far4}")
        b.configure(f"route add default via {b.towards(r).far4}")
        self.assertEqual(self.exchange(b, a, socket.AF_INET, str(b.towards(r).own4)), b"hello")

    def test_files_of_its_own(self) -> None:
        """A command sees the host's resolv.conf, the machine's own stays as it is."""
        before = Path("/etc/resolv.conf").read_bytes() if Path("/etc/resolv.conf").exists() else None
        a, _ = self.pair()
        a.resolve_by("192.0.2.53")
        self.assertEqual(a.run("cat", "/etc/resolv.conf"), "nameserver 192.0.2.53\n")
        after = Path("/etc/resolv.conf").read_bytes() if Path("/etc/resolv.conf").exists() else None
        self.assertEqual(before, after)

    def test_a_command_that_fails(self) -> None:
        """Its words and its last lines are told; one that hangs is ended."""
        a, _ = self.pair()
        error = self.assertRaises(CommandError, a.run, "sh", "-c", "echo no such thing >&2; exit 3")
        self.assertIn("ended with 3: no such thing", str(error))
        self.assertRaises(TimedOutError, a.run, "sleep", "60", seconds=0.1)

    def test_names(self) -> None:
        """A name that is none, or that is taken, is refused before anything is made."""
        self.hosts.add("a")
        for name in ("a", "", "a/b", "-x", "x" * 33, ".."):
            self.assertRaises(UsageError, self.hosts.add, name)

    def test_long_names(self) -> None:
        """Interfaces have names that the kernel takes, all different."""
        names = ["centre", "a-rather-long-name-1", "a-rather-long-name-2"]
        centre, *others = [self.hosts.add(name) for name in names]
        for other in others:
            self.hosts.cable(centre, other)
        self.assertEqual(len({end.name for end in centre.cables.values()}), 2)

    def test_inside_tells_what_went_wrong(self) -> None:
        """The exception of the action is ours; the thread that asked stays where it was."""
        a, _ = self.pair()
        own = os.readlink("/proc/self/ns/net")
        self.assertNotEqual(a.inside(lambda: os.readlink("/proc/thread-self/ns/net")), own)
        self.assertEqual(os.readlink("/proc/thread-self/ns/net"), own)
        self.assertRaises(ZeroDivisionError, a.inside, lambda: 1 / 0)
        self.assertRaises(FileNotFoundError, inside, f"{PREFIX}none", lambda: None)

    def test_all_goes(self) -> None:
        """Leaving ends what runs in the hosts, also what its starter forgot, and removes their files."""
        with Hosts() as hosts:
            host = hosts.add("a")
            command = host.command("sh", "-c", "echo; exec sleep 600")
            forgotten = subprocess.Popen(command, stdout=subprocess.PIPE, start_new_session=True)
            assert forgotten.stdout is not None
            forgotten.stdout.readline()
            self.assertTrue((SPACES / host.space).exists() and (FILES / host.space).exists())
        self.assertEqual(forgotten.wait(5), -signal.SIGKILL)
        forgotten.stdout.close()
        self.assertFalse((SPACES / host.space).exists() or (FILES / host.space).exists())

    def test_a_killed_lab_is_swept_away(self) -> None:
        """SIGKILL leaves namespaces behind; the next lab removes them, and no others."""
        with TemporaryDirectory() as folder, Processes():
            log = str(Path(folder) / "log")
            lab = subprocess.Popen(python("-c", LAB, log), stdout=subprocess.PIPE, env=environment())
            assert lab.stdout is not None
            space = lab.stdout.readline().decode().strip()
            alive = self.hosts.add("alive")
            self.assertNotIn(space, sweep())
            lab.kill()
            lab.wait()
            lab.stdout.close()
            self.assertTrue((SPACES / space).exists())
            self.assertIn(space, sweep())
        self.assertFalse((SPACES / space).exists() or (FILES / space).exists())
        self.assertTrue((SPACES / alive.space).exists())
