"""How long frames take to a neighbour and how long back, from the times in PING and PONG.

    ours      sent ───────────────────────── now              peer − ours lies between
    peer's            time, by his clock                      time − now  and  time − sent

No clock is trusted to agree with another. Every answered ping bounds the difference of both clocks from both
sides, since nothing arrives before it was sent; the least delays of a window give the tightest bounds, and
bounds grow with age, because clocks drift. What lies between them is not known: the middle is shown, with
half the distance as its uncertainty, which is half the least round trip or better. Answers that contradict
the bounds mean that a clock was set, or a machine slept: then everything before is forgotten. A step smaller
than the round trip shows only when the window has moved on. It does no I/O and reads no clock.
"""

from __future__ import annotations

from collections import deque
from typing import Final

from attrs import frozen

WINDOW: Final = 300.0  # seconds
SAMPLES: Final = 256
DRIFT: Final = 200e-6  # seconds per second by which two clocks part at most: 100 ppm each
RESOLUTION: Final = 1e-6  # of the times in PING and PONG


@frozen
class _Sample:
    """Peer's clock less ours was from `least` to `most` at our time `at`."""

    at: float
    least: float
    most: float


class OneWay:
    """Delays of one neighbour, seconds; `known` once a ping was answered.

    `there` and `back` are those of the last answered ping, each right within ± `uncertainty`; their sum is
    its round trip. `offset` is the peer's clock less ours, right within the same. `steps` counts how often
    the clocks were found to have jumped.
    """

    __slots__ = ("_samples", "back", "offset", "steps", "there", "uncertainty")

    def __init__(self) -> None:
        self._samples: deque[_Sample] = deque(maxlen=SAMPLES)
        self.there = 0.0
        self.back = 0.0
        self.offset = 0.0
        self.uncertainty = 0.0
        self.steps = 0

    @property
    def known(self) -> bool:
        """Whether there is anything to show."""
        return bool(self._samples)

    def forget(self) -> None:
        """The peer's clock is another one now."""
        self._samples.clear()

    def answered(self, sent: float, time: float, now: float) -> None:
        """A ping that left at `sent` was answered at `time` of the peer's clock; the answer came `now`."""
        sample = _Sample(sent, time - now - RESOLUTION, time - sent + RESOLUTION)
        samples = self._samples
        while samples and samples[0].at < sent - WINDOW:
            samples.popleft()
        least, most = self._bounds(now)
        if samples and (sample.least > most or sample.most < least):
            samples.clear()
            self.steps += 1
        elif any(self._tells_less(old, sample) for old in samples):
            kept = [old for old in samples if not self._tells_less(old, sample)]
            samples.clear()
            samples.extend(kept)
        samples.append(sample)
        least, most = self._bounds(now)
        self.offset = (least + most) / 2
        self.uncertainty = (most - least) / 2
        self.there = time - sent - self.offset
        self.back = now - time + self.offset

    def _bounds(self, now: float) -> tuple[float, float]:
        """What the clocks' difference is at least and at most."""
        least, most = float("-inf"), float("inf")
        for sample in self._samples:
            slack = DRIFT * (now - sample.at)
            least = max(least, sample.least - slack)
            most = min(most, sample.most + slack)
        return least, most

    @staticmethod
    def _tells_less(old: _Sample, new: _Sample) -> bool:
        """Whether `old` bounds nothing that `new` does not bound as tightly."""
        slack = DRIFT * (new.at - old.at)
        return new.least >= old.least - slack and new.most <= old.most + slack
