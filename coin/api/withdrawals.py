"""`/api/v3/withdrawals`: paying customers, each exactly once.

    POST /api/v3/withdrawals       {"id", "wallet", "to": [{"address", "coins", "hours"?}], "from"?,
                                    "change"?, "password"?}
    GET  /api/v3/withdrawals/{id}
    GET  /api/v3/withdrawals       limit, order, cursor, state: all of them, or those that are open, by pages

`id` is the caller's: a number of his order, say. The same id with the same content is the same withdrawal,
however often it is sent; with another content it is refused (409). A refusal records nothing, so the id is
free to be tried again. Hours are given for all receivers, or for none: then they share half of what remains.
"""

from __future__ import annotations

import json
import re
from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen
from twisted.logger import Logger

from coin.api.endpoint import Endpoint, Given, Kind, Needed, Parameter
from coin.api.golang.decoding import Struct
from coin.api.refusals import ApiError, bad
from coin.api.sending import inspect_new
from coin.api.served_wallets import NO_WALLETS, served
from coin.api.spending import LackError
from coin.api.third import PAGE, choice, endpoint, number
from coin.api.view import View
from coin.api.wallet_paying import check_password, plan_of_wallet, sign_planned
from coin.api.wishes import RECEIVER, read_wish
from coin.api.withdrawal_book import Withdrawal
from coin.api.withdrawing import Asked, Fate, Withdrawing, fate_of
from coin.chain.address import address_text
from coin.chain.amounts import coins_text
from coin.chain.rules import HardRuleError
from coin.chain.transaction import Transaction
from coin.events.content import withdrawal as withdrawal_event
from coin.events.hub import Hub
from coin.replication.store_books import StoreBooks
from coin.wallet.payment import Wish
from meshnet.errors import StorageError
from meshnet.limits import COIN_WITHDRAWAL_ID
from meshnet.node.app import Json

if TYPE_CHECKING:
    from coin.api.service import Api, Parts

_log = Logger()
_ID: Final = re.compile(rf"[A-Za-z0-9_.:@-]{{1,{COIN_WITHDRAWAL_ID}}}")
_LAST: Final = 10**18 - 1
_BUSY: Final = (
    "What is free in the wallet does not suffice; the rest is being spent by transactions in no block yet. "
    "Try again with the same id after the next block."
)
_RETRY: Final = ((b"Retry-After", b"10"),)


@frozen
class Strict(Struct):
    """A JSON body of version 3: what it does not have a field for is refused."""

    def read(self, data: bytes) -> dict[str, Any]:
        """The fields that are given; raises ApiError."""
        try:
            value = json.loads(data)
        except (ValueError, RecursionError):
            raise bad("The body is a JSON object.") from None
        return _strict(self, value, "")


def _strict(wanted: Struct, value: Any, path: str) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise bad(f"{path.rstrip('.') or 'The body'} is a JSON object.", path.rstrip(".") or None)
    for name, each in value.items():
        kind = wanted.fields.get(name)
        if kind is None:
            known = ", ".join(wanted.fields)
            raise bad(f"There is no field {name[:60]!r} here; there are: {known}.", f"{path}{name[:60]}")
        _strict_field(kind, each, f"{path}{name}")
    return value


def _strict_field(kind: str | Struct | tuple[Struct], value: Any, path: str) -> None:
    if isinstance(kind, tuple):
        if not isinstance(value, list):
            raise bad(f"{path} is a list.", path)
        for index, each in enumerate(value):
            _strict(kind[0], each, f"{path}[{index}].")
    elif kind == "[]string":
        if not isinstance(value, list) or not all(isinstance(each, str) for each in value):
            raise bad(f"{path} is a list of texts.", path)
    elif not isinstance(value, str):
        raise bad(f"{path} is a text.", path)


BODY: Final = Strict(
    "withdrawal",
    {
        "id": "string",
        "wallet": "string",
        "password": "string",
        "to": (RECEIVER,),
        "from": "[]string",
        "change": "string",
    },
)


def _read_id(text: str) -> str:
    if not _ID.fullmatch(text):
        raise ValueError(f"An id has 1 to {COIN_WITHDRAWAL_ID} letters, digits, and _ . : @ -.")
    return text


def _withdrawing(api: Api) -> Withdrawing:
    if api.withdrawing is None:
        raise ApiError(403, NO_WALLETS)
    return api.withdrawing


def _wish(given: Given, api: Api) -> Wish:
    to: Sequence[Mapping[str, str]] = given.get("to", ())
    manual = any("hours" in each for each in to)
    hours = {"type": "manual"} if manual else {"type": "auto", "mode": "share", "share_factor": "0.5"}
    body = {
        "to": to,
        "addresses": given.get("from", ()),
        "change_address": given.get("change"),
        "hours_selection": hours,
        "ignore_unconfirmed": True,
    }
    return read_wish(body, api.parts.chain.user)


