"""The examples of docs/attach.md, run from the page's own text against the door of a stand-in node."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from typing import Any

from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SkipTest

from tests.docs.pages import blocks, page
from tests.support.doors import Deaf, DoorCase, run

PAGE = page("docs/attach.md")


def scripts() -> list[str]:
    """The shell scripts of the page: a client with socat, a server with nc."""
    return list(blocks(PAGE, "bash"))


def needs(program: str) -> None:
    """Skips where it is missing; `.ci/run` installs it."""
    if shutil.which(program) is None or shutil.which("bash") is None:
        raise SkipTest(f"{program} or bash is not installed")


class Examples(DoorCase):
    async def runs(self, *command: str, given: bytes = b"") -> tuple[int, bytes, bytes]:
        """Exit code, output and errors of a program beside the node."""
        environment = {**os.environ, "MESHNET_ATTACH": str(self.path)}
        done: Any = await deferToThread(
            subprocess.run, command, input=given, capture_output=True, env=environment, timeout=20
        )
        return done.returncode, done.stdout, done.stderr

    @run
    async def test_socat(self) -> None:
        """The shell client: bytes there and back, and the refusal's sentence."""
        needs("socat")
        data = os.urandom(300_000)
        self.assertEqual(
            await self.runs("bash", "-c", scripts()[0], "-", "b", "7", given=data), (0, data, b"")
        )
        code, out, errors = await self.runs("bash", "-c", scripts()[0], "-", "b", "8")
        self.assertEqual((code, out), (1, b""))
        self.assertRegex(errors.decode(), "^ERR 5 .*not open there")

    @run
    async def test_nc(self) -> None:
        """The shell server: whoever calls gets the file."""
        needs("nc")
        file = self.folder / "page"
        file.write_bytes(b"hello\n" * 10_000)
        server = subprocess.Popen(
            ["bash", "-c", scripts()[1], "-", "80", str(file)],
            env={**os.environ, "MESHNET_ATTACH": str(self.path)},
            start_new_session=True,
        )
        self.addCleanup(end, server)
        await self.until(lambda: 80 in self.a.ports)
        for _ in range(2):
            caller = Deaf()
            await self.called(80, caller)
            await self.until(lambda caller=caller: caller.ended)  # type: ignore[misc]
            self.assertEqual(caller.data, file.read_bytes())

    @run
    async def test_python(self) -> None:
        """The program without anything installed, as client and as server."""
        (program,) = blocks(PAGE, "python")
        file = self.folder / "program.py"
        ask = "s = connect('b', 7); s.sendall(b'hello'); s.shutdown(1); print(s.makefile().read())"
        file.write_text(f"{program}\n{ask}\n")
        self.assertEqual(await self.runs(sys.executable, "-I", str(file)), (0, b"hello\n", b""))
        file.write_text(f"{program}\nconnect('b', 8)\n")
        self.assertIn(b"not open there", (await self.runs(sys.executable, "-I", str(file)))[2])
        give = "def give(s, caller): s.sendall(caller.encode()); s.close()\n\nserve(80, give)"
        file.write_text(f"{program}\n{give}\n")
        environment = {**os.environ, "MESHNET_ATTACH": str(self.path)}
        server = subprocess.Popen([sys.executable, "-I", str(file)], env=environment, start_new_session=True)
        self.addCleanup(end, server)
        await self.until(lambda: 80 in self.a.ports)
        caller = Deaf()
        await self.called(80, caller)
        await self.until(lambda: caller.ended)
        self.assertEqual(caller.data.decode(), self.b.public_key.hex())


def end(server: subprocess.Popen[bytes]) -> None:
    """Ends a server and what it started."""
    os.killpg(server.pid, 15)
    server.wait()


def test_lengths() -> None:
    """The example in Python is as short as the page promises, and each script is there."""
    (program,) = blocks(PAGE, "python")
    assert len(program.splitlines()) <= 24
    assert len(scripts()) == 2
