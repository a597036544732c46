"""What an endpoint that only reads sees: the store of a chain, its pool, its parameters.

It is used in the thread that reads for the API, and by nobody else.
"""

from __future__ import annotations

from attrs import frozen

from coin.chain.params import Chain
from coin.chain.rules import Head
from coin.store.pool import PoolReader
from coin.store.reading import StoreReader


@frozen
class View:
    """A store as one request sees it: one state of it, until it is answered."""

    store: StoreReader

    @property
    def head(self) -> Head:
        """The last block."""
        return self.store.head

    @property
    def chain(self) -> Chain:
        """The chain's parameters."""
        return self.store.chain

    @property
    def pool(self) -> PoolReader:
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
