"""The verbs of wallets at a desk of their own: a store instead of a node, text instead of a terminal."""

from __future__ import annotations

import io
import json
import sys
from argparse import ArgumentParser
from collections.abc import Callable, Sequence
from typing import Any
from unittest.mock import patch

from attrs import define, field
from twisted.internet.defer import Deferred, succeed

from coin.holdings import Holdings
from coin.questions import Questions
from coin.store.store import ChainStore
from meshnet.node.app import Verb


class Books:
    """A store that answers at once, as `StoreBooks` does in a thread."""

    def __init__(self, store: ChainStore) -> None:
        self.store = store
        self.pool = store.pool

    def read(self, work: Callable[..., Any], *args: Any) -> Deferred[Any]:
        """The answer."""
        return succeed(work(*args))


@define(slots=False)
class Desk:
    """Runs verbs. `store` answers their questions; `sent` are the transactions that the node was given."""

    verbs: Sequence[Verb]
    store: ChainStore | None = None
    burn: int = 10
    sent: list[str] = field(factory=list)

    def call(self, method: str, route: str, body: Any = None) -> Any:
        """What the routes of a node would answer."""
        name = route.rpartition("/")[2]
        if name == "status":
            return {"burn": self.burn, "height": self.store.head.header.sequence if self.store else 0}
        if name == "transaction":
            self.sent.append(body["raw"])
            return {"txid": "ab" * 32, "new": True, "valid": True, "why": ""}
        assert self.store is not None, f"{route} was asked"
        texts = {key: str(value) for key, value in body.items()}
        answers: list[Any] = []
        books: Any = Books(self.store)
        nobody: Any = None
        who: Any = Questions(self.store.chain, books, nobody) if name == "blocks" else Holdings(books)
        getattr(who, name)(texts).addCallback(answers.append)
        return json.loads(json.dumps(answers[0]))

    def run(self, name: str, *arguments: str, typed: str = "") -> str:
        """What a verb prints; raises what it raises, AssertionError if it fails otherwise."""
        parser = ArgumentParser(exit_on_error=False)
        verb = next(each for each in self.verbs if each.name == name)
        verb.arguments(parser)
        parser.add_argument("--json", action="store_true")
        out = io.StringIO()
        with patch.object(sys, "stdin", io.StringIO(typed)), patch.object(sys, "stdout", out):
            code = verb.run(parser.parse_args(arguments), self.call)
        assert code == 0, f"{name} returned {code}: {out.getvalue()}"
        return out.getvalue()

    def json(self, name: str, *arguments: str, typed: str = "") -> Any:
        """The same with --json, read."""
        return json.loads(self.run(name, *arguments, "--json", typed=typed))
