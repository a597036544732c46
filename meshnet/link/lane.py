"""One connection of a link: the handshake, then records full of frames.

    dialler      act one 50 → · ← act two 50 · act three 66 → · HELLO ⇄ · frames ⇄
    receive buffer   … opened | a part of the next record | free …

A lane owns its receive buffer and opens records in place. A cell goes by one dictionary look-up and one
call to its step; every other frame goes to `control`. It does no I/O and reads no clock: bytes come by
`filled`, bytes to send lie in `outgoing` until the lane is up, and from then on leave by the link's outlet.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final, Protocol

from automat import TypeMachineBuilder

from meshnet.bundle import pages
from meshnet.cipher.aead import TAG_SIZE, Backend
from meshnet.cipher.bolt8 import Initiator, Responder
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.cipher.rotation import RotatingKey
from meshnet.codec import decode, encode
from meshnet.errors import Drop, LinkLostError, MeshError, ProtocolError, TimedOutError
from meshnet.limits import HANDSHAKE_SECONDS, LARGEST_FRAME, LARGEST_RECORD
from meshnet.link.frame import CELL, HELLO, MARKED, PAD, Hello, check_hello, our_hello
from meshnet.link.record import BUFFER_SIZE, LENGTH_SIZE, OVERHEAD, Opener, Sealer

Step = Callable[[int, memoryview, float, bool], Drop]
Steps = dict[int, Step]
Run = Callable[[memoryview, int, int, float], int]


class Tables(Protocol):
    """Where the cells of a link go, by label: one at a time, or those that lie together in a bundle at once
    (memory, position, end, now → how many of one length were taken). `drops` counts by `Drop`.
    """

    forward: Steps
    backward: Steps
    runs: dict[int, Run]
    drops: list[int]


ACT_ONE: Final = 50
ACT_TWO: Final = 50
ACT_THREE: Final = 66
FIRST_SEALER: Final = 4_096  # holds our HELLO until the link takes the lane over
FIRST_BUFFER: Final = 1_024  # for the acts; who has proven no key yet costs no more

_NOTHING: Final = memoryview(b"")
_CELL = Struct(">HBIQ")
_unpack = _CELL.unpack_from
_CELL_HEAD = _CELL.size
_CELL_COUNTED = _CELL_HEAD - 2


def prologue(network_id: int) -> bytes:
    """What both sides' handshakes begin with (docs/wire-format.md §1)."""
    return b"meshnet/1" + network_id.to_bytes(4, "big")


class LaneOwner(Protocol):
    """Who decides about lanes: the driver of the links."""

    def identified(self, lane: Lane, peer: PublicKey) -> None:
        """The accepting side learned who dialled; raises RefusedError to hang up."""

    def up(self, lane: Lane, hello: Hello, now: float) -> None:
        """HELLO came; the owner calls `lane.serve` before it returns."""


class _Inputs(Protocol):
    """What happens to a lane."""

    def dial(self, remote: PublicKey) -> None:
        """We opened the connection to `remote`."""

    def accept(self) -> None:
        """The other side opened it."""

    def act(self, data: bytes) -> None:
        """The next act of the handshake has come."""

    def hello(self, message: Hello, now: float) -> None:
        """The first frame has come."""

    def end(self) -> None:
        """The connection is gone."""

    def _answered(self) -> None:
        """Act one was right and act two is under way."""

    def _keyed(self) -> None:
        """Both sides hold keys."""


