"""Services between nodes: on the ports of whole routers."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor  # noqa: TID251  (real sockets)
from twisted.internet.defer import Deferred, gatherResults
from twisted.internet.endpoints import clientFromString
from twisted.internet.task import deferLater
from twisted.trial.unittest import SynchronousTestCase, TestCase

from lab.simulation.nodes import Mesh
from meshnet.errors import MeshError
from meshnet.rpc.service import Peer, serve, serving_factory
from tests.meshnet.rpc.pairs import OnMesh
from tests.meshnet.rpc.samples import Number, OurSums, Sums


class MeshTests(SynchronousTestCase):
    """Calls over streams of a mesh."""

    def setUp(self) -> None:
        self.mesh = Mesh(["alice", "relay", "bob"])
        self.assertTrue(self.mesh.linked())
        self.addCleanup(self.mesh.stop)

    def on(self, name: str) -> OnMesh:
        """A node."""
        return OnMesh(self.mesh.clock, self.mesh[name].router)

    def test_call(self) -> None:
        """A typed call over a circuit with a relay."""
        serve(self.on("bob"), 700, OurSums())
        peer = Peer.of_node(self.on("alice"), self.mesh["bob"].public, 700, via=self.mesh.route("relay"))

        async def talk() -> list[int]:
            sums = peer.use(Sums)
            return [(await sums.double(Number(value, bytes(1_000)))).value for value in range(50)]

        self.assertEqual(self.mesh.wait(Deferred.fromCoroutine(talk())), [2 * each for each in range(50)])


class EndpointTests(TestCase):
    """Calls over connections of Twisted: here a UNIX socket."""

    def listen(self, *offers: Any) -> str:
        """A socket that offers services; its endpoint."""
        path = self.mktemp()
        port: Any = reactor.listenUNIX(path, serving_factory(reactor, *offers))  # type: ignore[attr-defined]
        self.addCleanup(port.stopListening)
        return f"unix:{path}"

    async def test_call(self) -> None:
        """All forms of calls over real sockets, more bytes than any buffer takes at once."""
        where = self.listen(OurSums())
        peer = Peer.of_endpoint(reactor, clientFromString(reactor, where))
        sums = peer.use(Sums)
        calls: list[Any] = [sums.double(Number(value, bytes(10_000))) for value in range(500)]
        answers = await gatherResults(calls)
        self.assertEqual([each.value for each in answers], [2 * value for value in range(500)])
        items = [item.value async for item in sums.count(Number(300, bytes(20_000)))]
        self.assertEqual(items, list(range(300)))
        source: Any = [Number(value, bytes(20_000)) for value in range(300)]
        self.assertEqual((await sums.total(Number(0), source)).value, sum(range(300)))
        channel: Any = peer._channel
        peer.close()
        await deferLater(reactor, 0.01)
        self.assertIsNotNone(channel.over)

    async def test_refused(self) -> None:
        """What offers nothing ends the connection, and calls fail."""
        where = self.listen(lambda caller: None)
        peer = Peer.of_endpoint(reactor, clientFromString(reactor, where))
        with self.assertRaises(MeshError):
            await peer.use(Sums).double(Number(1))
        nowhere = Peer.of_endpoint(reactor, clientFromString(reactor, "unix:" + self.mktemp()))
        with self.assertRaises(MeshError):
            await nowhere.use(Sums).double(Number(1))
