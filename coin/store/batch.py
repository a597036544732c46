"""A run of blocks on its way into the tables: looked up as it will be, then written table by table.

What the run makes and spends is seen by `find` before it is in the database, so that a thousand blocks cost a
thousand looks but one commit, and each table is written in one go, in the order of its numbers.
"""

from __future__ import annotations

from itertools import islice

from attrs import define

from coin.chain.address import Address
from coin.chain.block import HEADER_SIZE, Block
from coin.chain.rules import Applied
from coin.chain.transaction import Unspent
from coin.store.rows import OUTPUT, unspent_of
from coin.store.schema import stored
from meshnet.storage.database import Connection


@define(slots=True)
class _Owner:
    """An address: its row's number, and what it owns with this run."""

    number: int
    coins: int
    outputs: int
    txs: int
    owned: bool
    """Whether it owned something before."""


class Batch:
    """Blocks and their changes, in order. Used inside one transaction, whose `connection` it has."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        rows = connection.execute(
            "SELECT (SELECT coalesce(max(number), 0) + 1 FROM tx), "
            "(SELECT coalesce(max(number), 0) + 1 FROM output), "
            "(SELECT coalesce(max(number), 0) + 1 FROM address)"
        )
        self._tx, self._output, self._address = rows[0]
        self._blocks: list[tuple[int, bytes, int, bytes, bytes]] = []
        self._txs: list[tuple[int, bytes, int, int, int, int]] = []
        self._outputs: dict[bytes, list[int | bytes | None]] = {}
        self._spent: list[tuple[int, int]] = []
        self._history: list[tuple[int, int]] = []
        self._owners: dict[Address, _Owner] = {}
        self._new: list[Address] = []
        self._fresh: dict[bytes, Unspent] = {}
        self._gone: set[bytes] = set()
        self._numbers: dict[bytes, int] = {}

    def find(self, number: bytes) -> Unspent | None:
        """The output of that id if it is unspent after all blocks of this run."""
        found = self._fresh.get(number)
        if found is not None or number in self._gone:
            return found
        rows = self._connection.execute(OUTPUT + "WHERE output.id = ? AND output.spent IS NULL", (number,))
        if not rows:
            return None
        self._numbers[number] = rows[0][7]
        return unspent_of(rows[0])

    def add(self, block: Block, change: Applied) -> None:
        """Notes a block and what it changes."""
        header = block.header
        self._blocks.append((header.sequence, block.hash, header.time, change.head.unspents, block.encode()))
        self.index(block, change)

    def index(self, block: Block, change: Applied) -> None:
        """Notes what a block changes, but not the block, which is there."""
        start = HEADER_SIZE + 4
        made = iter(change.made)
        sequence = block.header.sequence
        for transaction, inputs in zip(block.transactions, change.inputs, strict=True):
            tx, size = self._tx, len(transaction.raw)
            self._txs.append((tx, transaction.id, sequence, start, size, self._output))
            start += size
            touched = {unspent.address: self._spend(unspent, tx) for unspent in inputs}
            for unspent in islice(made, len(transaction.outputs)):
                touched[unspent.address] = self._make(unspent, tx)
            for owner in touched.values():
                owner.txs += 1
                self._history.append((owner.number, tx))
            self._tx += 1

    def _spend(self, unspent: Unspent, tx: int) -> _Owner:
        if self._fresh.pop(unspent.id, None) is not None:
            self._outputs[unspent.id][6] = tx
        else:
            self._spent.append((tx, self._numbers.pop(unspent.id)))
        self._gone.add(unspent.id)
        owner = self._owner(unspent.address)
        owner.coins -= unspent.coins
        owner.outputs -= 1
        return owner

    def _make(self, unspent: Unspent, tx: int) -> _Owner:
        owner = self._owner(unspent.address)
        owner.coins += unspent.coins
        owner.outputs += 1
        coins, hours = unspent.coins, stored(unspent.hours)
        row = [self._output, unspent.id, tx, owner.number, coins, hours, None, unspent.time]
        self._outputs[unspent.id] = row
        self._fresh[unspent.id] = unspent
        self._output += 1
        return owner

    def _owner(self, address: Address) -> _Owner:
        owner = self._owners.get(address)
        if owner is None:
            rows = self._connection.execute(
                "SELECT number, coins, outputs, txs FROM address WHERE address = ?", (address,)
            )
            if rows:
                number, coins, outputs, txs = rows[0]
            else:
                number, coins, outputs, txs = self._address, 0, 0, 0
                self._address += 1
                self._new.append(address)
            owner = self._owners[address] = _Owner(number, coins, outputs, txs, outputs > 0)
        return owner

    def write(self) -> None:
        """Writes all that was noted, and takes out of the pool what can be in no block any more."""
        write = self._connection.execute_many
        owners, new = self._owners, frozenset(self._new)
        write("INSERT INTO block (sequence, hash, time, total, data) VALUES (?, ?, ?, ?, ?)", self._blocks)
        write(
            "INSERT INTO address (number, address, coins, outputs, txs) VALUES (?, ?, ?, ?, ?)",
            [(it.number, each, it.coins, it.outputs, it.txs) for each in self._new for it in (owners[each],)],
        )
        write(
            "UPDATE address SET coins = ?, outputs = ?, txs = ? WHERE number = ?",
            [
                (each.coins, each.outputs, each.txs, each.number)
                for address, each in owners.items()
                if address not in new
            ],
        )
        write("INSERT INTO tx (number, id, block, start, size, output) VALUES (?, ?, ?, ?, ?, ?)", self._txs)
        write(
            "INSERT INTO output (number, id, tx, address, coins, hours, spent, born) "
            "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            self._outputs.values(),
        )
        write("UPDATE output SET spent = ? WHERE number = ?", self._spent)
        write("INSERT INTO history (address, tx) VALUES (?, ?)", sorted(self._history))
        self._connection.execute(
            "INSERT INTO tally (one, unspents, owners) VALUES (1, ?, ?) ON CONFLICT (one) DO UPDATE "
            "SET unspents = unspents + excluded.unspents, owners = owners + excluded.owners",
            (
                len(self._outputs) - len(self._gone),
                sum((each.outputs > 0) - each.owned for each in owners.values()),
            ),
        )
        self._confirm()

    def _confirm(self) -> None:
        """Loose transactions leave that are in these blocks, or spend what these spend."""
        if self._connection.execute("SELECT 1 FROM loose LIMIT 1"):
            self._connection.execute_many(
                "DELETE FROM loose WHERE number IN (SELECT loose FROM loose_input WHERE output = ?)",
                [(number,) for number in self._gone],
            )
