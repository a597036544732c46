"""Payments: what the chain of the node burns, coin control, change, documents to sign elsewhere."""

from __future__ import annotations

import json
from fractions import Fraction
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import NULL, address_text
from coin.chain.signatures import UNSIGNED
from coin.chain.spending import Payment, SpendError, allowed
from coin.chain.transaction import Output, Unspent, decode_transaction
from coin.wallet.errors import EncryptedError, UnsuitableError, WalletError
from coin.wallet.kinds import Watching
from coin.wallet.offline import DocumentError, read_unsigned, sign_inputs, sign_unsigned
from coin.wallet.payment import (
    Funds,
    Wish,
    created_json,
    fresh_change,
    funds_of,
    plan_payment,
    sign_payment,
    sign_plan,
)
from coin.wallet.recipients import parse_link, parse_payment, parse_payments, parse_share
from coin.wallet.wallet import new_bip44, new_wallet, new_watching
from meshnet.errors import UsageError
from tests.coin.wallet.test_encryption import QUICK, counted
from tests.coin.wallet.test_wallet import SEED, WORDS

WALLET = new_wallet(SEED, "test", "test.wlt", 0, 3)
FIRST, SECOND, THIRD = WALLET.addresses
STRANGER = new_wallet("somebody else", "x", "x.wlt", 0).addresses[0]


def unspent(number: int, address: Any = FIRST, coins: int = 5_000_000, hours: int = 100) -> Unspent:
    """An output of the chain."""
    return Unspent(1_600_000_000 + number, number, bytes([number]) * 32, address, coins, hours)


def node(*unspents: Unspent, taken: tuple[Unspent, ...] = (), burn: int = 10) -> Any:
    """A node of a chain with these outputs, which have the hours they began with."""

    def row(each: Unspent) -> dict[str, Any]:
        return {
            "hash": each.id.hex(),
            "time": each.time,
            "block_seq": each.block,
            "src_tx": each.source.hex(),
            "address": address_text(each.address),
            "coins": f"{each.coins // 1_000_000}.{each.coins % 1_000_000:06}",
            "hours": each.hours,
            "calculated_hours": each.hours,
        }

    def call(method: str, route: str, body: Any = None) -> Any:
        if route == "/apps/coin/status":
            return {"burn": burn}
        asked = body["addresses"].split(",")
        return {
            "head": {"seq": 9},
            "head_outputs": [row(each) for each in unspents if address_text(each.address) in asked],
            "outgoing_outputs": [row(each) for each in taken if address_text(each.address) in asked],
            "incoming_outputs": [],
        }

    return call


class BurnTests(SynchronousTestCase):
    def fee(self, burn: int) -> int:
        """What a payment out of 1,000 hours burns on a chain with this factor."""
        call = node(unspent(1, FIRST, 8_000_000, 1_000), burn=burn)
        made, plan = sign_payment(WALLET, Payment(SECOND, 3_000_000), call)
        self.assertEqual(sum(each.hours for each in made.outputs), 1_000 - plan.fee)
        return plan.fee

    def test_of_the_chain(self) -> None:
        """Half of the hours with a factor of 2, a tenth with 10."""
        self.assertEqual([self.fee(burn) for burn in (2, 4, 10)], [500, 250, 100])


