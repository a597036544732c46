"""Transactions that come from outside: checked, taken in, told to peers, told again.

What is injected is checked like what the Go node's user makes: by the rules for users, all hard rules, and
the soft rules with the user's limits; one that breaks any is refused and not kept. It is durable when the
answer is there. Without peers it is refused too, unless this node makes the blocks itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from twisted.internet.defer import Deferred

from coin.api.endpoint import ApiSet, Endpoint, Given, Needed
from coin.api.golang.decoding import Struct
from coin.api.golang.rules import check_hard, codec_text, missing, told
from coin.api.golang.text import read_hex
from coin.api.refusals import ApiError, bad
from coin.api.view import View
from coin.chain.rules import (
    HardRuleError,
    MissingInputError,
    RuleError,
    check_soft,
    check_user,
    find_inputs,
)  # fmt: skip
from coin.chain.transaction import Transaction, Unspent, decode_transaction
from coin.store.pool import Taken
from meshnet.errors import CodecError

if TYPE_CHECKING:
    from coin.api.service import Api

SENDING: Final = frozenset((ApiSet.TXN, ApiSet.WALLET))
NO_PEERS: Final = "Connection pool is empty"
NOT_KEPT: Final = "The transaction could not be kept; the node's log says why"


def read_transaction(text: str, prefix: str = "") -> Transaction:
    """A transaction in hex; raises ApiError with the Go node's words behind `prefix`."""
    try:
        return decode_transaction(read_hex(text))
    except CodecError as error:
        raise bad(prefix + codec_text(error)) from None
    except ValueError as error:
        raise bad(prefix + str(error)) from None


def fee_of(it: Transaction, inputs: tuple[Unspent, ...], time: int) -> int:
    """The hours that it burns, negative if it gives more than it has."""
    from coin.readable import shown_hours_at

    spent = sum(shown_hours_at(each, time) for each in inputs)
    return spent - sum(out.hours for out in it.outputs)


def check_soft_as_user(view: View, it: Transaction, inputs: tuple[Unspent, ...]) -> None:
    """The soft rules for what is made here; raises RuleError."""
    check_soft(it, inputs, view.time, view.chain.user, view.chain.locked)


def inspect_new(view: View, it: Transaction) -> None:
    """All rules for a transaction that is to be sent; raises ApiError."""
    inputs: tuple[Unspent, ...] = ()
    try:
        check_user(it)
        inputs = find_inputs(it, view.store.find)
        check_hard(it, inputs, view.time, unsigned=False)
        check_soft_as_user(view, it, inputs)
    except MissingInputError:
        lost = next(each for each in it.inputs if view.store.find(each) is None)
        raise bad(f"Transaction violates hard constraint: {missing(lost)}") from None
    except RuleError as error:
        raise bad(told(error, fee_of(it, inputs, view.time))) from None


def need_peers(api: Api) -> None:
    """That somebody can be told of a transaction; raises ApiError."""
    network = api.parts.network
    if not api.parts.publishes and not any(peer.ready for peer in network.peers.values()):
        raise ApiError(503, NO_PEERS)


async def inject(api: Api, it: Transaction, *, broadcast: bool) -> None:
    """Checks it, takes it into the pool and, unless told not to, passes it on; raises ApiError."""
    await api.look(lambda view: inspect_new(view, it))
    if broadcast:
        need_peers(api)
        found = await _answered(lambda answer: api.parts.network.inject(it, answer))
    else:
        found = next(iter(await _answered(lambda answer: api.parts.books.inject([it], answer))), None)
    if found is None:
        raise ApiError(503, NOT_KEPT)
    assert isinstance(found, Taken)
    if found.full:
        raise ApiError(503, "The pool is full of transactions that burn more coin hours")
    if isinstance(found.refused, HardRuleError):
        raise bad(told(found.refused))


def _answered(ask: Callable[[Callable[[Any], None]], None]) -> Deferred[Any]:
    answer: Deferred[Any] = Deferred()
    ask(answer.callback)
    return answer


async def _inject(api: Api, given: Given) -> Any:
    it = read_transaction(given["rawtx"])
    await inject(api, it, broadcast=not given.get("no_broadcast", False))
    return it.id.hex()


async def _resend(api: Api, given: Given) -> Any:
    books = api.parts.books
    ids = await api.look(lambda view: view.pool.valid())
    need_peers(api)
    api.parts.network.announce(ids)
    await books.service.write(books.pool.announced, ids, api.clock.unix())
    return {"txids": [each.hex() for each in ids]}


ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/api/v1/injectTransaction",
        SENDING,
        act=_inject,
        takes=(Needed("rawtx", "rawtx is required"),),
        body=Struct("api.InjectTransactionRequest", {"rawtx": "string", "no_broadcast": "bool"}),
    ),
    Endpoint("POST", "/api/v1/resendUnconfirmedTxns", SENDING, act=_resend),
)
