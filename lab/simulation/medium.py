"""What has reached the medium of a simulated disk, and what may or may not have.

A `Node` is a file or a directory: the state that programs see, the durable one, and between them its effects
in order. Nothing here decides when something becomes durable; `disk.py` does.
"""

from __future__ import annotations

import itertools
import random
from collections.abc import Iterable, Iterator

from attrs import define, field, frozen


@frozen(eq=False)
class Effect:
    """One thing that may or may not have reached the medium. Exactly one of the three kinds is set."""

    node: Node
    size: int | None = None
    offset: int = 0
    data: bytes | None = None
    name: str | None = None
    target: Node | None = None

    def __str__(self) -> str:
        if self.name is not None:
            return f"{'put' if self.target else 'remove'} name {self.name}"
        if self.size is not None:
            return f"set size {self.size}"
        return f"put {len(self.data or b'')} bytes at {self.offset}"


@define(eq=False)
class Node:
    """A file or a directory: what programs see, what is durable, and the effects since, oldest first.

    `forced` are effects that are durable but follow one that is not (after a failed fsync), `stuck` those
    that no fsync will ever make durable.
    """

    directory: bool
    permissions: int
    content: bytearray = field(factory=bytearray)
    names: dict[str, Node] = field(factory=dict)
    durable_content: bytes = b""
    durable_names: dict[str, Node] = field(factory=dict)
    effects: list[Effect] = field(factory=list)
    forced: set[Effect] = field(factory=set)
    stuck: set[Effect] = field(factory=set)

    def sync(self) -> None:
        """All effects that are not stuck become durable."""
        self.forced.update(one for one in self.effects if one not in self.stuck)
        settled = list(itertools.takewhile(self.forced.__contains__, self.effects))
        self.durable_content, self.durable_names = apply(self, settled)
        del self.effects[: len(settled)]
        self.forced.difference_update(settled)

    def fail_sync(self) -> None:
        """The kernel gives up on what is not durable and calls it clean."""
        self.stuck.update(self.pending())

    def pending(self) -> list[Effect]:
        """The effects that a power cut may lose."""
        return [one for one in self.effects if one not in self.forced]


def apply(node: Node, effects: Iterable[Effect]) -> tuple[bytes, dict[str, Node]]:
    """Content and names of a node on the medium after these of its effects, in their order."""
    data, names = bytearray(node.durable_content), dict(node.durable_names)
    size = len(data)
    for effect in effects:
        if effect.name is not None:
            names.pop(effect.name, None)
            if effect.target is not None:
                names[effect.name] = effect.target
        elif effect.size is not None:
            if effect.size < size:
                del data[effect.size :]
            size = effect.size
        elif effect.data is not None:
            end = effect.offset + len(effect.data)
            data.extend(bytes(max(0, end - len(data))))
            data[effect.offset : end] = effect.data
    data.extend(bytes(max(0, size - len(data))))
    return bytes(data[:size]), names


def subsets(pending: list[Effect], most: int, seed: int) -> Iterator[set[Effect]]:
    """Sets of effects that may have happened: all 2^n of them, or about `most`, extremes first."""
    if len(pending) < most.bit_length():
        for mask in range(1 << len(pending)):
            yield {one for i, one in enumerate(pending) if mask >> i & 1}
        return
    yield set()
    yield set(pending)
    for one in pending:
        yield {one}
        yield set(pending) - {one}
    chance = random.Random(seed)
    for _ in range(max(0, most - 2 * len(pending) - 2)):
        odds = chance.random()
        yield {one for one in pending if chance.random() < odds}
