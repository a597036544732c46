"""What is to be paid, and how: the JSON body of the Go node's requests to make a transaction.

    {"hours_selection": {"type": "manual"} or {"type": "auto", "mode": "share", "share_factor": "0.5"},
     "to": [{"address", "coins": text, "hours": text (manual only)}], "change_address", "ignore_unconfirmed",
     "addresses": [...] or "unspents": [...]}

Everything is checked in the Go node's order and told in its words, before any output is looked at.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Final

from coin.api.golang.decoding import Struct
from coin.api.golang.text import read_address, read_hash
from coin.api.refusals import bad
from coin.chain.address import NULL, Address
from coin.chain.amounts import DROPLETS, MOST, BadAmountError, parse_coins
from coin.chain.params import Limits
from coin.chain.spending import Payment
from coin.wallet.payment import Wish
from coin.wallet.recipients import MOST_PAYMENTS
from meshnet.limits import COIN_API_NAMES

RECEIVER: Final = Struct("api.receiver", {"address": "string", "coins": "string", "hours": "string"})
HOURS: Final = Struct("api.hoursSelection", {"type": "string", "mode": "string", "share_factor": "string"})
FIELDS: Final[Mapping[str, Any]] = {
    "unspents": "[]string",
    "addresses": "[]string",
    "ignore_unconfirmed": "bool",
    "hours_selection": HOURS,
    "change_address": "string",
    "to": (RECEIVER,),
}
_LONGEST_SHARE: Final = 40


def read_wish(body: Mapping[str, Any], limits: Limits) -> Wish:
    """What a body asks for; raises ApiError. `limits` are those of the chain for what is made here."""
    change = _address(body["change_address"]) if body.get("change_address") else None
    rows = [_payment(each) for each in body.get("to", ())]
    addresses = [_address(each) for each in body.get("addresses", ())[: COIN_API_NAMES + 1]]
    unspents = [_hash(each) for each in body.get("unspents", ())[: COIN_API_NAMES + 1]]
    share = _hours(body.get("hours_selection", {}), rows)
    if change == NULL:
        raise bad("change_address must not be the null address")
    _check_sources(addresses, unspents)
    _check_receivers(rows, limits)
    return Wish(
        tuple(rows), addresses, unspents, share, change, ignore_taken=body.get("ignore_unconfirmed", False)
    )


def _payment(row: Mapping[str, Any]) -> Payment:
    address = _address(row["address"]) if row.get("address") else NULL
    try:
        coins = parse_coins(row["coins"]) if row.get("coins") else 0
    except BadAmountError as error:
        raise bad(f"invalid coins: {error}") from None
    hours = row.get("hours")
    if hours is None:
        return Payment(address, coins)
    if not (hours.isascii() and hours.isdigit() and len(hours) <= 20 and int(hours) <= MOST):
        raise bad(f"invalid hours: {hours[:40]!r} is no whole number of 64 bits")
    return Payment(address, coins, int(hours))


def _address(text: str) -> Address:
    try:
        return read_address(text)
    except ValueError as error:
        raise bad(f"invalid address: {error}") from None


def _hash(text: str) -> bytes:
    try:
        return read_hash(text)
    except ValueError as error:
        raise bad(f"invalid SHA256 hash: {error}") from None


def _hours(chosen: Mapping[str, Any], to: Sequence[Payment]) -> Fraction | None:
    """The share that goes to the receivers; None: each says its hours."""
    kind, mode, share = chosen.get("type", ""), chosen.get("mode", ""), chosen.get("share_factor")
    if kind == "auto":
        for index, each in enumerate(to):
            if each.hours is not None:
                raise bad(f"to[{index}].hours must not be specified for auto hours_selection.mode")
        if mode != "share":
            raise bad("invalid hours_selection.mode" if mode else "missing hours_selection.mode")
        if share is None:
            raise bad("missing hours_selection.share_factor when hours_selection.mode is share")
        return _share(share)
    if kind != "manual":
        raise bad("invalid hours_selection.type" if kind else "missing hours_selection.type")
    for index, each in enumerate(to):
        if each.hours is None:
            raise bad(f"to[{index}].hours must be specified for manual hours_selection.mode")
    if mode:
        raise bad("hours_selection.mode cannot be used for manual hours_selection.type")
    if share is not None:
        raise bad("hours_selection.share_factor can only be used when hours_selection.mode is share")
    return None


def _share(text: str) -> Fraction:
    digits = text.removeprefix("-").replace(".", "", 1)
    if not (digits.isascii() and digits.isdigit() and len(text) <= _LONGEST_SHARE):
        raise bad(f"invalid hours_selection.share_factor: {text[:_LONGEST_SHARE]!r} is no decimal number")
    value = Fraction(text)
    if value < 0:
        raise bad("hours_selection.share_factor cannot be negative")
    if value > 1:
        raise bad("hours_selection.share_factor cannot be more than 1")
    return value


def _check_sources(addresses: Sequence[Address], unspents: Sequence[bytes]) -> None:
    for name, found in (("addresses", addresses), ("unspents", unspents)):
        if len(found) > COIN_API_NAMES:
            raise bad(f"{name} has more than {COIN_API_NAMES} values")
    for index, each in enumerate(addresses):
        if each == NULL:
            raise bad(f"addresses[{index}] is empty")
    if len(set(addresses)) != len(addresses):
        raise bad("addresses contains duplicate values")
    if addresses and unspents:
        raise bad("unspents and addresses cannot be combined")
    if len(set(unspents)) != len(unspents):
        raise bad("unspents contains duplicate values")


def _check_receivers(to: Sequence[Payment], limits: Limits) -> None:
    if not to:
        raise bad("to is empty")
    if len(to) > MOST_PAYMENTS:
        raise bad(f"to has more than {MOST_PAYMENTS} values")
    step = DROPLETS // 10**limits.decimals
    for index, each in enumerate(to):
        if each.address == NULL:
            raise bad(f"to[{index}].address is empty")
        if not each.coins:
            raise bad(f"to[{index}].coins must not be zero")
        if each.coins % step:
            raise bad(f"to[{index}].coins has too many decimal places")
    if len({(each.address, each.coins, each.hours) for each in to}) != len(to):
        raise bad("to contains duplicate values")
