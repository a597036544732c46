"""What a client and an exit say to each other on the stream that carries IP packets, mesh port 1,081.

Each message is preceded by its length, which counts its kind and body; integers are big-endian:

    ASK     length u16 | 1 | version u8 = 1 | wants u8 | offloads u8 | mtu u16 | ticket 16
    GRANT   length u16 | 2 | offloads u8 | mtu u16 | v4 4 | v6 16 | dns4 4 | dns6 16 | rate u64 | keeps u16
                           | ticket 16
    REFUSE  length u16 | 3 | code u8 | size u8 ‖ text (UTF-8, ≤ 200 bytes)

The client asks once. The exit grants a lease or refuses; it may grant again later (other terms, the same
addresses) and refuse later (the lease ends). A lease lasts as long as its stream. Whoever shows its ticket
within `keeps` seconds afterwards, or while the old stream still stands, gets the same addresses: connections
inside survive a client that had to dial again. A ticket says nothing about who holds it. Addresses and
tickets of zeros mean none; so does a rate of 0.

The machines take bytes and give events; nothing here reads, writes or waits.
"""

from __future__ import annotations

from enum import Enum, IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from typing import Annotated, Any, Final

from attrs import evolve, frozen

from apps.vpn.tun.device import LEAST_MTU, MOST_MTU
from meshnet.codec import U8, U16, U64, Fixed, Var, decode, encode, message
from meshnet.errors import CodecError, MeshError

PACKETS_PORT: Final = 1_081
"""The mesh port of an exit for IP packets."""
VERSION: Final = 1
LARGEST_MESSAGE: Final = 512
"""Bytes of a message without its length; no kind needs more, and newer ones may append a little."""
LONGEST_TEXT: Final = 200
TICKET_SIZE: Final = 16
_APPENDED: Final = 64

_NO_V4: Final = bytes(4)
_NO_V6: Final = bytes(16)
_NO_TICKET: Final = bytes(TICKET_SIZE)


class Wants(IntFlag):
    """What a client asks for."""

    V4 = 1
    V6 = 2
    DNS = 4


class Offloads(IntFlag):
    """What the kernel behind a side can read: the bits of TUNSETOFFLOAD (`linux/if_tun.h`)."""

    NONE = 0
    CSUM = 0x01
    TSO4 = 0x02
    TSO6 = 0x04
    USO4 = 0x20
    USO6 = 0x40


_KNOWN_OFFLOADS: Final = Offloads.CSUM | Offloads.TSO4 | Offloads.TSO6 | Offloads.USO4 | Offloads.USO6


class RefusalCode(IntEnum):
    """Why there is no lease, or no longer."""

    FAILED = 1  # the exit could not, for a reason of its own
    FULL = 2  # no address is free, or as many clients are there as may be
    NO_SUCH_FAMILY = 3  # the exit has nothing of what is wanted
    MALFORMED = 4  # it did not understand
    STOPPED = 5  # the exit is being turned off
    REPLACED = 6  # the same ticket came over another stream


class LeaseError(MeshError):
    """There is no lease: `code` says why."""

    def __init__(self, code: RefusalCode, text: str) -> None:
        super().__init__(text)
        self.code = code

    @property
    def exit_code(self) -> int:  # type: ignore[override]
        """Full or stopped 4 (try another exit), replaced 5, else 1."""
        codes = {RefusalCode.FULL: 4, RefusalCode.STOPPED: 4, RefusalCode.NO_SUCH_FAMILY: 4}
        return {**codes, RefusalCode.REPLACED: 5}.get(self.code, 1)


@frozen
class Wish:
    """What a client asks for. `offloads` are those that it can read; `mtu` the largest packet that it takes;
    `ticket` names a lease that it had, empty for none."""

    wants: Wants = Wants.V4 | Wants.V6 | Wants.DNS
    offloads: Offloads = Offloads.NONE
    mtu: int = 1_500
    ticket: bytes = b""


@frozen
class Lease:
    """What a client has: its addresses (None: none), where it may ask for names, the largest packet for its
    interface, the offloads that the exit can read, bytes a second each way (0: any), how many seconds its
    ticket is good for after its stream, and the ticket."""

    v4: IPv4Address | None
    v6: IPv6Address | None
    dns: tuple[IPv4Address | IPv6Address, ...]
    mtu: int
    offloads: Offloads
    rate: int = 0
    keeps: int = 0
    ticket: bytes = b""


@message(skip=_APPENDED)
class Ask:
    """A client wants a lease."""

    version: U8
    wants: U8
    offloads: U8
    mtu: U16
    ticket: Annotated[bytes, Fixed(TICKET_SIZE)]


