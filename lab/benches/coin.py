"""Bench `coin`: blocks with all checks into a durable store, signatures in processes, one large block.

`replay_blocks_per_s` begins with bytes and ends when the blocks are durable: cut, signatures (in processes
that run already, as in a node that catches up), rules, indexes, commit. The real blocks are vectors that lie
beside the project; without them as many generated ones take their place, and the note says so.
"""

from __future__ import annotations

import gc
import json
import os
import tempfile
import time
from pathlib import Path

from coin.chain.block import Block, decode_block
from coin.chain.params import Chain
from coin.chain.signatures import recover
from coin.chain.skycoin import SKYCOIN
from coin.store.signing import Signing
from coin.store.store import ChainStore, open_store
from coin.store.verdicts import judge, signature_count
from lab.benches.coin_sync import sync
from lab.benches.rows import Options, Row, row_of
from lab.benches.storage import file_system
from lab.chains import generated, measured_chain, wide_chain
from meshnet.errors import MeshError
from meshnet.storage.disk import RealDisk

REAL = Path(__file__).parents[2].parent / "shared" / "vectors" / "skycoin" / "blocks-180.jsonl"
OUTPUTS = 200_000
PROCESSES = 2


def run(options: Options) -> list[Row]:
    """All rows of this bench."""
    samples = 2 if options.quick else 9
    return [
        _replay(samples),
        *_signatures(samples),
        *sync(options),
        _commit(5_000 if options.quick else OUTPUTS, 2 if options.quick else 15),
    ]


def _real() -> tuple[Chain, list[bytes], str]:
    """The blocks to replay, as bytes, with their first one."""
    if REAL.exists():
        rows = [json.loads(line) for line in REAL.read_text().splitlines()]
        return SKYCOIN, [bytes.fromhex(row["block"] + row["sig"]) for row in rows], "real"
    chain = measured_chain()
    return chain, [each.encode() for each in (chain.genesis, *generated(180, 1, 1))], "generated"


def _replay(samples: int) -> Row:
    chain, raw, kind = _real()
    found = []
    with (
        tempfile.TemporaryDirectory(prefix="meshnet-") as folder,
    ):
        signing = Signing(chain.seal, PROCESSES)
        signing.blocks([decode_block(each) for each in raw[1:]])
        for number in range(samples):
            store = open_store(RealDisk(), f"{folder}/{number}.db", chain)
            gc.collect()
            begun = time.perf_counter()
            _take(store, signing, [decode_block(each) for each in raw[1:]])
            found.append(len(raw) / (time.perf_counter() - begun))
            store.close()
        signing.close()
        system = file_system(folder)
    note = f"{len(raw)} {kind} blocks, one commit on {system}, {PROCESSES} signing processes"
    return row_of("replay_blocks_per_s", found, "1/s", target=2_500.0, better="higher", note=note)


def _take(store: ChainStore, signing: Signing, blocks: list[Block]) -> None:
    verdicts = signing.blocks(blocks)
    added = store.add(blocks, [each.signed for each in verdicts], [each.refusal for each in verdicts])
    if added.refused is not None:
        raise MeshError(f"a block was refused: {added.refused}")


def _signatures(samples: int) -> list[Row]:
    """Signatures per second: of blocks from their bytes on one core over bare recoveries of the same; in two
    processes over one."""
    chain = measured_chain()
    raw = [each.encode() for each in generated(40, 10, 2)]
    blocks = [decode_block(each) for each in raw]
    count = signature_count(blocks)
    pairs = [(block.signature, block.hash) for block in blocks]
    for block in blocks:
        for it in block.transactions:
            pairs += [(signature, it.digest(i)) for i, signature in enumerate(it.signatures)]
    ratios = []
    for _ in range(samples):
        begun = time.process_time()
        for signature, digest in pairs:
            recover(signature, digest)
        bare = time.process_time() - begun
        begun = time.process_time()
        for data in raw:
            judge(decode_block(data), chain.seal)
        ratios.append(bare / (time.process_time() - begun))
    times: dict[int, list[float]] = {1: [], 2: []}
    pools = {number: Signing(chain.seal, number) for number in times}
    for pool in pools.values():
        pool.blocks(blocks)
    for _ in range(samples):
        for number, pool in pools.items():
            begun = time.perf_counter()
            pool.blocks(blocks)
            times[number].append(time.perf_counter() - begun)
    for pool in pools.values():
        pool.close()
    gains = [one / two for one, two in zip(times[1], times[2], strict=True)]
    shape = f"{count} signatures of {len(blocks)} blocks"
    return [
        row_of(
            "verify_vs_recover_ratio", ratios, "", target=0.8, better="higher", note=f"{shape}, from bytes"
        ),
        row_of(
            "verify_2proc_ratio",
            gains,
            "",
            target=1.7,
            better="higher",
            note=f"{shape}, through pipes; {os.cpu_count()} cores",
        ),
    ]


def _commit(outputs: int, samples: int) -> Row:
    """One block of 100 transactions at a time, as it comes from a peer: signatures, rules, commit. The first
    few start the processes and do not count."""
    blocks, maker = wide_chain(outputs)
    chain = measured_chain()
    found = []
    with tempfile.TemporaryDirectory(prefix="meshnet-") as folder:
        store, signing = open_store(RealDisk(), f"{folder}/chain.db", chain), Signing(chain.seal, PROCESSES)
        _take(store, signing, blocks)
        for _ in range(samples + PROCESSES):
            data = maker.block(*(maker.pay(2, 2) for _ in range(100))).encode()
            gc.collect()
            begun = time.perf_counter()
            _take(store, signing, [decode_block(data)])
            found.append((time.perf_counter() - begun) * 1e3)
        unspent = store.unspent_count()
        store.close()
        signing.close()
        system = file_system(folder)
    note = f"100 transactions of 2 inputs, signatures too, {unspent} unspent outputs, on {system}"
    return row_of("block_commit_ms", found[PROCESSES:], "ms", target=40.0, note=note)
