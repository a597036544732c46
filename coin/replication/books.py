"""What replication asks of the chain and of the pool. Answers come later, by call, in the order asked."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from attrs import frozen

from coin.chain.block import Block
from coin.chain.rules import RuleError
from coin.chain.transaction import Transaction
from coin.store.pool import Taken
from meshnet.errors import MeshError

T = TypeVar("T")
Answer = Callable[[T], None]


@frozen
class Executed:
    """What became of a run of blocks: our height now; the rule that the first bad one broke; or, if the
    store could not take them for a reason of its own, what failed."""

    height: int
    refused: RuleError | None = None
    failed: MeshError | None = None


class Books(Protocol):
    """The chain and its pool."""

    @property
    def height(self) -> int:
        """The sequence of the last block."""

    def execute(self, blocks: Sequence[Block], answer: Answer[Executed]) -> None:
        """Checks blocks and adds them; durable when it answers."""

    def restore(self, block: Block, answer: Answer[MeshError | None]) -> None:
        """Puts a damaged block right; LocalError if it is not that block. Durable when it answers."""

    def raw_blocks(self, after: int, count: int, most_bytes: int, answer: Answer[list[bytes]]) -> None:
        """Signed blocks after number `after`."""

    def unknown(self, ids: Sequence[bytes], answer: Answer[list[bytes]]) -> None:
        """Those of the ids that are neither in the pool nor in the chain."""

    def inject(self, transactions: Sequence[Transaction], answer: Answer[list[Taken]]) -> None:
        """Puts loose transactions into the pool; no result at all if the disk could not keep them."""

    def loose(self, ids: Sequence[bytes], answer: Answer[list[bytes]]) -> None:
        """The bytes of those that are in the pool."""

    def pool_ids(self, answer: Answer[list[bytes]]) -> None:
        """The ids of those in the pool that break no rule."""
