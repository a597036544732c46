"""docs/operations.md says of config, commands, routes, metrics and limits what the code says."""

from __future__ import annotations

import json
import re
from argparse import _SubParsersAction
from collections.abc import Iterator
from ipaddress import IPv4Network, IPv6Network
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_type_hints

import attrs
import pytest
from attrs import NOTHING
from prometheus_client import generate_latest
from prometheus_client.parser import text_string_to_metric_families
from twisted.internet.task import Clock

from apps.vpn import settings as vpn
from apps.vpn.client.collector import TunnelCollector
from apps.vpn.client.service import TunnelClient
from apps.vpn.counts import Counts, GatewayCollector, TunCollector, VpnCollector
from apps.vpn.gateway import Gateway
from apps.vpn.host.service import HostThread
from apps.vpn.mesh.control import MeshInterface
from apps.vpn.service import VpnService
from coin import settings as coin
from coin.api.settings import ApiSection
from coin.counts import CoinCollector
from coin.replication.conduct import Conduct
from coin.replication.sync import Sync
from coin.service import CoinService
from meshnet.cipher.keys import PublicKey
from meshnet.cli.main import build_parser
from meshnet.errors import Drop, MeshError
from meshnet.node import config
from meshnet.node.api import app_routes, node_routes
from meshnet.node.dropins import find_dropins
from meshnet.node.metrics import TOTALS
from meshnet.node.schema import describe
from tests.docs.pages import page, plain, rows, section, table
from tests.support.chains import small_chain
from tests.support.nodes import FakeRouter, link_snapshot, make_node

PAGE = page("docs/operations.md")
SECTIONS = {
    "[node]": config.NodeSettings,
    "[link]": config.LinkSettings,
    "[[link.peer]]": config.PeerSettings,
    "[relay]": config.RelaySettings,
    "[metrics]": config.MetricsSettings,
    "[control]": config.ControlSettings,
    "[about]": config.AboutSettings,
    "[log]": config.LogSettings,
    "[topology]": config.TopologySettings,
    "[route_service]": config.RouteServiceSettings,
    "[lan]": config.LanSettings,
    "[[route]]": config.RouteSettings,
    "[[known]]": config.KnownSettings,
    "[socks]": vpn.Socks,
    "[[forward]]": vpn.Forward,
    "[[serve]]": vpn.Serve,
    "[vpn]": vpn.Tunnel,
    "[exit]": vpn.Exit,
    "[tun]": vpn.Tun,
    "[coin]": coin.CoinSection,
    "[coin.api]": ApiSection,
}
SETTINGS = (config.CoreSections, vpn.VpnSettings, coin.CoinSettings)
SHORT = {
    "a public key (66 hex digits), the address of a hidden service or a known name": "target",
    "a public key (66 hex digits) or a known name": "key",
    "a rule such as public, 10.0.0.0/8:80-443 or example.org": "rule",
    "a whole number from ": "integer ",
    "a whole number of ": "integer ",
    "a whole number": "integer",
    "a number from ": "number ",
    "a number of ": "number ",
    "a number": "number",
    "true or false": "boolean",
    "a path": "path",
    "a list, each ": "list of ",
}


def type_text(hint: Any) -> str:
    """The type of a key as the page writes it: `describe` in short words and signs."""
    text = describe(hint)
    for long, short in SHORT.items():
        text = text.replace(long, short)
    text = re.sub(r"(\d\S*) or more", r"≥ \1", text)
    text = re.sub(r"(\d\S*) to (\d\S*)", r"\1–\2", text)
    return re.sub(r"\d{4,}", lambda found: f"{int(found[0]):,}", text)


def default_text(value: Any) -> str:
    """The default of a key as the page writes it, which is TOML where there is any."""
    if value is NOTHING:
        return "required"
    if value is None or value in ((), ""):
        return {None: "none", (): "[]", "": '""'}[value]
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return f"{value:g}" if isinstance(value, float) else str(value)
    if isinstance(value, str | Path | IPv4Network | IPv6Network):
        return f'"{value}"'
    if value == (vpn.PUBLIC,):
        return '["public"]'
    if isinstance(value, tuple) and all(isinstance(each, str) for each in value):
        return json.dumps(value)
    if isinstance(value, tuple) and isinstance(value[1], int):
        return f'"{value[0]}:{value[1]}"'
    raise AssertionError(f"how is {value!r} written?")


def expected(cls: Any) -> list[list[str]]:
    """Key, type and default of every key of a section; tables of their own are sections of their own."""
    hints = get_type_hints(cls, include_extras=True)
    return [
        [field.name, type_text(hints[field.name]), default_text(field.default)]
        for field in attrs.fields(cls)
        if "a table" not in describe(hints[field.name])
    ]


@pytest.mark.parametrize("name", SECTIONS)
def test_config(name: str) -> None:
    """Every key with its type and its default, in the order of the class."""
    written = table(section(PAGE, f"### `{name}`"), "key", "type", "default")
    assert [[plain(cell) for cell in row[:3]] for row in written] == expected(SECTIONS[name])
    assert all(row[3] for row in written)


