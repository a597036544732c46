"""Blocks, transactions and outputs as JSON for people and programs, with the Go node's names. Coins are texts
with six decimals, hours whole numbers, hashes hex."""

from __future__ import annotations

from coin.chain.address import address_text
from coin.chain.amounts import coins_text
from coin.chain.block import Block, Header
from coin.chain.hours import forgiving_hours_at
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


def transaction_json(transaction: Transaction, block: int = 1) -> Json:
    """A transaction; the ids of its outputs are others in block 0."""
    return {
        "length": transaction.length,
        "type": transaction.kind,
        "txid": transaction.id.hex(),
        "inner_hash": transaction.inner.hex(),
        "sigs": [each.hex() for each in transaction.signatures],
        "inputs": [each.hex() for each in transaction.inputs],
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


def block_json(block: Block) -> Json:
    """A block with its transactions."""
    sequence = block.header.sequence
    return {
        "header": header_json(block.header, block.hash),
        "body": {"txns": [transaction_json(each, sequence) for each in block.transactions]},
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
        "calculated_hours": forgiving_hours_at(unspent.coins, unspent.hours, unspent.time, time),
    }
