"""Peers that lie: whatever they send, the connection ends with a reason and holds only what was granted."""

from __future__ import annotations

import struct
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet import limits
from meshnet.codec import encode
from meshnet.errors import EncodeError, UnreachableError
from meshnet.rpc import frames
from meshnet.rpc.failure import BrokenPeerError, CancelledCallError
from meshnet.rpc.wire import OURS
from tests.meshnet.rpc.pairs import Pair, Side
from tests.meshnet.rpc.samples import Number, Sums


def frame(kind: int, call_id: int = 0, body: bytes = b"", slot: int = 0) -> bytes:
    """A frame by hand."""
    return struct.pack(">IH", slot << 24 | kind << 20 | len(body), call_id) + body


HELLO = frame(frames.HELLO, 0, encode(OURS))
WANTED = tuple(frames.Wanted(each.number, each.form, each.signature) for each in Sums.methods.values())
BIND = frame(frames.BIND, 0, encode(frames.Bind("sums", WANTED)))
BEGIN = HELLO + BIND
ONE = encode(Number(1))


def called(call_id: int, slot: int = 0, body: bytes = ONE, time: int = 1000) -> bytes:
    """A call by hand."""
    return frame(frames.CALL, call_id, time.to_bytes(2, "big") + body, slot)


KINDS = st.integers(0, 15)
IDS = st.sampled_from([0, 1, 2, 3, 4, 5, 0xFFFE, 0xFFFF])
BODIES = st.one_of(
    st.just(b""), st.just(ONE), st.just(b"\x03\xe8" + ONE), st.just(b"\0\0\0\x10"), st.binary(max_size=40)
)
FRAMES = st.builds(frame, KINDS, IDS, BODIES, st.integers(0, 6))


class AnyBytesTests(SynchronousTestCase):
    """Bytes out of nowhere."""

    def bounded(self, side: Side) -> None:
        """Nothing is held beyond the limits; an end has one reason."""
        core = side.core
        self.assertLessEqual(len(core._held), limits.RPC_BODY + 8)
        self.assertLessEqual(len(core.incoming.calls), limits.RPC_CALLS)
        self.assertLessEqual(len(core.wire.outbox), limits.RPC_QUEUE)
        self.assertEqual(len(side.ended_by), 0 if core.over is None else 1)
        if core.over is not None:
            self.assertIsInstance(core.over, BrokenPeerError | UnreachableError)
            self.assertTrue(str(core.over))
            self.assertFalse(core.incoming.calls)

    @given(st.lists(st.binary(max_size=60), max_size=8))
    def test_noise(self, pieces: list[bytes]) -> None:
        """Any bytes, before and after a HELLO."""
        for start in (b"", HELLO, BEGIN):
            side = Side(False)
            side.core.receive(start, 0)
            for piece in pieces:
                side.core.receive(piece, 0)
            self.bounded(side)

    @given(st.lists(FRAMES, max_size=12), st.booleans())
    def test_frames(self, several: list[bytes], opener: bool) -> None:
        """Any frames, with calls of ours under way."""
        side = Side(opener)
        side.core.receive(BEGIN, 0)
        asks = [side.ask(number) for number in Sums.methods]
        for each in several:
            side.core.receive(each, 0)
        for number, answerer in enumerate(side.taken):
            if number % 2:
                answerer.call.fail(300, "No.")
            elif answerer.call.method.many:
                answerer.call.send_item(Number(1))
                answerer.call.end()
            else:
                answerer.call.answer(Number(1))
        self.bounded(side)
        for each in asks:
            self.assertLessEqual(len(each.ends), 1)
        side.core.lost(UnreachableError("cut"))
        for each in asks:
            self.assertEqual(len(each.ends), 1)

    @given(st.data())
    def test_pieces(self, data: st.DataObject) -> None:
        """However the bytes of a conversation are cut, it is the same one."""
        octets = BEGIN + called(0) + called(2, 1) + called(4, 2) + frame(frames.ITEM, 4, ONE) + called(6, 0)
        cuts = data.draw(st.lists(st.integers(0, len(octets)), max_size=12).map(sorted))
        side = Side(False)
        for start, stop in zip([0, *cuts], [*cuts, len(octets)], strict=True):
            side.core.receive(octets[start:stop], 0)
        self.assertIsNone(side.core.over)
        self.assertEqual([each.request for each in side.taken], [Number(1)] * 4)
        self.assertEqual(len(side.taken[2].items), 1)


