"""A payment out of a wallet: what may be spent is asked of a node, everything else happens here."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from coin.chain.address import Address, address_text
from coin.chain.amounts import parse_coins
from coin.chain.spending import Candidate, Payment, Plan, plan_spending
from coin.chain.transaction import Transaction
from coin.wallet.wallet import Wallet
from meshnet.node.app import Json

Call = Callable[[str, str, Json | None], Json]


def spendable(wallet: Wallet, call: Call) -> list[Candidate]:
    """The outputs of a wallet that no waiting transaction spends, as the node behind `call` says."""
    found = []
    for address in wallet.addresses:
        answer = call("GET", "/apps/coin/outputs", {"address": address_text(address)})
        taken = {each["hash"] for each in answer["outgoing_outputs"]}
        found += [
            Candidate(
                address,
                parse_coins(each["coins"]),
                each["calculated_hours"],
                each["block_seq"],
                bytes.fromhex(each["hash"]),
            )
            for each in answer["head_outputs"]
            if each["hash"] not in taken
        ]
    return found


def sign_payment(
    wallet: Wallet, payment: Payment, call: Call, change: Address | None = None
) -> tuple[Transaction, Plan]:
    """A signed transaction, not yet sent. Without hours of its own the payment takes half of those that
    remain after the fee, which is what the node's chain asks. Raises SpendError."""
    candidates = spendable(wallet, call)
    plan = plan_spending(
        candidates,
        [payment],
        burn=call("GET", "/apps/coin/status", None)["burn"],
        share=Fraction(1, 2) if payment.hours is None else None,
        change=change,
    )
    return plan.transaction().signed([wallet.key_of(each.address) for each in plan.inputs]), plan
