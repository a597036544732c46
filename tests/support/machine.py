"""A machine that is none: it takes the calls of `ip`, `nft` and `resolvectl` and answers as they do.

It knows just what `apps.vpn.host` says to them. `calls` has every call; after `die_after` things done it
raises `Killed` instead, as a process that was killed right there.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from apps.vpn.host.tools import Answer, Tools

TOOLS = Tools("/sbin/ip", "/sbin/nft", "/bin/resolvectl")


class Killed(BaseException):
    """The process is no more."""


class Machine:
    """Rules, routes, addresses and tables as sets of texts."""

    def __init__(self, *interfaces: str) -> None:
        self.interfaces = set(interfaces)
        self.rules: dict[int, list[str]] = {4: [], 6: []}
        self.routes: dict[int, list[str]] = {4: [], 6: []}
        self.addresses: list[tuple[str, str]] = []
        self.tables: dict[str, str] = {}
        self.dns: dict[str, list[str]] = {}
        self.calls: list[tuple[Sequence[str], str]] = []
        self.die_after: int | None = None
        self.refuse: str = ""
        self.lines = 0

    def remove(self, interface: str) -> None:
        """An interface goes, with all that is on it."""
        self.interfaces.discard(interface)
        self.addresses = [each for each in self.addresses if each[0] != interface]
        for routes in self.routes.values():
            routes[:] = [each for each in routes if f" dev {interface} " not in each]

    def state(self) -> Any:
        """All that can be seen, for comparing."""
        rules = {version: sorted(rules) for version, rules in self.rules.items()}
        routes = {version: sorted(routes) for version, routes in self.routes.items()}
        return rules, routes, sorted(self.addresses), dict(self.tables), dict(self.dns)

    def run(self, command: Sequence[str], text: str = "") -> Answer:
        """As `tools.run`."""
        self.calls.append((command, text))
        name, *words = command
        match name.rpartition("/")[2]:
            case "ip" if "-batch" in words:
                return self._batch(6 if "-6" in words else 4, text, force="-force" in words)
            case "ip":
                return self._show(words)
            case "nft":
                return self._nft(words, text)
            case "resolvectl":
                self._step(" ".join(words))
                if words[0] == "dns" and len(words) == 2:
                    return Answer(0, f"Link 7 ({words[1]}): {' '.join(self.dns.get(words[1], []))}\n")
                if words[0] == "dns":
                    self.dns[words[1]] = words[2:]
                if words[0] == "revert":
                    self.dns.pop(words[1], None)
                return Answer(0)
        raise AssertionError(command)

    def _step(self, line: str) -> bool:
        """One thing more that is done; whether it is refused."""
        if self.die_after is not None and self.lines >= self.die_after:
            raise Killed
        self.lines += 1
        return bool(self.refuse) and self.refuse in line

    def _batch(self, version: int, text: str, force: bool) -> Answer:
        code, errors = 0, ""
        for number, line in enumerate(text.splitlines(), 1):
            why = "Operation not permitted" if self._step(line) else self._do(version, line)
            if why:
                code, errors = 1, f"{errors}RTNETLINK answers: {why}\nCommand failed -:{number}\n"
                if not force:
                    break
        return Answer(code, "", errors)

    def _do(self, version: int, line: str) -> str:
        thing, verb, rest = line.split(" ", 2)
        words = rest.split()
        if thing == "rule":
            if (rest in self.rules[version]) == (verb == "add"):
                return "File exists" if verb == "add" else "No such file or directory"
            (self.rules[version].append if verb == "add" else self.rules[version].remove)(rest)
            return ""
        device = words[words.index("dev") + 1]
        if device not in self.interfaces:
            return f'Cannot find device "{device}"'
        if thing == "route":
            if verb == "delete" and rest not in self.routes[version]:
                return "No such process"
            self.routes[version] = [each for each in self.routes[version] if each != rest]
            if verb == "replace":
                self.routes[version].append(rest)
            return ""
        pair = (device, words[0])
        if verb == "delete" and pair not in self.addresses:
            return "Cannot assign requested address"
        self.addresses = [each for each in self.addresses if each != pair]
        if verb == "replace":
            self.addresses.append(pair)
        return ""

    def _show(self, words: Sequence[str]) -> Answer:
        if words[1:] == ["addr", "show"]:
            found = [
                {
                    "ifname": device,
                    "addr_info": [{"local": each.split("/")[0], "prefixlen": each.split("/")[1]}],
                }
                for device, each in self.addresses
            ]
            return Answer(0, json.dumps(found))
        version = int(words[1][1:])
        if words[2] == "rule":
            return Answer(0, json.dumps([self._rule(each) for each in self.rules[version]]))
        routes = [_pairs(f"dst {each}") for each in self.routes[version] if f"table {words[-1]} " in each]
        if not routes:
            return Answer(2, "", "Error: ipv4: FIB table does not exist.\nDump terminated\n")
        return Answer(0, json.dumps(routes))

    def _rule(self, text: str) -> dict[str, Any]:
        pairs = _pairs(text)
        found: dict[str, Any] = {"priority": int(pairs.pop("preference")), "src": "all"}
        if "to" in pairs:
            found["dst"], _, length = pairs.pop("to").partition("/")
            found["dstlen"] = int(length)
        for name in ("blackhole", "unreachable"):
            if pairs.pop(name, None) is not None:
                found["action"] = name
        if "lookup" in pairs:
            found["table"] = {"254": "main"}.get(pairs["lookup"], pairs["lookup"])
        names = {"goto": "goto", "fwmark": "fwmark", "ipproto": "ipproto", "sport": "sport", "dport": "dport"}
        found |= {there: pairs[here] for here, there in names.items() if here in pairs}
        if "nop" in pairs:
            found["nop"] = None
        if "/" in found.get("fwmark", ""):
            found["fwmark"], _, found["fwmask"] = found["fwmark"].partition("/")
        if "iif" in pairs:
            found["iif"] = pairs["iif"]
        if "suppress_prefixlength" in pairs:
            found["suppress_prefixlen"] = 0
        return found

    def _nft(self, words: Sequence[str], text: str) -> Answer:
        if "list" in words:
            listed = self.tables.get(words[-1])
            return (
                Answer(1, "", "Error: No such file or directory\n") if listed is None else Answer(0, listed)
            )
        if "-c" in words:
            return Answer(0)
        if self._step(text):
            return Answer(1, "", "Error: Could not process rule: Operation not permitted\n")
        lines = text.splitlines(keepends=True)
        for line in lines[:2]:
            if line.startswith("delete table inet "):
                self.tables.pop(line.split()[3], None)
        rest = "".join(lines[2:])
        if rest:
            self.tables[rest.split()[2]] = rest
        return Answer(0)


def _pairs(text: str) -> dict[str, str]:
    """`a b c d` as {a: b, c: d}; words that stand alone have none."""
    words, found = iter(text.split()), dict[str, str]()
    for word in words:
        found[word] = "" if word in ("nop", "blackhole", "unreachable") else next(words)
    return found
