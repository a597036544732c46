"""The generated codec against the reflective one, for declarations and values that hypothesis invents."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.codec import decode, decode_from, encode, encode_into, reflective, size_of, source_of
from meshnet.errors import CodecError, EncodeError, MeshError
from tests.support.declarations import declared, spoilt

slow = settings(
    max_examples=3 * settings().max_examples,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large, HealthCheck.filter_too_much],
)


def outcome(call: Callable[[], Any]) -> Any:
    """What a call returns, or the class of what it raises, which must be one of ours."""
    try:
        return call()
    except MeshError as fault:
        return type(fault)


class OracleTests(SynchronousTestCase):
    def same(self, cls: Any, data: bytes) -> None:
        """Both read the same of the bytes; what was read is written by both alike."""
        want = outcome(lambda: reflective.decode(cls, data))
        found = outcome(lambda: decode(cls, data))
        if want is CodecError or found is CodecError:
            self.assertIs(found, want, source_of(cls))
            return
        self.assertEqual(repr_of(found), repr_of(want), source_of(cls))
        self.assertEqual(encode(want), reflective.encode(want))
        for buffer in (bytearray(data), memoryview(b"ab" + data + b"c")[2 : 2 + len(data)]):
            self.assertEqual(repr_of(decode(cls, buffer)), repr_of(want))

    @slow
    @given(declared(), st.data())
    def test_values(self, made: tuple[Any, st.SearchStrategy[Any]], data: st.DataObject) -> None:
        """Both write the same bytes and read them back; sizes are told before; buffers are not overrun."""
        cls, values = made
        for _ in range(3):
            value = data.draw(values)
            octets = encode(value)
            self.assertEqual(octets, reflective.encode(value))
            self.assertEqual(size_of(value), len(octets))
            self.assertEqual(decode(cls, octets), value)
            self.assertEqual(reflective.decode(cls, octets), value)
            buffer = bytearray(b"\xee" * (len(octets) + 5))
            self.assertEqual(encode_into(value, buffer, 2), 2 + len(octets))
            self.assertEqual(buffer, b"\xee\xee" + octets + b"\xee\xee\xee")
            self.assertEqual(decode_from(cls, buffer, 2, 2 + len(octets)), (value, 2 + len(octets)))

    @slow
    @given(declared(), st.data())
    def test_hostile_bytes(self, made: tuple[Any, st.SearchStrategy[Any]], data: st.DataObject) -> None:
        """Cut, lengthened, changed and invented bytes: the same message or CodecError from both."""
        cls, values = made
        octets = encode(data.draw(values))
        self.same(cls, octets + data.draw(st.binary(min_size=1, max_size=12)))
        self.same(cls, data.draw(st.binary(max_size=40)))
        for at in range(min(len(octets), 80)):
            self.same(cls, octets[:at])
            for other in {0, 1, 2, 0x40, 0xFD, 0xFF, octets[at] + 1 & 255, octets[at] - 1 & 255}:
                self.same(cls, octets[:at] + bytes([other]) + octets[at + 1 :])

    @slow
    @given(declared(), st.data())
    def test_wrong_values(self, made: tuple[Any, st.SearchStrategy[Any]], data: st.DataObject) -> None:
        """What a declaration does not allow is EncodeError from both, and the rest the same bytes."""
        _, values = made
        for _ in range(3):
            value = data.draw(spoilt(data.draw(values)))
            want = outcome(lambda value=value: reflective.encode(value))  # type: ignore[misc]
            self.assertEqual(outcome(lambda value=value: encode(value)), want)  # type: ignore[misc]
            room = bytearray(5_000)
            into = outcome(lambda value=value, room=room: encode_into(value, room))  # type: ignore[misc]
            if want is EncodeError:
                self.assertIs(into, EncodeError)
                self.assertEqual(len(room), 5_000)
            else:
                self.assertEqual(room[:into], want)


def repr_of(value: Any) -> str:
    """A message as text, in which NaN equals itself and a view what it shows."""
    if isinstance(value, memoryview):
        return repr(bytes(value))
    if isinstance(value, tuple):
        return "(" + ", ".join(map(repr_of, value)) + ")"
    if hasattr(value, "__declaration__") and not isinstance(value, type):
        members = value.__declaration__.members
        return "{" + ", ".join(f"{one.name}={repr_of(getattr(value, one.name))}" for one in members) + "}"
    return repr(value)
