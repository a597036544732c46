"""Signatures checked in other processes: the same verdicts, whatever becomes of the processes."""

from __future__ import annotations

import os
import signal
from io import BytesIO
from typing import Any

from twisted.internet import reactor  # noqa: TID251  (only its thread pool)
from twisted.internet.defer import Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase, TestCase

from coin.chain.block import Block
from coin.chain.seal import PublisherSeal
from coin.chain.transaction import Output, Transaction
from coin.store import signing as module
from coin.store.service import ChainService
from coin.store.signer import BLOCKS, SIZE, answer, read_frame
from coin.store.signing import Signing
from coin.store.store import open_store
from coin.store.verdicts import Verdict, judge, pack_verdict, unpack_verdict
from meshnet.errors import StorageError
from meshnet.storage.disk import RealDisk
from tests.support.chains import Ledger, key, owner, small_chain

CHAIN = small_chain(1_000_000_000)


def some_blocks(count: int) -> list[Block]:
    """Blocks of a small chain, of a few outputs each."""
    ledger = Ledger(CHAIN)
    for _ in range(count):
        shares = [Output(owner(1), 1_000_000 * (1 + i), 0) for i in range(3)]
        left = 1_000_000_000 - sum(each.coins for each in shares)
        ledger.add(ledger.block(ledger.pay(1, *shares, Output(owner(1), left, 0))))
    return ledger.blocks[1:]


def spoilt(block: Block) -> Block:
    """The block with a signature of its transaction wrong."""
    first, *_ = block.transactions
    signatures = (*first.signatures[:-1], bytes(64) + b"\x07")
    bad = Transaction(first.length, 0, first.inner, signatures, first.inputs, first.outputs)
    return Block(block.header, (bad,), block.signature)


class Processes(SynchronousTestCase):
    blocks = some_blocks(30)

    def signing(self, processes: int) -> Signing:
        """Ended with the test."""
        made = Signing(CHAIN.seal, processes)
        self.addCleanup(made.close)
        return made

    def test_the_same_as_here(self) -> None:
        """Two processes say of blocks and transactions what this one does, also of wrong ones."""
        blocks = [*self.blocks[:10], spoilt(self.blocks[10]), *self.blocks[11:]]
        blocks[5] = blocks[5].with_signature(blocks[6].signature)
        expected = [judge(each, CHAIN.seal) for each in blocks]
        self.assertTrue(expected[5].refusal)
        self.assertEqual(expected[10].signed, (None,))
        signing = self.signing(2)
        self.assertEqual(signing.blocks(blocks), expected)
        self.assertEqual(signing.running, 2)
        loose = [each for block in blocks for each in block.transactions]
        self.assertEqual(signing.transactions(loose), [each.signed[0] for each in expected])
        signing.close()
        self.assertEqual(signing.running, 0)
        self.assertEqual(signing.blocks(blocks), expected, "after its end, here")

    def test_a_large_block(self) -> None:
        """It is cut by transactions, between small ones; verdicts keep their order, also of wrong ones."""
        many = tuple(each for block in self.blocks for each in block.transactions) * 5
        bad = spoilt(self.blocks[3]).transactions
        large = Block(self.blocks[0].header, (*many, *bad, *many), self.blocks[0].signature)
        blocks = [self.blocks[1], large, self.blocks[2], large.with_signature(bytes(65))]
        signing = self.signing(2)
        self.assertEqual(signing.blocks(blocks), [judge(each, CHAIN.seal) for each in blocks])
        self.assertEqual(signing.running, 2)

    def test_few_are_checked_here(self) -> None:
        """No process is started for a block now and then."""
        signing = self.signing(2)
        self.assertEqual(len(signing.blocks(self.blocks[:2])), 2)
        self.assertEqual(signing.running, 0)

    def test_a_process_dies(self) -> None:
        """Its share is checked here; another takes its place, a few times."""
        expected = [judge(each, CHAIN.seal) for each in self.blocks]
        signing = self.signing(1)
        for _ in range(module.DEATHS):
            self.assertEqual(signing.blocks(self.blocks), expected)
            (process,) = signing._processes
            assert process._running is not None
            os.kill(process._running.pid, signal.SIGKILL)
            process._running.wait()
            self.assertEqual(signing.blocks(self.blocks), expected)
        self.assertEqual(signing.blocks(self.blocks), expected)
        self.assertEqual(signing.running, 0)

    def test_it_cannot_be_started(self) -> None:
        """Then all is checked here."""
        self.patch(module.sys, "executable", "/nowhere/python")
        signing = self.signing(2)
        self.assertEqual(signing.blocks(self.blocks), [judge(each, CHAIN.seal) for each in self.blocks])

    def test_another_seal(self) -> None:
        """A seal that a process does not know is asked here."""

        class Anybody:
            def refusal(self, block: Block) -> str:
                """See `Seal`."""
                return "no" if block.header.sequence == 3 else ""

        signing = Signing(Anybody(), 2)
        found = signing.blocks(self.blocks)
        self.assertEqual([each.refusal for each in found[:4]], ["", "", "no", ""])
        self.assertEqual(signing.running, 0)


