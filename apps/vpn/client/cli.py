"""The verbs `vpn up`, `down`, `status`, `doctor`: all packets of this machine through an exit.

    meshnet vpn up --exit KEY --via A,B --killswitch
    meshnet vpn up --exit KEY --hops 3 --outside lan
    meshnet vpn up --exit KEY --split 10.0.0.0/8 --no-dns
    meshnet vpn status --watch
    meshnet vpn down
    meshnet vpn doctor

The node does the work. Only the doctor can do without one: then it undoes what a node has left.
"""

from __future__ import annotations

import time
from argparse import ArgumentParser, BooleanOptionalAction, Namespace
from collections.abc import Callable
from typing import Any, Final

from meshnet.cli.show import print_json, progress, progress_done, size
from meshnet.cli.watch import watch, watch_arguments
from meshnet.errors import MeshError, UnreachableError, UsageError
from meshnet.node.app import Json, Verb
from meshnet.node.presence import age

Call = Callable[[str, str, Json | None], Json]
PARTIAL: Final = 7  # exit code: some of it was not undone
_LEVELS: Final = {"ok": "ok      ", "fixed": "fixed   ", "problem": "PROBLEM "}


def _list(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _up_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--exit", metavar="KEY", help="the node to go through: its key or known name")
    way = parser.add_mutually_exclusive_group()
    way.add_argument(
        "--via",
        metavar="A,B",
        type=_list,
        help="relays, nearest first; '' for a direct link; default: the config's",
    )
    way.add_argument(
        "--hops", metavar="N", type=_number, help="so many nodes, the exit included, picked by the node"
    )
    parser.add_argument(
        "--killswitch",
        action="store_const",
        const=True,
        help="nothing leaves but through the tunnel, whatever happens, until `vpn down`",
    )
    parser.add_argument(
        "--dns", action=BooleanOptionalAction, help="ask the exit for names, and nobody else (default)"
    )
    parser.add_argument(
        "--split", metavar="NETS", type=_list, help="only these networks, such as 10.0.0.0/8,2001:db8::/32"
    )
    parser.add_argument(
        "--outside",
        metavar="NETS",
        type=_list,
        help="all but these; lan: the private networks this machine is in",
    )
    parser.add_argument("--mtu", metavar="BYTES", type=_number, help="of the interface (default 1500)")
    parser.add_argument("--interface", metavar="NAME", help="its name (default mesh-vpn)")
    parser.add_argument(
        "--as-node",
        dest="identity",
        action="store_const",
        const="node",
        help="tell the exit our key (default: anonymous)",
    )


_UP_KEYS: Final = (
    *("exit", "via", "hops", "killswitch", "dns", "split", "outside", "mtu", "interface", "identity"),
)


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 6):
        raise UsageError(f"{text!r} is no number.")
    return int(text)


def _up(arguments: Namespace, call: Call) -> int:
    body = {key: getattr(arguments, key) for key in _UP_KEYS if getattr(arguments, key) is not None}
    progress("calling the exit …")
    try:
        answer = call("POST", "/apps/vpn/tunnel", body)
    finally:
        progress_done()
    if arguments.json:
        print_json(answer)
        return 0
    _show(answer["tunnel"], None)
    return 0


def _down(arguments: Namespace, call: Call) -> int:
    answer = call("DELETE", "/apps/vpn/tunnel", None)
    if arguments.json:
        print_json(answer)
    else:
        for fault in answer["faults"]:
            print(fault)
        print(
            "down" if answer["down"] else "Not all could be undone; look at it, then run meshnet vpn doctor."
        )
    return 0 if answer["down"] else PARTIAL


def _status_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--no-trace", action="store_true", help="do not measure the hops of the way (see docs/vpn.md)"
    )
    watch_arguments(parser)


class _Looks:
    """What `vpn status` shows: the tunnel, and the way hop by hop, which is measured now and then."""

    EVERY: Final = 10.0

    def __init__(self, arguments: Namespace, call: Call) -> None:
        self._arguments = arguments
        self._call = call
        self._hops: list[Json] | None = None
        self._next = 0.0

    def show(self) -> None:
        """Once."""
        tunnel = self._call("GET", "/apps/vpn/tunnel", None)["tunnel"]
        hops = self._measured(tunnel)
        if self._arguments.json:
            print_json({"tunnel": tunnel, "hops": hops})
        else:
            _show(tunnel, hops)

    def _measured(self, tunnel: Json) -> list[Json] | None:
        """Short anonymous circuits to each prefix of the way, while somebody looks."""
        if self._arguments.no_trace or tunnel["state"] not in ("up", "stalled"):
            return None
        if time.monotonic() >= self._next:
            body: Json = {"target": tunnel["exit"], "via": tunnel["via"], "count": 1}
            progress("measuring the way …")
            try:
                self._hops = self._call("POST", "/trace", body)["hops"]
            except MeshError:
                self._hops = None
            finally:
                progress_done()
            self._next = time.monotonic() + self.EVERY
        return self._hops


def _status(arguments: Namespace, call: Call) -> int:
    return watch(_Looks(arguments, call).show, arguments)


