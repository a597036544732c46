"""Looks after what the VPN changes in this machine; with or without a running node.

What stands in the book and nobody stands for is undone, what is in the machine and in no book as well. A
finding is `level` (`ok`, `fixed`, `problem`), `check` and `text`, a sentence.
"""

from __future__ import annotations

from typing import Final

from apps.vpn.client import system
from apps.vpn.host.host import Host
from meshnet.errors import MeshError
from meshnet.node.app import Json

STRAY: Final = "stray"
"""Owner of what was found in no book, while it is undone."""


def examine(host: Host, owners: tuple[str, ...], standing: bool) -> list[Json]:
    """Work for the host. `standing`: the tunnel is there, so what it changed is to be so; else it is to be
    undone, for each of `owners` (none given: all)."""
    findings = [_finding("problem", "book", note) for note in host.notes]
    tools = host.tools
    if tools.ip is None:
        findings.append(_finding("problem", "tools", "The program ip is missing; install iproute2."))
        return findings
    if tools.nft is None:
        text = "The program nft is missing; install nftables for the kill switch to have no gaps."
        findings.append(_finding("problem", "tools", text))
    try:
        if standing:
            findings += [
                _finding("fixed", "tunnel", f"Put back: {change.sentence}.")
                for change in host.repair(system.OWNER)
            ]
        else:
            findings += _undone(host, owners)
        findings += _strays(host)
    except MeshError as why:
        findings.append(_finding("problem", "system", str(why)))
    if system.is_orphan(host):
        text = f"{host.resolv} was written by a VPN, and what was there before is not known; write a new one."
        findings.append(_finding("problem", "names", text))
    if not findings:
        findings.append(_finding("ok", "system", "Everything is as it should be."))
    return findings


def _undone(host: Host, owners: tuple[str, ...]) -> list[Json]:
    findings = []
    for owner in owners or host.owners():
        before = host.standing(owner)
        faults = host.undo(owner)
        done = len(before) - len(host.standing(owner))
        if done:
            text = f"Undone what a node that ended has left: {done} changes of the system ({owner})."
            findings.append(_finding("fixed", "system", text))
        findings += [_finding("problem", "system", fault) for fault in faults]
    return findings


def _strays(host: Host) -> list[Json]:
    found = system.strays(host)
    if not found:
        return []
    faults = host.remove(STRAY, found)
    texts = [f"Removed: {change.sentence}, which was in no book." for change in found]
    return [_finding("problem", "system", fault) for fault in faults] or [
        _finding("fixed", "system", text) for text in texts
    ]


def _finding(level: str, check: str, text: str) -> Json:
    return {"level": level, "check": check, "text": text}
