"""The command, in this process, with what it prints captured."""

from __future__ import annotations

import contextlib
import io
import json
import os
import tomllib
from argparse import ArgumentParser, Namespace
from typing import Any

from attrs import frozen
from twisted.internet import reactor  # noqa: TID251  (real sockets)
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from meshnet.cipher.keys import SecretKey
from meshnet.cli.main import main
from meshnet.cli.verbs import NODE_VERBS
from meshnet.errors import CircuitError, Reason
from meshnet.node.api import node_routes
from meshnet.node.app import Verb
from meshnet.node.dropins import Dropins
from meshnet.node.node import Node
from meshnet.transports.tcp import TcpTransport
from tests.support.nodes import FakeRouter, link_snapshot, make_node, new_folder

A, B, C = (SecretKey(bytes(31) + bytes([number])).public for number in (1, 2, 3))


class TcpDropin:
    name = "tcp"

    def make(self, reactor: Any) -> TcpTransport:
        return TcpTransport(reactor)


@frozen
class NoSettings:
    pass


class KnockApp:
    name = "knock"
    settings = NoSettings

    def verbs(self) -> list[Verb]:
        return [
            Verb("knock", "knock at a node", self.arguments, self.run),
            Verb("up", "not taken", self.arguments, self.run),
        ]

    def arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("who")

    def run(self, arguments: Namespace, call: Any) -> int:
        if arguments.who == "bug":
            raise ZeroDivisionError("a bug")
        if arguments.who == "nobody":
            raise PermissionError(13, "Permission denied", "/closed/door")
        print(f"knocked at {arguments.who}", arguments.json)
        return 5


FOUND = Dropins(apps=(KnockApp(),), transports=(TcpDropin(),))