def _show(tunnel: Json, hops: list[Json] | None) -> None:
    """For a person."""
    since = f" for {age(tunnel['up_seconds'])}" if "up_seconds" in tunnel else ""
    if tunnel["state"] == "stalled":
        since = f": nothing has come through for {age(tunnel['stalled_seconds'])}"
    print(f"state        {_STATES.get(tunnel['state'], tunnel['state'])}{since}")
    if tunnel["why"]:
        print(f"last trouble {tunnel['why']}")
    if "exit" in tunnel:
        print(f"exit         {tunnel['exit']}")
        print(f"via          {', '.join(tunnel['via']) or 'a direct link'}")
    for at, hop in enumerate(hops or (), 1):
        said = hop["error"]["message"] if "error" in hop else f"{hop['rtt_ms']:.1f} ms"
        print(f"  hop {at}      {hop['key'][:16]}…  {said}")
    if "lease" in tunnel:
        lease = tunnel["lease"]
        addresses = ", ".join(each for each in (lease["v4"], lease["v6"]) if each)
        print(f"address      {addresses} on {tunnel['interface']}, MTU {tunnel['mtu']}")
        print(f"names        {_names(tunnel)}")
    print(f"kill switch  {tunnel['kill_switch']}")
    kept = ", ".join(
        f"{_KEPT_IN.get(name, name)} {count}" for name, count in tunnel.get("kept_in", {}).items()
    )
    if kept:
        print(f"kept in      {kept}")
    for key, what in (("split", "only"), ("outside", "outside")):
        if tunnel.get(key):
            print(f"{what:<12} {', '.join(tunnel[key])}")
    if "rates" in tunnel:
        _show_figures(tunnel)
    print(f"redials      {tunnel['redials']}; {tunnel['repairs']} changes of others put back")
    for note in tunnel["notes"]:
        print(f"note         {note}")


_KEPT_IN: Final = {"blocked": "packets", "names": "questions for names"}
_STATES: Final = {"blocked": "blocked by the kill switch"}


def _names(tunnel: Json) -> str:
    if not tunnel["names"]:
        return "asked as before"
    return f"asked at {', '.join(tunnel['lease']['dns']) or 'nobody: the exit answers none'}"


def _show_figures(tunnel: Json) -> None:
    rates: dict[str, Any] = tunnel["rates"]
    for span in ("1s", "10s"):
        print(f"{'last ' + span:<12} {size(rates[f'in_{span}'])}/s in, {size(rates[f'out_{span}'])}/s out")
    if "packets" in tunnel:
        packets = tunnel["packets"]
        print(f"in all       {size(packets['bytes_in'])} in, {size(packets['bytes_out'])} out")
        print(f"round trip   {tunnel['rtt_ms']:.1f} ms; {tunnel['loss']:.2%} lost")
        for way in ("in", "out"):
            dropped = ", ".join(f"{reason} {count}" for reason, count in packets[f"dropped_{way}"].items())
            if dropped:
                print(f"{'dropped ' + way:<12} {dropped}")


def _nothing(parser: ArgumentParser) -> None:
    """No arguments of its own."""


def _doctor(arguments: Namespace, call: Call) -> int:
    try:
        findings = call("POST", "/apps/vpn/doctor", None)["findings"]
    except UnreachableError:
        findings = _without_node(arguments)
    problems = sum(1 for each in findings if each["level"] == "problem")
    if arguments.json:
        print_json({"ok": not problems, "findings": findings})
    else:
        for each in findings:
            print(f"{_LEVELS[each['level']]}{each['check']}: {each['text']}")
    return 1 if problems else 0


def _without_node(arguments: Namespace) -> list[Json]:
    """The node's book, opened here: nobody else does, since its directory is locked. Raises UsageError."""
    from apps.vpn.client.doctor import examine  # for this alone: the other verbs are quicker without
    from apps.vpn.host.host import BOOK, Host
    from meshnet.cli.files import load_settings
    from meshnet.node.dropins import find_dropins
    from meshnet.storage.disk import LockedError, RealDisk
    from meshnet.storage.files import make_directory
    from meshnet.storage.quarantine import NAME as QUARANTINE
    from meshnet.storage.quarantine import Quarantine

    disk = RealDisk()
    data = load_settings(arguments.node, find_dropins()).node.data
    make_directory(disk, data)
    try:
        lock = disk.lock(data / "lock")
    except LockedError:
        raise UsageError("The node runs, but does not answer; end it first (meshnet stop).") from None
    try:
        host = Host(disk, data / BOOK, quarantine=Quarantine(disk, data / QUARANTINE, time.time))
        try:
            findings: list[Json] = examine(host, (), standing=False)
        finally:
            host.close()
    finally:
        lock.release()
    return findings


TUNNEL_VERBS: Final = (
    Verb("up", "lead all packets of this machine through an exit", _up_arguments, _up),
    Verb("down", "put everything back as it was", _nothing, _down),
    Verb("status", "the tunnel: state, way, delays, rates, losses", _status_arguments, _status),
    Verb("doctor", "undo what a node that was killed has left; works without a node", _nothing, _doctor),
)
