"""The coin's demonstration: a private chain on three nodes of a mesh, payments, and kills in mid-block.

    anna ── bob ── carol        anna makes the blocks; each node talks to its neighbours by key

The first coins are in alice's wallet. She pays through one node and another, bob pays carol, and while blocks
are being made the publisher is killed with SIGKILL again and again, then a node that only follows. In the end
all three must have the same last block, supply and balances, and every payment must be in exactly one block.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from coin.chain.address import address_text
from coin.chain.amounts import coins_text, parse_coins
from coin.chain.spending import Payment
from coin.newchain import chain_file, new_chain
from coin.wallet.payment import sign_payment
from coin.wallet.wallet import Wallet, new_wallet
from lab.demos.multihop import say
from lab.nodes import Network, Node, Plan, chain
from lab.processes import Processes
from meshnet.cipher.keys import SecretKey
from meshnet.errors import MeshError, TimedOutError
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import write_secret

ROLES = {"anna": "relay", "bob": "relay", "carol": "relay"}
COINS = 1_000_000
INTERVAL = 0.3
KILLS = 3
PATIENCE = 60.0


@define
class Stage:
    """The running nodes, the wallets, and all payments that were made: txid → whose, to whom, how much."""

    network: Network
    processes: Processes
    wallets: dict[str, Wallet]
    payments: dict[str, dict[str, str]] = field(factory=dict)

    def status(self, node: Node) -> dict[str, Any]:
        """What the coin of a node says of itself; empty while it does not answer."""
        try:
            found: dict[str, Any] = node.call("GET", "/apps/coin/status")
        except MeshError:
            return {}
        return found if found.get("running") else {}

    def pay(self, node: str, payer: str, receiver: str, coins: str) -> str:
        """Pays through a node; the transaction's id."""
        payment = Payment(self.wallets[receiver].addresses[0], parse_coins(coins))
        transaction, _ = sign_payment(self.wallets[payer], payment, self.network[node].call)
        self.network[node].call("POST", "/apps/coin/transaction", {"raw": transaction.raw.hex()})
        self.payments[transaction.id.hex()] = {"from": payer, "to": receiver, "coins": coins}
        return transaction.id.hex()

    def block_of(self, node: Node, txid: str) -> int | None:
        """The block that a payment is in."""
        try:
            found = node.call("GET", "/apps/coin/transaction", {"id": txid})
        except MeshError:
            return None
        return int(found["block_seq"]) if found["confirmed"] else None

    def settle(self, *txids: str) -> None:
        """Waits until payments are in blocks on every node; raises TimedOutError."""
        self.wait(
            lambda: all(
                self.block_of(node, txid) is not None for node in self.network.nodes for txid in txids
            ),
            "payments to be in blocks everywhere",
        )

    def agree(self) -> None:
        """Waits until all have the same last block and nothing waits."""

        def same() -> bool:
            found = [self.status(node) for node in self.network.nodes]
            return all(found) and len({each["head"] for each in found}) == 1 and not found[0]["pool"]

        self.wait(same, "equal heads")

    def wait(self, ready: Any, what: str) -> None:
        """Until it is so."""
        limit = time.monotonic() + PATIENCE
        while not ready():
            if time.monotonic() > limit:
                raise TimedOutError(f"No sign of {what} in {PATIENCE:g} s: {self.told()}")
            time.sleep(0.05)

    def told(self) -> str:
        """All nodes in a line each."""
        return "; ".join(f"{node.name} {self.status(node)}" for node in self.network.nodes)

    def kill(self, name: str) -> int:
        """Ends a node at once; its height before."""
        height = int(self.status(self.network[name]).get("height", 0))
        self.network[name].process.kill()
        return height

    def start(self, name: str) -> None:
        """Starts it again, and waits until its coin runs."""
        self.network.restart(self.processes, name)
        self.wait(lambda: self.status(self.network[name]), f"{name}'s coin")

    def balances(self, node: Node) -> dict[str, Any]:
        """Of all wallets, as a node has them."""
        texts = {name: address_text(wallet.addresses[0]) for name, wallet in self.wallets.items()}
        found = node.call("GET", "/apps/coin/balance", {"addresses": ",".join(texts.values())})
        return {name: found["addresses"][text]["confirmed"] for name, text in texts.items()}


