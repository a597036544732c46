"""Error onions: what a hop says when it refuses or ends a circuit, and how the origin tells its user.

The content is `Failure` in `messages.py`. A relay's text is shown with the relay's position and key in
front, and only its printable characters.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from meshnet.cipher import onion_error
from meshnet.cipher.keys import PublicKey
from meshnet.circuit.messages import BARE_CODES, NEXT, Failure, FailureTerms
from meshnet.codec import decode, encode
from meshnet.errors import CircuitError, CodecError, Reason
from meshnet.limits import CREATE_SECONDS, ERROR_TEXT

_SENTENCES: Final = {
    Reason.BAD_ONION: "could not open the onion: it has another key than expected, or the onion was changed",
    Reason.WRONG_EPOCH: "has not the onion key that its last record states; the next comes soon, try again",
    Reason.REPLAY: "has seen this onion before",
    Reason.BUSY: "is busy; try again later",
    Reason.CLOCK_SKEW: "refuses, since its clock and ours differ",
    Reason.NO_LINK: "has no link to the next node",
    Reason.REFUSED: "refuses",
    Reason.TIMEOUT: f"got no answer from behind it within {CREATE_SECONDS:.0f} s",
    Reason.LINK_LOST: "lost the link to the next node",
    Reason.NOT_UNDERSTOOD: "does not understand what it was asked for",
    Reason.UNKNOWN_SERVICE: "does not answer under the key that was used",
    Reason.IDLE: "closed the circuit, which carried nothing",
    Reason.EXPIRED: "closed the circuit at the end of its life",
    Reason.BLINDED: "cannot reach the hidden service behind it: a relay there is gone, the address was "
    "withdrawn, or the service is off",
    Reason.NEXT_BAD_ONION: "says that the next node could not open the onion: it expects another key",
    Reason.NEXT_WRONG_EPOCH: "says that the next node has not the onion key that its last record states; "
    "the next comes soon, try again",
    Reason.NEXT_REPLAY: "says that the next node has seen this onion before",
    Reason.NEXT_BUSY: "says that the next node is busy; try again later",
}


def error_onion(shared_secret: bytes, reason: Reason, text: str = "", unix: float | None = None) -> bytes:
    """The error onion, 292 bytes, of a hop; at most one per circuit. `text` adds to what `reason` says; it
    is cut at 200 bytes of UTF-8."""
    short = text.encode()[:ERROR_TEXT].decode(errors="ignore")
    terms = FailureTerms() if unix is None else FailureTerms(unix=int(unix))
    return onion_error.create(shared_secret, encode(Failure(reason, short, terms)))


def blinded_onion(shared_secret: bytes) -> bytes:
    """The one error onion of a node in a blinded tail, whatever has happened."""
    return error_onion(shared_secret, Reason.BLINDED)


def next_reason(code: int) -> Reason:
    """What a hop says of a neighbour's bare code 1–4."""
    return Reason(code + NEXT)


def opened(shared_secrets: Sequence[bytes], route: Sequence[PublicKey], onion: bytes) -> CircuitError:
    """At the origin: the error in an error onion."""
    found = onion_error.open_error(shared_secrets, onion)
    if found is None:
        text = f"an error came back from behind {hop_name(route, 0)} that no node of the route can have sent"
        return CircuitError(text, Reason.FORGED)
    hop, content = found
    try:
        failure = decode(Failure, content)
        reason = Reason(failure.code)
        if reason is Reason.FORGED:
            raise ValueError("not a reason for the wire")
    except (CodecError, ValueError):
        return CircuitError(f"{hop_name(route, hop)} refuses, for no known reason", Reason.REFUSED, hop)
    return describe(route, hop, reason, failure.text, failure.terms.unix)


def bare(route: Sequence[PublicKey], code: int) -> CircuitError:
    """At the origin: the neighbour's FAILED without an onion; `code` is one of 1–4."""
    if code not in BARE_CODES:
        raise ValueError(f"{code} is no bare code")
    return describe(route, 0, Reason(code))


def describe(
    route: Sequence[PublicKey], hop: int, reason: Reason, text: str = "", unix: int | None = None
) -> CircuitError:
    """The error that hop `hop` of `route` reports, as a sentence for a person."""
    sentence = f"{hop_name(route, hop)} {_SENTENCES.get(reason, 'failed')}"
    if unix is not None:
        sentence += f" (its clock shows {unix} s unix time)"
    shown = "".join(letter if letter.isprintable() else "?" for letter in text)
    return CircuitError(f"{sentence}: {shown}" if shown else sentence, reason, hop)


def hop_name(route: Sequence[PublicKey], hop: int) -> str:
    """`relay 2 (02ab34cd…)`, or `the last node (…)`; hops count from 1 for people."""
    key = f"({route[hop].hex()[:8]}…)"
    return f"the last node {key}" if hop == len(route) - 1 else f"relay {hop + 1} {key}"
