"""The verb `vpn exit`: an exit for the IP packets of others.

    meshnet vpn exit                                         shows it and its clients
    meshnet vpn exit on --allow 10.0.0.0/8 --deny public:25 --rate 12M
    meshnet vpn exit off

The lists are those of `meshnet exit`. What is changed lasts until the node stops.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from typing import Final

from meshnet.cli.show import print_json, print_table, size
from meshnet.errors import UsageError
from meshnet.node.app import Json, Verb

_FACTORS: Final = {"": 1, "k": 10**3, "K": 10**3, "M": 10**6, "G": 10**9}


def rate(text: str) -> int:
    """Bytes a second, such as `12M` or `0`; raises UsageError."""
    number, factor = (text[:-1], text[-1]) if text[-1:] in ("k", "K", "M", "G") else (text, "")
    if not (number.isascii() and number.isdigit() and len(number) <= 12):
        raise UsageError(f"{text!r} is no rate; write bytes a second, as 12M or 1500000, or 0 for any.")
    return int(number) * _FACTORS[factor]


def _names(text: str | None) -> list[str]:
    return [part.strip() for part in (text or "").split(",") if part.strip()]


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "switch", nargs="?", choices=("on", "off"), help="pass on packets for others, or stop"
    )
    parser.add_argument(
        "--allow", metavar="RULES", help="add to the allow-list, as in public,10.0.0.0/8:80-443"
    )
    parser.add_argument("--deny", metavar="RULES", help="add to the deny-list")
    parser.add_argument("--remove-rule", metavar="RULES", help="remove from both lists")
    parser.add_argument(
        "--rate", metavar="BYTES", help="bytes a second for each client and way, as 12M; 0: any"
    )


def _run(arguments: Namespace, call: Callable[[str, str, Json | None], Json]) -> int:
    body: Json = {
        "allow": _names(arguments.allow),
        "deny": _names(arguments.deny),
        "remove": _names(arguments.remove_rule),
    }
    if arguments.switch is not None:
        body["packets"] = arguments.switch == "on"
    if arguments.rate is not None:
        body["rate"] = rate(arguments.rate)
    if any(value != [] for value in body.values()):
        answer = call("POST", "/apps/vpn/exit", body)
    else:
        answer = call("GET", "/apps/vpn/exit", None)
    if arguments.json:
        print_json({"exit": answer["exit"]})
    else:
        _show(answer["exit"])
    return 0


def _show(state: Json) -> None:
    packets = state["packets"]
    print(f"packets    {'on' if packets['on'] else 'off'}{': ' + packets['why'] if packets['why'] else ''}")
    print(f"pools      {', '.join(each for each in (packets['pool4'], packets['pool6']) if each) or 'none'}")
    for name in ("callers", "allow", "deny"):
        value = state[name]
        print(f"{name:<10} {value if isinstance(value, str) else ', '.join(value) or 'none'}")
    print(f"rate       {size(state['rate']) + '/s each way for each client' if state['rate'] else 'any'}")
    print(f"names      {', '.join(packets['dns']) or 'none'}; {packets['queries']} asked for")
    refused = ", ".join(f"{reason} {number}" for reason, number in packets["refused"].items()) or "none"
    print(f"leases     {len(packets['clients'])} of {packets['max_clients']}, {packets['leases']} in all")
    print(f"refused    {refused}")
    for way, key in (("in", "from clients"), ("out", "to clients")):
        lost = ", ".join(f"{reason} {n}" for reason, n in packets[f"dropped_{way}"].items()) or "none"
        print(
            f"{key:<13}{packets[f'packets_{way}']} packets, {size(packets[f'bytes_{way}'])}; dropped {lost}"
        )
    rejected = ", ".join(f"{reason} {number}" for reason, number in packets["rejected"].items())
    print(f"rules      rejected {rejected or 'none'}")
    rows = []
    for each in packets["clients"]:
        since, rtt = f"{each['seconds']:.0f} s", f"{each['rtt_ms']:.1f} ms"
        there, back = size(each["bytes_in"]), size(each["bytes_out"])
        rows.append([each["v4"] or each["v6"], each["caller"][:16], since, rtt, there, back])
    if rows:
        print_table(("client", "caller", "since", "rtt", "from it", "to it"), rows)


EXIT: Final = Verb(
    "exit", "pass on IP packets to the old internet for others: show, on, off, rules", _arguments, _run
)
