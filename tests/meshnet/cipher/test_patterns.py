"""The table of Noise patterns."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.patterns import NK, XK, pattern
from meshnet.errors import UsageError


class PatternTests(SynchronousTestCase):
    """Reading names."""

    def test_ours(self) -> None:
        """The two patterns of the mesh, token by token (Noise §7.5)."""
        self.assertEqual(XK.messages, (("e", "es"), ("e", "ee"), ("s", "se")))
        self.assertEqual(NK.messages, (("e", "es"), ("e", "ee")))
        for each in (XK, NK):
            self.assertEqual((each.initiator_known, each.responder_known), (False, True))
            self.assertFalse(each.one_way)

    def test_modifiers(self) -> None:
        """psk0 stands before the first message's tokens, pskN after those of the Nth (Noise §9.4)."""
        both = pattern("XXpsk0+psk3")
        self.assertEqual(both.messages, (("psk", "e"), ("e", "ee", "s", "es"), ("s", "se", "psk")))
        self.assertEqual((both.name, both.psks), ("XXpsk0+psk3", 2))
        self.assertTrue(pattern("Npsk0").one_way)

    def test_unknown(self) -> None:
        """Unknown names and modifiers without a place are the caller's fault."""
        for name in (
            "",
            "ZZ",
            "xk",
            "XKfallback",
            "XKpsk",
            "XKpsk9",
            "NKpsk3",
            "XKpsk1+",
            "psk0",
            "XK+psk0x",
        ):
            self.assertRaises(UsageError, pattern, name)

    @given(st.text("NKXI1psk0+3", max_size=12))
    def test_random_names(self, name: str) -> None:
        """Whatever the name: a pattern, or UsageError."""
        try:
            self.assertEqual(pattern(name).name, name)
        except UsageError:
            pass
