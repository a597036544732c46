"""Shortest paths: between two nodes, in at most so many hops, and several that share no node.

The graph is a mapping from a node to what its edges lead to and cost: any hashable nodes, positive costs. A
path is the tuple of its nodes, both ends included; its hops are one fewer. Nothing here knows what a cost
means, or a relay.

The search goes from both ends at once and stops where they meet, so that it looks at some hundred nodes of
ten thousand. If what it finds has too many hops, another one counts hops as well. Searches for paths with
stops are led by what the rest of the way costs at least. All of one answer share an `Effort`: what is not
found within it is not found.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Collection, Mapping, Sequence
from heapq import heappop, heappush
from itertools import pairwise
from math import inf
from typing import Any, Generic, TypeVar

from meshnet.limits import PATHS_EDGES

N = TypeVar("N")
Costs = Mapping[N, Sequence[tuple[N, float]]]
_Front = list[tuple[float, int, N]]
_State = tuple[N, bool]
"""A node, and whether one has left it (else: only entered)."""


_Trail = tuple[N, Any] | None
"""The nodes of a path, the last one first."""


class Effort:
    """How many edges searches may still look at together: `left`, below 0 when they have ended early."""

    __slots__ = ("left",)

    def __init__(self, edges: int = PATHS_EDGES) -> None:
        self.left = edges


def cost_of(costs: Costs[N], path: Sequence[N]) -> float:
    """The sum of its edges; infinite if one of them is not there."""
    total = 0.0
    for here, there in pairwise(path):
        total += next((cost for other, cost in costs.get(here, ()) if other == there), inf)
    return total


def shortest(
    costs: Costs[N],
    start: N,
    target: N,
    most_hops: int,
    closed: Collection[N] = frozenset(),
    back: Costs[N] | None = None,
    effort: Effort | None = None,
) -> tuple[N, ...] | None:
    """The cheapest path of at most `most_hops` hops that enters none of `closed` in between; None if there
    is none. `back` has the edges that lead to each node, and what they cost; without it, each edge costs
    alike both ways."""
    if start == target or start not in costs or target not in costs:
        return None
    behind = costs if back is None else back
    effort = effort or Effort()
    path = _both_ends(costs, behind, start, target, closed, effort)
    if path is None or len(path) - 1 <= most_hops:
        return path
    return _in_hops(costs, behind, start, target, most_hops, closed, effort)


def _both_ends(
    costs: Costs[N], back: Costs[N], start: N, target: N, closed: Collection[N], effort: Effort
) -> tuple[N, ...] | None:
    """Dijkstra's algorithm from both ends in turn, the nearer front first."""
    reached: tuple[dict[N, float], dict[N, float]] = ({start: 0.0}, {target: 0.0})
    via: tuple[dict[N, N], dict[N, N]] = ({}, {})
    fronts: tuple[_Front[N], _Front[N]] = ([(0.0, 0, start)], [(0.0, 0, target)])
    done: tuple[set[N], set[N]] = (set(), set())
    tables = (costs, back)
    best, middle, order = inf, None, 0
    while fronts[0] and fronts[1]:
        if fronts[0][0][0] + fronts[1][0][0] >= best:
            break
        side = 0 if fronts[0][0][0] <= fronts[1][0][0] else 1
        far, _, here = heappop(fronts[side])
        if here in done[side]:
            continue
        done[side].add(here)
        mine, theirs, other_end = reached[side], reached[1 - side], target if side == 0 else start
        edges = tables[side].get(here, ())
        effort.left -= len(edges)
        if effort.left < 0:
            break
        for there, cost in edges:
            total = far + cost
            if total >= mine.get(there, inf) or (there in closed and there != other_end):
                continue
            mine[there] = total
            via[side][there] = here
            if there != other_end:
                order += 1
                heappush(fronts[side], (total, order, there))
            rest = theirs.get(there)
            if rest is not None and total + rest < best:
                best, middle = total + rest, there
    if middle is None:
        return None
    first, second = _trace(via[0], middle), _trace(via[1], middle)
    return (*reversed(first), *second[1:])


