"""docs/rpc.md: its programs run over a socket and over a mesh, its tables say what the code says."""

from __future__ import annotations

from typing import Any

from twisted.internet import reactor  # noqa: TID251  (real sockets)
from twisted.internet.defer import Deferred
from twisted.trial.unittest import TestCase

from meshnet.rpc import NotOfferedError, failure, frames
from tests.docs.pages import blocks, page, plain, section, table
from tests.meshnet.rpc.samples import OurSums
from tests.support.streams import FakeMesh

PAGE = page("docs/rpc.md")


def programs() -> dict[str, Any]:
    """What all programs of the page leave behind, run in order."""
    space: dict[str, Any] = {}
    for block in blocks(PAGE, "python"):
        exec(compile(block, "docs/rpc.md", "exec", dont_inherit=True), space)
    return space


class PageTests(TestCase):
    """The programs do what the page says."""

    async def test_over_a_socket(self) -> None:
        """The service over a UNIX socket: all four forms."""
        there = programs()
        where = f"unix:{self.mktemp()}"
        port = await there["listen"](reactor, where, there["OurFiles"]())
        self.addCleanup(port.stopListening)
        peer = there["connect"](reactor, where)
        self.assertEqual(await there["use"](peer), 11)
        patch = peer.use(there["Files"]).patch(there["Name"]("notes"), [there["Piece"](b"!")])
        self.assertEqual([piece.data async for piece in patch], [b"!"])
        with self.assertRaisesRegex(failure.UsageError, "There is no file 'plans'"):
            await peer.use(there["Files"]).size(there["Name"]("plans"))
        peer.close()

    def test_over_a_mesh(self) -> None:
        """The same between two nodes, by attribute; friends only."""
        there, mesh = programs(), FakeMesh()
        near, far = mesh.node("near"), mesh.node("far")
        files = there["OurFiles"]()
        serving = there["offer"](far, files)
        done = Deferred.fromCoroutine(there["use"](there["far_files"](near, far.public_key)))
        mesh.flush()
        self.assertEqual(self.successResultOf(done), 11)
        size = there["ask"](there["FilePeer"].of_node(near, far.public_key, 7_000))
        done = Deferred.fromCoroutine(size)
        mesh.flush()
        self.assertEqual(self.successResultOf(done), there["Size"](11))
        serving.stop()
        there["serve"](far, 7_000, there["for_friends"]({near.public_key}, files), OurSums())
        for identity in ("anonymous", "node"):
            peer = there["FilePeer"].of_node(near, far.public_key, 7_000, identity=identity)
            done = Deferred.fromCoroutine(there["ask"](peer))
            mesh.flush()
            if identity == "node":
                self.assertEqual(self.successResultOf(done), there["Size"](11))
            else:
                self.failureResultOf(done, NotOfferedError)


class TableTests(TestCase):
    """The tables of the page."""

    def test_kinds(self) -> None:
        """Kinds of frames, by number."""
        written = {plain(row[1]): int(row[0]) for row in table(PAGE, "kind", "frame")}
        assert len(written) == frames.KINDS
        for name, number in written.items():
            assert getattr(frames, name) == number

    def test_faults(self) -> None:
        """Codes of failures."""
        written = {int(row[0]): plain(row[1].partition(":")[0]) for row in table(PAGE, "code", "fault")}
        assert written == {fault.value: fault.name.lower() for fault in failure.Fault}

    def test_errors(self) -> None:
        """Every error of a call is named."""
        ours = {
            name
            for name, kind in vars(failure).items()
            if getattr(kind, "__module__", "") == failure.__name__
        }
        written = section(PAGE, "## What can go wrong")
        for name in ours:
            if name.endswith("Error") and name != "BrokenPeerError":
                assert f"`{name}`" in written, name
        assert f"{frames.OVERHEAD} bytes beside its two messages" in PAGE
        assert f"HELLO ({frames.HELLO_SIZE + frames.HEAD_SIZE} bytes" in PAGE
