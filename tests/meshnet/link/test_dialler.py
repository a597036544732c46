"""When a neighbour is dialled again."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import LinkLostError, MeshError
from meshnet.link.dialler import FIRST_WAIT, LONGEST_WAIT, DiallerCore, make_dialler
from meshnet.node.clock import virtual_clock

WHY = LinkLostError("nothing listens there")


class DiallerTests(SynchronousTestCase):
    """One dialler on a virtual clock."""

    def setUp(self) -> None:
        self.clock = Clock()
        self.jitter = 0.5
        self.dials: list[float] = []
        self.core = DiallerCore(
            lambda: self.dials.append(self.clock.seconds()),
            virtual_clock(self.clock).call_later,
            lambda: self.jitter,
        )
        self.dialler = make_dialler(self.core)

    def fail_until(self, number: int) -> list[float]:
        """Lets attempts fail at once; the waits between them."""
        while len(self.dials) < number:
            self.dialler.failed(WHY)
            self.clock.advance(2 * LONGEST_WAIT)
        return [later - earlier for earlier, later in zip(self.dials, self.dials[1:], strict=False)]

    def test_backoff(self) -> None:
        """It dials at once, then waits twice as long each time, up to a minute."""
        self.dialler.start()
        self.assertEqual(self.dials, [0.0])
        expected, wait = [0.0], FIRST_WAIT
        for _ in range(10):
            self.dialler.failed(WHY)
            self.assertIs(self.core.why, WHY)
            self.clock.advance(wait - 0.001)
            self.assertEqual(len(self.dials), len(expected))
            self.clock.advance(0.001)
            expected.append(self.clock.seconds())
            self.assertEqual(self.dials, expected)
            wait = min(2 * wait, LONGEST_WAIT)
        self.assertEqual(wait, LONGEST_WAIT)

    @given(st.floats(0, 1))
    def test_jitter(self, jitter: float) -> None:
        """Each wait is drawn from half to one and a half of its time, so that nodes do not dial in step."""
        self.setUp()
        self.jitter = jitter
        self.dialler.start()
        self.dialler.failed(WHY)
        wait = FIRST_WAIT * (0.5 + jitter)
        self.clock.advance(wait * 0.999)
        self.assertEqual(len(self.dials), 1)
        self.clock.advance(wait * 0.002)
        self.assertEqual(len(self.dials), 2)

    def test_success_starts_anew(self) -> None:
        """After a link has stood, the first wait is short again, and the reason is forgotten."""
        self.dialler.start()
        self.fail_until(6)
        self.dialler.standing()
        self.assertIsNone(self.core.why)
        self.assertEqual(self.clock.getDelayedCalls(), [])
        self.dialler.failed(WHY)
        self.clock.advance(FIRST_WAIT)
        self.assertEqual(len(self.dials), 7)

    def test_the_other_side_was_faster(self) -> None:
        """A link that the neighbour dialled ends the waiting."""
        self.dialler.start()
        self.dialler.failed(WHY)
        self.dialler.standing()
        self.clock.advance(1_000)
        self.assertEqual(len(self.dials), 1)

    def test_stop(self) -> None:
        """In any state it stops for good, with no timer left; whatever comes afterwards is harmless."""
        for steps in ((), ("start",), ("start", "failed"), ("start", "standing")):
            self.setUp()
            for step in steps:
                getattr(self.dialler, step)(*([WHY] if step == "failed" else []))
            self.dialler.stop()
            self.assertEqual(self.clock.getDelayedCalls(), [])
            dials = len(self.dials)
            self.dialler.start()
            self.dialler.standing()
            self.dialler.failed(WHY)
            self.dialler.stop()
            self.clock.advance(1_000)
            self.assertEqual((len(self.dials), self.clock.getDelayedCalls()), (dials, []))

    def test_failing_at_once(self) -> None:
        """An attempt that fails before `dial` returns is waited for like any other."""
        dial = self.core.dial

        def fail() -> None:
            dial()
            self.dialler.failed(WHY)

        self.core.dial = fail
        self.dialler.start()
        self.clock.advance(FIRST_WAIT)
        self.assertEqual(len(self.dials), 2)
        self.assertEqual(len(self.clock.getDelayedCalls()), 1)

    def test_standing_at_once(self) -> None:
        """An attempt that finds the link standing ends the same."""
        dial = self.core.dial

        def stands() -> None:
            dial()
            self.dialler.standing()

        self.core.dial = stands
        self.dialler.start()
        self.clock.advance(1_000)
        self.assertEqual(len(self.dials), 1)


class DiallerMachine(RuleBasedStateMachine):
    """Any inputs in any order: at most one attempt or timer at a time, and never none while it is needed."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = Clock()
        self.attempts = 0
        self.core = DiallerCore(self.dial, virtual_clock(self.clock).call_later, lambda: 0.5)
        self.dialler = make_dialler(self.core)
        self.up = self.begun = self.stopped = self.dialling = False

    def dial(self) -> None:
        assert not self.up and not self.stopped
        self.attempts += 1
        self.dialling = True

    @precondition(lambda self: not self.begun)
    @rule()
    def start(self) -> None:
        self.begun = True
        self.dialler.start()

    @precondition(lambda self: self.begun)
    @rule()
    def standing(self) -> None:
        self.up = True
        self.dialling = False
        self.dialler.standing()

    @precondition(lambda self: self.up or self.dialling)
    @rule(error=st.just(MeshError("no")))
    def failed(self, error: MeshError) -> None:
        self.up = self.dialling = False
        self.dialler.failed(error)

    @rule(seconds=st.floats(0, 100))
    def passes(self, seconds: float) -> None:
        self.clock.advance(seconds)

    @rule()
    def stop(self) -> None:
        self.stopped = True
        self.dialler.stop()

    @invariant()
    def always_on_its_way(self) -> None:
        timers = len(self.clock.getDelayedCalls())
        if self.stopped or not self.begun or self.up or self.dialling:
            assert timers == 0
        else:
            assert timers == 1


DiallerStateTest = DiallerMachine.TestCase
