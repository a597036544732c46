"""The lines of the local door (docs/wire-format.md §7): read, checked, written. Pure: no socket, no clock.

A line is UTF-8, ends in `\\n` and has at most 1,024 bytes with it; its words are apart by one space. What
follows the line on the same connection is no line any more but bytes of a stream, so `LineReader` says
exactly where a line ended.

    CONNECT <address> <port> [as=anonymous|node] [via=A,B | policy=P]   → OK <peer key>   then raw bytes
    LISTEN <port> [address=<service>]                          → OK <own key>     then INCOMING lines
    ACCEPT <id>                                                → OK <peer key>    then raw bytes
                                                               ← INCOMING <id> <peer key>
    any of them                                                → ERR <number> <sentence>

A key is 66 hex digits or `anonymous`. Everything wrong with bytes from outside raises CodecError.
"""

from __future__ import annotations

from typing import Final
from urllib.parse import quote, unquote

from attrs import frozen

from meshnet.cipher.keys import PublicKey, parse_public_key
from meshnet.errors import (
    CodecError,
    LocalError,
    MeshError,
    MissingDependencyError,
    RefusedError,
    RemoteError,
    TimedOutError,
    UnreachableError,
    UsageError,
)
from meshnet.limits import DOOR_LINE

ANONYMOUS: Final = "anonymous"
IDENTITIES: Final = (ANONYMOUS, "node")
BAD_LINE: Final = 2  # the number of ERR for a line that cannot be read


class LineReader:
    """Gathers one line after the other out of whatever pieces the bytes come in."""

    __slots__ = ("_held",)

    def __init__(self) -> None:
        self._held = b""

    def feed(self, data: bytes | bytearray | memoryview) -> tuple[str | None, int]:
        """The line, without its end, once it is whole, and how many bytes of `data` were taken for it.

        While it is not whole: None, and all were taken. Raises CodecError for a line that is too long or
        no UTF-8; the reader is of no use then.
        """
        piece = bytes(data[: DOOR_LINE - len(self._held)])
        end = piece.find(b"\n")
        if end < 0:
            self._held += piece
            if len(self._held) >= DOOR_LINE:
                raise CodecError(f"A line is at most {DOOR_LINE} bytes long.")
            return None, len(piece)
        line, self._held = self._held + piece[:end], b""
        try:
            return line.decode(), end + 1
        except UnicodeDecodeError:
            raise CodecError("A line is UTF-8.") from None


@frozen
class Connect:
    """Opens a stream to a port of `address` (a key, a name or an address that the node knows)."""

    address: str
    port: int
    identity: str = ANONYMOUS
    via: tuple[str, ...] | None = None
    """Relays, nearest first; None: the configured route, or a way found; empty: a direct link."""
    policy: str | None = None
    """A path policy for the way to be found; percent-encoded in the line."""


@frozen
class Listen:
    """Takes a mesh port, of the node itself or of one of its services."""

    port: int
    service: str | None = None


@frozen
class Accept:
    """Takes a stream that was told as INCOMING."""

    id: int


Request = Connect | Listen | Accept


@frozen
class Ok:
    """It worked; `key` is the peer's, None for an anonymous one or where none was said."""

    key: PublicKey | None = None


@frozen
class Incoming:
    """A stream waits for its ACCEPT; `key` is the caller's, None for an anonymous one."""

    id: int
    key: PublicKey | None = None


def read_request(line: str) -> Request:
    """What a process asks; raises CodecError with a sentence that says how it is written."""
    words = _words(line)
    match words:
        case ["CONNECT", address, port, *options]:
            given = _options(options, "as", "via", "policy")
            identity = given.get("as", ANONYMOUS)
            if identity not in IDENTITIES:
                raise CodecError(f"as= is one of {', '.join(IDENTITIES)}.")
            via = given.get("via")
            hops = None if via is None else tuple(hop for hop in via.split(",") if hop)
            policy = given.get("policy")
            if policy is not None and hops is not None:
                raise CodecError("Say via= or policy=, not both.")
            return Connect(address, _port(port), identity, hops, None if policy is None else unquote(policy))
        case ["LISTEN", port, *options]:
            return Listen(_port(port), _options(options, "address").get("address"))
        case ["ACCEPT", number]:
            return Accept(_id(number))
    raise CodecError(
        "Write CONNECT <address> <port> [as=anonymous|node] [via=A,B | policy=P], LISTEN <port> "
        "[address=<service>] or ACCEPT <id>."
    )


