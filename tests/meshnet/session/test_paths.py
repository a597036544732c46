"""Several circuits of one session: joining, moving, losing, and who may not join."""

from __future__ import annotations

import random
from collections.abc import Callable

from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import Drop, MeshError, UsageError
from meshnet.limits import (
    DOUBT_SECONDS,
    SESSION_PATHS,
    SESSION_SILENCE,
    SESSION_SURVIVES,
    SPARE_HEARD,
    SPARE_SILENCE,
)
from meshnet.session import items
from meshnet.session.events import PathDead
from meshnet.session.keys import join_auth
from tests.meshnet.session.braid import GONE, Braid, Strand
from tests.meshnet.session.pair import Recorder, circuit_keys, key


def content(size: int, seed: int = 1) -> bytes:
    return random.Random(seed).randbytes(size)


class Case(SynchronousTestCase):
    def whole(self, braid: Braid, data: bytes, limit: float = 120.0) -> None:
        """b's first stream has all of `data`, once, and nothing is left."""
        self.assertTrue(
            braid.run(limit, lambda: bool(braid.readers and braid.readers[0].ended)), f"at {braid.now}"
        )
        self.assertEqual(bytes(braid.readers[0].data), data)
        braid.streams[0].finish()
        braid.run(30.0)
        for session, memory in zip((braid.a, braid.b), braid.memories, strict=True):
            self.assertTrue(session.idle)
            self.assertEqual(memory.used, 0)


