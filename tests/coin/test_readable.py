"""Blocks and transactions as JSON, against the Go node's answers."""

from __future__ import annotations

import json

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.block import decode_block
from coin.readable import block_json
from tests.support.vectors import vectors


class GoldenTests(SynchronousTestCase):
    def test_blocks(self) -> None:
        """All 181 blocks of the main net as its API shows them; coins with six decimals."""
        lines = vectors("skycoin/blocks-180.jsonl").read_text().splitlines()
        golden = json.loads(vectors("skycoin/api-golden/blocks-all.golden").read_text())["blocks"]
        for line, said in zip(lines, golden, strict=True):
            row = json.loads(line)
            self.assertEqual(block_json(decode_block(bytes.fromhex(row["block"] + row["sig"]))), said)
