"""Whether packets get through, told from counts: something was sent, and no sign of it came back."""

from __future__ import annotations


class Health:
    """Say `look` once a second."""

    def __init__(self) -> None:
        self._progress = -1
        self._since: float | None = None

    def look(self, now: float, progress: int, outstanding: bool) -> None:
        """`progress` counts signs of the other end, `outstanding` says whether any is waited for."""
        if progress != self._progress or not outstanding:
            self._since = None
        elif self._since is None:
            self._since = now
        self._progress = progress

    def stalled(self, now: float) -> float:
        """For how many seconds nothing has come that was waited for."""
        return 0.0 if self._since is None else now - self._since
