"""Wallet files of every kind: the Go node's byte for byte, ours, damaged ones."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import NULL, address_text
from coin.wallet.base import Wallet
from coin.wallet.bip44 import Bip44
from coin.wallet.errors import DamagedWalletError, EncryptedError, UnsuitableError, WalletError
from coin.wallet.forms import BITCOIN
from coin.wallet.kinds import Collection, Watching
from coin.wallet.wallet import decode_wallet, new_bip44, new_collection, new_wallet, new_watching
from meshnet.cipher.keys import SecretKey
from tests.support.vectors import vectors

SEED = "a seed of the tests"
WORDS = "voyage say extend find sheriff surge priority merit ignore maple cash argue"
FIXTURES = {
    "wallets/deterministic/test1.wlt": ("deterministic", 1),
    "wallets/deterministic/wallet_serialize.wlt": ("deterministic", 5),
    "wallets/deterministic/scrypt-chacha20poly1305-encrypted.wlt": ("deterministic", 2),
    "wallets/collection/test-collection.wlt": ("collection", 1),
    "wallets/collection/wallet_serialize.wlt": ("collection", 5),
    "wallets/collection/scrypt-chacha20poly1305-encrypted.wlt": ("collection", 1),
    "wallets/xpubwallet/wallet_serialize.wlt": ("xpub", 5),
    "wallets/wallet/test1.wlt": ("deterministic", 1),
    "wallets/wallet/test2.wlt": ("deterministic", 1),
    "wallets/wallet/test3.wlt": ("deterministic", 1),
    "wallets/wallet/test4-collection.wlt": ("collection", 1),
    "wallets/wallet/test5-bip44.wlt": ("bip44", 7),
    "wallets/wallet/test6-bip44.wlt": ("bip44", 4),
    "wallets/wallet/test6-passphrase-bip44.wlt": ("bip44", 4),
    "wallets/wallet/v2_no_encrypt.wlt": ("deterministic", 1),
    "wallets/wallet/xpub-test.wlt": ("xpub", 2),
    "wallets/wallet/scrypt-chacha20poly1305-encrypted.wlt": ("deterministic", 2),
    "wallets/wallet/sha256xor-encrypted.wlt": ("deterministic", 1),
    "wallets/wallet/duplicate_wallets/test3.wlt": ("deterministic", 1),
    "wallets/wallet/duplicate_wallets/test3.1.wlt": ("deterministic", 1),
    "wallets/wallet/empty_wallet/empty.wlt": ("deterministic", 0),
    "wallets/wallet/empty_bip44_wallet/empty.wlt": ("bip44", 0),
    "cli-golden/integration-test.wlt": ("deterministic", 1),
    "cli-golden/integration-test-encrypted.wlt": ("deterministic", 1),
}
"""Every wallet that is published, with its kind and addresses."""


def fixture(name: str) -> bytes:
    """The bytes of one."""
    return vectors(f"skycoin/{name}").read_bytes()


class FixtureTests(SynchronousTestCase):
    def test_unchanged(self) -> None:
        """Each is read, of every version and kind, encrypted or not, and gives the same bytes again."""
        for name, (kind, addresses) in FIXTURES.items():
            data = fixture(name)
            wallet = decode_wallet(data, name)
            self.assertEqual((wallet.kind, len(wallet.entries)), (kind, addresses), name)
            self.assertEqual(wallet.encode(), data, name)
            self.assertEqual(wallet.copy().encode(), data, name)

    def test_invalid(self) -> None:
        """Those that are published as invalid are refused with a sentence that says why."""
        for name, why in (
            ("err_type", "of type 'invalid_type'"),
            ("no_coin", "its coin"),
            ("no_seed", "no seed"),
            ("no_type", "its type"),
        ):
            data = fixture(f"wallets/wallet/invalid_wallets/{name}.wlt")
            error = self.assertRaises(DamagedWalletError, decode_wallet, data, name)
            self.assertIn(why, str(error))
            self.assertTrue(str(error).endswith("."))

    def test_made_again(self) -> None:
        """A new wallet of the same seed, label and time has the bytes that the Go node writes."""
        known = decode_wallet(fixture("wallets/deterministic/wallet_serialize.wlt"))
        made: Wallet = new_wallet(known.seed, known.label, known.filename, 0, len(known.entries))
        self.assertEqual(made.encode() + b"\n", known.encode())
        cases = {"test5-bip44": "", "test6-bip44": "", "test6-passphrase-bip44": "foobar"}
        for name, passphrase in cases.items():
            old = decode_wallet(fixture(f"wallets/wallet/{name}.wlt"))
            assert isinstance(old, Bip44)
            self.assertEqual(old.passphrase, passphrase)
            count, changes = (len(old.chains(each)[0].entries) for each in ("external", "change"))
            made = new_bip44(old.seed, old.label, old.filename, old.created, count, passphrase=passphrase)
            if changes > 1:
                made.grow(changes - 1, change=True)
            self.assertEqual(made.encode() + b"\n", old.encode())
        old = decode_wallet(fixture("wallets/xpubwallet/wallet_serialize.wlt"))
        made = new_watching(old.meta["xpub"], old.label, old.filename, 0, len(old.entries))
        self.assertEqual(made.encode() + b"\n", old.encode())
        old = decode_wallet(fixture("wallets/collection/wallet_serialize.wlt"))
        kept = new_collection(old.label, old.filename, 0)
        for entry in old.entries:
            assert entry.key is not None
            kept.add(entry.key)
        self.assertEqual(kept.encode() + b"\n", old.encode())

    def test_grow(self) -> None:
        """A wallet that is read goes on where it was, one address or several at a time."""
        known = decode_wallet(fixture("wallets/deterministic/wallet_serialize.wlt"))
        again = decode_wallet(new_wallet(known.seed, known.label, known.filename, 0).encode())
        again.grow(1)
        again.grow(len(known.entries) - 2)
        self.assertEqual(again.encode() + b"\n", known.encode())

    def test_published_addresses(self) -> None:
        """First addresses of words, with and without a passphrase, as the Go node's tests have them."""
        words = "great duck trophy inhale dad pluck include maze smart mechanic ring merge"
        first = new_bip44(words, "x", "x.wlt", 0).entries[0]
        self.assertEqual(address_text(first.address), "skPFvAokn63RTHh8MR8cZuHUpzZiutFeks")
        assert first.key is not None
        self.assertEqual(
            first.key.secret.hex(), "7519c63c890d593a11eeebfe4b4552f3d8a01094c086262e7c68a3e7adc61677"
        )
        other = new_bip44(words, "x", "x.wlt", 0, passphrase="foobar").entries[0]
        self.assertEqual(address_text(other.address), "29bFTouyAtgRhdhHqiC6kccom3avjBpfnxS")


