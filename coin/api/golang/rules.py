"""Broken rules of the chain in the words of the Go node, which clients show to people and compare.

The Go node looks for broken rules in an order of its own, so of several it tells another one than ours would:
`check_hard` has that order for a transaction that is in no block.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from coin.chain.address import Address, address_of
from coin.chain.amounts import MOST
from coin.chain.hours import HoursError, hours_at
from coin.chain.rules import (
    HardRuleError,
    RuleError,
    SoftRuleError,
    UserRuleError,
    check_form,
    check_spending,
)  # fmt: skip
from coin.chain.signatures import UNSIGNED, BadSignatureError, recover
from coin.chain.transaction import Transaction, Unspent
from meshnet.errors import CodecError

_HARD: Final = {
    "no inputs": "No inputs",
    "no outputs": "No outputs",
    "signature count": "Invalid number of signatures",
    "too many parts": "Too many signatures and inputs",
    "duplicate input": "Duplicate spend",
    "type": "transaction type invalid",
    "zero coins": "Zero coin output",
    "output coins": "Output coins overflow",
    "length": "Incorrect transaction length",
    "duplicate output": "Duplicate output in transaction",
    "inner hash": "InnerHash does not match computed hash",
    "signed": "Unsigned transaction must contain a null signature",
    "owner": "Signature not valid for output being spent",
    "input coins": "Transaction input coins overflow",
    "insufficient coins": "Insufficient coins",
    "destroyed coins": "Transactions may not destroy coins",
    "input hours": "UxOut.CoinHours addition of earned coin hours overflow",
    "output hours": "Transaction output hours overflow",
    "insufficient hours": "Insufficient coin hours",
}
_SOFT: Final = {
    "size": "Transaction size bigger than max block size",
    "locked": "Transaction has locked address inputs",
    "decimals": "invalid amount, too many decimal places",
}
NO_FEE: Final = "Transaction has zero coinhour fee"
LOW_FEE: Final = "Transaction coinhour fee minimum not met"
NO_HOURS: Final = "Insufficient coinhours for transaction outputs"


def told(error: RuleError, fee: int | None = None) -> str:
    """The whole sentence about a broken rule; `fee` is what the transaction burns, if that was the reason."""
    if isinstance(error, UserRuleError):
        text = "Transaction output is sent to the null address"
        return f"Transaction violates user constraint: {text}"
    if isinstance(error, SoftRuleError):
        return f"Transaction violates soft constraint: {_SOFT.get(error.rule) or _fee(fee)}"
    return f"Transaction violates hard constraint: {_HARD.get(error.rule, str(error))}"


def missing(number: bytes) -> str:
    """That an input is not unspent."""
    return f"unspent output of {number.hex()} does not exist"


def _fee(fee: int | None) -> str:
    if fee is None or fee < 0:
        return NO_HOURS
    return LOW_FEE if fee else NO_FEE


def check_hard(it: Transaction, inputs: Sequence[Unspent], time: int, *, unsigned: bool) -> None:
    """All hard rules in the Go node's order; raises HardRuleError. `unsigned`: it is still to be signed."""
    if sum(out.hours for out in it.outputs) > MOST:
        raise HardRuleError("output hours", "The hours of the outputs together do not fit into 64 bits.")
    for unspent in inputs:
        try:
            hours_at(unspent.coins, unspent.hours, unspent.time, time)
        except HoursError as error:
            raise HardRuleError("input hours", str(error)) from None
    check_form(it)
    signed = [_signer(it, index, unspent, unsigned) for index, unspent in enumerate(inputs)]
    check_form(it, unsigned=unsigned)
    check_spending(it, inputs, tuple(signed), time, block=False)


def _signer(it: Transaction, index: int, unspent: Unspent, unsigned: bool) -> Address:
    """Who signed an input; who owns it, if it is to be signed."""
    signature = it.signatures[index]
    if signature == UNSIGNED:
        if unsigned:
            return unspent.address
        raise HardRuleError("signature", "Unsigned input in transaction")
    try:
        return address_of(recover(signature, it.digest(index)))
    except BadSignatureError:
        marked = signature[32] >> 7 or signature[64] >= 4
        text = "Signature not valid for hash" if marked else "Failed to recover pubkey from signature"
        raise HardRuleError("signature", text) from None


def codec_text(error: CodecError) -> str:
    """Why bytes are no transaction."""
    if "follow" in str(error):
        return "Bytes remain in buffer after deserializing object"
    return "Not enough buffer data to deserialize"
