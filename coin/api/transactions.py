"""Transactions, in blocks and in the pool: one, those of addresses, page by page, those that wait.

The order is that of their times, of one time that of their ids; pages have the chain's order, and the pool
behind it. What is in no block has the time at which it came, and its inputs' hours count at that of the last
block.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from coin.api.blocks import READ, spent_by, time_before
from coin.api.endpoint import Endpoint, Given, Kind, Parameter, Texts
from coin.api.golang.text import NO_TIME, moment
from coin.api.kinds import ADDRESSES, BOOL, TXID, UINT, VERBOSE
from coin.api.refusals import ApiError, bad
from coin.api.view import View
from coin.chain.address import Address
from coin.readable import transaction_json
from coin.store.pages import first_number
from coin.store.pool import NEVER, Loose
from coin.store.rows import Confirmed
from meshnet.limits import COIN_API_TRANSACTIONS
from meshnet.node.app import Json
from meshnet.storage.database import Connection

NANO: Final = 1_000_000_000
PAGE: Final = 10
LARGEST_PAGE: Final = 100
Found = Confirmed | Loose


def _time(found: Found) -> int:
    return found.time if isinstance(found, Confirmed) else found.received // NANO


def _order(found: Found) -> tuple[int, bytes]:
    return _time(found), found.transaction.id


def _status(view: View, found: Found) -> Json:
    if isinstance(found, Loose):
        return {"confirmed": False, "unconfirmed": True, "height": 0, "block_seq": 0}
    height = view.height - found.block + 1
    return {"confirmed": True, "unconfirmed": False, "height": height, "block_seq": found.block}


def _plain(view: View, found: Found, verbose: bool) -> Json:
    it = found.transaction
    block = found.block if isinstance(found, Confirmed) else 1
    if not verbose:
        return transaction_json(it, block)
    time = time_before(view, block) if isinstance(found, Confirmed) else view.time
    return transaction_json(it, block, spent_by(view, [it])[0], time)


def shown(view: View, found: Found, verbose: bool) -> Json:
    """A transaction with its status."""
    time = _time(found)
    told = {"timestamp": time, **_plain(view, found, verbose)}
    return {"status": _status(view, found), "time": time, "txn": told}


def look_up(view: View, number: bytes) -> Found:
    """The transaction of an id; raises ApiError if there is none."""
    found = view.store.transaction(number) or view.pool.get(number)
    if found is None:
        raise ApiError(404)
    return found


def _one(view: View, given: Given) -> Any:
    found = look_up(view, given["txid"])
    if given["encoded"]:
        raw = found.transaction.raw.hex()
        return {"status": _status(view, found), "time": _time(found), "encoded_transaction": raw}
    return shown(view, found, given["verbose"])


def _raw(view: View, given: Given) -> Any:
    return look_up(view, given["txid"]).transaction.raw.hex()


def _pool(view: View, addresses: Sequence[Address]) -> list[Loose]:
    if not addresses:
        return view.pool.all()
    found = {each.transaction.id: each for one in addresses for each in view.pool.touching(one)}
    return list(found.values())


def _several(view: View, given: Given) -> Any:
    addresses, confirmed = given["addrs"], given["confirmed"]
    found: list[Found] = []
    if confirmed is not False:
        page = view.store.page(addresses or None, 0, COIN_API_TRANSACTIONS)
        if page.total > COIN_API_TRANSACTIONS:
            most = f"an answer has at most {COIN_API_TRANSACTIONS} transactions"
            raise bad(f"{most}, these are {page.total}; ask /api/v2/transactions")
        found += page.transactions
    if confirmed is not True:
        found += _pool(view, addresses)
    return _told(view, sorted(found, key=_order), given["verbose"])


def _told(view: View, found: Sequence[Found], verbose: bool) -> Iterator[Json]:
    return (shown(view, each, verbose) for each in found)


def _places(view: View, loose: Sequence[Loose], total: int, everybody: bool) -> list[int]:
    """Where loose transactions, in the order of their ids, stand among `total` that are in blocks: behind all
    of them. Only when all transactions are asked for, the Go node puts them behind the block of the one with
    the largest id, each in the place of one block more; clients may count on the pages that follow."""
    if not everybody or not loose:
        return [total] * len(loose)

    def look(connection: Connection) -> list[int]:
        last = connection.execute("SELECT block FROM tx ORDER BY id DESC LIMIT 1")[0][0]
        found = []
        for index, each in enumerate(loose):
            block = last + 1 + index
            first = first_number(connection, block)
            statement = "SELECT count(*) FROM tx WHERE block = ? AND number >= ? AND number < ? AND id < ?"
            bounds = (block, first, first_number(connection, block + 1), each.transaction.id)
            found.append(first - 1 + connection.execute(statement, bounds)[0][0])
        return found

    return view.store.look(look)


def _page(view: View, given: Given) -> Any:
    addresses, confirmed, size, page = given["addrs"], given["confirmed"], given["limit"], given["page"]
    loose = [] if confirmed is True else _pool(view, addresses)
    loose.sort(key=lambda each: each.transaction.id)
    total = 0 if confirmed is False else view.store.page(addresses or None, 0, 0).total
    # What is loose, by its place among all.
    places = _places(view, loose, total, confirmed is None and not addresses)
    apart = {place + index: each for index, (place, each) in enumerate(zip(places, loose, strict=True))}
    count = total + len(loose)
    start, end = min((page - 1) * size, count), min(page * size, count)
    if given["sort"]:
        start, end = count - end, count - start
    before, inside = sum(place < start for place in apart), sum(start <= place < end for place in apart)
    rows = iter(view.store.page(addresses or None, start - before, end - start - inside).transactions)
    found = [apart[place] if place in apart else next(rows) for place in range(start, end)]
    if given["sort"]:
        found.reverse()
    return {
        "page_info": {"total_pages": -(-count // size), "page_size": size, "current_page": page},
        "txns": _told(view, found, given["verbose"]),
    }


def _count(view: View, given: Given) -> Any:
    return {"txns_num": view.store.transaction_count()}


def _moment(nanoseconds: int) -> str:
    return NO_TIME if nanoseconds == NEVER else moment(nanoseconds)


def pending_json(view: View, loose: Loose, verbose: bool) -> Json:
    """A transaction that waits, and since when."""
    return {
        "transaction": _plain(view, loose, verbose),
        "received": _moment(loose.received),
        "checked": _moment(loose.checked),
        "announced": _moment(loose.announced),
        "is_valid": loose.refused is None,
    }


def _pending(view: View, given: Given) -> Any:
    ordered = sorted(view.pool.all(), key=lambda each: each.transaction.id)
    return (pending_json(view, each, given["verbose"]) for each in ordered)


def _apart(texts: Texts, given: dict[str, Any]) -> None:
    if given["verbose"] and given["encoded"]:
        raise bad("verbose and encoded cannot be combined")


def _given(texts: Texts, given: dict[str, Any]) -> None:
    if not texts.get("txid"):
        raise bad("txid is empty")


def _backwards(text: str) -> bool:
    order = text.strip().upper()
    if order not in ("ASC", "DESC"):
        raise ValueError("Unknown sort order")
    return order == "DESC"


def _bounds(texts: Texts, given: dict[str, Any]) -> None:
    if given["limit"] == 0:
        raise bad("page size must be greater than 0")
    if given["page"] == 0:
        raise bad("page number must be greater than 0")
    if given["limit"] > LARGEST_PAGE:
        raise bad(f"transaction page size must be not greater than {LARGEST_PAGE}")


_CHOICE: Final = (
    VERBOSE,
    Parameter("addrs", ADDRESSES, "parse parameter: 'addrs' failed: {error}", default=()),
    Parameter("confirmed", BOOL, "invalid 'confirmed' value: {error}"),
)

ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/api/v1/transaction",
        READ,
        _one,
        takes=(
            _given,
            VERBOSE,
            Parameter("encoded", BOOL, "Invalid value for encoded", default=False),
            _apart,
            TXID,
        ),
    ),
    Endpoint("GET", "/api/v1/rawtx", READ, _raw, takes=(TXID,)),
    Endpoint("GET", "/api/v1/transactions", READ, _several, takes=_CHOICE),
    Endpoint("POST", "/api/v1/transactions", READ, _several, takes=_CHOICE),
    Endpoint("GET", "/api/v1/transactions/num", READ, _count),
    Endpoint("GET", "/api/v1/pendingTxs", READ, _pending, takes=(VERBOSE,)),
    Endpoint(
        "GET",
        "/api/v2/transactions",
        READ,
        _page,
        takes=(
            *_CHOICE,
            Parameter("page", UINT, "invalid 'page' value: {error}", default=1),
            Parameter("limit", UINT, "invalid 'limit' value: {error}", default=PAGE),
            _bounds,
            Parameter("sort", Kind(_backwards, "string", "order"), default=False),
        ),
    ),
)