class ControlTests(SynchronousTestCase):
    def funds(self, *, taken: tuple[Unspent, ...] = ()) -> Funds:
        """Two outputs of the first address, one of the second."""
        outputs = (unspent(1), unspent(2), unspent(3, SECOND))
        return funds_of(WALLET, node(*outputs, taken=taken))

    def spent(self, funds: Funds, wish: Wish) -> list[int]:
        """The blocks of the outputs that are chosen."""
        return sorted(each.block for each in plan_payment(funds, wish).inputs)

    def test_chosen_addresses(self) -> None:
        """Only outputs of the addresses that are named; all are free otherwise."""
        pay = (Payment(STRANGER, 1_000_000),)
        self.assertEqual(self.spent(self.funds(), Wish(pay, addresses={SECOND})), [3])
        self.assertEqual(self.spent(self.funds(), Wish((Payment(STRANGER, 12_000_000),))), [1, 2, 3])
        whole = Wish((Payment(STRANGER, 11_000_000),), addresses={FIRST})
        self.assertRaises(SpendError, plan_payment, self.funds(), whole)

    def test_chosen_outputs(self) -> None:
        """Only the outputs that are named; one that is not there is named in turn."""
        pay = (Payment(STRANGER, 1_000_000),)
        self.assertEqual(self.spent(self.funds(), Wish(pay, unspents={unspent(2).id})), [2])
        error = self.assertRaises(SpendError, plan_payment, self.funds(), Wish(pay, unspents={b"\7" * 32}))
        self.assertIn("07" * 32, str(error))
        both = Wish(pay, addresses={FIRST}, unspents={unspent(2).id})
        self.assertRaises(SpendError, plan_payment, self.funds(), both)

    def test_being_spent(self) -> None:
        """What a waiting transaction spends is left out, or an error for who wants to know."""
        funds = self.funds(taken=(unspent(1),))
        pay = (Payment(STRANGER, 1_000_000),)
        self.assertEqual(self.spent(funds, Wish(pay, addresses={FIRST})), [2])
        strict = Wish(pay, addresses={FIRST}, ignore_taken=False)
        self.assertIn(unspent(1).id.hex(), str(self.assertRaises(SpendError, plan_payment, funds, strict)))
        self.assertEqual(self.spent(funds, Wish(pay, addresses={SECOND}, ignore_taken=False)), [3])
        every = self.funds(taken=(unspent(1), unspent(2), unspent(3, SECOND)))
        self.assertIn("wait", str(self.assertRaises(SpendError, plan_payment, every, Wish(pay))))

    @given(st.sets(st.integers(1, 5)), st.sets(st.integers(1, 5)), st.booleans())
    def test_rule(self, wanted: set[int], taken: set[int], ignore: bool) -> None:
        """For any choice and any in use: exactly those, or an error exactly where the rule says."""
        funds = funds_of(WALLET, node(*(unspent(number) for number in range(1, 5))))
        ids = {number: unspent(number).id for number in range(1, 6)}
        chosen = wanted or set(range(1, 5))
        bad = 5 in wanted or (not ignore and chosen & taken)
        try:
            found = allowed(
                funds.candidates,
                frozenset(ids[each] for each in taken),
                unspents={ids[each] for each in wanted},
                ignore_taken=ignore,
            )
        except SpendError:
            assert bad
        else:
            assert not bad
            self.assertEqual({each.block for each in found}, chosen - (taken if ignore else set()))

    def test_hours(self) -> None:
        """Hours as they are given, or a share of what remains."""
        manual = plan_payment(self.funds(), Wish((Payment(STRANGER, 1_000_000, 7),), share=Fraction(1)))
        self.assertEqual(manual.outputs[0].hours, 7)
        none = plan_payment(self.funds(), Wish((Payment(STRANGER, 1_000_000),), share=Fraction(0)))
        self.assertEqual((none.outputs[0].hours, none.fee), (0, 10))
        every = plan_payment(self.funds(), Wish((Payment(STRANGER, 1_000_000),), share=Fraction(1)))
        self.assertEqual(every.outputs[0].hours, 90)

    def test_many_addresses(self) -> None:
        """A wallet of more addresses than one question holds is asked about in several, as one answer."""
        wallet = new_bip44(WORDS, "x", "x.wlt", 0, 250)
        outputs = [unspent(number, wallet.addresses[number]) for number in (1, 120, 249)]
        asked: list[str] = []
        behind = node(*outputs)

        def call(method: str, route: str, body: Any = None) -> Any:
            asked.append(route)
            return behind(method, route, body)

        funds = funds_of(wallet, call)
        self.assertEqual([each.block for each in funds.candidates], [249, 120, 1])
        self.assertEqual(len(asked), 4)


class ChangeTests(SynchronousTestCase):
    def test_accounts(self) -> None:
        """A wallet of accounts takes its last address of change if nobody used it, else a new one."""
        wallet = new_bip44(WORDS, "x", "x.wlt", 0)
        first = wallet.addresses[1]
        self.assertEqual(fresh_change(wallet, lambda asked: [False] * len(asked)), first)
        second = fresh_change(wallet, lambda asked: [each == first for each in asked])
        self.assertEqual(wallet.addresses[2], second)
        self.assertTrue(wallet.entries[2].change)
        self.assertIsNone(fresh_change(WALLET, lambda asked: self.fail("asked")))


class OfflineTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.funds = funds_of(WALLET, node(unspent(1), unspent(2, SECOND)))
        self.plan = plan_payment(self.funds, Wish((Payment(STRANGER, 7_000_000),)))
        self.document = created_json(self.plan, self.plan.transaction(), self.funds)

    def text(self, **changes: Any) -> str:
        """The document, with another transaction part."""
        return json.dumps({**self.document, "transaction": {**self.document["transaction"], **changes}})

    def test_signed(self) -> None:
        """What was written unsigned is signed without a node, as it would have been with one; the ids in it
        are those of the signed one."""
        unsigned = read_unsigned(self.text())
        self.assertFalse(unsigned.complete)
        given, back = unsigned.outputs(WALLET.addresses)
        self.assertEqual([(each.address, each.coins) for each in given], [(STRANGER, 7_000_000)])
        self.assertEqual([each.coins for each in back], [3_000_000])
        self.assertEqual(unsigned.fee, str(self.plan.fee))
        signed = sign_unsigned(unsigned, WALLET)
        self.assertTrue(signed.complete)
        made = decode_transaction(bytes.fromhex(signed.document["encoded_transaction"]))
        self.assertEqual(made.inner, sign_plan(self.plan, WALLET).inner)
        owners = {WALLET.entries[0].public, WALLET.entries[1].public}
        self.assertEqual(set(made.signers()), owners)
        self.assertEqual(signed.document["transaction"]["txid"], made.id.hex())
        ids = [each["uxid"] for each in signed.document["transaction"]["outputs"]]
        self.assertEqual(ids, [each.id.hex() for each in made.unspents(0, 1)])
        self.assertEqual(read_unsigned(json.dumps({"data": signed.document})).transaction, made)

    def test_by_two(self) -> None:
        """Two wallets sign one after the other; who owns nothing of it is told."""
        mine, theirs = (new_wallet(SEED, "x", "x.wlt", 0, 1), new_wallet(SEED, "x", "x.wlt", 0, 2))
        theirs._entries = theirs._entries[1:]
        half = sign_unsigned(read_unsigned(self.text()), mine)
        self.assertFalse(half.complete)
        whole = sign_unsigned(half, theirs)
        self.assertTrue(whole.complete)
        again = sign_unsigned(whole, mine)
        self.assertEqual(again.transaction, whole.transaction)
        other = new_wallet("somebody else", "x", "x.wlt", 0)
        self.assertRaises(WalletError, sign_unsigned, read_unsigned(self.text()), other)

    def test_chosen_inputs(self) -> None:
        """Exactly the inputs that are named; one that is signed, not there or somebody else's is told."""
        bare = self.plan.transaction()
        owners = [each.address for each in self.plan.inputs]
        one = sign_inputs(bare, owners, WALLET, [1])
        self.assertEqual([each == UNSIGNED for each in one.signatures], [True, False])
        self.assertEqual(sign_inputs(one, owners, WALLET, [0]), sign_inputs(bare, owners, WALLET, [0, 1]))
        for indexes in ([1], [2], [-1]):
            self.assertRaises(WalletError, sign_inputs, one, owners, WALLET, indexes)
        self.assertRaises(WalletError, sign_inputs, bare, [STRANGER] * 2, WALLET, [0])

    def test_no_keys(self) -> None:
        """A wallet without its keys at hand says why."""
        unsigned = read_unsigned(self.text())
        self.assertRaises(EncryptedError, sign_unsigned, unsigned, WALLET.locked(QUICK, counted()))
        accounts = new_bip44(WORDS, "x", "x.wlt", 0)
        watching = new_watching(accounts.chains("external")[0].parent.xpub, "x", "x.wlt", 0)
        self.assertIsInstance(watching, Watching)
        funds = funds_of(watching, node(unspent(1, watching.addresses[0])))
        plan = plan_payment(funds, Wish((Payment(STRANGER, 1_000_000),)))
        document = json.dumps(created_json(plan, plan.transaction(), funds))
        self.assertRaises(UnsuitableError, sign_unsigned, read_unsigned(document), watching)
        self.assertTrue(sign_unsigned(read_unsigned(document), accounts).complete)

    def test_lies(self) -> None:
        """A document that says other amounts, owners or origins than the hashes prove is refused."""
        rows = self.document["transaction"]["inputs"]
        for change in (
            {"coins": "6.000000"},
            {"hours": "101"},
            {"address": address_text(THIRD)},
            {"txid": "09" * 32},
            {"coins": "-5"},
            {"address": "nobody"},
        ):
            lie = self.text(inputs=[{**rows[0], **change}, *rows[1:]])
            self.assertRaises(DocumentError, read_unsigned, lie)
        self.assertRaises(DocumentError, read_unsigned, self.text(inputs=rows[:1]))
        self.assertRaises(DocumentError, read_unsigned, self.text(inputs=rows[::-1]))

    def test_wrong_transactions(self) -> None:
        """A transaction that makes coins, or is damaged, is not signed, whatever the document says."""
        true = self.plan.transaction()
        rich = [*true.outputs[:-1], Output(STRANGER, true.outputs[-1].coins + 1, 0)]
        for made in (
            type(true)(true.length, 0, true.inner, true.signatures, true.inputs, tuple(rich)),
            type(true)(true.length + 1, 0, true.inner, true.signatures, true.inputs, true.outputs),
            type(true)(true.length, 0, bytes(32), true.signatures, true.inputs, true.outputs),
            type(true)(true.length, 0, true.inner, (UNSIGNED,), true.inputs, true.outputs),
        ):
            text = json.dumps({**self.document, "encoded_transaction": made.raw.hex()})
            self.assertRaises(DocumentError, read_unsigned, text)

    @given(st.text(max_size=60))
    def test_any_text(self, text: str) -> None:
        """Any text is a document or a sentence."""
        self.assertRaises(DocumentError, read_unsigned, text)


