"""A file of text lines that only grows, for logs: appended to as they come, reopened when it was moved away.

It is no record of anything: nothing is synced, and a line for which there is no room is lost. Whoever must
not lose what he writes takes a journal.
"""

from __future__ import annotations

import contextlib
import os
from typing import Final

from meshnet.errors import StorageError

_FLAGS: Final = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW


class LineFile:
    """Appends to `path`, which is made with permissions 0600 where it is not there. Raises StorageError."""

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self.path = os.fspath(path)
        self._descriptor = self._open()

    def write(self, line: str) -> None:
        """Appends; what the disk does not take is lost."""
        with contextlib.suppress(OSError):
            os.write(self._descriptor, line.encode("utf-8", "backslashreplace"))

    def reopen(self) -> None:
        """Goes on in a file of this name, whatever has become of the old one. Raises StorageError: then it
        goes on in the old one."""
        new = self._open()
        os.close(self._descriptor)
        self._descriptor = new

    def close(self) -> None:
        """Writes no more."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _open(self) -> int:
        try:
            return os.open(self.path, _FLAGS, 0o600)
        except OSError as error:
            reason = (error.strerror or "unknown").lower()
            raise StorageError(f"The log file {self.path} cannot be opened: {reason}.") from None
