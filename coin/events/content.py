"""What a block did, as events tell it: each transaction, and whom it touched with what.

Events have a place, `height.index`, written in decimal. At one height come, in this order,

    index 0          block         the block itself
    1 …              address       for each transaction in order, each address that it touches: first those
                                   that it spends from, then those that it gives to, in its order
    behind them      transaction   for each transaction of block height - n + 1, which has n confirmations now

so a place depends on the chain alone (and, for the last kind, on n), not on what somebody wants to hear of.
Two kinds have no place and are told once, when it happens: `pending`, of a loose transaction that comes, and
`withdrawal`, of one of this node's that has come further.

Pure: blocks come in, texts go out. Coins and hours are decimal texts.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from typing import Any, Final, Literal

from attrs import frozen

from coin.chain.address import Address, address_text
from coin.chain.amounts import coins_text
from coin.chain.block import Block
from coin.chain.transaction import Transaction, Unspent

Kind = Literal["block", "address", "transaction", "pending", "withdrawal"]
KINDS: Final[tuple[Kind, ...]] = ("block", "address", "transaction", "pending")
"""Those of the chain, which everybody may hear of."""
ALL_KINDS: Final[tuple[Kind, ...]] = (*KINDS, "withdrawal")


@frozen
class Touch:
    """What a transaction does to an address: droplets that it spends of it, outputs that it gives to it."""

    address: Address
    spent: int
    outputs: tuple[Unspent, ...]

    @property
    def received(self) -> int:
        """Droplets that it gives to it."""
        return sum(each.coins for each in self.outputs)


@frozen
class Moved:
    """A transaction and whom it touches."""

    id: bytes
    touches: tuple[Touch, ...]


@frozen
class Event:
    """An event on its way: `place` is its `height.index`, empty for a pending one, `text` its JSON."""

    kind: Kind
    place: str
    text: str


class Content:
    """A block's events. `touched` are all addresses, `places` how many events are before those of kind
    `transaction`. Texts are made when they are asked for, once."""

    def __init__(self, block: Block, spent: Sequence[Sequence[Unspent]]) -> None:
        header = block.header
        self.sequence = header.sequence
        self.hash = block.hash
        self.previous = header.previous
        self.time = header.time
        self.moved = tuple(
            moved_of(it, inputs, header.time, header.sequence)
            for it, inputs in zip(block.transactions, spent, strict=True)
        )
        self.touched = frozenset(touch.address for each in self.moved for touch in each.touches)
        self.places = 1 + sum(len(each.touches) for each in self.moved)
        self._texts: dict[object, str] = {}

    @property
    def touches(self) -> Iterator[tuple[int, Moved, Touch]]:
        """Each address event's index, transaction and touch."""
        index = 0
        for each in self.moved:
            for touch in each.touches:
                index += 1
                yield index, each, touch

    def block(self) -> Event:
        """The block itself."""
        place = f"{self.sequence}.0"
        text = self._texts.get(0)
        if text is None:
            known = {"previous_block_hash": self.previous.hex(), "transactions": len(self.moved)}
            text = self._texts[0] = _text("block", place, **self._where(), **known)
        return Event("block", place, text)

    def address(self, index: int, moved: Moved, touch: Touch) -> Event:
        """One of `touches`."""
        place = f"{self.sequence}.{index}"
        text = self._texts.get(index)
        if text is None:
            text = self._texts[index] = _text(
                "address", place, txid=moved.id.hex(), **self._where(), **touch_json(touch)
            )
        return Event("address", place, text)

    def transaction(self, number: int, place: str, confirmations: int) -> Event:
        """The transaction of a number in the block, now that it has so many confirmations; `place` is in
        another block if these are more than one."""
        text = self._texts.get((number, confirmations))
        if text is None:
            it = self.moved[number]
            addresses = [address_text(touch.address) for touch in it.touches]
            text = self._texts[number, confirmations] = _text(
                "transaction",
                place,
                txid=it.id.hex(),
                **self._where(),
                confirmations=confirmations,
                addresses=addresses,
            )
        return Event("transaction", place, text)

    def _where(self) -> dict[str, Any]:
        return {"block_seq": self.sequence, "block_hash": self.hash.hex(), "timestamp": self.time}


def touch_of(it: Transaction, inputs: Sequence[Unspent], block: int, address: Address) -> Touch:
    """What a transaction that spends `inputs` does to one address."""
    source = it.id if block else bytes(32)
    given = (out for out in it.outputs if out.address == address)
    outputs = tuple(Unspent(0, block, source, address, out.coins, out.hours) for out in given)
    return Touch(address, sum(each.coins for each in inputs if each.address == address), outputs)


def moved_of(it: Transaction, inputs: Sequence[Unspent], time: int, block: int) -> Moved:
    """What a transaction does that spends `inputs`."""
    spent: dict[Address, int] = {}
    given: dict[Address, list[Unspent]] = {}
    for each in inputs:
        spent[each.address] = spent.get(each.address, 0) + each.coins
    for each in it.unspents(time, block):
        given.setdefault(each.address, []).append(each)
    owners = dict.fromkeys((*spent, *given))
    return Moved(it.id, tuple(Touch(each, spent.get(each, 0), tuple(given.get(each, ()))) for each in owners))


def touch_json(touch: Touch) -> dict[str, Any]:
    """A touch for programs."""
    return {
        "address": address_text(touch.address),
        "received": coins_text(touch.received),
        "spent": coins_text(touch.spent),
        "outputs": [
            {"uxid": each.id.hex(), "coins": coins_text(each.coins), "hours": str(each.hours)}
            for each in touch.outputs
        ],
    }


def pending(
    it: Transaction, owners: Sequence[Address], unix: int, why: str
) -> tuple[Event, frozenset[Address]]:
    """A loose transaction that has just come, of inputs that `owners` own, and whom it touches; `why` says
    why it goes into no block yet, empty if it may."""
    given = it.unspents(0, 1)
    touched = tuple(dict.fromkeys((*owners, *(each.address for each in given))))
    outputs = [
        {
            "uxid": each.id.hex(),
            "address": address_text(each.address),
            "coins": coins_text(each.coins),
            "hours": str(each.hours),
        }
        for each in given
    ]
    text = _text(
        "pending",
        "",
        txid=it.id.hex(),
        timestamp=unix,
        valid=not why,
        why=why,
        addresses=[address_text(each) for each in touched],
        outputs=outputs,
    )
    return Event("pending", "", text), frozenset(touched)


def withdrawal(told: dict[str, Any]) -> Event:
    """A withdrawal of this node, as JSON values, in a new state."""
    return Event("withdrawal", "", _text("withdrawal", "", withdrawal=told))


def _text(kind: Kind, place: str, **known: Any) -> str:
    return json.dumps({"kind": kind, **({"id": place} if place else {}), **known}, separators=(",", ":"))
