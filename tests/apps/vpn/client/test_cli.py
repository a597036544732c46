"""The verbs: what they ask of the node, what a person and a script read, how they exit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from apps.vpn.host.tools import Tools
from meshnet.cli.main import main
from meshnet.control.client import ControlClient
from meshnet.errors import UnreachableError
from meshnet.node.app import Json
from meshnet.storage.disk import RealDisk

KEY = "02" + "ab" * 32
UP: Json = {
    "state": "up",
    "why": None,
    "kill_switch": "nftables",
    "exit": KEY,
    "via": [],
    "interface": "mesh-vpn",
    "split": [],
    "outside": ["lan"],
    "names": True,
    "attempts": 0,
    "lease": {"v4": "100.64.0.7", "v6": None, "dns": ["100.64.0.1"], "mtu": 1_400, "rate": 0},
    "up_seconds": 61.0,
    "stalled_seconds": 0.0,
    "mtu": 1_400,
    "rates": {"in_1s": 1_000, "out_1s": 20, "in_10s": 3_000_000, "out_10s": 4},
    "rtt_ms": 12.3,
    "loss": 0.01,
    "packets": {"bytes_in": 5, "bytes_out": 6, "dropped_in": {"source": 3}, "dropped_out": {}},
    "redials": 2,
    "repairs": 1,
    "notes": ["Something to know."],
    "events": [],
}
DOWN: Json = {
    "state": "down",
    "why": "exit: full",
    "kill_switch": "off",
    "redials": 0,
    "repairs": 0,
    "notes": [],
    "events": [],
}


class Node:
    """Answers in place of a running one; `asked` has what was asked."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, folder: Path, **answers: Any) -> None:
        self.asked: list[tuple[str, str, Json | None]] = []
        self.answers = answers
        monkeypatch.setattr("meshnet.cli.main.find_socket", lambda *_: folder / "control.sock")
        monkeypatch.setattr(ControlClient, "call", lambda _, *asked: self.call(*asked))

    def call(self, method: str, path: str, body: Json | None = None) -> Json:
        self.asked.append((method, path.removeprefix("/apps/vpn/"), body))
        answer = self.answers[f"{method} {path.rpartition('/')[2]}"]
        if isinstance(answer, Exception):
            raise answer
        return dict(answer)


@pytest.mark.parametrize(
    ("words", "body"),
    [
        ("--exit far", {"exit": "far"}),
        ("", {}),
        (
            "--exit far --via a,b --killswitch --no-dns --mtu 1280 --as-node",
            {
                "exit": "far",
                "via": ["a", "b"],
                "killswitch": True,
                "dns": False,
                "mtu": 1_280,
                "identity": "node",
            },
        ),
        (
            "--via= --outside lan,192.0.2.1 --interface vpn7",
            {"via": [], "outside": ["lan", "192.0.2.1"], "interface": "vpn7"},
        ),
        ("--hops 3 --split 10.0.0.0/8 --dns", {"hops": 3, "split": ["10.0.0.0/8"], "dns": True}),
    ],
)
def test_up(words: str, body: Json, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what was said is asked for."""
    node = Node(monkeypatch, tmp_path, **{"POST tunnel": {"tunnel": UP}})
    assert main(["vpn", "up", *words.split()]) == 0
    assert node.asked == [("POST", "tunnel", body)]


@pytest.mark.parametrize("words", ["--via a --hops 2", "--hops x", "--mtu 9999999", "far"])
def test_usage(words: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What cannot be meant exits 2."""
    Node(monkeypatch, tmp_path)
    assert main(["vpn", "up", *words.split()]) == 2


def test_status(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Everything a person wants to know, with the delay of each hop; a hop that fails says why."""
    hops = [{"key": KEY, "hop": 1, "rtt_ms": 3.25}, {"key": KEY, "hop": 2, "error": {"message": "no way"}}]
    node = Node(monkeypatch, tmp_path, **{"GET tunnel": {"tunnel": UP}, "POST trace": {"hops": hops}})
    assert main(["vpn", "status"]) == 0
    shown = capsys.readouterr().out
    for text in (
        *(
            "up for 61 s",
            f"exit         {KEY}",
            "a direct link",
            "3.2 ms",
        ),
        *("no way", "100.64.0.7 on mesh-vpn, MTU 1400", "asked at 100.64.0.1", "kill switch  nftables"),
        *("outside      lan", "3.0 MB/s in", "12.3 ms; 1.00% lost", "dropped in   source 3"),
        *("redials      2; 1 changes of others put back", "note         Something to know."),
    ):
        assert text in shown, text
    assert node.asked[1] == ("POST", "/trace", {"target": KEY, "via": [], "count": 1})
    assert main(["vpn", "status", "--no-trace", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"tunnel": UP, "hops": None}
    assert len(node.asked) == 3


def test_status_stalled(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing comes through: told, for how long, and the hops are measured to see how far one gets."""
    stalled = {**UP, "state": "stalled", "stalled_seconds": 4.0}
    node = Node(monkeypatch, tmp_path, **{"GET tunnel": {"tunnel": stalled}, "POST trace": {"hops": []}})
    assert main(["vpn", "status"]) == 0
    assert "state        stalled: nothing has come through for 4 s\n" in capsys.readouterr().out
    assert len(node.asked) == 2


def test_status_down(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is measured, and why it is down is told."""
    node = Node(monkeypatch, tmp_path, **{"GET tunnel": {"tunnel": DOWN}})
    assert main(["vpn", "status"]) == 0
    shown = capsys.readouterr().out
    assert "state        down\nlast trouble exit: full\nkill switch  off\n" in shown
    assert len(node.asked) == 1


def test_down(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 7 if something could not be undone, which is named."""
    Node(monkeypatch, tmp_path, **{"DELETE tunnel": {"down": True, "faults": []}})
    assert main(["vpn", "down"]) == 0
    Node(monkeypatch, tmp_path, **{"DELETE tunnel": {"down": False, "faults": ["The rule is still there."]}})
    assert main(["vpn", "down"]) == 7
    assert "The rule is still there." in capsys.readouterr().out


def test_doctor(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each finding; 1 if a problem is left."""
    fixed = {"level": "fixed", "check": "system", "text": "Undone."}
    Node(monkeypatch, tmp_path, **{"POST doctor": {"findings": [fixed]}})
    assert main(["vpn", "doctor"]) == 0
    Node(monkeypatch, tmp_path, **{"POST doctor": {"findings": [fixed, {**fixed, "level": "problem"}]}})
    assert main(["vpn", "doctor", "--json"]) == 1
    shown = capsys.readouterr().out
    assert shown.startswith("fixed   system: Undone.\n")
    assert json.loads(shown.partition("\n")[2])["ok"] is False


def test_doctor_without_a_node(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """It then opens the book of the node's directory itself, unless a node has it."""
    Node(monkeypatch, tmp_path, **{"POST doctor": UnreachableError("no node answers")})
    monkeypatch.setattr("apps.vpn.host.host.find_tools", lambda: Tools(None, None, None))  # touches nothing
    assert main(["init", str(tmp_path / "node")]) == 0
    capsys.readouterr()
    assert main(["vpn", "doctor", "--node", str(tmp_path / "node"), "--json"]) == 1
    (finding,) = json.loads(capsys.readouterr().out)["findings"]
    assert "install iproute2" in finding["text"]
    lock = RealDisk().lock(tmp_path / "node" / "data" / "lock")
    assert main(["vpn", "doctor", "--node", str(tmp_path / "node")]) == 2
    assert "The node runs, but does not answer" in capsys.readouterr().err
    lock.release()
