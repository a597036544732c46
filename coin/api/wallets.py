"""The Go node's requests about wallets: shown, made, grown, scanned, encrypted, put away.

A wallet is known by its file's name. Answers have no secret but `wallet/seed`, which is in a set of its own.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from coin.api.endpoint import ApiSet, Endpoint, Given, Kind, Needed, Parameter, Texts
from coin.api.golang.decoding import Struct
from coin.api.kinds import BOOL, TEXT, UINT, VERBOSE
from coin.api.outputs import balances_json
from coin.api.refusals import ApiError, bad
from coin.api.served_wallets import GONE, served
from coin.api.transactions import pending_json
from coin.api.view import View
from coin.chain.address import Address, address_text
from coin.wallet.base import Wallet
from coin.wallet.bip44 import Bip44
from coin.wallet.errors import PasswordError, WalletError
from coin.wallet.folder import Folder, NewWallet
from coin.wallet.kinds import Collection, Deterministic, Watching
from coin.wallet.words import WordsError, entropy_of, words_of
from meshnet.node.app import Json

if TYPE_CHECKING:
    from coin.api.service import Api

WALLET: Final = frozenset((ApiSet.WALLET,))
SEED: Final = frozenset((ApiSet.INSECURE_WALLET_SEED,))
ID: Final = Parameter("id", TEXT, missing="missing wallet id")
PASSWORD: Final = Parameter("password", TEXT, default="")
WANTED: Final = "missing password"


def wallet_json(wallet: Wallet) -> Json:
    """A wallet without its secrets."""
    meta = wallet.meta
    told: Json = {
        "coin": wallet.form.name,
        "filename": wallet.filename,
        "label": wallet.label,
        "type": wallet.kind,
        "version": wallet.version,
        "crypto_type": meta.get("cryptoType", ""),
        "timestamp": wallet.created,
        "encrypted": wallet.encrypted,
        "temp": wallet.temporary,
    }
    if isinstance(wallet, Bip44):
        told["bip44_coin"] = wallet.number
    if isinstance(wallet, Watching):
        told["xpub"] = meta.get("xpub", "")
    rows = []
    for each in wallet.entries:
        row: Json = {"address": each.text, "public_key": each.public.hex()}
        if each.number is not None:
            row["child_number"] = each.number
        if isinstance(wallet, Bip44):
            row["change"] = each.change
        rows.append(row)
    return {"meta": told, "entries": rows}


# -- what is there


async def _one(api: Api, given: Given) -> Any:
    try:
        return wallet_json(await served(api).get(given["id"]))
    except ApiError as error:
        raise bad(GONE) if error.status == 404 else error from None


async def _all(api: Api, given: Given) -> Any:
    found = await served(api).call(lambda folder: [folder.get(each) for each in folder.ids()])
    return [wallet_json(each) for each in sorted(found, key=lambda each: each.created)]


def _folder(api: Api, given: Given) -> Any:
    return {"address": served(api).path}


async def _bare(api: Api, name: str) -> Wallet:
    """A wallet; where there is none, 404 says all."""
    try:
        return await served(api).get(name)
    except ApiError as error:
        raise ApiError(404) if error.status == 404 else error from None


async def _balance(api: Api, given: Given) -> Any:
    addresses = (await _bare(api, given["id"])).addresses
    return await api.look(lambda view: balances_json(view.store.balance(addresses)))


async def _pending(api: Api, given: Given) -> Any:
    addresses = (await _bare(api, given["id"])).addresses

    def look(view: View) -> Json:
        found = {each.transaction.id: each for one in addresses for each in view.pool.touching(one)}
        return {"transactions": [pending_json(view, found[each], given["verbose"]) for each in sorted(found)]}

    return await api.look(look)


# -- made


def _kind(texts: Texts, given: dict[str, Any]) -> None:
    """Which kind, and what that needs."""
    kind = texts.get("type", "")
    if not kind:
        raise bad("missing type")
    if kind in (Deterministic.kind, Bip44.kind) and not texts.get("seed"):
        raise bad("missing seed")
    if not texts.get("label"):
        raise bad("missing label")


def _locked(texts: Texts, given: dict[str, Any]) -> None:
    """A password exactly if the wallet is to be encrypted."""
    if given["encrypt"] and not given["password"]:
        raise bad(WANTED)
    if given["password"] and not given["encrypt"]:
        raise bad("encrypt must be true as password is provided")


def _scan_ahead(texts: Texts, given: dict[str, Any]) -> None:
    if given["scan"] == 0:
        raise bad("scan must be > 0")


def _coin(texts: Texts, given: dict[str, Any]) -> None:
    if texts.get("bip44-coin") and texts.get("type") != Bip44.kind:
        raise bad("bip44-coin is only valid for bip44 type wallets")


def _fitting(texts: Texts, given: dict[str, Any]) -> None:
    """What belongs to one kind is not given for another."""
    kind = given["type"]
    if kind not in (Deterministic.kind, Bip44.kind, Collection.kind, Watching.kind):
        raise bad("invalid wallet type")
    if given["seed-passphrase"] and kind != Bip44.kind:
        raise bad('seedPassphrase is only used for "bip44" wallets')
    if given["xpub"] and kind != Watching.kind:
        raise bad('xpub is only used for "xpub" wallets')
    if given["seed"] and kind in (Collection.kind, Watching.kind):
        raise bad(f'seed should not be provided for "{kind}" wallets')
    if given["private-keys"] and kind != Collection.kind:
        raise bad('private-keys is only used for "collection" wallets')


def _keys(text: str) -> list[str]:
    return [each.strip() for each in text.split(",") if each.strip()]


KEYS: Final = Parameter("private-keys", Kind(_keys, "string", "keys"), default=())
_MAKE: Final = (
    _kind,
    Parameter("type", TEXT),
    Parameter("seed", TEXT, default=""),
    Parameter("label", TEXT),
    PASSWORD,
    Parameter("encrypt", BOOL, "invalid encrypt value: {error}", default=False),
    _locked,
    Parameter("scan", UINT, "invalid scan value", default=1),
    _scan_ahead,
    _coin,
    Parameter("bip44-coin", UINT, "invalid bip44-coin value"),
    Parameter("seed-passphrase", TEXT, default=""),
    Parameter("xpub", TEXT, default=""),
    KEYS,
    _fitting,
)


def _make(temporary: bool) -> Callable[[Api, Given], Any]:
    async def make(api: Api, given: Given) -> Any:
        wallets = served(api)
        wanted = NewWallet(
            given["type"],
            given["label"],
            given["seed"],
            given["seed-passphrase"],
            given["bip44-coin"],
            given["xpub"],
            given["private-keys"],
            scan=0 if given["type"] == Collection.kind else given["scan"] if given["scan"] > 1 else 0,
            password=given["password"],
            temporary=temporary,
        )
        made: Wallet = await wallets.call(Folder.create, wanted, wallets.active)
        return wallet_json(made)

    return make


# -- changed


def _texts(addresses: Any) -> Json:
    return {"addresses": [address_text(each) for each in addresses]}


def _count(texts: Texts, given: dict[str, Any]) -> None:
    if given["num"] == 0:
        raise bad("invalid num value, must be > 0")


async def _told(asked: Any) -> Any:
    """What is awaited, with 400 where the wallet is not there."""
    try:
        return await asked
    except ApiError as error:
        raise bad(error.text) if error.status == 404 else error from None


async def _grow(api: Api, given: Given) -> Any:
    wallets, name, password = served(api), given["id"], given["password"] or None
    found: list[Address]
    if given["private-keys"]:
        found = await _told(wallets.call(Folder.import_keys, name, given["private-keys"], password))
    else:
        found = await _told(wallets.call(Folder.new_addresses, name, given["num"], password))
    return _texts(found)


async def _scan(api: Api, given: Given) -> Any:
    wallets, password = served(api), given["password"] or None
    return _texts(await _told(wallets.call(Folder.scan, given["id"], wallets.active, given["num"], password)))


async def _label(api: Api, given: Given) -> Any:
    wallets = served(api)
    await _bare(api, given["id"])
    await wallets.call(Folder.relabel, given["id"], given["label"])
    return "success"


async def _unload(api: Api, given: Given) -> Any:
    await _told(served(api).call(Folder.unload, given["id"]))
    return None


def _with_password(texts: Texts, given: dict[str, Any]) -> None:
    if not given["password"]:
        raise bad(WANTED)


async def _encrypt(api: Api, given: Given) -> Any:
    await _bare(api, given["id"])
    return wallet_json(await served(api).call(Folder.encrypt, given["id"], given["password"]))


async def _decrypt(api: Api, given: Given) -> Any:
    await _bare(api, given["id"])
    return wallet_json(await served(api).call(Folder.decrypt, given["id"], given["password"]))


async def _seed(api: Api, given: Given) -> Any:
    await _bare(api, given["id"])
    seed, passphrase = await served(api).call(Folder.seed, given["id"], given["password"])
    return {"seed": seed, "seed_passphrase": passphrase} if passphrase else {"seed": seed}


def _recover(folder: Folder, given: Given) -> Wallet:
    try:
        return folder.recover(
            given["id"], given["seed"], given.get("seed_passphrase", ""), given.get("password") or None
        )
    except PasswordError:
        raise WalletError("wallet recovery seed or seed passphrase is wrong") from None


async def _recovered(api: Api, given: Given) -> Any:
    await _bare(api, given["id"])
    return wallet_json(await served(api).call(_recover, given))


# -- words


def _entropy(text: str) -> int:
    try:
        bits = int(text) if len(text) <= 10 else 0
    except ValueError:
        raise ValueError("invalid entropy") from None
    if bits not in (128, 256):
        raise ValueError("entropy length must be 128 or 256")
    return bits


def _new_seed(api: Api, given: Given) -> Any:
    return {"seed": words_of(secrets.token_bytes(given["entropy"] // 8))}


def _check_seed(api: Api, given: Given) -> Any:
    try:
        entropy_of(given["seed"])
    except WordsError as error:
        raise ApiError(422, str(error)) from None
    return {}


def _get(path: str, act: Any, *takes: Any) -> Endpoint:
    return Endpoint("GET", f"/api/v1/{path}", WALLET, act=act, takes=takes)


def _post(path: str, act: Any, *takes: Any, sets: frozenset[ApiSet] = WALLET) -> Endpoint:
    return Endpoint("POST", f"/api/v1/{path}", sets, act=act, takes=takes)


ENDPOINTS: Final = (
    _get("wallet", _one, ID),
    _get("wallets", _all),
    _get("wallets/folderName", _folder),
    _get("wallet/balance", _balance, ID),
    _get("wallet/transactions", _pending, VERBOSE, ID),
    _get(
        "wallet/newSeed", _new_seed, Parameter("entropy", Kind(_entropy, "integer", "entropy"), default=128)
    ),
    _post("wallet/create", _make(False), *_MAKE),
    _post("wallet/createTemp", _make(True), *_MAKE),
    _post(
        "wallet/newAddress", _grow, ID, Parameter("num", UINT, "invalid num value", default=1), PASSWORD, KEYS
    ),
    _post(
        "wallet/scan", _scan, ID, Parameter("num", UINT, "invalid num value", default=20), _count, PASSWORD
    ),
    _post("wallet/update", _label, ID, Parameter("label", TEXT, missing="missing label")),
    _post("wallet/unload", _unload, ID),
    _post("wallet/encrypt", _encrypt, ID, PASSWORD, _with_password),
    _post("wallet/decrypt", _decrypt, ID, PASSWORD, _with_password),
    _post("wallet/seed", _seed, ID, PASSWORD, _with_password, sets=SEED),
    Endpoint(
        "POST",
        "/api/v2/wallet/seed/verify",
        WALLET,
        act=_check_seed,
        takes=(Needed("seed", "seed is required"),),
        body=Struct("api.VerifySeedRequest", {"seed": "string"}),
    ),
    Endpoint(
        "POST",
        "/api/v2/wallet/recover",
        WALLET,
        act=_recovered,
        takes=(Needed("id", "id is required"), Needed("seed", "seed is required")),
        body=Struct(
            "api.WalletRecoverRequest",
            {"id": "string", "seed": "string", "seed_passphrase": "string", "password": "string"},
        ),
    ),
)
