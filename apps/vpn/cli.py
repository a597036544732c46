"""The verbs `socks`, `forward`, `serve`, `exit`, and the group `vpn`: what a node does for other programs.

    meshnet socks                                            lists
    meshnet socks 127.0.0.1:1080 --exit KEY --via A,B        adds; prints where it is bound
    meshnet socks 127.0.0.1:1080 --remove
    meshnet forward 127.0.0.1:8080 KEY:80 --via A,B
    meshnet serve 80 127.0.0.1:8000 --callers A,B --address NAME
    meshnet exit [on|off] --allow 10.0.0.0/8:80,public --deny public:25 --remove-rule public

A key is 66 hex digits or a name of the config, and where a call goes to, the address of a hidden service as
well. What is added lasts until the node stops. The verbs of the group `vpn` stand in modules of their own.
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from typing import Any, Final

from apps.vpn import gateway_cli
from apps.vpn.client.cli import TUNNEL_VERBS
from apps.vpn.mesh.cli import TUN
from meshnet.cli.show import print_json, print_table, size
from meshnet.errors import UsageError
from meshnet.node.app import Group, Json, Verb
from meshnet.node.presence import age

Call = Callable[[str, str, Json | None], Json]

_WHERE: Final = "HOST:PORT, where it listens,"


def _names(text: str) -> list[str]:
    """A list with commas; empty: none."""
    return [part.strip() for part in text.split(",") if part.strip()]


def _route(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--via",
        metavar="A,B",
        help="relays, keys or known names, nearest first; '' for a direct link; default: the config's",
    )
    parser.add_argument("--policy", metavar="P", help="a path policy, where no relays are named")
    parser.add_argument(
        "--as-node", action="store_true", help="tell the far side our key (default: anonymous)"
    )


def _with_route(arguments: Namespace, body: Json) -> Json:
    if arguments.via is not None:
        body["via"] = _names(arguments.via)
    if arguments.policy is not None:
        body["policy"] = arguments.policy
    if arguments.as_node:
        body["identity"] = "node"
    return body


def _socks_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("listen", nargs="?", metavar="HOST:PORT", help="where to listen; port 0: a free one")
    parser.add_argument("--exit", metavar="KEY", help="the node that connects for you: its key or known name")
    parser.add_argument("--remove", action="store_true", help="stop listening there")
    _route(parser)


def _socks(arguments: Namespace, call: Call) -> int:
    if not _given(arguments, "listen", "exit", "remove", "via", "policy", "as_node"):
        return _list(
            arguments, call("GET", "/apps/vpn/socks", None), "socks", ("listen", "exit", "via", "policy")
        )
    if arguments.remove:
        return _remove(arguments, call, "socks", {"listen": _needed(arguments.listen, _WHERE)})
    body: Json = {"exit": _needed(arguments.exit, "--exit KEY, the node that connects for you,")}
    if arguments.listen is not None:
        body["listen"] = arguments.listen
    made = call("POST", "/apps/vpn/socks", _with_route(arguments, body))
    return _tell(arguments, made, f"SOCKS5 on {made['listen']}, exit {made['exit']}")


def _forward_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("listen", nargs="?", metavar="HOST:PORT", help="where to listen; port 0: a free one")
    parser.add_argument(
        "to", nargs="?", metavar="KEY:PORT", help="the node, its key or known name, and its mesh port"
    )
    parser.add_argument("--remove", action="store_true", help="stop listening there")
    _route(parser)


def _forward(arguments: Namespace, call: Call) -> int:
    if not _given(arguments, "listen", "to", "remove", "via", "policy", "as_node"):
        return _list(
            arguments,
            call("GET", "/apps/vpn/forward", None),
            "forward",
            ("listen", "to", "port", "via", "policy"),
        )
    listen = _needed(arguments.listen, _WHERE)
    if arguments.remove:
        return _remove(arguments, call, "forward", {"listen": listen})
    key, colon, port = _needed(arguments.to, "KEY:PORT, the node and its mesh port,").rpartition(":")
    if not colon:
        raise UsageError(
            f"{arguments.to!r} is not KEY:PORT; say which mesh port of that node, as in {port}:80."
        )
    body = {"listen": listen, "to": key, "port": _number(port)}
    made = call("POST", "/apps/vpn/forward", _with_route(arguments, body))
    return _tell(arguments, made, f"{made['listen']} leads to mesh port {made['port']} of {made['to']}")


def _serve_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("port", nargs="?", metavar="PORT", help="the mesh port")
    parser.add_argument("target", nargs="?", metavar="HOST:PORT", help="the local address it leads to")
    parser.add_argument(
        "--callers", metavar="A,B", help="only these, keys or known names, may call, and have to prove it"
    )
    parser.add_argument(
        "--address", metavar="NAME", help="a port of this hidden service, see `meshnet address`"
    )
    parser.add_argument("--remove", action="store_true", help="serve that port no more")


def _serve(arguments: Namespace, call: Call) -> int:
    if not _given(arguments, "port", "target", "remove", "callers", "address"):
        return _list(
            arguments, call("GET", "/apps/vpn/serve", None), "serve", ("port", "target", "callers", "address")
        )
    port = _number(_needed(arguments.port, "PORT, the mesh port,"))
    if arguments.remove:
        return _remove(arguments, call, "serve", _of_service(arguments, {"port": port}))
    body: Json = {
        "port": port,
        "target": _needed(arguments.target, "HOST:PORT, the local address it leads to,"),
    }
    if arguments.callers is not None:
        body["callers"] = _names(arguments.callers)
    made = call("POST", "/apps/vpn/serve", _of_service(arguments, body))
    of = f" of {made['address']}" if made["address"] else ""
    return _tell(arguments, made, f"mesh port {made['port']}{of} leads to {made['target']}")


def _of_service(arguments: Namespace, body: Json) -> Json:
    return body if arguments.address is None else {**body, "address": arguments.address}


def _exit_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("switch", nargs="?", choices=("on", "off"), help="connect for others, or stop")
    parser.add_argument(
        "--allow", metavar="RULES", help="add to the allow-list, as in public,10.0.0.0/8:80-443"
    )
    parser.add_argument("--deny", metavar="RULES", help="add to the deny-list")
    parser.add_argument("--remove-rule", metavar="RULES", help="remove from both lists")


def _exit(arguments: Namespace, call: Call) -> int:
    body: Json = {
        "allow": _names(arguments.allow or ""),
        "deny": _names(arguments.deny or ""),
        "remove": _names(arguments.remove_rule or ""),
    }
    if arguments.switch is not None:
        body["enabled"] = arguments.switch == "on"
    if any(value != [] for value in body.values()):
        answer = call("POST", "/apps/vpn/exit", body)
    else:
        answer = call("GET", "/apps/vpn/exit", None)
    if arguments.json:
        print_json(answer)
        return 0
    state = answer["exit"]
    print(f"exit       {'on' if state['enabled'] else 'off'}")
    for name in ("callers", "allow", "deny"):
        value = state[name]
        print(f"{name:<10} {value if isinstance(value, str) else ', '.join(value) or 'none'}")
    print(f"source     {state['source'] or 'any'}")
    print(f"rate       {size(state['rate']) + '/s for each client' if state['rate'] else 'any'}")
    if "counts" in answer:
        _print_counts(answer["counts"])
    return 0


def _list(arguments: Namespace, answer: Json, name: str, columns: Sequence[str]) -> int:
    if arguments.json:
        print_json(answer)
        return 0
    rows = [[_short(each[column]) for column in columns] for each in answer[name]]
    if rows:
        print_table(columns, rows)
    else:
        print("none")
    for each in answer[name]:
        if each["last_error"]:
            when = f"{age(each['last_error_seconds'])} ago"
            print(f"last error of {each[columns[0]]}, {when}: {each['last_error']}")
    _print_counts(answer["counts"])
    return 0


def _print_counts(counts: Json) -> None:
    refused = ", ".join(f"{reason} {number}" for reason, number in counts["refused"].items()) or "none"
    sent, got = size(counts["bytes_to_mesh"]), size(counts["bytes_from_mesh"])
    print(f"streams {counts['open']} open, {counts['streams']} in all; {sent} to the mesh, {got} from it")
    print(f"refused {refused}")


def _short(value: Any) -> Any:
    """Keys and routes for a table: the first 16 digits of a key."""
    if isinstance(value, list):
        return ",".join(str(_short(each)) for each in value) or "direct"
    if isinstance(value, str) and len(value) == 66:
        return value[:16]
    return "config" if value is None else value


def _remove(arguments: Namespace, call: Call, name: str, body: Json) -> int:
    answer = call("DELETE", f"/apps/vpn/{name}", body)
    return _tell(arguments, answer, f"removed {answer['removed']}")


def _tell(arguments: Namespace, answer: Json, sentence: str) -> int:
    if arguments.json:
        print_json(answer)
    else:
        print(sentence)
    return 0


def _given(arguments: Namespace, *names: str) -> bool:
    """Whether any of these is on the command line."""
    return any(getattr(arguments, name) not in (None, False) for name in names)


def _needed(value: str | None, name: str) -> str:
    if value is None:
        raise UsageError(f"{name} is missing; see --help.")
    return value


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 5):
        raise UsageError(f"{text!r} is no mesh port; give a number from 1 to 65535.")
    return int(text)


VERBS: Final = (
    Verb("socks", "SOCKS5 ports of the running node: list, add, remove", _socks_arguments, _socks),
    Verb(
        "forward", "local TCP ports that lead to mesh ports: list, add, remove", _forward_arguments, _forward
    ),
    Verb("serve", "mesh ports that lead to local addresses: list, add, remove", _serve_arguments, _serve),
    Verb("exit", "connect to the old internet for others: show, on, off, rules", _exit_arguments, _exit),
    Group("vpn", "all packets of this machine through an exit; an exit", (*TUNNEL_VERBS, gateway_cli.EXIT)),
    TUN,
)
