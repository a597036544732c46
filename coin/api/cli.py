"""The verbs `coin api key …`: keys of the REST API are made, listed and revoked.

coin api key new NAME [--scopes read,events] [--rate 100]    the key is printed once and kept nowhere
coin api key list | revoke ID
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

from coin.api.keys import SCOPES
from meshnet.cli.show import print_json, print_table
from meshnet.node.app import Group, Json, Verb

Call = Callable[[str, str, Json | None], Json]


def _new_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", metavar="NAME", help="what the key is for")
    parser.add_argument(
        "--scopes", default="read,events", help=f"of {', '.join(SCOPES)}, with commas (default %(default)s)"
    )
    parser.add_argument("--rate", type=int, default=100, help="requests per second (default %(default)s)")


def _new(arguments: Namespace, call: Call) -> int:
    scopes = [each.strip() for each in arguments.scopes.split(",")]
    body = {"name": arguments.name, "scopes": scopes, "rate": arguments.rate}
    found = call("POST", "/apps/coin/keys", body)
    if arguments.json:
        print_json(found)
    else:
        print(found["key"])
    return 0


def _nothing(parser: ArgumentParser) -> None:
    """No arguments of its own."""


def _list(arguments: Namespace, call: Call) -> int:
    found = call("GET", "/apps/coin/keys", None)
    if arguments.json:
        print_json(found)
        return 0
    rows = [
        [
            each["id"],
            each["name"],
            ",".join(each["scopes"]),
            each["rate"],
            datetime.fromtimestamp(each["created"], UTC).strftime("%Y-%m-%d"),
        ]
        for each in found["keys"]
    ]
    print_table(("ID", "NAME", "SCOPES", "RATE", "CREATED"), rows)
    return 0


def _revoke_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("id", metavar="ID", help="as `coin api key list` shows it")


def _revoke(arguments: Namespace, call: Call) -> int:
    found = call("POST", "/apps/coin/keys/revoke", {"id": arguments.id})
    if arguments.json:
        print_json(found)
    else:
        print(f"key {found['id']} ({found['name']}) is revoked")
    return 0


API: Final = Group(
    "api",
    "the REST API",
    (
        Group(
            "key",
            "its keys",
            (
                Verb("new", "make a key; it is shown this once", _new_arguments, _new),
                Verb("list", "all keys, without what is secret", _nothing, _list),
                Verb("revoke", "take a key back: who uses it is refused", _revoke_arguments, _revoke),
            ),
        ),
    ),
)
