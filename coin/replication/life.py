"""The life of a peer: waiting for its introduction → introduced → gone."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

from automat import TypeMachineBuilder

from coin.replication.messages import Introduction, Message, Reason


class Life(Protocol):
    """What can happen to a peer."""

    def introduce(self, said: Introduction) -> None:
        """INTR has come."""

    def offer(self, message: Message) -> None:
        """GIVP or DISC, which may come at any time."""

    def speak(self, message: Message) -> None:
        """Any other message."""

    def expire(self) -> None:
        """It has had the time for its introduction."""

    def part(self, reason: Reason, text: str) -> None:
        """We end it."""

    def lose(self) -> None:
        """Its connection is gone."""


class Mortal(Protocol):
    """What the machine tells its peer."""

    def on_introduced(self, said: Introduction) -> None:
        """To be judged."""

    def on_message(self, message: Message) -> None:
        """To be answered."""

    def on_parting(self, reason: Reason, text: str) -> None:
        """It is told so, and the connection closed."""

    def on_lost(self) -> None:
        """Nothing of it may be expected any more."""


def _build() -> Callable[[Mortal], Life]:
    builder = TypeMachineBuilder(Life, Mortal)  # type: ignore[type-abstract]  # any peer will do
    waiting = builder.state("waiting")
    introduced = builder.state("introduced")
    gone = builder.state("gone")

    @waiting.upon(Life.introduce).to(introduced)
    def _introduce(life: Life, peer: Mortal, said: Introduction) -> None:
        peer.on_introduced(said)

    @waiting.upon(Life.speak).to(gone)
    def _too_early(life: Life, peer: Mortal, message: Message) -> None:
        peer.on_parting(Reason.NO_INTRODUCTION, "It did not introduce itself first.")

    @waiting.upon(Life.expire).to(gone)
    def _too_late(life: Life, peer: Mortal) -> None:
        peer.on_parting(Reason.INTRODUCTION_TIMEOUT, "It did not introduce itself.")

    @introduced.upon(Life.introduce).to(gone)
    def _again(life: Life, peer: Mortal, said: Introduction) -> None:
        peer.on_parting(Reason.UNEXPECTED, "It introduced itself twice.")

    @introduced.upon(Life.speak).loop()
    def _speak(life: Life, peer: Mortal, message: Message) -> None:
        peer.on_message(message)

    for state in (waiting, introduced):

        @state.upon(Life.offer).loop()
        def _offer(life: Life, peer: Mortal, message: Message) -> None:
            peer.on_message(message)

        @state.upon(Life.part).to(gone)
        def _part(life: Life, peer: Mortal, reason: Reason, text: str) -> None:
            peer.on_parting(reason, text)

        @state.upon(Life.lose).to(gone)
        def _lose(life: Life, peer: Mortal) -> None:
            peer.on_lost()

    introduced.upon(Life.expire).loop().returns(None)
    for late in (Life.introduce, Life.offer, Life.speak, Life.expire, Life.part, Life.lose):
        gone.upon(late).loop().returns(None)
    return builder.build()


new_life: Callable[[Mortal], Life] = _build()
"""A machine for one peer, waiting for its introduction."""
