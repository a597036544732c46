"""What a client and an exit say to each other at the start of a stream to mesh port 1,080.

Each message is preceded by its length; integers are big-endian:

    request   length u16 | version u8 = 1 | kind u8 | port u16 | size u8 ‖ address
    reply     length u16 | code u8 | size u8 ‖ text (UTF-8, ≤ 200 bytes)

The client sends one request, kinds and addresses as in `destination.py`. The exit answers with one reply:
code 0, and from then on both directions are the bytes of the TCP connection; or a code of RFC 1928 §6 and a
sentence, and the stream ends. Kind 128 asks for UDP instead: the address is the name of an association (16
bytes, `datagrams.py`), the port 0; after code 0 the stream carries nothing, and its end is that of the
association. Nothing is read or written here but bytes.
"""

from __future__ import annotations

from enum import IntEnum
from typing import Annotated, Final, TypeVar

from apps.vpn.datagrams import ASSOCIATION
from apps.vpn.destination import Destination, destination
from meshnet.codec import U8, U16, Var, decode, encode, message
from meshnet.errors import CodecError, LocalError, MeshError

EXIT_PORT: Final = 1_080
"""The mesh port of an exit."""
VERSION: Final = 1
ASSOCIATE: Final = 128
"""Kind of a request for UDP."""
LARGEST_REQUEST: Final = 5 + 255
LARGEST_REPLY: Final = 2 + 200
LONGEST_TEXT: Final = 200

M = TypeVar("M")


class Code(IntEnum):
    """How an attempt to connect ended: the reply codes of RFC 1928 §6."""

    OK = 0
    FAILED = 1
    NOT_ALLOWED = 2
    NETWORK_UNREACHABLE = 3
    HOST_UNREACHABLE = 4
    REFUSED = 5
    TIMED_OUT = 6
    COMMAND_NOT_SUPPORTED = 7
    ADDRESS_NOT_SUPPORTED = 8


class ConnectError(MeshError):
    """A connection was not made; `code` says why, `reason` is its short name in metrics."""

    def __init__(self, code: Code, text: str, reason: str = "") -> None:
        super().__init__(text)
        self.code = code
        self.reason = reason or code.name.lower()

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """Not allowed 5, timed out 6, unreachable or refused 4, else 1."""
        return {Code.FAILED: 1, Code.NOT_ALLOWED: 5, Code.TIMED_OUT: 6}.get(self.code, 4)


def code_of(error: BaseException | None) -> Code:
    """The code for an error of the mesh: a policy's no 2, a time-out 6, no way there 4, else 1."""
    if isinstance(error, ConnectError):
        return error.code
    if not isinstance(error, MeshError):
        return Code.FAILED
    codes = {4: Code.HOST_UNREACHABLE, 5: Code.NOT_ALLOWED, 6: Code.TIMED_OUT}
    return codes.get(error.exit_code, Code.FAILED)


def as_reason(why: BaseException | None) -> str:
    """The short name of an error for counters: bounded in number, never text of a peer."""
    if isinstance(why, ConnectError):
        return why.reason
    if isinstance(why, LocalError):
        return "local"
    return code_of(why).name.lower()


@message
class ExitRequest:
    """A client asks an exit for a TCP connection."""

    version: U8
    kind: U8
    port: U16
    address: Annotated[bytes, Var(U8, 255)]


@message
class ExitReply:
    """The exit's answer."""

    code: U8
    text: Annotated[str, Var(U8, LONGEST_TEXT)]


def request(where: Destination) -> bytes:
    """The bytes of a request, length included."""
    return _framed(encode(ExitRequest(VERSION, where.kind, where.port, where.packed)))


def associate(association: bytes) -> bytes:
    """The bytes of a request for UDP under this name, 16 bytes."""
    return _framed(encode(ExitRequest(VERSION, ASSOCIATE, 0, association)))


def reply(code: Code, text: str = "") -> bytes:
    """The bytes of a reply, length included; a text too long is cut."""
    cut = text.encode()[:LONGEST_TEXT].decode(errors="ignore")
    return _framed(encode(ExitReply(int(code), cut)))


def _framed(body: bytes) -> bytes:
    return len(body).to_bytes(2, "big") + body


def take(cls: type[M], received: bytearray, largest: int) -> M | None:
    """Takes one message from the front of `received`; None: more bytes are needed (never more than
    `largest` + 2). Raises CodecError."""
    if len(received) < 2:
        return None
    size = int.from_bytes(received[:2], "big")
    if size > largest:
        raise CodecError(f"{cls.__name__} of {size} bytes is longer than {largest}")
    if len(received) < 2 + size:
        return None
    found = decode(cls, bytes(received[2 : 2 + size]))
    del received[: 2 + size]
    return found


def asked(found: ExitRequest) -> Destination | bytes:
    """Where a request wants to go, or the name of the association that it asks for; raises CodecError."""
    if found.version != VERSION:
        raise CodecError(f"exit request of version {found.version}; this node speaks version {VERSION}")
    if found.kind == ASSOCIATE:
        if found.port or len(found.address) != ASSOCIATION:
            raise CodecError("exit request: an association has a name of 16 bytes and no port")
        return found.address
    try:
        return destination(found.kind, found.address, found.port)
    except ValueError as error:
        raise CodecError(f"exit request: {error}") from None


def refusal(found: ExitReply) -> ConnectError:
    """The error that a reply other than OK stands for; an unknown code counts as FAILED."""
    code = Code(found.code) if found.code in _CODES else Code.FAILED
    text = "".join(c for c in found.text if c.isprintable()) or "the exit gave no reason"
    return ConnectError(code, f"exit: {text}")


_CODES: Final = frozenset(int(code) for code in Code if code is not Code.OK)
