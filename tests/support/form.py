"""Form of the sources: sizes and words. Each checker looks at one file and returns sentences."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

LONGEST_FILE = 600
LONGEST_FUNCTION = 60
EMPTY_WORDS = ("manager", "handler", "engine", "helper", "utils", "util")
FOREIGN_PATHS = re.compile(r"/(?:work|home|Users|root|tmp/plan)/[\w.-]+")


def oversized(path: str, source: str) -> Iterator[str]:
    """Files and functions above the ceilings, in lines."""
    lines = source.count("\n") + 1
    if lines > LONGEST_FILE:
        yield f"{path} has {lines} lines; the ceiling is {LONGEST_FILE}"
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            length = (node.end_lineno or node.lineno) - node.lineno + 1
            if length > LONGEST_FUNCTION:
                yield f"{path}: {node.name} has {length} lines; the ceiling is {LONGEST_FUNCTION}"


def empty_words(path: str, source: str) -> Iterator[str]:
    """Files and classes whose name says nothing."""
    names = [path.rsplit("/", 1)[-1].removesuffix(".py")]
    names += [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.ClassDef)]
    for name in names:
        words = {word.lower() for word in re.findall(r"[A-Z]?[a-z]+|[A-Z]+", name)}
        if words & set(EMPTY_WORDS):
            yield f"{path}: {name} needs a name that says what it is"


def foreign_paths(path: str, text: str) -> Iterator[str]:
    """Paths of somebody's machine."""
    for match in FOREIGN_PATHS.finditer(text):
        yield f"{path} names {match.group()}"


TOLD = {
    *(
        "UsageError",
        "LocalError",
        "ConfigError",
        "MissingDependencyError",
        "UnreachableError",
        "RefusedError",
    ),
    *("TimedOutError", "KeyFileError", "FieldError"),
}
"""Errors whose text a person reads as it is, where commands, the node and apps raise them."""


def sentences(path: str, source: str) -> Iterator[str]:
    """Texts of such errors that do not begin with a capital or end with a full stop. What is put in at the
    beginning or the end is not looked at, nor what does not begin with a letter (an option, a path)."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.Raise) or not isinstance(node.exc, ast.Call) or not node.exc.args:
            continue
        called = node.exc.func
        text = _text(node.exc.args[0])
        if not isinstance(called, ast.Name) or called.id not in TOLD or not text:
            continue
        if (text[0].isalpha() and not text[0].isupper()) or not text.endswith((".", _PUT_IN)):
            shown = text.replace(_PUT_IN, "…")
            yield f"{path}:{node.lineno} is no sentence: {shown}"


_PUT_IN = "\0"


def _text(node: ast.expr) -> str:
    """The text of a literal, with a mark where something is put in; empty for other expressions."""
    if isinstance(node, ast.Constant) and isinstance(node.value, str):
        return node.value
    if isinstance(node, ast.JoinedStr):
        return "".join(str(each.value) if isinstance(each, ast.Constant) else _PUT_IN for each in node.values)
    return ""
