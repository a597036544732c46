"""Network namespaces of a test's own: threads that have left the machine's network.

A thread may have a namespace for itself, and what it opens there (sockets, TUN devices) can be used by every
thread afterwards. Nothing has a name, so nothing is left behind, however a test ends.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

P = ParamSpec("P")
T = TypeVar("T")

CLONE_NEWNET: Final = 0x40000000


class Namespace:
    """A network namespace, with its loopback interface up."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1)
        self.run(_leave)

    def run(self, call: Callable[P, T], *args: P.args, **named: P.kwargs) -> T:
        """What `call` returns inside."""
        return self._thread.submit(call, *args, **named).result()

    def start(self, call: Callable[[], object]) -> None:
        """Calls it inside, later; what it raises is lost."""
        self._thread.submit(call)

    def close(self) -> None:
        """Its thread ends; the namespace goes when nothing of it is open."""
        self._thread.shutdown(wait=False)


def _leave() -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        raise OSError(ctypes.get_errno(), "no namespace")
    from apps.vpn.tun.rtnetlink import set_up

    set_up("lo", 1, 65_536, 65_536, 1_000)


def why_not() -> str:
    """Why no namespace with a TUN device can be made here; empty if one can."""
    if not hasattr(os, "geteuid") or os.geteuid() != 0:
        return "network namespaces need root"
    if not Path("/dev/net/tun").exists():
        return "there is no /dev/net/tun"
    try:
        Namespace().close()
    except OSError:
        return "network namespaces cannot be made here"
    return ""
