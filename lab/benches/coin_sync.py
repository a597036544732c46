"""The row `sync_blocks_per_s` of bench `coin`: a node gets a generated chain from another, over loopback TCP.

Both are whole node processes with durable stores. The clock runs from the start of the process that has
nothing to the moment it has the last block, its start-up taken off (a node that has nothing to get).
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from attrs import evolve

from coin.chain.block import Block
from coin.newchain import chain_file
from coin.service import STORE
from coin.store.signing import Signing
from coin.store.store import open_store
from lab.benches.rows import Options, Row, row_of
from lab.chains import generated, measured_chain
from lab.nodes import Network, Node, Plan, chain, launch
from lab.processes import Processes, free_ports
from meshnet.errors import MeshError, TimedOutError
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import make_directory

BLOCKS = 20_000
RUN = 1_000
PATIENCE = 600.0


def sync(options: Options) -> list[Row]:
    """The row; a quick run has a tenth of the blocks."""
    count = BLOCKS // 10 if options.quick else BLOCKS
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name, Processes() as processes:
        folder = Path(name)
        (folder / "measured.toml").write_text(chain_file(measured_chain()))
        full, empty = _plans(folder)
        fill(full.folder / "data/coin", generated(count))
        network = Network.start(processes, [full])
        samples = [_get(processes, empty, count, number) for number in range(1 if options.quick else 3)]
        del network
    note = f"{count} blocks of 3 transactions of 2 inputs, two processes on {os.cpu_count()} cores, durable"
    return [row_of("sync_blocks_per_s", samples, "1/s", target=250.0, better="higher", note=note)]


def fill(folder: Path, blocks: Iterable[Block]) -> None:
    """Makes a node's store of these blocks."""
    disk, known = RealDisk(), measured_chain()
    make_directory(disk, str(folder))
    store, signing, rest = open_store(disk, str(folder / STORE), known), Signing(known.seal), iter(blocks)
    while run := list(islice(rest, RUN)):
        verdicts = signing.blocks(run)
        added = store.add(run, [each.signed for each in verdicts], [each.refusal for each in verdicts])
        if added.refused is not None:
            raise MeshError(f"a generated block was refused: {added.refused}")
    store.close()
    signing.close()


def _plans(folder: Path) -> list[Plan]:
    """Two nodes without a link: the full one listens for TCP peers, the empty one dials it."""
    (port,) = free_ports(1)
    section: dict[str, Any] = {"chain": str(folder / "measured.toml"), "exchange": False}
    more = {"full": {"listen": [f"127.0.0.1:{port}"]}, "empty": {"peers": [f"127.0.0.1:{port}"]}}
    row = chain(folder, {"full": "user", "empty": "user"})
    return [evolve(plan, peers=(), more={"coin": {**section, **more[plan.name]}}) for plan in row]


def _get(processes: Processes, plan: Plan, count: int, number: int) -> float:
    """Blocks per second of one start with an empty store."""
    it = evolve(plan, folder=plan.folder / str(number))
    it.write()
    node = Node(it, launch(processes, it))
    first = None
    limit = time.monotonic() + PATIENCE
    try:
        while True:
            found = _status(node)
            height, now = int(found.get("height", 0)), time.monotonic()
            if first is None and found:
                first = now
            if height >= count and first is not None:
                return count / (now - first)
            if now > limit:
                raise TimedOutError(f"The node has {height} of {count} blocks after {PATIENCE:g} s.")
            time.sleep(0.05)
    finally:
        node.process.stop()


def _status(node: Node) -> dict[str, Any]:
    try:
        found: dict[str, Any] = node.call("GET", "/apps/coin/status")
    except MeshError:
        return {}
    return found if found.get("running") else {}
