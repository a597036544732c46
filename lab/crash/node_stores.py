"""All that a node keeps, opened and used as a node does it, on any disk: what the powercut tiers cut.

    FOLDER/key                  the identity (`meshnet.node.identity`)
    FOLDER/data/replay/         onions seen (`meshnet.circuit.replay_log`)
    FOLDER/data/services/       hidden services (`meshnet.node.hidden`)
    FOLDER/data/quarantine/     damaged files, if any
    FOLDER/data/state.0, .1     a kept file, as a node's parts use one
    FOLDER/data/journal         a journal that is compacted now and then
    FOLDER/data/table.db        a database

`step` does one thing with one of them and tells what it may rely on from then on; `check` says, of an opened
set, what of all that was told is not there.
"""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from attrs import define, field

from meshnet.cipher.keys import SecretKey
from meshnet.circuit.replay import Replays
from meshnet.circuit.replay_log import ReplayFiles
from meshnet.limits import EXPIRY_AHEAD
from meshnet.node.hidden import HiddenServices
from meshnet.node.identity import never_ran, ran, read_key, write_key
from meshnet.node.services import Services
from meshnet.storage.database import Database, Schema, open_database
from meshnet.storage.disk import Disk
from meshnet.storage.files import make_directory, sweep
from meshnet.storage.journal import Journal, Whole, open_journal
from meshnet.storage.kept import KeptFile, Loaded
from meshnet.storage.quarantine import Quarantine
from meshnet.storage.sqlite import Connect

SCHEMA: Final = Schema(0x4D455348, ("CREATE TABLE entry (number INTEGER PRIMARY KEY, text TEXT) STRICT;\n",))
MOST: Final = 4096
COMPACT_AT: Final = 1500
LATEST: Final = ("identity", "state", "journal", "database")
"""Kinds of which only the newest value told counts; of the others, each."""

LASTING: Final = (*LATEST, "onion", "service")
"""Kinds that must be there from then on. ("removing" says what may be gone.)"""

Told = list[tuple[str, str]]
"""Kinds and values, in the order in which they were told."""

Tell = Callable[[str, str], object]
"""Called with a kind and a value when that may be relied on."""


