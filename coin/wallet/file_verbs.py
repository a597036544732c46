"""The verbs of wallets that need no node, but for scanning: making, growing, encrypting, showing secrets."""

from __future__ import annotations

import csv
import secrets
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final, TypeVar

from coin.wallet.asking import (
    ask_line,
    ask_lines,
    ask_password,
    ask_seed,
    new_password,
    password_argument,
    password_for,
)
from coin.wallet.base import Wallet
from coin.wallet.bip44 import EXTERNAL, Bip44
from coin.wallet.errors import DuplicateWalletError, UnsuitableError, WalletError
from coin.wallet.folder import SUFFIX, NewWallet, make_wallet, recovered, seed_of_wallet
from coin.wallet.keeping import changing, create_wallet, decrypt, encrypt, load_wallet, with_secrets
from coin.wallet.kinds import Collection, Deterministic, Watching
from coin.wallet.payment import asking
from coin.wallet.readable import wallet_json
from coin.wallet.scanning import AHEAD, scan
from coin.wallet.wallet import KINDS
from coin.wallet.words import COUNTS, words_of
from meshnet.cli.show import print_json, print_table
from meshnet.errors import StorageError, UsageError
from meshnet.node.app import Json, Verb
from meshnet.storage.disk import ExistingFileError, RealDisk

Call = Callable[[str, str, Json | None], Json]
RANDOM: Final = secrets.token_bytes
T = TypeVar("T")


def wallet_argument(parser: ArgumentParser) -> None:
    """The wallet's file."""
    parser.add_argument("file", metavar="FILE", help="the wallet")


def path_of(arguments: Namespace) -> str:
    """Where it lies: what a symbolic link leads to, since a wallet is replaced as a whole."""
    return str(Path(arguments.file).expanduser().resolve())


def open_wallet(arguments: Namespace) -> Wallet:
    """The wallet, as it is."""
    return load_wallet(RealDisk(), path_of(arguments))


# -- new


def _new_arguments(parser: ArgumentParser) -> None:
    wallet_argument(parser)
    parser.add_argument("--type", choices=[*KINDS], default=Deterministic.kind, help="default: %(default)s")
    parser.add_argument("--label", default="", help="what it is called")
    parser.add_argument("-n", "--count", type=int, default=1, help="addresses (default %(default)s)")
    parser.add_argument("--words", type=int, choices=COUNTS, default=12, help="of the seed (default 12)")
    parser.add_argument("--recover", action="store_true", help="ask for the seed of an older wallet")
    parser.add_argument("--passphrase", action="store_true", help="bip44: ask for what is added to the words")
    parser.add_argument("--coin-number", type=int, metavar="N", help="bip44: the coin's in the path (8000)")
    parser.add_argument("--xpub", default="", metavar="XPUB", help="xpub: what to watch")
    parser.add_argument("--encrypt", action="store_true", help="put it under a password")
    parser.add_argument("--scan", type=int, default=0, metavar="N", help="ask the node which ahead were used")
    parser.add_argument("--show-seed", action="store_true", help="print the seed, to write it down")
    password_argument(parser)


