"""The verbs `tun up`, `tun down`, `tun status`: the mesh interface of the running node.

meshnet tun up [--name mesh0] [--mtu 1500] [--hops N] [--callers A,B]
meshnet tun down
meshnet tun status
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Any, Final

from meshnet.cli.show import print_json, print_table, size
from meshnet.errors import UnreachableError
from meshnet.node.app import Group, Json, Verb

Call = Callable[[str, str, Json | None], Json]

_ROUTE: Final = "/apps/vpn/tun"


def _up_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--name", metavar="NAME", help="of the interface; %%d: the first free number")
    parser.add_argument("--mtu", metavar="BYTES", type=int, help="of its largest packet")
    parser.add_argument(
        "--hops",
        metavar="N",
        type=int,
        help="nodes on the way to each node, picked by chance among the known",
    )
    parser.add_argument(
        "--callers", metavar="A,B", help="only these, keys or known names, may send packets here; or any"
    )


def _up(arguments: Namespace, call: Call) -> int:
    body: Json = {"up": True}
    for name in ("name", "mtu", "hops"):
        if getattr(arguments, name) is not None:
            body[name] = getattr(arguments, name)
    if arguments.callers is not None:
        named = [part.strip() for part in arguments.callers.split(",") if part.strip()]
        body["callers"] = "any" if named == ["any"] else named
    return _show(arguments, call("POST", _ROUTE, body))


def _none(parser: ArgumentParser) -> None:
    """No arguments."""


def _down(arguments: Namespace, call: Call) -> int:
    return _show(arguments, call("POST", _ROUTE, {"up": False}))


def _status(arguments: Namespace, call: Call) -> int:
    return _show(arguments, call("GET", _ROUTE, None))


def _show(arguments: Namespace, answer: Json) -> int:
    if arguments.json:
        print_json(answer)
        return 0
    if answer["gone"] is not None:
        raise UnreachableError(answer["gone"])
    if "interface" not in answer:
        print("the mesh interface is down")
        return 0
    print(f"interface  {answer['interface']} ({'up' if answer['up'] else 'set down by somebody else'})")
    print(f"address    {answer['address']}")
    print(f"mtu        {answer['mtu']}")
    names = answer["names"]
    server = f"answered at {names['server']}" if names["server"] is not None else "not answered"
    if names.get("done"):
        server += f"; {names['done']}"
    print(f"names      {names['note'] or server}")
    if answer["peers"]:
        print_table(_COLUMNS, [_row(peer) for peer in answer["peers"]])
    for peer in answer["peers"]:
        if peer["why"]:
            print(f"{peer['name'][:16]}: {peer['why']}")
    _print_drops(answer)
    return 0


_COLUMNS: Final = ("name", "state", "rtt", "rate", "sent", "received", "waiting")


def _row(peer: Json) -> list[Any]:
    trip = f"{peer['rtt_ms']:.1f} ms" if peer["rtt_ms"] is not None else "–"
    rate = f"{size(peer['rate'])}/s"
    sizes = (size(peer[key]) for key in ("bytes_out", "bytes_in", "waiting_bytes"))
    return [peer["name"][:16], peer["state"], trip, rate, *sizes]


def _print_drops(answer: Json) -> None:
    total: dict[str, int] = dict(answer["dropped"])
    for peer in answer["peers"]:
        for counts in (peer["dropped_out"], peer["dropped_in"]):
            for name, number in counts.items():
                total[name] = total.get(name, 0) + number
    if total:
        print("dropped    " + ", ".join(f"{name} {number}" for name, number in sorted(total.items())))


TUN: Final = Group(
    "tun",
    "the mesh interface of the running node: reach any node at its IPv6 address",
    (
        Verb("up", "bring it up", _up_arguments, _up),
        Verb("down", "take it down", _none, _down),
        Verb("status", "what it is and whom it reaches", _none, _status),
    ),
)
