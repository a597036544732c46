"""The verbs `coin …`: a node, questions to it, wallets, chains of one's own.

coin node DIR                     run a node with the coin; the directory is made at the first start
coin newchain NAME                make a private chain
coin status | block | blocks | tx | address | outputs | pending | supply | richlist | peers | verify
coin api key new | list | revoke
coin balance | decode | encode
coin wallet new | list | address | scan | label | encrypt | decrypt | recover | import | seed | export
coin wallet balance | outputs | history | send | sign | broadcast
"""

from __future__ import annotations

import secrets
import shlex
import time
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from coin.api.cli import API
from coin.chain.address import address_text, parse_address
from coin.files_cli import export_arguments, export_blocks, import_arguments, import_blocks
from coin.newchain import chain_file, new_chain
from coin.raw_cli import decode_arguments, decode_raw, encode_arguments, encode_raw
from coin.wallet.cli import WALLET
from coin.wallet.keeping import create_wallet
from coin.wallet.money_verbs import balance_json, show_balance
from coin.wallet.payment import outputs_of
from coin.wallet.wallet import new_wallet
from coin.wallet.words import ENTROPY, words_of
from meshnet.cipher.keys import SecretKey
from meshnet.cli.show import print_json, print_table, progress, progress_done
from meshnet.control.find import CONFIG_NAME, named_path
from meshnet.errors import LocalError, UsageError
from meshnet.limits import COIN_BLOCKS
from meshnet.node.app import Group, Json, Verb
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import create_file, make_directory, write_file, write_secret

Call = Callable[[str, str, Json | None], Json]
PORT: Final = 6_000


def _nothing(parser: ArgumentParser) -> None:
    """No arguments of its own."""


def _shown(arguments: Namespace, answer: Json, *lines: str) -> int:
    if arguments.json:
        print_json(answer)
    else:
        for each in lines:
            print(each)
    return 0


def _when(unix: int) -> str:
    return datetime.fromtimestamp(unix, UTC).strftime("%Y-%m-%d %H:%M:%S UTC")


# -- a node


def _node_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("directory", nargs="?", default=".", help="the node's directory (default: here)")
    parser.add_argument("--chain", default="skycoin", help="skycoin (the default) or a chain file")
    parser.add_argument("--listen", metavar="HOST:PORT", help="also take TCP peers there")
    parser.add_argument("--publish", metavar="KEYFILE", help="make blocks with the publisher's key")


def _node(arguments: Namespace, call: Call) -> int:
    from meshnet.cli.main import main  # the whole command; it imports this module first

    directory = named_path(arguments.directory)
    file = directory / CONFIG_NAME
    if not file.exists():
        code = main(["init", str(directory)])
        if code:
            return code
        lines = ["", "[coin]"]
        chain = arguments.chain if arguments.chain == "skycoin" else str(Path(arguments.chain).resolve())
        lines.append(f'chain = "{chain}"')
        if arguments.listen:
            lines.append(f'listen = ["{arguments.listen}"]')
        if arguments.publish:
            lines.append(f'publish = "{Path(arguments.publish).resolve()}"')
        disk = RealDisk()
        write_file(disk, str(file), file.read_bytes() + "\n".join(lines).encode() + b"\n", 0o644)
    elif arguments.listen or arguments.publish or arguments.chain != "skycoin":
        raise UsageError(f"{file} is there already: write chain, listen and publish into its section [coin].")
    return main(["up", str(directory), *(["--json"] if arguments.json else [])])


def _newchain_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("name", help="of the chain: small letters, digits, hyphens")
    parser.add_argument("--dir", default=".", metavar="DIR", help="where its files go (default: here)")
    parser.add_argument("--coins", type=_whole, default=100_000_000, help="how many (default %(default)s)")
    parser.add_argument("--owner", metavar="ADDRESS", help="whose they are first (default: a new wallet)")


def _whole(text: str) -> int:
    if not (text.isascii() and text.isdigit() and 0 < int(text[:20]) <= 9_000_000_000_000):
        raise ArgumentTypeError(f"{text!r} is no number of coins, 1 to 9,000,000,000,000")
    return int(text)


