"""Declarative binary messages: declare a class, get its codec.

    @message
    class Ping:
        token: U64
        note: Annotated[str, Var(U8, 100)]

    decode(Ping, encode(Ping(7, "hello")))

Floor 0. See `fields.py` for the kinds of fields, `varint.py` for the integers of variable length.
"""

from meshnet.codec.fields import (
    TU16,
    TU32,
    TU64,
    U8,
    U16,
    U32,
    U64,
    BigSize,
    Bool,
    Fixed,
    Many,
    Rest,
    SignedInt,
    Tail,
    Tlv,
    Var,
    VarInt,
)
from meshnet.codec.message import decode, encode, encode_into, message, size_of, tlvs
from meshnet.codec.parts import Buffer

__all__ = [
    "TU16",
    "TU32",
    "TU64",
    "U8",
    "U16",
    "U32",
    "U64",
    "BigSize",
    "Bool",
    "Buffer",
    "Fixed",
    "Many",
    "Rest",
    "SignedInt",
    "Tail",
    "Tlv",
    "Var",
    "VarInt",
    "decode",
    "encode",
    "encode_into",
    "message",
    "size_of",
    "tlvs",
]
