"""Link-state records: what a node says of itself and of its links, signed (docs/wire-format.md §9).

    version u8 = 1 | network u32 | key 33 | issued u32 | life u16 min | flags u16 | country 2 | place i8 i16
    | subnet 2 | operator 8 | price u32 | epoch u16 | onion key 33 | count u16 | count × link | signature 64

    link    name 8 | delay u32 µs | jitter u16 | loss u16 | capacity u32 | price u32 | transport u8 | flags u8

A node is named by the first 8 bytes of SHA-256(key). `issued` is Unix seconds and also the version: of two
records of one key the later one holds. Unknown values are zero. `jitter` is in units of 16 µs, `loss` in
1/65,535, `capacity` in kbit/s, prices in units a MiB; `place` is latitude and longitude in whole degrees,
`subnet` the first half of an IPv4 address, `operator` whatever nodes of one operator say alike. Country,
place, subnet and operator are what the node claims.

166 bytes and 26 for each link. This module decides whether a record is well formed and signed, and nothing
about whether it is believed.
"""

from __future__ import annotations

from collections.abc import Sequence
from hashlib import sha256
from typing import Annotated, Final, NewType

from attrs import define, field

from meshnet.cipher.aead import Buffer
from meshnet.cipher.keys import BadKeyError, PublicKey, SecretKey, public_key
from meshnet.cipher.signing import SIGNATURE_SIZE, sign, verify
from meshnet.codec import I8, I16, U8, U16, U32, Fixed, Many, decode, encode, message
from meshnet.errors import CodecError
from meshnet.limits import LINKS_STATED

Name = NewType("Name", bytes)
"""The first 8 bytes of SHA-256 of a public key."""

VERSION: Final = 1
NAME_SIZE: Final = 8
TAG: Final = b"meshnet/link-state"
LARGEST: Final = 166 + 26 * LINKS_STATED
NO_PLACE: Final = (-128, 0)

RELAYS: Final = 1
"""Flag: carries circuits of others."""
EXITS: Final = 2
"""Flag: has an exit to the old internet."""
ROUTE_SERVICE: Final = 4
"""Flag: keeps the whole graph for others."""
TUNNELS: Final = 8
"""Flag: the exit takes IP packets."""


def name_of(key: bytes) -> Name:
    """The name of a public key."""
    return Name(sha256(key).digest()[:NAME_SIZE])


@message
class LinkRow:
    """A link as one of its ends states it: what it sends, and what that costs."""

    name: Annotated[bytes, Fixed(NAME_SIZE)]
    delay: U32
    jitter: U16
    loss: U16
    capacity: U32
    price: U32 = 0
    transport: U8 = 0
    flags: U8 = 0


@message
class Statement:
    """A record without its signature."""

    version: U8
    network: U32
    key: Annotated[bytes, Fixed(33)]
    issued: U32
    life: U16
    flags: U16
    country: Annotated[bytes, Fixed(2)]
    latitude: I8
    longitude: I16
    subnet: Annotated[bytes, Fixed(2)]
    operator: Annotated[bytes, Fixed(8)]
    price: U32
    epoch: U16
    onion_key: Annotated[bytes, Fixed(33)]
    links: Annotated[tuple[LinkRow, ...], Many(U16, LINKS_STATED, unique="name")]


@define(eq=False, slots=True)
class Record:
    """A record that is well formed and signed: `data` are its bytes, `name` is whose it is."""

    statement: Statement
    data: bytes = field(repr=False)
    name: Name
    links: dict[bytes, LinkRow] = field(repr=False)

    @property
    def key(self) -> PublicKey:
        """Who issued it."""
        return PublicKey(self.statement.key)

    @property
    def issued(self) -> int:
        """Unix seconds, and the version."""
        return self.statement.issued

    @property
    def expires(self) -> int:
        """Unix seconds."""
        return self.statement.issued + 60 * self.statement.life

    @property
    def country(self) -> str:
        """Two capital letters; empty if it says none."""
        return _country(self.statement.country)

    @property
    def place(self) -> tuple[int, int] | None:
        """Latitude and longitude in degrees; None if it says none."""
        place = (self.statement.latitude, self.statement.longitude)
        return None if place == NO_PLACE else place


