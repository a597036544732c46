"""Schemas and their changes: ids, older and newer editions of a message, other interpreters."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Annotated, Any
from unittest import SkipTest

import attrs
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.codec import (
    SKYCOIN,
    U8,
    U16,
    U32,
    Bool,
    Fixed,
    Framed,
    Many,
    OmitEmpty,
    Rest,
    Since,
    Tlv,
    Var,
    View,
    decode,
    encode,
    message,
    schema_history,
    schema_id,
    schema_text,
    tlvs,
)
from meshnet.errors import CodecError
from tests.support.generations import EDITIONS, SAMPLES, First, Keeper, Market, Second, Third, said

IDS = {
    "first": "6cbb628b9ceb9f67",
    "second": "6c28cbab726d9b3d",
    "third": "9a50dd5433183354",
    "market": "e67a809f7bde692a",
    "coin": "259efea970f9dfea",
}
"""The first eight bytes of each sample's id. They are said to peers: a new number here breaks them all."""

ROOT = Path(__file__).resolve().parent.parent.parent.parent
OFFERS = st.builds(
    Third.Offer,
    price=st.integers(0, (1 << 64) - 1),
    note=st.text("ab", max_size=20),
    fee=st.integers(0, 0xFFFF),
    tags=st.lists(st.integers(0, 255), max_size=4).map(tuple),
    seller=st.binary(min_size=4, max_size=4),
)


class EditionTests(SynchronousTestCase):
    @given(OFFERS)
    def test_newer_to_older(self, offer: Third.Offer) -> None:
        """An older program reads what it knows of a newer message."""
        data = encode(offer)
        self.assertEqual(decode(First.Offer, data), First.Offer(offer.price, offer.note))
        self.assertEqual(
            decode(Second.Offer, data), Second.Offer(offer.price, offer.note, offer.fee, offer.tags)
        )

    @given(OFFERS)
    def test_older_to_newer(self, offer: Third.Offer) -> None:
        """A newer program takes defaults for what an older message does not have."""
        first = encode(First.Offer(offer.price, offer.note))
        second = encode(Second.Offer(offer.price, offer.note, offer.fee, offer.tags))
        self.assertEqual(decode(Third.Offer, first), Third.Offer(offer.price, offer.note))
        self.assertEqual(
            decode(Third.Offer, second), Third.Offer(offer.price, offer.note, offer.fee, offer.tags)
        )

    @given(OFFERS)
    def test_passed_on(self, offer: Third.Offer) -> None:
        """A program that keeps what it does not know passes on the same bytes."""
        kept = decode(Keeper.Offer, encode(offer))
        self.assertEqual(encode(kept), encode(offer))
        self.assertEqual(encode(attrs.evolve(kept, price=1)), encode(attrs.evolve(offer, price=1)))

    def test_generations_are_whole(self) -> None:
        """A message that ends inside a generation is no message; one with too much behind it neither."""
        first, second = len(encode(First.Offer(1, ""))), len(encode(Second.Offer(1, "")))
        whole = encode(Third.Offer(1, ""))
        for size in range(first, len(whole)):
            if size in (first, second):
                decode(Third.Offer, whole[:size])
            else:
                self.assertRaises(CodecError, decode, Third.Offer, whole[:size])
        decode(Third.Offer, whole + bytes(100))
        self.assertRaises(CodecError, decode, Third.Offer, whole + bytes(101))

    def test_in_a_list(self) -> None:
        """In frames, editions mix in one list."""
        body = b"".join(
            len(one).to_bytes(2, "big") + one
            for one in (encode(SAMPLES[name]) for name in ("first", "third"))
        )
        data = b"\x02" + body + bytes(8) + b"\0\x05"
        market = decode(Market, data)
        self.assertEqual([offer.fee for offer in market.offers], [7, 6])
        self.assertEqual((market.rate, market.drift), (0.0, 5))

    def test_declarations(self) -> None:
        """Appended fields have defaults, take bytes, and stand in order at the end."""
        for hints, values in (
            ({"a": U8, "b": Annotated[U8, Since(2)]}, {}),
            ({"a": Annotated[U8, Since(2)], "b": U8}, {"a": 1, "b": 1}),
            ({"a": Annotated[U8, Since(3)], "b": Annotated[U8, Since(2)]}, {"a": 1, "b": 1}),
            ({"a": Annotated[U8, Since(0)]}, {"a": 1}),
            ({"a": Annotated[bytes, Rest(3), Since(2)]}, {"a": b""}),
            ({"a": Annotated[Second.Offer, Since(2)], "b": Annotated[U8, Since(2)]}, {"a": None, "b": 1}),
            ({"a": Second.Offer, "b": U8}, {}),
            ({"a": Annotated[tuple[Second.Offer, ...], Many(U8, 2)]}, {}),
        ):
            self.assertRaises(TypeError, message, type("Wrong", (), {"__annotations__": hints, **values}))
        wrong = type("Wrong", (), {"__annotations__": {"a": Annotated[bytes, Rest(3)]}})
        self.assertRaises(TypeError, message(skip=3), wrong)


