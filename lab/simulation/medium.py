"""What has reached the medium of a simulated disk, and what may or may not have.

A `Node` is a file or a directory: the state that programs see, the one on the medium, and between them its
effects in order. A `Medium` knows the effects of all nodes, what each needs (by its `Model`), and what a sync
makes durable. Nothing here looks at paths; `disk.py` does.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Sequence

from lab.simulation.models import STRICT, Model

Change = tuple["Node", str, "Node | None"]
"""A directory, a name in it, and what it stands for from now on (None: nothing)."""


class Effect:
    """One thing that may or may not have reached the medium: bytes, a size, or names.

    `needs` are effects that must be there before it; `forced` says that it is durable, `stuck` that no sync
    will ever make it so.
    """

    __slots__ = ("changes", "cut", "data", "forced", "needs", "node", "number", "offset", "size", "stuck")

    def __init__(
        self,
        number: int,
        node: Node,
        *,
        offset: int = 0,
        data: bytes | None = None,
        size: int | None = None,
        cut: bool = False,
        changes: tuple[Change, ...] = (),
    ) -> None:
        self.number = number
        self.node = node
        self.offset = offset
        self.data = data
        self.size = size
        self.cut = cut
        self.changes = changes
        self.needs: tuple[Effect, ...] = ()
        self.forced = False
        self.stuck = False

    @property
    def name(self) -> str | None:
        """The (first) name that it puts or removes, if it is about names."""
        return self.changes[0][1] if self.changes else None

    @property
    def is_metadata(self) -> bool:
        """Whether it is about names, or a size that was asked for as such."""
        return bool(self.changes) or self.cut

    def __str__(self) -> str:
        if self.changes:
            return " and ".join(f"{'name' if to else 'no name'} {name}" for _, name, to in self.changes)
        if self.size is not None:
            return f"size {self.size}"
        return f"bytes {self.offset}–{self.offset + len(self.data or b'')}"


class Node:
    """A file or a directory. `content`, `names` are what programs see, `base` and `base_names` what certainly
    is on the medium, `effects` what followed, oldest first."""

    __slots__ = ("base", "base_names", "content", "directory", "effects", "names", "permissions")

    def __init__(self, directory: bool, permissions: int, base: bytes = b"") -> None:
        self.directory = directory
        self.permissions = permissions
        self.base = base
        self.base_names: dict[str, Node] = {}
        self.content: bytes | bytearray = base
        self.names: dict[str, Node] = {}
        self.effects: list[Effect] = []

    def own(self) -> bytearray:
        """The content, to be changed."""
        content = self.content
        if not isinstance(content, bytearray):
            content = self.content = bytearray(content)
        return content

    def settle(self) -> None:
        """Put the effects that are durable, and follow none that is not, where they belong."""
        settled = list(itertools.takewhile(_is_forced, self.effects))
        if settled:
            if self.directory:
                self.base_names = names_after(self, settled)
            else:
                self.base = content_after(self, settled)
            del self.effects[: len(settled)]


def _is_forced(effect: Effect) -> bool:
    return effect.forced


def content_after(node: Node, effects: Iterable[Effect], fill: bytes = b"") -> bytes:
    """The bytes of a file on the medium after these of its effects, in their order.

    Where it has grown and nothing came, it has zeros, or `fill` over and over, aligned to offset 0.
    """
    data, size = bytearray(node.base), len(node.base)
    written: list[tuple[int, int]] = [(0, size)]
    for effect in effects:
        if effect.data is not None:
            end = effect.offset + len(effect.data)
            if end > len(data):
                data.extend(bytes(end - len(data)))
            data[effect.offset : end] = effect.data
            written.append((effect.offset, end))
        elif effect.size is not None:
            if effect.size < size:
                del data[effect.size :]
                written = [(start, min(end, effect.size)) for start, end in written]
            if effect.cut and effect.size > size:  # extended on purpose: the program asked for zeros
                written.append((size, effect.size))
            size = effect.size
    if len(data) < size:
        data.extend(bytes(size - len(data)))
    del data[size:]
    if fill:
        _fill(data, written, fill)
    return bytes(data)


def _fill(data: bytearray, written: list[tuple[int, int]], fill: bytes) -> None:
    at, size = 0, len(data)
    for start, end in [*sorted(written), (size, size)]:
        if at < min(start, size):
            stop = min(start, size)
            pattern = fill * (stop // len(fill) + 1)
            data[at:stop] = pattern[at:stop]
        at = max(at, end)


def names_after(node: Node, effects: Iterable[Effect]) -> dict[str, Node]:
    """The names in a directory on the medium after these of its effects, in their order."""
    names = dict(node.base_names)
    for effect in effects:
        for directory, name, target in effect.changes:
            if directory is node:
                names.pop(name, None)
                if target is not None:
                    names[name] = target
    return names


class Medium:
    """The effects on one disk, as its model orders them."""

    def __init__(self, model: Model = STRICT) -> None:
        self.model = model
        self.count = 0
        """Effects so far."""
        self._metadata: list[Effect] = []  # pending names and cuts, in order, where the model has one

    def write(self, node: Node, data: bytes, offset: int) -> list[Effect]:
        """Bytes at an offset, and the larger size if they end behind the file's end (as programs see it)."""
        end, before = offset + len(data), len(node.content)
        grown = end > before
        parts = [
            self._part(node, at, data[at - offset : stop - offset]) for at, stop in self._cuts(offset, end)
        ]
        size = Effect(0, node, size=end) if grown else None
        if size is None:
            return self._add(node, parts)
        if not self.model.data_before_size:
            return self._add(node, [size, *parts])
        since = [one for one in node.effects if one.data is not None and one.offset + len(one.data) > before]
        size.needs = (*since, *parts, *self._sizes(node))
        return self._add(node, [*parts, size])

    def cut(self, node: Node, size: int) -> list[Effect]:
        """A size that the program asks for."""
        effect = Effect(0, node, size=size, cut=True)
        effect.needs = (*self._before(), *(self._sizes(node) if self.model.names_in_order else ()))
        return self._add(node, [effect])

    def rename(self, changes: Sequence[Change], replacing: Node | None = None) -> list[Effect]:
        """Names that change together; `replacing` is the file whose new name takes that of another one."""
        groups = [tuple(changes)] if self.model.atomic_rename else [(change,) for change in changes]
        effects = []
        for group in groups:
            effect = Effect(0, group[0][0], changes=group)
            carried: tuple[Effect, ...] = ()
            if replacing is not None and self.model.rename_flushes:
                carried = tuple(one for one in replacing.effects if not one.forced)
            effect.needs = (*self._before(), *carried)
            self._number(effect)
            for directory in dict.fromkeys(one for one, _, _ in group):
                directory.effects.append(effect)
            effects.append(effect)
        return effects

    def sync(self, node: Node) -> None:
        """What an fsync of this file or directory makes durable."""
        model = self.model
        touched = {node}
        self._force([one for one in node.effects if not one.stuck])
        if model.reach != "own":
            concerned = [place for place, one in enumerate(self._metadata) if _concerns(one, node)]
            last = len(self._metadata) if model.reach == "all" else max(concerned, default=-1) + 1
            touched |= self._force(self._metadata[:last])
        elif model.own_name:
            touched |= self._force([one for one in self._metadata if _concerns(one, node)], closed=False)
        self._metadata = [one for one in self._metadata if not one.forced]
        for each in touched:
            each.settle()

    def fail_sync(self, node: Node) -> None:
        """The kernel gives up on what is not durable and calls it clean."""
        for effect in node.effects:
            effect.stuck = effect.stuck or not effect.forced

    def copy(self, twin: Callable[[Effect], Effect]) -> Medium:
        """The same with other effects; `twin` says which one takes the place of which."""
        other = Medium(self.model)
        other.count = self.count
        other._metadata = [twin(one) for one in self._metadata]
        return other

    def _force(self, effects: Iterable[Effect], closed: bool = True) -> set[Node]:
        """Make effects durable, `closed`: with all that they need; the nodes whose effects they are."""
        touched, waiting = set[Node](), list(effects)
        while waiting:
            effect = waiting.pop()
            if effect.forced or effect.stuck:
                continue
            effect.forced = True
            touched.add(effect.node)
            touched.update(directory for directory, _, _ in effect.changes)
            if closed or not effect.changes:
                waiting += effect.needs
            effect.needs = ()
        return touched

    def _cuts(self, offset: int, end: int) -> list[tuple[int, int]]:
        """Where a write from `offset` to `end` is cut, as (start, end) of each part."""
        sector = self.model.sector
        borders = {offset, end, *range((offset // sector + 1) * sector, end, sector)}
        if self.model.torn:
            ordered = sorted(borders)
            for number, (start, stop) in enumerate(itertools.pairwise(ordered), self.count):
                if stop - start > 1:
                    borders.add(start + 1 + number * 7919 % (stop - start - 1))
        return list(itertools.pairwise(sorted(borders)))

    def _part(self, node: Node, at: int, data: bytes) -> Effect:
        effect = Effect(0, node, offset=at, data=data)
        if self.model.pages:
            sector = self.model.sector
            first, last = at // sector, (at + len(data) - 1) // sector
            effect.needs = tuple(
                one
                for one in node.effects
                if not one.forced and (one.cut or _within(one, first, last, sector))
            )
        return effect

    def _before(self) -> tuple[Effect, ...]:
        return tuple(self._metadata) if self.model.names_in_order else ()

    @staticmethod
    def _sizes(node: Node) -> list[Effect]:
        return [one for one in node.effects if one.size is not None and not one.forced]

    def _add(self, node: Node, effects: list[Effect]) -> list[Effect]:
        for effect in effects:
            self._number(effect)
            node.effects.append(effect)
        return effects

    def _number(self, effect: Effect) -> None:
        self.count += 1
        effect.number = self.count
        if effect.is_metadata and self.model.names_in_order:
            self._metadata.append(effect)


def _within(effect: Effect, first: int, last: int, sector: int) -> bool:
    """Whether bytes fall into these sectors."""
    if effect.data is None:
        return False
    return first <= (effect.offset + len(effect.data) - 1) // sector and effect.offset // sector <= last


def _concerns(effect: Effect, node: Node) -> bool:
    """Whether an effect on names or sizes concerns this file or directory."""
    return effect.node is node or any(node in (directory, target) for directory, _, target in effect.changes)


def pending(root: Node) -> list[Effect]:
    """All effects on what some state after a power cut may show, that such a cut may lose; oldest first."""
    found, seen = [root], {root}
    effects: dict[Effect, None] = {}
    for node in found:  # grows while it is walked
        targets = [target for one in node.effects for _, _, target in one.changes]
        for child in (*node.base_names.values(), *targets):
            if child is not None and child not in seen:
                seen.add(child)
                found.append(child)
        for effect in node.effects:
            if not effect.forced:
                effects[effect] = None
    return sorted(effects, key=_number_of)


def _number_of(effect: Effect) -> int:
    return effect.number


def rebuild(root: Node, kept: Callable[[Effect], bool], fill: bytes = b"") -> Node:
    """A copy of the tree as the medium has it, with these of the effects; in it, all is durable."""
    made: dict[Node, Node] = {}

    def copy(node: Node) -> Node:
        if node in made:
            return made[node]
        chosen = [one for one in node.effects if one.forced or kept(one)]
        content = b"" if node.directory else content_after(node, chosen, fill)
        twin = made[node] = Node(node.directory, node.permissions, content)
        if node.directory:
            twin.base_names = {name: copy(child) for name, child in names_after(node, chosen).items()}
            twin.names = dict(twin.base_names)
        return twin

    return copy(root)


def fork(root: Node, medium: Medium) -> tuple[Node, Medium, Callable[[Effect], Effect]]:
    """A copy of the tree with everything that is not durable yet: the machine runs on, its programs died.

    The function says which effect of the copy takes the place of which.
    """
    nodes: dict[Node, Node] = {}
    effects: dict[Effect, Effect] = {}
    waiting: list[Node | None] = [root]
    while waiting:
        old = waiting.pop()
        if old is not None and old not in nodes:
            nodes[old] = _bare(old)
            waiting += [*old.base_names.values(), *old.names.values()]
            for one in old.effects:
                _gather(one, effects)
        if not waiting:  # what effects need or name may lie on nodes that no name leads to
            named = [place for one in effects for change in one.changes for place in (change[0], change[2])]
            waiting += [one for one in (*named, *(each.node for each in effects)) if one and one not in nodes]
    for old, twin in nodes.items():
        twin.base_names = {name: nodes[child] for name, child in old.base_names.items()}
        twin.names = {name: nodes[child] for name, child in old.names.items()}
        twin.effects = [effects[one] for one in old.effects]
    for one, other in effects.items():
        other.node = nodes[one.node]
        other.needs = tuple(effects[need] for need in one.needs)
        other.changes = tuple((nodes[place], name, to and nodes[to]) for place, name, to in one.changes)

    def twin_of(one: Effect) -> Effect:
        return effects.get(one, one)

    return nodes[root], medium.copy(twin_of), twin_of


def _bare(old: Node) -> Node:
    twin = Node(old.directory, old.permissions, old.base)
    twin.content = bytes(old.content)
    return twin


def _gather(first: Effect, effects: dict[Effect, Effect]) -> None:
    """Twins, still without their relations, of an effect and of all that it needs."""
    waiting = [first]
    while waiting:
        old = waiting.pop()
        if old not in effects:
            twin = effects[old] = Effect(
                old.number, old.node, offset=old.offset, data=old.data, size=old.size, cut=old.cut
            )
            twin.forced, twin.stuck = old.forced, old.stuck
            waiting += old.needs
