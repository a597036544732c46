"""The verbs that ask a running node: status, links, circuits, ping, about, trace, stop."""

from __future__ import annotations

import json
import sys
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from typing import Any

from meshnet.cli.address import ADDRESS
from meshnet.cli.crawl import CRAWL
from meshnet.cli.join import INVITE
from meshnet.cli.paths import PATHS
from meshnet.cli.show import print_json, print_table, progress, progress_done, size
from meshnet.cli.stats import STATS
from meshnet.cli.watch import watch, watch_arguments
from meshnet.control.messages import from_json
from meshnet.errors import TimedOutError, UnreachableError, UsageError
from meshnet.node.app import Json, Verb
from meshnet.node.presence import absence

Call = Callable[[str, str, Json | None], Json]
PARTIAL = 7  # exit code: some of it worked
STOP_SECONDS = 30.0
WATCH_SECONDS = 10.0
STOP_POLL = 0.05
_LINK_HEADS = (
    "NEIGHBOUR", "NAME", "UP", "LANES", "RTT ms", "THERE, BACK ms", "IN", "OUT", "IN 10 s", "OUT 10 s",
    "ADDRESS, OR WHY NOT",
)  # fmt: skip


def _nothing(parser: ArgumentParser) -> None:
    """No arguments of its own."""


def hops(text: str) -> list[str]:
    """`--via A,B`: keys or pet names, nearest first; empty for a direct link."""
    return [part.strip() for part in text.split(",") if part.strip()]


def at_least_one(text: str) -> int:
    """A number of times."""
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise ArgumentTypeError(f"{text!r} is not a whole number of 1 or more")
    return int(text)


def _target_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("target", metavar="PUBKEY", help="public key (66 hex digits) or known name")
    parser.add_argument(
        "--via",
        type=hops,
        metavar="A,B",
        help="relays, keys or known names, nearest first; left out: the configured route",
    )


def _route_arguments(parser: ArgumentParser) -> None:
    count = 3
    _target_arguments(parser)
    parser.add_argument(
        "-c", "--count", type=at_least_one, default=count, help="round trips (default %(default)s)"
    )


def _request(arguments: Namespace) -> Json:
    return {**_question(arguments), "count": arguments.count}


def _question(arguments: Namespace) -> Json:
    body: Json = {"target": arguments.target}
    if arguments.via is not None:
        body["via"] = arguments.via
    return body


def _status(arguments: Namespace, call: Call) -> int:
    return watch(lambda: _show_status(arguments, call), arguments)


def _show_status(arguments: Namespace, call: Call) -> None:
    status = call("GET", "/status", None)
    if arguments.json:
        print_json(status)
        return
    links, limits = status["links"], status["limits"]
    rows: list[tuple[str, Any]] = [
        ("name", status["name"]),
        ("public key", status["public_key"]),
        ("network", status["network"]),
        ("up for", f"{status['uptime_seconds']:.0f} s, process {status['pid']}, version {status['version']}"),
        ("listens on", ", ".join(status["listen"]) or "nothing"),
        ("metrics", status["metrics"] or "off"),
        ("links", f"{links['up']} up, {links['configured']} configured"),
        ("circuits", status["circuits"]),
        ("local door", _door(status["door"])),
        ("onion key", _onion_key(status["onion_keys"])),
        ("bytes", f"{size(status['bytes']['received'])} received, {size(status['bytes']['sent'])} sent"),
        ("dropped", ", ".join(f"{n} {reason}" for reason, n in status["dropped"].items() if n) or "nothing"),
        (
            "accepts",
            status["accept"] if status["accept"] == "any" else f"{len(status['accept'])} keys, and its peers",
        ),
        ("limits", ", ".join(f"{name} {value}" for name, value in limits.items())),
    ]
    for name, app in status["apps"].items():
        rows += [(f"{name} {key}", _flat(value)) for key, value in app.items() if _says(value)]
    rows += [("note", note) for note in status["notes"]]
    for name, value in rows:
        print(f"{name:<14}{value}")


def _door(door: Json) -> str:
    if door["socket"] is None:
        return "closed"
    return f"{door['connections']} connections, {door['ports']} ports, {door['streams']} streams so far"


def _onion_key(keys: Json | None) -> str:
    if keys is None or not keys["epoch"]:
        return "none"
    return f"epoch {keys['epoch']}, {keys['held']} held{'' if keys['saved'] else ', not saved'}"


def _says(value: Any) -> bool:
    """Whether there is anything but zeros and emptiness in it."""
    if isinstance(value, dict):
        return any(_says(each) for each in value.values())
    return bool(value)


