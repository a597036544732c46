"""What a node needs of its router; `meshnet.node.router.Router` in all."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from twisted.internet.defer import Deferred

from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey
from meshnet.node.app import Json, Receive, Ways
from meshnet.node.reload import Changing
from meshnet.node.services import Service as Called
from meshnet.node.services import Services
from meshnet.node.topology import Topology
from meshnet.streams import Accept, PortListener, Stream, StreamReader


class Routing(Changing, Protocol):
    """What a node needs of its router (`meshnet.node.router.Router`)."""

    on_link: Callable[[PublicKey], None]
    """Called for each link that comes up."""

    services: Services
    """Whom circuits that end here can ask for."""

    topology: Topology | None
    """What is known of the network; None where the node does not want to know."""

    @property
    def faults(self) -> list[str]:
        """What is wrong with it now, in sentences."""

    @property
    def totals(self) -> Mapping[str, int]:
        """Counts that only grow, by name."""

    async def start(self, addresses: list[str]) -> list[str]:
        """Binds the link addresses and starts; returns them as bound. Raises LocalError, ConfigError."""

    def stop(self) -> Any:
        """Ends every circuit and link."""

    def turn(self, call: Callable[[float], None]) -> None:
        """Runs `call(now)`, and sends what it made."""

    def connect(
        self,
        target: Target,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[PublicKey] | None,
        identity: str,
        policy: str | None = None,
        ways: Ways | None = None,
    ) -> Deferred[Stream]:
        """Opens a stream."""

    def listen(self, port: int, accept: Accept) -> PortListener:
        """Takes a mesh port; raises LocalError if it is taken."""

    def leave(self, service: Called) -> None:
        """Ends every session of a service that is no more."""

    def send_datagram(
        self,
        target: Target,
        port: int,
        data: bytes,
        *,
        source: int,
        via: Sequence[PublicKey] | None,
        identity: str,
        policy: str | None = None,
    ) -> Deferred[bool]:
        """Sends one datagram."""

    def listen_datagrams(self, port: int, receive: Receive) -> PortListener:
        """Takes a datagram port; raises LocalError if it is taken."""

    def ping(self, target: Target, via: Sequence[PublicKey], count: int) -> Deferred[Json]:
        """Measures a circuit: setup_ms, rtt_ms, …"""

    def renew(self, target: Target | None) -> Deferred[list[Json]]:
        """Gives sessions begun here new circuits; `route`, `streams` and perhaps `error` of each."""

    def brief(self) -> Json:
        """`links` (JSON objects), `circuits` (a number), `dropped` (reason to count); cheap."""

    def snapshot(self) -> Json:
        """The same with `circuits` as JSON objects."""

    def pulse(self) -> Json:
        """A `brief` for once a second: links hold only counts."""

    def waiting(self) -> Mapping[str, str]:
        """Peers (hex) that are dialled and not linked: why the last attempt failed, or nothing."""

    def dials(self) -> Mapping[str, int]:
        """How many connections to each configured peer (hex) were tried."""
