"""Every rule of the chain: the real blocks keep them all, and here is one case that breaks each."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable
from fractions import Fraction

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain import rules
from coin.chain.address import NULL, Address
from coin.chain.amounts import MOST
from coin.chain.block import Block, Header, decode_block, new_block
from coin.chain.params import Limits, read_fiber
from coin.chain.rules import (
    BlockError,
    HardRuleError,
    MissingInputError,
    RuleError,
    SoftRuleError,
    UserRuleError,
    check_loose,
    check_soft,
    choose_transactions,
    find_inputs,
)  # fmt: skip
from coin.chain.signatures import UNSIGNED
from coin.chain.skycoin import SKYCOIN
from coin.chain.spending import Candidate, Payment, SpendError, plan_spending
from coin.chain.transaction import (
    Output,
    Transaction,
    Unspent,
    decode_transaction,
    new_transaction,
    read_transaction,
)  # fmt: skip
from meshnet.errors import CodecError, ConfigError
from tests.support.chains import Ledger, key, owner, small_chain
from tests.support.vectors import vectors


class RealBlocks(SynchronousTestCase):
    def test_replay(self) -> None:
        """181 blocks of the live chain: every rule holds, every byte and hash comes out again."""
        ledger = Ledger(SKYCOIN)
        for line in vectors("skycoin/blocks-180.jsonl").read_text().splitlines():
            row = json.loads(line)
            data = bytes.fromhex(row["block"] + row["sig"])
            block = decode_block(data)
            self.assertEqual(block.hash.hex(), row["hash"])
            self.assertEqual(block.encode(), data)
            again = Block(block.header, block.transactions, block.signature)
            self.assertEqual(again.encode(), data)
            if row["seq"]:
                applied = ledger.check(block)
                self.assertEqual(applied.fee, block.header.fee)
                ledger.add(block)
        self.assertEqual(len(ledger.blocks), 181)
        self.assertEqual(len(ledger.unspent), 218)
        self.assertEqual(
            ledger.head.unspents.hex(), "5a2b04c10a91b7fc09a6fe00a2e97e573d1567c23a608d1429d732f3c720305a"
        )

    def test_parameters(self) -> None:
        """The chain's own parameter file says the same as ours, and the first block is the known one."""
        table = tomllib.loads(vectors("skycoin/fiber/fiber.toml").read_text())
        read = read_fiber("skycoin", table)
        self.assertEqual(read.genesis.hash.hex()[:16], "0551a1e5af999fe8")
        self.assertEqual(read.distribution, SKYCOIN.distribution)
        self.assertEqual(read.locked, SKYCOIN.locked)
        self.assertEqual((read.user, read.pool, read.block), (Limits(), Limits(), Limits()))
        self.assertEqual(read.genesis, SKYCOIN.genesis)
        table = tomllib.loads(vectors("skycoin/fiber/test.fiber.toml").read_text())
        error = self.assertRaises(ConfigError, read_fiber, "test", table)
        self.assertIn("1024", str(error))  # its limits are too small for a chain
        table["node"]["unconfirmed_max_transaction_size"] = table["params"]["user_max_transaction_size"] = (
            1024
        )
        test = read_fiber("test", table)
        self.assertEqual(test.block, Limits(9, 1234, 4))
        self.assertEqual(test.names.ticker, "TST")

    def test_wrong_parameters(self) -> None:
        """What is missing or wrong is named."""
        table = tomllib.loads(vectors("skycoin/fiber/fiber.toml").read_text())
        del table["node"]["genesis_timestamp"]
        error = self.assertRaises(ConfigError, read_fiber, "skycoin", table)
        self.assertIn("genesis_timestamp", str(error))
        table["node"]["genesis_timestamp"] = 1
        error = self.assertRaises(ConfigError, read_fiber, "skycoin", table)
        self.assertIn("not signed", str(error))
        for name in ("genesis_timestamp", "genesis_coin_volume"):
            for wrong in (1 << 64, 1 << 63, -1, "x", float("inf")):
                changed = {**table, "node": {**table["node"], name: wrong}}
                error = self.assertRaises(ConfigError, read_fiber, "skycoin", changed)
                self.assertIn(name, str(error))


