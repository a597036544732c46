"""One measurement of a route: set-up time of a fresh anonymous circuit, then round trips over it.

Relays cannot be pinged inside a circuit; to look at a route hop by hop, ping each prefix of it
(docs/wire-format.md §8). Every measurement takes its circuit down again.
"""

from __future__ import annotations

from collections.abc import Callable
from statistics import median
from typing import TYPE_CHECKING, Final

from twisted.internet.defer import Deferred

from meshnet.circuit.origin import OriginCircuit
from meshnet.errors import MeshError, TimedOutError
from meshnet.node.app import Json
from meshnet.node.conversation import Conversation, Route

if TYPE_CHECKING:
    from meshnet.node.router import Router

PATIENCE: Final = 5.0  # seconds for one answer


class Ping:
    """Runs at once; `result` fires with setup_ms, sent, received, rtt_ms (median), rtt_min_ms, rtt_max_ms,
    and `lost` (why, a text) where the circuit was lost in between. It fails with what the circuit failed
    with, or TimedOutError, if nothing ever came back."""

    def __init__(self, router: Router, route: Route, count: int) -> None:
        self.result: Deferred[Json] = Deferred()
        self._router = router
        self._left = count
        self._sent = 0
        self._trips: list[float] = []
        self._asked = 0
        self._cancel: Callable[[], None] = lambda: None
        router.dial(route, None, self._built)

    def _built(self, outcome: Conversation | MeshError, now: float) -> None:
        if isinstance(outcome, MeshError):
            self.result.errback(outcome)
            return
        self._conversation = outcome
        circuit = next(iter(outcome.legs))
        self._setup = circuit.setup if isinstance(circuit, OriginCircuit) else 0.0
        outcome.on_end = self._lost
        self._ask(now)

    def _ask(self, now: float) -> None:
        if self.result.called:
            return
        session = self._conversation.session
        if self._left == 0 or session is None or not session.live:
            self._finish(now)
            return
        self._left -= 1
        self._sent += 1
        asked = self._asked = session.ping(now)
        self._cancel = self._router.later(PATIENCE, self._ask)
        self._router.on_pong(session, asked, lambda trip: self._answered(asked, trip))

    def _answered(self, asked: int, trip: float) -> None:
        self._trips.append(trip)
        if asked == self._asked:  # else it comes late, and the next one is under way
            self._cancel()
            self._router.soon(self._ask)

    def _lost(self, why: MeshError, now: float) -> None:
        self._cancel()
        self._finish(now, why)

    def _finish(self, now: float, why: MeshError | None = None) -> None:
        conversation, trips = self._conversation, self._trips
        conversation.on_end = None
        self._router.hang_up(conversation, now)
        if why is not None and not trips:
            self.result.errback(why)
            return
        if not trips and self._sent:
            self.result.errback(
                TimedOutError(f"no answer to {self._sent} pings within {PATIENCE:.0f} s each")
            )
            return
        trips.sort()
        self.result.callback(
            {
                "setup_ms": round(self._setup * 1e3, 3),
                "sent": self._sent,
                "received": len(trips),
                "rtt_ms": round(median(trips) * 1e3, 3) if trips else None,
                "rtt_min_ms": round(trips[0] * 1e3, 3) if trips else None,
                "rtt_max_ms": round(trips[-1] * 1e3, 3) if trips else None,
                **({} if why is None else {"lost": str(why)}),
            }
        )
