"""Notes that programs keep at a node: texts by key, of two kinds, each kind a file.

    notes/txid.json, notes/client.json    a JSON object of texts, as the Go node has it

A note is on the disk when the answer is there. What is kept has maxima: `COIN_API_NOTES` keys of a kind,
`COIN_API_NOTE_BYTES` of one, `COIN_API_NOTES_BYTES` of all.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from coin.api.answer import Answer
from coin.api.endpoint import ApiSet, Endpoint, Given, Needed, Parameter
from coin.api.golang.decoding import Struct
from coin.api.kinds import TEXT
from coin.api.refusals import JSON, ApiError, bad
from meshnet.limits import COIN_API_NOTE_BYTES, COIN_API_NOTES, COIN_API_NOTES_BYTES
from meshnet.storage.disk import CorruptFileError, Disk
from meshnet.storage.files import make_directory, read_file, write_file

if TYPE_CHECKING:
    from coin.api.service import Api

STORAGE: Final = frozenset((ApiSet.STORAGE,))
KINDS: Final = ("txid", "client")
_LARGEST_FILE: Final = 8 * COIN_API_NOTES_BYTES  # control characters are six in JSON
_DONE: Final = Answer(200, b"{}", JSON)


class Notes:
    """The notes in a folder. Blocking, for one thread at a time."""

    def __init__(self, disk: Disk, folder: Path) -> None:
        self._disk = disk
        self._folder = folder
        self._kinds: dict[str, dict[str, str]] = {}

    def all(self, kind: str) -> dict[str, str]:
        """All of a kind; raises ApiError for an unknown one, StorageError."""
        if kind not in KINDS:
            raise bad("unknown storage")
        if kind not in self._kinds:
            self._kinds[kind] = self._read(kind)
        return self._kinds[kind]

    def _path(self, kind: str) -> str:
        return str(self._folder / f"{kind}.json")

    def _read(self, kind: str) -> dict[str, str]:
        path = self._path(kind)
        if not self._disk.exists(path):
            return {}
        try:
            found = json.loads(read_file(self._disk, path, _LARGEST_FILE))
        except (ValueError, RecursionError):
            found = None
        if not isinstance(found, dict) or not all(isinstance(each, str) for each in found.values()):
            raise CorruptFileError(f"{path} is no file of notes; move it away.")
        return found

    def get(self, kind: str, key: str) -> str:
        """One note; raises ApiError if there is none."""
        found = self.all(kind).get(key)
        if found is None:
            raise ApiError(404)
        return found

    def set(self, kind: str, key: str, value: str) -> None:
        """Keeps a note; durable when it returns. Raises ApiError where there is no room."""
        notes = {**self.all(kind), key: value}
        if len(key.encode("utf-8", "replace")) + len(value.encode("utf-8", "replace")) > COIN_API_NOTE_BYTES:
            raise ApiError(413, f"a key and its value have at most {COIN_API_NOTE_BYTES} bytes")
        if len(notes) > COIN_API_NOTES or self._size(notes) > COIN_API_NOTES_BYTES:
            raise ApiError(413, "the storage is full; remove what is not needed any more")
        self._write(kind, notes)

    def _size(self, notes: dict[str, str]) -> int:
        return sum(len(key) + len(value) for key, value in notes.items())

    def remove(self, kind: str, key: str) -> None:
        """Forgets a note; durable when it returns. Raises ApiError if there is none."""
        self.get(kind, key)
        self._write(kind, {name: value for name, value in self.all(kind).items() if name != key})

    def _write(self, kind: str, notes: dict[str, str]) -> None:
        make_directory(self._disk, str(self._folder))
        data = json.dumps(notes, indent=4, sort_keys=True)
        write_file(self._disk, self._path(kind), data.encode())
        self._kinds[kind] = notes


async def _get(api: Api, given: Given) -> Any:
    if given["key"]:
        return await api.note(Notes.get, given["type"], given["key"])
    return dict(await api.note(Notes.all, given["type"]))


async def _set(api: Api, given: Given) -> Any:
    await api.note(Notes.set, given["type"], given["key"], given.get("val", ""))
    return _DONE


async def _remove(api: Api, given: Given) -> Any:
    await api.note(Notes.remove, given["type"], given["key"])
    return _DONE


_TYPE: Final = Parameter("type", TEXT, missing="type is required")

ENDPOINTS: Final = (
    Endpoint("GET", "/api/v2/data", STORAGE, act=_get, takes=(_TYPE, Parameter("key", TEXT, default=""))),
    Endpoint(
        "POST",
        "/api/v2/data",
        STORAGE,
        act=_set,
        takes=(Needed("type", "type is required"), Needed("key", "key is required")),
        body=Struct("api.StorageRequest", {"type": "string", "key": "string", "val": "string"}),
    ),
    Endpoint(
        "DELETE",
        "/api/v2/data",
        STORAGE,
        act=_remove,
        takes=(_TYPE, Parameter("key", TEXT, missing="key is required")),
    ),
)
