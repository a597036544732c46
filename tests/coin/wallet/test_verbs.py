"""The verbs of wallets: what the Go node's command prints, and what a person does with them, end to end."""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import address_text
from coin.chain.params import Chain
from coin.chain.rules import signers
from coin.chain.skycoin import SKYCOIN
from coin.chain.transaction import Output, decode_transaction
from coin.cli import VERBS as COIN_VERBS
from coin.raw_cli import parse_json, parse_raw
from coin.readable import transaction_json
from coin.store.store import ChainStore, open_store
from coin.wallet import encryption
from coin.wallet.cli import VERBS
from coin.wallet.errors import (
    DuplicateWalletError,
    EncryptedError,
    NotEncryptedError,
    PasswordError,
    UnsuitableError,
    WalletError,
)
from coin.wallet.keeping import create_wallet, load_wallet
from coin.wallet.readable import wallet_json
from coin.wallet.wallet import decode_wallet, new_wallet
from coin.wallet.words import checked
from meshnet.errors import TimedOutError, UnreachableError, UsageError
from meshnet.node.app import Group, Verb
from meshnet.storage.disk import RealDisk
from tests.coin.store.test_store import real_blocks
from tests.coin.wallet.test_wallet import SEED, WORDS, XPUB, fixture
from tests.support.chains import Ledger, small_chain
from tests.support.vectors import vectors
from tests.support.wallets import Desk

KEY = "11" * 32


def golden(name: str) -> Any:
    """What the Go node's command printed."""
    return json.loads(vectors(f"skycoin/cli-golden/{name}.golden").read_text())


def coin_verbs() -> list[Verb]:
    """The verbs `coin …` that are in no group of their own."""
    (group,) = COIN_VERBS
    assert isinstance(group, Group)
    return [each for each in group.verbs if isinstance(each, Verb)]


