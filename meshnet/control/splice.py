"""Joins two streams into one: what comes from one goes to the other, with back-pressure and half-closes.

Each direction is a `Flow`: it reads one stream and writes the other. What the other does not take is held
and not credited, so the sender's own window bounds it: DOOR_READ bytes from a local socket, a stream's
window from the mesh. Until a flow knows where its bytes go it holds them in the same way. Where the other is
`stopped`, bytes are credited and dropped: that half is over, the opposite one goes on.
"""

from __future__ import annotations

from typing import Final

from meshnet.errors import MeshError
from meshnet.streams import Stream

CANCELLED: Final = 2
"""Code of a reset (docs/wire-format.md §5): we want no more."""


class Flow:
    """One direction: the reader of `source`, the writer of `sink`. `back` is the other direction.

    `broken` is the error that ended `source`, None while it lives.
    """

    __slots__ = ("_finishing", "_held", "back", "broken", "sink", "source")

    def __init__(self) -> None:
        self.source: Stream | None = None
        self.sink: Stream | None = None
        self.back: Flow | None = None
        self.broken: MeshError | None = None
        self._held = bytearray()
        self._finishing = False

    def data_received(self, data: memoryview) -> None:
        """Passes on what the sink takes; holds a copy of the rest."""
        sink, source = self.sink, self.source
        if sink is None or source is None or self._held:
            self._held += data
            return
        size = len(data)
        taken = size if sink.stopped else sink.write(data)
        if taken < size:
            self._held += data[taken:]
        if taken:
            source.consumed(taken)

    def finished(self) -> None:
        """The sink is finished too, once it has taken everything."""
        self._finishing = True
        self.pump()

    def lost(self, why: MeshError) -> None:
        """The sink is reset: what was not delivered is lost."""
        self.broken = why
        self._held.clear()
        if self.sink is not None:
            self.sink.reset(CANCELLED)

    def drained(self) -> None:
        """Our source takes bytes again: those of the other direction."""
        if self.back is not None:
            self.back.pump()

    def pump(self) -> None:
        """Writes what is held, as far as the sink takes it; then the end, if there was one."""
        sink, source, held = self.sink, self.source, self._held
        if sink is None or source is None or self.broken is not None:
            return
        if held:
            with memoryview(held) as view:
                taken = len(view) if sink.stopped else sink.write(view)
            del held[:taken]
            if taken:
                source.consumed(taken)
        if self._finishing and not held:
            sink.finish()

    def open(self, sink: Stream) -> None:
        """Knows from now on where its bytes go, those held first. If its source is broken the sink is
        reset."""
        self.sink = sink
        if self.broken is not None:
            sink.reset(CANCELLED)
        else:
            self.pump()


def pair(near: Flow, near_stream: Stream, far: Flow, far_stream: Stream) -> None:
    """Makes two flows, the readers of these streams, the directions of one joint. Nothing passes before
    each was told where to, by `open`."""
    near.back, far.back = far, near
    near.source, far.source = near_stream, far_stream
