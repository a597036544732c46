"""Hosts of the lab: network namespaces with cables between them, gone when the lab is gone.

    with Hosts() as hosts:
        a, r = hosts.add("a"), hosts.add("r")
        hosts.cable(a, r)                       # addresses of both families at both ends
        a.run("ping", "-c1", str(a.towards(r).far4))

A host is made by `ip netns`, a cable is a veth pair whose ends are born in their namespaces. Nothing of the
machine's own network is touched: no address, route, rule or sysctl outside of a namespace that is ours.

Namespaces are named `meshlab-<owner>-<host>`. An owner is a process id and its start time, so that a lab
that was killed outright is recognised by the next one, which sweeps its hosts away with whatever runs in
them. Hosts that shall outlive their lab have the owner `kept`.

It never runs as anybody but root, and never installs anything.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import re
import secrets
import shutil
import signal
import subprocess
import threading
from collections.abc import Callable, Iterable, Mapping, Sequence
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Final, Self, TypeVar

from attrs import define, field, frozen

from lab.processes import ROOT, Process, Processes, environment
from meshnet.errors import LocalError, MeshError, MissingDependencyError, TimedOutError, UsageError

PACKAGES: Final = {
    "ip": "iproute2",
    "nft": "nftables",
    "ping": "iputils-ping",
    "iperf3": "iperf3",
    "tcpdump": "tcpdump",
    "dig": "dnsutils",
    "curl": "curl",
    "yggdrasil": "yggdrasil",
    "tincd": "tinc",
    "nebula": "nebula",
    "nebula-cert": "nebula",
    "wireguard-go": "wireguard-go",
    "wg": "wireguard-tools",
}
"""Which Debian package brings a program."""
PREFIX: Final = "meshlab-"
KEPT: Final = "kept"
SPACES: Final = Path("/run/netns")
FILES: Final = Path("/etc/netns")
"""Where `ip netns exec` looks for files that stand in for those in /etc."""
FIRST4: Final = IPv4Address("10.210.0.0")
FIRST6: Final = IPv6Address("fd6c:6162::")
CABLES: Final = 1 << 14  # /30s in 10.210.0.0/16
LONGEST_INTERFACE: Final = 15
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,31}")
_CLONE_NEWNET: Final = 0x40000000
_Result = TypeVar("_Result")


class CommandError(MeshError):
    """A command of the lab failed; the text has what it said."""


def is_name(text: str) -> bool:
    """Whether a host may be called so: 1 to 32 letters, digits, - and _."""
    return _NAME.fullmatch(text) is not None


def require(*programs: str) -> None:
    """Raises MissingDependencyError unless these programs are there; it names the Debian packages."""
    wanted = sorted(
        {PACKAGES.get(name, name) for name in programs if shutil.which(name, path=_path()) is None}
    )
    if wanted:
        raise MissingDependencyError(
            f"{', '.join(wanted)} must be installed for this, as by: sudo apt install {' '.join(wanted)}."
        )


def refusal() -> str:
    """Why there can be no hosts here: a sentence, empty if there can."""
    if not Path("/proc/self/ns/net").exists():
        return "Network namespaces need Linux."
    if os.geteuid() != 0:
        return "Network namespaces need root; run this with sudo."
    if shutil.which("ip", path=_path()) is None:
        return "iproute2 must be installed for this, such as by: sudo apt install iproute2."
    tried = subprocess.run(["unshare", "--net", "true"], capture_output=True, text=True)
    if tried.returncode:
        return f"This machine lets nobody make network namespaces: {tried.stderr.strip().rstrip('.')}."
    return ""


def _path() -> str:
    """Where programs are looked for: also where a plain user's path does not lead."""
    return os.pathsep.join([os.environ.get("PATH", os.defpath), "/usr/sbin", "/sbin"])


@frozen
class Interface:
    """An end of a cable: its name inside the host, its addresses, and those of the other end."""

    name: str
    own4: IPv4Address
    far4: IPv4Address
    own6: IPv6Address
    far6: IPv6Address


