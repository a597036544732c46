"""Other overlay networks as contestants: each in the hosts of a row, every host linked to the next one only.

    a ── r ── b        or with more hosts between

A contestant writes its config, starts one process per host, and says at which address the last host is
reached through it. In between no kernel forwards anything: what reaches b from a has passed r's process.
(With wireguard-go r is a peer of both and forwards what it has decrypted, as such networks are run.)

    yggdrasil     0.4, TCP links, its own MTU; end to end, routed by r
    tinc          1.0, each ConnectTo the next, IndirectData; r routes, re-encrypting per link
    nebula        r is lighthouse and relay; encrypted end to end, r passes it on
    wireguard-go  two tunnels, of a and of b with r; r's kernel forwards between them
    kernel        no overlay: r's kernel forwards; what the machine can do

It never fetches or installs anything: what is missing is said with the name of its Debian package.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Final

from attrs import define, field
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from lab.namespaces import CommandError, Host, require, run
from lab.processes import Process, Processes
from lab.traffic import answers
from meshnet.errors import UsageError

COME_UP: Final = 30.0
"""Seconds that a network may take from its start until its ends reach each other."""
PORT: Final = 7_001
WIREGUARD_SOCKETS: Final = Path("/var/run/wireguard")


@define(eq=False)
class Peers:
    """One network in a row of hosts; `processes` has one per host once it is started."""

    row: Sequence[Host]
    folder: Path
    processes: list[Process] = field(factory=list)
    name: ClassVar[str] = ""
    programs: ClassVar[tuple[str, ...]] = ()
    most: ClassVar[int] = 3
    """How many hosts a row may have."""

    def up(self, processes: Processes) -> None:
        """Writes the configs, starts it, and waits until the first host reaches the last one."""
        require(*self.programs, "ping")
        if not 3 <= len(self.row) <= self.most:
            raise UsageError(f"{self.name} takes 3 to {self.most} hosts here, not {len(self.row)}.")
        self.folder.mkdir(parents=True, exist_ok=True)
        self.prepare()
        for place, host in reversed(list(enumerate(self.row))):  # who is dialled first
            log = self.folder / f"{host.name}.log"
            if words := self.words(place):
                process = host.start(processes, f"{self.name} {host.name}", words, log)
                self.processes.insert(0, process)
                self.standing(process, place)
        self.started()
        answers(self.row[0], self.address, COME_UP)

    def prepare(self) -> None:
        """Writes what the processes read."""

    def words(self, place: int) -> list[str]:
        """The command of the host at this place; none where it needs no process."""
        return []

    def standing(self, process: Process, place: int) -> None:
        """Waits until a process may be dialled."""

    def started(self) -> None:
        """What is to be done once the processes run."""

    @property
    def address(self) -> str:
        """Where the last host is reached through it."""
        raise NotImplementedError

    def cpu_seconds(self) -> float:
        """What all of its processes have used so far."""
        return sum(process.cpu_seconds() for process in self.processes)

    def down(self) -> None:
        """Ends it."""
        for process in self.processes:
            process.stop()

    def _between(self) -> list[tuple[int, int]]:
        """Places of those that are linked, the dialler first."""
        return [(place, place + 1) for place in range(len(self.row) - 1)]

    def _file(self, name: str, text: str) -> Path:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
        return file


class Kernel(Peers):
    """No overlay at all: routes, and hosts between that forward."""

    name = "kernel"
    most = 8

    def prepare(self) -> None:
        """Each host's default route leads to the other end by its neighbour."""
        for host in self.row[1:-1]:
            host.forward()
        for place, host in enumerate(self.row[:-1]):
            end = host.towards(self.row[place + 1])
            host.configure(f"route replace {self.address}/32 via {end.far4}")
        start = self.row[0].towards(self.row[1]).own4
        for place, host in list(enumerate(self.row))[2:]:
            host.configure(f"route replace {start}/32 via {host.towards(self.row[place - 1]).far4}")

    @property
    def address(self) -> str:
        """That of the last host's cable."""
        return str(self.row[-1].towards(self.row[-2]).own4)


