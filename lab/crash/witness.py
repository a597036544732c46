"""What a store may hold after a crash: the oracle's side of a workload.

A program tells its witness what it is about to commit and what it has acknowledged; the witness can then say
of any recovered content whether it is one of the committed prefixes, and holds all that was acknowledged.
"""

from __future__ import annotations

import reprlib
from collections.abc import Callable, Hashable, Mapping
from typing import Final

from attrs import define, field, frozen

_short = reprlib.Repr()
_short.maxtuple, _short.maxstring, _short.maxother = 12, 60, 60

ANYTHING: Final = object()
"""As the only allowed content: `rule` alone decides."""


@frozen
class Failed:
    """Recovery did not come to an end; `why` is the error."""

    why: str

    def __str__(self) -> str:
        return self.why


def shown(value: object) -> str:
    """A value for a person, not too long."""
    return str(value) if isinstance(value, Failed) else _short.repr(value)


@define(eq=False)
class Witness:
    """The contents that are right now, oldest first. At the start there is `initial` alone.

    A program calls `begins(content)` before the first operation that may bring it about, and `holds()` when
    it takes the newest for durable, as by telling somebody. A workload of several stores has a witness for
    each, `of(name)`; its recovery returns a tuple of pairs (name, content).
    """

    initial: Hashable = None
    allowed: list[Hashable] = field(init=False)
    notes: list[tuple[int, str]] = field(factory=list, init=False)
    """What was said when, as numbers of operations in the log."""
    rule: Callable[[object], str | None] = field(default=lambda _: None, init=False)
    """What must hold beside: why a content is not right, or None."""
    version: int = field(default=0, init=False)
    parts: dict[str, Witness] = field(factory=dict, init=False)
    position: Callable[[], int] = field(default=lambda: 0, init=False)
    """How many operations were done so far."""
    _name: str = field(default="", init=False)
    _parent: Witness | None = field(default=None, init=False)

    def __attrs_post_init__(self) -> None:
        self.allowed = [self.initial]

    def of(self, name: str, initial: Hashable = None) -> Witness:
        """The witness of one store of several, made at the first call."""
        if name not in self.parts:
            part = self.parts[name] = Witness(initial)
            part._name, part._parent = name, self
        return self.parts[name]

    def begins(self, content: Hashable) -> None:
        """From now on the store may hold `content`."""
        self.allowed.append(content)
        self._note("begins", content)

    def holds(self, content: Hashable | None = None) -> None:
        """From now on the store must hold `content`, by default the newest begun, or what came after it."""
        if content is not None:
            last = max(place for place, one in enumerate(self.allowed) if one == content)
            del self.allowed[:last]
        else:
            del self.allowed[:-1]
        self._note("acknowledges", self.allowed[0])

    def objection(self, found: object) -> str | None:
        """Why `found` is not right, or None."""
        if isinstance(found, Failed):
            return f"recovery failed: {found.why}"
        why = self.rule(found)
        if why is not None:
            return why
        if not self.parts:
            if found in self.allowed or self.allowed[0] is ANYTHING:
                return None
            return f"found {shown(found)}, but only {' or '.join(map(shown, self.allowed))} is right"
        contents: Mapping[str, object] = dict(found)  # type: ignore[call-overload]
        for name, part in self.parts.items():
            why = part.objection(contents.get(name))
            if why is not None:
                return f"{name}: {why}"
        return None

    def says(self, text: str) -> None:
        """A note for the trace, of something that `rule` looks at."""
        self._note(text, None)

    def later(self) -> Witness:
        """A witness that asks for the same, for what happens after this point."""
        other = Witness(self.initial)
        other.allowed, other.parts, other.rule = self.allowed, self.parts, self.rule
        other.notes = list(self.notes)
        return other

    def _note(self, word: str, content: Hashable) -> None:
        top = self
        while top._parent is not None:
            top = top._parent
        top.version += 1
        said = word if content is None else f"{word} {shown(content)}"
        top.notes.append((top.position(), f"{self._name} {said}".strip()))
