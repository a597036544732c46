"""The mesh ports of a node: who is asked about a stream that another node opens here, who gets datagrams.

Streams and datagrams have ports of their own; a datagram to a port that nobody has is dropped.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Generic, TypeVar

from attrs import define

from meshnet.errors import LocalError, UsageError
from meshnet.node.app import Datagram, Receive
from meshnet.streams import Accept, Stream, StreamReader

T = TypeVar("T")


@define(eq=False)
class Listening(Generic[T]):
    """A taken port; `stop` gives it back."""

    port: int
    user: T
    _release: Callable[[int], object]

    def stop(self) -> None:
        """Accepts no more; streams stay. Harmless the second time."""
        self._release(self.port)
        self._release = lambda port: None


class Ports:
    """The taken ports of one node."""

    def __init__(self) -> None:
        self._streams: dict[int, Listening[Accept]] = {}
        self._datagrams: dict[int, Listening[Receive]] = {}

    def listen(self, port: int, accept: Accept) -> Listening[Accept]:
        """Takes `port`, 1 to 65,535, for streams. Raises LocalError if it is taken, UsageError if it is no
        port."""
        return _take(self._streams, port, accept)

    def listen_datagrams(self, port: int, receive: Receive) -> Listening[Receive]:
        """The same for datagrams."""
        return _take(self._datagrams, port, receive)

    @property
    def taken(self) -> list[int]:
        """The ports that streams may be opened to."""
        return sorted(self._streams)

    def accept(self, stream: Stream) -> StreamReader | None:
        """Asks whoever has the stream's port; None refuses it."""
        listening = self._streams.get(stream.port)
        return None if listening is None else listening.user(stream)

    def receive(self, port: int, datagram: Datagram) -> None:
        """Gives a datagram to whoever has its port."""
        listening = self._datagrams.get(port)
        if listening is not None:
            listening.user(datagram)


def _take(taken: dict[int, Listening[T]], port: int, user: T) -> Listening[T]:
    if not 1 <= port <= 0xFFFF:
        raise UsageError(f"A mesh port is 1 to 65535, not {port}.")
    if port in taken:
        raise LocalError(f"Mesh port {port} is taken on this node; choose another.")
    listening = taken[port] = Listening(port, user, lambda port: taken.pop(port, None))
    return listening
