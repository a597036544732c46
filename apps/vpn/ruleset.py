"""The exit's rules for packets as a table of nftables: a policy becomes clauses, and those a text.

Nothing is run here. The table is `inet` and owns all about the exit's interface:

    spoofs       prerouting, raw      sources outside the pools, or of the pools from elsewhere: dropped
    known        prerouting, -50      what came from clients is marked: this table stands
    sizes        forward, mangle      TCP never offers more than the way carries (MSS of SYN)
    passing      forward, filter      answers to clients, and from clients what the policy allows
    arriving     input, filter        from clients: names at the gateway's address, echo to it, no more
    leaving      postrouting, srcnat  clients' addresses become this machine's, for IPv4 and IPv6

Beside it stand rules of policy routing (`unmarked`): what came from clients and has no mark goes nowhere. So
while somebody else flushes all tables nothing of clients passes, with their own addresses or to where they
may not; and whoever flushes the rules leaves the table. The mark is one bit, and is taken away again as soon
as a packet has found its way.

The policy is that of `policy.py`, asked about the destination: deny-list, then rules that open private
ranges, then private and other special ranges are refused, then the other rules. A rule with ports holds for
TCP and UDP. A packet has no name: rules with names allow nothing here (the DNS forwarder asks the deny-list).
Beside TCP and UDP only echo requests begin anything, and a client has at most CONNECTIONS at a time, so that
it cannot fill the kernel's table of connections. What is refused is answered with ICMP "administratively
prohibited".
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, collapse_addresses
from typing import Final

from attrs import frozen

from apps.vpn.destination import Address
from apps.vpn.host.changes import Firewall
from apps.vpn.host.changes import Rule as RoutingRule
from apps.vpn.policy import NAT64, SPECIAL, Network, Policy, Rule, opens_special

_NAME: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_PORTS: Final = (0, 65_535)
_PER_LINE: Final = 8


KNOWN: Final = 0x4000_0000
"""The bit of a packet's mark by which it is known that the table has seen it."""
MARKED, UNMARKED, ON = 5180, 5181, 5190
"""Preferences of the rules: those of a client of the VPN come behind them."""
PREFERENCES: Final = range(MARKED, ON + 1)
COUNTERS: Final = ("refused", "spoofed", "uninvited", "invalid")
"""Of the table: packets that the policy refused; with addresses that are not their sender's; to clients, from
who was not asked; of connections that the kernel does not know."""

CONNECTIONS: Final = 4_096
"""Of one client and family at a time, as the kernel follows them: UDP and echo have some, too."""


@frozen
class Clause:
    """One step: a packet to one of `networks` (`outside`: to none of them) is accepted or refused here, if
    its port is in `ports` (None: any packet)."""

    accept: bool
    networks: tuple[Network, ...]
    ports: tuple[int, int] | None = None
    outside: bool = False

    def matches(self, address: Address, port: int | None) -> bool:
        """Whether this clause decides about a packet; `port` is None for what has no ports."""
        if self.ports is not None and (port is None or not self.ports[0] <= port <= self.ports[1]):
            return False
        return any(address in network for network in self.networks) != self.outside


@frozen
class Gateway:
    """What the table is about: its name, the exit's interface, its addresses and pools (None: no such
    family), the address that clients appear from (None: that of the way out), whether the machine forwarded
    nothing before: then it goes on to forward nothing else; and whether its kernel can count connections."""

    table: str
    interface: str
    pool4: IPv4Network | None = None
    pool6: IPv6Network | None = None
    own4: IPv4Address | None = None
    own6: IPv6Address | None = None
    source: Address | None = None
    alone: bool = False
    counts: bool = True

    def __attrs_post_init__(self) -> None:
        for name in (self.table, self.interface):
            if not _NAME.fullmatch(name):
                raise ValueError(f"{name!r} cannot name a table or an interface")


def special_networks() -> tuple[Network, ...]:
    """Private and other special ranges, with those of IPv4 as NAT64 carries them; NAT64 itself is none."""
    v4 = [each for each in SPECIAL if isinstance(each, IPv4Network)]
    v6: list[IPv6Network] = []
    for each in SPECIAL:
        if isinstance(each, IPv6Network):
            v6 += each.address_exclude(NAT64) if NAT64.subnet_of(each) else [each]
    prefix = int(NAT64.network_address)
    v6 += [IPv6Network((prefix | int(each.network_address), 96 + each.prefixlen)) for each in v4]
    return (*_collapsed(v4), *_collapsed(v6))


