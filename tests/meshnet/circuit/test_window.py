"""The relay's window against a set, across the wrap of 2⁶⁴."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.circuit.keys import MASK
from meshnet.circuit.window import Window
from meshnet.errors import Drop
from meshnet.limits import RELAY_WINDOW, SEQ_JUMP


class Model:
    """The same rules said plainly, over unbounded integers around 2⁶⁴."""

    def __init__(self) -> None:
        self.seen: set[int] = set()
        self.top: int | None = None

    def check(self, number: int) -> Drop:
        if self.top is None:
            self.top = number
        elif number > self.top:
            if number - self.top > SEQ_JUMP:
                return Drop.JUMPED
            self.top = number
        elif self.top - number >= RELAY_WINDOW:
            return Drop.TOO_OLD
        elif number in self.seen:
            return Drop.REPLAYED
        self.seen.add(number)
        return Drop.NONE


step = st.one_of(
    st.just(1),
    st.integers(-5, 5),
    st.integers(-RELAY_WINDOW - 5, RELAY_WINDOW + 5),
    st.sampled_from([SEQ_JUMP, SEQ_JUMP + 1, SEQ_JUMP + 2, -SEQ_JUMP, 1 << 40]),
)


class WindowTests(SynchronousTestCase):
    @given(st.integers(-6_000, 6_000), st.lists(st.tuples(step, st.integers(1, 40)), max_size=60))
    def test_against_a_set(self, start: int, steps: list[tuple[int, int]]) -> None:
        """Any walk with runs in order gives the model's verdicts, also where the numbers wrap."""
        window, model = Window(), Model()
        number = (1 << 64) + start
        self.assertEqual(window.check(number & MASK), model.check(number))
        for jump, run in steps:
            number = (model.top or 0) + jump
            for _ in range(run):
                self.assertIs(window.check(number & MASK), model.check(number))
                number += 1

    def test_everything_once(self) -> None:
        """After a long run in order, all of the window is known and all below is too old."""
        window = Window()
        for number in range(5_000):
            self.assertIs(window.check(number), Drop.NONE)
        for number in range(5_000):
            known = Drop.REPLAYED if number >= 5_000 - RELAY_WINDOW else Drop.TOO_OLD
            self.assertIs(window.check(number), known)

    def test_lower_places_of_the_first_are_unseen(self) -> None:
        """A cell that overtook the first ones does not shut them out."""
        window = Window()
        window.check(5_000)
        self.assertIs(window.check(5_000 - RELAY_WINDOW + 1), Drop.NONE)
        self.assertIs(window.check(5_000 - RELAY_WINDOW), Drop.TOO_OLD)

    def test_a_refused_jump_changes_nothing(self) -> None:
        """One forged cell far ahead does not move the window."""
        window = Window()
        window.check(10)
        self.assertIs(window.check(11 + SEQ_JUMP), Drop.JUMPED)
        self.assertIs(window.check((10 - (1 << 63)) & MASK), Drop.TOO_OLD)
        self.assertIs(window.check(11), Drop.NONE)
