"""The verbs `coin wallet …`: files of this machine; balances and payments ask the running node.

Keys never leave the file: a payment is put together and signed here, the node gets it signed.
"""

from __future__ import annotations

import getpass
import secrets
import sys
import time
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Final

from coin.chain.address import Address, address_text, parse_address
from coin.chain.amounts import coins_text, parse_coins
from coin.chain.spending import Payment
from coin.wallet.base import MOST_ADDRESSES
from coin.wallet.keeping import create_wallet, load_wallet, save_wallet
from coin.wallet.payment import sign_payment
from coin.wallet.wallet import new_wallet
from coin.wallet.words import ENTROPY, checked, words_of
from meshnet.cli.show import print_json
from meshnet.errors import UsageError
from meshnet.node.app import Group, Json, Verb
from meshnet.storage.disk import RealDisk

Call = Callable[[str, str, Json | None], Json]
ASKED: Final = 100
"""Addresses of one question for balances."""


def _file(parser: ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", help="the wallet")


def _new_arguments(parser: ArgumentParser) -> None:
    _file(parser)
    parser.add_argument("--label", default="", help="what it is called")
    parser.add_argument("-n", "--count", type=int, default=1, help="addresses (default %(default)s)")
    parser.add_argument("--recover", action="store_true", help="ask for the seed of an older wallet")
    parser.add_argument("--show-seed", action="store_true", help="print the seed, to write it down")


def _new(arguments: Namespace, call: Call) -> int:
    if arguments.recover:
        seed = _ask_seed()
    else:
        seed = words_of(secrets.token_bytes(ENTROPY))
    path = Path(arguments.file).expanduser()
    wallet = new_wallet(seed, arguments.label or path.stem, path.name, int(time.time()), arguments.count)
    create_wallet(RealDisk(), str(path), wallet)
    answer: Json = {"file": str(path), "addresses": [address_text(each) for each in wallet.addresses]}
    if arguments.show_seed:
        answer["seed"] = seed
    if arguments.json:
        print_json(answer)
        return 0
    print("\n".join(answer["addresses"]))
    if arguments.show_seed:
        print(f"seed: {seed}")
    elif sys.stderr.isatty():
        print("Keep a copy of the file: it is the only one who knows the seed.", file=sys.stderr)
    return 0


def _ask_seed() -> str:
    """From the terminal without showing it, else from the first line of standard input."""
    if sys.stdin.isatty():
        seed = getpass.getpass("seed: ")
        if not checked(seed):
            print("These are not words with a right checksum; taken as they are.", file=sys.stderr)
    else:
        seed = sys.stdin.readline().rstrip("\n")
    if not seed:
        raise UsageError("A seed must not be empty.")
    return seed


def _address_arguments(parser: ArgumentParser) -> None:
    _file(parser)
    parser.add_argument("--new", type=int, default=0, metavar="N", help="make so many more")


def _address(arguments: Namespace, call: Call) -> int:
    disk, path = RealDisk(), str(Path(arguments.file).expanduser())
    wallet = load_wallet(disk, path)
    shown: Sequence[Address] = wallet.addresses
    if arguments.new:
        shown = wallet.grow(arguments.new)
        save_wallet(disk, path, wallet)
    texts = [address_text(each) for each in shown]
    if arguments.json:
        print_json({"addresses": texts})
    else:
        print("\n".join(texts))
    return 0


def _balance(arguments: Namespace, call: Call) -> int:
    wallet = load_wallet(RealDisk(), str(Path(arguments.file).expanduser()))
    each: dict[str, Json] = {}
    for start in range(0, len(wallet.entries), ASKED):
        texts = ",".join(address_text(one) for one in wallet.addresses[start : start + ASKED])
        each.update(call("GET", "/apps/coin/balance", {"addresses": texts})["addresses"])
    total: Json = {}
    for kind in ("confirmed", "predicted"):
        found = [one[kind] for one in each.values()]
        coins = coins_text(sum(parse_coins(one["coins"]) for one in found))
        total[kind] = {"coins": coins, "hours": sum(one["hours"] for one in found)}
    if arguments.json:
        print_json({**total, "addresses": each})
        return 0
    print(f"balance   {total['confirmed']['coins']} coins, {total['confirmed']['hours']} hours")
    if total["predicted"] != total["confirmed"]:
        print(f"expected  {total['predicted']['coins']} coins, {total['predicted']['hours']} hours")
    for text, one in each.items():
        print(f"  {text:<36} {one['confirmed']['coins']:>20} {one['confirmed']['hours']:>12}")
    return 0


def _send_arguments(parser: ArgumentParser) -> None:
    _file(parser)
    parser.add_argument("to", metavar="ADDRESS", help="who gets it")
    parser.add_argument("coins", metavar="COINS", help="how much, such as 12.5")
    parser.add_argument("--hours", type=int, metavar="N", help="coin hours to give (default: half of them)")
    parser.add_argument(
        "--change", metavar="ADDRESS", help="where the rest goes (default: where it came from)"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would be sent, and send nothing")


def _send(arguments: Namespace, call: Call) -> int:
    wallet = load_wallet(RealDisk(), str(Path(arguments.file).expanduser()))
    payment = Payment(parse_address(arguments.to), parse_coins(arguments.coins), arguments.hours)
    change = parse_address(arguments.change) if arguments.change else None
    transaction, plan = sign_payment(wallet, payment, call, change)
    answer: Json = {
        "txid": transaction.id.hex(),
        "fee": plan.fee,
        "to": arguments.to,
        "coins": coins_text(payment.coins),
        "raw": transaction.raw.hex(),
    }
    if not arguments.dry_run:
        answer.update(call("POST", "/apps/coin/transaction", {"raw": transaction.raw.hex()}))
    if arguments.json:
        print_json(answer)
        return 0
    sent = "would be sent" if arguments.dry_run else "sent"
    print(f"{sent}: {answer['coins']} coins to {answer['to']}, fee {plan.fee} hours")
    print(answer["txid"])
    if answer.get("why"):
        print(f"but no block takes it as it is: {answer['why']}", file=sys.stderr)
    return 0


WALLET: Final = Group(
    "wallet",
    "deterministic wallets in files",
    (
        Verb("new", f"make one, with up to {MOST_ADDRESSES:,} addresses", _new_arguments, _new),
        Verb("address", "its addresses; more of them", _address_arguments, _address),
        Verb("balance", "what it owns", _file, _balance),
        Verb("send", "pay from it", _send_arguments, _send),
    ),
)
