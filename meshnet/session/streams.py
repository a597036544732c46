"""A two-way stream of a session, as an app holds it (docs/wire-format.md §5).

Ids are like QUIC's: the origin's are even, the other side's odd, each opener counts up by two, and an item
for a higher id opens all lower ones; so an id below is either in the table or gone. A stream that is known
only from later items waits without reader until its OPEN comes. It is forgotten when both directions are
done: everything arrived, or a RESET did.

Direction by direction: `finish` ends ours after its last byte, `stop` asks the peer to end his, `reset` does
both at once. A reader that was told `lost` (the peer sent RESET, or the session ended) hears nothing more and
our direction ends too.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from attrs import evolve

from meshnet.cipher.aead import Buffer
from meshnet.cipher.keys import PublicKey
from meshnet.errors import UsageError
from meshnet.session.carried import Carried
from meshnet.session.codes import Code
from meshnet.session.items import RESET, STOP, WINDOW
from meshnet.session.receiving import ReceiveHalf
from meshnet.session.sending import SendHalf
from meshnet.streams import Flow, PacketSink, PacketSource, StreamReader


class Owner(Protocol):
    """What a stream asks of its session."""

    @property
    def peer(self) -> PublicKey | None:
        """Who is on the other side."""

    def has_bytes(self, stream: Stream) -> None:
        """The stream has bytes, or its end, to send."""

    def say(self, kind: int, stream: Stream) -> None:
        """An item about the stream is to be sent: RESET, STOP or WINDOW."""

    def credit(self, size: int) -> None:
        """`size` received bytes are held no longer."""

    def room(self, buffered: int) -> int:
        """Bytes that a stream with so many unacknowledged may take more, as far as memory goes."""

    def hold(self, size: int) -> None:
        """A stream was given bytes to send."""

    def release(self, size: int) -> None:
        """Bytes to send are dropped."""

    def forget(self, stream: Stream) -> None:
        """Both directions are done."""

    def has_packets(self, carried: Carried) -> None:
        """The stream has packets to send."""

    def app_failed(self, stream: Stream, error: Exception) -> None:
        """What an app gave the stream raised."""

    @property
    def largest_packets(self) -> int:
        """Bytes of packets that a cell takes."""

    @property
    def flow(self) -> Flow:
        """How the circuit fares that is sent over."""

    def probe(self) -> None:
        """Asks for an acknowledgement over that circuit."""


class Stream:
    """One stream; made by `Session.open` or for an OPEN.

    `port` is the mesh port it was opened to, 0 until known. `reader` is None until accepted. `over` is set
    once the reader is to hear nothing more, `carried` are its packets, if it carries any. The other
    attributes belong to the session.
    """

    __slots__ = (
        "_owner", "_when_met", "announced", "carried", "id", "listed", "met", "over", "port", "reader",
        "receiving", "sending", "starved", "stop_code", "window_said",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, stream_id: int, port: int, sending: SendHalf, receiving: ReceiveHalf
    ) -> None:
        self._owner = owner
        self.id = stream_id
        self.port = port
        self.reader: StreamReader | None = None
        self.carried: Carried | None = None
        self.sending = sending
        self.receiving = receiving
        self.announced = False  # OPEN was sent or received
        self.met = False  # the other side has our OPEN, or opened it
        self._when_met: Callable[[], None] | None = None
        self.listed = False  # waits for its turn in a cell
        self.starved = False  # a write was short, and `drained` is owed
        self.window_said = False  # a WINDOW waits to be sent
        self.over = False
        self.stop_code: int = Code.NONE

    def __repr__(self) -> str:
        return f"<Stream {self.id} port {self.port}>"

    @property
    def peer(self) -> PublicKey | None:
        """Who is on the other side: the node called, or the caller where it said so."""
        return self._owner.peer

    @property
    def writable(self) -> int:
        """Bytes that `write` would take now."""
        half = self.sending
        return min(half.writable, self._owner.room(half.end - half.base))

    @property
    def stopped(self) -> bool:
        """The peer said STOP, or the stream was lost or reset: `write` takes nothing any more."""
        return self.over or self.sending.reset_code is not None

    def write(self, data: Buffer) -> int:
        """Bytes taken (copied), 0 to len(data); after a short write `drained` follows.

        A stream that is `stopped` takes nothing, and nothing follows. Raises UsageError after `finish`.
        """
        half = self.sending
        view = memoryview(data)
        if view.format != "B" or view.ndim != 1:
            view = view.cast("B")
        if not half.open:
            if half.reset_code is None and not self.over:
                raise UsageError("the stream was finished: nothing can be written any more")
            return 0
        size = half.write(view, self._owner.room(half.end - half.base))
        self._owner.hold(size)
        if size < len(view):
            self.starved = True
        if not self.listed and size:
            self._owner.has_bytes(self)
        return size

    def finish(self) -> None:
        """No more writes; what was taken is still delivered. Harmless if said twice."""
        half = self.sending
        if half.open:
            half.finishing = True
            if not self.listed:
                self._owner.has_bytes(self)

    def reset(self, code: int = Code.CANCELLED) -> None:
        """End both directions now; what was not delivered is lost. The reader hears nothing more."""
        self.over = True
        if self.receiving.done:
            self._owner.credit(self.receiving.drop())  # what it has not passed on
        self.stop(code)
        self.cut(code)

    def stop(self, code: int = Code.CANCELLED) -> None:
        """Ask the peer to send no more; what still comes is dropped, and the reader hears no `finished`."""
        half = self.receiving
        if half.done or half.stopped:
            return
        half.stopped = True
        self.stop_code = code
        self._owner.credit(half.drop())
        if half.size is not None:
            self.receive_done()
        else:
            self._owner.say(STOP, self)

    def consumed(self, size: int) -> None:
        """`size` received bytes have been passed on: the peer may send as many again.

        Raises UsageError for more than was received. After the end of the stream it is harmless.
        """
        half = self.receiving
        if self.over or half.stopped or (half.done and not half.complete):
            return  # the session has its credit already
        if not 0 <= size <= half.delivered - half.consumed:
            raise UsageError(f"{size} bytes cannot have been consumed")
        half.consumed += size
        self._owner.credit(size)
        if not self.window_said and half.window_due():
            self.window_said = True
            self._owner.say(WINDOW, self)

    def when_met(self, call: Callable[[], None]) -> None:
        """Calls once the other side has our OPEN, at once if it has, or if it opened the stream."""
        if self.met:
            call()
        else:
            self._when_met = call

    # packets

    def carry(self, source: PacketSource, sink: PacketSink) -> None:
        """Carries packets, too. A stream that has ended carries none."""
        if self.over or (self.sending.done and self.receiving.done):
            return
        if self.carried is None:
            self.carried = Carried(self, source, sink)
        self.carried.source, self.carried.sink = source, sink
        self.packets_ready()

    def packets_ready(self) -> None:
        """The source has packets again."""
        carried = self.carried
        if carried is None or self.over:
            return
        carried.ask()
        if not carried.listed:
            self._owner.has_packets(carried)

    @property
    def largest_packets(self) -> int:
        """Bytes of packets that a cell takes."""
        return self._owner.largest_packets

    def probe(self) -> None:
        """Asks the other side for a sign of life."""
        self._owner.probe()

    def flow(self) -> Flow:
        """How its packets fare."""
        flow, carried = self._owner.flow, self.carried
        if carried is None:
            return flow
        return evolve(
            flow,
            cells_out=carried.cells_out,
            bytes_out=carried.bytes_out,
            cells_arrived=carried.cells_arrived,
            cells_in=carried.cells_in,
            bytes_in=carried.bytes_in,
            marked_in=carried.marked_in,
        )

    def packets_failed(self, error: Exception) -> None:
        """Its source or its sink raised."""
        self._owner.app_failed(self, error)

    # what the session does with it

    def arrived(self) -> None:
        """The other side has our OPEN."""
        self.met = True
        call, self._when_met = self._when_met, None
        if call is not None and not self.over:
            call()

    def cut(self, code: int) -> None:
        """Ends our direction with RESET, unless everything has arrived or was reset already."""
        half = self.sending
        if half.reset_code is None and not half.done:
            self._owner.release(half.reset(code))
            self._owner.say(RESET, self)

    def receive_done(self) -> None:
        """The peer's direction is done."""
        self.receiving.done = True
        self.check_end()

    def send_done(self) -> None:
        """Our direction is done: all bytes, or a RESET, arrived."""
        self.sending.done = True
        self.check_end()

    def check_end(self) -> None:
        """Tells the session when both directions are done."""
        if self.sending.done and self.receiving.done:
            self._owner.forget(self)

    def abandon(self) -> None:
        """The session is over: gives all memory back; nothing is sent or told any more."""
        self.over = True
        self.starved = False
        self.sending.reset(Code.GONE)
        self.receiving.drop()
        self.receiving.done = self.receiving.stopped = True
