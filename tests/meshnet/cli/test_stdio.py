"""`meshnet connect` and `meshnet listen` as processes at the door of a stand-in node."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from twisted.internet.threads import deferToThread

from lab.processes import environment, python
from meshnet.cli.main import build_parser
from meshnet.errors import UsageError
from meshnet.node.dropins import Dropins
from tests.support.doors import Deaf, DoorCase, run

PATIENCE = 20
Ended = tuple[int, bytes, bytes]


class StdioCase(DoorCase):
    def start(self, *words: str, stdin: Any = subprocess.PIPE) -> subprocess.Popen[bytes]:
        """The command, at the door of node a."""
        process = subprocess.Popen(
            python("-m", "meshnet.cli.main", *words, "--node", str(self.path)),
            stdin=stdin, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        self.addCleanup(process.wait)
        self.addCleanup(process.kill)
        return process

    async def end(
        self, process: subprocess.Popen[bytes], given: bytes | None = None
    ) -> tuple[int, bytes, bytes]:
        """Exit code, output and errors, once it has ended."""
        out, errors = await deferToThread(process.communicate, given, PATIENCE)
        return process.returncode, out, errors


class ConnectTests(StdioCase):
    @run
    async def test_pipe(self) -> None:
        """Megabytes in and out unharmed, half-close included; --json tells what passed, on stderr."""
        data = os.urandom(1 << 20) * 3
        code, out, errors = await self.end(self.start("connect", "b", "7", "--json"), data)
        self.assertEqual((code, out == data), (0, True))
        told = json.loads(errors)
        self.assertEqual(told, {"peer": self.b.public_key.hex(), "sent": len(data), "received": len(data)})

    @run
    async def test_errors(self) -> None:
        """Exit codes: nobody of that name 2, a port that is not open 5, no node 4; one sentence each."""
        for words, code, text in (
            (("connect", "nobody", "7"), 2, "no known name"),
            (("connect", "b", "8"), 5, "not open there"),
            (("connect", "b", "8", "--node", "/nowhere/attach.sock"), 4, "start it with meshnet up"),
        ):
            process = self.start(*words) if "--node" not in words else self.elsewhere(*words)
            got, out, errors = await self.end(process, b"")
            self.assertEqual((got, out), (code, b""))
            self.assertRegex(errors.decode(), rf"^meshnet: .*{text}.*\.\n$")

    def elsewhere(self, *words: str) -> subprocess.Popen[bytes]:
        """The command with its own --node."""
        process = subprocess.Popen(
            python("-m", "meshnet.cli.main", *words),
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE, env=environment(),
        )  # fmt: skip
        self.addCleanup(process.wait)
        return process

    @run
    async def test_broken(self) -> None:
        """A stream that breaks is no end: exit code 4 and a sentence."""
        process = self.start("connect", "b", "7")
        assert process.stdin is not None
        process.stdin.write(b"hello")
        process.stdin.flush()
        await self.until(lambda: bool(self.echoes) and self.echoes[0].data == b"hello")
        self.echoes[0].stream.reset(2)
        await self.until(lambda: not self.door.callers)
        code, out, errors = await self.end(process)
        self.assertEqual((code, out), (4, b"hello"))
        self.assertIn(b"The stream broke", errors)

    @run
    async def test_reader_goes(self) -> None:
        """Who stops reading the output ends it quietly, as with any command in a pipe."""
        process = self.start("connect", "b", "7")
        assert process.stdin is not None and process.stdout is not None
        process.stdin.write(b"x")
        process.stdin.flush()
        await deferToThread(process.stdout.read, 1)
        process.stdout.close()
        process.stdin.write(b"y")
        process.stdin.flush()
        self.assertEqual(await deferToThread(process.wait, PATIENCE), 0)
        process.stdin.close()

    def test_arguments(self) -> None:
        """Ports are ports."""
        for port in ("0", "65536", "x", "-1", "８０"):
            self.assertRaises(UsageError, build_parser(Dropins()).parse_args, ["connect", "b", port])


class ListenTests(StdioCase):
    @run
    async def test_first_stream(self) -> None:
        """The first stream becomes input and output; then the port is free."""
        process = self.start("listen", "80")
        await self.until(lambda: 80 in self.a.ports)
        caller = Deaf()
        (await self.called(80, caller)).write(b"question")
        caller.stream.finish()
        code, out, _ = await self.end(process, b"answer")
        self.assertEqual((code, out, caller.data, caller.ended), (0, b"question", b"answer", True))
        await self.until(lambda: not self.a.ports)

    @run
    async def test_exec(self) -> None:
        """A command per stream, which has the connection as input and output and knows its caller."""
        process = self.start("listen", "80", "--exec", "echo $MESHNET_PEER; cat", stdin=subprocess.DEVNULL)
        await self.until(lambda: 80 in self.a.ports)
        callers = [Deaf(), Deaf()]
        for number, caller in enumerate(callers):
            (await self.called(80, caller)).write(b"%d" % number)
            caller.stream.finish()
        await self.until(lambda: all(caller.ended for caller in callers))
        expected = [f"{self.b.public_key.hex()}\n{number}".encode() for number in range(2)]
        self.assertEqual([caller.data for caller in callers], expected)
        process.kill()
        await self.until(lambda: not self.a.ports)

    @run
    async def test_once(self) -> None:
        """With --once it ends after one, and says how the command ended."""
        process = self.start("listen", "80", "--once", "--exec", "exit 7")
        await self.until(lambda: 80 in self.a.ports)
        await self.called(80, Deaf())
        code, _, errors = await self.end(process, b"")
        self.assertEqual(code, 1)
        self.assertIn(b"exit code 7", errors)
