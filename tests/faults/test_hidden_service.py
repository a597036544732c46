"""A hidden service among real nodes: made by the command, called over TCP, there again after a restart."""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest
from attrs import evolve

from lab.demos.origin import Origin, digest
from lab.nodes import Network, Node, chain
from lab.processes import Processes, environment, free_ports, python
from meshnet.cipher.address import parse_address

SIZE = 1 << 20
PATIENCE = 20.0
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the web server needs 127/8")


@pytest.fixture
def processes() -> Iterator[Processes]:
    """What is started ends with the test."""
    with Processes() as made:
        yield made


@pytest.fixture
def web() -> Iterator[int]:
    """A web server's port."""
    server = Origin(("127.0.0.1", 0), "127.0.0.1")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def ask(node: Node, *words: str) -> Any:
    """What `meshnet … --json` prints."""
    command = python("-m", "meshnet.cli.main", *words, "--json", "--node", str(node.plan.folder))
    done = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def fetched(url: str) -> str:
    """The digest of what is there; empty where nothing is: calls of before a restart end with an error."""
    try:
        with urlopen(url, timeout=PATIENCE) as answer:
            return hashlib.sha256(answer.read()).hexdigest()
    except OSError:
        return ""


@pytest.mark.long
def test_hidden_service(processes: Processes, web: int) -> None:
    """alice fetches from bob, who hides behind r2; bob is killed, starts again, and is found again."""
    with tempfile.TemporaryDirectory(prefix="hidden-") as folder:
        row = chain(Path(folder), {"alice": "user", "r1": "relay", "r2": "relay", "bob": "user"})
        known = {"known": [{"name": plan.name, "key": plan.public.hex()} for plan in row]}
        network = Network.start(processes, [evolve(plan, more=known) for plan in row])
        alice, bob = network["alice"], network["bob"]
        made = ask(bob, "address", "new", "--hops", "r2", "--name", "blog")
        assert parse_address(made["address"]).introduction == network["r2"].plan.public
        assert bob.plan.public.hex() not in json.dumps(made)
        port = free_ports(1)[0]
        to = {"to": made["address"], "port": 80, "via": ["r1"]}
        alice.call("POST", "/apps/vpn/forward", {"listen": f"127.0.0.1:{port}", **to})
        served = {"port": 80, "target": f"127.0.0.1:{web}", "address": "blog"}
        for start in range(2):
            if start:
                bob.process.kill()
                command = python(
                    "-m", "meshnet.cli.main", "up", "--config", str(bob.plan.folder / "node.toml")
                )
                bob = Node(bob.plan, processes.start("bob", command, bob.plan.folder / "log again"))
                bob.wait_for_links(1)
            bob.call("POST", "/apps/vpn/serve", served)
            url = f"http://127.0.0.1:{port}/{SIZE}"
            alice.process.wait_for(lambda url=url: fetched(url) == digest(SIZE), PATIENCE, "the whole file")
        report = alice.call("POST", "/trace", {"target": made["address"], "via": ["r1"], "count": 1})
        assert [hop["key"] for hop in report["hops"]] == [network["r1"].plan.public.hex(), made["key"]]
        assert report["hops"][1]["hidden_hops"] == 2
        for node in (alice, bob, network["r1"], network["r2"]):
            assert "Traceback" not in node.process.tail(1_000), node.name