def _new(arguments: Namespace, call: Call) -> int:
    path, kind = Path(path_of(arguments)), arguments.type
    seeded = kind in (Deterministic.kind, Bip44.kind)
    _check_options(arguments, seeded)
    seed = ""
    if seeded:
        words = words_of(RANDOM(arguments.words * 4 // 3))
        seed = ask_seed(words=kind == Bip44.kind) if arguments.recover else words
    wanted = NewWallet(
        kind,
        arguments.label or path.stem,
        seed=seed,
        passphrase=ask_line("passphrase") if arguments.passphrase else "",
        number=arguments.coin_number,
        xpub=arguments.xpub,
        keys=ask_lines("secret key") if kind == Collection.kind else (),
        count=arguments.count,
    )
    wallet = make_wallet(wanted, path.name, int(time.time()))
    if arguments.scan:
        scan(wallet, asking(call), arguments.scan)
    kept = encrypt(wallet, new_password(arguments), RANDOM) if arguments.encrypt else wallet
    try:
        create_wallet(RealDisk(), str(path), kept)
    except ExistingFileError:
        raise DuplicateWalletError(f"{path} is there already; choose another name.") from None
    return _show_new(arguments, kept, seed)


def _check_options(arguments: Namespace, seeded: bool) -> None:
    """Options that the kind does not have; before anything is asked."""
    for given, fits, name in (
        (arguments.recover, seeded, "--recover"),
        (arguments.show_seed, seeded, "--show-seed"),
        (arguments.passphrase, arguments.type == Bip44.kind, "--passphrase"),
        (arguments.coin_number is not None, arguments.type == Bip44.kind, "--coin-number"),
        (arguments.xpub, arguments.type == Watching.kind, "--xpub"),
        (arguments.encrypt, arguments.type != Watching.kind, "--encrypt"),
        (arguments.scan, arguments.type != Collection.kind, "--scan"),
    ):
        if given and not fits:
            raise UsageError(f"{name} does not fit a wallet of type {arguments.type}.")
    if arguments.type == Watching.kind and not arguments.xpub:
        raise UsageError("A wallet that watches needs --xpub.")
    if arguments.coin_number is not None and not 0 <= arguments.coin_number < 1 << 31:
        raise UsageError("A coin's number is 0 to 2147483647.")


def _show_new(arguments: Namespace, wallet: Wallet, seed: str) -> int:
    if arguments.json:
        print_json({**wallet_json(wallet), **({"seed": seed} if arguments.show_seed else {})})
        return 0
    for each in wallet.texts:
        print(each)
    if not wallet.texts and sys.stderr.isatty():
        print("It is empty; give it keys with coin wallet import.", file=sys.stderr)
    if arguments.show_seed:
        print(f"seed: {seed}")
    elif seed and sys.stderr.isatty():
        print("Keep a copy of the file: it is the only one who knows the seed.", file=sys.stderr)
    return 0


# -- looking


def _list_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", default=".", help="a folder of wallets (default: here)")


def _list(arguments: Namespace, call: Call) -> int:
    disk, folder = RealDisk(), Path(arguments.directory).expanduser()
    found: list[Json] = []
    wrong: list[str] = []
    for name in disk.listdir(str(folder)):
        if name.endswith(SUFFIX):
            try:
                found.append(wallet_json(load_wallet(disk, str(folder / name)), name))
            except (WalletError, StorageError) as error:
                wrong.append(str(error))
    if arguments.json:
        print_json({"wallets": found, "unreadable": wrong})
    else:
        rows = [_list_row(each) for each in found]
        print_table(("FILE", "LABEL", "TYPE", "ADDRESSES", "ENCRYPTED"), rows)
        for each in wrong:
            print(each, file=sys.stderr)
    return 1 if wrong else 0


def _list_row(found: Json) -> list[object]:
    meta = found["meta"]
    return [meta["filename"], meta["label"], meta["type"], len(found["entries"]), meta["encrypted"]]


def _address_arguments(parser: ArgumentParser) -> None:
    wallet_argument(parser)
    parser.add_argument("--new", type=int, default=0, metavar="N", help="make so many more")
    parser.add_argument("--change", action="store_true", help="bip44: on the chain of change")
    password_argument(parser)


def _address(arguments: Namespace, call: Call) -> int:
    wallet = open_wallet(arguments)
    if not arguments.new:
        entries = [each for each in wallet.entries if each.change or not arguments.change]
        return show_addresses(arguments, [each.text for each in entries])
    password = None if isinstance(wallet, Bip44) else password_for(wallet, arguments)
    made = change_wallet(arguments, password, lambda it: _grown(it, arguments.new, arguments.change))
    return show_addresses(arguments, made)


def _grown(wallet: Wallet, count: int, change: bool) -> Sequence[str]:
    made = set(wallet.grow(count, change=change))
    return [each.text for each in wallet.entries if each.address in made]


def show_addresses(arguments: Namespace, texts: Sequence[str]) -> int:
    """Addresses, one a line."""
    if arguments.json:
        print_json({"addresses": list(texts)})
    else:
        for each in texts:
            print(each)
    return 0


def change_wallet(arguments: Namespace, password: str | None, work: Callable[[Wallet], T]) -> T:
    """What `work` says of the wallet; what it changed is durable."""
    with changing(RealDisk(), path_of(arguments)) as opened:
        result, opened.wallet = with_secrets(opened.wallet, password, RANDOM, work)
    return result


def _scan_arguments(parser: ArgumentParser) -> None:
    wallet_argument(parser)
    ends = "unused ones in a row that end it (default %(default)s)"
    parser.add_argument("--ahead", type=int, default=AHEAD, metavar="N", help=ends)
    password_argument(parser)


def _scan(arguments: Namespace, call: Call) -> int:
    wallet = open_wallet(arguments)
    password = None if isinstance(wallet, Bip44) else password_for(wallet, arguments)
    active = asking(call)

    def work(it: Wallet) -> Sequence[str]:
        before = len(it.entries)
        scan(it, active, arguments.ahead)
        return it.texts if len(it.entries) > before else []

    known = set(wallet.texts)
    found = [each for each in change_wallet(arguments, password, work) if each not in known]
    if arguments.json or found:
        return show_addresses(arguments, found)
    print("none ahead was used")
    return 0


# -- changing


def _label_arguments(parser: ArgumentParser) -> None:
    wallet_argument(parser)
    parser.add_argument("label", metavar="TEXT", help="what it is called from now on")


def _label(arguments: Namespace, call: Call) -> int:
    def work(wallet: Wallet) -> Json:
        wallet.label = arguments.label
        return wallet_json(wallet)

    return _changed(arguments, change_wallet(arguments, None, work), f"now called {arguments.label}")


def _changed(arguments: Namespace, found: Json, line: str) -> int:
    if arguments.json:
        print_json(found)
    else:
        print(line)
    return 0


def _password_arguments(parser: ArgumentParser) -> None:
    wallet_argument(parser)
    password_argument(parser)


def _replaced(arguments: Namespace, work: Callable[[Wallet], Wallet]) -> Wallet:
    with changing(RealDisk(), path_of(arguments)) as opened:
        opened.wallet = work(opened.wallet)
    return opened.wallet


def _encrypt(arguments: Namespace, call: Call) -> int:
    open_wallet(arguments).need_plain()
    password = new_password(arguments)
    made = _replaced(arguments, lambda wallet: encrypt(wallet, password, RANDOM))
    return _changed(arguments, wallet_json(made), "encrypted; without the password or the seed it is lost")


def _decrypt(arguments: Namespace, call: Call) -> int:
    open_wallet(arguments).need_encrypted()
    password = ask_password(arguments)
    made = _replaced(arguments, lambda wallet: decrypt(wallet, password))
    return _changed(arguments, wallet_json(made), "not encrypted any more")


def _recover_arguments(parser: ArgumentParser) -> None:
    wallet_argument(parser)
    parser.add_argument("--passphrase", action="store_true", help="bip44: ask for what is added to the words")
    parser.add_argument("--encrypt", action="store_true", help="put it under a new password")
    password_argument(parser)


def _recover(arguments: Namespace, call: Call) -> int:
    wallet = open_wallet(arguments)
    wallet.need_encrypted()
    seed = ask_seed(words=isinstance(wallet, Bip44))
    passphrase = ask_line("passphrase") if arguments.passphrase else ""
    recovered(wallet, seed, passphrase)  # a wrong seed is told before a password is asked
    password = new_password(arguments) if arguments.encrypt else ""

    def work(old: Wallet) -> Wallet:
        made = recovered(old, seed, passphrase)
        return encrypt(made, password, RANDOM) if password else made

    return _changed(arguments, wallet_json(_replaced(arguments, work)), "recovered from its seed")


def _import(arguments: Namespace, call: Call) -> int:
    wallet = open_wallet(arguments)
    if not isinstance(wallet, Collection):
        raise UnsuitableError(f"A wallet of type {wallet.kind} takes no keys from elsewhere.")
    password = password_for(wallet, arguments)
    keys = [wallet.form.parse_secret(each) for each in ask_lines("secret key")]

    def work(it: Wallet) -> Sequence[str]:
        assert isinstance(it, Collection)
        return [it.add(each).text for each in keys]

    return show_addresses(arguments, change_wallet(arguments, password, work))


# -- secrets


def _seed(arguments: Namespace, call: Call) -> int:
    wallet = open_wallet(arguments)
    password = password_for(wallet, arguments)
    seed, passphrase = with_secrets(wallet, password, RANDOM, seed_of_wallet)[0]
    answer = {"seed": seed, **({"passphrase": passphrase} if passphrase else {})}
    if arguments.json:
        print_json(answer)
    else:
        print("\n".join(answer.values()))
    return 0


EXPORTS: Final = ("addresses", "xpub", "keys")


def _export_arguments(parser: ArgumentParser) -> None:
    wallet_argument(parser)
    parser.add_argument(
        "what", nargs="?", choices=EXPORTS, default=EXPORTS[0], help="default: %(default)s; keys are secrets"
    )
    password_argument(parser)


def _export(arguments: Namespace, call: Call) -> int:
    wallet = open_wallet(arguments)
    if arguments.what == "xpub":
        return _export_xpub(arguments, wallet)
    rows = wallet_json(wallet)["entries"]
    if arguments.what == "keys":
        password = password_for(wallet, arguments)
        keys = with_secrets(wallet, password, RANDOM, _keys)[0]
        rows = [{**row, "secret_key": key} for row, key in zip(rows, keys, strict=True)]
    if arguments.json:
        print_json({"entries": rows})
    elif rows:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    return 0


def _keys(wallet: Wallet) -> list[str]:
    return [wallet.form.secret_text(each.key or wallet.key_of(each.address)) for each in wallet.entries]


def _export_xpub(arguments: Namespace, wallet: Wallet) -> int:
    if isinstance(wallet, Bip44):
        found = wallet.chain(wallet.accounts[0], EXTERNAL).parent.xpub
    elif isinstance(wallet, Watching):
        found = wallet.meta["xpub"]
    else:
        raise UnsuitableError(f"A wallet of type {wallet.kind} has no extended public key.")
    return _changed(arguments, {"xpub": found}, found)


FILE_VERBS: Final = (
    Verb("new", "make one: of a new seed, an old one, keys, or an xpub", _new_arguments, _new),
    Verb("list", "the wallets of a folder", _list_arguments, _list),
    Verb("address", "its addresses; more of them", _address_arguments, _address),
    Verb("scan", "find addresses ahead that were used", _scan_arguments, _scan),
    Verb("label", "call it otherwise", _label_arguments, _label),
    Verb("encrypt", "put it under a password", _password_arguments, _encrypt),
    Verb("decrypt", "take the password away", _password_arguments, _decrypt),
    Verb("recover", "make it anew from its seed, when the password is lost", _recover_arguments, _recover),
    Verb("import", "put secret keys into a collection", _password_arguments, _import),
    Verb("seed", "show the seed: whoever sees it has the coins", _password_arguments, _seed),
    Verb("export", "its addresses, its xpub, or its secret keys", _export_arguments, _export),
)
