"""Leases: the messages on the stream that carries packets, and both sides of the conversation."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.lease import (
    LARGEST_MESSAGE,
    Asked,
    Broken,
    ClientConversation,
    ExitConversation,
    Granted,
    Lease,
    LeaseError,
    Offloads,
    RefusalCode,
    Refused,
    State,
    Wants,
    Wish,
    ask,
    grant,
    lease_of,
    refusal_of,
    refuse,
    take,
    wish_of,
)
from apps.vpn.lease import Ask as AskMessage
from apps.vpn.lease import Grant as GrantMessage
from apps.vpn.lease import Refuse as RefuseMessage
from apps.vpn.tun.device import LEAST_MTU, MOST_MTU
from meshnet.errors import CodecError

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "vpn.json").read_text())

LEASE = Lease(
    IPv4Address("10.181.0.2"),
    IPv6Address("fd6d:6573:68::2"),
    (IPv4Address("10.181.0.1"), IPv6Address("fd6d:6573:68::1")),
    1_500,
    Offloads.CSUM | Offloads.TSO4 | Offloads.TSO6,
    1_250_000,
    300,
    bytes(range(16)),
)

offloads = st.integers(0, 127).map(lambda bits: Offloads(bits & 0x67))
mtus = st.integers(LEAST_MTU, MOST_MTU)
tickets = st.one_of(st.just(b""), st.binary(min_size=16, max_size=16).filter(any))
v4s = st.integers(0x0A000000, 0x0AFFFFFF).map(IPv4Address)
v6s = st.integers(0xFD << 120, (0xFE << 120) - 1).map(IPv6Address)
wishes = st.builds(Wish, st.integers(1, 7).filter(lambda bits: bits & 3).map(Wants), offloads, mtus, tickets)


@st.composite
def leases(draw: st.DrawFn) -> Lease:
    """Any lease that an exit may give."""
    v4 = draw(st.none() | v4s)
    v6 = draw(v6s) if v4 is None else draw(st.none() | v6s)
    dns = tuple(each for each in (draw(st.none() | v4s), draw(st.none() | v6s)) if each is not None)
    rate, keeps = draw(st.integers(0, (1 << 64) - 1)), draw(st.integers(0, 65_535))
    return Lease(v4, v6, dns, draw(mtus), draw(offloads), rate, keeps, draw(tickets))


class WireTests(SynchronousTestCase):
    def test_vectors(self) -> None:
        """The layout, to the byte."""
        wish = Wish(Wants.V4 | Wants.DNS, Offloads.CSUM, 1_400, b"t" * 16)
        built = {
            "ask": ask(wish),
            "ask for anything": ask(Wish()),
            "grant": grant(LEASE),
            "grant of v6 alone": grant(Lease(None, LEASE.v6, (), 1_280, Offloads.NONE)),
            "refuse": refuse(RefusalCode.FULL, "no address is free"),
        }
        self.assertEqual({name: data.hex() for name, data in built.items()}, VECTORS["lease"])

    @given(wishes)
    def test_wishes(self, wish: Wish) -> None:
        """Every wish arrives as it was, and what follows stays."""
        received = bytearray(ask(wish) + b"rest")
        found = take(received)
        assert isinstance(found, AskMessage)
        self.assertEqual((wish_of(found), bytes(received)), (wish, b"rest"))

    @given(leases())
    def test_leases(self, lease: Lease) -> None:
        """Every lease arrives as it was."""
        found = take(bytearray(grant(lease)))
        assert isinstance(found, GrantMessage)
        self.assertEqual(lease_of(found), lease)

    @given(st.sampled_from(RefusalCode), st.text(max_size=300))
    def test_refusals(self, code: RefusalCode, text: str) -> None:
        """A refusal keeps its code; its text is cut at a character and cleaned for the reader."""
        found = take(bytearray(refuse(code, text)))
        assert isinstance(found, RefuseMessage)
        self.assertTrue(text.startswith(found.text))
        error = refusal_of(found)
        self.assertIs(error.code, code)
        self.assertTrue(str(error).isprintable())

    @given(st.binary(max_size=LARGEST_MESSAGE + 10), st.booleans())
    def test_any_bytes(self, data: bytes, sized: bool) -> None:
        """Any bytes are a message, or need more (within the bound), or raise CodecError."""
        if sized:
            data = len(data).to_bytes(2, "big") + data
        try:
            found = take(bytearray(data))
            if found is None:
                self.assertLess(len(data), LARGEST_MESSAGE + 2)
            elif isinstance(found, AskMessage):
                wish_of(found)
            elif isinstance(found, GrantMessage):
                lease_of(found)
            else:
                refusal_of(found)
        except CodecError:
            pass

    def test_refused(self) -> None:
        """Another version, no family, an MTU out of range; a lease without or with impossible addresses."""
        good = AskMessage(1, 7, 0, 1_500, bytes(16))
        for bad in ({"version": 2}, {"wants": 4}, {"wants": 0}, {"mtu": 1_279}, {"mtu": MOST_MTU + 1}):
            self.assertRaises(CodecError, wish_of, evolve(good, **bad))  # type: ignore[misc]
        given_ = take(bytearray(grant(LEASE)))
        assert isinstance(given_, GrantMessage)
        for wrong in (
            {"v4": bytes(4), "v6": bytes(16)},
            {"v4": b"\x7f\0\0\1"},
            {"v4": b"\xe0\0\0\1"},
            {"dns4": b"\x7f\0\0\x35"},
            {"v6": b"\xfe\x80" + bytes(13) + b"\1"},
            {"dns6": bytes(15) + b"\1"},
            {"mtu": 0},
        ):
            self.assertRaises(CodecError, lease_of, evolve(given_, **wrong))  # type: ignore[misc]

    def test_newer_writers(self) -> None:
        """Fields that a newer side appends, and bits that nobody knows yet, are left out."""
        data = bytearray(ask(Wish()))
        data[1] += 3
        data[5] |= 0x98
        found = take(data + b"new")
        assert isinstance(found, AskMessage)
        self.assertEqual(wish_of(found), Wish())
        self.assertEqual(refusal_of(RefuseMessage(99, "x")).code, RefusalCode.FAILED)


class ConversationTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.client, self.exit = ClientConversation(Wish(mtu=1_400)), ExitConversation()

    def lease(self) -> None:
        self.exit.receive(self.client.ask())
        self.client.receive(self.exit.granted(LEASE))

    def test_granted(self) -> None:
        """A wish and its lease, byte by byte; the smaller MTU of both holds."""
        heard = [event for byte in self.client.ask() for event in self.exit.receive(bytes([byte]))]
        self.assertEqual(heard, [Asked(Wish(mtu=1_400))])
        answer = self.exit.granted(LEASE)
        events = [event for byte in answer for event in self.client.receive(bytes([byte]))]
        self.assertEqual(events, [Granted(evolve(LEASE, mtu=1_400))])
        self.assertEqual((self.client.state, self.exit.state), (State.LEASED, State.LEASED))

    def test_denied(self) -> None:
        """A refusal is an error with its code and sentence, and the end."""
        self.exit.receive(self.client.ask())
        (event,) = self.client.receive(self.exit.denied(RefusalCode.FULL, "no address is free"))
        assert isinstance(event, Refused)
        self.assertEqual((event.why.code, event.why.exit_code), (RefusalCode.FULL, 4))
        self.assertEqual(str(event.why), "exit: no address is free")
        self.assertEqual(self.client.receive(grant(LEASE)), [])
        self.assertIs(self.client.state, State.OVER)

    def test_other_terms(self) -> None:
        """An exit may change rate and MTU later, and withdraw; it may not change an address."""
        self.lease()
        slower = evolve(LEASE, rate=1, mtu=1_300)
        self.assertEqual(self.client.receive(self.exit.granted(slower)), [Granted(slower)])
        (event,) = self.client.receive(self.exit.denied(RefusalCode.STOPPED, "stopping"))
        assert isinstance(event, Refused)
        self.assertIsNone(self.client.lease)
        self.setUp()
        self.lease()
        (event,) = self.client.receive(grant(evolve(LEASE, v4=IPv4Address("10.1.1.1"))))
        assert isinstance(event, Refused)
        self.assertIs(event.why.code, RefusalCode.MALFORMED)

    def test_unwanted(self) -> None:
        """An address of a family that was not asked for ends it; a DNS server is left out."""
        client = ClientConversation(Wish(Wants.V4))
        self.assertIsInstance(client.receive(grant(LEASE))[0], Refused)
        client = ClientConversation(Wish(Wants.V4))
        (event,) = client.receive(grant(evolve(LEASE, v6=None)))
        assert isinstance(event, Granted)
        self.assertEqual(event.lease.dns, ())

    def test_too_much(self) -> None:
        """A client that speaks twice, before or after its lease, is broken; nothing is held of it."""
        for early in (True, False):
            talk = ExitConversation()
            if early:
                (event,) = talk.receive(ask(Wish()) * 2)
            else:
                talk.receive(ask(Wish()))
                talk.granted(LEASE)
                (event,) = talk.receive(b"x")
            self.assertEqual(event, Broken("the client spoke again"))
            self.assertIs(talk.state, State.OVER)
            self.assertEqual(talk.receive(b"y"), [])

    @given(st.lists(st.binary(max_size=80), max_size=8), st.booleans())
    def test_hostile(self, pieces: list[bytes], begun: bool) -> None:
        """Neither side raises, whatever comes; each ends at most once and holds at most one message."""
        client, exit_ = ClientConversation(Wish()), ExitConversation()
        if begun:
            exit_.receive(ask(Wish()))
            client.receive(exit_.granted(LEASE))
        ended = 0
        for piece in pieces:
            events = [*client.receive(piece), *exit_.receive(piece)]
            ended += sum(isinstance(each, Refused | Broken) for each in events)
            held = (len(client._held), len(exit_._held))
            self.assertLessEqual(max(held), LARGEST_MESSAGE + 2)
        self.assertLessEqual(ended, 2)

    def test_errors(self) -> None:
        """What a verb exits with."""
        codes = {code: LeaseError(code, "").exit_code for code in RefusalCode}
        self.assertEqual(codes[RefusalCode.REPLACED], 5)
        self.assertEqual(codes[RefusalCode.FAILED], 1)
