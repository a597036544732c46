"""The verb `address`, asked of a node in this process."""

from __future__ import annotations

import json
from argparse import ArgumentTypeError
from typing import Any

from twisted.internet import reactor  # noqa: TID251  (real sockets)
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import TestCase

from meshnet.cipher.address import parse_address
from meshnet.cipher.keys import SecretKey
from meshnet.cli.address import span
from meshnet.errors import LocalError, UsageError
from tests.meshnet.cli.test_main import run
from tests.support.nodes import link_snapshot, make_node, new_folder

A, B = (SecretKey(bytes(31) + bytes([number])).public for number in (1, 2))


class AddressTests(TestCase):
    """Addresses are made, listed, renewed and removed by the command."""

    async def started(self) -> Any:
        """A node that is linked to B."""
        folder = new_folder(self)
        self.socket = str(folder / "control.sock")
        known = [{"name": "ann", "key": A.hex()}, {"name": "bob", "key": B.hex()}]
        table: dict[str, Any] = {"control": {"socket": self.socket}, "known": known}
        node, router = make_node(folder, reactor, table)
        router.links = [link_snapshot(B)]
        node.startService()
        await node.ready()
        self.addCleanup(node.stopService)
        return node

    async def ask(self, *argv: str) -> tuple[int, str, str]:
        """In a thread, since the node answers in this one."""
        return await deferToThread(run, "address", *argv, "--node", self.socket)

    async def test_life(self) -> None:
        """The address alone on stdout; the rest is for people."""
        node = await self.started()
        self.assertEqual(await self.ask(), (0, "none\n", ""))
        code, out, err = await self.ask("new", "--hops", "ann,bob", "--name", "blog", "--expires", "12h")
        self.assertEqual((code, out.count("\n")), (0, 1), err)
        address = parse_address(out.strip())
        self.assertEqual((address.introduction, len(address.tail)), (A, 3))
        self.assertIn("good for 12 hours", err)
        self.assertEqual(node.service_key("blog"), address.service)
        for refused in ("listen", "listen_datagrams"):
            getattr(node, refused)(80, lambda it: None, "blog")
            self.assertRaises(LocalError, getattr(node, refused), 80, lambda it: None, out.strip())
            self.assertRaises(UsageError, getattr(node, refused), 80, lambda it: None, "other")
        code, out, _ = await self.ask("list")
        self.assertEqual(code, 0)
        self.assertRegex(out, r"^blog  key [0-9a-f]{66}  ports 80\n  ready; good for 1[12] hours; ")
        made = json.loads((await self.ask("renew", "blog", "--json"))[1])
        self.assertEqual(made["hops"], [A.hex(), B.hex()])
        self.assertEqual((await self.ask("remove", "blog"))[:2], (0, "removed blog\n"))
        self.assertEqual(json.loads((await self.ask("--json"))[1]), {"services": []})

    async def test_said(self) -> None:
        """What people should know: no hops, no link to the last relay."""
        node = await self.started()
        self.assertIn("it names this node", (await self.ask("new", "--name", "open"))[2])
        self.assertIn("no link to 0279be66…", (await self.ask("new", "--hops", "ann", "--name", "x"))[2])
        self.assertTrue(any("hidden service x cannot be reached" in note for note in node.status()["notes"]))

    async def test_wrong(self) -> None:
        """Wrong words exit with 2 and a sentence."""
        await self.started()
        for words in (
            ("renew",),
            ("renew", "nothing"),
            ("remove", "nothing"),
            ("new", "--hops", "carl"),
            ("new", "--hops", "ann,ann"),
            ("new", "--name", "No Name"),
            ("new", "--expires", "1m"),
            ("new", "--expires", "soon"),
        ):
            code, out, err = await self.ask(*words)
            self.assertEqual((code, out), (2, ""), words)
            self.assertTrue(err.strip().endswith("."), err)

    def test_span(self) -> None:
        """Minutes, hours, days, and nothing else."""
        self.assertEqual([span("90m"), span("12h"), span("30d")], [5_400, 43_200, 2_592_000])
        for text in ("", "30", "d", "0d", "-1d", "1w", "1.5h", "9999999d"):
            self.assertRaises(ArgumentTypeError, span, text)
