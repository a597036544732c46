"""Who listens to a chain, and how far each has heard: the past out of the store, then what happens.

A listener has a place in the order of all events, and everything it hears comes from there: from the blocks
of the last minutes, which are kept, or from the store, piece by piece. So there is no gap and no repetition
between past and present, and no queue: who reads slowly just stays behind, at the cost of a place, and who
does not read at all for `COIN_EVENT_STALL_SECONDS` is told goodbye. Pending transactions alone have no place;
a listener that is behind, or does not read, does not hear of them.

In the reactor's thread; pieces of the past are read in the store's, `COIN_EVENT_REPLAYS` at a time.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Sequence
from typing import Any, Final, Protocol

from twisted.internet.defer import Deferred
from twisted.logger import Logger
from twisted.python.failure import Failure

from coin.chain.address import Address
from coin.chain.block import Block
from coin.chain.rules import Applied, Signers
from coin.chain.transaction import Transaction
from coin.events.content import Content, Event, pending
from coin.events.history import Piece, settled
from coin.events.wanted import Place, Wanted
from meshnet.errors import RefusedError
from meshnet.limits import COIN_EVENT_LISTENERS, COIN_EVENT_REPLAYS, COIN_EVENT_STALL_SECONDS

RECENT: Final = 64
"""Blocks that are kept for those who listen."""
_log = Logger()
Read = Callable[[Wanted, int, int], "Deferred[Piece]"]
"""Reads a piece of the past, see `read_piece`."""


class Ear(Protocol):
    """Where a listener's events go."""

    def event(self, event: Event) -> None:
        """One more. It may call `Listener.pause` meanwhile."""

    def end(self, why: str) -> None:
        """There are no more: a sentence for who listens."""


class Listener:
    """Somebody who listens. `place` is the next event's; `caught_up` whether all that has been was told."""

    def __init__(self, hub: Hub, wanted: Wanted, place: Place, ear: Ear) -> None:
        self.wanted = wanted
        self.place = place
        self.paused_since: float | None = None
        self.closed = False
        self._hub = hub
        self._ear = ear
        self._ahead: deque[tuple[Content, Content | None]] = deque()
        self._until = place.height
        self._reading = False
        self._pumping = False
        self._change: Callable[[], None] | None = None

    @property
    def caught_up(self) -> bool:
        """Whether it waits for the next block."""
        return self.place.height > self._hub.height

    def change(self, call: Callable[[], None]) -> None:
        """Calls when `wanted` may be changed: with the events before `place` told, and nothing of those
        behind it looked up. A change that waits is forgotten for a later one."""
        self._change = call
        self.pump()

    def pause(self) -> None:
        """Its bytes do not leave."""
        if self.paused_since is None:
            self.paused_since = self._hub.now()

    def resume(self) -> None:
        """They do."""
        self.paused_since = None
        self.pump()

    def close(self) -> None:
        """It listens no more."""
        self.closed = True
        self._ahead.clear()
        self._hub.forget(self)

    def pump(self) -> None:
        """Tells what there is, as long as it is taken."""
        if self._pumping:
            return
        self._pumping = True
        try:
            while not self.closed and self.paused_since is None and self._step():
                pass
        finally:
            self._pumping = False

    def _step(self) -> bool:
        """Tells the next height, or skips what has nothing; False if there is none to tell now."""
        if self._ahead:
            content, older = self._ahead[0]
            if self._tell(content, older):
                self._ahead.popleft()
            return True
        if self.place.height < self._until:
            self.place = Place(self._until)
            return True
        if self._reading:
            return False
        if self._change is not None:
            change, self._change = self._change, None
            change()
            return True
        if self.caught_up:
            return False
        found = self._hub.recent(self.wanted, self.place.height)
        if found is not None:
            self._tell(*found)
            return True
        self._reading = True
        self._hub.replay(self)
        return bool(self._ahead) or self.place.height < self._until  # read already

    def _tell(self, content: Content, older: Content | None) -> bool:
        """The events of a height from `place` on; False if it was paused in the midst of them."""
        index = self.place.index if content.sequence == self.place.height else 0
        for at, event in self.wanted.events(content, older, index):
            if self.closed or self.paused_since is not None:
                self.place = Place(content.sequence, at)
                return False
            self._ear.event(event)
        self.place = Place(content.sequence + 1)
        return True

    def replayed(self, piece: Piece | Failure) -> None:
        """A piece of the past is there, or could not be read."""
        self._reading = False
        if self.closed:
            return
        if isinstance(piece, Failure):
            _log.failure("events could not be read", piece)
            self.leave("The events cannot be read now: see the node's log.")
            return
        self._ahead.extend(piece.contents)
        self._until = piece.until
        if piece.until > self.place.height or piece.contents:
            self.pump()

    def hear(self, event: Event) -> None:
        """What has no place, for who is not behind."""
        if self.caught_up and self.paused_since is None and not self.closed:
            self._ear.event(event)

    def leave(self, why: str) -> None:
        """Ends it from our side."""
        if not self.closed:
            self.close()
            self._ear.end(why)


