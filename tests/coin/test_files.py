"""Chains out of files and into them, as the command does it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.transaction import Output
from coin.newchain import chain_file
from coin.store.blockfile import write_blocks
from meshnet.cli.main import main
from meshnet.storage.disk import RealDisk
from tests.support.chains import Ledger, owner, small_chain
from tests.support.vectors import vectors


class FileTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder)

    def node(self, name: str, section: str) -> str:
        """The directory of a node with a section [coin]."""
        folder = self.folder / name
        self.run_verb("init", str(folder))
        config = folder / "node.toml"
        config.write_text(f"{config.read_text()}\n[coin]\n{section}\n")
        return str(folder)

    def run_verb(self, *words: str) -> tuple[int, Any]:
        """Exit code and JSON of a command."""
        out = io.StringIO()
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(io.StringIO()):
            code = main([*words, "--json"])
        return code, json.loads(out.getvalue())

    def test_own_chain(self) -> None:
        """A file of blocks goes in, comes out equal, and goes into another node in the Go node's format; a
        damaged one keeps what is good before the damage, another chain's is refused."""
        ledger = Ledger(small_chain())
        for _ in range(5):
            (mine,) = ledger.of(1)
            ledger.add(ledger.block(ledger.pay(1, Output(owner(1), mine.coins, mine.hours // 2))))
        (self.folder / "test.toml").write_text(chain_file(ledger.chain))
        first, second, there = (str(self.folder / name) for name in ("one.blocks", "two.blocks", "go.db"))
        write_blocks(RealDisk(), first, ledger.blocks)
        section = f'chain = "{self.folder / "test.toml"}"'
        one, other = self.node("one", section), self.node("other", section)
        self.assertEqual(
            self.run_verb("coin", "import", first, "--node", one), (0, {"added": 5, "height": 5})
        )
        self.assertEqual(self.run_verb("coin", "export", second, "--node", one)[0], 0)
        self.assertEqual(Path(first).read_bytes(), Path(second).read_bytes())
        self.assertEqual(self.run_verb("coin", "export", "--go", there, "--node", one)[0], 0)
        self.assertEqual(self.run_verb("coin", "import", there, "--node", other)[1]["height"], 5)
        data = Path(first).read_bytes()
        Path(second).write_bytes(data[:-40])
        third = self.node("third", section)
        code, answer = self.run_verb("coin", "import", second, "--node", third)
        self.assertEqual(code, 1)
        self.assertIn("error", answer)
        known = self.node("known", "")
        self.assertNotEqual(self.run_verb("coin", "import", first, "--node", known)[0], 0)

    def test_go_database(self) -> None:
        """The Go node's database of the first 181 blocks of the main net."""
        known = self.node("known", "")
        path = str(vectors("skycoin/db/blockchain-180.db"))
        self.assertEqual(
            self.run_verb("coin", "import", path, "--node", known), (0, {"added": 180, "height": 180})
        )
