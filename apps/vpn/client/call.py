"""One call of an exit: the route, the stream, the lease on it, until either is over.

Tells its owner `granted` (again whenever the exit changes the terms) and once, at its end, `over`. After
`end` it tells nothing more. Packets are nobody's here: who carries them asks for `stream`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure

from apps.vpn.lease import PACKETS_PORT, ClientConversation, Granted, Lease, Wish
from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey
from meshnet.errors import LinkLostError, MeshError, TimedOutError
from meshnet.node.app import MeshNode
from meshnet.streams import Stream

ANSWER_SECONDS: Final = 20.0
"""So long an exit may take to give a lease, the circuit to it included."""


class ExitCall:
    """Say `start`; `over` may follow at once. `stream` is there when `granted` is called."""

    def __init__(
        self,
        node: MeshNode,
        target: Target,
        via: Sequence[PublicKey] | None,
        identity: str,
        wish: Wish,
        *,
        granted: Callable[[Lease], None],
        over: Callable[[MeshError], None],
        ways: Callable[[], Sequence[PublicKey]] | None = None,
    ) -> None:
        self.stream: Stream | None = None
        self.via = via
        self._conversation = ClientConversation(wish)
        self._granted = granted
        self._over: Callable[[MeshError], None] | None = over
        self._late: Callable[[], None] = lambda: None
        self._left = memoryview(self._conversation.ask())
        self._opening: Deferred[Stream] | None = None
        self._node = node
        self._target = target
        self._identity = identity
        self._ways = ways

    def start(self) -> None:
        """Calls."""
        self._late = self._node.clock.call_later(ANSWER_SECONDS, self._waited)
        self._opening = opening = self._node.connect(
            self._target, PACKETS_PORT, self, via=self.via, identity=self._identity, ways=self._ways
        )
        opening.addCallbacks(self._opened, self._unopened)

    def end(self) -> None:
        """Hangs up; tells nobody."""
        self._over = None
        self._late()
        if self.stream is not None:
            stream, self.stream = self.stream, None
            stream.reset()
        elif self._opening is not None:
            self._opening.cancel()

    # StreamReader

    def data_received(self, data: memoryview) -> None:
        """What the exit says of the lease."""
        if self.stream is not None:
            self.stream.consumed(len(data))
        for event in self._conversation.receive(data):
            if self._over is None:
                return
            if isinstance(event, Granted):
                self._late()
                self._granted(event.lease)
            else:
                self._finish(event.why)

    def finished(self) -> None:
        """A lease lasts as long as its stream."""
        self._finish(LinkLostError("the exit has ended the lease"))

    def lost(self, why: MeshError) -> None:
        """The stream was reset, or its circuits are gone for good."""
        self.stream = None
        self._finish(why)

    def drained(self) -> None:
        """What is left of the request."""
        if self.stream is not None and self._left:
            self._left = self._left[self.stream.write(self._left) :]

    # inside

    def _opened(self, stream: Stream) -> None:
        self._opening = None
        if self._over is None:  # too late to be cancelled
            stream.reset()
            return
        self.stream = stream
        self.drained()

    def _unopened(self, failure: Failure) -> None:
        self._opening = None
        if failure.check(CancelledError):
            return
        why = failure.value
        self._finish(why if isinstance(why, MeshError) else LinkLostError(str(why)))

    def _waited(self) -> None:
        self._finish(TimedOutError(f"the exit gave no lease within {ANSWER_SECONDS:.0f} s"))

    def _finish(self, why: MeshError) -> None:
        over = self._over
        self.end()
        if over is not None:
            over(why)
