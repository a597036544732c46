"""Bodies of JSON: what Go's decoder takes, and its words for what it does not."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin.api.golang.decoding import BadBodyError, Struct
from coin.api.golang.syntax import fault

ASKED = Struct(
    "api.Asked",
    {
        "address": "string",
        "unsigned": "bool",
        "indexes": "[]int",
        "to": (Struct("api.Receiver", {"coins": "string"}),),
        "hours": Struct("api.Hours", {"type": "string"}),
    },
)
NUMBERS = st.integers() | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner, max_size=4),
    max_leaves=12,
)


@pytest.mark.parametrize(
    ("body", "why"),
    [
        ("", "EOF"),
        (" \n", "EOF"),
        ("{", "unexpected EOF"),
        ('{"address": "a', "unexpected EOF"),
        ("nul", "unexpected EOF"),
        ("x", "invalid character 'x' looking for beginning of value"),
        ("{x", "invalid character 'x' looking for beginning of object key string"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1 2}', "invalid character '2' after object key:value pair"),
        ('{"a":1,}', "invalid character '}' looking for beginning of object key string"),
        ("[1 2]", "invalid character '2' after array element"),
        ("[1,]", "invalid character ']' looking for beginning of value"),
        ("trux", "invalid character 'x' in literal true (expecting 'e')"),
        ("-x", "invalid character 'x' in numeric literal"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("1ex", "invalid character 'x' in exponent of numeric literal"),
        ('"\x01"', "invalid character '\\x01' in string literal"),
        ('"\\x"', "invalid character 'x' in string escape code"),
        ('"\\u12x"', "invalid character 'x' in \\u hexadecimal character escape"),
        ("NaN", "invalid character 'N' looking for beginning of value"),
        ("[" * 100 + "]" * 100, "exceeded max depth"),
        ("[" * 100_000 + "]" * 100_000, "exceeded max depth"),
        ("[]", "json: cannot unmarshal array into Go value of type api.Asked"),
        ('{"address": 1}', "json: cannot unmarshal number into Go struct field Asked.address of type string"),
        (
            '{"unsigned": "x"}',
            "json: cannot unmarshal string into Go struct field Asked.unsigned of type bool",
        ),
        ('{"indexes": [true]}', "json: cannot unmarshal bool into Go struct field Asked.indexes of type int"),
        ('{"indexes": 1}', "json: cannot unmarshal number into Go struct field Asked.indexes of type []int"),
        (
            '{"indexes": [1.5]}',
            "json: cannot unmarshal number 1.5 into Go struct field Asked.indexes of type int",
        ),
        ('{"to": {}}', "json: cannot unmarshal object into Go struct field Asked.to of type []api.Receiver"),
        (
            '{"hours": {"type": {}}}',
            "json: cannot unmarshal object into Go struct field Asked.hours.type of type string",
        ),
    ],
)
def test_refusals(body: str, why: str) -> None:
    """The sentence of Go."""
    with pytest.raises(BadBodyError) as told:
        ASKED.read(body.encode())
    assert str(told.value) == why


def test_what_is_taken() -> None:
    """Names without regard to case, unknown ones and nulls passed over, the rest of the body too."""
    body = '{"ADDRESS": "a", "other": [1], "unsigned": null, "to": [{"Coins": "1"}], "address": "b"} and more'
    assert ASKED.read(body.encode()) == {"address": "b", "to": [{"coins": "1"}]}
    assert ASKED.read(b"null") == {}


@given(JSON)
def test_right_json(value: object) -> None:
    """No fault is found in it."""
    assert fault(json.dumps(value)) == ""


@given(st.text(max_size=40) | st.text(alphabet='{}[]",:0123456789.eE+-truefalsn\\u ', max_size=40))
def test_any_text(text: str) -> None:
    """A fault is found exactly where Python finds one, whatever follows the first value."""
    text = f"[{text}"  # alone, of "1.x" Python takes the 1
    try:
        json.JSONDecoder(parse_constant=lambda name: 1 / 0).raw_decode(text)
        right = True
    except (ValueError, ZeroDivisionError):
        right = False
    assert (fault(text) == "") == right


@given(st.binary(max_size=200))
def test_any_bytes(body: bytes) -> None:
    """Fields or a refusal, nothing else."""
    try:
        ASKED.read(body)
    except BadBodyError as error:
        assert str(error)
