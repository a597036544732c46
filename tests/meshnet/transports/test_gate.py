"""The gate: floods from one place, floods from everywhere, and the honest between them."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from meshnet.limits import (
    ACCEPT_BURST,
    ACCEPTS_PER_SECOND,
    STRANGER_BURST,
    STRANGER_SOURCES,
    STRANGERS_IN_ALL,
    STRANGERS_PER_SECOND,
)
from meshnet.transports.gate import Gate


def test_one_source() -> None:
    """Who floods from one address uses up what that address may have; others come in at once."""
    gate = Gate(0.0)
    admitted = sum(gate.admits("192.0.2.1", place / 10_000) for place in range(50_000))
    assert STRANGER_BURST <= admitted <= STRANGER_BURST + 5 * STRANGERS_PER_SECOND + 1
    assert gate.turned_away == 50_000 - admitted
    assert gate.admits("192.0.2.2", 5.0)


def test_all_sources() -> None:
    """A flood from everywhere gets no more than all together may have, and is remembered only so far."""
    gate = Gate(0.0)
    admitted = sum(gate.admits(f"10.0.{n >> 8 & 255}.{n & 255}", n / 10_000) for n in range(30_000))
    assert admitted <= 5 * STRANGERS_IN_ALL + 1
    assert len(gate._sources) == STRANGER_SOURCES


def test_neighbours_come_back() -> None:
    """Where all strangers together have used up their share, who was linked before still comes in, but not
    more often than any source may; and such sources are remembered only so far."""
    gate = Gate(0.0)
    gate.know("192.0.2.7")
    for n in range(10_000):
        gate.admits(f"10.0.{n >> 8}.{n & 255}", 0.0)
    assert not gate.admits("192.0.2.8", 0.0)
    assert sum(gate.admits("192.0.2.7", 0.0) for _ in range(1_000)) == STRANGER_BURST
    for n in range(STRANGER_SOURCES):
        gate.know(f"10.1.{n >> 8}.{n & 255}")
    assert not gate.admits("192.0.2.7", 9.0 / STRANGERS_IN_ALL / 10)


def test_networks() -> None:
    """An IPv6 network of 64 bits is one source, another one is another; so are mapped IPv4 addresses."""
    gate = Gate(0.0)
    inside = [gate.admits(f"2001:db8::{n:x}", 0.0) for n in range(STRANGER_BURST + 1)]
    assert inside == [True] * STRANGER_BURST + [False]
    assert gate.admits("2001:db8:0:1::1", 0.0)
    assert gate.admits("fe80::1%eth0", 0.0)
    mapped = [gate.admits("::ffff:192.0.2.1", 0.0) for _ in range(STRANGER_BURST)]
    assert all(mapped)
    assert not gate.admits("192.0.2.1", 0.0)


def test_accepts() -> None:
    """So many connections a second are taken from the kernel; after a pause there is a burst again."""
    gate = Gate(0.0)
    taken = sum(gate.accepts(place / 100_000) for place in range(100_000))
    assert ACCEPTS_PER_SECOND <= taken <= ACCEPTS_PER_SECOND + ACCEPT_BURST
    assert sum(gate.accepts(9.0) for _ in range(1_000)) == ACCEPT_BURST


@given(st.lists(st.tuples(st.floats(0, 100), st.sampled_from(["", "192.0.2.1", "::1"]))))
def test_any_times(calls: list[tuple[float, str]]) -> None:
    """A clock that goes back gives nobody more, and refuses no first comer."""
    gate, seen = Gate(50.0), set[str]()
    for now, host in calls[: int(STRANGERS_IN_ALL)]:
        if host not in seen:
            assert gate.admits(host, now)
        seen.add(host)
