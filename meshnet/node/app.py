"""The seam between a node and the apps that run on it.

An app is a dropin: an object in `plugins/` that provides `IApp`. It names its config sections, its command
verbs and its control routes, and makes a service for a node. A node knows its apps only through this
module; an app knows its node only through `MeshNode`. A missing or broken app costs one sentence.

Settings are frozen attrs classes read by `meshnet.node.schema` (its docstring lists the types a field may
have). Each field of an app's `settings` class is one section of the config file:

    @frozen
    class VpnSettings:
        socks: Socks | None = None             # [socks]; None where the file has no such section
        forward: tuple[Forward, ...] = ()      # [[forward]], any number
        exit: Exit = Exit()                    # [exit]; defaults where the file has no such section
"""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Awaitable, Callable, Mapping, Sequence
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Protocol

from attrs import frozen
from prometheus_client import CollectorRegistry
from twisted.application.service import IService
from twisted.internet.defer import Deferred
from zope.interface import Attribute, Interface

from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey
from meshnet.storage.disk import Disk
from meshnet.storage.quarantine import Quarantine
from meshnet.storage.reserve import Space
from meshnet.streams import Accept, PortListener, Stream, StreamReader

Json = dict[str, Any]
"""A JSON object; amounts are integers or decimal strings, never floats."""


@frozen
class Datagram:
    """A datagram to a port of this node, as large as it was sent, sent once and perhaps lost on the way.

    `source` is the port an answer goes to (0: none is wanted); `peer` who sent it, where they said so.
    `reply` sends one back over the same circuit; false if it cannot be taken.
    """

    source: int
    data: bytes
    peer: PublicKey | None
    reply: Callable[[bytes], bool]


Ways = Callable[[], Sequence[PublicKey]]
"""Relays, in order, of another way to the same last hop. Raises UsageError if there is none now."""

Receive = Callable[[Datagram], None]
"""Called for each datagram to a port."""


class Clock(Protocol):
    """Time as a node sees it: monotonic seconds, wall seconds, and later calls."""

    def now(self) -> float:
        """Monotonic seconds."""

    def unix(self) -> float:
        """Wall clock, seconds since 1970."""

    def call_later(self, delay: float, call: Callable[[], None]) -> Callable[[], None]:
        """Calls after `delay` seconds; returns what cancels it (harmless if it already ran)."""


class MeshNode(Protocol):
    """What an app may ask of its node. Before it says that it keeps something, it calls `space.require`."""

    public_key: PublicKey
    name: str
    clock: Clock
    disk: Disk
    quarantine: Quarantine
    data: Path
    registry: CollectorRegistry
    reactor: Any

    @property
    def space(self) -> Space:
        """Whether the disk has room."""

    def turn(self, call: Callable[[float], None]) -> None:
        """Runs `call(now)` as an event of its own: what it gives streams to send leaves when it returns, not
        in a later turn of the reactor. For who has descriptors of his own."""

    def connect(
        self,
        target: Target,
        port: int,
        reader: StreamReader,
        *,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
        ways: Ways | None = None,
    ) -> Deferred[Stream]:
        """Opens a stream to a node, or to a hidden service by its address. `via` names the relays in order
        (to an address, those before its introduction node); None takes the configured route, else a way
        that the path policy `policy` allows (None: the config's; docs/topology.md). `identity` is `anonymous`
        or `node`. Fails with CircuitError, UnreachableError, RefusedError or TimedOutError.

        A stream outlives its circuit. The next one leads over the same relays, or over those that `ways`
        names then; with these, or without `via`, another way is tried as soon as the one in use is silent."""

    def listen(self, port: int, accept: Accept, service: str | None = None) -> PortListener:
        """Takes a mesh port, of the node itself or of one of its hidden services by name, key or address.
        Raises LocalError if it is taken, UsageError if there is no such service."""

    def service_key(self, text: str) -> PublicKey:
        """The key of one of this node's hidden services, by name, key or address; raises UsageError."""

    def send_datagram(
        self,
        target: Target,
        port: int,
        data: bytes,
        *,
        source: int = 0,
        via: Sequence[PublicKey] | None = None,
        identity: str = "anonymous",
        policy: str | None = None,
    ) -> Deferred[bool]:
        """Sends one datagram; answers come to our port `source`. Fires with false if too many wait or it is
        larger than the path carries; fails as `connect` does."""

    def listen_datagrams(self, port: int, receive: Receive, service: str | None = None) -> PortListener:
        """Takes a datagram port (they are apart from those of streams); raises as `listen` does."""

    def lookup(self, text: str) -> Target:
        """What 66 hex digits, an address or a pet name of the config ([[known]]) stand for. Raises
        UsageError, also for an address that is expired or of another network. Where only a node will do, ask
        `meshnet.cipher.address.node_key` about the answer."""

    def known(self) -> Mapping[str, Target]:
        """The pet names of the config and what they stand for."""

    def neighbours(self) -> Sequence[PublicKey]:
        """Who this node is linked with now."""

    def key_of(self, address: IPv6Address) -> PublicKey | None:
        """Whose mesh address this is, as far as the topology tells; None: it does not."""

    def route_to(self, target: Target, via: Sequence[PublicKey] | None) -> tuple[PublicKey, ...]:
        """The relays that `connect` would take: those given, else the config's, else none."""


