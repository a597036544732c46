"""Stores of the chain as older versions of the program wrote them."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from coin.chain.block import Block
from coin.chain.params import Chain
from coin.store.integrity import refill
from coin.store.schema import APPLICATION, SCHEMA
from meshnet.storage.database import Schema, open_database
from meshnet.storage.disk import Disk
from meshnet.storage.sqlite import connect_sqlite

_COLUMNS = {
    1: {
        "block": "sequence, hash, time, total, data",
        "tx": "number, id, block, start, size, output",
        "address": "number, address, coins, outputs",
        "output": "number, id, tx, address, coins, hours, spent",
        "history": "address, tx",
        "tally": "one, unspents, owners",
    }
}


def write_old_store(
    disk: Disk, path: str, chain: Chain, blocks: Iterable[Block], version: int = 1, **options: Any
) -> None:
    """A store of `blocks`, the chain's first one first, in the tables of a version; `options` are those of
    `open_database`."""
    memory = connect_sqlite(":memory:")
    for migration in SCHEMA.migrations:
        assert isinstance(migration, str)
        for statement in migration.split(";\n"):
            memory.execute(statement)
    assert not refill(memory, chain, blocks)
    database = open_database(disk, path, Schema(APPLICATION, SCHEMA.migrations[:version]), **options)
    with database.transaction() as connection:
        for table, columns in _COLUMNS[version].items():
            rows = memory.execute(f"SELECT {columns} FROM {table}")
            marks = ", ".join("?" * (columns.count(",") + 1))
            connection.execute_many(f"INSERT INTO {table} ({columns}) VALUES ({marks})", rows)
    database.close()
    memory.close()