def plans(folder: Path) -> list[Plan]:
    """The three nodes under a folder, and the chain's files."""
    wallet = new_wallet("the first coins of the demonstration", "alice", "alice.wlt", 0)
    publisher = SecretKey.generate()
    made = new_chain("demo", COINS, wallet.addresses[0], publisher, int(time.time()) - 86_400)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.toml").write_text(chain_file(made))
    write_secret(RealDisk(), str(folder / "publisher"), publisher.secret.hex().encode() + b"\n")
    row = chain(folder, ROLES)
    bob = row[1].public.hex()
    section: dict[str, Any] = {"chain": str(folder / "demo.toml"), "exchange": False}
    more: dict[str, dict[str, Any]] = {
        "anna": {**section, "mesh_peers": [bob], "publish": str(folder / "publisher"), "interval": INTERVAL},
        "bob": section,
        "carol": {**section, "mesh_peers": [bob]},
    }
    return [evolve(plan, more={"coin": more[plan.name]}) for plan in row]


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Starts everything; on leaving, all of it ends and its folder is gone."""
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name, Processes() as processes:
        say("making a chain and starting three nodes …")
        network = Network.start(processes, plans(Path(name)))
        wallets: dict[str, Wallet] = {
            "alice": new_wallet("the first coins of the demonstration", "alice", "alice.wlt", 0),
            "bob": new_wallet("bob of the demonstration", "bob", "bob.wlt", 0),
            "carol": new_wallet("carol of the demonstration", "carol", "carol.wlt", 0),
        }
        it = Stage(network, processes, wallets)
        it.wait(
            lambda: [it.status(node).get("peers") for node in network.nodes] == [1, 2, 1],
            "peers of the chain",
        )
        yield it


def once() -> dict[str, Any]:
    """The whole thing with its checks; `ok` is true only if each holds. Raises MeshError."""
    begun = time.monotonic()
    with stage() as it:
        say("paying through two nodes …")
        first = it.pay("carol", "alice", "bob", "1000")
        it.settle(first)
        it.settle(it.pay("anna", "alice", "carol", "2000.5"))
        kills = [_kill_publisher(it, number) for number in range(KILLS)]
        follower = _kill_follower(it)
        say("comparing the three nodes …")
        it.agree()
        nodes = [_look(it, node) for node in it.network.nodes]
        placed = {txid: [it.block_of(node, txid) for node in it.network.nodes] for txid in it.payments}
        expected = _expected(it)
    report: dict[str, Any] = {
        "ok": False,
        "seconds": 0.0,
        "payments": len(placed),
        "all_confirmed": all(len(set(found)) == 1 and found[0] is not None for found in placed.values()),
        "publisher_kills": kills,
        "follower_kill": follower,
        "equal_heads": len({node["head"] for node in nodes}) == 1,
        "equal_supply": len({str(node["supply"]) for node in nodes}) == 1,
        "equal_balances": len({str(node["balances"]) for node in nodes}) == 1,
        "supply_whole": all(node["supply"]["current_supply"] == f"{COINS}.000000" for node in nodes),
        "balances_right": all(
            {name: each["coins"] for name, each in node["balances"].items()} == expected for node in nodes
        ),
        "verified": all(node["verified"] for node in nodes),
        "nodes": nodes,
    }
    report["seconds"] = round(time.monotonic() - begun, 2)
    checks = ("all_confirmed", "equal_heads", "equal_supply", "equal_balances", "supply_whole")
    report["ok"] = (
        all(report[name] for name in (*checks, "balances_right", "verified"))
        and all(kill["caught_up"] for kill in [*kills, follower])
        and len(kills) == KILLS
    )
    return report


def _kill_publisher(it: Stage, number: int) -> dict[str, Any]:
    """Pays, kills the publisher while that block is due, pays again through another node, starts it again."""
    say(f"killing the publisher in mid-block, {number + 1} of {KILLS} …")
    first = it.pay("anna", "alice", "bob", str(10 + number))
    time.sleep(INTERVAL * (0.4 + 0.3 * number))  # before, while and after the block is made
    height = it.kill("anna")
    second = it.pay("bob", "carol", "alice", str(1 + number))
    it.start("anna")
    it.settle(first, second)
    return {"at_height": height, "caught_up": it.block_of(it.network["anna"], second) is not None}


def _kill_follower(it: Stage) -> dict[str, Any]:
    """Kills a node that only follows while a block comes to it; it misses some more, and gets them."""
    say("killing a follower in mid-block …")
    first = it.pay("anna", "alice", "carol", "77")
    time.sleep(INTERVAL * 0.7)
    height = it.kill("carol")
    it.wait(lambda: it.block_of(it.network["bob"], first) is not None, "a block that carol misses")
    it.start("carol")
    it.settle(first)
    return {"at_height": height, "caught_up": it.block_of(it.network["carol"], first) is not None}


def _expected(it: Stage) -> dict[str, str]:
    """What each wallet must have, by the payments alone."""
    have = dict.fromkeys(it.wallets, 0)
    have["alice"] = parse_coins(str(COINS))
    for each in it.payments.values():
        coins = parse_coins(each["coins"])
        have[each["from"]] -= coins
        have[each["to"]] += coins
    return {name: coins_text(coins) for name, coins in have.items()}


def _look(it: Stage, node: Node) -> dict[str, Any]:
    status = it.status(node)
    verified = node.call("POST", "/apps/coin/verify", {})
    return {
        "name": node.name,
        "height": status["height"],
        "head": status["head"],
        "supply": node.call("GET", "/apps/coin/supply"),
        "balances": it.balances(node),
        "verified": verified["state"] == "whole",
        "metrics_ok": f"coin_height {float(status['height'])}" in node.metrics(),
    }


def told(report: dict[str, Any]) -> str:
    """The report for a person."""
    lines = [
        f"payments    {report['payments']}, each in one block: {_yes(report['all_confirmed'])}",
        *(
            f"publisher   killed at block {kill['at_height']}, back with all: {_yes(kill['caught_up'])}"
            for kill in report["publisher_kills"]
        ),
        f"follower    killed at block {report['follower_kill']['at_height']}, back with all: "
        f"{_yes(report['follower_kill']['caught_up'])}",
    ]
    for node in report["nodes"]:
        owned = ", ".join(f"{name} {each['coins']}" for name, each in node["balances"].items())
        lines.append(f"{node['name']:11} block {node['height']} {node['head'][:16]}…; {owned}")
    lines.append(f"{'all checks hold' if report['ok'] else 'A CHECK FAILED'} ({report['seconds']} s)")
    return "\n".join(lines)


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def watch() -> None:
    """Payments back and forth until Ctrl-C; then everything ends."""
    with stage() as it:
        turn = 0
        while True:
            payer, receiver = (("alice", "bob"), ("bob", "carol"), ("carol", "alice"))[turn % 3]
            try:
                it.pay(it.network.nodes[turn % 3].name, payer, receiver, str(1 + turn % 5))
            except MeshError as error:
                print(error)
            time.sleep(1.0)
            turn += 1
            for node in it.network.nodes:
                found = it.status(node)
                print(f"{node.name:6} block {found.get('height')} {str(found.get('head'))[:16]}…", end="  ")
            print(flush=True)
