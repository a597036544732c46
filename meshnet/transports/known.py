"""The addresses that names had last, for a time in which they cannot be looked up; over restarts, if kept.

    {"host:port": ["192.0.2.1", "2001:db8::1"], …}      JSON in a kept file, who was looked up last at the end

A tunnel whose other end has to be dialled first has no names, and a machine that starts in a network without
them has none either. Nothing here looks anything up. What is read is taken for what it says only if it is an
address: a file is no reason to fail.
"""

from __future__ import annotations

import json
import socket
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Final

from twisted.logger import Logger

from meshnet.errors import StorageError
from meshnet.storage.kept import KeptFile
from meshnet.transports.race import Address

NAMES_KEPT: Final = 256
"""Names whose last addresses are known."""
ADDRESSES_KEPT: Final = 8
"""Of one name, the first ones."""
LARGEST: Final = NAMES_KEPT * (300 + ADDRESSES_KEPT * 50)
"""Bytes of the file."""

_log = Logger()


class KnownAddresses:
    """Addresses by name and port; in memory until `keep` says where they outlive the process."""

    def __init__(self) -> None:
        self._known: dict[str, list[str]] = {}
        self._file: KeptFile | None = None

    def keep(self, file: KeptFile) -> list[str]:
        """Reads what was kept there, and keeps it there from now on; sentences of what was damaged. Raises
        StorageError."""
        self._file = file
        kept = file.load()
        if kept.frame is not None:
            self._known = {**_read(bytes(kept.frame.data)), **self._known}
        return list(kept.notes)

    def find(self, host: str, port: int) -> list[Address]:
        """The last addresses of a name, as `connect` takes them; empty if there were none."""
        found: list[Address] = []
        for text in self._known.get(f"{host}:{port}", ()):
            v6 = ":" in text
            found.append(
                (socket.AF_INET6 if v6 else socket.AF_INET, (text, port, 0, 0) if v6 else (text, port))
            )
        return found

    def learn(self, host: str, port: int, found: Sequence[Address]) -> None:
        """A name was looked up; what is new is written. One that holds for a link only is not kept."""
        name = f"{host}:{port}"
        texts = [str(each[1][0]) for each in found if "%" not in str(each[1][0])][:ADDRESSES_KEPT]
        known = self._known.pop(name, None)
        self._known[name] = texts
        if len(self._known) > NAMES_KEPT:
            del self._known[next(iter(self._known))]
        if self._file is None or (known is not None and set(known) == set(texts)):
            return
        try:
            self._file.save(json.dumps(self._known).encode())
        except StorageError as why:
            _log.warn("the addresses of {name} could not be kept: {why}", name=name, why=str(why))


def _read(data: bytes) -> dict[str, list[str]]:
    try:
        found = json.loads(data)
    except (ValueError, RecursionError):
        return {}
    known: dict[str, list[str]] = {}
    for name, texts in found.items() if isinstance(found, dict) else ():
        if isinstance(texts, list) and len(known) < NAMES_KEPT:
            known[name] = [text for text in texts[:ADDRESSES_KEPT] if _is_address(text)]
    return known


def _is_address(text: object) -> bool:
    try:
        return isinstance(text, str) and "%" not in text and str(ip_address(text)) != ""
    except ValueError:
        return False
