"""`Hop`: the layer, the queue, the marks, and runs of cells."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import backend, nonce128
from meshnet.circuit.keys import MASK
from meshnet.circuit.messages import CELL_FORWARD, MARKED
from meshnet.circuit.policy import Bucket
from meshnet.circuit.relay import Hop
from meshnet.errors import Drop
from meshnet.limits import CIRCUIT_QUEUE_BYTES, CIRCUIT_QUEUE_CELLS, CIRCUIT_QUEUE_MARK
from tests.meshnet.circuit.network import FakeOutlet

KEY = b"k" * 32
LABEL = 0xAABBCCDD
OFFSET = (1 << 64) - 77
OPENSSL = backend()


def layer(seq: int, body: bytes) -> bytes:
    """What the hop's layer makes of a body."""
    stream = OPENSSL.stream(KEY)
    stream.reset_nonce(nonce128(seq))
    out = bytearray(len(body))
    stream.update_into(body, out)
    return bytes(out)


def frame(kind: int, label: int, seq: int, body: bytes) -> bytes:
    head = bytes([kind]) + label.to_bytes(4, "big") + seq.to_bytes(8, "big") + body
    return len(head).to_bytes(2, "big") + head


class HopTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.outlet = FakeOutlet()
        self.hop = self.make(self.outlet)

    def make(self, outlet: FakeOutlet) -> Hop:
        return Hop(outlet, CELL_FORWARD, LABEL, OPENSSL.stream(KEY), OFFSET, 61_000, 0.0)

    def relay(self, seq: int, body: bytes, marked: bool = False) -> Drop:
        return self.hop.relay(seq & MASK, memoryview(bytearray(body)), 1.0, marked)

    def sent(self) -> list[tuple[int, int, bytes]]:
        """(kind, seq, body) of the cells that have left."""
        return [
            (kind, int.from_bytes(cell[4:12], "big"), cell[12:]) for kind, cell in self.outlet.frames(1.0)
        ]

    def test_one_cell(self) -> None:
        """Label, seq and body are replaced; nonce and counter are those of the wire's text."""
        self.assertIs(self.relay(5, b"hello"), Drop.NONE)
        ((kind, cell),) = self.outlet.frames(1.0)
        self.assertEqual(kind, CELL_FORWARD)
        expected = LABEL.to_bytes(4, "big") + ((5 + OFFSET) & MASK).to_bytes(8, "big") + layer(5, b"hello")
        self.assertEqual(cell, expected)
        self.assertEqual((self.hop.cells, self.hop.used), (1, 1.0))

    @given(st.lists(st.tuples(st.integers(-3, 6), st.binary(max_size=40), st.booleans()), max_size=40))
    def test_any_order(self, cells: list[tuple[int, bytes, bool]]) -> None:
        """Whatever comes in whatever order around the wrap: each number leaves once, under its own nonce."""
        self.setUp()
        seq, expected = (1 << 64) - 5, []
        seen: set[int] = set()
        for move, body, marked in cells:
            seq += move
            if self.relay(seq, body, marked) is Drop.NONE:
                self.assertNotIn(seq & MASK, seen)
                seen.add(seq & MASK)
                kind = CELL_FORWARD | (MARKED if marked else 0)
                expected.append((kind, seq + OFFSET & MASK, layer(seq & MASK, body)))
        self.assertEqual(self.sent(), expected)

    def test_order_is_kept_while_cells_wait(self) -> None:
        """A new cell queues behind those that wait, even when there is room again."""
        self.relay(0, b"0")
        self.outlet.blocked = True
        for seq in (1, 2, 3):
            self.relay(seq, b"%d" % seq)
        self.assertEqual((self.hop.waiting, self.hop.cells), (3, 1))
        self.outlet.blocked = False
        self.relay(4, b"4")
        self.assertEqual([body for _, _, body in self.sent()], [layer(seq, b"%d" % seq) for seq in range(5)])
        self.assertEqual((self.hop.waiting, self.hop.queued, self.hop.cells), (0, 0, 5))
        self.relay(5, b"5")
        self.assertEqual((self.hop.waiting, self.hop.cells), (0, 6))  # straight again
        self.assertEqual(self.hop.bytes, 6)

    def test_the_oldest_is_dropped(self) -> None:
        """A full queue drops its oldest cells and counts them."""
        self.outlet.blocked = True
        for seq in range(CIRCUIT_QUEUE_CELLS + 3):
            expected = Drop.NONE if seq < CIRCUIT_QUEUE_CELLS else Drop.QUEUE_FULL
            self.assertIs(self.relay(seq, b"x"), expected)
        self.assertEqual((self.hop.waiting, self.hop.drops[Drop.QUEUE_FULL]), (CIRCUIT_QUEUE_CELLS, 3))
        self.outlet.blocked = False
        self.assertEqual(self.sent()[0][1], 3 + OFFSET & MASK)

    def test_bytes_are_bounded_too(self) -> None:
        """Large cells: the queue never holds more than its bytes."""
        self.outlet.blocked = True
        for seq in range(40):
            self.relay(seq, bytes(60_000))
            self.assertLessEqual(self.hop.queued, CIRCUIT_QUEUE_BYTES)
        self.assertEqual(self.hop.drops[Drop.QUEUE_FULL], 40 - self.hop.waiting)

    def test_a_long_queue_marks(self) -> None:
        """Cells that leave a queue longer than the mark carry the congestion bit."""
        self.outlet.blocked = True
        for seq in range(30):
            self.relay(seq, bytes(60_000))
        self.outlet.blocked = False
        kinds = [kind for kind, _, _ in self.sent()]
        marked = kinds.count(CELL_FORWARD | MARKED)
        self.assertEqual(kinds, [CELL_FORWARD | MARKED] * marked + [CELL_FORWARD] * (30 - marked))
        self.assertEqual(marked, 30 - CIRCUIT_QUEUE_MARK // 60_012)

    def test_marks_survive_the_queue(self) -> None:
        """A cell that came marked leaves marked after waiting."""
        self.outlet.blocked = True
        self.relay(0, b"0", True)
        self.relay(1, b"1")
        self.outlet.blocked = False
        self.assertEqual([kind for kind, _, _ in self.sent()], [CELL_FORWARD | MARKED, CELL_FORWARD])

    def test_refused_cells(self) -> None:
        """Replays, cells far ahead, old and large ones are counted and go nowhere."""
        self.relay(5_000, b"")
        for seq, size, drop in (
            (5_000, 0, Drop.REPLAYED),
            (1, 0, Drop.TOO_OLD),
            (1 << 30, 0, Drop.JUMPED),
            (5_001, 61_001, Drop.TOO_LARGE),
        ):
            self.assertIs(self.relay(seq, bytes(size)), drop)
            self.assertEqual(self.hop.drops[drop], 1)
        self.assertEqual(len(self.sent()), 1)

    def test_limited(self) -> None:
        """Under a rate limit what is beyond the bucket is dropped."""
        step = self.hop.limited(Bucket(100.0, 100.0, 0.0))
        drops = [step(seq, memoryview(bytearray(38)), 0.0, False) for seq in range(3)]
        self.assertEqual(drops, [Drop.NONE, Drop.NONE, Drop.RATE])
        self.assertIs(step(2, memoryview(bytearray(38)), 0.5, False), Drop.NONE)

    def test_close_forgets_what_waits(self) -> None:
        """Waiting cells of a circuit that ends are late."""
        self.outlet.blocked = True
        self.relay(0, b"0")
        self.hop.close()
        self.outlet.blocked = False
        self.assertEqual((self.sent(), self.hop.drops[Drop.LATE]), ([], 1))


class RunTests(SynchronousTestCase):
    """`run` must do exactly what `relay` would, cell by cell, and stop where `relay` would take care."""

    def feed(self, hop: Hop, outlet: FakeOutlet, frames: list[bytes]) -> list[tuple[int, bytes]]:
        """As a lane does it: `run` where more follow in the bundle, `relay` for what it leaves."""
        data = b"".join(frames)
        memory = memoryview(bytearray(data + bytes(32)))
        position, end = 0, len(data)
        while position < end:
            stop = position + 2 + int.from_bytes(memory[position : position + 2], "big")
            kind, label = memory[position + 2], int.from_bytes(memory[position + 3 : position + 7], "big")
            if label == 1 and kind & 0x7F == CELL_FORWARD:
                if stop < end and (taken := hop.run(memory, position, end, 1.0)):
                    position += taken * (stop - position)
                    continue
                seq = int.from_bytes(memory[position + 7 : position + 15], "big")
                hop.relay(seq, memory[position + 15 : stop], 1.0, kind >= MARKED)
            position = stop
        return outlet.frames(1.0)

    cells = st.lists(
        st.tuples(
            st.sampled_from([1, 1, 1, 1, 1, 1, 0, 2, -1]),
            st.sampled_from([b"", b"x" * 30, b"x" * 30, b"x" * 30, b"y" * 31]),
            st.sampled_from([CELL_FORWARD] * 6 + [CELL_FORWARD | MARKED, CELL_FORWARD + 1]),
            st.sampled_from([1] * 8 + [2]),
        ),
        max_size=30,
    )

    @given(cells, st.booleans(), st.integers(0, 600))
    def test_like_one_by_one(self, cells: list[tuple[int, bytes, int, int]], wrap: bool, room: int) -> None:
        """Any mixture of circuits, marks, sizes and orders gives what cell after cell gives."""
        seq = (1 << 64) - 6 if wrap else 100
        frames, single = [], []
        for move, body, kind, label in cells:
            seq += move
            frames.append(frame(kind, label, seq & MASK, body))
            if label == 1 and kind & 0x7F == CELL_FORWARD:
                single.append((seq & MASK, body, kind >= MARKED))
        one, many = FakeOutlet(), FakeOutlet()
        one.bundle.limit = many.bundle.limit = 1_000 + room
        slow = Hop(one, CELL_FORWARD, LABEL, OPENSSL.stream(KEY), OFFSET, 30, 0.0)
        fast = Hop(many, CELL_FORWARD, LABEL, OPENSSL.stream(KEY), OFFSET, 30, 0.0)
        for number, body, marked in single:
            slow.relay(number, memoryview(bytearray(body)), 1.0, marked)
        sent = self.feed(fast, many, frames)
        self.assertEqual(sent, one.frames(1.0))
        self.assertEqual((fast.cells, fast.bytes, fast.drops), (slow.cells, slow.bytes, slow.drops))
        self.assertEqual((fast.queued, fast.waiting), (slow.queued, slow.waiting))

    def test_run_keeps_off(self) -> None:
        """It touches no marked cell, none of the other direction, no frame too short to be a cell, and
        nothing while cells wait."""
        for kind, cut, wait in (
            (CELL_FORWARD | MARKED, 0, False),
            (CELL_FORWARD + 1, 0, False),
            (CELL_FORWARD, 5, False),
            (CELL_FORWARD, 0, True),
        ):
            outlet = FakeOutlet()
            hop = Hop(outlet, CELL_FORWARD, LABEL, OPENSSL.stream(KEY), OFFSET, 61_000, 0.0)
            outlet.blocked = wait
            hop.relay(0, memoryview(bytearray(20)), 1.0, False)
            outlet.blocked = False
            memory = bytearray(frame(kind, 1, 1, b"")) + bytes(40)
            memory[1] -= cut
            end = 15 - cut
            self.assertEqual(hop.run(memoryview(memory), 0, end, 1.0), 0)
            self.assertEqual(len(outlet.frames(1.0)), 1)

    def test_touches_an_empty_bundle(self) -> None:
        """Whoever owns the bundle learns of its first frame, also when a run wrote it."""
        outlet = FakeOutlet()
        touched: list[int] = []
        outlet.bundle.touched = lambda: touched.append(1)
        hop = Hop(outlet, CELL_FORWARD, LABEL, OPENSSL.stream(KEY), OFFSET, 61_000, 0.0)
        self.feed(hop, outlet, [frame(CELL_FORWARD, 1, seq, b"x") for seq in range(5)])
        self.assertEqual(touched, [1])
