"""The verbs of wallets that ask the node what they own, and what happened."""

from __future__ import annotations

from argparse import ArgumentParser, Namespace
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final

from coin.chain.address import Address
from coin.chain.amounts import coins_text, parse_coins
from coin.wallet.base import Wallet
from coin.wallet.file_verbs import Call, open_wallet, wallet_argument
from coin.wallet.payment import (
    batches,
    outputs_of,
)
from meshnet.cli.show import print_json, print_table
from meshnet.errors import UsageError
from meshnet.node.app import Json, Verb


def _addresses(wallet: Wallet) -> Sequence[Address]:
    if not wallet.entries:
        raise UsageError("The wallet has no addresses; make one with coin wallet address --new 1.")
    return wallet.addresses


# -- what it owns


def balance_json(found: Json, texts: Sequence[str]) -> Json:
    """Balances of addresses by what they own: `confirmed` in blocks; `spendable` of it, what no waiting
    transaction spends; `expected` when all that waits is in blocks. Hours at the time of the last block."""
    sums = {text: {name: [0, 0] for name in ("confirmed", "spendable", "expected")} for text in texts}
    for rows, changes in (
        ("head_outputs", {"confirmed": 1, "spendable": 1, "expected": 1}),
        ("outgoing_outputs", {"spendable": -1, "expected": -1}),
        ("incoming_outputs", {"expected": 1}),
    ):
        for each in found.get(rows, []):
            for name, sign in changes.items():
                sums[each["address"]][name][0] += sign * parse_coins(each["coins"])
                sums[each["address"]][name][1] += sign * each["calculated_hours"]
    total = {
        name: [sum(each[name][place] for each in sums.values()) for place in (0, 1)]
        for name in ("confirmed", "spendable", "expected")
    }
    each_of = [{**_amounts(each), "address": text} for text, each in sums.items()]
    return {**_amounts(total), "addresses": each_of}


def _amounts(sums: dict[str, list[int]]) -> Json:
    return {name: {"coins": coins_text(coins), "hours": str(hours)} for name, (coins, hours) in sums.items()}


def _balance(arguments: Namespace, call: Call) -> int:
    wallet = open_wallet(arguments)
    return show_balance(arguments, balance_json(outputs_of(_addresses(wallet), call), wallet.texts))


def show_balance(arguments: Namespace, found: Json) -> int:
    """A balance, for a person or a program."""
    if arguments.json:
        print_json(found)
        return 0
    names = {"confirmed": "balance", "spendable": "spendable", "expected": "expected"}
    for name, shown in names.items():
        if name == "confirmed" or found[name] != found["confirmed"]:
            print(f"{shown:<9} {found[name]['coins']} coins, {found[name]['hours']} hours")
    for each in found["addresses"]:
        amount = each["confirmed"]
        print(f"  {each['address']:<36} {amount['coins']:>20} {amount['hours']:>12}")
    return 0


def _outputs(arguments: Namespace, call: Call) -> int:
    found = outputs_of(_addresses(open_wallet(arguments)), call)
    if arguments.json or not found["head_outputs"]:
        return _shown(arguments, {"outputs": found}, "none")
    taken = {each["hash"] for each in found["outgoing_outputs"]}
    rows = [
        [each["coins"], each["calculated_hours"], each["address"], each["hash"], each["hash"] in taken]
        for each in found["head_outputs"]
    ]
    print_table(("COINS", "HOURS", "ADDRESS", "OUTPUT", "BEING SPENT"), rows)
    return 0


def _shown(arguments: Namespace, answer: object, *lines: str) -> int:
    if arguments.json:
        print_json(answer)
    else:
        print("\n".join(lines))
    return 0


# -- what happened


def _history_arguments(parser: ArgumentParser) -> None:
    wallet_argument(parser)
    parser.add_argument("--limit", type=int, default=25, help="transactions (default %(default)s)")
    parser.add_argument("--offset", type=int, default=0, metavar="N", help="leave out the newest N")


def _history(arguments: Namespace, call: Call) -> int:
    if not (0 < arguments.limit <= 100 and arguments.offset >= 0):
        raise UsageError("Between 1 and 100 transactions are shown, from offset 0 on.")
    wallet = open_wallet(arguments)
    rows = history_rows(_transactions(wallet, call, arguments.offset, arguments.limit), set(wallet.texts))
    if arguments.json:
        print_json(rows)
        return 0
    for each in rows:
        state = "" if each["status"] else "  (in no block yet)"
        print(f"{each['timestamp']}  {each['amount']:>20}  {each['address']:<36} {each['txid']}{state}")
    return 0


def _transactions(wallet: Wallet, call: Call, offset: int, limit: int) -> list[Json]:
    """A page of what touches a wallet, the newest first; what waits comes before all."""
    waiting: dict[str, Json] = {}
    found: dict[str, Json] = {}
    for texts in batches(_addresses(wallet)):
        # Each batch has its own order; so all that may stand on the page are asked of each.
        for start in range(0, offset + limit, 100):
            asked = {"addresses": texts, "offset": start, "limit": min(100, offset + limit - start)}
            answer = call("GET", "/apps/coin/history", asked)
            waiting.update((each["transaction"]["txid"], each) for each in answer["pending"])
            found.update((each["transaction"]["txid"], each) for each in answer["transactions"])
            if start + 100 >= answer["total"]:
                break
    order = sorted(
        found.values(), key=lambda each: (each["block_seq"], each["transaction"]["txid"]), reverse=True
    )
    return [*waiting.values(), *order][offset : offset + limit]


def history_rows(transactions: Sequence[Json], own: set[str]) -> list[Json]:
    """What each transaction gave to or took from each of the addresses, as the Go node's command says it:
    `status` 1 in a block, 0 not yet."""
    rows = []
    for each in transactions:
        changes: dict[str, int] = {}
        for spent in each["transaction"]["inputs"]:
            if spent.get("owner") in own:
                changes[spent["owner"]] = changes.get(spent["owner"], 0) - parse_coins(spent["coins"])
        for made in each["transaction"]["outputs"]:
            if made["dst"] in own:
                changes[made["dst"]] = changes.get(made["dst"], 0) + parse_coins(made["coins"])
        for address, coins in changes.items():
            rows.append(
                {
                    "txid": each["transaction"]["txid"],
                    "address": address,
                    "amount": ("-" if coins < 0 else "") + coins_text(abs(coins)),
                    "timestamp": datetime.fromtimestamp(each["time"], UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
                    "status": int(each["confirmed"]),
                    "confirmations": each.get("confirmations", 0),
                }
            )
    return rows


MONEY_VERBS: Final = (
    Verb("balance", "what it owns", wallet_argument, _balance),
    Verb("outputs", "what it owns, output by output", wallet_argument, _outputs),
    Verb("history", "what it got and gave", _history_arguments, _history),
)
