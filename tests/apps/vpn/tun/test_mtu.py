"""The MTU of an interface: what the kernel's messages say, and who has a say in it."""

from __future__ import annotations

from struct import pack

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.task import Clock
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.tun import mtu as module
from apps.vpn.tun.mtu import KeptMtu, mtus_in
from apps.vpn.tun.rtnetlink import NEWLINK
from meshnet.errors import LocalError
from tests.support.tuns import FakeDevice


def attribute(kind: int, data: bytes) -> bytes:
    return pack("=HH", 4 + len(data), kind) + data + bytes(-len(data) % 4)


def message(name: str, index: int, mtu: int | None, kind: int = NEWLINK) -> bytes:
    body = attribute(3, name.encode() + b"\0") + attribute(13, pack("=I", 500))
    if mtu is not None:
        body += attribute(4, pack("=I", mtu))
    return pack("=IHHII", 32 + len(body), kind, 0, 0, 0) + pack("=BxHiII", 0, 0, index, 0, 0) + body


@given(st.binary(max_size=200), st.integers(0, 200))
def test_any_bytes(data: bytes, cut: int) -> None:
    """The kernel would not, but whatever comes is read without harm; half a message says nothing wrong."""
    mtus_in(data, "mesh-vpn", 7)
    whole = message("mesh-vpn", 7, 1_400)
    assert mtus_in(whole + data, "mesh-vpn", 7)[0] == 1_400
    assert mtus_in(whole[:cut], "mesh-vpn", 7) == ([1_400] if cut >= len(whole) else [])


def test_whose() -> None:
    """Several messages, of which some are about other interfaces, or of other kinds, or tell no MTU."""
    data = b"".join(
        (
            *(message("mesh-vpn", 7, 1_400), message("eth0", 2, 9_000), message("mesh-vpn", 7, None)),
            *(message("mesh-vpn", 8, 1_300), message("other", 7, 1_200), message("mesh-vpn", 7, 1_280)),
            message("mesh-vpn", 7, 1_100, kind=17),
        )
    )
    assert mtus_in(data, "mesh-vpn", 7) == [1_400, 1_280]


class KeptTests(SynchronousTestCase):
    """An interface of 1,500."""

    def setUp(self) -> None:
        self.set: list[int] = []
        self.refused = False
        self.patch(module, "set_mtu", self.apply)
        self.device, self.notes, self.changes = FakeDevice(), list[str](), list[int]()
        self.kept = KeptMtu(
            self.device, Clock(), self.notes.append, lambda: self.changes.append(self.device.mtu)
        )

    def apply(self, name: str, index: int, mtu: int) -> None:
        if self.refused:
            raise LocalError("The kernel refused.")
        self.set.append(mtu)

    def test_others(self) -> None:
        """Somebody makes it smaller: that holds. Larger again: as far as the owner allows. Smaller than IPv6
        can do with: not so small."""
        self.kept.seen([1_400])
        self.assertEqual((self.set, self.device.mtu), ([], 1_400))
        self.kept.seen([9_000])
        self.assertEqual((self.set, self.device.mtu), ([1_500], 1_500))
        self.kept.seen([1_500, 68])
        self.assertEqual((self.set, self.device.mtu), ([1_500, 1_280], 1_280))
        self.assertIn("somebody has set the MTU of fake0 to 68", self.notes)
        self.assertEqual(self.changes[-1], 1_280)

    def test_way(self) -> None:
        """A way of small cells, and then one of large ones: the interface follows, and nobody is taken for
        somebody else when the kernel tells of it."""
        self.kept.fits(1_350)
        self.kept.fits(1_350)
        self.kept.fits(40_000)
        self.kept.fits(900)
        self.kept.fits(40_000)
        self.assertEqual(self.set, [1_350, 1_500, 1_280, 1_500])
        before = list(self.notes)
        self.kept.seen([1_350, 1_350, 1_500])
        self.kept.seen([1_280, 1_500])
        self.assertEqual((self.notes, self.device.mtu), (before, 1_500))

    def test_both(self) -> None:
        """The smallest of all counts, whoever came first."""
        self.kept.limit(1_450)
        self.kept.fits(1_350)
        self.kept.seen([1_450, 1_350, 1_300])
        self.kept.fits(1_400)
        self.assertEqual(self.device.mtu, 1_300)
        self.kept.seen([1_500])
        self.assertEqual(self.device.mtu, 1_400)

    def test_refused(self) -> None:
        """The kernel refuses: it is told, and tried again when there is reason to."""
        self.refused = True
        self.kept.fits(1_300)
        self.assertEqual((self.device.mtu, "The kernel refused" in self.notes[-1]), (1_500, True))
        self.refused = False
        self.kept.fits(1_310)
        self.assertEqual(self.device.mtu, 1_310)
        self.kept.stop()
        self.kept.stop()
