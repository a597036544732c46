"""What the sessions of a node hold together: one sum, of which nobody gets more than a share.

A session may hold as much as a quarter of what is still free. So a few may hold much, very many little each,
the sum never reaches the limit, and whoever comes last still gets something. Bytes that wait to be sent may
take only an eighth, so that they never keep acknowledgements and data from coming in.

What is counted are the bytes that a peer can make a session keep: unread and early ones, those not yet
acknowledged, cells before AUTH, and streams.
"""

from __future__ import annotations

from typing import Final

from meshnet.limits import SESSIONS_HOLD

SHARE: Final = 4
SEND_SHARE: Final = 8


class Memory:
    """One per node: at most `limit` bytes are held, `used` are now."""

    __slots__ = ("limit", "used")

    def __init__(self, limit: int = SESSIONS_HOLD) -> None:
        self.limit = limit
        self.used = 0


class Account:
    """What one session holds of it: `held` bytes."""

    __slots__ = ("_closed", "_memory", "held")

    def __init__(self, memory: Memory) -> None:
        self._memory = memory
        self._closed = False
        self.held = 0

    def room(self) -> int:
        """Bytes that the session may hold more; below 1: none."""
        memory = self._memory
        return (memory.limit - memory.used) // SHARE - self.held

    def send_room(self) -> int:
        """The same for bytes that wait to be sent."""
        memory = self._memory
        return (memory.limit - memory.used) // SEND_SHARE - self.held

    def take(self, size: int) -> None:
        """`size` bytes more are held; whoever takes asks for room before."""
        if not self._closed:
            self.held += size
            self._memory.used += size

    def give(self, size: int) -> None:
        """`size` bytes are held no longer."""
        if not self._closed:
            self.held -= size
            self._memory.used -= size

    def close(self) -> None:
        """The session is over and holds nothing; what is taken or given later does not count."""
        self.give(self.held)
        self._closed = True
