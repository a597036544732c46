"""The pages hold together: links lead somewhere, commands parse, configs load, programs compile."""

from __future__ import annotations

import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

from lab.__main__ import VERBS
from lab.benches.rows import BENCHES
from meshnet.cli.main import build_parser
from meshnet.node.config import from_table
from meshnet.node.dropins import find_dropins
from tests.docs.pages import PAGES, ROOT, blocks, links, page
from tests.support.sources import python_files

NAMES = [path.relative_to(ROOT).as_posix() for path in PAGES]
PARSER = build_parser(find_dropins())
LAB = {
    "demo": {"--once", "--json", "--keep", "--stop", "--state"},
    "bench": {
        *BENCHES,
        *("all", "--json", "--profile", "--out", "--quick", "--minutes"),
        *("--against", "--rounds", "--seconds"),
    },
    "lab": {
        *("--run", "--on", "--keep", "--stop", "--state"),
        "--seed",
        "--relays",
        "--megabytes",
        "--delay",
        "--jitter",
        "--loss",
        "--rate",
        "--cut",
        "--json",
    },
}


def lines(text: str) -> Iterator[str]:
    """What a reader may type: lines of shell blocks, and commands inside sentences."""
    for block in blocks(text, "sh"):
        yield from block.splitlines()
    yield from re.findall(r"`((?:meshnet|\./mesh|twist) [^`]*)`", text)


def commands(text: str) -> Iterator[list[str]]:
    """Our own commands among them, in words: up to a pipe, without comments and sudo."""
    for line in lines(text):
        words = shlex.split(re.sub(r"^sudo (-u \w+ )?|[|>].*", "", line), comments=True)
        if words and words[0] in ("meshnet", "./mesh"):
            yield words


THEIRS = {"docs/apps.md": ("note", "notes")}
"""Commands of the package that a page shows; its own test runs them."""


@pytest.mark.parametrize("name", NAMES)
def test_links(name: str) -> None:
    """Relative links lead to files."""
    folder = (ROOT / name).parent
    for target in links(page(name)):
        assert (folder / target.partition("#")[0]).exists(), target


@pytest.mark.parametrize("name", NAMES)
def test_commands(name: str) -> None:
    """Every command is one that the programs take."""
    for words in commands(page(name)):
        verb, arguments = (words[1:2] or [""])[0], words[2:]
        if verb in ("", "VERB") or verb in THEIRS.get(name, ()):
            continue
        if words[0] == "./mesh" and verb in VERBS:
            known = LAB.get(verb, set(arguments))
            assert all(each in known for each in arguments if each.startswith("-")), words
        elif arguments:
            PARSER.parse_args(words[1:])
        else:  # its name only
            assert verb in verbs(), words


def verbs() -> set[str]:
    """Names of all verbs of the command."""
    return {name for action in PARSER._actions if isinstance(action.choices, dict) for name in action.choices}


def test_commands_are_seen() -> None:
    """The reader of commands finds those in blocks and in sentences."""
    text = "```sh\nA=$B\nsudo -u x meshnet status | head\n./mesh demo --once  # now\n```\nsay `meshnet links`"
    assert list(commands(text)) == [["meshnet", "status"], ["./mesh", "demo", "--once"], ["meshnet", "links"]]


def test_every_script_block_runs_something_known() -> None:
    """Shell blocks begin with what a machine has."""
    known = {"./mesh", "meshnet", "curl", "sudo", "git", "pip", ".env/bin/python", "python3", "tar"}
    for name in NAMES:
        for block in blocks(page(name), "sh"):
            for line in block.splitlines():
                words = shlex.split(line, comments=True)
                assert not words or words[0] in known or re.match(r"[A-Z_]+=", words[0]), line


@pytest.mark.parametrize("name", NAMES)
def test_configs(name: str, tmp_path: Path) -> None:
    """Every piece of config is one that a node would read, beside the names it mentions."""
    apps = find_dropins().apps
    for block in blocks(page(name), "toml"):
        table = tomllib.loads(block)
        from_table(table, tmp_path / "node.toml", apps)


@pytest.mark.parametrize("name", NAMES)
def test_programs(name: str) -> None:
    """Every program compiles."""
    for block in blocks(page(name), "python"):
        compile(block, name, "exec")


def named() -> Iterator[str]:
    """Paths that the lists of docs/architecture.md name: folders, and files inside the last one."""
    folder = ""
    for line in page("docs/architecture.md").splitlines():
        if not line.lstrip().startswith("- `"):
            continue
        paths = re.findall(r"`([^`]+)`", line.partition(": ")[0])
        if line.startswith("- ") and paths[0].endswith("/"):
            folder = paths[0]
            yield folder
        elif line.startswith("  - "):
            yield from (folder + path for path in paths)


def test_architecture() -> None:
    """What the lists name is there, once; every package is named, and nearly every module."""
    written = [path for path in named() if path != "meshnet/"]
    assert not [path for path in written if not (ROOT / path).exists()]
    assert len(written) == len(set(written))
    files = {path for path in python_files("meshnet", "apps") if not path.endswith("__init__.py")}
    folders = {path.rsplit("/", 1)[0] + "/" for path in files}
    assert folders - {"meshnet/"} <= set(written)
    missing = files - set(written)
    assert len(missing) < len(files) / 20, f"name them in docs/architecture.md: {sorted(missing)}"