class Yggdrasil(Peers):
    """Yggdrasil over TCP; each host dials the next."""

    name = "yggdrasil"
    programs = ("yggdrasil",)
    most = 8

    def prepare(self) -> None:
        """Its own fresh config with our peers; no multicast, no admin socket."""
        for place, host in enumerate(self.row):
            config = json.loads(host.run("yggdrasil", "-genconf", "-json"))
            config |= {"Peers": [], "Listen": [], "MulticastInterfaces": [], "AdminListen": "none"}
            config |= {"IfName": "ygg0"}
            if place:
                before = host.towards(self.row[place - 1])
                config["Listen"] = [f"tcp://{before.own4}:{PORT}"]
            if place < len(self.row) - 1:
                config["Peers"] = [f"tcp://{host.towards(self.row[place + 1]).far4}:{PORT}"]
            self._file(f"{host.name}.json", json.dumps(config))

    def words(self, place: int) -> list[str]:
        """It runs in the foreground."""
        return ["yggdrasil", "-useconffile", str(self.folder / f"{self.row[place].name}.json")]

    def standing(self, process: Process, place: int) -> None:
        """Who dials it too early tries again only much later."""
        process.wait_for(lambda: "Your IPv6 subnet" in process.tail(), 10.0, "its start")

    @property
    def address(self) -> str:
        """Made of its key; the program says it."""
        last = self.row[-1]
        file = str(self.folder / f"{last.name}.json")
        return last.run("yggdrasil", "-useconffile", file, "-address").strip()


class Tinc(Peers):
    """tinc 1.0 in router mode."""

    name = "tinc"
    programs = ("tincd",)
    most = 8

    def prepare(self) -> None:
        """A folder per host: its config, its key, the public keys of all, a script that gives the address."""
        for place, host in enumerate(self.row):
            home = self.folder / host.name
            lines = [f"Name = {host.name}", "DeviceType = tun", "Interface = tinc0", "IndirectData = yes"]
            lines += ["AddressFamily = ipv4", "Mode = router"]
            if place < len(self.row) - 1:
                lines.append(f"ConnectTo = {self.row[place + 1].name}")
            self._file(f"{host.name}/tinc.conf", "\n".join(lines) + "\n")
            about = [f"Subnet = {self._own(place)}/32", f"Port = {PORT}", "IndirectData = yes"]
            if place:
                about.insert(0, f"Address = {host.towards(self.row[place - 1]).own4}")
            self._file(f"{host.name}/hosts/{host.name}", "\n".join(about) + "\n")
            script = (
                f"#!/bin/sh\nip addr add {self._own(place)}/24 dev $INTERFACE\nip link set $INTERFACE up\n"
            )
            self._file(f"{host.name}/tinc-up", script).chmod(0o755)
            run(["tincd", "-c", str(home), "-K", "2048"])
        keys = {host.name: (self.folder / host.name / "hosts" / host.name).read_text() for host in self.row}
        for host in self.row:
            for name, text in keys.items():
                self._file(f"{host.name}/hosts/{name}", text)

    def words(self, place: int) -> list[str]:
        """In the foreground."""
        home = self.folder / self.row[place].name
        return ["tincd", "-D", "-c", str(home), f"--pidfile={home}/pid"]

    @staticmethod
    def _own(place: int) -> str:
        return f"10.211.1.{place + 1}"

    @property
    def address(self) -> str:
        """The last host's subnet."""
        return self._own(len(self.row) - 1)


class Nebula(Peers):
    """Nebula: the host in the middle is lighthouse and relay."""

    name = "nebula"
    programs = ("nebula", "nebula-cert")

    def prepare(self) -> None:
        """An authority, a certificate and a config for each."""
        made = [
            "nebula-cert",
            "ca",
            "-name",
            "lab",
            "-out-crt",
            self._at("ca.crt"),
            "-out-key",
            self._at("ca.key"),
        ]
        run(made)
        relay = self.row[1]
        for place, host in enumerate(self.row):
            pair = ["-out-crt", self._at(f"{host.name}.crt"), "-out-key", self._at(f"{host.name}.key")]
            own = ["-name", host.name, "-ip", f"{self._own(place)}/24"]
            authority = ["-ca-crt", self._at("ca.crt"), "-ca-key", self._at("ca.key")]
            run(["nebula-cert", "sign", *authority, *own, *pair])
            config = self._config(place, host, relay)
            self._file(f"{host.name}.json", json.dumps(config, indent=1))  # JSON is YAML

    def _config(self, place: int, host: Host, relay: Host) -> dict[str, object]:
        middle = host is relay
        near = {} if middle else {self._own(1): [f"{host.towards(relay).far4}:4242"]}
        allow = [{"port": "any", "proto": "any", "host": "any"}]
        return {
            "pki": {
                "ca": self._at("ca.crt"),
                "cert": self._at(f"{host.name}.crt"),
                "key": self._at(f"{host.name}.key"),
            },
            "static_host_map": near,
            "lighthouse": {"am_lighthouse": middle, "hosts": list(near)},
            "listen": {"host": "0.0.0.0", "port": 4242},
            "relay": {"am_relay": middle, "use_relays": True, "relays": list(near)},
            "tun": {"dev": "nebula0"},
            "firewall": {"outbound": allow, "inbound": allow},
        }

    def words(self, place: int) -> list[str]:
        """In the foreground."""
        return ["nebula", "-config", self._at(f"{self.row[place].name}.json")]

    def _at(self, name: str) -> str:
        return str(self.folder / name)

    @staticmethod
    def _own(place: int) -> str:
        return f"10.211.2.{place + 1}"

    @property
    def address(self) -> str:
        """That of the last certificate."""
        return self._own(len(self.row) - 1)


