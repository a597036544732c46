"""Reactors for tests: the transports' conformance suite has one of its own; threads that run at once."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from twisted.python.failure import Failure

from meshnet.transports.conformance import PATIENCE, OwnReactor

__all__ = ["PATIENCE", "OwnReactor", "Threads"]


class Threads:
    """A reactor's threads that run at once."""

    def getThreadPool(self) -> Threads:
        """Itself."""
        return self

    def callFromThread(self, call: Callable[..., Any], *more: Any) -> None:
        """Now."""
        call(*more)

    def callInThreadWithCallback(self, told: Any, call: Callable[..., Any], *more: Any) -> None:
        """Now, and tells what came of it."""
        try:
            result = call(*more)
        except Exception:
            told(False, Failure())
        else:
            told(True, result)
