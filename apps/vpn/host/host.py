"""Makes changes of the operating system, and undoes them: written down first, last made first undone.

`Host` is the only one that runs tools or touches files outside of the node's directory. Its calls block for
milliseconds; one thread at a time. What it was asked to undo it looks at afterwards: a change counts as
undone when it is gone, not when a tool says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Sequence
from itertools import groupby
from pathlib import Path
from typing import Final

from apps.vpn.host import resolver
from apps.vpn.host.book import Book, Entry
from apps.vpn.host.changes import (
    Address,
    AnyChange,
    Firewall,
    IpChange,
    Resolved,
    ResolverFile,
    Route,
    Rule,
    Sysctl,
)
from apps.vpn.host.look import Look
from apps.vpn.host.tools import Run, Tools, find_tools, run
from meshnet.errors import LocalError, MeshError, StorageError
from meshnet.storage.disk import Disk, StrPath
from meshnet.storage.quarantine import Quarantine

BOOK: Final = "host.log"
"""The book of changes, in the data directory of a node."""
RESOLV: Final = Path("/etc/resolv.conf")
PROC: Final = Path("/proc/sys")
_BOOT: Final = "kernel/random/boot_id"


class Host:
    """The machine (or the network namespace) that this process is in, with an open book."""

    def __init__(
        self,
        disk: Disk,
        book: StrPath,
        *,
        tools: Tools | None = None,
        run: Run = run,
        resolv: Path = RESOLV,
        proc: Path = PROC,
        quarantine: Quarantine | None = None,
    ) -> None:
        self.tools = find_tools() if tools is None else tools
        self.resolv = resolv
        self.disk = disk
        self._run = run
        self._proc = proc
        self._listed: dict[str, str] = {}
        self._known: dict[str, bool] = {}
        try:
            self._boot = (proc / _BOOT).read_text().strip()
        except OSError:
            self._boot = ""
        self._book = Book(disk, book, self._boot, quarantine)

    @property
    def notes(self) -> list[str]:
        """What was wrong with the book."""
        return self._book.notes

    def close(self) -> None:
        """Closes the book; changes stay."""
        self._book.close()

    def look(self) -> Look:
        """A look at the machine as it is now."""
        return Look(
            self.tools,
            self._run,
            disk=self.disk,
            resolv=self.resolv,
            proc=self._proc,
            listed=self._listed,
        )

    def standing(self, owner: str | None = None) -> tuple[AnyChange, ...]:
        """What is in the book, of one owner or of all, in the order in which it was made."""
        entries = self._book.entries if owner is None else self._book.of(owner)
        return tuple(entry.change for entry in entries)

    def apply(self, owner: str, changes: Iterable[AnyChange]) -> None:
        """Makes these, in order; what stands already in the book of the owner is left as it is. A table or a
        resolv.conf takes the place of the one before in one step: between them there is no moment without.

        Raises LocalError, MissingDependencyError or StorageError, and then none of them stands.
        """
        standing = set(self.standing(owner))
        wanted = [change for change in changes if change not in standing]
        if not wanted:
            return
        look = self.look()
        old = [self._superseded(owner, change) for change in wanted]
        befores = [
            entry.before if entry is not None else self._before(change, look)
            for change, entry in zip(wanted, old, strict=True)
        ]
        entries = self._book.note(owner, zip(wanted, befores, strict=True))
        try:
            self._make(entries)
            self._book.undone([entry for entry in old if entry is not None])
        except MeshError as why:
            faults = self._undo(entries)
            if faults:
                raise LocalError(f"{why} What had been changed was not undone: {' '.join(faults)}") from None
            raise

    def become(self, owner: str, wanted: Sequence[AnyChange]) -> None:
        """Makes what is new of these, and then undoes what stands beside them: in between both do. Raises as
        `apply`, and then all is as it was."""
        self.apply(owner, wanted)
        faults = self.undo(owner, lambda change: change not in wanted)
        if faults:
            raise LocalError(" ".join(faults))

    def undo(self, owner: str, which: Callable[[AnyChange], bool] = lambda change: True) -> list[str]:
        """Undoes what stands for this owner, or some of it, last first. Sentences of what could not be
        undone; that stays in the book. Raises StorageError for the book."""
        return self._undo([entry for entry in self._book.of(owner) if which(entry.change)])

    def owners(self) -> tuple[str, ...]:
        """Who has something in the book."""
        return tuple(dict.fromkeys(entry.owner for entry in self._book.entries))

    def remove(self, owner: str, changes: Iterable[AnyChange]) -> list[str]:
        """Undoes what is in the machine and in no book; as `undo`."""
        return self._undo(self._book.note(owner, [(change, None) for change in changes]))

    def missing(self, owner: str) -> tuple[AnyChange, ...]:
        """What stands in the book and not, or not any more, in the machine."""
        look = self.look()
        return tuple(change for change in self.standing(owner) if not look.has(change))

    def repair(self, owner: str) -> tuple[AnyChange, ...]:
        """Makes again what is missing; returns it. Raises as `apply`, and then some of it may be there."""
        look = self.look()
        lost = [entry for entry in self._book.of(owner) if not look.has(entry.change)]
        for entry in lost:
            if isinstance(entry.change, ResolverFile):  # somebody wrote another: that one comes back later
                self._book.amend(entry, resolver.capture(self.disk, self.resolv))
        self._make(lost, replace=True)
        return tuple(entry.change for entry in lost)

    def filters(self) -> set[str]:
        """Interfaces, and `all`, that drop IPv4 packets which come where answers would not go (rp_filter)."""
        found = set()
        for file in self._proc.glob("net/ipv4/conf/*/rp_filter"):
            with contextlib.suppress(OSError, ValueError):
                if int(file.read_text()):
                    found.add(file.parent.name)
        return found

    def knows(self, rule: str) -> bool:
        """Whether nftables takes such a rule in prerouting: `socket`, `ct` and `fib` need modules of the
        kernel that not all have."""
        known = self._known.get(rule)
        if known is None:
            chain = f"type filter hook prerouting priority -150;\n{rule}"
            probe = f"table inet meshnet_probe {{\nchain x {{\n{chain}\n}}\n}}\n"
            known = self._known[rule] = self.would_take(probe)
        return known

    def would_take(self, table: str) -> bool:
        """Whether nftables of this kernel knows all that a table says; nothing is changed."""
        if self.tools.nft is None:
            return False
        return not self._run((self.tools.nft, "-c", "-f", "-"), table).code

    # making

    def _superseded(self, owner: str, change: AnyChange, but: Entry | None = None) -> Entry | None:
        """The entry whose place a change takes."""
        for entry in reversed(self._book.of(owner)):
            old = entry.change
            if entry is but:
                continue
            if isinstance(change, Firewall) and isinstance(old, Firewall) and old.name == change.name:
                return entry
            if isinstance(change, ResolverFile) and isinstance(old, ResolverFile):
                return entry
        return None

    def _before(self, change: AnyChange, look: Look) -> str | None:
        if isinstance(change, Sysctl):
            value = look.sysctl(change.key)
            return None if value is None else str(value)
        if isinstance(change, ResolverFile):
            return resolver.capture(self.disk, self.resolv)
        return None

    def _make(self, entries: Sequence[Entry], replace: bool = False) -> None:
        for tool, group in groupby(entries, lambda entry: entry.change.tool):
            changes = [entry.change for entry in group]
            if tool.startswith("ip "):
                self._make_ip(tool, [each for each in changes if isinstance(each, IpChange)], replace)
            else:
                for change in changes:
                    self._make_one(change)

    def _make_ip(self, tool: str, changes: Sequence[IpChange], replace: bool) -> None:
        """`replace`: a rule that somebody else made in between, just like ours, is no fault."""
        lines = [change.make for change in changes]
        family = tool.split()[1]
        answer = self._run((self.tools.require_ip(), family, "-batch", "-"), "\n".join(lines) + "\n")
        if answer.code and not (replace and all(self.look().has(change) for change in changes)):
            raise LocalError(f"The system refused {_which(changes, answer.errors)}: {answer.why}.")

    def _make_one(self, change: AnyChange) -> None:
        match change:
            case Firewall():
                answer = self._run((self.tools.require_nft(), "-f", "-"), change.make)
                if answer.code:
                    raise LocalError(f"The system refused the {change.sentence}: {answer.why}.")
                listed = self.look().table(change.name)
                if listed is None:
                    raise LocalError(f"The {change.sentence} was made and is not there.")
                self._listed[change.name] = listed
            case Sysctl():
                self._write_sysctl(change.key, change.value)
            case ResolverFile():
                resolver.write(self.disk, self.resolv, change.text)
            case Resolved():
                for arguments in change.commands:
                    answer = self._run((str(self.tools.resolvectl), *arguments), "")
                    if answer.code:
                        raise LocalError(f"The system refused the {change.sentence}: {answer.why}.")

    def _write_sysctl(self, key: str, value: int) -> None:
        with contextlib.closing(self.disk.open(self._proc / key, "write")) as file:
            file.pwrite(f"{value}\n".encode(), 0)

    # undoing

    def _undo(self, entries: Sequence[Entry]) -> list[str]:
        faults = dict[int, str]()
        for tool, group in groupby(reversed(entries), lambda entry: entry.change.tool):
            batch = list(group)
            live = [entry for entry in batch if entry.boot == self._boot or tool == "file"]
            if tool.startswith("ip "):
                self._undo_ip(tool, live)
            else:
                for entry in live:
                    self._undo_one(entry, faults)
        look = self.look()
        for entry in entries:
            if entry.number not in faults and entry.boot == self._boot and self._is_left(entry, look):
                faults[entry.number] = f"The {entry.change.sentence} is still there."
        self._book.undone([entry for entry in entries if entry.number not in faults])
        return list(faults.values())

    def _undo_ip(self, tool: str, entries: Sequence[Entry]) -> None:
        """Also those that are gone, or whose interface is; whether all are is seen afterwards."""
        lines = [entry.change.unmake for entry in entries if isinstance(entry.change, IpChange)]
        if lines and self.tools.ip is not None:
            command = (self.tools.ip, "-force", tool.split()[1], "-batch", "-")
            self._run(command, "\n".join(lines) + "\n")

    def _undo_one(self, entry: Entry, faults: dict[int, str]) -> None:
        change = entry.change
        try:
            match change:
                case Firewall():
                    self._undo_table(entry, change)
                case Sysctl():
                    self._undo_sysctl(entry, change)
                case ResolverFile():
                    resolver.restore(self.disk, self.resolv, entry.before or "{}")
                case Resolved():
                    self._run((str(self.tools.resolvectl), *change.undo), "")
        except (LocalError, StorageError) as why:
            faults[entry.number] = f"The {change.sentence} was not undone: {why}"

    def _is_left(self, entry: Entry, look: Look) -> bool:
        """Whether a change that was undone is there all the same. Of files their undoing itself tells."""
        match entry.change:
            case Firewall() as table:
                return look.table(table.name) is not None and not self._superseded(entry.owner, table, entry)
            case Address() | Route() | Rule() as change:
                return look.has(change)
        return False

    def _undo_table(self, entry: Entry, change: Firewall) -> None:
        """Back to the table whose place it was about to take, if any."""
        self._listed.pop(change.name, None)
        old = self._superseded(entry.owner, change, but=entry)
        if old is not None:
            self._make_one(old.change)
        else:
            self._run((self.tools.require_nft(), "-f", "-"), change.unmake)

    def _undo_sysctl(self, entry: Entry, change: Sysctl) -> None:
        """Only if it still has our value, in the run of the machine in which it got it."""
        if entry.before is None or entry.boot != self._boot:
            return
        if self.look().sysctl(change.key) == change.value != int(entry.before):
            self._write_sysctl(change.key, int(entry.before))


def _which(changes: Sequence[IpChange], errors: str) -> str:
    """The change that `ip -batch` stopped at, by the number of its line."""
    for word in errors.split():
        place, _, number = word.partition(":")
        if place == "-" and number.isdigit() and 1 <= int(number) <= len(changes):
            return f"the {changes[int(number) - 1].sentence}"
    return f"the {changes[0].sentence}"
