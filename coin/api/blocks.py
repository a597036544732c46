"""Blocks: one, a range, a choice, the last ones."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Final

from coin.api.endpoint import ApiSet, Endpoint, Given, Parameter, Texts
from coin.api.kinds import HASH, NUMBERS, UINT, VERBOSE, one_of
from coin.api.refusals import ApiError, bad
from coin.api.view import View
from coin.chain.block import Block
from coin.chain.transaction import Transaction, Unspent
from coin.readable import block_json
from coin.store.rows import block_time
from meshnet.errors import StorageError
from meshnet.limits import COIN_API_BLOCKS, COIN_API_LAST_BLOCKS
from meshnet.node.app import Json

READ: Final = frozenset((ApiSet.READ,))


def spent_by(view: View, transactions: Sequence[Transaction]) -> list[tuple[Unspent, ...]]:
    """The outputs that each transaction spends, which are in the chain."""
    found = view.store.spent_by(transactions)
    if [len(each) for each in found] != [len(each.inputs) for each in transactions]:
        raise StorageError("The store lacks an output that was spent: check it.")
    return found


def time_before(view: View, sequence: int) -> int:
    """The time at which the hours count that a block's transactions spend: that of the block before."""
    return view.store.look(lambda connection: block_time(connection, sequence - 1)) if sequence else 0


def shown(view: View, block: Block, verbose: bool) -> Json:
    """A block as JSON."""
    if not verbose:
        return block_json(block)
    inputs = spent_by(view, block.transactions)
    return block_json(block, inputs, time_before(view, block.header.sequence))


def _block(view: View, given: Given) -> Any:
    which = given["hash"] if given["hash"] is not None else given["seq"]
    beyond = isinstance(which, int) and which > view.height
    block = None if beyond else view.store.block(which)
    if block is None:
        raise ApiError(404)
    return shown(view, block, given["verbose"])


def _all(view: View, sequences: Iterable[int], verbose: bool) -> Iterator[Json]:
    for sequence in sequences:
        block = view.store.block(sequence)
        if block is not None:
            yield shown(view, block, verbose)


def _which(texts: Texts, given: dict[str, Any]) -> None:
    if texts.get("seqs") and (texts.get("start") or texts.get("end")):
        raise bad("seqs cannot be used with start or end")
    if not (texts.get("seqs") or texts.get("start") or texts.get("end")):
        raise bad("At least one of seqs or start or end are required")


def _blocks(view: View, given: Given) -> Any:
    chosen: Any = given["seqs"]
    if chosen:
        missing = next((each for each in chosen if each > view.height), None)
        if missing is not None:
            raise ApiError(404, f"block does not exist seq={missing}")
    else:
        chosen = range(given["start"], min(given["end"], view.height) + 1)
    if len(chosen) > COIN_API_BLOCKS:
        raise bad(f"an answer has at most {COIN_API_BLOCKS} blocks")
    return {"blocks": _all(view, chosen, given["verbose"])}


def _last(view: View, given: Given) -> Any:
    if given["num"] > COIN_API_LAST_BLOCKS:
        raise bad(f"num exceeds the maximum of {COIN_API_LAST_BLOCKS}")
    first = max(0, view.height - given["num"] + 1)
    return {"blocks": _all(view, range(first, view.height + 1), given["verbose"])}


_WHICH: Final = (
    VERBOSE,
    _which,
    Parameter("start", UINT, "Invalid start value {quoted}", default=0),
    Parameter("end", UINT, "Invalid end value {quoted}", default=0),
    Parameter("seqs", NUMBERS),
)

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/api/v1/block",
        READ,
        _block,
        takes=(
            VERBOSE,
            one_of(
                "hash",
                "seq",
                "should specify one filter, hash or seq",
                "should only specify one filter, hash or seq",
            ),
            Parameter("hash", HASH),
            Parameter("seq", UINT, "Invalid seq value {quoted}"),
        ),
    ),
    Endpoint("GET", "/api/v1/blocks", READ, _blocks, takes=_WHICH),
    Endpoint("POST", "/api/v1/blocks", READ, _blocks, takes=_WHICH),
    Endpoint(
        "GET",
        "/api/v1/last_blocks",
        READ,
        _last,
        takes=(VERBOSE, Parameter("num", UINT, "Invalid num value {quoted}", 'Invalid num value ""')),
    ),
)
