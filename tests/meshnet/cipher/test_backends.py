"""Both backends: RFC vectors, equal bytes, equal faults."""

from __future__ import annotations

from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import BACKENDS, TAG_SIZE, BadTag, Buffer, backend, nonce96, nonce128
from meshnet.errors import UsageError

OPENSSL, SODIUM = (backend(name) for name in BACKENDS)
BOTH = (OPENSSL, SODIUM)

SUNSCREEN = (
    b"Ladies and Gentlemen of the class of '99: If I could offer you only one tip for the future, "
    b"sunscreen would be it."
)
# RFC 8439 §2.4.2
STREAM_KEY = bytes(range(32))
STREAM_NONCE = bytes.fromhex("01000000000000000000004a00000000")
STREAM_TEXT = bytes.fromhex(
    "6e2e359a2568f98041ba0728dd0d6981e97e7aec1d4360c20a27afccfd9fae0bf91b65c5524733ab8f593dabcd62b357"
    "1639d624e65152ab8f530c359f0861d807ca0dbf500d6a6156a38e088a22b65e52bc514d16ccf806818ce91ab7793736"
    "5af90bbf74a35be6b40b8eedf2785e42874d"
)
# RFC 8439 §2.8.2
AEAD_KEY = bytes(range(0x80, 0xA0))
AEAD_NONCE = bytes.fromhex("070000004041424344454647")
AEAD_DATA = bytes.fromhex("50515253c0c1c2c3c4c5c6c7")
AEAD_TAG = bytes.fromhex("1ae10b594f09e26a7e902ecbd0600691")

keys = st.binary(min_size=32, max_size=32)
numbers = st.integers(0, 2**64 - 1)
texts = st.binary(max_size=300)
forms = st.sampled_from([bytes, bytearray, lambda data: memoryview(bytearray(data))])


def outcome(call: Callable[[], object]) -> object:
    """What a call returns, or the type of what it raises."""
    try:
        return call()
    except Exception as error:
        return type(error)


class PublishedTests(SynchronousTestCase):
    """RFC 8439."""

    def test_stream(self) -> None:
        """The ChaCha20 example, which starts at block counter 1 as our circuits do."""
        for each in BOTH:
            stream = each.stream(STREAM_KEY)
            stream.reset_nonce(STREAM_NONCE)
            out = bytearray(len(SUNSCREEN))
            self.assertEqual(stream.update_into(SUNSCREEN, out), len(SUNSCREEN))
            self.assertEqual(bytes(out), STREAM_TEXT)

    def test_aead(self) -> None:
        """The AEAD example; text and tag."""
        for each in BOTH:
            sealed = each.aead(AEAD_KEY).encrypt(AEAD_NONCE, SUNSCREEN, AEAD_DATA)
            self.assertEqual(sealed[-TAG_SIZE:], AEAD_TAG)
            self.assertEqual(sealed[:8].hex(), "d31a8d34648e60db")
            self.assertEqual(each.aead(AEAD_KEY).decrypt(AEAD_NONCE, sealed, AEAD_DATA), SUNSCREEN)

    def test_nonces(self) -> None:
        """Little-endian behind four zero bytes; the block counter in front."""
        self.assertEqual(nonce96(0x0102).hex(), "000000000201000000000000")
        self.assertEqual(nonce128(0x0102).hex(), "01000000000000000201000000000000")
        self.assertEqual(nonce128(3, counter=0).hex(), "00000000000000000300000000000000")

    def test_names(self) -> None:
        """Each backend carries its name; another name is the user's fault and lists the choices."""
        self.assertEqual(tuple(each.name for each in BOTH), BACKENDS)
        error = self.assertRaises(UsageError, backend, "rot13")
        self.assertIn("openssl, sodium", str(error))


