"""The verbs of wallets that pay: sending, signing without a node, sending what was signed elsewhere."""

from __future__ import annotations

import sys
from argparse import ArgumentParser, Namespace
from pathlib import Path
from typing import Any, Final

from attrs import evolve

from coin.chain.address import Address, address_text, parse_address
from coin.chain.amounts import coins_text
from coin.chain.spending import Payment, Plan, allowed
from coin.chain.transaction import Output, Transaction
from coin.wallet.asking import password_argument, password_for
from coin.wallet.base import Wallet
from coin.wallet.document import INDENT, go_json
from coin.wallet.file_verbs import RANDOM, Call, change_wallet, open_wallet, path_of, wallet_argument
from coin.wallet.forms import SKYCOIN
from coin.wallet.keeping import with_secrets
from coin.wallet.kinds import Watching
from coin.wallet.offline import LARGEST, Unsigned, read_unsigned, sign_unsigned
from coin.wallet.payment import (
    Funds,
    Wish,
    asking,
    created_json,
    fresh_change,
    funds_of,
    plan_payment,
    sign_plan,
)
from coin.wallet.recipients import ALL, parse_link, parse_payment, parse_payments, parse_share, payment_of
from meshnet.cli.show import print_json
from meshnet.errors import TimedOutError, UnreachableError, UsageError
from meshnet.node.app import Json, Verb
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import write_file


def _send_arguments(parser: ArgumentParser) -> None:
    wallet_argument(parser)
    option: Any = parser.add_argument
    option("address", metavar="ADDRESS", nargs="?", help="who gets it, or a payment link")
    option("coins", metavar="COINS", nargs="?", help="how much, such as 12.5, or all")
    option("--hours", type=int, metavar="N", help="coin hours to give (default: a share of them)")
    option("--to", action="append", default=[], metavar="ADDRESS,COINS[,HOURS]", help="another receiver")
    option("--csv", metavar="PATH", help="receivers from a file, a line each as for --to")
    option("--share", default="0.5", help="of the hours for receivers, 0 to 1 (default %(default)s)")
    option("--from", action="append", default=[], dest="origin", metavar="ADDRESS", help="spend from there")
    option("--unspent", action="append", default=[], metavar="OUTPUT", help="spend this output")
    where = "where the rest goes (default: where it came from; bip44: an unused address)"
    option("--change", metavar="ADDRESS", help=where)
    option("--unsigned", action="store_true", help="write it for coin wallet sign; send nothing")
    option("--out", metavar="PATH", help="where the transaction is written")
    option("--dry-run", action="store_true", help="say what would be sent; send nothing")
    password_argument(parser)


def _payments(arguments: Namespace) -> list[Payment]:
    found = [parse_payment(each) for each in arguments.to]
    if arguments.address is not None and ":" in arguments.address:
        found.insert(0, parse_link(arguments.address, SKYCOIN.name))
    elif arguments.address is not None:
        if arguments.coins is None:
            raise UsageError("Say how many coins, behind the address.")
        found.insert(0, payment_of(arguments.address, arguments.coins, arguments.hours))
    elif arguments.hours is not None:
        raise UsageError("--hours belongs to ADDRESS COINS; write hours behind the coins with --to.")
    if arguments.csv:
        found += parse_payments(_read(arguments.csv))
    if not found:
        raise UsageError("Say who gets what: ADDRESS COINS, --to or --csv.")
    if any(each.coins == ALL for each in found) and len(found) > 1:
        raise UsageError("All of it goes to one receiver.")
    return found


def _read(path: str) -> str:
    """A small file of text, or standard input (-)."""
    try:
        if path == "-":
            return sys.stdin.read(LARGEST)
        with Path(path).expanduser().open(encoding="utf-8") as file:
            return file.read(LARGEST)
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror}.") from None
    except UnicodeDecodeError:
        raise UsageError(f"{path} is no text.") from None


def _wish(arguments: Namespace, funds: Funds) -> Wish:
    try:
        unspents = {bytes.fromhex(each) for each in arguments.unspent}
    except ValueError:
        raise UsageError("An output's id is 64 hex digits; see coin wallet outputs.") from None
    wish = Wish(
        tuple(_payments(arguments)),
        {parse_address(each) for each in arguments.origin},
        unspents,
        parse_share(arguments.share),
        parse_address(arguments.change) if arguments.change else None,
    )
    if wish.payments[0].coins == ALL:
        free = allowed(
            funds.candidates, funds.taken, addresses=wish.addresses, unspents=unspents, ignore_taken=True
        )
        whole = evolve(wish.payments[0], coins=sum(each.coins for each in free))
        wish = evolve(wish, payments=(whole,))
    return wish


def _strangers(wallet: Wallet, wish: Wish) -> None:
    """Raises UsageError for addresses to spend from that are not the wallet's."""
    for each in set(wish.addresses) - set(wallet.addresses):
        raise UsageError(f"{address_text(each)} is not an address of this wallet.")


def _send(arguments: Namespace, call: Call) -> int:
    wallet = open_wallet(arguments)
    if isinstance(wallet, Watching) and not (arguments.unsigned or arguments.dry_run):
        raise UsageError("This wallet only watches; write --unsigned, and sign where the keys are.")
    password = None if arguments.unsigned or arguments.dry_run else password_for(wallet, arguments)
    funds = funds_of(wallet, call)
    wish = _wish(arguments, funds)
    _strangers(wallet, wish)
    plan = plan_payment(funds, wish)
    if plan.change is not None and wish.change is None:
        home = _change_address(arguments, wallet, call)
        plan = plan if home is None else plan_payment(funds, evolve(wish, change=home))
    if arguments.unsigned or arguments.dry_run:
        transaction = plan.transaction()
    else:
        transaction = with_secrets(wallet, password, RANDOM, lambda it: sign_plan(plan, it))[0]
    return _sent(arguments, call, plan, transaction, created_json(plan, transaction, funds))