class WireguardGo(Peers):
    """wireguard-go: two tunnels that meet in the middle, whose kernel forwards between them.

    It is configured through its socket (`wg`'s protocol), which is named as the interface: unique on the
    machine.
    """

    name = "wireguard-go"
    programs = ("wireguard-go",)
    _names: list[str]
    _keys: list[X25519PrivateKey]

    def prepare(self) -> None:
        """Keys, and names of interfaces."""
        self._names = [f"wg{secrets.token_hex(4)}" for _ in self.row]
        self._keys = [X25519PrivateKey.generate() for _ in self.row]

    def words(self, place: int) -> list[str]:
        """In the foreground, and so that it does not refuse where the kernel could do it."""
        return [
            "env",
            "WG_I_PREFER_BUGGY_USERSPACE_TO_POLISHED_KMOD=1",
            "wireguard-go",
            "-f",
            self._names[place],
        ]

    def started(self) -> None:
        """Peers, addresses, routes."""
        for place, (host, process) in enumerate(zip(self.row, self.processes, strict=True)):
            socket_file = WIREGUARD_SOCKETS / f"{self._names[place]}.sock"
            process.wait_for(socket_file.exists, 10.0, "its socket")
            lines = [f"private_key={self._keys[place].private_bytes_raw().hex()}", f"listen_port={PORT}"]
            for other in (place - 1, place + 1):
                if 0 <= other < len(self.row):
                    lines += self._peer(place, other)
            _configure(socket_file, lines)
            host.configure(
                f"addr add {self._own(place)}/24 dev {self._names[place]}",
                f"link set {self._names[place]} mtu 1420 up",
            )
        self.row[1].set(ipv4__ip_forward=1)

    def _peer(self, place: int, other: int) -> list[str]:
        """What the host at one place is told of the one at the next."""
        end = self.row[place].towards(self.row[other])
        # An end reaches all others through the middle; the middle knows each end by its one address.
        allowed = f"{self._own(other)}/32" if place == 1 else "10.211.3.0/24"
        key = self._keys[other].public_key().public_bytes(Encoding.Raw, PublicFormat.Raw).hex()
        return [f"public_key={key}", f"endpoint={end.far4}:{PORT}", f"allowed_ip={allowed}"]

    def down(self) -> None:
        """Ends it; a killed one leaves its socket."""
        super().down()
        for name in self._names:
            (WIREGUARD_SOCKETS / f"{name}.sock").unlink(missing_ok=True)

    @staticmethod
    def _own(place: int) -> str:
        return f"10.211.3.{place + 1}"

    @property
    def address(self) -> str:
        """The last host's."""
        return self._own(len(self.row) - 1)


def _configure(file: Path, lines: Sequence[str]) -> None:
    """Sets a device's peers by its socket. Raises CommandError with the number it refuses with."""
    with contextlib.closing(socket.socket(socket.AF_UNIX)) as asking:
        asking.connect(str(file))
        asking.sendall("\n".join(["set=1", *lines, "", ""]).encode())
        said = asking.recv(1_000).decode().strip()
    if said != "errno=0":
        raise CommandError(f"wireguard-go refuses its config: {said}.")


ALL: Final[dict[str, type[Peers]]] = {
    peers.name: peers for peers in (Kernel, Yggdrasil, Tinc, Nebula, WireguardGo)
}
"""By the name that `--against` takes."""
