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
