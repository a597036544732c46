"""What went wrong for the clients of one listener: the last sentence, and lines in the log.

A client learns a code at most; the sentence is for who runs the node. The log gets one line a second at
most, which counts what was left out. Nothing here is about the clients of an exit, who are strangers.
"""

from __future__ import annotations

from typing import Any, Final

from twisted.logger import Logger

from meshnet.node.app import Clock

LOG_SECONDS: Final = 1.0
"""Between two lines of one listener."""

_log = Logger()


class Failures:
    """Of one listener; `last` is empty as long as nothing went wrong."""

    __slots__ = ("_at", "_clock", "_left_out", "_logged", "last")

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._at = 0.0
        self._logged = float("-inf")
        self._left_out = 0
        self.last = ""

    def note(self, listener: str, text: str) -> None:
        """A client of `listener` was refused or lost for this reason, a sentence."""
        now = self._clock.now()
        self.last, self._at = text, now
        if now - self._logged < LOG_SECONDS:
            self._left_out += 1
            return
        more = f" ({self._left_out} more since the last such line)" if self._left_out else ""
        self._logged, self._left_out = now, 0
        _log.info("{listener}: {text}{more}", listener=listener, text=text, more=more)

    def describe(self) -> dict[str, Any]:
        """For `status`: `last_error` and how many seconds ago it was, None if there was none."""
        ago = round(self._clock.now() - self._at, 1) if self.last else None
        return {"last_error": self.last, "last_error_seconds": ago}
