"""Invites: their bytes, and what is refused."""

from __future__ import annotations

import base64
import contextlib
import json
from hashlib import sha256
from pathlib import Path

from coincurve import PublicKeyXOnly
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.signing import sign
from meshnet.codec import encode
from meshnet.errors import UsageError
from meshnet.limits import INVITE_TEXT
from meshnet.topology.invite import (
    PREFIX,
    TAG,
    Body,
    FirstPeer,
    InviteError,
    PeerRow,
    longest,
    make_invite,
    read_invite,
)
from tests.support.topology import UNIX, key

VECTOR = json.loads((Path(__file__).parents[2] / "vectors" / "invite.json").read_text())
PEERS = (
    FirstPeer(key(1).public, ("tcp:192.0.2.1:7001", "tcp:[2001:db8::1]:7001")),
    FirstPeer(key(2).public, ("tcp:relay.example:7001",)),
)
LONG = tuple(FirstPeer(key(n + 1).public, ("tcp:" + "h" * 100 + ":7001",)) for n in range(8))


def forged(body: Body, signer: int = 1, garbage: bytes = b"") -> str:
    """A text with whatever content, rightly signed and summed."""
    data = encode(body) + garbage
    data += sign(key(signer), TAG, data)
    data += sha256(TAG + data).digest()[:4]
    return PREFIX + base64.b32encode(data).decode().rstrip("=").lower()


def rows(*peers: PeerRow, inviter: bytes = key(1).public) -> Body:
    """A body of network 1."""
    return Body(1, UNIX, inviter, peers)


class Text(SynchronousTestCase):
    """What an invite is made of."""

    def test_vector(self) -> None:
        """The bytes of the vector, both ways; signature and checksum computed from the page alone."""
        peers = tuple(
            FirstPeer(key(peer["secret"]).public, tuple(peer["addresses"])) for peer in VECTOR["peers"]
        )
        text = make_invite(key(VECTOR["inviter_secret"]), VECTOR["network"], VECTOR["expiry"], peers)
        self.assertEqual(text, VECTOR["text"])
        found = read_invite(text)
        self.assertEqual((found.network, found.expiry), (VECTOR["network"], VECTOR["expiry"]))
        self.assertEqual((found.inviter, found.peers), (key(VECTOR["inviter_secret"]).public, peers))
        word = text.removeprefix("meshinvite1").upper()
        data = base64.b32decode(word + "=" * (-len(word) % 8))
        self.assertEqual(data[-4:], sha256(b"meshnet/invite" + data[:-4]).digest()[:4])
        tag = sha256(b"meshnet/invite").digest()
        digest = sha256(tag + tag + data[:-68]).digest()
        self.assertTrue(PublicKeyXOnly(data[9:41]).verify(data[-68:-4], digest))
        self.assertEqual(data[:8].hex(), f"{VECTOR['network']:08x}{VECTOR['expiry']:08x}")

    @given(
        st.integers(0, 2**32 - 1),
        st.integers(0, 2**32 - 1),
        st.dictionaries(
            st.integers(1, 9),
            st.lists(st.from_regex(r"\A[!-~]{1,30}\Z"), min_size=1, max_size=4),
            min_size=1,
            max_size=8,
        ),
    )
    def test_round_trip(self, network: int, expiry: int, peers: dict[int, list[str]]) -> None:
        """What was put in comes out, however it is copied; as many peers as fit into 600 characters."""
        wanted = [FirstPeer(key(number).public, tuple(each)) for number, each in peers.items()]
        text, told = longest(key(1), network, expiry, wanted)
        self.assertLessEqual(len(text), INVITE_TEXT)
        self.assertEqual(told, tuple(wanted[: len(told)]))
        for copied in (text, text.upper(), f"  {text}\n"):
            found = read_invite(copied)
            self.assertEqual((found.network, found.expiry, found.peers), (network, expiry, told))

    def test_length(self) -> None:
        """Peers that do not fit are left out, the last first; one that alone is too long is said so."""
        text, told = longest(key(1), 1, UNIX, LONG)
        self.assertEqual(told, LONG[:1])
        self.assertLessEqual(len(text), INVITE_TEXT)
        with self.assertRaisesRegex(UsageError, "600 are the most"):
            make_invite(key(1), 1, UNIX, LONG)
        with self.assertRaisesRegex(UsageError, "600 are the most"):
            longest(key(1), 1, UNIX, [FirstPeer(key(2).public, ("x" * 200,) * 4)])
        with self.assertRaisesRegex(UsageError, "1 to 8 peers"):
            make_invite(key(1), 1, UNIX, ())

    def test_expiry(self) -> None:
        """It holds until its expiry, and says afterwards how long ago that was and whom to ask."""
        invite = read_invite(make_invite(key(1), 1, UNIX, PEERS))
        self.assertEqual(invite.refusal(UNIX - 1), "")
        self.assertIn("expired 2 days ago; ask node 0279be66…", invite.refusal(UNIX + 2 * 86_400))


