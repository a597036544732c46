"""Version 3's questions about addresses and transactions: page by page, with confirmations.

    GET /api/v3/addresses/{address}            what it owns, how many transactions touch it
    GET /api/v3/addresses/{address}/history    its transactions, each with what it got and gave, and what it
                                               owned afterwards
    GET /api/v3/transactions                   all transactions
    GET /api/v3/transactions/{txid}            one, in a block or waiting

A page has `limit` entries, the newest first unless `order` is oldest; `next` is the `cursor` of the page that
follows, null at the end. A page stays what it is when blocks come: newer ones are before the first. Each
costs the same, however far back it is.

A cursor is the number of the last transaction of the page before; of an address's history with its droplets
behind that transaction (before it, for the newest first), so that no sum begins anew.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Final

from coin.api.endpoint import Given, Kind, Parameter
from coin.api.refusals import ApiError, bad
from coin.api.third import ADDRESS, PAGE, TXID, endpoint
from coin.api.view import View
from coin.chain.address import Address, address_text
from coin.chain.amounts import coins_text
from coin.chain.transaction import Transaction, Unspent
from coin.events.content import touch_json, touch_of
from coin.store.figures import Amount
from coin.store.pages import count, page_from, spent_by
from coin.store.pool import Loose
from coin.store.rows import Confirmed, read_head
from meshnet.node.app import Json
from meshnet.storage.database import Connection

NANO: Final = 1_000_000_000
_CURSOR: Final = re.compile(r"([0-9]{1,18})(?:\.([0-9]{1,19}))?")
Cursor = tuple[int, int | None]


def _read_cursor(text: str) -> Cursor:
    match = _CURSOR.fullmatch(text)
    if match is None:
        raise ValueError(f"It is what a page before said as `next`, not {text[:60]!r}.")
    return int(match[1]), int(match[2]) if match[2] else None


_PAGE: Final = (*PAGE, Parameter("cursor", Kind(_read_cursor, "string", "cursor")))


def _amount(amount: Amount) -> Json:
    return {"coins": coins_text(amount.coins), "hours": str(amount.hours)}


def _address(view: View, given: Given) -> Json:
    address: Address = given["address"]
    balance = view.store.balance([address])[address]
    return {
        "address": address_text(address),
        "confirmed": _amount(balance.confirmed),
        "predicted": _amount(balance.predicted),
        "transactions": view.store.transaction_count(address),
        "pending": len(view.pool.touching(address)),
        "height": view.height,
    }


def _where(found: Confirmed, height: int) -> Json:
    return {
        "txid": found.transaction.id.hex(),
        "block_seq": found.block,
        "timestamp": found.time,
        "confirmations": max(0, height - found.block + 1),
    }


def _history(view: View, given: Given) -> Json:
    address, newest, cursor = given["address"], given["order"], given["cursor"]
    if cursor is not None and cursor[1] is None:
        raise bad("It is what a page before said as `next`.", "cursor")

    def look(connection: Connection) -> Json:
        height = read_head(connection).header.sequence
        rows = connection.execute("SELECT number, coins, txs FROM address WHERE address = ?", (address,))
        owner, coins, total = rows[0] if rows else (0, 0, 0)
        droplets = cursor[1] if cursor is not None else coins if newest else 0
        page, more = page_from(connection, owner, cursor and cursor[0], given["limit"], newest=newest)
        entries = []
        for each in page:
            touch = touch_of(each.transaction, spent_by(connection, each.transaction), each.block, address)
            change = touch.received - touch.spent
            # What it owned behind a transaction, seen from the one that comes next in this order.
            droplets += 0 if newest else change
            told = touch_json(touch)
            del told["address"]
            entries.append({**_where(each, height), **told, "balance": coins_text(max(0, droplets))})
            droplets -= change if newest else 0
        return {
            "address": address_text(address),
            "transactions": entries,
            "total": total,
            "next": f"{page[-1].number}.{max(0, droplets)}" if more else None,
        }

    return view.store.look(look)


def _all(view: View, given: Given) -> Json:
    cursor, newest = given["cursor"], given["order"]
    if cursor is not None and cursor[1] is not None:
        raise bad("It is what a page before said as `next`.", "cursor")

    def look(connection: Connection) -> Json:
        height = read_head(connection).header.sequence
        page, more = page_from(connection, None, cursor and cursor[0], given["limit"], newest=newest)
        told = [
            {**_where(each, height), **_whole(each.transaction, each, spent_by(connection, each.transaction))}
            for each in page
        ]
        return {
            "transactions": told,
            "total": count(connection),
            "next": str(page[-1].number) if more else None,
        }

    return view.store.look(look)


def _whole(it: Transaction, found: Confirmed | Loose, spent: Sequence[Unspent]) -> Json:
    time, block = (found.time, found.block) if isinstance(found, Confirmed) else (0, 1)
    outputs = it.unspents(time, block)
    return {
        "inputs": [_output(each) for each in spent],
        "outputs": [_output(each) for each in outputs],
        "size": len(it.raw),
    }


def _output(unspent: Unspent) -> Json:
    return {
        "uxid": unspent.id.hex(),
        "address": address_text(unspent.address),
        "coins": coins_text(unspent.coins),
        "hours": str(unspent.hours),
    }


def _one(view: View, given: Given) -> Json:
    found = view.store.transaction(given["txid"]) or view.pool.get(given["txid"])
    if found is None:
        raise ApiError(404, "There is no transaction of that id, in a block or waiting.", field="txid")
    (spent,) = view.store.spent_by([found.transaction])
    whole = _whole(found.transaction, found, spent)
    if isinstance(found, Confirmed):
        return {"confirmed": True, **_where(found, view.height), **whole}
    return {
        "confirmed": False,
        "txid": found.transaction.id.hex(),
        "timestamp": found.received // NANO,
        "confirmations": 0,
        "valid": found.refused is None,
        "why": str(found.refused or ""),
        **whole,
    }


ENDPOINTS: Final = (
    endpoint("GET", "/api/v3/addresses/{address}", ADDRESS, look=_address),
    endpoint("GET", "/api/v3/addresses/{address}/history", ADDRESS, *_PAGE, look=_history),
    endpoint("GET", "/api/v3/transactions", *_PAGE, look=_all),
    endpoint("GET", "/api/v3/transactions/{txid}", TXID, look=_one),
)