class KindTests(SynchronousTestCase):
    def test_what_each_can(self) -> None:
        """A collection grows by keys only, one that watches has none; each says so in a sentence."""
        collection = new_collection("x", "x.wlt", 0)
        self.assertRaises(UnsuitableError, collection.grow, 1)
        key = SecretKey(b"\1" * 32)
        entry = collection.add(key)
        self.assertRaises(WalletError, collection.add, key)
        self.assertIs(collection.key_of(entry.address), key)
        watching = new_watching(fixture_xpub(), "x", "x.wlt", 0, 2)
        self.assertRaises(UnsuitableError, watching.key_of, watching.addresses[1])
        self.assertRaises(WalletError, watching.key_of, NULL)
        self.assertRaises(UnsuitableError, watching.grow, 1, change=True)
        self.assertRaises(UnsuitableError, lambda: watching.seed)
        self.assertRaises(UnsuitableError, lambda: collection.seed)

    def test_watching_sees_the_same(self) -> None:
        """The xpub of an account's chain makes the addresses that the account has."""
        owner = new_bip44(WORDS, "x", "x.wlt", 0, 4)
        watching = new_watching(owner.chains("external")[0].parent.xpub, "y", "y.wlt", 0, 4)
        self.assertEqual(watching.addresses, owner.addresses[:4])
        self.assertEqual([each.change for each in owner.entries], [False] * 4 + [True])

    def test_private_key_is_no_xpub(self) -> None:
        """An xprv in its place is refused, and not shown."""
        key = new_bip44(WORDS, "x", "x.wlt", 0).accounts[0].key
        assert key is not None
        error = self.assertRaises(WalletError, new_watching, key.xprv, "x", "x.wlt", 0)
        self.assertNotIn(key.xprv, str(error))
        self.assertRaises(WalletError, new_watching, "xpub", "x", "x.wlt", 0)

    def test_bitcoin(self) -> None:
        """A wallet of the other coin is read and written, but owns nothing here."""
        made = new_wallet(SEED, "x", "x.wlt", 0, 2, form=BITCOIN)
        row = json.loads(made.encode())["entries"][0]
        self.assertTrue(row["address"].startswith("1") and row["secret_key"][0] in "KL")
        again = decode_wallet(made.encode())
        self.assertEqual(again.encode(), made.encode())
        again.grow(1)
        self.assertRaises(UnsuitableError, lambda: again.addresses)
        accounts = new_bip44(WORDS, "x", "x.wlt", 0, form=BITCOIN)
        self.assertEqual(accounts.number, 0)
        # The first address of BIP 44 for these words, as any Bitcoin wallet has it.
        self.assertEqual(decode_wallet(accounts.encode()).texts, accounts.texts)

    def test_old_seed_of_the_next(self) -> None:
        """A file whose lastSeed is missing or stale text goes on rightly; one of another seed is damaged."""
        whole = new_wallet(SEED, "x", "x.wlt", 0, 4)
        for last in ("", SEED):
            wallet = new_wallet(SEED, "x", "x.wlt", 0, 2)
            wallet.meta["lastSeed"] = last
            again = decode_wallet(wallet.encode())
            again.grow(2)
            self.assertEqual(again.encode(), whole.encode())
        wallet.meta["seed"] = "another seed"
        self.assertRaises(DamagedWalletError, decode_wallet(wallet.encode()).grow, 1)

    def test_what_is_not_known(self) -> None:
        """What a file has that is not known here stays, at every place, when it is changed."""
        for wallet in (new_wallet(SEED, "x", "x.wlt", 0), new_bip44(WORDS, "x", "x.wlt", 0)):
            table = json.loads(wallet.encode())
            table["note"], table["meta"]["colour"] = {"a": [1, 1.5, None]}, "blue"
            for account in table.get("accounts", []):
                account["note"] = account["chains"][0]["note"] = "kept"
            rows = table.get("entries") or table["accounts"][0]["chains"][0]["entries"]
            rows[0]["note"] = "mine"
            again = decode_wallet(json.dumps(table).encode())
            self.assertEqual(json.loads(again.encode()), table)
            again.label = "other"
            table["meta"]["label"] = "other"
            self.assertEqual(json.loads(again.copy().encode()), table)
        table["entries"] = rows
        self.assertRaises(DamagedWalletError, decode_wallet, json.dumps(table).encode())
        del table["entries"]
        deep: Any = 1
        for _ in range(500):
            deep = [deep]
        for place in (table, table["accounts"][0], table["accounts"][0]["chains"][0], rows[0]):
            kept, place["note"] = place["note"], deep
            self.assertRaises(DamagedWalletError, decode_wallet, json.dumps(table).encode())
            place["note"] = kept

    def test_accounts(self) -> None:
        """A second account is another branch, which a file keeps."""
        wallet = new_bip44(WORDS, "x", "x.wlt", 0)
        second = wallet.add_account("savings")
        wallet.extend(second, "external", 2)
        again = decode_wallet(wallet.encode())
        self.assertEqual(again.encode(), wallet.encode())
        self.assertEqual(len(again.entries), 4)
        self.assertEqual(len(set(again.addresses)), 4)