class JoinTests(Case):
    """Make before break."""

    def test_in_mid_stream(self) -> None:
        """Both ends move; the old circuit is drained and can go; no byte is missing, none comes twice."""
        for loss in (0.0, 0.05):
            braid, data = Braid(1, loss=loss), content(1_500_000)
            braid.open(data)
            braid.run(0.2)
            old, new = braid.strands[0], braid.join()
            self.assertIs(braid.a.path, old.paths[0], "until AUTH is acknowledged")
            self.assertTrue(braid.run(5.0, lambda b=braid, n=new: b.a.path is n.paths[0]))
            self.assertIs(braid.b.path, new.paths[1])
            self.assertIs(new.paths[1].session, braid.b)
            self.assertTrue(braid.run(5.0, lambda o=old: not o.paths[0].recovery.sent))
            sent = old.paths[0].cells_sent
            braid.lose(old)
            self.whole(braid, data)
            self.assertEqual(old.paths[0].cells_sent, sent)
            self.assertGreater(new.paths[0].cells_sent, 10)
            self.assertEqual(braid.kinds(braid.a), ["Opened", "Joined"])
            self.assertEqual(braid.kinds(new.made_for), ["Moved", "Closed"])

    def test_both_ways(self) -> None:
        """The last hop's data moves when the circuit has joined, not before."""
        braid, data = Braid(2), content(1_000_000)
        braid.run(1.0)
        writer = braid.open(data, side=1)
        braid.run(0.1)
        new = braid.join()
        self.assertTrue(braid.run(5.0, lambda: braid.b.path is new.paths[1]))
        before = braid.strands[0].paths[1].cells_sent
        self.assertTrue(braid.run(10.0, lambda: bool(braid.readers[0].ended)))
        self.assertEqual(bytes(braid.readers[0].data), data)
        self.assertLess(braid.strands[0].paths[1].cells_sent - before, 10, "acknowledgements only")
        self.assertFalse(writer.why)

    def test_identity_is_inherited(self) -> None:
        """Streams opened over the joined circuit are those of the same caller."""
        braid = Braid(3, identity=key("caller"))
        braid.run(1.0)
        braid.join()
        braid.run(1.0)
        braid.lose(braid.strands[0])
        braid.open(b"hello")
        self.assertTrue(braid.run(5.0, lambda: bool(braid.readers)))
        self.assertEqual(braid.streams[0].peer, key("caller").public)

    def test_old_cells_are_still_read(self) -> None:
        """What is under way on the old circuit counts, however late."""
        braid, data = Braid(4), content(300_000)
        braid.strands[0].delay, braid.strands[0].jitter = 2.0, 0.0
        braid.run(10.0)
        braid.open(data)
        fast = braid.join(delay=0.01)
        fast.jitter = 0.0
        self.whole(braid, data)
        self.assertGreater(braid.strands[0].paths[0].bytes_sent, 10_000)
        self.assertEqual(braid.strands[0].paths[0].recovery.lost_cells, 0)
        self.assertLess(fast.paths[0].bytes_sent, len(data))

    def test_answers_go_over_the_new_one(self) -> None:
        """What a late cell on the old circuit makes an app say is sent at once, over the new one."""
        braid = Braid(10)
        echo = Recorder()
        braid.run(1.0)
        echo.stream = braid.a.open(80, braid.now, echo)
        braid.run(1.0)
        braid.strands[0].delay, braid.strands[0].jitter = 0.1, 0.0  # not so late that it would be said again
        began = braid.now
        braid.streams[0].write(b"say it again")
        echo.data_received = lambda data: echo.stream.write(bytes(data))  # type: ignore[method-assign]
        braid.join(delay=0.01).jitter = 0.0
        braid.run(0.09)
        self.assertIs(braid.a.path, braid.strands[1].paths[0])
        self.assertEqual(braid.readers[0].data, b"")
        self.assertTrue(braid.run(1.0, lambda: bool(braid.readers[0].data)))
        self.assertAlmostEqual(braid.now - began, 0.11, places=6)

    def test_pings_are_about_their_circuit(self) -> None:
        """PONG comes over the circuit that carried PING."""
        braid = Braid(5)
        braid.run(1.0)
        strand = braid.join()
        braid.run(1.0)
        counts = [each.paths[1].cells_sent for each in braid.strands]
        strand.paths[0].session.path.ping(77)
        strand.paths[0].wake(strand.paths[0])
        braid.run(1.0)
        self.assertEqual(braid.strands[0].paths[1].cells_sent, counts[0])
        self.assertGreater(strand.paths[1].cells_sent, counts[1])

    def test_lost_auth(self) -> None:
        """AUTH of a new circuit is sent until it arrives; meanwhile the old one goes on."""
        braid, data = Braid(6), content(500_000)
        braid.run(1.0)
        braid.open(data)
        strand = braid.join(loss=0.6)
        self.assertTrue(braid.run(60.0, lambda: strand.paths[0].stands))
        strand.loss = 0.0
        self.whole(braid, data)

    def test_too_many(self) -> None:
        """A fifth circuit joins, and the oldest that is not sent over is given up."""
        braid = Braid(7)
        braid.run(1.0)
        for _ in range(SESSION_PATHS):
            braid.join()
            braid.run(1.0)
        for side, session in enumerate((braid.a, braid.b)):
            self.assertEqual(len(session.paths), SESSION_PATHS)
            (dead,) = [event for event in braid.told[session] if isinstance(event, PathDead)]
            self.assertIs(dead.path, braid.strands[0].paths[side])

    def test_a_smaller_circuit(self) -> None:
        """A circuit that carries less is told to the last hop too."""
        braid = Braid(8, max_cell=30_000)
        braid.run(1.0)
        braid.max_cell = 1_500
        strand = braid.join()
        strand.paths[1].max_cell = 30_000
        braid.run(1.0)
        self.assertEqual(strand.paths[1].max_cell, 1_500)


