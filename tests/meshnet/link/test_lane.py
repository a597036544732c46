"""One connection: the handshake in both roles, frames, and whatever else a peer may send."""

from __future__ import annotations

import random
from itertools import count

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import SecretKey
from meshnet.errors import (
    Drop,
    HandshakeError,
    LinkLostError,
    MeshError,
    ProtocolError,
    RefusedError,
    TimedOutError,
)
from meshnet.limits import HANDSHAKE_SECONDS, LARGEST_FRAME
from meshnet.link.frame import HELLO, PAD, our_hello
from meshnet.link.lane import Lane
from meshnet.link.record import BUFFER_SIZE
from tests.meshnet.link.lanes import (
    ALICE,
    BOB,
    EVE,
    ROLES,
    Owner,
    Voice,
    acceptor,
    called,
    calling,
    dialler,
    exchange,
    feed,
    take,
)
from tests.meshnet.test_bundle import Frame

LABEL = 0x80000001


def cell(seq: int, body: bytes, label: int = LABEL, kind: int = 12) -> Frame:
    return kind, label.to_bytes(4, "big") + seq.to_bytes(8, "big") + body


class HandshakeTests(SynchronousTestCase):
    """From act one to HELLO."""

    def test_both_roles(self) -> None:
        """Both learn each other's key and HELLO, however the bytes are cut; then no deadline is left."""
        for chunk in (1, 7, 50, 51, 1 << 20):
            one, two = Owner(), Owner()
            near, far = dialler(one), acceptor(two)
            self.assertEqual((near.state, far.state), ("awaiting act two", "awaiting act one"))
            exchange(near, far, chunk)
            self.assertTrue(near.is_up and far.is_up)
            self.assertEqual((near.remote, far.remote), (BOB.public, ALICE.public))
            self.assertEqual((near.dialled, far.dialled), (True, False))
            self.assertEqual((one.hellos, two.hellos), ([our_hello()], [our_hello()]))
            self.assertEqual((one.peers, two.peers), ([], [ALICE.public]))
            near.tick(1e9)
            far.tick(1e9)

    def test_frames_both_ways(self) -> None:
        """What each side seals after the handshake the other opens."""
        one, two = Owner(), Owner()
        near, far = dialler(one), acceptor(two)
        exchange(near, far)
        for sender, receiver, owner in ((near, far, two), (far, near, one)):
            voice = Voice()
            voice.sealer = sender.sealer
            feed(receiver, voice.frames((31, b"a"), (33, b"b")), 1)
            self.assertEqual(owner.frames, [(31, b"a"), (33, b"b")])

    def test_wrong_key(self) -> None:
        """Who is not whom we dialled cannot read act one and hangs up; we say what that may mean."""
        near, far = dialler(Owner()), acceptor(Owner(), secret=EVE)
        error = self.assertRaises(HandshakeError, feed, far, take(near))
        self.assertIn("act one", str(error))
        self.assertEqual(take(far), b"")
        self.assertIn("another key", str(near.ended(LinkLostError("closed"))))
        self.assertEqual((near.state, far.ended(error)), ("ended", error))

    def test_other_network(self) -> None:
        """A node of another network is no neighbour, whatever its key."""
        near, far = dialler(Owner(), network=8), acceptor(Owner())
        self.assertRaises(HandshakeError, feed, far, take(near))
        self.assertIn("another network", str(near.ended(LinkLostError("closed"))))

    def test_refused(self) -> None:
        """A refused dialler gets neither keys nor HELLO, and can tell refusal from a broken connection."""
        near, far = dialler(Owner()), acceptor(Owner(RefusedError("no")))
        feed(far, take(near))
        feed(near, take(far))
        self.assertRaises(RefusedError, feed, far, take(near))
        self.assertEqual(take(far), b"")
        self.assertIn("accept", str(near.ended(LinkLostError("closed"))))

    def test_replayed_handshake(self) -> None:
        """The acts of an earlier handshake do not pass: the ephemeral key is another."""
        near, far = dialler(Owner()), acceptor(Owner())
        one = take(near)
        feed(far, one)
        feed(near, take(far))
        three = take(near)
        again = Lane(BOB, 7, SecretKey(b"\x31" * 32), far.backend, owner := Owner(), 0.0)
        again.accept()
        feed(again, one)
        self.assertRaises(HandshakeError, feed, again, three)
        self.assertEqual(owner.peers, [])

    def test_garbage(self) -> None:
        """Noise before and inside the handshake ends it in the act where it comes."""
        for noise in (b"GET / HTTP/1.1\r\n".ljust(50), b"\x16\x03\x01" + bytes(60), bytes(300)):
            self.assertRaises(HandshakeError, feed, acceptor(Owner()), noise)
            self.assertRaises(HandshakeError, feed, dialler(Owner()), noise)
        far = acceptor(Owner())
        feed(far, take(dialler(Owner())))
        self.assertRaises(HandshakeError, feed, far, bytes(66))

    @given(st.integers(0, 50 * 8 - 1), st.integers(0, 50 * 8 - 1), st.integers(0, 66 * 8 - 1))
    def test_a_flipped_bit(self, one: int, two: int, three: int) -> None:
        """Any bit of any act changed: the act is refused by who reads it."""

        def flip(data: bytes, bit: int) -> bytes:
            changed = bytearray(data)
            changed[bit // 8] ^= 1 << bit % 8
            return bytes(changed)

        near, far = dialler(Owner()), acceptor(Owner())
        act = take(near)
        self.assertRaises(HandshakeError, feed, acceptor(Owner()), flip(act, one))
        feed(far, act)
        act = take(far)
        self.assertRaises(HandshakeError, feed, dialler(Owner()), flip(act, two))
        feed(near, act)
        self.assertRaises(HandshakeError, feed, far, flip(take(near)[:66], three))

    def test_deadline(self) -> None:
        """In any state before HELLO, time ends it; also for who sends one byte now and then."""
        states = {}
        near, far = dialler(Owner()), acceptor(Owner())
        states["act two"], states["act one"] = near, far
        states["act three"] = acceptor(Owner())
        feed(states["act three"], take(dialler(Owner())))
        states["hello"] = acceptor(Owner())
        feed(states["hello"], calling(states["hello"]).frames((PAD, b"")), now=HANDSHAKE_SECONDS - 1)
        for name, lane in states.items():
            lane.tick(HANDSHAKE_SECONDS - 0.01)
            self.assertRaises(TimedOutError, lane.tick, HANDSHAKE_SECONDS)
            self.assertIn(name.split()[0], lane.state)

    def test_memory_of_a_half_open_handshake(self) -> None:
        """Before the other side has proven a key, a lane holds no large buffer; a flood stays small."""
        near, far = dialler(Owner()), acceptor(Owner())
        feed(far, take(near))
        self.assertLess(len(far.buffer()), 8_192)
        feed(near, take(far))
        feed(far, take(near))
        self.assertEqual(len(far.buffer()), BUFFER_SIZE)


class HelloTests(SynchronousTestCase):
    """The first frame."""

    def peers(self) -> list[tuple[str, Lane, Voice, Owner]]:
        """Each role, as far as act three."""
        found = []
        for name, (make, voice) in ROLES.items():
            lane = make(owner := Owner())
            found.append((name, lane, voice(lane), owner))
        return found

    def test_bad_hellos(self) -> None:
        """Another version, lanes that cannot be, frames too small: a sentence each, in both roles."""
        for changes, says in (
            ({"version": 2}, "version 2"),
            ({"lanes": 3}, "3 lanes"),
            ({"lanes": 2, "lane": 2}, "lane 2 of 2"),
            ({"largest_frame": 2_047}, "2047"),
        ):
            for name, lane, voice, owner in self.peers():
                error = self.assertRaises(ProtocolError, feed, lane, voice.hello(**changes))
                self.assertIn(says, str(error), name)
                self.assertEqual((owner.hellos, lane.is_up), ([], False))

    def test_malformed_hello(self) -> None:
        """A short HELLO, and one whose tail is too long."""
        for body in (b"", b"\0\x01", bytes(14) + bytes(1_025)):
            for _, lane, voice, _ in self.peers():
                self.assertRaises(MeshError, feed, lane, voice.frames((HELLO, body)))

    def test_frames_before_hello(self) -> None:
        """Only padding may come before it; a cell there is lost, as no label is known."""
        for kind in (2, 3, 10, 20, 33, 255):
            for name, lane, voice, owner in self.peers():
                self.assertRaises(ProtocolError, feed, lane, voice.frames((kind, bytes(20))))
                self.assertEqual(owner.frames, [], name)
        for _, lane, voice, owner in self.peers():
            feed(lane, voice.frames((PAD, b"x" * 99), (PAD, b"")))
            feed(lane, voice.frames(cell(0, b"early")))
            self.assertFalse(lane.is_up)
            feed(lane, voice.hello() + voice.frames((31, b"x")))
            self.assertTrue(lane.is_up)
            self.assertEqual(owner.frames, [(31, b"x")])

    def test_hello_with_more_in_one_bundle(self) -> None:
        """What follows HELLO in its bundle goes to whom the lane belongs from then on."""
        for _, lane, voice, owner in self.peers():
            got: list[int] = []
            owner.forward[LABEL] = lambda seq, body, now, marked, got=got: got.append(seq) or Drop.NONE  # type: ignore[misc]
            body = bytes.fromhex("0001") + bytes(8) + (LARGEST_FRAME).to_bytes(2, "big") + b"\0\x01"
            feed(lane, voice.frames((HELLO, body), cell(5, b"x"), (31, b"y")))
            self.assertEqual((got, owner.frames), ([5], [(31, b"y")]))


class FrameTests(SynchronousTestCase):
    """What comes after HELLO."""

    def setUp(self) -> None:
        self.owner = Owner()
        self.lane = acceptor(self.owner)
        self.voice = calling(self.lane)
        feed(self.lane, self.voice.hello())
        self.cells: list[tuple[int, bytes, float, bool]] = []

    def step(self, seq: int, body: memoryview, now: float, marked: bool) -> Drop:
        self.cells.append((seq, bytes(body), now, marked))
        return Drop.NONE

    def test_cells(self) -> None:
        """Kinds 12 and 13 go to their own tables, with and without the congestion bit."""
        self.owner.forward[LABEL] = self.owner.backward[2] = self.step
        feed(
            self.lane,
            self.voice.frames(
                cell(1, b"a"),
                cell(2**64 - 1, b"", kind=12 | 0x80),
                cell(3, b"b", label=2, kind=13),
                cell(4, b"c", label=2, kind=13 | 0x80),
            ),
            now=9.0,
        )
        self.assertEqual(
            self.cells,
            [(1, b"a", 9.0, False), (2**64 - 1, b"", 9.0, True), (3, b"b", 9.0, False), (4, b"c", 9.0, True)],
        )
        self.assertEqual((self.lane.cells, sum(self.owner.drops)), (4, 0))

    def test_drops(self) -> None:
        """Unknown labels, labels of the other direction, and what a step says are counted by name."""
        self.owner.forward[LABEL] = lambda seq, body, now, marked: Drop.REPLAYED
        feed(
            self.lane,
            self.voice.frames(cell(1, b""), cell(1, b"", label=3), cell(1, b"", kind=13), cell(1, b"")),
        )
        self.assertEqual(self.owner.drops[Drop.REPLAYED], 2)
        self.assertEqual(self.owner.drops[Drop.UNKNOWN_LABEL], 2)
        self.assertEqual(self.lane.cells, 4)

    def test_runs(self) -> None:
        """Cells that lie together may be taken at once; what a run leaves goes one by one, nothing twice."""
        taken: list[int] = []

        def run(memory: memoryview, begin: int, end: int, now: float) -> int:
            position = begin
            for number in count():
                size = 2 + int.from_bytes(memory[position : position + 2], "big")
                seq = int.from_bytes(memory[position + 7 : position + 15], "big")
                if position + size > end or memory[position + 2] != 12 or seq % 4 == 3:
                    return number
                taken.append(seq)
                position += size
            raise AssertionError

        self.owner.forward[LABEL] = self.step
        self.owner.runs[LABEL] = run
        frames = [cell(seq, b"x" * 9) for seq in range(10)]
        feed(self.lane, self.voice.frames((31, b"q"), *frames, (33, b"r")))
        self.assertEqual(sorted([*taken, *(seq for seq, *_ in self.cells)]), list(range(10)))
        self.assertEqual((self.lane.cells, self.owner.frames), (10, [(31, b"q"), (33, b"r")]))

    def test_a_run_is_only_for_cells(self) -> None:
        """Other frames that look alike are not taken for cells of that label."""
        self.owner.runs[LABEL] = lambda memory, begin, end, now: self.fail("called")
        body = LABEL.to_bytes(4, "big") + bytes(12)
        feed(self.lane, self.voice.frames(*[(31, body)] * 4))
        self.assertEqual(self.owner.frames, [(31, body)] * 4)

    def test_a_large_cell(self) -> None:
        """The largest cell passes whole, byte by byte at the end of the buffer too."""
        self.owner.forward[LABEL] = self.step
        for number in range(30):
            body = random.Random(number).randbytes(61_000 - number)
            feed(self.lane, self.voice.frames(cell(number, body)), 40_000)
            self.assertEqual(self.cells.pop()[1], body)

    def test_malformed_bundles(self) -> None:
        """Frames without length, longer than the bundle, cut heads, cells without a head: closed."""
        for data in (
            b"\0",
            b"\0\0",
            b"\0\0\x0c",
            b"\0\x01",
            b"\0\x02\x1f",
            b"\xff\xff\x1f" + bytes(100),
            b"\0\x0d\x0c" + bytes(11),
            b"\0\x0c\x0c" + bytes(11),
            b"\0\x01\x0c",
            b"\0\x02\x1fx\0\0\x0c" + bytes(12),
            b"\0\x02\x1fx\0",
        ):
            self.setUp()
            self.assertRaises(ProtocolError, feed, self.lane, self.voice.bundle(data))
            self.assertEqual(self.cells, [])

    def test_larger_than_agreed(self) -> None:
        """A frame that fits its record but is longer than our HELLO allows: closed."""
        feed(self.lane, self.voice.frames((31, bytes(LARGEST_FRAME - 1))))
        self.assertRaises(ProtocolError, feed, self.lane, self.voice.frames((31, bytes(LARGEST_FRAME))))

    def test_an_empty_bundle(self) -> None:
        """A record of nothing says nothing; many of them cost no memory."""
        for _ in range(300):
            feed(self.lane, self.voice.empty())
        feed(self.lane, self.voice.empty() + self.voice.frames((31, b"x")))
        self.assertEqual(self.owner.frames, [(31, b"x")])
        self.assertEqual(len(self.lane.buffer()), BUFFER_SIZE)

    def test_truncated(self) -> None:
        """Half a record is waited for, whatever was in the first half; the end of the connection ends it."""
        data = self.voice.frames((31, bytes(5_000)))
        feed(self.lane, data[:-1])
        self.assertEqual(self.owner.frames, [])
        why = LinkLostError("gone")
        self.assertIs(self.lane.ended(why), why)

    def test_counts(self) -> None:
        """Bytes, cells and other frames are counted."""
        before = self.lane.bytes_received
        data = self.voice.frames((31, b"x"), cell(1, b"y"))
        feed(self.lane, data, 3)
        self.assertEqual(self.lane.bytes_received - before, len(data))
        self.assertEqual((self.lane.cells, self.lane.frames), (1, 2))  # HELLO was one


class HostileTests(SynchronousTestCase):
    """Any bytes at all."""

    @given(st.sampled_from(list(ROLES)), st.binary(max_size=400), st.integers(1, 100))
    def test_noise_from_the_start(self, role: str, data: bytes, chunk: int) -> None:
        """Nothing but MeshErrors leaves a lane, in either role."""
        lane = ROLES[role][0](Owner())
        take(lane)
        try:
            feed(lane, data, chunk)
        except MeshError:
            return
        self.assertLess(len(data), 66)

    @given(
        st.sampled_from(list(ROLES)),
        st.booleans(),
        st.lists(st.one_of(st.binary(max_size=80), st.tuples(st.integers(0, 255), st.binary(max_size=40)))),
        st.integers(1, 200),
    )
    def test_noise_in_records(
        self, role: str, greeted: bool, bundles: list[bytes | Frame], chunk: int
    ) -> None:
        """A peer with a key that seals whatever it likes: MeshErrors or counted drops, nothing else."""
        make, voice_of = ROLES[role]
        lane = make(owner := Owner())
        owner.forward[LABEL] = lambda seq, body, now, marked: Drop.NONE
        voice = voice_of(lane)
        if greeted:
            feed(lane, voice.hello())
        for bundle in bundles:
            data = voice.bundle(bundle) if isinstance(bundle, bytes) else voice.frames(bundle)
            try:
                feed(lane, data, chunk)
            except MeshError:
                return

    @given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=30), st.data())
    def test_any_chunking(self, frames: list[Frame], data: st.DataObject) -> None:
        """However the bytes of good frames are cut, each is told once and in order."""
        frames = [(kind | 1 if kind & 0x7E != 12 else 31, body) for kind, body in frames]
        for role, (make, voice_of) in ROLES.items():
            lane = make(owner := Owner())
            voice = voice_of(lane)
            stream = voice.hello() + b"".join(voice.frames(frame) for frame in frames)
            while stream:
                size = data.draw(st.integers(1, 500), role)
                feed(lane, stream[:size])
                stream = stream[size:]
            self.assertEqual(owner.frames, frames)

    def test_called_and_calling_agree(self) -> None:
        """The test's own peers are what they claim to be."""
        for make, voice_of in ROLES.values():
            lane = make(Owner())
            feed(lane, voice_of(lane).hello())
            self.assertTrue(lane.is_up)
        self.assertIs(ROLES["dialler"][1], called)
