"""The sending side of a link: whose turn it is, and what is lost when connections come and go."""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import backend
from meshnet.cipher.rotation import RotatingKey
from meshnet.limits import CONTROL_QUEUE_BYTES, CONTROL_QUEUE_FRAMES, LARGEST_RECORD
from meshnet.link.outlet import Outbox, Outlet
from meshnet.link.record import Sealer
from tests.meshnet.link.test_record import CHAINING, SENDING, Carrier, Receiver
from tests.meshnet.test_bundle import Frame

OPENSSL = backend("openssl")


class Turns:
    """Calls for later turns, run when a test says so."""

    def __init__(self) -> None:
        self.calls: deque[Callable[[], None]] = deque()

    def run(self) -> int:
        """Runs all; how many there were."""
        number = 0
        while self.calls:
            self.calls.popleft()()
            number += 1
        return number


class Wire:
    """A connection: keys, a carrier that takes what it is told, and the far end."""

    def __init__(self, takes: list[int] | None = None) -> None:
        self.carrier = Carrier(takes)
        self.sealer = Sealer(RotatingKey(SENDING, CHAINING, OPENSSL), size=4_096)
        self.receiver = Receiver()

    def frames(self) -> list[Frame]:
        """What the far end has been sent since the last call."""
        data = bytes(self.carrier.taken)
        self.carrier.taken.clear()
        for start in range(0, len(data), 1 << 18):
            self.receiver.receive(data[start : start + (1 << 18)])
        frames = self.receiver.frames
        self.receiver.bundles.clear()
        return frames


class Queue:
    """A source with cells of its own, as a relay's queue or a session is one."""

    def __init__(self, outlet: Outlet, kind: int, size: int = 10) -> None:
        self.outlet = outlet
        self.kind = kind
        self.size = size
        self.waiting: deque[bytes] = deque()
        self.made = 0
        self.on_pour: Callable[[], None] = lambda: None

    def add(self, number: int = 1) -> None:
        for _ in range(number):
            self.waiting.append(self.made.to_bytes(4, "big").ljust(self.size, b"."))
            self.made += 1
        self.outlet.ready(self)

    def pour(self, now: float) -> bool:
        self.on_pour()
        if not self.waiting:
            return False
        room = self.outlet.room(self.kind, len(self.waiting[0]))
        if room is None:
            return True
        room[:] = self.waiting[0]
        self.outlet.commit(len(self.waiting.popleft()))
        return bool(self.waiting)


