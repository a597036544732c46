"""What both sides keep of one call, and what is asked of those who made it and those who answer it.

A call of ours is an object of its maker's that has the attributes of `Asked`; the connection fills them in
and tells it exactly once how the call ended: `answered`, `failed` or `finished`. Who answers a call of the
peer's is an `Answerer`, and hears `cancelled` if nobody waits for the answer any more. Nothing here reads
bytes or knows of the wire.
"""

from __future__ import annotations

from typing import Any, Final, Protocol

from attrs import frozen

from meshnet.errors import MeshError
from meshnet.rpc.declare import Method


class Flow:
    """The streamed items of one call, on one side.

    `credit` is how many bytes we may still send, `allowed` how many may still come, `owed` how many were read
    since the last grant. `sending` and `receiving` say whether that direction is open.
    """

    __slots__ = ("allowed", "credit", "owed", "receiving", "sending")

    def __init__(self, credit: int, allowed: int, sending: bool, receiving: bool) -> None:
        self.credit = credit
        self.allowed = allowed
        self.owed = 0
        self.sending = sending
        self.receiving = receiving


class Asked(Protocol):
    """A call of ours, as the connection needs it. It sets the attributes; all but `method` are its own."""

    method: Method
    id: int
    """-1 while it waits for its turn."""
    size: int
    expires: float
    flow: Flow | None

    def answered(self, answer: Any) -> None:
        """The call has ended with its answer."""

    def failed(self, why: Exception) -> None:
        """The call has ended without: a MeshError, or what `cancel` was given."""

    def item(self, item: Any, cost: int) -> None:
        """An item came; say `Connection.consumed(self, cost)` when it has been taken."""

    def finished(self) -> None:
        """The call has ended: no more items come."""

    def writable(self) -> None:
        """The call has begun, or `Connection.send_item` takes items again."""


class Leaving:
    """A call of ours that has ended here, and of which the other side has not said the last word yet."""

    __slots__ = ("expires", "flow", "id", "method", "size")

    def __init__(self, asked: Asked, expires: float) -> None:
        self.method = NOTHING
        self.id = asked.id
        self.size = asked.size
        self.flow = asked.flow
        self.expires = expires

    def answered(self, answer: Any) -> None:
        """Nobody waits for it."""

    failed = answered

    def item(self, item: Any, cost: int) -> None:
        """Nobody wants it, and no more is granted."""

    def finished(self) -> None:
        """As it should."""

    writable = finished


@frozen
class _Nothing:
    """The method of a call that has ended: its answer is not even read."""

    many: bool = True
    streamed: bool = False

    @staticmethod
    def parse_answer(data: object) -> None:
        """Reads nothing."""

    parse_items = parse_answer


NOTHING: Final[Any] = _Nothing()


class Answerer(Protocol):
    """Who answers a call, and hears of what comes in between."""

    def cancelled(self, why: MeshError) -> None:
        """Nobody waits for the answer any more; nothing may be said of the call now."""

    def item(self, item: Any, cost: int) -> None:
        """An item came; say `Incoming.consumed(cost)` when it has been taken."""

    def finished(self) -> None:
        """The caller sends no more items."""

    def writable(self) -> None:
        """`Incoming.send_item` takes items again."""