def _trace(via: Mapping[N, N], node: N) -> list[N]:
    path = [node]
    while node in via:
        node = via[node]
        path.append(node)
    return path


def _in_hops(
    costs: Costs[N], back: Costs[N], start: N, target: N, most: int, closed: Collection[N], effort: Effort
) -> tuple[N, ...] | None:
    """The cheapest path of at most `most` hops: half of them counted from each end, joined where that is
    cheapest. Of two ways to a node in as many hops only the cheaper can be part of it."""
    half = (most + 1) // 2
    ahead = _layers(costs, start, half, closed, target, effort)
    behind = _layers(back, target, most - half, closed, start, effort)
    best, found = inf, None
    for i, layer in enumerate(ahead):
        for j, other in enumerate(behind):
            near, far = (layer, other) if len(layer) <= len(other) else (other, layer)
            for node, (cost, _) in near.items():
                rest = far.get(node)
                if rest is not None and cost + rest[0] < best:
                    path = (*_unwind(ahead, i, node), *reversed(_unwind(behind, j, node)[:-1]))
                    if len(set(path)) == len(path):
                        best, found = cost + rest[0], path
    return found


def _layers(
    costs: Costs[N], start: N, hops: int, closed: Collection[N], end: N, effort: Effort
) -> list[dict[N, tuple[float, N]]]:
    """For each number of hops up to `hops`, the nodes reached in exactly so many: what that costs, and the
    node before. Nodes that fewer hops reach more cheaply are left out."""
    layers: list[dict[N, tuple[float, N]]] = [{start: (0.0, start)}]
    cheapest = {start: 0.0}
    for _ in range(hops):
        layer: dict[N, tuple[float, N]] = {}
        for here, (far, _) in layers[-1].items():
            edges = costs.get(here, ())
            effort.left -= len(edges)
            if effort.left < 0:
                break
            for there, cost in edges:
                total = far + cost
                if total < cheapest.get(there, inf) and (there not in closed or there == end):
                    cheapest[there] = total
                    layer[there] = (total, here)
        layers.append(layer)
    return layers


def _unwind(layers: list[dict[N, tuple[float, N]]], hops: int, node: N) -> list[N]:
    """From the first layer to `node`."""
    path = [node]
    for i in range(hops, 0, -1):
        node = layers[i][node][1]
        path.append(node)
    return path[::-1]


def disjoint(
    costs: Costs[N],
    start: N,
    target: N,
    count: int,
    most_hops: int,
    closed: Collection[N] = frozenset(),
    back: Costs[N] | None = None,
    effort: Effort | None = None,
) -> list[tuple[N, ...]]:
    """Up to `count` paths that share no node but their ends, the cheapest first.

    First the cheapest of all is taken, then the cheapest without its nodes, and so on. Where that ends too
    early, since the first paths stood in the way of more, those are found together that cost least in sum
    (Bhandari's way).
    """
    taken = set(closed)
    effort = effort or Effort()
    found: list[tuple[N, ...]] = []
    direct = costs
    while len(found) < count:
        path = shortest(direct, start, target, most_hops, taken, back, effort)
        if path is None:
            break
        found.append(path)
        if len(path) == 2:
            direct = _without(direct, start, target)
            back = None if back is None else _without(back, target, start)
        taken.update(path[1:-1])
    if 0 < len(found) < count and len(found) < min(len(costs[start]), len((back or costs).get(target, ()))):
        near = _near(costs, back or costs, start, target, most_hops, closed, effort)
        together = _together(near, start, target, count, effort)
        fitting = [path for path in together if len(path) - 1 <= most_hops]
        if len(fitting) > len(found):
            return sorted(fitting, key=lambda path: cost_of(costs, path))
    return found


def _without(costs: Costs[N], here: N, there: N) -> dict[N, Sequence[tuple[N, float]]]:
    """The same without one edge, both ways."""
    kept = dict(costs)
    kept[here] = [each for each in costs.get(here, ()) if each[0] != there]
    kept[there] = [each for each in costs.get(there, ()) if each[0] != here]
    return kept


