"""The routes of a node's control API, and the shapes of their requests.

    GET  /status /links /circuits /metrics /history?ring=1s /history/links /history/paths /state
         /topology
    POST /paths {target, policy} · /invite {seconds, peers, addresses}
    POST /paths/ask {service, target, source, policy}
    POST /topology/sync · /probe {targets}
    GET, POST, DELETE /route-service {database}
    POST /circuits/renew {target}
    POST /ping {target, via, count, clock} · /trace {target, via} · /about {target, via} · /stop · /reload
    …    /apps/<name>/… as the apps declare

Keys in requests are hex digits or pet names. Unknown keys of a request are refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, Protocol

from attrs import frozen
from prometheus_client import CollectorRegistry, generate_latest
from twisted.internet.defer import Deferred

from meshnet.cipher.address import Address, Target, proves
from meshnet.cipher.keys import PublicKey
from meshnet.control.messages import to_json
from meshnet.errors import MeshError, UsageError
from meshnet.node import about
from meshnet.node.app import Json, Route
from meshnet.node.config import route_refusal
from meshnet.node.hidden import DEFAULT_LIFE, HiddenServices
from meshnet.node.invitation import InviteRequest
from meshnet.node.rings import RINGS, History
from meshnet.node.route_lookup import RouteLookup
from meshnet.node.schema import Between, read_body, read_query
from meshnet.node.topology import Topology
from meshnet.node.trails import Trails

MOST_PINGS = 1_000
PROBES = 32  # nodes pinged at a time


@frozen
class Nothing:
    """A request without arguments."""


@frozen
class PingRequest:
    """Measures a circuit: its set-up and `count` round trips."""

    target: Target
    via: tuple[PublicKey, ...] | None = None
    """Relays, nearest first; left out: the configured route, else a direct link."""
    count: Annotated[int, Between(1, MOST_PINGS)] = 1
    clock: bool = False
    """Also how long each way takes, by the other node's clock, if it shows that (`[about] clock`)."""


@frozen
class AboutRequest:
    """Asks a node about itself."""

    target: Target
    via: tuple[PublicKey, ...] | None = None


@frozen
class TraceRequest:
    """Measures a circuit to each hop of a route (docs/wire-format.md §8)."""

    target: Target
    via: tuple[PublicKey, ...] | None = None
    count: Annotated[int, Between(1, 100)] = 3


@frozen
class RenewRequest:
    """Gives sessions begun here new circuits."""

    target: Target | None = None
    """Only sessions to this key or service."""


@frozen
class PathsRequest:
    """Asks for the ways to a node."""

    target: PublicKey
    policy: str | None = None
    """A path policy; left out: the config's."""


@frozen
class AskRequest:
    """Asks a route service for ways; it learns the target."""

    service: PublicKey
    target: PublicKey
    source: PublicKey | None = None
    """Where the ways begin; left out: at this node."""
    policy: str = ""


@frozen
class ProbeRequest:
    """Pings nodes once each, all at a time."""

    targets: tuple[PublicKey, ...]


@frozen
class ServeRequest:
    """Makes this node a route service until it stops."""

    database: str | None = None
    """A file or a postgresql:// URL; left out: the config's."""


@frozen
class NewAddress:
    """Makes a hidden service and its first address."""

    hops: tuple[PublicKey, ...] = ()
    name: str | None = None
    seconds: Annotated[int, Between(1)] = DEFAULT_LIFE


@frozen
class RenewAddress:
    """Makes another address of a hidden service; without `hops` over the relays of the last one."""

    name: str
    hops: tuple[PublicKey, ...] | None = None
    seconds: Annotated[int, Between(1)] = DEFAULT_LIFE


@frozen
class RemoveAddress:
    """Forgets a hidden service."""

    name: str


@frozen
class HistoryRequest:
    """Asks for past samples."""

    ring: Literal["1s", "10s", "1min", "1h"] = "1s"


