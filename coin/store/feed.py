"""Feeds a long stream of blocks to a store, as from a file: in runs, each one commit.

While a run is written, the signatures of the next are checked in other processes, so the stream goes as fast
as the slower of the two. Blocks that the store has already are passed over if they are the same. It blocks.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

from coin.chain.block import Block
from coin.store.signing import Signing
from coin.store.store import ChainStore
from meshnet.errors import LocalError

RUN: Final = 512
"""Blocks of one commit."""


def feed(
    store: ChainStore,
    signing: Signing,
    blocks: Iterable[Block],
    progress: Callable[[int], None] = lambda height: None,
) -> int:
    """Adds blocks, from any one that the store has or lacks next; how many were new. `progress` is told the
    height after each commit. What was added before an error stays.

    Raises the RuleError of a wrong block, LocalError if the blocks are of another chain, StorageError.
    """
    runs = _runs(_new_ones(store, blocks))
    before = store.head.header.sequence
    with ThreadPoolExecutor(1, "coin-feed") as ahead:
        run = next(runs, [])
        checking = ahead.submit(signing.blocks, run)
        while run:
            verdicts = checking.result()
            following = next(runs, [])
            checking = ahead.submit(signing.blocks, following)
            signed = [each.signed for each in verdicts]
            added = store.add(run, signed, [each.refusal for each in verdicts])
            if added.refused is not None:
                raise added.refused
            progress(store.head.header.sequence)
            run = following
    return store.head.header.sequence - before


def _new_ones(store: ChainStore, blocks: Iterable[Block]) -> Iterator[Block]:
    height = store.head.header.sequence
    for block in blocks:
        sequence = block.header.sequence
        if sequence > height:
            yield block
        elif store.block(sequence) != block:
            raise LocalError(
                f"Block {sequence} is another one than the store has: these blocks are of another chain."
            )


def _runs(blocks: Iterator[Block]) -> Iterator[list[Block]]:
    while run := list(islice(blocks, RUN)):
        yield run