class Codec(SynchronousTestCase):
    @given(st.binary(max_size=400))
    def test_any_bytes(self, data: bytes) -> None:
        """Any bytes are a message that encodes to themselves, or a CodecError."""
        for read in (decode_block, decode_transaction):
            try:
                self.assertEqual(read(data).raw[: len(data)], data[: len(read(data).raw)])
            except CodecError:
                pass

    @given(st.data())
    def test_every_cut(self, data: st.DataObject) -> None:
        """A transaction with any byte missing, or one more, is refused."""
        raw = _pay(Ledger(small_chain())).raw
        cut = data.draw(st.integers(0, len(raw) - 1))
        self.assertRaises(CodecError, decode_transaction, raw[:cut])
        self.assertRaises(CodecError, decode_transaction, raw + b"\0")
        self.assertEqual(read_transaction(b"xx" + raw, 2)[0].raw, raw)

    def test_counts_that_lie(self) -> None:
        """A count of four billion costs nothing."""
        raw = bytearray(_pay(Ledger(small_chain())).raw)
        raw[37:41] = b"\xff" * 4
        self.assertRaises(CodecError, decode_transaction, bytes(raw))


def _pay(ledger: Ledger, coins: int = 1_000_000_000, hours: int = 10) -> Transaction:
    return ledger.pay(1, Output(owner(2), coins, hours))


def _remade(made: Transaction, **changes: object) -> Transaction:
    """The same with some of its parts changed and nothing else made right."""
    fields = {
        name: changes.get(name, getattr(made, name))
        for name in ("length", "kind", "inner", "signatures", "inputs", "outputs")
    }
    return Transaction(**fields)


