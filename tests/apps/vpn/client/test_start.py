"""The tunnel of a node, when that starts, ends and dies."""

from __future__ import annotations

import contextlib
from itertools import product

import pytest
from attrs import evolve
from twisted.internet.defer import Deferred

from apps.vpn.client import system
from apps.vpn.host.changes import ResolverFile
from apps.vpn.host.host import BOOK
from apps.vpn.settings import Tunnel
from meshnet.errors import LocalError, MissingDependencyError, UnreachableError
from tests.support.machine import Killed
from tests.support.tunnel import OLD, TunnelCase


class StartTests(TunnelCase):
    """At a node's start and end."""

    def begin(self, settings: Tunnel | None) -> None:
        self.successResultOf(Deferred.fromCoroutine(self.tunnel.begin(settings)))
        self.flush()

    def test_nothing_is_wanted(self) -> None:
        """Without [vpn] and without a past no book is made."""
        (self.folder / BOOK).unlink()
        self.begin(None)
        self.begin(evolve(self.settings, up=False))
        self.assertEqual(self.machine.calls, [])

    def test_from_the_config(self) -> None:
        """It dials until it is up; with the kill switch nothing leaves from the first moment on."""
        self.mesh.connect_error = UnreachableError("there is no link")
        self.begin(evolve(self.settings, killswitch=True))
        self.assertEqual(self.state(), "connecting")
        self.assertIn("policy drop", self.machine.tables["meshnet_vpn"])
        self.assertEqual(self.tunnel.describe()["kill_switch"], "nftables")
        for _ in range(5):
            self.flush(10.0)
        self.mesh.connect_error = None
        self.flush(15.0)
        self.assertEqual(self.state(), "up")
        self.successResultOf(self.tunnel.down())
        self.assert_as_before()

    def test_rights(self) -> None:
        """Without them neither the verb nor a node with such a config starts; a system that refuses the kill
        switch of the config stops the node, too."""
        self.rightless = True
        self.assertRaises(MissingDependencyError, self.tunnel.up, self.settings)
        settings = evolve(self.settings, killswitch=True)
        begun = Deferred.fromCoroutine(self.tunnel.begin(settings))
        self.failureResultOf(begun, MissingDependencyError)
        self.rightless, self.machine.refuse = False, "blackhole"
        begun = Deferred.fromCoroutine(self.tunnel.begin(settings))
        self.failureResultOf(begun, LocalError)
        self.machine.refuse = ""
        self.assert_as_before()

    def kill(self) -> None:
        """The process dies: its interface goes, all else stays; another one starts."""
        for device in self.devices:
            self.machine.remove(device.name)
        self.host.host.close()
        self.user.streams.clear()
        self.tunnel = self.new_tunnel()

    def test_killed(self) -> None:
        """Without a kill switch the next start cleans up."""
        self.up()
        self.kill()
        self.begin(None)
        self.devices.clear()
        self.assert_as_before()
        self.assertEqual(self.state(), "down")

    def test_killed_with_a_kill_switch(self) -> None:
        """It holds: through the next start, until somebody lifts it; names are as before."""
        self.up(killswitch=True)
        rules = {version: list(rules) for version, rules in self.machine.rules.items()}
        self.kill()
        self.begin(None)
        self.devices.clear()
        self.assertEqual(self.state(), "blocked")
        self.assertEqual(self.tunnel.describe()["kill_switch"], "nftables")
        self.assertEqual(self.machine.rules, rules)
        self.assertIn("meshnet_vpn", self.machine.tables)
        self.assertEqual(self.resolv.read_text(), OLD)
        findings = self.successResultOf(self.tunnel.examine())
        self.assertEqual([each["level"] for each in findings], ["ok"])
        self.assert_as_before()

    def test_killed_in_every_stage(self) -> None:
        """Killed while `up`, `down` or putting back what others took away, with a kill switch and without:
        the doctor of the next run makes all as before, and has nothing to do the second time."""
        self.kill_at(range(0, 200, 12))

    @pytest.mark.long
    def test_killed_at_every_step(self) -> None:
        """The same at each step of each."""
        self.kill_at(range(200))

    def kill_at(self, places: range) -> None:
        """Kills after so many steps of each stage, until one has no more."""
        for kill_switch, stage in product((False, True), ("up", "down", "put back")):
            for steps in places:
                if stage != "up":
                    self.up(killswitch=kill_switch)
                self.machine.lines, self.machine.die_after = 0, steps
                with contextlib.suppress(Killed):
                    self.do(stage, kill_switch)
                reached, self.machine.die_after = self.machine.lines >= steps, None
                self.kill()
                levels = [each["level"] for each in self.successResultOf(self.tunnel.examine())]
                self.assertIn(levels, (["ok"], ["fixed"]), f"{stage}, killed before step {steps}")
                self.assertEqual(self.machine.state(), self.before, f"{stage}, killed before step {steps}")
                self.assertEqual(self.resolv.read_text(), OLD)
                again = [each["level"] for each in self.successResultOf(self.tunnel.examine())]
                self.assertEqual(again, ["ok"])
                if not reached:
                    break
            self.assertGreater(steps, 8)
        self.flushLoggedErrors(Killed)

    def do(self, stage: str, kill_switch: bool) -> None:
        """One of the things at which a process may be killed."""
        if stage == "up":
            self.tunnel.up(evolve(self.settings, killswitch=kill_switch)).addErrback(lambda why: None)
            self.flush()
        elif stage == "down":
            self.tunnel.down()
        else:
            self.machine.tables.clear()
            self.machine.rules[4].clear()
            self.changed[-1]()

    def test_down_twice(self) -> None:
        """The second time there is nothing to do, and that is no fault; so with two at once."""
        self.up(killswitch=True)
        first, second = self.tunnel.down(), self.tunnel.down()
        self.assertEqual([self.successResultOf(each) for each in (first, second)], [[], []])
        self.assertEqual(self.successResultOf(self.tunnel.down()), [])
        self.assert_as_before()

    def test_what_is_blocked_stays_so(self) -> None:
        """A kill switch of an earlier run outlives attempts that fail, the end of the node, and who removes
        it; only `down` lifts it."""
        self.up(killswitch=True)
        self.kill()
        self.devices.clear()
        self.begin(None)
        stands = self.machine.state()
        self.mesh.connect_error = UnreachableError("no way leads to that node")
        for killswitch in (True, False):
            up = self.tunnel.up(evolve(self.settings, killswitch=killswitch))
            self.flush()
            self.failureResultOf(up, UnreachableError)
            self.assertEqual(self.state(), "blocked")
        self.machine.tables.clear()
        self.changed[-1]()
        self.successResultOf(self.tunnel.stop())
        for device in self.devices:
            self.machine.remove(device.name)
        self.assertEqual(self.machine.state(), stands)
        self.host.host.close()
        self.tunnel = self.new_tunnel()
        self.begin(None)
        self.successResultOf(self.tunnel.down())
        self.devices.clear()
        self.assert_as_before()

    def test_guarded_before_it_is_up(self) -> None:
        """What others take from a kill switch comes back also while the exit is called."""
        self.mesh.connect_error = UnreachableError("there is no link")
        self.begin(evolve(self.settings, killswitch=True))
        stands = self.machine.state()
        self.machine.tables.clear()
        self.machine.rules[6].clear()
        self.changed[-1]()
        self.assertEqual(self.machine.state(), stands)

    def test_killed_and_up_again(self) -> None:
        """From the config, after a death: blocked all the time, then up."""
        settings = evolve(self.settings, killswitch=True)
        self.up(killswitch=True)
        self.kill()
        self.machine.calls.clear()
        self.begin(settings)
        self.assertEqual(self.state(), "up")
        removed = [
            text for _, text in self.machine.calls if text.startswith("add table") and "chain" not in text
        ]
        self.assertEqual(removed, [])
        self.successResultOf(self.tunnel.down())
        self.devices.clear()
        self.assert_as_before()

    def test_the_node_ends(self) -> None:
        """All is undone; with the kill switch all but that."""
        self.up()
        self.successResultOf(self.tunnel.stop())
        self.assert_as_before()
        self.tunnel = self.new_tunnel()
        self.up(killswitch=True)
        self.successResultOf(self.tunnel.stop())
        self.assertIn("policy drop", self.machine.tables["meshnet_vpn"])
        self.assertEqual(self.resolv.read_text(), OLD)
        self.assertTrue(any(system.is_block(each) for each in self.host.host.standing()))
        self.assertFalse(any(isinstance(each, ResolverFile) for each in self.host.host.standing()))
        self.flush()
        self.assertEqual(self.reactor.getDelayedCalls(), [])