def test_all_sections() -> None:
    """No section of the config is left out."""
    fields = {field.name for cls in SETTINGS for field in attrs.fields(cls)}
    assert {name.strip("[]").partition(".")[0] for name in SECTIONS} == fields


def commands(parser: Any, before: str = "") -> Iterator[str]:
    """All verbs of a parser, those in groups with the words before them."""
    inner = [each.choices for each in parser._actions if isinstance(each, _SubParsersAction)]
    if not inner:
        yield before
    for name, verb in inner[0].items() if inner else ():
        yield from commands(verb, f"{before} {name}".strip())


def test_commands() -> None:
    """Every verb of the command is in the table, and no other."""
    found = set(commands(build_parser(find_dropins())))
    written = {plain(row[0]) for row in table(PAGE, "verb")}
    assert written == found


def subclasses(cls: type[MeshError]) -> set[type[MeshError]]:
    """All of them."""
    return {cls} | {each for child in cls.__subclasses__() for each in subclasses(child)}


def test_exit_codes() -> None:
    """Every code that an error can have is in the table."""
    codes = {each.exit_code for each in subclasses(MeshError) if isinstance(each.exit_code, int)}
    written = {int(row[0]) for row in table(PAGE, "exit code")}
    assert {0, 7, 130} | codes == written


def test_routes() -> None:
    """Every route of the node and of its app."""
    service = VpnService.__new__(VpnService)  # its routes need nothing of it
    routes: Any = node_routes(None)  # type: ignore[arg-type]  # nothing is asked of it
    routes |= app_routes("vpn", service.routes())
    routes |= app_routes("coin", CoinService.__new__(CoinService).routes())
    assert {plain(row[0]) for row in table(PAGE, "route")} == set(routes)


def chain_figures() -> Any:
    """Books and a network of a coin, as far as its metrics look at them."""
    header = small_chain().genesis.header
    store = SimpleNamespace(head=SimpleNamespace(header=header))
    books = SimpleNamespace(
        store=store, interval=0, loose_count=0, loose_bytes=0, executed=0, busy_seconds=0.0
    )
    network = SimpleNamespace(sync=Sync(0), peers={}, conduct=Conduct(), now=0.0, counts={"received PING": 1})
    return books, network


def test_metrics(tmp_path: Path) -> None:
    """Every series and its labels."""
    peer = link_snapshot(PublicKey(b"\x02" + bytes(32)))
    router = FakeRouter(totals=dict.fromkeys(TOTALS, 0), links=[peer])
    node, _ = make_node(tmp_path, Clock(), {}, router)
    counts = Counts()
    counts.refuse("caller")
    node.registry.register(VpnCollector({"socks": counts}))
    gateway = Gateway(node, HostThread(None, lambda: None))  # type: ignore[arg-type]
    tun = MeshInterface(node, vpn.Tun())
    tun._past.dropped_in[1] += 1
    node.registry.register(TunCollector(tun))
    lost = {"dropped_in": {"source": 1}, "refused": {"full": 1}}
    node.registry.register(GatewayCollector(lambda: {**gateway.describe(), **lost}))
    node.registry.register(TunnelCollector(TunnelClient(node, HostThread(None, lambda: None))))  # type: ignore[arg-type]
    upkeep: Any = SimpleNamespace(damaged=0, mended=0, state="whole")
    hub: Any = SimpleNamespace(listeners=set(), dropped=0)
    factory = SimpleNamespace(channels=(), counts={200: 1})
    streams, withdrawing = SimpleNamespace(hub=hub), SimpleNamespace(count=0)
    api: Any = SimpleNamespace(factory=factory, streams=streams, withdrawing=withdrawing)
    node.registry.register(CoinCollector(chain_figures, lambda: upkeep, lambda: api))
    found = {}
    for family in text_string_to_metric_families(generate_latest(node.registry).decode()):
        name = family.name + ("_total" if family.type == "counter" else "")
        found[name] = {label for sample in family.samples for label in sample.labels}
    found["meshnet_circuits_by_role"] = {"role"}
    found.update({name: {"of"} for name in found if name.startswith("meshnet_path_")})
    ours = {name: labels for name, labels in found.items() if name.startswith(("meshnet_", "coin_"))}
    written = {
        plain(row[0]): set(plain(row[1]).split(", ")) - {"–"} for row in table(PAGE, "series", "labels")
    }
    assert written == ours


def test_drops() -> None:
    """Every reason for which a cell is dropped."""
    written = [plain(row[0]) for row in table(PAGE, "dropped because")]
    assert written == [drop.name.lower() for drop in Drop if drop is not Drop.NONE]


def test_rows() -> None:
    """The reader of tables keeps alternatives in code apart from cells."""
    assert rows("| `a|b` | c |") == ["`a|b`", "c"]
