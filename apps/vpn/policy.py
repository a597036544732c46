"""What an exit connects to: rules on the resolved address, its name and its port.

A rule is `TARGET[:PORT[-PORT]]`, where TARGET is

    public            every address that is reachable from everywhere
    192.0.2.0/24      a network or an address; IPv6 with ports in brackets, as in [2001:db8::/32]:443
    example.org       a name as the client gave it; *.example.org its subdomains

`deny` wins over `allow`; what no rule allows is refused; the default is `allow = ["public"]`. Private,
loopback, link-local, multicast and other special ranges (IANA's registries, `SPECIAL`) are allowed only by
a rule whose own network lies inside such a range: 0.0.0.0/0 and names do not open them, so that a name which
resolves to a private address today or tomorrow reaches nothing. No lookups here: the caller resolves, asks
`refusal` about each address, and connects to that very address.
"""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_network
from typing import Final

from attrs import frozen

from apps.vpn.destination import Address, host_name, plain

Network = IPv4Network | IPv6Network

SPECIAL: Final[tuple[Network, ...]] = tuple(
    ip_network(text)
    for text in (
        # https://www.iana.org/assignments/iana-ipv4-special-registry
        *("0.0.0.0/8", "10.0.0.0/8", "100.64.0.0/10", "127.0.0.0/8", "169.254.0.0/16", "172.16.0.0/12"),
        *("192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "192.168.0.0/16", "198.18.0.0/15"),
        *("198.51.100.0/24", "203.0.113.0/24", "224.0.0.0/4", "240.0.0.0/4"),
        # https://www.iana.org/assignments/iana-ipv6-special-registry: all but 2000::/3, and parts of that
        *("::/3", "4000::/2", "8000::/1", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20"),
    )
)
NAT64: Final = IPv6Network("64:ff9b::/96")
"""Carries an IPv4 address in its last four bytes, which decides (RFC 6052)."""


@frozen
class Rule:
    """One entry of a list. `name` is empty or a name, with a leading dot for subdomains; neither a name nor
    a network: every public address."""

    text: str
    network: Network | None = None
    name: str = ""
    ports: tuple[int, int] = (0, 65_535)

    def __str__(self) -> str:
        return self.text

    def allows(self, name: str, address: Address, port: int) -> bool:
        """Whether this rule, in an allow-list, lets through."""
        if not self.ports[0] <= port <= self.ports[1]:
            return False
        special = is_special(address)
        if self.network is not None:
            return address in self.network and (not special or opens_special(self.network))
        return not special and (not self.name or self.names(name))

    def denies(self, name: str, address: Address, port: int) -> bool:
        """Whether this rule, in a deny-list, refuses."""
        if not self.ports[0] <= port <= self.ports[1]:
            return False
        if self.network is not None:
            return address in self.network
        return self.names(name) if self.name else not is_special(address)

    def names(self, name: str) -> bool:
        """Whether a rule with a name is about this one, in lower case."""
        return name.endswith(self.name) if self.name.startswith(".") else name == self.name


def is_special(address: Address) -> bool:
    """Whether an address is private, loopback, link-local, multicast, reserved or otherwise not public."""
    if isinstance(address, IPv6Address) and address in NAT64:
        address = IPv4Address(address.packed[12:])
    return any(address in network for network in SPECIAL)


def opens_special(network: Network) -> bool:
    """Whether a network lies inside a special range, so that a rule of it opens that part."""
    for outer in (*SPECIAL, NAT64):
        if isinstance(network, IPv4Network):
            if isinstance(outer, IPv4Network) and network.subnet_of(outer):
                return True
        elif isinstance(outer, IPv6Network) and network.subnet_of(outer):
            return True
    return False


def rule(text: str) -> Rule:
    """Reads a rule; raises ValueError with the rest of a sentence that starts with the text."""
    target, ports = _split(text.strip())
    if target in ("public", "*"):
        return Rule(text, None, "", ports)
    try:
        return Rule(text, ip_network(target, strict=False), "", ports)
    except ValueError:
        pass
    if target == "localhost":
        raise ValueError("opens nothing, since names do not open private addresses; write 127.0.0.0/8")
    starred = target.startswith("*.")
    try:
        name = host_name(target.removeprefix("*."))
    except ValueError:
        name = ""
    if not name or name.replace(".", "").isdigit() or "/" in target:
        raise ValueError(
            "is no rule; write public, a network such as 10.0.0.0/8, or a name, then maybe :80-443"
        )
    return Rule(text, None, "." + name if starred else name, ports)


def _split(text: str) -> tuple[str, tuple[int, int]]:
    """Target and ports."""
    everything = (0, 65_535)
    if text.startswith("["):
        target, bracket, rest = text[1:].partition("]")
        if not bracket or (rest and not rest.startswith(":")):
            raise ValueError("has [ without ], or something behind ] that is no :port")
        return target, _ports(rest[1:]) if rest else everything
    if text.count(":") != 1:
        return text, everything
    target, _, rest = text.partition(":")
    return target, _ports(rest)


def _ports(text: str) -> tuple[int, int]:
    low, dash, high = text.partition("-")
    numbers = (low, high if dash else low)
    if not all(number.isascii() and number.isdigit() and len(number) <= 5 for number in numbers):
        raise ValueError("has no port or range of ports behind its colon, such as :80 or :80-443")
    first, last = int(numbers[0]), int(numbers[1])
    if not 1 <= first <= last <= 65_535:
        raise ValueError("has ports outside 1-65535, or a range that runs backwards")
    return first, last


PUBLIC: Final = Rule("public")


@frozen
class Policy:
    """An exit's lists."""

    allow: tuple[Rule, ...] = (PUBLIC,)
    deny: tuple[Rule, ...] = ()

    def refusal(self, name: str, address: Address, port: int) -> str:
        """Empty if a connection to this address is allowed, else `denied`, `private` or `not_listed`.

        `name` is what the client asked for, lower case; empty if it gave an address.
        """
        address = plain(address)
        if any(entry.denies(name, address, port) for entry in self.deny):
            return "denied"
        if any(entry.allows(name, address, port) for entry in self.allow):
            return ""
        return "private" if is_special(address) else "not_listed"