@message(skip=_APPENDED)
class Grant:
    """The exit gives it."""

    offloads: U8
    mtu: U16
    v4: Annotated[bytes, Fixed(4)]
    v6: Annotated[bytes, Fixed(16)]
    dns4: Annotated[bytes, Fixed(4)]
    dns6: Annotated[bytes, Fixed(16)]
    rate: U64
    keeps: U16
    ticket: Annotated[bytes, Fixed(TICKET_SIZE)]


@message(skip=_APPENDED)
class Refuse:
    """The exit does not, or no longer."""

    code: U8
    text: Annotated[str, Var(U8, LONGEST_TEXT)]


KINDS: Final[dict[int, type[Any]]] = {1: Ask, 2: Grant, 3: Refuse}
_NUMBERS: Final = {cls: kind for kind, cls in KINDS.items()}


def ask(wish: Wish) -> bytes:
    """The bytes of a request."""
    ticket = wish.ticket or _NO_TICKET
    return _framed(Ask(VERSION, int(wish.wants), int(wish.offloads), wish.mtu, ticket))


def grant(lease: Lease) -> bytes:
    """The bytes of a lease; of each family one DNS address is told."""
    dns4 = next((each.packed for each in lease.dns if isinstance(each, IPv4Address)), _NO_V4)
    dns6 = next((each.packed for each in lease.dns if isinstance(each, IPv6Address)), _NO_V6)
    v4 = lease.v4.packed if lease.v4 is not None else _NO_V4
    v6 = lease.v6.packed if lease.v6 is not None else _NO_V6
    ticket = lease.ticket or _NO_TICKET
    terms = (lease.rate, lease.keeps, ticket)
    return _framed(Grant(int(lease.offloads), lease.mtu, v4, v6, dns4, dns6, *terms))


def refuse(code: RefusalCode, text: str) -> bytes:
    """The bytes of a refusal; a text too long is cut."""
    return _framed(Refuse(int(code), text.encode()[:LONGEST_TEXT].decode(errors="ignore")))


def _framed(value: Ask | Grant | Refuse) -> bytes:
    body = encode(value)
    return (1 + len(body)).to_bytes(2, "big") + bytes((_NUMBERS[type(value)],)) + body


def take(received: bytearray) -> Ask | Grant | Refuse | None:
    """Takes one message from the front of `received`; None: more bytes are needed (never more than
    `LARGEST_MESSAGE` + 2). Raises CodecError."""
    if len(received) < 2:
        return None
    size = int.from_bytes(received[:2], "big")
    if not 1 <= size <= LARGEST_MESSAGE:
        raise CodecError(f"a message of {size} bytes about a lease; it has 1 to {LARGEST_MESSAGE}")
    if len(received) < 2 + size:
        return None
    cls = KINDS.get(received[2])
    if cls is None:
        raise CodecError(f"a message of unknown kind {received[2]} about a lease")
    found: Ask | Grant | Refuse = decode(cls, bytes(received[3 : 2 + size]))
    del received[: 2 + size]
    return found


def wish_of(found: Ask) -> Wish:
    """What a request wishes; bits that nobody knows yet are left out. Raises CodecError."""
    if found.version != VERSION:
        raise CodecError(f"a lease of version {found.version} is asked for; this node speaks {VERSION}")
    wants = Wants(found.wants & 7)
    if not wants & (Wants.V4 | Wants.V6):
        raise CodecError("a lease without any address is asked for")
    _check_mtu(found.mtu)
    offloads = Offloads(found.offloads & _KNOWN_OFFLOADS)
    return Wish(wants, offloads, found.mtu, b"" if found.ticket == _NO_TICKET else found.ticket)


def lease_of(found: Grant) -> Lease:
    """The lease that a grant gives; raises CodecError for one that cannot be used."""
    v4 = None if found.v4 == _NO_V4 else IPv4Address(found.v4)
    v6 = None if found.v6 == _NO_V6 else IPv6Address(found.v6)
    if v4 is None and v6 is None:
        raise CodecError("the exit gave a lease without any address")
    dns: list[IPv4Address | IPv6Address] = []
    if found.dns4 != _NO_V4:
        dns.append(IPv4Address(found.dns4))
    if found.dns6 != _NO_V6:
        dns.append(IPv6Address(found.dns6))
    for each in (v4, v6, *dns):
        if each is not None and (each.is_loopback or each.is_multicast or each.is_link_local):
            raise CodecError(f"the exit gave the address {each}, which no interface may have")
    _check_mtu(found.mtu)
    ticket = b"" if found.ticket == _NO_TICKET else found.ticket
    offloads = Offloads(found.offloads & _KNOWN_OFFLOADS)
    return Lease(v4, v6, tuple(dns), found.mtu, offloads, found.rate, found.keeps, ticket)


