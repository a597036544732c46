"""The two halves of a connection, and what a transport must offer.

A transport moves bytes and knows nothing of keys, frames or nodes. It receives straight into its sink's
buffer and sends straight from the caller's memory, so nothing is copied on the way. A `memoryview`
argument is borrowed until return; who keeps it copies it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from twisted.internet.defer import Deferred

from meshnet.errors import MeshError


class ByteSink(Protocol):
    """A lane's driver: where received bytes go. What it raises is logged and ends its connection."""

    def buffer(self) -> memoryview:
        """Writable memory to receive into; never empty."""

    def filled(self, size: int) -> None:
        """`size` ≥ 1 bytes of `buffer()` have been received."""

    def drained(self) -> None:
        """The carrier takes bytes again after a short `write`."""

    def lost(self, why: MeshError) -> None:
        """The connection has ended; called once, also after `ByteCarrier.close()`."""


class ByteCarrier(Protocol):
    """A transport's connection: where bytes to send go.

    It may have a method `limit_unsent(size)`: to hold about so many bytes at most that have not begun their
    way yet, since nothing overtakes them; beyond that `write` is short. It is told anew as the rate changes.
    """

    @property
    def remote(self) -> str:
        """Where the other end is, for people: `tcp:192.0.2.7:40222`; empty if that cannot be said."""

    def write(self, data: memoryview) -> int:
        """Bytes taken, 0 to len(data); the rest stays the caller's and `drained()` follows."""

    def pause(self) -> None:
        """Stop receiving until `resume()`."""

    def resume(self) -> None:
        """Receive again."""

    def close(self) -> None:
        """End the connection now; `lost()` follows in a later turn."""


Attach = Callable[[ByteCarrier], ByteSink]
"""Given a fresh connection, returns what receives its bytes. It may write or close at once, and may raise:
then the connection is closed and nobody is told `lost`."""


class Listener(Protocol):
    """An address that accepts connections. It may have a count `turned_away`, of those it hung up on before
    `attach`, since there were too many, and a method `know(remote)`, told from where neighbours came."""

    address: str

    def stop(self) -> None:
        """Accept no more; connections stay."""


class Transport(Protocol):
    """A way to reach neighbours. Addresses are `name:rest`, such as `tcp:127.0.0.1:7001`. It may have `known`
    (`known.py`), the last addresses of names, which a node then keeps over its restarts."""

    name: str

    def check(self, rest: str) -> None:
        """Raises ConfigError with a sentence if `rest` is no address of this transport."""

    def dial(self, rest: str, attach: Attach) -> Deferred[None]:
        """Fires when connected (after `attach` ran); fails with UnreachableError or TimedOutError, or with
        what `attach` raised. May be cancelled: then `attach` is not called any more."""

    def listen(self, rest: str, attach: Attach) -> Deferred[Listener]:
        """Fires when bound; `attach` runs for each connection, and what it raises is logged. Fails with
        LocalError (port in use)."""
