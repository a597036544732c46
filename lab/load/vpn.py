"""A long run of the VPN with relays that are killed and started again: nothing leaks, grows or stalls.

               ┌─ r1 ─┐
    client ────┼─ r2 ─┼──── exit ── web        the client picks a relay by chance: `--hops 2`
               └─ r3 ─┘

Mixed traffic goes through all the time: TCP both ways, datagrams, pages, names, and ten echoes a second that
tell how long nothing came through. Now and then the relay in use is killed (SIGKILL) and started again
seconds later; client and exit never are. Counted as faults:

    a packet that left the client beside its links (the kill switch is set)
    a pause of more than STALL seconds between two echoes
    a program whose connection broke, a page or a name that did not come
    an error or traceback in any log; a node that ends by itself
    memory or descriptors of client or exit that grow, by `trend.growth`
"""

from __future__ import annotations

import random
import re
import subprocess
import threading
import time
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Final

from attrs import define, field

from lab.capture import Capture
from lab.demos.oldnet import PAGE
from lab.demos.vpn import NAME, WEB4, Stage, foreign, stage
from lab.load.soak import DESCRIPTORS_GROW, FAULT, LOOK_EVERY, MEMORY_GROWS
from lab.load.trend import growth
from lab.namespaces import CommandError
from lab.shapes import Cable, Place, Shape
from lab.traffic import Server
from meshnet.errors import MeshError, TimedOutError

RELAYS: Final = ("r1", "r2", "r3")
STEADY: Final = ("client", "exit")
STALL: Final = 2.0
"""Seconds."""
FALL_EVERY: Final = 12.0  # seconds, on the average
DOWN: Final = (0.5, 4.0)  # seconds that a relay is away
ECHO_EVERY: Final = 0.1
FLOW: Final = 5  # seconds that a flow takes
FLOWS: Final = (
    ("-b", "100M"),
    ("-b", "100M", "-R"),
    ("-u", "-b", "20M", "-l", "1200"),
    ("-u", "-b", "20M", "-l", "1200", "-R"),
)
_ECHO: Final = re.compile(r"^\[([\d.]+)\] \d+ bytes from", re.MULTILINE)


@define
class Report:
    """What came of it; `faults` are sentences."""

    seconds: float = 0.0
    falls: int = 0
    done: Counter[str] = field(factory=Counter)
    """How often programs got what they wanted, by what it was."""
    leaked: int = 0
    longest_pause: float = 0.0
    pauses: list[float] = field(factory=list)
    """All above half of what is too long."""
    growth: dict[str, tuple[float, float]] = field(factory=dict)
    """By steady node: bytes of memory, and descriptors, along the slope."""
    faults: list[str] = field(factory=list)


def shape() -> Shape:
    """The client and the exit, and each relay between them."""
    names = ("client", *RELAYS, "exit")
    places = {name: Place(name, relay=name in RELAYS) for name in names}
    cables = [pair for relay in RELAYS for pair in (("client", relay), (relay, "exit"))]
    return Shape(places, tuple(Cable(pair) for pair in cables))


def pauses(times: Sequence[float]) -> list[float]:
    """The seconds between echoes that came, one after the other."""
    return [after - before for before, after in pairwise(times)]


def soak(seconds: float, seed: int, say: Callable[[str], None] = lambda text: None) -> Report:
    """Runs it for so long. Raises MeshError if the VPN does not come up, or without root."""
    with stage(shape()) as it:
        run = _Run(it, random.Random(seed), say)
        it.vpn("up", "--exit", "exit", "--hops", "2", "--killswitch")
        return run.drive(seconds)


