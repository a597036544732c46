"""What a node keeps per neighbour for its circuits: labels in use and at rest, limits, frames to send.

label of theirs   cells arrive in `link.forward`     (the neighbour sent CREATE)
label of ours     cells arrive in `link.backward`    (we did)
after teardown    10 s: LATE, then unknown; 60 s: not used again
"""

from __future__ import annotations

from collections import deque
from typing import Protocol

from meshnet.circuit.interface import Neighbour, Random, Run, Step, Steps
from meshnet.circuit.labels import Labels
from meshnet.circuit.messages import CREATED, DESTROY, FAILED, ONION_INSIDE, PLAIN, Created, Destroy, Failed
from meshnet.circuit.policy import Bucket, Policy
from meshnet.codec import encode
from meshnet.errors import Drop
from meshnet.limits import LATE_CELLS, REPEATED_DESTROYS


class LabelUser(Protocol):
    """A circuit, as the frames that name one of its labels reach it."""

    def created(self, slots: bytes, now: float) -> None:
        """CREATED, from downstream."""

    def failed(self, code: int, onion: bytes, now: float) -> None:
        """FAILED, from downstream."""

    def destroyed(self, side: Side, reason: int, onion: bytes, now: float) -> None:
        """DESTROY, from either side."""

    def connection_lost(self, side: Side, now: float) -> None:
        """No connection served the link of `side` for a while: frames that were under way are lost."""

    def link_lost(self, side: Side, now: float) -> None:
        """The link of `side` is gone for good."""


class LateSteps:
    """Labels that were torn down a moment ago; their cells are in flight, nobody's misbehaviour."""

    __slots__ = ("_order",)

    def __init__(self) -> None:
        self._order: deque[tuple[float, Steps, int]] = deque()

    def add(self, steps: Steps, label: int, now: float) -> None:
        """Cells for `label` are LATE from now on, for 10 s."""
        steps[label] = late
        self._order.append((now + LATE_CELLS, steps, label))

    def settle(self, now: float) -> None:
        """Makes labels unknown whose time is over."""
        order = self._order
        while order and order[0][0] <= now:
            _, steps, label = order.popleft()
            if steps.get(label) is late:
                del steps[label]

    def next(self) -> float | None:
        """When `settle` is due."""
        return self._order[0][0] if self._order else None


def late(seq: int, body: memoryview, now: float, marked: bool) -> Drop:
    """The step of a label that was torn down."""
    return Drop.LATE


def not_open(seq: int, body: memoryview, now: float, marked: bool) -> Drop:
    """The step of a label whose CREATED has not passed yet."""
    return Drop.NOT_OPEN


class Side:
    """One neighbour. `theirs` counts the circuits it opened here; `stray` frames that fitted no circuit.

    `bucket` limits its CREATEs; `onward` says how many of ours it will take, if its limit is as ours.
    """

    __slots__ = (
        "_late", "_turn", "bucket", "circuits", "labels", "link", "onward", "peer", "stray", "theirs",
        "unsent",
    )  # fmt: skip

    def __init__(
        self,
        link: Neighbour,
        own_key: bytes,
        policy: Policy,
        random: Random,
        late_steps: LateSteps,
        now: float,
    ) -> None:
        self.link = link
        self.peer = link.peer
        self.labels = Labels(own_key, link.peer, random)
        self.circuits: dict[int, LabelUser] = {}
        self.bucket = Bucket(policy.creates_per_second, policy.create_burst, now)
        self.onward = Bucket(policy.creates_per_second, policy.create_burst, now)
        self.theirs = 0
        self.stray = 0
        self.unsent = 0
        self._late = late_steps
        self._turn = 0

    def limit(self, policy: Policy) -> None:
        """Other limits from now on."""
        for bucket in (self.bucket, self.onward):
            bucket.adjust(policy.creates_per_second, policy.create_burst)

    def enter(self, label: int, circuit: LabelUser) -> None:
        """`circuit` uses `label`, whose cells are refused until `open`."""
        self.circuits[label] = circuit
        if self.labels.is_ours(label):
            self.link.backward[label] = not_open
        else:
            self.link.forward[label] = not_open
            self.theirs += 1

    def leads_on(self, up: Side, now: float) -> bool:
        """Whether a circuit of `up` may lead on over this link: who asks for much leaves the last part of
        what this neighbour takes from us to those who ask for little."""
        onward, their = self.onward, up.bucket
        onward.take(0, now)
        reserved = onward.burst / 2 * (1 - their.level / their.burst)
        return onward.level - 1 >= reserved and onward.take(1, now)

    def open(self, label: int, step: Step, run: Run | None = None) -> None:
        """Cells of `label` go to `step`, those that follow the first in a bundle to `run`."""
        if run is not None:
            self.link.runs[label] = run
        (self.link.backward if self.labels.is_ours(label) else self.link.forward)[label] = step

    def release(self, label: int, now: float) -> None:
        """`label` is no longer used."""
        if self.circuits.pop(label, None) is None:
            return
        self.link.runs.pop(label, None)
        ours = self.labels.is_ours(label)
        if not ours:
            self.theirs -= 1
        self.labels.rest(label, now)
        self._late.add(self.link.backward if ours else self.link.forward, label, now)

    def draw(self) -> int:
        """A fresh label of ours; by turns on the lanes that stand."""
        link = self.link
        standing = link.standing
        self._turn += 1
        lane = standing[self._turn % len(standing)] if standing else self._turn
        return self.labels.draw(self.circuits, lane, link.lanes)

    def send(self, kind: int, message: object, label: int) -> bool:
        """Sends a frame about `label`; one that cannot be sent is counted, and the other side's time-outs do
        the rest."""
        if self.link.send(kind, encode(message), label):
            return True
        self.unsent += 1
        return False

    def created(self, label: int, slots: bytes) -> None:
        """Sends CREATED."""
        self.send(CREATED, Created(label, slots), label)

    def failed(self, label: int, onion: bytes) -> None:
        """Sends FAILED with an error onion."""
        self.send(FAILED, Failed(label, ONION_INSIDE, onion), label)

    def failed_bare(self, label: int, code: int) -> None:
        """Sends FAILED with one of the codes 1–4."""
        self.send(FAILED, Failed(label, code), label)

    def repeat_destroys(self, now: float) -> None:
        """Says of every circuit that ended a short while ago that it has: the frame that did may be lost."""
        self.labels.settle(now)
        for label in self.labels.latest(REPEATED_DESTROYS):
            self.destroy(label)

    def destroy(self, label: int, reason: int = PLAIN, onion: bytes = b"") -> None:
        """Sends DESTROY."""
        self.send(DESTROY, Destroy(label, reason, onion), label)
