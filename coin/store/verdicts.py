"""Who signed what in blocks and loose transactions: found from their bytes alone, as one value to pass on.

    verdict of a block        u16 n ‖ the seal's refusal, n bytes UTF-8 ‖ u32 m ‖ m × verdict of a transaction
    verdict of a transaction  u32 n + 1 ‖ n × address 21; 0 if a signature is wrong

Integers are little-endian. The bytes go between a node and its own processes (`signing.py`), never to others.
"""

from __future__ import annotations

from collections.abc import Iterable
from struct import Struct
from typing import Final

from attrs import frozen

from coin.chain.address import ADDRESS_SIZE, Address
from coin.chain.block import Block
from coin.chain.rules import HardRuleError, Signers, signers
from coin.chain.seal import Seal
from coin.chain.transaction import Transaction

_U16: Final = Struct("<H")
_U32: Final = Struct("<I")


@frozen
class Verdict:
    """What the bytes of a block say: why its seal is refused (empty if it is not) and the `signers` of each
    transaction, None where a signature is wrong."""

    refusal: str
    signed: tuple[Signers | None, ...]


@frozen
class Known:
    """A `Seal` whose answers are known: those of `refusals` by block hash, else `seal` itself is asked."""

    seal: Seal
    refusals: dict[bytes, str]

    def refusal(self, block: Block) -> str:
        """See `Seal`."""
        found = self.refusals.get(block.hash)
        return self.seal.refusal(block) if found is None else found


def signers_or_none(transaction: Transaction) -> Signers | None:
    """The `signers` of a transaction, None if a signature is wrong."""
    try:
        return signers(transaction)
    except HardRuleError:
        return None


def judge(block: Block, seal: Seal) -> Verdict:
    """Checks the seal and all signatures of a block. This is where nearly all time goes."""
    return Verdict(seal.refusal(block), tuple([signers_or_none(each) for each in block.transactions]))


def signature_count(blocks: Iterable[Block]) -> int:
    """How many signatures blocks have, their seals too."""
    return sum(1 + sum(len(each.signatures) for each in block.transactions) for block in blocks)


def pack_signers(found: Signers | None) -> bytes:
    """The bytes of a transaction's verdict."""
    return _U32.pack(0) if found is None else _U32.pack(len(found) + 1) + b"".join(found)


def unpack_signers(data: bytes, at: int) -> tuple[Signers | None, int]:
    """A transaction's verdict at `at`, and where it ends."""
    (count,) = _U32.unpack_from(data, at)
    at += 4
    if count == 0:
        return None, at
    end = at + ADDRESS_SIZE * (count - 1)
    return tuple([Address(data[i : i + ADDRESS_SIZE]) for i in range(at, end, ADDRESS_SIZE)]), end


def pack_verdict(verdict: Verdict) -> bytes:
    """The bytes of a block's verdict."""
    refusal = verdict.refusal.encode()
    parts = [_U16.pack(len(refusal)), refusal, _U32.pack(len(verdict.signed))]
    return b"".join(parts + [pack_signers(each) for each in verdict.signed])


def unpack_verdict(data: bytes, at: int) -> tuple[Verdict, int]:
    """A block's verdict at `at`, and where it ends."""
    (size,) = _U16.unpack_from(data, at)
    refusal = data[at + 2 : at + 2 + size].decode()
    (count,) = _U32.unpack_from(data, at + 2 + size)
    at += 6 + size
    signed = []
    for _ in range(count):
        one, at = unpack_signers(data, at)
        signed.append(one)
    return Verdict(refusal, tuple(signed)), at
