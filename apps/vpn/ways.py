"""Ways of a wanted length, picked among the nodes that the config knows. Pure: chance is an argument.

Whoever sees both ends of a way knows who talks to whom; so ways are picked anew, and the operator of one
relay cannot wait for us at a place that we always pass. Which of these nodes are linked with each other is
not known here: a way may lead nowhere, and then another one is picked.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from meshnet.cipher.keys import PublicKey
from meshnet.errors import UsageError
from meshnet.limits import HOPS

Choose = Callable[[Sequence[PublicKey]], PublicKey]
"""One of several, by chance (`random.SystemRandom().choice`)."""


def pick_way(
    hops: int,
    target: PublicKey,
    own: PublicKey,
    neighbours: Iterable[PublicKey],
    known: Iterable[PublicKey],
    choose: Choose,
) -> tuple[PublicKey, ...]:
    """Relays of a way of `hops` nodes, the target being the last: the first of them a neighbour, the others
    any that are known. Raises UsageError if there are not so many."""
    if not 1 <= hops <= HOPS:
        raise UsageError(f"A way has 1 to {HOPS} hops, the last node included, not {hops}.")
    way: list[PublicKey] = []
    near, far = sorted({*neighbours} - {own, target}), sorted({*known, *neighbours} - {own, target})
    for place in range(hops - 1):
        left = [key for key in (far if place else near) if key not in way]
        if not left:
            missing = "node is known ([[known]])" if place else "neighbour is linked"
            raise UsageError(f"A way of {hops} hops needs {hops - 1} relays, and no other {missing}.")
        way.append(choose(left))
    return tuple(way)