class SchemaTests(SynchronousTestCase):
    def test_text(self) -> None:
        """The text names everything that changes bytes; the id is its hash."""

        @tlvs
        class Extras:
            port: Annotated[int | None, Tlv(2, U16)] = None
            key: Annotated[bytes, Tlv(4, Fixed(3))]

        @message
        class All:
            flag: Bool
            body: Annotated[View, Var(U8, 9)]
            offers: Annotated[tuple[Annotated[Second.Offer, Framed(U16, 99)], ...], Many(None, 4)]

        text = """\
message All wire
  flag bool
  body bytes u8..9
  offers list rest..4 of frame u16..99 of {
    message Offer wire
      price u64
      note text u8..20
      fee u16 since 2
      tags list u8..4 of u8 since 2
  }"""
        self.assertEqual(schema_text(All), text)
        self.assertEqual(schema_id(All), hashlib.sha256(text.encode()).digest())
        self.assertEqual(schema_text(Extras), "tlvs Extras wire\n  2 optional port u16\n  4 key bytes[3]")

    def test_ids_stay(self) -> None:
        """Ids do not change from one version of the program to the next."""
        self.assertEqual(
            {name: schema_id(type(one)).hex()[:16] for name, one in SAMPLES.items()},
            IDS,
        )

    def test_what_counts(self) -> None:
        """Docstrings, defaults, modules and Python types of bytes do not count; names, kinds, maxima do."""

        def made(hint: Any, name: str = "x", doc: str = "", **more: Any) -> bytes:
            body = {"__annotations__": {name: hint}, "__doc__": doc, "__module__": doc or __name__}
            return schema_id(message(type("A", (), {**body, **more})))

        plain = made(Annotated[bytes, Var(U8, 9)])
        self.assertEqual(plain, made(Annotated[View, Var(U8, 9)], doc="other", x=b"default"))
        others = [
            made(Annotated[bytes, Var(U8, 9)], name="y"),
            made(Annotated[str, Var(U8, 9)]),
            made(Annotated[bytes, Var(U16, 9)]),
            made(Annotated[bytes, Var(U8, 8)]),
            made(Annotated[bytes, Var(U8, 9), OmitEmpty()]),
            made(Annotated[bytes, Var(U8, 9), Since(2)], x=b""),
            made(Annotated[bytes, Rest(9)]),
        ]
        sky = message(profile=SKYCOIN)(
            type("A", (), {"__annotations__": {"x": Annotated[bytes, Var(U32, 9)]}})
        )
        self.assertEqual(len({plain, schema_id(sky), *others}), 2 + len(others))

    def test_history(self) -> None:
        """A newer program knows the ids that older ones say."""
        ids = [schema_id(cls) for cls in EDITIONS]
        self.assertEqual(list(schema_history(Third.Offer).items()), [(ids[0], 1), (ids[1], 2), (ids[2], 3)])
        self.assertEqual(schema_history(First.Offer), {ids[0]: 1})
        self.assertEqual(schema_id(Third.Offer, 2), ids[1])


class InterpreterTests(SynchronousTestCase):
    def test_other_pythons(self) -> None:
        """Another Python on this machine makes the same ids and bytes, and reads ours as we do."""
        found = list(_others())
        if not found:
            raise SkipTest("no other Python from 3.11 on is on the PATH")
        mine = said({})
        heard = mine["bytes"]
        # attrs is pure Python: the other one borrows it
        path = os.pathsep.join([str(ROOT), str(Path(attrs.__file__).parent.parent)])
        for python in found:
            run = subprocess.run(
                [python, "-m", "tests.support.generations"],
                input=json.dumps(heard).encode(),
                env={**os.environ, "PYTHONPATH": path, "PYTHONDONTWRITEBYTECODE": "1"},
                capture_output=True,
                check=False,
                cwd=ROOT,
            )
            self.assertEqual(run.returncode, 0, run.stderr.decode())
            self.assertEqual(json.loads(run.stdout), said(heard))


def _others() -> set[str]:
    """Interpreters on the PATH, and beside our own where several are kept, of another version than ours."""
    own = sys.version_info[:2]
    folders = [Path(one) for one in os.environ.get("PATH", "").split(os.pathsep) if one]
    folders += [one / "bin" for one in Path(sys.base_prefix).parent.glob("[0-9]*")]
    found: dict[str, str] = {}
    for minor in range(11, 16):
        for folder in folders:
            python = folder / f"python3.{minor}"
            if (3, minor) == own or f"3.{minor}" in found or not os.access(python, os.X_OK):
                continue
            run = subprocess.run([python, "-c", ""], capture_output=True, check=False)
            if run.returncode == 0:
                found[f"3.{minor}"] = str(python)
    return set(found.values())
