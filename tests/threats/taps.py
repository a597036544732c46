"""What attackers see and hold: taps on every line, eyes inside every relay, and all that a node remembers."""

from __future__ import annotations

import gc
import types
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

from twisted.internet.base import DelayedCall
from twisted.internet.task import Clock as TestClock
from twisted.trial.unittest import SynchronousTestCase as TestCase

from lab.simulation.network import Network
from lab.simulation.transport import Connection, Internet, SimulatedCarrier, SimulatedTransport
from meshnet.bundle import FRAME_HEAD
from meshnet.cipher.keys import SecretKey
from meshnet.link.record import Sealer
from tests.meshnet.node.routers import RouterCase

Way = tuple[str, str]
"""From whom to whom, two neighbours by name."""
Frame = tuple[int, bytes]
WINDOW = 8


def pieces(data: bytes, size: int = WINDOW) -> set[bytes]:
    """Every run of so many bytes."""
    return {data[start : start + size] for start in range(len(data) - size + 1)}


class Taps:
    """Bytes on the wire by direction, and the frames inside the records as only the neighbours see them."""

    def __init__(self, case: RouterCase) -> None:
        self.case = case
        self.wire: dict[Way, bytearray] = {}
        self.change: Callable[[Way, bytes], bytes] = lambda way, data: data
        self._bundles: list[tuple[Sealer, bytes]] = []
        depart, seal = SimulatedCarrier._depart, Sealer.seal

        def tapped(carrier: SimulatedCarrier, data: bytes | None) -> None:
            way = (carrier._own, carrier._other)
            if data is not None:
                data = self.change(way, data)
                self.wire.setdefault(way, bytearray()).extend(data)
            depart(carrier, data)

        def sealed(sealer: Sealer) -> memoryview:
            if sealer.end > sealer.first:
                self._bundles.append((sealer, bytes(sealer.view[sealer.first : sealer.end])))
            return seal(sealer)

        case.patch(SimulatedCarrier, "_depart", tapped)
        case.patch(Sealer, "seal", sealed)

    def forget(self) -> None:
        """From now on."""
        self.wire.clear()
        self._bundles.clear()

    def frames(self, source: str, target: str) -> list[Frame]:
        """All frames from one to the other."""
        nodes = self.case.m.nodes
        link = nodes[source].router.links.by_key[nodes[target].public]
        mine = {id(seat.outlet.sealer) for seat in link.seats}
        found: list[Frame] = []
        for sealer, bundle in self._bundles:
            position = 0
            while id(sealer) in mine and position < len(bundle):
                stop = position + 2 + int.from_bytes(bundle[position : position + 2], "big")
                found.append((bundle[position + 2], bundle[position + FRAME_HEAD : stop]))
                position = stop
        return found

    def of_kind(self, source: str, target: str, *kinds: int) -> list[bytes]:
        """Bodies of some kinds of frames."""
        return [body for kind, body in self.frames(source, target) if kind & 0x7F in kinds]


APART: tuple[type, ...] = (
    types.ModuleType,
    type,
    TestClock,
    TestCase,
    Network,
    Internet,
    Connection,
    SimulatedTransport,
    SimulatedCarrier,
)
"""What nodes of a simulation share, and which is nobody's memory; and the program itself."""


def remembered(root: object) -> Iterator[Any]:
    """Every object that can be reached from one, not through what nodes of a simulation share."""
    seen: set[int] = set()
    waiting = [root]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or isinstance(thing, APART) or type(thing).__module__.startswith("unittest"):
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, types.FunctionType):
            waiting += [cell.cell_contents for cell in thing.__closure__ or () if not _empty(cell)]
            waiting += thing.__defaults__ or ()
        elif isinstance(thing, types.MethodType):
            waiting += [thing.__self__, thing.__func__]
        elif isinstance(thing, DelayedCall):  # it knows the calls of all others, too
            waiting += [thing.func, *thing.args, *thing.kw.values()]
        elif isinstance(thing, partial):
            waiting += [thing.func, *thing.args, *thing.keywords.values()]
        else:
            waiting += gc.get_referents(thing)


def _empty(cell: types.CellType) -> bool:
    try:
        cell.cell_contents  # noqa: B018
    except ValueError:
        return True
    return False


def holds(root: object, secrets: dict[str, bytes]) -> set[str]:
    """The names of those secrets that stand in the memory of `root`, in whole, or inside other bytes."""
    found: set[str] = set()
    for thing in remembered(root):
        if isinstance(thing, SecretKey):
            thing = thing.secret
        if isinstance(thing, bytes | bytearray | memoryview):
            data = bytes(thing)
            found |= {name for name, secret in secrets.items() if secret in data}
        elif isinstance(thing, str):
            found |= {name for name, secret in secrets.items() if secret.hex() in thing}
    return found