class Lane:
    """One connection. `remote` and the lane's `number` are given by who dials, learned by who accepts."""

    __slots__ = (
        "_end", "_ephemeral", "_expected", "_has_keys", "_instance", "_lanes", "_machine", "_open_next",
        "_owner", "_secret", "_start", "_view", "backend", "backward", "bytes_received", "cells", "control",
        "deadline", "dialled", "drops", "filled", "forward", "frames", "initiator", "network_id", "number",
        "outgoing", "remote", "responder", "runs", "sealer", "state",
    )  # fmt: skip

    def __init__(
        self,
        secret: SecretKey,
        network_id: int,
        ephemeral: SecretKey,
        backend: Backend,
        owner: LaneOwner,
        now: float,
        instance: int | None = None,
        lanes: int = 1,
    ) -> None:
        self._secret = secret
        self._ephemeral = ephemeral
        self._owner = owner
        self._instance = instance
        self._lanes = lanes
        self.number = 0
        self._view = memoryview(bytearray(FIRST_BUFFER))
        self._start = self._end = 0
        self._has_keys = False
        self._open_next: Callable[[memoryview, int, int], int]
        self.filled: Callable[[int, float], bool] = self._filled_acts
        """`filled(size, now)`: so many bytes were received; true if `outgoing` may hold an answer of the
        handshake. Raises MeshError: the connection must be closed, and why."""
        self._expected = 0
        self.network_id = network_id
        self.backend = backend
        self.remote: PublicKey | None = None
        self.dialled = False
        self.initiator: Initiator | None = None
        self.responder: Responder | None = None
        self.sealer = Sealer(size=FIRST_SEALER)
        self.outgoing = bytearray()
        self.deadline: float | None = now + HANDSHAKE_SECONDS
        self.forward: Steps = {}
        self.backward: Steps = {}
        self.runs: dict[int, Run] = {}
        self.drops = [0] * len(Drop)
        self.control: Callable[[int, memoryview, float], None] = self._first_frame
        self.bytes_received = 0
        self.cells = 0
        self.frames = 0
        self.state = "new"
        self._machine: _Inputs = _machine(self)

    def dial(self, remote: PublicKey, number: int = 0) -> None:
        """Starts the handshake towards `remote` for lane `number`; act one lies in `outgoing`."""
        self.number = number
        self._machine.dial(remote)

    def accept(self) -> None:
        """Waits for act one."""
        self._machine.accept()

    def buffer(self) -> memoryview:
        """Free memory to receive into; never empty. Asked for anew before each receive."""
        return self._view[self._end : BUFFER_SIZE]

    def _filled_records(self, size: int, now: float) -> bool:
        """`filled` once there are keys: opens every whole record and acts on its frames.

        The tag behind a bundle lets the head of its last frame be read, however short that is.
        """
        self.bytes_received += size
        filled = self._end = self._end + size
        view, open_next, start = self._view, self._open_next, self._start
        cells = 0
        while start < filled and (after := open_next(view, start, filled)):
            position, end, start = start + LENGTH_SIZE, after - TAG_SIZE, after
            while position < end:
                length, kind, label, seq = _unpack(view, position)
                stop = position + 2 + length
                if kind & 0x7E != CELL or length < _CELL_COUNTED or stop > end:
                    self._other_frame(kind, position, stop, end, now)
                    position = stop
                    continue
                run = self.runs.get(label) if stop < end else None
                if run is not None and (taken := run(view, position, end, now)):
                    cells += taken
                    position += taken * (length + 2)
                    continue
                cells += 1
                step = (self.backward if kind & 1 else self.forward).get(label)
                if step is None:
                    self.drops[Drop.UNKNOWN_LABEL] += 1
                elif drop := step(seq, view[position + _CELL_HEAD : stop], now, kind >= MARKED):
                    self.drops[drop] += 1
                position = stop
        self.cells += cells
        if start == filled:
            self._start = self._end = 0
        else:
            self._keep(start, filled)
        return False

    def _keep(self, start: int, end: int) -> None:
        """A part of a record waits for the rest; moves it to the front where the room behind it is short."""
        if BUFFER_SIZE - end < LARGEST_RECORD + OVERHEAD:
            rest = end - start
            self._view[:rest] = self._view[start:end]
            start, end = 0, rest
        self._start, self._end = start, end

    def serve(self, tables: Tables, control: Callable[[int, memoryview, float], None]) -> None:
        """From now on cells go to these tables and all other frames to `control`."""
        self.forward = tables.forward
        self.backward = tables.backward
        self.runs = tables.runs
        self.drops = tables.drops
        self.control = control
        self.deadline = None

    def tick(self, now: float) -> None:
        """Raises TimedOutError when the handshake has taken too long."""
        if self.deadline is not None and now >= self.deadline:
            raise TimedOutError(f"no handshake within {HANDSHAKE_SECONDS:.0f} s")

    def ended(self, why: MeshError) -> MeshError:
        """The connection is gone; returns the error to show, clearer where the state tells more.

        Its buffer goes at once: connection and lane know each other, and Python's collector, which counts
        objects and not bytes, would let a quarter of a megabyte of each lie for many minutes.
        """
        state = self.state
        self._machine.end()
        self._view, self._start, self._end = _NOTHING, 0, 0
        if isinstance(why, LinkLostError) and self.dialled:
            if state == "awaiting act two":
                return LinkLostError(
                    "the other side hung up during the handshake: it has another key than expected, belongs "
                    "to another network, or is not a mesh node"
                )
            if state == "awaiting hello":
                return LinkLostError(
                    "the other side hung up when it learned our key: its [link] accept does not name this "
                    "node, or it has too many links"
                )
        return why

    @property
    def is_up(self) -> bool:
        """Both HELLOs have been exchanged and the connection stands."""
        return self.state == "up"

    def _filled_acts(self, size: int, now: float) -> bool:
        """`filled` during the handshake: feeds whole acts to the machine."""
        self.bytes_received += size
        self._end += size
        while not self._has_keys and self._end - self._start >= self._expected:
            stop = self._start + self._expected
            data = bytes(self._view[self._start : stop])
            self._start = stop
            self._machine.act(data)
        if self._has_keys:
            self.filled(0, now)  # what lies behind the last act, in the new buffer
        return True

    def _other_frame(self, kind: int, position: int, stop: int, end: int, now: float) -> None:
        if stop > end or stop == position + 2:
            raise ProtocolError("a frame is longer than its bundle, or empty")
        if stop - position - 2 > LARGEST_FRAME:
            raise ProtocolError(f"a frame is longer than the {LARGEST_FRAME} bytes that HELLO allows")
        if kind & 0x7E == CELL:
            raise ProtocolError("a cell is shorter than its header")
        self.frames += 1
        self.control(kind, self._view[position + 3 : stop], now)

    def _first_frame(self, kind: int, body: memoryview, now: float) -> None:
        if kind == PAD:
            return
        if kind != HELLO:
            raise ProtocolError(f"frame kind {kind} came before HELLO")
        message = decode(Hello, body)
        check_hello(message, self._lanes)
        self._machine.hello(message, now)

    def keyed(self, keys: tuple[bytes, bytes, bytes]) -> None:
        """The handshake gave keys: (sending, receiving, chaining). Our HELLO follows at once."""
        send, receive, chaining = keys
        rest = self._view[self._start : self._end]
        self._view = pages(BUFFER_SIZE + _CELL_HEAD)
        self._view[: len(rest)] = rest
        self._start, self._end = 0, len(rest)
        self._open_next = Opener(RotatingKey(receive, chaining, self.backend)).open_next
        self._has_keys = True
        self.filled = self._filled_records
        self.sealer = Sealer(RotatingKey(send, chaining, self.backend), size=FIRST_SEALER)
        hello = encode(our_hello(self._instance, self.number, self._lanes))
        room = self.sealer.room(HELLO, len(hello))
        assert room is not None  # an empty sealer has room for a HELLO
        room[:] = hello
        self.sealer.commit(len(hello))
        record = self.sealer.seal()
        self.outgoing += record
        self.sealer.sent(len(record))


