"""What makes one chain differ from another: its first block, its publisher, its limits, its names.

`SKYCOIN` is the chain that the coin is compatible with. `read_fiber` takes the parameter files of the same
family of chains (`[node]` and `[params]`, already parsed from TOML). A chain is named by the hash of its
first block: two chains with equal names and different first blocks do not talk to each other.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from attrs import evolve, field, frozen

from coin.chain.address import Address, parse_address
from coin.chain.block import LATEST, Block, genesis_block
from coin.chain.seal import PublisherSeal, Seal
from coin.chain.signatures import SIGNATURE_SIZE
from coin.chain.transaction import genesis_transaction
from meshnet.cipher.keys import PublicKey, parse_public_key
from meshnet.errors import ConfigError, UsageError

LEAST_BURN: Final = 2
LEAST_TRANSACTION: Final = 1_024
MOST_DECIMALS: Final = 6
_NAME = re.compile(r"[a-z][a-z0-9-]{0,31}")


@frozen
class Limits:
    """What is asked of a transaction beyond what the chain demands: `burn`: one part of so many of its input
    hours is burnt at least; `size`: bytes; `decimals`: of an amount of coins."""

    burn: int = 10
    size: int = 32 << 10
    decimals: int = 3

    @property
    def droplets(self) -> int:
        """Every amount is a multiple of so many droplets."""
        return int(10 ** (MOST_DECIMALS - self.decimals))

    def refusal(self) -> str:
        """Why these are no limits, a sentence; empty if they are."""
        if self.burn < LEAST_BURN:
            return f"a burn factor is {LEAST_BURN} or more, not {self.burn}"
        if self.size < LEAST_TRANSACTION:
            return f"the largest transaction has {LEAST_TRANSACTION} bytes or more, not {self.size}"
        if not 0 <= self.decimals <= MOST_DECIMALS:
            return f"an amount has 0 to {MOST_DECIMALS} decimals, not {self.decimals}"
        return ""


@frozen
class Names:
    """What people see."""

    display: str = "Skycoin"
    ticker: str = "SKY"
    hours: str = "Coin Hours"
    hour: str = "Coin Hour"
    hours_ticker: str = "SCH"
    uri: str = "skycoin"
    explorer: str = ""


@frozen
class Chain:
    """The parameters of a chain. `volume` is in droplets, `time` in unix seconds, `supply` in whole coins.

    `user`, `pool` and `block` are the limits for transactions made here, taken in from others, and put into
    blocks; `block_size` are bytes of transactions in a block made here. The first `unlocked` addresses of
    `distribution` may spend; the others are locked, which is a rule for loose transactions only.
    """

    name: str
    address: Address
    time: int
    volume: int
    publisher: PublicKey
    signature: bytes = field(repr=lambda value: value.hex())
    peers: tuple[str, ...] = ()
    port: int = 6_000
    user: Limits = Limits()
    pool: Limits = Limits()
    block: Limits = Limits()
    block_size: int = 32 << 10
    interval: float = 10.0
    supply: int = 100_000_000
    distribution: tuple[Address, ...] = field(default=(), repr=False)
    unlocked: int = 25
    names: Names = Names()
    bip44: int = 8_000
    locked: frozenset[Address] = field(init=False, repr=False)
    genesis: Block = field(init=False, repr=False)
    seal: Seal = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        first = genesis_block(genesis_transaction(self.address, self.volume), self.time, self.signature)
        object.__setattr__(self, "locked", frozenset(self.distribution[self.unlocked :]))
        object.__setattr__(self, "genesis", first)
        object.__setattr__(self, "seal", PublisherSeal(self.publisher))

    @property
    def share(self) -> int:
        """Whole coins that each distribution address began with."""
        return self.supply // len(self.distribution) if self.distribution else 0

    def check(self) -> None:
        """Raises ConfigError if this cannot be a chain: a bad name or limit, a first block nobody sealed."""
        if not _NAME.fullmatch(self.name):
            raise ConfigError(f"{self.name[:60]!r} is no name of a chain: small letters, digits and hyphens.")
        if not 0 < self.volume < 1 << 63:
            raise ConfigError(f"Chain {self.name}: the first block makes 1 to 2^63 - 1 droplets.")
        for limits in (self.user, self.pool, self.block):
            if why := limits.refusal():
                raise ConfigError(f"Chain {self.name}: {why}.")
        if refusal := self.seal.refusal(self.genesis):
            raise ConfigError(f"The first block of chain {self.name} is wrong: {refusal}")


def read_fiber(name: str, table: Mapping[str, Any]) -> Chain:
    """The chain that a parameter file describes; raises ConfigError that names the key."""
    node, params = _table(table, "node"), _table(table, "params")
    limits = Limits()
    made = Chain(
        name=name,
        address=_get(node, "genesis_address_str", parse_address),
        time=_get(node, "genesis_timestamp", _whole),
        volume=_get(node, "genesis_coin_volume", _whole, 100_000_000_000_000),
        publisher=_get(node, "blockchain_pubkey_str", parse_public_key),
        signature=_get(node, "genesis_signature_str", _signature),
        peers=tuple(_get(node, "default_connections", list, [])),
        port=_get(node, "port", int, 6_000),
        user=_limits(params, "user_", limits),
        pool=_limits(node, "unconfirmed_", limits),
        block=_limits(node, "create_block_", limits),
        block_size=_get(node, "max_block_transactions_size", int, 32 << 10),
        supply=_get(params, "max_coin_supply", int, 100_000_000),
        distribution=tuple(parse_address(each) for each in _get(params, "distribution_addresses", list, [])),
        unlocked=_get(params, "initial_unlocked_count", int, 25),
        names=_names(node),
        bip44=_get(node, "bip44_coin", int, 8_000),
    )
    made.check()
    return made


def _names(node: Mapping[str, Any]) -> Names:
    keys = {
        "display": "display_name",
        "ticker": "ticker",
        "hours": "coin_hours_display_name",
        "hour": "coin_hours_display_name_singular",
        "hours_ticker": "coin_hours_ticker",
        "uri": "qr_uri_prefix",
        "explorer": "explorer_url",
    }
    return evolve(Names(), **{ours: node[theirs] for ours, theirs in keys.items() if theirs in node})


def _limits(table: Mapping[str, Any], prefix: str, default: Limits) -> Limits:
    return Limits(
        _get(table, prefix + "burn_factor", int, default.burn),
        _get(table, prefix + "max_transaction_size", int, default.size),
        _get(table, prefix + "max_decimals", int, default.decimals),
    )


def _table(table: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = table.get(name, {})
    if not isinstance(found, Mapping):
        raise ConfigError(f"{name} is no table in the chain's parameters.")
    return found


def _get(table: Mapping[str, Any], key: str, read: Any, default: Any = None) -> Any:
    if key not in table:
        if default is None:
            raise ConfigError(f"The chain's parameters lack {key}.")
        return default
    try:
        return read(table[key])
    except (UsageError, TypeError, ValueError, OverflowError) as error:
        raise ConfigError(f"The chain's parameter {key} = {table[key]!r} is wrong: {error}") from None


def _whole(given: Any) -> int:
    """A number that a store can hold."""
    found = int(given)
    if not 0 <= found <= LATEST:
        raise ValueError("it is 0 to 2^63 - 1.")
    return found


def _signature(text: str) -> bytes:
    data = bytes.fromhex(text)
    if len(data) != SIGNATURE_SIZE:
        raise ConfigError(f"A signature has {2 * SIGNATURE_SIZE} hex digits.")
    return data