def _near(
    costs: Costs[N], back: Costs[N], start: N, target: N, most: int, closed: Collection[N], effort: Effort
) -> dict[N, list[tuple[N, float]]]:
    """The part of the graph in which all paths of at most `most` hops lie: half as many hops from either end.
    However large the graph is, this part stays as it is."""
    half = (most + 1) // 2
    found: set[N] = set()
    for table, end, hops in ((costs, start, half), (back, target, most - half)):
        found.add(end)
        layer, seen = [end], {end}
        for _ in range(hops):
            following = []
            for here in layer:
                edges = table.get(here, ())
                effort.left -= len(edges)
                for there, _ in edges:
                    if there not in seen and there not in closed:
                        seen.add(there)
                        following.append(there)
            layer = following
            if effort.left < 0:
                return {}
        found |= seen
    return {here: [each for each in costs.get(here, ()) if each[0] in found] for here in found}


def _together(costs: Costs[N], start: N, target: N, count: int, effort: Effort) -> list[tuple[N, ...]]:
    """Paths without a common node, of least sum: each further one may undo parts of those before.

    Every node is two, entered and left, so that one path uses it. An edge in use can be gone back at what
    it cost, which is taken off again.
    """
    follows: dict[N, N] = {}  # in the paths so far: the node after this one
    before: dict[N, N] = {}
    firsts: list[N] = []
    for _ in range(count):
        step = _augment(costs, start, target, follows, before, firsts, effort)
        if step is None:
            break
        for (here, _), (there, _), undo in step:
            if undo:
                _unlink(here, there, start, target, follows, before, firsts)
        for (here, _), (there, _), undo in step:
            if not undo and here != there:
                if here == start:
                    firsts.append(there)
                else:
                    follows[here] = there
                if there != target:
                    before[there] = here
    return [_follow(first, start, target, follows) for first in firsts]


def _unlink(
    here: N, there: N, start: N, target: N, follows: dict[N, N], before: dict[N, N], firsts: list[N]
) -> None:
    """The edge `there` → `here`, gone back over, is used no more."""
    if here == there:
        return
    if there == start:
        firsts.remove(here)
    elif follows.get(there) == here:
        del follows[there]
    if here != target and before.get(here) == there:
        del before[here]


def _follow(first: N, start: N, target: N, follows: Mapping[N, N]) -> tuple[N, ...]:
    path = [start, first]
    while path[-1] != target:
        path.append(follows[path[-1]])
    return tuple(path)


def _augment(
    costs: Costs[N],
    start: N,
    target: N,
    follows: Mapping[N, N],
    before: Mapping[N, N],
    firsts: Collection[N],
    effort: Effort,
) -> list[tuple[_State[N], _State[N], bool]] | None:
    """One more path through what is left: its steps, and which of them undo an edge. Costs may be negative
    on the way back, so labels are corrected until none improves (Bellman and Ford, with a queue)."""
    used = follows.keys() | before.keys()
    reached: dict[_State[N], float] = {(start, True): 0.0}
    via: dict[_State[N], tuple[_State[N], bool]] = {}
    queue: deque[_State[N]] = deque([(start, True)])
    waiting = {(start, True)}

    def reach(state: _State[N], total: float, origin: _State[N], undo: bool) -> None:
        if total < reached.get(state, inf) - 1e-12:
            reached[state] = total
            via[state] = (origin, undo)
            if state not in waiting and state[0] != target:
                waiting.add(state)
                queue.append(state)

    price = {(a, b): cost for a in (*used, start) for b, cost in costs.get(a, ())}
    while queue:
        state = queue.popleft()
        waiting.discard(state)
        here, left = state
        far = reached[state]
        if not left:  # entered: on a path in use, the only way is back along it
            if here in used:
                earlier = before[here]
                if earlier != start:
                    reach((earlier, True), far - price[earlier, here], state, True)
            else:
                reach((here, True), far, state, False)
            continue
        if here in used and here != start:  # left, by going back: its inside can be undone too
            reach((here, False), far, state, True)
        edges = costs.get(here, ())
        effort.left -= len(edges)
        if effort.left < 0:
            return None
        for there, cost in edges:
            if there == start:
                continue
            in_use = there in firsts if here == start else follows.get(here) == there
            if not in_use:
                reach((there, False), far + cost, state, False)
    return _steps(via, (start, True), (target, False)) if (target, False) in via else None


