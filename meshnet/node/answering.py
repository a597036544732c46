"""Circuits that end here: the handshake is answered, and a session listens to what they bring."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from meshnet.cipher.aead import Backend
from meshnet.cipher.keys import SecretKey
from meshnet.circuit.arrival import Arrival
from meshnet.errors import CircuitError, HandshakeError, Reason, UnreachableError
from meshnet.limits import SESSION_SURVIVES, SESSIONS
from meshnet.node.conversation import Conversation, Leg
from meshnet.session import keys as end_to_end
from meshnet.session.session import Session

if TYPE_CHECKING:
    from meshnet.node.router import Router


class Answering:
    """One per router. `orphans` are conversations of others that have no circuit now, the oldest first."""

    def __init__(
        self,
        router: Router,
        network_id: int,
        unix: Callable[[], float],
        random: Callable[[int], bytes],
        backend: Backend,
    ) -> None:
        self._router = router
        self._network_id = network_id
        self._unix = unix
        self._random = random
        self._backend = backend
        self.orphans: dict[Conversation, None] = {}

    def arrived(self, arrival: Arrival, sessions: int, now: float) -> None:
        """Answers a circuit; there are so many sessions."""
        router = self._router
        if sessions >= SESSIONS and not self._one_less(now):
            router.circuits.refuse(arrival, Reason.BUSY, f"{SESSIONS} sessions are open already", now)
            return
        service = router.services.of(arrival, self._unix())
        secret = router.services.own.secret if service is None else service.secret
        ephemeral = SecretKey.draw(self._random)
        try:
            reply, keys = end_to_end.respond(
                secret, self._network_id, arrival.first_message, ephemeral, self._backend
            )
            if service is None:  # tried all the same, so that the time does not tell
                raise HandshakeError("no such service")
        except HandshakeError:
            router.circuits.refuse(arrival, Reason.UNKNOWN_SERVICE, "", now)
            return
        conversation, leg = Conversation(router, (), service, now), Leg(arrival, now)
        session = Session(
            keys,
            wake=leg.wake,
            notify=conversation.notify,
            accept=service.ports.accept,
            memory=router.session_memory,
            max_cell=arrival.max_cell,
            joinable=service.sessions,
            survives=SESSION_SURVIVES,
        )
        try:
            end = router.circuits.answer(arrival, reply, session.path, now)
        except CircuitError:
            return  # it was taken down meanwhile
        router.begin(conversation, session, leg, end)

    def _one_less(self, now: float) -> bool:
        """Ends the session that has waited for a circuit for longest; false if none waits."""
        for conversation in self.orphans:
            if conversation.session is not None:
                conversation.session.end(
                    UnreachableError("others need the room of a session without a circuit")
                )
                conversation.settle(now)
                return True
        return False