class LossTests(Case):
    """Break without make."""

    def test_one_of_two(self) -> None:
        """What was in flight on a circuit that is gone goes again over the other."""
        for seed in range(5):
            braid, data = Braid(seed, loss=0.02), content(800_000, seed)
            braid.open(data)
            braid.run(0.15)
            braid.join()
            self.assertTrue(braid.run(5.0, lambda b=braid: b.a.path is b.strands[1].paths[0]))
            braid.run(0.05)
            self.assertGreater(braid.a.path.in_flight, 0)
            braid.lose(braid.strands[1])
            self.assertIs(braid.a.path, braid.strands[0].paths[0])
            self.whole(braid, data)

    def test_the_last_one(self) -> None:
        """The session waits, and goes on over the next circuit; both ends kept what they had."""
        for seed in range(5):
            braid, data = Braid(seed), content(800_000, seed)
            braid.open(data)
            braid.run(0.1 + 0.02 * seed)
            braid.lose(braid.strands[0])
            self.assertTrue(braid.a.live and braid.b.live)
            self.assertFalse(braid.a.send_datagram(7, b"nobody carries it"))
            braid.run(SESSION_SURVIVES - 5)
            braid.join()
            self.whole(braid, data)

    def test_only_one_end_knows(self) -> None:
        """The other end learns it when the next circuit joins, or by the silence."""
        for side in (0, 1):
            braid, data = Braid(side), content(500_000)
            braid.open(data)
            braid.run(0.15)
            braid.lose(braid.strands[0], side)
            braid.run(1.0)
            braid.join()
            self.whole(braid, data)

    def test_it_does_not_wait_for_ever(self) -> None:
        """After its time the session ends with the last error, at both ends; nothing is held."""
        braid = Braid(1)
        writer = braid.open(content(500_000))
        braid.run(0.15)
        braid.lose(braid.strands[0])
        braid.a.paths.unreachable(MeshError("no way"), braid.now)
        braid.run(SESSION_SURVIVES - 1)
        self.assertTrue(braid.a.live and braid.b.live)
        braid.run(2.0)
        self.assertEqual(str(writer.why), "no way")
        self.assertIs(braid.readers[0].why, GONE)
        self.assertEqual([memory.used for memory in braid.memories], [0, 0])
        self.assertEqual(braid.joinable, {})
        self.assertRaises(MeshError, braid.join)

    def test_a_final_answer(self) -> None:
        """Where a node says that there is no way, the session waits no longer than for a silent circuit."""
        braid = Braid(2)
        writer = braid.open(content(500_000))
        braid.run(0.15)
        braid.lose(braid.strands[0])
        braid.a.paths.unreachable(MeshError("no way"), braid.now, final=True)
        self.assertTrue(braid.a.live)
        braid.run(SESSION_SILENCE)
        braid.a.paths.unreachable(MeshError("still none"), braid.now, final=False)
        self.assertTrue(braid.a.live)
        braid.a.paths.unreachable(MeshError("never"), braid.now, final=True)
        self.assertEqual(str(writer.why), "never")

    def test_streams_not_yet_known(self) -> None:
        """A stream whose OPEN was not acknowledged ends with the first attempt that fails; others wait."""
        braid, data = Braid(3), content(500_000)
        old = braid.open(data)
        braid.run(0.15)
        braid.strands[0].cut = True
        fresh = braid.open(b"never heard of")
        braid.lose(braid.strands[0])
        self.assertIsNone(fresh.why)
        braid.a.paths.unreachable(MeshError("no way"), braid.now)
        self.assertEqual(str(fresh.why), "no way")
        self.assertIsNone(old.why)
        braid.join()
        self.whole(braid, data)
        self.assertEqual(len(braid.streams), 1)

    def test_only_unknown_streams(self) -> None:
        """If there are no others, the session ends with them."""
        braid = Braid(4)
        braid.run(1.0)
        braid.strands[0].cut = True
        fresh = braid.open(b"never heard of")
        braid.lose(braid.strands[0])
        braid.a.paths.unreachable(MeshError("no way"), braid.now)
        self.assertEqual((str(fresh.why), braid.a.live), ("no way", False))

    def test_nothing_to_wait_for(self) -> None:
        """Without streams, or before AUTH was acknowledged, a session ends with its circuit."""
        braid = Braid(5)
        braid.run(1.0)
        braid.lose(braid.strands[0])
        self.assertFalse(braid.a.live or braid.b.live)
        braid = Braid(5)
        writer = braid.open(b"hello")
        braid.lose(braid.strands[0])
        self.assertIs(writer.why, GONE)

    def test_opened_while_there_is_none(self) -> None:
        """A stream opened meanwhile goes with the next circuit."""
        braid, data = Braid(6), content(100_000)
        braid.open(content(10_000_000))
        braid.run(0.15)
        braid.lose(braid.strands[0])
        braid.open(data)
        braid.join()
        self.assertTrue(braid.run(60.0, lambda: len(braid.readers) == 2 and bool(braid.readers[1].ended)))
        self.assertEqual(bytes(braid.readers[1].data), data)

    def test_a_quiet_stream(self) -> None:
        """A stream on which nothing was under way when its circuit was lost goes on as well."""
        reader = Recorder()
        braid = Braid(9)
        braid.run(1.0)
        reader.stream = braid.a.open(80, braid.now, reader)
        braid.run(1.0)
        braid.lose(braid.strands[0])
        braid.join()
        braid.run(1.0)
        reader.stream.write(b"still there")
        braid.run(1.0)
        self.assertEqual((bytes(braid.readers[0].data), reader.why), (b"still there", None))

    def test_closed_while_there_is_none(self) -> None:
        """Nobody can be told: it is over at once."""
        braid = Braid(7)
        braid.open(content(500_000))
        braid.run(0.15)
        braid.lose(braid.strands[0])
        braid.a.close(21, "that is all", braid.now)
        self.assertEqual(braid.kinds(braid.a), ["Opened"])
        braid.pump()
        self.assertEqual(braid.kinds(braid.a), ["Opened", "Closed"])

    def test_after_a_sleep(self) -> None:
        """A circuit that answers lives; one that does not is given up after a short while."""
        braid = Braid(8)
        braid.open(content(500_000))
        braid.run(20.0)
        braid.a.paths.doubt(braid.now)
        braid.run(DOUBT_SECONDS + 1)
        self.assertNotIn("PathDead", braid.kinds(braid.a))
        self.assertIsNone(braid.a.paths.waits_until)
        braid.strands[0].cut = True
        braid.a.paths.doubt(braid.now)
        braid.run(DOUBT_SECONDS + 0.1)
        self.assertIn("PathDead", braid.kinds(braid.a))


