"""The search for a loss: every state that a power cut may leave, at every point of a program.

Before each operation of the program, and after its last one, all states a cut may leave there are made, each
different one is recovered as after a restart, and the witness is asked whether what was found is right. While
a state is recovered the same is done at each operation of the recovery, `depth` times. Beside power cuts, a
program may just be killed: its successor then finds everything, tells others what it found, and the power cut
comes afterwards.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Hashable, Iterable, Sequence

from attrs import define, evolve, field, frozen

from lab.crash.states import States
from lab.crash.trace import Loss
from lab.crash.witness import Failed, Witness
from lab.simulation import subsets
from lab.simulation.disk import SimulatedDisk
from lab.simulation.models import STRICT, Model
from meshnet.errors import StorageError


def _nothing(*_: object) -> None:
    pass


@frozen
class Workload:
    """A store at work. `program` uses it on a disk and tells its witness; `recover` opens it as after a
    restart and returns what is in it, hashable; errors of it are losses. `prepare` makes what was durable
    before, `initial` is its content. `go_on(disk, found)` uses the recovered store, and raises if that fails.
    `relied_on`: what a restarted program has read, it takes for durable.
    """

    name: str
    program: Callable[[SimulatedDisk, Witness], object]
    recover: Callable[[SimulatedDisk], Hashable]
    prepare: Callable[[SimulatedDisk], object] = _nothing
    initial: Hashable = None
    go_on: Callable[[SimulatedDisk, Hashable], object] = _nothing
    relied_on: bool = True


@define
class Report:
    """What a search has seen: points at which the power was cut, different states recovered, checks of one
    against what was right at its moment, and those that failed, the first few with their traces."""

    workload: str
    model: str
    seed: int
    cuts: int = 0
    states: int = 0
    checks: int = 0
    lost: int = 0
    losses: list[Loss] = field(factory=list)

    def __str__(self) -> str:
        return (
            f"{self.workload} ({self.model}, seed {self.seed}): {self.cuts} cuts, {self.states} states, "
            f"{self.checks} checks, {self.lost} lost"
        )


@define(eq=False)
class _Outcome:
    """What recovery of one state found, and what it found when it was cut itself, up to `depth` times."""

    found: Hashable
    depth: int
    known: bool = False
    again: set[Hashable] = field(factory=set)


@define(eq=False)
class Search:
    """One search. `most` states at each point (see `States`), `deeper` at each point of a recovery."""

    workload: Workload
    model: Model = STRICT
    most: int = subsets.EXHAUSTIVE
    deeper: int = 64
    depth: int = 1
    seed: int = 0
    kills: bool = True
    stop_at: int = 1
    """So many losses are traced; the search ends with the last of them."""
    report: Report = field(init=False)
    _seen: dict[bytes, _Outcome] = field(factory=dict, init=False)
    _mark: tuple[int, int] = field(default=(-1, -1), init=False)

    def __attrs_post_init__(self) -> None:
        self.report = Report(self.workload.name, str(self.model), self.seed)

    def run(self, faults: Callable[[SimulatedDisk], object] = _nothing) -> Report:
        """Search; `faults` sets up what shall fail (a program may then give up with a StorageError)."""
        disk = SimulatedDisk(model=self.model)
        self.workload.prepare(disk)
        disk = disk.synced()
        witness = Witness(self.workload.initial)
        witness.position = lambda: len(disk.log)
        faults(disk)
        disk.watch = lambda: self._look(disk, witness)
        self._mark = (-1, -1)
        try:
            self.workload.program(disk, witness)
        except StorageError:
            if faults is _nothing:
                raise
        disk.watch = None
        self._look(disk, witness)
        return self.report

    @property
    def ended(self) -> bool:
        """Whether losses enough were found."""
        return len(self.report.losses) >= self.stop_at

    def _look(self, disk: SimulatedDisk, witness: Witness) -> None:
        """All states that a cut may leave now."""
        mark = (len(disk.log), witness.version)
        if mark == self._mark or self.ended:
            return
        self._mark = mark
        self.report.cuts += 1
        states = States(disk, self.most, self.seed)
        seen = set[bytes]()
        for mask, garbage, key in states:
            if key in seen:
                continue
            seen.add(key)
            outcome = self._outcome(states, mask, garbage, key, self.depth)
            if not self._judge(disk, witness, states, mask, garbage, outcome):
                return
        if self.kills:
            self._killed(disk, witness)

    def _outcome(self, states: States, mask: int, garbage: bool, key: bytes, depth: int) -> _Outcome:
        """What recovery finds in a state; each is recovered once."""
        known = self._seen.get(key)
        if known is not None and known.depth >= depth:
            return known
        self.report.states += known is None
        outcome = self._seen[key] = _Outcome(None, depth)
        disk = states.disk(mask, garbage)
        if depth:
            before = [-1]
            disk.watch = lambda: self._deeper(disk, outcome, depth - 1, before)
        outcome.found = self._recovered(disk)
        if depth and disk.log:
            self._deeper(disk, outcome, depth - 1, before)
        disk.watch = None
        if not isinstance(outcome.found, Failed):
            outcome.found = self._went_on(disk, outcome.found)
        outcome.known = True
        return outcome

    def _deeper(self, disk: SimulatedDisk, outcome: _Outcome, depth: int, before: list[int]) -> None:
        """The states after a cut at this point of a recovery."""
        if len(disk.log) == before[0] or not disk.log:
            return
        before[0] = len(disk.log)
        states = States(disk, self.deeper, self.seed)
        for mask, garbage, key in states:
            inner = self._outcome(states, mask, garbage, key, depth)
            if inner.known:  # else it is the one that is being recovered
                outcome.again.add(inner.found)
                outcome.again |= inner.again

    def _recovered(self, disk: SimulatedDisk) -> Hashable:
        try:
            return self.workload.recover(disk)
        except Exception as fault:
            return Failed(_sentence(fault))

    def _went_on(self, disk: SimulatedDisk, found: Hashable) -> Hashable:
        try:
            self.workload.go_on(disk, found)
        except Exception as fault:
            return Failed(f"recovery worked, but not what followed: {_sentence(fault)}")
        return found

    def _judge(
        self,
        disk: SimulatedDisk,
        witness: Witness,
        states: States,
        mask: int,
        garbage: bool,
        outcome: _Outcome,
    ) -> bool:
        """Ask the witness; whether to go on."""
        self.report.checks += 1
        why = witness.objection(outcome.found)
        inside = None if why else next(filter(None, map(witness.objection, outcome.again)), None)
        if why is None and inside is None:
            return True
        self.report.lost += 1
        self.report.losses.append(self._traced(disk, witness, states, mask, garbage))
        return not self.ended

    def _traced(
        self, disk: SimulatedDisk, witness: Witness, states: States, mask: int, garbage: bool
    ) -> Loss:
        """The loss with as few effects lost as it takes."""
        mask, garbage = self._shrunk(witness, states, mask, garbage)
        lost = [effect for place, effect in enumerate(states.lost) if not mask >> place & 1]
        outcome = self._outcome(states, mask, garbage, states.key(mask, garbage)[0], self.depth)
        why = witness.objection(outcome.found)
        then = None
        if why is None:
            then = self._inner(witness, states.disk(mask, garbage))
            why = then.why if then else "lost when its recovery was cut"
        durable = [one for each in disk.log for one in each.effects if one.forced]
        return Loss(
            self.workload.name,
            self.model,
            self.seed,
            tuple(disk.log),
            tuple(witness.notes),
            frozenset(lost),
            frozenset(durable),
            garbage,
            why,
            then,
        )

    def _shrunk(self, witness: Witness, states: States, mask: int, garbage: bool) -> tuple[int, bool]:
        """A state as wrong as this one, in which no single effect more could have survived."""

        def wrong(other: int, holes: bool) -> bool:
            outcome = self._outcome(states, other, holes, states.key(other, holes)[0], self.depth)
            return any(map(witness.objection, (outcome.found, *outcome.again)))

        garbage = garbage and not wrong(mask, False)
        changed = True
        while changed:
            changed = False
            for place in range(len(states.lost)):
                other = subsets.with_needs(states.needs, mask | 1 << place)
                if other != mask and wrong(other, garbage):
                    mask, changed = other, True
        return mask, garbage

    def _inner(self, witness: Witness, disk: SimulatedDisk) -> Loss | None:
        """The loss that a cut during the recovery of this disk brings, found again for its trace."""
        search = Search(
            evolve(self.workload, name="recovery", program=lambda disk, _: self.workload.recover(disk)),
            self.model,
            self.deeper,
            self.deeper,
            max(0, self.depth - 1),
            self.seed,
            kills=False,
        )
        right = witness.later()
        right.notes = []
        disk.watch = lambda: search._look(disk, right)
        search._recovered(disk)
        search._look(disk, right)
        return search.report.losses[0] if search.report.losses else None

    def _killed(self, disk: SimulatedDisk, witness: Witness) -> None:
        """The program is killed now, its successor recovers on what it finds, then the power goes."""
        heir = disk.fork()
        there = len(heir.log)
        search = evolve(self, kills=False, depth=0, most=self.deeper)
        search._seen, search.report = self._seen, self.report
        right = witness.later()
        right.notes.append((there, "killed; the next one recovers"))
        heir.watch = lambda: search._look(heir, right) if len(heir.log) > there else None
        found = self._recovered(heir)
        heir.watch = None
        right.position = lambda: len(heir.log)
        why = right.objection(found)
        if why is None and self.workload.relied_on:
            right.notes.append((len(heir.log), "tells others what it has read"))
            right.allowed, right.parts = [found], {}
            search._look(heir, right)
        elif why is not None:
            self.report.lost += 1
            loss = Loss(
                self.workload.name,
                self.model,
                self.seed,
                tuple(heir.log),
                tuple(right.notes),
                frozenset(),
                frozenset(),
                False,
                why,
                after="being killed",
            )
            self.report.losses.append(loss)


def _sentence(fault: Exception) -> str:
    frames = traceback.extract_tb(fault.__traceback__)
    where = f" (in {frames[-1].name}, line {frames[-1].lineno})" if frames else ""
    return f"{type(fault).__name__}: {fault}{where}"


def search(workload: Workload, model: Model = STRICT, **more: object) -> Report:
    """One search; keyword arguments are those of `Search`."""
    return Search(workload, model, **more).run()  # type: ignore[arg-type]


def searches(workloads: Iterable[Workload], models: Sequence[Model], **more: object) -> list[Report]:
    """One search for each workload on each model."""
    return [search(workload, model, **more) for workload in workloads for model in models]
