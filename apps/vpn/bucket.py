"""A rate limit as a bucket of bytes: it fills at the rate, up to a burst; what it holds may pass.

Whoever finds anything in it may take a whole packet and leave it in debt, so that a superpacket needs no
bucket of its own size. Time is an argument.
"""

from __future__ import annotations

from typing import Final

BURST_SECONDS: Final = 0.1
"""A burst is so many seconds of the rate …"""
LEAST_BURST: Final = 128 << 10
"""… but never less than two superpackets."""


class Bucket:
    """Bytes a second, 0 for no limit; `refused` counts the packets that found it empty."""

    __slots__ = ("_at", "_held", "burst", "rate", "refused")

    def __init__(self, rate: int, now: float) -> None:
        self.refused = 0
        self._at = now
        self._held = 0.0
        self.change(rate)
        self._held = float(self.burst)

    def change(self, rate: int) -> None:
        """Another rate from now on."""
        self.rate = rate
        self.burst = max(LEAST_BURST, int(rate * BURST_SECONDS))
        self._held = min(self._held, float(self.burst))

    def take(self, size: int, now: float) -> bool:
        """Whether a packet of so many bytes may pass now; then they are gone."""
        if not self.rate:
            return True
        if self.wait(now) > 0:
            self.refused += 1
            return False
        self._held -= size
        return True

    def wait(self, now: float) -> float:
        """Seconds until a packet may pass; 0 if one may. A clock that goes back fills nothing."""
        if not self.rate:
            return 0.0
        if now > self._at:
            self._held = min(float(self.burst), self._held + (now - self._at) * self.rate)
        self._at = now
        return 0.0 if self._held > 0 else (1 - self._held) / self.rate
