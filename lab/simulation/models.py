"""What a file system orders and what it does not: the models of a simulated disk.

A program's operations become effects (`medium.py`). A model says two things of them: which effects must have
reached the medium before another one can (`needs`), and which ones a sync makes durable. A state after a
power cut is then any set of effects that contains what was synced and, with each effect, those it needs.

`STRICT` is what POSIX leaves open, and the default of ALICE (Pillai et al., "All File Systems Are Not Created
Equal", OSDI 2014): who is right there is right everywhere. The others are what Linux does with default mount
options. They allow fewer states, and are there to tell whether a loss found under `STRICT` can be met in
practice; some have faults that only a journal makes possible (an empty file under its new name).
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from attrs import evolve, frozen

Reach = Literal["own", "touched", "all"]
"""What a file's fsync makes durable of the names: none of them; all up to the last one that concerns the
file; all so far."""


@frozen
class Model:
    """One file system. `sector` in bytes is the unit in which bytes reach the medium whole.

    `torn` cuts each unit once more, at a place inside it. `atomic_rename`: the new name and the end of the
    old one are one effect. `names_in_order`: names and cuts (ftruncate) reach the medium in the order in
    which they were made. `data_before_size`: a file grows only when the bytes that this shows are there.
    `pages`: what a later write put into a page comes with what earlier ones put there. `rename_flushes`: a
    rename over a file carries the bytes of the new one. `garbage`: where a file has grown and its bytes did
    not come, there may be anything, not only zeros. `reach`: see `Reach`. `own_name`: an fsync carries the
    names of its file without those made before.
    """

    name: str
    sector: int = 512
    torn: bool = False
    atomic_rename: bool = False
    names_in_order: bool = False
    data_before_size: bool = False
    pages: bool = False
    rename_flushes: bool = False
    garbage: bool = False
    reach: Reach = "own"
    own_name: bool = False

    def with_sector(self, sector: int, *, torn: bool = False) -> Model:
        """The same with units of `sector` bytes."""
        return evolve(self, sector=sector, torn=torn)

    def __str__(self) -> str:
        return f"{self.name}, sectors of {self.sector}{', torn' if self.torn else ''}"


STRICT = Model("strict", garbage=True)
"""Nothing is ordered but by a sync, and a sync carries only what it is asked to.

Each 512 bytes of a write come alone; the size comes apart from them, and what it shows meanwhile may be
anything; a rename is two things, of which the new name replaces an older one at once; the fsync of a file
does not carry its name, that of a directory no bytes. Source: POSIX.1-2017 fsync(), ALICE's default model.
"""

EXT4 = Model(
    "ext4",
    sector=4096,
    atomic_rename=True,
    names_in_order=True,
    data_before_size=True,
    pages=True,
    rename_flushes=True,
    reach="all",
)
"""ext4 with data=ordered, delayed allocation and auto_da_alloc, as it is mounted by default.

Names and cuts go through one journal: they come in order, a rename is one of them, and any fsync commits all
of them. Bytes are allocated late, so a name may come long before them: the new file is then empty, except
after a rename over another file, which carries the bytes. Where a file grows, its bytes are written before
the size. Writing over old bytes is not ordered with anything. Source: the kernel's
Documentation/admin-guide/ext4.rst (data=ordered, auto_da_alloc, delalloc).
"""

XFS = Model(
    "xfs",
    sector=4096,
    atomic_rename=True,
    names_in_order=True,
    data_before_size=True,
    pages=True,
    reach="touched",
)
"""XFS. Names and cuts are logged in order and replayed so. An fsync forces the log up to the last change of
its file, so that what was renamed later need not be there. The size of a file on the medium is changed when
its bytes are written, and blocks without bytes read as zeros. A rename carries no bytes. Source: the kernel's
Documentation/filesystems/xfs/xfs-delayed-logging-design.rst; D. Chinner on the order of metadata operations
after a crash, linux-kernel, 14 September 2018.
"""

BTRFS = Model(
    "btrfs",
    sector=4096,
    atomic_rename=True,
    names_in_order=True,
    data_before_size=True,
    pages=True,
    own_name=True,
)
"""btrfs. What a transaction holds comes in order and at once; an fsync does not wait for it, but writes its
file's bytes and names to a log of their own, so that they may be there without what was renamed before them.
Nothing is written over in place; the size follows the bytes. A rename carries no bytes. Source: ALICE, table
1; the tree log's description in fs/btrfs/tree-log.c.
"""

MODELS: Sequence[Model] = (STRICT, EXT4, XFS, BTRFS)
