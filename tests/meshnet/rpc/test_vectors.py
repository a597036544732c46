"""Our own vectors, `tests/vectors/rpc.json`: what two sides say, to the byte, and what they agree on."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.hashing import sha256
from meshnet.node import about
from tests.meshnet.rpc.pairs import Pair
from tests.meshnet.rpc.samples import Number, Sums

VECTORS = json.loads((Path(__file__).parents[2] / "vectors" / "rpc.json").read_text())


class VectorTests(SynchronousTestCase):
    """Bytes that must not change without a new version."""

    def setUp(self) -> None:
        self.pair = Pair()
        self.steps = iter(VECTORS["steps"])

    def step(self, name: str) -> None:
        """What both sides have to say now."""
        near, far = self.pair.near, self.pair.far
        there, back = near.output(), far.output()
        far.core.receive(there, 0)
        near.core.receive(back, 0)
        self.assertEqual({"step": name, "there": there.hex(), "back": back.hex()}, next(self.steps))

    def test_conversation(self) -> None:
        """Each kind of frame, in a conversation."""
        near, far = self.pair.near, self.pair.far
        self.step("HELLO")
        near.ask(1, Number(7, b"abc"))
        self.step("BIND and CALL of double(7, abc) within 30 s")
        far.taken[-1].call.answer(Number(14))
        self.step("ANSWER 14")
        near.ask(2, Number(2), 5.0)
        self.step("CALL of count(2) within 5 s")
        far.taken[-1].call.send_item(Number(0))
        far.taken[-1].call.send_item(Number(1))
        far.taken[-1].call.end()
        self.step("ITEM 0, ITEM 1, END")
        total = near.ask(3, Number(1), 1000.0)
        near.core.wire.send_item(total, Number(5))
        self.step("CALL of total(1) within 1,000 s, ITEM 5")
        near.core.outgoing.finish_items(total)
        far.taken[-1].call.fail(300, "Only on Mondays.")
        self.step("END, and at once FAIL 300")
        running = near.ask(4, Number(1))
        self.step("CALL of running(1)")
        near.core.outgoing.cancel(running)
        self.step("CANCEL")
        self.step("FAIL cancelled")
        near.core.close("it is not needed any more")
        self.step("CLOSE")
        self.assertEqual(list(self.steps), [])

    def test_signatures(self) -> None:
        """Of the node's own services, from their texts; and of the samples."""
        services: tuple[Any, ...] = (about.About, about.WallClock, Sums)
        methods = {str(method): method for service in services for method in service.methods.values()}
        self.assertEqual(
            {name: method.signature.hex() for name, method in methods.items()}, VECTORS["signatures"]
        )
        for name, text in VECTORS["schemas"].items():
            self.assertEqual(methods[name].text(), text)
            self.assertEqual(sha256(text.encode())[:8].hex(), VECTORS["signatures"][name])
