"""One message as programs of several years know it, to be spoken between them and between Python versions.

Run as a program (`python -m tests.support.generations`) it prints, as JSON, what this interpreter makes of
the classes: ids of schemas, bytes of one message each, and what it reads of the bytes on stdin.
"""

from __future__ import annotations

import json
import sys
from typing import Annotated, Any

from meshnet.codec import (
    F64,
    I16,
    SKYCOIN,
    U8,
    U16,
    U32,
    U64,
    Fixed,
    Framed,
    Many,
    Rest,
    Since,
    Var,
    decode,
    encode,
    message,
    schema_id,
)


class First:
    """The first edition: what follows is not looked at."""

    @message(skip=100)
    class Offer:
        price: U64
        note: Annotated[str, Var(U8, 20)]


class Keeper:
    """The first edition of a program that passes offers on: it keeps what it does not know."""

    @message
    class Offer:
        price: U64
        note: Annotated[str, Var(U8, 20)]
        more: Annotated[bytes, Rest(100)] = b""


class Second:
    """Two fields more."""

    @message(skip=100)
    class Offer:
        price: U64
        note: Annotated[str, Var(U8, 20)]
        fee: Annotated[U16, Since(2)] = 7
        tags: Annotated[tuple[U8, ...], Many(U8, 4), Since(2)] = (1, 2)


class Third:
    """And one more."""

    @message(skip=100)
    class Offer:
        price: U64
        note: Annotated[str, Var(U8, 20)]
        fee: Annotated[U16, Since(2)] = 7
        tags: Annotated[tuple[U8, ...], Many(U8, 4), Since(2)] = (1, 2)
        seller: Annotated[bytes, Fixed(4), Since(3)] = b"none"


EDITIONS: tuple[Any, ...] = (First.Offer, Second.Offer, Third.Offer)


@message
class Market:
    """Offers of any edition among other things."""

    offers: Annotated[tuple[Annotated[Third.Offer, Framed(U16, 200)], ...], Many(U8, 9)]
    rate: F64
    drift: I16


@message(profile=SKYCOIN)
class Coin:
    """A message of the other profile."""

    hash: Annotated[bytes, Fixed(3)]
    owners: Annotated[tuple[Annotated[str, Var(U32, 9)], ...], Many(U32, 9)]


SAMPLES: dict[str, Any] = {
    "first": First.Offer(1 << 40, "ä"),
    "second": Second.Offer(2, "b", 3, (4,)),
    "third": Third.Offer(5, "c", 6, (), b"anna"),
    "market": Market((Third.Offer(1, "x"), Third.Offer(2, "y", 3)), 1.5, -2),
    "coin": Coin(b"abc", ("anna", "böb")),
}


def said(heard: dict[str, str]) -> dict[str, Any]:
    """What this interpreter says of all samples, and how it reads those it heard (hex, by name)."""
    return {
        "ids": {name: schema_id(type(one)).hex() for name, one in SAMPLES.items()},
        "bytes": {name: encode(one).hex() for name, one in SAMPLES.items()},
        "read": {name: repr(decode(type(SAMPLES[name]), bytes.fromhex(one))) for name, one in heard.items()},
        "old": [repr(decode(cls, encode(one))) for cls in EDITIONS for one in list(SAMPLES.values())[:3]],
    }


if __name__ == "__main__":
    print(json.dumps(said(json.load(sys.stdin))))
