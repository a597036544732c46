"""What the chain allows. Pure: nothing is read or written, the time is that of the block before.

Three sorts of rules. *Hard* rules make a transaction, or the block that has it, worthless. *Soft* rules are
this node's opinion of loose transactions: it passes on what breaks them, but puts it into no block. *User*
rules hold for what is made here. Blocks of old must stay valid, so two errors of arithmetic are forgiven
inside blocks (`block=True`): the sum of output hours wraps around, and an output whose hours do not fit has
none.

Checking is cut in two: `signers` (nearly all of the time; needs nothing but the bytes, so other processes can
do it) and the rest, which needs the unspent outputs. `rule` names what was broken, for tests and metrics.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from attrs import frozen

from coin.chain.address import NULL, Address, address_of
from coin.chain.amounts import MOST, coins_text
from coin.chain.block import LATEST, Block, Header
from coin.chain.hashing import xor
from coin.chain.hours import HoursError, HoursSumError, hours_at, required_fee
from coin.chain.params import Limits
from coin.chain.seal import Seal
from coin.chain.signatures import UNSIGNED, BadSignatureError, recover
from coin.chain.transaction import MOST_PARTS, Transaction, Unspent
from meshnet.errors import RemoteError

Signers = tuple[Address, ...]
"""The addresses whose keys signed the inputs of a transaction, in order."""
Find = Callable[[bytes], Unspent | None]
"""Gives the unspent output of an id."""


class RuleError(RemoteError):
    """A rule is broken; `rule` is its short name."""

    def __init__(self, rule: str, text: str) -> None:
        super().__init__(text)
        self.rule = rule


class HardRuleError(RuleError):
    """No block may have it."""


class MissingInputError(HardRuleError):
    """An input is not (or no longer) unspent: a double spend, or a transaction whose inputs come later."""


class SoftRuleError(RuleError):
    """This node does not put it into a block."""


class UserRuleError(RuleError):
    """This node does not make it."""


class BlockError(RuleError):
    """The block is not the next one of this chain."""


@frozen
class Head:
    """The last block: its header and hash, and the sum over the unspent outputs after it."""

    header: Header
    hash: bytes
    unspents: bytes


@frozen
class Applied:
    """What a block changes: `spent` and `made` outputs in order, `fee` the hours it burns, the `head` after
    it. `inputs` are those of each transaction."""

    spent: tuple[Unspent, ...]
    made: tuple[Unspent, ...]
    fee: int
    head: Head
    inputs: tuple[tuple[Unspent, ...], ...]


def signers(transaction: Transaction) -> Signers:
    """Who signed each input; raises HardRuleError."""
    if len(transaction.signatures) != len(transaction.inputs):
        text = f"{len(transaction.inputs)} inputs have {len(transaction.signatures)} signatures."
        raise HardRuleError("signature count", text)
    try:
        return tuple(address_of(key) for key in transaction.signers())
    except BadSignatureError as error:
        raise HardRuleError("signature", f"A signature of the transaction is wrong: {error}.") from None


def input_hours(inputs: Sequence[Unspent], time: int, *, block: bool) -> int:
    """The coin hours of `inputs` at `time`; raises HardRuleError. In a block, what does not fit counts 0."""
    total = 0
    for unspent in inputs:
        try:
            total += hours_at(unspent.coins, unspent.hours, unspent.time, time)
        except HoursSumError as error:
            if not block:
                raise HardRuleError("input hours", str(error)) from None
        except HoursError as error:
            raise HardRuleError("input hours", str(error)) from None
        if total > MOST:
            raise HardRuleError("input hours", "The hours of the inputs together do not fit into 64 bits.")
    return total


def find_inputs(transaction: Transaction, find: Find) -> tuple[Unspent, ...]:
    """The outputs that it spends; raises MissingInputError."""
    found = []
    for number in transaction.inputs:
        unspent = find(number)
        if unspent is None:
            text = f"Input {number.hex()} is not unspent: it was spent already, or never made."
            raise MissingInputError("unspent", text)
        found.append(unspent)
    return tuple(found)


def check_form(transaction: Transaction, *, unsigned: bool = False) -> None:
    """The hard rules that need nothing but the transaction; raises HardRuleError.

    `unsigned` asks for one that is still to be signed: a signature at least is missing.
    """
    signatures, inputs, outputs = transaction.signatures, transaction.inputs, transaction.outputs

    if not inputs:
        raise HardRuleError("no inputs", "A transaction spends something.")
    if not outputs:
        raise HardRuleError("no outputs", "A transaction gives something.")
    if len(signatures) != len(inputs):
        raise HardRuleError("signature count", f"{len(inputs)} inputs have {len(signatures)} signatures.")
    if len(inputs) > MOST_PARTS or len(outputs) > MOST_PARTS:
        raise HardRuleError("too many parts", f"A transaction has at most {MOST_PARTS} inputs and outputs.")
    if len(set(inputs)) != len(inputs):
        raise HardRuleError("duplicate input", "A transaction spends an output twice.")
    if transaction.kind != 0:
        raise HardRuleError("type", f"Type {transaction.kind} of a transaction is not known.")
    total = 0
    for out in outputs:
        if not out.coins:
            raise HardRuleError("zero coins", "An output has no coins.")
        total += out.coins
    if total > MOST:
        raise HardRuleError("output coins", "The coins of the outputs together do not fit into 64 bits.")
    if transaction.length != len(transaction.raw):
        raise HardRuleError("length", f"It says {transaction.length} bytes and has {len(transaction.raw)}.")
    # Two outputs of a transaction have one id exactly if they are equal.
    if len(set(outputs)) != len(outputs):
        raise HardRuleError("duplicate output", "Two outputs of a transaction are the same.")
    if transaction.inner != transaction.true_inner:
        raise HardRuleError("inner hash", "The inner hash is not that of its inputs and outputs.")
    if unsigned and UNSIGNED not in signatures:
        raise HardRuleError("signed", "The transaction is signed already.")


def check_spending(
    transaction: Transaction, inputs: Sequence[Unspent], signed: Signers, time: int, *, block: bool
) -> int:
    """The hard rules about what it spends at `time`, that of the last block; its fee in hours.

    `signed` are its `signers`. Raises HardRuleError.
    """
    for unspent, signer in zip(inputs, signed, strict=True):
        if unspent.address != signer:
            raise HardRuleError("owner", "A signature is not that of the owner of its input.")
    coins_in = sum(unspent.coins for unspent in inputs)
    coins_out = sum(out.coins for out in transaction.outputs)
    if coins_in > MOST:
        raise HardRuleError("input coins", "The coins of the inputs together do not fit into 64 bits.")
    if coins_in < coins_out:
        shown = f"{coins_text(coins_out)} of {coins_text(coins_in)}"
        raise HardRuleError("insufficient coins", f"It gives {shown} coins that it spends.")
    if coins_in > coins_out:
        raise HardRuleError("destroyed coins", "It gives fewer coins than it spends.")
    hours_in = input_hours(inputs, time, block=block)
    hours_out = sum(out.hours for out in transaction.outputs)
    if hours_out > MOST and not block:
        raise HardRuleError("output hours", "The hours of the outputs together do not fit into 64 bits.")
    if hours_in < hours_out & MOST:
        raise HardRuleError("insufficient hours", "It gives more coin hours than it spends.")
    return hours_in - (hours_out & MOST)


def check_loose(transaction: Transaction, inputs: Sequence[Unspent], time: int) -> int:
    """All hard rules for a signed transaction outside of a block; its fee in hours. Raises HardRuleError."""
    check_form(transaction)
    return check_spending(transaction, inputs, signers(transaction), time, block=False)


def check_unsigned(transaction: Transaction, inputs: Sequence[Unspent], time: int) -> int:
    """The same for one that is still to be signed; the signatures it has are checked."""
    check_form(transaction, unsigned=True)
    signed = []
    for index, (signature, unspent) in enumerate(zip(transaction.signatures, inputs, strict=True)):
        one = unspent.address if signature == UNSIGNED else _signer(transaction, index)
        signed.append(one)
    return check_spending(transaction, inputs, tuple(signed), time, block=False)


def _signer(transaction: Transaction, index: int) -> Address:
    try:
        return address_of(recover(transaction.signatures[index], transaction.digest(index)))
    except BadSignatureError as error:
        raise HardRuleError("signature", f"A signature of the transaction is wrong: {error}.") from None


def check_soft(
    transaction: Transaction, inputs: Sequence[Unspent], time: int, limits: Limits, locked: frozenset[Address]
) -> int:
    """The soft rules, for one that breaks no hard rule; its fee in hours. Raises SoftRuleError."""
    if len(transaction.raw) > limits.size:
        text = f"It has {len(transaction.raw)} bytes; {limits.size} are allowed."
        raise SoftRuleError("size", text)
    hours_in = input_hours(inputs, time, block=False)
    fee = hours_in - sum(out.hours for out in transaction.outputs)
    if why := fee_refusal(hours_in, fee, limits.burn):
        raise SoftRuleError("fee", why)
    if any(unspent.address in locked for unspent in inputs):
        raise SoftRuleError("locked", "It spends from a distribution address that is locked.")
    droplets = limits.droplets
    if any(out.coins % droplets for out in transaction.outputs):
        text = f"An amount has more than {limits.decimals} decimals."
        raise SoftRuleError("decimals", text)
    return fee


def fee_refusal(hours_in: int, fee: int, burn: int) -> str:
    """Why `fee` hours are not enough for inputs of `hours_in`, a sentence; empty if they are."""
    if fee < 0:
        return "It gives more coin hours than it spends."
    if fee == 0:
        return "It burns no coin hours; at least one is the fee."
    if fee < required_fee(hours_in, burn):
        return f"It burns {fee} coin hours; {required_fee(hours_in, burn)} of its {hours_in} are the fee."
    return ""


def check_user(transaction: Transaction) -> None:
    """The rules for what is made here; raises UserRuleError."""
    if any(out.address == NULL for out in transaction.outputs):
        raise UserRuleError("null address", "It gives to the null address, from which nobody can spend.")


def check_header(block: Block, head: Head, seal: Seal) -> None:
    """That the block was sealed and is the next one after `head`; raises BlockError."""
    header = block.header
    if refusal := seal.refusal(block):
        raise BlockError("seal", refusal)
    if header.sequence != head.header.sequence + 1:
        text = f"Block {header.sequence} does not follow block {head.header.sequence}."
        raise BlockError("sequence", text)
    if header.time <= head.header.time:
        raise BlockError("time", "The block is not younger than the one before it.")
    if header.time > LATEST:
        raise BlockError("time", "The block's time is beyond what can be told.")
    if header.previous != head.hash:
        raise BlockError("previous", "The block follows another block of the same number.")
    if header.body != block.body_hash:
        raise BlockError("body", "The header is not that of its transactions.")
    if header.unspents != head.unspents:
        raise BlockError("unspents", "The block's sum over all unspent outputs is not ours.")


def apply_block(block: Block, head: Head, find: Find, signed: Sequence[Signers]) -> Applied:
    """Checks the transactions of a block whose header was checked, and says what it changes.

    `find` gives the outputs that are unspent after `head`; `signed` the `signers` of each transaction. Raises
    HardRuleError, BlockError. The header's fee and version are not checked: they never were.
    """
    time, sequence = block.header.time, block.header.sequence
    spent: dict[bytes, Unspent] = {}
    made: dict[bytes, Unspent] = {}
    per_transaction = []
    fee = 0
    if not block.transactions:
        raise BlockError("empty", "The block has no transactions.")
    for transaction, owners in zip(block.transactions, signed, strict=True):
        check_form(transaction)
        inputs = find_inputs(transaction, find)
        fee += check_spending(transaction, inputs, owners, head.header.time, block=True)
        for unspent in inputs:
            if unspent.id in spent:
                raise HardRuleError("double spend", "Two transactions of the block spend the same output.")
            spent[unspent.id] = unspent
        for unspent in transaction.unspents(time, sequence):
            if unspent.id in made or find(unspent.id) is not None:
                raise HardRuleError("output exists", "An output of the block exists already.")
            made[unspent.id] = unspent
        per_transaction.append(inputs)
    total = head.unspents
    for unspent in (*spent.values(), *made.values()):
        total = xor(total, unspent.snapshot)
    after = Head(block.header, block.hash, total)
    return Applied(tuple(spent.values()), tuple(made.values()), fee, after, tuple(per_transaction))


def genesis_head(genesis: Block) -> tuple[Head, tuple[Unspent, ...]]:
    """The head after the first block, and what it makes."""
    made = tuple(genesis.transactions[0].unspents(genesis.header.time, 0))
    total = genesis.header.unspents
    for unspent in made:
        total = xor(total, unspent.snapshot)
    return Head(genesis.header, genesis.hash, total), made


def choose_transactions(
    candidates: Mapping[Transaction, int], limits: Limits, block_size: int
) -> tuple[Transaction, ...]:
    """What goes into the next block, of transactions (and their fees in hours) that break no rule.

    The highest fee for each byte first, then the smallest id; up to `block_size` bytes; of two that spend the
    same output the first.
    """
    order = sorted(candidates, key=lambda each: (-_rate(candidates[each], len(each.raw)), each.id))
    chosen: list[Transaction] = []
    spent: set[bytes] = set()
    size = 0
    for transaction in order:
        if size + len(transaction.raw) > block_size or len(chosen) == MOST_PARTS:
            break
        size += len(transaction.raw)
        chosen.append(transaction)
    kept = []
    for transaction in chosen:
        if spent.isdisjoint(transaction.inputs):
            spent.update(transaction.inputs)
            kept.append(transaction)
    return tuple(kept)


def _rate(fee: int, size: int) -> int:
    return min(fee * 1024, MOST) // size
