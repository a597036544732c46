"""Last addresses of names: kept over restarts, bounded, and never a reason to fail."""

from __future__ import annotations

import socket
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.disk import SimulatedDisk
from meshnet.storage.kept import KeptFile
from meshnet.transports.known import ADDRESSES_KEPT, LARGEST, NAMES_KEPT, KnownAddresses
from meshnet.transports.race import Address

V4: Address = (socket.AF_INET, ("192.0.2.1", 7001))
V6: Address = (socket.AF_INET6, ("2001:db8::1", 7001, 0, 0))


class KnownTests(SynchronousTestCase):
    """On a disk that is none."""

    def setUp(self) -> None:
        self.disk = SimulatedDisk()
        self.disk.mkdir("data", 0o700)

    def file(self) -> KeptFile:
        return KeptFile(self.disk, Path("data/names"), LARGEST)

    def known(self) -> KnownAddresses:
        """As a process that has just started."""
        known = KnownAddresses()
        self.assertEqual(known.keep(self.file()), [])
        return known

    def test_restart(self) -> None:
        """What one process has learnt the next one knows, as `connect` takes it; addresses that hold for a
        link alone it does not."""
        link_local: Address = (socket.AF_INET6, ("fe80::1%eth0", 7001, 0, 2))
        self.known().learn("a.example", 7001, [V6, link_local, V4])
        self.assertEqual(self.known().find("a.example", 7001), [V6, V4])
        self.assertEqual(self.known().find("a.example", 7002), [])

    def test_written_when_new(self) -> None:
        """The same addresses in another order are no news; others are."""
        known = self.known()
        known.learn("a.example", 7001, [V6, V4])
        first = self.file().load().frame
        known.learn("a.example", 7001, [V4, V6])
        second = self.file().load().frame
        known.learn("a.example", 7001, [V4])
        third = self.file().load().frame
        assert first is not None and second is not None and third is not None
        self.assertEqual([second.generation - first.generation, third.generation - second.generation], [0, 1])

    def test_bounded(self) -> None:
        """Of many names the last are known, of many addresses the first; all fit into the file."""
        known = self.known()
        many: list[Address] = [
            (socket.AF_INET6, (f"2001:db8:{n:x}:1111:2222:3333:4444:5555", 1, 0, 0)) for n in range(99)
        ]
        for number in range(NAMES_KEPT + 5):
            known.learn(f"{number}." + "x" * 250, 65_535, many)
        again = self.known()
        self.assertEqual(again.find("4." + "x" * 250, 65_535), [])
        self.assertEqual(len(again.find("5." + "x" * 250, 65_535)), ADDRESSES_KEPT)

    def test_damaged(self) -> None:
        """A damaged file is told, and what is learnt is kept again."""
        self.known().learn("a.example", 7001, [V4])
        for slot in (0, 1):
            if self.disk.exists(f"data/names.{slot}"):
                file = self.disk.open(f"data/names.{slot}", "write")
                file.pwrite(b"?" * 40, 0)
                file.close()
        known = KnownAddresses()
        self.assertEqual(len(known.keep(self.file())), 1)
        self.assertEqual(known.find("a.example", 7001), [])
        known.learn("a.example", 7001, [V4])
        self.assertEqual(self.known().find("a.example", 7001), [V4])

    @given(
        st.one_of(
            st.binary(max_size=200), st.sampled_from((b"[1]", b'{"a:1": 5}', b'{"a:1": ["x", 3, "::1%1"]}'))
        )
    )
    def test_any_content(self, data: bytes) -> None:
        """Whatever the file says is read without harm, and gives addresses only."""
        self.setUp()
        self.file().save(data)
        self.assertEqual(KnownAddresses().keep(self.file()), [])
        self.assertEqual(self.known().find("a", 1), [])
