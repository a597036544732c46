"""Blinded tails of circuits: what a hidden receiver tells each node on the way to it, and who is where.

    encrypted data = TLVs, padded to 64 bytes: 1 padding | 4 next node 33 | 6 path id 16
    told to the introduction node    TLV 16 its data, TLV 18 the path key
    told to the nodes behind it      TLV 16 their data; the path key comes with CREATE

What a node of a tail says when something fails is the same for all of them (docs/wire-format.md §6).
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import IntEnum
from typing import Annotated, Final

from attrs import frozen

from meshnet.cipher.address import Address, BlindedHop, Target
from meshnet.cipher.blinding import BlindedPath, Step, blind, enter
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.cipher.sphinx import BadOnion
from meshnet.circuit.messages import NO_PATH_KEY
from meshnet.codec import Fixed, Rest, Tlv, decode, encode, tlvs
from meshnet.errors import CodecError, UsageError
from meshnet.limits import HIDDEN_DATA, PATH_ID, TAIL_HOPS

CELLS: Final = (1_200, 16_384, 61_000)
"""The sizes of cells that nodes of a tail announce."""

_TLV_HEAD: Final = 2


class Place(IntEnum):
    """Where a node of a circuit stands."""

    OPEN = 0
    """Before any tail: it speaks for itself."""
    INTRODUCTION = 1
    """The first of a tail: it answers for all behind it, late by chance."""
    BLINDED = 2
    """Behind the introduction node."""


@tlvs
class HiddenTerms:
    """What the receiver tells one node of its tail; only that node can read it."""

    padding: Annotated[bytes | None, Tlv(1, Rest(HIDDEN_DATA - _TLV_HEAD))] = None
    next_node: Annotated[bytes | None, Tlv(4, Fixed(33))] = None
    path_id: Annotated[bytes | None, Tlv(6, Fixed(PATH_ID))] = None
    """The last hop's only: which of its services, by which address."""


@frozen
class Told:
    """What the origin tells one hop of the way on: where, or what the receiver says of it."""

    next_node: PublicKey | None = None
    encrypted: bytes | None = None
    path_key: PublicKey | None = None


@frozen
class Way:
    """A route as its origin needs it: the neighbour that CREATE goes to, with which path key, and for each
    onion layer its key and what the hop is told beside the rest."""

    neighbour: PublicKey
    path_key: bytes
    hops: tuple[PublicKey, ...]
    told: tuple[Told, ...]


def padded(next_node: bytes | None = None, path_id: bytes | None = None) -> bytes:
    """The terms of one node as 64 bytes."""
    room = HIDDEN_DATA - _TLV_HEAD - len(encode(HiddenTerms(next_node=next_node, path_id=path_id)))
    return encode(HiddenTerms(padding=bytes(room), next_node=next_node, path_id=path_id))


def make_tail(
    session_key: SecretKey, relays: Sequence[PublicKey], own: PublicKey, path_id: bytes
) -> tuple[PublicKey, tuple[BlindedHop, ...]]:
    """The path key and the tail over `relays` (0 to 3, the introduction node first) to the node `own`.

    The first hop has the key of the node itself, as in an address. `session_key` must be fresh and then
    forgotten. Raises UsageError for a tail that cannot be.
    """
    nodes = [*relays, own]
    if len(nodes) > TAIL_HOPS or len(set(nodes)) < len(nodes):
        raise UsageError(f"A tail has at most {TAIL_HOPS - 1} relays, none twice, before this node itself.")
    told = [padded(next_node=following) for following in nodes[1:]]
    told.append(padded(path_id=path_id))
    path: BlindedPath = blind(session_key, list(zip(nodes, told, strict=True)))
    return path.path_key, (BlindedHop(nodes[0], path.hops[0].data), *path.hops[1:])


def read_hidden(step: Step, data: bytes) -> HiddenTerms:
    """What the receiver tells this node: a next node or a path id. Raises `BadOnion`."""
    try:
        terms = decode(HiddenTerms, step.open(data))
    except CodecError as fault:
        raise BadOnion(f"the receiver's data cannot be read: {fault}") from None
    if (terms.next_node is None) == (terms.path_id is None):
        raise BadOnion("the receiver's data names neither or both of a next node and a path id")
    return terms


def find_way(route: Sequence[Target], own: SecretKey) -> Way:
    """The way along relays to a node or an address. Raises UsageError for an address in the middle, BadOnion
    for one whose tail begins here and does not open."""
    *via, target = route
    relays = []
    for relay in via:
        if isinstance(relay, Address):
            raise UsageError("an address can only be the end of a route")
        relays.append(relay)
    if not isinstance(target, Address):
        hops = (*relays, target)
        return Way(hops[0], NO_PATH_KEY, hops, _plain(hops))
    tail = target.tail
    if not relays and target.introduction == own.public and len(tail) > 1:
        return _from_here(target, own)
    hops = (*relays, *(hop.key for hop in tail))
    first = Told(encrypted=tail[0].data, path_key=target.path_key)
    behind = [Told(encrypted=hop.data) for hop in tail[1:]]
    told = (*_plain((*relays, tail[0].key))[:-1], first, *behind)
    return Way(hops[0], NO_PATH_KEY, hops, told)


def _from_here(address: Address, own: SecretKey) -> Way:
    """We are the introduction node: we take its step, and CREATE goes to the node behind us."""
    step = enter(own, address.path_key)
    terms = read_hidden(step, address.tail[0].data)
    if terms.next_node is None:
        raise BadOnion("the address ends before its tail does")
    tail = address.tail[1:]
    told = tuple(Told(encrypted=hop.data) for hop in tail)
    return Way(PublicKey(terms.next_node), step.next_path_key, tuple(hop.key for hop in tail), told)


def _plain(hops: Sequence[PublicKey]) -> tuple[Told, ...]:
    return (*(Told(next_node=following) for following in hops[1:]), Told())


def rounded(max_cell: int, place: Place) -> int:
    """The largest cell that a hop announces: in a tail one of three sizes, so that it tells no link."""
    if place is Place.OPEN:
        return max_cell
    return max(size for size in CELLS if size <= max(max_cell, CELLS[0]))
