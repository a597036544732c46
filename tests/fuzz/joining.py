"""Targets of joining and choosing: invites, beacons of a local network, path policies as text."""

from __future__ import annotations

import base64
from functools import cache
from hashlib import sha256

from meshnet.cipher.keys import parse_public_key
from meshnet.errors import UsageError
from meshnet.limits import BEACON_BURST, HOPS, LAN_DIALLED, LAN_HEARD
from meshnet.topology import beacon
from meshnet.topology.beacon import Beacons, Found
from meshnet.topology.choice import choose
from meshnet.topology.graph import Graph
from meshnet.topology.invite import PREFIX, TAG, FirstPeer, make_invite, read_invite
from meshnet.topology.policy import PRESETS, parse_policy
from tests.fuzz.target import MEGABYTE, Choices, Target, piece
from tests.support.topology import UNIX, graph, key, name

WORDS = [
    "fast; disjoint 4", "private", "cheap; max_delay 80; max_loss 1; min_capacity 2; price_cap 9",
    "countries DE>JP; max_hops 5; avoid_countries RU", "only_countries DE,JP; min_hops 3; apart",
    f"prefer throughput; avoid {key(3).public.hex()}", f"pin {key(2).public.hex()},{key(3).public.hex()}",
]  # fmt: skip


def invite(held: bytes) -> None:
    """Byte 0: a text as it comes, or bytes behind a right checksum, so that more is read than that."""
    rest = held[1:]
    if held[:1] < b"\x80":
        text = rest.decode("latin-1")
    else:
        data = rest + sha256(TAG + rest).digest()[:4]
        text = PREFIX + base64.b32encode(data).decode().rstrip("=").lower()
    found = read_invite(text)
    assert found.peers and all(peer.addresses for peer in found.peers)


def _invites() -> list[bytes]:
    peers = (
        FirstPeer(key(1).public, ("tcp:192.0.2.1:7001",)),
        FirstPeer(key(2).public, ("tcp:[::1]:7", "unix:/x")),
    )
    text = make_invite(key(1), 1, UNIX, peers)
    word = text[len(PREFIX) :].upper()
    data = base64.b32decode(word + "=" * (-len(word) % 8))
    return [b"\0" + text.encode(), b"\xff" + data[:-4]]


def beacons(held: bytes) -> None:
    """Datagrams of one local network from several addresses, time passing: what is remembered, checked and
    dialled stays within its limits."""
    core = Beacons(key(1), 1, 7_001, lambda who: True, lambda: (), lambda size: bytes(size))
    said, now, checked = Choices(held), 0.0, 0
    while said:
        head = said.number()
        now += 0.25 * (head >> 4)
        core.receive(said.piece(), f"192.0.2.{head & 15}", now, UNIX + now)
        checked += 1
        _, told = core.tick(now, UNIX + now)
        assert sum(isinstance(each, Found) for each in told) <= 2 * LAN_DIALLED
        assert core.heard <= min(LAN_HEARD, checked) and len(core._dialled) <= LAN_DIALLED
        assert core._tokens <= BEACON_BURST


def _datagrams() -> list[bytes]:
    made = [beacon.make_beacon(key(number), 1, UNIX + number, 7_000 + number) for number in range(2, 7)]
    return [
        b"".join(bytes([0x10 | number]) + piece(each) for number, each in enumerate(made)),
        b"\0" + piece(made[0]),
    ]


@cache
def _graph() -> Graph:
    links = {(1, 2): 10_000, (2, 4): 10_000, (1, 3): 5_000, (3, 4): 20_000, (2, 3): 1_000, (4, 5): 1_000}
    return graph(links, country={2: b"DE", 3: b"JP"}, operator={2: b"one\0\0\0\0\0", 3: b"two\0\0\0\0\0"})


def policy(held: bytes) -> None:
    """A policy as text, of the operator or of who asks a route service; and what is chosen under it: ways
    that the graph has, of at most eight hops."""
    wanted = parse_policy(held.decode("latin-1"), parse_public_key)
    found = choose(_graph(), name(1), name(5), wanted, guards=(name(2), name(3)))
    for way in found.ways:
        assert (way.nodes[0], way.nodes[-1]) == (name(1), name(5))
        assert way.hops <= min(HOPS, wanted.max_hops)
    assert found.ways or found.reason


TARGETS = (
    Target("invite", invite, _invites, (UsageError,), longest=800),
    Target("beacon", beacons, _datagrams, (), longest=1_500),
    Target(
        "path-policy",
        policy,
        lambda: [each.encode() for each in (*WORDS, *PRESETS)],
        (UsageError,),
        2 * MEGABYTE,
        400,
    ),
)