@frozen
class Verb:
    """A command of an app: `meshnet NAME …`.

    `arguments` declares them (`--json` and `--node` are there already); `run` gets them (`.json` is a bool)
    and a call of the running node's control API (`call(method, path, body) -> JSON`, such as
    `call("POST", "/apps/vpn/socks", {…})`; it raises the MeshError that the route raised), prints what a
    person or a script wants on stdout, and returns the exit code. Keys go to the node as they were typed:
    the route calls `MeshNode.lookup`.
    """

    name: str
    summary: str
    arguments: Callable[[ArgumentParser], None]
    run: Callable[[Namespace, Callable[[str, str, Json | None], Json]], int]


@frozen
class Group:
    """A word with commands below it: `meshnet NAME VERB …`; groups may be in groups."""

    name: str
    summary: str
    verbs: Sequence[Verb | Group]


Route = Callable[[Json], Json | Awaitable[Json]]
"""Answers one control request; raises MeshError. It gets the JSON body, of a GET the query (values are str).

Read it with `meshnet.node.schema.read_body(SomeFrozenAttrsClass, body)`: unknown keys are refused there.
"""


class IAppService(IService):
    """An app running on one node."""

    def status() -> Json:
        """What `meshnet status` shows of it."""

    def routes() -> Mapping[str, Route]:
        """`"POST /name"` → what answers it at /apps/<app>/name. Methods: GET, POST, DELETE."""


@frozen
class Reloaded:
    """What an app made of changed settings: `settings` are those that hold now; `applied` names what changed,
    `failed` has a sentence for each thing that the machine refused."""

    settings: Any
    applied: tuple[str, ...] = ()
    failed: tuple[str, ...] = ()


class IReloads(Interface):
    """An app's service that can take over changed settings while it runs; others get theirs at a start."""

    def check(settings: Any) -> None:
        """Raises ConfigError if these settings cannot be right; changes nothing."""

    def reload(settings: Any) -> Reloaded | Awaitable[Reloaded]:
        """Takes over what differs; what both settings share goes on undisturbed."""


class IApp(Interface):
    """An app as a dropin in `plugins/` offers it."""

    name = Attribute("short name: a metric prefix and a path of the control API")
    settings = Attribute("frozen attrs class: each field is a section of the config file and has a default")

    def verbs() -> Sequence[Verb | Group]:
        """Its commands."""

    def make_service(node: MeshNode, settings: Any) -> IAppService:
        """A service for this node, given an instance of `settings`; raises ConfigError.

        It registers its metrics in `node.registry` and may use `node` at once, but binds ports and opens
        streams in `startService` (also if that is needed to fail loudly: raise LocalError there, or return
        a Deferred from it that fails).
        """