def write_request(request: Request) -> bytes:
    """The line that asks for it; raises UsageError if that cannot be one line."""
    match request:
        case Connect(address, port, identity, via, policy):
            words = ["CONNECT", address, str(port)]
            words += [f"as={identity}"] if identity != ANONYMOUS else []
            words += [f"via={','.join(via)}"] if via is not None else []
            words += [f"policy={quote(policy, safe='')}"] if policy is not None else []
        case Listen(port, service):
            words = ["LISTEN", str(port), *([f"address={service}"] if service is not None else [])]
        case Accept(number):
            words = ["ACCEPT", str(number)]
    line = " ".join(words)
    try:
        if read_request(line) != request:
            raise CodecError("A word has a space, a comma or nothing in it.")
        data = _line(line)
    except CodecError as error:
        raise UsageError(f"This cannot be asked of a node: {error}") from None
    return data


def read_answer(line: str) -> Ok:
    """What a node answers; raises the error that ERR stands for, CodecError for anything else."""
    if line.startswith("ERR "):
        number, _, sentence = line[4:].partition(" ")
        raise _ERRORS.get(number, RemoteError)(sentence or "The node gave no reason.")
    match _words(line):
        case ["OK"]:
            return Ok()
        case ["OK", key]:
            return Ok(_key(key))
    raise CodecError("The node answered something that is no line of the door.")


def read_incoming(line: str) -> Incoming:
    """A line of a listening connection; raises CodecError, or what ERR stands for."""
    match _words(line):
        case ["INCOMING", number, key]:
            return Incoming(_id(number), _key(key))
    read_answer(line)
    raise CodecError("The node said OK where it tells of streams.")


def write_ok(key: PublicKey | None = None) -> bytes:
    """OK and whom it is about."""
    return _line(f"OK {_shown(key)}")


def write_incoming(number: int, key: PublicKey | None) -> bytes:
    """INCOMING."""
    return _line(f"INCOMING {number} {_shown(key)}")


def write_error(error: MeshError) -> bytes:
    """ERR with the error's number and its sentence, cut to what a line holds."""
    number = BAD_LINE if isinstance(error, CodecError) else error.exit_code
    text = str(error) or type(error).__name__
    sentence = "".join(char if char.isprintable() else " " for char in text)
    sentence = sentence[:1].upper() + sentence[1:]
    sentence += "" if sentence.endswith((".", "!", "?")) else "."
    head = f"ERR {number} ".encode()
    body = sentence.encode(errors="replace")[: DOOR_LINE - len(head) - 1].decode(errors="ignore")
    return head + body.encode() + b"\n"


_ERRORS: Final[dict[str, type[MeshError]]] = {
    "1": LocalError,
    "2": UsageError,
    "3": MissingDependencyError,
    "4": UnreachableError,
    "5": RefusedError,
    "6": TimedOutError,
}


def _line(text: str) -> bytes:
    data = text.encode() + b"\n"
    if len(data) > DOOR_LINE:
        raise CodecError(f"A line is at most {DOOR_LINE} bytes long.")
    return data


def _words(line: str) -> list[str]:
    if not line.isprintable():
        raise CodecError("A line holds no control characters.")
    words = line.split(" ")
    if "" in words:
        raise CodecError("The words of a line are apart by one space.")
    return words


def _options(words: list[str], *known: str) -> dict[str, str]:
    found: dict[str, str] = {}
    for word in words:
        name, sign, value = word.partition("=")
        if not sign or name not in known or name in found:
            options = ", ".join(f"{name}=" for name in known)
            raise CodecError(f"After the port come {options}, each once at most.")
        found[name] = value
    return found


def _number(text: str, limit: int) -> int:
    """A decimal number from 0 to `limit` as it is written: no sign, no leading zero; -1 if it is none."""
    if not (text.isascii() and text.isdigit() and len(text) <= 20 and (text == "0" or text[0] != "0")):
        return -1
    return int(text) if int(text) <= limit else -1


def _port(text: str) -> int:
    port = _number(text, 65_535)
    if port < 1:
        raise CodecError("A mesh port is a number from 1 to 65535.")
    return port


def _id(text: str) -> int:
    number = _number(text, (1 << 64) - 1)
    if number < 0:
        raise CodecError("The id of a stream is the number that INCOMING told.")
    return number


def _key(text: str) -> PublicKey | None:
    if text == ANONYMOUS:
        return None
    try:
        return parse_public_key(text)
    except MeshError:
        raise CodecError("A key is 66 hex digits.") from None


def _shown(key: PublicKey | None) -> str:
    return ANONYMOUS if key is None else key.hex()
