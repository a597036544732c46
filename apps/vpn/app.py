"""What the node knows of this app before it runs: its name, its sections, its verbs. Cheap to import."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from attrs import frozen
from twisted.plugin import IPlugin
from zope.interface import implementer

from apps.vpn.settings import VpnSettings
from meshnet.node.app import Group, IApp, MeshNode, Verb

if TYPE_CHECKING:
    from apps.vpn.service import VpnService


@implementer(IPlugin, IApp)
@frozen
class VpnApp:
    """SOCKS5, forwards, served ports and the exit, as a dropin."""

    name = "vpn"
    settings = VpnSettings

    def verbs(self) -> Sequence[Verb | Group]:
        """`socks`, `forward`, `serve`, `exit`, and the groups `vpn` and `tun`."""
        from apps.vpn.cli import VERBS

        return VERBS

    def make_service(self, node: MeshNode, settings: VpnSettings) -> VpnService:
        """The service for a node."""
        from apps.vpn.service import VpnService

        return VpnService(node, settings)
