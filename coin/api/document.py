"""The API's own description, OpenAPI 3.1: what paths there are, what they take, what they answer.

It is the source of truth: tests hold the table of endpoints and every answer against it. It lies in pieces in
`openapi/`: `base.json` has what all share, each other file some paths and perhaps schemas of its own; the
pieces are put together when it is first asked for.
"""

from __future__ import annotations

import json
from functools import cache
from importlib.resources import files
from typing import Any, Final

from coin.api.answer import Answer, to_json
from coin.api.endpoint import Endpoint, Given
from coin.api.refusals import JSON
from coin.api.status import ALWAYS
from meshnet.node.app import Json


@cache
def document() -> Json:
    """All of it; not to be changed."""
    folder = files("coin.api") / "openapi"
    pieces = {each.name: json.loads(each.read_text("utf-8")) for each in folder.iterdir()}
    whole: Json = pieces.pop("base.json")
    for name in sorted(pieces):
        _add(whole["paths"], pieces[name].get("paths", {}))
        for kind, values in pieces[name].get("components", {}).items():
            _add(whole["components"].setdefault(kind, {}), values)
    return whole


def _add(table: Json, more: Json) -> None:
    twice = table.keys() & more.keys()
    if twice:
        raise ValueError(f"described twice: {', '.join(sorted(twice))}")
    table.update(more)


@cache
def _answer() -> Answer:
    return Answer(200, to_json(document()), JSON)


def _document(api: Any, given: Given) -> Answer:
    return _answer()


ENDPOINTS: Final = (Endpoint("GET", "/api/v3/openapi.json", ALWAYS, act=_document, csrf=False),)
