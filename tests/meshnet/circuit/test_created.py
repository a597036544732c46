"""The slots of CREATED: every hop's answer reaches the origin, and who forges is found."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import backend
from meshnet.cipher.hashing import hmac256
from meshnet.circuit.created import SLOT, ForgedSlot, Slot, answer, insert, read
from meshnet.circuit.messages import SLOTS_SIZE

OPENSSL, SODIUM = backend("openssl"), backend("sodium")
REPLY = b"r" * 49


def secret(hop: int) -> bytes:
    return bytes([hop + 1]) * 32


def key(hop: int) -> bytes:
    return bytes([2, hop]) * 16 + b"k"


def collected(hops: int) -> bytes:
    """What the origin receives over so many hops."""
    slots = answer(secret(hops - 1), key(hops - 1), 60_000, REPLY, bytes, OPENSSL)
    for hop in reversed(range(hops - 1)):
        slots = insert(secret(hop), key(hop), 50_000 + hop, slots, OPENSSL)
    return slots


class CreatedTests(SynchronousTestCase):
    def test_every_length(self) -> None:
        """One to eight hops fill the nine slots, and either backend reads them."""
        for hops in range(1, 9):
            slots = collected(hops)
            self.assertEqual(len(slots), SLOTS_SIZE)
            for library in (OPENSSL, SODIUM):
                found, reply = read([secret(hop) for hop in range(hops)], slots, library)
                expected = [Slot(key(hop), 50_000 + hop) for hop in range(hops - 1)]
                self.assertEqual(found, [*expected, Slot(key(hops - 1), 60_000)])
                self.assertEqual(reply, REPLY)

    def test_the_macs_are_those_of_the_wire(self) -> None:
        """mac = HMAC(HMAC("crtm", ss), R ‖ max_cell ‖ first 51 sealed bytes of below)[:16]."""
        below = collected(2)
        above = insert(secret(7), key(7), 1_500, below, OPENSSL)
        stream = OPENSSL.stream(hmac256(b"crtd", secret(7)))
        clear = bytearray(SLOTS_SIZE)
        stream.update_into(above, clear)
        mac_key = hmac256(b"crtm", secret(7))
        expected = hmac256(mac_key, key(7) + b"\x05\xdc" + below[:SLOT])[:16]
        self.assertEqual(bytes(clear[:SLOT]), key(7) + b"\x05\xdc" + expected)
        self.assertEqual(bytes(clear[SLOT:]), below[: SLOTS_SIZE - SLOT])

    @given(st.integers(1, 8), st.data())
    def test_a_changed_bit_blames_a_pair(self, hops: int, data: st.DataObject) -> None:
        """A bit changed by hop k − 1 on what k sent breaks the mac of k or, in the bytes that k − 1 covers,
        of k − 1; beyond the bytes in use it changes nothing."""
        guilty = data.draw(st.integers(0, hops - 1))
        position = data.draw(st.integers(0, SLOTS_SIZE - 1))
        slots = answer(secret(hops - 1), key(hops - 1), 60_000, REPLY, bytes, OPENSSL)
        for hop in reversed(range(hops - 1)):
            if hop + 1 == guilty:
                slots = _flipped(slots, position)
            slots = insert(secret(hop), key(hop), 50_000, slots, OPENSSL)
        if guilty == 0:
            slots = _flipped(slots, position)
        first_broken = guilty + max(0, position // SLOT - 1)
        secrets = [secret(hop) for hop in range(hops)]
        if first_broken >= hops:
            self.assertEqual(read(secrets, slots, OPENSSL)[1], REPLY)
        else:
            with self.assertRaises(ForgedSlot) as caught:
                read(secrets, slots, OPENSSL)
            self.assertEqual(caught.exception.hop, first_broken)

    @given(st.binary(min_size=SLOTS_SIZE, max_size=SLOTS_SIZE), st.integers(1, 8))
    def test_anything(self, slots: bytes, hops: int) -> None:
        """Any other bytes blame the first hop."""
        with self.assertRaises(ForgedSlot) as caught:
            read([secret(hop) for hop in range(hops)], slots, OPENSSL)
        self.assertEqual(caught.exception.hop, 0)


def _flipped(data: bytes, position: int) -> bytes:
    return data[:position] + bytes([data[position] ^ 0x40]) + data[position + 1 :]
