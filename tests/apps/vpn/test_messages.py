"""What client and exit say to each other."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.destination import Destination, host_name
from apps.vpn.messages import (
    LARGEST_REPLY,
    LARGEST_REQUEST,
    Code,
    ConnectError,
    ExitReply,
    ExitRequest,
    asked,
    code_of,
    refusal,
    reply,
    request,
    take,
)
from meshnet.errors import (
    CircuitError,
    CodecError,
    LocalError,
    Reason,
    RefusedError,
    TimedOutError,
    UnreachableError,
)

names = st.from_regex(r"[a-z0-9]([a-z0-9-]{0,20}[a-z0-9])?(\.[a-z0-9]{1,20}){0,3}", fullmatch=True)
hosts = st.one_of(
    st.ip_addresses(v=4), st.ip_addresses(v=6).filter(lambda address: address.ipv4_mapped is None), names
)


class WireTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        """The layout, byte by byte."""
        where = Destination(IPv4Address("192.0.2.7"), 80)
        self.assertEqual(request(where).hex(), "0009" + "01" + "01" + "0050" + "04" + "c0000207")
        self.assertEqual(
            request(Destination("a.b", 258)).hex(), "0008" + "01" + "03" + "0102" + "03" + "612e62"
        )
        self.assertEqual(reply(Code.REFUSED, "no").hex(), "0004" + "05" + "02" + "6e6f")

    @given(st.builds(Destination, hosts, st.integers(1, 65_535)))
    def test_round_trip(self, where: Destination) -> None:
        """Every destination arrives as it was, cut anywhere, and what follows stays."""
        received = bytearray()
        data = request(where)
        for byte in data[:-1]:
            received.append(byte)
            self.assertIsNone(take(ExitRequest, received, LARGEST_REQUEST))
        received += data[-1:] + b"rest"
        found = take(ExitRequest, received, LARGEST_REQUEST)
        assert found is not None
        self.assertEqual((asked(found), bytes(received)), (where, b"rest"))

    @given(st.text(max_size=300))
    def test_reply_text(self, text: str) -> None:
        """A text that is too long is cut, at a character."""
        found = take(ExitReply, bytearray(reply(Code.FAILED, text)), LARGEST_REPLY)
        assert found is not None
        self.assertTrue(text.startswith(found.text))

    @given(st.binary(max_size=400))
    def test_any_bytes(self, data: bytes) -> None:
        """Arbitrary bytes are a request, or need more (within the bound), or raise CodecError."""
        received = bytearray(data)
        try:
            found = take(ExitRequest, received, LARGEST_REQUEST)
            if found is None:
                self.assertLess(len(data), LARGEST_REQUEST + 2)
            else:
                asked(found)
        except CodecError:
            pass

    def test_refused_requests(self) -> None:
        """Another version, an unknown kind, a size that does not fit its kind, port 0."""
        for bad in (
            ExitRequest(2, 1, 80, b"\1\2\3\4"),
            ExitRequest(1, 2, 80, b"\1\2\3\4"),
            ExitRequest(1, 1, 80, b"\1\2\3"),
            ExitRequest(1, 4, 80, b"\1\2\3\4"),
            ExitRequest(1, 1, 0, b"\1\2\3\4"),
            ExitRequest(1, 3, 80, b""),
            ExitRequest(1, 3, 80, b"a b"),
        ):
            self.assertRaises(CodecError, asked, bad)
        self.assertRaises(CodecError, take, ExitRequest, bytearray(b"\xff\xff"), LARGEST_REQUEST)

    def test_names(self) -> None:
        """Host names: lower case, no final dot, no odd characters."""
        self.assertEqual(host_name("Example.ORG."), "example.org")
        for bad in ("", ".", "a..b", "-a.b", "a b", "a/b", "ä", "a" * 64, ".".join(["abcdefghi"] * 26)):
            self.assertRaises(ValueError, host_name, bad)


class CodeTests(SynchronousTestCase):
    def test_errors_of_the_mesh(self) -> None:
        """Which reply code an error becomes."""
        for error, code in (
            (RefusedError(""), Code.NOT_ALLOWED),
            (TimedOutError(""), Code.TIMED_OUT),
            (UnreachableError(""), Code.HOST_UNREACHABLE),
            (CircuitError("", Reason.TIMEOUT, 1), Code.TIMED_OUT),
            (CircuitError("", Reason.REFUSED), Code.NOT_ALLOWED),
            (CircuitError("", Reason.NO_LINK, 2), Code.HOST_UNREACHABLE),
            (ConnectError(Code.REFUSED, ""), Code.REFUSED),
            (LocalError(""), Code.FAILED),
            (RuntimeError(""), Code.FAILED),
        ):
            self.assertIs(code_of(error), code)

    def test_refusal(self) -> None:
        """A reply's text is cleaned, an unknown or impossible code is a plain failure."""
        error = refusal(ExitReply(5, "no\x1b[31m\n"))
        self.assertEqual((error.code, str(error), error.exit_code), (Code.REFUSED, "exit: no[31m", 4))
        self.assertIs(refusal(ExitReply(77, "")).code, Code.FAILED)
        self.assertIs(refusal(ExitReply(0, "")).code, Code.FAILED)

    def test_ipv6_text(self) -> None:
        """IPv6 in brackets."""
        self.assertEqual(str(Destination(IPv6Address("::1"), 5)), "[::1]:5")