class Hostile(SynchronousTestCase):
    """Texts that no node made."""

    def refused(self, text: str, words: str) -> None:
        """One sentence that says this."""
        with self.assertRaises(InviteError) as caught:
            read_invite(text)
        said = str(caught.exception)
        self.assertIn(words, said)
        self.assertRegex(said, r"\A[A-Z'].*\.\Z")

    @given(st.data())
    def test_any_change(self, draw: st.DataObject) -> None:
        """One character changed, wherever: refused."""
        text = VECTOR["text"]
        place = draw.draw(st.integers(0, len(text) - 1))
        other = draw.draw(
            st.sampled_from([c for c in "abcdefghijklmnopqrstuvwxyz234567" if c != text[place]])
        )
        with self.assertRaises(InviteError):
            read_invite(text[:place] + other + text[place + 1 :])

    @given(st.one_of(st.text(max_size=700), st.binary(max_size=400).map(lambda b: PREFIX + b.hex())))
    def test_anything(self, text: str) -> None:
        """Arbitrary text raises InviteError, and nothing else."""
        with self.assertRaises(InviteError):
            read_invite(text)

    @given(st.binary(max_size=300))
    def test_signed_garbage(self, junk: bytes) -> None:
        """So does what somebody signed and summed rightly."""
        data = junk + sign(key(1), TAG, junk)
        data += sha256(TAG + data).digest()[:4]
        with contextlib.suppress(InviteError):
            read_invite(PREFIX + base64.b32encode(data).decode().rstrip("=").lower())

    def test_sentences(self) -> None:
        """What is wrong is named."""
        text = make_invite(key(1), 1, UNIX, PEERS)
        own, other = PeerRow(bytes(33), ("tcp:h:1",)), PeerRow(key(2).public, ("tcp:h:1",))
        for wrong, words in (
            ("", "is no invite"),
            ("mesh1" + "a" * 300, "is no invite"),
            (text.replace("invite1", "invite2"), "version 2"),
            (text[:-1], "damaged"),
            (text + "a" * 600, "damaged"),
            (PREFIX, "damaged"),
            (forged(rows(own), signer=2), "not made by the node it names"),
            (forged(rows()), "malformed"),
            (forged(rows(PeerRow(bytes(33), ()))), "malformed"),
            (forged(rows(other, other)), "malformed"),
            (forged(rows(own, PeerRow(key(1).public, ("tcp:h:1",)))), "malformed"),
            (forged(rows(PeerRow(b"\x05" * 33, ("tcp:h:1",)))), "malformed"),
            (forged(rows(PeerRow(bytes(33), ("tcp:h:1\n[x]",)))), "malformed"),
            (forged(rows(PeerRow(bytes(33), ("",)))), "malformed"),
            (forged(rows(own, inviter=bytes(33))), "malformed"),
            (forged(rows(own), garbage=b"\0"), "malformed"),
        ):
            self.refused(wrong, words)