def run(*argv: str, found: Dropins = FOUND) -> tuple[int, str, str]:
    """Exit code, stdout and stderr of one command."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            code = main(argv, found)
        except SystemExit as left:
            code = int(left.code or 0)
    return code, out.getvalue(), err.getvalue()


class FileVerbTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = new_folder(self) / "n"

    def init(self, *more: str) -> str:
        code, out, err = run("init", str(self.folder), *more)
        self.assertEqual((code, err), (0, ""))
        return out.split()[0]

    def test_init(self) -> None:
        """A key, a config that loads, and a data directory; a second time it refuses."""
        public = self.init("--listen", "tcp:127.0.0.1:0", "--peer", f"{A.hex()}@tcp:h:1", "--name", 'a "b"')
        self.assertEqual((self.folder / "key").stat().st_mode & 0o777, 0o600)
        self.assertEqual((self.folder / "data").stat().st_mode & 0o777, 0o700)
        code, out, _ = run("config", "check", str(self.folder))
        self.assertEqual(code, 0, out)
        code, out, _ = run("key", "show", str(self.folder), "--json")
        self.assertEqual(json.loads(out)["public_key"], public)
        code, _, err = run("init", str(self.folder))
        self.assertEqual(code, 1)
        self.assertIn("exists already", err)

    def test_init_says_what_others_may(self) -> None:
        """The config says in full whom the node accepts and that it does not relay, unless told to."""
        for more, accept, relays, words in (
            ([], "any", False, "nobody can dial it; it does not relay"),
            (
                ["--listen", "tcp:127.0.0.1:0"],
                "any",
                False,
                "links from anyone on tcp:127.0.0.1:0; it does not",
            ),
            (["--listen", "tcp:127.0.0.1:0", "--relay"], "any", True, "; it relays for others"),
            (
                ["--listen", "tcp:127.0.0.1:0", "--accept", f"{A.hex()},{B.hex()}"],
                [A.hex(), B.hex()],
                False,
                "2 keys",
            ),
        ):
            _, out, _ = run("init", str(self.folder), *more)
            self.assertIn(words, out)
            text = (self.folder / "node.toml").read_text()
            table = tomllib.loads(text)
            self.assertEqual((table["link"]["accept"], table["relay"]), (accept, {"enabled": relays}))
            self.assertIn("# Whether circuits of others may lead on", text)
            (self.folder / "node.toml").unlink()
        code, out, _ = run("init", str(self.folder), "--relay", "--json")
        self.assertEqual((code, json.loads(out)["relay"]), (0, True))
        self.assertIn("--accept KEYS", run("init", "--help")[1])

    def test_init_keeps_a_key(self) -> None:
        """A key that is there is used, not replaced."""
        public = self.init()
        (self.folder / "node.toml").unlink()
        self.assertEqual(self.init("--metrics", "127.0.0.1:0"), public)

    def test_init_checks(self) -> None:
        """Wrong arguments leave nothing behind."""
        for more, words in (
            (["--peer", "x"], "is not KEY@ADDRESS"),
            (["--peer", "zz@tcp:h:1"], "--peer: a public key is 66 hex digits"),
            (["--network", "-1"], "node.network"),
            (["--metrics", "9100"], "host:port"),
            (["--listen", "foo"], "names no transport"),
            (["--listen", "tcp:127.0.0.1:0", "--accept", "ann"], "--accept: a public key"),
            (["--accept", A.hex()], "without --listen nobody can"),
            (["--node", "x"], "--node"),
        ):
            code, _, err = run("init", str(self.folder), *more)
            self.assertEqual((code, err.count("\n")), (2, 1), err)
            self.assertIn(words, err)
            self.assertFalse(self.folder.exists())

    def test_config_check(self) -> None:
        """What is wrong is named, and the exit code is 2."""
        self.init()
        file = self.folder / "node.toml"
        whole = file.read_text()
        for text, words in (
            ("[nod]\n", "did you mean node?"),
            ("[link]\nlisten = ['udp:h:1']\n", "link.listen.0"),
            ("[node]\nkey = 'other'\n", "no key at"),
            ("[[link.peer]]\nkey = 'x'\naddress = 'tcp:h:1'\n", "link.peer.0.key"),
        ):
            file.write_text(text)
            code, out, err = run("config", "check", str(file))
            self.assertEqual((code, out), (2, ""))
            self.assertIn(words, err)
            self.assertEqual(err.count("\n"), 1)
        file.write_text(whole)
        os.chmod(self.folder / "key", 0o644)
        code, _, err = run("config", "check", str(file))
        self.assertEqual(code, 2)
        self.assertIn("chmod 600", err)

    def test_key_show_never_shows_the_secret(self) -> None:
        """Only what is public."""
        self.init()
        secret = (self.folder / "key").read_text().strip()
        for more in ([], ["--json"]):
            _, out, err = run("key", "show", str(self.folder), *more)
            self.assertNotIn(secret, out + err)
        self.assertIn(".mesh", run("key", "show", str(self.folder))[1])

    def test_up_with_a_bad_config(self) -> None:
        """It ends before anything is bound."""
        code, out, err = run("up", str(self.folder))
        self.assertEqual((code, out), (2, ""))
        self.assertIn("meshnet init", err)


class UsageTests(SynchronousTestCase):
    def test_usage(self) -> None:
        """Wrong usage is one sentence and exit code 2."""
        for argv in ([], ["fly"], ["ping"], ["ping", A.hex(), "-c", "0"], ["key"], ["status", "--no"]):
            code, out, err = run(*argv)
            self.assertEqual((code, out), (2, ""), err)
            self.assertEqual(err.count("\n"), 1)

    def test_help_and_version(self) -> None:
        """Help lists every verb, an app's too."""
        code, out, _ = run("--help")
        self.assertEqual(code, 0)
        for verb in ("init", "up", "status", "links", "circuits", "ping", "trace", "key", "config", "knock"):
            self.assertIn(verb, out)
        self.assertEqual(run("--version")[0], 0)

    def test_unreachable(self) -> None:
        """No node: exit code 4 and what to do."""
        code, _, err = run("status", "--node", "/nowhere/control.sock")
        self.assertEqual(code, 4)
        self.assertIn("meshnet up", err)

    def test_app_verbs(self) -> None:
        """An app's verb runs and gives the exit code; it takes no verb of the node's."""
        self.assertEqual(run("knock", "ann")[:2], (5, "knocked at ann False\n"))
        self.assertEqual(run("knock", "ann", "--json")[1], "knocked at ann True\n")
        self.assertIn("foreground", run("up", "--help")[1])

    def test_a_bug_is_a_sentence(self) -> None:
        """No traceback, unless asked for."""
        code, _, err = run("knock", "bug")
        self.assertEqual((code, err.count("\n")), (1, 1))
        self.assertIn("ZeroDivisionError", err)
        code, out, _ = run("knock", "bug", "--json")
        self.assertEqual((code, json.loads(out)["error"]["code"]), (1, "failed"))
        code, _, err = run("knock", "nobody")
        self.assertEqual((code, err), (1, "meshnet: Cannot use /closed/door: permission denied.\n"))
        self.patch(os, "environ", {**os.environ, "MESHNET_DEBUG": "1"})
        self.assertIn("Traceback", run("knock", "bug")[2])


