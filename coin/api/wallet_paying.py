"""Paying with a wallet of the node: a transaction is made and signed, or one that was made is signed.

Nothing is sent: who asked gives it to `injectTransaction`, or throws it away. Outputs that are kept for
withdrawals are left alone.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import TYPE_CHECKING, Any, Final

from attrs import evolve

from coin.api.endpoint import ApiSet, Endpoint, Given, Needed
from coin.api.golang.decoding import Struct
from coin.api.golang.rules import missing
from coin.api.refusals import bad
from coin.api.sending import inspect_new, read_transaction
from coin.api.served_wallets import ServedWallets, served
from coin.api.spending import Planned, plan_wish
from coin.api.view import View
from coin.api.wishes import FIELDS, read_wish
from coin.chain.address import Address
from coin.chain.signatures import UNSIGNED
from coin.chain.transaction import Transaction, Unspent
from coin.readable import created_json
from coin.wallet.base import Wallet
from coin.wallet.bip44 import Bip44
from coin.wallet.folder import Folder
from coin.wallet.kinds import Watching
from coin.wallet.offline import sign_inputs
from coin.wallet.payment import Wish, sign_plan

if TYPE_CHECKING:
    from coin.api.service import Api

WALLET: Final = frozenset((ApiSet.WALLET,))
STRANGE: Final = "address not found in wallet"
WANTED: Final = "missing password"
PLAIN: Final = "wallet is not encrypted"


def check_password(wallet: Wallet, password: str) -> None:
    """That there is a password exactly if the wallet has one; raises ApiError."""
    if isinstance(wallet, Watching):
        raise bad("A wallet of type xpub only watches: it cannot sign.")
    if wallet.encrypted and not password:
        raise bad(WANTED)
    if password and not wallet.encrypted:
        raise bad(PLAIN)


async def plan_of_wallet(
    api: Api, wallets: ServedWallets, wallet: Wallet, wish: Wish, kept: Collection[bytes]
) -> Planned:
    """Chooses what a wallet spends; an address of change is made if its kind wants one. Raises ApiError."""
    own = frozenset(wallet.addresses)
    if not own.issuperset(wish.addresses):
        raise bad(STRANGE)
    change = wish.change
    if change is None and isinstance(wallet, Bip44):
        change = await _fresh_change(api, wallets, wallet)
    return await api.look(lambda view: plan_wish(view, evolve(wish, change=change), kept, own))


async def _fresh_change(api: Api, wallets: ServedWallets, wallet: Wallet) -> Address:
    """The last address of change if nobody has used it yet, else a new one."""
    chain = [each.address for each in wallet.entries if each.change]
    if chain:
        last = chain[-1]

        def used(view: View) -> bool:
            return view.store.transaction_count(last) > 0 or bool(view.pool.touching(last))

        if not await api.look(used):
            return last
    name = wallet.meta["filename"]
    return (await wallets.call(Folder.new_addresses, name, 1, change=True))[0]


async def sign_planned(wallets: ServedWallets, name: str, planned: Planned, password: str) -> Transaction:
    """A plan's transaction with a wallet's signatures; raises ApiError."""
    return await wallets.call(
        Folder.view, name, lambda wallet: sign_plan(planned.plan, wallet), password or None
    )


async def _pay(api: Api, given: Given) -> Any:
    wallets = served(api)
    wish, name, password = (
        read_wish(given, api.parts.chain.user),
        given["wallet_id"],
        given.get("password", ""),
    )
    wallet = await wallets.get(name)
    unsigned = given.get("unsigned", False)
    if unsigned and password:
        raise bad("password must not be used for unsigned transactions")
    if not unsigned:
        check_password(wallet, password)
    kept = api.withdrawing.kept if api.withdrawing is not None else ()
    planned = await plan_of_wallet(api, wallets, wallet, wish, kept)
    if unsigned:
        return planned.shown(planned.plan.transaction())
    made = await sign_planned(wallets, name, planned, password)
    await api.look(lambda view: inspect_new(view, made))
    return planned.shown(made)


def _spent(view: View, it: Transaction) -> tuple[tuple[Unspent, ...], int]:
    """What a transaction that is to be signed spends, and the time of its hours; raises ApiError."""
    if view.store.transaction(it.id) is not None:
        raise bad("transaction has been spent")
    found = []
    for number in it.inputs:
        unspent = view.store.find(number)
        if unspent is None:
            raise bad(missing(number))
        found.append(unspent)
    return tuple(found), view.time


def _indexes(given: Given, it: Transaction) -> list[int] | None:
    """Which inputs are to be signed; None: all. Raises ApiError."""
    chosen = given.get("sign_indexes") or None
    if chosen is None:
        return None
    if len(set(chosen)) != len(chosen):
        raise bad("Duplicate value in sign_indexes")
    if len(chosen) > len(it.signatures):
        raise bad("Too many values in sign_indexes")
    if any(not 0 <= each < len(it.signatures) for each in chosen):
        raise bad("Value in sign_indexes exceeds range of transaction inputs array")
    if any(it.signatures[each] != UNSIGNED for each in chosen):
        raise bad("Transaction is already signed at an index of sign_indexes")
    return list(chosen)


async def _sign(api: Api, given: Given) -> Any:
    wallets = served(api)
    it = read_transaction(given["encoded_transaction"], "Decode transaction failed: ")
    name, password = given["wallet_id"], given.get("password", "")
    wallet = await wallets.get(name)
    check_password(wallet, password)
    if len(it.signatures) != len(it.inputs) or it.inner != it.true_inner:
        raise bad("Transaction violates hard constraint: Invalid number of signatures or inner hash")
    if it.signatures and UNSIGNED not in it.signatures:
        raise bad("Transaction is fully signed")
    indexes = _indexes(given, it)
    spent, time = await api.look(lambda view: _spent(view, it))
    owners, own = [each.address for each in spent], set(wallet.addresses)
    wanted = (
        [place for place in range(len(owners)) if it.signatures[place] == UNSIGNED]
        if indexes is None
        else indexes
    )
    strange = next((owners[place] for place in wanted if owners[place] not in own), None)
    if strange is not None:
        raise bad("Wallet cannot sign all requested inputs")
    made = await wallets.call(
        Folder.view, name, lambda each: sign_inputs(it, owners, each, wanted), password or None
    )
    return {"transaction": created_json(made, spent, time), "encoded_transaction": made.raw.hex()}


ENDPOINTS: Final = (
    Endpoint(
        "POST",
        "/api/v1/wallet/transaction",
        WALLET,
        act=_pay,
        takes=(Needed("wallet_id", "missing wallet_id"),),
        body=Struct(
            "api.walletCreateTransactionRequest",
            {"unsigned": "bool", "wallet_id": "string", "password": "string", **FIELDS},
        ),
    ),
    Endpoint(
        "POST",
        "/api/v2/wallet/transaction/sign",
        WALLET,
        act=_sign,
        takes=(
            Needed("wallet_id", "wallet_id is required"),
            Needed("encoded_transaction", "encoded_transaction is required"),
        ),
        body=Struct(
            "api.WalletSignTransactionRequest",
            {
                "wallet_id": "string",
                "password": "string",
                "encoded_transaction": "string",
                "sign_indexes": "[]int",
            },
        ),
    ),
)
