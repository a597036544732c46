"""Mesh streams for any Twisted program: endpoints and their strings.

    mesh:<key, address or name>:<port>[:via=A,B|:policy=P][:as=node][:node=NAME]
                                                                          a client, for `clientFromString`
    mesh:<port>[:address=SERVICE][:callers=A,B][:node=NAME]               a server, for `serverFromString`

The node is one that runs in this process and said so with `NODES.add`; `node=` names it where there are
several. Where none runs here, it is one of this machine, used through its local door: `node=` is then its
directory, config file or socket; else `$MESHNET_ATTACH`, a `node.toml` in the current directory and the
default runtime path tell it (`meshnet/control/find.py`).

`via=` lists the relays in order, `via=` with nothing after it means a direct link, no `via` the configured
route. `as=node` tells the far side our key; without it the caller stays anonymous. Nothing here imports a
node.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, cast

from attrs import define, field, frozen
from twisted.internet.defer import Deferred, fail, maybeDeferred, succeed
from twisted.internet.interfaces import (
    IListeningPort,
    IProtocol,
    IProtocolFactory,
    IStreamClientEndpoint,
    IStreamClientEndpointStringParserWithReactor,
    IStreamServerEndpoint,
    IStreamServerEndpointStringParser,
)
from twisted.plugin import IPlugin
from twisted.python.failure import Failure
from zope.interface import implementer

from meshnet.cipher.address import node_key
from meshnet.cipher.keys import PublicKey, parse_public_key
from meshnet.control.attach import AttachedNode, AttachedPort
from meshnet.control.find import ATTACH, find_socket
from meshnet.errors import LocalError, MeshError, UsageError
from meshnet.stream_transport import MeshAddress, Node, accept_transport, connect_transport
from meshnet.streams import PortListener, Stream, StreamReader


@frozen
class Nodes:
    """The nodes that run in this process, by name."""

    _running: dict[str, Node] = field(factory=dict)

    def add(self, name: str, node: Node) -> Callable[[], None]:
        """Makes a node known to endpoint strings; call what it returns when the node stops.

        Raises LocalError if the name is taken.
        """
        if name in self._running:
            raise LocalError(f"a node named {name!r} runs in this process already; give each its own name")
        self._running[name] = node

        def remove() -> None:
            self._running.pop(name, None)

        return remove

    def find(self, name: str | None = None) -> Node:
        """The node of that name, or the only one; raises UsageError with the choices."""
        if name is not None:
            if name in self._running:
                return self._running[name]
            known = ", ".join(sorted(self._running)) or "none"
            raise UsageError(f"no node named {name!r} runs in this process (running: {known})")
        if not self._running:
            raise UsageError("no mesh node runs in this process; start one before using a mesh: endpoint")
        if len(self._running) > 1:
            known = ", ".join(sorted(self._running))
            raise UsageError(f"several nodes run in this process: say which by node= ({known})")
        return next(iter(self._running.values()))

    def reach(self, name: str | None, reactor: Any) -> Node:
        """The node to use: one of this process, else one of this machine behind its local door.

        Raises UsageError, or UnreachableError where no node is found. Whether the node behind a door still
        runs shows when it is used. Without a reactor only nodes of this process count.
        """
        here = self._running if name is None else name in self._running
        if here or reactor is None:
            return self.find(name)
        return AttachedNode(reactor, find_socket(name, os.environ, Path.cwd(), ATTACH))


NODES: Final = Nodes()
"""Where the nodes of this process announce themselves, and endpoint strings look."""


@implementer(IStreamClientEndpoint)
@frozen
class MeshClientEndpoint:
    """Connects to a port of a node. `target` and `via` are keys in hex or names the node knows; `via` None
    takes the configured route, empty a direct link; `identity` is "anonymous" or "node"; `name` says which
    node to use, as `Nodes.reach` reads it; `reactor` serves nodes of other processes."""

    target: str
    port: int
    via: tuple[str, ...] | None = None
    identity: str = "anonymous"
    name: str | None = None
    nodes: Nodes = NODES
    reactor: Any = None
    policy: str | None = None

    def connect(self, protocolFactory: IProtocolFactory) -> Deferred[IProtocol]:
        """Fires with the protocol once the far side has taken the stream; fails with a MeshError, as where
        it refuses."""

        def start() -> Deferred[IProtocol]:
            node = self.nodes.reach(self.name, self.reactor)
            via = None if self.via is None else tuple(_hop(node, hop) for hop in self.via)
            return connect_transport(
                node,
                node.lookup(self.target),
                self.port,
                lambda peer: _build(protocolFactory, peer),
                via=via,
                identity=self.identity,
                policy=self.policy,
                taken=True,
            )

        return maybeDeferred(start)


@implementer(IStreamServerEndpoint)
@frozen
class MeshServerEndpoint:
    """Takes a mesh port. `callers` are the keys (hex or names) that may connect; empty: anyone. `service` is
    a hidden service of the node whose port it is, by name; None: the node itself."""

    port: int
    callers: tuple[str, ...] = ()
    name: str | None = None
    nodes: Nodes = NODES
    reactor: Any = None
    service: str | None = None

    def listen(self, protocolFactory: IProtocolFactory) -> Deferred[IListeningPort]:
        """Fires with an IListeningPort; fails with a MeshError, at once where no node runs."""
        try:
            node = self.nodes.reach(self.name, self.reactor)
            callers = frozenset(_key(node, caller) for caller in self.callers)
            port = _MeshPort(node, self.port, callers, protocolFactory, self.service)
            port.startListening()
        except MeshError as error:
            return fail(error)
        listener = port.listener
        if not isinstance(listener, AttachedPort):
            return succeed(cast(IListeningPort, port))
        return listener.taken.addCallbacks(lambda _: cast(IListeningPort, port), port.failed)


@implementer(IListeningPort)
@define(eq=False)
class _MeshPort:
    node: Node
    port: int
    callers: frozenset[PublicKey]
    factory: IProtocolFactory
    service: str | None = None
    listener: PortListener | None = None

    def startListening(self) -> None:
        self.listener = self.node.listen(self.port, self._accept, self.service)
        self.factory.doStart()

    def stopListening(self) -> Deferred[None]:
        if self.listener is not None:
            self.listener.stop()
            self.listener = None
            self.factory.doStop()
        return succeed(None)

    def getHost(self) -> MeshAddress:
        key = self.listener.key if isinstance(self.listener, AttachedPort) else self.node.public_key
        return MeshAddress(key, self.port)

    def failed(self, failure: Failure) -> Failure:
        """The node said no."""
        self.stopListening()
        return failure

    def _accept(self, stream: Stream) -> StreamReader | None:
        if self.callers and stream.peer not in self.callers:
            return None
        return accept_transport(self.node, stream, lambda peer: _build(self.factory, peer), self.getHost())


def _build(factory: IProtocolFactory, peer: MeshAddress) -> IProtocol | None:
    return factory.buildProtocol(cast(Any, peer))


def _hop(node: Node, text: str) -> Any:
    """A relay, as `node.connect` wants it."""
    return text if isinstance(node, AttachedNode) else node_key(node.lookup(text))


def _key(node: Node, text: str) -> PublicKey:
    """A caller's key; what names stand for is known only to a node of this process."""
    return parse_public_key(text) if isinstance(node, AttachedNode) else node_key(node.lookup(text))


