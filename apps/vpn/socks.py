"""SOCKS5 (RFC 1928) as a state machine without I/O: bytes in, events out.

    state      waits for                                     then
    GREETING   05, count, methods                            05 00 → REQUEST; 05 02 → PASSWORD; 05 FF → OVER
    PASSWORD   01, name, password (RFC 1929)                 01 00 → REQUEST; 01 01 → OVER
    REQUEST    05, command, 00, kind, address, port          Asked → DECIDING; a reply with an error → OVER
    DECIDING   granted() or denied()                         OPEN or OVER
    OPEN/OVER  nothing

CONNECT gives `Asked`, UDP ASSOCIATE gives `Associated`; BIND gets "command not supported". It holds at most
one message (515 bytes) and, while deciding, `LARGEST_EARLY` bytes that the client sent ahead.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import Enum
from hmac import compare_digest
from typing import Final

from attrs import frozen

from apps.vpn.destination import IPV4, IPV6, NAME, Destination, destination
from apps.vpn.messages import Code

LARGEST_EARLY: Final = 1 << 18
"""Bytes held that a client sent before it had its answer; more of them end the connection."""

_CONNECT: Final = 1
_ASSOCIATE: Final = 3
_NO_AUTHENTICATION: Final = 0
_USER_PASSWORD: Final = 2
_NONE_ACCEPTABLE: Final = 0xFF


@frozen
class Send:
    """Bytes for the client."""

    data: bytes


@frozen
class Asked:
    """The client wants a connection; answer with `granted` or `denied`."""

    where: Destination


@frozen
class Associated:
    """The client wants to send UDP, from this port of its own (0: it does not know yet); answer with
    `granted` or `denied`."""

    port: int


@frozen
class Over:
    """The connection is to be closed, after what was to send; `reason` is a short name for counters."""

    reason: str


Event = Send | Asked | Associated | Over


class State(Enum):
    """How far a client is."""

    GREETING = "greeting"
    PASSWORD = "password"  # noqa: S105
    REQUEST = "request"
    DECIDING = "deciding"
    OPEN = "open"
    OVER = "over"


def reply(code: Code, bound: Destination | None = None) -> bytes:
    """A reply. Its bound address is 0.0.0.0:0, since it would be the exit's; or where UDP is taken."""
    if bound is None:
        return bytes((5, code, 0, IPV4, 0, 0, 0, 0, 0, 0))
    return bytes((5, code, 0, bound.kind)) + bound.packed + bound.port.to_bytes(2, "big")


class SocksMachine:
    """One client. `credentials` (name, password) demands RFC 1929; None lets anyone in."""

    __slots__ = ("_credentials", "_held", "state")

    def __init__(self, credentials: tuple[bytes, bytes] | None = None) -> None:
        self._credentials = credentials
        self._held = bytearray()
        self.state = State.GREETING

    def receive(self, data: bytes) -> list[Event]:
        """Takes bytes of the client; never raises."""
        if self.state in (State.OPEN, State.OVER):
            return []
        self._held += data
        events: list[Event] = []
        while (step := _STEPS.get(self.state)) is not None:
            found = step(self)
            if not found:
                break
            events += found
        if len(self._held) > LARGEST_EARLY:
            events += self._over("too_much_early")
        return events

    def granted(self, bound: Destination | None = None) -> bytes:
        """The connection stands, or UDP is taken at `bound`: the reply to send. What the client sent ahead is
        in `early`."""
        assert self.state is State.DECIDING
        self.state = State.OPEN
        return reply(Code.OK, bound)

    def denied(self, code: Code) -> bytes:
        """The connection was not made: the reply to send before closing."""
        assert self.state is State.DECIDING
        self.state = State.OVER
        self._held.clear()
        return reply(code)

    @property
    def held(self) -> int:
        """Bytes held."""
        return len(self._held)

    def early(self) -> bytes:
        """Takes what the client sent after its request."""
        data = bytes(self._held)
        self._held.clear()
        return data

    def _over(self, reason: str) -> list[Event]:
        self.state = State.OVER
        self._held.clear()
        return [Over(reason)]

    def _take(self, size: int) -> bytes:
        data = bytes(self._held[:size])
        del self._held[:size]
        return data

    def _greeting(self) -> list[Event]:
        held = self._held
        if held and held[0] != 5:
            return self._over("not_socks5")
        if len(held) < 2 or len(held) < 2 + held[1]:
            return []
        methods = self._take(2 + held[1])[2:]
        method = _NO_AUTHENTICATION if self._credentials is None else _USER_PASSWORD
        if method not in methods:
            return [Send(bytes((5, _NONE_ACCEPTABLE))), *self._over("no_method")]
        self.state = State.REQUEST if self._credentials is None else State.PASSWORD
        return [Send(bytes((5, method)))]

    def _password(self) -> list[Event]:
        held = self._held
        if held and held[0] != 1:
            return self._over("bad_password")
        if len(held) < 2 or len(held) < 3 + held[1]:
            return []
        name_size, size = held[1], held[2 + held[1]]
        if len(held) < 3 + name_size + size:
            return []
        message = self._take(3 + name_size + size)
        given = (message[2 : 2 + name_size], message[3 + name_size :])
        assert self._credentials is not None
        right = [compare_digest(mine, theirs) for mine, theirs in zip(self._credentials, given, strict=True)]
        if not all(right):
            return [Send(b"\x01\x01"), *self._over("bad_password")]
        self.state = State.REQUEST
        return [Send(b"\x01\x00")]

    def _request(self) -> list[Event]:
        held = self._held
        if held and held[0] != 5:
            return self._over("not_socks5")
        if len(held) < 5:
            return []
        start, size = {IPV4: (4, 4), IPV6: (4, 16), NAME: (5, held[4])}.get(held[3], (4, 0))
        if size == 0:
            return self._refuse(Code.ADDRESS_NOT_SUPPORTED)
        if len(held) < start + size + 2:
            return []
        message = self._take(start + size + 2)
        address, port = message[start:-2], int.from_bytes(message[-2:], "big")
        if message[1] == _ASSOCIATE:  # its address is where the client sends from, and often of zeros
            self.state = State.DECIDING
            return [Associated(port)]
        if message[1] != _CONNECT:
            return self._refuse(Code.COMMAND_NOT_SUPPORTED)
        try:
            where = destination(message[3], address, port)
        except ValueError:
            return self._refuse(Code.FAILED)
        self.state = State.DECIDING
        return [Asked(where)]

    def _refuse(self, code: Code) -> list[Event]:
        return [Send(reply(code)), *self._over(code.name.lower())]


_STEPS: Final[dict[State, Callable[[SocksMachine], list[Event]]]] = {
    State.GREETING: SocksMachine._greeting,
    State.PASSWORD: SocksMachine._password,
    State.REQUEST: SocksMachine._request,
}
