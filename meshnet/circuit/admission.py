"""What becomes of a CREATE: the checks, in the order of their cost, and the circuit that comes of it.

    label, rate, numbers      bare `busy`, before any cryptography
    epoch, path key, replay   bare `wrong_epoch`, `bad_onion`, `replay`
    peel                      bare `bad_onion`
    expiry                    error onion `clock_skew` with our time
    replay set                bare `replay` or `busy`; from here on the onion is used up
    terms, policy, link       error onions of our own

A CREATE that is refused before it is peeled leaves nothing behind, so that a flood costs no memory. In a
blinded tail every refusal is the same: bare `bad_onion` before the peel, an onion saying `blinded` after it.
"""

from __future__ import annotations

from typing import Final

from attrs import evolve, frozen

from meshnet.cipher.blinding import Step, enter
from meshnet.cipher.keys import PublicKey
from meshnet.cipher.sphinx import BadOnion, Peeled, peel
from meshnet.circuit.arrival import Arrival
from meshnet.circuit.epochs import IDENTITY
from meshnet.circuit.events import Arrived
from meshnet.circuit.failure import blinded_onion, error_onion
from meshnet.circuit.messages import CREATE, NO_PATH_KEY, Create, HopTerms
from meshnet.circuit.origin import associated_data
from meshnet.circuit.policy import Bucket, Policy
from meshnet.circuit.replay import TAG, Replays
from meshnet.circuit.shared import Shared
from meshnet.circuit.side import Side
from meshnet.circuit.tail import HiddenTerms, Place, read_hidden
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


@frozen
class _Caller:
    """A CREATE that was peeled. `step` is there in a blinded tail, where the place is not OPEN."""

    side: Side
    frame: Create
    peeled: Peeled
    now: float
    step: Step | None = None
    place: Place = Place.OPEN


