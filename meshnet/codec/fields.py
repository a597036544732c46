"""The kinds of fields that messages are declared with, and their layouts.

    U8 U16 U32 U64           unsigned                            Bool     one byte, 0 or 1
    I8 I16 I32 I64           two's complement                    F32 F64  IEEE 754
    VarInt  BigSize          RFC 9000 §16; BOLT 1                Fixed    n bytes
    TU16 TU32 TU64           BOLT 1 truncated (to the end)       SignedInt  1, 2, 4 or 8 bytes (to the end)
    Var      length ‖ bytes                                      Rest     bytes to the end
    Many     count ‖ items, or items to the end                  Array    n items, no count
    Framed   length ‖ a message                                  Tail     a TLV stream to the end
    Tlv      places a field in a TLV stream

A kind stands in an annotation: `onion: Annotated[bytes, Fixed(1366)]`. What Python type stands before it
matters for bytes: `str` is UTF-8, `memoryview` (or `View`) is a view of what was decoded, `bytes` a copy.
Byte order comes from the profile of the class. A kind is a value without behaviour: `lower.py` makes code of
it, `reflective.py` walks it, `schema.py` writes it down.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args, get_origin

from attrs import field, frozen

if TYPE_CHECKING:
    from meshnet.codec.declaration import Declaration

Form = Literal["bytes", "text", "view"]
View = bytes | bytearray | memoryview
"""The Python type of bytes that are not copied when they are read: `body: Annotated[View, Var(U32, 9_000)]`.

Decoding makes a `memoryview` of the buffer that was given: it lives as long as that buffer, and changes with
it. Any flat buffer of bytes may be given for encoding.
"""


class Kind:
    """How one value lies in a message. `least` is its smallest size in bytes; a `greedy` kind runs to the end
    of what surrounds it, so that it stands last (or in a TLV or a frame, whose length ends it)."""

    greedy = False
    least = 0


@frozen
class _Sized(Kind):
    size: int

    @property
    def least(self) -> int:  # type: ignore[override]
        """Its size."""
        return self.size


@frozen
class Int(_Sized):
    """An integer of 1, 2, 4 or 8 bytes."""

    signed: bool = False


@frozen
class Float(_Sized):
    """An IEEE 754 number of 4 or 8 bytes. Not for what is hashed: NaN has many forms."""


@frozen
class Flag(Kind):
    """A truth value in one byte, strictly 0 or 1."""

    least = 1


@frozen
class Fixed(_Sized):
    """Exactly `size` bytes."""

    form: Form = "bytes"


@frozen
class Numeral(Kind):
    """An unsigned integer of variable length; `style` is "varint" (below 2^62) or "bigsize" (below 2^64)."""

    style: Literal["varint", "bigsize"]
    least = 1


@frozen
class Truncated(Kind):
    """An unsigned integer without its leading zero bytes (BOLT 1 tu16, tu32, tu64); runs to the end."""

    size: int
    greedy = True


@frozen
class Signed(Kind):
    """A two's complement integer in the fewest of 1, 2, 4 or 8 bytes (BOLT 1); runs to the end."""

    greedy = True
    least = 1


U8 = Annotated[int, Int(1)]
U16 = Annotated[int, Int(2)]
U32 = Annotated[int, Int(4)]
U64 = Annotated[int, Int(8)]
I8 = Annotated[int, Int(1, signed=True)]
I16 = Annotated[int, Int(2, signed=True)]
I32 = Annotated[int, Int(4, signed=True)]
I64 = Annotated[int, Int(8, signed=True)]
F32 = Annotated[float, Float(4)]
F64 = Annotated[float, Float(8)]
Bool = Annotated[bool, Flag()]
VarInt = Annotated[int, Numeral("varint")]
BigSize = Annotated[int, Numeral("bigsize")]
TU16 = Annotated[int, Truncated(2)]
TU32 = Annotated[int, Truncated(4)]
TU64 = Annotated[int, Truncated(8)]
SignedInt = Annotated[int, Signed()]

Prefix = Int | Numeral


