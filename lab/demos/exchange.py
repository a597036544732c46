"""The demonstration of an exchange: deposits heard of by events, withdrawals paid once, deaths in the middle.

    maker ── node        the maker makes the blocks; the exchange asks its own node alone

The exchange is `teller.py`, a program that knows HTTP and nothing else of ours. Customers pay in and order
payments out; meanwhile it is killed with SIGKILL twice, and its node once. In the end its books must be equal
to the chain: each deposit credited once, each order paid once, and the wallet owns what is left over.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from attrs import define, evolve, field

from coin.chain.amounts import parse_coins
from coin.chain.spending import Payment
from coin.newchain import chain_file, new_chain
from coin.wallet.keeping import create_wallet
from coin.wallet.payment import Wish, funds_of, plan_payment, sign_plan
from coin.wallet.wallet import Wallet, new_wallet
from lab.demos import teller
from lab.demos.multihop import say
from lab.nodes import Network, Plan, chain
from lab.processes import Process, Processes, free_ports, python
from meshnet.cipher.keys import SecretKey
from meshnet.errors import MeshError, TimedOutError
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import make_directory, write_secret

ROLES = {"maker": "relay", "node": "relay"}
COINS = 1_000_000
FLOAT = "1000"
"""What the exchange's wallet begins with, in several outputs of this many coins each."""
FLOATS = 6
CONFIRMATIONS = 2
INTERVAL = 0.25
PATIENCE = 30.0
NAMES = ("ada", "ben", "cleo")
NAME = "hot.wlt"


@define
class Stage:
    """What runs: the nodes, the exchange's program, wallets. `given` are droplets that were paid in, by
    customer; `ordered` what is to be paid out, by order: customer, address, droplets."""

    network: Network
    processes: Processes
    folder: Path
    url: str
    treasury: Wallet
    hot: Wallet
    payees: Wallet
    given: dict[str, int] = field(factory=dict)
    ordered: dict[str, tuple[str, str, int]] = field(factory=dict)
    teller: Process | None = None
    kills: int = 0

    @property
    def books(self) -> str:
        """Where the exchange keeps its books."""
        return str(self.folder / "books.db")

    def open(self) -> None:
        """Starts the exchange's program."""
        change = self.hot.texts[0]
        what = (self.url, self.books, NAME, change, str(CONFIRMATIONS), str(self.folder / "api-key"))
        command = python(str(Path(teller.__file__)), *what)
        self.teller = self.processes.start("teller", command, self.folder / "teller.log")

    def kill(self) -> None:
        """Ends it at once, in the middle of whatever it does."""
        assert self.teller is not None and self.teller.running, "the exchange's program has ended by itself"
        self.teller.kill()
        self.kills += 1

    def deposit(self, *amounts: tuple[str, str]) -> None:
        """Customers pay in: names and coins, all in one transaction, told to the maker."""
        places = {name: self.hot.addresses[1 + NAMES.index(name)] for name in NAMES}
        self.transfer(*(Payment(places[name], parse_coins(coins)) for name, coins in amounts))
        for name, coins in amounts:
            self.given[name] = self.given.get(name, 0) + parse_coins(coins)

    def transfer(self, *payments: Payment) -> None:
        """The treasury pays, when it has something that is free."""
        node = self.network["maker"]

        def paid() -> bool:
            try:
                plan = plan_payment(funds_of(self.treasury, node.call), Wish(payments))
                raw = sign_plan(plan, self.treasury).raw.hex()
                node.call("POST", "/apps/coin/transaction", {"raw": raw})
            except MeshError:
                return False
            return True

        self.wait(paid, "a payment of the treasury")

    def order(self, customer: str, coins: str) -> None:
        """A customer wants coins: taken from what the books say is his, in one transaction, to be paid."""
        amount, number = parse_coins(coins), len(self.ordered)
        address = self.payees.texts[number]
        with contextlib.closing(teller.open_books(self.books)) as books:
            books.execute("BEGIN IMMEDIATE")
            books.execute("UPDATE customer SET droplets = droplets - ? WHERE name = ?", (amount, customer))
            row = (f"order-{number}", customer, address, amount)
            books.execute("INSERT INTO withdrawal VALUES (?, ?, ?, ?, 'new')", row)
            books.execute("COMMIT")
        self.ordered[f"order-{number}"] = (customer, address, amount)

    def rows(self, statement: str) -> list[Any]:
        """What the books say."""
        with contextlib.closing(teller.open_books(self.books)) as books:
            return books.execute(statement).fetchall()

    def credited(self) -> int:
        """Droplets of all deposits that are credited."""
        return int(self.rows("SELECT coalesce(sum(droplets), 0) FROM deposit WHERE credited = 1")[0][0])

    def paid(self) -> int:
        """How many orders are in a block, as the books say."""
        return int(self.rows("SELECT count(*) FROM withdrawal WHERE state = 'confirmed'")[0][0])

    def wait(self, ready: Callable[[], bool], what: str) -> None:
        """Until it is so."""
        limit = time.monotonic() + PATIENCE
        while not ready():
            if time.monotonic() > limit:
                raise TimedOutError(f"No sign of {what} in {PATIENCE:g} s.")
            time.sleep(0.05)

    def beat(self, ready: Callable[[], bool], what: str) -> None:
        """The same, while blocks are made: of nothing but a payment of the treasury to itself."""
        nobody = self.payees.addresses[-1]

        def beaten() -> bool:
            if not ready():
                self.transfer(Payment(nobody, 1_000))
                time.sleep(INTERVAL)
            return ready()

        self.wait(beaten, what)


