"""What this node knows of the network, kept fresh: its own record, those of others, and ways through them.

Links bring frames of topology here and take them from here; the router asks for ways and tells what became
of circuits. The node states its links when one comes or goes, when a value has moved by a quarter, and else
every half hour. Everything runs in turns of the router; nothing here is asked per cell.

    DATA/topology.0, .1     {"guards": [{"name": hex, "since": unix, "seen": unix}, …]}
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable
from hashlib import sha256
from ipaddress import IPv6Address
from typing import Any, Final, Protocol

from attrs import evolve
from twisted.logger import Logger

from meshnet.cipher.address import Address, Target, proves
from meshnet.cipher.keys import PublicKey, SecretKey, mesh_ipv6, parse_public_key
from meshnet.circuit.epochs import IDENTITY, OnionKey, fresh
from meshnet.errors import CodecError, MeshError, ProtocolError, UnreachableError, UsageError
from meshnet.limits import RECORD_AHEAD, SPREAD_NODES
from meshnet.link.link import Link
from meshnet.node.app import Json
from meshnet.node.config import TopologySettings
from meshnet.node.conversation import Route
from meshnet.node.onion_keys import OnionKeys
from meshnet.storage.kept import KeptFile
from meshnet.topology import frames
from meshnet.topology.book import Book, Verdict
from meshnet.topology.choice import Choice, Way, choose, keys_of, long_way
from meshnet.topology.claims import Mark
from meshnet.topology.guards import Guard, keep
from meshnet.topology.measured import Measurements
from meshnet.topology.policy import Policy, Prefer, parse_policy
from meshnet.topology.record import (
    NAME_SIZE,
    NO_PLACE,
    RELAYS,
    ROUTE_SERVICE,
    VERSION,
    LinkRow,
    Name,
    Statement,
    issue,
    moved,
    name_of,
    read,
)
from meshnet.topology.spread import Spread
from meshnet.topology.suspicion import Suspicion

KEPT_FILE: Final = "topology"
KEPT_BYTES: Final = 64 << 10
LIFE_MINUTES: Final = 180
REFRESH: Final = 1_800.0  # seconds after which a record is issued again although nothing moved
SOON: Final = 0.2  # seconds between a link that came or went and the record that says so; longer …
GATHER: Final = 2.5  # … by this factor for each record issued lately: a network that grows is told in few
CHECK: Final = 10.0  # seconds between looks at what links measure
STEADY: Final = 2  # looks in a row that must find a value moved
SHARE: Final = 0.25
BURST: Final = 5.0  # own records at once: fewer than others take (RECORD_BURST) …
STEP: Final = 60.0  # … and one more in so many seconds
GUARD_CHECK: Final = 60.0
ALTERNATIVES: Final = 3  # ways tried one behind the other
LEAST_SEEN: Final = 125_000.0  # bytes per second; less says nothing of what a link can
FORGET: Final = 0.999  # at each look: half in two hours
_TRANSPORTS: Final = {"tcp": 1, "udp": 2}

_log = Logger()


class Net(Protocol):
    """What is needed of the router."""

    onion_keys: OnionKeys
    """Whose current one this node states."""

    def links_now(self) -> Iterable[Link]:
        """All links, standing or not."""

    def later(self, delay: float, call: Callable[[float], None]) -> Callable[[], None]:
        """Runs `call(now)` in a turn of its own; returns what cancels it."""


class Topology:
    """One per running node. `own` is its name in the graph."""

    def __init__(
        self,
        secret: SecretKey,
        network: int,
        settings: TopologySettings,
        net: Net,
        *,
        relays: bool,
        unix: Callable[[], float],
        random: Callable[[int], bytes],
        lookup: Callable[[str], Target],
        kept: KeptFile | None = None,
    ) -> None:
        self._secret = secret
        self._network = network
        self._settings = settings
        self._net = net
        self._relays = relays
        self._unix = unix
        self._random = random
        self._lookup = lookup
        self._kept = kept
        self.own = name_of(secret.public)
        self.book = Book(network, self.own)
        self.graph = self.book.graph
        self.spread = Spread(self.book)
        self.suspicion = Suspicion()
        self.measurements = Measurements()
        self.guards: tuple[Guard, ...] = ()
        self._links: dict[Name, Link] = {}
        self._issued = 0
        self._due = 0.0
        self._check_at = 0.0
        self._guards_at = 0.0
        self._moved = 0
        self._tokens, self._tokens_at = BURST, 0.0
        self._seen: dict[Name, float] = {}  # by link, what it was seen to carry
        self._planned: tuple[float, Callable[[], None]] | None = None
        self._stopped = False
        self._marked: set[Name] = set()
        self.published = 0
        self._policies: dict[str, Policy] = {}
        self._serves = False
        self._served_until = 0.0

    def start(self, now: float) -> list[str]:
        """Reads what was kept, and states this node without links; sentences about what could not be read."""
        notes: list[str] = []
        if self._kept is not None:
            kept = self._kept.load()
            notes = list(kept.notes)
            if kept.frame is not None:
                self.guards = _guards_in(kept.frame.data)
        self._tokens_at = now
        self._publish(now)
        return notes

    def stop(self) -> None:
        """Nothing is planned any more, also for links that end now."""
        self._stopped = True
        if self._planned is not None:
            self._planned[1]()
            self._planned = None

    # links and frames

    def link_up(self, link: Link, now: float) -> None:
        """A link stands."""
        name = name_of(link.peer)
        self._links[name] = link
        self.spread.up(name, _capacity(link), now)
        self._soon(now)
        self._say(now)

    def link_down(self, link: Link, now: float) -> None:
        """It stands no more."""
        name = name_of(link.peer)
        if self._links.pop(name, None) is not None:
            self.spread.down(name)
            self._seen.pop(name, None)
            self._soon(now)

    def receive(self, link: Link, kind: int, body: memoryview, now: float) -> None:
        """A frame of topology; raises ProtocolError for one that is malformed."""
        name = name_of(link.peer)
        if name not in self._links:
            self.link_up(link, now)
        before = self.book.counts[Verdict.OWN]
        try:
            self.spread.receive(name, kind, body, now, self._unix())
        except CodecError as error:
            raise ProtocolError(str(error)) from None
        if self.book.counts[Verdict.OWN] != before and kind == frames.RECORD:
            # A record of ours from before: the clock was ahead then. Ours must be later.
            self._issued = max(self._issued, int.from_bytes(body[38:42], "big"))
            self._soon(now)
        self._say(now)

    def learn(self, data: bytes, source: Name, now: float) -> Verdict:
        """A record that a route service, or who asks ours, has sent; no neighbour is told of it."""
        return self.spread.learn(data, source, now, self._unix())

    def _say(self, now: float) -> None:
        """Sends neighbours what there is to say, and plans the next time."""
        for name in self.spread.due(now):
            link = self._links[name]
            for kind, body in self.spread.frames(name, now):
                link.send(kind, body)
        due = None if self._stopped else self.spread.deadline()
        if due is not None and (self._planned is None or due < self._planned[0]):
            if self._planned is not None:
                self._planned[1]()
            self._planned = (due, self._net.later(max(due - now, 0.001), self._planned_turn))

    def _planned_turn(self, now: float) -> None:
        self._planned = None
        self.spread.tick(now, self._unix())
        self._say(now)

    def _choose_spread(self, now: float) -> None:
        """Whether neighbours are told of all, or, where a route service does that, of this node alone. It is
        so again only when the network has become much smaller."""
        served = self._serves or now < self._served_until
        large = self.book.attached > (SPREAD_NODES if self.spread.passes_on else SPREAD_NODES // 2)
        self.spread.pass_on(not (served and large), now)

    def served(self, until: float) -> None:
        """A route service has shown all it has, and what it showed holds until then."""
        self._served_until = until

    # our own record

    def tick(self, now: float) -> None:
        """Twice a second."""
        self._note_links(now)
        if now >= self._check_at:
            self._check_at = now + CHECK
            self._check(now)
        if self._states_a_lost_key():
            self._soon(now)
        if now >= self._due:
            self._publish(now)
        if now >= self._guards_at and self.book.attached > 2:
            self._guards_at = now + GUARD_CHECK
            self._keep_guards(now)
        self._mark_suspects(now)
        self._choose_spread(now)
        self.spread.tick(now, self._unix())
        self._say(now)

    def _note_links(self, now: float) -> None:
        """Links whose last connection went do not tell it by themselves."""
        standing = {name_of(link.peer): link for link in self._net.links_now() if link.up}
        for name, link in list(self._links.items()):
            if name not in standing:
                self.link_down(link, now)
        for name, link in standing.items():
            if name not in self._links:
                self.link_up(link, now)

    def _soon(self, now: float) -> None:
        self._due = min(self._due, now + SOON * GATHER ** (BURST - self._refilled(now)))

    def _states_a_lost_key(self) -> bool:
        """Whether our record states an onion key that opens nothing any more. A change of keys alone does not
        hurry: the key of before opens onions until long after the next record."""
        held = self.book.get(self.own)
        return held is not None and self._net.onion_keys.ring.find(held.statement.epoch) is None

    def _refilled(self, now: float) -> float:
        """How many records may be issued at once now."""
        return min(self._tokens + (now - self._tokens_at) / STEP, BURST)

    def _check(self, now: float) -> None:
        """Whether what links measure has moved far enough, for long enough, to be told."""
        held = self.book.get(self.own)
        if held is None:
            return
        for name, link in self._links.items():
            rate = _capacity(link)
            self._seen[name] = max(rate, FORGET * self._seen.get(name, 0.0))
            self.spread.measured(name, rate)
        if moved(held.statement.links, self._rows(), SHARE):
            self._moved += 1
            if self._moved >= STEADY:
                self._soon(now)
        else:
            self._moved = 0

    def _rows(self) -> tuple[LinkRow, ...]:
        rows = []
        for name, link in sorted(self._links.items(), key=lambda each: each[0]):
            seen = max(_capacity(link), self._seen.get(name, 0.0))
            rows.append(_row(name, link, seen))
        return tuple(rows)

    def _publish(self, now: float) -> None:
        """Issues a record; later, if there were many lately."""
        self._tokens, self._tokens_at = self._refilled(now), now
        if self._links:  # what no neighbour hears costs nothing
            if self._tokens < 1.0:
                self._due = now + (1.0 - self._tokens) * STEP
                return
            self._tokens -= 1.0
        self._moved = 0
        unix = int(self._unix())
        if self._issued > unix + RECORD_AHEAD:  # our clock was far ahead: nobody has taken that
            self._issued = 0
        self._issued = max(unix, self._issued + 1)
        self.spread.publish(read(issue(self._statement(), self._secret)), now)
        self.published += 1
        spread = 0.9 + 0.2 * int.from_bytes(self._random(2), "big") / 65_536
        self._due = now + REFRESH * spread
        self._say(now)

    def _statement(self) -> Statement:
        settings, onion = self._settings, self._net.onion_keys.stated
        latitude, longitude = settings.place or NO_PLACE
        return Statement(
            version=VERSION,
            network=self._network,
            key=self._secret.public,
            issued=self._issued,
            life=LIFE_MINUTES,
            flags=(RELAYS if self._relays else 0) | (ROUTE_SERVICE if self._serves else 0),
            country=settings.country.encode() if settings.country else bytes(2),
            latitude=latitude,
            longitude=longitude,
            subnet=bytes(settings.subnet) if settings.subnet else bytes(2),
            operator=sha256(settings.operator.encode()).digest()[:8] if settings.operator else bytes(8),
            price=settings.price,
            epoch=IDENTITY if onion is None else onion.epoch,
            onion_key=bytes(33) if onion is None else onion.key,
            links=self._rows(),
        )

    @property
    def spares(self) -> int:
        """How many circuits may be kept in reserve."""
        return self._settings.spares

    @property
    def serves(self) -> bool:
        """Whether this node is a route service, which its record says."""
        return self._serves

    @serves.setter
    def serves(self, on: bool) -> None:
        if on != self._serves:
            self._serves = on
            self._due = 0.0

    # guards and suspects

    def _keep_guards(self, now: float) -> None:
        guards = keep(
            self.guards, self.graph, self.own, int(self._unix()), self._random, self.suspicion.suspects(now)
        )
        same = [(each.name, each.since) for each in guards] == [
            (each.name, each.since) for each in self.guards
        ]
        self.guards = guards
        if not same and self._kept is not None:
            rows = [{"name": each.name.hex(), "since": each.since, "seen": each.seen} for each in guards]
            try:
                self._kept.save(json.dumps({"guards": rows}).encode())
            except MeshError as error:
                _log.warn("the guards of private paths could not be kept: {why}", why=str(error))

    def died(self, route: Route, now: float) -> None:
        """A circuit along this route died early, not by our wish."""
        self.suspicion.died(self._relays_of(route), now)
        self._mark_suspects(now)

    def lived(self, route: Route, now: float) -> None:
        """A circuit along this route carried what it should."""
        self.suspicion.lived(self._relays_of(route), now)

    def measured(self, route: Route, trip: float, loss: float | None, now: float) -> None:
        """A circuit along this route took so many seconds there and back."""
        if not isinstance(route[-1], Address):
            nodes = (self.own, *(name_of(proves(each)) for each in route))
            self.measurements.note(nodes, trip, loss, now)

    def _relays_of(self, route: Route) -> list[Name]:
        last = route[-1]
        relays = [name_of(proves(each)) for each in route[:-1]]
        if isinstance(last, Address):
            relays.append(name_of(last.introduction))
        return relays

    def _mark_suspects(self, now: float) -> None:
        suspects = self.suspicion.suspects(now)
        for name in suspects - self._marked:
            self.graph.note(name, Mark.DROPS, True)
        for name in self._marked - suspects:
            self.graph.note(name, Mark.DROPS, False)
        self._marked = suspects

    # ways

    def policy(self, text: str | None = None) -> Policy:
        """A policy as text, or the config's; raises UsageError."""
        wanted = self._settings.policy if text is None else text
        known = self._policies.get(wanted)
        if known is None:
            if len(self._policies) > 256:
                self._policies.clear()
            known = self._policies[wanted] = parse_policy(wanted, lambda name: _node(self._lookup(name)))
        return known

    @staticmethod
    def policy_of_others(text: str) -> Policy:
        """A policy that somebody else sends, who knows none of our names; raises UsageError."""
        return parse_policy(text, parse_public_key)

    def choose(self, target: PublicKey, policy: Policy, now: float) -> Choice:
        """The ways to a node, and those that were not taken."""
        return choose(
            self.graph,
            self.own,
            name_of(target),
            policy,
            suspects=self.suspicion.suspects(now),
            guards=[guard.name for guard in self.guards],
            measured=self.measurements.known(now),
            name=self._called,
            keyed=lambda record: fresh(record.statement.epoch, self._unix()),
        )

    def routes(
        self, target: Target, text: str | None, now: float, avoid: frozenset[Name] = frozenset()
    ) -> list[Route]:
        """Up to three routes to a target under a policy, the best first, those without `avoid` before those
        with it. Raises UnreachableError where there is none, UsageError for a policy that is none."""
        policy = self.policy(text)
        end = target.introduction if isinstance(target, Address) else proves(target)
        if end == self._secret.public:
            raise UsageError("That is this node itself.")
        if name_of(end) in self._links and not policy.text:
            return [(target,)]
        choice = self.choose(end, policy, now)
        ways = sorted(self._apart(choice), key=lambda way: bool(avoid & set(way.relays)) if avoid else 0)
        if not ways:
            raise UnreachableError(f"There is no way to {self._called(name_of(end))}: {choice.reason}")
        return [(*keys_of(self.graph, way.relays), target) for way in ways[:ALTERNATIVES]]

    def long_way(self, target: Target, text: str | None) -> list[tuple[PublicKey, ...]]:
        """The pieces of a way that is longer than a circuit, by the keys of their nodes; none under a policy
        that says more than what is preferred, or where there is no way."""
        if evolve(self.policy(text), text="", prefer=Prefer.LATENCY) != Policy():
            return []
        end = target.introduction if isinstance(target, Address) else proves(target)
        pieces = long_way(self.graph, self.own, name_of(end))
        return [keys_of(self.graph, piece) for piece in pieces]

    @staticmethod
    def _apart(choice: Choice) -> list[Way]:
        """The ways chosen, and behind them others that keep to the policy and are only worse."""
        return [*choice.ways, *(each.way for each in choice.rejected if each.worse)]

    def stated(self, key: PublicKey, unix: float) -> OnionKey | None:
        """The onion key that a node's record states, if we have that record and the node that key still."""
        node = self.graph.nodes.get(name_of(key))
        if node is None or node.record.key != key or not fresh(node.record.statement.epoch, unix):
            return None
        return OnionKey(node.record.statement.epoch, PublicKey(node.record.statement.onion_key))

    # what it shows

    def known_name(self, name: Name) -> PublicKey | None:
        """The key of a node in the graph."""
        node = self.graph.nodes.get(name)
        return None if node is None else node.record.key

    def whose(self, address: IPv6Address) -> PublicKey | None:
        """The key of the node in the graph that has this mesh address. Both it and a node's name are the
        beginning of the same hash, so the one leads to the other."""
        key = self.known_name(Name(address.packed[1 : 1 + NAME_SIZE]))
        return key if key is not None and mesh_ipv6(key) == address else None

    def _called(self, name: Name) -> str:
        key = self.known_name(name)
        return name.hex() if key is None else f"{key.hex()[:8]}…"

    def paths(self, target: PublicKey, text: str | None, now: float) -> Json:
        """`ways` and `rejected`, with what is known of each, for people and scripts."""
        policy = self.policy(text)
        choice = self.choose(target, policy, now)
        return {
            "target": target.hex(),
            "policy": policy.text,
            "ways": [self._shown(way, target) for way in choice.ways],
            "rejected": [
                {**self._shown(each.way, target), "reason": each.reason} for each in choice.rejected
            ],
            "reason": choice.reason,
        }

    def _shown(self, way: Way, target: PublicKey) -> Json:
        relays, unix = keys_of(self.graph, way.relays), self._unix()
        return {
            "relays": [key.hex() for key in relays],
            "hops": way.hops,
            "delay_ms": round(way.delay * 1e3, 3),
            "loss": round(way.loss, 5),
            "capacity_mbit": round(way.capacity / 125_000, 3),
            "price": way.price,
            "countries": list(way.countries),
            "marks": way.marks.words,
            "no_onion_key": [key.hex() for key in (*relays, target) if self.stated(key, unix) is None],
            "measured": way.measured,
        }

    def map(self) -> Json:
        """All that is connected: `nodes` and `links`."""
        connected = self.graph.component(self.own)
        nodes = []
        for name in connected:
            node = self.graph.nodes[name]
            record = node.record
            nodes.append(
                {
                    "key": record.key.hex(),
                    "issued": record.issued,
                    "expires": record.expires,
                    "country": record.country or None,
                    "place": None if record.place is None else list(record.place),
                    "price": record.statement.price,
                    "relays": node.relays,
                    "links": len(node.edges),
                    "marks": node.marks.words,
                }
            )
        links = [
            {
                "ends": [key.hex() for key in keys_of(self.graph, (one, other))],
                "delay_ms": round(edge.delay * 1e3, 3),
                "loss": round(edge.loss, 5),
                "capacity_mbit": round(edge.capacity / 125_000, 3),
                "marks": edge.marks.words,
            }
            for one, other, edge in self.graph.links()
        ]
        return {"own": self._secret.public.hex(), "nodes": nodes, "links": links}

    def figures(self) -> dict[str, int]:
        """Counts for status and metrics."""
        return {
            "nodes": self.book.attached,
            "apart": len(self.book) - self.book.attached,
            "suspects": len(self._marked),
            "published": self.published,
            "sent_records": self.spread.records_sent,
            "sent_bytes": self.spread.sent,
            "received_bytes": self.spread.received,
        }


