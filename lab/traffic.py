"""Traffic between two hosts of the lab by programs nobody here wrote: iperf3 and ping.

`Server` keeps an iperf3 server in a host; `tcp`, `flood` and `ping` run for some seconds and say what came
over. What they say is read from the programs' own reports, as the receiver counted it. iperf3 knows whole
seconds only.
"""

from __future__ import annotations

import json
import re
import subprocess
import threading
from pathlib import Path
from typing import Any, Final, Self

from attrs import define, field, frozen

from lab.namespaces import CommandError, Host
from lab.processes import Processes
from meshnet.errors import TimedOutError

IPERF_PORT: Final = 5_201
PATIENCE: Final = 20.0
"""Seconds that a program may take beyond those it was given."""
TRIES: Final = 3
"""Of a flow whose first call falls between two tests of its server."""
_TIME: Final = re.compile(r"time=([\d.]+) ms")
_COUNT: Final = re.compile(r"(\d+) packets transmitted, (\d+) (?:packets )?received")


@frozen
class Transfer:
    """What the receiver got: bytes of payload, seconds, and for datagrams how many of them."""

    bytes: int
    seconds: float
    packets: int = 0
    sent: int = 0
    """Datagrams that were sent."""

    @property
    def mbps(self) -> float:
        """Megabits of payload a second."""
        return self.bytes * 8 / self.seconds / 1e6 if self.seconds else 0.0

    @property
    def packets_per_second(self) -> float:
        """Datagrams that arrived."""
        return self.packets / self.seconds if self.seconds else 0.0


@frozen
class Echoes:
    """Round trips in ms, and how many were asked for."""

    times: tuple[float, ...]
    sent: int

    @property
    def lost(self) -> int:
        """How many did not come back."""
        return self.sent - len(self.times)


@define(eq=False)
class Server:
    """iperf3 listening on an address of a host, for as long as the processes live."""

    host: Host
    address: str
    port: int = IPERF_PORT

    @classmethod
    def start(cls, processes: Processes, host: Host, address: str, log: Path, port: int = IPERF_PORT) -> Self:
        """Starts it and waits until it listens. Raises MeshError with its log."""
        words = ["iperf3", "-s", "-B", address, "-p", str(port), "--forceflush"]
        process = host.start(processes, "iperf3", words, log)
        process.wait_for(lambda: "listening" in process.tail(), 10.0, "its port")
        return cls(host, address, port)


def tcp(client: Host, server: Server, seconds: int, omit: int = 0) -> Transfer:
    """One TCP flow for so long, after `omit` seconds that do not count. Raises MeshError."""
    end = _iperf(client, server, seconds, omit)["end"]["sum_received"]
    return Transfer(int(end["bytes"]), float(end["seconds"]))


def flood(client: Host, server: Server, seconds: int, size: int = 1_200, rate: str = "0") -> Transfer:
    """UDP datagrams of so many bytes as fast as they can be sent (or at `rate`, as iperf3 has it)."""
    report = _iperf(client, server, seconds, 0, "-u", "-b", rate, "-l", str(size))
    told = report["end"]["sum"]
    sent, lost = int(told["packets"]), int(told["lost_packets"])
    arrived = max(0, sent - lost)
    return Transfer(arrived * size, float(told["seconds"]), arrived, sent)


def _iperf(client: Host, server: Server, seconds: int, omit: int, *more: str) -> dict[str, Any]:
    words = ["iperf3", "-J", "-c", server.address, "-p", str(server.port), "-t", str(seconds), *more]
    if omit:
        words += ["-O", str(omit)]
    for patience in range(TRIES, 0, -1):
        try:
            said = client.run(*words, seconds=seconds + omit + PATIENCE)
        except CommandError as error:  # its reason stands in the JSON, of which the end is empty
            raise CommandError(f"iperf3 from {client.name} to {server.address} failed: {error}") from None
        report: dict[str, Any] = json.loads(said)
        wrong = str(report.get("error", ""))
        if not wrong:
            break
        # Between two tests iperf3's server listens anew: who has called meanwhile is reset.
        if patience == 1 or "reset by peer" not in wrong:
            raise CommandError(f"iperf3 from {client.name} to {server.address}: {wrong}")
    return report


def ping(client: Host, address: str, count: int, interval: float = 0.02, size: int = 56) -> Echoes:
    """So many echo requests. All lost is no error: `times` is empty then."""
    words = ["ping", "-n", "-c", str(count), "-i", f"{interval:g}", "-s", str(size), "-W", "2", address]
    try:
        said = client.run(*words, seconds=count * interval + PATIENCE)
    except CommandError:  # exit code 1: none came back
        return Echoes((), count)
    return read_ping(said)


def read_ping(text: str) -> Echoes:
    """What ping (iputils) printed; raises CommandError where it is not that."""
    counted = _COUNT.search(text)
    if counted is None:
        raise CommandError(f"ping said what is not understood: {text[-200:]}")
    return Echoes(tuple(float(each) for each in _TIME.findall(text)), int(counted[1]))


def answers(client: Host, address: str, seconds: float) -> None:
    """Waits until an address answers. Raises TimedOutError."""
    words = client.command("ping", "-n", "-c", "1", "-W", "1", address)
    for _ in range(max(1, round(seconds))):
        if subprocess.run(words, capture_output=True).returncode == 0:
            return
    raise TimedOutError(f"{client.name} does not reach {address} in {seconds:g} s.")


@define(eq=False)
class Beside:
    """A TCP flow in a thread, for what is measured beside it; its outcome on leaving."""

    client: Host
    server: Server
    seconds: int
    transfer: Transfer | None = None
    _failure: list[BaseException] = field(factory=list)
    _thread: threading.Thread | None = None

    def __enter__(self) -> Self:
        self._thread = threading.Thread(target=self._work, name="flow", daemon=True)
        self._thread.start()
        return self

    def _work(self) -> None:
        try:
            self.transfer = tcp(self.client, self.server, self.seconds)
        except BaseException as error:  # handed to who asked
            self._failure.append(error)

    def __exit__(self, kind: object, *_: object) -> None:
        assert self._thread is not None
        self._thread.join()
        if self._failure and kind is None:
            raise self._failure[0]
