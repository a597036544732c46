"""What the owner of many addresses asks of a node: their outputs, which were used, their history together.

As in `questions`, each look into the store runs in its reading thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated, Any, Final

from attrs import frozen
from twisted.internet.defer import Deferred

from coin.chain.address import Address, address_text, parse_address
from coin.chain.amounts import coins_text
from coin.chain.transaction import Transaction, Unspent
from coin.readable import header_json, transaction_json, unspent_json
from coin.replication.store_books import StoreBooks
from coin.store.pool import Loose
from meshnet.errors import UsageError
from meshnet.node.app import Json
from meshnet.node.schema import Between, read_query

MOST_ADDRESSES: Final = 1_000
"""Addresses of one question."""
MOST_OFFSET: Final = 1_000_000
NANO: Final = 1_000_000_000


@frozen
class OfOwner:
    """One address, or several with commas between."""

    address: str = ""
    addresses: str = ""

    def all(self) -> list[Address]:
        """All that are named, once each."""
        texts = [each for each in f"{self.address},{self.addresses}".split(",") if each]
        if not 0 < len(texts) <= MOST_ADDRESSES:
            raise UsageError(f"Give 1 to {MOST_ADDRESSES} addresses with commas between.")
        return list(dict.fromkeys(map(parse_address, texts)))


@frozen
class PageOfOwner(OfOwner):
    """A page of what touches any of them."""

    offset: Annotated[int, Between(0, MOST_OFFSET)] = 0
    limit: Annotated[int, Between(1, 100)] = 25


class Holdings:
    """Answers for a store and its pool."""

    def __init__(self, books: StoreBooks) -> None:
        self._books = books

    def outputs(self, body: Json) -> Deferred[Json]:
        """What the addresses own, output by output, the newest first, and what the pool changes."""
        addresses = read_query(OfOwner, body).all()

        def look() -> Json:
            store, pool = self._books.store, self._books.pool
            head = store.head
            unspents = [each for address in addresses for each in store.unspents(address)]
            taken = [each for each in unspents if pool.spenders(each.id)]
            coming = self._coming(addresses)
            time = head.header.time
            return {
                "head": header_json(head.header, head.hash),
                **{
                    name: [unspent_json(each, time) for each in newest_first(some)]
                    for name, some in (
                        ("head_outputs", unspents),
                        ("outgoing_outputs", taken),
                        ("incoming_outputs", coming),
                    )
                },
            }

        return self._books.read(look)

    def _touching(self, addresses: Sequence[Address]) -> list[Loose]:
        """The loose transactions that touch any of the addresses, once each."""
        found = [each for address in addresses for each in self._books.pool.touching(address)]
        return list({each.transaction.id: each for each in found}.values())

    def _coming(self, addresses: Sequence[Address]) -> list[Unspent]:
        head, own = self._books.store.head.header, set(addresses)
        return [
            each
            for loose in self._touching(addresses)
            if loose.refused is None
            for each in loose.transaction.unspents(head.time, head.sequence + 1)
            if each.address in own
        ]

    def used(self, body: Json) -> Deferred[Json]:
        """Which of the addresses have any history, in a block or waiting."""
        addresses = read_query(OfOwner, body).all()

        def look() -> Json:
            store, pool = self._books.store, self._books.pool
            used = [each for each in addresses if store.transaction_count(each) or pool.touching(each)]
            return {"used": [address_text(each) for each in used]}

        return self._books.read(look)

    def history(self, body: Json) -> Deferred[Json]:
        """The transactions that touch any of the addresses, the newest first, with what they spend; on the
        first page those that wait, too."""
        asked = read_query(PageOfOwner, body)
        addresses = asked.all()

        def look() -> Json:
            store, head = self._books.store, self._books.store.head.header
            page = store.page(addresses, asked.offset, asked.limit, newest=True)
            rows = [
                {
                    "confirmed": True,
                    "block_seq": each.block,
                    "confirmations": head.sequence - each.block + 1,
                    "time": each.time,
                    **self._spent_and_made(each.transaction, each.block),
                }
                for each in page.transactions
            ]
            waiting = [] if asked.offset else self._touching(addresses)
            loose = [
                {
                    "confirmed": False,
                    "time": each.received // NANO,
                    "why": str(each.refused or ""),
                    **self._spent_and_made(each.transaction, 1),
                }
                for each in waiting
            ]
            return {"total": page.total, "pending": loose, "transactions": rows}

        return self._books.read(look)

    def _spent_and_made(self, transaction: Transaction, block: int) -> Json:
        """A transaction whose inputs say whose they were."""
        shown: dict[str, Any] = transaction_json(transaction, block)
        inputs = []
        for each in transaction.inputs:
            kept = self._books.store.output(each)
            found = {"uxid": each.hex()}
            if kept is not None:
                coins = coins_text(kept.unspent.coins)
                found.update(owner=address_text(kept.unspent.address), coins=coins)
            inputs.append(found)
        return {"transaction": {**shown, "inputs": inputs}}


def newest_first(unspents: Sequence[Unspent]) -> list[Unspent]:
    """Outputs as answers order them: by time, then by id."""
    return sorted(unspents, key=lambda each: (-each.time, each.id))
