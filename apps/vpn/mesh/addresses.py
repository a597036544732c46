"""Whose an address of the mesh is, and what a node is called. Pure.

A node's address is `fc` and 120 bits of a hash of its key (docs/wire-format.md §0), so nobody can tell the
key by the address: it must be known already. Known here are those of [[known]], neighbours, callers, and
those whose name was asked for, if it holds the key itself; the topology is asked by others. Names are
`<name>.mesh` with a name of [[known]], or `<key>.mesh` with the key in base32.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from ipaddress import IPv6Address, IPv6Network
from typing import Final

from meshnet.cipher.address import Target
from meshnet.cipher.keys import BadKeyError, PublicKey, dns_label, mesh_ipv6, parse_dns_label
from meshnet.limits import TUN_LEARNED

ZONE: Final = "mesh"
NETWORK: Final = IPv6Network("fc00::/8")
"""Where all addresses of the mesh lie."""


class Addresses:
    """Keys by address, names by key. Keys that were only heard of are remembered up to TUN_LEARNED."""

    def __init__(self, own: PublicKey, name: str) -> None:
        self.own = own
        self._own_name = name
        self._keys: dict[bytes, PublicKey] = {}
        self._names: dict[PublicKey, str] = {}
        self._by_name: dict[str, PublicKey] = {}
        self._learned: OrderedDict[bytes, PublicKey] = OrderedDict()

    def take(self, names: Mapping[str, Target], others: Iterable[PublicKey] = ()) -> None:
        """Knows these from now on, instead of those given before. Hidden services have no address."""
        nodes = {name: target for name, target in names.items() if isinstance(target, bytes)}
        named = {self._own_name: self.own, **{name: PublicKey(key) for name, key in nodes.items()}}
        self._by_name = {name.lower(): key for name, key in named.items()}
        self._names = {key: name for name, key in named.items()}
        self._keys = {mesh_ipv6(key).packed: key for key in (*named.values(), *others)}

    def learn(self, key: PublicKey) -> IPv6Address:
        """Remembers a key; its address."""
        address = mesh_ipv6(key)
        packed = address.packed
        if packed not in self._keys:
            self._learned[packed] = key
            self._learned.move_to_end(packed)
            if len(self._learned) > TUN_LEARNED:
                self._learned.popitem(last=False)
        return address

    def key(self, address: bytes) -> PublicKey | None:
        """Whose address this is, 16 bytes; None if nobody known has it."""
        return self._keys.get(address) or self._learned.get(address)

    def find(self, name: str) -> IPv6Address | None:
        """The address of a name below `.mesh`, without that; None if there is none."""
        name = name.lower()
        key = self._by_name.get(name)
        if key is None:
            try:
                key = parse_dns_label(name)
            except BadKeyError:
                return None
        return self.learn(key)

    def name(self, key: PublicKey) -> str:
        """What a node is called here, else its key as a label."""
        return self._names.get(key) or dns_label(key)
