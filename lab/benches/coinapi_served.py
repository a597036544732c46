"""A process for bench `coinapi`: the REST API over a store, without a mesh, on one core.

    python -m lab.benches.coinapi_served FOLDER

FOLDER has `chain.db`, and `wallets` to pay from. It writes its port to `FOLDER/port` when it listens. On the
UNIX socket `FOLDER/blocks` it takes blocks, a line of hex each, and answers each with the monotonic time at
which it was committed, taken in the thread that did it.
"""

from __future__ import annotations

import os
import random
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from twisted.internet import reactor
from twisted.internet.defer import Deferred
from twisted.internet.protocol import Factory
from twisted.protocols.basic import LineOnlyReceiver

from coin.api.service import Api, Parts
from coin.api.settings import ApiSection
from coin.chain.block import decode_block
from coin.replication.addresses import Addresses
from coin.replication.introduction import Ourselves
from coin.replication.network import Network
from coin.replication.store_books import StoreBooks
from coin.store.service import ChainService
from coin.store.signing import Signing
from coin.store.store import open_store
from lab.chains import measured_chain
from meshnet.node.clock import NodeClock
from meshnet.storage.disk import RealDisk


class Blocks(LineOnlyReceiver):
    """Takes blocks."""

    MAX_LENGTH = 1 << 24
    delimiter = b"\n"
    factory: Any

    def lineReceived(self, line: bytes) -> None:
        """One block; answered when it is committed."""
        self.factory.service.add([decode_block(bytes.fromhex(line.decode()))]).addCallback(self._added)

    def _added(self, added: Any) -> None:
        assert added.refused is None, added.refused
        self.sendLine(b"%.9f" % self.factory.committed)


def main(folder: Path) -> None:
    """Serves until it is killed."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    chain, disk = measured_chain(), RealDisk()
    store = open_store(disk, str(folder / "chain.db"), chain)
    clock = NodeClock(reactor, time.monotonic, time.time)
    service = ChainService(reactor, store, Signing(chain.seal, 0))  # type: ignore[arg-type]
    factory: Any = Factory.forProtocol(Blocks)
    factory.service, factory.committed = service, 0.0
    add = store.add

    def timed(*arguments: Any) -> Any:
        added = add(*arguments)
        factory.committed = time.monotonic()
        return added

    store.add = timed  # type: ignore[assignment,method-assign]
    books = StoreBooks(service, clock.now, clock.unix)
    network = Network(Ourselves(chain, 1), books, Addresses([], random.randrange), clock.now())
    peers: Any = SimpleNamespace(dialling=())
    section = ApiSection(
        ("127.0.0.1", 0),
        ("READ", "WALLET"),
        csrf=False,
        header_check=False,
        keys="none",
        wallets=folder / "wallets",
    )
    api = Api(reactor, clock, disk, section, Parts(chain, books, network, peers, False, folder))
    listening: Any = reactor

    async def begin() -> None:
        await api.open()
        api.start()
        listening.listenUNIX(str(folder / "blocks"), factory)
        (folder / "port.new").write_text(str(api.port))
        (folder / "port.new").rename(folder / "port")

    listening.callWhenRunning(lambda: Deferred.fromCoroutine(begin()))
    listening.run()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
