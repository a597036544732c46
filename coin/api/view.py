"""What an endpoint that only reads sees: the store of a chain, its pool, its parameters.

It is used in the thread that reads the store, and by nobody else at that time.
"""

from __future__ import annotations

from attrs import frozen

from coin.chain.params import Chain
from coin.chain.rules import Head
from coin.store.pool import Pool
from coin.store.store import ChainStore


@frozen
class View:
    """A store as one request sees it; `head` is that of its beginning."""

    store: ChainStore
    head: Head

    @property
    def chain(self) -> Chain:
        """The chain's parameters."""
        return self.store.chain

    @property
    def pool(self) -> Pool:
        """The loose transactions."""
        return self.store.pool

    @property
    def height(self) -> int:
        """The number of the last block."""
        return self.head.header.sequence

    @property
    def time(self) -> int:
        """Its time, at which hours are counted."""
        return self.head.header.time