def issue(statement: Statement, key: SecretKey) -> bytes:
    """The bytes of a record of `key`, which must be the statement's."""
    if statement.key != key.public:
        raise BadKeyError("a link-state record is signed by the key it is about")
    body = encode(statement)
    return body + sign(key, TAG, body)


def read(data: Buffer) -> Record:
    """The record in `data`, all of it; raises CodecError unless it is well formed and its signature holds.

    About 60 µs, nearly all of it the signature.
    """
    kept = bytes(data)
    statement = parse(kept)
    if not verify(statement.key, TAG, memoryview(kept)[:-SIGNATURE_SIZE], kept[-SIGNATURE_SIZE:]):
        raise CodecError("the signature of a link-state record does not hold")
    return _record(statement, kept)


def parse(data: bytes) -> Statement:
    """What a record states, whoever signed it; raises CodecError."""
    if len(data) > LARGEST or len(data) < SIGNATURE_SIZE:
        raise CodecError(f"a link-state record has at most {LARGEST} bytes, and this one has {len(data)}")
    statement = decode(Statement, memoryview(data)[:-SIGNATURE_SIZE])
    _check(statement)
    return statement


def recall(data: bytes) -> Record:
    """The same as `read` for bytes that were checked before; raises CodecError where they are none."""
    return _record(parse(data), data)


def peek(data: Buffer) -> tuple[Name, int]:
    """Whose record these bytes claim to be, and when it was issued, without looking further; raises
    CodecError if they are too short."""
    if len(data) < 166:
        raise CodecError("a link-state record has at least 166 bytes")
    view = memoryview(data)
    return name_of(bytes(view[5:38])), int.from_bytes(view[38:42], "big")


def _record(statement: Statement, data: bytes) -> Record:
    links = {row.name: row for row in statement.links}
    return Record(statement, data, name_of(statement.key), links)


def _check(statement: Statement) -> None:
    if statement.version != VERSION:
        raise CodecError(f"there is no link-state record of version {statement.version}")
    if statement.country != b"\0\0" and not _country(statement.country):
        raise CodecError("the country of a link-state record is two capital letters, or none")
    if not statement.life:
        raise CodecError("a link-state record lives for at least a minute")
    latitude, longitude = statement.latitude, statement.longitude
    if (latitude, longitude) != NO_PLACE and not (-90 <= latitude <= 90 and -180 <= longitude <= 180):
        raise CodecError("the place of a link-state record lies on no globe")
    own = name_of(statement.key)
    if any(row.name == own for row in statement.links):
        raise CodecError("a link-state record states a link to itself")
    try:
        public_key(statement.key)
        if statement.epoch:
            public_key(statement.onion_key)
    except BadKeyError as error:
        raise CodecError(f"a link-state record has a key that is none: {error}") from None


def _country(code: bytes) -> str:
    text = code.decode("latin-1")
    return text if text.isascii() and text.isalpha() and text.isupper() else ""


def moved(before: Sequence[LinkRow], after: Sequence[LinkRow], share: float) -> bool:
    """Whether a link came or went, or a delay, loss or capacity moved by more than `share` (0.25: a quarter).

    Losses below one in a thousand and delays that differ by less than a millisecond are alike.
    """
    old = {row.name: row for row in before}
    if old.keys() != {row.name for row in after}:
        return True
    for row in after:
        was = old[row.name]
        if _far(was.delay, row.delay, share, 1_000) or _far(was.loss, row.loss, share, 66):
            return True
        if _far(was.capacity, row.capacity, share, 64) or was.price != row.price:
            return True
    return False


def _far(one: int, other: int, share: float, least: int) -> bool:
    return abs(one - other) > max(share * max(one, other), least)
