"""Making transactions out of what the chain has: chosen here, signed elsewhere or by a wallet of the node.

What may be spent comes from one state of the store: unspent outputs, those that a waiting transaction spends
already, those that are kept for withdrawals. `POST /api/v2/transaction` needs no wallet: its inputs are
named, or their owners, and its signatures are left empty.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from attrs import frozen

from coin.api.endpoint import ApiSet, Endpoint, Given
from coin.api.golang.decoding import Struct
from coin.api.golang.rules import NO_FEE, missing
from coin.api.refusals import ApiError, bad
from coin.api.view import View
from coin.api.wishes import FIELDS, read_wish
from coin.chain.address import Address
from coin.chain.spending import Plan, SpendError, candidate, plan_spending
from coin.chain.transaction import Transaction, Unspent
from coin.readable import created_json
from coin.store.pool import loose_touching
from coin.wallet.payment import Wish
from meshnet.node.app import Json

if TYPE_CHECKING:
    from coin.api.service import Api

TXN: Final = frozenset((ApiSet.TXN,))
SPENT_ALREADY: Final = "please spend after your pending transaction is confirmed"
NOTHING: Final = "no unspents to spend"
FOREIGN: Final = "uxout is not owned by any address in the wallet"
_LACKS: Final = {
    "coins": "balance is not sufficient",
    "hours": "hours are not sufficient",
    "fee": NO_FEE,
    "free": SPENT_ALREADY,
}


class LackError(ApiError):
    """There is not enough to pay with, in the Go node's words; `why` is a sentence. `busy`: some of what is
    there is being spent already, so that waiting may help."""

    def __init__(self, text: str, why: str, busy: bool) -> None:
        super().__init__(400, text)
        self.why = why
        self.busy = busy


@frozen
class Planned:
    """A plan, the outputs that it spends in its order, and the time of the block that their hours are of."""

    plan: Plan
    spent: tuple[Unspent, ...]
    time: int

    def shown(self, transaction: Transaction) -> Json:
        """The Go node's answer, of a transaction made of it."""
        return {
            "transaction": created_json(transaction, self.spent, self.time),
            "encoded_transaction": transaction.raw.hex(),
        }


def owned(view: View, addresses: Iterable[Address]) -> tuple[list[Unspent], set[bytes]]:
    """What addresses own in blocks, and which outputs waiting transactions of theirs spend."""
    names = list(addresses)
    loose = view.store.look(lambda connection: loose_touching(connection, names))
    taken = {number for found in loose.values() for each in found for number in each.transaction.inputs}
    return [each for name in names for each in view.store.unspents(name)], taken


def _named(view: View, ids: Sequence[bytes]) -> tuple[list[Unspent], set[bytes]]:
    found = []
    for number in ids:
        unspent = view.store.find(number)
        if unspent is None:
            raise bad(missing(number))
        found.append(unspent)
    return found, {number for number in ids if view.pool.spenders(number)}


def plan_wish(
    view: View, wish: Wish, kept: Collection[bytes] = (), own: Collection[Address] | None = None
) -> Planned:
    """Chooses what is spent; raises ApiError, LackError. `kept` are outputs that are promised to others;
    `own` all addresses of a wallet that pays."""
    if wish.unspents:
        found, taken = _named(view, list(wish.unspents))
        if own is not None and any(each.address not in own for each in found):
            raise bad(FOREIGN)
    else:
        found, taken = owned(view, wish.addresses or own or ())
    taken = {each.id for each in found if each.id in taken or each.id in kept}
    if taken and not wish.ignore_taken:
        raise bad(SPENT_ALREADY)
    free = {each.id: each for each in found if each.id not in taken}
    if not free:
        raise LackError(NOTHING, "The wallet owns nothing.", bool(taken))
    try:
        plan = plan_spending(
            [candidate(each, view.time) for each in free.values()],
            wish.payments,
            burn=view.chain.user.burn,
            share=wish.share,
            change=wish.change,
        )
    except SpendError as error:
        if error.lack in _LACKS:
            raise LackError(_LACKS[error.lack], str(error), bool(taken)) from None
        raise bad(str(error)) from None
    return Planned(plan, tuple(free[each.id] for each in plan.inputs), view.time)


def _sources(texts: Any, given: dict[str, Any]) -> None:
    if not given.get("addresses") and not given.get("unspents"):
        raise bad("one of addresses or unspents must not be empty")


def _make(api: Api, given: Given) -> Any:
    wish = read_wish(given, api.parts.chain.user)
    _sources(given, dict(given))

    def look(view: View) -> Json:
        planned = plan_wish(view, wish)
        return planned.shown(planned.plan.transaction())

    return api.look(look)


ENDPOINTS: Final = (
    Endpoint(
        "POST", "/api/v2/transaction", TXN, act=_make, body=Struct("api.createTransactionRequest", FIELDS)
    ),
)
