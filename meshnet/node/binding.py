"""Why a local address could not be bound, and what to do: one sentence for every socket of a node."""

from __future__ import annotations

import errno

from twisted.internet.error import CannotListenError

_WHY = {
    errno.EADDRINUSE: "the port is in use; stop what uses it, or choose another, or 0 for a free one",
    errno.EACCES: "this user may not; choose a port above 1023",
    errno.EPERM: "this user may not; choose a port above 1023",
    errno.EADDRNOTAVAIL: "this machine has no such address; choose one of its own, such as 127.0.0.1",
}


def not_bound(place: str, error: CannotListenError) -> str:
    """The sentence for `place`, such as host:port."""
    cause = error.socketError
    why = (
        _WHY.get(getattr(cause, "errno", None) or 0) or str(getattr(cause, "strerror", None) or cause).lower()
    )
    return f"Cannot listen on {place}: {why}."
