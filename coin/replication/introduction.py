"""What a node says of itself first, and what it makes of what others say. The checks and their order are
those of the Go node."""

from __future__ import annotations

import re
from typing import Final

from attrs import frozen

from coin.chain.params import Chain, Limits
from coin.replication.messages import Extra, Introduction, Reason
from meshnet import __version__
from meshnet.errors import CodecError, RemoteError

VERSION: Final = 2
"""Of the protocol: what we say, and the least that we talk to."""
_AGENT: Final = re.compile(
    r"[A-Za-z0-9\-_+]+:[0-9]+\.[0-9]+\.[0-9][A-Za-z0-9\-.+]*(\([A-Za-z0-9\-_+;:!$%,.=?~ ]+\))?"
)
_OURS: Final = "meshnet:"


class PartingError(RemoteError):
    """A peer that is not talked to any longer; `reason` is what it is told."""

    def __init__(self, reason: Reason, text: str) -> None:
        super().__init__(text)
        self.reason = reason


@frozen
class Ourselves:
    """This node to others: its chain, a number that is random for each run, its TCP port (0: none)."""

    chain: Chain
    mirror: int
    port: int = 0
    agent: str = f"{_OURS}{__version__}"

    def introduction(self) -> Introduction:
        """The first message of every connection."""
        limits = self.chain.pool
        extra = Extra(
            self.chain.publisher,
            limits.burn,
            limits.size,
            limits.decimals,
            self.agent,
            self.chain.genesis.hash,
        )
        return Introduction(self.mirror, self.port, VERSION, extra.encode())

    def judge(self, said: Introduction) -> Extra:
        """What a peer says beyond its numbers; raises PartingError for one that is not talked to."""
        if said.mirror == self.mirror:
            raise PartingError(Reason.SELF, "It is this node itself.")
        if said.version < VERSION:
            raise PartingError(Reason.VERSION, f"It speaks version {said.version} of the protocol.")
        if not said.extra:
            raise PartingError(Reason.NONE, "It does not say whose chain it has.")
        try:
            extra = Extra.decode(said.extra)
        except CodecError as error:
            raise PartingError(Reason.BAD_EXTRA, f"Its introduction is wrong: {error}.") from None
        if extra.publisher != self.chain.publisher:
            raise PartingError(Reason.OTHER_CHAIN, "It has the chain of another publisher.")
        _check_limits(Limits(extra.burn, extra.size, extra.decimals))
        if not _AGENT.fullmatch(extra.agent):
            raise PartingError(Reason.BAD_AGENT, f"Its user agent {extra.agent[:60]!r} is none.")
        # The Go node does not look at this; two private chains of one key would spoil each other.
        if extra.genesis is not None and extra.genesis != self.chain.genesis.hash:
            raise PartingError(Reason.OTHER_CHAIN, "Its chain begins with another block.")
        return extra


def _check_limits(limits: Limits) -> None:
    for reason, one in (
        (Reason.BAD_BURN, Limits(burn=limits.burn)),
        (Reason.BAD_SIZE, Limits(size=limits.size)),
        (Reason.BAD_DECIMALS, Limits(decimals=limits.decimals)),
    ):
        if why := one.refusal():
            raise PartingError(reason, f"{why[:1].upper()}{why[1:]}.")


def is_ours(agent: str) -> bool:
    """Whether a peer reads several frames at once as they come; the Go node may lose one then."""
    return agent.startswith(_OURS)
