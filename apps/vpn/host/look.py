"""What of our changes the machine has now: read from the tools' JSON, compared with the changes as values.

Each `Look` asks each question at most once; make a new one to look again. What a tool cannot answer (no such
table, no such interface) is not there; an answer that is no JSON raises LocalError.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from ipaddress import ip_interface, ip_network
from pathlib import Path
from typing import Any, Final, TypeVar

from apps.vpn.host.changes import Address, AnyChange, Firewall, Resolved, ResolverFile, Route, Rule, Sysctl
from apps.vpn.host.resolver import current
from apps.vpn.host.tools import Answer, Run, Tools
from meshnet.errors import LocalError
from meshnet.storage.disk import Disk

T = TypeVar("T")

_TABLES: Final = {"default": 253, "main": 254, "local": 255}
_LINES: Final = r"(?:\t\t(?!elements)[^\n]*\n)*"
_DYNAMIC: Final = re.compile(
    rf"(\tset \w+ {{\n{_LINES}\t\tflags [^\n]*dynamic[^\n]*\n{_LINES})\t\telements = {{[^}}]*}}\n"
)
"""Elements of sets that rules fill, as `nft list` shows them."""
_ALL: Final = {4: "0.0.0.0/0", 6: "::/0"}


class Look:
    """One look at the machine. `listed` are tables of nft as they were listed when they were made."""

    def __init__(
        self, tools: Tools, run: Run, *, disk: Disk, resolv: Path, proc: Path, listed: dict[str, str]
    ) -> None:
        self._tools = tools
        self._run = run
        self._disk = disk
        self._resolv = resolv
        self._proc = proc
        self._listed = listed
        self._known: dict[Any, Any] = {}

    def has(self, change: AnyChange) -> bool:
        """Whether this change stands now."""
        match change:
            case Rule():
                return change in self.rules(change.version)
            case Route():
                key = (str(ip_network(change.to)), change.device, change.metric)
                return key in self._routes(ip_network(change.to).version, change.table)
            case Address():
                return str(ip_interface(change.address)) in self._addresses(change.device)
            case Firewall():
                listed = self.table(change.name)
                return listed is not None and self._listed.get(change.name, listed) == listed
            case Sysctl():
                return self.sysctl(change.key) == change.value
            case ResolverFile():
                return current(self._disk, self._resolv) == change.text
            case Resolved():
                return self._resolved(change)

    def rules(self, version: int) -> tuple[Rule, ...]:
        """The rules of policy routing, as far as they can be said as `Rule`."""

        def ask() -> tuple[Rule, ...]:
            found = (_rule(version, each) for each in self._ip(f"-{version}", "rule", "show"))
            return tuple(rule for rule in found if rule is not None)

        return self._once(("rules", version), ask)

    def table(self, name: str) -> str | None:
        """A table of nft as it is listed, without what its rules count or put into sets; None if there is
        none."""

        def ask() -> str | None:
            if self._tools.nft is None:
                return None
            answer = self._run((self._tools.nft, "-s", "list", "table", "inet", name), "")
            return None if answer.code else _DYNAMIC.sub(r"\1", answer.output)

        return self._once(("table", name), ask)

    def sysctl(self, key: str) -> int | None:
        """A value below /proc/sys; None where there is none, or no number."""
        try:
            return int((self._proc / key).read_text())
        except (OSError, ValueError):
            return None

    def networks(self) -> tuple[tuple[str, str], ...]:
        """Interface and network of every address of the machine."""

        def ask() -> tuple[tuple[str, str], ...]:
            return tuple(
                (str(each["ifname"]), f"{info['local']}/{info['prefixlen']}")
                for each in self._ip("addr", "show")
                for info in each.get("addr_info", ())
                if "local" in info
            )

        return self._once("networks", ask)

    def _addresses(self, device: str) -> frozenset[str]:
        return frozenset(str(ip_interface(address)) for name, address in self.networks() if name == device)

    def _routes(self, version: int, table: int) -> frozenset[tuple[str, str, int]]:
        def ask() -> frozenset[tuple[str, str, int]]:
            found = self._ip(f"-{version}", "route", "show", "table", str(table))
            return frozenset(
                (
                    str(ip_network(_ALL[version] if each["dst"] == "default" else each["dst"])),
                    str(each.get("dev", "")),
                    int(each.get("metric", 0)),
                )
                for each in found
                if "dst" in each
            )

        return self._once(("routes", version, table), ask)

    def _resolved(self, change: Resolved) -> bool:
        def ask() -> Answer:
            return self._run((str(self._tools.resolvectl), "dns", change.device), "")

        if self._tools.resolvectl is None:
            return False
        answer: Answer = self._once(("resolved", change.device), ask)
        return not answer.code and set(change.servers) <= set(answer.output.split())

    def _ip(self, *arguments: str) -> list[dict[str, Any]]:
        answer = self._run((self._tools.require_ip(), "-j", *arguments), "")
        text = answer.output.strip()
        if answer.code or not text:
            return []
        try:
            found: list[dict[str, Any]] = json.loads(text)
        except ValueError:
            raise LocalError(
                f"The command ip {' '.join(arguments)} said what is no JSON; update iproute2."
            ) from None
        return found

    def _once(self, key: Any, ask: Callable[[], T]) -> T:
        if key not in self._known:
            self._known[key] = ask()
        found: T = self._known[key]
        return found


def _rule(version: int, found: dict[str, Any]) -> Rule | None:
    """A rule as `ip -j rule show` tells it; None for one that cannot be of ours."""
    own = {"priority", "src", "dst", "dstlen", "fwmark", "ipproto", "sport", "dport", "table", "goto", "nop"}
    own |= {"action", "suppress_prefixlen", "protocol", "fwmask", "iif", "iif_detached"}
    if set(found) - own or found.get("src") != "all":
        return None
    action = str(found.get("action", "goto" if "goto" in found else "nop" if "nop" in found else "lookup"))
    to = None
    if "dst" in found:
        to = f"{found['dst']}/{found.get('dstlen', 32 if version == 4 else 128)}"
    table = str(found.get("table", "0"))
    try:
        return Rule(
            version,
            int(found["priority"]),
            action,  # type: ignore[arg-type]  # checked there
            int(found.get("goto", _TABLES.get(table) or int(table))),
            to,
            int(str(found.get("fwmark", "0")), 0),
            str(found.get("ipproto", "")),  # type: ignore[arg-type]
            int(found.get("sport", 0)),
            int(found.get("dport", 0)),
            "suppress_prefixlen" in found,
            int(str(found.get("fwmask", "0")), 0),
            str(found.get("iif", "")),
        )
    except (ValueError, KeyError, TypeError):
        return None
