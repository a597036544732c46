"""Changes of the operating system as values: what is asked of a tool, and how it is taken back.

Each has a `kind`, its name in the book, a `sentence` for people, and a `tool` that makes it: `ip -4`,
`ip -6`, `nft`, `resolvectl` or `file`. Its fields are texts and numbers that are checked when it is made, so
that what is built of them for a tool (`ip -batch`, `nft -f`) holds nothing else; nothing passes a shell.
As JSON (`as_json`, `from_json`) a change goes into the book (`book.py`) before it is made.

Nothing here runs or reads anything. What a change needs to know to be taken back, beyond what it is (the
old content of a file), is `before`, which whoever makes it reads and keeps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from ipaddress import IPv4Network, IPv6Network, ip_interface, ip_network
from typing import Any, ClassVar, Final, Literal

from attrs import asdict, field, frozen

Network = IPv4Network | IPv6Network

LARGEST_TEXT: Final = 400_000
"""Characters of a table for nft, and of a resolv.conf."""
_DEVICE: Final = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,14}")
_TABLE: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]{0,63}")
_SYSCTL: Final = re.compile(r"net(/[A-Za-z0-9_][A-Za-z0-9_.-]{0,31}){1,6}")
_LABEL: Final = r"[A-Za-z0-9_][A-Za-z0-9_-]{0,62}"
_DOMAIN: Final = re.compile(rf"~?(\.|{_LABEL}(\.{_LABEL}){{0,8}})")


def _checked(pattern: re.Pattern[str], what: str) -> Callable[[Any, Any, str], None]:
    def check(_: Any, __: Any, value: str) -> None:
        if not isinstance(value, str) or pattern.fullmatch(value) is None:
            raise ValueError(f"{str(value)[:80]!r} is no {what}")

    return check


def _within(least: int, most: int) -> Callable[[Any, Any, int], None]:
    def check(_: Any, attribute: Any, value: int) -> None:
        if not isinstance(value, int) or not least <= value <= most:
            raise ValueError(f"{attribute.name} {value!r} is not from {least} to {most}")

    return check


def _network(text: str) -> str:
    """A network in the one way in which it is written here; raises ValueError."""
    return str(ip_network(text))


def _optional_network(text: str | None) -> str | None:
    return None if text is None else _network(text)


def _interface(text: str) -> str:
    return str(ip_interface(text))


def _short(_: Any, __: Any, text: str) -> None:
    if not isinstance(text, str) or len(text) > LARGEST_TEXT or "\0" in text:
        raise ValueError(f"a text of more than {LARGEST_TEXT} characters, or none")


device_name: Final = _checked(_DEVICE, "name of an interface")
optional_device: Final = _checked(re.compile(rf"({_DEVICE.pattern})?"), "name of an interface")


@frozen
class Address:
    """An address on an interface, `10.0.0.1/32`. A name of the interface that is gone takes it along."""

    device: str = field(validator=device_name)
    address: str = field(converter=_interface)
    kind: ClassVar[str] = "address"

    @property
    def tool(self) -> str:
        """By its family."""
        return f"ip -{ip_interface(self.address).version}"

    @property
    def make(self) -> str:
        """A line for `ip -batch`. An address of the tunnel has nobody who could have it too, so no duplicate
        is looked for."""
        more = " nodad" if ":" in self.address else ""
        return f"address replace {self.address} dev {self.device}{more}"

    @property
    def unmake(self) -> str:
        """The line that takes it back."""
        return f"address delete {self.address} dev {self.device}"

    @property
    def sentence(self) -> str:
        """For people."""
        return f"address {self.address} on {self.device}"


@frozen
class Route:
    """A route in a table; `metric` is always said, since families differ in what they take for none."""

    to: str = field(converter=_network)
    device: str = field(validator=device_name)
    table: int = field(validator=_within(1, 0xFFFF_FFFF))
    metric: int = field(default=1, validator=_within(1, 0xFFFF_FFFF))
    kind: ClassVar[str] = "route"

    @property
    def tool(self) -> str:
        """By its family."""
        return f"ip -{ip_network(self.to).version}"

    @property
    def _text(self) -> str:
        return f"{self.to} dev {self.device} table {self.table} metric {self.metric}"

    @property
    def make(self) -> str:
        """A line for `ip -batch`."""
        return f"route replace {self._text}"

    @property
    def unmake(self) -> str:
        """The line that takes it back."""
        return f"route delete {self._text}"

    @property
    def sentence(self) -> str:
        """For people."""
        return f"route to {self.to} over {self.device} in table {self.table}"


Action = Literal["lookup", "goto", "nop", "blackhole", "unreachable"]
Protocol = Literal["", "tcp", "udp", "icmp"]
_ACTIONS: Final = ("lookup", "goto", "nop", "blackhole", "unreachable")


@frozen
class Rule:
    """A rule of policy routing (ip-rule(8)). `target` is the table of `lookup` or the preference of `goto`;
    `narrow` leaves default routes of that table out (`suppress_prefixlength 0`); `mask` are the bits of the
    packet's mark that are compared (0: all), `device` is the interface that it came in by."""

    version: int = field(validator=_within(4, 6))
    preference: int = field(validator=_within(1, 32_765))
    action: Action = "lookup"
    target: int = field(default=0, validator=_within(0, 0xFFFF_FFFF))
    to: str | None = field(default=None, converter=_optional_network)
    mark: int = field(default=0, validator=_within(0, 0xFFFF_FFFF))
    protocol: Protocol = ""
    source_port: int = field(default=0, validator=_within(0, 65_535))
    port: int = field(default=0, validator=_within(0, 65_535))
    narrow: bool = False
    mask: int = field(default=0, validator=_within(0, 0xFFFF_FFFF))
    device: str = field(default="", validator=optional_device)
    kind: ClassVar[str] = "rule"

    def __attrs_post_init__(self) -> None:
        if self.action not in _ACTIONS or self.protocol not in ("", "tcp", "udp", "icmp"):
            raise ValueError(f"no such rule: {self.action!r} {self.protocol!r}")
        if self.to is not None and ip_network(self.to).version != self.version:
            raise ValueError(f"{self.to} is not of IPv{self.version}")

    @property
    def tool(self) -> str:
        """By its family."""
        return f"ip -{self.version}"

    @property
    def _text(self) -> str:
        parts = [f"preference {self.preference}"]
        if self.to is not None:
            parts.append(f"to {self.to}")
        if self.mark:
            parts.append(f"fwmark {self.mark:#x}" + (f"/{self.mask:#x}" if self.mask else ""))
        if self.device:
            parts.append(f"iif {self.device}")
        if self.protocol:
            parts.append(f"ipproto {self.protocol}")
        if self.source_port:
            parts.append(f"sport {self.source_port}")
        if self.port:
            parts.append(f"dport {self.port}")
        parts.append(f"{self.action} {self.target}" if self.action in ("lookup", "goto") else self.action)
        if self.narrow:
            parts.append("suppress_prefixlength 0")
        return " ".join(parts)

    @property
    def make(self) -> str:
        """A line for `ip -batch`; one that is there already is an error."""
        return f"rule add {self._text}"

    @property
    def unmake(self) -> str:
        """The line that takes it back."""
        return f"rule delete {self._text}"

    @property
    def sentence(self) -> str:
        """For people."""
        return f"IPv{self.version} rule: {self._text}"