class ApiNode(about.Node, Protocol):
    """What the routes ask of a node."""

    @property
    def public_key(self) -> PublicKey:
        """Who it is."""

    @property
    def registry(self) -> CollectorRegistry:
        """Its metrics."""

    @property
    def history(self) -> History:
        """Its past samples."""

    @property
    def links_past(self) -> Trails:
        """Past samples of links."""

    @property
    def paths_past(self) -> Trails:
        """Past samples of paths."""

    @property
    def hidden(self) -> HiddenServices:
        """Its hidden services."""

    @property
    def lookup_service(self) -> RouteLookup:
        """Route services that it asks, and what it is itself of one."""

    @property
    def topology(self) -> Topology:
        """What it knows of the network; raises LocalError where it does not want to know."""

    def lookup(self, text: str) -> Target:
        """What hex digits, an address or a pet name stand for; raises UsageError."""

    def route_to(self, target: Target, via: Sequence[PublicKey] | None) -> tuple[PublicKey, ...]:
        """The relays to use."""

    def invite(self, request: InviteRequest) -> Json:
        """A signed invite."""

    def ping(self, target: Target, via: Sequence[PublicKey] | None, count: int) -> Deferred[Json]:
        """Measures a circuit."""

    def status(self) -> Json:
        """What `meshnet status` shows."""

    def links(self) -> list[Json]:
        """Neighbours."""

    def circuits(self) -> list[Json]:
        """Circuits of this node, and those it relays."""

    def renew(self, target: Target | None) -> Deferred[list[Json]]:
        """Gives sessions begun here new circuits; tells what became of each."""

    def stop_soon(self) -> None:
        """Ends the node after the answer has gone out."""

    def state(self) -> Json:
        """A dump for a bug report."""

    async def reload(self) -> Json:
        """Takes over a changed config."""


def node_routes(node: ApiNode) -> dict[str, Route]:
    """`"METHOD /path"` to what answers it."""
    api = _Api(node)
    return {
        "GET /status": api.status,
        "GET /links": api.links,
        "GET /circuits": api.circuits,
        "GET /metrics": api.metrics,
        "GET /history": api.history,
        "GET /history/links": api.links_past,
        "GET /history/paths": api.paths_past,
        "POST /circuits/renew": api.renew,
        "POST /ping": api.ping,
        "POST /trace": api.trace,
        "GET /addresses": api.addresses,
        "POST /addresses": api.new_address,
        "POST /addresses/renew": api.renew_address,
        "DELETE /addresses": api.remove_address,
        "POST /about": api.about,
        "GET /topology": api.topology,
        "POST /paths": api.paths,
        "POST /invite": api.invite,
        "POST /paths/ask": api.ask,
        "POST /topology/sync": api.sync,
        "POST /probe": api.probe,
        "GET /route-service": api.routes,
        "POST /route-service": api.serve,
        "DELETE /route-service": api.unserve,
        "GET /state": api.state,
        "POST /stop": api.stop,
        "POST /reload": api.reload,
    }


def app_routes(name: str, routes: Mapping[str, Route]) -> dict[str, Route]:
    """The same routes under /apps/<name>; raises UsageError if one is not written `METHOD /path`."""
    found: dict[str, Route] = {}
    for pattern, route in routes.items():
        method, space, path = pattern.partition(" ")
        if method not in ("GET", "POST", "DELETE") or not space or not path.startswith("/"):
            raise UsageError(
                f"App {name} declares the route {pattern!r}; write GET, POST or DELETE and a /path."
            )
        found[f"{method} /apps/{name}{path}"] = route
    return found


