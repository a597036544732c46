"""Real nodes under attack, killed, out of descriptors and out of disk: what a user and an operator see."""

from __future__ import annotations

import contextlib
import json
import os
import random
import resource
import socket
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve

from lab.demos.origin import Origin, digest
from lab.nodes import Network, Node, chain
from lab.processes import Processes, environment, free_ports, python
from lab.socks import Fetch, get
from meshnet.errors import CircuitError, MeshError
from meshnet.limits import HALF_OPEN_LINKS

SIZE = 24 << 20
PATIENCE = 20.0

LINUX = sys.platform.startswith("linux")
pytestmark = pytest.mark.skipif(not LINUX, reason="only Linux can set limits of other processes")


@pytest.fixture(scope="module")
def processes() -> Iterator[Processes]:
    """What is started ends with this module."""
    with Processes() as made:
        yield made


@pytest.fixture(scope="module")
def network(processes: Processes) -> Iterator[Network]:
    """alice, a relay, and bob, who is the exit."""
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        row = chain(Path(folder), {"alice": "user", "r1": "relay", "bob": "exit"})
        via, last = [row[1].public.hex()], row[2].public.hex()
        listen = f"127.0.0.1:{free_ports(1)[0]}"
        more: dict[str, dict[str, Any]] = {
            "alice": {"socks": {"listen": listen, "exit": last, "via": via}},
            "bob": {"exit": {"enabled": True, "allow": ["127.0.0.0/8"], "source": "127.0.0.9"}},
        }
        yield Network.start(processes, [evolve(plan, more=more.get(plan.name, {})) for plan in row])


@pytest.fixture(scope="module")
def web() -> Iterator[int]:
    """A web server's port, open to bob only."""
    server = Origin(("127.0.0.1", 0), "127.0.0.9")
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield int(server.server_address[1])
    server.shutdown()
    server.server_close()
    thread.join()


def fetch(network: Network, web: int, progress: Callable[[Fetch], None] | None = None) -> None:
    """A download over the relay, which must be whole."""
    host, _, port = network["alice"].plan.more["socks"]["listen"].rpartition(":")
    found = get(("127.0.0.1", web, f"/{SIZE}"), (host, int(port)), progress)
    assert (found.size, found.sha256) == (SIZE, digest(SIZE))


def ping(network: Network) -> None:
    """One round trip over the relay; raises MeshError."""
    via, target = [network["r1"].plan.public.hex()], network["bob"].plan.public.hex()
    report = network["alice"].call("POST", "/ping", {"target": target, "via": via, "count": 1})
    assert report["received"] == 1


def works(network: Network) -> Callable[[], bool]:
    """Whether a ping gets through by now."""

    def check() -> bool:
        with contextlib.suppress(MeshError):
            ping(network)
            return True
        return False

    return check


def door(node: Node) -> tuple[str, int]:
    """Where it listens for neighbours."""
    _, host, port = node.plan.link.split(":")
    return host, int(port)