def _flat(value: Any) -> str:
    if isinstance(value, dict):
        parts = [f"{key} {_inner(each)}" for key, each in value.items() if _says(each) or each is False]
        return ", ".join(parts) or "-"
    if isinstance(value, list):
        return "; ".join(_flat(each) for each in value) or "none"
    return str(value)


def _inner(value: Any) -> str:
    return f"({_flat(value)})" if isinstance(value, dict) else _flat(value)


def _links(arguments: Namespace, call: Call) -> int:
    answer = call("GET", "/links", None)
    if arguments.json:
        print_json(answer)
        return 0
    rows = [_link_row(link) for link in answer["links"]]
    print_table(_LINK_HEADS, rows)
    return 0


def _link_row(link: Json) -> list[object]:
    rates_in, rates_out = link.get("rates_in", {}), link.get("rates_out", {})
    return [
        link["peer"],
        link.get("name"),
        link["up"],
        _lanes(link),
        link.get("rtt_ms"),
        _delays(link),
        size(link.get("bytes_in", 0)),
        size(link.get("bytes_out", 0)),
        size(rates_in.get("10s", 0)) + "/s",
        size(rates_out.get("10s", 0)) + "/s",
        link.get("address") or "-" if link["up"] else _absence(link),
    ]


def _circuits_arguments(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--renew", action="store_true", help="first replace the circuits begun here; open streams go on"
    )


def _absence(link: Json) -> str:
    """Since when and why it is not linked, and how often we tried."""
    tries = link.get("attempts", 0)
    tried = f" ({tries} tries)" if tries > 1 else ""
    return absence(link["lost_seconds"], link["why"]) + tried


def _lanes(link: Json) -> str:
    """How many there are; how many of them stand, if not all."""
    lanes, up = link.get("lanes"), link.get("lanes_up")
    return "-" if lanes is None else str(lanes) if up in (lanes, None) else f"{up} of {lanes}"


def _delays(link: Json) -> str:
    """One way and the other, and how sure that is."""
    there, back, around = (link.get(f"delay_{each}_ms") for each in ("there", "back", "uncertainty"))
    if there is None or back is None or around is None:
        return "-"
    return f"{there:.1f}, {back:.1f} ± {around:.1f}"


def _circuits(arguments: Namespace, call: Call) -> int:
    renewed: list[Json] = call("POST", "/circuits/renew", {})["renewed"] if arguments.renew else []
    failed = [each for each in renewed if "error" in each]
    answer = call("GET", "/circuits", None)
    code = 0 if not failed else PARTIAL if len(failed) < len(renewed) else 4
    if arguments.json:
        print_json({**answer, "renewed": renewed} if arguments.renew else answer)
        return code
    for each in renewed:
        print(f"to {each['route'][-1]}: {each.get('error') or 'renewed'}")
    rows = [_circuit_row(circuit) for circuit in answer["circuits"]]
    print_table(["ROLE", "STATE", "AGE s", "IDLE s", "STREAMS", "FROM ORIGIN", "TO ORIGIN", "WAY"], rows)
    return code


def _circuit_row(circuit: Json) -> list[object]:
    """Relays count per direction, ends what they received and sent."""
    forward, backward = circuit.get("forward"), circuit.get("backward")
    bytes_in, bytes_out = circuit.get("bytes_in", 0), circuit.get("bytes_out", 0)
    if circuit["role"] == "origin":
        bytes_in, bytes_out = bytes_out, bytes_in
    way = circuit.get("route") or [circuit.get("upstream"), circuit.get("downstream")]
    return [
        circuit["role"],
        circuit["state"],
        circuit.get("age"),
        circuit.get("idle"),
        circuit.get("streams"),
        size(forward["bytes"] if isinstance(forward, dict) else bytes_in),
        size(backward["bytes"] if isinstance(backward, dict) else bytes_out),
        " > ".join(str(key)[:10] for key in way if key),
    ]


def _ping_arguments(parser: ArgumentParser) -> None:
    _route_arguments(parser)
    parser.add_argument(
        "--clock", action="store_true", help="also how long each way takes, if that node shows its clock"
    )


def _ping(arguments: Namespace, call: Call) -> int:
    progress("setting up a circuit …")
    body = _request(arguments)
    if arguments.clock:
        body["clock"] = True
    try:
        report = call("POST", "/ping", body)
    finally:
        progress_done()
    if arguments.json:
        print_json(report)
    else:
        print(f"{report['target']} {_over(len(report['via']))}: {_measured(report)}")
    return PARTIAL if report.get("lost") or "error" in report.get("clock", {}) else 0


def _about(arguments: Namespace, call: Call) -> int:
    progress("setting up a circuit …")
    try:
        report = call("POST", "/about", _question(arguments))
    finally:
        progress_done()
    if arguments.json:
        print_json(report)
        return 0
    for name in ("target", "version", "name"):
        print(f"{name:<14}{report[name] or 'not told'}")
    return 0