def plans(folder: Path) -> list[Plan]:
    """The two nodes under a folder, the chain's files, and the exchange's wallet."""
    treasury, hot = wallets()[:2]
    publisher = SecretKey.generate()
    made = new_chain("demo", COINS, treasury.addresses[0], publisher, int(time.time()) - 86_400)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "demo.toml").write_text(chain_file(made))
    write_secret(RealDisk(), str(folder / "publisher"), publisher.secret.hex().encode() + b"\n")
    make_directory(RealDisk(), str(folder / "wallets"))
    create_wallet(RealDisk(), str(folder / "wallets" / NAME), hot)
    row = chain(folder, ROLES)
    section: dict[str, Any] = {"chain": str(folder / "demo.toml"), "exchange": False}
    (port,) = free_ports(1)
    api = {"listen": f"127.0.0.1:{port}", "wallets": str(folder / "wallets")}
    maker = {**section, "publish": str(folder / "publisher"), "interval": INTERVAL}
    more: dict[str, dict[str, Any]] = {
        "maker": {"coin": maker},
        "node": {"coin": {**section, "mesh_peers": [row[0].public.hex()]}, "coin.api": api},
    }
    return [evolve(plan, more=more[plan.name]) for plan in row]


def wallets() -> tuple[Wallet, Wallet, Wallet]:
    """The treasury's, the exchange's with an address for each customer, and those who are paid."""
    return (
        new_wallet("the treasury of the demonstration", "treasury", "treasury.wlt", 0),
        new_wallet("the exchange of the demonstration", "exchange", NAME, 0, 1 + len(NAMES)),
        new_wallet("those who are paid", "payees", "payees.wlt", 0, 20),
    )


@contextlib.contextmanager
def stage() -> Iterator[Stage]:
    """Starts everything; on leaving, all of it ends and its folder is gone."""
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name, Processes() as processes:
        say("making a chain, and starting its maker and the exchange's node …")
        planned = plans(Path(name))
        network = Network.start(processes, planned)
        url = f"http://{planned[1].more['coin.api']['listen']}"
        it = Stage(network, processes, Path(name), url, *wallets())
        it.wait(
            lambda: network["node"].call("GET", "/apps/coin/status").get("peers") == 1, "the chain's maker"
        )
        wanted = {"name": "teller", "scopes": ["read", "events", "send"], "rate": 1_000}
        key = network["node"].call("POST", "/apps/coin/keys", wanted)["key"]
        write_secret(RealDisk(), str(it.folder / "api-key"), key.encode() + b"\n")
        with contextlib.closing(teller.open_books(it.books)) as books:
            rows = [(each, it.hot.texts[1 + place]) for place, each in enumerate(NAMES)]
            books.executemany("INSERT INTO customer VALUES (?, ?, 0)", rows)
        amounts = [parse_coins(FLOAT) + 1_000 * number for number in range(FLOATS)]
        it.transfer(*(Payment(it.hot.addresses[0], amount) for amount in amounts))
        it.open()
        yield it


