"""A process that checks signatures for a node: `python -m coin.store.signer PUBLISHER`.

It reads questions from its standard input and writes answers to its standard output until the input ends,
which it does when the node ends, however that ends. It opens nothing and keeps nothing.

    question  u32 size of the rest ‖ u8 kind ‖ pieces, each u32 size ‖ bytes
              kind 0: signed blocks; 1: transactions
    answer    u32 size of the rest ‖ the verdict of each piece (`verdicts.py`)

Integers are little-endian. `PUBLISHER` is the public key whose seal blocks have, in hex.
"""

from __future__ import annotations

import sys
from struct import Struct
from typing import BinaryIO, Final

from coin.chain.block import decode_block
from coin.chain.seal import PublisherSeal, Seal
from coin.chain.transaction import decode_transaction
from coin.store.verdicts import judge, pack_signers, pack_verdict, signers_or_none
from meshnet.cipher.keys import parse_public_key

SIZE: Final = Struct("<I")
BLOCKS: Final = 0
TRANSACTIONS: Final = 1


def read_frame(file: BinaryIO) -> bytes | None:
    """The next question or answer; None at the end, or if it is cut off."""
    head = file.read(4)
    if len(head) < 4:
        return None
    (size,) = SIZE.unpack(head)
    data = file.read(size)
    return data if len(data) == size else None


def answer(question: bytes, seal: Seal) -> bytes:
    """What is written for a question."""
    kind, at, parts = question[0], 1, []
    while at < len(question):
        (size,) = SIZE.unpack_from(question, at)
        piece = question[at + 4 : at + 4 + size]
        at += 4 + size
        if kind == BLOCKS:
            parts.append(pack_verdict(judge(decode_block(piece), seal)))
        else:
            parts.append(pack_signers(signers_or_none(decode_transaction(piece))))
    return b"".join(parts)


def main(publisher: str) -> None:
    """Answers until the questions end."""
    seal = PublisherSeal(parse_public_key(publisher))
    questions, answers = sys.stdin.buffer, sys.stdout.buffer
    while (question := read_frame(questions)) is not None:
        data = answer(question, seal)
        answers.write(SIZE.pack(len(data)) + data)
        answers.flush()


if __name__ == "__main__":
    main(sys.argv[1])
