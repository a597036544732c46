"""The verb `address`: hidden services of a running node and their addresses.

meshnet address list
meshnet address new [--hops A,B] [--name NAME] [--expires 30d]      prints the address, and nothing else
meshnet address renew NAME [--hops A,B] [--expires 30d]
meshnet address remove NAME
"""

from __future__ import annotations

import re
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Final

from meshnet.cipher.address import ago
from meshnet.cli.show import print_json
from meshnet.errors import UsageError
from meshnet.node.app import Json, Verb

Call = Callable[[str, str, Json | None], Json]

_UNITS: Final = {"m": 60, "h": 3_600, "d": 86_400}
_SPAN: Final = re.compile(r"([1-9][0-9]{0,5})([mhd])")


def span(text: str) -> int:
    """`90m`, `12h`, `30d` in seconds."""
    found = _SPAN.fullmatch(text)
    if found is None:
        raise ArgumentTypeError(f"{text!r} is no time span; write 90m, 12h or 30d")
    return int(found[1]) * _UNITS[found[2]]


def _arguments(parser: ArgumentParser) -> None:
    parser.add_argument("action", nargs="?", choices=("list", "new", "renew", "remove"), default="list")
    parser.add_argument("service", nargs="?", metavar="NAME", help="the service to renew or remove")
    parser.add_argument(
        "--hops",
        metavar="A,B",
        help="up to 3 relays, keys or known names, in the order of the call: the first is public, the "
        "last a neighbour of this node. Without any, the address names this node",
    )
    parser.add_argument("--name", help="what to call the new service here")
    parser.add_argument("--expires", type=span, metavar="SPAN", help="90m, 12h or 30d (default 30d)")


def _address(arguments: Namespace, call: Call) -> int:
    if arguments.action == "list":
        return _list(arguments, call("GET", "/addresses", None))
    body: Json = {}
    if arguments.hops is not None:
        body["hops"] = [part.strip() for part in arguments.hops.split(",") if part.strip()]
    if arguments.expires is not None:
        body["seconds"] = arguments.expires
    name = arguments.name if arguments.name is not None else arguments.service
    if name is not None:
        body["name"] = name
    elif arguments.action != "new":
        raise UsageError(f"NAME, the service to {arguments.action}, is missing; `meshnet address` lists.")
    if arguments.action == "remove":
        return _removed(arguments, call("DELETE", "/addresses", body))
    made = call("POST", "/addresses" if arguments.action == "new" else "/addresses/renew", body)
    if arguments.json:
        print_json(made)
        return 0
    print(made["address"])
    print(_told(made), file=sys.stderr)
    return 0


def _told(made: Json) -> str:
    """What a person should know of a new address."""
    text = f"service {made['name']}, key {made['key']}, good for {_left(made)}"
    if not made["hidden"]:
        return f"{text}; it names this node, since it has no --hops"
    return text if made["state"] == "ready" else f"{text}; not reachable now: {made['state']}"


def _left(address: Json) -> str:
    left: float = address["expires_unix"] - time.time()
    return ago(left + 1) if left > 0 else "no longer"


def _list(arguments: Namespace, answer: Json) -> int:
    if arguments.json:
        print_json(answer)
        return 0
    if not answer["services"]:
        print("none")
    for service in answer["services"]:
        ports = ", ".join(map(str, service["ports"])) or "none"
        print(f"{service['name']}  key {service['key']}  ports {ports}")
        for each in service["addresses"]:
            hops = " > ".join(hop[:8] for hop in each["hops"]) or "no relays: it names this node"
            print(f"  {each['state']}; good for {_left(each)}; {hops}")
            print(f"  {each['address']}")
    return 0


def _removed(arguments: Namespace, answer: Json) -> int:
    if arguments.json:
        print_json(answer)
    else:
        print(f"removed {answer['removed']}")
    return 0


ADDRESS: Final = Verb("address", "hidden services: list, new, renew, remove", _arguments, _address)