def _newchain(arguments: Namespace, call: Call) -> int:
    disk, folder, now = RealDisk(), named_path(arguments.dir), int(time.time())
    name = arguments.name
    publisher, wallet = SecretKey.generate(), None
    if arguments.owner is None:
        wallet = new_wallet(words_of(secrets.token_bytes(ENTROPY)), name, f"{name}.wlt", now)
        owner = wallet.addresses[0]
    else:
        owner = parse_address(arguments.owner)
    chain = new_chain(name, arguments.coins, owner, publisher, now)
    files = {"chain": folder / f"{name}.toml", "publisher": folder / f"{name}.publisher"}
    if wallet is not None:
        files["wallet"] = folder / f"{name}.wlt"
    for path in files.values():
        if path.exists():
            raise LocalError(f"{path} exists already; choose another name or directory.")
    make_directory(disk, str(folder), 0o755)
    write_secret(disk, str(files["publisher"]), publisher.secret.hex().encode() + b"\n")
    if wallet is not None:
        create_wallet(disk, str(files["wallet"]), wallet)
    create_file(disk, str(files["chain"]), chain_file(chain).encode(), 0o644)
    answer = {
        "name": name,
        "genesis": chain.genesis.hash.hex(),
        "publisher": publisher.public.hex(),
        "owner": address_text(owner),
        **{f"{key}_file": str(path) for key, path in files.items()},
    }
    quoted = {key: shlex.quote(str(path)) for key, path in files.items()}
    return _shown(
        arguments,
        answer,
        f"chain {name}, first block {chain.genesis.hash.hex()}",
        f"  {files['chain']}  give this file to everybody",
        f"  {files['publisher']}  the publisher's key: whoever has it makes blocks",
        *([f"  {files['wallet']}  the wallet with all coins"] if wallet is not None else []),
        f"start with: meshnet coin node DIR --chain {quoted['chain']} --publish {quoted['publisher']}",
    )


# -- questions


def _status(arguments: Namespace, call: Call) -> int:
    found = call("GET", "/apps/coin/status", None)
    if not found["running"]:
        return _shown(arguments, found, f"The coin does not run on this node: {found['why']}.")
    behind = found["highest"] - found["height"]
    return _shown(
        arguments,
        found,
        f"chain    {found['chain']}, first block {found['genesis'][:16]}…",
        f"height   {found['height']}" + (f", {behind} behind" if behind > 0 else ""),
        f"last     {found['head']}, {_when(found['time'])}",
        f"peers    {found['peers']}",
        f"pool     {found['pool']} transactions",
        f"blocks   {'are made here' if found['publishes'] else 'come from peers'}",
        *_store_lines(found["store"]),
        *(f"note     {each}" for each in found["notes"]),
    )


def _store_lines(store: Json) -> list[str]:
    """What is wrong with the store, or was."""
    if not store["damaged"] and not store["repaired"] and store["state"] != "damaged":
        return []
    counts = f"{store['damaged']} damaged blocks found, {store['mended']} mended"
    return [f"store    {store['state']}: {counts}", *(f"         {each}" for each in store["faults"])]


def _block_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("which", nargs="?", default="", help="number or hash (default: the last)")


def _block(arguments: Namespace, call: Call) -> int:
    found = call("GET", "/apps/coin/block", {"which": arguments.which})
    header = found["header"]
    lines = [
        f"block     {header['seq']}  {header['block_hash']}",
        f"time      {_when(header['timestamp'])}",
        f"previous  {header['previous_block_hash']}",
        f"fee       {header['fee']} hours",
    ]
    for each in found["body"]["txns"]:
        lines += _transaction_lines(each)
    return _shown(arguments, found, *lines)


def _blocks_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("first", nargs="?", type=_sequence, help="number of the first one")
    parser.add_argument(
        "end", nargs="?", type=_sequence, metavar="last", help="of the last (default: the first)"
    )
    parser.add_argument("--last", type=_sequence, metavar="N", help="the last N instead")


def _sequence(text: str) -> int:
    if not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise ArgumentTypeError(f"{text[:30]!r} is no number of a block")
    return int(text)


