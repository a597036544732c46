"""Bench `rpc`: what a call costs.

In memory: both sides of a connection in this process, joined by a queue; 64 coroutines each make one call
after another. The cost is all CPU time of the process divided by the calls: encoding, frames, dispatch,
coroutines and Deferreds of both sides. Twisted's AMP does the same with the same arguments over a queue that
joins what it writes in a turn, measured alternately.

Over the mesh: two node processes on one loopback link, a session between them, 64 coroutines, requests and
answers of 1 KB.
"""

from __future__ import annotations

import gc
import os
import tempfile
import time
from collections import deque
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Annotated, Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.protocols import amp

from lab.benches.rows import Options, Row, row_of
from lab.benches.stream import print_profiles
from lab.nodes import Network, chain
from lab.processes import Processes
from meshnet.codec import U64, Fixed, message
from meshnet.rpc import Service, call
from meshnet.rpc.driver import Channel, Pending
from meshnet.rpc.service import entries
from meshnet.streams import NoPackets

TOGETHER = 64
CALLS = 20_000


@message
class Record:
    """What goes there and back."""

    number: U64
    key: Annotated[bytes, Fixed(32)]


class Echo(Service):
    """One method."""

    name = "echo"
    echo = call(1, Record, Record)


class OurEcho(Echo):
    """Gives back what came."""

    async def echo(self, request: Record) -> Record:
        """The same, with the next number."""
        return Record(request.number + 1, request.key)


class Turns:
    """A reactor that only has turns; it is the clock of both sides."""

    now = staticmethod(time.monotonic)

    def __init__(self) -> None:
        self.due: deque[Callable[[], None]] = deque()

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """In the next turn, or never."""
        if delay == 0:
            self.due.append(call)
        return lambda: None

    def run(self) -> None:
        """Until nothing is left to do."""
        due = self.due
        while due:
            due.popleft()()


class Pipe(NoPackets):
    """One end of a stream in memory: takes everything."""

    port = 1
    peer = None
    stopped = False

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.reader: Any = None
        self.other: Pipe = self
        self.bytes = 0

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Arrives in a later turn."""
        piece = bytes(data)
        self.bytes += len(piece)
        self.turns.due.append(lambda: self.other.reader.data_received(memoryview(piece)))
        return len(piece)

    def consumed(self, size: int) -> None:
        """There is no window."""

    def finish(self) -> None:
        """Never."""

    def reset(self, code: int = 0) -> None:
        """Never."""

    def when_met(self, call: Callable[[], None]) -> None:
        """Nobody asks."""


def in_memory() -> tuple[Turns, Channel, Pipe, Pipe]:
    """A caller's channel that is joined to one that offers `Echo`."""
    turns = Turns()
    near, far = Pipe(turns), Pipe(turns)
    near.other, far.other = far, near
    caller = Channel(turns, True, {}, lambda why: None)
    answerer = Channel(turns, False, {"echo": entries(OurEcho())}, lambda why: None)
    near.reader, far.reader = caller, answerer
    caller.attach(near)
    answerer.attach(far)
    return turns, caller, near, far


def _calls_cpu(count: int) -> float:
    """CPU seconds per call."""
    turns, caller, _, _ = in_memory()
    method = Echo.methods[1]
    left = [count]

    async def one_after_the_other() -> None:
        record = Record(7, bytes(32))
        while left[0] > 0:
            left[0] -= 1
            pending = Pending(method)
            caller.call(pending, record, 30.0)
            await pending

    return _timed(turns, one_after_the_other, count)


def _timed(turns: Turns, work: Callable[[], Coroutine[Any, Any, None]], count: int) -> float:
    ended: list[Any] = []
    gc.collect()
    start = time.process_time()
    for _ in range(TOGETHER):
        Deferred.fromCoroutine(work()).addBoth(ended.append)
    turns.run()
    spent = time.process_time() - start
    assert ended == [None] * TOGETHER, ended
    return spent / count


class EchoCommand(amp.Command):
    """The same as `Echo.echo`."""

    arguments: ClassVar = [(b"number", amp.Integer()), (b"key", amp.String())]
    response: ClassVar = [(b"number", amp.Integer()), (b"key", amp.String())]


