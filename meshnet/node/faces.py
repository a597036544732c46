"""The sockets a node shows on its machine: the control API, the local door and the metrics page.

Binding fails loudly, with one sentence that names the address. Nothing here knows what is served.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, Metric
from twisted.internet.defer import gatherResults, maybeDeferred
from twisted.internet.error import CannotListenError
from twisted.web.server import Site

from meshnet.control.door import Door, DoorNode
from meshnet.control.server import claim_socket, local_site, token_site
from meshnet.errors import LocalError
from meshnet.node.app import Route
from meshnet.node.binding import not_bound
from meshnet.node.config import Settings
from meshnet.node.metrics import gauge, metrics_site
from meshnet.storage.disk import Disk
from meshnet.storage.files import read_secret, write_secret


class Faces:
    """Binds what the config asks for; `stop` closes all of it."""

    def __init__(self, reactor: Any, disk: Disk, settings: Settings) -> None:
        self._reactor = reactor
        self._disk = disk
        self._settings = settings
        self._ports: list[Any] = []
        self.metrics: str | None = None
        """URL of the metrics page, once bound."""
        self.control: str | None = None
        """URL of the control API on loopback, once bound."""
        self.door: Door | None = None
        """The local door, once open."""

    def start_control(self, routes: Mapping[str, Route]) -> None:
        """The UNIX socket, and the loopback address if there is one; raises LocalError."""
        path = self._settings.control_socket
        claim_socket(path)
        try:
            self._ports.append(self._reactor.listenUNIX(str(path), local_site(routes), mode=0o600))
        except CannotListenError as error:
            raise LocalError(f"Cannot make the control socket {path}: {_why(error)}.") from None
        listen = self._settings.control.listen
        if listen is not None:
            token = self._token(self._settings.control.token or self._settings.node.data / "control.token")
            hosts: set[bytes] = set()
            site = token_site(routes, token, lambda: frozenset(hosts))
            port = self._listen("control.listen", listen, site)
            self.control = f"http://{_text(listen[0], port)}"
            hosts.update(_text(host, port).encode() for host in ("127.0.0.1", "localhost", "::1"))

    def start_door(self, node: DoorNode) -> None:
        """The local door, unless the config closes it; raises LocalError."""
        path = self._settings.attach_socket
        if path is not None:
            door = Door(node, self._reactor, path, secrets.token_bytes)
            door.start()
            self.door = door

    def start_metrics(self, registry: CollectorRegistry) -> None:
        """The metrics page, if the config has one; raises LocalError."""
        metrics = self._settings.metrics
        if metrics is not None:
            port = self._listen("metrics.listen", metrics.listen, metrics_site(registry))
            self.metrics = f"http://{_text(metrics.listen[0], port)}/metrics"

    def door_now(self) -> dict[str, int]:
        """What programs of this machine do with the node now: connections, ports, waiting; and streams, a
        count since the start. Zeros where there is no door."""
        return dict.fromkeys(("connections", "ports", "waiting", "streams"), 0) | (
            self.door.snapshot() if self.door is not None else {}
        )

    def facts(self) -> Iterable[Metric]:
        """The same as series."""
        now = self.door_now()
        yield gauge("meshnet_door_connections", "Connections of local programs.", now["connections"])
        yield gauge("meshnet_door_ports", "Mesh ports that local programs hold.", now["ports"])
        yield gauge("meshnet_door_waiting", "Streams that no local program has accepted yet.", now["waiting"])
        text = "Streams between local programs and the mesh."
        yield CounterMetricFamily("meshnet_door_streams", text, value=now["streams"])

    async def stop(self) -> None:
        """Closes everything; the files of the sockets are removed."""
        door, self.door = self.door, None
        if door is not None:
            door.stop()
        ports, self._ports = self._ports, []
        await gatherResults([maybeDeferred(port.stopListening) for port in ports], consumeErrors=True)

    def _listen(self, key: str, address: tuple[str, int], site: Site) -> int:
        host, port = address
        try:
            bound = self._reactor.listenTCP(port, site, interface=host)
        except CannotListenError as error:
            raise LocalError(not_bound(f"{_text(host, port)} ({key})", error)) from None
        self._ports.append(bound)
        return int(bound.getHost().port)

    def _token(self, path: Path) -> bytes:
        if not self._disk.exists(path):
            write_secret(self._disk, path, secrets.token_hex(32).encode() + b"\n")
        token = read_secret(self._disk, path).strip()
        if len(token) < 16:
            raise LocalError(f"{path} holds no token of 16 characters or more; remove it to have one made.")
        return token


def _text(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _why(error: CannotListenError) -> str:
    cause = error.socketError
    return str(getattr(cause, "strerror", None) or cause).lower()
