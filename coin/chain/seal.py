"""Who may make a block: a rule beside all others, so that an agreement of many can take the place of one key.

A seal lies outside the header, so the hash of a block does not depend on who sealed it.
"""

from __future__ import annotations

from typing import Protocol

from attrs import frozen

from coin.chain.block import Block
from coin.chain.signatures import BadSignatureError, recover
from meshnet.cipher.keys import PublicKey


class Seal(Protocol):
    """Says whether a block was made by who may make it."""

    def refusal(self, block: Block) -> str:
        """Why not, in a sentence; empty if it was. Depends on the block's bytes alone."""


@frozen
class PublisherSeal:
    """One key signs the hash of every block."""

    publisher: PublicKey

    def refusal(self, block: Block) -> str:
        """See `Seal`."""
        try:
            signer = recover(block.signature, block.hash)
        except BadSignatureError as error:
            return f"The block's signature is none: {error}."
        return "" if signer == self.publisher else "The block is not signed by the chain's publisher."
