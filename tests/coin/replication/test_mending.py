"""Damaged blocks of a node come from its peers, in virtual time."""

from __future__ import annotations

from coin.replication.messages import AnnounceBlocks, GetBlocks, GiveBlocks, Message
from tests.coin.replication.test_network import Case, Stranger, grow, join


class MendingTests(Case):
    def test_mending(self) -> None:
        """Damaged blocks are asked of one peer at a time: a silent one, one that lies, one that gives them.
        They are given to nobody meanwhile."""
        node, full = self.nodes(2)
        grow(node.books.ledger, 20, self.chain)
        for block in node.books.ledger.blocks[1:]:
            full.books.ledger.add(block)
        for each in (node, full):
            each.network.sync = type(each.network.sync)(20)
        silent, liar = Stranger(node, "10.9.9.8"), Stranger(node, "10.9.9.7")
        wrong = node.books.ledger.blocks[4].with_signature(bytes(65))
        asked: list[tuple[int, int]] = []

        def lie(message: Message) -> None:
            if isinstance(message, GetBlocks):
                asked.append((message.last, message.wanted))
                liar.say(GiveBlocks((wrong,)))

        liar.answer = lie
        silent.say(AnnounceBlocks(20))
        liar.say(AnnounceBlocks(20))
        self.world.run(1)
        done: list[float] = []
        node.network.on_mended = lambda: done.append(self.world.now)
        node.network.mend([9, 4])
        self.world.run(1)
        silent.heard.clear()
        silent.say(GetBlocks(0, 20))
        self.world.run(1)
        given = [each for each in silent.heard if isinstance(each, GiveBlocks)]
        self.assertEqual([block.header.sequence for block in given[0].blocks], [1, 2, 3])
        self.world.run(25)
        self.assertEqual(asked, [(3, 1)])
        self.assertEqual((node.books.restored, done), ([], []))
        join(node, full)
        self.world.run(5)
        self.assertEqual(node.books.restored, [4, 9])
        self.assertEqual((len(done), node.network.mending.mended), (1, 2))
        self.assertIn("10.9.9.7", node.network.conduct._records)
