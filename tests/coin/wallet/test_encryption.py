"""Wallets under a password: the Go node's, ours, wrong passwords, files that ask for too much."""

from __future__ import annotations

import base64
import hashlib
import json
import struct
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.wallet import encryption
from coin.wallet.base import Wallet
from coin.wallet.encryption import SCRYPT, SCRYPT_INSECURE, XOR, Sealing, new_sealing, open_sealed
from coin.wallet.errors import (
    DamagedWalletError,
    EncryptedError,
    NotEncryptedError,
    PasswordError,
    UnsuitableError,
    WalletError,
)
from coin.wallet.kinds import Collection
from coin.wallet.wallet import decode_wallet, new_bip44, new_collection, new_wallet, new_watching
from meshnet.cipher.keys import SecretKey
from meshnet.errors import LocalError
from tests.coin.wallet.test_wallet import SEED, WORDS, XPUB, fixture


def counted() -> Any:
    """Bytes that are never the same twice, and no chance."""
    number = 0

    def random(size: int) -> bytes:
        nonlocal number
        number += 1
        return number.to_bytes(size, "big")

    return random


QUICK = Sealing(SCRYPT_INSECURE, 16, 1, 1, b"salt", encryption._scrypt("pwd", b"salt", 16, 1, 1))
"""A password that cost nothing."""


class GoTests(SynchronousTestCase):
    def test_published(self) -> None:
        """The Go node's encrypted wallets open with their password, all keys fitting, and say their seed."""
        for name, seed in (
            ("scrypt-chacha20poly1305-encrypted", "seed-scrypt-chacha20poly1305"),
            ("sha256xor-encrypted", "seed-sha256xor"),
        ):
            wallet = decode_wallet(fixture(f"wallets/wallet/{name}.wlt"))
            plain = wallet.unlocked("pwd")
            self.assertEqual(plain.seed, seed)
            made = new_wallet(seed, wallet.label, wallet.filename, wallet.created, len(wallet.entries))
            self.assertEqual(plain.addresses, made.addresses)
            self.assertEqual(plain.meta["lastSeed"], made.meta["lastSeed"])
            self.assertRaises(PasswordError, wallet.unlocked, "Pwd")
            self.assertRaises(PasswordError, wallet.unlocked, "")

    def test_same_bytes(self) -> None:
        """With the same salt and nonce our encryption gives the bytes that the Go node wrote."""
        wallet = decode_wallet(fixture("wallets/wallet/scrypt-chacha20poly1305-encrypted.wlt"))
        sealed = wallet.meta["secrets"]
        data, sealing = open_sealed(sealed, SCRYPT, "pwd")
        assert sealing is not None
        raw = base64.b64decode(sealed)
        meta = json.loads(raw[2 : 2 + struct.unpack_from("<H", raw)[0]])
        self.assertEqual(sealing.seal(data, base64.b64decode(meta["nonce"])), sealed)
        plain = wallet.unlocked("pwd")
        again = plain.locked(sealing, lambda size: base64.b64decode(meta["nonce"]))
        self.assertEqual(again.encode(), wallet.encode())


class OwnTests(SynchronousTestCase):
    def test_round(self) -> None:
        """Every kind with secrets: locked it shows none, in bytes or repr; unlocked they are all back."""
        collection = new_collection("x", "x.wlt", 0)
        collection.add(SecretKey(b"\5" * 32))
        accounts = new_bip44(WORDS, "x", "x.wlt", 0, 2, passphrase="more")
        wallets: list[Wallet] = [new_wallet(SEED, "x", "x.wlt", 0, 2), collection, accounts]
        for wallet in wallets:
            secrets = [each.key.secret.hex() for each in wallet.entries if each.key is not None]
            locked = decode_wallet(wallet.locked(QUICK, counted()).encode())
            text = locked.encode().decode() + repr(locked)
            for secret in [*secrets, SEED, WORDS, "more", "xprv"]:
                self.assertNotIn(secret, text)
            self.assertEqual(locked.addresses, wallet.addresses)
            plain = locked.unlocked("pwd")
            plain.meta["cryptoType"] = SCRYPT
            del plain.meta["secrets"]
            self.assertEqual(plain.encode(), wallet.encode())
            self.assertRaises(EncryptedError, locked.locked, QUICK, counted())
            self.assertRaises(NotEncryptedError, wallet.unlocked, "pwd")

    def test_accounts_grow_locked(self) -> None:
        """An encrypted wallet of accounts makes addresses without the password; their keys come later."""
        wallet = new_bip44(WORDS, "x", "x.wlt", 0)
        locked = wallet.locked(QUICK, counted())
        made = locked.grow(2), locked.grow(1, change=True)
        self.assertEqual(made, (wallet.grow(2), wallet.grow(1, change=True)))
        plain = decode_wallet(locked.encode()).unlocked("pwd")
        self.assertEqual([each.key for each in plain.entries], [each.key for each in wallet.entries])

    def test_nothing_to_encrypt(self) -> None:
        """A wallet that watches has no secrets."""
        watching = new_watching(XPUB, "x", "x.wlt", 0)
        self.assertRaises(UnsuitableError, watching.locked, QUICK, counted())

    def test_new_password(self) -> None:
        """A password must be something, and nothing is written by the old cipher."""
        self.assertRaises(PasswordError, new_sealing, "", counted())
        self.assertRaises(WalletError, new_sealing, "pwd", counted(), XOR)
        sealing = new_sealing("pwd", counted(), SCRYPT_INSECURE)
        self.assertEqual((sealing.n, sealing.r, sealing.p), (1 << 15, 8, 1))
        self.assertNotIn(sealing.key.hex(), repr(sealing))
        self.assertNotIn(repr(sealing.key), repr(sealing))
        self.assertEqual(open_sealed(sealing.seal(b"data", bytes(12)), SCRYPT, "pwd")[0], b"data")

    def test_usual_cost(self) -> None:
        """New wallets cost an attacker what the Go node's cost."""
        asked = []

        def scrypt(password: str, salt: bytes, *cost: int) -> bytes:
            asked.append(cost)
            return bytes(32)

        self.patch(encryption, "_scrypt", scrypt)
        new_sealing("pwd", counted())
        self.assertEqual(asked, [(1 << 20, 8, 1)])

    @settings(max_examples=30)
    @given(st.binary(max_size=300), st.binary(min_size=12, max_size=12))
    def test_any_data(self, data: bytes, nonce: bytes) -> None:
        """Any secrets come back."""
        self.assertEqual(open_sealed(QUICK.seal(data, nonce), SCRYPT_INSECURE, "pwd")[0], data)

    def test_secrets_of_another(self) -> None:
        """Secrets that do not fit to the addresses are damage, not keys of somebody else."""
        one = new_wallet(SEED, "x", "x.wlt", 0).locked(QUICK, counted())
        two = new_wallet("another", "x", "x.wlt", 0).locked(QUICK, counted())
        one.meta["secrets"] = two.meta["secrets"]
        self.assertRaises(DamagedWalletError, one.unlocked, "pwd")
        for data in (b"", b"[]", b"{}", b'{"seed": 7}', b"\xff"):
            one.meta["secrets"] = QUICK.seal(data, bytes(12))
            self.assertRaises(DamagedWalletError, one.unlocked, "pwd")


