"""The file resolv.conf: replaced whole, put back as it was.

What was there is kept as JSON: `{"link": target}` for a symbolic link, `{"text", "mode", "user", "group"}`
for a file, `{}` for nothing. The file is replaced by a rename, so that nobody ever reads half of it. Where
it is mounted by itself, as in containers, it cannot be renamed over; then it is written in place.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

from apps.vpn.host.changes import LARGEST_TEXT
from meshnet.errors import LocalError, StorageError
from meshnet.storage.disk import Disk, MissingFileError, make_link, read_link
from meshnet.storage.files import discard, read_file, temporary_name, write_file

SIGN: Final = "# Written by meshnet vpn; `meshnet vpn down` puts back what was here."
_STUB: Final = "/systemd/resolve/"


def text_for(servers: Sequence[str]) -> str:
    """A resolv.conf that asks these servers for everything. Search domains of the old network are left out:
    they would tell the new one where we are."""
    return "\n".join((SIGN, *(f"nameserver {server}" for server in servers), "options edns0", ""))


def is_ours(text: str) -> bool:
    """Whether such a content was written here."""
    return text.startswith(SIGN)


def is_resolved(path: Path) -> bool:
    """Whether systemd-resolved answers for this file: it is a link to one of its own."""
    return _STUB in (read_link(path) or "")


def current(disk: Disk, path: Path) -> str:
    """What programs read there now; empty for none."""
    try:
        return read_file(disk, path, LARGEST_TEXT).decode(errors="surrogateescape")
    except MissingFileError:
        return ""


def capture(disk: Disk, path: Path) -> str:
    """What is there, as in the module's docstring. Raises StorageError, LocalError."""
    target = read_link(path)
    if target is not None:
        return json.dumps({"link": target})
    try:
        found = os.stat(path)
    except FileNotFoundError:
        return "{}"
    except OSError as problem:
        raise LocalError(f"{path} cannot be read: {problem.strerror}.") from None
    text = current(disk, path)
    owner = {"mode": found.st_mode & 0o7777, "user": found.st_uid, "group": found.st_gid}
    return json.dumps({"text": text, **owner})


def write(disk: Disk, path: Path, text: str) -> None:
    """Replaces what is there by this content, readable for all."""
    _replace(disk, path, text.encode(errors="surrogateescape"), 0o644)
    with contextlib.suppress(OSError):
        os.chmod(path, 0o644)  # whatever the umask says


def restore(disk: Disk, path: Path, before: str) -> bool:
    """Puts back what `capture` found. False if somebody else has written there since; it stays then."""
    if not is_ours(current(disk, path)):
        return False
    was: dict[str, Any] = json.loads(before)
    if "link" in was:
        temporary = temporary_name(disk, path)
        make_link(temporary, str(was["link"]))
        disk.rename(temporary, str(path))
        disk.fsyncdir(str(path.parent))
    elif "text" in was:
        mode = int(was["mode"])
        _replace(disk, path, str(was["text"]).encode(errors="surrogateescape"), mode)
        with contextlib.suppress(OSError):  # as far as we may
            os.chmod(path, mode)
            os.chown(path, int(was["user"]), int(was["group"]))
    else:
        discard(disk, path)
    return True


def _replace(disk: Disk, path: Path, data: bytes, mode: int) -> None:
    try:
        write_file(disk, path, data, mode)
        return
    except StorageError:
        if not path.is_file():
            raise
    # A mount of its own, or a directory that is not ours to write.
    with contextlib.closing(disk.open(path, "write")) as file:
        file.pwrite(data, 0)
        file.truncate(len(data))
        file.fsync()
