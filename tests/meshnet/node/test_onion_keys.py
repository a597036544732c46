"""Onion keys of nodes: on the disk, and whole meshes in virtual time whose keys change or are lost, and whose
clocks jump."""

from __future__ import annotations

import errno
import random as randomness
from collections.abc import Callable
from pathlib import Path

from twisted.internet.defer import maybeDeferred
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.disk import SimulatedDisk, after_power_cuts
from lab.simulation.nodes import Forgetful
from meshnet.cipher.keys import SecretKey
from meshnet.circuit.epochs import IDENTITY, EpochKey, epoch_at
from meshnet.circuit.origin import OriginCircuit
from meshnet.circuit.replay import Replays
from meshnet.circuit.shared import nothing_stated
from meshnet.errors import CircuitError, Reason
from meshnet.limits import EPOCH_SECONDS, EXPIRY_AHEAD, RECORD_AHEAD
from meshnet.node.clock import NodeClock, virtual_clock
from meshnet.node.config import TopologySettings
from meshnet.node.onion_keys import AGAIN, DIRECTORY, OnionKeys
from meshnet.node.topology import REFRESH
from meshnet.storage.files import make_directory
from meshnet.topology.book import Verdict
from meshnet.topology.record import Record, name_of
from tests.meshnet.node.test_topology import LINKS, KnowingCase

UNIX = 1_800_000_000.0
DAY = 86_400.0
NODE = SecretKey(b"n" * 32)
FOLDER = Path("/data") / DIRECTORY


def begun(disk: SimulatedDisk, unix: float, seed: int = 1, anew: bool = False) -> OnionKeys:
    """A run of a node."""
    keys = OnionKeys(NODE, randomness.Random(seed).randbytes, disk, Path("/data"))
    keys.start(0.0, unix, anew=anew)
    return keys