class AskingTests(TestCase):
    async def started(self) -> tuple[Node, FakeRouter]:
        folder = new_folder(self)
        self.socket = f"/tmp/meshnet-cli-{id(self)}.sock"
        table: dict[str, Any] = {
            "control": {"socket": self.socket},
            "known": [{"name": "ann", "key": A.hex()}],
            "link": {"peer": [{"key": B.hex(), "address": "tcp:h:1"}]},
        }
        node, router = make_node(folder, reactor, table)
        router.links = [link_snapshot(A), link_snapshot(B, up=False, rtt_ms=None)]
        router.why = {B.hex(): "nothing listens there"}
        hop = {"cells": 1, "bytes": 1_500}
        router.circuits = [
            {"role": "origin", "state": "open", "age": 1.0, "route": [A.hex(), B.hex()], "bytes_in": 9_000},
            {"role": "relay", "state": "opening", "age": 1.0, "upstream": A.hex(), "downstream": B.hex()},
            {"role": "relay", "state": "open", "upstream": A.hex(), "forward": hop, "backward": hop},
        ]
        node.startService()
        await node.ready()
        self.addCleanup(node.stopService)
        return node, router

    async def ask(self, *argv: str) -> tuple[int, str, str]:
        """In a thread, since the node answers in this one."""
        return await deferToThread(run, *argv, "--node", self.socket)

    async def test_tables_and_json(self) -> None:
        """Every verb prints for people, and JSON if asked."""
        node, _ = await self.started()
        for verb, words in (
            ("status", [node.public_key.hex(), "1 up"]),
            ("links", [A.hex(), "ann", "2.5", "1.0 kB", "not linked yet: nothing listens there"]),
            ("circuits", ["origin", "ROLE", f"{A.hex()[:10]} > {B.hex()[:10]}", "1.5 kB", "9.0 kB"]),
        ):
            code, out, err = await self.ask(verb)
            self.assertEqual((code, err), (0, ""))
            for word in words:
                self.assertIn(word, out)
            code, out, _ = await self.ask(verb, "--json")
            self.assertIsInstance(json.loads(out), dict)

    async def test_renew(self) -> None:
        """What became of each; 7 if only some were renewed, 4 if none; the control API can name a target."""
        node, router = await self.started()
        self.assertEqual((await self.ask("circuits", "--renew"))[0], 0)
        router.renewed = [{"route": [B.hex(), A.hex()], "streams": 2}]
        code, out, _ = await self.ask("circuits", "--renew")
        self.assertEqual((code, out.splitlines()[0]), (0, f"to {A.hex()}: renewed"))
        failed = {"route": [B.hex()], "streams": 0, "error": "relay 1 is busy"}
        router.renewed.append(failed)
        code, out, _ = await self.ask("circuits", "--renew", "--json")
        self.assertEqual((code, json.loads(out)["renewed"]), (7, router.renewed))
        route = node_routes(node)["POST /circuits/renew"]
        self.assertEqual(await route({"target": B.hex()}), {"renewed": [failed]})  # type: ignore[misc]
        router.renewed = [failed]
        code, out, _ = await self.ask("circuits", "--renew")
        self.assertEqual((code, "relay 1 is busy" in out), (4, True))

    async def test_about(self) -> None:
        """What another node says of itself; a node that is not reached is the route's error."""
        await self.started()
        code, _, err = await self.ask("about", "ann", "--via", "")
        self.assertEqual(code, 4)
        self.assertIn("o link to", err)
        code, out, _ = await self.ask("ping", "ann", "--clock", "--via", "")
        self.assertEqual(code, 7)
        self.assertIn("not its clock: no link to", out)

    def test_about_is_shown(self) -> None:
        """What was not told is said to be so; delays stand behind the round trips."""
        verbs = {verb.name: verb for verb in NODE_VERBS}
        asked: list[Any] = []

        def show(name: str, report: dict[str, Any], **more: Any) -> str:
            def call(method: str, path: str, body: Any) -> Any:
                asked.append((path, body))
                return report

            out = io.StringIO()
            with contextlib.redirect_stdout(out):
                verbs[name].run(Namespace(target="bob", via=None, json=False, count=2, **more), call)
            return out.getvalue()

        text = show("about", {"target": A.hex(), "version": "0.1.0", "name": ""})
        self.assertIn(f"target        {A.hex()}\nversion       0.1.0\nname          not told\n", text)
        clock = {"there_ms": 1.0, "back_ms": 2.0, "offset_ms": -3.5, "uncertainty_ms": 0.25}
        report = {"target": A.hex(), "via": [], "setup_ms": 1.0, "sent": 1, "received": 0, "clock": clock}
        text = show("ping", report, clock=True)
        self.assertIn("there 1.00, back 2.00 ± 0.25 ms, its clock -3.50 ± 0.25 ms", text)
        self.assertEqual(asked[0], ("/about", {"target": "bob"}))
        self.assertEqual(asked[1], ("/ping", {"target": "bob", "count": 2, "clock": True}))

    async def test_ping(self) -> None:
        """A pet name, a route, a count; a failure has its exit code."""
        _, router = await self.started()
        code, out, _ = await self.ask("ping", "ann", "--via", f"{B.hex()},{C.hex()}", "-c", "2")
        self.assertEqual(code, 0)
        self.assertIn("over 2 relays: set-up 4.0 ms, round trip 2.00 ms", out)
        self.assertEqual(router.pinged, [(A, (B, C), 2)])
        for via, words in (("", "over a direct link"), (B.hex(), "over one relay:")):
            self.assertIn(words, (await self.ask("ping", "ann", "--via", via))[1])
        router.unreachable = {A}
        code, out, err = await self.ask("ping", "ann", "--via", "")
        self.assertEqual((code, out), (4, ""))
        self.assertIn("Hop 2", err)
        code, out, err = await self.ask("ping", "an", "--json")
        self.assertEqual(code, 2)
        self.assertIn("did you mean ann?", err)
        self.assertEqual(json.loads(out)["error"]["code"], "usage")

    async def test_trace(self) -> None:
        """A line for each hop; 7 if only some answered, 4 if none did."""
        _, router = await self.started()
        code, out, err = await self.ask("trace", "ann", "--via", B.hex())
        self.assertEqual((code, len(out.splitlines())), (0, 2), err)
        router.unreachable = {A}
        self.assertEqual((await self.ask("trace", "ann", "--via", B.hex()))[0], 7)
        code, out, _ = await self.ask("trace", "ann")
        self.assertEqual((code, "hop 2 has no link to the next" in out), (4, True))
        router.no_link = CircuitError("relay 1 refuses", Reason.REFUSED, 0)
        self.assertEqual((await self.ask("trace", "ann"))[0], 5)
