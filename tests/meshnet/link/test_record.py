"""Records: the published bytes, any chunking, any short write, and every flipped bit."""

from __future__ import annotations

import json
import random

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.bundle import FRAME_HEAD
from meshnet.cipher.aead import BACKENDS, TAG_SIZE, Backend, backend
from meshnet.cipher.rotation import NONCES_PER_KEY, RotatingKey
from meshnet.errors import ProtocolError
from meshnet.limits import LARGEST_RECORD
from meshnet.link.record import BUFFER_SIZE, LENGTH_SIZE, OVERHEAD, Opener, Sealer
from tests.meshnet.test_bundle import Frame, frames_of, put
from tests.support.vectors import vectors

# What both sides hold after the published handshake (BOLT 8, Appendix A).
SENDING = bytes.fromhex("969ab31b4d288cedf6218839b27a3e2140827047f2c0f01bf5c04435d43511a9")
CHAINING = bytes.fromhex("919219dbb2920afa8db80f9a51787a840bcf111ed8d588caf9ab4be716e42b01")
OPENSSL = backend("openssl")
RECORDS_PER_KEY = NONCES_PER_KEY // 2


def key(chosen: Backend = OPENSSL) -> RotatingKey:
    return RotatingKey(SENDING, CHAINING, chosen)


class Receiver:
    """A lane's receive buffer, small: opens what is there, moves the rest to the front."""

    def __init__(self, size: int = 2 * BUFFER_SIZE, secret: RotatingKey | None = None) -> None:
        self.view = memoryview(bytearray(size))
        self.opener = Opener(secret or key())
        self.bundles: list[bytes] = []
        self.end = 0

    def receive(self, data: bytes) -> None:
        self.view[self.end : self.end + len(data)] = data
        self.end += len(data)
        start = 0
        while stop := self.opener.open_next(self.view, start, self.end):
            self.bundles.append(bytes(self.view[start + LENGTH_SIZE : stop - TAG_SIZE]))
            start = stop
        self.view[: self.end - start] = self.view[start : self.end]
        self.end -= start

    @property
    def frames(self) -> list[Frame]:
        return [frame for bundle in self.bundles for frame in frames_of(bundle)]


class Carrier:
    """Takes as many bytes of each write as it is told, then all."""

    def __init__(self, takes: list[int] | None = None) -> None:
        self.takes = takes or []
        self.taken = bytearray()

    def write(self, data: memoryview) -> int:
        size = min(self.takes.pop(0), len(data)) if self.takes else len(data)
        self.taken += data[:size]
        return size


def drain(sealer: Sealer, carrier: Carrier) -> None:
    """Sends what is sealed, as an outlet does."""
    if data := sealer.seal():
        sealer.sent(carrier.write(data))
    if sealer.blocked and not sealer.unsent:
        sealer.unblock()


def sealed(*frames: Frame) -> bytes:
    """The frames as one record."""
    sealer, carrier = Sealer(key()), Carrier()
    for kind, body in frames:
        assert put(sealer, kind, body)
    drain(sealer, carrier)
    return bytes(carrier.taken)


class PublishedTests(SynchronousTestCase):
    """BOLT 8, Appendix A."""

    def test_published_messages(self) -> None:
        """1,002 times `hello` by the sealer: the published records, over two rotations, and they open."""
        published = json.loads(vectors("bolt/bolt08-transport.json").read_text())["message"]
        body, expected = bytes.fromhex(published["message"]), published["outputs"]
        for name in BACKENDS:
            sealer, receiver = Sealer(key(backend(name))), Receiver()
            for index in range(published["count"]):
                sealer.view[sealer.end : sealer.end + len(body)] = body
                sealer.end += len(body)
                record = bytes(sealer.seal())
                sealer.sent(len(record))
                receiver.receive(record)
                if str(index) in expected:
                    self.assertEqual(record.hex(), expected[str(index)], f"{name}, record {index}")
            self.assertEqual(receiver.bundles, [body] * published["count"])


