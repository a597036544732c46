"""The tables of the chain's database.

    block     sequence → hash, time, sum over all unspent outputs after it, signed block as it came
    tx        number → id, block, where its bytes lie in the block, number of its first output
    address   number → 21 bytes, droplets and number of its unspent outputs, how many transactions touch it
    output    number → id, the transaction that made it, owner, coins, hours; the one that spent it, or NULL;
              when it was born, which is the time of its block
    history   (address, tx): a row for each transaction that touches the address
    tally     one row: how many outputs are unspent, how many addresses own some
    loose     transactions not in a block yet: bytes, when they came (nanoseconds since 1970), the hours they
              burn, and for each 1,024 bytes (-1 if a soft rule is broken), that rule and why
    loose_input, loose_address: what outputs they spend, what addresses they touch

Blocks are the truth and never written twice; the next five tables can be made again from them. Numbers grow
with the chain, so an index over them is in the order of time. Coins fit into SQLite's signed integers
(`Chain.check`); hours of 2⁶³ and more are stored as negative ones (`stored`, `amount`).
"""

from __future__ import annotations

from typing import Final

from meshnet.storage.database import Schema

APPLICATION: Final = 0x4D43_4F4E  # "MCON"

_FIRST = """
CREATE TABLE block (
    sequence INTEGER PRIMARY KEY,
    hash BLOB NOT NULL UNIQUE,
    time INTEGER NOT NULL,
    total BLOB NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE TABLE tx (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    block INTEGER NOT NULL REFERENCES block,
    start INTEGER NOT NULL,
    size INTEGER NOT NULL,
    output INTEGER NOT NULL
) STRICT;
CREATE TABLE address (
    number INTEGER PRIMARY KEY,
    address BLOB NOT NULL UNIQUE,
    coins INTEGER NOT NULL,
    outputs INTEGER NOT NULL
) STRICT;
CREATE INDEX address_coins ON address (coins DESC, address) WHERE coins > 0;
CREATE TABLE output (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    tx INTEGER NOT NULL REFERENCES tx,
    address INTEGER NOT NULL REFERENCES address,
    coins INTEGER NOT NULL,
    hours INTEGER NOT NULL,
    spent INTEGER REFERENCES tx
) STRICT;
CREATE INDEX output_address ON output (address, number);
CREATE INDEX output_unspent ON output (address, number) WHERE spent IS NULL;
CREATE TABLE history (
    address INTEGER NOT NULL,
    tx INTEGER NOT NULL,
    PRIMARY KEY (address, tx)
) STRICT, WITHOUT ROWID;
CREATE TABLE tally (
    one INTEGER PRIMARY KEY CHECK (one = 1),
    unspents INTEGER NOT NULL,
    owners INTEGER NOT NULL
) STRICT;
CREATE TABLE loose (
    number INTEGER PRIMARY KEY,
    id BLOB NOT NULL UNIQUE,
    received INTEGER NOT NULL,
    checked INTEGER NOT NULL,
    announced INTEGER NOT NULL,
    fee INTEGER NOT NULL,
    rate INTEGER NOT NULL,
    size INTEGER NOT NULL,
    rule TEXT NOT NULL,
    refusal TEXT NOT NULL,
    data BLOB NOT NULL
) STRICT;
CREATE INDEX loose_received ON loose (received);
CREATE INDEX loose_rate ON loose (rate, received, size);
CREATE TABLE loose_input (
    output BLOB NOT NULL,
    loose INTEGER NOT NULL REFERENCES loose ON DELETE CASCADE,
    PRIMARY KEY (output, loose)
) STRICT, WITHOUT ROWID;
CREATE INDEX loose_input_loose ON loose_input (loose);
CREATE TABLE loose_address (
    address BLOB NOT NULL,
    loose INTEGER NOT NULL REFERENCES loose ON DELETE CASCADE,
    PRIMARY KEY (address, loose)
) STRICT, WITHOUT ROWID;
CREATE INDEX loose_address_loose ON loose_address (loose);
"""

WIDE: Final = 1 << 40
"""Hours from which an output is looked at by itself where hours are summed (`figures.py`); also in an index
below."""

_SECOND = """
ALTER TABLE output ADD COLUMN born INTEGER NOT NULL DEFAULT 0;
UPDATE output SET born = (
    SELECT block.time FROM tx JOIN block ON block.sequence = tx.block WHERE tx.number = output.tx
);
DROP INDEX output_unspent;
CREATE INDEX output_unspent ON output (address, number, coins, hours, born, spent) WHERE spent IS NULL;
CREATE INDEX output_wide ON output (number) WHERE spent IS NULL AND hours NOT BETWEEN 0 AND 1099511627775;
ALTER TABLE address ADD COLUMN txs INTEGER NOT NULL DEFAULT 0;
UPDATE address SET txs = (SELECT count(*) FROM history WHERE history.address = address.number);
"""
"""All that sums ask of an unspent output stands in one index, `spent` too, without which SQLite looks into
the table for each. Version 1 had neither `born` nor `txs`."""

SCHEMA: Final = Schema(APPLICATION, (_FIRST, _SECOND))
"""Version 2 of the chain's database."""

INDEXES: Final = ("history", "output", "address", "tx", "tally")
"""The tables that are made of blocks, in an order in which their rows may be removed."""

_SIGN: Final = 1 << 63
_MASK: Final = (1 << 64) - 1


def stored(amount: int) -> int:
    """An amount of 64 bits as SQLite stores it."""
    return amount if amount < _SIGN else amount - _MASK - 1


def amount(value: int) -> int:
    """The amount that was stored."""
    return value & _MASK
