"""Tables checked against attrs classes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from attrs import frozen
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.errors import UsageError
from meshnet.node.schema import (
    Between,
    Context,
    FieldError,
    HostPort,
    Parse,
    Port,
    host_port,
    read,
    read_body,
    read_query,
)

KEY = SecretKey(bytes(31) + b"\x07").public


@frozen
class Empty:
    """Takes no key."""


@frozen
class Inner:
    size: int = 1


@frozen
class Sample:
    colour: Literal["red", "green"] = "red"
    count: Annotated[int, Between(1, 10)] = 1
    ratio: float = 0.5
    on: bool = True
    home: Path = Path("home")
    who: PublicKey | None = None
    accept: Literal["any"] | tuple[PublicKey, ...] = "any"
    inner: Inner = Inner()
    many: tuple[Inner, ...] = ()
    free: Mapping[str, int] | None = None
    upper: Annotated[str, Parse(str.upper)] = ""
    address: HostPort | None = None
    port: Port = 1


@frozen
class Needy:
    name: str


@frozen
class Bounded:
    port: Port
    ratio: Annotated[float, Between(0)]


@frozen
class Sensible:
    low: int = 0
    high: int = 1

    def __attrs_post_init__(self) -> None:
        if self.low > self.high:
            raise ValueError("low is above high")


class ReadTests(SynchronousTestCase):
    def refused(self, table: Any, *words: str, cls: type = Sample) -> FieldError:
        error = self.assertRaises(FieldError, read, cls, table, "box", Context(source="file.toml"))
        for word in words:
            self.assertIn(word, str(error))
        return error

    def test_every_type(self) -> None:
        """Each kind of annotation takes its kind of value."""
        table = {
            "colour": "green",
            "count": 10,
            "ratio": 2,
            "on": False,
            "home": "there",
            "who": KEY.hex(),
            "accept": [KEY.hex()],
            "inner": {"size": 3},
            "many": [{"size": 4}, {}],
            "free": {"a": 1},
            "upper": "loud",
            "address": "[::1]:80",
            "port": 65_535,
        }
        found = read(Sample, table, "", Context(base=Path("/base")))
        expected = Sample(
            "green", 10, 2.0, False, Path("/base/there"), KEY, (KEY,), Inner(3), (Inner(4), Inner()),
            {"a": 1}, "LOUD", ("::1", 80), 65_535,
        )  # fmt: skip
        self.assertEqual(found, expected)

    def test_defaults(self) -> None:
        """What is left out keeps its default; a path's default is relative to the file as well."""
        found = read(Sample, {}, "", Context(base=Path("/base")))
        self.assertEqual(found, Sample(home=Path("/base/home")))

    def test_unknown_key(self) -> None:
        """It is named with its value, what was perhaps meant, and the choices."""
        error = self.refused(
            {"color": "red"}, "file.toml", "box.color", '"red"', "did you mean colour?", "count"
        )
        self.assertEqual(error.field, "box.color")

    def test_nothing_is_taken(self) -> None:
        """Where no key is known, the sentence does not offer an empty list."""
        error = self.assertRaises(UsageError, read_query, Empty, {"x": "1"})
        self.assertIn("none is taken here", str(error))

    def test_wrong_choice(self) -> None:
        """A choice that is none names the choices."""
        self.refused({"colour": "gren"}, "box.colour", '"gren"', "did you mean green?", "red, green")

    def test_wrong_types(self) -> None:
        """Each wrong kind says what was wanted."""
        for table, words in (
            ({"count": "3"}, ["box.count", '"3"', "a whole number"]),
            ({"count": True}, ["true", "a whole number"]),
            ({"count": 11}, ["11", "between 1 and 10"]),
            ({"ratio": "x"}, ["a number"]),
            ({"on": 1}, ["true or false"]),
            ({"home": ""}, ["a path"]),
            ({"who": 3}, ["a public key"]),
            ({"who": "02"}, ["box.who", "66 hex digits"]),
            ({"who": "05" + "00" * 32}, ["box.who"]),
            ({"accept": "anyone"}, ['"any"', "a list"]),
            ({"accept": ["zz"]}, ["box.accept.0"]),
            ({"inner": 3}, ["a table"]),
            ({"inner": {"sise": 3}}, ["box.inner.sise", "did you mean size?"]),
            ({"many": {}}, ["a list"]),
            ({"many": [{"size": "x"}]}, ["box.many.0.size"]),
            ({"free": {"a": "b"}}, ["box.free.a"]),
            ({"upper": 3}, ["text"]),
            ({"address": "localhost"}, ["host:port"]),
            ({"address": "::1:80"}, ["brackets"]),
            ({"port": 0}, ["between 1 and 65535"]),
        ):
            self.refused(table, *words)

    def test_required(self) -> None:
        """A missing key is named with what it wants."""
        self.refused({}, "box.name", "missing", "text", cls=Needy)
        self.refused({}, "box.port", "missing", "a whole number from 1 to 65535", cls=Bounded)
        self.refused({"port": 1}, "box.ratio", "a number of 0 or more", cls=Bounded)

    def test_sense(self) -> None:
        """What a class itself refuses names the table."""
        self.refused({"low": 3}, "box", "low is above high", cls=Sensible)
        error = self.assertRaises(FieldError, read_body, Sensible, {"low": 3})
        self.assertEqual(str(error), "low is above high.")

    def test_body_and_query(self) -> None:
        """Bodies are typed, queries are text; unknown keys are refused in both as usage errors."""
        self.assertEqual(read_body(Inner, {"size": 5}).size, 5)
        self.assertEqual(read_query(Inner, {"size": "5"}).size, 5)
        self.assertRaises(UsageError, read_body, Inner, {"size": "5"})
        self.assertRaises(UsageError, read_body, Inner, {"sice": 5})
        for text in ("five", "[" * 9_000):
            self.assertRaises(UsageError, read_query, Inner, {"size": text})
        self.assertIsNone(read_body(Sample, {"who": None}).who)

    def test_host_port(self) -> None:
        """Addresses with and without brackets."""
        self.assertEqual(host_port("example.org:0"), ("example.org", 0))
        for text in ("", ":80", "a:", "a:65536", "a:-1", "a:8x", "1::2:3", "a:٣"):
            self.assertRaises(ValueError, host_port, text)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
tables = st.dictionaries(st.sampled_from([field.name for field in Sample.__attrs_attrs__]), json_values)


class HostileTests(SynchronousTestCase):
    @given(table=tables, text=st.booleans())
    def test_only_field_errors(self, table: dict[str, Any], text: bool) -> None:
        """Whatever is in a table, it is read or refused as a FieldError."""
        try:
            read(Sample, table, "", Context(text=text))
        except FieldError as error:
            assert str(error)