def memory(node: Node) -> int:
    """Bytes of memory it holds."""
    pages = int(Path(f"/proc/{node.process.pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def counted(node: Node) -> int:
    """Strangers that it is rid of: their handshake failed, or never began."""
    totals = node.call("GET", "/status")["totals"]
    return int(totals["handshakes_failed"] + totals["strangers_turned_away"])


def test_strangers_during_a_download(network: Network, web: int) -> None:
    """Hundreds of half-open handshakes and garbage at the relay's door: the download is whole, the links
    stay, the relay holds no more than it may, and is rid of them all in the end."""
    relay, chance, crowd = network["r1"], random.Random(1), contextlib.ExitStack()
    before, failed = memory(relay), counted(relay)

    def stranger(say: bytes) -> None:
        sock = crowd.enter_context(socket.socket())
        sock.settimeout(PATIENCE)
        sock.connect(door(relay))
        if say:
            sock.sendall(say)

    def disturb(so_far: Fetch) -> None:
        if so_far.size * 40 // SIZE > disturb.step:  # type: ignore[attr-defined]
            disturb.step += 1  # type: ignore[attr-defined]
            for _ in range(15):
                stranger(b"")
            stranger(b"\0" + chance.randbytes(40))
            stranger(chance.randbytes(1_000))
            stranger(b"GET / HTTP/1.1\r\nHost: relay\r\n\r\n")

    disturb.step = 0  # type: ignore[attr-defined]
    with crowd:
        fetch(network, web, disturb)
        status = relay.call("GET", "/status")
        assert status["links"]["up"] == 2
        assert memory(relay) - before < 32 << 20
        assert counted(relay) - failed > 40
    relay.process.wait_for(lambda: counted(relay) - failed > 40 * 17, PATIENCE, "the end of the strangers")
    assert all(link["connections"] == 1 for link in relay.call("GET", "/links")["links"])
    assert HALF_OPEN_LINKS < 40 * 17
    ping(network)


def test_out_of_descriptors(network: Network) -> None:
    """With no descriptor left the relay accepts nobody for a while, says so, and its links go on."""
    relay = network["r1"]
    ping(network)
    held = len(os.listdir(f"/proc/{relay.process.pid}/fd"))
    usual = resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE)
    resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, (held + 4, usual[1]))
    try:
        with contextlib.ExitStack() as crowd:
            for number in range(20):  # each from an address of its own: of one there may be too many already
                source = (f"127.0.1.{number + 1}", 0)
                crowd.enter_context(socket.create_connection(door(relay), PATIENCE, source))
            relay.process.wait_for(lambda: "accepts nobody" in relay.process.tail(), PATIENCE, "the warning")
            ping(network)
    finally:
        resource.prlimit(relay.process.pid, resource.RLIMIT_NOFILE, usual)
    assert relay.call("GET", "/status")["links"]["up"] == 2
    assert relay.process.tail(1_000).count("accepts nobody") < 20
    assert "Traceback" not in relay.process.tail(1_000)


def test_out_of_disk(network: Network) -> None:
    """A relay that cannot note onions refuses circuits, says why to their origins, and recovers by itself."""
    relay = network["r1"]
    ping(network)
    usual = resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, (0, usual[1]))
    try:
        with pytest.raises(CircuitError, match="busy"):
            for _ in range(3):
                ping(network)
    finally:
        resource.prlimit(relay.process.pid, resource.RLIMIT_FSIZE, usual)
    relay.process.wait_for(works(network), PATIENCE, "a circuit")
    assert relay.call("GET", "/status")["links"]["up"] == 2
    assert "Traceback" not in relay.process.tail(1_000)


def test_killed_and_started_again(network: Network, processes: Processes, web: int) -> None:
    """A relay that is killed with SIGKILL in mid-download and starts again: the links come back, the
    download goes on over another circuit and is whole, and so is the next."""
    old = network["r1"]
    command = python("-m", "meshnet.cli.main", "up", "--config", str(old.plan.folder / "node.toml"))
    relay: Node | None = None

    def disturb(so_far: Fetch) -> None:
        nonlocal relay
        if relay is None and so_far.size > SIZE // 4:
            old.process.kill()
            relay = Node(old.plan, processes.start("r1", command, old.plan.folder / "log again"))

    fetch(network, web, disturb)
    assert relay is not None
    network.nodes[1] = relay
    relay.wait_for_links(2)
    relay.process.wait_for(works(network), PATIENCE, "a circuit")
    fetch(network, web)
    for node in network.nodes:
        assert "Traceback" not in node.process.tail(1_000), node.name


@pytest.mark.parametrize(
    ("broken", "says", "code"),
    [
        ("data is a file", "data", 1),
        ("no space", "data", 1),
        ("unknown key", "relay.enable", 2),
        ("wrong value", "link.listen", 2),
    ],
)
def test_starts_that_fail(tmp_path: Path, broken: str, says: str, code: int) -> None:
    """One sentence that names what is wrong, an exit code, nothing left running, no traceback."""
    (plan,) = chain(tmp_path, {"one": "relay"})
    config = plan.write()
    text = config.read_text()
    limit = "true"
    if broken == "data is a file":
        (plan.folder / "data").write_text("")
    elif broken == "no space":
        limit = "ulimit -f 0"
    elif broken == "unknown key":
        config.write_text(text.replace("enabled = true", "enable = true"))
    else:
        config.write_text(text.replace(json.dumps(plan.link), '"tcp:nowhere"'))
    command = python("-m", "meshnet.cli.main", "up", "--config", str(config))
    done = subprocess.run(
        ["sh", "-c", f'{limit}; exec "$@"', "sh", *command],
        env=environment(),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr + done.stdout
