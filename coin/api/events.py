"""`/api/v3/events`: what happens in the chain, as server-sent events or over a WebSocket.

GET takes parameters, POST (server-sent events alone) the same names in a JSON object, for long lists:

    kinds           of block, address, transaction, pending; all of them if left out. Also withdrawal, for
                    who may pay
    addresses       whose transactions; those of everybody if left out
    confirmations   when a `transaction` is told, 1 if left out
    from            a height, or the id of the last event that was heard; the next block if left out

The header Last-Event-ID, which browsers send when they come again, goes before `from`.
"""

from __future__ import annotations

import json
from functools import partial
from typing import TYPE_CHECKING, Annotated, Final

from attrs import frozen

from coin.api.endpoint import Given, Kind, Parameter
from coin.api.refusals import ApiError, bad
from coin.api.server import ApiRequest
from coin.api.streams import Asked, SentEvents, Stream
from coin.api.third import endpoint, listed, number, read_address
from coin.api.websocket import Socket, wants_socket
from coin.events.content import ALL_KINDS, KINDS
from coin.events.content import Kind as EventKind
from coin.events.wanted import Place, Wanted, after
from meshnet.errors import RefusedError
from meshnet.limits import COIN_EVENT_ADDRESSES, COIN_EVENT_CONFIRMATIONS
from meshnet.node.schema import Between, read_body

if TYPE_CHECKING:
    from coin.api.service import Api


@frozen
class Body:
    """What a POST says, as in the module's docstring."""

    kinds: tuple[EventKind, ...] = KINDS
    addresses: tuple[str, ...] | None = None
    confirmations: Annotated[int, Between(1, COIN_EVENT_CONFIRMATIONS)] = 1
    from_: str = ""


def _kind(text: str) -> str:
    if text not in ALL_KINDS:
        raise ValueError(f"There is no kind {text[:60]!r}; there are {', '.join(ALL_KINDS)}.")
    return text


def read_place(text: str) -> Place:
    """A height, or the place behind that of an id; raises ValueError."""
    if text.isascii() and text.isdigit() and len(text) <= 18:
        return Place(int(text))
    try:
        return after(text)
    except ValueError as error:
        raise ValueError(f"{error}. A height alone will do, too.") from None


_ADDRESSES: Final = listed(read_address, COIN_EVENT_ADDRESSES)
_PARAMETERS: Final = (
    Parameter("kinds", Kind(listed(_kind, len(ALL_KINDS)), "string", "kinds"), default=KINDS),
    Parameter("addresses", Kind(_ADDRESSES, "string", "addresses")),
    Parameter("confirmations", number(1, COIN_EVENT_CONFIRMATIONS), default=1),
    Parameter("from", Kind(read_place, "string", "place")),
)


def _asked(request: ApiRequest, given: Given) -> Asked:
    addresses, place = given["addresses"], given["from"]
    last = request.header(b"last-event-id")
    if last:
        try:
            place = read_place(last.decode("latin-1"))
        except ValueError as error:
            raise bad(str(error), "Last-Event-ID") from None
    wanted = Wanted(
        frozenset(given["kinds"]), None if addresses is None else set(addresses), given["confirmations"]
    )
    return Asked(wanted, place, request.key.id if request.key is not None else "")


def _listen(api: Api, request: ApiRequest, given: Given) -> None:
    asked = _asked(request, given)
    if "withdrawal" in asked.wanted.kinds:
        api.admission.need(request.key, "send")
    stream: Stream
    try:
        if wants_socket(request):
            stream = Socket(api.streams, request, asked, partial(_count, api, request))
        else:
            stream = SentEvents(api.streams, request, asked)
    except RefusedError as error:
        raise ApiError(503, str(error)) from None
    stream.begin()


def _count(api: Api, request: ApiRequest) -> None:
    """A message counts as a request of the key it came with."""
    if request.key is not None:
        api.admission.count(request.key, api.clock.now())


def _listen_long(api: Api, request: ApiRequest, given: Given) -> None:
    try:
        body = json.loads(request.data)
    except (ValueError, RecursionError):
        raise bad("The body is a JSON object.") from None
    if isinstance(body, dict) and "from" in body:
        body["from_"] = str(body.pop("from"))
    said = read_body(Body, body)
    try:
        addresses = None if said.addresses is None else [read_address(each) for each in said.addresses]
        place = read_place(said.from_) if said.from_ else None
    except ValueError as error:
        raise bad(str(error), "addresses" if said.addresses else "from") from None
    if addresses is not None and len(addresses) > COIN_EVENT_ADDRESSES:
        raise bad(f"There may be at most {COIN_EVENT_ADDRESSES} of them.", "addresses")
    _listen(
        api,
        request,
        {"kinds": said.kinds, "addresses": addresses, "confirmations": said.confirmations, "from": place},
    )


ENDPOINTS: Final = (
    endpoint("GET", "/api/v3/events", *_PARAMETERS, scope="events", take=_listen),
    endpoint("POST", "/api/v3/events", scope="events", take=_listen_long),
)
