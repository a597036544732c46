"""Probes of the circuits begun here: round trip, the delay of each way, losses, and that they stay.

Each circuit of a conversation that has streams, the one in reserve too, is asked every 10 seconds, whatever
else it carries: about 65 bytes there, and as many back. Circuits without streams are left to end.
"""

from __future__ import annotations

from typing import Final

from meshnet.node.conversation import Conversation

PROBE_SECONDS: Final = 10.0


def probe(conversation: Conversation, now: float) -> bool:
    """Twice a second, for each conversation begun here; whether anything was asked."""
    session, asked = conversation.session, False
    if session is None or not session.streams:
        return False
    for leg in conversation.legs.values():
        if leg.path.stands and leg.drains_since is None and now >= leg.probe_at:
            leg.probe_at = now + PROBE_SECONDS
            leg.path.probe(now)
            conversation.pinged = now  # its answer is no reason to ask again
            asked = True
    return asked