def clauses(policy: Policy) -> tuple[Clause, ...]:
    """The policy as steps in order; what none of them decides about is refused."""
    special = special_networks()
    denied, opened, allowed = _Groups(), _Groups(), _Groups()
    for rule in policy.deny:
        denied.add(rule)
    for rule in policy.allow:
        (opened if rule.network is not None and opens_special(rule.network) else allowed).add(rule)
    return (
        *denied.clauses(False, special),
        *opened.clauses(True, ()),  # no rule of these is `public`; of the next, all outside nothing is
        Clause(False, special),
        *allowed.clauses(True, ()),
    )


def verdict(steps: Iterable[Clause], address: Address, port: int | None) -> bool:
    """Whether a packet to this address may pass: what the table does, in Python."""
    for step in steps:
        if step.matches(address, port):
            return step.accept
    return False


class _Groups:
    """Rules by their ports, so that each range of ports is one clause. Rules with names have none."""

    def __init__(self) -> None:
        self._networks: dict[tuple[int, int], list[Network]] = {}
        self._public: dict[tuple[int, int], None] = {}

    def add(self, rule: Rule) -> None:
        """A rule."""
        if rule.network is not None:
            self._networks.setdefault(rule.ports, []).append(rule.network)
        elif not rule.name:
            self._public[rule.ports] = None

    def clauses(self, accept: bool, special: tuple[Network, ...]) -> list[Clause]:
        """What they say; `public` is all outside of `special`."""
        public = [Clause(accept, special, _limited(ports), True) for ports in self._public]
        listed = self._networks.items()
        return public + [Clause(accept, _collapsed(each), _limited(ports)) for ports, each in listed]


def _limited(ports: tuple[int, int]) -> tuple[int, int] | None:
    return None if ports == _PORTS else ports


def _collapsed(networks: Iterable[Network]) -> tuple[Network, ...]:
    """The same addresses in as few networks as can be, without overlaps (a set has none)."""
    all_ = list(networks)
    v4 = collapse_addresses([each for each in all_ if isinstance(each, IPv4Network)])
    v6 = collapse_addresses([each for each in all_ if isinstance(each, IPv6Network)])
    return (*v4, *v6)


def table(gateway: Gateway, policy: Policy) -> Firewall:
    """The table, as a change of the host."""
    sets: dict[tuple[Network, ...], str] = {}
    steps = [line for clause in clauses(policy) for line in _step(clause, sets)]
    out = [f"table inet {gateway.table} {{", *(f"\tcounter {name} {{ }}" for name in COUNTERS)]
    for members, name in sets.items():
        out += _set(name, members)
    crowded = []
    for version, key in ((4, "ip"), (6, "ip6")) if gateway.counts else ():
        out += [f"\tset clients{version} {{", f"\t\ttype ipv{version}_addr; flags dynamic; size 65535", "\t}"]
        limit = f"{key} saddr ct count over {CONNECTIONS}"
        crowded.append(f"ct state new add @clients{version} {{ {limit} }} goto refuse")
    for chain in (_spoofs, _known, _sizes, _passing, _arriving, _leaving):
        out += chain(gateway)
    out += _chain("wanted", "", [*_ONLY, *crowded, *steps, "goto refuse"])
    out += _chain("refuse", "", ["counter name refused reject with icmpx type admin-prohibited"])
    return Firewall(gateway.table, "\n".join([*out, "}", ""]))


def _step(clause: Clause, sets: dict[tuple[Network, ...], str]) -> Iterator[str]:
    """The lines of a clause; sets that it needs and that are not there yet are put into `sets`."""
    if clause.outside and not clause.networks:
        yield _on(clause)
        return
    for version, key in ((4, "ip"), (6, "ip6")):
        members = tuple(each for each in clause.networks if each.version == version)
        if members:
            name = sets.setdefault(members, f"set{len(sets)}_v{version}")
            yield f"{key} daddr {'!= ' if clause.outside else ''}@{name} {_on(clause)}"


COUNT_PROBE: Final = (
    "table inet meshnet_probe {\n\tset x {\n\t\ttype ipv4_addr; flags dynamic; size 10\n\t}\n\tchain y {\n"
    "\t\tct state new add @x { ip saddr ct count over 1 } drop\n\t}\n}\n"
)
"""What a kernel that can count connections lets pass `nft -c`."""

_ONLY: Final = (
    "ct state invalid counter name invalid drop",
    "meta l4proto != { tcp, udp, icmp, ipv6-icmp } goto refuse",
    "meta l4proto icmp icmp type != echo-request goto refuse",
    "meta l4proto ipv6-icmp icmpv6 type != echo-request goto refuse",
)


def _on(clause: Clause) -> str:
    then = "accept" if clause.accept else "goto refuse"
    if clause.ports is None:
        return then
    first, last = clause.ports
    return f"meta l4proto {{ tcp, udp }} th dport {first}-{last} {then}"


