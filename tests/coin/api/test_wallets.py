"""Wallets of the node over the API: what Go nodes recorded, every request once, and what is refused how."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from coin.api.settings import ApiSection, SetName
from coin.chain.address import address_text
from coin.chain.rules import signers
from coin.chain.transaction import Output, Transaction, decode_transaction
from coin.store.store import open_store
from coin.wallet.wallet import new_bip44, new_wallet
from meshnet.errors import ConfigError
from tests.support.chains import Ledger, key, owner, small_chain
from tests.support.coinapi import DISK, Response, Served
from tests.support.vectors import vectors

WORDS = "casino away claim road artist where blossom warrior demise royal still palm"
XPUB = (
    "xpub6CkxdS1d4vNqqcnf9xPgqR5e2jE2PZKmKSw93QQMjHE1hRk22nU4zns85EDRgmLWYXYtu62XexwqaET33XA28c26NbXCAUJh1xm"
    "qq6B3S2v"
)
COINS = 1_000_000_000
SETS: tuple[SetName, ...] = ("READ", "TXN", "WALLET", "INSECURE_WALLET_SEED")
SHARE = {"type": "auto", "mode": "share", "share_factor": "0.5"}
SEEDED = {
    "deterministic": {"seed": WORDS},
    "bip44": {"seed": WORDS},
    "xpub": {"xpub": XPUB},
}


class Case(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.ledger = Ledger(small_chain(COINS))
        self.store = open_store(DISK, self.folder / "chain.db", self.ledger.chain)
        self.addCleanup(self.store.close)
        section = ApiSection(csrf=False, sets=SETS, wallets=self.folder / "wallets")
        self.served = Served(self.store, section, folder=self.folder, publishes=True)
        flow = self.served.api.withdrawing
        assert flow is not None
        self.addCleanup(flow.close)

    def extend(self, *transactions: Transaction) -> None:
        """One more block."""
        block = self.ledger.block(*transactions)
        self.ledger.add(block)
        added = self.store.add([block], [[signers(each) for each in transactions]])
        assert added.refused is None, added.refused

    def post(self, path: str, **form: Any) -> Response:
        return self.served.post(f"/api/v1/{path}", **{name.replace("_", "-"): form[name] for name in form})

    def create(self, kind: str, **form: Any) -> Any:
        """A new wallet, as it is answered."""
        answer = self.post("wallet/create", **{"type": kind, "label": "l", **SEEDED.get(kind, {}), **form})
        self.assertEqual(answer.status, 200, answer.body)
        return answer.json

    def told(self, answer: Response) -> tuple[int, str]:
        """Status and text of a refusal."""
        return answer.status, answer.text.partition(" - ")[2].strip()


class Recorded(Case):
    def test_goldens(self) -> None:
        """Balances and waiting transactions of new wallets, value by value."""
        recorded = vectors("skycoin/api-golden")
        for kind in SEEDED:
            name = self.create(kind)["meta"]["filename"]
            found = self.served.get("/api/v1/wallet/balance", id=name).json
            right = json.loads((recorded / f"wallet-balance-{kind}.golden").read_text())
            self.assertEqual(json.dumps(found), json.dumps(right))
            for more, verbose in (("", 0), ("-verbose", 1)):
                waiting = self.served.get("/api/v1/wallet/transactions", id=name, verbose=verbose).json
                file = recorded / f"wallet-{kind}-transactions{more}.golden"
                self.assertEqual(waiting, json.loads(file.read_text()))


class Keeping(Case):
    def test_life(self) -> None:
        """Made, shown, named, grown, scanned, put away."""
        made = self.create("deterministic")
        name = made["meta"]["filename"]
        self.assertEqual(self.served.get("/api/v1/wallet", id=name).json, made)
        self.assertEqual(self.served.get("/api/v1/wallets").json, [made])
        self.assertEqual(
            self.served.get("/api/v1/wallets/folderName").json, {"address": str(self.folder / "wallets")}
        )
        own = new_wallet(WORDS, "l", name, 0, 8).texts
        self.assertEqual(self.post("wallet/newAddress", id=name, num=2).json, {"addresses": own[1:3]})
        used = new_wallet(WORDS, "l", name, 0, 8).addresses[5]
        self.extend(self.ledger.pay(1, Output(used, COINS, 5)))
        self.assertEqual(self.post("wallet/scan", id=name).json, {"addresses": own[3:6]})
        self.assertEqual(self.post("wallet/scan", id=name, num=3).json, {"addresses": []})
        self.assertEqual(self.post("wallet/update", id=name, label="new").json, "success")
        self.assertEqual(self.served.get("/api/v1/wallet", id=name).json["meta"]["label"], "new")
        balance = self.served.get("/api/v1/wallet/balance", id=name).json
        self.assertEqual(balance["confirmed"]["coins"], COINS)
        self.assertEqual(self.post("wallet/unload", id=name).json, None)
        self.assertEqual(self.told(self.served.get("/api/v1/wallet", id=name)), (400, "wallet doesn't exist"))
        self.assertTrue((self.folder / "wallets" / name).exists())

    def test_kinds(self) -> None:
        """A collection takes keys; words of accounts have change; a temporary wallet is in no file."""
        secret = key(3).secret.hex()
        kept = self.create("collection", private_keys=secret)
        self.assertEqual([each["address"] for each in kept["entries"]], [address_text(owner(3))])
        more = self.post("wallet/newAddress", id=kept["meta"]["filename"], private_keys=key(4).secret.hex())
        self.assertEqual(more.json, {"addresses": [address_text(owner(4))]})
        found = self.create("bip44")
        self.assertEqual([each["change"] for each in found["entries"]], [False, True])
        self.assertEqual(found["meta"]["bip44_coin"], 8_000)
        self.assertEqual(self.create("xpub")["meta"]["xpub"], XPUB)
        before = sorted((self.folder / "wallets").iterdir())
        brief = self.post("wallet/createTemp", type="deterministic", label="t", seed="for now").json
        self.assertTrue(brief["meta"]["temp"])
        self.assertEqual(sorted((self.folder / "wallets").iterdir()), before)

    def test_password(self) -> None:
        """Encrypted, its seed shown, made anew from it, decrypted."""
        name = self.create("deterministic", seed="some seed")["meta"]["filename"]
        wallets = self.served.api.wallets
        assert wallets is not None
        wallets.service.folder.encrypt(name, "pwd", "scrypt-chacha20poly1305-insecure")
        self.assertTrue(self.served.get("/api/v1/wallet", id=name).json["meta"]["encrypted"])
        again = self.post("wallet/encrypt", id=name, password="pwd")
        self.assertEqual(self.told(again), (400, "wallet is encrypted"))
        self.assertEqual(self.post("wallet/seed", id=name, password="pwd").json, {"seed": "some seed"})
        for request in ("seed", "decrypt"):
            self.assertEqual(self.told(self.post(f"wallet/{request}", id=name)), (400, "missing password"))
            wrong = self.post(f"wallet/{request}", id=name, password="x")
            self.assertEqual(self.told(wrong), (400, "invalid password"))
        wrong = self.served.post("/api/v2/wallet/recover", {"id": name, "seed": "another"})
        self.assertEqual(
            (wrong.status, wrong.json["error"]["message"]),
            (400, "wallet recovery seed or seed passphrase is wrong"),
        )
        found = self.served.post("/api/v2/wallet/recover", {"id": name, "seed": "some seed"}).json["data"]
        self.assertFalse(found["meta"]["encrypted"])
        plain = self.post("wallet/decrypt", id=name, password="pwd")
        self.assertEqual(self.told(plain), (400, "wallet is not encrypted"))

    def test_words(self) -> None:
        """New words are right words; wrong ones are told."""
        for bits, count in ((128, 12), (256, 24)):
            seed = self.served.get("/api/v1/wallet/newSeed", entropy=bits).json["seed"]
            self.assertEqual(len(seed.split()), count)
            self.assertEqual(
                self.served.post("/api/v2/wallet/seed/verify", {"seed": seed}).json, {"data": {}}
            )
        self.assertEqual(self.served.post("/api/v2/wallet/seed/verify", {"seed": "no words"}).status, 422)
        wrong = self.served.get("/api/v1/wallet/newSeed", entropy=129)
        self.assertEqual(self.told(wrong), (400, "entropy length must be 128 or 256"))

    def test_refused(self) -> None:
        """What is missing or does not go together, in the Go node's words."""
        name = self.create("deterministic")["meta"]["filename"]
        right = {"type": "deterministic", "label": "l", "seed": "s"}
        cases: list[tuple[str, dict[str, Any], str]] = [
            ("create", {}, "missing type"),
            ("create", {"type": "bip44"}, "missing seed"),
            ("create", {"type": "bip44", "seed": "s"}, "missing label"),
            ("create", {**right, "encrypt": 1}, "missing password"),
            ("create", {**right, "password": "p"}, "encrypt must be true as password is provided"),
            ("create", {**right, "scan": "x"}, "invalid scan value"),
            ("create", {**right, "scan": 0}, "scan must be > 0"),
            ("create", {**right, "bip44_coin": 1}, "bip44-coin is only valid for bip44 type wallets"),
            ("create", {**right, "type": "x"}, "invalid wallet type"),
            ("create", {**right, "seed": WORDS}, "a wallet already exists with this seed"),
            ("newAddress", {}, "missing wallet id"),
            ("newAddress", {"id": name, "num": "x"}, "invalid num value"),
            ("newAddress", {"id": name, "password": "p"}, "wallet is not encrypted"),
            ("newAddress", {"id": "other.wlt"}, "wallet doesn't exist"),
            ("scan", {"id": name, "num": 0}, "invalid num value, must be > 0"),
            ("update", {"id": name}, "missing label"),
        ]
        for path, form, text in cases:
            with self.subTest(path=path, form=form):
                self.assertEqual(self.told(self.post(f"wallet/{path}", **form)), (400, text))
        for path in ("update", "encrypt", "decrypt", "seed"):
            answer = self.post(f"wallet/{path}", id="other.wlt", label="l", password="p")
            self.assertEqual(answer.text, "404 Not Found\n")

    def test_config(self) -> None:
        """The sets of wallets need a folder, in one sentence; without the sets nothing is served."""
        self.assertRaises(ConfigError, Served, self.store, ApiSection(sets=("WALLET",)))
        closed = Served(self.store, ApiSection(csrf=False))
        self.assertEqual(closed.get("/api/v1/wallets").text, "403 Forbidden - Endpoint is disabled\n")


