"""The dump for bug reports: what is in it, and above all what is not."""

from __future__ import annotations

import base64
import json
import tempfile
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st

from lab.nodes import Network, chain
from lab.processes import Processes, free_ports
from meshnet.cipher.keys import SecretKey, dns_label, mesh_ipv6
from meshnet.node.state import LEFT_OUT, Redaction, open_files, threads, versions

PASSWORD = "horse staple"


def spellings(secret: bytes) -> set[str]:
    """Every way in which bytes get into texts."""
    return {
        secret.hex(),
        secret.hex().upper(),
        base64.b64encode(secret).decode().rstrip("="),
        base64.urlsafe_b64encode(secret).decode().rstrip("="),
        base64.b32encode(secret).decode().rstrip("="),
        base64.b32encode(secret).decode().rstrip("=").lower(),
        secret.decode("latin-1"),
        repr(secret)[2:-1],
        str(int.from_bytes(secret, "big")),
        str(list(secret))[1:-1],
    }


@pytest.fixture(scope="module")
def state() -> Any:
    """What a real node dumps, and its secrets as bytes: key, token, password, the key of a hidden service."""
    with tempfile.TemporaryDirectory(prefix="state-") as folder, Processes() as processes:
        row = chain(Path(folder), {"alice": "user", "bob": "relay"})
        ports = free_ports(2)
        socks = {
            "listen": f"127.0.0.1:{ports[0]}", "exit": row[1].public.hex(),
            "username": "alice-at-home", "password": PASSWORD,
        }  # fmt: skip
        more: dict[str, Any] = {
            "socks": socks,
            "control": {"listen": f"127.0.0.1:{ports[1]}"},
            "known": [{"name": "bobby", "key": row[1].public.hex()}],
            "log": {"level": "debug"},
        }
        network = Network.start(processes, [evolve(row[0], more=more), row[1]])
        alice = network["alice"]
        made = alice.call("POST", "/addresses", {"hops": ["bobby"], "name": "shop"})
        data = alice.plan.folder / "data"
        secrets = {
            "key": alice.plan.secret.secret,
            "token": bytes.fromhex((data / "control.token").read_text().strip()),
            "password": PASSWORD.encode(),
            "username": b"alice-at-home",
        }
        for path in data.rglob("*"):
            if path.is_file() and path.name.endswith("shop.key"):
                secrets[str(path)] = bytes.fromhex(path.read_text().strip())
        assert len(secrets) > 4, "where is the key of the hidden service?"
        names = [alice.plan.public, row[1].public, bytes.fromhex(made["key"])]
        yield alice.call("GET", "/state"), secrets, names


def test_no_secret(state: Any) -> None:
    """None of the node's secrets is in it, however it may be spelled."""
    found, secrets, _ = state
    texts = (json.dumps(found), json.dumps(found, ensure_ascii=False))
    for name, secret in secrets.items():
        for spelling in spellings(secret):
            assert not any(spelling in text for text in texts), name


def test_nobody_is_named(state: Any) -> None:
    """No public key, no pet name; the neighbour is the same word all through."""
    found, _, names = state
    text = json.dumps(found)
    for key in names:
        assert key.hex() not in text
        assert key.hex()[:16] not in text
    assert "bobby" not in text
    peer = found["links"][0]["peer"]
    assert peer.startswith("key-")
    assert peer in json.dumps(found["config"])


def test_what_is_in_it(state: Any) -> None:
    """Versions, config, counters, tables, threads, files, and the last lines of the log."""
    found, _, _ = state
    assert found["versions"]["twisted"][0].isdigit()
    assert found["config"]["apps"]["vpn"]["socks"]["password"] == LEFT_OUT
    assert found["config"]["relay"]["max_circuits"] > 0
    assert found["status"]["totals"]["creates"] == 0
    assert found["links"][0]["up"]
    assert found["circuits"]["by_role_and_state"] == {}
    assert "MainThread" in found["threads"]
    assert found["process"]["open_files_limit"] > 0
    assert any("link to key-" in line for line in found["log"])


@given(st.binary(min_size=32, max_size=64), st.sampled_from((bytes.hex, base64.b64encode, base64.b32encode)))
def test_stray_secrets(secret: bytes, spell: Any) -> None:
    """Random bytes that stray into a line of the log do not get through."""
    spelled = spell(secret)
    text = spelled if isinstance(spelled, str) else spelled.decode()
    shown = Redaction().text(f"it failed: {text} (sorry)")
    assert shown.startswith("it failed: ")
    assert text not in shown


def test_words() -> None:
    """Equal things get equal words; loopback and plain words stay as they are."""
    redaction, key = Redaction(), SecretKey(b"\x07" * 32).public
    text = redaction.text(
        f"{key.hex()} at 192.0.2.1:7001, [fe80::1]:80 and 2001:db8:1:2:3:4:5:6 is {key.hex()}, "
        "not 127.0.0.1 or [::]:80; 12:30:45 UTC"
    )
    assert text == (
        "key-1 at address-1:7001, [address-2]:80 and address-3 is key-1, "
        "not 127.0.0.1 or [::]:80; 12:30:45 UTC"
    )
    assert redaction.text(dns_label(key)) == "label-1"
    assert str(mesh_ipv6(key)) not in redaction.text(str(mesh_ipv6(key)))
    assert redaction.value({"password": "x", "rate": 3, "on": True}) == {
        "password": LEFT_OUT,
        "rate": 3,
        "on": True,
    }


def test_parts() -> None:
    """They work where there is no node."""
    assert versions()["meshnet"]
    assert "MainThread" in threads()
    assert isinstance(open_files(), dict)
