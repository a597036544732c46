"""What the control API says of the tunnel.

GET /tunnel      how it is (`TunnelClient.describe`); the exit is asked for a sign of life before
POST /tunnel     brings it up: the keys of [vpn], those left out as in the config; answers when it is up
DELETE /tunnel   takes it down
POST /doctor     puts back what others have changed; undoes what nobody stands for
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated

from attrs import asdict, evolve, frozen
from twisted.internet.defer import Deferred

from apps.vpn.client.service import TunnelClient
from apps.vpn.settings import Identity, InterfaceName, NetworkText, Tunnel, Via
from apps.vpn.tun.device import LEAST_MTU, MOST_MTU
from meshnet.cipher.address import Target
from meshnet.errors import UsageError
from meshnet.limits import HOPS
from meshnet.node.app import Json
from meshnet.node.schema import Between, read_body


@frozen
class NoArguments:
    """An empty body."""


@frozen
class Up:
    """The keys of [vpn]; what is left out is as there."""

    exit: Target | None = None
    via: Via = None
    hops: Annotated[int, Between(0, HOPS)] | None = None
    identity: Identity | None = None
    killswitch: bool | None = None
    dns: bool | None = None
    split: tuple[NetworkText, ...] | None = None
    outside: tuple[NetworkText, ...] | None = None
    mtu: Annotated[int, Between(LEAST_MTU, MOST_MTU)] | None = None
    interface: InterfaceName | None = None


def wanted(up: Up, configured: Tunnel | None) -> Tunnel:
    """What is asked for, the rest from the config; raises UsageError."""
    given = {name: value for name, value in asdict(up, recurse=False).items() if value is not None}
    if "via" in given and configured is not None and "hops" not in given:
        given["hops"] = 0
    if given.get("hops") and "via" not in given:
        given["via"] = None
    if given.get("exit", configured and configured.exit) != (configured and configured.exit):
        given.setdefault("via", None)  # the configured way leads to another exit
        given.setdefault("hops", 0)
    try:
        if configured is not None:
            return evolve(configured, **given)
        if "exit" not in given:
            raise UsageError("Which exit? Name one with --exit, or in a section [vpn] of the config.")
        return Tunnel(**given)
    except ValueError as fault:
        text = str(fault)
        raise UsageError(f"{text[:1].upper()}{text[1:]}.") from None


class TunnelRoutes:
    """Answers for one tunnel. `configured` is the section [vpn], `lookup` says what names stand for."""

    def __init__(
        self, tunnel: TunnelClient, configured: Tunnel | None, lookup: Callable[[str], Target]
    ) -> None:
        self._tunnel = tunnel
        self.configured = configured
        self._lookup = lookup

    def show(self, body: Json) -> Deferred[Json]:
        """GET /tunnel."""
        read_body(NoArguments, body, self._lookup)
        return self._tunnel.look().addCallback(lambda shown: {"tunnel": shown})

    def up(self, body: Json) -> Deferred[Json]:
        """POST /tunnel."""
        settings = wanted(read_body(Up, body, self._lookup), self.configured)
        return self._tunnel.up(settings).addCallback(lambda shown: {"tunnel": shown})

    def down(self, body: Json) -> Deferred[Json]:
        """DELETE /tunnel."""
        read_body(NoArguments, body, self._lookup)
        return self._tunnel.down().addCallback(lambda faults: {"down": not faults, "faults": faults})

    def doctor(self, body: Json) -> Deferred[Json]:
        """POST /doctor."""
        read_body(NoArguments, body, self._lookup)
        return self._tunnel.examine().addCallback(lambda findings: {"findings": findings})