class HostileTests(SynchronousTestCase):
    def sealed(self, **meta: Any) -> str:
        """Sealed secrets whose head asks for something."""
        head = {
            "n": 16,
            "r": 1,
            "p": 1,
            "keyLen": 32,
            "salt": base64.b64encode(b"salt").decode(),
            "nonce": base64.b64encode(bytes(12)).decode(),
            **meta,
        }
        text = json.dumps(head).encode()
        return base64.b64encode(struct.pack("<H", len(text)) + text + bytes(32)).decode()

    def test_greed(self) -> None:
        """What asks for more memory or time than any node wrote is refused before scrypt is called."""
        self.patch(encryption, "_scrypt", lambda *cost: self.fail(f"scrypt was asked for {cost}"))
        for meta in (
            {"n": 1 << 21, "r": 8},
            {"n": 1 << 40},
            {"n": 1 << 20, "r": 16},
            {"p": 5},
            {"n": 3},
            {"n": 0},
            {"n": -16},
            {"r": 0},
            {"n": 16.0},
            {"n": True},
            {"n": "16"},
            {"n": 1 << 100, "r": 1 << 100},
            {"keyLen": 64},
            {"nonce": base64.b64encode(bytes(8)).decode()},
            {"salt": "!"},
            {"salt": base64.b64encode(bytes(300)).decode()},
            {"salt": None},
        ):
            error = self.assertRaises(DamagedWalletError, open_sealed, self.sealed(**meta), SCRYPT, "pwd")
            self.assertTrue(str(error).endswith("."))

    def test_no_memory(self) -> None:
        """Without the memory there is a sentence, no traceback."""

        def scrypt(*args: object, **kwargs: object) -> bytes:
            raise MemoryError

        self.patch(hashlib, "scrypt", scrypt)
        error = self.assertRaises(LocalError, open_sealed, self.sealed(), SCRYPT, "pwd")
        self.assertIn("memory", str(error))

    @given(st.sampled_from([SCRYPT, XOR, "other"]), st.binary(max_size=300))
    def test_any_bytes(self, kind: str, data: bytes) -> None:
        """Any bytes are wrong or damaged."""
        for text in (base64.b64encode(data).decode(), data.decode("latin-1")):
            self.assertRaises(WalletError, open_sealed, text, kind, "pwd")

    def test_flipped(self) -> None:
        """A flipped bit anywhere is seen, by either cipher."""
        for name, kind in (("scrypt-chacha20poly1305", SCRYPT), ("sha256xor", XOR)):
            wallet = decode_wallet(fixture(f"wallets/wallet/{name}-encrypted.wlt"))
            raw = bytearray(base64.b64decode(wallet.meta["secrets"]))
            places = range(0, len(raw), 97) if kind == XOR else (0, 3, len(raw) - 20, len(raw) - 1)
            for place in places:
                raw[place] ^= 1
                text = base64.b64encode(raw).decode()
                self.assertRaises(WalletError, open_sealed, text, kind, "pwd")
                raw[place] ^= 1

    def test_collection_of_go(self) -> None:
        """The Go node's encrypted collection is known for what it is without its password."""
        wallet = decode_wallet(fixture("wallets/collection/scrypt-chacha20poly1305-encrypted.wlt"))
        self.assertIsInstance(wallet, Collection)
        self.assertTrue(wallet.encrypted)
