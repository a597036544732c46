"""Declarations: what is refused at once, and what two sides agree on."""

from __future__ import annotations

from typing import Annotated, Any

from twisted.trial.unittest import SynchronousTestCase

from meshnet.codec import U8, U32, Since, Var, encode, message
from meshnet.errors import UsageError
from meshnet.rpc import Method, Service, call, collect, converse, follow
from meshnet.rpc.declare import implemented
from tests.meshnet.rpc.samples import Number, OurSums, Sums


class DeclarationTests(SynchronousTestCase):
    """Classes of services."""

    def test_forms(self) -> None:
        """Each form says which sides stream."""
        self.assertEqual([each.form for each in Sums.methods.values()], [0, 2, 1, 3])
        self.assertEqual(str(Sums.methods[1]), "sums.double")
        self.assertEqual(set(implemented(OurSums())), {1, 2, 3, 4})

    def test_mistakes(self) -> None:
        """Numbers used twice, no messages, no name, a name that is none, a service on another."""

        def declare(**body: Any) -> Any:
            return type("Declared", (Service,), body)

        double = call(1, Number, Number)
        self.assertRaises(
            TypeError, declare, name="a", one=call(1, Number, Number), two=call(1, Number, Number)
        )
        self.assertRaises(TypeError, declare, one=double)
        self.assertRaises(TypeError, declare, name="a b", one=double)
        self.assertRaises(TypeError, declare, name="é" * 40, one=double)
        self.assertRaises(TypeError, type, "Declared", (Sums,), {"name": "more"})
        self.assertRaises(TypeError, call, 0, Number, Number)
        self.assertRaises(TypeError, call, 1 << 16, Number, Number)
        self.assertRaises(TypeError, follow, 1, int, Number)
        self.assertRaises(TypeError, collect, 1, Number, int, Number)
        self.assertRaises(TypeError, converse, 1, Number, Number, int)

    def test_not_implemented(self) -> None:
        """An implementation that lacks a method, and one of nothing, are refused by name."""
        half = type("Half", (Sums,), {"double": OurSums.double})()
        error = self.assertRaises(UsageError, implemented, half)
        self.assertIn("Half does not implement count", str(error))
        self.assertRaises(UsageError, implemented, type("Empty", (Service,), {})())


class SignatureTests(SynchronousTestCase):
    """What must be the same on both sides, and what need not."""

    def signature(self, method: Any, name: str = "service") -> bytes:
        """Of a method called `ask` in a service of its own."""
        made: Method = type("Declared", (Service,), {"name": name, "ask": method}).methods[method.number]  # type: ignore[attr-defined]
        return made.signature

    def test_what_counts(self) -> None:
        """Number, form, name of the service and the messages; nothing of Python."""
        first = self.signature(call(1, Number, Number))
        self.assertEqual(first, self.signature(call(1, Number, Number)))
        others = [
            self.signature(call(2, Number, Number)),
            self.signature(follow(1, Number, Number)),
            self.signature(collect(1, Number, Number, Number)),
            self.signature(call(1, Number, Number), "other"),
            self.signature(call(1, _first(), Number)),
        ]
        self.assertEqual(len({first, *others}), len(others) + 1)

    def test_appended(self) -> None:
        """A field that was appended later changes nothing; one that stands in between does."""
        old, new, wrong = _first(), _second(), _wrong()
        self.assertEqual(self.signature(call(1, old, old)), self.signature(call(1, new, new)))
        self.assertNotEqual(self.signature(call(1, old, old)), self.signature(call(1, wrong, old)))
        method: Any = call(1, new, new)
        self.assertEqual(method.parse_request(encode(old(7))), new(7, 0))

    def test_frozen(self) -> None:
        """The same on every version of Python: the text is ours alone."""
        method = Sums.methods[3]
        text = "message Number wire\n  value u32\n  pad bytes u32..1048576"
        self.assertEqual(method.text(), f"sums\n3\ntotal\n{text}\n{text}\none\n{text}")
        self.assertEqual(method.signature.hex(), "4858de58d8829250")

    def test_views_are_copied(self) -> None:
        """What would be a view of borrowed memory is read out of a copy."""

        @message
        class Lent:
            data: Annotated[memoryview, Var(U8, 100)]

        method: Any = call(1, Lent, Lent)
        memory = bytearray(b"\x05hello")
        lent = method.parse_request(memoryview(memory))
        memory[1:] = b"HELLO"
        self.assertEqual(bytes(lent.data), b"hello")


def _first() -> Any:
    @message
    class Thing:
        value: U32

    return Thing


def _second() -> Any:
    @message
    class Thing:
        value: U32
        more: Annotated[int, U8.__metadata__[0], Since(2)] = 0  # type: ignore[attr-defined]

    return Thing


def _wrong() -> Any:
    @message
    class Thing:
        more: U8
        value: U32

    return Thing
