"""Events that have been: the blocks of the store that somebody wants to hear of, piece by piece.

With few addresses the index of histories says which blocks they are, and the rest is never read. Blocking, in
the thread that reads; a piece is small (`BLOCKS`, `BYTES`), since others wait meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from attrs import evolve, frozen

from coin.chain.block import decode_block
from coin.events.content import Content
from coin.events.wanted import Wanted
from coin.store.pages import first_number, spent_by, touching
from meshnet.storage.database import Connection

BLOCKS: Final = 64
"""Heights of one piece that have events."""
BYTES: Final = 64 << 10
"""Bytes of the blocks of one piece, roughly."""
FEW: Final = 500
"""Addresses up to which an index is asked."""


@frozen
class Piece:
    """All there is to hear from the height that was asked for up to, without, `until`: the blocks of those
    heights that have something, each with the older one whose transactions have their confirmations there."""

    until: int
    contents: tuple[tuple[Content, Content | None], ...]


def read_piece(connection: Connection, wanted: Wanted, start: int, height: int) -> Piece:
    """The events from height `start` on, `height` the last one at most."""
    head = connection.execute("SELECT coalesce(max(sequence), -1) FROM block")[0][0]
    height = min(height, head)
    if start > height:
        return Piece(start, ())
    addresses = wanted.addresses
    if "block" not in wanted.kinds and addresses is not None and len(addresses) <= FEW:
        heights, until = _touched(connection, wanted, start, height)
    else:
        until = min(start + BLOCKS, height + 1)
        heights = list(range(start, until))
    return _loaded(connection, wanted, heights, until)


def _touched(connection: Connection, wanted: Wanted, start: int, height: int) -> tuple[list[int], int]:
    """The heights that have something, and where that ends."""
    assert wanted.addresses is not None
    depths = {"address": 0, "transaction": wanted.confirmations - 1}
    heights: set[int] = set()
    until = height + 1
    for depth in {depths[kind] for kind in wanted.kinds if kind in depths}:
        if depth > height:
            continue
        first = first_number(connection, max(start - depth, 0))
        end = first_number(connection, height - depth + 1)
        numbers = touching(connection, list(wanted.addresses), first, end, BLOCKS)
        blocks = _blocks_of(connection, numbers)
        if len(numbers) == BLOCKS:  # there may be more, but not in blocks before the last one
            until = min(until, blocks[-1] + depth + 1)
        heights.update(each + depth for each in blocks)
    return sorted(each for each in heights if each < until), until


def _blocks_of(connection: Connection, numbers: Iterable[int]) -> list[int]:
    marked = list(numbers)
    statement = f"SELECT DISTINCT block FROM tx WHERE number IN ({','.join('?' * len(marked))}) ORDER BY 1"  # noqa: S608
    return [block for (block,) in connection.execute(statement, marked)]


def _loaded(connection: Connection, wanted: Wanted, heights: list[int], until: int) -> Piece:
    known: dict[int, Content] = {}
    found: list[tuple[Content, Content | None]] = []
    size = 0

    def load(sequence: int) -> Content:
        nonlocal size
        content = known.get(sequence)
        if content is None:
            data = connection.execute("SELECT data FROM block WHERE sequence = ?", (sequence,))[0][0]
            size += len(data)
            block = decode_block(data)
            content = Content(block, [spent_by(connection, each) for each in block.transactions])
            known[sequence] = content
        return content

    for height in heights:
        if size > BYTES:
            return Piece(height, tuple(found))
        older = wanted.older(height)
        found.append((load(height), load(older) if older is not None else None))
    return Piece(until, tuple(found))


def settled(wanted: Wanted) -> Wanted:
    """A copy to read by, which stays as it is when addresses come and go."""
    addresses = wanted.addresses
    return evolve(wanted, addresses=set(addresses) if addresses is not None else None)