def _prefix(given: Any) -> Prefix:
    """The kind of a length or count, given as U8 … U64, VarInt or BigSize."""
    kind = get_args(given)[1] if get_origin(given) is Annotated else given
    if isinstance(kind, Numeral) or (isinstance(kind, Int) and not kind.signed):
        return kind
    raise TypeError("a length is U8, U16, U32, U64, VarInt or BigSize")


def _optional_prefix(given: Any) -> Prefix | None:
    return None if given is None else _prefix(given)


@frozen
class _Counted(Kind):
    """A length or count, at most `maximum`, before what it counts."""

    prefix: Any = field(converter=_prefix)
    maximum: int

    def __attrs_post_init__(self) -> None:
        _check_maximum(self.prefix, self.maximum)

    @property
    def least(self) -> int:  # type: ignore[override]
        """The prefix alone."""
        return int(self.prefix.least)


def _check_maximum(prefix: Prefix | None, maximum: int) -> None:
    bits = 62 if isinstance(prefix, Numeral) else 8 * prefix.size if prefix else 62
    if not 0 <= maximum < 1 << bits:
        raise TypeError(f"{maximum} cannot be a maximum here: the length holds {bits} bits")


@frozen
class Var(_Counted):
    """At most `maximum` bytes after their length; `prefix` is U8 … U64, VarInt or BigSize."""

    form: Form = "bytes"


@frozen
class Rest(Kind):
    """All bytes that are left, at most `maximum`; the last field."""

    maximum: int
    form: Form = "bytes"
    greedy = True


@frozen
class Nested(Kind):
    """Another message in place; made from the annotation, not written by hand."""

    declaration: Declaration
    maximum: int | None = None

    @property
    def greedy(self) -> bool:  # type: ignore[override]
        """As the message inside."""
        return self.declaration.greedy

    @property
    def least(self) -> int:  # type: ignore[override]
        """As the message inside."""
        return self.declaration.least


@frozen
class Framed(_Counted):
    """A message after its length in bytes: so one that runs to the end may stand anywhere, also in lists.

    `Annotated[Offer, Framed(U16, 500)]`; what `Offer` leaves of its bytes is an error.
    """

    item: Kind = field(default=Kind(), kw_only=True)


@frozen
class Many(Kind):
    """At most `maximum` items of a `tuple[X, …]` after their count; with `prefix` None they run to the end.

    X is a message or a kind: `Annotated[tuple[Hop, ...], Many(U8, 8)]`, `tuple[U16, ...]`. `unique` names the
    field of the items in which no two may be equal: a list of pairs with unique keys is a map.
    """

    prefix: Any = field(converter=_optional_prefix)
    maximum: int
    unique: str = field(default="", kw_only=True)
    item: Kind = field(default=Kind(), kw_only=True)

    def __attrs_post_init__(self) -> None:
        _check_maximum(self.prefix, self.maximum)

    @property
    def greedy(self) -> bool:  # type: ignore[override]
        """True without a count."""
        return self.prefix is None

    @property
    def least(self) -> int:  # type: ignore[override]
        """The size of none."""
        return 0 if self.prefix is None else int(self.prefix.least)


@frozen
class Array(Kind):
    """Exactly `count` items of a `tuple[X, …]`, one after another."""

    count: int
    item: Kind = field(default=Kind(), kw_only=True)

    @property
    def least(self) -> int:  # type: ignore[override]
        """That of all items."""
        return self.count * self.item.least


@frozen
class Tail:
    """Marks a `@tlvs` class that takes the rest of a message, at most `maximum` bytes; the last field."""

    maximum: int = 65_535


@frozen
class Tlv:
    """Places a field of a `@tlvs` class: its type number and the kind (or message class) of its value."""

    number: int
    kind: object


@frozen
class OmitEmpty:
    """Marks a last field (`Var`, `Many`) of which nothing is written, not even a length, when it is empty.

    Read, a message that ends before it has it empty; a length of 0 is read too, as Skycoin does.
    """


@frozen
class Since:
    """Marks a field that was appended in a later generation (2, 3, …) of a message; it needs a default.

    All fields of a generation are written and read together. A message that ends before them comes from an
    older writer, and they take their defaults.
    """

    generation: int
