"""Signature checks in processes of their own, so that they use all cores and hold up nobody.

Threads would not do: most of a check is outside Python's lock, but what is inside makes two of them hardly
faster than one. A process is started when there is much to check for the first time, gets raw bytes through
a pipe, and ends with its input. A large block is cut between transactions, so that all processes work on it.
Few signatures are checked where they are asked for. If a process cannot be started or dies, its share is
checked here, and after a few deaths no more are started: slower, never wrong.

`Signing` blocks and may be called by several threads; `service.py` calls it off the reactor's.
"""

from __future__ import annotations

import contextlib
import os
import queue
import struct
import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import BinaryIO, Final, TypeVar, cast

from coin.chain.block import Block
from coin.chain.rules import Signers
from coin.chain.seal import PublisherSeal, Seal
from coin.chain.transaction import Transaction
from coin.store.signer import BLOCKS, SIZE, TRANSACTIONS, read_frame
from coin.store.verdicts import (
    Verdict,
    judge,
    signature_count,
    signers_or_none,
    unpack_signers,
    unpack_verdict,
)  # fmt: skip
from meshnet.limits import COIN_SIGNERS

FEW: Final = 32
"""Signatures that are not worth a process."""
SHARE: Final = 64
"""Signatures that a process is given at a time, about 3 ms of work."""
DEATHS: Final = 3
_END_SECONDS: Final = 2.0

T = TypeVar("T")
U = TypeVar("U")
Unpack = Callable[[bytes, int], tuple[U, int]]