class RuleTests(SynchronousTestCase):
    """Each rule, broken once."""

    def broken(self, octets: bytes, why: str, start: bytes = BEGIN, opener: bool = False) -> Side:
        """The bytes end a connection for this reason, and the peer is told."""
        side = Side(opener)
        side.core.receive(start, 0)
        self.assertIsNone(side.core.over)
        side.output()
        side.core.receive(octets, 0)
        self.assertIsInstance(side.core.over, BrokenPeerError, octets.hex())
        self.assertIn(why, str(side.core.over))
        self.assertIn(why.encode(), side.output()[-300:])
        return side

    def test_hello(self) -> None:
        """No HELLO first, another protocol or version, less than is granted always, a second one."""
        hello = bytearray(HELLO)
        hello[10] = 2
        meagre = frame(0, 0, encode(frames.Hello(frames.MAGIC, 1, 1, 1, 1, 1, 1)))
        for octets in (b"GET / HTTP/1.1\r\nHost: mesh\r\n", BIND, frame(0, 0, b"mRPC"), bytes(hello), meagre):
            side = Side(False)
            side.core.receive(octets + bytes(100), 0)
            self.assertIsInstance(side.core.over, BrokenPeerError)
        self.broken(HELLO, "means nothing here")

    def test_longer_hello(self) -> None:
        """What a later version appends to its HELLO is ignored; what it grants is used, within bounds."""
        hello = frames.Hello(frames.MAGIC, 1, 1_000, 100, 1 << 30, 1 << 20, 1 << 19)
        side = Side(True)
        side.core.receive(frame(0, 0, encode(hello) + b"more"), 0)
        self.assertIsNone(side.core.over)
        self.assertEqual(side.core.wire.peer, hello)
        boundless = Side(True)
        hello = frames.Hello(frames.MAGIC, 1, 0xFFFF, 0xFFFF, *[0xFFFF_FFFF] * 3)
        boundless.core.receive(frame(0, 0, encode(hello)), 0)
        wide = Number(1, bytes(limits.RPC_BODY))
        for number in range(frames.MOST_CALLS + 10):
            boundless.ask(1, wide if number == 0 else Number(1))
            boundless.output()
        self.assertEqual(len(boundless.core.outgoing.calls), frames.MOST_CALLS)
        giant, put = Number(1, bytes(1 << 20)), boundless.core.wire.put
        self.assertRaises(EncodeError, put, 0, 0, giant, boundless.core.wire.peer.body)

    def test_frames(self) -> None:
        """Unknown kinds, lengths that none may have, bodies and slots where there are none."""
        for kind in range(10, 16):
            self.broken(frame(kind), "means nothing here")
        self.broken(struct.pack(">IH", 2 << 20 | limits.RPC_BODY + 3, 0), "longer than any may be")
        self.broken(called(0, 1) + frame(frames.END, 0), "an end of no stream")
        self.broken(called(0, 2) + frame(frames.END, 0, b"x"), "says too much")
        self.broken(frame(frames.CANCEL, 0, b"x"), "says too much")
        self.broken(called(0, 2) + frame(frames.CREDIT, 0, b"x"), "wrong size")
        self.broken(frame(frames.CLOSE), "without a code")
        self.broken(frame(frames.BIND, 0, b"x"), "Bind.service")

    def test_calls(self) -> None:
        """Ids that are not free or not his, slots that were not named, requests that are none."""
        self.broken(called(1), "not free")
        self.broken(called(0) + called(0), "not free")
        self.broken(called(0, 4), "not named")
        self.broken(called(0, 0, b""), "")
        self.broken(called(0, 0, ONE + b"x"), "")
        self.broken(frame(frames.CALL, 0, b"x"), "granted")

    def test_answers_to_no_call(self) -> None:
        """Answers, failures, items, ends and cancels of calls that were never made."""
        for call_id in (0, 1):
            self.broken(frame(frames.ANSWER, call_id, ONE), "an answer to no call")
            self.broken(frame(frames.FAIL, call_id, b"\0\1"), "a failure of no call")
            self.broken(frame(frames.ITEM, call_id, ONE), "an item of no stream")
            self.broken(frame(frames.END, call_id), "an end of no stream")
        self.broken(frame(frames.CANCEL, 1), "did not make")

    def test_answers_of_a_wrong_form(self) -> None:
        """One answer where items were asked for, items and an end where one answer was."""
        for number, octets in (
            (2, frame(frames.ANSWER, 0, ONE)),
            (1, frame(frames.ITEM, 0, ONE)),
            (1, frame(frames.END, 0)),
            (3, frame(frames.ITEM, 0, ONE)),
            (1, frame(frames.ANSWER, 0, b"x")),
        ):
            side = Side(True)
            side.core.receive(HELLO, 0)
            asked = side.ask(number)
            side.core.receive(octets, 0)
            self.assertIsInstance(side.core.over, BrokenPeerError)
            self.assertEqual(len(asked.ends), 1)

    def test_more_than_granted(self) -> None:
        """Calls, bytes of requests, streams, items, methods: one more than was granted ends it."""
        large = encode(Number(1, bytes(limits.RPC_BODY - 8)))
        granted = limits.RPC_REQUESTS // len(large)
        floods: list[tuple[int, Callable[[int], bytes]]] = [
            (limits.RPC_CALLS, lambda number: called(2 * number)),
            (granted, lambda number: called(2 * number, 0, large)),
            (limits.RPC_STREAMED, lambda number: called(2 * number, 1)),
        ]
        for count, one in floods:
            side = self.broken(one(count), "granted", BEGIN + b"".join(one(each) for each in range(count)))
            self.assertEqual(len(side.taken), count)
        item = frame(frames.ITEM, 0, encode(Number(1, bytes(1000))))
        most = limits.RPC_CREDIT // len(item)
        self.broken(item, "granted", BEGIN + called(0, 2) + most * item)
        long = frame(frames.ITEM, 0, encode(Number(1, bytes(limits.RPC_ITEM))))
        self.broken(long, "granted", BEGIN + called(0, 2))
        self.broken(BIND, "named", HELLO + BIND * (limits.RPC_BOUND // 4))

    def test_credit_beyond_bounds(self) -> None:
        """Grants add up to what a counter holds, and no further."""
        grant = frame(frames.CREDIT, 0, b"\xff" * 4)
        self.broken(grant * 2, "beyond all bounds", BEGIN + called(0, 1))

    def test_not_offered(self) -> None:
        """Methods that are not there start nothing; each call of them fails."""
        side = Side(False, service=None)
        side.core.receive(BEGIN + b"".join(called(2 * each, 0) for each in range(1_000)), 0)
        self.assertIsNone(side.core.over)
        self.assertFalse(side.core.incoming.calls)
        self.assertEqual(len(side.output()), len(HELLO) + 1_000 * 8)

    def test_cancels(self) -> None:
        """Who makes calls only to cancel them is slowed down: the work stops at once, the end comes later,
        and a call that is not ended is one call less."""
        side, ends = Side(False), 0
        side.core.receive(BEGIN, 0)
        side.output()
        for turn in range(10 * limits.RPC_CANCELS):
            call_id = 2 * turn & 0xFFFF
            side.core.receive(called(call_id, 2 if turn % limits.RPC_CALLS < 30 else 0, time=0xFFFF), 0.5)
            if side.core.over is not None:
                break
            side.core.receive(frame(frames.CANCEL, call_id), 0.5)
            self.assertIsInstance(side.taken[-1].ends[-1], CancelledCallError)
            self.assertTrue(side.taken[-1].call.ended)
            ends += len(side.output()) // 8
        self.assertIn("more calls", str(side.core.over))
        self.assertEqual((ends, len(side.taken)), (limits.RPC_CANCELS, limits.RPC_CANCELS + limits.RPC_CALLS))

    def test_cancels_that_are_held(self) -> None:
        """A second later a held call has ended, and its id is free; cancelled twice, it is ended once."""
        side = Side(False)
        side.core.receive(BEGIN, 0)
        for turn in range(limits.RPC_CANCELS + 5):
            side.core.receive(called(2 * turn, time=0xFFFF) + frame(frames.CANCEL, 2 * turn), 0.5)
        side.core.receive(frame(frames.CANCEL, 2 * turn), 0.6)
        side.output()
        self.assertEqual((len(side.core.incoming.calls), side.core.deadline()), (5, 0.5 + limits.RPC_HELD))
        side.core.tick(0.5 + limits.RPC_HELD)
        self.assertEqual(len(side.output()), 5 * (frames.HEAD_SIZE + 2))
        self.assertFalse(side.core.incoming.calls)
        side.core.receive(called(2 * turn, time=0xFFFF) + frame(frames.CANCEL, 2 * turn), 2)
        self.assertFalse(side.core.incoming.calls)
        self.assertIsNone(side.core.over)


class PatienceTests(SynchronousTestCase):
    """Peers that do nothing."""

    def test_no_hello(self) -> None:
        """Who says nothing is left, also in the middle of a frame."""
        side = Side(False)
        side.core.receive(HELLO[:5], 0)
        self.assertEqual(side.core.deadline(), limits.RPC_HELLO)
        side.core.tick(limits.RPC_HELLO)
        self.assertIn("no HELLO", str(side.core.over))

    def test_never_answers(self) -> None:
        """A call ends by its deadline; one that is not ended on the other side ends the connection."""
        side = Side(True)
        side.core.receive(HELLO, 0)
        asked = side.ask(1, seconds=5)
        side.core.tick(5)
        self.assertEqual(len(asked.ends), 1)
        self.assertIsNone(side.core.over)
        side.core.tick(5 + limits.RPC_GRACE)
        self.assertIn("not ended in time by the other side", str(side.core.over))

    def test_never_ends_its_items(self) -> None:
        """A caller that goes on after the answer, or says nothing, loses the connection."""
        side = Side(False)
        side.core.receive(BEGIN + called(0, 2, time=1000), 0)
        side.core.tick(1.0)
        self.assertEqual(len(side.taken[0].ends), 1)
        side.core.receive(frame(frames.ITEM, 0, ONE), 2)
        self.assertFalse(side.taken[0].items)
        side.core.tick(1 + limits.RPC_GRACE)
        self.assertIn("not ended in time by its caller", str(side.core.over))

    def test_reads_nothing(self) -> None:
        """Answers pile up to a limit, then the connection is over; nothing more is begun before that."""
        pair = Pair()
        pair.move()
        body = Number(1, bytes(200_000))
        while not pair.far.core.wire.outbox.stuck:
            for _ in range(limits.RPC_CALLS):
                pair.near.ask(1)
            pair.far.core.receive(pair.near.output(), 0)
            for answerer in pair.far.taken:
                answerer.call.answer(body)
            pair.far.taken.clear()
            pair.near.core.outgoing.calls.clear()  # it lies about what was answered
            pair.near.core.outgoing._waiting.clear()
            self.assertLessEqual(len(pair.far.core.wire.outbox), limits.RPC_QUEUE)

    def test_idle(self) -> None:
        """A connection without calls ends; one with a call does not."""
        side = Side(False)
        side.core.receive(BEGIN + called(0, time=0xFFFF), 0)
        side.core.tick(limits.RPC_FORGOTTEN)
        side.core.tick(2 * limits.RPC_FORGOTTEN)
        self.assertIsNone(side.core.over)
        self.assertLess(2 * limits.RPC_FORGOTTEN, limits.RPC_GRANTED)
        side.taken[0].call.answer(Number(1))
        side.core.tick(3 * limits.RPC_FORGOTTEN)
        side.core.tick(4 * limits.RPC_FORGOTTEN)
        self.assertIn("nothing was asked", str(side.core.over))
