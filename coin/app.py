"""What the node knows of the coin before it runs: its name, its section, its verbs. Cheap to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.plugin import IPlugin
from zope.interface import implementer

from coin.settings import CoinSettings
from meshnet.node.app import Group, IApp, MeshNode, Verb

if TYPE_CHECKING:
    from coin.service import CoinService


@implementer(IPlugin, IApp)
@frozen
class CoinApp:
    """A chain of blocks, its network and its wallets, as a dropin."""

    name = "coin"
    settings = CoinSettings

    def verbs(self) -> Sequence[Verb | Group]:
        """`coin …`."""
        from coin.cli import VERBS

        return VERBS

    def make_service(self, node: MeshNode, settings: CoinSettings) -> CoinService:
        """The service for a node."""
        from coin.service import CoinService

        return CoinService(node, settings)
