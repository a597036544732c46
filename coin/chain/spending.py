"""Making a transaction: which outputs to spend, how many hours each receiver gets, what comes back.

Inputs are chosen so that few are spent: the richest first that have hours, since hours pay the fee; then
those without hours; then the rest. The fee is one part of `burn` of the hours spent; of what remains the
receivers get what was asked (manual) or a share of it in proportion to their coins (automatic), and the
change the rest. The same choice as the chain's first software makes, so its test cases hold.
"""

from __future__ import annotations

from collections.abc import Collection, Container, Sequence
from fractions import Fraction

from attrs import frozen

from coin.chain.address import Address, text_order
from coin.chain.hours import forgiving_hours_at, required_fee, share_hours
from coin.chain.transaction import Output, Transaction, Unspent, new_transaction
from meshnet.errors import UsageError


class SpendError(UsageError):
    """What is asked for cannot be paid, or not so. `lack` says of what there was too little: "coins",
    "hours", "fee" (nothing has hours), "free" (outputs are being spent already); empty for other reasons."""

    def __init__(self, text: str, lack: str = "") -> None:
        super().__init__(text)
        self.lack = lack


@frozen
class Candidate:
    """An output that may be spent: its owner, coins in droplets, hours now, block and id."""

    address: Address
    coins: int
    hours: int
    block: int
    id: bytes


@frozen
class Payment:
    """What one receiver gets: droplets, and hours where they are chosen by hand."""

    address: Address
    coins: int
    hours: int | None = None


@frozen
class Plan:
    """A transaction before it is made: the outputs to spend in order, what all receivers get, the change last
    if there is any, and the hours that are burnt."""

    inputs: tuple[Candidate, ...]
    outputs: tuple[Output, ...]
    change: Output | None
    fee: int

    def transaction(self) -> Transaction:
        """The transaction, to be signed."""
        return new_transaction([each.id for each in self.inputs], self.outputs)


def candidate(unspent: Unspent, time: int) -> Candidate:
    """An unspent output as it counts at `time`, that of the last block."""
    hours = forgiving_hours_at(unspent.coins, unspent.hours, unspent.time, time)
    return Candidate(unspent.address, unspent.coins, hours, unspent.block, unspent.id)


def allowed(
    candidates: Sequence[Candidate],
    taken: Container[bytes] = frozenset(),
    *,
    addresses: Collection[Address] = (),
    unspents: Collection[bytes] = (),
    ignore_taken: bool = False,
) -> list[Candidate]:
    """Which of the candidates a payment may choose from. `addresses`: only what these own. `unspents`: only
    these outputs, which must all be there. `taken` are outputs that a transaction not yet in a block spends:
    left out with `ignore_taken`, else SpendError if one of them would be chosen from."""
    if addresses and unspents:
        raise SpendError("Name addresses to spend from or single outputs, not both.")
    found = list(candidates)
    if unspents:
        missing = set(unspents) - {each.id for each in candidates}
        if missing:
            name = min(missing).hex()
            raise SpendError(f"The output {name} is not there to be spent: it is spent, or somebody else's.")
        found = [each for each in candidates if each.id in unspents]
    elif addresses:
        found = [each for each in candidates if each.address in addresses]
    if ignore_taken:
        return [each for each in found if each.id not in taken]
    for each in found:
        if each.id in taken:
            raise SpendError(
                f"The output {each.id.hex()} is being spent by a transaction in no block yet; wait.", "free"
            )
    return found


def plan_spending(
    candidates: Sequence[Candidate],
    payments: Sequence[Payment],
    *,
    burn: int,
    share: Fraction | None = None,
    change: Address | None = None,
) -> Plan:
    """Chooses inputs and hours. `share` (0 to 1) of the hours that remain after the fee go to the receivers;
    None: each payment says its hours. `change` is where the rest goes; None: the smallest address that is
    spent from. Raises SpendError with a sentence."""
    _check(payments, share)
    asked = sum(each.hours or 0 for each in payments)
    wanted = sum(each.coins for each in payments)
    chosen = _choose(candidates, wanted, asked, burn)
    return _settle(candidates, chosen, payments, burn, share, change)


