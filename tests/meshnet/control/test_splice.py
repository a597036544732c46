"""Two streams as one: a half that is not wanted ends, the other goes on."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from lab.simulation.nodes import Collector
from meshnet.control.splice import Flow, pair
from tests.support.streams import FakeMesh, FakeStream


class StopTests(SynchronousTestCase):
    """Collector → [near flow | far flow] → Collector, over two in-memory streams."""

    def test_a_sink_that_is_stopped(self) -> None:
        """After the far end's STOP the near end's bytes are credited and dropped, those held too; answers
        still pass."""
        mesh = FakeMesh(window=4)
        left, node, right = mesh.node("left"), mesh.node("node"), mesh.node("right")
        near, far, caller, callee = Flow(), Flow(), Collector(), Collector(slow=True)

        def accept(stream: FakeStream) -> Collector:
            callee.stream = stream
            return callee

        node.listen(1, lambda stream: near)
        right.listen(2, accept)
        caller.stream = self.opened(mesh, left.connect(node.public_key, 1, caller))
        far_stream = self.opened(mesh, node.connect(right.public_key, 2, far))
        pair(near, node.streams[0], far, far_stream)
        near.open(far_stream)
        far.open(node.streams[0])
        caller.send(b"eight to be held and more", finish=True)
        mesh.flush()
        self.assertTrue(caller.queue)
        assert isinstance(callee.stream, FakeStream)
        callee.stream.stop()
        mesh.flush()
        self.assertEqual((caller.queue, bytes(callee.got)), (b"", b"eigh"))
        callee.send(b"an answer", finish=True)
        mesh.flush()
        self.assertEqual((bytes(caller.got), caller.ended), (b"an answer", True))

    def opened(self, mesh: FakeMesh, opening: object) -> FakeStream:
        """The stream, once it is there."""
        mesh.flush()
        return self.successResultOf(opening)
