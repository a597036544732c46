"""Holds answers of the coin's API against its own description (`coin/api/openapi`)."""

from __future__ import annotations

import json
from functools import cache
from importlib import import_module
from typing import Any
from urllib.parse import quote

from coin.api.document import document
from coin.api.table import TABLE


def pointer(*names: str) -> str:
    """A JSON pointer into the description, as the fragment of an URI."""
    return "#/" + "/".join(quote(name.replace("~", "~0").replace("/", "~1"), safe="~") for name in names)


@cache
def _validator(where: str) -> Any:
    schemas = import_module("jsonschema_rs")
    return schemas.Draft202012Validator({**document(), "$ref": where}, validate_formats=False)


def fits(where: str, value: Any) -> str:
    """What is wrong with a value for the schema at a pointer; empty if nothing is."""
    found = next(_validator(where).iter_errors(value), None)
    return "" if found is None else f"{found.message[:500]} at {list(found.instance_path)}"


def check_answer(method: str, path: str, status: int, kind: str, body: bytes) -> None:
    """AssertionError if an operation that is described says nothing of such an answer. Of paths and methods
    that are not described, the errors are those of version 1, or 3."""
    methods, _ = TABLE.find(path)
    path = next(iter(methods.values())).path if methods else path
    operation = document()["paths"].get(path, {}).get(method.lower())
    if operation is None:
        assert status >= 400 or method == "OPTIONS", f"{method} {path} is not described"
        return
    found = str(status) if str(status) in operation["responses"] else "default"
    assert found != "default" or status >= 400, f"{method} {path}: {status} is not described"
    told = operation["responses"][found]
    place = ("paths", path, method.lower(), "responses", found)
    if "$ref" in told:
        place = tuple(told["$ref"][2:].split("/"))
        told = document()["components"]["responses"][place[-1]]
    media = kind.partition(";")[0]
    assert media in told["content"], f"{method} {path} {status}: {kind} is not described"
    value = json.loads(body) if media == "application/json" else body.decode()
    wrong = fits(pointer(*place, "content", media, "schema"), value)
    assert not wrong, f"{method} {path} {status}: {wrong}"
