"""What nodes say of themselves: only what the operator allows, and what others make of it."""

from __future__ import annotations

from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from meshnet import __version__
from meshnet.errors import MeshError, RefusedError
from meshnet.node import about
from meshnet.node.config import AboutSettings
from meshnet.rpc import NotOfferedError
from meshnet.rpc.service import serve
from tests.support.streams import FakeMesh, FakeNode


class AboutTests(SynchronousTestCase):
    """Two nodes: ann asks, bob answers."""

    def nodes(self, **allowed: bool) -> tuple[FakeNode, FakeNode]:
        """Bob says what is allowed."""
        self.mesh = FakeMesh()
        ann, bob = self.mesh.node("ann"), self.mesh.node("bob")
        self.offered = about.offer(bob, AboutSettings(**allowed))
        return ann, bob

    def asked(self, work: Any) -> Any:
        """What came of it."""
        result = Deferred.fromCoroutine(work)
        self.mesh.flush()
        return self.successResultOf(result)

    def refused(self, work: Any, kind: type[MeshError]) -> None:
        """Nothing came of it."""
        result = Deferred.fromCoroutine(work)
        self.mesh.flush()
        self.failureResultOf(result, kind)

    def test_off(self) -> None:
        """By default the port is closed."""
        ann, bob = self.nodes()
        self.assertIsNone(self.offered)
        self.assertEqual(bob.ports, {})
        self.refused(about.describe(ann, bob.public_key, None), RefusedError)
        self.refused(about.delays(ann, bob.public_key, None, 1), RefusedError)

    def test_what_is_allowed(self) -> None:
        """Each of version, name and clock by itself; what is not allowed is empty or not offered."""
        for allowed, version, name in (({"version": True}, __version__, ""), ({"name": True}, "", "bob")):
            ann, bob = self.nodes(**allowed)
            found = self.asked(about.describe(ann, bob.public_key, ()))
            self.assertEqual(found, {"version": version, "name": name})
            self.refused(about.delays(ann, bob.public_key, None, 1), NotOfferedError)
        ann, bob = self.nodes(clock=True)
        self.refused(about.describe(ann, bob.public_key, None), NotOfferedError)

    def test_delays(self) -> None:
        """A clock that is ahead, and ways of different length: the truth lies within what is said."""
        ann, bob = self.nodes(clock=True)
        self.asked(about.delays(ann, bob.public_key, None, 3))  # no time passes at all
        ahead = 3.5

        class Ahead:
            unix = staticmethod(lambda: bob.clock.reactor.seconds() + 1_800_000_000 + ahead)

        class Slow(about.OurClock):
            async def read(self, request: about.Question) -> about.Moment:
                self.wait(0.010)
                moment = await super().read(request)
                self.wait(0.030)
                return moment

            wait = self.mesh.reactor.advance

        serve(bob, 9, Slow(Ahead()))  # type: ignore[arg-type]
        self.patch(about, "PORT", 9)
        found = self.asked(about.delays(ann, bob.public_key, None, 3))
        sure = found["uncertainty_ms"] + 0.001
        self.assertAlmostEqual(found["there_ms"] + found["back_ms"], 40, 1)
        self.assertLessEqual(abs(found["there_ms"] - 10), sure)
        self.assertLessEqual(abs(found["back_ms"] - 30), sure)
        self.assertLessEqual(abs(found["offset_ms"] - 3_500), sure)
        self.assertLessEqual(sure, 20.1)

    def test_strange_answers(self) -> None:
        """Texts are shown without what plays with a terminal; a clock may run backwards."""

        class Strange(about.About):
            async def describe(self, request: about.Question) -> about.Description:
                return about.Description("\x1b[31m1", "b\nob")

        class Backwards(about.WallClock):
            async def read(self, request: about.Question) -> about.Moment:
                return about.Moment((1 << 64) - 1, 0)

        ann, bob = self.nodes()
        serve(bob, about.PORT, Strange(), Backwards())
        found = self.asked(about.describe(ann, bob.public_key, None))
        self.assertEqual(found, {"version": "�[31m1", "name": "b�ob"})
        found = self.asked(about.delays(ann, bob.public_key, None, 2))
        self.assertAlmostEqual(found["there_ms"] + found["back_ms"], 0, 1)