class Paying(Case):
    def setUp(self) -> None:
        super().setUp()
        self.name = self.create("deterministic")["meta"]["filename"]
        self.own = new_wallet(WORDS, "l", self.name, 0).addresses[0]
        half = COINS // 2
        self.extend(self.ledger.pay(1, Output(self.own, half, 500), Output(owner(5), half, 400)))

    def wish(self, **more: Any) -> dict[str, Any]:
        """A payment of ten coins."""
        to = [{"address": address_text(owner(2)), "coins": "10"}]
        return {"wallet_id": self.name, "hours_selection": SHARE, "to": to, **more}

    def refused(self, path: str, body: Any) -> tuple[int, str]:
        answer = self.served.post(path, body)
        if "/v2/" in path:
            return answer.status, answer.json["error"]["message"]
        return self.told(answer)

    def test_paid(self) -> None:
        """A signed transaction that the pool takes, with the fee and share of the Go node."""
        made = self.served.post("/api/v1/wallet/transaction", self.wish()).json
        it = made["transaction"]
        self.assertEqual([each["hours"] for each in it["outputs"]], ["225", "225"])
        self.assertEqual((it["fee"], it["inputs"][0]["calculated_hours"]), ("50", "500"))
        sent = self.served.post("/api/v1/injectTransaction", {"rawtx": made["encoded_transaction"]})
        self.assertEqual(sent.json, it["txid"])
        waiting = self.served.get("/api/v1/wallet/transactions", id=self.name).json["transactions"]
        self.assertEqual([each["transaction"]["txid"] for each in waiting], [it["txid"]])
        text = "please spend after your pending transaction is confirmed"
        self.assertEqual(self.refused("/api/v1/wallet/transaction", self.wish()), (400, text))
        ignoring = self.wish(ignore_unconfirmed=True)
        self.assertEqual(self.refused("/api/v1/wallet/transaction", ignoring), (400, "no unspents to spend"))

    def test_signed_elsewhere(self) -> None:
        """Unsigned from a wallet, or from addresses alone; signed by it; the same as signed at once."""
        unsigned = self.served.post("/api/v1/wallet/transaction", self.wish(unsigned=True)).json
        body = {**self.wish(), "addresses": [address_text(self.own)]}
        self.assertEqual(self.served.post("/api/v2/transaction", body).json["data"], unsigned)
        spent = [each["uxid"] for each in unsigned["transaction"]["inputs"]]
        body = {**self.wish(), "unspents": spent}
        self.assertEqual(self.served.post("/api/v2/transaction", body).json["data"], unsigned)
        bare = unsigned["encoded_transaction"]
        ask = {"wallet_id": self.name, "encoded_transaction": bare}
        path = "/api/v2/wallet/transaction/sign"
        signed = self.served.post(path, ask).json["data"]
        at_once = self.served.post("/api/v1/wallet/transaction", self.wish()).json
        self.assertEqual(signed, at_once)
        self.assertEqual(self.served.post(path, {**ask, "sign_indexes": [0]}).json["data"], signed)
        self.assertEqual(
            decode_transaction(bytes.fromhex(bare)).inner.hex(), signed["transaction"]["inner_hash"]
        )
        full = {**ask, "encoded_transaction": signed["encoded_transaction"]}
        self.assertEqual(self.refused(path, full), (400, "Transaction is fully signed"))
        text = "Value in sign_indexes exceeds range of transaction inputs array"
        self.assertEqual(self.refused(path, {**ask, "sign_indexes": [1]}), (400, text))
        foreign = {**self.wish(), "addresses": [address_text(owner(5))]}
        strange = self.served.post("/api/v2/transaction", foreign).json["data"]["encoded_transaction"]
        text = "Wallet cannot sign all requested inputs"
        self.assertEqual(self.refused(path, {**ask, "encoded_transaction": strange}), (400, text))

    def test_change(self) -> None:
        """A wallet of accounts gets its change at an address that nobody has used."""
        name = self.create("bip44", seed=WORDS)["meta"]["filename"]
        own = new_bip44(WORDS, "l", name, 0, 1)
        paid, change = own.addresses
        self.extend(self.ledger.pay(5, Output(paid, COINS // 2, 100)))
        body = {**self.wish(), "wallet_id": name}
        made = self.served.post("/api/v1/wallet/transaction", body).json
        self.assertEqual(made["transaction"]["outputs"][1]["address"], address_text(change))
        self.extend(decode_transaction(bytes.fromhex(made["encoded_transaction"])))
        made = self.served.post("/api/v1/wallet/transaction", body).json
        second = own.grow(1, change=True)[0]
        self.assertEqual(made["transaction"]["outputs"][1]["address"], address_text(second))

    def test_refused(self) -> None:
        """Everything that can be wrong with what is asked for, in the Go node's words."""
        one = self.wish()["to"][0]
        cases: dict[str, dict[str, Any]] = {
            "missing hours_selection.type": {"hours_selection": {}},
            "invalid hours_selection.type": {"hours_selection": {"type": "x"}},
            "missing hours_selection.mode": {"hours_selection": {"type": "auto"}},
            "invalid hours_selection.mode": {"hours_selection": {"type": "auto", "mode": "x"}},
            "missing hours_selection.share_factor when hours_selection.mode is share": {
                "hours_selection": {"type": "auto", "mode": "share"}
            },
            "hours_selection.share_factor cannot be more than 1": {
                "hours_selection": {**SHARE, "share_factor": "1.1"}
            },
            "hours_selection.share_factor cannot be negative": {
                "hours_selection": {**SHARE, "share_factor": "-1"}
            },
            "to[0].hours must be specified for manual hours_selection.mode": {
                "hours_selection": {"type": "manual"}
            },
            "to[0].hours must not be specified for auto hours_selection.mode": {
                "to": [{**one, "hours": "1"}]
            },
            "to is empty": {"to": []},
            "to[0].address is empty": {"to": [{"coins": "1"}]},
            "to[0].coins must not be zero": {"to": [{**one, "coins": "0"}]},
            "to[0].coins has too many decimal places": {"to": [{**one, "coins": "1.0001"}]},
            "to contains duplicate values": {"to": [one, one]},
            "unspents and addresses cannot be combined": {
                "addresses": [one["address"]],
                "unspents": ["ab" * 32],
            },
            "addresses contains duplicate values": {"addresses": [one["address"]] * 2},
            "unspents contains duplicate values": {"unspents": ["ab" * 32] * 2},
            f"unspent output of {'ab' * 32} does not exist": {"unspents": ["ab" * 32]},
            "balance is not sufficient": {"to": [{**one, "coins": "600"}]},
        }
        for text, more in cases.items():
            with self.subTest(text=text):
                body = self.wish(**more)
                self.assertEqual(self.refused("/api/v1/wallet/transaction", body), (400, text))
        hungry = self.wish(hours_selection={"type": "manual"}, to=[{**one, "hours": "451"}])
        self.assertEqual(
            self.refused("/api/v1/wallet/transaction", hungry), (400, "hours are not sufficient")
        )
        path = "/api/v1/wallet/transaction"
        other = {**self.wish(), "wallet_id": "other.wlt"}
        self.assertEqual(self.refused(path, other), (404, "wallet doesn't exist"))
        stranger = self.wish(addresses=[address_text(owner(5))])
        self.assertEqual(self.refused(path, stranger), (400, "address not found in wallet"))
        self.assertEqual(self.refused(path, self.wish(password="p")), (400, "wallet is not encrypted"))
        none = "one of addresses or unspents must not be empty"
        self.assertEqual(self.refused("/api/v2/transaction", self.wish()), (400, none))


class LeftOut(Case):
    def test_told(self) -> None:
        """A file that is no wallet is told of when the folder is read; the others are served."""
        name = self.create("deterministic")["meta"]["filename"]
        bad = self.folder / "wallets" / "bad.wlt"
        bad.write_text("{")
        bad.chmod(0o600)
        flow = self.served.api.withdrawing
        assert flow is not None
        flow.close()
        notes = self.successResultOf(Deferred.fromCoroutine(self.served.api.open()))
        self.assertEqual(len(notes), 1)
        self.assertIn("bad.wlt", notes[0])
        self.assertEqual(
            [each["meta"]["filename"] for each in self.served.get("/api/v1/wallets").json], [name]
        )
        again = self.served.api.withdrawing
        assert again is not None
        self.addCleanup(again.close)
