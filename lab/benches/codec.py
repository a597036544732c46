"""Messages against the bare calls that no codec can do without, and against a codec without a generator.

The record has 78 bytes: u64, u32, two of 32 bytes, u16. A sample goes through a thousand different ones,
first through the codec, then by hand; the row is the median of the quotients. By hand means one precompiled
`Struct`: `pack` of the five values, or `unpack` and the constructor of the same class. Other libraries are
measured on the same values where they are installed; they do not do the same (some make lists or check less).
"""

from __future__ import annotations

import gc
import importlib
import random
import struct
import time
from collections.abc import Callable, Iterable
from typing import Annotated, Any

from lab.benches.rows import Options, Row, row_of
from meshnet.codec import (
    SKYCOIN,
    U8,
    U16,
    U32,
    U64,
    Fixed,
    Many,
    decode,
    encode,
    encoder,
    message,
    reflective,
    size_of,
)

SAMPLES = 61
RECORDS = 1_000  # per sample
TRANSACTIONS = 100
SEED = 1
BARE = struct.Struct(">QI32s32sH")
OTHERS = ("msgspec", "cbor2", "msgpack")


@message
class Record:
    """What is measured."""

    number: U64
    size: U32
    owner: Annotated[bytes, Fixed(32)]
    hash: Annotated[bytes, Fixed(32)]
    port: U16


@message(profile=SKYCOIN)
class Output:
    """An output of a transaction."""

    version: U8
    key: Annotated[bytes, Fixed(20)]
    coins: U64
    hours: U64


@message(profile=SKYCOIN)
class Transaction:
    """A transaction as Skycoin lays it."""

    length: U32
    type: U8
    inner: Annotated[bytes, Fixed(32)]
    sigs: Annotated[tuple[Annotated[bytes, Fixed(65)], ...], Many(U32, 65_535)]
    inputs: Annotated[tuple[Annotated[bytes, Fixed(32)], ...], Many(U32, 65_535)]
    outputs: Annotated[tuple[Output, ...], Many(U32, 65_535)]


@message(profile=SKYCOIN)
class Body:
    """The body of a block."""

    transactions: Annotated[tuple[Transaction, ...], Many(U32, 65_535)]


Values = tuple[int, int, bytes, bytes, int]


def _values(count: int) -> list[Values]:
    draw = random.Random(SEED)
    return [
        (
            draw.getrandbits(64),
            draw.getrandbits(32),
            draw.randbytes(32),
            draw.randbytes(32),
            draw.getrandbits(16),
        )
        for _ in range(count)
    ]


def _body() -> Body:
    draw = random.Random(SEED)
    made = []
    for _ in range(TRANSACTIONS):
        inputs = tuple(draw.randbytes(32) for _ in range(draw.randint(1, 3)))
        sigs = tuple(draw.randbytes(65) for _ in inputs)
        outputs = tuple(
            Output(0, draw.randbytes(20), draw.getrandbits(40), draw.getrandbits(40)) for _ in range(2)
        )
        made.append(Transaction(0, 0, draw.randbytes(32), sigs, inputs, outputs))
    return Body(tuple(made))


def _each(call: Callable[[Any], Any], things: Iterable[Any]) -> float:
    """Seconds to call something with each of things."""
    start = time.perf_counter()
    for thing in things:
        call(thing)
    return time.perf_counter() - start


def _bare_encode(rows: Iterable[Values]) -> float:
    pack = BARE.pack
    start = time.perf_counter()
    for a, b, c, d, e in rows:
        pack(a, b, c, d, e)
    return time.perf_counter() - start


def _bare_decode(datas: Iterable[bytes]) -> float:
    unpack = BARE.unpack
    start = time.perf_counter()
    for data in datas:
        Record(*unpack(data))
    return time.perf_counter() - start


def _decode_each(datas: Iterable[bytes]) -> float:
    start = time.perf_counter()
    for data in datas:
        decode(Record, data)
    return time.perf_counter() - start


