"""The verbs `coin decode` and `coin encode`: transactions as bytes and as JSON, without a node."""

from __future__ import annotations

import json
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from coin.chain.address import parse_address
from coin.chain.amounts import MOST, parse_coins
from coin.chain.signatures import SIGNATURE_SIZE
from coin.chain.transaction import MOST_PARTS, Output, Transaction, decode_transaction
from coin.readable import transaction_json
from meshnet.cli.show import print_json
from meshnet.errors import CodecError, UsageError
from meshnet.node.app import Json

Call = Callable[[str, str, Json | None], Json]
LARGEST: Final = 16 << 20
"""Characters of a transaction in hex or as JSON."""


def decode_arguments(parser: ArgumentParser) -> None:
    """`coin decode`."""
    parser.add_argument("raw", metavar="HEX", help="the transaction (-: from standard input)")


def encode_arguments(parser: ArgumentParser) -> None:
    """`coin encode`."""
    parser.add_argument("file", metavar="PATH", help="a transaction as JSON (-: standard input)")
    parser.add_argument("--fix", action="store_true", help="make length and inner hash what they must be")


def parse_raw(text: str) -> Transaction:
    """A transaction of its hex; raises UsageError."""
    try:
        return decode_transaction(bytes.fromhex(text))
    except ValueError:
        raise UsageError("The transaction is not hex.") from None
    except CodecError as error:
        raise UsageError(f"These bytes are no transaction: {error}.") from None


def decode_raw(arguments: Namespace, call: Call) -> int:
    """Shows a transaction."""
    text = sys.stdin.read(LARGEST) if arguments.raw == "-" else arguments.raw
    transaction = parse_raw(text.strip())
    if arguments.json:
        print_json(transaction_json(transaction))
        return 0
    print(f"transaction {transaction.id.hex()}, {len(transaction.raw)} bytes")
    for each in transaction.inputs:
        print(f"  spends {each.hex()}")
    for out in transaction_json(transaction)["outputs"]:
        print(f"  {out['coins']:>20} and {out['hours']} hours to {out['dst']}")
    return 0


def parse_json(text: str, *, fix: bool = False) -> Transaction:
    """The transaction of what `transaction_json` makes; with `fix` its length and inner hash are computed.
    Raises UsageError."""
    try:
        table = json.loads(text)
        made = _transaction(table)
    except (ValueError, OverflowError, KeyError, TypeError, AttributeError, RecursionError, UsageError):
        raise UsageError("This is no transaction as JSON; coin decode --json shows what one is.") from None
    if fix:
        size = len(made.raw)
        made = Transaction(size, made.kind, made.true_inner, made.signatures, made.inputs, made.outputs)
    return made


def _transaction(table: Any) -> Transaction:
    length, kind = table["length"], table["type"]
    whole = type(length) is int and type(kind) is int and 0 <= length < 1 << 32 and 0 <= kind < 256
    if not whole:
        raise ValueError
    signatures = tuple(_bytes(each, SIGNATURE_SIZE) for each in table["sigs"])
    inputs = tuple(_bytes(each, 32) for each in table["inputs"])
    outputs = tuple(_output(each) for each in table["outputs"])
    if max(map(len, (signatures, inputs, outputs))) > MOST_PARTS:
        raise ValueError
    return Transaction(length, kind, _bytes(table["inner_hash"], 32), signatures, inputs, outputs)


def _output(row: Any) -> Output:
    hours = int(row["hours"])
    if not 0 <= hours <= MOST:
        raise ValueError
    return Output(parse_address(row["dst"]), parse_coins(row["coins"]), hours)


def _bytes(text: str, size: int) -> bytes:
    data = bytes.fromhex(text)
    if len(data) != size:
        raise ValueError
    return data


def encode_raw(arguments: Namespace, call: Call) -> int:
    """Shows the bytes of a transaction."""
    if arguments.file == "-":
        text = sys.stdin.read(LARGEST)
    else:
        path = Path(arguments.file).expanduser()
        try:
            with path.open(encoding="utf-8") as file:
                text = file.read(LARGEST)
        except (OSError, UnicodeDecodeError):
            raise UsageError(f"{path} cannot be read.") from None
    transaction = parse_json(text, fix=arguments.fix)
    if arguments.json:
        print_json({"txid": transaction.id.hex(), "encoded_transaction": transaction.raw.hex()})
    else:
        print(transaction.raw.hex())
    return 0
