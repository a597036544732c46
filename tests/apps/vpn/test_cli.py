"""The verbs: what they ask of the node and what they print."""

from __future__ import annotations

import json
from argparse import ArgumentParser
from typing import Any

import pytest
from twisted.internet.defer import Deferred

from apps.vpn.cli import VERBS
from apps.vpn.service import VpnService
from apps.vpn.settings import VpnSettings
from meshnet.errors import UsageError
from meshnet.node.app import Json
from tests.support.streams import FakeMesh
from tests.support.tcp import NamedReactor

Run = Any


@pytest.fixture
def service() -> VpnService:
    """The app on a node called `user`."""
    mesh = FakeMesh(NamedReactor())
    node = mesh.node("user")
    for name in ("far", "one", "two"):
        mesh.node(name)
    service = VpnService(node, VpnSettings())  # type: ignore[arg-type]
    service.startService()
    return service


@pytest.fixture
def run(service: VpnService, capsys: pytest.CaptureFixture[str]) -> Run:
    """Runs a command line against the routes of a service; returns what it printed."""

    def call(method: str, path: str, body: Json | None) -> Json:
        answer = service.routes()[f"{method} {path.removeprefix('/apps/vpn')}"](body or {})
        if isinstance(answer, Deferred):
            found: list[Json] = []
            answer.addCallback(found.append)
            return found[0]
        assert isinstance(answer, dict)
        return answer

    def run_line(line: str) -> str:
        name, *words = line.split()
        verb = next(verb for verb in VERBS if verb.name == name)
        parser = ArgumentParser()
        parser.add_argument("--json", action="store_true")
        verb.arguments(parser)
        assert verb.run(parser.parse_args(words), call) == 0
        return capsys.readouterr().out

    return run_line


def test_socks(run: Run) -> None:
    """Add with a route, list, remove."""
    assert run("socks").startswith("none\n")
    assert run("socks 127.0.0.1:9050 --exit far --via one,two").startswith("SOCKS5 on ")
    listed = json.loads(run("socks --json"))
    assert len(listed["socks"]) == 1 and len(listed["socks"][0]["via"]) == 2
    bound = listed["socks"][0]["listen"]
    assert bound in run("socks")
    assert run(f"socks {bound} --remove") == f"removed {bound}\n"
    made = json.loads(run("socks --exit far --as-node --json"))
    assert made["identity"] == "node"


def test_last_error(run: Run, service: VpnService) -> None:
    """A listing ends with what went wrong last, and when."""
    bound = run("forward 127.0.0.1:0 far:80").split()[0]
    assert "last error" not in run("forward")
    (listener,) = service._forwards.values()
    listener.note("there is no link to far")
    assert f"last error of {bound}, 0 s ago: there is no link to far\n" in run("forward")
    assert json.loads(run("forward --json"))["forward"][0]["last_error_seconds"] == 0


def test_forward(run: Run) -> None:
    """Add, list, remove."""
    text = run("forward 127.0.0.1:0 far:80")
    assert "leads to mesh port 80 of " in text
    bound = text.split()[0]
    assert "config" in run("forward")
    assert run(f"forward {bound} --remove") == f"removed {bound}\n"
    assert json.loads(run("forward --json"))["forward"] == []


def test_serve(run: Run) -> None:
    """Add with callers, list, remove."""
    assert run("serve 80 127.0.0.1:8000 --callers far") == "mesh port 80 leads to 127.0.0.1:8000\n"
    assert "127.0.0.1:8000" in run("serve")
    assert run("serve 80 --remove") == "removed 80\n"


def test_exit(run: Run) -> None:
    """Show, switch, change rules."""
    assert run("exit").startswith("exit       off\n")
    assert run("exit on --allow 10.0.0.0/8:80,127.0.0.1 --deny public:25").startswith("exit       on\n")
    state = json.loads(run("exit --remove-rule public --json"))["exit"]
    assert state["allow"] == ["10.0.0.0/8:80", "127.0.0.1"]
    assert run("exit off").startswith("exit       off\n")


@pytest.mark.parametrize(
    "line",
    [
        *("socks 127.0.0.1:1", "socks --remove", "socks 127.0.0.1:1 --remove", "socks nonsense --exit far"),
        *(
            "forward 127.0.0.1:0",
            "forward 127.0.0.1:0 far",
            "forward 127.0.0.1:0 far:x",
            "serve x 127.0.0.1:1",
        ),
        *("socks --via one", "socks 127.0.0.1:0 --exit user", "socks 127.0.0.1:0 --exit far --via user"),
        *("socks 127.0.0.1:0 --exit far --via one,one", "socks 127.0.0.1:0 --exit far --via far"),
        *("forward --remove", "forward 127.0.0.1:0 user:80", "forward 127.0.0.1:0 far:80 --via user"),
        *("forward 127.0.0.1:0 far:80 --via one,one", "serve --remove", "serve 80 127.0.0.1:0"),
        *("serve 80", "serve 80 --remove", "exit --allow nonsense/", "exit --remove-rule 1.1.1.1"),
    ],
)
def test_usage(run: Run, line: str) -> None:
    """What is missing or wrong is a UsageError with a sentence."""
    with pytest.raises(UsageError, match=r"\w"):
        run(line)
