"""The book of changes: what stands now, written down before it is made, so that it is undone in any case.

    record = {"made": number, "owner": name, "boot": id, "change": {…}, "before": text or null}   before it
           | {"undone": number}                                                                   after it

JSON in an append-only journal (`meshnet/storage`); a record is durable before its change is made. So a change
in the book may or may not have been made, and undoing it must do no harm if it was not. `boot` names the run
of the machine: all but files is gone with it.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any, Final

from attrs import evolve, frozen

from apps.vpn.host.changes import AnyChange, as_json, from_json
from meshnet.errors import LocalError
from meshnet.storage.disk import Disk, StrPath
from meshnet.storage.journal import Journal, open_journal
from meshnet.storage.quarantine import Quarantine

MOST_CHANGES: Final = 1_024
"""Changes that stand at a time."""
_ROOM: Final = 1 << 20  # bytes beyond which an empty book is begun anew
_LARGEST: Final = 512 << 10


@frozen
class Entry:
    """A change that stands, or that was about to."""

    number: int
    owner: str
    boot: str
    change: AnyChange
    before: str | None


class Book:
    """An open book; `notes` say what was wrong with it. For one thread at a time."""

    def __init__(self, disk: Disk, path: StrPath, boot: str, quarantine: Quarantine | None = None) -> None:
        self._boot = boot
        self._entries: dict[int, Entry] = {}
        self._next = 1
        self.notes: list[str] = []
        self._journal: Journal = open_journal(
            disk, path, self._read, record_maximum=_LARGEST, quarantine=quarantine
        )
        self.notes += self._journal.notes

    @property
    def entries(self) -> tuple[Entry, ...]:
        """What stands, the oldest first."""
        return tuple(self._entries.values())

    def of(self, owner: str) -> tuple[Entry, ...]:
        """What stands for one owner, the oldest first."""
        return tuple(entry for entry in self._entries.values() if entry.owner == owner)

    def note(self, owner: str, changes: Iterable[tuple[AnyChange, str | None]]) -> tuple[Entry, ...]:
        """Writes down what is to be made now; durable on return. Raises LocalError for too many."""
        made = [
            Entry(self._next + place, owner, self._boot, change, before)
            for place, (change, before) in enumerate(changes)
        ]
        if len(self._entries) + len(made) > MOST_CHANGES:
            raise LocalError(f"More than {MOST_CHANGES} changes of the system; name fewer networks.")
        self._journal.commit([_record(entry) for entry in made])
        self._next += len(made)
        self._entries.update((entry.number, entry) for entry in made)
        return tuple(made)

    def amend(self, entry: Entry, before: str) -> None:
        """What is to be put back for this entry has changed meanwhile; durable on return."""
        entry = evolve(entry, before=before)
        self._journal.commit([_record(entry)])
        self._entries[entry.number] = entry

    def undone(self, entries: Iterable[Entry]) -> None:
        """These stand no more."""
        numbers = [entry.number for entry in entries if entry.number in self._entries]
        if not numbers:
            return
        self._journal.commit([json.dumps({"undone": number}).encode() for number in numbers])
        for number in numbers:
            del self._entries[number]
        if not self._entries and self._journal.size > _ROOM:
            self._journal.compact(())

    def close(self) -> None:
        """Closes the file."""
        self._journal.close()

    def _read(self, _: int, data: bytes) -> None:
        try:
            value: dict[str, Any] = json.loads(data)
            if "undone" in value:
                self._entries.pop(int(value["undone"]), None)
                return
            before = value["before"]
            entry = Entry(
                int(value["made"]),
                str(value["owner"]),
                str(value["boot"]),
                from_json(value["change"]),
                None if before is None else str(before),
            )
        except (ValueError, OverflowError, KeyError, TypeError, RecursionError) as fault:
            self.notes.append(f"A change in the book is not understood, and may still stand: {fault}.")
            return
        self._entries[entry.number] = entry
        self._next = max(self._next, entry.number + 1)


def _record(entry: Entry) -> bytes:
    value = {
        "made": entry.number,
        "owner": entry.owner,
        "boot": entry.boot,
        "change": as_json(entry.change),
        "before": entry.before,
    }
    return json.dumps(value).encode()
