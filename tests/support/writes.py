"""Who writes files: outside `meshnet/storage` nobody does so by himself, checked by parsing calls.

`writes(path, source)` looks at one file and returns sentences. It sees calls by their names: `open` with a
mode that writes, methods that only paths have, functions of `os` that change names or files, and imports of
modules whose purpose is to write. A method of something called `disk` is the seam and is allowed; so are
permissions, which are no content.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator

ALLOWED = "meshnet/storage/"
MODULES = {
    *("shutil", "tempfile", "sqlite3", "apsw", "lmdb", "dbm", "shelve", "fileinput"),
    *("twisted.python.filepath", "twisted.enterprise.adbapi", "twisted.persisted.dirdbm"),
}
OF_OS = {
    *("rename", "renames", "replace", "unlink", "remove", "removedirs", "rmdir", "mkdir", "makedirs"),
    *("link", "symlink", "mkfifo", "mknod", "truncate", "ftruncate", "pwrite", "pwritev", "posix_fallocate"),
    *("fsync", "fdatasync", "sync", "copy_file_range"),
}
OF_PATHS = {
    *("write_text", "write_bytes", "touch", "unlink", "rename", "rmdir", "mkdir", "symlink_to"),
    "hardlink_to",
}
_MODE = re.compile(r"[rwaxbtU+]+")


def writes(path: str, source: str) -> list[str]:
    """Sentences, one for each call or import of this file that writes without the storage library."""
    if path.startswith(ALLOWED):
        return []
    return [f"{path}:{line} {what}: use meshnet.storage" for line, what in _found(ast.parse(source))]


def _found(tree: ast.AST) -> Iterator[tuple[int, str]]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, f"imports {one.name}") for one in node.names if _module(one.name))
        elif isinstance(node, ast.ImportFrom):
            for one in node.names:
                name = f"{node.module}.{one.name}"
                if _module(name) or (node.module == "os" and one.name in {*OF_OS, "open"}):
                    yield node.lineno, f"imports {name}"
        elif isinstance(node, ast.Call):
            what = _call(node)
            if what:
                yield node.lineno, f"calls {what}"


def _module(name: str) -> bool:
    return any(name == one or name.startswith(f"{one}.") for one in MODULES)


def _call(node: ast.Call) -> str:
    """What the call is, if it may write."""
    called = node.func
    if isinstance(called, ast.Name):
        return "open to write" if called.id == "open" and _mode_writes(node, 1) else ""
    if not isinstance(called, ast.Attribute):
        return ""
    owner, name = _last(called.value), called.attr
    if owner == "os":
        if name == "open":
            return "" if _only_reads(node) else "os.open to write"
        return f"os.{name}" if name in OF_OS else ""
    if owner.lstrip("_").lower() in ("disk", "realdisk"):
        return ""
    if name == "open":
        return ".open to write" if _mode_writes(node, 1 if owner == "io" else 0) else ""
    if name == "replace" and len(node.args) == 1 and not node.keywords:
        return ".replace of a path"
    return f".{name}" if name in OF_PATHS else ""


def _last(node: ast.AST) -> str:
    """The last name of `a.b.c`, or of what is called."""
    if isinstance(node, ast.Call):
        node = node.func
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _mode_writes(node: ast.Call, place: int) -> bool:
    """Whether `open` is called with a mode, at this place or by name, that writes or cannot be read here."""
    given = [each.value for each in node.keywords if each.arg == "mode"] or node.args[place : place + 1]
    if not given:
        return False
    mode = given[0]
    if not isinstance(mode, ast.Constant):
        return place == 1  # the builtin; a method of that name may be anything's
    text = mode.value if isinstance(mode.value, str) else ""
    return bool(_MODE.fullmatch(text)) and bool(set(text) & set("wax+"))


def _only_reads(node: ast.Call) -> bool:
    """Whether os.open is called with O_RDONLY (and flags that say nothing of writing), or on a device that
    is named outright, like /dev/null."""
    first = node.args[0] if node.args else None
    if first is not None and ast.unparse(first) == "os.devnull":
        return True
    if isinstance(first, ast.Constant) and str(first.value).startswith("/dev/"):
        return True
    flags = ast.unparse(node.args[1]) if len(node.args) > 1 else ""
    return "os.O_RDONLY" in flags and not re.search(r"O_(WRONLY|RDWR|CREAT|TRUNC|APPEND)", flags)