async def _withdraw(api: Api, given: Given) -> Json:
    flow, wallets = _withdrawing(api), served(api)
    try:
        id = _read_id(given["id"])
    except ValueError as error:
        raise bad(str(error), "id") from None
    wish, name, password = _wish(given, api), given["wallet"], given.get("password", "")
    rest = {each: given[each] for each in ("to", "from", "change") if each in given}

    async def make(kept: Collection[bytes]) -> Transaction:
        wallet = await wallets.get(name)
        check_password(wallet, password)
        try:
            planned = await plan_of_wallet(api, wallets, wallet, wish, kept)
        except LackError as error:
            raise _lacking(error) from None
        made = await sign_planned(wallets, name, planned, password)
        await api.look(lambda view: inspect_new(view, made))
        return made

    found = await flow.withdraw(Asked(id, name, rest), make)
    fate = (await flow.look_up(id) or (found, Fate()))[1]
    return withdrawal_json(found, fate, api.parts.books.height)


def _lacking(error: LackError) -> ApiError:
    """A refusal in the form of version 3: what waiting helps against is 503."""
    return ApiError(503, _BUSY, headers=_RETRY) if error.busy else ApiError(422, error.why)


async def _look_up(api: Api, given: Given) -> Json:
    found = await _withdrawing(api).look_up(given["id"])
    if found is None:
        raise ApiError(404, "There is no withdrawal of this id: nothing was recorded or paid.", field="id")
    return withdrawal_json(*found, api.parts.books.height)


def withdrawal_json(it: Withdrawal, fate: Fate, height: int) -> Json:
    """A withdrawal and how far it has come, in a chain of `height`."""
    block = max(0, fate.block)
    state = "confirmed" if block else "failed" if fate.why else "sent" if it.sent else "recorded"
    to = json.loads(it.asked)["to"]
    outputs = it.transaction.outputs[: len(to)]
    return {
        "id": it.id,
        "state": state,
        "txid": it.transaction.id.hex(),
        "wallet": it.wallet,
        "created": it.created,
        "to": [
            {"address": address_text(each.address), "coins": coins_text(each.coins), "hours": str(each.hours)}
            for each in outputs
        ],
        "block_seq": block or None,
        "confirmations": max(0, height - block + 1) if block else 0,
        "why": fate.why or None,
    }


async def _list(api: Api, given: Given) -> Json:
    limit, newest = given["limit"], given["order"]
    found, total = await _withdrawing(api).page(
        given["cursor"], limit + 1, newest=newest, open_only=given["state"]
    )
    height = api.parts.books.height
    return {
        "withdrawals": [withdrawal_json(it, fate, height) for _, it, fate in found[:limit]],
        "total": total,
        "next": str(found[limit - 1][0]) if len(found) > limit else None,
    }


def tell_withdrawal(books: StoreBooks, hub: Hub, it: Withdrawal, fate: Fate) -> None:
    """Tells those who listen of a withdrawal that has come further."""
    touched = [each.address for each in it.transaction.outputs]
    try:
        hub.say(withdrawal_event(withdrawal_json(it, fate, books.height)), touched)
    except Exception:  # whoever listens must not keep anybody from being paid
        _log.failure("a withdrawal could not be told of")


class NodeChain:
    """The node's chain, for `Withdrawing`."""

    def __init__(self, parts: Parts, look: Any, unix: Any) -> None:
        self._parts = parts
        self._look = look
        self._unix = unix

    async def send(self, transactions: Sequence[Transaction]) -> Collection[bytes]:
        """See `withdrawing.Chain`."""
        network = self._parts.network
        try:
            taken = await self._parts.books.service.inject(transactions, self._unix())
        except StorageError as error:  # what is recorded is sent again later
            _log.warn("withdrawals could not be put into the pool: {why}", why=error)
            return frozenset()
        ids = [each.id for each in taken if not each.full and not isinstance(each.refused, HardRuleError)]
        network.announce(ids)
        heard = self._parts.publishes or any(peer.ready for peer in network.peers.values())
        return frozenset(ids) if heard else frozenset()

    async def fates(self, withdrawals: Sequence[Withdrawal]) -> Sequence[Fate]:
        """See `withdrawing.Chain`."""

        def look(view: View) -> list[Fate]:
            return [fate_of(view, each.transaction) for each in withdrawals]

        found: list[Fate] = await self._look(look)
        return found


ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/api/v3/withdrawals",
        frozenset(),
        act=_withdraw,
        takes=(
            Needed("id", "An id is missing."),
            Needed("wallet", "Which wallet pays?"),
            Needed("to", "Who is paid?"),
        ),
        body=BODY,
        scope="send",
    ),
    endpoint(
        "GET",
        "/api/v3/withdrawals",
        *PAGE,
        Parameter("cursor", number(0, _LAST)),
        Parameter("state", choice(all=False, open=True), default=False),
        scope="send",
        act=_list,
    ),
    endpoint(
        "GET",
        "/api/v3/withdrawals/{id}",
        Parameter("id", Kind(_read_id, "string", "id"), missing="Which one?"),
        scope="send",
        act=_look_up,
    ),
)
