"""Changes as values: what they ask of a tool, what they refuse to be made of, their shape in the book."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.vpn.host.changes import (
    Address,
    AnyChange,
    Firewall,
    Resolved,
    ResolverFile,
    Route,
    Rule,
    Sysctl,
    as_json,
    from_json,
)

EXAMPLES: tuple[AnyChange, ...] = (
    Address("mesh-vpn", "100.64.0.7"),
    Address("mesh-vpn", "fd00::7/128"),
    Route("0.0.0.0/0", "mesh-vpn", 28005),
    Route("2001:db8::/32", "mesh-vpn", 28005, 5),
    Rule(4, 5200, "goto", 5250, mark=0x6D657368),
    Rule(6, 5205, "lookup", 28005, protocol="udp", port=53),
    Rule(4, 5210, "lookup", 254, to="10.0.0.0/8", narrow=True),
    Rule(6, 5221, "blackhole"),
    Firewall("meshnet_vpn", "table inet meshnet_vpn {\n}\n"),
    Sysctl("net/ipv4/ip_forward", 1),
    ResolverFile("nameserver 100.64.0.1\n"),
    Resolved("mesh-vpn", ("100.64.0.1", "fd00::1"), ("~.",)),
)


@pytest.mark.parametrize("change", EXAMPLES, ids=lambda change: change.sentence)
def test_as_json(change: AnyChange) -> None:
    """What goes into the book comes out of it, equal."""
    assert from_json(json.loads(json.dumps(as_json(change)))) == change


def test_lines() -> None:
    """The lines for `ip -batch`, as ip-rule(8), ip-route(8) and ip-address(8) have them."""
    assert Address("t0", "fd00::7").make == "address replace fd00::7/128 dev t0 nodad"
    assert Address("t0", "10.1.1.1/24").unmake == "address delete 10.1.1.1/24 dev t0"
    assert Route("0.0.0.0/0", "t0", 7).make == "route replace 0.0.0.0/0 dev t0 table 7 metric 1"
    assert Rule(4, 9, "goto", 50, mark=255).make == "rule add preference 9 fwmark 0xff goto 50"
    assert Rule(6, 9, to="fc00::/8", target=254, narrow=True).unmake == (
        "rule delete preference 9 to fc00::/8 lookup 254 suppress_prefixlength 0"
    )
    udp = Rule(4, 9, "lookup", 254, protocol="udp", source_port=68, port=67)
    assert udp.make == "rule add preference 9 ipproto udp sport 68 dport 67 lookup 254"


EVIL = ("t0 up\nlink set lo down", "t0;id", "", "-t0", "t0 ", 'a"b', "$(id)", "é0")


@pytest.mark.parametrize("text", EVIL)
def test_no_words_get_in(text: str) -> None:
    """No field takes what could be another word or line for a tool."""
    for make in (
        lambda: Address(text, "10.0.0.1"),
        lambda: Address("t0", text),
        lambda: Route(text, "t0", 7),
        lambda: Route("10.0.0.0/8", text, 7),
        lambda: Rule(4, 9, to=text),
        lambda: Rule(4, 9, text),  # type: ignore[arg-type]
        lambda: Rule(4, 9, protocol=text or "x"),  # type: ignore[arg-type]
        lambda: Firewall(text, f"table inet {text} {{"),
        lambda: Firewall("a", "table inet b { }"),
        lambda: Sysctl(f"net/{text}", 1),
        lambda: Sysctl("net/../kernel/x", 1),
        lambda: Resolved(text, (), ()),
        lambda: Resolved("t0", (text,), ()),
        lambda: Resolved("t0", (), (text,)),
    ):
        with pytest.raises(ValueError):
            make()


def test_bounds() -> None:
    """Names of interfaces have 15 characters at most, rules a preference before the main table's."""
    Address("x" * 15, "10.0.0.1")
    with pytest.raises(ValueError):
        Address("x" * 16, "10.0.0.1")
    with pytest.raises(ValueError):
        Rule(4, 32_766)
    with pytest.raises(ValueError):
        Rule(4, 9, to="fc00::/8")


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=20),
        lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=10), inner, max_size=4),
        max_leaves=8,
    ),
    st.sampled_from(EXAMPLES),
    st.data(),
)
def test_no_change_of_anything(value: object, example: AnyChange, data: st.DataObject) -> None:
    """A book that was tampered with gives a change, or ValueError; a change that says only checked words."""
    fields = as_json(example)
    fields[data.draw(st.sampled_from(sorted(fields)))] = value
    try:
        change = from_json(fields)
    except (ValueError, TypeError):
        return
    if change.tool.startswith("ip "):
        assert "\n" not in change.make  # type: ignore[union-attr]
