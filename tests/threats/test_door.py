"""A process of this machine at the door."""

from __future__ import annotations

import stat

from tests.support.doors import Deaf, DoorCase, Process, run


class ProcessTests(DoorCase):
    """One that may connect, because the socket's mode lets its user."""

    async def listening(self) -> Process:
        """A process that has port 80."""
        process = await self.process(b"LISTEN 80\n")
        self.assertRegex(await self.answer(process), "^OK ")
        return process

    @run
    async def test_the_mode_is_the_lock(self) -> None:
        """Nobody but the node's user can connect: the socket is 0600."""
        self.assertEqual(stat.S_IMODE(self.path.stat().st_mode), 0o600)

    @run
    async def test_guessed_ids(self) -> None:
        """A process that was not told a stream's id does not get it by guessing, and the stream waits on for
        the one that was."""
        listener = await self.listening()
        caller = Deaf()
        await self.called(80, caller)
        await self.until(lambda: len(listener.lines()) == 2)
        number = int(listener.lines()[1].split(" ")[1])
        for guess in (number - 1, number + 1, 0, 1, (1 << 64) - 1):
            self.assertRegex(await self.says(f"ACCEPT {guess}\n".encode()), "^ERR 4 ")
        process = await self.process(f"ACCEPT {number}\n".encode())
        await self.until(lambda: process.data.startswith(b"OK "))

    @run
    async def test_taken_ports(self) -> None:
        """It cannot take the port of another process while that one lives."""
        await self.listening()
        self.assertRegex(await self.says(b"LISTEN 80\n"), "^ERR 1 ")

    @run
    async def test_a_second_line(self) -> None:
        """What follows a line is the stream's, never a second request: nothing that a peer makes a program
        send on can become a line."""
        process = await self.process(b"CONNECT b 7\nLISTEN 81\n")
        await self.until(lambda: process.data.endswith(b"LISTEN 81\n"))
        self.assertRegex(await self.says(b"ACCEPT 1\nLISTEN 81\n"), "^ERR 4 ")
        self.assertRegex(await self.says(b"CONNECT b 7 as=node\0 x\n"), "^ERR 2 ")