def fixture_xpub() -> str:
    """An xpub."""
    return decode_wallet(fixture("wallets/wallet/xpub-test.wlt")).meta["xpub"]


class DamageTests(SynchronousTestCase):
    def test_cut(self) -> None:
        """A file cut anywhere is refused."""
        data = new_bip44(WORDS, "mine", "mine.wlt", 7, 2).encode()
        for size in range(0, len(data), 7):
            self.assertRaises(DamagedWalletError, decode_wallet, data[:size])

    def test_keys_that_do_not_fit(self) -> None:
        """A key that is not its address's is seen, in every kind, and no key is shown."""
        plain = new_wallet(SEED, "mine", "mine.wlt", 7, 2)
        accounts = new_bip44(WORDS, "mine", "mine.wlt", 7, 2)
        for wallet in (plain, accounts):
            key, other = wallet.entries[0].key, wallet.entries[1]
            assert key is not None
            data = wallet.encode()
            for old, new in (
                (key.secret.hex(), "11" * 32),
                (wallet.entries[0].public.hex(), other.public.hex()),
                (wallet.texts[0], wallet.texts[1]),
            ):
                error = self.assertRaises(
                    DamagedWalletError, decode_wallet, data.replace(old.encode(), new.encode())
                )
                self.assertNotIn(new, str(error))
        strange = new_bip44(WORDS.replace("argue", "argue"), "x", "x.wlt", 0, 2, passphrase="other")
        xpub = accounts.chains("external")[0].parent.xpub
        mixed = accounts.encode().replace(xpub.encode(), strange.chains("external")[0].parent.xpub.encode())
        self.assertRaises(DamagedWalletError, decode_wallet, mixed)
        watching = new_watching(xpub, "x", "x.wlt", 0, 2).encode()
        swapped = watching.replace(b'"child_number": 1', b'"child_number": 7')
        self.assertRaises(DamagedWalletError, decode_wallet, swapped)

    def test_meta(self) -> None:
        """What the meta must not say: each costs a sentence."""
        for change in (
            {"version": "9.9"},
            {"encrypted": "perhaps"},
            {"encrypted": "true"},
            {"secrets": "c2VjcmV0"},
            {"tm": "yesterday"},
            {"coin": "dogecoin"},
            {"type": "paper"},
            {"seed": ""},
            {"label": "\ud800"},
            {"\udc00": "x"},
            {"label": 7},
        ):
            table = json.loads(new_wallet(SEED, "mine", "mine.wlt", 7).encode())
            table["meta"].update(change)
            error = self.assertRaises(DamagedWalletError, decode_wallet, json.dumps(table).encode())
            self.assertTrue(str(error).endswith("."))
        table = json.loads(new_bip44(WORDS, "mine", "mine.wlt", 7).encode())
        for change in ({"bip44Coin": "x"}, {"bip44Coin": "9" * 30}, {"seed": ""}):
            data = json.dumps({**table, "meta": {**table["meta"], **change}}).encode()
            self.assertRaises(DamagedWalletError, decode_wallet, data)

    def test_twice(self) -> None:
        """The same address twice is refused."""
        table = json.loads(new_wallet(SEED, "mine", "mine.wlt", 7).encode())
        table["entries"] *= 2
        self.assertRaises(DamagedWalletError, decode_wallet, json.dumps(table).encode())

    def test_no_secrets_shown(self) -> None:
        """No repr of any kind has a seed or a key."""
        key = SecretKey(b"\1" * 32)
        collection = new_collection("x", "x.wlt", 0)
        collection.add(key)
        accounts = new_bip44(WORDS, "x", "x.wlt", 0)
        root = accounts.accounts[0].key
        assert root is not None
        shown = repr([new_wallet(SEED, "x", "x.wlt", 7), collection, accounts])
        for secret in (SEED, WORDS, key.secret.hex(), root.xprv, repr(key.secret)):
            self.assertNotIn(secret, shown)

    @given(st.binary(max_size=200))
    def test_any_bytes(self, data: bytes) -> None:
        """Hostile bytes are refused with the one error."""
        try:
            decode_wallet(data)
        except DamagedWalletError:
            pass

    @given(
        st.recursive(
            st.none() | st.booleans() | st.integers() | st.text(max_size=8),
            lambda inner: (
                st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3)
            ),
            max_leaves=6,
        ),
        st.sampled_from(["deterministic", "collection", "bip44", "xpub"]),
    )
    def test_any_body(self, body: Any, kind: str) -> None:
        """Whatever stands where addresses or accounts should, the one error says so."""
        meta = {"type": kind, "coin": "skycoin", "seed": WORDS, "bip44Coin": "8000", "xpub": XPUB}
        table = {"meta": meta, "entries": body, "accounts": body}
        try:
            decode_wallet(json.dumps(table).encode())
        except DamagedWalletError:
            pass