class EchoAmp(amp.AMP):
    """Gives back what came."""

    @EchoCommand.responder
    def echo(self, number: int, key: bytes) -> dict[str, Any]:
        """The same, with the next number."""
        return {"number": number + 1, "key": key}


class AmpPipe:
    """A transport in memory that joins what is written in a turn, as sockets do."""

    def __init__(self, turns: Turns) -> None:
        self.turns = turns
        self.protocol: Any = None
        self.written: list[bytes] = []

    def write(self, data: bytes) -> None:
        """Arrives in a later turn."""
        if not self.written:
            self.turns.due.append(self._arrive)
        self.written.append(data)

    def writeSequence(self, data: list[bytes]) -> None:
        """The same."""
        self.write(b"".join(data))

    def _arrive(self) -> None:
        written, self.written = self.written, []
        self.protocol.dataReceived(b"".join(written))

    def getPeer(self) -> str:
        """Somebody."""
        return "memory"

    def getHost(self) -> str:
        """Us."""
        return "memory"


def _amp_cpu(count: int) -> float:
    """CPU seconds per call."""
    turns = Turns()
    near, far = AmpPipe(turns), AmpPipe(turns)
    caller, answerer = EchoAmp(), EchoAmp()
    near.protocol, far.protocol = answerer, caller
    caller.makeConnection(near)
    answerer.makeConnection(far)
    left = [count]

    async def one_after_the_other() -> None:
        while left[0] > 0:
            left[0] -= 1
            await caller.callRemote(EchoCommand, number=7, key=bytes(32))

    return _timed(turns, one_after_the_other, count)


def _overhead() -> float:
    """Bytes on the wire per call, beside the two messages; what is sent once per connection not counted."""
    turns, caller, near, far = in_memory()

    def round_trips(count: int) -> int:
        for _ in range(count):
            caller.call(Pending(Echo.methods[1]), Record(7, bytes(32)), 30.0)
        turns.run()
        return near.bytes + far.bytes

    first = round_trips(1)
    return (round_trips(1_000) - first) / 1_000 - 2 * 40


def run(options: Options) -> list[Row]:
    """The four rows; with `profile` a profile of each node goes to stderr."""
    count, runs = (2_000, 3) if options.quick else (CALLS, 15)
    _calls_cpu(1_000)
    _amp_cpu(1_000)
    ours, theirs = [], []
    for _ in range(runs):
        ours.append(_calls_cpu(count) * 1e6)
        theirs.append(_amp_cpu(count) * 1e6)
    ratios = [amp / mine for amp, mine in zip(theirs, ours, strict=True)]
    note = f"{TOGETHER} in flight, 40-byte request and answer, both sides in one process"
    said = f"AMP in the same run: {sorted(theirs)[runs // 2]:.0f} µs"
    return [
        row_of("rpc_cpu_us", ours, "µs", target=20.0, note=note),
        row_of("rpc_vs_amp", ratios, "×", target=5.0, better="higher", note=said),
        Row("rpc_overhead_bytes", _overhead(), "B", 1_000, target=14, note="request and answer together"),
        _over_a_link(options),
    ]


def _over_a_link(options: Options) -> Row:
    count, runs = (2_000, 1) if options.quick else (CALLS, 7)
    with tempfile.TemporaryDirectory(prefix="meshnet-") as folder:
        profile = Path(folder) if options.profile else None
        with Processes() as processes:
            plans = chain(Path(folder), {"alice": "user", "bob": "user"})
            network = Network.start(processes, plans, profile, probe=True)
            body = {"target": plans[1].public.hex(), "via": [], "count": count, "together": TOGETHER}
            path = "/apps/probe/calls"
            network["alice"].call("POST", path, {**body, "count": 2_000}, 120.0)  # the window opens
            rates = [count / network["alice"].call("POST", path, body, 120.0)["seconds"] for _ in range(runs)]
        if profile:
            print_profiles(profile)
    note = f"1 KB both ways, a loopback link, 2 processes on {os.cpu_count()} cores, {TOGETHER} in flight"
    return row_of("rpc_calls_per_s", rates, "1/s", target=10_000.0, better="higher", note=note)
