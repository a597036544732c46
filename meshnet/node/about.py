"""What a node says of itself to others, if its operator allows: services on mesh port 1 (docs/rpc.md).

`about` tells version and name, `clock` the time. Both are off unless `[about]` turns them on, and they are
offered under the node's own key only, never under that of a hidden service: how a clock drifts tells machines
apart. Answers come from strangers: their texts are shown without what plays with a terminal.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Final, Protocol

from meshnet import __version__
from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey
from meshnet.codec import U8, U64, Var, message
from meshnet.node.app import Clock, Json
from meshnet.node.config import AboutSettings
from meshnet.oneway import OneWay
from meshnet.rpc import Service, call, service
from meshnet.rpc.failure import heard

PORT: Final = 1
"""The mesh port of a node's own services."""
PATIENCE: Final = 10.0
"""Seconds for one answer, the set-up of the circuit included."""
MICRO: Final = 1e-6


@message(skip=64)
class Question:
    """Nothing is asked in particular; what later versions ask is ignored."""


@message(skip=256)
class Description:
    """Empty texts are those that the operator keeps."""

    version: Annotated[str, Var(U8, 32)]
    name: Annotated[str, Var(U8, 64)]


@message(skip=64)
class Moment:
    """When the question came and when the answer left, in microseconds since 1970 by the answering clock."""

    received: U64
    transmitted: U64


class About(Service):
    """Who a node says it is."""

    name = "about"
    describe = call(1, Question, Description)


class WallClock(Service):
    """What time it is there."""

    name = "clock"
    read = call(1, Question, Moment)


class OurAbout(About):
    """As the operator allows."""

    def __init__(self, version: str, name: str) -> None:
        self._answer = Description(version, name)

    async def describe(self, request: Question) -> Description:
        """Always the same."""
        return self._answer


class OurClock(WallClock):
    """The node's wall clock."""

    def __init__(self, clock: Clock) -> None:
        self._unix = clock.unix

    async def read(self, request: Question) -> Moment:
        """Both times are now: nothing is waited for in between."""
        received = int(self._unix() / MICRO)
        return Moment(received, max(received, int(self._unix() / MICRO)))


class Node(service.Node, Protocol):
    """What is needed of a node."""

    @property
    def name(self) -> str:
        """What its operator calls it."""

    @property
    def clock(self) -> Clock:
        """Its clock."""


def offer(node: Node, settings: AboutSettings) -> service.Serving | None:
    """Offers what the operator allows; None if that is nothing."""
    services: list[Service] = []
    if settings.version or settings.name:
        version = __version__ if settings.version else ""
        services.append(OurAbout(version, node.name if settings.name else ""))
    if settings.clock:
        services.append(OurClock(node.clock))
    return service.serve(node, PORT, *services) if services else None


async def describe(node: Node, target: Target, via: Sequence[PublicKey] | None) -> Json:
    """What another node says of itself; raises MeshError."""
    peer = service.Peer.of_node(node, target, PORT, via=via)
    try:
        answer = await peer.use(About, PATIENCE).describe(Question())
    finally:
        peer.close()
    return {"version": _shown(answer.version), "name": _shown(answer.name)}


async def delays(node: Node, target: Target, via: Sequence[PublicKey] | None, count: int) -> Json:
    """How long each way takes, by `count` looks at the other node's clock; raises MeshError.

    In milliseconds: `there_ms`, `back_ms` and `offset_ms` (its clock less ours), each right within
    ± `uncertainty_ms`, if neither clock was set meanwhile.
    """
    peer, found = service.Peer.of_node(node, target, PORT, via=via), OneWay()
    clock, unix = peer.use(WallClock, PATIENCE), node.clock.unix
    try:
        for _ in range(1 + count):  # the first also sets up the circuit
            sent = unix()
            moment = await clock.read(Question())
            now = unix()
            received, transmitted = moment.received * MICRO, moment.transmitted * MICRO
            found.answered(sent, received, now - max(0.0, transmitted - received))
    finally:
        peer.close()
    names = ("there", "back", "offset", "uncertainty")
    return {f"{name}_ms": round(getattr(found, name) * 1e3, 3) for name in names}


def _shown(text: str) -> str:
    return heard(text.encode())
