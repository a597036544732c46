"""Notices that others change what was changed here: addresses, routes, rules, nftables, resolv.conf.

The kernel tells of all but the file (rtnetlink(7), nfnetlink), which is looked at every few seconds. Who
asked is told within a tenth of a second, at most once a second, and looks for himself (`Host.missing`).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final

from meshnet.transports.changes import ADDRESSES_AND_ROUTES, Changes, changes_in, kernel_socket

SETTLE: Final = 0.1
AGAIN: Final = 1.0
FILE_SECONDS: Final = 3.0
_RTNETLINK: Final = 0x10 | 0x40 | 0x80 | 0x100 | 0x400 | 0x40000
"""Addresses, routes and rules of both families (`linux/rtnetlink.h`)."""
_NETFILTER: Final = 12
_NFTABLES: Final = 1 << 6
TYPES: Final = ADDRESSES_AND_ROUTES | {32, 33}
"""Types of messages of rtnetlink: the rules are new here."""


class HostWatch:
    """Calls `changed` until `stop`; `later` runs a call after seconds and returns what cancels it."""

    def __init__(
        self,
        reactor: Any,
        later: Callable[[float, Callable[[], None]], Callable[[], None]],
        file: Path,
        changed: Callable[[], None],
    ) -> None:
        self._later = later
        self._file = file
        self._changed = changed
        self._seen = self._state()
        self._cancel = later(FILE_SECONDS, self._look)
        self._kernel: list[Changes] = []
        for groups, protocol, of_interest in (
            (_RTNETLINK, 0, partial(changes_in, types=TYPES)),
            (_NFTABLES, _NETFILTER, bool),
        ):
            sock = kernel_socket(groups, protocol)
            if sock is not None:
                self._kernel.append(
                    Changes(reactor, sock, changed, tells=of_interest, settle=SETTLE, again=AGAIN)
                )

    def stop(self) -> None:
        """Tells no more; twice is once."""
        self._cancel()
        for each in self._kernel:
            each.stop()
        self._kernel.clear()

    def _look(self) -> None:
        self._cancel = self._later(FILE_SECONDS, self._look)
        state = self._state()
        if state != self._seen:
            self._seen = state
            self._changed()

    def _state(self) -> object:
        try:
            found = os.lstat(self._file)
        except OSError:
            return None
        return found.st_ino, found.st_mtime_ns, found.st_size
