"""BOLT 4 attribution data: hold times and truncated HMACs that travel back beside an error onion.

    920 bytes = 20 hold times u32 (unit 100 ms) | 210 HMACs of 4 bytes: 20 of the last node to write,
                19 of the one after it, … 1

Every node writes an HMAC for each number of nodes that may lie behind it, so the origin can check each hop
whatever the length of the return path, and can blame a pair of nodes even for a packet that was garbled.
Not part of our wire (CREATED carries its own macs); here for measuring and the published vectors.

Source: lightning/bolts 04-onion-routing.md, "Attribution Data"; the published hold times are those of the
erring node first.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshnet.cipher.hashing import hmac256, same
from meshnet.cipher.onion_error import add_layer
from meshnet.cipher.sphinx import derive, xor_stream
from meshnet.errors import CodecError, UsageError

NODES: Final = 20
TIME_SIZE: Final = 4
MAC_SIZE: Final = 4
TIMES_SIZE: Final = NODES * TIME_SIZE
ATTRIBUTION_SIZE: Final = TIMES_SIZE + NODES * (NODES + 1) // 2 * MAC_SIZE

_Rows = list[list[bytes]]


def extend(shared_secret: bytes, packet: bytes, hold_time: int, previous: bytes = b"") -> bytes:
    """The attribution data a node sends back: 920 bytes.

    `packet` is the error onion before this node's layer (b"" when answering success), `hold_time` in 100 ms
    (below 2³²), `previous` what came from downstream (b"": this node is the first to write). Raises
    `CodecError` when `previous` has another size.
    """
    if not 0 <= hold_time < 1 << 32:
        raise UsageError(f"a hold time is a u32, not {hold_time}")
    times, rows = _parse(previous or bytes(ATTRIBUTION_SIZE))
    # What was written furthest away falls off; each HMAC for a place we cannot be in goes too.
    times = hold_time.to_bytes(TIME_SIZE, "big") + times[:-TIME_SIZE]
    behind = [row[1:] for row in rows[:-1]]
    own = _macs(shared_secret, packet, times, behind, 0)
    clear = times + b"".join(mac for row in [own, *behind] for mac in row)
    return _stream(shared_secret, clear)


def hold_times(shared_secrets: Sequence[bytes], packet: bytes, attribution: bytes) -> tuple[int, ...]:
    """At the origin: the hold times in path order, of as many hops as prove theirs.

    `shared_secrets` are those of the hops that should have written, `packet` the error onion as it came in
    (b"" for success). When the result is shorter than the route, the first hop missing or its neighbour
    before it changed something. Raises `CodecError` when `attribution` is not 920 bytes, `UsageError` for
    more than 20 hops.
    """
    if len(shared_secrets) > NODES:
        raise UsageError(f"attribution data reaches over {NODES} hops, not {len(shared_secrets)}")
    _parse(attribution)
    proven: list[int] = []
    for hop, secret in enumerate(shared_secrets):
        packet = add_layer(secret, packet)
        times, rows = _parse(_stream(secret, attribution))
        expected = _macs(secret, packet, times, rows[1:], hop)
        if not same(b"".join(expected), b"".join(rows[0][hop:])):
            break
        proven.append(int.from_bytes(times[:TIME_SIZE], "big"))
        # Undo the shift; the entries that fell off are never looked at again.
        macs = [[bytes(MAC_SIZE), *row] for row in rows[1:]] + [[bytes(MAC_SIZE)]]
        attribution = times[TIME_SIZE:] + bytes(TIME_SIZE) + b"".join(mac for row in macs for mac in row)
    return tuple(proven)


def _macs(shared_secret: bytes, packet: bytes, times: bytes, behind: _Rows, first: int) -> list[bytes]:
    """A node's HMACs number `first` to 19; number i supposes 19 − i nodes behind it."""
    key = derive(b"um", shared_secret)
    macs = []
    for i in range(first, NODES):
        count = NODES - 1 - i
        covered = [packet, times[: (count + 1) * TIME_SIZE], *(behind[j][i] for j in range(count))]
        macs.append(hmac256(key, b"".join(covered))[:MAC_SIZE])
    return macs


def _stream(shared_secret: bytes, data: bytes) -> bytes:
    return xor_stream(derive(b"ammagext", shared_secret), data)


def _parse(data: bytes) -> tuple[bytes, _Rows]:
    """The hold times as bytes, and the HMACs in rows of 20, 19, … 1."""
    if len(data) != ATTRIBUTION_SIZE:
        raise CodecError(f"attribution data has {ATTRIBUTION_SIZE} bytes, not {len(data)}")
    rows: _Rows = []
    at = TIMES_SIZE
    for size in range(NODES, 0, -1):
        rows.append([data[at + k * MAC_SIZE : at + (k + 1) * MAC_SIZE] for k in range(size)])
        at += size * MAC_SIZE
    return data[:TIMES_SIZE], rows