@define(eq=False)
class Host:
    """A namespace: `space` is its name for `ip netns`, `cables` its interfaces by the host at the far end."""

    name: str
    space: str
    cables: dict[str, Interface] = field(factory=dict)

    def towards(self, other: Host) -> Interface:
        """The end of the cable to `other`."""
        return self.cables[other.name]

    def command(self, *words: str) -> list[str]:
        """A command that runs in this host, with its files of `/etc`; the process is that of the command."""
        return ["ip", "netns", "exec", self.space, *words]

    def run(
        self, *words: str, text: str = "", seconds: float = 30.0, env: Mapping[str, str] | None = None
    ) -> str:
        """Runs a command with `text` as its input; what it printed. Raises CommandError, TimedOutError."""
        return run(self.command(*words), text, seconds, f"{self.name}: ", env)

    def start(self, processes: Processes, name: str, words: Sequence[str], log: Path) -> Process:
        """Starts a process here that ends with the lab."""
        return processes.start(name, self.command(*words), log)

    def configure(self, *lines: str) -> None:
        """Lines of `ip -batch`: addresses, links, routes of this host."""
        run(["ip", "-n", self.space, "-batch", "-"], "\n".join([*lines, ""]), about=f"{self.name}: ")

    def set(self, **values: int | str) -> None:
        """Sysctls below `net`, dots written as two underscores: `set(ipv4__ip_forward=1)`."""
        lines = [f"echo {value} > /proc/sys/net/{name.replace('__', '/')}" for name, value in values.items()]
        self.run("sh", "-e", text="\n".join(lines))

    def forward(self) -> None:
        """Lets the kernel pass packets on, of both families."""
        self.set(ipv4__ip_forward=1, ipv6__conf__all__forwarding=1)

    def inside(self, action: Callable[[], _Result]) -> _Result:
        """Calls `action` in a thread of ours that stands in this host: sockets made there stay there."""
        return inside(self.space, action)

    @property
    def files(self) -> Path:
        """The folder whose files stand in for those in /etc for `command`; made when first asked for."""
        folder = FILES / self.space
        folder.mkdir(parents=True, exist_ok=True)
        return folder

    def resolve_by(self, *servers: str) -> Path:
        """Gives it a resolv.conf of its own with these name servers; the file."""
        file = self.files / "resolv.conf"
        file.write_text("".join(f"nameserver {server}\n" for server in servers))
        return file

    def pids(self) -> list[int]:
        """The processes that run here."""
        return pids(self.space)


@define(eq=False)
class Hosts:
    """All hosts of one lab. Entering sweeps away what killed labs have left; leaving removes these, and ends
    whatever still runs in them, unless they are `kept`."""

    kept: bool = False
    all: dict[str, Host] = field(factory=dict)
    owner: str = ""
    _cables: int = 0

    def __enter__(self) -> Self:
        why = refusal()
        if why:
            raise MissingDependencyError(why)
        sweep()
        self.owner = (
            f"{KEPT}-{secrets.token_hex(3)}" if self.kept else f"{os.getpid()}-{started(os.getpid())}"
        )
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if not self.kept or kind is not None:
            self.remove()

    def remove(self) -> None:
        """Removes them all."""
        spaces = [host.space for host in self.all.values()]
        self.all.clear()
        remove(spaces)

    def add(self, name: str) -> Host:
        """A host with nothing but its loopback interface. Raises UsageError for a name that is none."""
        if not is_name(name) or name in self.all:
            raise UsageError(
                f"{name!r} names no host: 1 to 32 letters, digits, - and _, and every host once."
            )
        # Several labs of one process, as in tests: the number keeps them apart.
        space = f"{PREFIX}{self.owner}-{secrets.token_hex(2)}-{name}"
        run(["ip", "netns", "add", space])
        host = self.all[name] = Host(name, space)
        host.configure("link set lo up")
        host.set(ipv6__conf__all__accept_dad=0, ipv6__conf__default__accept_dad=0)  # addresses serve at once
        host.resolve_by("127.0.0.1")  # nobody there: else the machine's own servers would stand in it
        return host

    def __getitem__(self, name: str) -> Host:
        return self.all[name]

    def cable(self, one: Host, other: Host, mtu: int = 1_500) -> None:
        """Connects two hosts: an IPv4 /30 and an IPv6 /64 that no other cable of this lab has."""
        if self._cables == CABLES:
            raise LocalError(f"A lab has at most {CABLES:,} cables.")
        number = self._cables
        self._cables += 1
        low4, low6 = FIRST4 + 4 * number, FIRST6 + (number << 64)
        ends = [(low4 + 1, low6 + 1), (low4 + 2, low6 + 2)]
        hosts = (one, other)
        for host, far, (own, away) in zip(hosts, hosts[::-1], (ends, ends[::-1]), strict=True):
            host.cables[far.name] = Interface(_interface(host, far), own[0], away[0], own[1], away[1])
        near, away_end = one.towards(other).name, other.towards(one).name
        run(
            ["ip", "-batch", "-"],
            f"link add {near} netns {one.space} mtu {mtu} type veth "
            f"peer name {away_end} netns {other.space} mtu {mtu}\n",
        )
        for host, far in ((one, other), (other, one)):
            host.configure(f"link set {host.towards(far).name} up")
        for host, far in ((one, other), (other, one)):
            end = host.towards(far)
            host.configure(
                f"addr add {end.own4}/30 dev {end.name}",
                f"addr add {end.own6}/64 dev {end.name} nodad",
            )


