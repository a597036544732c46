"""Figures of the whole chain: its supply, who owns most, how many own something."""

from __future__ import annotations

from typing import Any, Final

from coin.api.blocks import READ
from coin.api.endpoint import Endpoint, Given, Parameter
from coin.api.kinds import BOOL, INT
from coin.api.view import View
from coin.chain.address import address_text
from coin.chain.amounts import coins_text

RICHEST: Final = 20


def _supply(view: View, given: Given) -> Any:
    found, chain = view.store.supply(), view.chain
    addresses = [address_text(each) for each in chain.distribution]
    return {
        "current_supply": coins_text(found.current),
        "total_supply": coins_text(found.total),
        "max_supply": coins_text(found.most),
        "current_coinhour_supply": str(found.current_hours),
        "total_coinhour_supply": str(found.total_hours),
        "unlocked_distribution_addresses": addresses[: chain.unlocked],
        "locked_distribution_addresses": addresses[chain.unlocked :],
    }


def _richlist(view: View, given: Given) -> Any:
    count = given["n"] if given["n"] > 0 else view.store.address_count()
    without = frozenset() if given["include-distribution"] else frozenset(view.chain.distribution)
    rows = view.store.richest(min(count, view.store.address_count()), without=without)
    locked = view.chain.locked
    return {
        "richlist": [
            {"address": address_text(address), "coins": coins_text(coins), "locked": address in locked}
            for address, coins in rows
        ]
    }


def _owners(view: View, given: Given) -> Any:
    return {"count": view.store.address_count()}


ENDPOINTS: Final = (
    Endpoint("GET", "/api/v1/coinSupply", READ, _supply),
    Endpoint(
        "GET",
        "/api/v1/richlist",
        READ,
        _richlist,
        takes=(
            Parameter("n", INT, "invalid n", default=RICHEST),
            Parameter("include-distribution", BOOL, "invalid include-distribution", default=False),
        ),
    ),
    Endpoint("GET", "/api/v1/addresscount", READ, _owners),
)
