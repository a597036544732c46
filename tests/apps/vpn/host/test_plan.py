"""What a VPN that is up changes: the list for each way of being up."""

from __future__ import annotations

from itertools import product

import pytest
from attrs import evolve

from apps.vpn.host.changes import Address, AnyChange, Firewall, Resolved, ResolverFile, Route, Rule, Sysctl
from apps.vpn.host.plan import (
    ALL,
    BEGIN,
    END,
    GATEWAYS,
    MOST_NETWORKS,
    NAMES,
    NO_NAMES,
    NOTHING,
    NOWHERE,
    OUTSIDE,
    TABLE,
    Wanted,
    block,
    networks,
    tunnel,
    unfiltered,
)

MARK = 0x6D657368
BOTH = Wanted(tunnel="t0", mark=MARK, addresses=("100.64.0.7", "fd00::7"), servers=("100.64.0.1",))


def rules(changes: tuple[AnyChange, ...], version: int, preference: int) -> list[Rule]:
    """Those of a family with this preference."""
    found = [each for each in changes if isinstance(each, Rule)]
    return [each for each in found if each.version == version and each.preference == preference]


def routed(wanted: Wanted) -> list[str]:
    """What the tunnel gets."""
    return [each.to for each in tunnel(wanted) if isinstance(each, Route)]


def text(wanted: Wanted) -> str:
    """The table of nftables."""
    return next(each.text for each in block(wanted) if isinstance(each, Firewall))


@pytest.mark.parametrize("version", [4, 6])
def test_links_go_as_before(version: int) -> None:
    """What is marked passes all other rules; its way on is there before it is sent there."""
    changes = block(evolve(BOTH, kill_switch=True, names=True, outside=("lan",)))
    (begin,), (end,) = rules(changes, version, BEGIN), rules(changes, version, END)
    assert (begin.action, begin.target, begin.mark) == ("goto", END, MARK)
    assert end.action == "nop"
    assert changes.index(end) < changes.index(begin)
    ours = [each.preference for each in changes if isinstance(each, Rule)]
    assert min(ours) == BEGIN and max(ours) == END


def test_all_through_the_tunnel() -> None:
    """Both families, by a table of our own; without a kill switch nothing is blocked."""
    assert routed(BOTH) == ["0.0.0.0/0", "::/0"]
    assert {each.table for each in tunnel(BOTH) if isinstance(each, Route)} == {TABLE}
    assert not rules(block(BOTH), 4, NOWHERE) and not rules(block(BOTH), 6, NOWHERE)
    assert rules(block(BOTH), 4, ALL) == [Rule(4, ALL, "lookup", TABLE)]
    assert [each.address for each in tunnel(BOTH) if isinstance(each, Address)] == [
        "100.64.0.7/32",
        "fd00::7/128",
    ]


def test_kill_switch() -> None:
    """What finds no tunnel goes nowhere, by rules and by nftables, of both families; but the kernel may look
    up the gateway of a new route."""
    changes = block(evolve(BOTH, kill_switch=True))
    assert rules(changes, 6, NOWHERE) == [Rule(6, NOWHERE, "blackhole")]
    packets = [Rule(4, NOWHERE, "blackhole", protocol=each) for each in ("tcp", "udp", "icmp")]
    assert rules(changes, 4, NOWHERE) == packets
    assert rules(changes, 4, GATEWAYS) == [Rule(4, GATEWAYS, "lookup", 254, narrow=True)]
    assert rules(changes, 4, NOTHING) == [Rule(4, NOTHING, "blackhole")]
    assert rules(changes, 6, GATEWAYS) == rules(changes, 6, NOTHING) == []
    assert text(evolve(BOTH, kill_switch=True)).count("policy drop") == 2
    assert text(BOTH).count("policy drop") == 0


def test_a_family_that_is_not_carried() -> None:
    """It does not go past the tunnel either: refused at once, so that programs take the other family."""
    v4 = evolve(BOTH, addresses=("100.64.0.7",))
    assert routed(v4) == ["0.0.0.0/0"]
    assert rules(block(v4), 6, NOWHERE) == [Rule(6, NOWHERE, "unreachable")]
    assert rules(block(v4), 4, NOWHERE) == []
    assert rules(block(evolve(v4, kill_switch=True)), 6, NOWHERE) == [Rule(6, NOWHERE, "blackhole")]