def _over(relays: int) -> str:
    return f"over {relays} relays" if relays > 1 else "over one relay" if relays else "over a direct link"


def _measured(report: Json) -> str:
    parts = [f"set-up {report['setup_ms']:.1f} ms"]
    if report["received"]:
        least, most = report["rtt_min_ms"], report["rtt_max_ms"]
        parts.append(f"round trip {report['rtt_ms']:.2f} ms (least {least:.2f}, most {most:.2f})")
    parts.append(f"{report['received']} of {report['sent']} answered")
    if report.get("lost"):
        parts.append(f"then lost: {report['lost']}")
    clock = report.get("clock")
    if clock and "error" in clock:
        parts.append(f"not its clock: {clock['error']['message']}")
    elif clock:
        sure = f"± {clock['uncertainty_ms']:.2f}"
        parts.append(f"there {clock['there_ms']:.2f}, back {clock['back_ms']:.2f} {sure} ms")
        parts.append(f"its clock {clock['offset_ms']:+.2f} {sure} ms")
    return ", ".join(parts)


def _trace_arguments(parser: ArgumentParser) -> None:
    _route_arguments(parser)
    parser.add_argument(
        "--watch", action="store_true", help=f"again every {WATCH_SECONDS:.0f} s, until Ctrl-C"
    )


def _trace(arguments: Namespace, call: Call) -> int:
    while True:
        progress("setting up a circuit to each hop …")
        try:
            report = call("POST", "/trace", _request(arguments))
        finally:
            progress_done()
        _show_trace(report, arguments.json)
        if not arguments.watch:
            return _trace_code(report)
        sys.stdout.flush()
        time.sleep(WATCH_SECONDS)


def _show_trace(report: Json, as_json: bool) -> None:
    if as_json:
        print_json(report)
        return
    for hop in report["hops"]:
        said = hop["error"]["message"] if "error" in hop else _measured(hop)
        count = hop.get("hidden_hops")
        tail = f"  (hidden service; a trace does not show its {count} hops)" if count else ""
        print(f"{hop['hop']}  {hop['key']}{tail}  {said}")


def _trace_code(report: Json) -> int:
    if report["complete"]:
        return 0
    first = report["hops"][0]
    return from_json(first).exit_code if all("error" in hop for hop in report["hops"]) else PARTIAL


def _stop(arguments: Namespace, call: Call) -> int:
    """Returns when the node's control socket is gone, which is when all else is."""
    answer = call("POST", "/stop", None)
    limit = time.monotonic() + STOP_SECONDS
    while time.monotonic() < limit:
        progress("stopping …")
        try:
            call("GET", "/status", None)
        except UnreachableError:
            progress_done()
            if arguments.json:
                print_json({**answer, "stopped": True})
            return 0
        except UsageError:
            pass  # its routes are gone, the node not yet
        time.sleep(STOP_POLL)
    raise TimedOutError(f"The node has not stopped after {STOP_SECONDS:.0f} s.")


def _state(arguments: Namespace, call: Call) -> int:
    """Always JSON; a person reads it through before sending it."""
    print(json.dumps(call("GET", "/state", None), indent=None if arguments.json else 2))
    return 0


def _reload(arguments: Namespace, call: Call) -> int:
    """Exit code 7 if the machine refused a part of it; a wrong config changes nothing and exits 2."""
    report = call("POST", "/reload", {})
    if arguments.json:
        print_json(report)
    else:
        for change in report["applied"]:
            print(f"applied: {change}")
        for key in report["restart"]:
            print(f"for the next start: {key}")
        for failure in report["failed"]:
            print(f"failed: {failure}")
        if not any(report.values()):
            print("nothing has changed")
    return PARTIAL if report["failed"] else 0


NODE_VERBS = (
    Verb("status", "who this node is, what it does and what it dropped", watch_arguments, _status),
    Verb("links", "its neighbours: round trip, bytes, throughput", _nothing, _links),
    Verb("circuits", "circuits that begin, end or pass here", _circuits_arguments, _circuits),
    Verb("ping", "set up a circuit to a node and measure it", _ping_arguments, _ping),
    Verb("about", "what another node says of itself", _target_arguments, _about),
    Verb(
        "trace",
        "measure a circuit to each hop of a route",
        _trace_arguments,
        _trace,
    ),
    ADDRESS,
    STATS,
    *PATHS,
    INVITE,
    *CRAWL,
    Verb("state", "a dump for a bug report, as JSON, without secrets and names", _nothing, _state),
    Verb("reload", "take over a changed config without dropping links", _nothing, _reload),
    Verb("stop", "end the running node", _nothing, _stop),
)
