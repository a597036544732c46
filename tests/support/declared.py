"""What mypy must know of message classes. Never run: mypy reads it with the rest of the sources.

Where an error is ignored, mypy must find it, for an ignore that is not needed is an error itself.
"""

from __future__ import annotations

from typing import Annotated, assert_type

from meshnet.codec import U8, U16, Fixed, Many, Tlv, Var, decode, encode, message, tlvs


@message
class Stop:
    """Two fields, one with a default."""

    number: U16
    name: Annotated[str, Var(U8, 20)] = ""


@tlvs
class Terms:
    """Given by keyword."""

    key: Annotated[bytes | None, Tlv(2, Fixed(33))] = None


@message
class Line:
    """Messages in a message."""

    stops: Annotated[tuple[Stop, ...], Many(U8, 9)]


def right(data: bytes) -> bytes:
    """Correct uses, with the types that come out."""
    stop = Stop(1, name="a")
    assert_type(stop.number, int)
    assert_type(stop.name, str)
    assert_type(Terms(key=None).key, bytes | None)
    assert_type(decode(Line, data).stops, tuple[Stop, ...])
    return encode(Line((stop,)))


def wrong() -> None:
    """Wrong uses, each found."""
    Stop()  # type: ignore[call-arg]
    Stop("1")  # type: ignore[arg-type]
    Stop(1, "a", 2)  # type: ignore[call-arg]
    Terms(b"")  # type: ignore[call-arg]
    Line([Stop(1)])  # type: ignore[arg-type]
    Stop(1).number = 2  # type: ignore[misc]
