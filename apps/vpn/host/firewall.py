"""The rules that keep packets in: the table of nftables that stands while the VPN is up.

    arriving     what comes for a link gets the link's mark: filters of reverse paths look where links go
    prerouting   packets for the tunnel's own addresses come through the tunnel, or from this machine
    output       of what this machine sends: links (by mark), loopback, the tunnel and, with the kill switch,
                 nothing else but DHCP, neighbour discovery and the networks that the operator left outside
    forward      the same for what it forwards

Without the kill switch only names are kept in: no packet to port 53 or 853 leaves but through the tunnel.
Local programs are told at once (ICMP), from inside the machine. Pure: checked values in, text out.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import ip_network
from typing import Final, Literal

from attrs import frozen

from apps.vpn.host.changes import Firewall

TABLE: Final = "meshnet_vpn"
DNS_PORTS: Final = (53, 853)
RAW, MANGLE = -300, -150
"""Before the kernel follows connections, and after."""
Arriving = Literal["", "socket", "ct"]
"""How packets for links are known when they come: by the socket they are for, the connection, or not."""
_ALWAYS: Final = (
    "udp sport 68 udp dport 67 accept",
    "udp sport 546 udp dport 547 accept",
    "icmpv6 type { nd-router-solicit, nd-router-advert, nd-neighbor-solicit, nd-neighbor-advert,"
    " mld-listener-report, mld2-listener-report } ip6 hoplimit { 1, 255 } accept",
)
"""DHCP, DHCPv6, and what keeps an IPv6 network alive; routers forward none of it."""
_NO: Final = 'counter name "blocked" reject with icmpx admin-prohibited'


@frozen
class Guard:
    """What the table shall do. `tunnel` is the interface; `own` are others of this node, such as the mesh's.
    `inside`: only these networks go through the tunnel (empty: all); `outside`: these may leave beside it."""

    tunnel: str
    mark: int
    own: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()
    outside: tuple[str, ...] = ()
    kill_switch: bool = False
    names: bool = False
    strong: bool = True
    """Whether the kernel can look up where an address is (`fib`)."""
    arriving: Arriving = ""


def table(guard: Guard) -> Firewall:
    """The table."""
    policy = "drop" if guard.kill_switch and not guard.inside else "accept"
    chains = [
        _chain("output", 0, policy, _leaving(guard, forwarded=False)),
        _chain("forward", 0, policy, _leaving(guard, forwarded=True)),
    ]
    if guard.strong and guard.addresses:
        chains.append(_chain("prerouting", RAW, "accept", _strong(guard)))
    if guard.arriving:
        rule = arriving(guard.arriving, guard.mark)
        chains.append(_chain("prerouting", MANGLE, "accept", [rule], name="arriving"))
    sets = [*_sets("inside", guard.inside), *_sets("outside", guard.outside)]
    counters = ["\tcounter blocked {\n\t}\n"]
    if guard.names:
        counters.append("\tcounter names {\n\t}\n")
    return Firewall(TABLE, f"table inet {TABLE} {{\n{''.join((*counters, *sets, *chains))}}}\n")


def arriving(how: Arriving, mark: int) -> str:
    """The rule that marks what comes for links."""
    return f"{how} mark {mark:#x} meta mark set {mark:#x}"


def _leaving(guard: Guard, forwarded: bool) -> list[str]:
    ours = _names((guard.tunnel, *guard.own))
    follow = f"ct mark set {guard.mark:#x} " if guard.arriving == "ct" else ""
    links = f"meta mark {guard.mark:#x} {follow}accept"
    rules = ['oifname "lo" accept', links] if not forwarded else []
    if guard.names:
        ports = ", ".join(map(str, DNS_PORTS))
        no = 'counter name "names" reject with icmpx admin-prohibited'
        rules.append(f"oifname != {ours} meta l4proto {{ tcp, udp }} th dport {{ {ports} }} {no}")
    if not guard.kill_switch:
        return rules
    if guard.inside:
        rules += [
            f"{family} daddr @inside{version} oifname != {ours} {_NO}"
            for family, version in _families(guard.inside)
        ]
        return rules
    rules.append(f"oifname {ours} accept")
    if forwarded:
        rules.append(f"iifname {ours} accept")
    else:
        rules += _ALWAYS
    rules += [f"{family} daddr @outside{version} accept" for family, version in _families(guard.outside)]
    return [*rules, _NO]


def _strong(guard: Guard) -> list[str]:
    """Nobody on another network of ours finds out, by sending to it, which address the tunnel has."""
    rules = []
    for address in guard.addresses:
        family = "ip6" if ":" in address else "ip"
        rules.append(f'iifname != "{guard.tunnel}" {family} daddr {address} fib saddr type != local drop')
    return rules


def _chain(hook: str, priority: int, policy: str, rules: Sequence[str], name: str = "") -> str:
    lines = (f"type filter hook {hook} priority {priority}; policy {policy};", *rules)
    return f"\tchain {name or hook} {{\n" + "".join(f"\t\t{line}\n" for line in lines) + "\t}\n"


def _sets(name: str, networks: Sequence[str]) -> list[str]:
    """A set of each family that has networks."""
    found = []
    for family, version in _families(networks):
        elements = ", ".join(str(each) for each in map(ip_network, networks) if each.version == version)
        kind = f"type {'ipv4' if family == 'ip' else 'ipv6'}_addr; flags interval; auto-merge"
        found.append(f"\tset {name}{version} {{\n\t\t{kind}\n\t\telements = {{ {elements} }}\n\t}}\n")
    return found


def _families(networks: Iterable[str]) -> list[tuple[str, int]]:
    versions = {ip_network(each).version for each in networks}
    return [("ip6" if version == 6 else "ip", version) for version in sorted(versions)]


def _names(interfaces: Iterable[str]) -> str:
    return "{ " + ", ".join(f'"{name}"' for name in interfaces) + " }"
