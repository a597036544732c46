"""Answers as bytes: JSON as the Go node's values, and gzip for who takes it.

Values are dicts and lists in the order of the Go node's fields, numbers whole. A list may be a generator: its
items become bytes one after the other, so that an answer of 100 MB needs no more than those bytes, and other
threads get their turn in between. JSON is written without spaces; hex, digits and addresses are most of it.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from types import GeneratorType
from typing import Any, Final

from attrs import frozen

LEAST_GZIP: Final = 1_400
"""Bytes from which on an answer is packed, about what fits into a packet."""
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode


@frozen
class Answer:
    """What is sent: a status, a body with its media type, perhaps packed, and further headers."""

    status: int
    body: bytes
    kind: bytes
    packed: bool = False
    headers: tuple[tuple[bytes, bytes], ...] = ()

    def pack(self) -> Answer:
        """The same with gzip, where that pays."""
        if self.packed or len(self.body) < LEAST_GZIP:
            return self
        packer = zlib.compressobj(1, zlib.DEFLATED, zlib.MAX_WBITS | 16)
        body = packer.compress(self.body) + packer.flush()
        return Answer(self.status, body, self.kind, True, self.headers)


def to_json(value: Any) -> bytes:
    """The JSON of a value, in which generators are lists."""
    if not _lazy(value):
        return _encode(value).encode()
    return b"".join(_pieces(value))


def _lazy(value: Any) -> bool:
    if isinstance(value, GeneratorType):
        return True
    return isinstance(value, dict) and any(_lazy(each) for each in value.values())


def _pieces(value: Any) -> Iterator[bytes]:
    if isinstance(value, GeneratorType):
        yield b"["
        yield from _joined(to_json(each) for each in value)
        yield b"]"
    elif isinstance(value, dict):
        yield b"{"
        yield from _joined(_encode(name).encode() + b":" + to_json(each) for name, each in value.items())
        yield b"}"
    else:
        yield _encode(value).encode()


def _joined(parts: Iterable[bytes]) -> Iterator[bytes]:
    between = b""
    for part in parts:
        yield between + part
        between = b","