def _blocks(arguments: Namespace, call: Call) -> int:
    if (arguments.first is None) == (arguments.last is None):
        raise UsageError("Which blocks? Give the number of the first and of the last one, or --last N.")
    if arguments.last is not None:
        end = call("GET", "/apps/coin/status", None)["height"]
        first = max(0, end - arguments.last + 1)
    else:
        first, end = arguments.first, arguments.first if arguments.end is None else arguments.end
    found: list[Json] = []
    while (start := first + len(found)) <= end:
        more = call("GET", "/apps/coin/blocks", {"first": start, "count": min(COIN_BLOCKS, end - start + 1)})
        if not more["blocks"]:
            break
        found += more["blocks"]
        progress(f"{len(found)} of {end - first + 1} blocks")
    progress_done()
    if arguments.json:
        print_json({"blocks": found})
        return 0
    rows = [
        [each["header"]["seq"], _when(each["header"]["timestamp"]), len(each["body"]["txns"]), _hash(each)]
        for each in found
    ]
    print_table(("BLOCK", "TIME", "TRANSACTIONS", "HASH"), rows)
    return 0


def _hash(block: Json) -> str:
    return str(block["header"]["block_hash"])


def _transaction_lines(transaction: Json) -> list[str]:
    lines = [f"transaction {transaction['txid']}, {len(transaction['inputs'])} inputs"]
    return lines + [f"  {out['coins']:>20} to {out['dst']}" for out in transaction["outputs"]]


def _id_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("id", metavar="TXID", help="64 hex digits")


def _tx(arguments: Namespace, call: Call) -> int:
    found = call("GET", "/apps/coin/transaction", {"id": arguments.id})
    if found["confirmed"]:
        confirmations = f"{found['confirmations']} confirmations"
        state = f"in block {found['block_seq']} of {_when(found['time'])}, {confirmations}"
    else:
        state = f"waiting since {_when(found['received'])}" + (f": {found['why']}" if found["why"] else "")
    return _shown(arguments, found, state, *_transaction_lines(found["transaction"]))


def _address_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("address", metavar="ADDRESS")
    parser.add_argument("--limit", type=int, default=25, help="transactions of a page (default %(default)s)")
    parser.add_argument("--before", type=int, metavar="N", help="the next page: what `next` said")


def _address(arguments: Namespace, call: Call) -> int:
    body: Json = {"address": arguments.address, "limit": arguments.limit}
    if arguments.before is not None:
        body["before"] = arguments.before
    found = call("GET", "/apps/coin/address", body)
    rows = [
        f"  block {each['block_seq']:>8}  {_when(each['time'])}  {each['transaction']['txid']}"
        for each in found["transactions"]
    ]
    more = [f"more: --before {found['next']}"] if found["next"] is not None else []
    return _shown(arguments, found, *balance_lines(found), *rows, *more)


def balance_lines(found: Json) -> list[str]:
    """A balance for a person."""
    now, later = found["confirmed"], found["predicted"]
    lines = [f"balance   {now['coins']} coins, {now['hours']} hours"]
    if later != now:
        lines.append(f"expected  {later['coins']} coins, {later['hours']} hours")
    return lines


def _owners_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("addresses", metavar="ADDRESS", nargs="+")


def _outputs(arguments: Namespace, call: Call) -> int:
    found = outputs_of([parse_address(each) for each in arguments.addresses], call)
    if arguments.json or not found["head_outputs"]:
        return _shown(arguments, {"outputs": found}, "none")
    rows = [[each["coins"], each["calculated_hours"], each["hash"]] for each in found["head_outputs"]]
    print_table(("COINS", "HOURS", "OUTPUT"), rows)
    return 0


def _balance(arguments: Namespace, call: Call) -> int:
    addresses = [parse_address(each) for each in arguments.addresses]
    return show_balance(arguments, balance_json(outputs_of(addresses, call), arguments.addresses))


def _pending(arguments: Namespace, call: Call) -> int:
    found = call("GET", "/apps/coin/pending", None)
    if arguments.json or not found["pending"]:
        return _shown(arguments, found, "none")
    for each in found["pending"]:
        print(
            f"since {_when(each['received'])}, fee {each['fee']} hours{': ' * bool(each['why'])}{each['why']}"
        )
        print("\n".join(_transaction_lines(each["transaction"])))
    return 0