def _interface(host: Host, far: Host) -> str:
    name = f"to-{far.name}"
    fits = len(name) <= LONGEST_INTERFACE and all(end.name != name for end in host.cables.values())
    return name if fits else f"eth{len(host.cables)}"


def run(
    words: Sequence[str],
    text: str = "",
    seconds: float = 30.0,
    about: str = "",
    env: Mapping[str, str] | None = None,
) -> str:
    """Runs a command, its input `text`; what it printed. Raises CommandError, TimedOutError."""
    surroundings = {**environment(), "PATH": _path(), **(env or {})}
    try:
        done = subprocess.run(
            words, input=text, capture_output=True, text=True, timeout=seconds, env=surroundings, cwd=ROOT
        )
    except subprocess.TimeoutExpired:
        raise TimedOutError(f"{about}{_shown(words)} did not end in {seconds:g} s.") from None
    except FileNotFoundError:
        raise MissingDependencyError(f"{words[0]} is not installed.") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "nothing").splitlines()[-5:]
        raise CommandError(f"{about}{_shown(words)} ended with {done.returncode}: {' / '.join(said)}")
    return done.stdout


def _shown(words: Sequence[str]) -> str:
    return " ".join(words[4:] if words[:3] == ["ip", "netns", "exec"] else words)


def inside(space: str, action: Callable[[], _Result]) -> _Result:
    """Calls `action` in a fresh thread that stands in a namespace; its result, or what it raised."""
    outcome: list[_Result] = []
    failure: list[BaseException] = []
    setns = ctypes.CDLL(None, use_errno=True).setns

    def work() -> None:
        try:
            with (SPACES / space).open("rb") as file:
                if setns(file.fileno(), _CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()), space)
            outcome.append(action())
        except BaseException as error:  # handed to who asked
            failure.append(error)

    thread = threading.Thread(target=work, name=space)
    thread.start()
    thread.join()
    if failure:
        raise failure[0]
    return outcome[0]


def pids(space: str) -> list[int]:
    """The processes of a namespace; none if it is gone."""
    try:
        return [int(word) for word in run(["ip", "netns", "pids", space]).split()]
    except CommandError:
        return []


def remove(spaces: Iterable[str]) -> None:
    """Ends what runs in these namespaces, which are a lab's, and removes them with their files."""
    for space in spaces:
        for pid in pids(space):
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        with contextlib.suppress(CommandError):  # already gone
            run(["ip", "netns", "del", space])
        shutil.rmtree(FILES / space, ignore_errors=True)
    with contextlib.suppress(OSError):  # somebody else has files there, or there is none
        FILES.rmdir()


def started(pid: int) -> int:
    """When a process started, in ticks since the machine did; 0 if there is none."""
    try:
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[19])
    except OSError:
        return 0


def orphans(spaces: Iterable[str]) -> list[str]:
    """Those of these namespaces whose lab is gone."""
    found = []
    for space in spaces:
        owner = re.match(rf"{PREFIX}(\d+)-(\d+)-", space)
        if owner and started(int(owner[1])) != int(owner[2]):
            found.append(space)
    return found


def sweep() -> list[str]:
    """Removes the hosts of labs that were killed; their namespaces."""
    names = {file.name for folder in (SPACES, FILES) if folder.exists() for file in folder.iterdir()}
    gone = sorted(orphans(names))
    remove(gone)
    return gone


def kept() -> list[str]:
    """Namespaces of hosts that outlive their labs."""
    if not SPACES.exists():
        return []
    return sorted(file.name for file in SPACES.iterdir() if file.name.startswith(f"{PREFIX}{KEPT}-"))
