"""The API's description and its table of endpoints say the same."""

from __future__ import annotations

from typing import Any

import pytest

from coin.api.document import document
from coin.api.endpoint import ApiSet, Endpoint, Needed
from coin.api.golang.decoding import Struct
from coin.api.table import TABLE
from tests.support.described import fits, pointer

OPERATIONS = {
    (method, path): operation
    for path, methods in document()["paths"].items()
    for method, operation in methods.items()
}
ENDPOINTS: list[Endpoint] = list(TABLE)
TYPES = {"string": "string", "bool": "boolean", "int": "integer"}
FORM = "application/x-www-form-urlencoded"


def resolved(schema: Any) -> Any:
    """A schema, or what it refers to."""
    if "$ref" not in schema:
        return schema
    return document()["components"]["schemas"][schema["$ref"].rpartition("/")[2]]


def parameters(operation: Any) -> dict[str, tuple[str, bool]]:
    """Names, types and whether they are needed, of an operation's query or form."""
    found = {
        each["name"]: (resolved(each["schema"])["type"], each["required"])
        for each in operation.get("parameters", ())
    }
    form = operation.get("requestBody", {}).get("content", {}).get(FORM, {}).get("schema")
    for name, schema in (form or {}).get("properties", {}).items():
        found[name] = (resolved(schema)["type"], name in form.get("required", ()))
    return found


def test_paths() -> None:
    """The same paths and methods."""
    assert {(each.method.lower(), each.path) for each in ENDPOINTS} == set(OPERATIONS)


@pytest.mark.parametrize("endpoint", ENDPOINTS, ids=lambda each: f"{each.method} {each.path}")
def test_operations(endpoint: Endpoint) -> None:
    """The same sets, parameters with their types, and bodies."""
    operation = OPERATIONS[endpoint.method.lower(), endpoint.path]
    assert {ApiSet(each) for each in operation["x-sets"]} == endpoint.sets
    assert operation.get("x-scope", "") == endpoint.scope
    if endpoint.body is None:
        told = {name: kind for name, (kind, _) in parameters(operation).items()}
        assert told == {each.name: each.kind.type for each in endpoint.parameters}
        return
    schema = operation["requestBody"]["content"]["application/json"]["schema"]
    assert_fields(endpoint.body, schema)
    needed = {each.name for each in endpoint.takes if isinstance(each, Needed)}
    assert needed == set(schema["required"])


def assert_fields(body: Struct, schema: Any) -> None:
    """A body has the fields of a schema, with their types."""
    fields = {name: resolved(each) for name, each in schema["properties"].items()}
    assert set(fields) == set(body.fields)
    for name, kind in body.fields.items():
        if isinstance(kind, str) and not kind.startswith("[]"):
            assert fields[name]["type"] == TYPES[kind]


def test_names() -> None:
    """Every operation has a name of its own; every reference leads somewhere."""
    names = [each["operationId"] for each in OPERATIONS.values()]
    assert len(set(names)) == len(names)
    for reference in references(document()):
        place: Any = document()
        for name in reference[2:].split("/"):
            place = place[name.replace("~1", "/").replace("~0", "~")]


def references(value: Any) -> list[str]:
    """All of a document."""
    if isinstance(value, dict):
        own = [value["$ref"]] if "$ref" in value else []
        return own + [each for inner in value.values() for each in references(inner)]
    return [each for inner in value for each in references(inner)] if isinstance(value, list) else []


def test_a_wrong_answer_is_seen() -> None:
    """What is no balance does not pass for one."""
    where = pointer("components", "schemas", "Amount")
    right = {"coins": 1, "hours": 2}
    assert not fits(where, right)
    for wrong in ({"coins": 1}, {**right, "coins": "1"}, {**right, "coins": -1}, {**right, "more": 1}):
        assert fits(where, wrong)