class Kept(SynchronousTestCase):
    """The keys on the disk of one node."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk()
        make_directory(self.disk, "/data")

    def names(self) -> list[str]:
        """The files."""
        return self.disk.listdir(FOLDER)

    def test_restart(self) -> None:
        """A run goes on with the keys of the last one; their files are their owner's alone."""
        first = begun(self.disk, UNIX)
        first.tick(1.0, UNIX + EPOCH_SECONDS)
        self.assertEqual({self.disk.stat(FOLDER / name).permissions for name in self.names()}, {0o600})
        again = begun(self.disk, UNIX + EPOCH_SECONDS + 60, 2)
        self.assertEqual(again.ring.keys, first.ring.keys)
        self.assertEqual(again.figures(), {"epoch": epoch_at(UNIX) + 1, "held": 2, "saved": True})

    def test_forgotten(self) -> None:
        """The file of a key that is forgotten is overwritten on the medium, then gone, and not before the new
        key stands; so are those that a node finds that was off for days."""
        keys = begun(self.disk, UNIX)
        (gone,) = self.names()
        keys.tick(1.0, UNIX + EPOCH_SECONDS)
        self.disk.log.clear()
        keys.tick(2.0, UNIX + 2 * EPOCH_SECONDS)
        done = [(operation.word.partition(" ")[0], operation.path) for operation in self.disk.log]
        old = str(FOLDER / gone)
        self.assertEqual([word for word, path in done if path == old], ["write", "sync", "remove"])
        self.assertLess(done.index(("sync", str(FOLDER))), done.index(("write", old)))
        self.assertNotIn(gone, self.names())
        begun(self.disk, UNIX + 9 * EPOCH_SECONDS, 2)
        self.assertEqual(len(self.names()), 1)

    def test_power_cuts(self) -> None:
        """Whenever the power goes while keys change, the next run has all that were stated and are not too
        old, and at most two."""
        begun(self.disk, UNIX).tick(1.0, UNIX + EPOCH_SECONDS)

        def change(disk: SimulatedDisk, acknowledge: Callable[[object], None]) -> None:
            keys = begun(disk, UNIX + EPOCH_SECONDS, 2)
            keys.tick(2.0, UNIX + 2 * EPOCH_SECONDS)
            acknowledge(keys.ring.current)

        states = 0
        for disk, acknowledged in after_power_cuts(self.disk, change, most=64):
            found = begun(disk, UNIX + 2 * EPOCH_SECONDS, 3)
            self.assertEqual(found.fault, "")
            self.assertLessEqual(len(disk.listdir(FOLDER)), 2)
            for key in acknowledged:
                assert isinstance(key, EpochKey)
                self.assertEqual(found.ring.current, key)
            states += 1
        self.assertGreater(states, 10)

    def test_anew(self) -> None:
        """Where replay tags may be missing all keys are new."""
        before = begun(self.disk, UNIX).ring.keys
        keys = begun(self.disk, UNIX, 2, anew=True)
        self.assertEqual(keys.ring.keys[0].epoch, before[0].epoch)
        self.assertNotEqual(keys.ring.keys, before)
        self.assertFalse(keys.ring.recalled(before[0].epoch))
        self.assertEqual(begun(self.disk, UNIX, 3).ring.keys, keys.ring.keys)

    def test_damaged(self) -> None:
        """What is damaged, readable by others, or not what its name says is not used, and goes."""

        def shorten(path: Path) -> None:
            self.disk.open(path, "write").truncate(10)

        for damage in (
            shorten,
            lambda path: self.disk.spoil(path, 90, 1),
            lambda path: self.disk.rename(path, FOLDER / "9-00000000.key"),
            lambda path: self.disk.chmod(path, 0o644),
        ):
            self.setUp()
            before = begun(self.disk, UNIX).ring.keys
            damage(FOLDER / self.names()[0])
            keys = begun(self.disk, UNIX, 2)
            self.assertNotEqual(keys.ring.keys, before)
            self.assertEqual((len(self.names()), keys.fault), (1, ""))

    def test_failing_disk(self) -> None:
        """A disk that does not take a key costs a sentence, until it does a minute later; the key is used
        meanwhile. The same for one that does not overwrite."""
        for operation, after, held in (("write", 0, 2), ("remove", 1, 3)):  # the first is of a temporary file
            self.setUp()
            keys = begun(self.disk, UNIX)
            keys.tick(1.0, UNIX + EPOCH_SECONDS)
            self.disk.fail(operation, errno.EIO, after)
            keys.tick(2.0, UNIX + 2 * EPOCH_SECONDS)
            self.assertIn("onion keys cannot be saved, or old ones removed", keys.fault)
            self.assertEqual((len(self.names()), keys.figures()["saved"]), (held, False))
            self.assertEqual(len(keys.ring.keys), 2)
            keys.tick(3.0, UNIX + 2 * EPOCH_SECONDS)
            self.assertTrue(keys.fault)
            keys.tick(2.0 + AGAIN, UNIX + 2 * EPOCH_SECONDS)
            self.assertEqual((keys.fault, len(self.names())), ("", 2))
            self.assertEqual(begun(self.disk, UNIX + 2 * EPOCH_SECONDS, 2).ring.keys, keys.ring.keys)


