"""Links over real sockets: much in both directions, a slow reader, and a clean end."""

from __future__ import annotations

import random
from pathlib import Path
from shutil import rmtree
from tempfile import mkdtemp
from typing import Any

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.aead import backend
from meshnet.link.driver import Identity, Links
from meshnet.link.link import Link
from meshnet.node.clock import NodeClock
from meshnet.transports.registry import Transports
from meshnet.transports.tcp import TcpTransport
from meshnet.transports.unix import UnixTransport
from tests.meshnet.link.neighbours import LARGE, NETWORK, NOTE, SMALL, THIRD, Node
from tests.support.reactors import OwnReactor

PIECE = bytes(range(250)) * 80
PIECES = 400


class Hose:
    """A source of frames: as fast as the link takes them."""

    def __init__(self, link: Link, number: int) -> None:
        self.link = link
        self.left = number
        link.outlet(0).ready(self)

    def pour(self, now: float) -> bool:
        room = self.link.outlet(0).room(NOTE, len(PIECE))
        if room is None:
            return True
        room[:] = PIECE
        self.link.outlet(0).commit(len(PIECE))
        self.left -= 1
        return self.left > 0


class TcpLinkTests(SynchronousTestCase):
    """Two nodes in one process, on loopback."""

    lanes = 1

    def address(self, name: str) -> str:
        """What a node listens on."""
        return "tcp:127.0.0.1:0"

    def setUp(self) -> None:
        self.world = OwnReactor()
        self.addCleanup(self.world.close)
        self.addresses: dict[str, str] = {}
        self.nodes = [self.node("small", SMALL), self.node("large", LARGE)]
        self.small, self.large = self.nodes

    def node(self, name: str, secret: Any) -> Node:
        node = Node(name, secret)
        reactor = self.world.reactor
        node.links = Links(
            Identity(secret, NETWORK, backend(), None, self.lanes),
            Transports([TcpTransport(reactor), UnixTransport(reactor)]),
            NodeClock(reactor),
            random.Random(name).randbytes,
            node,
            {NOTE: node.note},
        )
        started = self.world.result(Deferred.fromCoroutine(node.links.start([self.address(name)])))
        self.addresses[name] = started[0]
        return node

    def link(self) -> tuple[Link, Link]:
        """Linked, the smaller key dials."""
        self.small.links.add_peer(self.large.key, self.addresses["large"])
        self.world.until(lambda: self.small.to(self.large) and self.large.to(self.small))
        one, other = self.small.to(self.large), self.large.to(self.small)
        assert one is not None and other is not None
        self.world.until(lambda: len(one.standing) == len(other.standing) == self.lanes)
        return one, other

    def stop(self) -> None:
        """Both end; no socket, no timer is left."""
        for node in self.nodes:
            node.links.stop()
        self.world.until(lambda: not any(node.connections() for node in self.nodes))
        self.assertEqual(self.world.left(), [])

    def test_much_both_ways(self) -> None:
        """Eight megabytes each way at once, through full kernel buffers, whole and in order."""
        one, other = self.link()
        Hose(one, PIECES)
        Hose(other, PIECES)
        self.world.until(lambda: all(len(node.notes) == PIECES for node in self.nodes))
        for node in self.nodes:
            self.assertEqual(set(node.notes), {PIECE})
        self.assertGreater(one.bytes_sent, PIECES * len(PIECE))
        for sender, receiver in ((one, other), (other, one)):
            handshake = receiver.bytes_received - sender.bytes_sent  # is counted where it is received
            self.assertTrue(0 <= handshake < 300 * self.lanes)
        self.stop()

    def test_a_slow_reader(self) -> None:
        """While the other side does not read, control frames wait, in bounded number, and then come first."""
        one, other = self.link()
        assert other.seats[0].lane is not None
        reading = self.large.links._connections[other.seats[0].lane].carrier
        reading.pause()
        hose = Hose(one, 10 * PIECES)
        before = -1
        while before != hose.left:
            before = hose.left
            self.world.turns(30)
        self.assertGreater(hose.left, 0)
        self.assertTrue(one.send(NOTE, b"first"))
        self.assertEqual(one.outlet(0).waiting, 1)
        reading.resume()
        self.world.until(lambda: b"first" in self.large.notes)
        self.assertLess(self.large.notes.index(b"first"), 10 * PIECES - hose.left + 20)
        self.world.until(lambda: len(self.large.notes) == 10 * PIECES + 1)
        self.stop()

    def test_stopped_at_once(self) -> None:
        """Before the connection stands, and while it is made."""
        for turns in range(6):
            if turns:
                self.nodes = [self.node("small", SMALL), self.node("large", LARGE)]
                self.small, self.large = self.nodes
            self.small.links.add_peer(self.large.key, self.addresses["large"])
            self.small.links.add_peer(THIRD.public, "tcp:127.0.0.1:1")
            self.world.turns(turns)
            self.stop()

    def test_the_other_process_is_gone(self) -> None:
        """Its sockets are closed by the kernel: the link is down at once."""
        one, other = self.link()
        assert other.seats[0].lane is not None
        self.large.links._connections[other.seats[0].lane].carrier.close()
        self.world.until(lambda: not one.up)
        self.world.until(lambda: one.up and other.up)
        self.assertEqual((one.connections, other.connections), (2, 2))
        self.stop()


class UnixLinkTests(TcpLinkTests):
    """The same over UNIX sockets."""

    def address(self, name: str) -> str:
        folder = Path(mkdtemp())
        self.addCleanup(rmtree, folder)
        return f"unix:{folder}/{name}"


class LanesLinkTests(TcpLinkTests):
    """The same where each link has four lanes."""

    lanes = 4

    def test_the_other_process_is_gone(self) -> None:
        """All sockets of a node are closed: the link is down at once, and all lanes come back."""
        one, other = self.link()
        for connection in list(self.large.links._connections.values()):
            connection.carrier.close()
        self.world.until(lambda: not one.up)
        self.world.until(lambda: len(one.standing) == len(other.standing) == 4)
        self.assertEqual((one.connections, other.connections), (8, 8))
        self.stop()
