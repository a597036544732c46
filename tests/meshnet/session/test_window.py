"""The replay window."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import Drop
from meshnet.limits import SESSION_WINDOW
from meshnet.session.window import ReplayWindow


class ReplayWindowTests(SynchronousTestCase):
    def test_each_once(self) -> None:
        """A number is taken once, whatever the order, as long as it is not 8,192 behind."""
        window = ReplayWindow()
        for number in (0, 5, 3, SESSION_WINDOW, 1):
            self.assertEqual(window.check(number), Drop.NONE)
            window.accept(number)
            self.assertEqual(window.check(number), Drop.REPLAYED)
        self.assertEqual(window.check(0), Drop.TOO_OLD)
        self.assertEqual(window.check(2), Drop.NONE)

    def test_checking_moves_nothing(self) -> None:
        """Only accepted numbers move the window: a forged high number shuts nobody out."""
        window = ReplayWindow()
        window.accept(0)
        self.assertEqual(window.check(1 << 31), Drop.NONE)
        self.assertEqual(window.check(1), Drop.NONE)

    def test_jump(self) -> None:
        """A jump beyond the window forgets what was before."""
        window = ReplayWindow()
        window.accept(1)
        window.accept(1_000_000)
        self.assertEqual(window.check(1), Drop.TOO_OLD)
        self.assertEqual(window.check(999_999), Drop.NONE)

    def test_long_runs(self) -> None:
        """More in order than the window is long, then one of each age."""
        window = ReplayWindow()
        window.next = 3 * SESSION_WINDOW
        self.assertEqual(window.check(window.next - SESSION_WINDOW - 1), Drop.TOO_OLD)
        self.assertEqual(window.check(window.next - SESSION_WINDOW), Drop.REPLAYED)
        window.accept(window.next + 1)
        window.next += 5
        self.assertEqual(window.check(3 * SESSION_WINDOW), Drop.NONE)
        self.assertEqual(window.check(3 * SESSION_WINDOW + 6), Drop.REPLAYED)

    @given(
        st.lists(st.one_of(st.integers(0, 3 * SESSION_WINDOW), st.integers(0, 20)), max_size=60),
    )
    def test_model(self, numbers: list[int]) -> None:
        """It agrees with a set of all numbers seen."""
        window, seen = ReplayWindow(), set()
        for number in numbers:
            if seen and number <= max(seen) - SESSION_WINDOW:
                expected = Drop.TOO_OLD
            else:
                expected = Drop.REPLAYED if number in seen else Drop.NONE
            self.assertEqual(window.check(number), expected)
            if not expected:
                if number == window.next and number % 2:
                    window.next += 1  # as paths do
                else:
                    window.accept(number)
                seen.add(number)
