"""Noise handshake patterns: which tokens each message carries (Noise rev 34 §7, §9, §18).

The mesh uses XK (links) and NK (circuits); the other patterns, and the pre-shared key modifiers, are there
for the published vectors. Nothing here computes.
"""

from __future__ import annotations

from functools import cache
from typing import Final

from attrs import frozen

from meshnet.errors import UsageError

# name: "tokens the initiator's side is known by | the responder's side | message 1 | message 2 | …"
_TABLE: Final = {
    # one-way (§7.4)
    "N": " | s | e es",
    "K": "s | s | e es ss",
    "X": " | s | e es s ss",
    # interactive (§7.5)
    "NN": " | | e | e ee",
    "NK": " | s | e es | e ee",
    "NX": " | | e | e ee s es",
    "XN": " | | e | e ee | s se",
    "XK": " | s | e es | e ee | s se",
    "XX": " | | e | e ee s es | s se",
    "KN": "s | | e | e ee se",
    "KK": "s | s | e es ss | e ee se",
    "KX": "s | | e | e ee se s es",
    "IN": " | | e s | e ee se",
    "IK": " | s | e es s ss | e ee se",
    "IX": " | | e s | e ee se s es",
    # deferred (§18.1): a 1 puts off the authentication before it by one message
    "NK1": " | s | e | e ee es",
    "NX1": " | | e | e ee s | es",
    "X1N": " | | e | e ee | s | se",
    "X1K": " | s | e es | e ee | s | se",
    "XK1": " | s | e | e ee es | s se",
    "X1K1": " | s | e | e ee es | s | se",
    "X1X": " | | e | e ee s es | s | se",
    "XX1": " | | e | e ee s | es s se",
    "X1X1": " | | e | e ee s | es s | se",
    "K1N": "s | | e | e ee | se",
    "K1K": "s | s | e es | e ee | se",
    "KK1": "s | s | e | e ee se es",
    "K1K1": "s | s | e | e ee es | se",
    "K1X": "s | | e | e ee s es | se",
    "KX1": "s | | e | e ee se s | es",
    "K1X1": "s | | e | e ee s | se es",
    "I1N": " | | e s | e ee | se",
    "I1K": " | s | e es s | e ee | se",
    "IK1": " | s | e s | e ee se es",
    "I1K1": " | s | e s | e ee es | se",
    "I1X": " | | e s | e ee s es | se",
    "IX1": " | | e s | e ee se s | es",
    "I1X1": " | | e s | e ee s | se es",
}


@frozen
class Pattern:
    """What both sides know before (`initiator_known`, `responder_known`: static keys) and say after.

    `messages[i]` are the tokens (`e`, `s`, `ee`, `es`, `se`, `ss`, `psk`) of message i; the initiator sends
    the even ones. `one_way` patterns have one message and then transport messages of the initiator only.
    """

    name: str
    initiator_known: bool
    responder_known: bool
    messages: tuple[tuple[str, ...], ...]

    @property
    def psks(self) -> int:
        """How many pre-shared keys it takes."""
        return sum(tokens.count("psk") for tokens in self.messages)

    @property
    def one_way(self) -> bool:
        """Whether only the initiator speaks."""
        return len(self.messages) == 1


@cache
def pattern(name: str) -> Pattern:
    """The pattern of that name, as `XK` or `XXpsk0+psk3`; raises `UsageError` if there is none."""
    base, *modifiers = name.replace("psk", "+psk", 1).split("+") if "psk" in name else [name]
    if base not in _TABLE:
        raise UsageError(f"there is no Noise pattern {name!r} here")
    initiator, responder, *rows = _TABLE[base].split("|")
    messages = [tuple(row.split()) for row in rows]
    for modifier in modifiers:
        place = int(modifier[3:]) if modifier in ("psk0", "psk1", "psk2", "psk3", "psk4") else -1
        if not 0 <= place <= len(messages):
            raise UsageError(f"the Noise pattern {name!r} has no place for {modifier!r}")
        if place == 0:
            messages[0] = ("psk", *messages[0])
        else:
            messages[place - 1] = (*messages[place - 1], "psk")
    return Pattern(name, "s" in initiator, "s" in responder, tuple(messages))


XK: Final = pattern("XK")
NK: Final = pattern("NK")
