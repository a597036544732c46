"""What people and programs ask of the chain: the bodies of the control routes, and their answers.

Each look into the store runs in its reading thread; nothing here waits for it.
"""

from __future__ import annotations

from typing import Annotated, Any

from attrs import frozen
from twisted.internet.defer import Deferred

from coin.chain.address import Address, address_text, parse_address
from coin.chain.amounts import coins_text
from coin.chain.block import Block, decode_block
from coin.chain.params import Chain
from coin.chain.rules import HardRuleError, UserRuleError, check_user
from coin.chain.rules import Head as ChainHead
from coin.chain.transaction import Transaction, decode_transaction
from coin.readable import block_json, transaction_json, unspent_json
from coin.replication.network import Network
from coin.replication.store_books import StoreBooks
from coin.store.figures import Balance
from coin.store.pool import Taken
from meshnet.errors import CodecError, LocalError, RefusedError, UsageError
from meshnet.limits import COIN_BLOCKS, COIN_SENT_FRAME
from meshnet.node.app import Json
from meshnet.node.schema import Between, Parse, read_body, read_query

MOST_ADDRESSES = 1_000
NANO = 1_000_000_000
SEQUENCES = (1 << 63) - 1
NOT_KEPT = "The transaction could not be kept; the node's log says why."


def _address(text: str) -> Address:
    return parse_address(text)


def _hash(text: str) -> bytes:
    try:
        data = bytes.fromhex(text)
    except ValueError:
        data = b""
    if len(data) != 32:
        raise ValueError("is not 64 hex digits")
    return data


Hash = Annotated[bytes, Parse(_hash, "64 hex digits")]
Owner = Annotated[Address, Parse(_address, "an address")]


@frozen
class Nothing:
    """No keys."""


@frozen
class Which:
    """A block by number or hash; empty: the last."""

    which: str = ""


@frozen
class From:
    """Blocks from number `first` on, at most so many."""

    first: Annotated[int, Between(0, SEQUENCES)]
    count: Annotated[int, Between(1, COIN_BLOCKS)] = COIN_BLOCKS


@frozen
class ById:
    """An id."""

    id: Hash


@frozen
class OfAddress:
    """An address and a page of its history: `before` is the number that the page before ended with."""

    address: Owner
    limit: Annotated[int, Between(1, 100)] = 25
    before: int | None = None


@frozen
class OfAddresses:
    """Addresses with commas between."""

    addresses: str


@frozen
class HowMany:
    """How many."""

    count: Annotated[int, Between(1, 1_000)] = 20


@frozen
class Raw:
    """A signed transaction in hex."""

    raw: str


