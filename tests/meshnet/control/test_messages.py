"""Errors as JSON and back."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet import errors
from meshnet.control.messages import from_json, to_json
from meshnet.node.schema import FieldError

KINDS = (
    errors.UsageError,
    errors.RefusedError,
    errors.TimedOutError,
    errors.UnreachableError,
    errors.MissingDependencyError,
    errors.StorageError,
    errors.LocalError,
    errors.MeshError,
)

json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "message", "details", "reason", "hop"]) | st.text(max_size=5),
            inner,
            max_size=4,
        )
    ),
    max_leaves=10,
)


class MessageTests(SynchronousTestCase):
    def test_round_trip(self) -> None:
        """Kind, text and exit code survive."""
        for kind in KINDS:
            status, body = to_json(kind("Something is wrong."))
            found = from_json(body)
            self.assertIs(type(found), kind)
            self.assertEqual(str(found), "Something is wrong.")
            self.assertTrue(400 <= status < 600)

    def test_subclasses(self) -> None:
        """An error of a finer kind arrives as the nearest one with the same exit code."""
        for error in (errors.LinkLostError("x"), errors.HandshakeError("x"), FieldError("x", "a.b")):
            found = from_json(to_json(error)[1])
            self.assertEqual(found.exit_code, error.exit_code)
        self.assertEqual(to_json(FieldError("x", "a.b"))[1]["error"]["field"], "a.b")

    def test_circuit_error(self) -> None:
        """Reason and hop travel along."""
        for reason in errors.Reason:
            error = errors.CircuitError("x", reason, 2)
            found = from_json(to_json(error)[1])
            self.assertEqual(found.exit_code, error.exit_code)
            assert isinstance(found, errors.CircuitError)
            self.assertEqual((found.reason, found.hop), (reason, 2))

    @given(answer=json_values)
    def test_hostile_answers(self, answer: object) -> None:
        """Whatever a server answers, it is read as some MeshError."""
        assert isinstance(from_json(answer), errors.MeshError)
        assert isinstance(from_json({"error": answer}), errors.MeshError)
        assert isinstance(from_json({"error": {"code": "circuit", "details": answer}}), errors.MeshError)
