"""The demonstration itself: real nodes, as a person starts them."""

from __future__ import annotations

import json
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import pytest

from lab.demos import attach, topology
from lab.demos.origin import Origin, digest
from lab.namespaces import refusal
from lab.processes import environment, python
from lab.socks import SocksError, connect, get

SIZE = 2_000_000


def demo(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Runs `./mesh demo …` in this environment."""
    command = python("-m", "lab", "demo", *arguments)
    return subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=120)


def test_once() -> None:
    """Every check of the demonstration holds, and its JSON is what scripts were promised."""
    done = demo("--once", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"]) == (0, True), done.stdout + done.stderr
    assert done.stderr == ""
    assert report["circuit"]["relays"] == ["r1", "r2", "r3"]
    assert report["circuit"]["setup_ms"] > 0 and report["circuit"]["rtt_ms"] > 0
    assert report["fetch"]["bytes"] >= 2_000_000 and report["fetch"]["sha256_ok"]
    assert report["direct_refused"] is report["stopped_when_relay_killed"] is True
    assert [node["role"] for node in report["nodes"]] == ["user", "relay", "relay", "relay", "exit"]
    assert all(len(node["pubkey"]) == 66 and node["metrics_ok"] for node in report["nodes"])
    assert all(node["cells_relayed"] > 0 for node in report["nodes"][1:4])
    assert report["seconds"] <= 60


@pytest.mark.long
def test_attach() -> None:
    """Programs beside their nodes: every step of the other demonstration holds."""
    done = demo("attach", "--once", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], done.stderr) == (0, True, ""), done.stdout + done.stderr
    assert all(report[step] is True for step in attach.STEPS)
    assert report["bytes"] == attach.SIZE


@pytest.mark.long
def test_topology() -> None:
    """Nodes that join by invites know the network, its ways, and who lies: every step holds."""
    done = demo("topology", "--once", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], done.stderr) == (0, True, ""), done.stdout + done.stderr
    assert all(report[step] is True for step in topology.STEPS)
    assert len(report["route"]) == len(report["route_after"]) == 2


@pytest.mark.long
def test_vpn() -> None:
    """Packets over three hops, and none beside them when the exit dies: every step holds."""
    why = refusal()
    if why:
        pytest.skip(why)
    done = demo("vpn", "--once", "--json")
    report = json.loads(done.stdout)
    assert (done.returncode, report["ok"], done.stderr) == (0, True, ""), done.stdout + done.stderr
    assert report["leaked_packets"] == 0 and len(report["hops"]) == 3
    assert all(report["checks"].values()) and len(report["checks"]) == 13


@pytest.fixture(scope="module")
def kept() -> Iterator[list[dict[str, Any]]]:
    """The rows of nodes.json while the nodes are up."""
    with tempfile.TemporaryDirectory(prefix="kept ") as state:
        done = demo("--keep", "--json", "--state", state)
        assert done.returncode == 0, done.stderr
        try:
            rows = json.loads((Path(state) / "nodes.json").read_text())
            assert rows == json.loads(done.stdout)
            yield rows
        finally:
            assert demo("--stop", "--state", state).returncode == 0
        assert not list(Path(state).iterdir())


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    """The port of an outsider's web server, for the exit's address only."""
    server = Origin(("127.0.0.1", 0), "127.0.0.9")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def test_kept_nodes(kept: list[dict[str, Any]]) -> None:
    """nodes.json names everything an outsider needs."""
    assert [row["name"] for row in kept] == ["alice", "r1", "r2", "r3", "bob"]
    assert all(set(row) == {"name", "role", "pubkey", "socks", "metrics", "control", "pid"} for row in kept)
    assert [bool(row["socks"]) for row in kept] == [True, False, False, False, False]


def test_an_outsider_fetches(kept: list[dict[str, Any]], web: int) -> None:
    """Anybody's SOCKS client reaches any server on loopback, from the exit's address."""
    host, port = kept[0]["socks"].split(":")
    fetch = get(("127.0.0.1", web, f"/{SIZE}"), (host, int(port)))
    assert (fetch.status, fetch.size, fetch.sha256) == (200, SIZE, digest(SIZE))
    assert get(("127.0.0.1", web, "/1")).status == 403


def test_curl_fetches(kept: list[dict[str, Any]], web: int) -> None:
    """So does curl."""
    if not shutil.which("curl"):
        pytest.skip("curl is not installed")
    command = ["curl", "-sS", "--socks5-hostname", kept[0]["socks"], f"http://127.0.0.1:{web}/100000"]
    done = subprocess.run(command, capture_output=True, timeout=60)
    assert (done.returncode, len(done.stdout)) == (0, 100_000), done.stderr


def test_nothing_listens(kept: list[dict[str, Any]]) -> None:
    """A port where nothing listens is answered with "connection refused"."""
    host, port = kept[0]["socks"].split(":")
    with pytest.raises(SocksError) as error:
        connect((host, int(port)), "127.0.0.1", 1)
    assert error.value.reply == 5


def test_the_command_reaches_kept_nodes(kept: list[dict[str, Any]]) -> None:
    """`meshnet ping` measures a circuit over the relays, `status` and `links` answer, each as JSON too."""
    via = ",".join(row["pubkey"] for row in kept[1:4])
    words = ["ping", kept[-1]["pubkey"], "--via", via]
    for arguments in (words, ["status"], ["links"], ["circuits"], ["trace", *words[1:]]):
        for more in ([], ["--json"]):
            command = python("-m", "meshnet.cli.main", *arguments, "--node", kept[0]["control"], *more)
            done = subprocess.run(command, env=environment(), capture_output=True, text=True, timeout=60)
            assert done.returncode == 0, (arguments, done.stderr)
            if more:
                json.loads(done.stdout)


def test_promtool(kept: list[dict[str, Any]]) -> None:
    """Prometheus's own tool finds nothing to say about any node's metrics."""
    if not shutil.which("promtool"):
        pytest.skip("promtool is not installed (Debian: prometheus)")
    for row in kept:
        with urlopen(row["metrics"], timeout=10) as answer:
            text = answer.read()
        done = subprocess.run(["promtool", "check", "metrics"], input=text, capture_output=True, timeout=60)
        assert (done.returncode, done.stdout, done.stderr) == (0, b"", b"")


def test_a_second_keep_is_refused(kept: list[dict[str, Any]]) -> None:
    """Nodes that run are not started again over themselves."""
    done = demo("--keep", "--state", str(Path(kept[0]["control"]).parent.parent))
    assert done.returncode == 1
    assert "still run there" in done.stderr


def test_stop_without_keep(tmp_path: Path) -> None:
    """Nothing kept there is a usage error."""
    done = demo("--stop", "--state", str(tmp_path))
    assert done.returncode == 2
    assert "nothing was kept there" in done.stderr
