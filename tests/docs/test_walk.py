"""The walk through a mesh of three machines in README.md, done on loopback with its own commands."""

from __future__ import annotations

import functools
import http.server
import re
import shlex
import subprocess
import threading
import unittest
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.request import urlopen

from lab.processes import Process, Processes, environment, free_ports, python
from lab.socks import get
from tests.docs.pages import blocks, page, section

TEXT = section(page("README.md"), "## A mesh of three machines")
_STEP = re.compile(r"```(sh|toml)\n(.*?)```", re.DOTALL)
_FILE = re.compile(r"`(\w+/node\.toml)`")
PATIENCE = 30.0


def steps() -> Iterator[tuple[str, str, str]]:
    """Language, text, and the file that the sentences before it name, of each block."""
    last = 0
    for block in _STEP.finditer(TEXT):
        named = _FILE.findall(TEXT[last : block.start()])
        yield block[1], block[2], named[-1] if named else ""
        last = block.end()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Logs nothing."""

    def log_message(self, format: str, *arguments: object) -> None:
        """Nothing."""


class WalkTests(unittest.TestCase):
    """Runs every block in order; addresses and keys are ours instead of the page's."""

    def setUp(self) -> None:
        holder = TemporaryDirectory()
        self.addCleanup(holder.cleanup)
        self.folder = Path(holder.name)
        self.processes = Processes().__enter__()
        self.addCleanup(self.processes.__exit__)
        self.nodes: dict[str, Process] = {}
        self.keys: dict[str, str] = {}
        (self.folder / "www").mkdir()
        (self.folder / "www" / "index.html").write_text("far side\n")
        server = http.server.ThreadingHTTPServer(
            ("127.0.0.1", 0), functools.partial(Quiet, directory=str(self.folder / "www"))
        )
        threading.Thread(target=server.serve_forever, daemon=True).start()
        self.addCleanup(server.server_close)
        self.addCleanup(server.shutdown)
        self.web = server.server_address[1]
        link, metrics, *local = free_ports(5)
        self.socks, self.second, self.forward = local
        self.ours = {
            "192.0.2.1:7001": f"127.0.0.1:{link}",
            "0.0.0.0:7001": f"127.0.0.1:{link}",
            "127.0.0.1:9100": f"127.0.0.1:{metrics}",
            "127.0.0.1:1080": f"127.0.0.1:{self.socks}",
            "127.0.0.1:1081": f"127.0.0.1:{self.second}",
            "127.0.0.1:8000": f"127.0.0.1:{self.web}",
            "127.0.0.1:8080": f"127.0.0.1:{self.forward}",
            "http://example.org/": f"http://127.0.0.1:{self.web}/",
        }

    def own(self, text: str) -> str:
        """The text of the page with our addresses, and the keys of our nodes by the place they stand in."""
        for theirs, mine in self.ours.items():
            text = text.replace(theirs, mine)
        if "$RELAY" in text:
            text = text.replace("$RELAY", self.key("relay"))
        return re.sub(
            r'name = "(\w+)"\nkey = "[0-9a-f]{66}"',
            lambda m: f'name = "{m[1]}"\nkey = "{self.key(m[1])}"',
            text,
        )

    def meshnet(self, *arguments: str, expected: int = 0) -> str:
        """Runs a verb in the folder; what it printed."""
        command = python("-m", "meshnet.cli.main", *arguments)
        done = subprocess.run(
            command, cwd=self.folder, env=environment(), capture_output=True, text=True, timeout=60
        )
        self.assertEqual(done.returncode, expected, f"{arguments}: {done.stderr}")
        return done.stdout

    def key(self, node: str) -> str:
        """The public key of a node that init made."""
        if node not in self.keys:
            self.keys[node] = self.meshnet("key", "show", node).split("\n")[0]
        return self.keys[node]

    def up(self, name: str) -> None:
        """Starts a node and waits until it says that it is ready."""
        command = python("-m", "meshnet.cli.main", "up", str(self.folder / name))
        node = self.processes.start(name, command, self.folder / f"{name}.log")
        node.wait_for(lambda: "ready " in node.tail(50), PATIENCE, "ready")
        self.nodes[name] = node

    def run_line(self, line: str) -> None:
        """One line of a shell block."""
        words = shlex.split(self.own(line), comments=True)
        if not words or re.match(r"RELAY=", words[0]):
            return
        if words[0] == "curl":
            self.assertEqual(words[1], "--socks5-hostname")
            self.fetch(int(words[2].rpartition(":")[2]))
        elif words[1] == "up":
            self.up(words[2])
        elif words[1] == "stop":
            self.finish(words)
        else:
            self.assertEqual(words[0], "./mesh")
            if words[1] == "ping":
                self.linked()
            self.meshnet(*words[1:])

    def linked(self) -> None:
        """Waits until the exit and the user are linked with the relay."""
        wanted = lambda: "2 up" in self.meshnet("status", "--node", "relay")  # noqa: E731
        self.nodes["relay"].wait_for(wanted, PATIENCE, "linked")

    def fetch(self, port: int) -> None:
        """The page of our web server, through SOCKS5; the exit has to allow loopback for that."""
        self.meshnet("exit", "--allow", "127.0.0.0/8", "--node", "exit")
        found = get(("127.0.0.1", self.web, "/"), ("127.0.0.1", port))
        self.assertEqual(found.text, b"far side\n")

    def finish(self, words: list[str]) -> None:
        """The last lines use the nodes that still run, so `stop` waits for the end of the walk."""
        self.last = words[1:]

    def test_walk(self) -> None:
        """Everything the page shows works, in its order."""
        for language, text, file in steps():
            if language == "toml":
                if file:
                    with (self.folder / file).open("a") as handle:
                        handle.write("\n" + self.own(text))
                continue
            for line in text.splitlines():
                self.run_line(line)
        self.assertEqual(set(self.nodes), {"relay", "exit", "user"})
        self.assertIn("far side", self.by_forward())
        self.meshnet(*self.last)
        self.assertIn("far side", self.program())

    def program(self) -> str:
        """What the page's program prints, which is a node itself: the user's, now that it has stopped."""
        (program,) = blocks(section(page("README.md"), "## From Twisted"), "python")
        done = subprocess.run(
            python("-c", program),
            cwd=self.folder,
            env=environment(),
            capture_output=True,
            text=True,
            timeout=60,
        )
        self.assertEqual(done.returncode, 0, done.stderr)
        return done.stdout

    def by_forward(self) -> str:
        """The page of our web server through the forward and the served port."""
        with urlopen(f"http://127.0.0.1:{self.forward}/", timeout=30) as answer:
            found: str = answer.read().decode()
        return found
