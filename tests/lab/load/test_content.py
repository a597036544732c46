"""The content of long runs: what is lost, doubled or changed is seen where it happened."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from lab.load.content import PIECE, Check, Content


def content(seed: int, size: int) -> bytes:
    """All of it."""
    found, whole = Content(seed, size), bytearray()
    while found.left:
        data = found.next(found.left)
        whole += data
        found.take(len(data))
    return bytes(whole)


def fed(data: bytes, seed: int, size: int, chance: random.Random) -> Check:
    """A check that was given the data in pieces by chance."""
    check, view = Check(seed, size), memoryview(data)
    while view:
        some = chance.randrange(1, 2 * PIECE)
        check.feed(view[:some])
        view = view[some:]
    return check


@given(st.integers(0, 1 << 63), st.integers(0, 3 * PIECE), st.randoms(use_true_random=False))
def test_whole(seed: int, size: int, chance: random.Random) -> None:
    """What was sent is right however it is cut, and not whole before its last byte."""
    data = content(seed, size)
    assert len(data) == size
    check = fed(data, seed, size, chance)
    assert (check.whole, check.wrong, check.read) == (True, None, size)
    if size:
        assert not fed(data[:-1], seed, size, chance).whole


@given(
    st.integers(2, 3 * PIECE),
    st.randoms(use_true_random=False),
    st.sampled_from(["lost", "doubled", "changed", "more"]),
)
def test_wrong(size: int, chance: random.Random, what: str) -> None:
    """A piece that is missing, comes twice, a byte that differs or is too many: never taken for right."""
    data, place = content(5, size), chance.randrange(size)
    some = min(size - place, chance.randrange(1, 100))
    spoilt = {
        "lost": data[:place] + data[place + some :],
        "doubled": data[: place + some] + data[place:],
        "changed": data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :],
        "more": data + b"\0",
    }[what]
    check = fed(spoilt, 5, size, chance)
    assert not check.whole
    if what == "changed":
        assert check.wrong is not None and check.wrong <= place
    if what == "more":
        assert check.wrong == size
