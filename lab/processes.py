"""Child processes of the lab: started with a log file each, and gone when the lab is gone.

`Processes` is a context manager: on every way out (return, exception, Ctrl-C, SIGTERM, SIGHUP) it ends what
it started. On Linux the children also die with a lab that is killed outright. A detached process is left
alone: `--keep` wants that.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Self

from attrs import define, field

from meshnet.errors import MeshError, TimedOutError

ROOT = Path(__file__).resolve().parent.parent
STOP_SECONDS = 5.0
_PR_SET_PDEATHSIG = 1


class ChildError(MeshError):
    """A process of the lab ended, or did not come up; the text has the end of its log."""


def python(*arguments: str, profile: Path | None = None) -> list[str]:
    """A command of this environment's Python that sees the project, whatever the current directory."""
    watched = ["-m", "cProfile", "-o", str(profile)] if profile else []
    return [sys.executable, "-P", *watched, *arguments]


def environment(path: Path | None = None) -> dict[str, str]:
    """The environment of children: ours, with the project's root, and `path`, on Python's path."""
    paths = [str(path or ""), str(ROOT), os.environ.get("PYTHONPATH", "")]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, paths)), "PYTHONUNBUFFERED": "1"}


@define(eq=False)
class Process:
    """One child: its name, what it runs and where it writes."""

    name: str
    popen: subprocess.Popen[bytes]
    log: Path

    @property
    def pid(self) -> int:
        """The process id."""
        return self.popen.pid

    @property
    def running(self) -> bool:
        """Whether it still runs."""
        return self.popen.poll() is None

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        return "\n".join(text.splitlines()[-lines:])

    def cpu_seconds(self) -> float:
        """CPU time of all its threads, from /proc; raises MeshError where there is none."""
        fields = self._proc("stat").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory(self, peak: bool = False) -> int:
        """Bytes of memory that are resident, or were at most; raises MeshError where there is no /proc."""
        name = "VmHWM:" if peak else "VmRSS:"
        lines = [line.split() for line in self._proc("status").splitlines()]
        return next(int(words[1]) << 10 for words in lines if words[0] == name)

    def descriptors(self) -> int:
        """How many files, sockets among them, it has open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))

    def _proc(self, name: str) -> str:
        try:
            return Path(f"/proc/{self.pid}/{name}").read_text()
        except OSError as problem:
            raise ChildError(f"{self.name}: /proc/{self.pid}/{name}: {problem.strerror}") from None

    def kill(self) -> None:
        """SIGKILL, and waits until it is gone."""
        self.popen.kill()
        self.popen.wait()

    def stop(self) -> None:
        """SIGTERM, then SIGKILL after a few seconds."""
        end([self.popen.pid], lambda _: self.running)
        self.popen.wait()

    def wait_for(self, ready: Callable[[], bool], seconds: float, what: str) -> None:
        """Waits until `ready()`; raises ChildError if the process ends, TimedOutError if it takes longer."""
        limit = time.monotonic() + seconds
        while not ready():
            if not self.running:
                raise ChildError(f"{self.name} ended before {what}:\n{self.tail()}")
            if time.monotonic() > limit:
                raise TimedOutError(f"{self.name}: no sign of {what} in {seconds:g} s:\n{self.tail()}")
            time.sleep(0.02)


@define
class Processes:
    """What the lab has started; everything but the detached ends with it."""

    detached: bool = False
    all: list[Process] = field(factory=list)
    _restore: dict[int, Any] = field(factory=dict)

    def __enter__(self) -> Self:
        with contextlib.suppress(ValueError):  # not in the main thread: then signals are somebody else's
            for number in (signal.SIGTERM, signal.SIGHUP):
                self._restore[number] = signal.signal(number, _leave)
        return self

    def __exit__(self, *_: object) -> None:
        if not self.detached:
            self.stop()
        for number, action in self._restore.items():
            signal.signal(number, action)

    def start(self, name: str, command: Sequence[str], log: Path, path: Path | None = None) -> Process:
        """Starts a child in a process group of its own, so that Ctrl-C reaches only the lab.

        `path` is put first on Python's path."""
        log.parent.mkdir(parents=True, exist_ok=True)
        with log.open("ab") as output:
            popen = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=environment(path),
                start_new_session=True,
                preexec_fn=None if self.detached else _die_with_parent(),
            )
        process = Process(name, popen, log)
        self.all.append(process)
        return process

    def stop(self) -> None:
        """Ends all at once: SIGTERM to each, SIGKILL to those that stay."""
        alive = {process.pid: process for process in self.all if process.running}
        end(list(alive), lambda pid: alive[pid].running)
        for process in alive.values():
            process.popen.wait()


def end(pids: Sequence[int], running: Callable[[int], bool]) -> None:
    """SIGTERM to each, SIGKILL to those that still run after a few seconds."""
    for number, patience in ((signal.SIGTERM, STOP_SECONDS), (signal.SIGKILL, 1.0)):
        alive = [pid for pid in pids if running(pid)]
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, number)
        limit = time.monotonic() + patience
        while alive and time.monotonic() < limit:
            time.sleep(0.02)
            alive = [pid for pid in alive if running(pid)]


def _leave(number: int, frame: object) -> None:
    sys.exit(128 + number)


def _die_with_parent() -> Callable[[], None] | None:
    if not sys.platform.startswith("linux"):
        return None
    prctl = ctypes.CDLL(None).prctl  # looked up here: after the fork nothing may be loaded
    return lambda: prctl(_PR_SET_PDEATHSIG, int(signal.SIGTERM))


@contextlib.contextmanager
def held_ports(count: int, host: str = "127.0.0.1") -> Iterator[list[int]]:
    """Free TCP ports, all different; free again on leaving, for a child to take."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((host, 0))
        yield [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


def free_ports(count: int) -> list[int]:
    """Free TCP ports of 127.0.0.1, all different."""
    with held_ports(count) as ports:
        return ports