XPUB = new_bip44(WORDS, "x", "x.wlt", 0).chains("external")[0].parent.xpub


class RoundTests(SynchronousTestCase):
    @given(
        seed=st.text(min_size=1, max_size=30).filter(lambda text: text.isprintable()),
        label=st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=20),
        count=st.integers(1, 3),
        time=st.integers(0, 1 << 40),
    )
    def test_deterministic(self, seed: str, label: str, count: int, time: int) -> None:
        """Any seed and label: what is written is read, and written the same."""
        made = new_wallet(seed, label, "x.wlt", time, count)
        again = decode_wallet(made.encode())
        self.assertEqual((again.seed, again.label, again.created), (seed, label, time))
        self.assertEqual(again.encode(), made.encode())
        self.assertEqual(again.addresses, made.addresses)

    @given(
        passphrase=st.text(st.characters(exclude_categories=["Cs"]), max_size=20),
        count=st.integers(1, 3),
        changes=st.integers(0, 2),
    )
    def test_accounts(self, passphrase: str, count: int, changes: int) -> None:
        """Any passphrase, any number of addresses on both chains."""
        made = new_bip44(WORDS, "x", "x.wlt", 0, count, passphrase=passphrase)
        if changes:
            made.grow(changes, change=True)
        again = decode_wallet(made.encode())
        assert isinstance(again, Bip44)
        self.assertEqual(again.passphrase, passphrase)
        self.assertEqual(again.encode(), made.encode())
        self.assertEqual(again.grow(1), made.grow(1))

    @given(st.lists(st.binary(min_size=32, max_size=32).filter(any), unique=True, max_size=4))
    def test_collection(self, secrets: list[bytes]) -> None:
        """Any keys."""
        made = new_collection("x", "x.wlt", 0)
        for secret in secrets:
            if int.from_bytes(secret, "big") < 1 << 255:
                made.add(SecretKey(secret))
        again = decode_wallet(made.encode())
        self.assertIsInstance(again, Collection)
        self.assertEqual(again.encode(), made.encode())

    def test_watching(self) -> None:
        """An xpub's addresses survive, and go on."""
        made = new_watching(XPUB, "x", "x.wlt", 0, 3)
        again = decode_wallet(made.encode())
        self.assertIsInstance(again, Watching)
        self.assertEqual(again.grow(2), made.grow(2))
        self.assertRaises(WalletError, made.grow, 0)

    def test_encrypted_needs_password(self) -> None:
        """What needs secrets says that the wallet is encrypted."""
        wallet = decode_wallet(fixture("wallets/wallet/scrypt-chacha20poly1305-encrypted.wlt"))
        self.assertRaises(EncryptedError, wallet.grow, 1)
        self.assertRaises(EncryptedError, lambda: wallet.seed)
        self.assertRaises(EncryptedError, wallet.key_of, wallet.addresses[0])