class Mesh(KnowingCase):
    """Alice, bob and three relays, by default three minutes before their keys change."""

    def begin(self, before: float = 180.0) -> None:
        """All clocks at that time; r3 has one of its own, and keeps its keys on a disk."""
        self.mesh(names=())
        self.start_unix = (UNIX // EPOCH_SECONDS + 1) * EPOCH_SECONDS - before
        seconds = self.m.network.clock.seconds
        self.m.clock.unix = lambda: self.start_unix + seconds()
        self.shift = 0.0
        self.own: NodeClock = virtual_clock(self.m.network.clock)
        self.own.unix = lambda: self.m.clock.unix() + self.shift
        self.disk = SimulatedDisk()
        for name in ("alice", "r1", "r2", "bob"):
            self.m.add(name, about=TopologySettings())
        self.m.add("r3", about=TopologySettings(), clock=self.own, disk=self.disk)
        for one, other in LINKS:
            self.m.link(one, other)
        self.m["bob"].router.listen(7, self.accept)
        self.known()

    def known(self) -> None:
        """Lets time pass until all know all."""
        names = ("alice", "r1", "r2", "r3", "bob")
        self.until(lambda: all(len(self.of(name).map()["links"]) == len(LINKS) for name in names), 600.0)

    def over(self, *relays: str) -> list[int]:
        """A stream along these relays carries, over a new circuit; the epochs of its layers."""
        self.exchange(self.open(*relays))
        router = self.m["alice"].router
        self.ends.clear()
        (circuit,) = [each for each in router.circuits if isinstance(each, OriginCircuit)]
        self.hang_up()
        return list(circuit.epochs)

    def hang_up(self) -> None:
        """Alice ends all that she began."""
        router = self.m["alice"].router
        for conversation in list(router._sessions.values()):
            router.hang_up(conversation, self.m.clock.now())
        self.m.network.run(1.0)

    def heard(self, name: str) -> Record:
        """What alice knows of a node."""
        return self.of("alice").graph.nodes[name_of(self.m[name].public)].record

    def opened(self, name: str) -> int:
        """Onions that a node has opened with a key that changes."""
        return self.m[name].router.totals["onions_by_epoch"]

    def test_change(self) -> None:
        """Keys change at their time and are stated with the next record, within half an hour; none is issued
        for them. Before, at and after that every way carries, each layer for a key that changes."""
        self.begin()
        now = epoch_at(self.start_unix)
        self.assertEqual(self.over("r1", "r2"), [now] * 3)
        self.m.network.run(180.0)
        published = self.of("r1").published
        self.assertEqual(
            self.m["r1"].router.onion_keys.figures(), {"epoch": now + 1, "held": 2, "saved": False}
        )
        self.over("r1", "r2")
        self.m.network.run(1.2 * REFRESH)
        self.assertEqual(self.over("r1", "r2"), [now + 1] * 3)
        self.assertLessEqual(self.of("r1").published - published, 2)
        for name in ("r1", "r2", "bob"):
            self.assertEqual(self.opened(name), 3)
        self.end()

    def test_restart(self) -> None:
        """A relay that falls and rises opens onions for what others know of it, with the keys of its disk."""
        self.begin()
        mine = self.heard("r3").statement.onion_key
        self.deafen()
        self.fall()
        self.m.network.run(2.0)
        self.assertEqual(self.over("r3"), [epoch_at(self.start_unix)] * 2)
        self.assertEqual((self.heard("r3").statement.onion_key, self.opened("r3")), (mine, 1))

    def fall(self) -> None:
        """r3 is killed, and started again with what is on its disk."""
        gone = self.m["r3"]
        self.m.kill("r3")
        self.m.wait(maybeDeferred(gone.router.stop))
        self.m.network.heal()
        self.m.add("r3", gone.secret, TopologySettings(), clock=self.own, disk=self.disk)
        for other in ("alice", "bob"):
            self.m.link("r3", other)
        self.until(lambda: sum(link.up for link in self.m["r3"].router.links_now()) == 2)

    def test_fallen_machine(self) -> None:
        """A relay whose machine fell may have lost replay tags, and makes its keys anew: it is there for all
        who hear of them, in seconds; who knows only its identity key is refused for 25 minutes."""
        self.begin()
        before = self.heard("r3").statement
        opened = Forgetful.open

        def torn(memory: Forgetful, unix: float) -> Replays:
            replays = opened(memory, unix)
            replays.refused_until = int(unix) + EXPIRY_AHEAD
            return replays

        self.patch(Forgetful, "open", torn)
        self.fall()
        self.until(lambda: self.heard("r3").statement.onion_key != before.onion_key, 10.0)
        self.assertEqual(self.heard("r3").statement.epoch, before.epoch)
        self.assertNotIn(IDENTITY, self.over("r3"))
        self.m["alice"].router.circuits._shared.stated = nothing_stated
        self.assertEqual(self.blames(self.call("r3")[1]), (0, "BUSY"))

    def deafen(self) -> None:
        """Alice takes no record more."""
        self.patch(self.of("alice").book, "take", lambda *record: Verdict.OFTEN)

    def lose(self, name: str, replaced: bool) -> None:
        """A relay loses its keys; perhaps it makes another for the same epoch. Alice does not hear of it."""
        self.deafen()
        keys = self.m[name].router.onion_keys.ring
        keys._hold()
        if replaced:
            keys.roll(self.m.clock.unix(), randomness.Random(9).randbytes)
        else:
            self.patch(self.m[name].router.onion_keys, "tick", lambda now, unix: None)

    def test_no_way_down(self) -> None:
        """A record older than the keys of its node: circuits through it fail with the reason, and never go on
        for the identity key, however often; where no way was named another one is taken. As soon as the new
        record is heard, all is well."""
        self.begin()
        for replaced, reason in ((False, Reason.NEXT_WRONG_EPOCH), (True, Reason.NEXT_BAD_ONION)):
            self.lose("r2", replaced)
            for _ in range(3):
                error = self.fails(self.call("r1", "r2")[1])
                assert isinstance(error, CircuitError)
                self.assertEqual((error.reason, error.hop), (reason, 0))
            self.assertEqual(self.m["alice"].router.totals["hops_by_identity"], 0)
        self.exchange(self.gone())
        self.assertEqual(self.route(), ["r3"])
        self.hang_up()
        del self.of("alice").book.take
        self.until(lambda: self.heard("r2").statement.onion_key != bytes(33), 600.0)
        self.m.network.run(600.0)
        self.assertNotIn(IDENTITY, self.over("r1", "r2"))

    def test_no_record(self) -> None:
        """A relay that states nothing, of which nothing is known, gets its layer for its identity key; the
        others keep theirs."""
        self.begin()
        self.m.add("plain")
        self.m.link("plain", "alice")
        self.m.link("plain", "bob")
        self.until(lambda: len(self.m["plain"].router.links_now()) == 2)
        self.m.network.run(5.0)
        self.exchange(self.gone("onion_keys"))
        self.hang_up()
        self.assertEqual(self.over("plain"), [IDENTITY, epoch_at(self.m.clock.unix())])
        self.assertEqual(self.m["alice"].router.totals["hops_by_identity"], 1)

    def test_clock_ahead_and_back(self) -> None:
        """A relay's clock jumps a day ahead, and back an hour later: its ways are left and taken again, for
        the key that others have known all the time."""
        self.jumps(DAY)

    def test_clock_back_and_ahead(self) -> None:
        """The same a day back, and right again."""
        self.jumps(-DAY)

    def jumps(self, shift: float) -> None:
        """Away and back, for longer than onions that were opened before are good for."""
        self.begin(3_600.0)
        mine = self.heard("r3").statement
        self.assertEqual(self.over("r3"), [mine.epoch] * 2)
        self.shift = shift
        self.m.network.run(310.0)
        self.assertEqual(self.m["r3"].router.onion_keys.figures()["epoch"], epoch_at(self.own.unix()))
        self.assertEqual(self.blames(self.call("r3")[1]), (0, "CLOCK_SKEW"))
        self.exchange(self.gone())
        self.assertEqual(self.route(), ["r1", "r2"])
        self.hang_up()
        self.shift = 0.0
        self.m.network.run(5.0)
        self.assertEqual(self.over("r3"), [mine.epoch] * 2)
        self.until(lambda: self.heard("r3").issued > mine.issued, 2 * REFRESH)
        self.assertLess(self.heard("r3").issued, self.m.clock.unix() + RECORD_AHEAD)
        self.known()
        self.assertNotIn(IDENTITY, self.over("r3"))

    def test_clocks_that_differ(self) -> None:
        """A relay whose clock is ten minutes ahead or behind, as far as circuits allow, changes its key when
        its own clock says so; nobody notices."""
        for shift in (600.0, -500.0):
            self.begin()
            self.shift = shift
            for _ in range(5):
                self.assertNotIn(IDENTITY, self.over("r3"))
                self.m.network.run(150.0)
            self.assertEqual(self.opened("r3"), 5)
