"""Nodes of one local network find each other: beacons, signed, and whom of those heard to dial (sans-IO).

    version u8 = 1 | network u32 | key 33 | issued u32 | port u16 | signature 64          108 bytes

`issued` is Unix seconds; `port` is where the sender's links listen (TCP), at the address that the datagram
came from. The signature is BIP 340, tag "meshnet/beacon", over all before it. Whoever copies a beacon to
another address gains a dial that fails there: the link's handshake asks for the key.

Not everybody dials everybody, since a full mesh of a busy network is a load that grows with its square: each
node dials a few, by a hash of both keys, so that each takes others, and all hang together. Nothing here
dials, and nothing is kept of whom nobody hears any longer.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from hashlib import sha256
from typing import Annotated, Final

from attrs import define, frozen

from meshnet.cipher.keys import BadKeyError, PublicKey, SecretKey, public_key
from meshnet.cipher.signing import SIGNATURE_SIZE, sign, verify
from meshnet.codec import U8, U16, U32, Fixed, decode, encode, message
from meshnet.errors import CodecError
from meshnet.limits import BEACON_BURST, BEACON_RATE, LAN_DIALLED, LAN_HEARD

VERSION: Final = 1
TAG: Final = b"meshnet/beacon"
SIZE: Final = 44 + SIGNATURE_SIZE
EVERY: Final = 20.0  # seconds between beacons, a quarter more or less
ANSWER: Final = 1.0  # seconds after which a node nobody had heard of hears us, too
AHEAD: Final = 7_200  # seconds that clocks may differ
FORGET: Final = 100.0  # seconds without a beacon until a node is forgotten
GATHER: Final = 2.0  # seconds between the first of several and the choice among them


@message
class Beacon:
    """A beacon without its signature."""

    version: U8
    network: U32
    key: Annotated[bytes, Fixed(33)]
    issued: U32
    port: U16


@frozen
class Found:
    """Dial this node at this host and TCP port."""

    key: PublicKey
    host: str
    port: int


@frozen
class Lost:
    """Nobody has heard it for a while."""

    key: PublicKey


@define(eq=False)
class _Heard:
    host: str
    port: int
    issued: int
    at: float


def make_beacon(secret: SecretKey, network: int, issued: int, port: int) -> bytes:
    """The datagram, 108 bytes."""
    body = encode(Beacon(VERSION, network, secret.public, issued, port))
    return body + sign(secret, TAG, body)


def read_beacon(data: bytes) -> Beacon:
    """What a beacon says, whoever signed it; raises CodecError."""
    if len(data) != SIZE:
        raise CodecError(f"a beacon has {SIZE} bytes, and this one has {len(data)}")
    beacon = decode(Beacon, data[:-SIGNATURE_SIZE])
    if beacon.version != VERSION or not beacon.port:
        raise CodecError("a beacon is of version 1 and names a port")
    return beacon


def signed(beacon: Beacon, data: bytes) -> PublicKey:
    """Whose it is; raises CodecError if it is not."""
    if not verify(beacon.key, TAG, data[:-SIGNATURE_SIZE], data[-SIGNATURE_SIZE:]):
        raise CodecError("the signature of a beacon does not hold")
    try:
        return public_key(beacon.key)
    except BadKeyError as error:
        raise CodecError(f"a beacon has a key that is none: {error}") from None


class Beacons:
    """One per node. `port` is where its links listen; `wanted` says whether a key may be dialled for having
    been heard; `linked` are the keys with links now; `random` gives n bytes."""

    def __init__(
        self,
        secret: SecretKey,
        network: int,
        port: int,
        wanted: Callable[[PublicKey], bool],
        linked: Callable[[], Collection[PublicKey]],
        random: Callable[[int], bytes],
    ) -> None:
        self._secret = secret
        self._network = network
        self._port = port
        self._wanted = wanted
        self._linked = linked
        self._random = random
        self._heard: dict[PublicKey, _Heard] = {}
        self._dialled: dict[PublicKey, tuple[str, int]] = {}
        self._due = 0.0
        self._choose_at: float | None = None
        self._tokens, self._tokens_at = float(BEACON_BURST), 0.0
        self._issued = 0
        self.received = 0
        """Beacons of others that were believed."""
        self.dropped = 0
        """Datagrams that were no beacons of this network, were late, or were too many."""

    @property
    def heard(self) -> int:
        """How many nodes are heard."""
        return len(self._heard)

    def deadline(self) -> float:
        """When `tick` has something to do."""
        return self._due if self._choose_at is None else min(self._due, self._choose_at)

    def receive(self, data: bytes, host: str, now: float, unix: float) -> None:
        """A datagram from an address of this network; whatever it is, nothing is raised."""
        try:
            beacon = read_beacon(data)
        except CodecError:
            self.dropped += 1
            return
        if beacon.key == self._secret.public:
            return
        known = self._heard.get(PublicKey(beacon.key))
        late = abs(beacon.issued - unix) > AHEAD or (known is not None and beacon.issued <= known.issued)
        full = known is None and len(self._heard) >= LAN_HEARD
        if beacon.network != self._network or late or full or not self._allowed(now):
            self.dropped += 1
            return
        try:
            key = signed(beacon, data)
        except CodecError:
            self.dropped += 1
            return
        self.received += 1
        if known is None:
            self._due = min(self._due, now + ANSWER)
            if self._choose_at is None:
                self._choose_at = now + GATHER
        elif self._dialled.get(key, (host, beacon.port)) != (host, beacon.port) and key not in self._linked():
            self._choose_at = now
        self._heard[key] = _Heard(host, beacon.port, beacon.issued, now)

    def tick(self, now: float, unix: float) -> tuple[bytes | None, list[Found | Lost]]:
        """A beacon to send, if it is time, and what has become of whom is dialled."""
        gone: list[Found | Lost] = [Lost(key) for key in self._forgotten(now)]
        if gone or (now >= self._due and len(self._dialled) < LAN_DIALLED):
            self._choose_at = now
        found = self._choose() if self._choose_at is not None and now >= self._choose_at else []
        if now < self._due:
            return None, gone + found
        share = int.from_bytes(self._random(2), "big") / 65_536
        self._due = now + EVERY * (0.75 + share / 2)
        self._issued = max(int(unix), self._issued + 1)
        return make_beacon(self._secret, self._network, self._issued, self._port), gone + found

    def _allowed(self, now: float) -> bool:
        self._tokens = min(self._tokens + (now - self._tokens_at) * BEACON_RATE, BEACON_BURST)
        self._tokens_at = now
        if self._tokens < 1.0:
            return False
        self._tokens -= 1.0
        return True

    def _forgotten(self, now: float) -> list[PublicKey]:
        """Forgets the silent; those of them that were dialled."""
        silent = [key for key, heard in self._heard.items() if now - heard.at > FORGET]
        for key in silent:
            del self._heard[key]
        return [key for key in silent if self._dialled.pop(key, None) is not None]

    def _choose(self) -> list[Found | Lost]:
        """Fills free places with the nearest by hash; who has moved is dialled at the new address."""
        self._choose_at = None
        linked = self._linked()
        told: list[Found | Lost] = []
        for key in list(self._dialled):
            heard = self._heard[key]
            if self._dialled[key] != (heard.host, heard.port) and key not in linked:
                self._dialled[key] = (heard.host, heard.port)
                told += [Lost(key), Found(key, heard.host, heard.port)]
        ranked = sorted(self._heard, key=lambda key: sha256(self._secret.public + key).digest())
        for key in ranked:
            if len(self._dialled) >= LAN_DIALLED:
                break
            if key not in self._dialled and key not in linked and self._wanted(key):
                heard = self._heard[key]
                self._dialled[key] = (heard.host, heard.port)
                told.append(Found(key, heard.host, heard.port))
        return told