class Frames(SynchronousTestCase):
    def test_verdicts_round(self) -> None:
        """Bytes and back, refused and wrong ones too."""
        verdicts = [Verdict("", ((), None, (owner(1), owner(2)))), Verdict("Because é.", ())]
        data = b"".join(map(pack_verdict, verdicts))
        first, at = unpack_verdict(data, 0)
        self.assertEqual([first, unpack_verdict(data, at)[0]], verdicts)

    def test_cut_off(self) -> None:
        """A question that is cut off ends a process like the end of all."""
        data = SIZE.pack(5) + b"1234"
        self.assertIsNone(read_frame(BytesIO(data)))
        self.assertIsNone(read_frame(BytesIO(data[:3])))
        self.assertEqual(read_frame(BytesIO(data + b"5")), b"12345")

    def test_answer(self) -> None:
        """What a process does, in this one."""
        block = some_blocks(1)[0]
        raw = block.encode()
        data = answer(bytes((BLOCKS,)) + SIZE.pack(len(raw)) + raw, PublisherSeal(key(0).public))
        self.assertEqual(unpack_verdict(data, 0)[0], judge(block, CHAIN.seal))


class Service(TestCase):
    def setUp(self) -> None:
        store = open_store(RealDisk(), self.mktemp() + "/chain.db", CHAIN)
        self.service = ChainService(reactor, store, Signing(CHAIN.seal, 2))  # type: ignore[arg-type]
        self.addCleanup(lambda: Deferred.fromCoroutine(self.service.close()))

    async def test_runs_in_order(self) -> None:
        """Runs that are given at once are added one behind the other, and a wrong block ends its run."""
        blocks = Processes.blocks
        runs: list[Any] = [self.service.add(blocks[start : start + 10]) for start in range(0, 30, 10)]
        added = await gatherResults(runs)
        self.assertEqual([len(each.applied) for each in added], [10, 10, 10])
        self.assertEqual(self.service.height, 30)
        again = await self.service.add([spoilt(blocks[0])])
        self.assertIsNotNone(again.refused)

    async def test_a_wrong_signature(self) -> None:
        """The rule is named as if it had been checked here, and those before stay."""
        blocks = Processes.blocks
        added = await self.service.add([*blocks[:12], blocks[12].with_signature(bytes(65)), blocks[13]])
        assert added.refused is not None
        self.assertEqual((len(added.applied), added.refused.rule), (12, "seal"))

    async def test_inject(self) -> None:
        """Loose transactions come into the pool."""
        it = Processes.blocks[0].transactions[0]
        (taken,) = await self.service.inject([it], 1.0)
        self.assertEqual((taken.id, taken.new), (it.id, True))
        self.assertEqual(await self.service.read(self.service.store.pool.valid), [it.id])
        await self.service.write(self.service.store.pool.announced, [it.id], 2.0)
        loose = await self.service.read(self.service.store.pool.get, it.id)
        assert loose is not None
        self.assertEqual(loose.announced, 2 * 10**9)

    async def test_too_many_runs(self) -> None:
        """What waits is bounded."""
        runs = [self.service.add([each]) for each in Processes.blocks[:8]]
        late = self.service.add(Processes.blocks[8:9])
        await self.assertFailure(late, StorageError)
        await gatherResults(runs)
        self.assertEqual(self.service.height, 8)