def refusal_of(found: Refuse) -> LeaseError:
    """The error that a refusal stands for; an unknown code counts as FAILED."""
    code = RefusalCode(found.code) if found.code in _CODES else RefusalCode.FAILED
    text = "".join(c for c in found.text if c.isprintable()) or "the exit gave no reason"
    return LeaseError(code, f"exit: {text}")


_CODES: Final = frozenset(int(code) for code in RefusalCode)


def _check_mtu(mtu: int) -> None:
    if not LEAST_MTU <= mtu <= MOST_MTU:
        raise CodecError(f"an MTU of {mtu}; it is from {LEAST_MTU} to {MOST_MTU}")


@frozen
class Granted:
    """The client has a lease; or the one that it has got other terms: other mtu, offloads or rate."""

    lease: Lease


@frozen
class Refused:
    """The client has none, or has lost it: the stream is to be ended."""

    why: LeaseError


@frozen
class Asked:
    """A client of the exit wants a lease; answer with `granted` or `denied`."""

    wish: Wish


@frozen
class Broken:
    """The client of the exit said something that it may not: send what `denied` gives, and end the stream."""

    reason: str


class State(Enum):
    """How far a conversation is."""

    ASKING = "asking"  # nothing has come yet
    DECIDING = "deciding"  # at the exit: the answer is ours
    LEASED = "leased"
    OVER = "over"


class ClientConversation:
    """The client's side: send what `ask` gives, then give it what comes. `lease` is what stands."""

    __slots__ = ("_held", "_wish", "lease", "state")

    def __init__(self, wish: Wish) -> None:
        self._wish = wish
        self._held = bytearray()
        self.state = State.ASKING
        self.lease: Lease | None = None

    def ask(self) -> bytes:
        """The request, to be sent once."""
        return ask(self._wish)

    def receive(self, data: bytes | memoryview) -> list[Granted | Refused]:
        """Takes bytes of the exit; never raises."""
        if self.state is State.OVER:
            return []
        self._held += data
        events: list[Granted | Refused] = []
        try:
            while (found := take(self._held)) is not None:
                events.append(self._heard(found))  # a refusal leaves nothing held
        except CodecError as problem:
            events.append(self._over(LeaseError(RefusalCode.MALFORMED, str(problem))))
        return events

    def _heard(self, found: Ask | Grant | Refuse) -> Granted | Refused:
        if isinstance(found, Refuse):
            return self._over(refusal_of(found))
        if isinstance(found, Ask):
            raise CodecError("the exit asks for a lease itself")
        lease = lease_of(found)
        old = self.lease
        if old is not None and (old.v4, old.v6) != (lease.v4, lease.v6):
            raise CodecError("the exit changed the addresses of a lease")
        wants = self._wish.wants
        if (lease.v4 and not wants & Wants.V4) or (lease.v6 and not wants & Wants.V6):
            raise CodecError("the exit gave an address that was not asked for")
        if not wants & Wants.DNS:
            lease = evolve(lease, dns=())
        self.state, self.lease = State.LEASED, evolve(lease, mtu=min(lease.mtu, self._wish.mtu))
        return Granted(self.lease)

    def _over(self, why: LeaseError) -> Refused:
        self.state, self.lease = State.OVER, None
        self._held.clear()
        return Refused(why)


class ExitConversation:
    """The exit's side: give it what comes; it holds at most one message."""

    __slots__ = ("_held", "state")

    def __init__(self) -> None:
        self._held = bytearray()
        self.state = State.ASKING

    def receive(self, data: bytes | memoryview) -> list[Asked | Broken]:
        """Takes bytes of the client; never raises. A client has one thing to say."""
        if self.state is State.OVER:
            return []
        if self.state is not State.ASKING:
            return [self._broken("the client spoke again") for _ in data[:1]]
        self._held += data
        try:
            found = take(self._held)
            if found is None:
                return []
            if not isinstance(found, Ask):
                raise CodecError("the client said something else than ASK")
            wish = wish_of(found)
        except CodecError as problem:
            return [self._broken(str(problem))]
        if self._held:
            return [self._broken("the client spoke again")]
        self.state = State.DECIDING
        return [Asked(wish)]

    def granted(self, lease: Lease) -> bytes:
        """The lease stands, or has these terms from now on: what to send."""
        assert self.state in (State.DECIDING, State.LEASED)
        self.state = State.LEASED
        return grant(lease)

    def denied(self, code: RefusalCode, text: str) -> bytes:
        """There is no lease, or no longer: what to send before ending the stream."""
        self.state = State.OVER
        self._held.clear()
        return refuse(code, text)

    def _broken(self, reason: str) -> Broken:
        self.state = State.OVER
        self._held.clear()
        return Broken(reason)
