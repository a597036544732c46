"""The command `meshnet`: its arguments, its verbs, and what it exits with.

Exit codes: 0 ok, 1 failed, 2 usage or bad input, 3 missing dependency or unsupported platform,
4 unreachable, 5 refused by policy, 6 timed out, 7 partial. An error is one sentence on stderr, never a
traceback (but with $MESHNET_DEBUG); with `--json` it is also JSON on stdout. Verbs of apps come from their
dropins.
"""

from __future__ import annotations

import os
import sys
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from meshnet import __version__
from meshnet.cli.doctor import doctor, doctor_arguments
from meshnet.cli.files import config_check, config_file, directory_argument, init, init_arguments
from meshnet.cli.join import JOIN, join, join_arguments
from meshnet.cli.key import KEY_VERBS, ask_password
from meshnet.cli.show import as_told, print_json, tell
from meshnet.cli.stdio import STDIO_VERBS
from meshnet.cli.verbs import NODE_VERBS
from meshnet.control.client import ControlClient
from meshnet.control.find import find_socket
from meshnet.control.messages import to_json
from meshnet.errors import UsageError
from meshnet.node.app import Group, Json, Verb
from meshnet.node.dropins import Dropins, find_dropins

Run = Callable[[Namespace], int]
LEVELS = ("debug", "info", "warn", "error")
DOCTOR = "what is wrong with a node, and how to mend it"
INIT = "make a key and a config: of a node that listens, dials and relays only where it is told to"
INTERRUPTED = 130  # exit code after Ctrl-C on a verb, as shells expect


class _Parser(ArgumentParser):
    """Says what is wrong in one sentence; options are written out."""

    def __init__(self, **more: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **more})

    def error(self, message: str) -> NoReturn:
        raise UsageError(f"{message[:1].upper()}{message[1:]}; see {self.prog} --help.")


def main(argv: Sequence[str], found: Dropins | None = None) -> int:
    """Runs one command and returns its exit code. Only `--help` and `--version` leave by SystemExit."""
    try:
        found = find_dropins() if found is None else found
        arguments = build_parser(found).parse_args(argv)
        run: Run = arguments.run_verb
        code = run(arguments)
        sys.stdout.flush()
        return code
    except BrokenPipeError:  # the reader has gone, as in `meshnet links | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except KeyboardInterrupt:
        return INTERRUPTED
    except Exception as error:
        told = as_told(error)
        if "--json" in argv:
            print_json(to_json(told)[1])
        return tell(told)


def build_parser(found: Dropins) -> ArgumentParser:
    """All verbs, those of apps included."""
    parser = _Parser(
        prog="meshnet",
        description="A mesh router: nodes are public keys, the source chooses the route.",
        epilog="\n".join(found.broken),
        formatter_class=RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=__version__)
    verbs = parser.add_subparsers(dest="verb", required=True, metavar="VERB", parser_class=_Parser)
    up = _verb(verbs, "up", "run a node in the foreground", lambda arguments: _up(arguments, found))
    directory_argument(up)
    up.add_argument("--config", metavar="FILE", help="the config file, instead of a directory")
    up.add_argument("--log-level", choices=LEVELS, help="instead of [log] level")
    init_arguments(_verb(verbs, "init", INIT, lambda a: init(a, found), node=False))
    join_arguments(_verb(verbs, "join", JOIN, lambda a: join(a, found), node=False))
    key = _group(verbs, "key", "the node's key")
    for name, summary, arguments, run in KEY_VERBS:
        arguments(_verb(key, name, summary, partial(_with, run, found)))
    doctor_arguments(_verb(verbs, "doctor", DOCTOR, lambda a: doctor(a, found)))
    config = _group(verbs, "config", "the config file")
    directory_argument(_verb(config, "check", "say what is wrong with it", lambda a: config_check(a, found)))
    taken = set(verbs.choices)
    for verb in [*NODE_VERBS, *STDIO_VERBS, *_app_verbs(found)]:
        if verb.name not in taken:
            taken.add(verb.name)
            _add(verbs, verb)
    return parser


def _add(verbs: Any, verb: Verb | Group) -> None:
    """A verb of the seam, or a group of them with all that is below it."""
    if isinstance(verb, Group):
        below = _group(verbs, verb.name, verb.summary)
        for each in verb.verbs:
            _add(below, each)
    else:
        verb.arguments(_verb(verbs, verb.name, verb.summary, _asking(verb)))


def _verb(verbs: Any, name: str, summary: str, run: Run, node: bool = True) -> ArgumentParser:
    parser: ArgumentParser = verbs.add_parser(
        name, help=summary, description=summary[:1].upper() + summary[1:]
    )
    parser.add_argument("--json", action="store_true", help="print JSON")
    if node:
        parser.add_argument(
            "--node", metavar="DIR", help="the node's directory, config file or control socket"
        )
    parser.set_defaults(run_verb=run)
    return parser


def _group(verbs: Any, name: str, summary: str) -> Any:
    parser: ArgumentParser = verbs.add_parser(name, help=summary)
    return parser.add_subparsers(dest=f"{name}_verb", required=True, metavar="VERB", parser_class=_Parser)


def _app_verbs(found: Dropins) -> list[Verb | Group]:
    verbs: list[Verb | Group] = []
    for app in found.apps:
        try:
            verbs.extend(app.verbs())
        except Exception as error:  # a stranger's code: the other verbs still work
            print(f"meshnet: app {app.name} has no verbs: {error}", file=sys.stderr)
    return verbs


def _with(run: Callable[[Namespace, Dropins], int], found: Dropins, arguments: Namespace) -> int:
    return run(arguments, found)


def _asking(verb: Verb) -> Run:
    """Runs a verb with a call of the node's control API; the node is looked for at the first call."""

    def run(arguments: Namespace) -> int:
        def call(method: str, path: str, body: Json | None) -> Json:
            socket = find_socket(arguments.node, os.environ, Path.cwd())
            return ControlClient(socket).call(method, path, body)

        return verb.run(arguments, call)

    return run


def _up(arguments: Namespace, found: Dropins) -> int:
    from meshnet.cli.running import Foreground, begin_logging  # a whole node: slow to import
    from meshnet.node.start import open_node

    log = begin_logging(arguments.log_level, sys.stderr)
    file = config_file(arguments.config or arguments.directory or arguments.node)
    if sys.platform.startswith("linux"):
        from meshnet.cli.reactor import install

        install()
    from twisted.internet import reactor  # only a running node needs one

    node = open_node(file, reactor, found, ask_password)
    log.apply(node.settings.log)
    node.log = log
    return Foreground(node, reactor, arguments.json).run()


def console() -> None:
    """The console script; exits with the command's code."""
    sys.exit(main(sys.argv[1:]))


if __name__ == "__main__":
    console()