class _Api:
    def __init__(self, node: ApiNode) -> None:
        self._node = node

    def status(self, query: Json) -> Json:
        read_query(Nothing, query)
        return self._node.status()

    def links(self, query: Json) -> Json:
        read_query(Nothing, query)
        return {"links": self._node.links()}

    def circuits(self, query: Json) -> Json:
        read_query(Nothing, query)
        return {"circuits": self._node.circuits()}

    async def renew(self, body: Json) -> Json:
        request = read_body(RenewRequest, body, self._node.lookup)
        return {"renewed": await self._node.renew(request.target)}

    def metrics(self, query: Json) -> Json:
        read_query(Nothing, query)
        return {"text": generate_latest(self._node.registry).decode()}

    def history(self, query: Json) -> Json:
        request = read_query(HistoryRequest, query)
        step = next(step for name, step, _ in RINGS if name == request.ring)
        history = self._node.history
        gauges, series = sorted(history.gauges), history.series(request.ring)
        return {"ring": request.ring, "step_seconds": step, "gauges": gauges, "series": series}

    def links_past(self, query: Json) -> Json:
        return self._past(query, self._node.links_past, "links")

    def paths_past(self, query: Json) -> Json:
        return self._past(query, self._node.paths_past, "paths")

    def _past(self, query: Json, trails: Trails, name: str) -> Json:
        ring = read_query(HistoryRequest, query).ring
        step = next(step for each, step, _ in RINGS if each == ring)
        return {"ring": ring, "step_seconds": step, name: trails.shown(ring, self._node.clock.now())}

    async def ping(self, body: Json) -> Json:
        request = read_body(PingRequest, body, self._node.lookup)
        via = self._route(request.target, request.via)
        report = await self._node.ping(request.target, via, request.count)
        if request.clock:
            report["clock"] = await self._clock(request.target, via, request.count)
        return {"target": proves(request.target).hex(), "via": [hop.hex() for hop in via], **report}

    async def _clock(self, target: Target, via: Sequence[PublicKey], count: int) -> Json:
        try:
            return await about.delays(self._node, target, via, count)
        except MeshError as error:
            return to_json(error)[1]

    def topology(self, query: Json) -> Json:
        read_query(Nothing, query)
        return self._node.topology.map()

    def paths(self, body: Json) -> Json:
        request = read_body(PathsRequest, body, self._node.lookup)
        return self._node.topology.paths(request.target, request.policy, self._node.clock.now())

    def invite(self, body: Json) -> Json:
        return self._node.invite(read_body(InviteRequest, body))

    async def ask(self, body: Json) -> Json:
        request = read_body(AskRequest, body, self._node.lookup)
        lookup = self._node.lookup_service
        return await lookup.ask(request.service, request.source, request.target, request.policy)

    async def sync(self, body: Json) -> Json:
        read_body(Nothing, body)
        return await self._node.lookup_service.refresh()

    async def probe(self, body: Json) -> Json:
        request = read_body(ProbeRequest, body, self._node.lookup)
        if len(request.targets) > PROBES:
            raise UsageError(f"At most {PROBES} nodes are probed at a time.")
        return {"probed": await self._node.lookup_service.probe(request.targets)}

    def routes(self, query: Json) -> Json:
        read_query(Nothing, query)
        return self._node.lookup_service.status()

    async def serve(self, body: Json) -> Json:
        self._node.lookup_service.serve(read_body(ServeRequest, body).database)
        await self._node.lookup_service.answered()
        return self._node.lookup_service.status()

    async def unserve(self, body: Json) -> Json:
        read_body(Nothing, body)
        await self._node.lookup_service.unserve()
        return self._node.lookup_service.status()

    async def about(self, body: Json) -> Json:
        request = read_body(AboutRequest, body, self._node.lookup)
        via = self._route(request.target, request.via)
        found = await about.describe(self._node, request.target, via)
        return {"target": proves(request.target).hex(), "via": [hop.hex() for hop in via], **found}

    async def trace(self, body: Json) -> Json:
        request = read_body(TraceRequest, body, self._node.lookup)
        via = self._route(request.target, request.via)
        hops = [await self._hop(via[:place], relay, request.count) for place, relay in enumerate(via)]
        hops.append(await self._hop(via, request.target, request.count))
        return {"target": proves(request.target).hex(), "hops": hops, "complete": "error" not in hops[-1]}

    async def _hop(self, via: Sequence[PublicKey], target: Target, count: int) -> Json:
        hop: dict[str, Any] = {"hop": len(via) + 1, "key": proves(target).hex()}
        if isinstance(target, Address):
            hop["hidden_hops"] = len(target.tail)
        try:
            report = await self._node.ping(target, tuple(via), count)
        except MeshError as error:
            return {**hop, **to_json(error)[1]}
        return {**hop, **report}

    def addresses(self, query: Json) -> Json:
        read_query(Nothing, query)
        return {"services": self._node.hidden.shown()}

    def new_address(self, body: Json) -> Json:
        request = read_body(NewAddress, body, self._node.lookup)
        return self._node.hidden.new(request.hops, request.name, request.seconds)

    def renew_address(self, body: Json) -> Json:
        request = read_body(RenewAddress, body, self._node.lookup)
        return self._node.hidden.renew(request.name, request.hops, request.seconds)

    def remove_address(self, body: Json) -> Json:
        return self._node.hidden.remove(read_body(RemoveAddress, body).name)

    def stop(self, body: Json) -> Json:
        read_body(Nothing, body)
        self._node.stop_soon()
        return {"stopping": True}

    def state(self, query: Json) -> Json:
        read_query(Nothing, query)
        return self._node.state()

    async def reload(self, body: Json) -> Json:
        read_body(Nothing, body)
        return await self._node.reload()

    def _route(self, target: Target, via: Sequence[PublicKey] | None) -> tuple[PublicKey, ...]:
        if target == self._node.public_key:
            raise UsageError("That is this node's own key; name another node.")
        route = self._node.route_to(target, via)
        if self._node.public_key in route:
            raise UsageError("The route passes this node itself; leave its own key out.")
        refusal = route_refusal(route, target)
        if refusal:
            raise UsageError(f"The route {refusal}")
        return route
