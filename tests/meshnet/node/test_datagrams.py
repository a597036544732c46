"""Datagrams between whole nodes, over relays and back; and that no call outlives its circuit."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.nodes import Mesh
from meshnet.errors import LocalError, UsageError
from meshnet.limits import LARGEST_CELL
from meshnet.node.app import Datagram


class DatagramTests(SynchronousTestCase):
    """alice – r – bob."""

    def setUp(self) -> None:
        """Bob answers what comes to port 9 in capitals; alice keeps what comes to her port 40."""
        self.mesh = Mesh(("alice", "r", "bob"), 3)
        self.assertTrue(self.mesh.linked())
        self.seen: list[Datagram] = []
        self.answers: list[bytes] = []

        def receive(datagram: Datagram) -> None:
            self.seen.append(datagram)
            datagram.reply(datagram.data.upper())

        self.listening = self.mesh["bob"].router.listen_datagrams(9, receive)
        self.mesh["alice"].router.listen_datagrams(40, lambda datagram: self.answers.append(datagram.data))

    def send(self, data: bytes, port: int = 9, source: int = 40, identity: str = "anonymous") -> Any:
        """From alice to bob over r; then lets a second pass."""
        router, bob = self.mesh["alice"].router, self.mesh["bob"].public
        taken = self.mesh.wait(
            router.send_datagram(bob, port, data, source=source, via=self.mesh.route("r"), identity=identity)
        )
        self.mesh.network.run(1.0)
        return taken

    def test_there_and_back(self) -> None:
        """A datagram arrives as it was sent, from nobody, and its answer comes to the port it named."""
        self.assertTrue(self.send(b"hello"))
        self.assertEqual([(d.source, d.data, d.peer) for d in self.seen], [(40, b"hello", None)])
        self.assertEqual(self.answers, [b"HELLO"])

    def test_says_who(self) -> None:
        """As `node` the sender's key is told, and proven."""
        self.send(b"hello", identity="node")
        self.assertEqual(self.seen[0].peer, self.mesh["alice"].public)

    def test_without_answer(self) -> None:
        """Without a source port there is nothing to answer to."""
        self.send(b"hello", source=0)
        self.assertEqual((len(self.seen), self.answers), (1, []))
        self.assertFalse(self.seen[0].reply(b"x"))

    def test_not_taken(self) -> None:
        """What no cell of the path can carry is refused at once; a wrong port or identity is an error."""
        self.assertFalse(self.send(bytes(LARGEST_CELL)))
        self.assertTrue(self.send(bytes(20_000)))
        self.assertEqual([len(d.data) for d in self.seen], [20_000])
        self.assertRaises(UsageError, self.send, b"x", 0)
        self.assertRaises(UsageError, self.send, b"x", 9, 40, "somebody")

    def test_nobody_listens(self) -> None:
        """To a port that nobody has, datagrams vanish; a port can be taken once, and given back."""
        self.assertTrue(self.send(b"x", port=10))
        router = self.mesh["bob"].router
        self.assertRaises(LocalError, router.listen_datagrams, 9, self.seen.append)
        self.listening.stop()
        self.send(b"x")
        self.assertEqual(self.seen, [])
        router.listen_datagrams(9, self.seen.append)

    def test_a_failing_app(self) -> None:
        """An app that raises on a datagram costs a line in the log."""
        self.listening.stop()

        def fail(datagram: Datagram) -> None:
            raise RuntimeError("no")

        self.mesh["bob"].router.listen_datagrams(9, fail)
        self.send(b"x")
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)
        self.assertTrue(self.send(b"y"))
        self.flushLoggedErrors(RuntimeError)

    def test_calls_are_forgotten(self) -> None:
        """When a circuit has idled out, nothing of it is left at either end."""
        self.send(b"hello")
        self.mesh.network.run(120.0)
        for name in ("alice", "r", "bob"):
            router = self.mesh[name].router
            self.assertEqual(
                (len(router._calls), len(router._conversations), len(router.dialling)), (0, 0, 0)
            )
            self.assertEqual(list(router.circuits), [])