class Admission:
    """Takes the CREATE frames of all neighbours."""

    def __init__(self, shared: Shared, replays: Replays) -> None:
        self._shared = shared
        self._replays = replays
        self.creates = 0
        rate = shared.policy.creates_in_all
        self._bucket = Bucket(rate, max(1.0, 2 * rate), 0.0)

    def limit(self, policy: Policy) -> None:
        """Other limits from now on."""
        rate = policy.creates_in_all
        self._bucket.adjust(rate, max(1.0, 2 * rate))

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
        try:
            caller = self._peel(side, frame, now)
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
            self._refuse(caller, Reason.CLOCK_SKEW, unix=unix)
        else:
            self._admit(caller)

    def _unaffordable(self, side: Side, frame: Create, now: float) -> Reason | None:
        """Limits that the operator set, and labels at rest."""
        policy = self._shared.policy
        if (
            not side.bucket.take(1, now)
            or not self._bucket.take(1, now)
            or side.theirs >= policy.max_circuits_per_neighbour
            or self._shared.transits_and_arrivals >= policy.max_circuits
            or side.labels.rests(frame.label, now)
        ):
            return Reason.BUSY
        return None

    def _unreadable(self, frame: Create) -> Reason | None:
        """Onions that need not be peeled."""
        ring, epoch = self._shared.ring, frame.epoch
        if epoch and (frame.path_key != NO_PATH_KEY or ring.find(epoch) is None):
            return Reason.WRONG_EPOCH
        tag = frame.onion[-_HMAC : TAG - _HMAC]
        return self._replays.refused(frame.expiry, tag, old_key=ring.recalled(epoch))

    def _peel(self, side: Side, frame: Create, now: float) -> _Caller:
        """Opens our layer: with the key of its epoch, or with our identity key as a path key tweaks it.
        Raises BadOnion."""
        shared = self._shared
        secret, ad = shared.secret, associated_data(shared.network_id, frame.expiry)
        if frame.path_key == NO_PATH_KEY:
            opening = shared.ring.find(frame.epoch)
            assert opening is not None  # else it was refused as not readable
            caller = _Caller(side, frame, peel(opening, frame.onion, ad), now)
            shared.past.onions_by_epoch += frame.epoch != IDENTITY
            return caller
        step = enter(secret, frame.path_key)
        peeled = peel(step.tweaked(secret), frame.onion, ad)
        return _Caller(side, frame, peeled, now, step, Place.BLINDED)

    def _admit(self, caller: _Caller) -> None:
        """The onion is ours, timely and new: what does it ask for?"""
        peeled = caller.peeled
        try:
            terms = decode(HopTerms, peeled.payload)
        except CodecError as fault:
            self._refuse(caller, Reason.NOT_UNDERSTOOD, str(fault))
            return
        if terms.suite:
            self._refuse(caller, Reason.NOT_UNDERSTOOD, f"cipher suite {terms.suite}")
            return
        next_node, path_id = terms.next_node, None
        if caller.step is not None or terms.encrypted is not None or terms.path_key is not None:
            if caller.step is None and terms.encrypted is not None and terms.path_key is not None:
                caller = evolve(caller, place=Place.INTRODUCTION)
            try:
                caller, hidden = self._unveil(caller, terms)
            except BadOnion as fault:
                self._refuse(caller, Reason.NOT_UNDERSTOOD, str(fault))
                return
            next_node, path_id = hidden.next_node, hidden.path_id
        if peeled.next_packet is not None and next_node is not None and terms.first_message is None:
            self._extend(caller, peeled.next_packet, PublicKey(next_node), terms)
        elif peeled.next_packet is None and next_node is None and terms.first_message is not None:
            self._arrive(caller, terms.first_message, self._idle(terms), path_id)
        else:
            self._refuse(caller, Reason.NOT_UNDERSTOOD, "neither a relay's nor a last hop's terms")

    def _unveil(self, caller: _Caller, terms: HopTerms) -> tuple[_Caller, HiddenTerms]:
        """In a blinded tail: what the receiver tells us. Raises BadOnion."""
        if terms.encrypted is None or terms.next_node is not None:
            raise BadOnion("a blinded hop takes its next node from the receiver, and only from there")
        step = caller.step
        if (step is None) == (terms.path_key is None):
            raise BadOnion("a path key comes with CREATE or in the onion, and not in both")
        if step is None:
            assert terms.path_key is not None
            step = enter(self._shared.secret, terms.path_key)
        return evolve(caller, step=step), read_hidden(step, terms.encrypted)

    def _extend(self, caller: _Caller, packet: bytes, next_node: PublicKey, terms: HopTerms) -> None:
        shared, up, now = self._shared, caller.side, caller.now
        if not shared.policy.enabled:
            self._refuse(caller, Reason.REFUSED, "it relays nothing")
            return
        if next_node == up.peer:
            self._refuse(caller, Reason.REFUSED, "the route goes back where it came from")
            return
        down = shared.side_towards(next_node, now)  # only looked up: it need not be a key
        if down is None:
            self._refuse(caller, Reason.NO_LINK)
            return
        if not down.leads_on(up, now):
            self._refuse(caller, Reason.NEXT_BUSY)
            return
        path_key, epoch = NO_PATH_KEY, terms.epoch or 0
        if caller.step is not None:
            path_key, epoch = caller.step.next_path_key, 0
        label = down.draw()
        onward = Create(label, caller.frame.expiry, epoch, path_key, packet)
        if not down.link.send(CREATE, encode(onward), label):
            self._refuse(caller, Reason.NEXT_BUSY)
            return
        Transit(
            shared,
            up,
            caller.frame.label,
            down,
            label,
            caller.peeled.shared_secret,
            caller.peeled.ephemeral,
            self._idle(terms),
            caller.place,
            now,
        )

    def _arrive(self, caller: _Caller, first_message: bytes, idle: float, path_id: bytes | None) -> None:
        shared, peeled = self._shared, caller.peeled
        arrival = Arrival(
            shared,
            caller.side,
            caller.frame.label,
            first_message,
            peeled.shared_secret,
            peeled.ephemeral,
            idle,
            caller.now,
            caller.place,
            path_id,
        )
        shared.events.append(Arrived(arrival))

    def _idle(self, terms: HopTerms) -> float:
        return min(terms.idle or self._shared.policy.idle, CIRCUIT_LIFE)

    def _refuse_bare(self, side: Side, frame: Create, reason: Reason) -> None:
        """Before the peel. Where a path key came, nobody behind it learns which it was."""
        self._shared.past.refuse(reason)
        side.failed_bare(frame.label, reason if frame.path_key == NO_PATH_KEY else Reason.BAD_ONION)

    def _refuse(self, caller: _Caller, reason: Reason, text: str = "", unix: float | None = None) -> None:
        """Our error onion; the label rests as after any use. In a tail it says nothing, and an introduction
        node hesitates, as with the errors of those behind it."""
        side, label, shared = caller.side, caller.frame.label, self._shared
        shared.past.refuse(reason)
        side.labels.rest(label, caller.now)
        secret = caller.peeled.shared_secret
        onion = blinded_onion(secret)
        if caller.place is Place.OPEN:
            onion = error_onion(secret, reason, text, unix)
        if caller.place is Place.INTRODUCTION:
            shared.hesitate(lambda now: side.failed(label, onion), caller.now)
        else:
            side.failed(label, onion)