def _set(name: str, members: tuple[Network, ...]) -> list[str]:
    texts = [str(each) for each in members]
    lines = [", ".join(texts[at : at + _PER_LINE]) for at in range(0, len(texts), _PER_LINE)]
    elements = ",\n\t\t\t".join(lines)
    type_ = f"ipv{members[0].version}_addr"
    return [
        f"\tset {name} {{",
        f"\t\ttype {type_}; flags interval",
        f"\t\telements = {{ {elements} }}",
        "\t}",
    ]


def _chain(name: str, hook: str, rules: Iterable[str]) -> list[str]:
    head = [f"\t\ttype {hook}; policy accept;"] if hook else []
    return [f"\tchain {name} {{", *head, *(f"\t\t{rule}" for rule in rules), "\t}"]


def _spoofs(gateway: Gateway) -> list[str]:
    rules = []
    there, drop = f'iifname "{gateway.interface}"', "counter name spoofed drop"
    elsewhere = f'iifname != {{ "{gateway.interface}", "lo" }}'
    for key, family, pool in (("ip", "ipv4", gateway.pool4), ("ip6", "ipv6", gateway.pool6)):
        if pool is None:
            rules.append(f"{there} meta nfproto {family} {drop}")
        else:
            rules.append(f"{there} {key} saddr != {pool} {drop}")
            rules.append(f"{elsewhere} {key} saddr {pool} {drop}")
    return _chain("spoofs", "filter hook prerouting priority raw", rules)


def _known(gateway: Gateway) -> list[str]:
    """Late, so that marks which others set or restore there stay, and ours is not lost."""
    rule = f'iifname "{gateway.interface}" meta mark set meta mark | {KNOWN:#x}'
    return _chain("known", "filter hook prerouting priority -50", [rule])


def unmarked(gateway: Gateway) -> list[RoutingRule]:
    """What keeps in what the table has not seen; to be made after it."""
    rules = []
    there = gateway.interface
    for version, pool in ((4, gateway.pool4), (6, gateway.pool6)):
        if pool is not None:
            rules.append(RoutingRule(version, ON, "nop"))
            rules.append(RoutingRule(version, MARKED, "goto", ON, mark=KNOWN, mask=KNOWN, device=there))
            rules.append(RoutingRule(version, UNMARKED, "blackhole", device=there))
    return rules


def _sizes(gateway: Gateway) -> list[str]:
    clamp = "tcp flags & (syn | rst) == syn tcp option maxseg size set rt mtu"
    rules = [f'{way} "{gateway.interface}" {clamp}' for way in ("iifname", "oifname")]
    unmark = f'iifname "{gateway.interface}" meta mark set meta mark & {0xFFFF_FFFF ^ KNOWN:#x}'
    return _chain("sizes", "filter hook forward priority mangle", [unmark, *rules])


def _passing(gateway: Gateway) -> list[str]:
    tun = f'"{gateway.interface}"'
    rules = [
        f"iifname {tun} oifname {tun} goto refuse",
        f"oifname {tun} ct state established,related accept",
        f"oifname {tun} counter name uninvited drop",
        f"iifname {tun} ct state established,related accept",
        f"iifname {tun} goto wanted",
    ]
    return _chain(
        "passing", "filter hook forward priority filter", [*rules, *(["drop"] if gateway.alone else [])]
    )


def _arriving(gateway: Gateway) -> list[str]:
    there = f'iifname "{gateway.interface}"'
    elsewhere = f'iifname != {{ "{gateway.interface}", "lo" }}'
    rules = [f"{there} ct state established,related accept"]
    for key, own, echo in (
        ("ip", gateway.own4, "icmp type echo-request"),
        ("ip6", gateway.own6, "icmpv6 type echo-request"),
    ):
        if own is not None:
            rules.append(f"{elsewhere} {key} daddr {own} drop")  # it is there for clients alone
            rules.append(f"{there} {key} daddr {own} meta l4proto {{ tcp, udp }} th dport 53 accept")
            rules.append(f"{there} {key} daddr {own} {echo} accept")
    return _chain("arriving", "filter hook input priority filter", [*rules, f"{there} goto refuse"])


def _leaving(gateway: Gateway) -> list[str]:
    rules = []
    for key, version, pool in (("ip", 4, gateway.pool4), ("ip6", 6, gateway.pool6)):
        if pool is None:
            continue
        source = gateway.source
        to = f"snat {key} to {source}" if source is not None and source.version == version else "masquerade"
        rules.append(f'{key} saddr {pool} oifname != {{ "{gateway.interface}", "lo" }} {to}')
    return _chain("leaving", "nat hook postrouting priority srcnat", rules)
