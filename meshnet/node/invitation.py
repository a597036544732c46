"""Invites that a running node makes: itself where it can be dialled, and neighbours that it dials.

A newcomer needs addresses that work from where he is. This node's own listeners come first, then neighbours
of its config that stand, in the order of the config: the operator vouches for those, and says who matters.
A listener on all of a machine's addresses is named by those that the machine would send from; `addresses`
says it better where there is a translation in between.
"""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import Annotated, Final

from attrs import frozen

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import UsageError
from meshnet.limits import INVITE_ADDRESS, INVITE_ADDRESSES, INVITE_PEERS
from meshnet.node.app import Json
from meshnet.node.config import LinkSettings
from meshnet.node.schema import Between
from meshnet.topology.invite import FirstPeer, longest

WEEK: Final = 7 * 86_400
LONGEST: Final = 366 * 86_400
PEERS: Final = 3
_ELSEWHERE: Final = {4: (socket.AF_INET, "192.0.2.1"), 6: (socket.AF_INET6, "2001:db8::1")}
"""Addresses of documentation (RFC 5737, RFC 3849): which of ours would packets to far away come from?"""


@frozen
class InviteRequest:
    """Makes an invite."""

    seconds: Annotated[int, Between(60, LONGEST)] = WEEK
    """How long it can be used."""
    peers: Annotated[int, Between(1, INVITE_PEERS)] = PEERS
    """So many at most; fewer where not so many can be dialled, or fit."""
    addresses: tuple[str, ...] = ()
    """Where newcomers can dial this node; left out: where it listens."""


class Inviter:
    """Signs invites by the node's key. `machine` tells this machine's address of IP version 4 or 6 as seen
    from outside, None if there is none."""

    def __init__(
        self,
        secret: SecretKey,
        network: int,
        unix: Callable[[], float],
        machine: Callable[[int], str | None] | None = None,
    ) -> None:
        self._secret = secret
        self._network = network
        self._unix = unix
        self._machine = machine or own_address

    def make(
        self,
        request: InviteRequest,
        listening: Sequence[str],
        links: Iterable[Json],
        settings: LinkSettings,
    ) -> Json:
        """`invite`, `expires` (Unix seconds), `peers` (key and addresses), `notes`. Raises UsageError where
        nobody can be dialled."""
        named = tuple(request.addresses) or self._reachable(listening)
        peers = [FirstPeer(self._secret.public, named[:INVITE_ADDRESSES])] if named else []
        peers += self._neighbours(links, settings)
        if not peers:
            raise UsageError(
                "Nobody could dial this node; set [link] listen, or say where it is reached with --address."
            )
        for address in (address for peer in peers for address in peer.addresses):
            if len(address) > INVITE_ADDRESS:
                raise UsageError(f"The address {address[:40]}… is longer than {INVITE_ADDRESS} characters.")
        expires = int(self._unix()) + request.seconds
        text, told = longest(self._secret, self._network, expires, peers[: request.peers])
        return {
            "invite": text,
            "network": self._network,
            "expires": expires,
            "peers": [{"key": peer.key.hex(), "addresses": list(peer.addresses)} for peer in told],
            "notes": _notes(told, settings.accept, len(peers[: request.peers]) - len(told)),
        }

    def _reachable(self, listening: Sequence[str]) -> tuple[str, ...]:
        """Listeners as others may dial them, those of everywhere before those of this machine alone."""
        found = [named for each in listening for named in _named(each, self._machine)]
        return tuple(sorted(dict.fromkeys(found), key=_local))

    @staticmethod
    def _neighbours(links: Iterable[Json], settings: LinkSettings) -> list[FirstPeer]:
        """Configured neighbours that stand, in the config's order, the address that served first."""
        served = {link["peer"]: link["address"] for link in links if link["up"]}
        return [
            FirstPeer(peer.key, _first(peer.addresses, served[peer.key.hex()])[:INVITE_ADDRESSES])
            for peer in settings.peer
            if peer.key.hex() in served
        ]


def own_address(version: int) -> str | None:
    """The address that this machine sends from to far away; None if it has no way there. Sends nothing."""
    family, elsewhere = _ELSEWHERE[version]
    with suppress(OSError), socket.socket(family, socket.SOCK_DGRAM) as probe:
        probe.connect((elsewhere, 9))
        return str(probe.getsockname()[0])
    return None


def _first(addresses: tuple[str, ...], served: str) -> tuple[str, ...]:
    """The same, the one that served before the others."""
    return tuple(sorted(addresses, key=lambda each: each != served))


def _host(address: str) -> tuple[str, str, str] | None:
    """Transport, host and port of an address that has them."""
    transport, _, rest = address.partition(":")
    host, colon, port = rest.rpartition(":")
    return (transport, host.strip("[]"), port) if colon and transport and host and port.isdigit() else None


def _named(address: str, machine: Callable[[int], str | None]) -> list[str]:
    parts = _host(address)
    if parts is None:
        return [address]
    transport, host, port = parts
    if host not in ("0.0.0.0", "::"):  # noqa: S104  (compared, not bound)
        return [address]
    versions = (4,) if host != "::" else (6, 4)
    hosts = [found for found in map(machine, versions) if found is not None]
    return [f"{transport}:{f'[{each}]' if ':' in each else each}:{port}" for each in hosts]


def _local(address: str) -> bool:
    """Whether only this machine can dial it."""
    parts = _host(address)
    if parts is None:
        return True
    with suppress(ValueError):
        found: IPv4Address | IPv6Address = ip_address(parts[1])
        return found.is_loopback
    return parts[1] == "localhost"


def _notes(told: Sequence[FirstPeer], accept: Sequence[PublicKey] | str, left: int) -> list[str]:
    notes = []
    if all(_local(address) for peer in told for address in peer.addresses):
        notes.append("Its addresses are of this machine alone; --address says where others reach it.")
    if accept != "any":
        notes.append("This node accepts only the keys of [link] accept; add the newcomer's there.")
    if left:
        notes.append(f"{left} more {'peers' if left > 1 else 'peer'} did not fit into the text.")
    return notes
