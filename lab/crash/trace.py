"""A loss, told so that a person sees why: what was done, what of it reached the medium, what was found."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from attrs import frozen

from lab.simulation.disk import Operation
from lab.simulation.medium import Effect
from lab.simulation.models import Model

FOLDED: Final = 6
"""Up to so many operations at the start are shown even if all that they did was durable."""


@frozen(eq=False)
class Loss:
    """A state that is not right. `lost` are the effects that did not reach the medium, as few as possible."""

    workload: str
    model: Model
    seed: int
    log: Sequence[Operation]
    notes: Sequence[tuple[int, str]]
    lost: frozenset[Effect]
    durable: frozenset[Effect]
    garbage: bool
    why: str
    then: Loss | None = None
    """What happened during recovery, if it was cut too."""
    after: str = "a power cut"

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """The trace: each operation with its effects, and what was said between them."""
        head = f"{self.workload} loses after {self.after} ({self.model}, seed {self.seed})"
        text = [head, "  ✓ durable  + reached the medium  – lost"]
        notes = list(self.notes)
        settled = self._settled()
        if settled > FOLDED:
            text.append(f"    …  {settled} operations, all of them durable")
        for number, operation in enumerate(self.log):
            while notes and notes[0][0] <= number:
                text.append(f"       · {notes.pop(0)[1]}")
            if number < settled and settled > FOLDED:
                continue
            marks = "".join(f"  {self._mark(effect)} {effect}" for effect in operation.effects)
            text.append(f"  {number + 1:3}  {operation}{marks}")
        text += [f"       · {note}" for _, note in notes]
        text.append("       ⚡ power cut" + (", and what files lack is garbage" if self.garbage else ""))
        if self.then is not None:
            text += [f"  {line}" for line in self.then.lines()]
        else:
            text.append(f"  {self.why}")
        return text

    def _settled(self) -> int:
        """How many operations at the start left nothing that the cut could lose."""
        for number, operation in enumerate(self.log):
            if not self.durable.issuperset(operation.effects):
                return number
        return len(self.log)

    def _mark(self, effect: Effect) -> str:
        if effect in self.durable:
            return "✓"
        return "–" if effect in self.lost else "+"
