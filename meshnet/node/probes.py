"""Probes of the circuits begun here: round trip, the delay of each way, losses, and that they stay.

Each circuit of a conversation that has streams, the one in reserve too, is asked every 10 seconds while it is
quiet: about 65 bytes there, and as many back. One that carries something tells most by that, so it is asked
once a minute. Circuits without streams are left to end.
"""

from __future__ import annotations

from typing import Final

from meshnet.node.conversation import Conversation, Leg

PROBE_SECONDS: Final = 10.0
BUSY_SECONDS: Final = 60.0  # the same of a circuit that carries something …
QUIET: Final = 1.0  # … which is one that did so in the last second


def probe(conversation: Conversation, now: float) -> bool:
    """Twice a second, for each conversation begun here; whether anything was asked."""
    session, asked = conversation.session, False
    if session is None or not session.streams:
        return False
    for leg in conversation.legs.values():
        if leg.path.stands and leg.drains_since is None and now >= leg.probe_at + _patience(leg, now):
            leg.probe_at = now + PROBE_SECONDS
            leg.path.probe(now)
            conversation.pinged = now  # its answer is no reason to ask again
            asked = True
    return asked


def _patience(leg: Leg, now: float) -> float:
    busy = leg.end is not None and now - leg.end.used < QUIET
    return BUSY_SECONDS - PROBE_SECONDS if busy else 0.0