class RecipientTests(SynchronousTestCase):
    def test_list(self) -> None:
        """A list with names, notes and empty lines."""
        one, two = address_text(FIRST), address_text(SECOND)
        text = f"address,coins,hours\n# a note\n\n{one}, 1.5, 3\n{two},2,0\n"
        self.assertEqual(parse_payments(text), [Payment(FIRST, 1_500_000, 3), Payment(SECOND, 2_000_000, 0)])

    def test_wrong(self) -> None:
        """What is wrong is said with its line."""
        one = address_text(FIRST)
        null = address_text(NULL) + ",1"
        for line in ("x,1", one, f"{one},x", f"{one},1,-1", f"{one},1,x", f"{one},1,2,3", null):
            error = self.assertRaises(UsageError, parse_payments, f"{one},1\n{line}\n")
            self.assertTrue(str(error).startswith("Line 2: "), error)
            self.assertRaises(UsageError, parse_payment, line)
        for line in (f"{one},1", f"{one},0", f"{one},all", f"{one},2,5", "x" * 200_000 + ",1"):
            error = self.assertRaises(UsageError, parse_payments, f'"{one}\n",1\n\n{line}\n')
            self.assertTrue(str(error).startswith("Line 4: "), error)
        error = self.assertRaises(UsageError, parse_payments, f"# all\n{one},all\n{one},1\n")
        self.assertEqual(str(error), "Line 3: All of it goes to one receiver.")
        self.assertRaises(UsageError, parse_payments, "")
        self.assertRaises(UsageError, parse_payments, f"{one},1\n" * 801)
        self.assertRaises(UsageError, parse_payments, "#" * (2 << 20))

    def test_link(self) -> None:
        """Payment links: the amount, perhaps hours; what they demand and is not known is an error."""
        one = address_text(FIRST)
        plain = parse_link(f"skycoin:{one}?amount=1.5&label=Caf%C3%A9&message=x", "skycoin")
        self.assertEqual(plain, Payment(FIRST, 1_500_000))
        self.assertEqual(
            parse_link(f"skycoin:{one}?amount=2&hours=7", "skycoin"), Payment(FIRST, 2_000_000, 7)
        )
        for text in (
            f"skycoin:{one}",
            f"bitcoin:{one}?amount=1",
            f"skycoin:{one}?amount=x",
            f"skycoin:{one}?amount=1&hours=-1",
            f"skycoin:{one}?amount=1&req-time=5",
            "skycoin:?amount=1",
            "skycoin:x?" + "a=1&" * 50,
        ):
            self.assertRaises(UsageError, parse_link, text, "skycoin")

    def test_share(self) -> None:
        """A share is 0 to 1, exactly."""
        self.assertEqual(parse_share("0.3"), Fraction(3, 10))
        self.assertEqual((parse_share("0"), parse_share("1.0")), (0, 1))
        for text in ("1.1", "-1", "2", "1e9999999", "1/2", "", "0." + "1" * 30):
            self.assertRaises(UsageError, parse_share, text)
