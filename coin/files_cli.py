"""The verbs `coin import` and `coin export`: a chain out of a file, a chain into a file.

Both open the store of a node's config themselves, so the node must not run. Files are files of blocks with
checksums (`coin/store/blockfile.py`) or databases of the Go node; which one a file is, it says itself.
"""

from __future__ import annotations

import contextlib
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Iterator
from pathlib import Path

from coin.chain.block import Block
from coin.chain.params import Chain
from coin.service import STORE
from coin.settings import load_chain
from coin.store.blockfile import read_blocks, write_blocks
from coin.store.feed import feed
from coin.store.gofile import read_go_file, write_go_file
from coin.store.signing import Signing
from coin.store.store import ChainStore, open_store
from meshnet.cli.files import load_settings
from meshnet.cli.show import print_json, progress, progress_done
from meshnet.errors import UsageError
from meshnet.node.app import Json
from meshnet.node.dropins import find_dropins
from meshnet.storage.disk import Disk, LockedError, RealDisk
from meshnet.storage.quarantine import Quarantine

Call = Callable[[str, str, Json | None], Json]


def import_arguments(parser: ArgumentParser) -> None:
    """`coin import`."""
    parser.add_argument("file", metavar="FILE", help="a file of blocks, or a database of the Go node")


def export_arguments(parser: ArgumentParser) -> None:
    """`coin export`."""
    parser.add_argument("file", metavar="FILE", help="where to; what is there is replaced")
    parser.add_argument("--go", action="store_true", help="write a database of the Go node")


@contextlib.contextmanager
def _store(arguments: Namespace, disk: Disk) -> Iterator[tuple[Chain, ChainStore]]:
    """The store of a node that does not run; raises UsageError, StorageError."""
    section = load_settings(arguments.node, find_dropins()).apps["coin"].coin
    if section is None:
        raise UsageError("The node's config has no section [coin]; write one, with the chain.")
    chain = load_chain(disk, section.chain)
    quarantine = Quarantine(disk, str(section.data / "quarantine"), time.time)
    try:
        store = open_store(disk, str(section.data / STORE), chain, quarantine=quarantine)
    except LockedError:
        raise UsageError("The node runs: stop it first (meshnet stop), or take another --node.") from None
    try:
        yield chain, store
    finally:
        store.close()


def import_blocks(arguments: Namespace, call: Call) -> int:
    """Adds what the file has and the store has not, with all checks."""
    disk, path = RealDisk(), str(Path(arguments.file).expanduser())
    with _store(arguments, disk) as (chain, store), contextlib.closing(Signing(chain.seal)) as signing:
        added = feed(store, signing, _blocks(disk, path), lambda height: progress(f"block {height}"))
        height = store.head.header.sequence
    progress_done()
    if arguments.json:
        print_json({"added": added, "height": height})
    else:
        print(f"{added} blocks added; the last is {height}")
    return 0


def _blocks(disk: Disk, path: str) -> Iterator[Block]:
    with contextlib.closing(disk.open(path)) as file:
        head = file.pread(24, 0)
    # A bolt file has its magic number behind a page's head.
    return (
        read_go_file(disk, path).blocks() if head[16:20] == b"\xed\xda\x0c\xed" else read_blocks(disk, path)
    )


def export_blocks(arguments: Namespace, call: Call) -> int:
    """Writes the whole chain."""
    disk, path = RealDisk(), str(Path(arguments.file).expanduser())
    with _store(arguments, disk) as (_, store):
        height = store.head.header.sequence
        if arguments.go:
            write_go_file(disk, path, store)
        else:
            write_blocks(disk, path, _stored(store))
    if arguments.json:
        print_json({"height": height, "file": path})
    else:
        print(f"{height + 1} blocks are in {path}")
    return 0


def _stored(store: ChainStore) -> Iterator[Block]:
    for sequence in range(store.head.header.sequence + 1):
        block = store.block(sequence)
        assert block is not None
        yield block
