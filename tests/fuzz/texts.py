"""Targets that people and programs on this machine write: configs, door lines, addresses, control bodies; and
what lies on the disk."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Any

from lab.simulation.disk import SimulatedDisk
from meshnet.cipher.address import AddressError, parse_target, sign_address
from meshnet.cipher.keys import SecretKey
from meshnet.circuit.tail import make_tail
from meshnet.control.lines import LineReader, read_answer, read_incoming, read_request, write_request
from meshnet.control.server import _object
from meshnet.errors import CodecError, ConfigError, MeshError, UsageError
from meshnet.limits import JOURNAL_RECORD
from meshnet.node.config import read_config
from meshnet.node.dropins import find_dropins
from meshnet.rpc.frames import ANSWER, CALL
from meshnet.storage.files import write_file
from meshnet.storage.journal import open_journal
from meshnet.storage.kept import KeptFile, pack
from meshnet.storage.quarantine import Quarantine
from tests.fuzz.target import MEGABYTE, Target
from tests.meshnet.rpc.pairs import Pair, Side

ROOT = Path(__file__).resolve().parents[2]
KEY = SecretKey(b"\7" * 32)


@cache
def _apps() -> Any:
    return find_dropins().apps


def config(data: bytes) -> None:
    """The bytes of a config file."""
    read_config(data, Path("/nowhere/node.toml"), _apps())


def _configs() -> list[bytes]:
    return [path.read_bytes() for path in sorted((ROOT / "conf").glob("*.toml"))]


def door(data: bytes) -> None:
    """Byte 0: in which pieces; then what a process or a node says; each line is read as all it can be."""
    size, rest = (data[0] or 1 if data else 1), data[1:]
    reader = LineReader()
    while rest:
        line, taken = reader.feed(rest[:size])
        rest = rest[taken:]
        if line is None:
            continue
        for read in (read_request, read_answer, read_incoming):
            try:
                found = read(line)
            except MeshError:
                continue
            if read is read_request:
                assert read_request(write_request(found).decode()[:-1]) == found  # type: ignore[arg-type]


def _lines() -> list[bytes]:
    key = KEY.public.hex()
    lines = ["LISTEN 80", "LISTEN 80 address=blog", "ACCEPT 77", f"OK {key}", "OK", "ERR 4 Not there."]
    lines += [f"CONNECT {key} 80 as=node via={key},b", f"INCOMING 5 {key}", "INCOMING 5 anonymous"]
    return [b"\xff" + "\n".join(lines).encode() + b"\n", *(b"\3" + line.encode() + b"\n" for line in lines)]


def address(data: bytes) -> None:
    """The text of a key or an address."""
    parse_target(data.decode("utf-8", "replace"))


def _addresses() -> list[bytes]:
    found = []
    for hops in range(3):
        relays = [SecretKey(bytes([20 + hop]) * 32).public for hop in range(hops)]
        path_key, tail = make_tail(SecretKey(b"\x31" * 32), relays, KEY.public, bytes(16))
        found.append(sign_address(SecretKey(b"\x32" * 32), 1, 2_000_000_000, path_key, tail).text.encode())
    return [*found, KEY.public.hex().encode()]


def body(data: bytes) -> None:
    """The body of a control request."""
    _object(data)


def rpc(data: bytes) -> None:
    """Byte 0: which side (bit 0), after HELLO (bit 1); the rest in pieces. The core never raises."""
    mode, rest = (data[0] if data else 0), data[1:]
    pair = Pair()
    side: Side = pair.near if mode & 1 else pair.far
    if mode & 2:
        pair.near.ask(1)
        pair.near.ask(3)
        pair.move()
    for start in range(0, len(rest), 1 + (mode >> 2) * 16):
        side.core.receive(rest[start : start + 1 + (mode >> 2) * 16], 1.0)
    for taken in side.taken:
        taken.call.fail(1, "no")
    side.core.tick(100.0)


def _calls() -> list[bytes]:
    pair = Pair()
    pair.near.ask(1)
    pair.near.ask(2)
    there = pair.near.output()
    back = pair.far.output()
    answer = (ANSWER << 20 | 8).to_bytes(4, "big") + b"\0\0" + bytes(8)
    call = (CALL << 20 | 10).to_bytes(4, "big") + b"\0\4\0\x10" + bytes(8)
    return [b"\xfc" + there, b"\xfd" + back, b"\xff" + answer, b"\xfe" + call, b"\4" + there]


def journal(data: bytes) -> None:
    """The bytes of a journal file, with a quarantine and without; afterwards it takes a record."""
    for aside in (True, False):
        disk = SimulatedDisk()
        write_file(disk, "/log", data)
        quarantine = Quarantine(disk, "/q", lambda: 1.79e9) if aside else None
        try:
            opened = open_journal(disk, "/log", lambda _, record: None, quarantine=quarantine)
        except MeshError:
            assert not aside, "a quarantine lets every journal open"
            continue
        opened.commit([b"one more"])
        opened.close()


def _journals() -> list[bytes]:
    disk = SimulatedDisk()
    made = open_journal(disk, "/log", first=5)
    for record in (b"first", b"", b"third", bytes(100)):
        made.commit([record])
    unclosed = bytes(disk.snapshot()["/log"] or b"")
    made.close()
    return [unclosed, bytes(disk.snapshot()["/log"] or b"")]


def kept(data: bytes) -> None:
    """The bytes of one generation of a kept file; the other one is sound."""
    disk = SimulatedDisk()
    write_file(disk, "/state.0", pack(b"the one before", 1, 4))
    write_file(disk, "/state.1", data)
    file = KeptFile(disk, "/state", JOURNAL_RECORD)
    found = file.load()
    assert found.frame is not None, "the sound one is still there"
    file.save(b"next")


TARGETS = [
    Target("config", config, _configs, (ConfigError,), 8 * MEGABYTE, 16_384),
    Target("door", door, _lines, (CodecError,), MEGABYTE, 3_000),
    Target("address", address, _addresses, (UsageError, AddressError), MEGABYTE, 1_100),
    Target("control", body, lambda: [b'{"a":[1,2.5,null,true,"x"]}', b" "], (UsageError,), 2 * MEGABYTE),
    Target("rpc", rpc, _calls, (), 2 * MEGABYTE, 1_500),
    Target("journal", journal, _journals, (), 4 * MEGABYTE, 1_500),
    Target("kept", kept, lambda: [pack(b"newest", 1, 5), pack(b"", 0, 3)], (), 2 * MEGABYTE, 500),
]
