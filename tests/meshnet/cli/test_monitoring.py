"""Alert rules and dashboard in conf/: right for Prometheus, about series that nodes really have."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from attrs import evolve
from prometheus_client.parser import text_string_to_metric_families

from lab.nodes import Network, chain
from lab.processes import Processes, free_ports
from tests.docs.pages import page

CONF = Path(__file__).resolve().parents[3] / "conf"
ALERTS = (CONF / "meshnet-alerts.yml").read_text()
DASHBOARD: dict[str, Any] = json.loads((CONF / "grafana-dashboard.json").read_text())
FROM_PROMETHEUS = {"up": {"instance", "job"}}
EVERYWHERE = {"instance", "job"}
UNITS = {"_bytes": {"bytes"}, "_seconds": {"s"}, "_ratio": {"percentunit"}}
RATES = {"_bytes": {"Bps"}, "_cells": {"cps"}, "_seconds": {"percentunit"}}
"""Units by what the name of a gauge ends with, of a counter holds."""


def alerts() -> list[tuple[str, str]]:
    """Name and expression of each rule."""
    return re.findall(r"- alert: (\w+)\n\s+expr: (.+)", ALERTS)


def panels() -> list[dict[str, Any]]:
    """Every panel that shows something."""
    return [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]


def series_of(expression: str) -> dict[str, set[str]]:
    """Names of the series in an expression and the labels its matchers use."""
    found: dict[str, set[str]] = {}
    text = re.sub(r"\[[^\]]*\]|\b(?:by|on|ignoring|without)\s*\([^)]*\)", "", expression)
    for name, matchers in re.findall(r"(?<![\w.$\"])([a-zA-Z_:][\w:]*)(?![\w(])(\{[^}]*\})?", _apart(text)):
        if name not in ("and", "or", "unless"):
            found.setdefault(name, set()).update(re.findall(r"(\w+)(?:=~|!~|!=|=)", matchers))
    return found


def _apart(text: str) -> str:
    """Matchers keep their labels only, so that no value is taken for a name."""
    return re.sub(r'(=~|!~|!=|=)"[^"]*"', r"\1", text)


@pytest.fixture(scope="module")
def exported() -> Iterator[dict[str, set[str]]]:
    """Series and their labels of three running nodes: a user, a relay, an exit."""
    with tempfile.TemporaryDirectory(prefix="conf-") as folder, Processes() as processes:
        row = chain(Path(folder), {"alice": "user", "r1": "relay", "bob": "exit"})
        listen = f"127.0.0.1:{free_ports(1)[0]}"
        more: dict[str, dict[str, Any]] = {
            "alice": {"socks": {"listen": listen, "exit": row[2].public.hex(), "via": [row[1].public.hex()]}},
            "bob": {"exit": {"enabled": True}},
        }
        network = Network.start(processes, [evolve(plan, more=more.get(plan.name, {})) for plan in row])
        via, target = [row[1].public.hex()], row[2].public.hex()
        network["alice"].call("POST", "/ping", {"target": target, "via": via, "count": 2})
        found: dict[str, set[str]] = dict(FROM_PROMETHEUS)
        for node in network.nodes:
            for family in text_string_to_metric_families(node.metrics()):
                for sample in family.samples:
                    found.setdefault(sample.name, set()).update(sample.labels, EVERYWHERE)
        yield found


def test_alerts_name_real_series(exported: dict[str, set[str]]) -> None:
    """Each rule is about series that are there, by labels that they have."""
    assert len(alerts()) == ALERTS.count("- alert:") > 10
    for name, expression in alerts():
        found = series_of(expression)
        assert found, name
        for series, labels in found.items():
            assert series in exported or series == "meshnet_vpn_refusals_total", f"{name}: {series}"
            assert labels <= exported[series], f"{name}: {series} has no {labels - exported[series]}"


def test_dashboard_names_real_series(exported: dict[str, set[str]]) -> None:
    """The same of each panel, and of the labels in its legend."""
    for panel in panels():
        for target in panel["targets"]:
            found = series_of(target["expr"])
            assert found, target["expr"]
            for series, labels in found.items():
                if series == "meshnet_vpn_refusals_total":
                    continue
                assert series in exported, f"{panel['title']}: {series}"
                shown = set(re.findall(r"\{\{(\w+)\}\}", target["legendFormat"]))
                assert labels | shown <= exported[series], f"{panel['title']}: {labels | shown}"


def test_units() -> None:
    """A panel's unit is that of its series: bytes, seconds, shares; of counters their rates."""
    for panel in panels():
        unit = panel["fieldConfig"]["defaults"]["unit"]
        for target in panel["targets"]:
            for series in series_of(target["expr"]):
                counter = series.endswith("_total")
                assert counter == ("rate(" in target["expr"]), target["expr"]
                known = [units for word, units in RATES.items() if word in series]
                if not counter:
                    known = [units for end, units in UNITS.items() if series.endswith(end)]
                wanted = known[0] if known else {"ops"} if counter else {"short"}
                assert unit in wanted, f"{panel['title']}: {series} in {unit}"


def test_every_alert_says_what_to_do() -> None:
    """Summary and description, a sentence each; every rule has a severity and waits before it fires."""
    for block in ALERTS.split("- alert:")[1:]:
        assert re.search(r"for: \d+m", block)
        assert re.search(r"severity: (warning|critical)", block)
        assert re.search(r'summary: "\{\{ \$labels.instance \}\} ', block)
        assert re.search(r'description: "\w.*\."', block)


def test_page_lists_alerts() -> None:
    """docs/operations.md has a line for each rule, and no other."""
    written = re.findall(r"^\| `(Meshnet\w+)` \|", page("docs/operations.md"), re.MULTILINE)
    assert written == [name for name, _ in alerts()]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
@pytest.mark.parametrize(
    "arguments", [("check", "rules", "meshnet-alerts.yml"), ("test", "rules", "meshnet-alerts-test.yml")]
)
def test_promtool(arguments: tuple[str, ...]) -> None:
    """Prometheus reads the rules; each fires in its scenario and stays silent in those where all is well."""
    done = subprocess.run(["promtool", *arguments], cwd=CONF, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_reader_of_expressions() -> None:
    """What the tests above rely on."""
    found = series_of('rate(a_total{x="1",y=~"b|c"}[5m]) / ignoring(z) (rate(b_total[5m]) > 0) > 0.5')
    assert found == {"a_total": {"x", "y"}, "b_total": set()}
    assert series_of('time() - started_seconds{job="meshnet"}') == {"started_seconds": {"job"}}
