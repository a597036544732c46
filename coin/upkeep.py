"""Keeps the stored chain whole: looks at all of it, has peers mend blocks, makes indexes again.

An upkeep begins after a stop that was not in order, once a day, and when somebody asks. The look is slow on
purpose: it takes a part of one core, in a thread of its own. Blocks that peers must give keep it in state
`mending` until they are there; then all is looked at again.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from twisted.internet.defer import Deferred
from twisted.logger import Logger

from coin.replication.network import Network
from coin.store.integrity import Report
from coin.store.service import ChainService
from meshnet.errors import StorageError
from meshnet.node.app import Json

State = Literal["unchecked", "checking", "mending", "whole", "damaged"]
EVERY: Final = 86_400.0
_log = Logger()


class Upkeep:
    """Of one store. `state` is `damaged` if something is wrong that it could not mend: `faults` says what.
    `damaged` blocks were found since the start, `repaired` times the indexes were made again."""

    def __init__(self, service: ChainService, network: Network, say: Callable[[str], None]) -> None:
        self.state: State = "unchecked"
        self.checked = 0
        self.looked_at = 0
        self.faults: tuple[str, ...] = ()
        self.damaged = 0
        self.repaired = 0
        self._service = service
        self._network = network
        self._say = say
        self._waiting: list[Deferred[None]] = []
        self._again = False
        network.on_mended = self.begin

    @property
    def mended(self) -> int:
        """Blocks that peers gave again."""
        return self._network.mending.mended

    def begin(self) -> None:
        """Looks at all, unless it does already; then once more."""
        if self.state == "checking":
            self._again = True
            return
        self.state = "checking"
        self.looked_at = 0
        Deferred.fromCoroutine(self._look())

    def settled(self) -> Deferred[None]:
        """Fires when the look that runs now is over."""
        waiting: Deferred[None] = Deferred()
        if self.state == "checking":
            self._waiting.append(waiting)
        else:
            waiting.callback(None)
        return waiting

    async def _look(self) -> None:
        try:
            report = await self._service.check(self._progress)
            if report.faults and not report.damaged:
                report = await self._repair(report)
            self._judge(report)
        except StorageError as error:
            self._fail(str(error))
        except Exception:
            _log.failure("the look at the coin's store failed")
            self._fail("An internal error, see the log.")
        again, self._again = self._again, False
        waiting, self._waiting = self._waiting, []
        for each in waiting:
            each.callback(None)
        if again:
            self.begin()

    async def _repair(self, report: Report) -> Report:
        """Makes the indexes again, and looks once more."""
        self._say(f"The indexes are made again: {report.faults[0]}")
        removed = await self._service.write(self._service.store.repair)
        self.repaired += 1
        if removed:
            self._say(f"{removed} blocks are fetched again.")
            self._network.sync.shortened(self._service.height)
        return await self._service.check(self._progress)

    def _judge(self, report: Report) -> None:
        self.checked, self.faults = report.blocks, report.faults
        if report.damaged:
            self.state = "mending"
            self.damaged += len(report.damaged)
            self._say(f"{len(report.damaged)} blocks are damaged, the first is {report.damaged[0]}.")
            self._network.mend(report.damaged)
        else:
            self.state = "damaged" if report.faults else "whole"

    def _fail(self, why: str) -> None:
        self.state, self.faults = "damaged", (why,)
        self._say(f"The store could not be looked at: {why}")

    def _progress(self, sequence: int) -> None:
        self.looked_at = sequence

    def report(self) -> Json:
        """For people and programs."""
        return {
            "state": self.state,
            "checked": self.looked_at if self.state == "checking" else self.checked,
            "height": self._service.height,
            "waiting": len(self._network.mending.wanted),
            "damaged": self.damaged,
            "mended": self.mended,
            "repaired": self.repaired,
            "faults": list(self.faults),
        }
