"""The life of a session: opening → open → closing → closed.

Opening: the origin waits for AUTH to be acknowledged, the last hop for AUTH. Streams may be used at the
origin from the start. Closing: our CLOSE is repeated to whoever still sends, for a while. Nothing here is
asked per cell; the session keeps `live` beside it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from automat import TypeMachineBuilder

from meshnet.errors import MeshError


class Life(Protocol):
    """What can happen to a session."""

    def confirm(self) -> None:
        """AUTH was opened, or acknowledged."""

    def close(self, code: int, text: str, now: float) -> None:
        """We end it."""

    def peer_closed(self, error: MeshError) -> None:
        """The other side sent CLOSE."""

    def lose(self, error: MeshError) -> None:
        """Its last circuit is gone."""

    def expire(self) -> None:
        """CLOSE was repeated long enough."""


class Mortal(Protocol):
    """What the machine tells its session."""

    def on_open(self) -> None:
        """It is open."""

    def on_closing(self, code: int, text: str, now: float) -> None:
        """CLOSE is to be sent; streams end."""

    def on_closed(self, error: MeshError | None, by_peer: bool) -> None:
        """It is over; `error` is None where `on_closing` went before."""


def _build() -> Callable[[Mortal], Life]:
    builder = TypeMachineBuilder(Life, Mortal)  # type: ignore[type-abstract]  # any session will do
    opening = builder.state("opening")
    is_open = builder.state("open")
    closing = builder.state("closing")
    closed = builder.state("closed")

    @opening.upon(Life.confirm).to(is_open)
    def _open(life: Life, session: Mortal) -> None:
        session.on_open()

    for state in (opening, is_open):

        @state.upon(Life.close).to(closing)
        def _close(life: Life, session: Mortal, code: int, text: str, now: float) -> None:
            session.on_closing(code, text, now)

        @state.upon(Life.peer_closed).to(closed)
        def _peer_closed(life: Life, session: Mortal, error: MeshError) -> None:
            session.on_closed(error, True)

        @state.upon(Life.lose).to(closed)
        def _lose(life: Life, session: Mortal, error: MeshError) -> None:
            session.on_closed(error, False)

    @closing.upon(Life.expire).to(closed)
    def _expire(life: Life, session: Mortal) -> None:
        session.on_closed(None, False)

    @closing.upon(Life.peer_closed).to(closed)
    def _both_closed(life: Life, session: Mortal, error: MeshError) -> None:
        session.on_closed(None, False)

    @closing.upon(Life.lose).to(closed)
    def _lost_while_closing(life: Life, session: Mortal, error: MeshError) -> None:
        session.on_closed(None, False)

    # Late news are no news.
    is_open.upon(Life.confirm).loop().returns(None)
    for state in (opening, is_open):
        state.upon(Life.expire).loop().returns(None)
    for state in (closing, closed):
        state.upon(Life.confirm).loop().returns(None)
        state.upon(Life.close).loop().returns(None)
    closed.upon(Life.peer_closed).loop().returns(None)
    closed.upon(Life.lose).loop().returns(None)
    closed.upon(Life.expire).loop().returns(None)
    return builder.build()


new_life: Callable[[Mortal], Life] = _build()
"""A machine for one session, in state opening."""