class Desks(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        self.desk = Desk(VERBS)
        self.file = str(self.folder / "mine.wlt")
        # The cost of a password is another test's.
        self.patch(encryption, "_COSTS", dict.fromkeys(encryption._COSTS, 16))

    def store(self, chain: Chain) -> ChainStore:
        """A new store."""
        store = open_store(RealDisk(), str(self.folder / "chain.db"), chain)
        self.addCleanup(store.close)
        return store

    def password(self, text: str = "pwd") -> str:
        """A file with a password."""
        path = self.folder / f"{text}.txt"
        path.write_text(f"{text}\n")
        return str(path)


class GoldenTests(Desks):
    def real(self) -> Desk:
        """A desk before the first 181 blocks of the live chain."""
        store, blocks = self.store(SKYCOIN), real_blocks()
        for start in range(1, 181, 45):
            part = blocks[start : start + 45]
            added = store.add(part, [[signers(each) for each in block.transactions] for block in part])
            self.assertIsNone(added.refused)
        return Desk([*VERBS, *coin_verbs()], store)

    def test_made(self) -> None:
        """What is told of a new wallet has the keys, values and order of the Go node's command, for each of
        its goldens; where the seed is published (xpub), also the addresses."""
        xpub = golden("create-wallet-xpub")["meta"]["xpub"]
        for name, arguments in (
            ("create-wallet-xpub", ["--type", "xpub", "--xpub", xpub]),
            ("create-wallet-deterministic", []),
            ("create-wallet-deterministic-n-2", ["-n", "2"]),
            ("create-wallet-deterministic-encrypt", ["--encrypt"]),
            ("create-wallet-bip44", ["--type", "bip44"]),
            ("create-wallet-bip44-encrypt", ["--type", "bip44", "--encrypt"]),
            ("create-wallet-bip44-with-passphrase", ["--type", "bip44", "--encrypt", "--passphrase"]),
            ("create-wallet-collection-empty", ["--type", "collection"]),
            ("create-wallet-collection-1", ["--type", "collection"]),
            ("create-wallet-collection-2", ["--type", "collection"]),
            ("create-wallet-collection-encrypt", ["--type", "collection", "--encrypt"]),
        ):
            known = golden(name)
            keys = known["entries"] if "collection" in name else ()
            typed = "".join(f"{number + 1:064x}\n" for number in range(len(keys)))
            extra = "more\n" if "--passphrase" in arguments else ""
            path = str(self.folder / f"{name}.wlt")
            if "--encrypt" in arguments:
                arguments = [*arguments, "--password-file", self.password()]
            made = self.desk.json("new", path, "--label", "test", *arguments, typed=extra + typed)
            made["meta"].update(filename="", timestamp=0)
            if "xpub" in name:
                self.assertEqual(made, known)
            self.assertEqual((list(made), list(made["meta"])), (list(known), list(known["meta"])))
            self.assertEqual(made["meta"], known["meta"], name)
            self.assertEqual([*map(list, made["entries"])], [*map(list, known["entries"])])
            for ours, theirs in zip(made["entries"], known["entries"], strict=True):
                for key in ("child_number", "change"):
                    self.assertEqual(ours.get(key), theirs.get(key))

    def test_more_addresses(self) -> None:
        """The addresses of published seeds, from a plain wallet and an encrypted one."""
        for name, seed, count in (
            (
                "generate-addresses",
                "exchange stage green marine palm tobacco decline shadow cereal chapter lamp copy",
                1,
            ),
            (
                "generate-addresses-2",
                "visual ancient fancy body choose trigger drama window toward resource enough another",
                2,
            ),
            (
                "generate-addresses-encrypted",
                "chunk tortoise solid extra casual lend merry tooth captain inform alpha zebra",
                1,
            ),
        ):
            path, known = str(self.folder / f"{name}.wlt"), golden(name)["Addresses"]
            secret = ["--encrypt", "--password-file", self.password()] if "encrypted" in name else []
            self.desk.run("new", path, "--recover", *secret, typed=f"{seed}\n")
            made = self.desk.json("address", path, "--new", str(count), *secret[1:])
            self.assertEqual(made, {"addresses": known[1:]})
            self.assertEqual(self.desk.json("address", path), {"addresses": known})
        path = str(self.folder / "list.wlt")
        seed = "radar erase claw much slush custom symbol cable poem apology genre edit"
        self.desk.run("new", path, "--recover", typed=f"{seed}\n")
        self.assertEqual(self.desk.json("address", path), golden("list-addresses"))

    def test_published_files(self) -> None:
        """The command's own wallets, plain and encrypted, give the same address and seed."""
        for name in ("integration-test", "integration-test-encrypted"):
            wallet = decode_wallet(fixture(f"cli-golden/{name}.wlt"))
            self.assertEqual(wallet.texts, golden("generate-addresses")["Addresses"][:1])

    def test_chain(self) -> None:
        """Balances and outputs of addresses and wallets on the live chain."""
        desk = self.real()
        one, two = "2kvLEyXwAYvHfJuFCkjnYNRTUfHPyWgVwKt", "ejJjiCwp86ykmFr5iTJ8LxQXJ2wJPTYmkm"
        coin = Desk(coin_verbs(), desk.store)
        self.assertEqual(coin.json("balance", one), golden("address-balance"))
        self.assertEqual(coin.json("outputs", one), golden("address-outputs"))
        self.assertEqual(coin.json("outputs", one, two), golden("two-addresses-outputs"))
        desk = Desk(VERBS, desk.store)
        for name, seed in (
            ("balance", "recall large warrior cargo harbor ask moral strong mixture small october aerobic"),
            ("outputs", "crush dice soccer what dress bread cancel predict rose relax truck side"),
            ("history", "visit harbor excite frown flat nothing reduce price wrist label destroy citizen"),
        ):
            path = str(self.folder / f"{name}.wlt")
            desk.run("new", path, "--recover", typed=f"{seed}\n")
            # Of nothing the command prints null; we print an empty list.
            self.assertEqual(desk.json(name, path), golden(f"wallet-{name}") or [])

    def test_blocks(self) -> None:
        """Blocks by number and the last ones, also over several answers; beyond the end is nothing."""
        coin = Desk(coin_verbs(), self.real().store)
        for arguments, name in (
            (("0",), "block0"),
            (("0", "5"), "blocks0-5"),
            (("180", "200"), "blocks180"),
            (("--last", "0"), "last-blocks0"),
            (("--last", "1"), "last-blocks1"),
            (("--last", "2"), "last-blocks2"),
        ):
            with self.subTest(arguments=arguments):
                self.assertEqual(json.dumps(coin.json("blocks", *arguments)), json.dumps(golden(name)))
        every = coin.json("blocks", "--last", "500")["blocks"]
        self.assertEqual([each["header"]["seq"] for each in every], list(range(181)))
        self.assertEqual(coin.json("blocks", "7", "6"), {"blocks": []})
        self.assertIn("2015-05-14", coin.run("blocks", "180"))
        for wrong in ((), ("1", "--last", "1")):
            self.assertRaises(UsageError, coin.run, "blocks", *wrong)

    def test_raw(self) -> None:
        """Bytes to JSON and back; length and inner hash mended."""
        desk, known = Desk(coin_verbs()), golden("decode-raw-transaction")
        raw = parse_json(json.dumps(known)).raw.hex()
        self.assertEqual(desk.json("decode", raw), known)
        path = vectors("skycoin/cli-golden/decode-raw-transaction.golden")
        self.assertEqual(desk.run("encode", str(path)).strip(), raw)
        broken = {**golden("recompute-transaction-hash"), "length": 0, "inner_hash": "00" * 32}
        mended = parse_json(json.dumps(broken), fix=True)
        known = golden("recompute-transaction-hash")
        made = transaction_json(mended)
        self.assertEqual((made["length"], made["inner_hash"]), (known["length"], known["inner_hash"]))
        self.assertEqual(
            mended.raw.hex(),
            "b7000000006b1a69b76b2412314b2b928ad5e97c31c034be5734f9fa77f31f11b6b933b97601000000ddf4bd79f66ea9c784"
            "9c5240a27d9a4745ad4661bdac2179184447088512bb3e62c89efa4fd2cee05980c59b38ef23ddbd09bb77e54e94a0f9123d"
            "968a090d420101000000f7c183c1823266aff172928f8d06aa65531643456f97ccca6bd34d15e92fac7d0100000000042"
            "1aa1694a5b04955781d91880d16c0e9c4227ae8030000000000001600000000000000",
        )
        for text in ("", "zz", "00"):
            self.assertRaises(UsageError, parse_raw, text)
        endless = json.dumps(golden("decode-raw-transaction")).replace('"hours": ', '"hours": 1e999, "": ', 1)
        for text in ("", "{}", "[]", '{"length": -1}', endless):
            self.assertRaises(UsageError, parse_json, text)


class FileTests(Desks):
    def test_seeds(self) -> None:
        """New seeds are words of the length that was asked for; they show only when asked for."""
        for count in (12, 15, 18, 21, 24):
            path = str(self.folder / f"{count}.wlt")
            made = self.desk.json("new", path, "--words", str(count), "--show-seed", "--type", "bip44")
            self.assertEqual(len(made["seed"].split()), count)
            self.assertTrue(checked(made["seed"]))
            self.assertEqual(self.desk.json("seed", path), {"seed": made["seed"]})
        printed = self.desk.run("new", self.file)
        self.assertNotIn(load_wallet(RealDisk(), self.file).seed, printed)
        self.assertRaises(DuplicateWalletError, self.desk.run, "new", self.file)

    def test_recovered_words(self) -> None:
        """Words of bip44 must be right, the wrong one is named; a deterministic seed may be anything."""
        wrong = WORDS.replace("ignore", "ignoer")
        error = self.assertRaises(
            WalletError, self.desk.run, "new", self.file, "--type", "bip44", "--recover", typed=f"{wrong}\n"
        )
        self.assertIn("'ignoer'", str(error))
        self.assertFalse(Path(self.file).exists())
        more = ["--type", "bip44", "--recover", "--passphrase", "-n", "3"]
        self.desk.run("new", self.file, *more, typed=f"{WORDS}\nfoobar\n")
        known = decode_wallet(fixture("wallets/wallet/test6-passphrase-bip44.wlt"))
        self.assertEqual(load_wallet(RealDisk(), self.file).texts, known.texts)
        self.assertEqual(self.desk.json("seed", self.file), {"seed": WORDS, "passphrase": "foobar"})
        self.assertRaises(UsageError, self.desk.run, "new", self.file + "x", "--recover", typed="\n")

    def test_options_that_do_not_fit(self) -> None:
        """An option of another kind is refused before anything is asked or made."""
        for arguments in (
            ["--type", "xpub"],
            ["--xpub", XPUB],
            ["--type", "xpub", "--xpub", XPUB, "--encrypt"],
            ["--type", "collection", "--recover"],
            ["--type", "collection", "--scan", "3"],
            ["--passphrase"],
            ["--coin-number", "1"],
            ["--type", "bip44", "--coin-number", "-1"],
        ):
            self.assertRaises(UsageError, self.desk.run, "new", self.file, *arguments)
        self.assertEqual(list(self.folder.iterdir()), [])

    def test_password(self) -> None:
        """Encrypting, using, decrypting; wrong and needless passwords are told; recovery by the seed."""
        self.desk.run("new", self.file, "--recover", typed=f"{SEED}\n")
        pwd = ["--password-file", self.password()]
        wrong = ["--password-file", self.password("wrong")]
        self.assertRaises(NotEncryptedError, self.desk.run, "decrypt", self.file, *pwd)
        self.desk.run("encrypt", self.file, *pwd)
        self.assertNotIn(SEED, Path(self.file).read_text())
        self.assertRaises(EncryptedError, self.desk.run, "encrypt", self.file, *pwd)
        self.assertRaises(PasswordError, self.desk.run, "seed", self.file, *wrong)
        self.assertEqual(self.desk.run("seed", self.file, *pwd), f"{SEED}\n")
        self.assertEqual(self.desk.run("seed", self.file, typed="pwd\n"), f"{SEED}\n")
        self.desk.run("address", self.file, "--new", "2", *pwd)
        self.assertRaises(PasswordError, self.desk.run, "address", self.file, "--new", "2", *wrong)
        self.desk.run("label", self.file, "still encrypted")
        self.assertRaises(PasswordError, self.desk.run, "recover", self.file, typed="other seed\n")
        self.desk.run("recover", self.file, "--encrypt", "--password-file", wrong[1], typed=f"{SEED}\n")
        made = self.desk.json("decrypt", self.file, *wrong)
        self.assertEqual((made["meta"]["label"], len(made["entries"])), ("still encrypted", 3))
        missing = str(self.folder / "nothing")
        self.desk.run("encrypt", self.file, *pwd)
        self.assertRaises(UsageError, self.desk.run, "seed", self.file, "--password-file", missing)
        self.assertRaises(EncryptedError, self.desk.run, "seed", self.file, typed="")

    def test_link(self) -> None:
        """A link to a wallet stays a link: what it leads to is changed."""
        self.desk.run("new", self.file)
        link = self.folder / "link.wlt"
        link.symlink_to(self.file)
        self.desk.run("address", str(link), "--new", "2")
        self.assertTrue(link.is_symlink())
        self.assertEqual(len(load_wallet(RealDisk(), self.file).entries), 3)

    def test_keys(self) -> None:
        """Keys into a collection and out again; nothing that needs a seed works there."""
        self.assertEqual(self.desk.run("new", self.file, "--type", "collection"), "")
        made = self.desk.json("import", self.file, typed=f"{KEY}\n{'22' * 32}\n")["addresses"]
        self.assertEqual(self.desk.json("address", self.file)["addresses"], made)
        self.assertRaises(WalletError, self.desk.run, "import", self.file, typed=f"{KEY}\n")
        self.assertRaises(UsageError, self.desk.run, "import", self.file, typed="no key\n")
        rows = self.desk.json("export", self.file, "keys")["entries"]
        self.assertEqual([each["secret_key"] for each in rows], [KEY, "22" * 32])
        lines = self.desk.run("export", self.file).splitlines()
        self.assertEqual(lines[0], "address,public_key")
        self.assertEqual(lines[1].split(",")[0], made[0])
        self.assertNotIn(KEY, "".join(lines))
        for name, *rest in (["address", "--new", "1"], ["seed"], ["export", "xpub"]):
            self.assertRaises(UnsuitableError, self.desk.run, name, self.file, *rest)

    def test_watching(self) -> None:
        """The xpub of a wallet makes one that watches the same addresses."""
        self.desk.run("new", self.file, "--type", "bip44", "-n", "3")
        xpub = self.desk.json("export", self.file, "xpub")["xpub"]
        other = str(self.folder / "other.wlt")
        self.desk.run("new", other, "--type", "xpub", "--xpub", xpub, "-n", "3")
        both = [self.desk.json("address", each)["addresses"] for each in (self.file, other)]
        self.assertEqual(both[0][:3], both[1])
        self.assertEqual(self.desk.run("export", other, "xpub").strip(), xpub)
        self.assertEqual(self.desk.json("address", self.file, "--change")["addresses"], both[0][3:])

    def test_list(self) -> None:
        """The wallets of a folder; one that cannot be read makes it fail, and is told."""
        self.desk.run("new", self.file)
        found = self.desk.json("list", str(self.folder))
        self.assertEqual(found["wallets"], [wallet_json(load_wallet(RealDisk(), self.file))])
        self.assertIn("mine.wlt", self.desk.run("list", str(self.folder)))
        (self.folder / "bad.wlt").write_text("{}")
        self.assertRaises(AssertionError, self.desk.run, "list", str(self.folder))


class PaymentTests(Desks):
    """A chain of a test's own: all coins in the first address of a wallet."""

    def setUp(self) -> None:
        super().setUp()
        self.wallet = new_wallet(SEED, "mine", "mine.wlt", 0, 3)
        key = self.wallet.entries[0].key
        assert key is not None
        self.chain = small_chain(1_000_000_000)
        self.ledger = Ledger(self.chain)
        self.desk.store = self.store(self.chain)
        create_wallet(RealDisk(), self.file, self.wallet)
        # From the chain's first owner to the wallet, in two outputs.
        first, second = self.wallet.addresses[:2]
        self.block(self.ledger.pay(1, Output(first, 600_000_000, 5_000), Output(second, 400_000_000, 5_000)))
        self.stranger = "2kvLEyXwAYvHfJuFCkjnYNRTUfHPyWgVwKt"

    def block(self, transaction: Any) -> None:
        """Puts a transaction into a block of the chain."""
        assert self.desk.store is not None
        block = self.ledger.block(transaction)
        self.ledger.add(block)
        added = self.desk.store.add([block], [[signers(transaction)]])
        self.assertIsNone(added.refused)

    def send(self, *arguments: str, typed: str = "") -> Any:
        """A payment; what the verb says of it."""
        return self.desk.json("send", self.file, *arguments, typed=typed)

    def outputs(self, made: Any) -> list[tuple[str, str]]:
        """Who gets what."""
        return [(each["address"], each["coins"]) for each in made["transaction"]["outputs"]]

    def test_pays(self) -> None:
        """A payment is signed here and given to the node; the node's chain takes it."""
        made = self.send(self.stranger, "12.5", "--hours", "7")
        self.assertTrue(made["sent"])
        transaction = decode_transaction(bytes.fromhex(self.desk.sent[0]))
        self.assertEqual(made["encoded_transaction"], self.desk.sent[0])
        self.assertEqual(transaction.outputs[0].hours, 7)
        self.block(transaction)
        found = self.desk.json("balance", self.file)
        self.assertEqual(found["confirmed"]["coins"], "987.500000")
        rows = self.desk.json("history", self.file)
        self.assertEqual(rows[0]["txid"], transaction.id.hex())
        self.assertEqual((rows[0]["amount"], rows[0]["status"]), ("-12.500000", 1))
        self.assertEqual(len(rows), 3)
        self.assertEqual(len(self.desk.json("history", self.file, "--offset", "1")), 2)
        self.assertRaises(UsageError, self.desk.run, "history", self.file, "--limit", "0")

    def test_many(self) -> None:
        """Several receivers, on the command line and in a file, with hours by hand or shared."""
        one, two, three = (address_text(each) for each in self.wallet.addresses)
        made = self.send("--to", f"{self.stranger},1", "--to", f"{one},2", "--dry-run")
        self.assertEqual(self.outputs(made)[:2], [(self.stranger, "1.000000"), (one, "2.000000")])
        self.assertEqual((made["sent"], self.desk.sent), (False, []))
        listed = self.folder / "pay.csv"
        listed.write_text(f"address,coins,hours\n{two},3,5\n{three},4,6\n")
        made = self.send("--csv", str(listed), "--change", three, "--dry-run")
        self.assertEqual(self.outputs(made)[:2], [(two, "3.000000"), (three, "4.000000")])
        self.assertEqual(made["transaction"]["outputs"][1]["hours"], "6")
        self.assertEqual(self.outputs(made)[2][0], three)
        made = self.send(f"skycoin:{one}?amount=2.5", "--dry-run")
        self.assertEqual(self.outputs(made)[0], (one, "2.500000"))
        self.assertEqual(self.send("--csv", "-", "--dry-run", typed=f"{one},1\n")["sent"], False)
        for arguments in (
            [],
            [self.stranger],
            ["--hours", "3", "--to", f"{one},1"],
            ["--csv", str(self.folder / "none.csv")],
            [self.stranger, "all", "--to", f"{one},1"],
            [self.stranger, "1", "--share", "2"],
            [self.stranger, "1", "--unspent", "xyz"],
            [self.stranger, "1", "--from", self.stranger],
            [self.stranger, "100000"],
        ):
            self.assertRaises(UsageError, self.send, *arguments)
        self.assertEqual(self.desk.sent, [])

    def test_control(self) -> None:
        """From one address, from one output, everything."""
        second = address_text(self.wallet.addresses[1])
        made = self.send(self.stranger, "1", "--from", second, "--dry-run")
        self.assertEqual([each["address"] for each in made["transaction"]["inputs"]], [second])
        rows = self.desk.json("outputs", self.file)["outputs"]["head_outputs"]
        made = self.send(self.stranger, "1", "--unspent", rows[0]["hash"], "--dry-run")
        self.assertEqual([each["uxid"] for each in made["transaction"]["inputs"]], [rows[0]["hash"]])
        made = self.send(self.stranger, "all", "--share", "1", "--dry-run")
        self.assertEqual(self.outputs(made), [(self.stranger, "1000.000000")])
        made = self.send(self.stranger, "all", "--from", second, "--dry-run")
        self.assertEqual(self.outputs(made), [(self.stranger, "400.000000")])

    def test_offline(self) -> None:
        """Written unsigned, signed where the keys are and no node is, sent by a third."""
        paper, signed = str(self.folder / "paper.json"), str(self.folder / "signed.json")
        made = self.send(self.stranger, "12.5", "--unsigned", "--out", paper)
        self.assertFalse(made["sent"])
        alone = Desk(VERBS)
        document = alone.json("sign", self.file, paper, "--out", signed)
        self.assertTrue(document["complete"])
        written = json.loads(Path(signed).read_text())
        self.assertEqual(written["transaction"]["txid"], document["transaction"]["txid"])
        self.assertEqual(alone.run("sign", self.file, paper).strip()[:8], document["encoded_transaction"][:8])
        for text in (signed, document["encoded_transaction"]):
            self.desk.run("broadcast", text)
        self.desk.run("broadcast", "-", typed=Path(signed).read_text())
        self.assertEqual(self.desk.sent, [document["encoded_transaction"]] * 3)
        self.block(decode_transaction(bytes.fromhex(self.desk.sent[0])))
        other = str(self.folder / "other.wlt")
        alone.run("new", other)
        self.assertRaises(WalletError, alone.run, "sign", other, paper)
        self.assertRaises(WalletError, alone.run, "broadcast", self.password())

    def test_no_answer(self) -> None:
        """A node that does not answer may have taken it: the payment is kept, and sent again is the same."""
        real = self.desk.call

        def call(method: str, route: str, body: Any = None) -> Any:
            answer = real(method, route, body)
            if method == "POST":
                raise TimedOutError("The node did not answer in 300 s.")
            return answer

        self.patch(self.desk, "call", call)
        error = self.assertRaises(UnreachableError, self.send, self.stranger, "1")
        (kept,) = self.folder.glob("*.unsent")
        self.assertIn(f"broadcast {kept}.", str(error))
        self.patch(self.desk, "call", real)
        self.desk.run("broadcast", str(kept))
        self.assertEqual(self.desk.sent[0], self.desk.sent[1])

    def test_encrypted(self) -> None:
        """An encrypted wallet pays with its password, and is not changed by it."""
        pwd = ["--password-file", self.password()]
        self.desk.run("encrypt", self.file, *pwd)
        before = Path(self.file).read_bytes()
        wrong = ["--password-file", self.password("no")]
        self.assertRaises(PasswordError, self.send, self.stranger, "1", *wrong)
        self.assertEqual(self.desk.sent, [])
        self.assertTrue(self.send(self.stranger, "1", *pwd)["sent"])
        self.assertTrue(self.send(self.stranger, "1", "--dry-run")["encoded_transaction"])
        self.assertEqual(Path(self.file).read_bytes(), before)

    def test_accounts(self) -> None:
        """A wallet of accounts: its rest goes to an unused address of change, which is in the file then;
        scanning finds everything from the words alone."""
        accounts = str(self.folder / "accounts.wlt")
        self.desk.run("new", accounts, "--type", "bip44", "--recover", "-n", "4", typed=f"{WORDS}\n")
        fourth = self.desk.json("address", accounts)["addresses"][3]
        made = self.send(fourth, "100", "--hours", "2000")
        self.block(decode_transaction(bytes.fromhex(self.desk.sent.pop())))
        for count in (1, 2):
            made = self.desk.json("send", accounts, self.stranger, "10", "--hours", "1")
            self.block(decode_transaction(bytes.fromhex(self.desk.sent.pop())))
            change = self.desk.json("address", accounts, "--change")["addresses"]
            self.assertEqual(len(change), count)
            self.assertEqual(self.outputs(made)[1][0], change[-1])
        again = str(self.folder / "again.wlt")
        self.desk.run("new", again, "--type", "bip44", "--recover", typed=f"{WORDS}\n")
        found = self.desk.json("scan", again)
        self.assertEqual(found["addresses"][2], fourth)
        self.assertEqual(self.desk.json("balance", again)["confirmed"]["coins"], "80.000000")
        self.assertEqual(self.desk.json("address", again), self.desk.json("address", accounts))
        self.assertEqual(self.desk.run("scan", again), "none ahead was used\n")

    def test_scan_of_new(self) -> None:
        """A wallet that is made of its seed finds its addresses at once."""
        again = str(self.folder / "again.wlt")
        made = self.desk.json("new", again, "--recover", "--scan", "5", typed=f"{SEED}\n")
        self.assertEqual(len(made["entries"]), 2)

    def test_watching_only(self) -> None:
        """A wallet without keys says that it cannot pay, and writes what others sign."""
        other = str(self.folder / "other.wlt")
        self.desk.run("new", other, "--type", "xpub", "--xpub", XPUB)
        run: Callable[..., str] = self.desk.run
        self.assertRaises(UsageError, run, "send", other, self.stranger, "1")
        self.assertRaises(UsageError, run, "send", other, self.stranger, "1", "--unsigned")

    def test_for_people(self) -> None:
        """What people read: amounts, the fee, what comes back."""
        printed = self.desk.run("send", self.file, self.stranger, "1", "--dry-run")
        for part in ("would be sent: 1.000000 coins", "back: ", "fee: "):
            self.assertIn(part, printed)
        self.assertIn("1000.000000 coins", self.desk.run("balance", self.file))
        self.assertIn("OUTPUT", self.desk.run("outputs", self.file))
        self.assertIn(address_text(self.wallet.addresses[0]), self.desk.run("history", self.file))
