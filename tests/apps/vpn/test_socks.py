"""The SOCKS5 machine: what a client says and what it is told."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address, ip_address

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.destination import Destination
from apps.vpn.messages import Code
from apps.vpn.socks import LARGEST_EARLY, Asked, Associated, Event, Over, Send, SocksMachine, State, reply

HELLO = b"\x05\x01\x00"
TO_IPV4 = b"\x05\x01\x00\x01\xc0\x00\x02\x07\x00\x50"
TO_NAME = b"\x05\x01\x00\x03\x0bExample.ORG\x01\xbb"
TO_IPV6 = b"\x05\x01\x00\x04" + IPv6Address("2001:db8::7").packed + b"\x00\x16"


def ask(request: bytes, machine: SocksMachine | None = None) -> list[Event]:
    """Greets and asks at once."""
    return (machine or SocksMachine()).receive(HELLO + request)


class RequestTests(SynchronousTestCase):
    def test_kinds(self) -> None:
        """CONNECT with an IPv4 address, a name and an IPv6 address."""
        for request, where in (
            (TO_IPV4, Destination(IPv4Address("192.0.2.7"), 80)),
            (TO_NAME, Destination("example.org", 443)),
            (TO_IPV6, Destination(IPv6Address("2001:db8::7"), 22)),
        ):
            self.assertEqual(ask(request), [Send(b"\x05\x00"), Asked(where)])

    def test_mapped_address(self) -> None:
        """An IPv4-mapped IPv6 address is the IPv4 address, also for the policy."""
        request = b"\x05\x01\x00\x04" + IPv6Address("::ffff:127.0.0.1").packed + b"\x00\x50"
        self.assertEqual(ask(request)[1:], [Asked(Destination(IPv4Address("127.0.0.1"), 80))])

    @given(st.lists(st.integers(1, 20), max_size=12))
    def test_any_cuts(self, sizes: list[int]) -> None:
        """However the bytes are cut, the events are the same."""
        machine, left, events = SocksMachine(), HELLO + TO_NAME + b"early", []
        for size in [*sizes, 300]:
            events += machine.receive(left[:size])
            left = left[size:]
        self.assertEqual(events, [Send(b"\x05\x00"), Asked(Destination("example.org", 443))])
        self.assertEqual(machine.granted(), reply(Code.OK))
        self.assertEqual(machine.early(), b"early")
        self.assertEqual(machine.state, State.OPEN)

    def test_other_commands(self) -> None:
        """BIND and unknown commands: not supported."""
        for command in (0, 2, 9):
            events = ask(b"\x05" + bytes([command]) + TO_IPV4[2:])
            self.assertEqual(
                events[1:], [Send(reply(Code.COMMAND_NOT_SUPPORTED)), Over("command_not_supported")]
            )

    def test_associate(self) -> None:
        """UDP ASSOCIATE names a port of the client, or none; the answer names where UDP is taken."""
        for text, bound in (("127.0.0.1", "7f0000011f90"), ("::1", "00" * 15 + "011f90")):
            machine = SocksMachine()
            events = machine.receive(b"\5\1\0\5\3\0\1\0\0\0\0\0\0")
            self.assertEqual(events[1:], [Associated(0)])
            answer = machine.granted(Destination(ip_address(text), 8_080))
            kind = {4: 1, 6: 4}[ip_address(text).version]
            self.assertEqual(answer, bytes((5, 0, 0, kind)) + bytes.fromhex(bound))
        (event,) = ask(b"\5\3\0\3\1a\x12\x34")[1:]
        self.assertEqual(event, Associated(0x1234))

    def test_bad_addresses(self) -> None:
        """Unknown kinds, an empty name, port 0 and names with odd characters are told so."""
        for request, code in (
            (b"\x05\x01\x00\x02\x01\x02\x03\x04\x00\x50", Code.ADDRESS_NOT_SUPPORTED),
            (b"\x05\x01\x00\x03\x00\x00\x50", Code.ADDRESS_NOT_SUPPORTED),
            (TO_IPV4[:-2] + b"\0\0", Code.FAILED),
            (b"\x05\x01\x00\x03\x03a\nb\x00\x50", Code.FAILED),
            (b"\x05\x01\x00\x03\x03\xffab\x00\x50", Code.FAILED),
            (b"\x05\x01\x00\x03\xff" + b"a" * 255 + b"\x00\x50", Code.FAILED),
        ):
            events = ask(request)
            self.assertEqual(events[1], Send(reply(code)))
            self.assertIsInstance(events[2], Over)

    def test_denied(self) -> None:
        """A refusal is a reply with its code; nothing follows."""
        machine = SocksMachine()
        ask(TO_IPV4 + b"early", machine)
        self.assertEqual(machine.denied(Code.REFUSED), b"\x05\x05\x00\x01\0\0\0\0\0\0")
        self.assertEqual((machine.receive(b"more"), machine.held), ([], 0))

    def test_early_bytes_are_bounded(self) -> None:
        """A client may send ahead up to a bound, not one byte more."""
        machine = SocksMachine()
        ask(TO_IPV4, machine)
        self.assertEqual(machine.receive(bytes(LARGEST_EARLY)), [])
        self.assertEqual(machine.receive(b"x"), [Over("too_much_early")])
        self.assertEqual(machine.held, 0)


class GreetingTests(SynchronousTestCase):
    def test_not_socks5(self) -> None:
        """SOCKS4, HTTP and the like are hung up on without an answer."""
        for hello in (b"\x04\x01\x00\x50\x7f\x00\x00\x01\x00", b"GET / HTTP/1.1\r\n", b"\x00"):
            self.assertEqual(SocksMachine().receive(hello), [Over("not_socks5")])

    def test_no_common_method(self) -> None:
        """Without a method that we take the client is told so."""
        for hello in (b"\x05\x00", b"\x05\x02\x01\x02"):
            self.assertEqual(SocksMachine().receive(hello), [Send(b"\x05\xff"), Over("no_method")])

    def test_password(self) -> None:
        """With credentials RFC 1929 is demanded, and both have to be right."""
        mine = (b"ann", b"secret")
        self.assertEqual(SocksMachine(mine).receive(HELLO), [Send(b"\x05\xff"), Over("no_method")])
        hello = b"\x05\x02\x00\x02"
        right = hello + b"\x01\x03ann\x06secret" + TO_IPV4
        events = SocksMachine(mine).receive(right)
        self.assertEqual(events[:2], [Send(b"\x05\x02"), Send(b"\x01\x00")])
        self.assertIsInstance(events[2], Asked)
        for wrong in (b"\x01\x03ann\x05wrong", b"\x01\x03bob\x06secret", b"\x01\x00\x00"):
            events = SocksMachine(mine).receive(hello + wrong)
            self.assertEqual(events[1:], [Send(b"\x01\x01"), Over("bad_password")])
        self.assertEqual(SocksMachine(mine).receive(hello + b"\x05")[1:], [Over("bad_password")])

    @given(st.lists(st.binary(max_size=600), max_size=6), st.booleans())
    def test_any_bytes(self, pieces: list[bytes], credentials: bool) -> None:
        """Arbitrary bytes raise nothing, are held within bounds, and end or ask at most once."""
        machine = SocksMachine((b"a", b"b") if credentials else None)
        events = [event for piece in pieces for event in machine.receive(piece)]
        self.assertLessEqual(sum(isinstance(event, Asked | Over) for event in events), 1)
        if machine.state not in (State.DECIDING, State.OPEN):
            self.assertLessEqual(machine.held, 515)

    @given(st.sampled_from([HELLO + TO_IPV4, HELLO + TO_IPV6, HELLO + TO_NAME]), st.data())
    def test_changed_bytes(self, good: bytes, data: st.DataObject) -> None:
        """A conversation with one byte changed raises nothing either."""
        place = data.draw(st.integers(0, len(good) - 1))
        changed = bytearray(good)
        changed[place] = data.draw(st.integers(0, 255))
        SocksMachine().receive(bytes(changed))
