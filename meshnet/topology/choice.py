"""Which ways lead to a node under a policy, and why the others were not taken.

Candidates are searched by every preference, with and without the policy's rules; each is then held against
the rules one by one. So what the rules cost can be seen: the path that would have been taken without them
stands among the rejected, with the first rule that it breaks.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import pairwise
from math import inf
from types import MappingProxyType
from typing import Final

from attrs import evolve, frozen

from meshnet.cipher.keys import PublicKey
from meshnet.limits import HOPS, PATHS_WEIGHED
from meshnet.topology.claims import Mark
from meshnet.topology.graph import Edge, Graph, Node, Table, Weight
from meshnet.topology.measured import Known, Measured
from meshnet.topology.policy import Policy, Prefer
from meshnet.topology.record import Name, Record, name_of
from meshnet.topology.search import Effort, Remaining, disjoint, in_order, shortest

HOP_SECONDS: Final = 0.0005
"""What a relay adds to the delay of its link."""
LOSS_SECONDS: Final = 0.2
"""What a lost cell costs, as delay."""
DISTRUST: Final = 8.0
"""Marked links and nodes cost so many times more."""
REPAIRS: Final = 8  # searches for a path whose relays stand apart …
OTHERS: Final = 2  # … by the preference of the policy; so many by others, to be shown beside
LONGEST_WAY: Final = 64  # hops, over waypoints
FREE_DELAY: Final = 1e-4  # per second: among equally cheap paths the fast one


@frozen
class Way:
    """A path: `nodes` from the origin to the target. Delay in seconds one way, loss 0 to 1, capacity in
    bytes per second, price in units a MiB, countries of the relays ('' unknown)."""

    nodes: tuple[Name, ...]
    delay: float
    loss: float
    capacity: float
    price: int
    countries: tuple[str, ...]
    marks: Mark
    measured: bool = False
    """Delay or loss are those of a circuit of ours, not those that links state."""

    @property
    def hops(self) -> int:
        """The last node counted."""
        return len(self.nodes) - 1

    @property
    def relays(self) -> tuple[Name, ...]:
        """Nodes between the ends."""
        return self.nodes[1:-1]


@frozen
class Rejected:
    """A way that was looked at and not taken, with a sentence that says why; `worse`: it keeps to the policy,
    and there are better ones."""

    way: Way
    reason: str
    worse: bool = False


@frozen
class Choice:
    """`ways` keep to the policy, the best first; up to as many as it asks for share no relay (`apart` of the
    others come after). `rejected` are further candidates. `reason` says why there is no way, if there is
    none."""

    ways: tuple[Way, ...]
    rejected: tuple[Rejected, ...]
    reason: str = ""


def _latency(edge: Edge, node: Node) -> float:
    cost = edge.delay + HOP_SECONDS + LOSS_SECONDS * edge.loss
    return cost * DISTRUST if edge.marks or node.marks else cost


def _throughput(edge: Edge, node: Node) -> float:
    cost = 1e6 / edge.capacity + edge.loss + FREE_DELAY * edge.delay
    return cost * DISTRUST if edge.marks or node.marks else cost


def _price(edge: Edge, node: Node) -> float:
    cost = node.record.statement.price + edge.price + 1e-3 + edge.delay
    return cost * DISTRUST if edge.marks or node.marks else cost


def _hops(edge: Edge, node: Node) -> float:
    cost = 1.0 + FREE_DELAY * edge.delay
    return cost * DISTRUST if edge.marks or node.marks else cost


WEIGHTS: Final[dict[Prefer, Weight]] = {
    Prefer.LATENCY: _latency,
    Prefer.THROUGHPUT: _throughput,
    Prefer.PRICE: _price,
    Prefer.HOPS: _hops,
}


def measure(graph: Graph, nodes: Sequence[Name]) -> Way | None:
    """What is known of a path; None if one of its links is not there."""
    delay, arrives, capacity, marks = 0.0, 1.0, float("inf"), Mark(0)
    for here, there in pairwise(nodes):
        edge = graph.edge(here, there)
        if edge is None:
            return None
        delay += edge.delay
        arrives *= 1.0 - edge.loss
        capacity = min(capacity, edge.capacity)
        marks |= edge.marks | graph.nodes[there].marks
    inner = [graph.nodes[name].record for name in nodes[1:-1]]
    price = sum(record.statement.price for record in inner)
    delay += HOP_SECONDS * len(inner)
    countries = tuple(record.country for record in inner)
    return Way(tuple(nodes), delay, 1.0 - arrives, capacity, price, countries, marks)


def _states_a_key(record: Record) -> bool:
    return record.statement.epoch != 0


def _as_measured(way: Way, found: Measured) -> Way:
    delay, loss = found.against(way.delay, way.loss)
    return evolve(way, delay=delay, loss=loss, measured=(delay, loss) != (way.delay, way.loss))


def choose(
    graph: Graph,
    origin: Name,
    target: Name,
    policy: Policy,
    *,
    suspects: Collection[Name] = frozenset(),
    guards: Sequence[Name] = (),
    measured: Known = MappingProxyType({}),
    name: Callable[[Name], str] = bytes.hex,
    keyed: Callable[[Record], bool] = _states_a_key,
) -> Choice:
    """The ways from `origin` to `target`. `suspects` are relays that no path enters, `guards` those that
    `guarded` policies pass second, `measured` what circuits along some ways took, `name` how a node is called
    in sentences, `keyed` whether a node has the onion key that its record states."""
    if origin not in graph:
        return Choice((), (), "This node's own links are not in the graph yet; it has no neighbours.")
    if target not in graph:
        return Choice((), (), "No link-state record of that node is known.")
    rules = _Rules(graph, policy, frozenset(suspects), tuple(guards), name, keyed)
    accepted: dict[tuple[Name, ...], Way] = {}
    rejected: dict[tuple[Name, ...], Rejected] = {}
    for nodes in _candidates(graph, origin, target, policy, rules):
        if nodes in accepted or nodes in rejected or len(accepted) + len(rejected) >= PATHS_WEIGHED:
            continue
        way = measure(graph, nodes)
        if way is None:
            continue
        if nodes in measured:
            way = _as_measured(way, measured[nodes])
        reason = rules.against(way)
        if reason:
            rejected[nodes] = Rejected(way, reason)
        else:
            accepted[nodes] = way
    ways = sorted(accepted.values(), key=partial(_rank, policy.prefer))
    kept = _apart(ways, policy.disjoint)
    later = [way for way in ways if way not in kept]
    shown = [*rejected.values()]
    if kept:
        shown += [Rejected(way, _worse(policy, kept[0], way), worse=True) for way in later]
    return Choice(tuple(kept), tuple(shown), "" if kept else _nothing(graph, origin, target, shown))


def _rank(prefer: Prefer, way: Way) -> tuple[float, ...]:
    cost = DISTRUST if way.marks else 1.0
    slow = (way.delay + LOSS_SECONDS * way.loss) * cost
    if prefer is Prefer.THROUGHPUT:
        return (cost / way.capacity, slow)
    if prefer is Prefer.PRICE:
        return (way.price * cost, slow)
    if prefer is Prefer.HOPS:
        return (way.hops * cost, slow)
    return (slow, way.hops)


def _apart(ways: Sequence[Way], count: int) -> list[Way]:
    """The best, and up to `count` in all that share no relay with one before."""
    kept: list[Way] = []
    used: set[Name] = set()
    for way in ways:
        if len(kept) < count and not used & set(way.relays) and not (kept and not way.relays):
            kept.append(way)
            used.update(way.relays)
    return kept


def _worse(policy: Policy, best: Way, way: Way) -> str:
    if policy.prefer is Prefer.THROUGHPUT and way.capacity < best.capacity:
        return f"carries {way.capacity / 125_000:.1f} Mbit/s, the best {best.capacity / 125_000:.1f}"
    if policy.prefer is Prefer.PRICE and way.price > best.price:
        return f"costs {way.price} a MiB, the best {best.price}"
    if policy.prefer is Prefer.HOPS and way.hops > best.hops:
        return f"has {way.hops} hops, the best {best.hops}"
    if way.marks:
        return f"is distrusted: it {', '.join(way.marks.words)}"
    took = "took" if way.measured else "takes"
    return f"{took} {way.delay * 1e3:.1f} ms, the best {best.delay * 1e3:.1f}"


def _nothing(graph: Graph, origin: Name, target: Name, rejected: Sequence[Rejected]) -> str:
    if rejected:
        return f"Every way known breaks the policy; the nearest to it {rejected[0].reason}."
    if target not in graph.component(origin):
        return "No chain of links that both ends state leads to that node."
    return f"No way of at most {HOPS} hops over nodes that relay leads to that node."


class _Rules:
    """A policy held against single nodes and whole ways."""

    def __init__(
        self,
        graph: Graph,
        policy: Policy,
        suspects: frozenset[Name],
        guards: tuple[Name, ...],
        name: Callable[[Name], str],
        keyed: Callable[[Record], bool],
    ) -> None:
        self._graph = graph
        self._keyed = keyed
        self._policy = policy
        self._avoid = {name_of(key): key for key in policy.avoid}
        self._suspects = suspects
        self.guards = guards if policy.guarded else ()
        self._name = name
        self._traits: dict[Name, frozenset[tuple[str, bytes]]] = {}

    def bars(self, name: Name) -> str:
        """Why a node must not be a relay; empty if it may."""
        node = self._graph.nodes[name]
        policy, country = self._policy, node.record.country
        if not node.relays:
            return "does not relay"
        if name in self._avoid:
            return "is to be avoided"
        if name in self._suspects:
            return "was in circuits that died early"
        if country and country in policy.avoid_countries:
            return f"stands in {country}, which is to be avoided"
        if policy.only_countries and country not in policy.only_countries:
            allowed = ", ".join(sorted(policy.only_countries))
            return f"stands in {country or 'no stated country'}, not in {allowed}"
        if policy.onion_keys and not self._keyed(node.record):
            return "states no onion key that changes"
        if node.marks and policy.apart:
            return f"is distrusted: it {', '.join(node.marks.words)}"
        return ""

    def closed(self) -> set[Name]:
        """All nodes that must not be relays."""
        return {name for name in self._graph.nodes if self.bars(name)}

    def against(self, way: Way) -> str:
        """Which rule a way breaks; empty if none."""
        for relay in way.relays:
            reason = self.bars(relay)
            if reason:
                return f"enters {self._name(relay)}, which {reason}"
        return self._order(way) or self._bounds(way) or self._standing_apart(way)

    def _order(self, way: Way) -> str:
        policy = self._policy
        if policy.pin is not None and way.relays != tuple(name_of(key) for key in policy.pin):
            return "is not the pinned one"
        passed = 0
        for country in way.countries:
            passed += passed < len(policy.countries) and country == policy.countries[passed]
        if passed < len(policy.countries):
            return f"misses {policy.countries[passed]} of countries {'>'.join(policy.countries)}"
        if self.guards and (len(way.relays) < 2 or way.relays[1] not in self.guards):
            return "does not pass one of this node's two guards second"
        return ""

    def _bounds(self, way: Way) -> str:
        policy = self._policy
        if way.hops > policy.max_hops:
            return f"has {way.hops} hops, more than max_hops {policy.max_hops}"
        if way.hops < policy.min_hops:
            return f"has {way.hops} hops, fewer than min_hops {policy.min_hops}"
        if policy.max_delay is not None and way.delay > policy.max_delay:
            return f"takes {way.delay * 1e3:.1f} ms, more than max_delay {policy.max_delay * 1e3:g}"
        if policy.max_loss is not None and way.loss > policy.max_loss:
            return f"loses {way.loss * 100:.2f} %, more than max_loss {policy.max_loss * 100:g}"
        if policy.min_capacity is not None and way.capacity < policy.min_capacity:
            least = policy.min_capacity / 125_000
            return f"carries {way.capacity / 125_000:.1f} Mbit/s, less than min_capacity {least:g}"
        if policy.price_cap is not None and way.price > policy.price_cap:
            return f"costs {way.price} a MiB, more than price_cap {policy.price_cap}"
        return ""

    def _standing_apart(self, way: Way) -> str:
        pair = self.together(way.nodes) if self._policy.apart else None
        if pair is None:
            return ""
        one, other, what = pair
        return f"has {self._name(one)} and {self._name(other)} of one {what}"

    def clash(self, one: Name, other: Name) -> bool:
        """Whether two relays are of one operator, /16 or country."""
        return not self._traits_of(one).isdisjoint(self._traits_of(other))

    def _traits_of(self, name: Name) -> frozenset[tuple[str, bytes]]:
        known = self._traits.get(name)
        if known is None:
            record = self._graph.nodes[name].record
            said = (
                ("operator", record.statement.operator.strip(b"\0")),
                ("/16", record.statement.subnet.strip(b"\0")),
                ("country", record.country.encode()),
            )
            known = self._traits[name] = frozenset(each for each in said if each[1])
        return known

    def together(self, nodes: Sequence[Name]) -> tuple[Name, Name, str] | None:
        """The first two relays of one operator, /16 or country; None if all stand apart."""
        seen: dict[tuple[str, bytes], Name] = {}
        for name in nodes[1:-1]:
            for trait in sorted(self._traits_of(name), reverse=True):  # the operator first
                if trait in seen:
                    return seen[trait], name, trait[0]
                seen[trait] = name
        return None


def _candidates(
    graph: Graph, origin: Name, target: Name, policy: Policy, rules: _Rules
) -> list[tuple[Name, ...]]:
    """Paths worth weighing: those that the rules leave, by every preference; then those without rules."""
    if policy.pin is not None:
        return [(origin, *(name_of(key) for key in policy.pin), target)]
    closed = rules.closed()
    effort = Effort()
    found: list[tuple[Name, ...]] = []
    order = [policy.prefer, *(each for each in Prefer if each is not policy.prefer)]
    for prefer in order:
        costs = graph.weighted(WEIGHTS[prefer])
        back = graph.weighted_back(WEIGHTS[prefer])
        if policy.countries or policy.min_hops > 1 or policy.apart or rules.guards:
            rest = Remaining(back, target, effort)
            tries = REPAIRS + policy.disjoint if prefer is policy.prefer else OTHERS
            found += _with_care(graph, costs, origin, rest, policy, rules, closed, tries, effort)
        else:
            want = max(policy.disjoint, 4)
            found += disjoint(costs, origin, target, want, policy.max_hops, closed, back, effort)
    silent = {name for name, node in graph.nodes.items() if not node.relays}
    for prefer in order[:2]:
        costs, back = graph.weighted(WEIGHTS[prefer]), graph.weighted_back(WEIGHTS[prefer])
        found += disjoint(costs, origin, target, 3, HOPS, silent, back, effort)
    return found


def _with_care(
    graph: Graph,
    costs: Table,
    origin: Name,
    rest: Remaining[Name],
    policy: Policy,
    rules: _Rules,
    closed: set[Name],
    tries: int,
    effort: Effort,
) -> list[tuple[Name, ...]]:
    """Paths that pass countries or guards, have many hops, or stand apart: searched one after the other,
    each time without the relays of the last."""
    records = graph.nodes
    stops: list[Callable[[Name], bool]] = [
        partial(lambda code, name: records[name].record.country == code, code) for code in policy.countries
    ]
    stops += [lambda name: True] * max(0, policy.min_hops - 1 - len(stops)) if not stops else []
    found: list[tuple[Name, ...]] = []
    shut = set(closed)
    # With relays that clash first: that path shows what it costs that they stand apart.
    clashes = [None, *[rules.clash] * tries] if policy.apart else [None] * tries
    for clash in clashes:
        if rules.guards:
            path = _behind_guard(costs, origin, rest, policy, rules.guards, stops, shut, effort, clash)
        else:
            path = in_order(costs, origin, stops, policy.max_hops, rest, shut, effort, clash=clash)
        if path is None:
            break
        found.append(path)
        if clash is not None or not policy.apart:
            shut.update(path[1:-1])
    return found


def _behind_guard(
    costs: Table,
    origin: Name,
    rest: Remaining[Name],
    policy: Policy,
    guards: Sequence[Name],
    stops: Sequence[Callable[[Name], bool]],
    shut: set[Name],
    effort: Effort,
    clash: Callable[[Name, Name], bool] | None,
) -> tuple[Name, ...] | None:
    """A path over a neighbour to a guard, and on from there."""
    for guard in guards:
        if guard not in costs or guard in (origin, rest.target) or guard in shut:
            continue
        closed = shut | {rest.target}
        if clash is not None:
            closed |= {name for name, _ in costs.get(origin, ()) if clash(name, guard)}
        led = _over_one(costs, origin, guard, closed)
        if led is not None:
            path = in_order(
                costs, guard, stops[2:], policy.max_hops, rest, shut, effort, led=led[:-1], clash=clash
            )
            if path is not None:
                return path
    return None


def _over_one(costs: Table, here: Name, there: Name, shut: Collection[Name]) -> tuple[Name, ...] | None:
    """The cheapest path of two hops; None if there is none."""
    best, found = inf, None
    for name, cost in costs.get(here, ()):
        if name not in shut and name != there:
            for other, more in costs.get(name, ()):
                if other == there and cost + more < best:
                    best, found = cost + more, (here, name, there)
    return found


def long_way(graph: Graph, origin: Name, target: Name) -> tuple[tuple[Name, ...], ...]:
    """A path with more hops than one circuit can have, cut into pieces: each begins at the node where the
    last one ended, a waypoint, and has 8 hops at most, all but the first 7, since the link to the waypoint
    is one. Empty if there is no path at all."""
    costs = graph.weighted(_latency)
    silent = {name for name, node in graph.nodes.items() if not node.relays}
    path = shortest(costs, origin, target, LONGEST_WAY, silent, graph.weighted_back(_latency))
    if path is None:
        return ()
    pieces: list[tuple[Name, ...]] = []
    start = 0
    while start < len(path) - 1:
        end = start + (HOPS if not pieces else HOPS - 1)
        pieces.append(path[start : end + 1])
        start = end
    return tuple(pieces)


def keys_of(graph: Graph, names: Sequence[Name]) -> tuple[PublicKey, ...]:
    """The keys behind names; raises KeyError for one that has no record."""
    return tuple(graph.nodes[name].record.key for name in names)
