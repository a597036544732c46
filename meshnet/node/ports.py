"""The mesh ports of a node: who is asked about a stream that another node opens here."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define

from meshnet.errors import LocalError, UsageError
from meshnet.node.app import Accept, Stream, StreamReader


@define(eq=False)
class Listening:
    """A taken port; `stop` gives it back."""

    port: int
    accept: Accept
    _release: Callable[[int], object]

    def stop(self) -> None:
        """Accepts no more; streams stay. Harmless the second time."""
        self._release(self.port)
        self._release = lambda port: None


class Ports:
    """The taken ports of one node."""

    def __init__(self) -> None:
        self._taken: dict[int, Listening] = {}

    def listen(self, port: int, accept: Accept) -> Listening:
        """Takes `port`, 1 to 65,535. Raises LocalError if it is taken, UsageError if it is no port."""
        if not 1 <= port <= 0xFFFF:
            raise UsageError(f"a mesh port is 1 to 65535, not {port}")
        if port in self._taken:
            raise LocalError(f"mesh port {port} is taken on this node; choose another")
        listening = self._taken[port] = Listening(port, accept, lambda port: self._taken.pop(port, None))
        return listening

    def accept(self, stream: Stream) -> StreamReader | None:
        """Asks whoever has the stream's port; None refuses it."""
        listening = self._taken.get(stream.port)
        return None if listening is None else listening.accept(stream)