@define(eq=False)
class NodeStores:
    """Everything open. `boot` names the run of the machine, `unix` the wall clock at the start. `connect`
    opens databases; None leaves the database out."""

    disk: Disk
    folder: Path
    boot: str
    unix: float
    connect: Connect | None
    separate_reader: bool = True
    secret: SecretKey = field(init=False)
    replays: Replays = field(init=False)
    hidden: HiddenServices = field(init=False)
    faults: list[str] = field(factory=list, init=False)
    """What was found damaged. A cut damages nothing."""
    _files: ReplayFiles = field(init=False)
    _state: KeptFile = field(init=False)
    _journal: Journal = field(init=False)
    _database: Database | None = field(default=None, init=False)
    _number: int = field(default=0, init=False)
    _recorded: int = field(default=0, init=False)

    def open(self) -> None:
        """As a node starts, in the same order."""
        disk, data = self.disk, self.folder / "data"
        make_directory(disk, self.folder)
        sweep(disk, self.folder)
        if not disk.exists(self.folder / "key"):
            write_key(disk, self.folder / "key", SecretKey.generate())
        self.secret = read_key(disk, self.folder / "key")
        make_directory(disk, data)
        sweep(disk, data)
        first = never_ran(disk, self.folder / "key")
        self._files = ReplayFiles(disk, str(data / "replay"), boot=self.boot, first_start=first)
        self.replays = Replays(self._files, self.unix)
        ran(disk, self.folder / "key")
        self._open_services(data)
        quarantine = Quarantine(disk, data / "quarantine", lambda: self.unix)
        self._state = KeptFile(disk, data / "state", MOST, quarantine)
        loaded = self._state.load()
        self._number = int(loaded.frame.data) if loaded.frame else 0
        if loaded.outcome not in (Loaded.CURRENT, Loaded.MISSING):
            self.faults += loaded.notes
        self._open_journal(data, quarantine)
        if self.connect is not None:
            self._database = open_database(
                disk, data / "table.db", SCHEMA, connect=self.connect, separate_reader=self.separate_reader
            )

    def _open_services(self, data: Path) -> None:
        self.hidden = HiddenServices(
            self.disk,
            data,
            77,
            self.secret.public,
            Services(self.secret),
            unix=lambda: self.unix,
            reaches=lambda _: True,
            leave=lambda _: None,
        )
        self.faults += self.hidden.load()

    def _open_journal(self, data: Path, quarantine: Quarantine) -> None:
        found: list[int] = []
        self._journal = open_journal(
            self.disk, data / "journal", lambda _, record: found.append(int(record)), quarantine=quarantine
        )
        if self._journal.whole is Whole.DAMAGED:
            self.faults += self._journal.notes
        if found and found != list(range(found[0], found[0] + len(found))):
            self.faults.append(f"the journal has gaps: {found}")
        self._recorded = found[-1] if found else 0

    def tell_identity(self, tell: Tell) -> None:
        """Others know the key as soon as the node is up."""
        tell("identity", self.secret.public.hex())

    def step(self, chance: random.Random, tell: Tell) -> None:
        """One random thing."""
        name = chance.choices(("onions", "state", "journal", "database", "service"), (6, 3, 6, 3, 0.5))[0]
        getattr(self, f"_do_{name}")(chance, tell)

    def _do_onions(self, chance: random.Random, tell: Tell) -> None:
        for _ in range(chance.randint(1, 4)):
            tag = chance.randbytes(16)
            expiry = int(self.unix) + chance.randint(60, EXPIRY_AHEAD - 1)
            if self.replays.admit(expiry, tag, b"\2" * 33) is None:
                tell("onion", f"{expiry}:{tag.hex()}")
        if chance.random() < 0.5:
            self._files.sync()

    def _do_state(self, chance: random.Random, tell: Tell) -> None:
        self._number += 1
        self._state.save(b"%0*d" % (chance.randint(1, 1200), self._number))
        tell("state", str(self._number))

    def _do_journal(self, chance: random.Random, tell: Tell) -> None:
        count = chance.randint(1, 8)
        records = [b"%d" % (self._recorded + one) for one in range(1, count + 1)]
        self._recorded += count
        if self._journal.size > COMPACT_AT:
            self._journal.compact([records[-1]])
        else:
            self._journal.commit(records)
        tell("journal", str(self._recorded))

    def _do_database(self, chance: random.Random, tell: Tell) -> None:
        if self._database is None:
            return
        text = "x" * chance.randint(0, 900)
        with self._database.transaction() as connection:
            for _ in range(chance.randint(1, 3)):
                connection.execute("INSERT INTO entry (text) VALUES (?)", (text,))
            number = connection.last_row()
        tell("database", str(number))

    def _do_service(self, chance: random.Random, tell: Tell) -> None:
        shown = self.hidden.shown()
        if len(shown) < 3:
            made = self.hidden.new([])
        elif chance.random() < 0.5:
            gone = chance.choice(shown)["name"]
            tell("removing", gone)
            self.hidden.remove(gone)
            return
        else:
            rich = [each["name"] for each in shown if len(each["addresses"]) < 3]
            if not rich:
                return
            made = self.hidden.renew(chance.choice(rich), [])
        tell("service", f"{made['name']}:{made['address']}")

    def check(self, told: Iterable[tuple[str, str]]) -> list[str]:
        """Sentences about what was told and is not so."""
        last: dict[str, str] = {}
        removed = {value for kind, value in told if kind == "removing"}
        missing: list[str] = list(self.faults)
        addresses = {
            f"{each['name']}:{one['address']}" for each in self.hidden.shown() for one in each["addresses"]
        }
        for kind, value in told:
            if kind == "onion" and not self._refuses(value):
                missing.append(f"onion {value[:20]}… would be accepted again")
            elif kind == "service" and value not in addresses and value.split(":")[0] not in removed:
                missing.append(f"hidden service {value[:20]}… is gone")
            elif kind in LATEST:
                last[kind] = value
        return missing + [
            f"{kind}: {why}" for kind, value in last.items() if (why := self._short(kind, value))
        ]

    def _refuses(self, onion: str) -> bool:
        expiry, _, tag = onion.partition(":")
        return not self._timely(onion) or self.replays.refused(int(expiry), bytes.fromhex(tag)) is not None

    def _short(self, kind: str, value: str) -> str:
        if kind == "identity":
            return "" if self.secret.public.hex() == value else "another key"
        if kind == "database":
            if self._database is None:
                return "not open"
            rows = self._database.read(lambda it: it.execute("SELECT count(*), max(number) FROM entry"))
            count, newest = rows[0][0], rows[0][1] or 0
            if count != newest:
                return f"{count} rows, the last of them number {newest}"
        else:
            newest = self._number if kind == "state" else self._recorded
        return "" if newest >= int(value) else f"{newest} instead of {value}"

    def pruned(self, told: Told) -> Told:
        """Without what no longer matters: older values, and onions that have expired."""
        newest = {kind: place for place, (kind, _) in enumerate(told)}
        return [
            (kind, value)
            for place, (kind, value) in enumerate(told)
            if (newest[kind] == place if kind in LATEST else kind != "onion" or self._timely(value))
        ]

    def _timely(self, onion: str) -> bool:
        return self.replays.timely(int(onion.partition(":")[0]), self.unix)

    def close(self) -> None:
        """Close all in order, as far as it goes."""
        with contextlib.suppress(Exception):
            self._files.close()
        self._journal.close()
        if self._database is not None:
            self._database.close()
