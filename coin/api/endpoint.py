"""Endpoints as values: what is asked with which method at which path, who may ask, and what answers.

An endpoint answers in one of three ways. `look` runs in the thread that reads the store, with a `View` of it,
and touches nothing else. `act` runs in the reactor's thread with the whole `Api`, and may wait for Deferreds.
`take` gets the request itself and sends what it likes, as long as it likes. The first two give a value that
becomes JSON; version 2 puts it under "data".

`takes` are done in order, each on the texts of the request: parameters, and checks of how they go together.
The order matters, since of several faults the first one is told.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from enum import Enum
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote

from attrs import field, frozen

from coin.api.golang.decoding import Struct
from coin.api.refusals import bad

if TYPE_CHECKING:
    from coin.api.server import ApiRequest
    from coin.api.service import Api
    from coin.api.view import View

Given = Mapping[str, Any]
"""The parameters of a request by name, read; those left out have their defaults."""
Texts = Mapping[str, Any]
"""The same before they are read: texts, or the fields of a JSON body."""
Take = Callable[[Texts, dict[str, Any]], None]
"""Reads a parameter from the first into the second, or checks them; raises ApiError."""


class ApiSet(Enum):
    """What an operator turns on; an endpoint is there when one of its sets is."""

    READ = "READ"
    STATUS = "STATUS"
    TXN = "TXN"
    WALLET = "WALLET"
    NET_CTRL = "NET_CTRL"
    INSECURE_WALLET_SEED = "INSECURE_WALLET_SEED"
    STORAGE = "STORAGE"


@frozen
class Kind:
    """What the text of a parameter may be. `read` raises ValueError with the Go node's words for a text that
    is not; `type` and `format` are what the API's document says of it."""

    read: Callable[[str], Any]
    type: str
    format: str = ""


@frozen
class Parameter:
    """A parameter. `wrong` is told of a text that cannot be read, with {error} for why and {quoted} for the
    text itself; `missing` if it must be given and is not. An empty text is none at all, as ever in forms."""

    name: str
    kind: Kind
    wrong: str = "{error}"
    missing: str = ""
    default: Any = None

    def __call__(self, texts: Texts, given: dict[str, Any]) -> None:
        """See `Take`."""
        text = texts.get(self.name, "")
        if not text:
            if self.missing:
                raise bad(self.missing, self.name)
            given[self.name] = self.default
            return
        try:
            given[self.name] = self.kind.read(text)
        except ValueError as error:
            from coin.api.golang.text import quote

            told = self.wrong.format(error=error, quoted=quote(text), value=text)
            raise bad(told, self.name) from None


@frozen
class Needed:
    """A field of a JSON body that must not be empty; `missing` is told if it is."""

    name: str
    missing: str

    def __call__(self, texts: Texts, given: dict[str, Any]) -> None:
        """See `Take`."""
        if not texts.get(self.name):
            raise bad(self.missing)


@frozen
class Endpoint:
    """See the module. `sets`: one of them must be on, none: always there. `body` is the JSON object that is
    sent, `csrf` whether a token is wanted when the method changes something, `scope` what a key of version 3
    must be good for ("" none)."""

    method: str
    path: str
    sets: frozenset[ApiSet]
    look: Callable[[View, Given], Any] | None = None
    act: Callable[[Api, Given], Any | Awaitable[Any]] | None = None
    take: Callable[[Api, ApiRequest, Given], None] | None = None
    takes: tuple[Take, ...] = ()
    body: Struct | None = None
    csrf: bool = True
    scope: str = ""
    version: int = field(init=False)

    def __attrs_post_init__(self) -> None:
        object.__setattr__(self, "version", version_of(self.path))

    @property
    def parameters(self) -> tuple[Parameter, ...]:
        """Those of the query or the form."""
        return tuple(each for each in self.takes if isinstance(each, Parameter))

    def read(self, texts: Texts) -> dict[str, Any]:
        """The parameters of a request; raises ApiError."""
        given: dict[str, Any] = dict(texts) if self.body is not None else {}
        for take in self.takes:
            take(texts, given)
        return given


def version_of(path: str) -> int:
    """Which version's errors a path has; what is no path of the API has those of the first."""
    return {"/api/v2": 2, "/api/v3": 3}.get(path[:7], 1)


class Table:
    """All endpoints by path and method. A part of a path in braces, `{address}`, stands for any text: that of
    the parameter it names."""

    def __init__(self, *groups: tuple[Endpoint, ...]) -> None:
        self._paths: dict[str, dict[str, Endpoint]] = {}
        self._open: dict[int, list[tuple[str, ...]]] = {}
        for group in groups:
            for each in group:
                methods = self._paths.setdefault(each.path, {})
                if each.method in methods:
                    raise ValueError(f"{each.method} {each.path} is there twice")
                methods[each.method] = each
                if "{" in each.path and len(methods) == 1:
                    parts = tuple(each.path.split("/"))
                    self._open.setdefault(len(parts), []).append(parts)

    def __iter__(self) -> Any:
        return (each for methods in self._paths.values() for each in methods.values())

    def at(self, path: str) -> Mapping[str, Endpoint]:
        """What a path has, by method; nothing if there is no such path."""
        return self._paths.get(path, {})

    def find(self, path: str) -> tuple[Mapping[str, Endpoint], Mapping[str, str]]:
        """What a path of a request has, and the parameters that are in the path."""
        found = self._paths.get(path)
        if found is not None:
            return found, {}
        given = path.split("/")
        for parts in self._open.get(len(given), ()):
            pairs = list(zip(parts, given, strict=True))
            if all(part == text or (part.startswith("{") and text) for part, text in pairs):
                named = {part[1:-1]: unquote(text) for part, text in pairs if part != text}
                return self._paths["/".join(parts)], named
        return {}, {}
