"""Real nodes take over changed configs in mid-download: not a byte is lost, not a link is made anew."""

from __future__ import annotations

import os
import signal
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from lab.demos.origin import Origin, digest
from lab.nodes import Network, Node, chain, toml
from lab.processes import Processes, free_ports
from lab.socks import Fetch, get
from meshnet.cipher.keys import SecretKey
from meshnet.errors import UsageError

SIZE, RATE = 6 << 20, 3 << 20
pytestmark = pytest.mark.skipif(not sys.platform.startswith("linux"), reason="callers come from 127.0.0.9")


@pytest.fixture
def network() -> Iterator[Network]:
    """alice, a relay, and bob, who is the exit."""
    with tempfile.TemporaryDirectory(prefix="reload-") as folder, Processes() as processes:
        row = chain(Path(folder), {"alice": "user", "r1": "relay", "bob": "exit"})
        listen = f"127.0.0.1:{free_ports(1)[0]}"
        more: dict[str, dict[str, Any]] = {
            "alice": {"socks": {"listen": listen, "exit": row[2].public.hex(), "via": [row[1].public.hex()]}},
            "bob": {"exit": {"enabled": True, "allow": ["127.0.0.0/8"], "source": "127.0.0.9"}},
        }
        yield Network.start(processes, [evolve(plan, more=more.get(plan.name, {})) for plan in row])


@pytest.fixture
def web() -> Iterator[int]:
    """A web server's port, open to bob only."""
    server = Origin(("127.0.0.1", 0), "127.0.0.9")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def add(node: Node, sections: dict[str, Any]) -> None:
    """Writes more at the end of a node's config."""
    with (node.plan.folder / "node.toml").open("a") as file:
        file.write("\n" + toml(sections))


def connections(network: Network) -> dict[tuple[str, str], int]:
    """How many connections each link has had."""
    return {
        (node.name, link["peer"]): link["connections"]
        for node in network.nodes
        for link in node.call("GET", "/links")["links"]
        if "connections" in link
    }


def test_reload_in_mid_download(network: Network, web: int) -> None:
    """The relay by SIGHUP, alice by her control API: she gets a forward, a name and a route, the relay one
    more neighbour and a limit. The download is whole, every link still has its first connection, and a wrong
    config changes nothing."""
    alice, relay = network["alice"], network["r1"]
    before = connections(network)
    port, stranger = free_ports(1)[0], SecretKey.generate().public.hex()
    reports: list[dict[str, Any]] = []

    def change(so_far: Fetch) -> None:
        if reports or so_far.size < SIZE // 4:
            return
        forward = {"listen": f"127.0.0.1:{port}", "to": network["bob"].plan.public.hex(), "port": 80}
        add(alice, {"forward": [forward], "known": [{"name": "r", "key": relay.plan.public.hex()}]})
        reports.append(alice.call("POST", "/reload", {}))
        add(relay, {"link.peer": [{"key": stranger, "address": "tcp:127.0.0.1:1"}]})
        os.kill(relay.process.pid, signal.SIGHUP)

    host, _, number = alice.plan.more["socks"]["listen"].rpartition(":")
    found = get(("127.0.0.1", web, f"/{SIZE}/{RATE}"), (host, int(number)), change)
    assert (found.size, found.sha256) == (SIZE, digest(SIZE))
    assert reports == [
        {"applied": ["known", f"forward: 127.0.0.1:{port} opened"], "restart": [], "failed": []}
    ]
    relay.process.wait_for(
        lambda: stranger in {link["peer"] for link in relay.call("GET", "/links")["links"]},
        10.0,
        "the neighbour",
    )
    assert connections(network) == before
    assert alice.call("GET", "/apps/vpn/forward")["forward"][0]["listen"] == f"127.0.0.1:{port}"
    limits = alice.call("GET", "/status")["limits"]
    add(alice, {"forward": [{"listen": "127.0.0.1:0", "to": "nobody", "port": 80}]})
    with pytest.raises(UsageError, match=r"forward\.1\.to"):
        alice.call("POST", "/reload", {})
    assert alice.call("GET", "/status")["limits"] == limits
    assert connections(network) == before