class Hub:
    """All listeners of a chain whose last block is number `height`. `now` gives monotonic seconds. `dropped`
    counts those that did not read."""

    def __init__(self, height: int, read: Read, now: Callable[[], float]) -> None:
        self.height = height
        self.now = now
        self.listeners: set[Listener] = set()
        self.dropped = 0
        self._read = read
        self._recent: dict[int, Content] = {}
        self._waiting: deque[Listener] = deque()
        self._running = 0

    def listen(self, wanted: Wanted, place: Place | None, ear: Ear) -> Listener:
        """A new listener, from a place on (None: from the next block); it hears nothing before its first
        `pump`. RefusedError if there are too many."""
        if len(self.listeners) >= COIN_EVENT_LISTENERS:
            raise RefusedError(f"{COIN_EVENT_LISTENERS} listen to events already; try again later.")
        listener = Listener(self, wanted, place or Place(self.height + 1), ear)
        self.listeners.add(listener)
        return listener

    def forget(self, listener: Listener) -> None:
        """It has gone."""
        self.listeners.discard(listener)

    # -- what happens

    def added(self, blocks: Sequence[Block], changes: Sequence[Applied]) -> None:
        """Blocks are in the store, durable."""
        if not blocks:
            return
        self.height = blocks[-1].header.sequence
        if not self.listeners:
            self._recent.clear()
            return
        pairs = list(zip(blocks, changes, strict=True))[-RECENT:]
        for block, change in pairs:
            self._recent[block.header.sequence] = Content(block, change.inputs)
        for sequence in list(self._recent)[:-RECENT]:
            del self._recent[sequence]
        for listener in list(self.listeners):
            listener.pump()

    def came(self, it: Transaction, owners: Signers, unix: float, why: str) -> None:
        """A loose transaction is in the pool; `why` it goes into no block yet."""
        if any("pending" in each.wanted.kinds for each in self.listeners):
            self.say(*pending(it, owners, int(unix), why))

    def say(self, event: Event, touched: Collection[Address]) -> None:
        """Something without a place, for those who want that kind and one of the addresses."""
        for listener in list(self.listeners):
            wanted = listener.wanted
            if event.kind in wanted.kinds and (
                wanted.addresses is None or not wanted.addresses.isdisjoint(touched)
            ):
                listener.hear(event)

    def tick(self) -> None:
        """Now and then: parts with who does not read."""
        now = self.now()
        for listener in list(self.listeners):
            since = listener.paused_since
            if since is not None and now - since > COIN_EVENT_STALL_SECONDS:
                self.dropped += 1
                listener.leave(f"Nothing was read for {COIN_EVENT_STALL_SECONDS:.0f} seconds.")

    def stop(self) -> None:
        """Ends all."""
        self._waiting.clear()
        for listener in list(self.listeners):
            listener.leave("The node stops; come again and go on from the last id.")

    # -- what has been

    def recent(self, wanted: Wanted, height: int) -> tuple[Content, Content | None] | None:
        """The blocks that events of a height are about, if they are kept."""
        content = self._recent.get(height)
        sequence = wanted.older(height)
        older = self._recent.get(sequence) if sequence is not None else None
        if content is None or (older is None and sequence is not None):
            return None
        return content, older

    def replay(self, listener: Listener) -> None:
        """Has a piece of the past read for it, when its turn comes."""
        self._waiting.append(listener)
        self._next()

    def _next(self) -> None:
        while self._waiting and self._running < COIN_EVENT_REPLAYS:
            listener = self._waiting.popleft()
            if listener.closed:
                continue
            self._running += 1
            wanted, start = settled(listener.wanted), listener.place.height
            self._read(wanted, start, self.height).addBoth(self._done, listener)

    def _done(self, result: Any, listener: Listener) -> None:
        self._running -= 1
        listener.replayed(result)
        self._next()