class Questions:
    """Answers them for a chain, its books and its network."""

    def __init__(self, chain: Chain, books: StoreBooks, network: Network) -> None:
        self._chain = chain
        self._books = books
        self._network = network

    @property
    def _head(self) -> ChainHead:
        return self._books.store.head

    def block(self, body: Json) -> Deferred[Json]:
        """One block."""
        which = read_query(Which, body).which
        if not which:
            key: int | bytes = self._head.header.sequence
        elif which.isascii() and which.isdigit() and len(which) <= 18:
            key = int(which)
        else:
            try:
                key = _hash(which)
            except ValueError:
                raise UsageError(f"{which[:70]!r} is neither the number nor the hash of a block.") from None

        def found(block: Block | None) -> Json:
            if block is None:
                raise UsageError(f"There is no block {which}; the last is {self._head.header.sequence}.")
            return block_json(block)

        return self._books.read(self._books.store.block, key).addCallback(found)

    def blocks(self, body: Json) -> Deferred[Json]:
        """Blocks one behind the other, as many as fit into an answer; none beyond the last."""
        asked, store = read_query(From, body), self._books.store

        def look() -> Json:
            raw = store.raw_blocks(asked.first, asked.count, COIN_SENT_FRAME)
            return {"blocks": [block_json(decode_block(each)) for each in raw]}

        return self._books.read(look)

    def transaction(self, body: Json) -> Deferred[Json]:
        """A transaction, confirmed or not, with its block and confirmations."""
        number = read_query(ById, body).id

        def look() -> Json:
            confirmed = self._books.store.transaction(number)
            if confirmed is not None:
                return _confirmed_json(confirmed, self._head.header.sequence)
            loose = self._books.pool.get(number)
            if loose is None:
                raise UsageError(f"There is no transaction {number.hex()}, neither in a block nor waiting.")
            return {
                "confirmed": False,
                "received": loose.received // NANO,
                "valid": loose.refused is None,
                "why": str(loose.refused or ""),
                "transaction": transaction_json(loose.transaction),
            }

        return self._books.read(look)

    def address(self, body: Json) -> Deferred[Json]:
        """What an address owns and a page of its history."""
        asked = read_query(OfAddress, body)

        def look() -> Json:
            store, height = self._books.store, self._head.header.sequence
            page = store.history(asked.address, asked.limit, before=asked.before)
            return {
                "address": address_text(asked.address),
                **_balance_json(store.balance([asked.address])[asked.address]),
                "transactions": [_confirmed_json(each, height) for each in page],
                "next": page[-1].number if len(page) == asked.limit else None,
            }

        return self._books.read(look)

    def output(self, body: Json) -> Deferred[Json]:
        """An output, spent or not."""
        number = read_query(ById, body).id

        def look() -> Json:
            kept = self._books.store.output(number)
            if kept is None:
                raise UsageError(f"There is no output {number.hex()}.")
            found = unspent_json(kept.unspent, self._head.header.time)
            by = kept.spent_by.hex() if kept.spent_by is not None else None
            return {**found, "spent_tx": by, "spent_block_seq": kept.spent_in}

        return self._books.read(look)

    def balance(self, body: Json) -> Deferred[Json]:
        """Of several addresses together and each: in the chain, and with what is in the pool."""
        texts = [each for each in read_query(OfAddresses, body).addresses.split(",") if each]
        if not 0 < len(texts) <= MOST_ADDRESSES:
            raise UsageError(f"Give 1 to {MOST_ADDRESSES} addresses with commas between.")
        addresses = [parse_address(each) for each in texts]

        def look() -> Json:
            found = self._books.store.balance(addresses)
            each = {address_text(address): _balance_json(balance) for address, balance in found.items()}
            return {**_balance_json(sum(found.values(), Balance())), "addresses": each}

        return self._books.read(look)

    def pending(self, body: Json) -> Deferred[Json]:
        """The pool, the oldest first."""
        read_query(Nothing, body)

        def look() -> Json:
            return {
                "pending": [
                    {
                        "received": each.received // NANO,
                        "fee": each.fee,
                        "valid": each.refused is None,
                        "why": str(each.refused or ""),
                        "transaction": transaction_json(each.transaction),
                    }
                    for each in self._books.pool.all()
                ]
            }

        return self._books.read(look)

    def supply(self, body: Json) -> Deferred[Json]:
        """Coins and hours: all that is unspent, without what is locked, and what is locked."""
        read_query(Nothing, body)

        def look() -> Json:
            found = self._books.store.supply()
            return {
                "current_supply": coins_text(found.current),
                "total_supply": coins_text(found.total),
                "max_supply": coins_text(found.most),
                "current_coinhour_supply": found.current_hours,
                "total_coinhour_supply": found.total_hours,
                "unspents": found.unspents,
                "addresses": found.owners,
            }

        return self._books.read(look)

    def richlist(self, body: Json) -> Deferred[Json]:
        """Who owns most."""
        count = read_query(HowMany, body).count

        def look() -> Json:
            rows = self._books.store.richest(count)
            return {
                "richlist": [
                    {
                        "address": address_text(address),
                        "coins": coins_text(coins),
                        "locked": address in self._chain.locked,
                    }
                    for address, coins in rows
                ]
            }

        return self._books.read(look)

    def peers(self, body: Json) -> Json:
        """Peers, and who is banned."""
        read_query(Nothing, body)
        network = self._network
        return {
            "peers": [
                {
                    "address": peer.address,
                    "outgoing": peer.outgoing,
                    "introduced": peer.ready,
                    "agent": peer.extra.agent if peer.extra is not None else "",
                    "height": network.sync.height_of(peer.number),
                    "seconds": round(network.now - peer.born, 1),
                }
                for peer in network.peers.values()
            ],
            "banned": [
                {"peer": place, "seconds": round(ban.until - network.now), "why": ban.why}
                for place, ban in network.conduct.bans(network.now).items()
            ],
            "known": len(network.addresses),
        }

    def inject(self, body: Json) -> Deferred[Json]:
        """Takes a transaction that is signed; it is passed on to all peers."""
        transaction = _read_raw(read_body(Raw, body).raw)
        try:
            check_user(transaction)
        except UserRuleError as error:
            raise RefusedError(str(error)) from None
        answer: Deferred[Json] = Deferred()

        def injected(found: Taken | None) -> None:
            if found is None:
                answer.errback(LocalError(NOT_KEPT))
            elif found.full:
                answer.errback(
                    RefusedError("The pool is full of transactions that burn more; burn more hours.")
                )
            elif isinstance(found.refused, HardRuleError):
                answer.errback(RefusedError(str(found.refused)))
            else:
                why = str(found.refused or "")
                answer.callback({"txid": found.id.hex(), "new": found.new, "valid": not why, "why": why})

        self._network.inject(transaction, injected)
        return answer


def _confirmed_json(confirmed: Any, height: int) -> Json:
    return {
        "confirmed": True,
        "block_seq": confirmed.block,
        "confirmations": height - confirmed.block + 1,
        "time": confirmed.time,
        "number": confirmed.number,
        "transaction": transaction_json(confirmed.transaction, confirmed.block),
    }


def _balance_json(balance: Balance) -> Json:
    return {
        name: {"coins": coins_text(amount.coins), "hours": amount.hours}
        for name, amount in (("confirmed", balance.confirmed), ("predicted", balance.predicted))
    }


def _read_raw(text: str) -> Transaction:
    try:
        return decode_transaction(bytes.fromhex(text))
    except ValueError:
        raise UsageError("The transaction, raw, is not hex.") from None
    except CodecError as error:
        raise UsageError(f"These bytes, raw, are no transaction: {error}.") from None
