"""What shall be changed while a VPN is up: from what is wanted to a list of changes. Pure.

Routing is by policy (ip-rule(8)), in a table of our own; nobody's routes are touched:

    5200  marked as a link's                  past all of these, so that links go where they went before
    5202  DHCP                                as before
    5205  to ports 53 and 853                 our table, and then (5206) nowhere         (with names)
    5210  mesh addresses; networks outside    the main table
    5220  everything                          our table: the tunnel
    5221  TCP, UDP and ICMP                   nowhere                                   (with the kill switch)
    5222  what is no packet                   the main table, without its default routes
    5223  everything                          nowhere                                   (with the kill switch)
    5250                                      where those marked go on

The kernel looks up the gateway of a new IPv4 route of the main table by all of these rules (`fib_check_nh`),
as if it were a packet of no protocol: without 5222 a machine that comes into another network could not set
its default route, and links would not come back.

What is listed first is made first and undone last: the firewall comes before the first packet can take the
new way, and goes after the last.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import Final

from attrs import field, frozen

from apps.vpn.host import firewall, resolver
from apps.vpn.host.changes import (
    Action,
    Address,
    AnyChange,
    Firewall,
    Protocol,
    Resolved,
    ResolverFile,
    Route,
    Rule,
    Sysctl,
    device_name,
)
from apps.vpn.host.firewall import Arriving

TABLE: Final = 0x6D65
"""Number of the routing table (28005)."""
MOST_NETWORKS: Final = 256
"""Networks in `inside` and in `outside`."""
MESH: Final = "fc00::/8"
"""Addresses of nodes (docs/wire-format.md §0)."""
LAN: Final = (
    *("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "169.254.0.0/16", "224.0.0.0/4", "255.255.255.255/32"),
    *("fd00::/8", "fe80::/10", "ff00::/8"),
)
"""What `lan` stands for among networks outside: where private networks are."""
BEGIN, DHCP, NAMES, NO_NAMES, OUTSIDE, ALL, NOWHERE, GATEWAYS, NOTHING, END = (
    *(5200, 5202, 5205, 5206, 5210),
    *(5220, 5221, 5222, 5223, 5250),
)
"""Preferences of the rules."""
_NAME_PORTS: Final[tuple[tuple[Protocol, int], ...]] = (("udp", 53), ("tcp", 53), ("udp", 853), ("tcp", 853))
_PACKETS: Final[tuple[Protocol, ...]] = ("tcp", "udp", "icmp")
OURS: Final = range(BEGIN, END + 1)
SRC_VALID_MARK: Final = "net/ipv4/conf/all/src_valid_mark"
_RP_FILTER: Final = re.compile(r"net/ipv4/conf/([^/]+)/rp_filter")


@frozen
class Wanted:
    """A VPN that is up, as the machine shall see it.

    `addresses` and `servers` are those of the lease. `own` are other interfaces of this node; `own_servers`
    are asked for names before the others and know only some (systemd-resolved has been told of them).
    `inside`: only these go through the tunnel; empty: all. `outside`: these do not, `lan` in place of a
    network for all private ones. `names`: DNS goes through the tunnel alone. `filters` are interfaces (and
    `all`) that drop what comes in where answers would not go out (rp_filter), as to links they would not:
    `arriving` says how the kernel can be shown which packets come for links. `firewall`: whether there is
    nftables; else rules alone have to do. `strong`: whether its kernel can look up where an address is; `v6`:
    whether it has IPv6 at all.
    """

    tunnel: str = field(validator=device_name)
    mark: int
    addresses: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()
    own: tuple[str, ...] = ()
    own_servers: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    kill_switch: bool = False
    names: bool = False
    filters: tuple[str, ...] = ()
    arriving: Arriving = ""
    resolved: bool = False
    firewall: bool = True
    strong: bool = True
    v6: bool = True


def networks(texts: tuple[str, ...]) -> tuple[str, ...]:
    """Networks as one writes them, checked and each once; `lan` stays. Raises ValueError with the rest
    of a sentence."""
    found = []
    for text in texts:
        try:
            found.append(text if text == "lan" else str(ip_network(text)))
        except ValueError as fault:
            raise ValueError(f"is no network ({fault}); write such as 192.0.2.0/24") from None
    if len(found) > MOST_NETWORKS:
        raise ValueError(f"has {len(found)} networks; the most is {MOST_NETWORKS}")
    return tuple(dict.fromkeys(found))


def unfiltered(changes: Iterable[AnyChange]) -> set[str]:
    """Interfaces that filter no reverse paths because of these."""
    keys = [_RP_FILTER.fullmatch(change.key) for change in changes if isinstance(change, Sysctl)]
    return {match[1] for match in keys if match is not None}


def block(wanted: Wanted) -> tuple[AnyChange, ...]:
    """What keeps packets in, with a tunnel or without: the firewall and the rules. It may stand alone."""
    return (*_guards(wanted), *_sysctls(wanted), *_rules(wanted))


def tunnel(wanted: Wanted) -> tuple[AnyChange, ...]:
    """What leads packets through a tunnel that stands: addresses, routes, names. After `block`."""
    return (
        *(Address(wanted.tunnel, address) for address in wanted.addresses),
        *(Route(to, wanted.tunnel, TABLE) for to in _routed(wanted)),
        *_resolver(wanted),
    )


def _versions(wanted: Wanted) -> set[int]:
    """Families that the tunnel carries."""
    return {ip_address(each).version for each in wanted.addresses}


def _routed(wanted: Wanted) -> list[str]:
    """What the tunnel gets, of the families that it carries."""
    versions = _versions(wanted)
    if not wanted.inside:
        return [{4: "0.0.0.0/0", 6: "::/0"}[version] for version in sorted(versions)]
    servers = [str(ip_network(each)) for each in wanted.servers] if wanted.names else []
    both = dict.fromkeys((*wanted.inside, *servers))
    return [each for each in both if ip_network(each).version in versions]


def _guards(wanted: Wanted) -> list[Firewall]:
    if not wanted.firewall:
        return []
    guard = firewall.Guard(
        tunnel=wanted.tunnel,
        mark=wanted.mark,
        own=wanted.own,
        addresses=wanted.addresses,
        inside=wanted.inside,
        outside=_spelled(wanted.outside),
        kill_switch=wanted.kill_switch,
        names=wanted.names,
        strong=wanted.strong,
        arriving=wanted.arriving if wanted.filters else "",
    )
    return [firewall.table(guard)]


def _sysctls(wanted: Wanted) -> list[Sysctl]:
    """What comes for a link comes in where an unmarked answer would not go out: it is looked at with its mark
    then, or where nothing can mark it, not at all."""
    if not wanted.filters:
        return []
    if wanted.firewall and wanted.arriving:
        return [Sysctl(SRC_VALID_MARK, 1)]
    return [Sysctl(f"net/ipv4/conf/{name}/rp_filter", 0) for name in wanted.filters]


def _rules(wanted: Wanted) -> list[Rule]:
    rules: list[Rule] = []
    for version in (4, 6) if wanted.v6 else (4,):
        rules.append(Rule(version, END, "nop"))
        rules.append(Rule(version, BEGIN, "goto", END, mark=wanted.mark))
        rules += _passing(wanted, version)
        rules += _name_rules(wanted, version)
        rules += _last(wanted, version)
    return rules


def _passing(wanted: Wanted, version: int) -> list[Rule]:
    """What goes as it went before. Private networks only as far as the machine has routes to them: no network
    that it is in can draw other traffic out of the tunnel by announcing routes."""
    rules = [Rule(4, DHCP, "lookup", 254, protocol="udp", source_port=68, port=67)] if version == 4 else []
    if version == 6:
        rules.append(Rule(6, OUTSIDE, "lookup", 254, to=MESH, narrow=True))
    for each in wanted.outside:
        narrow = each == "lan"
        for network in LAN if narrow else (each,):
            if ip_network(network).version == version:
                rules.append(Rule(version, OUTSIDE, "lookup", 254, to=network, narrow=narrow))
    return rules


def _name_rules(wanted: Wanted, version: int) -> list[Rule]:
    """Names go through the tunnel whatever server is asked, also one outside."""
    if not wanted.names:
        return []
    rules = []
    for protocol, port in _NAME_PORTS:
        rules.append(Rule(version, NAMES, "lookup", TABLE, protocol=protocol, port=port))
        rules.append(Rule(version, NO_NAMES, "blackhole", protocol=protocol, port=port))
    return rules


def _last(wanted: Wanted, version: int) -> list[Rule]:
    """Everything else: into the tunnel. Of a family that it does not carry nothing goes past it either."""
    rules = [Rule(version, ALL, "lookup", TABLE)]
    carried = version in _versions(wanted) or not wanted.addresses
    if wanted.kill_switch or not carried:
        action: Action = "blackhole" if wanted.kill_switch else "unreachable"
        if version == 4 and not wanted.inside:
            rules += [Rule(4, NOWHERE, action, protocol=each) for each in _PACKETS]
            return [*rules, Rule(4, GATEWAYS, "lookup", 254, narrow=True), Rule(4, NOTHING, action)]
        for network in wanted.inside or (None,):
            if network is None or ip_network(network).version == version:
                rules.append(Rule(version, NOWHERE, action, to=network))
    return rules


def _resolver(wanted: Wanted) -> list[AnyChange]:
    if not wanted.names or not wanted.servers:
        return []
    if wanted.resolved:
        return [Resolved(wanted.tunnel, wanted.servers, ("~.",))]
    return [ResolverFile(resolver.text_for((*wanted.own_servers, *wanted.servers)))]


def _spelled(outside: tuple[str, ...]) -> tuple[str, ...]:
    spelled: list[str] = []
    for each in outside:
        spelled += LAN if each == "lan" else (each,)
    return tuple(dict.fromkeys(spelled))
