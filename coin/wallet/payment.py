"""A payment out of a wallet: what may be spent is asked of a node, everything else happens here.

A payment that is not signed yet is a document that another machine signs without a node (`offline` checks
what it can). It is what the Go node's API calls a created transaction:

    {"transaction": {length, type, txid, inner_hash, fee, sigs, "inputs": [{uxid, address, coins, hours,
     calculated_hours, timestamp, block, txid}], "outputs": [{uxid, address, coins, hours}]},
     "encoded_transaction": hex}                                                   coins and hours are texts
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Sequence
from fractions import Fraction
from typing import Final

from attrs import field, frozen

from coin.chain.address import Address, address_text, parse_address
from coin.chain.amounts import coins_text, parse_coins
from coin.chain.spending import Candidate, Payment, Plan, SpendError, allowed, plan_spending
from coin.chain.transaction import Transaction, Unspent
from coin.wallet.base import Wallet
from coin.wallet.bip44 import Bip44
from coin.wallet.errors import WalletError
from coin.wallet.scanning import Active
from meshnet.node.app import Json

Call = Callable[[str, str, Json | None], Json]
ASKED: Final = 100
"""Addresses of one question to a node."""
HALF: Final = Fraction(1, 2)


@frozen
class Funds:
    """What some addresses own, as a node said: all outputs, those that a waiting transaction spends already,
    and how each stands in the chain."""

    candidates: tuple[Candidate, ...]
    taken: frozenset[bytes]
    unspents: dict[bytes, Unspent] = field(repr=False)
    burn: int


@frozen
class Wish:
    """How to pay: from which addresses or outputs (none: any), what share of the hours goes along where the
    payments say none, where the rest goes."""

    payments: tuple[Payment, ...]
    addresses: Collection[Address] = ()
    unspents: Collection[bytes] = ()
    share: Fraction | None = HALF
    change: Address | None = None
    ignore_taken: bool = True


def batches(addresses: Sequence[Address]) -> Iterator[str]:
    """Addresses as a node is asked for them, some at a time."""
    for start in range(0, len(addresses), ASKED):
        yield ",".join(map(address_text, addresses[start : start + ASKED]))


def outputs_of(addresses: Sequence[Address], call: Call) -> Json:
    """The answer of `/outputs` for any number of addresses; asked again if a block came in between."""
    whole: Json = {}
    for texts in batches(addresses):
        found = call("GET", "/apps/coin/outputs", {"addresses": texts})
        if whole and found["head"] != whole["head"]:
            return outputs_of(addresses, call)
        for name in ("head_outputs", "outgoing_outputs", "incoming_outputs"):
            found[name] = sorted(
                [*whole.get(name, []), *found[name]], key=lambda each: (-each["time"], each["hash"])
            )
        whole = found
    return whole


def asking(call: Call) -> Active:
    """Which addresses were used, as the node behind `call` knows."""

    def active(addresses: Sequence[Address]) -> list[bool]:
        used: set[str] = set()
        for texts in batches(addresses):
            used.update(call("GET", "/apps/coin/used", {"addresses": texts})["used"])
        return [address_text(each) in used for each in addresses]

    return active


def funds_of(wallet: Wallet, call: Call) -> Funds:
    """What a wallet may pay with."""
    if not wallet.entries:
        raise WalletError("The wallet has no addresses.")
    found = outputs_of(wallet.addresses, call)
    rows = found["head_outputs"]
    candidates = tuple(
        Candidate(
            parse_address(each["address"]),
            parse_coins(each["coins"]),
            each["calculated_hours"],
            each["block_seq"],
            bytes.fromhex(each["hash"]),
        )
        for each in rows
    )
    unspents = {one.id: _unspent(one, each) for one, each in zip(candidates, rows, strict=True)}
    taken = frozenset(bytes.fromhex(each["hash"]) for each in found["outgoing_outputs"])
    return Funds(candidates, taken, unspents, call("GET", "/apps/coin/status", None)["burn"])


def _unspent(candidate: Candidate, row: Json) -> Unspent:
    source = bytes.fromhex(row["src_tx"])
    return Unspent(row["time"], candidate.block, source, candidate.address, candidate.coins, row["hours"])


def plan_payment(funds: Funds, wish: Wish) -> Plan:
    """What is spent and given; raises SpendError."""
    manual = any(each.hours is not None for each in wish.payments)
    candidates = allowed(
        funds.candidates,
        funds.taken,
        addresses=wish.addresses,
        unspents=wish.unspents,
        ignore_taken=wish.ignore_taken,
    )
    if not candidates and funds.taken:
        raise SpendError(
            "Everything is being spent by transactions in no block yet; wait for the next block."
        )
    return plan_spending(
        candidates,
        wish.payments,
        burn=funds.burn,
        share=None if manual else wish.share,
        change=wish.change,
    )


def sign_plan(plan: Plan, wallet: Wallet) -> Transaction:
    """The transaction with the wallet's signatures; raises EncryptedError, UnsuitableError, WalletError."""
    keys = {each.address: each.key for each in wallet.entries}
    chosen = [keys.get(each.address) or wallet.key_of(each.address) for each in plan.inputs]
    return plan.transaction().signed(chosen)


def fresh_change(wallet: Wallet, active: Active) -> Address | None:
    """Where a wallet of accounts wants its rest: its last address of change, or a new one if that was used.
    None for other kinds: there it goes back where it came from. The wallet may have grown."""
    if not isinstance(wallet, Bip44):
        return None
    chain = [each.address for each in wallet.entries if each.change]
    if chain and not active(chain[-1:])[0]:
        return chain[-1]
    return wallet.grow(1, change=True)[0]


def created_json(plan: Plan, transaction: Transaction, funds: Funds) -> Json:
    """The document of a payment, signed or not."""
    inputs = [
        {
            "uxid": each.id.hex(),
            "address": address_text(each.address),
            "coins": coins_text(each.coins),
            "hours": str(funds.unspents[each.id].hours),
            "calculated_hours": str(each.hours),
            "timestamp": funds.unspents[each.id].time,
            "block": each.block,
            "txid": funds.unspents[each.id].source.hex(),
        }
        for each in plan.inputs
    ]
    outputs = [
        {
            "uxid": each.id.hex(),
            "address": address_text(each.address),
            "coins": coins_text(each.coins),
            "hours": str(each.hours),
        }
        for each in transaction.unspents(0, 1)
    ]
    return {
        "transaction": {
            "length": transaction.length,
            "type": transaction.kind,
            "txid": transaction.id.hex(),
            "inner_hash": transaction.inner.hex(),
            "fee": str(plan.fee),
            "sigs": [each.hex() for each in transaction.signatures],
            "inputs": inputs,
            "outputs": outputs,
        },
        "encoded_transaction": transaction.raw.hex(),
    }


def sign_payment(
    wallet: Wallet, payment: Payment, call: Call, change: Address | None = None
) -> tuple[Transaction, Plan]:
    """A signed transaction, not yet sent. Without hours of its own the payment takes half of those that
    remain after the fee, which is what the node's chain asks. Raises SpendError."""
    plan = plan_payment(funds_of(wallet, call), Wish((payment,), change=change))
    return sign_plan(plan, wallet), plan