class HardRules(SynchronousTestCase):
    """Each method breaks one rule, loose and in a block."""

    def setUp(self) -> None:
        self.ledger = Ledger(small_chain())

    def refused(self, made: Transaction, rule: str, *, only: str = "") -> None:
        """`made` breaks `rule`; `only`: loose or block."""
        if only != "block":
            error = self.assertRaises(HardRuleError, self.loose, made)
            self.assertEqual(error.rule, rule)
        if only != "loose":
            error = self.assertRaises(HardRuleError, self.ledger.check, self.ledger.block(made))
            self.assertEqual(error.rule, rule)

    def loose(self, made: Transaction) -> int:
        return check_loose(made, find_inputs(made, self.ledger.unspent.get), self.ledger.head.header.time)

    def test_right(self) -> None:
        """A right one is taken, loose and in a block."""
        made = _pay(self.ledger)
        self.loose(made)
        self.ledger.add(self.ledger.block(made))
        self.assertEqual([each.coins for each in self.ledger.of(2)], [1_000_000_000])

    def test_form(self) -> None:
        """What can be seen without knowing the chain."""
        made = _pay(self.ledger)
        out = made.outputs[0]
        half = Output(out.address, out.coins // 2, 0)
        cases: list[tuple[str, Transaction]] = [
            ("no inputs", new_transaction([], [out])),
            ("no outputs", new_transaction(made.inputs, []).signed([key(1)])),
            ("signature count", _remade(made, signatures=(*made.signatures, UNSIGNED))),
            ("type", _remade(made, kind=1)),
            ("length", _remade(made, length=made.length + 1)),
            ("inner hash", _remade(made, inner=bytes(32))),
            ("zero coins", self.ledger.pay(1, out, Output(owner(3), 0, 0))),
            ("output coins", self.ledger.pay(1, out, Output(owner(3), MOST, 0))),
            ("duplicate output", self.ledger.pay(1, half, half)),
            ("duplicate input", self.ledger.pay(1, out, inputs=self.ledger.of(1) * 2)),
        ]
        for rule, case in cases:
            self.refused(case, rule)

    def test_missing_input(self) -> None:
        """An output that was never made, or is spent, cannot be spent."""
        made = new_transaction([bytes(32)], [Output(owner(2), 1, 0)]).signed([key(1)])
        self.assertRaises(MissingInputError, self.loose, made)
        made = _pay(self.ledger)
        self.ledger.add(self.ledger.block(made))
        self.assertRaises(MissingInputError, self.loose, made)

    def test_signatures(self) -> None:
        """One that is missing, one that is none, one of somebody else, a high S."""
        made = _pay(self.ledger)
        self.refused(_remade(made, signatures=(UNSIGNED,)), "signature")
        self.refused(_remade(made, signatures=(made.signatures[0][:64] + b"\x09",)), "signature")
        self.refused(made.signed([key(5)]), "owner")
        high = bytearray(made.signatures[0])
        high[32] |= 0x80
        self.refused(_remade(made, signatures=(bytes(high),)), "signature")

    def test_coins(self) -> None:
        """Coins are neither made nor destroyed."""
        self.refused(_pay(self.ledger, 1_000_000_001), "insufficient coins")
        self.refused(_pay(self.ledger, 999_999_999), "destroyed coins")

    def test_hours(self) -> None:
        """Hours are not made; their sum wraps around in blocks, as it always did, and not outside."""
        self.refused(_pay(self.ledger, hours=1_000_000_001), "insufficient hours")
        two = self.ledger.pay(1, Output(owner(2), 500_000_000, MOST), Output(owner(3), 500_000_000, 5))
        self.refused(two, "output hours", only="loose")
        self.ledger.add(self.ledger.block(two))

    def test_hours_that_do_not_fit(self) -> None:
        """An output whose hours overflow counts nothing in a block, and cannot be spent outside."""
        self.ledger.add(
            self.ledger.block(
                self.ledger.pay(1, Output(owner(2), 999_000_000, MOST), Output(owner(3), 1_000_000, 5))
            )
        )
        self.ledger.add(self.ledger.block(self.ledger.pay(3, Output(owner(4), 1_000_000, 0)), after=36_000))
        made = self.ledger.pay(2, Output(owner(5), 999_000_000, 0))
        self.refused(made, "input hours", only="loose")
        self.ledger.add(self.ledger.block(made))

    def test_input_sums(self) -> None:
        """Inputs whose coins or hours do not fit together are refused everywhere."""
        made = new_transaction([bytes(32), b"\1" * 32], [Output(owner(2), 5, 0)])
        signed = (owner(1), owner(1))
        rich = [Unspent(0, 0, bytes(32), owner(1), MOST, 0), Unspent(0, 0, b"\1" * 32, owner(1), MOST, 0)]
        error = self.assertRaises(HardRuleError, rules.check_spending, made, rich, signed, 0, block=True)
        self.assertEqual(error.rule, "input coins")
        old = [Unspent(0, 0, bytes(32), owner(1), 3, MOST), Unspent(0, 0, b"\1" * 32, owner(1), 2, MOST)]
        error = self.assertRaises(HardRuleError, rules.check_spending, made, old, signed, 0, block=True)
        self.assertEqual(error.rule, "input hours")

    def test_unsigned(self) -> None:
        """One still to be signed passes only as such, and only while a signature is missing."""
        made = _pay(self.ledger)
        inputs = find_inputs(made, self.ledger.unspent.get)
        time = self.ledger.head.header.time
        rules.check_unsigned(_remade(made, signatures=(UNSIGNED,)), inputs, time)
        error = self.assertRaises(HardRuleError, rules.check_unsigned, made, inputs, time)
        self.assertEqual(error.rule, "signed")


class SoftRules(SynchronousTestCase):
    def setUp(self) -> None:
        self.ledger = Ledger(small_chain())

    def refused(self, made: Transaction, rule: str, limits: Limits = Limits(), locked: int = 9) -> None:
        inputs = find_inputs(made, self.ledger.unspent.get)
        time = self.ledger.head.header.time
        check_loose(made, inputs, time)
        error = self.assertRaises(
            SoftRuleError, check_soft, made, inputs, time, limits, frozenset([owner(locked)])
        )
        self.assertEqual(error.rule, rule)

    def test_each(self) -> None:
        """Too large, too small a fee or none, locked, too many decimals; and one that is right."""
        right = _pay(self.ledger)
        inputs = find_inputs(right, self.ledger.unspent.get)
        fee = check_soft(right, inputs, self.ledger.head.header.time, Limits(), frozenset())
        self.assertEqual(fee, 999_999_990)
        self.refused(right, "size", evolve(Limits(), size=100))
        self.refused(_pay(self.ledger, hours=950_000_000), "fee")
        self.refused(_pay(self.ledger, hours=1_000_000_000), "fee")
        self.refused(right, "locked", locked=1)
        odd = self.ledger.pay(1, Output(owner(2), 999_999_999, 1), Output(owner(3), 1, 1))
        self.refused(odd, "decimals")

    def test_user(self) -> None:
        """Nobody is made to send coins where they are lost."""
        lost = self.ledger.pay(1, Output(NULL, 1_000_000_000, 0))
        error = self.assertRaises(UserRuleError, rules.check_user, lost)
        self.assertEqual(error.rule, "null address")
        rules.check_user(_pay(self.ledger))

    def test_limits(self) -> None:
        """Limits that are none are told apart."""
        for limits in (Limits(burn=1), Limits(size=1000), Limits(decimals=7)):
            self.assertTrue(limits.refusal())
        self.assertEqual(Limits().refusal(), "")


class BlockRules(SynchronousTestCase):
    def setUp(self) -> None:
        self.ledger = Ledger(small_chain())

    def test_header(self) -> None:
        """Each figure of a header that is wrong is named."""
        made = _pay(self.ledger)
        cases: list[tuple[str, Callable[[Header], Header]]] = [
            ("sequence", lambda header: evolve(header, sequence=2)),
            ("sequence", lambda header: evolve(header, sequence=0)),
            ("time", lambda header: evolve(header, time=self.ledger.head.header.time)),
            ("time", lambda header: evolve(header, time=1 << 63)),
            ("previous", lambda header: evolve(header, previous=bytes(32))),
            ("body", lambda header: evolve(header, body=bytes(32))),
            ("unspents", lambda header: evolve(header, unspents=bytes(32))),
        ]
        for rule, change in cases:
            error = self.assertRaises(BlockError, self.ledger.check, self.ledger.block(made, change=change))
            self.assertEqual(error.rule, rule)

    def test_seal(self) -> None:
        """Another key, and bytes that are no signature, seal nothing."""
        block = self.ledger.block(_pay(self.ledger), publisher=3)
        for case in (block, block.with_signature(bytes(65))):
            error = self.assertRaises(BlockError, self.ledger.check, case)
            self.assertEqual(error.rule, "seal")

    def test_transactions_that_conflict(self) -> None:
        """One output is spent once; a block is not empty."""
        one = _pay(self.ledger)
        other = self.ledger.pay(1, Output(owner(3), 1_000_000_000, 0))
        error = self.assertRaises(HardRuleError, self.ledger.check, self.ledger.block(one, other))
        self.assertEqual(error.rule, "double spend")
        error = self.assertRaises(BlockError, self.ledger.check, self.ledger.block())
        self.assertEqual(error.rule, "empty")

    def test_output_that_exists(self) -> None:
        """An output that stands in the chain cannot be made again."""
        made = _pay(self.ledger)
        block = self.ledger.block(made)
        there = made.unspents(block.header.time, 1)[0]
        self.ledger.unspent[there.id] = there
        error = self.assertRaises(HardRuleError, self.ledger.check, block)
        self.assertEqual(error.rule, "output exists")

    def test_inside_one_block(self) -> None:
        """What a block makes can be spent from the next block on only."""
        made = _pay(self.ledger)
        there = made.unspents(self.ledger.head.header.time + 3600, 1)[0]
        then = new_transaction([there.id], [Output(owner(3), 1_000_000_000, 0)]).signed([key(2)])
        self.assertRaises(MissingInputError, self.ledger.check, self.ledger.block(made, then))

    def test_choice(self) -> None:
        """The best fee for its bytes first, within the size, and of two that conflict one."""
        split = [Output(owner(n), 100_000_000, n * 1000) for n in range(2, 12)]
        self.ledger.add(self.ledger.block(self.ledger.pay(1, *split)))
        loose = {self.ledger.pay(n, Output(owner(20), 100_000_000, 0)): n * 1000 for n in range(2, 12)}
        chosen = choose_transactions(loose, Limits(), 32 << 10)
        self.assertEqual([loose[each] for each in chosen], sorted(loose.values(), reverse=True))
        size = len(chosen[0].raw)
        self.assertEqual(len(choose_transactions(loose, Limits(), size * 3 + 1)), 3)
        rival = self.ledger.pay(11, Output(owner(21), 100_000_000, 0))
        both = choose_transactions({**loose, rival: 10**6}, Limits(), 32 << 10)
        self.assertIs(both[0], rival)
        self.assertEqual(len(both), 10)
        block = new_block(self.ledger.head.header, both, time=1, fee=1, unspents=bytes(32))
        self.assertEqual(block.size, sum(len(each.raw) for each in both))


class Spending(SynchronousTestCase):
    def test_published(self) -> None:
        """Fifteen cases of which outputs are spent and who gets how many hours."""
        errors = {"balance": "coins", "hours": "coin hours", "no fee": "fee", "no unspents": "outputs"}
        for case in json.loads(vectors("skycoin/create-transaction-cases.json").read_text()):
            candidates = [
                Candidate(NULL, each["coins"], each["hours"], 0, each["id"].to_bytes(32, "big"))
                for each in case["unspents"]
            ]
            share = None if case["hours_selection"] == "manual" else Fraction(str(case["share_factor"]))
            names = sorted({each["address"] for each in case["to"]})
            payments = [
                Payment(
                    Address(bytes([0] * 20 + [1 + names.index(each["address"])])),
                    each["coins"],
                    each["hours"] if share is None else None,
                )
                for each in case["to"]
            ]
            expected = case["expect_inputs"]
            if isinstance(expected, str):
                error = self.assertRaises(
                    SpendError, plan_spending, candidates, payments, burn=case["burn_factor"], share=share
                )
                self.assertIn(errors[expected], str(error))
                continue
            plan = plan_spending(candidates, payments, burn=case["burn_factor"], share=share)
            self.assertEqual([int.from_bytes(each.id, "big") for each in plan.inputs], expected)
            hours = [out.hours for out in plan.outputs[: len(payments)]]
            self.assertEqual(hours, case["expect_output_hours"])
            change = None if plan.change is None else [plan.change.coins, plan.change.hours]
            self.assertEqual(change, case["expect_change_coins_hours"])

    @given(st.data())
    def test_plans_are_transactions(self, data: st.DataObject) -> None:
        """Whatever can be planned keeps the hard rules and the fee."""
        ledger = Ledger(small_chain())
        part = st.tuples(st.integers(1, 400), st.integers(0, 90))
        parts = data.draw(st.lists(part, min_size=1, max_size=5))
        outputs = [Output(owner(1), coins * 1000, hours) for coins, hours in dict(parts).items()]
        rest = 1_000_000_000 - sum(out.coins for out in outputs)
        ledger.add(ledger.block(ledger.pay(1, *outputs, Output(owner(7), rest, 5))))
        time = ledger.head.header.time
        candidates = [
            Candidate(each.address, each.coins, each.hours, each.block, each.id) for each in ledger.of(1)
        ]
        coins = data.draw(st.integers(1, sum(each.coins for each in candidates)))
        share = data.draw(st.fractions(0, 1, max_denominator=50))
        try:
            plan = plan_spending(candidates, [Payment(owner(2), coins)], burn=10, share=share)
        except SpendError:
            return
        made = plan.transaction().signed([key(1)] * len(plan.inputs))
        inputs = find_inputs(made, ledger.unspent.get)
        self.assertEqual(check_loose(made, inputs, time), plan.fee)
        check_soft(made, inputs, time, evolve(Limits(), decimals=6), frozenset())

    def test_refusals(self) -> None:
        """What cannot be asked for."""
        have = [Candidate(owner(1), 10**6, 100, 0, bytes(32))]
        pay = Payment(owner(2), 1000, 1)
        for payments, share in (
            ([], None),
            ([Payment(owner(2), 0, 1)], None),
            ([Payment(owner(2), 5)], None),
            ([pay], Fraction(1)),
            ([Payment(owner(2), 5)], Fraction(2)),
            ([Payment(owner(2), 5, -1)], None),
            ([pay, pay], None),
        ):
            self.assertRaises(SpendError, plan_spending, have, payments, burn=10, share=share)

    def test_errors_name_rules(self) -> None:
        """Every error of the rules has a short name beside its sentence."""
        error = RuleError("fee", "It burns too little.")
        self.assertEqual((error.rule, str(error)), ("fee", "It burns too little."))
