"""Declarative binary messages: declare a class, get its codec.

    @message
    class Ping:
        token: U64
        note: Annotated[str, Var(U8, 100)]

    decode(Ping, encode(Ping(7, "hello")))

Floor 0. docs/codec.md is the guide; `fields.py` has the kinds of fields, `varint.py` the integers of variable
length, `reflective.py` a second, slow codec that knows nothing of the first.
"""

from meshnet.codec.compile import Codec
from meshnet.codec.declaration import SKYCOIN, WIRE, Profile
from meshnet.codec.fields import (
    F32,
    F64,
    I8,
    I16,
    I32,
    I64,
    TU16,
    TU32,
    TU64,
    U8,
    U16,
    U32,
    U64,
    Array,
    BigSize,
    Bool,
    Fixed,
    Framed,
    Many,
    OmitEmpty,
    Rest,
    SignedInt,
    Since,
    Tail,
    Tlv,
    Var,
    VarInt,
    View,
)
from meshnet.codec.message import (
    codec_of,
    decode,
    decode_from,
    decoder,
    encode,
    encode_into,
    encoder,
    has_views,
    message,
    size_of,
    source_of,
    tlvs,
)
from meshnet.codec.parts import FAULTS, Buffer
from meshnet.codec.schema import schema_history, schema_id, schema_text

__all__ = [
    "F32",
    "F64",
    "FAULTS",
    "I8",
    "I16",
    "I32",
    "I64",
    "SKYCOIN",
    "TU16",
    "TU32",
    "TU64",
    "U8",
    "U16",
    "U32",
    "U64",
    "WIRE",
    "Array",
    "BigSize",
    "Bool",
    "Buffer",
    "Codec",
    "Fixed",
    "Framed",
    "Many",
    "OmitEmpty",
    "Profile",
    "Rest",
    "SignedInt",
    "Since",
    "Tail",
    "Tlv",
    "Var",
    "VarInt",
    "View",
    "codec_of",
    "decode",
    "decode_from",
    "decoder",
    "encode",
    "encode_into",
    "encoder",
    "has_views",
    "message",
    "schema_history",
    "schema_id",
    "schema_text",
    "size_of",
    "source_of",
    "tlvs",
]