class OpenerTests(SynchronousTestCase):
    """What arrives."""

    def test_byte_by_byte(self) -> None:
        """Records open as soon as their last byte is there, and not before; over a rotation."""
        sealer, carrier, receiver = Sealer(key()), Carrier(), Receiver(1000)
        for index in range(RECORDS_PER_KEY + 2):
            put(sealer, 30, b"%d" % index)
            drain(sealer, carrier)
            *most, last = bytes(carrier.taken)
            carrier.taken.clear()
            for byte in most if index % RECORDS_PER_KEY < 2 else [bytes(most)]:
                receiver.receive(bytes([byte]) if isinstance(byte, int) else byte)
            self.assertEqual(len(receiver.bundles), index)
            receiver.receive(bytes([last]))
            self.assertEqual(len(receiver.bundles), index + 1)
        self.assertEqual(receiver.frames, [(30, b"%d" % index) for index in range(RECORDS_PER_KEY + 2)])

    def test_every_flipped_bit_is_refused(self) -> None:
        """One bit changed anywhere, length and both tags included: nothing opens."""
        record = sealed((30, b"a body"))
        for bit in range(len(record) * 8):
            changed = bytearray(record)
            changed[bit // 8] ^= 1 << bit % 8
            receiver = Receiver(1000)
            self.assertRaises(ProtocolError, receiver.receive, bytes(changed))
            self.assertEqual(receiver.bundles, [])

    def test_replayed_and_reordered_records(self) -> None:
        """A record opens once and only in its place."""
        first = sealed((30, b"one"))
        receiver = Receiver()
        receiver.receive(first)
        self.assertRaises(ProtocolError, receiver.receive, first)
        sealer, carrier = Sealer(key()), Carrier()
        for body in (b"one", b"two"):
            put(sealer, 30, body)
            drain(sealer, carrier)
        second = bytes(carrier.taken[len(first) :])
        self.assertRaises(ProtocolError, Receiver().receive, second)

    @given(st.binary(min_size=LENGTH_SIZE, max_size=200))
    def test_noise(self, data: bytes) -> None:
        """Bytes that nobody sealed are refused at once, when the length has come."""
        self.assertRaises(ProtocolError, Receiver().receive, data)

    def test_extremes(self) -> None:
        """A record of nothing, and the largest, open in place and give back where they end."""
        for body in (b"", bytes(LARGEST_RECORD)):
            view = memoryview(bytearray(len(body) + OVERHEAD + 10))
            aead = OPENSSL.aead(SENDING)
            data = aead.encrypt(bytes(12), len(body).to_bytes(2, "big"), None)
            data += aead.encrypt(bytes(4) + b"\x01".ljust(8, b"\0"), body, None)
            view[5 : 5 + len(data)] = data
            end = 5 + len(data)
            opener = Opener(key())
            self.assertEqual(opener.open_next(view, 5, end - 1), 0)
            self.assertEqual(opener.open_next(view, 5, end), end)
            self.assertEqual(view[5 + LENGTH_SIZE : end - TAG_SIZE], body)
            self.assertEqual(opener.open_next(view, end, end), 0)


class SealerTests(SynchronousTestCase):
    """What leaves."""

    def test_frames_share_a_record(self) -> None:
        """Many frames before `seal` cost one record's overhead."""
        frames = [(30, b"x" * size) for size in range(50)]
        data = sealed(*frames)
        self.assertEqual(len(data), OVERHEAD + sum(FRAME_HEAD + size for size in range(50)))
        receiver = Receiver()
        receiver.receive(data)
        self.assertEqual((len(receiver.bundles), receiver.frames), (1, frames))

    def test_nothing_to_seal(self) -> None:
        """An empty bundle makes no record."""
        sealer = Sealer(key())
        self.assertEqual(len(sealer.seal()), 0)
        self.assertFalse(sealer.blocked)

    def test_a_full_bundle_turns_over(self) -> None:
        """More frames than fit one bundle become several records, none above the largest, in one write."""
        frames = [(31, random.Random(size).randbytes(9_000 + size)) for size in range(20)]
        data = sealed(*frames)
        receiver = Receiver()
        receiver.receive(data)
        self.assertEqual(receiver.frames, frames)
        self.assertEqual(len(receiver.bundles), 3)
        self.assertLessEqual(max(map(len, receiver.bundles)), LARGEST_RECORD)

    def test_capped_records(self) -> None:
        """A lane that sends little closes its records sooner; a frame that is larger has one of its own."""
        sealer = Sealer(RotatingKey(SENDING, CHAINING, OPENSSL))
        sealer.cap(1_000)
        sealer.sent(len(sealer.seal()))
        sizes = [400, 400, 400, 5_000, 400, 400]
        for size in sizes:
            room = sealer.room(12, size)
            assert room is not None
            room[:] = bytes(size)
            sealer.commit(size)
        receiver = Receiver()
        receiver.receive(bytes(sealer.seal()))
        self.assertEqual([len(bundle) for bundle in receiver.bundles], [806, 403, 5_003, 806])

    def test_the_largest_frame(self) -> None:
        """A frame that fills a record alone goes; one byte more never will, and does no harm."""
        sealer, carrier, receiver = Sealer(key()), Carrier(), Receiver()
        largest = LARGEST_RECORD - FRAME_HEAD
        put(sealer, 30, b"small")
        self.assertIsNone(sealer.room(30, largest + 1))
        self.assertTrue(put(sealer, 30, bytes(largest)))
        drain(sealer, carrier)
        receiver.receive(bytes(carrier.taken))
        self.assertEqual(receiver.frames, [(30, b"small"), (30, bytes(largest))])

    def test_a_full_buffer_asks_for_a_flush(self) -> None:
        """With all bundles full the owner is asked; if the carrier takes nothing there is no more room."""
        carrier = Carrier([0, 0])
        sealer = Sealer(key(), flush=lambda: drain(sealer, carrier))
        frames = 0
        while put(sealer, 30, bytes(50_000)):
            frames += 1
        self.assertEqual(frames, BUFFER_SIZE // 50_036)
        self.assertTrue(sealer.blocked)
        self.assertIsNone(sealer.room(30, 1))
        self.assertEqual(sealer.limit, 0)
        carrier.takes.clear()
        drain(sealer, carrier)
        self.assertTrue(put(sealer, 30, b"more"))
        drain(sealer, carrier)
        receiver = Receiver(2 * BUFFER_SIZE)
        receiver.receive(bytes(carrier.taken))
        self.assertEqual(receiver.frames, [(30, bytes(50_000))] * frames + [(30, b"more")])

    def test_short_writes(self) -> None:
        """After a short write there is no room until the rest is gone; then all goes on."""
        sealer, carrier = Sealer(key()), Carrier([3, 4])
        put(sealer, 30, b"first")
        drain(sealer, carrier)
        self.assertEqual((sealer.blocked, sealer.unsent), (True, OVERHEAD + FRAME_HEAD + 5 - 3))
        self.assertIsNone(sealer.room(30, 1))
        drain(sealer, carrier)
        self.assertTrue(sealer.blocked)
        drain(sealer, carrier)
        self.assertFalse(sealer.blocked)
        put(sealer, 30, b"second")
        drain(sealer, carrier)
        self.assertEqual(sealer.bytes_sent, len(carrier.taken))
        receiver = Receiver()
        receiver.receive(bytes(carrier.taken))
        self.assertEqual(receiver.frames, [(30, b"first"), (30, b"second")])

    def test_touched(self) -> None:
        """The owner hears of the first frame of each bundle, so that it is sent at the end of the turn."""
        told: list[int] = []
        carrier = Carrier()
        sealer = Sealer(key(), touched=lambda: told.append(len(carrier.taken)))
        for _ in range(2):
            put(sealer, 30, b"a")
            put(sealer, 30, b"b")
            drain(sealer, carrier)
        self.assertEqual(told, [0, OVERHEAD + 2 * (FRAME_HEAD + 1)])

    def test_adopt_and_stop(self) -> None:
        """A stopped sealer has no room; with another's keys it goes on where that one was, in sequence."""
        first, carrier = Sealer(key(), size=4_096), Carrier()
        put(first, 1, b"hello")
        drain(first, carrier)
        sealer = Sealer()
        self.assertIsNone(sealer.room(30, 1))
        sealer.adopt(first)
        put(sealer, 30, b"then")
        drain(sealer, carrier)
        receiver = Receiver()
        receiver.receive(bytes(carrier.taken))
        self.assertEqual(receiver.frames, [(1, b"hello"), (30, b"then")])
        put(sealer, 30, b"lost with the connection")
        sealer.stop()
        self.assertEqual((sealer.unsent, len(sealer.seal())), (0, 0))
        self.assertIsNone(sealer.room(30, 1))

    def test_adopt_takes_unsent_bytes(self) -> None:
        """What the other had sealed goes first; until then there is no room."""
        first, carrier = Sealer(key(), size=4_096), Carrier([10])
        put(first, 1, b"hello")
        drain(first, carrier)
        sealer = Sealer()
        sealer.adopt(first)
        self.assertTrue(sealer.blocked)
        drain(sealer, carrier)
        put(sealer, 30, b"then")
        drain(sealer, carrier)
        receiver = Receiver()
        receiver.receive(bytes(carrier.taken))
        self.assertEqual(receiver.frames, [(1, b"hello"), (30, b"then")])


SIZES = st.one_of(st.integers(0, 40), st.sampled_from([1_200, 16_384, 61_000, LARGEST_RECORD - FRAME_HEAD]))


class WireTests(SynchronousTestCase):
    """Both ends."""

    @given(
        st.lists(st.tuples(st.integers(0, 255), SIZES, st.booleans()), max_size=25),
        st.lists(st.integers(0, 70_000), max_size=30),
        st.lists(st.integers(1, 90_000), max_size=20),
    )
    def test_same_frames_out(
        self, frames: list[tuple[int, int, bool]], takes: list[int], chunks: list[int]
    ) -> None:
        """Any frames, sealed at any time, under any short writes and any chunking, come out the same."""
        carrier = Carrier(takes)
        sealer = Sealer(key(), flush=lambda: drain(sealer, carrier))
        expected = []
        for number, (kind, size, turn_ends) in enumerate(frames):
            body = bytes([number % 256]) * size
            while not put(sealer, kind, body):
                drain(sealer, carrier)
            expected.append((kind, body))
            if turn_ends:
                drain(sealer, carrier)
        while sealer.unsent or len(sealer.seal()):
            drain(sealer, carrier)
        receiver, data = Receiver(), bytes(carrier.taken)
        while data:
            size = chunks.pop() if chunks else len(data)
            receiver.receive(data[:size][:BUFFER_SIZE])
            data = data[min(size, BUFFER_SIZE) :]
        self.assertEqual(receiver.frames, expected)
        self.assertEqual(sealer.bytes_sent, len(carrier.taken))
