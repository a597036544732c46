"""What is in flight on one circuit, what got lost, and when to ask again (RFC 9002).

A cell is lost when one sent three numbers later, or 9/8 of a round trip later, has arrived. Without any
acknowledgement a probe goes after the probe time-out (PTO), which doubles each time. What a lost cell carried
is given back to the session, which sends what is still missing in new cells; packet numbers are never used
again.

Kept per cell, as a tuple: (sent_at, size, contents, delivered, delivered_at, first_sent_at, limited), the
last four for the delivery rate. Cells that only acknowledge are not kept.
"""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Callable, Sequence
from typing import Any, Final

from meshnet.limits import ACK_DELAY, DOUBT_SECONDS, SESSION_SILENCE
from meshnet.session.codes import Code, SessionFaultError
from meshnet.session.congestion import Congestion
from meshnet.session.rate import DeliveryRate

PACKET_THRESHOLD: Final = 3
TIME_THRESHOLD: Final = 9 / 8
GRANULARITY: Final = 0.001
FIRST_TRIP: Final = 0.333  # assumed where set-up measured nothing (RFC 9002 §6.2.2)
PERSISTENT: Final = 3  # probe time-outs of loss that mean the path itself changed
LONGEST_PROBE: Final = 5.0  # seconds between probes, whatever the backoff
_NARROW: Final = 64  # a range by so many wider than what is in flight is not walked number by number

Contents = list[tuple[Any, ...]]
"""What a cell carried that somebody wants to hear of; see `session.packing`."""
Sent = tuple[float, int, Contents, int, float, float, bool]


