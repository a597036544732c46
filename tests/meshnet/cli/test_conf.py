"""The example files in conf/ are right."""

from __future__ import annotations

import tomllib
from pathlib import Path

import pytest

from apps.vpn.settings import VpnSettings
from meshnet.node.config import load
from meshnet.transports.registry import Transports
from meshnet.transports.tcp import TcpTransport

CONF = Path(__file__).resolve().parents[3] / "conf"


class VpnApp:
    name = "vpn"
    settings = VpnSettings


@pytest.mark.parametrize("name", ["relay", "user", "exit"])
def test_examples_load(name: str) -> None:
    """Each example passes the check that `meshnet config check` makes."""
    settings = load(CONF / f"{name}.toml", [VpnApp()], Transports([TcpTransport(None)]))
    assert settings.node.name == name
    assert settings.notes == ()


def test_examples_differ_where_it_matters() -> None:
    """The relay relays, the user chooses three relays, the exit exits."""
    relay, user, exit_ = (
        tomllib.loads((CONF / f"{name}.toml").read_text()) for name in ("relay", "user", "exit")
    )
    assert relay["relay"]["enabled"]
    assert len(user["route"][0]["via"]) == 3
    assert exit_["exit"]["enabled"]


def test_unit_and_scrape_file() -> None:
    """The unit runs `up`, does not restart on a wrong config; the scrape file names the examples' port."""
    unit = (CONF / "meshnet.service").read_text()
    assert "meshnet up --config" in unit
    assert "RestartPreventExitStatus=2" in unit
    assert "127.0.0.1:9100" in (CONF / "prometheus.yml").read_text()