def test_some_networks_only() -> None:
    """Only these go through the tunnel, and with the kill switch these go nowhere else; names go to the
    server of the tunnel."""
    some = evolve(BOTH, inside=("192.0.2.0/24", "2001:db8::/32"), kill_switch=True, names=True)
    assert routed(some) == ["192.0.2.0/24", "2001:db8::/32", "100.64.0.1/32"]
    assert [each.to for each in rules(block(some), 4, NOWHERE)] == ["192.0.2.0/24"]
    assert [each.to for each in rules(block(some), 6, NOWHERE)] == ["2001:db8::/32"]
    assert "policy drop" not in text(some)
    assert 'ip6 daddr @inside6 oifname != { "t0" }' in text(some)


def test_outside() -> None:
    """Private networks by the machine's own routes to them alone; others by whatever route there is. Names
    are looked at before."""
    changes = block(evolve(BOTH, outside=("lan", "198.51.100.0/24"), kill_switch=True, names=True))
    narrow = {each.to: each.narrow for each in rules(changes, 4, OUTSIDE)}
    assert narrow["192.168.0.0/16"] and not narrow["198.51.100.0/24"]
    assert NO_NAMES < OUTSIDE
    assert "ip daddr @outside4 accept" in text(evolve(BOTH, outside=("198.51.100.0/24",), kill_switch=True))


def test_names() -> None:
    """Packets to DNS ports take the tunnel or nothing; resolv.conf or systemd-resolved ask there."""
    names = evolve(BOTH, names=True)
    assert {(each.protocol, each.port) for each in rules(block(names), 6, NAMES)} == {
        ("udp", 53),
        ("tcp", 53),
        ("udp", 853),
        ("tcp", 853),
    }
    assert {each.action for each in rules(block(names), 4, NO_NAMES)} == {"blackhole"}
    assert [type(each) for each in tunnel(names)][-1] is ResolverFile
    assert isinstance(tunnel(evolve(names, resolved=True))[-1], Resolved)
    assert not [each for each in tunnel(evolve(names, servers=())) if isinstance(each, ResolverFile)]
    assert not [each for each in tunnel(BOTH) if isinstance(each, ResolverFile | Resolved)]


def test_without_nftables() -> None:
    """Rules alone, the same ones."""
    without = evolve(BOTH, kill_switch=True, names=True, firewall=False)
    assert block(evolve(without, firewall=True))[1:] == block(without)


def test_reverse_paths() -> None:
    """Where packets are dropped that come where answers would not go: those for links are marked by the
    socket or the connection that they are for, and looked at with their mark; else nothing is dropped."""
    filters = evolve(BOTH, filters=("all", "eth0"))
    marking = Sysctl("net/ipv4/conf/all/src_valid_mark", 1)
    for how in ("socket", "ct"):
        changes = block(evolve(filters, arriving=how))
        assert [each for each in changes if isinstance(each, Sysctl)] == [marking]
        assert f"{how} mark 0x6d657368 meta mark set 0x6d657368" in text(evolve(filters, arriving=how))
    assert "meta mark 0x6d657368 ct mark set 0x6d657368 accept" in text(evolve(filters, arriving="ct"))
    for wanted in (filters, evolve(filters, arriving="socket", firewall=False)):
        off = [each for each in block(wanted) if isinstance(each, Sysctl)]
        assert off == [Sysctl(f"net/ipv4/conf/{name}/rp_filter", 0) for name in ("all", "eth0")]
        assert unfiltered(off) == {"all", "eth0"}
    quiet = evolve(BOTH, arriving="socket")
    assert not [each for each in block(quiet) if isinstance(each, Sysctl)]
    assert "meta mark set" not in text(quiet)


def test_no_change_twice() -> None:
    """Each change is there once, whatever is wanted; else undoing one would undo the other."""
    options = product((True, False), repeat=4)
    for kill, names, filters, firewall in options:
        for inside, outside in product((("10.0.0.0/8",), ()), (("lan", "10.0.0.0/8"), ())):
            wanted = evolve(
                BOTH,
                kill_switch=kill,
                names=names,
                filters=("all", "eth0") if filters else (),
                firewall=firewall,
                inside=inside,
                outside=outside,
            )
            changes = (*block(wanted), *tunnel(wanted))
            assert len(changes) == len(set(changes))


def test_networks() -> None:
    """As people write them; what is none is named."""
    assert networks(("lan", "192.0.2.1", "2001:db8::/32", "lan")) == ("lan", "192.0.2.1/32", "2001:db8::/32")
    for wrong in ("example.org", "192.0.2.1/24", "10.0.0.0/33", "", "10.0.0.0/8; drop"):
        with pytest.raises(ValueError, match="is no network"):
            networks((wrong,))
    with pytest.raises(ValueError, match="the most is 256"):
        networks(tuple(f"10.0.{n >> 8}.{n & 255}" for n in range(MOST_NETWORKS + 1)))
