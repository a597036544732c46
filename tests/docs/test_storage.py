"""The programs of docs/storage.md run, in their order, and what they assert is true."""

from __future__ import annotations

import os
import tempfile
from typing import Any

from twisted.internet.defer import Deferred
from twisted.internet.selectreactor import SelectReactor
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from tests.docs.pages import blocks, page


def run(make: Any) -> None:
    """Runs `make(reactor)`, an async function, on a reactor of its own; raises what it raises."""
    reactor, failures = SelectReactor(), list[Failure]()

    def begin() -> None:
        done = Deferred.fromCoroutine(make(reactor))
        done.addErrback(failures.append).addBoth(lambda _: reactor.stop())

    reactor.callWhenRunning(begin)
    reactor.run(installSignalHandlers=False)
    for failure in failures:
        failure.raiseException()


class PageTests(SynchronousTestCase):
    def test_programs(self) -> None:
        """Each block, and each async function after the block that defines it."""
        here = os.getcwd()
        os.chdir(self.enterContext(tempfile.TemporaryDirectory()))
        self.addCleanup(os.chdir, here)
        names: dict[str, Any] = {"print": lambda *_: None}
        count = 0
        for number, block in enumerate(blocks(page("docs/storage.md"), "python")):
            exec(compile(block, f"docs/storage.md, program {number}", "exec"), names)
            for name in ("serve", "note"):
                if f"async def {name}(" in block:
                    run(names[name])
                    count += 1
        self.assertEqual(count, 2)
        self.assertGreater(number, 6)
