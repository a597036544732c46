"""UDP through an exit, as bytes: the header of RFC 1928 and the datagrams of the mesh."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.datagrams import ExitDatagram, from_mesh, from_program, to_mesh, to_program
from apps.vpn.destination import Destination
from apps.vpn.messages import ExitRequest, asked, associate, take
from meshnet.errors import CodecError
from tests.apps.vpn.test_messages import hosts

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "vpn.json").read_text())
NAME = bytes(range(16))
places = st.builds(Destination, hosts, st.integers(1, 65_535))


class DatagramTests(SynchronousTestCase):
    def test_vectors(self) -> None:
        """The bytes on the wire."""
        built = {
            "associate": associate(NAME),
            "to an IPv4 address": to_mesh(NAME, Destination(ip_address("192.0.2.7"), 53), b"abc"),
            "to an IPv6 address": to_mesh(NAME, Destination(ip_address("2001:db8::7"), 53), b"abc"),
            "to a name": to_mesh(NAME, Destination("example.org", 53), b""),
        }
        self.assertEqual({name: data.hex() for name, data in built.items()}, VECTORS["datagrams"])

    def test_rfc1928(self) -> None:
        """The header that programs write and read."""
        data = bytes.fromhex("000000" + "01c0000207" + "0035") + b"abc"
        where = Destination(IPv4Address("192.0.2.7"), 53)
        self.assertEqual(from_program(data), (where, b"abc"))
        self.assertEqual(to_program(where, b"abc"), data)

    @given(places, st.binary(max_size=2_000))
    def test_round_trips(self, where: Destination, payload: bytes) -> None:
        """Every datagram arrives as it was, on both legs."""
        self.assertEqual(from_program(to_program(where, payload)), (where, payload))
        self.assertEqual(from_mesh(to_mesh(NAME, where, payload)), (NAME, where, payload))

    @given(st.binary(max_size=300), st.booleans())
    def test_any_bytes(self, data: bytes, headed: bool) -> None:
        """Any bytes are a datagram or raise CodecError."""
        for read in (from_program, from_mesh):
            try:
                read(b"\0\0\0" + data if headed else data)
            except CodecError:
                pass

    def test_fragments(self) -> None:
        """A fragment is not a datagram; RFC 1928 §7 lets it be dropped."""
        whole = to_program(Destination("a.b", 53), b"x")
        self.assertRaises(CodecError, from_program, whole[:2] + b"\x01" + whole[3:])

    def test_mapped(self) -> None:
        """An IPv4 address in the guise of IPv6 is what it stands for, so that the policy sees it."""
        mapped = Destination(IPv6Address("::ffff:10.0.0.1"), 53)
        self.assertEqual(from_mesh(to_mesh(NAME, mapped, b""))[1], Destination(IPv4Address("10.0.0.1"), 53))

    def test_associate(self) -> None:
        """A request for UDP: its name has 16 bytes, its port is none."""
        found = take(ExitRequest, bytearray(associate(NAME)), 300)
        assert found is not None
        self.assertEqual(asked(found), NAME)
        self.assertRaises(CodecError, asked, ExitRequest(1, 128, 0, NAME[1:]))
        self.assertRaises(CodecError, asked, ExitRequest(1, 128, 1, NAME))

    def test_empty(self) -> None:
        """A datagram of nothing is one."""
        self.assertEqual(from_mesh(to_mesh(NAME, Destination("a.b", 1), b""))[2], b"")
        self.assertRaises(CodecError, from_mesh, b"")
        self.assertEqual(ExitDatagram(NAME, 1, 1, bytes(4), memoryview(b"")).payload, b"")
