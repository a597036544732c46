"""Making blocks: by who has the chain's key. Never two different ones of one height.

A block that is signed must not be followed by another of its height, whatever happens in between: others may
have it. So before anything else the signed block is written down in a kept file (`Promise`), durably; then it
is stored, then announced. When a node starts, a promised block that its store does not have is stored first,
and while the store is lower than that, no block is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from coin.chain.block import LARGEST_BLOCK, LATEST, Block, decode_block, new_block
from coin.chain.params import Chain
from coin.chain.rules import Head, choose_transactions
from coin.chain.signatures import sign
from coin.chain.transaction import Transaction
from meshnet.cipher.keys import SecretKey
from meshnet.errors import CodecError, ConfigError, LocalError
from meshnet.storage.disk import Disk, StrPath
from meshnet.storage.kept import KeptFile, Loaded
from meshnet.storage.quarantine import Quarantine

AHEAD: Final = 7_200
"""Seconds that the last block may be younger than the clock; then the clock is wrong and no block is made."""


class Promise:
    """The last block that was signed here."""

    def __init__(self, disk: Disk, path: StrPath, quarantine: Quarantine | None = None) -> None:
        self._path = path
        self._file = KeptFile(disk, path, LARGEST_BLOCK, quarantine)
        found = self._file.load()
        self.block: Block | None = None
        self.least = 0
        """Below this height no block is made."""
        self.notes = list(found.notes)
        if found.outcome is Loaded.NOTHING_VALID:
            raise LocalError(
                f"{path} is damaged, so nobody knows which block was signed last. Let the node catch up with "
                "others without [coin] publish, then remove the file to make blocks again."
            )
        if found.frame is not None:
            try:
                self.block = decode_block(found.frame.data)
            except CodecError as error:
                raise LocalError(f"{path} holds no block: {error}.") from None
            # A damaged newest one promised the next height, at most.
            self.least = self.block.header.sequence + (found.outcome is Loaded.PREVIOUS)

    def keep(self, block: Block) -> None:
        """Durable on return."""
        self._file.save(block.encode())
        self.block = block
        self.least = max(self.least, block.header.sequence)


class Publisher:
    """Makes the next block of a chain."""

    def __init__(self, chain: Chain, key: SecretKey, promise: Promise) -> None:
        if key.public != chain.publisher:
            raise ConfigError(
                f"The key of [coin] publish is not that of the publisher of chain {chain.name}."
            )
        self._chain = chain
        self._key = key
        self.promise = promise

    def owed(self, head: Head) -> Block | None:
        """The block that was promised and is to be stored now, before any other."""
        block = self.promise.block
        return block if block is not None and block.header.sequence == head.header.sequence + 1 else None

    def refusal(self, head: Head, unix: float) -> str:
        """Why no block can be made on this head, a sentence; empty if one can."""
        if head.header.sequence < self.promise.least:
            return (
                f"Block {self.promise.least} was signed here and the store ends with {head.header.sequence}; "
                "no block is made until it has caught up."
            )
        if head.header.time > unix + AHEAD:
            return "The last block is hours younger than this machine's clock; set the clock."
        if not max(unix, head.header.time + 1) <= LATEST:
            return "This machine's clock is beyond all times that a block may have; set the clock."
        return ""

    def make(self, head: Head, candidates: Mapping[Transaction, int], unix: float) -> Block | None:
        """The next block, promised and signed; None without transactions. Blocking: it waits for the disk."""
        chosen = choose_transactions(candidates, self._chain.block, self._chain.block_size)
        if not chosen or self.refusal(head, unix):
            return None
        block = new_block(
            head.header,
            chosen,
            time=max(int(unix), head.header.time + 1),
            fee=sum(candidates[each] for each in chosen),
            unspents=head.unspents,
        )
        block = block.with_signature(sign(self._key, block.hash))
        self.promise.keep(block)
        return block