class Recovery:
    """Cells in flight of one circuit. `arrived` and `lost` are told the contents of each.

    `in_flight` counts bytes; `trip` is the smoothed round trip and `shortest` the shortest, in seconds, 0.0
    until measured. `next` is the number of the next cell. Counts: `lost_cells`, `probes_sent`.
    """

    __slots__ = (
        "_arrived", "_doubt", "_last_sent_at", "_loss_at", "_lost", "_lowest", "_marks",
        "_newest_acked_sent_at", "_probe_count", "_quiet_since", "congestion", "in_flight", "largest_acked",
        "lost_cells", "next",
        "probes", "probes_sent", "rate", "sent", "shortest", "skipped", "trip", "variation",
    )  # fmt: skip

    def __init__(
        self,
        rate: DeliveryRate,
        congestion: Congestion,
        arrived: Callable[[Contents], None],
        lost: Callable[[Contents], None],
        trip: float | None,
    ) -> None:
        self.rate = rate
        self.congestion = congestion
        self._arrived = arrived
        self._lost = lost
        self.sent: dict[int, Sent] = {}
        self.next = 0
        self.in_flight = 0
        self.largest_acked = -1
        self.probes = 0  # cells that may be sent now whatever the window says
        self.trip = 0.0
        self.shortest = 0.0
        self.variation = (FIRST_TRIP if trip is None else trip) / 2
        self.lost_cells = 0
        self.probes_sent = 0
        self.skipped = -1  # the last number left out
        self._lowest = 0  # no cell below is in `sent`
        self._probe_count = 0
        self._loss_at: float | None = None
        self._doubt: tuple[float, int] | None = None  # when it is dead, if nothing above this number arrived
        self._last_sent_at = 0.0
        self._quiet_since = 0.0  # the last acknowledgement, or the first cell sent after it
        self._newest_acked_sent_at = 0.0
        self._marks = 0

    def report_to(self, arrived: Callable[[Contents], None], lost: Callable[[Contents], None]) -> None:
        """Another session hears from now on what became of cells; none is in flight."""
        self._arrived, self._lost = arrived, lost

    # sending

    def skip(self) -> None:
        """Number `next` is never sent: whoever acknowledges it acknowledges what he has not got."""
        self.skipped = self.next
        self.next += 1

    def record(self, now: float, size: int, contents: Contents) -> None:
        """Cell `next` is being sent; `contents` is not empty. The caller then raises `next`."""
        rate = self.rate
        if not self.sent:
            self._quiet_since = now
            self._lowest = self.next
            rate.restart(now)
        self.sent[self.next] = (
            now,
            size,
            contents,
            rate.delivered,
            rate.delivered_at,
            rate.first_sent_at,
            rate.limited_until > 0,
        )
        self.in_flight += size
        self._last_sent_at = now
        if self.probes:
            self.probes -= 1
            self.probes_sent += 1

    @property
    def oldest_size(self) -> int:
        """Bytes of the oldest cell in flight; 0 if there is none."""
        return self.sent[self._lowest][1] if self.sent else 0

    # acknowledgements

    def acknowledged(
        self, largest: int, delay: int, marks: int, ranges: list[tuple[int, int]], now: float
    ) -> bool:
        """An ACK as `items.Sink.ack` has it; whether it was news.

        Raises SessionFaultError if it names a cell that was never sent.
        """
        if largest >= self.next or any(low <= self.skipped <= high for low, high in ranges):
            raise SessionFaultError(Code.MALFORMED, "an ACK names a cell that was never sent")
        before = self.in_flight
        newest, size, highest, lowest_new = self._take(ranges)
        if newest is None:
            return False
        self.in_flight -= size
        rate = self.rate
        rate.delivered += size
        sent_at = newest[0]
        if highest == largest:
            self._sample(now - sent_at, min(delay * 1e-6, ACK_DELAY * 2), highest, now, before)
        rate.acknowledged(sent_at, newest[3], newest[4], newest[5], newest[6], now, self.trip)
        previous_sent_at = self._newest_acked_sent_at
        self.largest_acked = max(self.largest_acked, highest)
        self._newest_acked_sent_at = max(previous_sent_at, sent_at)
        self._probe_count = 0
        self.probes = 0
        self._quiet_since = now
        if marks > self._marks:
            self._marks = marks
            self.congestion.cut(sent_at, now, marked=True)
        self._loss_at = None
        if self._lowest <= self.largest_acked:
            self._detect(now, previous_sent_at, lowest_new)
        self.congestion.acknowledged(size, sent_at, now, self.trip, rate.cell_size, before)
        return True

    def _take(self, ranges: list[tuple[int, int]]) -> tuple[Sent | None, int, int, int]:
        """Removes what `ranges` names: the newest cell, all bytes, the highest and the lowest number."""
        sent, arrived = self.sent, self._arrived
        newest: Sent | None = None
        size, highest, lowest = 0, -1, self.next
        inside: list[int] | None = None
        for low, high in ranges:
            low = max(low, self._lowest)
            if high < low:
                break
            numbers: Sequence[int] = range(high, low - 1, -1)
            if len(numbers) > len(sent) + _NARROW:  # most carried nothing: look at those in flight only
                if inside is None:
                    inside = list(sent)
                numbers = inside[bisect_left(inside, low) : bisect_right(inside, high)][::-1]
            for number in numbers:
                cell = sent.pop(number, None)
                if cell is None:
                    continue
                if newest is None:
                    newest, highest = cell, number
                lowest = number
                size += cell[1]
                arrived(cell[2])
        self._advance()
        return newest, size, highest, lowest

    def _advance(self) -> None:
        lowest, sent, end = self._lowest, self.sent, self.next
        if not sent:
            lowest = end
        while lowest < end and lowest not in sent:
            lowest += 1
        self._lowest = lowest

    def _sample(self, latest: float, delay: float, number: int, now: float, before: int) -> None:
        """One measured round trip (RFC 9002 §5.3); `before` bytes were in flight."""
        latest = max(latest, 1e-6)
        if not self.trip:
            self.shortest = self.trip = latest
            self.variation = latest / 2
        else:
            self.shortest = min(self.shortest, latest)
            if latest - delay >= self.shortest:
                latest -= delay
            self.variation += (abs(self.trip - latest) - self.variation) / 4
            self.trip += (latest - self.trip) / 8
        size = self.rate.cell_size
        self.congestion.sample(
            latest, number, self.next, smoothed=self.trip, now=now, segment=size, in_flight=before
        )

    # loss

    def _detect(self, now: float, previous_sent_at: float, lowest_new: int) -> None:
        """Cells below the largest acknowledged: lost, or to be looked at again at `_loss_at`."""
        wait = max(TIME_THRESHOLD * max(self.trip, self._latest_bound()), GRANULARITY)
        threshold = self.largest_acked - PACKET_THRESHOLD
        lost: list[Sent] = []
        first_at = last_at = -1.0
        for number in range(self._lowest, self.largest_acked + 1):
            cell = self.sent.get(number)
            if cell is None:
                continue
            if number > threshold and cell[0] + wait > now:
                if self._loss_at is None:
                    self._loss_at = cell[0] + wait
                continue
            del self.sent[number]
            lost.append(cell)
            # Sent after the last cell acknowledged before, and below all those acknowledged now:
            # nothing between the first and the last such cell came through.
            if cell[0] > previous_sent_at and number < lowest_new:
                first_at = cell[0] if first_at < 0 else first_at
                last_at = cell[0]
        if lost:
            self._give_back(lost, now)
            if last_at - first_at > PERSISTENT * self.probe_timeout():
                self.congestion.collapse()
        self._advance()

    def _latest_bound(self) -> float:
        return self.trip or 2 * self.variation

    def _give_back(self, lost: list[Sent], now: float) -> None:
        self.lost_cells += len(lost)
        for cell in lost:
            self.in_flight -= cell[1]
        self.congestion.cut(lost[-1][0], now, marked=False)
        for cell in lost:
            self._lost(cell[2])

    # time

    def probe_timeout(self) -> float:
        """Seconds without an acknowledgement after which a probe is sent, before any backoff."""
        trip = self.trip or 2 * self.variation
        return trip + max(4 * self.variation, GRANULARITY) + 2 * ACK_DELAY

    def _probe_at(self) -> float:
        wait = self.probe_timeout() * 2.0 ** min(self._probe_count, 20)
        return self._last_sent_at + min(wait, max(LONGEST_PROBE, self.probe_timeout()))

    def deadline(self) -> float | None:
        """When `tick` has something to do; None while nothing is in flight."""
        if not self.sent:
            return None if self._doubt is None else self._doubt[0]
        if self._loss_at is not None:
            return self._loss_at
        silence = self._quiet_since + SESSION_SILENCE
        return min(self._probe_at(), silence if self._doubt is None else self._doubt[0])

    def dead(self, now: float) -> bool:
        """Whether cells are in flight and nothing was acknowledged for `SESSION_SILENCE`, or nothing since
        `doubt`."""
        if self._doubt is not None:
            due, acked = self._doubt
            if self.largest_acked > acked:
                self._doubt = None
            elif now >= due:
                return True
        return bool(self.sent) and now >= self._quiet_since + SESSION_SILENCE

    def alive_at(self, now: float) -> float:
        """When it was last known to carry anything: `now`, unless cells are without an answer."""
        return self._quiet_since if self.sent else now

    def quiet(self, now: float) -> float:
        """For how many seconds what is in flight has not been acknowledged; 0 if nothing is, or if that is
        doubted already."""
        return now - self._quiet_since if self.sent and self._doubt is None else 0.0

    @property
    def silent_since(self) -> float | None:
        """Since when what is in flight has not been acknowledged; None while nothing is."""
        return self._quiet_since if self.sent else None

    def doubt(self, now: float) -> None:
        """Time has passed in which nothing ran: what is acknowledged within `DOUBT_SECONDS` lives."""
        self._doubt = now + DOUBT_SECONDS, self.largest_acked

    def tick(self, now: float) -> None:
        """Declares losses whose time has come, else allows a probe that says again what waits longest."""
        if not self.sent:
            return
        if self._loss_at is not None:
            if now >= self._loss_at:
                self._loss_at = None
                self._detect(now, self._newest_acked_sent_at, self.next)
        elif now >= self._probe_at():
            self._probe_count += 1
            self.probes = 2
            # The oldest cell stays in flight: if it arrives after all, the copy does no harm.
            self._lost(self.sent[self._lowest][2])
            self._last_sent_at = now  # if the link is blocked, the next probe is due only later

    def forget(self) -> None:
        """Nobody wants to hear any more what became of it."""
        self.sent.clear()
        self.in_flight = 0

    def abandon(self) -> None:
        """The circuit is gone: everything in flight is given back."""
        lost = list(self.sent.values())
        self.sent.clear()
        self.in_flight = 0
        for cell in lost:
            self._lost(cell[2])
