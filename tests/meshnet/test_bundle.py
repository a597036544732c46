"""Frames in a bundle: room, commit, and what lies in the memory afterwards."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.bundle import FRAME_HEAD, Bundle

Frame = tuple[int, bytes]


def put(bundle: Bundle, kind: int, body: bytes) -> bool:
    """Writes one frame if there is room."""
    room = bundle.room(kind, len(body))
    if room is None:
        return False
    room[:] = body
    bundle.commit(len(body))
    return True


def frames_of(data: bytes) -> list[Frame]:
    """Reads frames as the format says, with nothing of the code under test."""
    found, position = [], 0
    while position < len(data):
        length = int.from_bytes(data[position : position + 2], "big")
        assert 1 <= length <= len(data) - position - 2
        found.append((data[position + 2], data[position + 3 : position + 2 + length]))
        position += 2 + length
    return found


class BundleTests(SynchronousTestCase):
    """A bundle without an owner."""

    @given(st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=60)), max_size=12), st.integers(0, 300))
    def test_frames_lie_one_after_another(self, frames: list[Frame], size: int) -> None:
        """What fits is there in order, what does not fit changes nothing, nothing passes the limit."""
        bundle, taken = Bundle(size), []
        for kind, body in frames:
            before = bundle.end
            if put(bundle, kind, body):
                taken.append((kind, body))
            else:
                self.assertEqual(bundle.end, before)
                self.assertGreater(before + FRAME_HEAD + len(body), size)
        self.assertEqual(frames_of(bytes(bundle.view[bundle.first : bundle.end])), taken)
        self.assertLessEqual(bundle.end, size)

    def test_room_without_commit(self) -> None:
        """Room not committed is handed out again, for another kind and size; a body may be shorter."""
        bundle = Bundle(100)
        room = bundle.room(30, 50)
        assert room is not None
        room[:] = bytes(50)
        again = bundle.room(31, 20)
        assert again is not None
        again[:5] = b"hello"
        bundle.commit(5)
        self.assertEqual(frames_of(bytes(bundle.view[: bundle.end])), [(31, b"hello")])

    def test_touched(self) -> None:
        """The owner is told of the first frame only."""
        told: list[int] = []
        bundle = Bundle(100, lambda: told.append(bundle.end))
        for _ in range(3):
            put(bundle, 30, b"x")
        self.assertEqual(told, [4])

    def test_blocked(self) -> None:
        """With limit 0 there is no room, not even for nothing."""
        bundle = Bundle(100)
        bundle.limit = 0
        self.assertIsNone(bundle.room(30, 0))
