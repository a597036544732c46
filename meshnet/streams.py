"""Streams as their users see them: what both sides of the seam promise, wherever they live.

A session makes streams, a node hands them out, apps and Twisted transports read and write them. None of
these needs to know the others; they share these few shapes. A `memoryview` argument is borrowed until
return.

Beside its bytes a stream may carry IP packets, which are not sent again and keep no order: `carry`. They go
through cells in place. A source is asked for them while a cell is made and writes them there; a sink reads
them where the cell was opened. Their body is as the two apps agree.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import frozen

from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError, UsageError


class StreamReader(Protocol):
    """What an app gives a stream: where its bytes and its end go."""

    def data_received(self, data: memoryview) -> None:
        """Bytes in order, borrowed until return; say `Stream.consumed` once they have been passed on."""

    def finished(self) -> None:
        """The peer sends no more."""

    def lost(self, why: MeshError) -> None:
        """The stream was reset or its circuit is gone; nothing follows."""

    def drained(self) -> None:
        """`Stream.write` takes bytes again after a short write; or it is `stopped`, and never will."""


class PacketSource(Protocol):
    """What an app gives a stream that carries packets: where those come from that leave here.

    Nothing it is asked may take long or call the stream back, but for `packets_ready`.
    """

    def waiting(self) -> int:
        """Bytes of body that the next packet needs, 0 if none waits; asked for every cell, and again after
        `packets_ready`.

        A cell grows to this if it must, which is how one packet leaves that is larger than cells otherwise
        are on this path. It may be a guess: too high costs nothing; too low, and `pour` returns 0, after
        which this must say what the packet needs.
        """

    def pour(self, room: memoryview, now: float) -> int:
        """Writes whole packets at the start of `room` (borrowed), as many as wait and fit; bytes written.

        0 if none fits, or none waits after all. What is larger than `Stream.largest_packets` never will: it
        is for the source to cut or to drop it.
        """

    def accompany(self) -> None:
        """A cell is about to leave with nothing but an acknowledgement: who was only waiting for more to
        come may say `packets_ready`, and his packets go with it."""


class PacketSink(Protocol):
    """What an app gives a stream that carries packets: where those go that arrive here."""

    def packets_received(self, body: memoryview, marked: bool) -> None:
        """What one `pour` at the other end wrote, borrowed until return. `marked`: a relay on the way was
        congested, so that who sends them should send less."""


@frozen
class Flow:
    """How the packets of a stream fare, seen from one end: of its circuit now, then since `carry`.

    `rtt` in seconds (smoothed) and `rate` in bytes per second that arrive at the far end are 0.0 until
    measured; `window` and `in_flight` are bytes. What went out and is neither among `cells_arrived` nor in
    flight is lost, or too late to be waited for; `marked_in` came by a congested relay. Bytes are those of
    bodies. `heard` is another number whenever anything has come over the circuit.
    """

    rtt: float
    rate: float
    window: int
    in_flight: int
    cells_out: int = 0
    bytes_out: int = 0
    cells_arrived: int = 0
    cells_in: int = 0
    bytes_in: int = 0
    marked_in: int = 0
    heard: int = 0


class Stream(Protocol):
    """A two-way byte stream to a port of another node."""

    @property
    def port(self) -> int:
        """The mesh port it was opened to, 1 to 65,535."""

    @property
    def peer(self) -> PublicKey | None:
        """Who is on the other side: the node called, or the caller where it said so."""

    def write(self, data: bytes | bytearray | memoryview) -> int:
        """Bytes taken (copied), 0 to len(data); `drained` follows a short write. None are taken, and nothing
        follows, once it is `stopped`."""

    @property
    def stopped(self) -> bool:
        """Whether nothing of ours is wanted any more: the other side said so, or the stream is over. What it
        still sends arrives."""

    def finish(self) -> None:
        """No more writes; what was taken is still delivered."""

    def reset(self, code: int = 0) -> None:
        """End both directions now; what was not delivered is lost."""

    def consumed(self, size: int) -> None:
        """`size` received bytes have been passed on: the peer may send as many again."""

    def when_met(self, call: Callable[[], None]) -> None:
        """Calls once, when the other side knows of the stream: at once if it does. Where it refuses, its
        `lost` follows in the same turn; where the stream ends before, nothing is called."""

    def carry(self, source: PacketSource, sink: PacketSink) -> None:
        """From now on also carries packets, both ways, for as long as it lives; again with others, these take
        over. Those that come before are dropped and counted. Once the reader was told `lost`, or either end
        said `reset`, neither of the two is called any more.

        Raises UsageError where packets cannot pass: between processes.
        """

    def packets_ready(self) -> None:
        """The source has packets again, after `waiting` or `pour` said 0. Harmless at any time."""

    @property
    def largest_packets(self) -> int:
        """Bytes of body that one `pour` may write at most, on the circuit of now; 0 where none can pass."""

    def flow(self) -> Flow:
        """How its packets fare."""

    def probe(self) -> None:
        """Asks the other side for a sign of life over the circuit of now; `Flow.heard` tells that it came."""


class NoPackets:
    """The part of a stream that carries bytes alone, such as one to another process."""

    __slots__ = ()

    def carry(self, source: PacketSource, sink: PacketSink) -> None:
        """Raises UsageError."""
        raise UsageError("packets can be carried only by an app inside the node")

    def packets_ready(self) -> None:
        """There are none."""

    @property
    def largest_packets(self) -> int:
        """None can pass."""
        return 0

    def flow(self) -> Flow:
        """Nothing is known here of the circuit behind."""
        return Flow(0.0, 0.0, 0, 0)

    def probe(self) -> None:
        """Nobody would hear it here."""


Accept = Callable[[Stream], StreamReader | None]
"""Called for each stream opened to a port; None refuses it."""


class PortListener(Protocol):
    """A mesh port of this node."""

    port: int

    def stop(self) -> None:
        """Accept no more; streams stay."""
