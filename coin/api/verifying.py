"""Is this right? Addresses, and transactions of all sorts: to be sent, still to be signed, in a block."""

from __future__ import annotations

from typing import Any, Final

from coin.api.blocks import READ, time_before
from coin.api.endpoint import Endpoint, Given, Needed
from coin.api.golang.decoding import Struct
from coin.api.golang.rules import check_hard, missing, told
from coin.api.golang.text import read_address
from coin.api.refusals import ApiError
from coin.api.sending import check_soft_as_user, fee_of, read_transaction
from coin.api.view import View
from coin.chain.rules import RuleError, check_user
from coin.chain.signatures import UNSIGNED
from coin.chain.transaction import Transaction, Unspent
from coin.readable import created_json


def _address(view: View, given: Given) -> Any:
    try:
        read_address(given["address"])
    except ValueError as error:
        raise ApiError(422, str(error)) from None
    return {"version": 0}


def _refusal(view: View, it: Transaction, inputs: tuple[Unspent, ...], unsigned: bool) -> str:
    """What rule it breaks, in the order of the Go node's check; empty if none."""
    try:
        check_user(it)
        check_soft_as_user(view, it, inputs)
        check_hard(it, inputs, view.time, unsigned=unsigned)
    except RuleError as error:
        return told(error, fee_of(it, inputs, view.time))
    return ""


def _transaction(view: View, given: Given) -> Any:
    it = read_transaction(given["encoded_transaction"], "decode transaction failed: ")
    unsigned = not it.signatures or UNSIGNED in it.signatures
    confirmed = view.store.transaction(it.id)
    time = view.time if confirmed is None else time_before(view, confirmed.block)
    inputs: tuple[Unspent, ...] | None = view.store.spent_by([it])[0]
    lost = next((each for each in it.inputs if view.store.find(each) is None), None)
    if inputs is None or len(inputs) != len(it.inputs):
        inputs = None
    if confirmed is not None:
        refusal = "transaction has been spent"
    elif lost is not None:
        why = missing(lost)
        if view.store.output(lost) is None:
            why = f"transaction input of {lost.hex()} does not exist in either unspent pool or historydb"
        refusal = f"Transaction violates hard constraint: {why}"
    else:
        refusal = _refusal(view, it, inputs or (), given.get("unsigned", False))
    shown = {
        "unsigned": unsigned,
        "confirmed": confirmed is not None,
        "transaction": created_json(it, inputs, time),
    }
    if refusal:
        raise ApiError(422, refusal, data=shown)
    return shown


ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/api/v2/address/verify",
        READ,
        _address,
        takes=(Needed("address", "address is required"),),
        body=Struct("api.VerifyAddressRequest", {"address": "string"}),
    ),
    Endpoint(
        "POST",
        "/api/v2/transaction/verify",
        READ,
        _transaction,
        takes=(Needed("encoded_transaction", "encoded_transaction is required"),),
        body=Struct("api.VerifyTransactionRequest", {"unsigned": "bool", "encoded_transaction": "string"}),
    ),
)
