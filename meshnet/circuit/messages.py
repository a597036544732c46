"""The frames that set circuits up and end them, the onion's payload, and what an error onion says.

    10 CREATE    label u32 | expiry u32 | epoch u16 | path_key 33 | onion 1,366     (docs/wire-format.md §2)
    11 CREATED   label u32 | slots 459
    12, 13 CELL  label u32 | seq u64 | body            forward, backward; bit 7 of the kind: congestion seen
    14 FAILED    label u32 | code u8 | error onion 292 or nothing
    15 DESTROY   label u32 | reason u8 | error onion 292 or nothing
    failure      code u8 | length u8, text | TLVs: 1 unix time u64                  in an error onion, ≤ 256 B

Nothing here decides; `table.py` does.
"""

from __future__ import annotations

from typing import Annotated, Final

from meshnet.bundle import FRAME_HEAD
from meshnet.codec import U8, U16, U32, U64, Fixed, Rest, Tail, Tlv, Var, message, tlvs
from meshnet.errors import Reason
from meshnet.limits import ERROR_TEXT, HIDDEN_DATA

CREATE: Final = 10
CREATED: Final = 11
CELL_FORWARD: Final = 12
CELL_BACKWARD: Final = 13
FAILED: Final = 14
DESTROY: Final = 15
MARKED: Final = 0x80

FRAME_KINDS: Final = (CREATE, CREATED, FAILED, DESTROY)
"""The kinds that `Circuits.receive` takes."""

CELL_HEAD: Final = 12  # label and seq
CELL_FRAME: Final = FRAME_HEAD + CELL_HEAD
CELL_COUNTED: Final = CELL_FRAME - 2  # what a frame's length counts beyond the cell's body
SLOTS_SIZE: Final = 459
ERROR_ONION: Final = 292
NO_PATH_KEY: Final = bytes(33)
FIRST_MESSAGE: Final = 49

ONION_INSIDE: Final = 0  # code of FAILED: the error onion says why
BARE_CODES: Final = range(Reason.BAD_ONION, Reason.BUSY + 1)
NEXT: Final = Reason.NEXT_BAD_ONION - Reason.BAD_ONION  # added to a neighbour's bare code

PLAIN: Final = 0  # reason of DESTROY: no longer needed
ERROR: Final = 1  # the error onion says why


@message
class Create:
    """CREATE: opens `label`; `expiry` is in unix seconds and bound into the onion."""

    label: U32
    expiry: U32
    epoch: U16
    path_key: Annotated[bytes, Fixed(33)]
    onion: Annotated[bytes, Fixed(1366)]


@message
class Created:
    """CREATED: the circuit stands; the slots are read in `created.py`."""

    label: U32
    slots: Annotated[bytes, Fixed(SLOTS_SIZE)]


@message
class Failed:
    """FAILED: the circuit does not come about. `code` 0 with an error onion, or 1–4 without."""

    label: U32
    code: U8
    onion: Annotated[bytes, Rest(ERROR_ONION)] = b""

    @property
    def sound(self) -> bool:
        """Code and onion fit together."""
        if self.code == ONION_INSIDE:
            return len(self.onion) == ERROR_ONION
        return self.code in BARE_CODES and not self.onion


@message
class Destroy:
    """DESTROY: the circuit ends. An error onion comes with reason 1 only and travels backward only."""

    label: U32
    reason: U8
    onion: Annotated[bytes, Rest(ERROR_ONION)] = b""

    @property
    def sound(self) -> bool:
        """Reason and onion fit together; a bare reason may be any."""
        return not self.onion or (self.reason == ERROR and len(self.onion) == ERROR_ONION)


@tlvs
class HopTerms:
    """What the onion tells one hop."""

    next_node: Annotated[bytes | None, Tlv(2, Fixed(33))] = None
    rate_in: Annotated[int | None, Tlv(4, U64)] = None
    rate_out: Annotated[int | None, Tlv(6, U64)] = None
    suite: Annotated[int | None, Tlv(8, U8)] = None
    idle: Annotated[int | None, Tlv(12, U16)] = None
    """Seconds without a cell after which the circuit ends."""
    epoch: Annotated[int | None, Tlv(14, U16)] = None
    """For the next CREATE."""
    encrypted: Annotated[bytes | None, Tlv(16, Fixed(HIDDEN_DATA + 16))] = None
    """In a blinded tail: what the receiver tells this hop."""
    path_key: Annotated[bytes | None, Tlv(18, Fixed(33))] = None
    """The introduction node's only: what opens its `encrypted`."""
    first_message: Annotated[bytes | None, Tlv(64, Fixed(FIRST_MESSAGE))] = None
    """The first message of the Noise NK handshake: the last hop's only."""


@tlvs
class FailureTerms:
    """What belongs to an error; all odd, so that who does not know one skips it."""

    unix: Annotated[int | None, Tlv(1, U64)] = None
    """The reporting node's clock, with CLOCK_SKEW."""


@message
class Failure:
    """The content of an error onion."""

    code: U8
    text: Annotated[str, Var(U8, ERROR_TEXT)] = ""
    terms: Annotated[FailureTerms, Tail()] = FailureTerms()
