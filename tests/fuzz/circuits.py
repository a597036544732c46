"""Targets of circuits: onions, the frames of set-up, cells at relays and ends, blinded tails."""

from __future__ import annotations

import random
from functools import cache

from meshnet.cipher import onion_error
from meshnet.cipher.blinding import blind, enter
from meshnet.cipher.keys import SecretKey
from meshnet.cipher.sphinx import BadOnion, build, peel
from meshnet.circuit.failure import opened
from meshnet.circuit.messages import CREATE, CREATED, DESTROY, FAILED, Create, HopTerms
from meshnet.circuit.policy import Policy
from meshnet.circuit.tail import padded, read_hidden
from meshnet.codec import encode
from meshnet.errors import Drop, ProtocolError
from tests.fuzz.target import MEGABYTE, Choices, Target, piece
from tests.meshnet.circuit.network import FIRST, NETWORK, UNIX, FakeNetwork, FakeNode

KEY = SecretKey(b"\5" * 32)
SESSION = SecretKey(b"\6" * 32)
AD = b"associated"
UNIX_STEP = (int(UNIX) // 300 + 3) * 300
LIMIT = 400
"""Inputs until a network is made anew: replays and resting labels fill it."""


def onion(data: bytes) -> None:
    """Byte 0: an onion as it comes, or a payload in a sound onion that is peeled and read; an error onion."""
    mode, rest = (data[0] % 3 if data else 0), data[1:]
    if mode == 0:
        peel(KEY, rest, AD)
    elif mode == 1:
        payload = (rest + b"\0\0")[:1_200]
        peeled = peel(KEY, build(SESSION, [(KEY.public, payload)], AD).packet, AD)
        assert peeled.payload == payload and peeled.next_packet is None
    else:
        secrets, route = [b"s" * 32, b"t" * 32], [KEY.public, SESSION.public]
        content = rest[:256]
        one = onion_error.create(secrets[1], content)
        opened(secrets, route, onion_error.add_layer(secrets[0], one))
        opened(secrets, route, rest[:292].ljust(292, b"\0"))


def _onions() -> list[bytes]:
    packet = build(SESSION, [(KEY.public, _terms())], AD).packet
    return [b"\0" + packet, b"\1" + _terms(), b"\2\1\4text", b"\2\5\0\1\10" + bytes(8)]


def _terms() -> bytes:
    return encode(HopTerms(suite=0, idle=60, first_message=FIRST))


class _Relay:
    """A node r between a and b, and a circuit that goes through it to b."""

    def __init__(self) -> None:
        policy = Policy(creates_per_second=1e9, create_burst=1_000_000, creates_in_all=1e9)
        self.network = FakeNetwork("arb", policies=dict.fromkeys("arb", policy))
        self.used = 0
        self.random = random.Random(7)
        self.open()

    def open(self) -> None:
        """A fresh circuit."""
        self.ends = self.network.pair("arb")
        self.ends[0].say(b"hello")
        self.network.pump()

    def next(self) -> None:
        """Time passes."""
        self.used += 1
        self.network.wait(0.01)

    def node(self, name: str) -> FakeNode:
        """One of the three."""
        return self.network[name]


_relays: dict[str, _Relay] = {}


def _relay(name: str) -> _Relay:
    found = _relays.get(name)
    if found is None or found.used >= LIMIT:
        found = _relays[name] = _Relay()
    found.next()
    return found


def create(data: bytes) -> None:
    """Byte 0: a CREATE as it comes, or one whose onion is sound and tells r, or b, what follows."""
    choices = Choices(data)
    mode, relay = choices.number() % 3, _relay("create")
    a, r = relay.node("a"), relay.node("r")
    if mode == 0:
        relay.network.deliver(r, a, CREATE, choices.rest())
        return
    expiry = UNIX_STEP if choices.number() < 240 else choices.number(4)
    path_key = bytes(33) if choices.number() < 128 else SESSION.public
    label = a.circuits._shared.side(a.link(r), 0.0).draw()
    payload = choices.piece()[:600].ljust(2, b"\0")
    session = SecretKey(relay.random.randbytes(32))
    key = r.key if path_key == bytes(33) else enter(r.secret, path_key).tweaked(r.secret).public
    route = [(key, payload)]
    if mode == 2:
        route.append((relay.node("b").key, choices.piece()[:600].ljust(2, b"\0")))
    ad = NETWORK.to_bytes(4, "big") + b"circ" + expiry.to_bytes(4, "big")
    packet = build(session, route, ad).packet
    frame = Create(label, expiry, 0, path_key, packet)
    relay.network.deliver(r, a, CREATE, encode(frame))
    relay.network.pump()


def _creates() -> list[bytes]:
    relay = _Relay()
    onward = encode(HopTerms(next_node=relay.node("b").key, suite=0, idle=60))
    return [
        b"\0" + encode(Create(5, UNIX_STEP, 0, bytes(33), bytes(1_366))),
        b"\1\0\0" + piece(_terms()),
        b"\2\0\0" + piece(onward) + piece(_terms()),
        b"\2\0\xff" + piece(encode(HopTerms(encrypted=bytes(80)))) + piece(_terms()),
    ]


def circuit(data: bytes) -> None:
    """A series of set-up frames for labels in use, from either side, at any of the three nodes."""
    choices, relay = Choices(data), _relay("circuit")
    for _ in range(6):
        way = choices.number()
        source, target = (("a", "r"), ("r", "a"), ("b", "r"), ("r", "b"))[way & 3]
        kind = (CREATED, FAILED, DESTROY, CREATE)[way >> 2 & 3]
        known = sorted(relay.node(target).link(relay.node(source)).forward)
        known += sorted(relay.node(target).link(relay.node(source)).backward)
        label = known[way >> 4 & 1] if len(known) > way >> 4 & 1 else choices.number(4)
        body = label.to_bytes(4, "big") + choices.piece()
        try:
            relay.network.deliver(relay.node(target), relay.node(source), kind, body)
        except ProtocolError:
            pass
        relay.network.pump()
        if not choices:
            break
    if not relay.node("r").circuits.standing["relay"]:
        relay.open()


def _circuits() -> list[bytes]:
    ways = [way + 4 * kind for kind in range(3) for way in range(4)]
    bodies = [bytes(459), b"\1", b"\0" + bytes(292), b"\1" + bytes(292)]
    return [bytes([way]) + piece(body) for way in ways for body in bodies[way >> 2 : (way >> 2) + 2]]


def cell(data: bytes) -> None:
    """A series of cells on an open circuit, from either side, at the relay and at both ends: nothing is
    ever raised, and what waits stays within its limits."""
    choices, relay = Choices(data), _relay("cell")
    for _ in range(8):
        way = choices.number()
        source, target = (("a", "r"), ("b", "r"), ("r", "a"), ("r", "b"))[way & 3]
        kind = 12 | way >> 2 & 1 | (0x80 if way & 8 else 0)
        link = relay.node(target).link(relay.node(source))
        known = sorted(link.backward if kind & 1 else link.forward)
        label = known[0] if known and not way & 16 else choices.number(4)
        seq = choices.number(8) if way & 32 else choices.number(2) - 30_000 & (1 << 64) - 1
        body = choices.piece()
        drop = relay.network.deliver(
            relay.node(target),
            relay.node(source),
            kind,
            label.to_bytes(4, "big") + seq.to_bytes(8, "big") + body,
        )
        assert drop in Drop
        if not choices:
            break
    relay.network.pump()
    if not relay.node("r").circuits.standing["relay"]:
        relay.open()


def _cells() -> list[bytes]:
    return [bytes([way]) + b"\x75\x31" + piece(b"x" * 40) for way in range(16)] * 2


@cache
def _blinded() -> bytes:
    return blind(SESSION, [(KEY.public, padded(path_id=bytes(16)))]).hops[0].data


def tail(data: bytes) -> None:
    """Byte 0: what a hop of a tail is told, as it comes; or sealed for it; or a path key as it comes."""
    mode, rest = (data[0] % 3 if data else 0), data[1:]
    if mode == 0:
        read_hidden(enter(KEY, SESSION.public), rest)
    elif mode == 1:
        told = blind(SESSION, [(KEY.public, rest[:64])]).hops[0].data
        read_hidden(enter(KEY, SESSION.public), told)
    else:
        step = enter(KEY, rest[:33])
        assert step.tweaked(KEY).public and step.next_path_key


def _tails() -> list[bytes]:
    return [
        b"\0" + _blinded(),
        b"\1" + padded(next_node=KEY.public),
        b"\1" + padded(path_id=bytes(16)),
        b"\2" + KEY.public,
    ]


TARGETS = [
    Target("onion", onion, _onions, (BadOnion,), MEGABYTE, 1_500),
    Target("create", create, _creates, (ProtocolError,), 12 * MEGABYTE, 1_500),
    Target("circuit", circuit, _circuits, (), 12 * MEGABYTE, 2_000),
    Target("cell", cell, _cells, (), 12 * MEGABYTE, 2_000),
    Target("blinded", tail, _tails, (BadOnion,), MEGABYTE, 300),
]