class EqualBytesTests(SynchronousTestCase):
    """What one backend does, the other does."""

    @given(keys, numbers, texts, st.none() | texts, forms)
    def test_aead(self, key: bytes, n: int, text: bytes, bound: bytes | None, form: type) -> None:
        """Sealing gives equal bytes from any kind of buffer, and each opens the other's."""
        nonce = nonce96(n)
        one, other = (each.aead(key) for each in BOTH)
        sealed = one.encrypt(nonce, form(text), bound)
        self.assertEqual(sealed, other.encrypt(nonce, form(text), bound))
        self.assertEqual(one.decrypt(nonce, form(sealed), bound), text)
        self.assertEqual(other.decrypt(nonce, form(sealed), bound), text)

    @given(keys, numbers, texts, texts)
    def test_in_place(self, key: bytes, n: int, text: bytes, bound: bytes) -> None:
        """Sealing and opening over the input leave what the copying calls return."""
        nonce = nonce96(n)
        for each in BOTH:
            aead = each.aead(key)
            memory = bytearray(text + bytes(TAG_SIZE))
            view = memoryview(memory)
            self.assertEqual(aead.encrypt_into(nonce, view[: len(text)], bound, view), len(memory))
            self.assertEqual(bytes(memory), aead.encrypt(nonce, text, bound))
            self.assertEqual(aead.decrypt_into(nonce, view, bound, view[: len(text)]), len(text))
            self.assertEqual(bytes(view[: len(text)]), text)

    @given(keys, numbers, st.lists(texts, max_size=4))
    def test_streams(self, key: bytes, n: int, parts: list[bytes]) -> None:
        """A stream cut anywhere goes on where it stood, in place too, and equals the other backend's."""
        results = []
        for each in BOTH:
            stream = each.stream(key)
            stream.reset_nonce(nonce128(n))
            pieces = []
            for part in parts:
                memory = bytearray(part)
                self.assertEqual(stream.update_into(memoryview(memory), memory), len(part))
                pieces.append(bytes(memory))
            results.append(b"".join(pieces))
        self.assertEqual(results[0], results[1])

    def test_a_fresh_stream(self) -> None:
        """Without a reset a stream stands at nonce 0, block counter 1."""
        for each in BOTH:
            fresh, reset = bytearray(70), bytearray(70)
            each.stream(STREAM_KEY).update_into(bytes(70), fresh)
            stream = each.stream(STREAM_KEY)
            stream.update_into(bytes(5), bytearray(9))
            stream.reset_nonce(nonce128(0))
            stream.update_into(bytes(70), reset)
            self.assertEqual(fresh, reset)

    def test_a_stream_is_the_body_of_the_aead(self) -> None:
        """Block counter 1 under nonce n is what the AEAD XORs with: the relay's layer relies on it."""
        for each in BOTH:
            stream, out = each.stream(AEAD_KEY), bytearray(len(SUNSCREEN))
            stream.reset_nonce(nonce128(9))
            stream.update_into(SUNSCREEN, out)
            self.assertEqual(bytes(out), each.aead(AEAD_KEY).encrypt(nonce96(9), SUNSCREEN, None)[:-TAG_SIZE])


class EqualFaultsTests(SynchronousTestCase):
    """What one backend refuses, the other refuses in the same way."""

    @given(keys, texts, texts, st.integers(0, 400))
    def test_random_bytes(self, key: bytes, data: bytes, bound: bytes, size: int) -> None:
        """Opening random bytes raises BadTag, into a buffer of any size BadTag or ValueError."""
        for each in BOTH:
            aead = each.aead(key)
            self.assertRaises(BadTag, aead.decrypt, nonce96(0), data, bound)
            self.assertRaises(
                (BadTag, ValueError), aead.decrypt_into, nonce96(0), data, bound, bytearray(size)
            )

    @given(texts, st.data())
    def test_any_changed_bit(self, text: bytes, data: st.DataObject) -> None:
        """One bit of text, tag, nonce or bound data changed: BadTag."""
        sealed = bytearray(OPENSSL.aead(AEAD_KEY).encrypt(AEAD_NONCE, text, AEAD_DATA))
        bit = data.draw(st.integers(0, len(sealed) * 8 - 1))
        sealed[bit // 8] ^= 1 << bit % 8
        for each in BOTH:
            self.assertRaises(BadTag, each.aead(AEAD_KEY).decrypt, AEAD_NONCE, sealed, AEAD_DATA)
            sealed[bit // 8] ^= 1 << bit % 8
            self.assertRaises(BadTag, each.aead(AEAD_KEY).decrypt, AEAD_NONCE, sealed, AEAD_DATA[1:])
            self.assertRaises(BadTag, each.aead(AEAD_KEY).decrypt, bytes(12), sealed, AEAD_DATA)
            sealed[bit // 8] ^= 1 << bit % 8

    def test_wrong_sizes(self) -> None:
        """Keys, nonces and output buffers of wrong size are ValueError in both, read-only ones TypeError."""
        small: Buffer = bytearray(3)
        for each in BOTH:
            aead, stream = each.aead(AEAD_KEY), each.stream(AEAD_KEY)
            sealed = aead.encrypt(AEAD_NONCE, b"four", None)
            for size in (0, 3, 19, 21):
                self.assertRaises(ValueError, aead.encrypt_into, AEAD_NONCE, b"four", None, bytearray(size))
            for size in (0, 3, 5, 20):
                self.assertRaises(ValueError, aead.decrypt_into, AEAD_NONCE, sealed, None, bytearray(size))
            self.assertRaises(TypeError, aead.encrypt_into, AEAD_NONCE, b"four", None, bytes(20))
            self.assertRaises(ValueError, stream.update_into, b"four", small)
            self.assertRaises(ValueError, aead.encrypt, bytes(11), b"", None)
            self.assertRaises(ValueError, aead.decrypt, bytes(13), sealed, None)
            self.assertRaises(ValueError, stream.reset_nonce, bytes(12))
            self.assertRaises(ValueError, each.aead, b"short")
            self.assertRaises(ValueError, each.stream, b"short")

    def test_sodium_knows_one_counter(self) -> None:
        """Another block counter than 1 is refused by the sodium backend, instead of giving other bytes."""
        stream = SODIUM.stream(STREAM_KEY)
        for counter in (0, 2, 2**32 - 1):
            self.assertRaises(ValueError, stream.reset_nonce, nonce128(0, counter=counter))
