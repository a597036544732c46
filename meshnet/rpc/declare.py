"""Services as they are declared, and what both sides must agree on.

    class Files(Service):
        name = "files"
        size = call(1, Name, Size)                     # one request, one answer
        read = follow(2, Name, Piece)                  # one request, many items back
        write = collect(3, Name, Piece, Size)          # a request and many items, one answer
        patch = converse(4, Name, Piece, Piece)        # a request and items both ways

The class is what implementations inherit from and what callers get, so one type says it to both. Numbers
never change and are never used again. The signature of a method is a hash of what the two sides must share:
its number, name and form, and the schemas of its messages without the tails that were appended later.

Nothing here sends anything.
"""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator, Awaitable, Callable, Mapping
from typing import Any, ClassVar, Final, TypeVar, cast

from attrs import define, field

from meshnet.cipher.hashing import sha256
from meshnet.codec import codec_of, has_views, schema_text
from meshnet.errors import UsageError
from meshnet.limits import RPC_GRANTED

Q = TypeVar("Q")
A = TypeVar("A")
I = TypeVar("I")  # noqa: E741  (an item)

NAME: Final = 64
"""The longest name of a service or method, in bytes."""
FIRST: Final = 1
"""The generation of a message that both sides must share; what was appended later need not be the same."""
SIGNATURE: Final = 8
"""Bytes of a signature: against mistakes, not against attacks."""


@define(eq=False, slots=True)
class Method:
    """One declared method. `items` is the message that the caller streams (None: none), `many` says that the
    answer is a stream. `streamed`: items flow in either direction. `service`, `name`, `siblings` (all
    methods of the service) and `signature` come with the class it stands in."""

    number: int
    request: type
    answer: type
    items: type | None = None
    many: bool = False
    service: str = ""
    name: str = ""
    signature: bytes = field(default=b"", repr=False)
    streamed: bool = field(init=False)
    siblings: tuple[Method, ...] = field(default=(), init=False, repr=False)
    parse_request: Callable[[Any], Any] = field(init=False, repr=False)
    parse_answer: Callable[[Any], Any] = field(init=False, repr=False)
    parse_items: Callable[[Any], Any] = field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        if not 1 <= self.number <= 0xFFFF:
            raise TypeError(f"the number of a method is 1 to 65535, not {self.number}")
        for each in (self.request, self.answer, self.items):
            if each is not None:
                codec_of(each)  # TypeError if it is none
        self.streamed = self.many or self.items is not None
        self.parse_request = _reader(self.request)
        self.parse_answer = _reader(self.answer)
        self.parse_items = _reader(self.items or self.answer)

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __str__(self) -> str:
        return f"{self.service}.{self.name}"

    @property
    def form(self) -> int:
        """Bit 0: the caller streams items, bit 1: items come back."""
        return (self.items is not None) | self.many << 1

    def text(self) -> str:
        """What the signature is the hash of."""
        parts = [self.service, str(self.number), self.name, schema_text(self.request, FIRST)]
        parts.append("" if self.items is None else schema_text(self.items, FIRST))
        parts += ["many" if self.many else "one", schema_text(self.answer, FIRST)]
        return "\n".join(parts)


class Service:
    """Base of all services. A class with a `name` declares one; a subclass of that implements it.

    An implementation defines every method, as `async def` (with `yield` where items go back) or as a
    function that returns an awaitable. One that makes no sense of a request raises UsageError.
    """

    name: ClassVar[str] = ""
    longest: ClassVar[float] = RPC_GRANTED
    """Seconds after which a call is given up, whatever time its caller gave; of an implementation."""
    methods: ClassVar[Mapping[int, Method]] = {}
    declared: ClassVar[type[Service]]

    def __init_subclass__(cls, **more: Any) -> None:
        super().__init_subclass__(**more)
        declares = "name" in vars(cls)
        mine = [each for each in vars(cls).values() if isinstance(each, Method)]
        if not declares:
            if mine:
                raise TypeError(f"{cls.__qualname__} declares methods and has no name")
            return
        if cls.methods:
            raise TypeError(f"{cls.__qualname__} cannot declare a service on top of another")
        if not cls.name.isidentifier() or len(cls.name.encode()) > NAME:
            raise TypeError(f"{cls.name!r} is no name of a service: an identifier of at most {NAME} bytes")
        cls.declared = cls
        cls.methods = _numbered(cls, mine)


def _numbered(cls: type[Service], mine: list[Method]) -> Mapping[int, Method]:
    found: dict[int, Method] = {}
    for each in sorted(mine, key=lambda method: method.number):
        if each.number in found:
            raise TypeError(f"{cls.__qualname__}: {each.name} and {found[each.number].name} share a number")
        if len(each.name.encode()) > NAME:
            raise TypeError(f"{cls.__qualname__}.{each.name} is longer than {NAME} bytes")
        each.service = cls.name
        each.signature = sha256(each.text().encode())[:SIGNATURE]
        found[each.number] = each
    for each in mine:
        each.siblings = tuple(found.values())
    return found


def implemented(service: Service) -> dict[int, Callable[..., Any]]:
    """By number, the bound methods of an implementation; raises UsageError if one is missing."""
    found = {}
    for number, method in type(service).methods.items():
        made = getattr(service, method.name)
        if isinstance(made, Method):
            raise UsageError(f"{type(service).__qualname__} does not implement {method.name}.")
        found[number] = made
    if not found:
        raise UsageError(f"{type(service).__qualname__} implements no declared service.")
    return found


# To type checkers a declaration is the method that it declares; an implementation makes it so.


def call(number: int, request: type[Q], answer: type[A]) -> Callable[[Any, Q], Awaitable[A]]:
    """Declares a method: one request, one answer."""
    return cast("Callable[[Any, Q], Awaitable[A]]", Method(number, request, answer))


def follow(number: int, request: type[Q], item: type[A]) -> Callable[[Any, Q], AsyncIterator[A]]:
    """Declares a method: one request, a stream of items back."""
    return cast("Callable[[Any, Q], AsyncIterator[A]]", Method(number, request, item, many=True))


def collect(
    number: int, request: type[Q], item: type[I], answer: type[A]
) -> Callable[[Any, Q, AsyncIterable[I]], Awaitable[A]]:
    """Declares a method: a request and a stream of items, one answer."""
    return cast(
        "Callable[[Any, Q, AsyncIterable[I]], Awaitable[A]]", Method(number, request, answer, items=item)
    )


def converse(
    number: int, request: type[Q], item: type[I], back: type[A]
) -> Callable[[Any, Q, AsyncIterable[I]], AsyncIterator[A]]:
    """Declares a method: a request, and streams of items both ways, each at its own pace."""
    return cast(
        "Callable[[Any, Q, AsyncIterable[I]], AsyncIterator[A]]",
        Method(number, request, back, items=item, many=True),
    )


def _reader(cls: type) -> Callable[[Any], Any]:
    """What reads a message out of borrowed memory: where it would keep views of that, out of a copy."""
    parse = codec_of(cls).parse
    return (lambda data: parse(bytes(data))) if has_views(cls) else parse
