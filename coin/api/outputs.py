"""Outputs and what they come to: unspent ones, balances, one output, those of an address."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any, Final

from coin.api.blocks import READ
from coin.api.endpoint import Endpoint, Given, Parameter, Texts
from coin.api.kinds import ADDRESS, ADDRESSES, HASH, HASHES, not_both
from coin.api.refusals import ApiError, bad
from coin.api.view import View
from coin.chain.address import Address, address_text
from coin.chain.transaction import Transaction, Unspent
from coin.readable import header_json, shown_hours_at, unspent_json
from coin.store.figures import Amount, Balance
from coin.store.reading import Kept
from meshnet.node.app import Json

_ALL: Final = 1 << 62
_NOTHING: Final = bytes(32)


def _incoming(view: View, transactions: Iterable[Transaction]) -> Iterator[Unspent]:
    """What the pool gives, as if it were in the last block."""
    for it in transactions:
        for out in it.outputs:
            yield Unspent(view.time, view.height, it.id, out.address, out.coins, out.hours)


def _outgoing(view: View, transactions: Iterable[Transaction]) -> Iterator[Unspent]:
    """What the pool spends."""
    ids = dict.fromkeys(each for it in transactions for each in it.inputs)
    return (found for each in ids if (found := view.store.find(each)) is not None)


def _pool(view: View, addresses: Iterable[Address]) -> list[Transaction]:
    found = {each.transaction.id: each.transaction for one in addresses for each in view.pool.touching(one)}
    return list(found.values())


def _rows(view: View, unspents: Iterable[Unspent]) -> Iterator[Json]:
    """The youngest first, of one time the smallest id."""
    ordered = sorted(unspents, key=lambda each: (-each.time, each.id))
    return (unspent_json(each, view.time) for each in ordered)


def _outputs(view: View, given: Given) -> Any:
    owners, ids = frozenset(given["addrs"]), frozenset(given["hashes"])
    if owners:
        loose = _pool(view, owners)
        confirmed = [each for owner in owners for each in view.store.unspents(owner)]
    else:
        loose = [each.transaction for each in view.pool.all()]
        found = (view.store.find(each) for each in ids)
        confirmed = [each for each in found if each is not None] if ids else view.store.all_unspents()

    def wanted(unspents: Iterator[Unspent]) -> Iterator[Unspent]:
        return (
            each
            for each in unspents
            if (not owners or each.address in owners) and (not ids or each.id in ids)
        )

    return {
        "head": header_json(view.head.header, view.head.hash),
        "head_outputs": _rows(view, confirmed),
        "outgoing_outputs": _rows(view, wanted(_outgoing(view, loose))),
        "incoming_outputs": _rows(view, wanted(_incoming(view, loose))),
    }


def _amount(amount: Amount) -> Json:
    return {"coins": amount.coins, "hours": amount.hours}


def balance_json(balance: Balance) -> Json:
    """In droplets and hours."""
    return {"confirmed": _amount(balance.confirmed), "predicted": _amount(balance.predicted)}


def balances_json(found: dict[Address, Balance]) -> Json:
    """Of several addresses together, and of each."""
    each = sorted((address_text(address), balance_json(balance)) for address, balance in found.items())
    return {**balance_json(sum(found.values(), Balance())), "addresses": dict(each)}


def _balance(view: View, given: Given) -> Any:
    return balances_json(view.store.balance(given["addrs"]))


def _kept(view: View, kept: Kept) -> Json:
    unspent = kept.unspent
    return {
        "uxid": unspent.id.hex(),
        "time": unspent.time,
        "src_block_seq": unspent.block,
        "src_tx": unspent.source.hex(),
        "owner_address": address_text(unspent.address),
        "coins": unspent.coins,
        "hours": unspent.hours,
        "calculated_hours": shown_hours_at(unspent, view.time) if kept.spent_in is None else unspent.hours,
        "spent_block_seq": kept.spent_in or 0,
        "spent_tx": (kept.spent_by or _NOTHING).hex(),
    }


def _output(view: View, given: Given) -> Any:
    kept = view.store.output(given["uxid"])
    if kept is None:
        raise ApiError(404)
    return _kept(view, kept)


def _of_address(view: View, given: Given) -> Any:
    found = view.store.outputs(given["address"], _ALL)
    return (_kept(view, kept) for _, kept in reversed(found))


_WHICH: Final = (
    not_both("addrs", "hashes", "addrs and hashes cannot be specified together"),
    Parameter("addrs", ADDRESSES, default=()),
    Parameter("hashes", HASHES, default=()),
)


def _some(texts: Texts, given: dict[str, Any]) -> None:
    if not given["addrs"]:
        raise bad("addrs is required")


_ADDRESSES: Final = (Parameter("addrs", ADDRESSES, default=()), _some)

ENDPOINTS: Final = (
    Endpoint("GET", "/api/v1/outputs", READ, _outputs, takes=_WHICH),
    Endpoint("POST", "/api/v1/outputs", READ, _outputs, takes=_WHICH),
    Endpoint("GET", "/api/v1/balance", READ, _balance, takes=_ADDRESSES),
    Endpoint("POST", "/api/v1/balance", READ, _balance, takes=_ADDRESSES),
    Endpoint(
        "GET", "/api/v1/uxout", READ, _output, takes=(Parameter("uxid", HASH, missing="uxid is empty"),)
    ),
    Endpoint(
        "GET",
        "/api/v1/address_uxouts",
        READ,
        _of_address,
        takes=(Parameter("address", ADDRESS, missing="address is empty"),),
    ),
)