_builder = TypeMachineBuilder(_Inputs, Lane)
_new = _builder.state("new")
_act_one = _builder.state("awaiting act one")
_act_two = _builder.state("awaiting act two")
_act_three = _builder.state("awaiting act three")
_greeting = _builder.state("awaiting hello")
_up = _builder.state("up")
_ended = _builder.state("ended")


@_new.upon(_Inputs.end).to(_ended)
@_act_one.upon(_Inputs.end).to(_ended)
@_act_two.upon(_Inputs.end).to(_ended)
@_act_three.upon(_Inputs.end).to(_ended)
@_greeting.upon(_Inputs.end).to(_ended)
@_up.upon(_Inputs.end).to(_ended)
def _end(inputs: _Inputs, lane: Lane) -> None:
    lane.state = "ended"


@_new.upon(_Inputs.dial).to(_act_two)
def _dial(inputs: _Inputs, lane: Lane, remote: PublicKey) -> None:
    lane.state, lane.dialled, lane.remote = "awaiting act two", True, remote
    lane.initiator = Initiator(lane._secret, remote, prologue(lane.network_id), lane._ephemeral, lane.backend)
    lane.outgoing += lane.initiator.act_one()
    lane._expected = ACT_TWO


@_new.upon(_Inputs.accept).to(_act_one)
def _accept(inputs: _Inputs, lane: Lane) -> None:
    lane.state = "awaiting act one"
    lane.responder = Responder(lane._secret, prologue(lane.network_id), lane._ephemeral, lane.backend)
    lane._expected = ACT_ONE


@_act_two.upon(_Inputs.act).loop()
def _read_act_two(inputs: _Inputs, lane: Lane, data: bytes) -> None:
    assert lane.initiator is not None  # set by `dial`
    lane.outgoing += lane.initiator.act_two(data)
    lane.keyed(lane.initiator.keys)
    inputs._keyed()


@_act_one.upon(_Inputs.act).loop()
def _read_act_one(inputs: _Inputs, lane: Lane, data: bytes) -> None:
    assert lane.responder is not None  # set by `accept`
    lane.outgoing += lane.responder.act_one(data)
    lane._expected = ACT_THREE
    inputs._answered()


@_act_one.upon(_Inputs._answered).to(_act_three)
def _answered(inputs: _Inputs, lane: Lane) -> None:
    lane.state = "awaiting act three"


@_act_three.upon(_Inputs.act).loop()
def _read_act_three(inputs: _Inputs, lane: Lane, data: bytes) -> None:
    assert lane.responder is not None  # set by `accept`
    lane.remote = lane.responder.act_three(data)
    lane._owner.identified(lane, lane.remote)
    lane.keyed(lane.responder.keys)
    inputs._keyed()


@_act_two.upon(_Inputs._keyed).to(_greeting)
@_act_three.upon(_Inputs._keyed).to(_greeting)
def _keys_known(inputs: _Inputs, lane: Lane) -> None:
    lane.state = "awaiting hello"


@_greeting.upon(_Inputs.hello).to(_up)
def _greeted(inputs: _Inputs, lane: Lane, message: Hello, now: float) -> None:
    lane.state = "up"
    if not lane.dialled:
        lane.number = message.lane
    lane._owner.up(lane, message, now)


_ended.upon(_Inputs.end).loop().returns(None)

_machine = _builder.build()
