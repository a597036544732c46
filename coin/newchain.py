"""A private chain in seconds: a publisher, the first coins, a first block, a chain file."""

from __future__ import annotations

from collections.abc import Sequence

from attrs import evolve

from coin.chain.address import Address, address_text
from coin.chain.amounts import DROPLETS
from coin.chain.params import Chain, Names
from coin.chain.signatures import sign
from meshnet.cipher.keys import SecretKey


def new_chain(name: str, coins: int, owner: Address, publisher: SecretKey, time: int) -> Chain:
    """A chain of so many whole coins that all belong to `owner` first; `time` is unix seconds. It
    is shown by its own name, not Skycoin's. Raises ConfigError for a bad name."""
    volume = coins * DROPLETS
    names = Names(display=name, ticker=name.upper())
    unsigned = Chain(name, owner, time, volume, publisher.public, bytes(65), supply=coins, names=names)
    chain = evolve(unsigned, signature=sign(publisher, unsigned.genesis.hash))
    chain.check()
    return chain


def chain_file(chain: Chain, peers: Sequence[str] = ()) -> str:
    """The chain as a file that this program and the Go family read."""
    lines = [
        "[node]",
        f'coin_name = "{chain.name}"',
        f'display_name = "{chain.names.display}"',
        f'ticker = "{chain.names.ticker}"',
        f'genesis_signature_str = "{chain.signature.hex()}"',
        f'genesis_address_str = "{address_text(chain.address)}"',
        f'blockchain_pubkey_str = "{chain.publisher.hex()}"',
        f"genesis_timestamp = {chain.time}",
        f"genesis_coin_volume = {chain.volume}",
        f"port = {chain.port}",
        f"default_connections = [{', '.join(f'{chr(34)}{each}{chr(34)}' for each in peers)}]",
        "",
        "[params]",
        f"max_coin_supply = {chain.supply}",
        "distribution_addresses = []",
    ]
    return "\n".join(lines) + "\n"
