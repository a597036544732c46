"""The client's side of UDP: a local UDP socket for each program that asked, and the answers of exits.

A program's socket takes datagrams from the address of the program's TCP connection alone, and from one port:
the one it named, else that of its first datagram. What has no header of RFC 1928, is a fragment, or cannot be
sent is dropped and counted. Names under .mesh have no UDP.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Final

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.protocol import DatagramProtocol
from twisted.python.failure import Failure

from apps.vpn.counts import Counts
from apps.vpn.datagrams import ANSWERS_PORT, from_mesh, from_program, to_mesh, to_program
from apps.vpn.destination import NAME
from apps.vpn.messages import EXIT_PORT
from meshnet.cipher.address import Target
from meshnet.cipher.keys import PublicKey
from meshnet.errors import CodecError
from meshnet.node.app import Datagram, MeshNode
from meshnet.streams import PortListener

SENDING: Final = 256
"""Datagrams of one program that the node has not taken yet, such as while there is no circuit."""


@define(eq=False)
class Answers:
    """Where exits answer: one datagram port for all associations of this node, taken while there is one."""

    node: MeshNode
    counts: Counts
    _all: dict[bytes, SocksDatagrams] = field(factory=dict)
    _listener: PortListener | None = None

    def add(self, name: bytes, program: SocksDatagrams) -> None:
        """Answers for `name` go there. Raises LocalError if the port is taken."""
        if self._listener is None:
            self._listener = self.node.listen_datagrams(ANSWERS_PORT, self._receive)
        self._all[name] = program

    def remove(self, name: bytes) -> None:
        """No longer."""
        self._all.pop(name, None)
        if not self._all and self._listener is not None:
            self._listener.stop()
            self._listener = None

    def _receive(self, datagram: Datagram) -> None:
        try:
            name, where, payload = from_mesh(datagram.data)
        except CodecError:
            self.counts.refuse("malformed")
            return
        program = self._all.get(name)
        if program is None or where.kind == NAME:
            self.counts.refuse("no_association")
        else:
            program.answer(to_program(where, payload), len(payload))


class SocksDatagrams(DatagramProtocol):
    """The UDP socket of one program. `port` is the one it said it sends from, 0 for none."""

    transport: Any

    def __init__(self, answers: Answers, name: bytes, host: str, port: int) -> None:
        self.name = name
        self._answers = answers
        self._host, self._port = host, port
        self.started = False
        self._exit: Target | None = None
        self._via: Sequence[PublicKey] | None = None
        self._identity = "anonymous"
        self._policy: str | None = None
        self._sending = 0

    def start(
        self, exit_: Target, via: Sequence[PublicKey] | None, identity: str, policy: str | None = None
    ) -> None:
        """The exit knows of us: datagrams go there from now on. Raises LocalError."""
        self._answers.add(self.name, self)
        self._exit, self._via, self._identity, self._policy = exit_, via, identity, policy
        self.started = True

    def close(self) -> None:
        """The program has gone, or the exit."""
        self._exit = None
        self._answers.remove(self.name)
        if self.transport is not None:
            self.transport.stopListening()

    def answer(self, data: bytes, size: int) -> None:
        """A datagram for the program, of which `size` bytes are payload."""
        counts = self._answers.counts
        if not self._port:
            counts.refuse("uninvited")
            return
        try:
            self.transport.write(data, (self._host, self._port))
        except OSError:  # its buffer is full
            counts.refuse("not_sent")
            return
        counts.from_mesh += size

    def datagramReceived(self, datagram: bytes, addr: tuple[str, int]) -> None:
        """A datagram of the program, or of somebody else."""
        counts = self._answers.counts
        if addr[0] != self._host or (self._port and addr[1] != self._port):
            counts.refuse("stranger")
            return
        try:
            where, payload = from_program(datagram)
        except CodecError:
            counts.refuse("malformed")
            return
        self._port = addr[1]
        if self._exit is None or (isinstance(where.host, str) and where.host.endswith(".mesh")):
            counts.refuse("not_sent")
            return
        if self._sending >= SENDING:
            counts.refuse("queue")
            return
        counts.to_mesh += len(payload)
        self._sending += 1
        data = to_mesh(self.name, where, payload)
        sent: Deferred[bool] = self._answers.node.send_datagram(
            self._exit,
            EXIT_PORT,
            data,
            source=ANSWERS_PORT,
            via=self._via,
            identity=self._identity,
            policy=self._policy,
        )
        sent.addCallbacks(self._taken, self._failed)

    def _taken(self, taken: bool) -> None:
        self._sending -= 1
        if not taken:
            self._answers.counts.refuse("queue")

    def _failed(self, failure: Failure) -> None:
        self._sending -= 1
        self._answers.counts.refuse("not_sent")
