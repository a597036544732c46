"""Real processes: what `meshnet up` and `twist meshnet` print, answer and exit with."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from urllib.request import urlopen

import pytest
from prometheus_client.parser import text_string_to_metric_families

from meshnet.cli.main import main
from meshnet.control.client import ControlClient
from meshnet.errors import MeshError
from meshnet.node.dropins import Dropins

ROOT = Path(__file__).resolve().parents[3]
PATIENCE = 30.0


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    """Python finds the project and its dropins, whether they are installed or not."""
    dropins = tmp_path / "dropins" / "twisted"
    dropins.mkdir(parents=True)
    (dropins / "plugins").symlink_to(ROOT / "plugins")
    return {**os.environ, "PYTHONPATH": f"{ROOT}:{dropins.parent}"}


class Programs:
    """Children of one test; they are gone when it is."""

    def __init__(self, environment: dict[str, str]) -> None:
        self.environment = environment
        self.running: list[subprocess.Popen[str]] = []

    def start(self, *command: str) -> subprocess.Popen[str]:
        child = subprocess.Popen(
            [sys.executable, "-m", *command],
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self.running.append(child)
        return child

    def meshnet(self, *arguments: object) -> subprocess.Popen[str]:
        return self.start("meshnet.cli.main", *map(str, arguments))

    def stop(self) -> None:
        for child in self.running:
            child.kill()
            child.communicate()


@pytest.fixture
def programs(environment: dict[str, str]):  # type: ignore[no-untyped-def]
    """Starts children and ends them."""
    made = Programs(environment)
    yield made
    made.stop()


def ended(child: subprocess.Popen[str]) -> tuple[int, str, str]:
    """Exit code and output, once it has ended."""
    out, err = child.communicate(timeout=PATIENCE)
    return child.returncode, out, err


def ready(child: subprocess.Popen[str]) -> dict[str, object]:
    """The ready line of `up --json`."""
    assert child.stdout is not None
    line = child.stdout.readline()
    assert line, ended(child)
    return dict(json.loads(line))


def answers(socket: Path) -> dict[str, object]:
    """The status of a node that is starting."""
    limit = time.monotonic() + PATIENCE
    while True:
        try:
            return ControlClient(socket, 5).call("GET", "/status")
        except MeshError:
            assert time.monotonic() < limit
            time.sleep(0.05)


def test_a_life(programs: Programs, tmp_path: Path) -> None:
    """Made, started, looked at, killed, started again over the dead one's socket, ended by SIGTERM."""
    folder = tmp_path / "n"
    made = programs.meshnet("init", folder, "--listen", "tcp:127.0.0.1:0", "--metrics", "127.0.0.1:0")
    code, out, err = ended(made)
    assert (code, err) == (0, "")
    first = programs.meshnet("up", folder, "--json")
    facts = ready(first)
    assert facts["public_key"] == out.split()[0]
    with urlopen(str(facts["metrics"]), timeout=10) as page:
        names = {family.name for family in text_string_to_metric_families(page.read().decode())}
    assert {"meshnet_links", "meshnet_dropped_cells", "process_cpu_seconds"} <= names
    second = programs.meshnet("up", folder)
    assert ControlClient(Path(str(facts["control"]))).call("GET", "/status")["pid"] == first.pid
    code, out, err = ended(second)
    assert (code, out) == (1, "")
    assert "Another node uses" in err.splitlines()[-1]
    assert "Traceback" not in err
    first.kill()
    third = programs.meshnet("up", folder, "--json")
    assert ready(third)["pid"] == third.pid
    third.terminate()
    code, out, err = ended(third)
    assert (code, out) == (0, "")
    assert "Traceback" not in err
    assert not Path(str(facts["control"])).exists()


def test_bad_starts(programs: Programs, tmp_path: Path) -> None:
    """A port in use, a readable key, a wrong config: a sentence and an exit code, at once."""
    folders = [tmp_path / name for name in "abcd"]
    for folder in folders:
        assert main(["init", str(folder), "--listen", "tcp:127.0.0.1:0"], Dropins()) == 0
    holder = programs.meshnet("up", folders[0], "--json")
    address = ready(holder)["listen"]
    for folder in (folders[1], folders[3]):
        config = (folder / "node.toml").read_text()
        (folder / "node.toml").write_text(config.replace('["tcp:127.0.0.1:0"]', json.dumps(address)))
    (folders[2] / "key").chmod(0o644)
    cases = {
        programs.meshnet("up", folders[1]): (1, "in use"),
        programs.meshnet("up", folders[2]): (2, "chmod 600"),
        programs.meshnet("up", tmp_path / "nowhere"): (2, "meshnet init"),
        programs.start("twisted", "meshnet", "--config", str(folders[2] / "node.toml")): (2, "chmod 600"),
        programs.start("twisted", "meshnet", "--config", str(folders[3] / "node.toml")): (1, "in use"),
    }
    for child, (expected, words) in cases.items():
        code, out, err = ended(child)
        said = out + err
        assert (code, words in said, "Traceback" in said) == (expected, True, False), said
    holder.send_signal(signal.SIGINT)
    assert ended(holder)[0] == 0


def test_twist(programs: Programs, tmp_path: Path) -> None:
    """The same node under Twisted's runner; POST /stop ends it."""
    folder = tmp_path / "n"
    assert main(["init", str(folder)], Dropins()) == 0
    twist = programs.start("twisted", "meshnet", "--config", str(folder / "node.toml"))
    socket = folder / "data" / "control.sock"
    assert answers(socket)["pid"] == twist.pid
    code, out, err = ended(programs.meshnet("stop", "--node", folder, "--json"))
    assert (code, json.loads(out)["stopped"]) == (0, True), err
    assert not socket.exists()
    assert ended(twist)[0] == 0
