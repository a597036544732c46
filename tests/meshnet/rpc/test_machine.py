"""Two honest sides under any order of events: every call ends exactly once, and nothing stays behind."""

from __future__ import annotations

from typing import Any

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from meshnet.errors import UnreachableError
from meshnet.rpc.failure import BrokenPeerError
from tests.meshnet.rpc.pairs import Ask, Side
from tests.meshnet.rpc.samples import Number, Sums

SIDES = st.sampled_from([0, 1])
WHICH = st.integers(0, 1_000)
LARGE = Number(7, bytes(20_000))


class Calls(RuleBasedStateMachine):
    """Both sides call each other; bytes arrive when and as far as the machine says."""

    def __init__(self) -> None:
        super().__init__()
        self.sides = (Side(True), Side(False))
        self.ways: tuple[bytearray, bytearray] = (bytearray(), bytearray())  # from each side
        self.asks: tuple[list[Ask], list[Ask]] = ([], [])
        self.now = 0.0
        self.cut_off = False

    @rule(side=SIDES, number=st.sampled_from(list(Sums.methods)), seconds=st.sampled_from([0.5, 5.0, 1000.0]))
    def ask(self, side: int, number: int, seconds: float) -> None:
        """A call of any form."""
        if self.sides[side].core.over is None:
            self.asks[side].append(self.sides[side].ask(number, seconds=seconds, now=self.now))

    @rule(side=SIDES, share=st.sampled_from([0.1, 0.5, 1.0]))
    def deliver(self, side: int, share: float) -> None:
        """Some of the bytes on their way arrive."""
        way = self.ways[side]
        way += self.sides[side].output()
        self.sides[side].core.written()
        size = max(1, int(len(way) * share))
        self.sides[1 - side].core.receive(bytes(way[:size]), self.now)
        del way[:size]

    def some(self, side: int, which: int) -> Any:
        """A call that a side has to answer, or None."""
        taken = [each for each in self.sides[side].taken if not each.call.ended]
        return taken[which % len(taken)] if taken else None

    @rule(side=SIDES, which=WHICH)
    def answer(self, side: int, which: int) -> None:
        """The last word about a call."""
        answerer = self.some(side, which)
        if answerer is not None and answerer.call.method.many:
            answerer.call.end()
        elif answerer is not None:
            answerer.call.answer(Number(which))

    @rule(side=SIDES, which=WHICH)
    def fail(self, side: int, which: int) -> None:
        """Another last word."""
        answerer = self.some(side, which)
        if answerer is not None:
            answerer.call.fail(400, "No.")

    @rule(side=SIDES, which=WHICH, item=st.sampled_from([Number(1), LARGE]))
    def answer_item(self, side: int, which: int, item: Number) -> None:
        """An item back."""
        answerer = self.some(side, which)
        if answerer is not None and answerer.call.method.many:
            answerer.call.send_item(item)

    @rule(side=SIDES, which=WHICH, item=st.sampled_from([Number(1), LARGE]))
    def ask_item(self, side: int, which: int, item: Number) -> None:
        """An item of a caller."""
        if self.asks[side]:
            asked = self.asks[side][which % len(self.asks[side])]
            self.sides[side].core.wire.send_item(asked, item)

    @rule(side=SIDES, which=WHICH)
    def end_items(self, side: int, which: int) -> None:
        """No more of them."""
        if self.asks[side]:
            self.sides[side].core.outgoing.finish_items(self.asks[side][which % len(self.asks[side])])

    @rule(side=SIDES)
    def take_items(self, side: int) -> None:
        """All items that came are taken."""
        for asked in self.asks[side]:
            for _, cost in asked.items:
                self.sides[side].core.wire.consumed(asked, cost)
            asked.items.clear()
        for answerer in self.sides[side].taken:
            for _, cost in answerer.items:
                answerer.call.consumed(cost)
            answerer.items.clear()

    @rule(side=SIDES, which=WHICH)
    def cancel(self, side: int, which: int) -> None:
        """A caller gives up; harmless for calls that have ended."""
        if self.asks[side]:
            self.sides[side].core.outgoing.cancel(self.asks[side][which % len(self.asks[side])])

    @rule(seconds=st.sampled_from([0.1, 1.0, 4.0]))
    def wait(self, seconds: float) -> None:
        """Time passes, after all that is under way has arrived: nobody is slower than the grace."""
        self.settle()
        self.now += seconds
        for side in self.sides:
            side.core.tick(self.now)

    def settle(self) -> None:
        """All bytes arrive."""
        for _ in range(12):
            self.deliver(0, 1.0)
            self.deliver(1, 1.0)

    @rule(luck=st.integers(0, 3))
    def cut(self, luck: int) -> None:
        """The stream is lost, on both sides; sometimes."""
        if not self.cut_off and luck == 3:
            self.cut_off = True
            for side in self.sides:
                side.core.lost(UnreachableError("cut"))

    @invariant()
    def ends_once(self) -> None:
        """No call has ended twice; nobody broke a rule."""
        for side, asks in zip(self.sides, self.asks, strict=True):
            assert not isinstance(side.core.over, BrokenPeerError), side.core.over
            assert all(len(each.ends) <= 1 for each in asks)
            for answerer in side.taken:
                assert sum(each != "finished" for each in answerer.ends) <= 1
                assert not answerer.ends or answerer.call.ended or answerer.ends == ["finished"]

    def teardown(self) -> None:
        """Everything is answered and arrives: all calls have ended once, and no table holds anything."""
        for _ in range(40):
            self.settle()
            self.take_items(0)
            self.take_items(1)
            for side in (0, 1):
                while self.some(side, 0) is not None:
                    self.answer(side, 0)
                for asked in self.asks[side]:
                    self.sides[side].core.outgoing.finish_items(asked)
            if all(each.ends for asks in self.asks for each in asks):
                break
        self.settle()
        self.ends_once()
        for side, asks in zip(self.sides, self.asks, strict=True):
            assert all(len(each.ends) == 1 for each in asks)
            if not self.cut_off:
                assert side.core.outgoing.idle
                assert not side.core.incoming.calls
                assert (side.core.outgoing._requests, side.core.outgoing._streamed) == (0, 0)
                assert (side.core.incoming._bytes, side.core.incoming._streamed) == (0, 0)


TestCalls = Calls.TestCase
TestCalls.settings = settings(stateful_step_count=40)