@frozen
class Firewall:
    """A table of nftables of the family inet, made anew as a whole in one transaction. `text` is the table,
    `table inet NAME { … }`, built by `firewall.py` or by the exit of checked values."""

    name: str = field(validator=_checked(_TABLE, "name of a table"))
    text: str = field(validator=_short)
    kind: ClassVar[str] = "firewall"
    tool: ClassVar[str] = "nft"

    def __attrs_post_init__(self) -> None:
        if not self.text.startswith(f"table inet {self.name} {{"):
            raise ValueError(f"the text is not that of the table {self.name}")

    @property
    def make(self) -> str:
        """A script for `nft -f`: whatever is there of that name goes, and this comes, at the same time."""
        return self.unmake + self.text

    @property
    def unmake(self) -> str:
        """The script that takes it back; it must be there to be deleted, hence the first line."""
        return f"add table inet {self.name}\ndelete table inet {self.name}\n"

    @property
    def sentence(self) -> str:
        """For people."""
        return f"nftables table inet {self.name}"


@frozen
class Sysctl:
    """A value below /proc/sys, `net/ipv4/ip_forward`. `before` is the old value."""

    key: str = field(validator=_checked(_SYSCTL, "sysctl of the network"))
    value: int = field(validator=_within(0, 0xFFFF_FFFF))
    kind: ClassVar[str] = "sysctl"
    tool: ClassVar[str] = "file"

    @property
    def sentence(self) -> str:
        """For people."""
        return f"sysctl {self.key} = {self.value}"


@frozen
class ResolverFile:
    """The content of resolv.conf. `before` is what was there (`resolver.py`)."""

    text: str = field(validator=_short)
    kind: ClassVar[str] = "resolver-file"
    tool: ClassVar[str] = "file"

    @property
    def sentence(self) -> str:
        """For people."""
        return "resolv.conf"


def _servers(values: Any) -> tuple[str, ...]:
    return tuple(str(ip_interface(each).ip) for each in values)


def _domains(values: Any) -> tuple[str, ...]:
    found = tuple(values)
    for each in found:
        if not isinstance(each, str) or _DOMAIN.fullmatch(each) is None:
            raise ValueError(f"{str(each)[:80]!r} is no domain")
    return found


@frozen
class Resolved:
    """DNS servers of an interface as systemd-resolved keeps them. They go with the interface."""

    device: str = field(validator=device_name)
    servers: tuple[str, ...] = field(converter=_servers)
    domains: tuple[str, ...] = field(converter=_domains)
    kind: ClassVar[str] = "resolved"
    tool: ClassVar[str] = "resolvectl"

    @property
    def commands(self) -> tuple[tuple[str, ...], ...]:
        """Arguments of resolvectl, call by call."""
        return (
            ("dns", self.device, *self.servers),
            ("domain", self.device, *self.domains),
            ("default-route", self.device, "yes" if "~." in self.domains else "no"),
        )

    @property
    def undo(self) -> tuple[str, ...]:
        """Arguments that take it back."""
        return ("revert", self.device)

    @property
    def sentence(self) -> str:
        """For people."""
        return f"DNS of {self.device} in systemd-resolved"


AnyChange = Address | Route | Rule | Firewall | Sysctl | ResolverFile | Resolved
IpChange = Address | Route | Rule
KINDS: Final[Mapping[str, type[Any]]] = {
    "address": Address,
    "route": Route,
    "rule": Rule,
    "firewall": Firewall,
    "sysctl": Sysctl,
    "resolver-file": ResolverFile,
    "resolved": Resolved,
}


def as_json(change: AnyChange) -> dict[str, Any]:
    """For the book."""
    return {"kind": change.kind, **asdict(change)}


def from_json(value: Mapping[str, Any]) -> AnyChange:
    """A change out of the book; raises ValueError for what is none."""
    fields = dict(value)
    cls = KINDS.get(str(fields.pop("kind", "")))
    if cls is None:
        raise ValueError(f"no change: {str(value)[:80]}")
    try:
        made: AnyChange = cls(**fields)
    except TypeError as fault:
        raise ValueError(f"no change: {fault}") from None
    return made