def once() -> dict[str, Any]:
    """The whole thing with its checks; `ok` is true only if each holds. Raises MeshError."""
    begun = time.monotonic()
    with stage() as it:
        say("customers pay in …")
        it.deposit(("ada", "100"), ("ben", "50.5"), ("cleo", "7"))
        it.beat(lambda: it.credited() == sum(it.given.values()), "the first deposits")
        say("killing the exchange while deposits come, and paying in while it is dead …")
        it.deposit(("ada", "11"), ("ben", "12"))
        it.kill()
        it.deposit(("cleo", "13"), ("ada", "14.25"))
        it.open()
        say("customers order payments; killing the exchange among them …")
        for customer, coins in (("ada", "60"), ("ben", "20.125"), ("cleo", "5"), ("ada", "3")):
            it.order(customer, coins)
        it.wait(lambda: bool(it.rows("SELECT 1 FROM withdrawal WHERE state <> 'new'")), "a first payment")
        it.kill()
        it.open()
        say("killing its node, too …")
        it.order("ben", "9")
        it.deposit(("ben", "1.001"))
        it.network["node"].process.kill()
        it.network.restart(it.processes, "node")
        it.beat(lambda: it.paid() == len(it.ordered), "all payments")
        it.beat(lambda: it.credited() == sum(it.given.values()), "all deposits")
        say("comparing the books with the chain …")
        report = _compared(it)
    report["seconds"] = round(time.monotonic() - begun, 2)
    checks = ("deposits_equal", "balances_equal", "each_paid_once", "wallet_equal")
    report["ok"] = all(report[name] for name in checks) and report["kills"] == 2
    return report


def _compared(it: Stage) -> dict[str, Any]:
    """The books against the chain, as its maker has it."""
    maker = it.network["maker"]

    def droplets_of(addresses: list[str]) -> dict[str, int]:
        found = maker.call("GET", "/apps/coin/balance", {"addresses": ",".join(addresses)})["addresses"]
        return {each: parse_coins(found[each]["confirmed"]["coins"]) for each in addresses}

    orders = {address: amount for _, address, amount in it.ordered.values()}
    spent = {name: sum(a for who, _, a in it.ordered.values() if who == name) for name in NAMES}
    owed = {name: it.given[name] - spent[name] for name in NAMES}
    booked = dict(it.rows("SELECT name, droplets FROM customer"))
    deposits = it.rows("SELECT customer, sum(droplets) FROM deposit WHERE credited = 1 GROUP BY customer")
    began = sum(parse_coins(FLOAT) + 1_000 * number for number in range(FLOATS))
    owns = sum(droplets_of(it.hot.texts).values())
    return {
        "ok": False,
        "seconds": 0.0,
        "kills": it.kills,
        "deposits": it.rows("SELECT count(*) FROM deposit")[0][0],
        "orders": len(it.ordered),
        "deposits_equal": dict(deposits) == it.given,
        "balances_equal": booked == owed,
        "each_paid_once": droplets_of(list(orders)) == orders,
        "wallet_equal": owns == began + sum(owed.values()),
        "owed": {name: teller.coins(amount) for name, amount in owed.items()},
        "wallet": teller.coins(owns),
        "height": maker.call("GET", "/apps/coin/status")["height"],
    }


def told(report: dict[str, Any]) -> str:
    """The report for a person."""
    owed = ", ".join(f"{name} {amount}" for name, amount in report["owed"].items())
    lines = [
        f"deposits    {report['deposits']}, each credited once: {_yes(report['deposits_equal'])}",
        f"orders      {report['orders']}, each paid once: {_yes(report['each_paid_once'])}",
        f"books       {owed}; as they should be: {_yes(report['balances_equal'])}",
        f"wallet      {report['wallet']} in block {report['height']}; as it should be: "
        f"{_yes(report['wallet_equal'])}",
        f"{'all checks hold' if report['ok'] else 'A CHECK FAILED'} after {report['kills']} kills of the "
        f"exchange and one of its node ({report['seconds']} s)",
    ]
    return "\n".join(lines)


def _yes(value: bool) -> str:
    return "yes" if value else "NO"


def watch() -> None:
    """Deposits and orders until Ctrl-C; then everything ends."""
    with stage() as it:
        turn = 0
        while True:
            name = NAMES[turn % len(NAMES)]
            it.deposit((name, str(1 + turn % 7)))
            if turn % 3 == 2 and len(it.ordered) < len(it.payees.texts) - 1:
                it.order(name, "1")
            time.sleep(1.0)
            turn += 1
            rows = it.rows("SELECT name, droplets FROM customer")
            print(*(f"{who} {teller.coins(amount)}" for who, amount in rows), f"paid {it.paid()}", flush=True)