def _port(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 1 <= int(text[:6]) <= 65_535):
        raise UsageError(f"{text!r} is no mesh port; give a number from 1 to 65535")
    return int(text)


def _names(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


@implementer(IPlugin, IStreamClientEndpointStringParserWithReactor)
@frozen
class MeshClientParser:
    """Reads `mesh:<key or name>:<port>`; a dropin object."""

    prefix = "mesh"
    nodes: Nodes = NODES

    def parseStreamClient(self, reactor: Any, *args: Any, **options: Any) -> MeshClientEndpoint:
        """Raises UsageError; whether the node runs is looked at when it connects."""
        parts = list(args)
        target = options.pop("key", None) or (parts.pop(0) if parts else "")
        port = options.pop("port", None) or (parts.pop(0) if parts else "")
        via = options.pop("via", None)
        policy = options.pop("policy", None)
        identity = options.pop("as", "anonymous")
        name = options.pop("node", None)
        wrong = parts or options or not target or (via is not None and policy is not None)
        if wrong or identity not in ("anonymous", "node"):
            raise UsageError(
                "write mesh:<key or name>:<port>[:via=A,B|:policy=P][:as=anonymous|node][:node=NAME]"
            )
        hops = None if via is None else _names(via)
        return MeshClientEndpoint(target, _port(port), hops, identity, name, self.nodes, reactor, policy)


@implementer(IPlugin, IStreamServerEndpointStringParser)
@frozen
class MeshServerParser:
    """Reads `mesh:<port>`; a dropin object."""

    prefix = "mesh"
    nodes: Nodes = NODES

    def parseStreamServer(self, reactor: Any, *args: Any, **options: Any) -> MeshServerEndpoint:
        """Raises UsageError; whether the node runs is looked at when it listens."""
        parts = list(args)
        port = options.pop("port", None) or (parts.pop(0) if parts else "")
        callers = _names(options.pop("callers", ""))
        name = options.pop("node", None)
        service = options.pop("address", None)
        if parts or options:
            raise UsageError("write mesh:<port>[:address=SERVICE][:callers=A,B][:node=NAME]")
        return MeshServerEndpoint(_port(port), callers, name, self.nodes, reactor, service)