class StrangerTests(Case):
    """Who may not join: all get the same answer."""

    def refused(self, braid: Braid, strand: Strand) -> bytes:
        """What the last hop answers on a strand whose AUTH it does not believe."""
        said: list[bytes] = []
        path = strand.paths[1]
        room = memoryview(bytearray(2_000))
        while size := path.fill(room, braid.now):
            aead = path.keys.backend.aead(path.keys.send)
            said.append(
                bytes(
                    aead.decrypt(
                        bytes(4) + path.number.to_bytes(8, "little"), bytes(room[:size]), path.keys.send_ad
                    )
                )
            )
        self.assertEqual(len(said), 1)
        return said[0]

    def stranger(self, braid: Braid, auth: bytes, name: str = "stranger") -> Strand:
        """A circuit of somebody else, with this AUTH."""
        near, far = circuit_keys(name)
        strand = Strand(0.0, 0.0)
        strand.made_for = braid.last_hop(far)
        other = Braid(99)
        other.a.path.keys = near
        strand.paths = other.a.path, strand.made_for.path
        strand.paths[0]._seal = near.backend.aead(near.send).encrypt_into
        number = 0
        aead = near.backend.aead(near.send)
        body = aead.encrypt(bytes(4) + number.to_bytes(8, "little"), auth, near.send_ad)
        drop = strand.paths[1].receive(number, memoryview(bytearray(body)), braid.now, False)
        self.assertEqual(drop, Drop.MALFORMED)
        return strand

    def auth(self, braid: Braid, name: str = "stranger") -> bytes:
        """The AUTH that would be right on the stranger's circuit."""
        return join_auth(circuit_keys(name)[0], braid.a.keys)

    def test_all_the_same(self) -> None:
        """An unknown id, a wrong proof, a session of another service, one that has ended, one that nobody
        has authenticated: one answer, byte for byte, and the session does not notice."""
        braid = Braid(1)
        writer = braid.open(content(2_000_000))
        braid.run(0.2)
        right = self.auth(braid)
        answers = []
        wrong_mac = right[:-1] + bytes([right[-1] ^ 1])
        answers.append(self.refused(braid, self.stranger(braid, wrong_mac)))
        unknown_id = right[:2] + bytes([right[2] ^ 1]) + right[3:]
        answers.append(self.refused(braid, self.stranger(braid, unknown_id)))
        elsewhere, braid.joinable = braid.joinable, {}
        answers.append(self.refused(braid, self.stranger(braid, right)))
        braid.joinable = elsewhere
        half = braid.last_hop(circuit_keys("half")[1])
        unborn = join_auth(circuit_keys("stranger")[0], half.keys)
        answers.append(self.refused(braid, self.stranger(braid, unborn)))
        over = Braid(2)
        over.run(1.0)
        over.b.close(21, "", over.now)
        over.run(1.0)
        answers.append(self.refused(braid, self.stranger(over, self.auth(over))))
        self.assertEqual(len(set(answers)), 1)
        self.assertEqual(answers[0][0], items.CLOSE)
        self.assertEqual((len(braid.b.paths), writer.why), (1, None))

    def test_a_replayed_auth(self) -> None:
        """Who has seen a join inside another circuit cannot use it on his own: it is bound to its circuit."""
        braid = Braid(3)
        braid.open(content(2_000_000))
        braid.run(0.2)
        strand = braid.join()
        (_, _, auth) = strand.paths[0].own[0]
        self.refused(braid, self.stranger(braid, auth))
        braid.run(1.0)
        self.assertEqual(len(braid.b.paths), 2)

    def test_the_same_auth_again(self) -> None:
        """On its own circuit it is harmless; another one closes the session."""
        braid = Braid(4)
        braid.run(1.0)
        strand = braid.join()
        (_, _, auth) = strand.paths[0].own[0]
        braid.run(1.0)
        self.assertEqual(braid.seal(strand, auth), Drop.NONE)
        self.assertEqual(braid.seal(strand, items.auth_item(items.AUTH_ANONYMOUS)), Drop.MALFORMED)
        self.assertFalse(braid.b.live)

    def test_cut_short(self) -> None:
        """A join that is too short is malformed, as any item is."""
        braid = Braid(5)
        braid.run(1.0)
        self.stranger(braid, self.auth(braid)[:-1])
        self.assertTrue(braid.b.live)

    def test_too_early(self) -> None:
        """The origin does not join before its first AUTH was acknowledged; the last hop never does."""
        braid = Braid(6)
        self.assertRaises(UsageError, braid.join)
        braid.run(1.0)
        near, _ = circuit_keys("x")
        self.assertRaises(UsageError, braid.b.paths.join, near, now=1.0, wake=lambda path: None)

    def test_forgotten(self) -> None:
        """The last hop was started again: a clear sentence, if no other circuit is left; else nothing."""
        braid = Braid(7)
        writer = braid.open(content(2_000_000))
        braid.run(0.2)
        braid.joinable.clear()
        braid.join()
        braid.run(1.0)
        self.assertIn("PathDead", braid.kinds(braid.a))
        self.assertIsNone(writer.why)
        braid.lose(braid.strands[0], 0)
        self.assertTrue(braid.a.live)
        braid.join()
        braid.run(1.0)
        self.assertIn("it was restarted", str(writer.why))

    def test_cells_before_a_join(self) -> None:
        """What overtook AUTH is held, and read by the session that the circuit joins."""
        braid = Braid(8)
        braid.run(1.0)
        strand = braid.join()
        early = items.open_item(0, 80, 1_000)
        self.assertEqual(braid.seal(strand, early), Drop.NONE)
        self.assertEqual(braid.streams, [])
        braid.run(1.0)
        self.assertEqual([stream.port for stream in braid.streams], [80])
        self.assertEqual(strand.made_for.account.held, 0)


