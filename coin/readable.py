"""Blocks, transactions and outputs as JSON for people and programs, with the Go node's names. Coins are texts
with six decimals, hours whole numbers, hashes hex."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from coin.chain.address import address_text
from coin.chain.amounts import coins_text
from coin.chain.block import Block, Header
from coin.chain.hours import HoursError, forgiving_hours_at
from coin.chain.transaction import Transaction, Unspent
from meshnet.node.app import Json


def header_json(header: Header, digest: bytes) -> Json:
    """The header of a block whose hash is `digest`."""
    return {
        "seq": header.sequence,
        "block_hash": digest.hex(),
        "previous_block_hash": header.previous.hex(),
        "timestamp": header.time,
        "fee": header.fee,
        "version": header.version,
        "tx_body_hash": header.body.hex(),
        "ux_hash": header.unspents.hex(),
    }


def transaction_json(
    transaction: Transaction, block: int = 1, inputs: Sequence[Unspent] | None = None, time: int = 0
) -> Json:
    """A transaction; the ids of its outputs are others in block 0. With the outputs that it spends, `inputs`,
    these are told in full with their hours at `time`, and its fee with them."""
    first = {
        "length": transaction.length,
        "type": transaction.kind,
        "txid": transaction.id.hex(),
        "inner_hash": transaction.inner.hex(),
    }
    spent: list[Any] = [each.hex() for each in transaction.inputs]
    if inputs is not None:
        spent = [input_json(each, time) for each in inputs]
        given = sum(out.hours for out in transaction.outputs)
        # Two blocks of old give hours that the overflow of a sum has made.
        first["fee"] = max(0, sum(each["calculated_hours"] for each in spent) - given)
    return {
        **first,
        "sigs": [each.hex() for each in transaction.signatures],
        "inputs": spent,
        "outputs": [
            {
                "uxid": unspent.id.hex(),
                "dst": address_text(unspent.address),
                "coins": coins_text(unspent.coins),
                "hours": unspent.hours,
            }
            for unspent in transaction.unspents(0, block)
        ],
    }


def input_json(unspent: Unspent, time: int) -> Json:
    """An output that a transaction spends, with its hours at `time`."""
    return {
        "uxid": unspent.id.hex(),
        "owner": address_text(unspent.address),
        "coins": coins_text(unspent.coins),
        "src_txid": unspent.source.hex(),
        "hours": unspent.hours,
        "calculated_hours": shown_hours_at(unspent, time),
    }


def shown_hours_at(unspent: Unspent, time: int) -> int:
    """The hours of an output at `time` for people to see: 0 if they do not fit into 64 bits."""
    try:
        return forgiving_hours_at(unspent.coins, unspent.hours, unspent.time, time)
    except HoursError:
        return 0


def created_json(transaction: Transaction, inputs: Sequence[Unspent] | None, time: int) -> Json:
    """A transaction that is made or looked at, with hours and fee as texts. Of inputs that are not known
    (None) only the ids are told; a fee that cannot be is 0."""
    hours = [shown_hours_at(each, time) for each in inputs or ()]
    spent: list[Json] = [{"uxid": each.hex()} for each in transaction.inputs]
    if inputs is not None:
        spent = [
            {
                "uxid": each.id.hex(),
                "address": address_text(each.address),
                "coins": coins_text(each.coins),
                "hours": str(each.hours),
                "calculated_hours": str(now),
                "timestamp": each.time,
                "block": each.block,
                "txid": each.source.hex(),
            }
            for each, now in zip(inputs, hours, strict=True)
        ]
    return {
        "length": transaction.length,
        "type": transaction.kind,
        "txid": transaction.id.hex(),
        "inner_hash": transaction.inner.hex(),
        "fee": str(max(0, sum(hours) - sum(out.hours for out in transaction.outputs))),
        "sigs": [each.hex() for each in transaction.signatures],
        "inputs": spent,
        "outputs": [
            {
                "uxid": each.id.hex(),
                "address": address_text(each.address),
                "coins": coins_text(each.coins),
                "hours": str(each.hours),
            }
            for each in transaction.unspents(0, 1)
        ],
    }


def block_json(block: Block, inputs: Sequence[Sequence[Unspent]] | None = None, time: int = 0) -> Json:
    """A block with its transactions; with what each of them spends, `inputs`, as `transaction_json`."""
    sequence = block.header.sequence
    return {
        "header": header_json(block.header, block.hash),
        "body": {
            "txns": [
                transaction_json(each, sequence, inputs[i] if inputs is not None else None, time)
                for i, each in enumerate(block.transactions)
            ]
        },
        "size": block.size,
    }


def unspent_json(unspent: Unspent, time: int) -> Json:
    """An output, with its hours at `time`."""
    return {
        "hash": unspent.id.hex(),
        "time": unspent.time,
        "block_seq": unspent.block,
        "src_tx": unspent.source.hex(),
        "address": address_text(unspent.address),
        "coins": coins_text(unspent.coins),
        "hours": unspent.hours,
        "calculated_hours": shown_hours_at(unspent, time),
    }
