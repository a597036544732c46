"""Cells that came before AUTH: kept as far as there is room, read once the caller is known.

They count on the session's account, and each costs a little more than its bytes. What does not fit is dropped
without being acknowledged, and comes again.
"""

from __future__ import annotations

from meshnet.limits import AUTH_HELD, AUTH_SECONDS, PACKET_HELD
from meshnet.session.memory import Account

Cell = tuple[int, bytes, bool]
"""Packet number, plaintext, whether it was marked."""


class Held:
    """The cells of one circuit. `due` is when AUTH must have come, None while none are held."""

    __slots__ = ("_account", "_bytes", "_cells", "due")

    def __init__(self, account: Account) -> None:
        self._account = account
        self._bytes = 0
        self._cells: list[Cell] = []
        self.due: float | None = None

    def __bool__(self) -> bool:
        return bool(self._cells)

    def keep(self, number: int, plain: memoryview, now: float, marked: bool) -> bool:
        """Keeps a copy; false if there is no room."""
        cost = len(plain) + PACKET_HELD
        if self._bytes + cost > AUTH_HELD or cost > self._account.room():
            return False
        self._account.take(cost)
        self._bytes += cost
        self._cells.append((number, bytes(plain), marked))
        if self.due is None:
            self.due = now + AUTH_SECONDS
        return True

    def take(self) -> list[Cell]:
        """All of them; nothing is held any more."""
        self._account.give(self._bytes)
        cells, self._cells, self._bytes = self._cells, [], 0
        return cells
