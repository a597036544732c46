"""Scanning ahead: what is kept, what is asked, both chains, encrypted wallets."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import Address
from coin.wallet.errors import EncryptedError, UnsuitableError, WalletError
from coin.wallet.scanning import MOST_AHEAD, scan
from coin.wallet.wallet import new_bip44, new_collection, new_watching
from tests.coin.wallet.test_encryption import QUICK, counted
from tests.coin.wallet.test_wallet import SEED, WORDS, XPUB

WHOLE = new_bip44(WORDS, "x", "x.wlt", 0, 40)
WHOLE.grow(39, change=True)
PAID, CHANGE = WHOLE.addresses[:40], WHOLE.addresses[40:]


def kept(used: set[int], ahead: int, *, again: bool) -> int:
    """How many addresses stay, by the rule alone: one at first, grown to the last used one within reach."""
    have = 1
    while True:
        reach = [place for place in used if have <= place < have + ahead]
        if not reach:
            return have
        have = max(reach) + 1
        if not again:
            return have


class ScanTests(SynchronousTestCase):
    @given(used=st.sets(st.integers(0, 30), max_size=6), ahead=st.integers(1, 8), again=st.booleans())
    def test_rule(self, used: set[int], ahead: int, again: bool) -> None:
        """For any addresses in use and any reach, both chains end where the rule says."""
        wallet = new_bip44(WORDS, "x", "x.wlt", 0)
        known = {each for place in used for each in (PAID[place], CHANGE[place])}
        found = scan(wallet, lambda asked: [each in known for each in asked], ahead, again=again)
        count = kept(used, ahead, again=again)
        self.assertEqual(wallet.addresses, PAID[:count] + CHANGE[:count])
        self.assertEqual(tuple(found), PAID[1:count])

    def test_questions(self) -> None:
        """No more is asked than needed, and nothing of a wallet that is not in use stays."""
        asked: list[Sequence[Address]] = []
        wallet = new_watching(XPUB, "x", "x.wlt", 0)
        before = wallet.encode()

        def nobody(addresses: Sequence[Address]) -> list[bool]:
            asked.append(addresses)
            return [False] * len(addresses)

        self.assertEqual(scan(wallet, nobody, 5), [])
        self.assertEqual(([len(each) for each in asked], wallet.encode()), ([5], before))

    def test_refused(self) -> None:
        """What has no addresses ahead, or needs its password for them, says so."""
        from coin.wallet.wallet import new_wallet

        nobody = lambda asked: [False] * len(asked)  # noqa: E731
        self.assertRaises(UnsuitableError, scan, new_collection("x", "x.wlt", 0), nobody)
        locked = new_wallet(SEED, "x", "x.wlt", 0).locked(QUICK, counted())
        self.assertRaises(EncryptedError, scan, locked, nobody)
        for ahead in (0, MOST_AHEAD + 1):
            self.assertRaises(WalletError, scan, new_bip44(WORDS, "x", "x.wlt", 0), nobody, ahead)
