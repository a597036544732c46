"""JSON as the Go node writes it: the same values give the same bytes.

Objects keep the order of their keys; who writes a Go map sorts it first. Text is UTF-8 as it is, but for
quotes, backslashes, control characters, the five that HTML must not see, and U+2028, U+2029:

    \\"  \\\\  \\n  \\r  \\t  \\u00XX for the other control characters and for < > &  \\u2028  \\u2029

Knows no wallets. Numbers are integers; a float, which only others write, is written as Python does.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

_ESCAPED: Final = re.compile('["\\\\<>&\x00-\x1f\u2028\u2029]')
_SHORT: Final = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\r": "\\r", "\t": "\\t"}
INDENT: Final = 4
"""Spaces of a step of indentation in files."""


def go_json(value: Any, indent: int = 0) -> str:
    """`value` (mappings with text keys, sequences, text, integers, booleans, None) as JSON: on one line
    without spaces, or indented by `indent` spaces. No newline at the end."""
    return _value(value, indent, "\n" if indent else "")


def _value(value: Any, indent: int, line: str) -> str:
    if isinstance(value, str):
        return _quoted(value)
    if isinstance(value, Mapping):
        colon = ": " if indent else ":"
        parts = [
            f"{_quoted(key)}{colon}{_value(each, indent, line + ' ' * indent)}" for key, each in value.items()
        ]
        return _block("{", parts, "}", indent, line)
    if isinstance(value, Sequence):
        parts = [_value(each, indent, line + " " * indent) for each in value]
        return _block("[", parts, "]", indent, line)
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return json.dumps(value)


def is_shallow(value: Any, most: int) -> bool:
    """Whether a value is nested at most so deep."""
    if isinstance(value, Mapping):
        value = list(value.values())
    if isinstance(value, str) or not isinstance(value, Sequence):
        return True
    return most > 0 and all(is_shallow(each, most - 1) for each in value)


def _block(opening: str, parts: Sequence[str], closing: str, indent: int, line: str) -> str:
    if not parts:
        return opening + closing
    inner = line + " " * indent
    return opening + inner + f",{inner}".join(parts) + line + closing


def _quoted(text: str) -> str:
    return f'"{_ESCAPED.sub(_escape, text)}"' if _ESCAPED.search(text) else f'"{text}"'


def _escape(match: re.Match[str]) -> str:
    found = match[0]
    return _SHORT.get(found) or f"\\u{ord(found):04x}"