def _supply(arguments: Namespace, call: Call) -> int:
    found = call("GET", "/apps/coin/supply", None)
    return _shown(
        arguments,
        found,
        f"coins     {found['current_supply']} in circulation, {found['total_supply']} unlocked, "
        f"{found['max_supply']} in all",
        f"hours     {found['current_coinhour_supply']} in circulation, "
        f"{found['total_coinhour_supply']} in all",
        f"owned by  {found['addresses']} addresses, in {found['unspents']} outputs",
    )


def _richlist_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("-n", "--count", type=int, default=20, help="addresses (default %(default)s)")


def _richlist(arguments: Namespace, call: Call) -> int:
    found = call("GET", "/apps/coin/richlist", {"count": arguments.count})
    if arguments.json:
        print_json(found)
        return 0
    rows = [[each["coins"], each["address"], each["locked"]] for each in found["richlist"]]
    print_table(("COINS", "ADDRESS", "LOCKED"), rows)
    return 0


def _peers(arguments: Namespace, call: Call) -> int:
    found = call("GET", "/apps/coin/peers", None)
    if arguments.json:
        print_json(found)
        return 0
    rows = [
        [each["address"], "out" if each["outgoing"] else "in", each["height"], each["agent"]]
        for each in found["peers"]
    ]
    print_table(("PEER", "WAY", "HEIGHT", "AGENT"), rows)
    for each in found["banned"]:
        print(f"banned for {each['seconds']} s: {each['peer']}: {each['why']}")
    return 0


def _verify(arguments: Namespace, call: Call) -> int:
    while (found := call("POST", "/apps/coin/verify", {}))["state"] == "checking":
        progress(f"{found['checked']} of {found['height']} blocks")
    progress_done()
    whole = found["state"] == "whole"
    answer = {"ok": whole, **found}
    if whole:
        return _shown(
            arguments, answer, f"{found['checked']} blocks and their indexes are what they should be"
        )
    waiting = [f"{found['waiting']} damaged blocks are asked from peers; see coin status"]
    _shown(arguments, answer, *(waiting if found["waiting"] else []), *found["faults"])
    return 1


def _verb(name: str, summary: str, run: Callable[[Namespace, Call], int], declare: object = _nothing) -> Verb:
    assert callable(declare)
    return Verb(name, summary, declare, run)


VERBS: Final[Sequence[Verb | Group]] = (
    Group(
        "coin",
        "the chain: a node, questions, wallets",
        (
            _verb("node", "run a node with the coin; made at the first start", _node, _node_arguments),
            _verb(
                "newchain", "make a private chain: keys, first block, files", _newchain, _newchain_arguments
            ),
            _verb("status", "height, peers, pool", _status),
            _verb("block", "a block by number or hash", _block, _block_arguments),
            _verb("blocks", "some blocks, one behind the other", _blocks, _blocks_arguments),
            _verb("tx", "a transaction, its block and confirmations", _tx, _id_arguments),
            _verb("address", "balance and history of an address", _address, _address_arguments),
            _verb("outputs", "what addresses own, output by output", _outputs, _owners_arguments),
            _verb("balance", "what addresses own", _balance, _owners_arguments),
            _verb("decode", "show a transaction's bytes; asks no node", decode_raw, decode_arguments),
            _verb("encode", "a transaction's JSON as bytes; asks no node", encode_raw, encode_arguments),
            _verb("pending", "transactions in no block yet", _pending),
            _verb("supply", "coins and hours there are", _supply),
            _verb("richlist", "who owns most", _richlist, _richlist_arguments),
            _verb("peers", "peers of the chain's network", _peers),
            _verb("verify", "read the stored blocks again and check them", _verify),
            _verb("import", "add blocks from a file, also the Go node's", import_blocks, import_arguments),
            _verb("export", "write the chain to a file, also the Go node's", export_blocks, export_arguments),
            API,
            WALLET,
        ),
    ),
)
