"""Words of seeds: the standard's vectors, and every way to mistype them."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.derivation import root_key
from coin.wallet.words import COUNTS, WordsError, checked, english, entropy_of, seed_of, words_of
from meshnet.errors import UsageError
from tests.support.vectors import vectors

RIGHT = "legal winner thank year wave sausage worth useful legal winner thank yellow"


class WordsTests(SynchronousTestCase):
    def test_standard(self) -> None:
        """All of BIP 39's English vectors: words of bytes, bytes of words, seeds, roots."""
        cases = json.loads(vectors("bitcoin/bip39.json").read_text())["english"]
        self.assertGreater(len(cases), 20)
        for entropy, words, seed, root in cases:
            self.assertEqual(words_of(bytes.fromhex(entropy)), words)
            self.assertEqual(entropy_of(words).hex(), entropy)
            self.assertEqual(seed_of(words, "TREZOR").hex(), seed)
            self.assertEqual(root_key(seed_of(words, "TREZOR")).xprv, root)

    def test_go(self) -> None:
        """The Go node's own seeds."""
        cases = json.loads(vectors("skycoin/inline-vectors.json").read_text())["bip39_TREZOR"]
        for case in cases:
            self.assertTrue(checked(case["mnemonic"]))
            self.assertEqual(seed_of(case["mnemonic"], "TREZOR").hex(), case["seed"])

    def test_list(self) -> None:
        """The list is the published one."""
        for name in ("skycoin/bip39-english.txt", "bitcoin/bip39-english.txt"):
            self.assertEqual(vectors(name).read_text().split(), list(english()))

    def test_wrong(self) -> None:
        """An unknown word is named with those it may be; checksum, number of words and spaces have a sentence
        each."""
        for text, why in (
            (RIGHT.replace("wave", "wafe"), "Word 5, 'wafe', is not on the list; perhaps"),
            (RIGHT.replace("wave", "year"), "checksum"),
            (RIGHT.replace(" wave", ""), "not 11"),
            (RIGHT.replace(" ", "  ", 1), "one space"),
            (RIGHT + " ", "one space"),
            ("", "one space"),
            ("seed", "Word 1" if "seed" not in english() else "not 1"),
        ):
            error = self.assertRaises(WordsError, entropy_of, text)
            self.assertIn(why, str(error))
            self.assertFalse(checked(text))
        self.assertRaises(UsageError, words_of, bytes(15))

    @given(st.sampled_from(range(16, 33, 4)).flatmap(lambda size: st.binary(min_size=size, max_size=size)))
    def test_round(self, entropy: bytes) -> None:
        """12, 15, 18, 21 and 24 words carry their bytes."""
        words = words_of(entropy)
        self.assertIn(len(words.split()), COUNTS)
        self.assertEqual(entropy_of(words), entropy)

    @given(st.text(max_size=100))
    def test_any_text(self, text: str) -> None:
        """Any text is words or a sentence."""
        try:
            entropy_of(text)
        except WordsError as error:
            assert str(error).endswith(".")
