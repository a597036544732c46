"""Names of the mesh for every program: a small DNS server for `.mesh` and the addresses below fc00::/8.

    AAAA ann.mesh                 the node that [[known]] calls so
    AAAA <53 base32 digits>.mesh  the node with that key
    PTR  ….c.f.ip6.arpa           what a node is called

It listens on the node's own mesh address, UDP port 53, and answers this machine only. What it is asked about
any other name it refuses, so that the next server is asked; nothing is ever sent further. Where
systemd-resolved runs it is told that `.mesh` is to be asked here.
"""

from __future__ import annotations

from collections.abc import Callable
from ipaddress import IPv6Address
from pathlib import Path
from typing import Any, Final

from twisted.internet.error import CannotListenError
from twisted.internet.protocol import DatagramProtocol
from twisted.names import dns

from apps.vpn.host.host import RESOLV
from apps.vpn.host.resolver import is_ours
from apps.vpn.host.tools import Run, Tools
from apps.vpn.mesh.addresses import ZONE, Addresses
from meshnet.errors import LocalError, MissingDependencyError

PORT: Final = 53
SECONDS: Final = 60
"""For which an answer may be remembered."""
LARGEST_QUERY: Final = 4_096

_REVERSE: Final = ".c.f.ip6.arpa"
_PLAIN: Final = 512


def answer(query: bytes, names: Addresses) -> bytes | None:
    """The answer to a message; None for what is no question."""
    message = dns.Message()
    try:
        message.fromStr(query)
        if message.answer or not message.queries:
            return None
        reply = dns.Message(message.id, answer=1, opCode=message.opCode, recDes=message.recDes, auth=True)
        reply.queries = message.queries[:1]
        name = bytes(message.queries[0].name.name).decode("ascii").lower().rstrip(".")
    except Exception:  # whatever strangers' bytes make a decoder raise
        return None
    question = message.queries[0]
    if message.opCode != dns.OP_QUERY or len(message.queries) > 1:
        reply.rCode = dns.ENOTIMP
    elif question.cls not in (dns.IN, dns.ANY) or not _ours(name):
        reply.rCode, reply.auth = dns.EREFUSED, False
    else:
        _fill(reply, name, question.type, names)
    return bytes(reply.toStr())


def _ours(name: str) -> bool:
    return name == ZONE or name.endswith((f".{ZONE}", _REVERSE))


def _fill(reply: dns.Message, name: str, kind: int, names: Addresses) -> None:
    record: Any = None
    if name.endswith(_REVERSE):
        known = _reversed(name, names)
        there = known is not None
        if known is not None and kind in (dns.PTR, dns.ALL_RECORDS):
            record = dns.Record_PTR(f"{known}.{ZONE}".encode(), SECONDS)
    else:
        address = names.find(name.removesuffix(ZONE).rstrip(".")) if name != ZONE else None
        there = address is not None or name == ZONE
        if address is not None and kind in (dns.AAAA, dns.ALL_RECORDS):
            record = dns.Record_AAAA(str(address), SECONDS)
    if record is not None:
        header = dns.RRHeader(name.encode(), record.TYPE, dns.IN, SECONDS, record, auth=True)
        reply.answers.append(header)
    elif not there:
        reply.rCode = dns.ENAME


def _reversed(name: str, names: Addresses) -> str | None:
    """What the node is called whose address this is, backwards."""
    digits = name.removesuffix(".ip6.arpa").split(".")
    if len(digits) != 32 or not all(len(each) == 1 and each in "0123456789abcdef" for each in digits):
        return None
    key = names.key(bytes.fromhex("".join(reversed(digits))))
    return None if key is None else names.name(key)


class NameServer(DatagramProtocol):
    """Answers on the mesh address; `start` and `stop` once each. `refresh` is called before each answer."""

    def __init__(
        self, reactor: Any, address: IPv6Address, names: Addresses, refresh: Callable[[], None]
    ) -> None:
        self._reactor = reactor
        self._address = str(address)
        self._names = names
        self._refresh = refresh
        self._port: Any = None
        self.asked = self.refused = 0

    def start(self) -> None:
        """Binds the port; raises LocalError if it is taken."""
        try:
            self._port = self._reactor.listenUDP(PORT, self, self._address, LARGEST_QUERY)
        except CannotListenError as problem:
            raise LocalError(f"No DNS on {self._address}: {problem.socketError}.") from None

    def stop(self) -> None:
        """Gives the port back."""
        if self._port is not None:
            self._port.stopListening()
            self._port = None

    def datagramReceived(self, datagram: bytes, addr: tuple[Any, ...]) -> None:
        """A question: of this machine it comes from the address that it goes to."""
        if IPv6Address(addr[0].partition("%")[0]) != IPv6Address(self._address):
            self.refused += 1
            return
        self._refresh()
        reply = answer(datagram, self._names)
        if reply is not None and self.transport is not None:
            self.asked += 1
            self.transport.write(reply, addr)


def tell_system(tools: Tools, run: Run, device: str, address: IPv6Address, resolv: Path = RESOLV) -> str:
    """Has systemd-resolved ask for `.mesh` here, as long as the interface is there; nothing is to be done
    where `resolv` names the address, or is the VPN's, which adds it. What was done, as the rest of a sentence
    about the server. Blocks; raises MissingDependencyError where nobody can be told, LocalError if
    systemd-resolved refuses."""
    try:
        text = resolv.read_text(errors="replace")
    except OSError:
        text = ""
    if str(address) in text or is_ours(text):
        return f"{resolv} names it"
    if tools.resolvectl is None or run((tools.resolvectl, "status"), "").code:
        raise MissingDependencyError(
            f"Answered at {address}, but programs do not ask there; put `nameserver {address}` first into"
            f" {resolv}."
        )
    for arguments in (("dns", device, str(address)), ("domain", device, f"~{ZONE}")):
        told = run((tools.resolvectl, *arguments), "")
        if told.code:
            raise LocalError(f"The resolver of systemd does not take the names of the mesh: {told.why}.")
    return f"systemd-resolved asks it for all under .{ZONE}"


Tell = Callable[[str, IPv6Address], object]
"""Tells the system where names are asked for; see `tell_system`."""
