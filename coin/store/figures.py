"""What the unspent outputs come to: balances of many addresses, the supply, who owns most.

Coins and counts are kept with each block. Coin hours are not: those of an output grow by a floor of their
own, so the sum at a new time needs a look at every output. SQLite looks, over the one index that has all that
the formula asks, some 0.15 µs for each, and lets other threads run meanwhile; nothing becomes a Python value
but the sum.

    hours + (seconds · ⌊coins / 10⁶⌋ + ⌊seconds · (coins mod 10⁶) / 10⁶⌋) / 3600

is what `hours_at` says, wherever nothing leaves SQLite's signed 64 bits: `_fits` asks that of the chain as a
whole. Outputs that begin with `WIDE` hours or more are few; they are taken one by one, and so are all where
the chain does not fit. Each function reads the one state that its connection sees; none writes.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Any, Final

from attrs import field, frozen

from coin.chain.address import Address
from coin.chain.amounts import DROPLETS
from coin.chain.hours import HOUR, HoursError, forgiving_hours_at
from coin.chain.params import Chain
from coin.chain.rules import Head
from coin.chain.transaction import Unspent
from coin.store.pool import Loose, loose_touching
from coin.store.rows import OUTPUT, read_head, unspent_of
from coin.store.schema import WIDE, amount
from meshnet.storage.database import Connection

_MOST: Final = (1 << 63) - 1
_NARROW: Final = f"output.hours BETWEEN 0 AND {WIDE - 1}"
_AT_ONCE: Final = 500
"""Values of one IN (…)."""
_EARNED: Final = (
    f"output.hours + (({{time}} - output.born) * (output.coins / {DROPLETS}) "
    f"+ ({{time}} - output.born) * (output.coins % {DROPLETS}) / {DROPLETS}) / {HOUR}"
)


@frozen
class Amount:
    """Droplets and coin hours."""

    coins: int = 0
    hours: int = 0

    def __add__(self, other: Amount) -> Amount:
        return Amount(self.coins + other.coins, self.hours + other.hours)


@frozen
class Balance:
    """What an address owns: in the chain, at the time of its last block; and once the pool is in blocks."""

    confirmed: Amount = Amount()
    predicted: Amount = Amount()

    def __add__(self, other: Balance) -> Balance:
        return Balance(self.confirmed + other.confirmed, self.predicted + other.predicted)


@frozen
class Supply:
    """The coins and hours of a chain at `head`, in droplets and hours. Of the distribution's addresses some
    are unlocked: `total` is what those began with and `current` what has left them; for the hours, what
    everybody but the locked addresses has, and what everybody but the distribution has. `unspents` and
    `owners` count unspent outputs and addresses that own one."""

    head: Head = field(repr=False)
    current: int
    total: int
    most: int
    current_hours: int
    total_hours: int
    unspents: int
    owners: int


# -- hours


def hours_of(coins: int, hours: int, born: int, time: int) -> int:
    """The hours of an output at `time` as people see them: none where they do not fit."""
    try:
        return forgiving_hours_at(coins, hours, born, time)
    except HoursError:
        return 0


def _fits(connection: Connection, chain: Chain, time: int) -> bool:
    """Whether no sum over unspent outputs that are not wide can leave 63 bits at `time`. All coins together
    are the chain's volume, and no output is older than its first block."""
    seconds = time - chain.time
    (unspents,) = connection.execute("SELECT unspents FROM tally")[0]
    earned = seconds * chain.volume // (DROPLETS * HOUR) + 1
    return seconds >= 0 and seconds * chain.volume // DROPLETS <= _MOST and unspents * WIDE + earned <= _MOST


def _summed(connection: Connection, chain: Chain, time: int, numbers: Sequence[int] | None) -> dict[int, int]:
    """The hours at `time` of what is unspent, by the number of its owner, of `numbers` alone; if those are
    None, the hours of all together under number 0."""
    found: dict[int, int] = {}
    fits = _fits(connection, chain, time)
    owner, group = ("0", "") if numbers is None else ("output.address", "GROUP BY output.address")
    for where, parameters in _parts("output.address", numbers):
        source = f"FROM output INDEXED BY output_unspent WHERE output.spent IS NULL{where} "
        if fits:
            earned = f"coalesce(sum({_EARNED.format(time=time)}), 0)"
            statement = f"SELECT {owner}, {earned} {source} AND {_NARROW} {group}"
            found.update(connection.execute(statement, parameters))
            source = (
                f"FROM output INDEXED BY output_wide WHERE output.spent IS NULL{where} "
                f"AND output.hours NOT BETWEEN 0 AND {WIDE - 1}"
            )
        statement = f"SELECT {owner}, output.coins, output.hours, output.born {source}"
        for number, coins, hours, born in connection.rows(statement, parameters):
            found[number] = found.get(number, 0) + hours_of(coins, amount(hours), born, time)
    return found