class _Run:
    """One of them."""

    def __init__(self, it: Stage, chance: random.Random, say: Callable[[str], None]) -> None:
        self._it = it
        self._chance = chance
        self._say = say
        self._over = threading.Event()
        self._down: dict[str, float] = {}
        self._killed: set[int] = set()
        self._samples: dict[str, list[tuple[float, float, float]]] = {name: [] for name in STEADY}
        self._begun = time.monotonic()
        self.report = Report()

    def drive(self, seconds: float) -> Report:
        """Traffic and falls, then the judgement."""
        it = self._it
        end = self._begun + seconds
        look = fall = self._begun + FALL_EVERY / 2
        with Capture(it.client, wanted=lambda seen: seen.outgoing and bool(foreign(it, [seen]))) as capture:
            echoes = self._echoes()
            threads = self._traffic()
            while (now := time.monotonic()) < end:
                if now >= fall:
                    self._fall()
                    fall = now + self._chance.uniform(0.5, 1.5) * FALL_EVERY
                self._raise(now)
                if now >= look:
                    self._look(now)
                    look = now + LOOK_EVERY
                time.sleep(0.05)
            self._over.set()
            for thread in threads:
                thread.join()
            echoes.terminate()
            echoes.wait()
        self._judge(capture)
        return self.report

    def _fault(self, text: str) -> None:
        self.report.faults.append(text)
        self._say(f"{time.monotonic() - self._begun:6.0f} s  FAULT {text}")

    # Traffic

    def _echoes(self) -> subprocess.Popen[bytes]:
        words = ["ping", "-n", "-D", "-i", f"{ECHO_EVERY:g}", WEB4]
        with self._echo_log.open("wb") as log:
            return subprocess.Popen(self._it.client.command(*words), stdout=log, stderr=subprocess.STDOUT)

    @property
    def _echo_log(self) -> Path:
        return self._it.log / "echoes.log"

    def _traffic(self) -> list[threading.Thread]:
        it = self._it
        works: list[Callable[[], None]] = [self._pages]
        for number, flow in enumerate(FLOWS):
            port = 5_300 + number
            server = Server.start(it.processes, it.web, WEB4, it.log / f"iperf-{port}.log", port)
            works.append(partial(self._flows, self._flow_words(server, flow)))
        threads = [threading.Thread(target=work, daemon=True) for work in works]
        for thread in threads:
            thread.start()
        return threads

    @staticmethod
    def _flow_words(server: Server, flow: Sequence[str]) -> list[str]:
        return ["iperf3", "-c", server.address, "-p", str(server.port), "-t", str(FLOW), *flow]

    def _flows(self, words: Sequence[str]) -> None:
        while not self._over.wait(1.0):  # iperf3's server closes its port and opens it again after each
            self._tries(" ".join(words[7:]), words, "receiver")

    def _pages(self) -> None:
        while not self._over.wait(0.5):
            self._tries("page", ["curl", "-sSm", "20", f"http://{NAME}/"], PAGE.decode())
            self._tries("name", ["dig", "+short", "+tries=2", "+time=3", NAME], WEB4)

    def _tries(self, what: str, words: Sequence[str], wanted: str) -> None:
        """Runs a program that must succeed, and print what is wanted."""
        try:
            said = self._it.client.run(*words, seconds=60)
        except (CommandError, TimedOutError) as error:
            self._fault(f"{what}: {error}")
            return
        if wanted not in said:
            self._fault(f"{what}: it said {said[-200:]!r}")
            return
        self.report.done[what] += 1

    # Falls

    def _fall(self) -> None:
        """The relay in use is gone, unless one is away already."""
        if self._down:
            return
        name = self._in_use()
        process = self._it.lab[name].process
        self._killed.add(process.pid)
        process.kill()
        self.report.falls += 1
        self._say(f"{time.monotonic() - self._begun:6.0f} s  {name} killed")
        self._down[name] = time.monotonic() + self._chance.uniform(*DOWN)

    def _in_use(self) -> str:
        """The relay of the tunnel, or any while there is none."""
        keys = {self._it.lab.plans[name].public.hex(): name for name in RELAYS}
        with suppress(MeshError):
            for circuit in self._it.lab["client"].call("GET", "/circuits")["circuits"]:
                for key in circuit.get("route", ()):
                    if key in keys and circuit["state"] == "open":
                        return keys[key]
        return self._chance.choice(RELAYS)

    def _raise(self, now: float) -> None:
        for name in [name for name, until in self._down.items() if now >= until]:
            self._it.lab.launch(self._it.processes, name)
            del self._down[name]

    # Looking

    def _look(self, now: float) -> None:
        for name, samples in self._samples.items():
            process = self._it.lab[name].process
            samples.append((now, float(process.memory()), float(process.descriptors())))
        for process in self._it.processes.all:
            if not process.running and process.pid not in self._killed:
                self._killed.add(process.pid)
                self._fault(f"{process.name} has ended: {process.tail(3)}")

    def _judge(self, capture: Capture) -> None:
        report = self.report
        report.seconds = time.monotonic() - self._begun
        report.leaked = len(capture.whole())
        for seen in capture.packets[:5]:
            self._fault(f"a packet left beside the tunnel: {seen}")
        times = [float(each) for each in _ECHO.findall(self._echo_log.read_text())]
        waited = pauses(times)
        report.longest_pause = max(waited, default=report.seconds)
        begun = time.time() - report.seconds
        for before, after in pairwise(times):
            if after - before > STALL / 2:
                self._say(f"{before - begun:6.1f} s  nothing for {after - before:.2f} s")
        report.pauses = [round(each, 2) for each in waited if each > STALL / 2]
        for each in waited:
            if each > STALL:
                self._fault(f"nothing came through for {each:.1f} s")
        for name, samples in self._samples.items():
            memory = growth([(when, held) for when, held, _ in samples])
            files = growth([(when, files) for when, _, files in samples])
            report.growth[name] = memory, files
            if memory > MEMORY_GROWS:
                self._fault(f"the memory of {name} grows: {memory / 1e6:.1f} MB along its slope")
            if files > DESCRIPTORS_GROW:
                self._fault(f"the descriptors of {name} grow: {files:.0f} along their slope")
        for node in self._it.lab.nodes.values():
            found = [line for line in node.process.tail(100_000).splitlines() if FAULT.search(line)]
            if found:
                self._fault(f"{node.name} logged {len(found)} errors, the first: {found[0]}")