def _records(samples: int) -> list[Row]:
    values = _values(RECORDS)
    records, datas = [Record(*one) for one in values], [BARE.pack(*one) for one in values]
    assert [encode(one) for one in records] == datas and [decode(Record, one) for one in datas] == records
    build = encoder(Record)
    found: dict[str, list[float]] = {
        name: [] for name in ("encode", "decode", "call", "encode_ns", "decode_ns")
    }
    for _ in range(samples):
        bare, own, call = _bare_encode(values), _each(build, records), _each(encode, records)
        hand, read = _bare_decode(datas), _decode_each(datas)
        found["encode"].append(own / bare)
        found["call"].append(call / bare)
        found["decode"].append(read / hand)
        found["encode_ns"].append(call / RECORDS * 1e9)
        found["decode_ns"].append(read / RECORDS * 1e9)
    note = f"{BARE.size} bytes, {RECORDS} records a sample, seed {SEED}"
    return [
        row_of("encode_vs_struct", found["encode"], "", target=2, note=f"encoder(Record); {note}"),
        row_of("decode_vs_hand", found["decode"], "", target=1.3, note=f"decode(Record, data); {note}"),
        row_of("encode_call_vs_struct", found["call"], "", note="encode(record), which looks up the class"),
        row_of("encode_ns", found["encode_ns"], "ns", note="encode(record)"),
        row_of("decode_ns", found["decode_ns"], "ns", note="decode(Record, data)"),
    ]


def _block(samples: int) -> Row:
    body = _body()
    data = encode(body)
    assert reflective.encode(body) == data and decode(Body, data) == body == reflective.decode(Body, data)
    ratios = []
    for _ in range(samples):
        own = _each(lambda _: (encode(body), decode(Body, data)), range(5)) / 5
        slow = _each(lambda _: (reflective.encode(body), reflective.decode(Body, data)), range(1))
        ratios.append(slow / own)
    note = f"{TRANSACTIONS} transactions, {size_of(body)} bytes, encode and decode"
    return row_of("block_vs_reflective", ratios, "", target=5, better="higher", note=note)


def _other(name: str) -> tuple[Callable[[Any], Any], Callable[[Any], Any], list[Any], str]:
    """Another library's encode and decode, what to encode, and what it makes."""
    library: Any = importlib.import_module(name)
    values = _values(RECORDS)
    if name == "msgspec":
        made = library.defstruct(
            "Struct",
            [("number", int), ("size", int), ("owner", bytes), ("hash", bytes), ("port", int)],
            array_like=True,
            gc=False,
        )
        packer, unpacker = library.msgpack.Encoder(), library.msgpack.Decoder(made)
        return packer.encode, unpacker.decode, [made(*one) for one in values], "MessagePack, Struct"
    if name == "msgpack":
        return library.Packer(autoreset=True).pack, library.unpackb, list(values), "MessagePack, list"
    return library.dumps, library.loads, list(values), "CBOR, list"


def _others(samples: int) -> list[Row]:
    rows = []
    for name in OTHERS:
        try:
            write, read, things, what = _other(name)
        except ImportError:
            note = f"{name} is not installed: .env/bin/pip install -c constraints.txt {name}"
            rows.append(Row(f"{name}_encode_ns", 0.0, "ns", 0, note=note))
            continue
        datas = [write(one) for one in things]
        note = f"{what}, {len(datas[0])} bytes"
        for way, call, given in (("encode", write, things), ("decode", read, datas)):
            taken = [_each(call, given) / RECORDS * 1e9 for _ in range(samples)]
            rows.append(row_of(f"{name}_{way}_ns", taken, "ns", note=note))
    return rows


def run(options: Options) -> list[Row]:
    """The three rows with targets, then what the calls take, then other libraries."""
    samples = 5 if options.quick else SAMPLES
    gc.disable()
    try:
        *targets, call, encoding, decoding = _records(samples)
        return [*targets, _block(samples), call, encoding, decoding, *_others(samples)]
    finally:
        gc.enable()