class OutletTests(SynchronousTestCase):
    """One outlet."""

    def setUp(self) -> None:
        self.turns = Turns()
        self.outbox = Outbox(self.turns.calls.append, lambda: 5.0)
        self.outlet = Outlet(self.outbox)

    def serve(self, takes: list[int] | None = None) -> Wire:
        """A connection takes over."""
        wire = Wire(takes)
        self.outlet.serve(wire.sealer, wire.carrier.write)
        self.turns.run()
        return wire

    def queue(self, kind: int, number: int = 0, size: int = 10) -> Queue:
        source = Queue(self.outlet, kind, size)
        if number:
            source.add(number)
        return source

    def test_control_comes_first(self) -> None:
        """Control frames that had to wait leave before cells that had to wait, in their order."""
        wire = self.serve([0])
        self.assertTrue(self.outlet.send(30, b"sealed, not taken"))
        self.turns.run()
        self.queue(12, 3)
        self.assertTrue(self.outlet.send(31, b"a"))
        self.assertTrue(self.outlet.send(33, b"b"))
        self.assertEqual(self.turns.run(), 0, "nothing to do until the carrier drains")
        self.outlet.drained(1.0)
        self.assertEqual([kind for kind, _ in wire.frames()], [30, 31, 33, 12, 12, 12])

    def test_send_keeps_order(self) -> None:
        """A control frame never overtakes one that waits, though there may be room again."""
        wire = self.serve([0, 0])
        self.outlet.send(31, b"0")
        self.turns.run()
        for number in range(1, 5):
            self.outlet.send(31, b"%d" % number)
        self.outlet.drained(1.0)
        self.outlet.drained(1.0)
        self.outlet.send(31, b"5")
        self.turns.run()
        self.assertEqual(wire.frames(), [(31, b"%d" % number) for number in range(6)])

    def test_round_robin(self) -> None:
        """While the carrier is slow, each waiting source gets its turn: one cell, however many it has."""
        wire = self.serve([0])
        self.outlet.send(31, b"blocks")
        self.turns.run()
        for kind, number in ((12, 50), (13, 3), (140, 1)):
            self.queue(kind, number)
        self.outlet.drained(1.0)
        kinds = [kind for kind, _ in wire.frames()][1:]
        self.assertEqual(kinds[:7], [12, 13, 140, 12, 13, 12, 13])
        self.assertEqual(kinds[7:], [12] * 47)

    def test_fair_when_the_carrier_takes_little(self) -> None:
        """Over many short writes two busy sources share the link evenly, whatever else comes and goes."""
        chance = random.Random("fair")
        wire = self.serve()
        wire.carrier.takes = [chance.randrange(0, 80_000) for _ in range(400)]
        one, two = self.queue(12, 40, 40_000), self.queue(13, 40, 40_000)
        counts = {12: 0, 13: 0, 140: 0}
        other = self.queue(140)
        for _ in range(60):
            self.outlet.drained(1.0)
            self.turns.run()
            one.add()
            two.add()
            other.add()
            for kind, _body in wire.frames():
                counts[kind] += 1
        self.assertGreater(counts[12], 20)
        self.assertLessEqual(abs(counts[12] - counts[13]), 3)
        self.assertGreater(counts[140], 20)

    def test_a_wake_during_a_pour_is_not_lost(self) -> None:
        """A source that says it has no more, and is woken while it says so, gets another turn."""
        wire = self.serve([0])
        self.outlet.send(31, b"blocks")
        self.turns.run()
        source = self.queue(12, 1)
        source.on_pour = lambda: (setattr(source, "on_pour", lambda: None), source.add())[1]  # type: ignore[func-returns-value]
        source.waiting.clear()
        self.outlet.drained(1.0)
        self.turns.run()
        self.assertEqual(len(wire.frames()), 2)
        self.assertEqual(self.outlet.waiting, 0)

    def test_ready_twice_is_one_turn(self) -> None:
        """A source is listed once however often it asks."""
        self.serve()
        source = Queue(self.outlet, 12)
        source.waiting.append(b"x")
        for _ in range(5):
            self.outlet.ready(source)
        self.assertEqual(self.outlet.waiting, 1)

    def test_bounded_control_queue(self) -> None:
        """Beyond the limits control frames are refused and counted; what was taken is sent."""
        wire = self.serve([0])
        self.outlet.send(31, b"blocks")
        self.turns.run()
        taken = sum(self.outlet.send(31, b"x") for _ in range(CONTROL_QUEUE_FRAMES + 10))
        self.assertEqual((taken, self.outlet.control_dropped), (CONTROL_QUEUE_FRAMES, 10))
        self.outlet.drained(1.0)
        self.assertEqual(len(wire.frames()), CONTROL_QUEUE_FRAMES + 1)
        self.setUp()
        self.serve([0])
        self.outlet.send(31, b"blocks")
        self.turns.run()
        taken = sum(self.outlet.send(31, bytes(60_000)) for _ in range(100))
        self.assertEqual(taken, CONTROL_QUEUE_BYTES // 60_000)

    def test_a_frame_that_never_fits(self) -> None:
        """A control frame larger than a record is refused and does not stop those after it."""
        wire = self.serve()
        self.assertFalse(self.outlet.send(31, bytes(LARGEST_RECORD)))
        self.assertTrue(self.outlet.send(31, b"next"))
        self.turns.run()
        self.assertEqual(wire.frames(), [(31, b"next")])

    def test_down(self) -> None:
        """Without a connection control frames are refused; sources wait and are asked when one is there."""
        self.assertFalse(self.outlet.send(31, b"x"))
        source = self.queue(12, 2)
        self.assertEqual(self.turns.run(), 0)
        wire = self.serve()
        self.assertEqual(len(wire.frames()), 2)
        self.assertEqual((len(source.waiting), self.outlet.control_dropped), (0, 1))

    def test_a_replaced_connection(self) -> None:
        """What waits goes over the next; only what was sealed for the old one is lost with it."""
        old = self.serve([0])
        self.outlet.send(31, b"sealed for the old")
        self.turns.run()
        self.outlet.send(31, b"waits")
        self.queue(12, 2)
        self.outlet.stop()
        self.turns.run()
        self.assertFalse(self.outlet.send(31, b"while down"))
        new = self.serve()
        self.assertEqual([kind for kind, _ in new.frames()], [31, 12, 12])
        self.assertEqual(old.frames(), [])

    def test_an_open_bundle_goes_with_the_old_connection(self) -> None:
        """Frames not sealed yet when a newer connection takes over still go over the standing old one."""
        old = self.serve()
        self.outlet.send(31, b"just said")
        new = Wire()
        self.outlet.serve(new.sealer, new.carrier.write)
        self.turns.run()
        self.assertEqual((old.frames(), new.frames()), ([(31, b"just said")], []))
        self.outlet.send(31, b"then")
        self.turns.run()
        self.assertEqual((old.frames(), new.frames()), ([], [(31, b"then")]))

    def test_one_write_for_a_turn(self) -> None:
        """What is made in one turn leaves in one write, whether inside a read event or not."""
        writes: list[int] = []
        wire = Wire()

        def write(data: memoryview) -> int:
            writes.append(len(data))
            return wire.carrier.write(data)

        self.outlet.serve(wire.sealer, write)
        self.turns.run()
        for _ in range(3):
            self.outlet.send(31, b"x")
        self.assertEqual((len(writes), self.turns.run(), len(writes)), (0, 1, 1))
        self.outbox.reading = True
        for _ in range(3):
            self.outlet.send(31, b"x")
        self.assertEqual(self.turns.run(), 0)
        self.outbox.flush(2.0)
        self.assertEqual((len(writes), len(wire.frames())), (2, 6))

    def test_flush_takes_what_is_added_meanwhile(self) -> None:
        """An outlet that gets frames while another is flushed is flushed too."""
        other = Outlet(self.outbox)
        wire, second = self.serve(), Wire()
        other.serve(second.sealer, second.carrier.write)
        self.turns.run()
        source = self.queue(12)
        source.on_pour = lambda: bool(other.send(31, b"from a pour"))  # type: ignore[assignment]
        source.add()
        self.turns.run()
        self.assertEqual((len(wire.frames()), second.frames()[:1]), (1, [(31, b"from a pour")]))

    def test_a_source_that_raises(self) -> None:
        """An exception of one source reaches the caller, and the outlets behind it are flushed next time."""
        other = Outlet(self.outbox)
        self.serve()
        second = Wire()
        other.serve(second.sealer, second.carrier.write)
        self.turns.run()

        def fail() -> None:
            raise ZeroDivisionError

        source = self.queue(12)
        source.on_pour = fail
        self.outbox.reading = True
        other.send(31, b"innocent")
        source.add()
        self.assertRaises(ZeroDivisionError, self.outbox.flush, 1.0)
        source.on_pour = lambda: None
        self.outlet.send(31, b"next")
        self.turns.run()
        self.assertEqual(second.frames(), [(31, b"innocent")])

    @given(
        st.lists(
            st.sampled_from(["send", "add", "add2", "drain", "turn", "stop", "serve", "swap"]),
            max_size=60,
        ),
        st.lists(st.integers(0, 5_000), max_size=40),
    )
    def test_nothing_is_lost_or_doubled(self, actions: list[str], takes: list[int]) -> None:
        """Whatever happens in whatever order: each accepted frame arrives once, in order, at most the
        sealed ones missing after a lost connection, and at the end nothing waits."""
        self.setUp()
        one, two = self.queue(12), self.queue(13)
        wires: list[Wire] = []
        sent = 0
        for action in actions:
            if action == "send":
                sent += self.outlet.send(31, sent.to_bytes(4, "big"))
            elif action in ("add", "add2"):
                (one if action == "add" else two).add()
            elif action == "drain":
                self.outlet.drained(1.0)
            elif action == "turn":
                self.turns.run()
            elif action == "stop":
                self.outlet.stop()
            else:
                if action == "serve":
                    self.outlet.stop()
                wires.append(Wire(takes))
                self.outlet.serve(wires[-1].sealer, wires[-1].carrier.write)
        takes.clear()
        wires.append(Wire())
        self.outlet.serve(wires[-1].sealer, wires[-1].carrier.write)
        self.turns.run()
        self.outlet.drained(1.0)
        self.turns.run()
        self.assertEqual((self.outlet.waiting, len(one.waiting), len(two.waiting)), (0, 0, 0))
        arrived: dict[int, list[int]] = {12: [], 13: [], 31: []}
        for wire in wires:
            for kind, body in wire.frames():
                arrived[kind].append(int.from_bytes(body[:4], "big"))
        for numbers, made in ((arrived[12], one.made), (arrived[13], two.made), (arrived[31], sent)):
            self.assertEqual(numbers, sorted(set(numbers)))
            if not any(action in ("stop", "serve", "swap") for action in actions):
                lost_at_most = 0 if not wires[:-1] else made
                self.assertGreaterEqual(len(numbers), made - lost_at_most)
