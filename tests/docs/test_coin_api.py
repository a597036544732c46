"""docs/coin-api.md names the endpoints that there are, with their sets."""

from __future__ import annotations

from coin.api.table import TABLE
from tests.docs.pages import page, plain, table

PAGE = page("docs/coin-api.md")


def test_endpoints() -> None:
    """Every endpoint of versions 1 and 2 is in the table with its sets, and no other."""
    written = {}
    for request, sets, what in table(PAGE, "request", "sets", "what"):
        methods, _, path = plain(request).rpartition(" ")
        assert what
        for method in methods.split(", "):
            written[method, path] = set(sets.split(", ")) - {"–"}
    there = {(each.method, each.path): {one.value for one in each.sets} for each in TABLE}
    exchange = {each for each in there if each[1].startswith("/api/v3/") and "openapi" not in each[1]}
    assert written == {each: sets for each, sets in there.items() if each not in exchange}