def _parts(column: str, values: Sequence[Any] | None) -> Iterator[tuple[str, Sequence[Any]]]:
    """Conditions that a column has one of some values, not too many in each; none for None."""
    if values is None:
        yield "", ()
        return
    rest = iter(values)
    while part := list(islice(rest, _AT_ONCE)):
        yield f" AND {column} IN ({','.join('?' * len(part))})", part


# -- balances


def balances(connection: Connection, chain: Chain, addresses: Iterable[Address]) -> dict[Address, Balance]:
    """What each address owns now, and will when the pool is in blocks (of two loose transactions that spend
    the same, the one that burns more)."""
    time = read_head(connection).header.time
    wanted = list(dict.fromkeys(addresses))
    rows: dict[int, tuple[Address, int]] = {}
    for where, parameters in _parts("address", wanted):
        statement = f"SELECT number, address, coins FROM address WHERE outputs > 0{where}"  # noqa: S608
        for number, address, coins in connection.execute(statement, parameters):
            rows[number] = Address(address), coins
    hours = _summed(connection, chain, time, list(rows))
    owned = {address: Amount(coins, hours.get(number, 0)) for number, (address, coins) in rows.items()}
    found = {}
    loose = loose_touching(connection, wanted)
    for address in wanted:
        confirmed = owned.get(address, Amount())
        waiting = loose.get(address)
        predicted = _predicted(connection, address, waiting, time) if waiting else confirmed
        found[address] = Balance(confirmed, predicted)
    return found


def _predicted(connection: Connection, address: Address, loose: Sequence[Loose], time: int) -> Amount:
    gone: set[bytes] = set()
    total = Amount()
    for it in (each.transaction for each in loose):
        if gone.isdisjoint(it.inputs):
            gone.update(it.inputs)
            given = (Amount(out.coins, out.hours) for out in it.outputs if out.address == address)
            total = sum(given, total)
    for unspent in unspents_of(connection, address):
        if unspent.id not in gone:
            hours = hours_of(unspent.coins, unspent.hours, unspent.time, time)
            total += Amount(unspent.coins, hours)
    return total


def unspents_of(connection: Connection, address: Address) -> list[Unspent]:
    """What an address owns, the oldest first."""
    statement = OUTPUT + "WHERE address.address = ? AND output.spent IS NULL ORDER BY output.number"
    return [unspent_of(row) for row in connection.execute(statement, (address,))]


# -- all together


def supply(connection: Connection, chain: Chain) -> Supply:
    """The coins and hours of a chain."""
    head = read_head(connection)
    time = head.header.time
    locked: list[int] = []
    unlocked: list[int] = []
    held = 0
    for where, parameters in _parts("address", chain.distribution):
        statement = f"SELECT number, address, coins FROM address WHERE outputs > 0{where}"  # noqa: S608
        for number, address, coins in connection.execute(statement, parameters):
            (locked if address in chain.locked else unlocked).append(number)
            held += 0 if address in chain.locked else coins
    total_hours = _summed(connection, chain, time, None).get(0, 0)
    if locked:
        total_hours -= sum(_summed(connection, chain, time, locked).values())
    current_hours = total_hours
    if unlocked:
        current_hours -= sum(_summed(connection, chain, time, unlocked).values())
    unspents, owners = connection.execute("SELECT unspents, owners FROM tally")[0]
    free = len(frozenset(chain.distribution) - chain.locked)
    total = free * chain.share * DROPLETS if chain.distribution else chain.volume
    return Supply(
        head=head,
        current=total - held,
        total=total,
        most=chain.supply * DROPLETS,
        current_hours=current_hours,
        total_hours=total_hours,
        unspents=unspents,
        owners=owners,
    )


def richest(
    connection: Connection, chain: Chain, count: int, without: frozenset[Address]
) -> list[tuple[Address, int]]:
    """The addresses that own most, and their droplets; the richest first. Of those that own the same, locked
    ones come first, then the smaller."""
    found = _coins_of(connection, chain.locked - without)
    statement = "SELECT address, coins FROM address WHERE coins > 0 ORDER BY coins DESC, address"
    others = ((Address(address), coins) for address, coins in connection.rows(statement))
    apart = chain.locked | without
    found += islice((each for each in others if each[0] not in apart), count)
    found.sort(key=lambda each: (-each[1], each[0] not in chain.locked, each[0]))
    return found[:count]


def _coins_of(connection: Connection, addresses: Iterable[Address]) -> list[tuple[Address, int]]:
    found = []
    for where, parameters in _parts("address", tuple(addresses)):
        statement = f"SELECT address, coins FROM address WHERE coins > 0{where}"  # noqa: S608
        found += [(Address(each), coins) for each, coins in connection.execute(statement, parameters)]
    return found
