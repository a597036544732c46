"""Which connection serves a lane: every short history, against the sentences of the wire format."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product

from attrs import define, field
from twisted.trial.unittest import SynchronousTestCase

from meshnet.limits import LANE_LOSERS
from meshnet.link.contest import (
    CHALLENGE_LEAST,
    CHALLENGE_TRIPS,
    LOSER_READ,
    RENEW,
    RENEW_AGAIN,
    Ask,
    Contest,
    Ends,
    Serves,
    patience,
)

WAIT = 1.5
STEP = 0.25
DEEP = 5
ACTIONS = ("smaller", "greater", "pong", "late", "lose serving", "lose challenger", "lose loser", "wait")


@define(eq=False)
class Line:
    """A connection, and what became of it."""

    smaller: bool
    gone: bool = False
    ended: bool = False
    served: int = 0
    retired_at: float | None = None


@define
class Play:
    """A contest, what it was told, and what it decided; checks each step."""

    case: SynchronousTestCase
    contest: Contest[Line] = field(factory=Contest)
    lines: list[Line] = field(factory=list)
    asked: list[Line] = field(factory=list)
    now: float = 0.0

    def do(self, action: str) -> None:
        """One thing happens, if it can."""
        before, challenger = self.contest.serving, self.contest.challenger
        self.asked.clear()
        if action in ("smaller", "greater"):
            line = Line(action == "smaller")
            self.lines.append(line)
            self.contest.arrived(line, line.smaller, self.now, WAIT)
            self.arrived(line, before, challenger)
        elif action == "pong":
            self.contest.answered(self.now)
            self.settle()
            self.case.assertIs(self.contest.serving, before, "who answers stays")
            self.case.assertIsNone(self.contest.challenger)
        elif action == "late":
            self.now += WAIT
            self.tick()
            self.case.assertIs(self.contest.serving, challenger or before, "who does not answer goes")
        elif action == "wait":
            self.now += STEP
            self.tick()
        else:
            self.lose(action, before, challenger)
        self.check()

    def arrived(self, line: Line, before: Line | None, challenger: Line | None) -> None:
        """The rule itself."""
        self.settle()
        serving = self.contest.serving
        if before is None or line.smaller or not before.smaller:
            self.case.assertIs(serving, line, "first, the smaller key's, or newer from the same dialler")
            self.case.assertEqual(self.asked, [])
        else:
            self.case.assertIs(serving, before, "the smaller key's is asked first")
            self.case.assertIs(self.contest.challenger, line)
            self.case.assertEqual(self.asked, [] if challenger else [before], "it is asked once")

    def lose(self, action: str, before: Line | None, challenger: Line | None) -> None:
        """A connection breaks."""
        losers = self.contest.losers
        loser = losers[0] if losers else None
        line = {"lose serving": before, "lose challenger": challenger, "lose loser": loser}[action]
        if line is None:
            return
        line.gone = True
        self.contest.lost(line, self.now)
        self.settle()
        expected = (challenger if line is before else before) if line is not challenger else before
        self.case.assertIs(self.contest.serving, expected)

    def tick(self) -> None:
        self.contest.tick(self.now)
        self.settle()

    def settle(self) -> None:
        """Takes the events in; whoever was replaced by them has lost."""
        for event in self.contest.events():
            line = event.connection
            self.case.assertFalse(line.gone, "nothing is decided about who is gone")
            if isinstance(event, Serves):
                line.served += 1
                self.case.assertIsNone(line.retired_at, "a loser never serves again")
            elif isinstance(event, Ask):
                self.asked.append(line)
            else:
                self.case.assertIsInstance(event, Ends)
                self.case.assertFalse(line.ended, "once")
                line.ended = True
        for line in self.contest.losers:
            if line.retired_at is None:
                line.retired_at = self.now

    def check(self) -> None:
        """Every connection that stands serves, challenges, or is read for a while; never two at a time."""
        contest = self.contest
        places = [line for line in (contest.serving, contest.challenger) if line is not None]
        places += contest.losers
        alive = [line for line in self.lines if not line.gone and not line.ended]
        self.case.assertEqual(len({id(line) for line in places}), len(places))
        self.case.assertEqual({id(line) for line in places}, {id(line) for line in alive})
        self.case.assertTrue(all(line.served <= 1 for line in self.lines))
        self.case.assertTrue(contest.serving is not None or not contest.challenger, "nobody waits for nobody")
        self.case.assertLessEqual(len(contest.losers), LANE_LOSERS)
        for line in contest.losers:
            assert line.retired_at is not None
            self.case.assertLess(self.now, line.retired_at + LOSER_READ)
        deadline = contest.deadline()
        self.case.assertEqual(deadline is None, not contest.losers and not contest.challenger)
        self.case.assertTrue(deadline is None or deadline > self.now)


def histories(deep: int) -> Iterator[tuple[str, ...]]:
    """Everything that can happen in so many steps, that begins with a connection."""
    for rest in product(ACTIONS, repeat=deep - 1):
        for first in ("smaller", "greater"):
            yield first, *rest


class ContestTests(SynchronousTestCase):
    """One lane."""

    def test_every_short_history(self) -> None:
        """All sequences of five events keep the rule at each step."""
        for history in histories(DEEP):
            play = Play(self)
            for action in history:
                play.do(action)

    def test_both_sides_agree(self) -> None:
        """Two ends that see the same connections, in whatever order each, serve the same one when all is
        quiet: the newest of the smaller key's that stood or came last, else the newest of the greater's."""
        for kinds in product((True, False), repeat=4):
            lines = [Line(smaller) for smaller in kinds]
            one: Contest[Line] = Contest()
            for line in lines:
                one.arrived(line, line.smaller, 0.0, WAIT)
            one.answered(0.1)
            small = [line for line in lines if line.smaller]
            self.assertIs(one.serving, (small or lines)[-1])
            # the other end sees the greater's connections first, the smaller's afterwards
            other: Contest[Line] = Contest()
            for line in sorted(lines, key=lambda line: line.smaller):
                other.arrived(line, line.smaller, 0.0, WAIT)
            other.answered(0.1)
            self.assertIs(other.serving, one.serving)

    def test_a_loser_is_read(self) -> None:
        """For five seconds to the moment, then it ends."""
        contest: Contest[str] = Contest()
        contest.arrived("one", False, 10.0, WAIT)
        contest.arrived("two", False, 11.0, WAIT)
        self.assertEqual(contest.events(), [Serves("one"), Serves("two")])
        self.assertEqual(contest.deadline(), 11.0 + LOSER_READ)
        contest.tick(11.0 + LOSER_READ - 0.001)
        self.assertEqual(contest.events(), [])
        contest.tick(11.0 + LOSER_READ)
        self.assertEqual(contest.events(), [Ends("one")])
        self.assertEqual((contest.losers, contest.deadline()), ([], None))

    def test_a_flood(self) -> None:
        """A neighbour that dials a lane without end is served by the newest; few others are read."""
        contest: Contest[int] = Contest()
        for number in range(1_000):
            contest.arrived(number, True, 0.0, WAIT)
            contest.arrived(-number - 1, False, 0.0, WAIT)
            self.assertLessEqual(len(contest.losers), LANE_LOSERS)
        self.assertEqual(contest.serving, 999)
        ended = [event for event in contest.events() if isinstance(event, Ends)]
        self.assertEqual(len(ended), 2_000 - LANE_LOSERS - 2)

    def test_patience(self) -> None:
        """A second, or four round trips of a slow link."""
        self.assertEqual(patience(0.0), CHALLENGE_LEAST)
        self.assertEqual(patience(0.25), 1.0)
        self.assertEqual(patience(2.0), CHALLENGE_TRIPS * 2.0)

    def test_renewal(self) -> None:
        """After an hour, and each minute until a fresh connection serves; nobody renews what is not there."""
        contest: Contest[str] = Contest()
        self.assertFalse(contest.renewal(RENEW))
        contest.arrived("one", True, 5.0, WAIT)
        self.assertFalse(contest.renewal(RENEW))
        self.assertTrue(contest.renewal(RENEW + 5))
        self.assertFalse(contest.renewal(RENEW + 6))
        self.assertTrue(contest.renewal(RENEW + 5 + RENEW_AGAIN))
        contest.arrived("two", True, RENEW + 70, WAIT)
        self.assertFalse(contest.renewal(RENEW + 5 + 2 * RENEW_AGAIN))

    def test_a_restart(self) -> None:
        """All connections of the former run end at once, and the next one begins anew."""
        contest: Contest[str] = Contest()
        for name, smaller in (("lost", True), ("serves", True), ("asks", False)):
            contest.arrived(name, smaller, 0.0, WAIT)
        contest.events()
        contest.forget()
        self.assertEqual(contest.events(), [Ends("lost"), Ends("asks"), Ends("serves")])
        self.assertEqual((contest.serving, contest.deadline()), (None, None))
        for name in ("lost", "serves", "asks"):
            contest.lost(name, 1.0)
        contest.arrived("new", False, 2.0, WAIT)
        self.assertEqual(contest.events(), [Serves("new")])
