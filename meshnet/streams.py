"""Streams as their users see them: what both sides of the seam promise, wherever they live.

A session makes streams, a node hands them out, apps and Twisted transports read and write them. None of
these needs to know the others; they share these few shapes. A `memoryview` argument is borrowed until
return.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError


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


Accept = Callable[[Stream], StreamReader | None]
"""Called for each stream opened to a port; None refuses it."""


class PortListener(Protocol):
    """A mesh port of this node."""

    port: int

    def stop(self) -> None:
        """Accept no more; streams stay."""
