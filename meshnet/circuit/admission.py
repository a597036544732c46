"""What becomes of a CREATE: the checks, in the order of their cost, and the circuit that comes of it.

    label, rate, numbers      bare `busy`, before any cryptography
    epoch, path key, replay   bare `wrong_epoch`, `bad_onion`, `replay`
    peel                      bare `bad_onion`
    expiry                    error onion `clock_skew` with our time
    replay set                bare `replay` or `busy`; from here on the onion is used up
    terms, policy, link       error onions of our own

A CREATE that is refused before it is peeled leaves nothing behind, so that a flood costs no memory.
"""

from __future__ import annotations

from typing import Final

from meshnet.cipher.sphinx import BadOnion, Peeled, peel
from meshnet.circuit.arrival import Arrival
from meshnet.circuit.events import Arrived
from meshnet.circuit.failure import error_onion
from meshnet.circuit.messages import CREATE, NO_PATH_KEY, Create, HopTerms
from meshnet.circuit.origin import associated_data
from meshnet.circuit.replay import TAG, Replays
from meshnet.circuit.shared import Shared
from meshnet.circuit.side import Side
from meshnet.circuit.transit import Transit
from meshnet.codec import decode, encode
from meshnet.errors import CodecError, ProtocolError, Reason
from meshnet.limits import CIRCUIT_LIFE

_HMAC = 32

REFUSALS: Final = (
    Reason.BAD_ONION,
    Reason.WRONG_EPOCH,
    Reason.REPLAY,
    Reason.BUSY,
    Reason.CLOCK_SKEW,
    Reason.NO_LINK,
    Reason.REFUSED,
    Reason.NOT_UNDERSTOOD,
    Reason.UNKNOWN_SERVICE,
    Reason.NEXT_BUSY,
)
"""What a CREATE can be refused with here, by these checks or by who takes its circuit's end."""


class Admission:
    """Takes the CREATE frames of all neighbours."""

    def __init__(self, shared: Shared, replays: Replays) -> None:
        self._shared = shared
        self._replays = replays
        self.creates = 0

    def create(self, side: Side, frame: Create, now: float, unix: float) -> None:
        """One CREATE. Raises ProtocolError if its label is not the sender's to choose."""
        self.creates += 1
        self._replays.settle(unix)
        if side.labels.is_ours(frame.label):
            raise ProtocolError("CREATE under a label that only we may choose")
        if frame.label in side.circuits:
            side.stray += 1
            return
        bare = self._unaffordable(side, frame, now) or self._unreadable(frame)
        if bare is not None:
            self._refuse_bare(side, frame, bare)
            return
        ad = associated_data(self._shared.network_id, frame.expiry)
        try:
            peeled = peel(self._shared.secret, frame.onion, ad)
        except BadOnion:
            self._refuse_bare(side, frame, Reason.BAD_ONION)
            return
        tag = frame.onion[-_HMAC : TAG - _HMAC]
        timely = self._replays.timely(frame.expiry, unix)
        if timely:
            bare = self._replays.admit(frame.expiry, tag, side.peer)
        else:
            bare = self._replays.admit_skewed(tag, unix)
        if bare is not None:
            self._refuse_bare(side, frame, bare)
        elif not timely:
            self._refuse(side, frame, peeled, Reason.CLOCK_SKEW, now, unix=unix)
        else:
            self._admit(side, frame, peeled, now)

    def _unaffordable(self, side: Side, frame: Create, now: float) -> Reason | None:
        """Limits that the operator set, and labels at rest."""
        policy = self._shared.policy
        if (
            not side.bucket.take(1, now)
            or side.theirs >= policy.max_circuits_per_neighbour
            or self._shared.transits_and_arrivals >= policy.max_circuits
            or side.labels.rests(frame.label, now)
        ):
            return Reason.BUSY
        return None

    def _unreadable(self, frame: Create) -> Reason | None:
        """Onions that need not be peeled."""
        if frame.epoch:
            return Reason.WRONG_EPOCH
        if frame.path_key != NO_PATH_KEY:
            return Reason.BAD_ONION
        return self._replays.refused(frame.expiry, frame.onion[-_HMAC : TAG - _HMAC])

    def _admit(self, side: Side, frame: Create, peeled: Peeled, now: float) -> None:
        """The onion is ours, timely and new: what does it ask for?"""
        try:
            terms = decode(HopTerms, peeled.payload)
        except CodecError as fault:
            self._refuse(side, frame, peeled, Reason.NOT_UNDERSTOOD, now, str(fault))
            return
        if terms.suite:
            self._refuse(side, frame, peeled, Reason.NOT_UNDERSTOOD, now, f"cipher suite {terms.suite}")
        elif peeled.next_packet is not None and terms.next_node is not None and terms.first_message is None:
            self._extend(side, frame, peeled, peeled.next_packet, terms, now)
        elif peeled.next_packet is None and terms.next_node is None and terms.first_message is not None:
            self._arrive(side, frame, peeled, terms.first_message, self._idle(terms), now)
        else:
            self._refuse(
                side, frame, peeled, Reason.NOT_UNDERSTOOD, now, "neither a relay's nor a last hop's terms"
            )

    def _extend(
        self, up: Side, frame: Create, peeled: Peeled, packet: bytes, terms: HopTerms, now: float
    ) -> None:
        shared = self._shared
        if not shared.policy.enabled:
            self._refuse(up, frame, peeled, Reason.REFUSED, now, "it relays nothing")
            return
        if terms.next_node == up.peer:
            self._refuse(up, frame, peeled, Reason.REFUSED, now, "the route goes back where it came from")
            return
        assert terms.next_node is not None
        down = shared.side_towards(terms.next_node, now)  # type: ignore[arg-type]  # only looked up
        if down is None:
            self._refuse(up, frame, peeled, Reason.NO_LINK, now)
            return
        if not down.leads_on(up, now):
            self._refuse(up, frame, peeled, Reason.NEXT_BUSY, now)
            return
        label = down.draw()
        onward = Create(label, frame.expiry, terms.epoch or 0, NO_PATH_KEY, packet)
        if not down.link.send(CREATE, encode(onward), label):
            self._refuse(up, frame, peeled, Reason.NEXT_BUSY, now)
            return
        Transit(
            shared,
            up,
            frame.label,
            down,
            label,
            peeled.shared_secret,
            peeled.ephemeral,
            self._idle(terms),
            now,
        )

    def _arrive(
        self, side: Side, frame: Create, peeled: Peeled, first_message: bytes, idle: float, now: float
    ) -> None:
        shared = self._shared
        arrival = Arrival(
            shared, side, frame.label, first_message, peeled.shared_secret, peeled.ephemeral, idle, now
        )
        shared.events.append(Arrived(arrival))

    def _idle(self, terms: HopTerms) -> float:
        return min(terms.idle or self._shared.policy.idle, CIRCUIT_LIFE)

    def _refuse_bare(self, side: Side, frame: Create, reason: Reason) -> None:
        self._shared.past.refuse(reason)
        side.failed_bare(frame.label, reason)

    def _refuse(
        self,
        side: Side,
        frame: Create,
        peeled: Peeled,
        reason: Reason,
        now: float,
        text: str = "",
        unix: float | None = None,
    ) -> None:
        """Our error onion; the label rests as after any use."""
        self._shared.past.refuse(reason)
        side.labels.rest(frame.label, now)
        side.failed(frame.label, error_onion(peeled.shared_secret, reason, text, unix))
