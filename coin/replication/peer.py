"""One peer: its connection, its life, what it is in the middle of. What it says is judged by `network`."""

from __future__ import annotations

from typing import Protocol

from coin.replication.life import Life, new_life
from coin.replication.messages import (
    Disconnect,
    Extra,
    Frames,
    GivePeers,
    Introduction,
    Message,
    Reason,
    encode_frame,
)
from meshnet.errors import CodecError

LOCAL_REASONS = 1_000
"""Reasons above are not sent."""


class Connection(Protocol):
    """A way to a peer; frames leave in order, each by itself."""

    def send(self, frame: bytes) -> None:
        """Takes a frame; a connection whose queue is full ends."""

    def close(self) -> None:
        """Ends it, when what was sent before is gone."""


class Owner(Protocol):
    """Who has many peers: the network."""

    def introduced(self, peer: Peer, said: Introduction) -> None:
        """It is to be judged."""

    def received(self, peer: Peer, message: Message) -> None:
        """It is to be answered."""

    def ended(self, peer: Peer, reason: Reason, text: str) -> None:
        """Nothing follows of it."""


class Peer:
    """A peer. `place` is what it is banned by, `address` where it is for people to read; times are monotonic
    seconds. `questions` are the kinds of its messages that wait for the store."""

    __slots__ = (
        "_connection", "_frames", "_owner", "address", "born", "ended", "extra", "heard", "life", "messages",
        "now", "number", "outgoing", "place", "points_at", "questions", "said", "sent", "spoken",
    )  # fmt: skip

    def __init__(
        self, owner: Owner, connection: Connection, number: int, place: str, address: str, now: float
    ) -> None:
        self._owner = owner
        self._connection = connection
        self._frames = Frames()
        self.number = number
        self.place = place
        self.address = address
        self.outgoing = False
        self.ended = False
        self.born = self.heard = self.spoken = self.now = now
        self.said: Introduction | None = None
        self.extra: Extra | None = None
        self.questions: set[str] = set()
        self.messages = 0.0  # of the last seconds, fading
        self.points_at = now
        self.sent = 0
        self.life: Life = new_life(self)

    @property
    def ready(self) -> bool:
        """Whether it was judged and is talked to."""
        return self.extra is not None

    def filled(self, data: bytes, now: float) -> None:
        """Bytes have come."""
        self.heard = self.now = now
        try:
            for message in self._frames.feed(data):
                self._hear(message)
                if self.ended:
                    break
        except CodecError as error:
            self.life.part(Reason.MALFORMED, f"It sent what is no message: {error}.")

    def _hear(self, message: Message) -> None:
        if isinstance(message, Introduction):
            self.life.introduce(message)
        elif isinstance(message, Disconnect | GivePeers):
            self.life.offer(message)
        else:
            self.life.speak(message)

    def send(self, message: Message) -> None:
        """Sends a message."""
        self.send_frame(encode_frame(message))

    def send_frame(self, frame: bytes) -> None:
        """Sends a message that is bytes already."""
        self.spoken = self.now
        self.sent += 1
        self._connection.send(frame)

    def on_introduced(self, said: Introduction) -> None:
        """See `life.Mortal`."""
        self.said = said
        self._owner.introduced(self, said)

    def on_message(self, message: Message) -> None:
        """See `life.Mortal`."""
        self._owner.received(self, message)

    def on_parting(self, reason: Reason, text: str) -> None:
        """See `life.Mortal`."""
        self.ended = True
        if reason < LOCAL_REASONS and reason is not Reason.RECEIVED_DISCONNECT:
            self.send(Disconnect(reason))
        self._connection.close()
        self._owner.ended(self, reason, text)

    def on_lost(self) -> None:
        """See `life.Mortal`."""
        self.ended = True
        self._owner.ended(self, Reason.NONE, "The connection has ended.")
