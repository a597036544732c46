"""The states that a power cut may leave on a disk at one moment, each with a canonical name.

A state is a mask of the pending effects that reached the medium (see `subsets.py`), and whether holes in
files read as zeros or as garbage. Two states that a program cannot tell apart have the same key, so that each
is tried once. What does not differ between states is made once: directory trees by the names that came,
contents by the effects on that file.
"""

from __future__ import annotations

from collections.abc import Iterator
from hashlib import blake2b
from typing import Final

from attrs import frozen

from lab.simulation import subsets
from lab.simulation.disk import SimulatedDisk
from lab.simulation.medium import Effect, Node, content_after, names_after

GARBAGE: Final = bytes(range(0x5B, 0xFF, 7))
"""What stands where a file has grown and no bytes came, in the models that allow anything there."""
_DIGEST: Final = 16


@frozen(eq=False)
class _Tree:
    """Directories and files as some choice of names has them, each once, in the order of a walk."""

    digest: bytes
    directories: tuple[tuple[Node, dict[str, Node]], ...]
    files: tuple[Node, ...]


@frozen(eq=False)
class _Content:
    digest: bytes
    data: bytes
    holes: bool


class States:
    """All states of `disk` after a power cut now, or a seeded sample when there are more than `most`."""

    def __init__(self, disk: SimulatedDisk, most: int = subsets.EXHAUSTIVE, seed: int = 0) -> None:
        self._disk = disk
        self.lost: list[Effect] = disk.pending()
        """What may be lost; bit i of a mask stands for the i-th."""
        self._bits = {effect: 1 << place for place, effect in enumerate(self.lost)}
        self.needs = [sum({self._bits.get(one, 0) for one in each.needs}) for each in self.lost]
        self._names = sum(bit for effect, bit in self._bits.items() if effect.changes)
        self._of: dict[Node, int] = {}
        for effect, bit in self._bits.items():
            if not effect.changes:
                self._of[effect.node] = self._of.get(effect.node, 0) | bit
        self._trees: dict[int, _Tree] = {}
        self._contents: dict[tuple[Node, int, bool], _Content] = {}
        self._most, self._seed = most, seed

    def __iter__(self) -> Iterator[tuple[int, bool, bytes]]:
        """Mask, whether holes hold garbage, and key, of each state; equal keys may come again."""
        garbage = self._disk.model.garbage
        for mask in subsets.all_or_some(self.needs, self._most, self._seed):
            key, holes = self.key(mask)
            yield mask, False, key
            if garbage and holes:
                yield mask, True, self.key(mask, garbage=True)[0]

    def key(self, mask: int, garbage: bool = False) -> tuple[bytes, bool]:
        """The canonical name of a state, and whether it has files with holes."""
        tree, holes = self._tree(mask), False
        name = blake2b(tree.digest, digest_size=_DIGEST)
        for file in tree.files:
            content = self._content(file, mask, garbage)
            name.update(content.digest)
            holes = holes or content.holes
        return name.digest(), holes

    def disk(self, mask: int, garbage: bool = False) -> SimulatedDisk:
        """The disk as the next start finds it in this state."""
        tree = self._tree(mask)
        twins: dict[Node, Node] = {}
        for file in tree.files:
            twins[file] = Node(False, file.permissions, self._content(file, mask, garbage).data)
        for directory, _ in tree.directories:
            twins[directory] = Node(True, directory.permissions)
        for directory, names in tree.directories:
            twin = twins[directory]
            twin.names = {name: twins[child] for name, child in names.items()}
            twin.base_names = dict(twin.names)
        return self._disk.found(twins[self._disk.root])

    def _tree(self, mask: int) -> _Tree:
        mask &= self._names
        if mask not in self._trees:
            self._trees[mask] = self._walk(mask)
        return self._trees[mask]

    def _walk(self, mask: int) -> _Tree:
        order: dict[Node, int] = {}
        directories: list[tuple[Node, dict[str, Node]]] = []
        files: list[Node] = []
        shape: list[object] = []

        def visit(node: Node) -> None:
            order[node] = len(order)
            shape.append((node.directory, node.permissions))
            if not node.directory:
                files.append(node)
                return
            names = names_after(node, self._chosen(node, mask))
            directories.append((node, names))
            for name, child in sorted(names.items()):
                shape.append((name, order.get(child, -1)))
                if child not in order:
                    visit(child)
            shape.append(None)

        visit(self._disk.root)
        digest = blake2b(repr(shape).encode(), digest_size=_DIGEST).digest()
        return _Tree(digest, tuple(directories), tuple(files))

    def _content(self, node: Node, mask: int, garbage: bool) -> _Content:
        own = self._of.get(node, 0) & mask
        place = (node, own, garbage)
        found = self._contents.get(place)
        if found is None:
            chosen = self._chosen(node, own)
            data = content_after(node, chosen, GARBAGE if garbage else b"")
            holes = not garbage and self._disk.model.garbage and data != content_after(node, chosen, GARBAGE)
            digest = blake2b(data, digest_size=_DIGEST).digest()
            found = self._contents[place] = _Content(digest, data, holes)
        return found

    def _chosen(self, node: Node, mask: int) -> list[Effect]:
        bits = self._bits
        return [one for one in node.effects if one.forced or bits[one] & mask]
