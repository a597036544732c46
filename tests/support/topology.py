"""Small networks of records for tests of the topology."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from attrs import evolve

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import UsageError
from meshnet.topology.graph import Graph
from meshnet.topology.record import RELAYS, LinkRow, Name, Record, Statement, issue, name_of, read

UNIX = 1_700_000_000
STATEMENT = Statement(
    1, 1, bytes(33), UNIX, 180, RELAYS, b"\0\0", -128, 0, b"\0\0", bytes(8), 0, 0, bytes(33), ()
)  # fmt: skip


def key(number: int) -> SecretKey:
    """The key of node `number`."""
    return SecretKey(number.to_bytes(32, "big"))


def name(number: int) -> Name:
    """Its name."""
    return name_of(key(number).public)


def row(number: int, delay: int = 10_000, capacity: int = 100_000, loss: int = 0) -> LinkRow:
    """A link to node `number`: µs, kbit/s."""
    return LinkRow(name(number), delay, 0, loss, capacity)


def record(number: int, rows: Iterable[LinkRow], **changes: object) -> Record:
    """The record of node `number`."""
    return read(data(number, rows, **changes))


def data(number: int, rows: Iterable[LinkRow], **changes: object) -> bytes:
    """Its bytes."""
    return issue(statement(key=key(number).public, links=tuple(rows), **changes), key(number))


def statement(**changes: object) -> Statement:
    """An ordinary statement, changed."""
    made: Statement = evolve(STATEMENT, **changes)  # type: ignore[misc]  # an attrs class by @message
    return made


def graph(links: Mapping[tuple[int, int], int], **of_nodes: Mapping[int, object]) -> Graph:
    """Links by their ends with their delays in µs; `country={2: b"DE"}` and the like change records."""
    rows: dict[int, list[LinkRow]] = {}
    for (one, other), delay in links.items():
        rows.setdefault(one, []).append(row(other, delay))
        rows.setdefault(other, []).append(row(one, delay))
    made = Graph()
    for number, stated in rows.items():
        changes = {what: values[number] for what, values in of_nodes.items() if number in values}
        made.put(record(number, stated, **changes))
    return made


def lookup(text: str) -> PublicKey:
    """`n7` is node 7."""
    if not text.startswith("n") or not text[1:].isdigit():
        raise UsageError(f"{text!r} is not a known name.")
    return key(int(text[1:])).public
