"""Services between nodes: on the ports of whole routers."""

from __future__ import annotations

from typing import Any

from attrs import frozen
from twisted.internet.defer import Deferred
from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.nodes import Mesh
from meshnet.rpc.service import Peer, serve
from tests.meshnet.rpc.samples import Number, OurSums, Sums


@frozen
class OnMesh:
    """A simulated node as a service sees it."""

    clock: Any
    router: Any

    def connect(self, target: Any, port: int, reader: Any, *, via: Any = None, identity: str = "") -> Any:
        """Opens a stream."""
        return self.router.connect(target, port, reader, via=via or (), identity=identity)

    def listen(self, port: int, accept: Any) -> Any:
        """Takes a port."""
        return self.router.listen(port, accept)


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
