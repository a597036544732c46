"""A tunnel's life: any order of what may happen leaves it in a state that fits what was made."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.client.life import FIRST_WAIT, LONGEST_WAIT, TunnelCore, tunnel_life
from meshnet.errors import LinkLostError, LocalError, MeshError

WHY = LocalError("for some reason")


class World:
    """What a core is given: it notes what it is asked."""

    def __init__(self) -> None:
        self.calls: list[str] = []
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.core = TunnelCore(
            dial=lambda: self.calls.append("dial"),
            hang_up=lambda: self.calls.append("hang up"),
            make=lambda: self.calls.append("make"),
            unmake=lambda: self.calls.append("unmake"),
            stands=lambda: self.calls.append("stands"),
            later=self.later,
            jitter=lambda: 0.5,
        )
        self.life = tunnel_life(self.core)

    def later(self, seconds: float, call: Callable[[], None]) -> Callable[[], None]:
        timer = (seconds, call)
        self.timers.append(timer)

        def cancel() -> None:
            if timer in self.timers:  # else it has run
                self.timers.remove(timer)

        return cancel

    def taken(self) -> list[str]:
        """What was asked since the last time."""
        calls, self.calls = self.calls, []
        return calls


class LifeTests(SynchronousTestCase):
    """The ways through it that matter."""

    def setUp(self) -> None:
        self.world = World()
        self.life, self.core = self.world.life, self.world.core

    def go(self, *inputs: str) -> list[str]:
        """Gives these inputs; what was asked."""
        self.world.taken()
        for name in inputs:
            takes = name in ("lost", "failed", "refused", "held")
            getattr(self.life, name)(*([WHY] if takes else []))
        return self.world.taken()

    def test_up_and_down(self) -> None:
        """An attempt, a lease, the system, and back."""
        self.assertEqual(self.go("up", "answered", "made"), ["dial", "make", "stands"])
        self.assertEqual(self.core.state, "up")
        self.assertEqual(self.go("down"), ["hang up", "unmake"])
        self.assertEqual(self.core.state, "ending")
        self.assertEqual(self.go("down", "up", "undone"), [])
        self.assertEqual(self.core.state, "down")

    def test_lost(self) -> None:
        """It dials again at once, and waits only after that has failed; nothing is undone."""
        self.go("up", "answered", "made")
        self.assertEqual(self.go("lost"), ["hang up", "dial"])
        self.assertEqual(self.go("failed"), ["hang up"])
        self.assertEqual((self.core.state, self.core.why), ("waiting", WHY))
        self.assertEqual(self.go("hurry"), ["dial"])
        self.assertEqual(self.world.timers, [])
        self.assertEqual(self.go("answered", "made"), ["make", "stands"])
        self.assertIs(self.core.why, None)

    def test_waits_longer_each_time(self) -> None:
        """But never long: nothing goes out meanwhile."""
        self.go("up")
        waits = []
        for _ in range(8):
            self.go("failed")
            ((seconds, call),) = self.world.timers
            waits.append(seconds)
            self.world.timers.clear()
            call()
        self.assertEqual(waits[0], FIRST_WAIT)
        self.assertEqual(waits, sorted(waits))
        self.assertEqual(waits[-1], LONGEST_WAIT)
        self.go("answered", "made", "lost", "failed")
        self.assertEqual(self.world.timers[0][0], FIRST_WAIT)

    def test_refused(self) -> None:
        """Without a kill switch all is undone, and why is known afterwards."""
        self.assertEqual(self.go("up", "refused"), ["dial", "hang up", "unmake"])
        self.go("undone")
        self.assertEqual((self.core.state, self.core.why), ("down", WHY))

    def test_blocked(self) -> None:
        """With one nothing is undone, until somebody says so, or tries again."""
        self.go("up", "answered", "made", "lost")
        self.assertEqual(self.go("held"), ["hang up"])
        self.assertEqual(self.go("hurry", "waited"), [])
        self.assertEqual(self.go("up"), ["dial"])
        self.go("held")
        self.assertEqual(self.go("down"), ["hang up", "unmake"])

    def test_of_an_earlier_run(self) -> None:
        """A kill switch that stands since then."""
        self.assertEqual(self.go("held"), ["hang up"])
        self.assertEqual(self.core.state, "blocked")


INPUTS = ("up", "answered", "made", "waited", "hurry", "down", "undone", "lost", "failed", "refused", "held")


class AnyOrder(RuleBasedStateMachine):
    """Any inputs at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.made = False
        """Whether the system may have been changed."""

    @rule(name=st.sampled_from(INPUTS), why=st.sampled_from([WHY, LinkLostError("the exit is gone")]))
    def give(self, name: str, why: MeshError) -> None:
        """One input."""
        world = self.world
        getattr(world.life, name)(*([why] if name in ("lost", "failed", "refused", "held") else []))
        for call in world.taken():
            if call == "make":
                assert world.core.state == "making"
                self.made = True
            elif call == "unmake":
                self.made = False
            elif call == "dial":
                assert world.core.state == "dialling"

    @precondition(lambda self: self.world.timers)
    @rule()
    def wait(self) -> None:
        """The timer runs out."""
        _, call = self.world.timers.pop()
        call()
        self.world.taken()

    @invariant()
    def fits(self) -> None:
        """Down is as before; a timer runs only while waiting, and then always one."""
        core = self.world.core
        assert not (core.state == "down" and self.made)
        assert len(self.world.timers) <= (core.state == "waiting")
        assert core.wait <= LONGEST_WAIT


AnyOrder.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
AnyOrderTests = AnyOrder.TestCase
