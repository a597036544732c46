"""Counters of a table: the kernel's messages, a real kernel's answer, sums over the lives of a table."""

from __future__ import annotations

from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.host.counters import Counters, counters_in, read_counters
from tests.support.hosts import hosts_for


def attribute(kind: int, data: bytes) -> bytes:
    return pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def message(table: str, name: str, packets: int, kind: int = 1) -> bytes:
    counted = attribute(1, pack(">Q", 60 * packets)) + attribute(2, pack(">Q", packets))
    body = attribute(1, table.encode() + b"\0") + attribute(2, name.encode() + b"\0")
    body += attribute(3, pack(">I", kind)) + attribute(4 | 0x8000, counted)
    return pack("=IHHII", 20 + len(body), 10 << 8 | 18, 0, 1, 0) + pack("=BBH", 1, 0, 0) + body


DONE = pack("=IHHIIi", 20, 3, 0, 1, 0, 0)


@given(st.binary(max_size=300), st.integers(0, 400))
def test_any_bytes(data: bytes, cut: int) -> None:
    """The kernel would not, but whatever comes is read without harm."""
    counters_in(data, "ours")
    whole = message("ours", "refused", 7)
    found = counters_in(whole[:cut], "ours")
    assert found == (False, {"refused": 7} if cut >= len(whole) else {})
    assert counters_in(whole + data, "ours")[1]["refused"] is not None


def test_which() -> None:
    """Those of one table; other objects, and what other tables count, are not meant."""
    data = message("ours", "a", 1) + message("theirs", "a", 2) + message("ours", "b", 3, kind=2)
    assert counters_in(data + message("ours", "c", 1 << 40), "ours") == (False, {"a": 1, "c": 1 << 40})
    assert counters_in(data + DONE + message("ours", "d", 4), "ours") == (True, {"a": 1})


def test_lives() -> None:
    """A table that is made anew counts from 0: sums do not. One that is gone has counted what it had."""
    told = [{"a": 3}, {"a": 5, "b": 0}, {"a": 1}, {}, {"a": 1, "b": 2}, {"a": 1, "b": 2}]
    counters = Counters("ours", lambda table: told.pop(0))
    found = [counters.look() for _ in range(6)]
    assert found == [
        {"a": n, **more} for n, more in ((3, {}), (5, {}), (6, {}), (6, {}), (7, {"b": 2}), (7, {"b": 2}))
    ]


class KernelTests(SynchronousTestCase):
    """A namespace of its own."""

    def test_real(self) -> None:
        """What nft shows is what is read, for this table alone; without it nothing."""
        host = hosts_for(self, "ip", "nft", "ping").add("a")
        rule = "chain x { type filter hook output priority 0; oifname lo counter name seen accept; }"
        for name in ("ours", "theirs"):
            host.run(
                "nft",
                "-f",
                "-",
                text=f"table inet {name} {{ counter seen {{ }}\ncounter none {{ }}\n{rule}\n}}\n",
            )
        host.run("nft", "-f", "-", text="table ip ours {\n counter other { }\n}\n")
        host.run("ping", "-c3", "-i0.01", "127.0.0.1")
        self.assertEqual(host.inside(lambda: read_counters("ours")), {"seen": 6, "none": 0})
        self.assertEqual(host.inside(lambda: read_counters("nobodys")), {})