def _steps(
    via: Mapping[_State[N], tuple[_State[N], bool]], first: _State[N], state: _State[N]
) -> list[tuple[_State[N], _State[N], bool]]:
    steps = []
    while state != first:
        origin, undo = via[state]
        steps.append((origin, state, undo))
        state = origin
    return steps[::-1]


class Remaining(Generic[N]):
    """What is left to `target` costs at least from any node: found by Dijkstra's algorithm from there on, as
    far as it is asked. `back` as in `shortest`."""

    def __init__(self, back: Costs[N], target: N, effort: Effort) -> None:
        self.target = target
        self._back = back
        self._effort = effort
        self._done: dict[N, float] = {}
        self._reached: dict[N, float] = {target: 0.0}
        self._front: _Front[N] = [(0.0, 0, target)]
        self._order = 0

    def of(self, node: N) -> float:
        """From `node`; infinite if nothing leads from there to the target."""
        done, reached, front = self._done, self._reached, self._front
        if node in done:
            return done[node]
        while front and self._effort.left >= 0:
            far, _, here = heappop(front)
            if here in done:
                continue
            done[here] = far
            edges = self._back.get(here, ())
            self._effort.left -= len(edges)
            for there, cost in edges:
                total = far + cost
                if total < reached.get(there, inf):
                    reached[there] = total
                    self._order += 1
                    heappush(front, (total, self._order, there))
            if here == node:
                return far
        return inf


def in_order(
    costs: Costs[N],
    start: N,
    stops: Sequence[Callable[[N], bool]],
    most_hops: int,
    rest: Remaining[N],
    closed: Collection[N] = frozenset(),
    effort: Effort | None = None,
    *,
    led: Sequence[N] = (),
    clash: Callable[[N, N], bool] | None = None,
) -> tuple[N, ...] | None:
    """The cheapest path to the target of `rest`, of at most `most_hops` hops, on whose inner nodes the
    `stops` come true one after the other; None if there is none. A node serves one stop only. What is likely
    to be part of it is looked at first (A*). With `led` the path begins with these nodes, before `start`;
    no two of its inner nodes `clash`."""
    whole, target, order = len(stops), rest.target, 0
    effort = effort or Effort()
    fewest: dict[tuple[N, int], int] = {}
    way: _Trail[N] = None
    for each in led:
        way = (each, way)
    front: list[tuple[float, int, float, int, N, int, _Trail[N]]] = [(0.0, 0, 0.0, len(led), start, 0, way)]
    while front:
        _, _, far, hops, here, passed, trail = heappop(front)
        if here == target:
            return _walked(trail, target)
        if fewest.get((here, passed), most_hops) <= hops:  # been here at less cost in as few hops
            continue
        fewest[here, passed] = hops
        edges = costs.get(here, ())
        effort.left -= len(edges)
        if effort.left < 0:
            return None
        trail, hops = (here, trail), hops + 1
        for there, cost in edges:
            now = passed
            if there == target:
                if passed < whole:
                    continue
            elif there in closed or _barred(trail, there, clash):
                continue
            else:
                now += passed < whole and stops[passed](there)
                if hops + 1 + whole - now > most_hops or fewest.get((there, now), most_hops) <= hops:
                    continue
            left = rest.of(there)
            if left < inf:
                order += 1
                heappush(front, (far + cost + left, order, far + cost, hops, there, now, trail))
    return None


def _barred(trail: _Trail[N], node: N, clash: Callable[[N, N], bool] | None) -> bool:
    """Whether a node is on the path already, or clashes with one that is: the origin aside."""
    while trail is not None:
        one, trail = trail
        if one == node or (clash is not None and trail is not None and clash(one, node)):
            return True
    return False


def _walked(trail: _Trail[N], end: N) -> tuple[N, ...]:
    path = [end]
    while trail is not None:
        path.append(trail[0])
        trail = trail[1]
    return tuple(path[::-1])
