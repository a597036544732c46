"""Who is sent over which conversation: one along each route or course and under each identity.

Whoever asks while its circuit is on the way waits for it, and fails with it. A conversation that has lost its
circuit is waited for too, but only until the next attempt to make a new one has ended. If the other end has
forgotten it by then, as after a restart, who waited goes on over a fresh one: nothing of it was sent yet.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, TypeVar

from twisted.internet.defer import Deferred, fail

from meshnet.cipher.keys import SecretKey
from meshnet.errors import MeshError, UsageError
from meshnet.node.conversation import Conversation, Journey
from meshnet.session.codes import ForgottenError
from meshnet.session.session import Session

if TYPE_CHECKING:
    from meshnet.node.router import Router

IDENTITIES: Final = ("anonymous", "node")

T = TypeVar("T")

Waiter = Callable[[Conversation | MeshError, float], None]
"""Told once when a circuit stands or fails."""

_Key = tuple[Journey, str]


class Calls:
    """The conversations that calls of this node share."""

    def __init__(self, router: Router, secret: SecretKey) -> None:
        self._router = router
        self._identities = {"anonymous": None, "node": secret}
        self._standing: dict[_Key, Conversation] = {}
        self._dialled: dict[_Key, list[Waiter]] = {}

    def __len__(self) -> int:
        return len(self._standing) + len(self._dialled)

    def call(self, journey: Journey, identity: str, use: Callable[[Session, float], T]) -> Deferred[T]:
        """What `use` makes of a session along a route or course, over a standing circuit or a new one."""
        if identity not in IDENTITIES:
            return fail(UsageError(f"identity is one of {', '.join(IDENTITIES)}, not {identity!r}"))
        result: Deferred[T] = Deferred()

        def told(outcome: Conversation | MeshError, now: float) -> None:
            if result.called:  # given up meanwhile
                return
            try:
                if isinstance(outcome, MeshError):
                    raise outcome
                assert outcome.session is not None  # a conversation that is told of has one
                answer = use(outcome.session, now)
            except MeshError as problem:
                result.errback(problem)
            else:
                result.callback(answer)

        self._await((journey, identity), told)
        return result

    def forget(self, conversation: Conversation) -> None:
        """Nobody is sent over it any more."""
        for identity in IDENTITIES:
            key = (conversation.journey, identity)
            if self._standing.get(key) is conversation:
                del self._standing[key]

    def _await(self, key: _Key, waiter: Waiter) -> None:
        """Tells `waiter` of a conversation."""
        now = self._router.now()
        conversation = self._standing.get(key)
        if conversation is not None:
            session = conversation.session
            if session is not None and session.live:
                if session.paths.waits_until is not None:
                    self._router.renewals.wait(
                        conversation, lambda outcome, now: self._waited(key, waiter, outcome, now)
                    )
                    return
                leg = conversation.leg
                if leg is not None and (now < leg.fresh_until or session.streams):
                    waiter(conversation, now)
                    return
            del self._standing[key]
        if key in self._dialled:
            self._dialled[key].append(waiter)
            return
        self._dialled[key] = [waiter]
        self._router.dial(
            key[0], self._identities[key[1]], lambda outcome, now: self._told(key, outcome, now)
        )

    def _waited(self, key: _Key, waiter: Waiter, outcome: Conversation | MeshError, now: float) -> None:
        """What became of a conversation without circuit; one that is forgotten is in `_standing` no more."""
        if isinstance(outcome, ForgottenError):
            self._await(key, waiter)
        else:
            waiter(outcome, now)

    def _told(self, key: _Key, outcome: Conversation | MeshError, now: float) -> None:
        if isinstance(outcome, Conversation):
            self._standing[key] = outcome
        for waiter in self._dialled.pop(key, []):
            waiter(outcome, now)