class Signing:
    """Checks signatures of a chain sealed by `seal`, with at most `processes` processes (default: one for
    each core, up to `COIN_SIGNERS`; 0: none)."""

    def __init__(self, seal: Seal, processes: int | None = None) -> None:
        self._seal = seal
        count = min(COIN_SIGNERS, os.cpu_count() or 1) if processes is None else processes
        publisher = seal.publisher.hex() if isinstance(seal, PublisherSeal) else ""
        self._count = count if publisher and sys.executable else 0
        self._free: queue.SimpleQueue[_Process] = queue.SimpleQueue()
        self._processes = [_Process(publisher) for _ in range(self._count)]
        for each in self._processes:
            self._free.put(each)
        self._threads: ThreadPoolExecutor | None = None

    @property
    def running(self) -> int:
        """How many processes are alive."""
        return sum(each.alive for each in self._processes)

    def blocks(self, blocks: Sequence[Block]) -> list[Verdict]:
        """The verdict on each block."""
        if signature_count(blocks) <= FEW or not self._count:
            return [judge(each, self._seal) for each in blocks]
        size = self._size(signature_count(blocks))
        answers: list[Callable[[], list[Verdict]]] = []
        for share in _shares(blocks, _weight, size):
            if len(share) == 1 and _weight(share[0]) > size:
                answers.append(self._cut(share[0], size))
            else:
                answers.append(self._pool().submit(self._whole, share).result)
        return [verdict for answer in answers for verdict in answer()]

    def _whole(self, share: Sequence[Block]) -> list[Verdict]:
        found = self._ask(BLOCKS, [each.encode() for each in share], unpack_verdict)
        return found or [judge(each, self._seal) for each in share]

    def _cut(self, block: Block, size: int) -> Callable[[], list[Verdict]]:
        """Shares out the transactions of a large block; the seal is checked here meanwhile."""
        parts = [
            self._pool().submit(self._loose, share)
            for share in _shares(block.transactions, _signatures, size)
        ]

        def verdict() -> list[Verdict]:
            refusal = self._seal.refusal(block)
            return [Verdict(refusal, tuple([one for part in parts for one in part.result()]))]

        return verdict

    def transactions(self, transactions: Sequence[Transaction]) -> list[Signers | None]:
        """The signers of each transaction, None where a signature is wrong."""
        total = sum(_signatures(each) for each in transactions)
        if total <= FEW or not self._count:
            return [signers_or_none(each) for each in transactions]
        shares = list(_shares(transactions, _signatures, self._size(total)))
        return [found for part in self._pool().map(self._loose, shares) for found in part]

    def _loose(self, share: Sequence[Transaction]) -> list[Signers | None]:
        found = self._ask(TRANSACTIONS, [each.raw for each in share], unpack_signers)
        return found or [signers_or_none(each) for each in share]

    def _size(self, total: int) -> int:
        """Signatures of one share: about `SHARE`, so that all processes get as many shares."""
        rounds = -(-total // (SHARE * self._count))
        return -(-total // (rounds * self._count))

    def close(self) -> None:
        """Ends the processes. What is asked from now on is checked here."""
        self._count = 0
        for each in self._processes:
            each.end()
        if self._threads is not None:
            self._threads.shutdown()
        for each in self._processes:
            each.stop()

    def _pool(self) -> ThreadPoolExecutor:
        if self._threads is None:
            self._threads = ThreadPoolExecutor(len(self._processes), "coin-signing")
        return self._threads

    def _ask(self, kind: int, pieces: Sequence[bytes], unpack: Unpack[U]) -> list[U] | None:
        """A process's answer for each piece; None if there is none. Waits until a process is free."""
        parts = [bytes((kind,))]
        for piece in pieces:
            parts += (SIZE.pack(len(piece)), piece)
        process = self._free.get()
        try:
            data = process.ask(b"".join(parts))
        finally:
            self._free.put(process)
        if data is None:
            return None
        found, at = [], 0
        with contextlib.suppress(struct.error):
            for _ in pieces:
                one, at = unpack(data, at)
                found.append(one)
        return found if len(found) == len(pieces) and at == len(data) else None


class _Process:
    """One process and its pipes; one thread at a time asks it."""

    def __init__(self, publisher: str) -> None:
        self._publisher = publisher
        self._running: subprocess.Popen[bytes] | None = None
        self._deaths = 0
        self._ended = False

    @property
    def alive(self) -> bool:
        """Whether it runs."""
        return self._running is not None and self._running.poll() is None

    def ask(self, question: bytes) -> bytes | None:
        """The answer; None if the process cannot be started, or died."""
        try:
            running = self._start()
            if running is None:
                return None
            questions, answers = cast(BinaryIO, running.stdin), cast(BinaryIO, running.stdout)
            questions.write(SIZE.pack(len(question)) + question)
            questions.flush()
            answer = read_frame(answers)
        except (OSError, ValueError):
            answer = None
        if answer is None:
            self._deaths += 1
            self.stop()
        return answer

    def end(self) -> None:
        """Ends it for good."""
        self._ended = True
        if self._running is not None:
            self._running.terminate()

    def _start(self) -> subprocess.Popen[bytes] | None:
        if self._running is None and self._deaths < DEATHS and not self._ended:
            path = os.pathsep.join(each for each in sys.path if each)
            # A session of its own: Ctrl-C at a terminal is the node's affair, which ends this by its input.
            self._running = subprocess.Popen(  # noqa: S603  (our own program and module)
                [sys.executable, "-m", "coin.store.signer", self._publisher],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                env={**os.environ, "PYTHONPATH": path},
                start_new_session=True,
            )
        return self._running

    def stop(self) -> None:
        """Ends it now, and waits for its end."""
        running, self._running = self._running, None
        if running is not None:
            running.kill()
            for pipe in (running.stdin, running.stdout):
                with contextlib.suppress(OSError):
                    cast(BinaryIO, pipe).close()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(_END_SECONDS)


def _weight(block: Block) -> int:
    return signature_count([block])


def _signatures(transaction: Transaction) -> int:
    return len(transaction.signatures)


def _shares(pieces: Sequence[T], weight: Callable[[T], int], size: int) -> Iterator[Sequence[T]]:
    """Cuts pieces, in order, into shares of about `size` signatures; a piece of more is a share alone."""
    start = total = 0
    for index, piece in enumerate(pieces):
        more = weight(piece)
        if more > size and start < index:
            yield pieces[start:index]
            start, total = index, 0
        total += more
        if total >= size:
            yield pieces[start : index + 1]
            start, total = index + 1, 0
    if start < len(pieces):
        yield pieces[start:]
