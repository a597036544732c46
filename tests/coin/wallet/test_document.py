"""JSON as Go writes it."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.wallet.document import go_json

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=8)
FLOATS = st.floats(allow_nan=False)
VALUES = st.recursive(
    FLOATS | st.none() | st.booleans() | st.integers() | TEXTS,
    lambda each: st.lists(each, max_size=4) | st.dictionaries(TEXTS, each, max_size=4),
    max_leaves=12,
)


class DocumentTests(SynchronousTestCase):
    def test_escapes(self) -> None:
        """Each peculiarity of Go's encoder."""
        text = 'a"\\/\n\r\t\b\f\x00\x1f<>&\u2028\u2029é世\U0001f600\x7f'
        self.assertEqual(
            go_json(text),
            '"a\\"\\\\/\\n\\r\\t\\u0008\\u000c\\u0000\\u001f\\u003c\\u003e\\u0026\\u2028\\u2029é世\U0001f600\x7f"',
        )

    def test_form(self) -> None:
        """Indented and on one line; what is empty stays on its line."""
        table = {"b": [1, {}], "a": {"x": [], "y": None, "z": True}}
        self.assertEqual(go_json(table), '{"b":[1,{}],"a":{"x":[],"y":null,"z":true}}')
        lines = ["{", '  "b": [', "    1,", "    {}", "  ],", '  "a": {', '    "x": [],', '    "y": null,']
        lines += ['    "z": true', "  }", "}"]
        self.assertEqual(go_json(table, 2), "\n".join(lines))

    @given(VALUES, st.sampled_from([0, 1, 4]))
    def test_round(self, value: Any, indent: int) -> None:
        """Any value is read back by any reader."""
        self.assertEqual(json.loads(go_json(value, indent)), value)