def _check(payments: Sequence[Payment], share: Fraction | None) -> None:
    if not payments:
        raise SpendError("Name at least one receiver.")
    for each in payments:
        if each.coins <= 0:
            raise SpendError("Every receiver gets more than 0 coins.")
        if (each.hours is None) != (share is not None):
            raise SpendError("Hours are either given for every receiver, or shared out automatically.")
        if each.hours is not None and each.hours < 0:
            raise SpendError("Hours must not be negative.")
    if share is not None and not 0 <= share <= 1:
        raise SpendError("The share of the hours is a number from 0 to 1.")
    if len({(each.address, each.coins, each.hours) for each in payments}) != len(payments):
        raise SpendError("Two payments are the same; put them together, or change one of the amounts.")


def _remaining(hours: int, burn: int) -> int:
    return hours - required_fee(hours, burn)


def _choose(candidates: Sequence[Candidate], coins: int, hours: int, burn: int) -> list[Candidate]:
    """The outputs to spend for so many coins and hours."""
    order = sorted(candidates, key=lambda each: (-each.coins, each.hours, each.block, each.id))
    rich = [each for each in order if each.hours]
    poor = [each for each in order if not each.hours]
    if not rich:
        raise SpendError("None of the outputs has coin hours, so no fee can be paid; wait an hour.", "fee")
    chosen: list[Candidate] = []
    have = earned = 0

    def take(each: Candidate) -> bool:
        nonlocal have, earned
        chosen.append(each)
        have += each.coins
        earned += each.hours
        return have >= coins and _remaining(earned, burn) >= hours

    if take(rich[0]):
        return chosen
    for each in poor:
        if have >= coins:
            break
        if take(each):
            return chosen
    for each in rich[1:]:
        if take(each):
            return chosen
    if have < coins:
        raise SpendError("There are not enough coins.", "coins")
    raise SpendError("There are not enough coin hours.", "hours")


def _settle(
    candidates: Sequence[Candidate],
    chosen: list[Candidate],
    payments: Sequence[Payment],
    burn: int,
    share: Fraction | None,
    change: Address | None,
) -> Plan:
    coins = sum(each.coins for each in chosen) - sum(each.coins for each in payments)
    earned = sum(each.hours for each in chosen)
    remaining = _remaining(earned, burn)
    given = _given(payments, remaining, share)
    back = remaining - sum(given)
    if not coins and back:
        # Hours without coins cannot come back: another output may carry them, if that is worth its fee.
        more = _carrier(candidates, chosen)
        if more is not None and required_fee(earned + more.hours, burn) - required_fee(earned, burn) < back:
            chosen = [*chosen, more]
            coins = more.coins
            earned += more.hours
            back = _remaining(earned, burn) - sum(given)
        elif share is not None and share != 1:
            return _settle(candidates, chosen, payments, burn, Fraction(1), change)
    outputs = [Output(each.address, each.coins, h) for each, h in zip(payments, given, strict=True)]
    rest = None
    if coins:
        home = change if change is not None else min((each.address for each in chosen), key=text_order)
        rest = Output(home, coins, back)
        outputs.append(rest)
    return Plan(tuple(chosen), tuple(outputs), rest, earned - sum(out.hours for out in outputs))


def _given(payments: Sequence[Payment], remaining: int, share: Fraction | None) -> list[int]:
    if share is None:
        return [each.hours or 0 for each in payments]
    return share_hours([each.coins for each in payments], int(share * remaining))


def _carrier(candidates: Sequence[Candidate], chosen: Sequence[Candidate]) -> Candidate | None:
    taken = {each.id for each in chosen}
    free = [each for each in candidates if each.id not in taken]
    return min(free, key=lambda each: (each.hours, each.coins, each.block, each.id), default=None)