def _node(target: Target) -> PublicKey:
    if isinstance(target, Address):
        raise UsageError("A hidden service is no relay; name nodes.")
    return proves(target)


def _capacity(link: Link) -> float:
    """The most that the link was seen to deliver lately, bytes per second; 0 unknown."""
    return max(link.telemetry.delivery_rate, link.sent.rate(60.0))


def _transport(link: Link) -> int:
    address = link.seats[link.standing[0] if link.standing else 0].address
    return _TRANSPORTS.get(address.partition(":")[0], 3) if address else 0


def _row(name: Name, link: Link, seen: float) -> LinkRow:
    telemetry = link.telemetry
    lost = 0.0
    if telemetry.pings > 20:
        lost = max(telemetry.pings - telemetry.pongs - 2, 0) / telemetry.pings
    return LinkRow(
        name=name,
        delay=min(int(telemetry.rtt * 5e5), 0xFFFF_FFFF),
        jitter=min(int(telemetry.rtt_var * 1e6 / 16), 0xFFFF),
        loss=min(int(lost * 65_535), 0xFFFF),
        capacity=int(seen / 125) if seen >= LEAST_SEEN else 0,
        price=0,
        transport=_transport(link),
    )


def _guards_in(data: bytes) -> tuple[Guard, ...]:
    """Those that were kept; none where the file is not what it should be."""
    try:
        rows: list[dict[str, Any]] = json.loads(data)["guards"]
        return tuple(
            Guard(Name(bytes.fromhex(row["name"])[:8]), int(row["since"]), int(row["seen"]))
            for row in rows[:8]
        )
    except (ValueError, OverflowError, KeyError, TypeError, RecursionError):
        return ()