class SpareTests(Case):
    """A circuit in reserve."""

    def braid(self, side: int = 0, size: int = 1_500_000) -> tuple[Braid, Strand, bytes]:
        """A session with a spare, and a stream from one end in mid-flight."""
        braid, data = Braid(3), content(size)
        braid.run(1.0)
        spare = braid.join(spare=True)
        self.assertTrue(braid.run(2.0, lambda: spare.paths[0].stands))
        braid.open(data, side)
        braid.run(0.15)
        return braid, spare, data

    @staticmethod
    def ended(braid: Braid) -> Callable[[], bool]:
        """Whether b's first stream has ended."""
        return lambda: bool(braid.readers and braid.readers[0].ended)

    @staticmethod
    def turned(braid: Braid, spare: Strand) -> Callable[[], bool]:
        """Whether both ends send over the spare."""
        return lambda: (braid.a.path, braid.b.path) == spare.paths

    def test_rests(self) -> None:
        """Nothing of the session goes over it, at either end, while the other circuit answers."""
        for side in (0, 1):
            braid, spare, data = self.braid(side)
            self.assertTrue(braid.run(60.0, self.ended(braid)))
            self.assertEqual(bytes(braid.readers[0].data), data)
            self.assertIs(braid.a.path, braid.strands[0].paths[0])
            self.assertIs(braid.b.path, braid.strands[0].paths[1])
            self.assertLess(sum(path.bytes_sent for path in spare.paths), 500)

    def test_silent(self) -> None:
        """The circuit in use carries nothing any more, and nobody says so: whoever sends notices, both turn
        to the spare, and every byte arrives once."""
        for side in (0, 1):
            braid, spare, data = self.braid(side)
            braid.strands[0].cut = True
            since = braid.now
            turned = braid.run(5.0, self.turned(braid, spare))
            self.assertTrue(turned)
            self.assertLess(braid.now - since, 2 * SPARE_SILENCE)
            self.assertEqual([path.spare for path in spare.paths], [False, False])
            self.whole(braid, data)
            self.assertEqual(braid.kinds(braid.a).count("Turned"), 1)

    def test_lost(self) -> None:
        """An end that is told that the circuit is gone turns at once, and takes the other one along."""
        for side in (0, 1):
            braid, spare, data = self.braid(0)
            braid.lose(braid.strands[0], side)
            self.assertIs((braid.a, braid.b)[side].path, spare.paths[side])
            braid.run(0.1)
            self.assertIs((braid.a, braid.b)[1 - side].path, spare.paths[1 - side])
            self.whole(braid, data)

    def test_not_heard_of(self) -> None:
        """A spare that has not been heard of for long may lead nowhere itself: it is not turned to."""
        braid, spare, _ = self.braid()
        spare.cut = True
        braid.run(SPARE_HEARD + 1.0)
        braid.strands[0].cut = True
        braid.open(b"on")
        braid.run(3.0)
        self.assertIs(braid.a.path, braid.strands[0].paths[0])

    def test_lost_before_it_stands(self) -> None:
        """The only other circuit goes while the spare is joining: then it is no spare."""
        braid, data = Braid(4), content(300_000)
        braid.run(1.0)
        braid.open(data)
        braid.run(0.1)
        spare = braid.join(spare=True)
        braid.lose(braid.strands[0])
        self.assertTrue(braid.run(5.0, lambda: braid.a.path is spare.paths[0]))
        self.whole(braid, data)

    def test_only_the_origin(self) -> None:
        """The last hop keeps nothing in reserve; an origin's SPARE on the only circuit is vain."""
        braid = Braid(5)
        braid.run(1.0)
        self.assertEqual(braid.seal(braid.strands[0], bytes((items.SPARE,))), Drop.NONE)
        braid.open(b"data")
        self.whole(braid, b"data")
        path = braid.strands[0].paths[1]
        path.own.append((items.SPARE, path, bytes((items.SPARE,))))
        path.wake(path)
        braid.run(1.0)
        self.assertFalse(braid.a.live)

    def test_who_changes_his_mind(self) -> None:
        """An origin that says USE over one circuit after the other gets no window's worth for each."""
        braid, spare, _ = self.braid(side=1, size=4_000_000)
        before = sum(path.bytes_sent for path in (*spare.paths, *braid.strands[0].paths))
        for turn in range(100):
            braid.seal((braid.strands[0], spare)[turn % 2], bytes((items.USE,)))
        sent = sum(path.bytes_sent for path in (*spare.paths, *braid.strands[0].paths)) - before
        windows = braid.strands[0].paths[1].cwnd + spare.paths[1].cwnd
        self.assertLess(sent, 3 * windows)

    def test_probes(self) -> None:
        """Round trip and delays of both circuits are measured, the spare's too; losses are seen by counts."""
        braid, spare, _ = self.braid()
        spare.loss, spare.delay = 0.0, 0.1
        for strand in (braid.strands[0], spare):
            strand.paths[0].probe(braid.now)
        braid.run(2.0)
        near, far = braid.strands[0].paths[0].probing, spare.paths[0].probing
        assert near is not None and far is not None
        self.assertTrue(0.2 <= far.trip <= 0.26, far.trip)
        self.assertAlmostEqual(far.delays.there + far.delays.back, far.trip, delta=1e-3)
        self.assertLess(near.trip, 0.1)
        spare.loss = 0.3
        for _ in range(60):
            spare.paths[0].ping(0)
            spare.paths[0].probe(braid.now)
            braid.run(1.0)
        self.assertTrue(0.1 < far.lost_there < 0.5, far.lost_there)
        self.assertTrue(0.1 < far.lost_back < 0.5, far.lost_back)
        self.assertEqual(near.lost_there, 0.0)
        self.assertGreater(far.asked, far.answered)