def _change_address(arguments: Namespace, wallet: Wallet, call: Call) -> Address | None:
    """Where the rest goes, of the wallet's own choice; it is in the file before anything is sent there."""
    active = asking(call)
    home = fresh_change(wallet.copy(), active)
    if home is not None and home not in wallet.addresses and not arguments.dry_run:
        home = change_wallet(arguments, None, lambda it: fresh_change(it, active))
    return home


def _sent(arguments: Namespace, call: Call, plan: Plan, transaction: Transaction, document: Json) -> int:
    if arguments.out:
        _write(arguments.out, document)
    answer: Json = {"txid": transaction.id.hex(), "fee": plan.fee, "sent": False, **document}
    if not (arguments.unsigned or arguments.dry_run):
        answer.update(_give(arguments, call, transaction, document), sent=True)
    if arguments.json:
        print_json(answer)
        return 0
    given = [each for each in plan.outputs if each is not plan.change]
    word = "sent" if answer["sent"] else "to be signed" if arguments.unsigned else "would be sent"
    for each in given:
        print(
            f"{word}: {coins_text(each.coins)} coins and {each.hours} hours to {address_text(each.address)}"
        )
    if plan.change is not None:
        print(f"back: {coins_text(plan.change.coins)} coins to {address_text(plan.change.address)}")
    print(f"fee: {plan.fee} hours")
    if arguments.unsigned and not arguments.out:
        print_json(document)
    else:
        print(answer["txid"])
    if answer.get("why"):
        print(f"but no block takes it as it is: {answer['why']}", file=sys.stderr)
    return 0


def _give(arguments: Namespace, call: Call, transaction: Transaction, document: Json) -> Json:
    """Gives it to the node. Where no answer comes it may be under way: who then pays again pays twice, so it
    is kept and named, to be sent again as it is."""
    try:
        return call("POST", "/apps/coin/transaction", {"raw": transaction.raw.hex()})
    except (TimedOutError, UnreachableError) as error:
        kept = arguments.out or f"{path_of(arguments)}.{transaction.id.hex()[:8]}.unsent"
        _write(kept, document)
        raise UnreachableError(
            f"{error} The payment may be under way all the same; do not pay again, but send the same again: "
            f"coin wallet broadcast {kept}."
        ) from None


def amount_text(each: Output) -> str:
    """An output for a person."""
    return f"{coins_text(each.coins)} coins and {each.hours} hours to {address_text(each.address)}"


def _write(path: str, document: Json) -> None:
    target = str(Path(path).expanduser())
    write_file(RealDisk(), target, (go_json(document, INDENT) + "\n").encode(), 0o644)


# -- elsewhere


def _sign_arguments(parser: ArgumentParser) -> None:
    wallet_argument(parser)
    parser.add_argument("transaction", metavar="PATH", help="what coin wallet send --unsigned wrote")
    parser.add_argument("--out", metavar="PATH", help="where the signed one is written")
    password_argument(parser)


def _sign(arguments: Namespace, call: Call) -> int:
    wallet = open_wallet(arguments)
    unsigned = read_unsigned(_read(arguments.transaction))
    password = password_for(wallet, arguments)
    signed = with_secrets(wallet, password, RANDOM, lambda it: sign_unsigned(unsigned, it))[0]
    if arguments.out:
        _write(arguments.out, signed.document)
    if arguments.json:
        print_json({**signed.document, "complete": signed.complete})
        return 0
    _describe(signed, wallet)
    if arguments.out:
        print(f"signed: {arguments.out}; send it with coin wallet broadcast")
    else:
        print(signed.transaction.raw.hex())
    return 0


def _describe(signed: Unsigned, wallet: Wallet) -> None:
    """What a signature says, on standard error: what the hashes prove, and the fee as it was said."""
    given, back = signed.outputs(wallet.addresses)
    for each in given:
        print(f"pays {amount_text(each)}", file=sys.stderr)
    print(f"back {coins_text(sum(each.coins for each in back))} coins", file=sys.stderr)
    print(f"fee {signed.fee} hours, as the document says", file=sys.stderr)
    if not signed.complete:
        print("other wallets have to sign it, too", file=sys.stderr)


def _broadcast_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("transaction", metavar="PATH", help="what coin wallet sign wrote, or its hex")


def _broadcast(arguments: Namespace, call: Call) -> int:
    text = arguments.transaction
    if not _is_hex(text):
        text = _read(text).strip()
    raw = text if _is_hex(text) else read_unsigned(text).transaction.raw.hex()
    answer = call("POST", "/apps/coin/transaction", {"raw": raw})
    if arguments.json:
        print_json(answer)
        return 0
    print(answer["txid"])
    if answer["why"]:
        print(f"but no block takes it as it is: {answer['why']}", file=sys.stderr)
    return 0


def _is_hex(text: str) -> bool:
    return len(text) > 64 and not set(text.lower()) - set("0123456789abcdef")


PAY_VERBS: Final = (
    Verb("send", "pay from it", _send_arguments, _send),
    Verb("sign", "sign a transaction, without a node", _sign_arguments, _sign),
    Verb("broadcast", "send a signed transaction", _broadcast_arguments, _broadcast),
)
