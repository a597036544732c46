"""Finds the transport that an address names; they come as dropins (`plugins/meshnet_transports.py`)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from zope.interface import Attribute, Interface

from meshnet.errors import ConfigError
from meshnet.storage.kept import KeptFile
from meshnet.transports.interface import Transport
from meshnet.transports.known import KnownAddresses


class ITransport(Interface):
    """A transport as a dropin in `plugins/` offers it."""

    name = Attribute("what addresses begin with, before the first colon")

    def make(reactor: Any) -> Transport:
        """The transport under this reactor; raises MissingDependencyError naming the missing extra."""


class Transports:
    """The transports of one node, by name."""

    def __init__(self, transports: Iterable[Transport]) -> None:
        self._by_name: Mapping[str, Transport] = {each.name: each for each in transports}

    def beside(self, transport: Transport) -> Transports:
        """These and one more."""
        return Transports([*self._by_name.values(), transport])

    @property
    def names(self) -> list[str]:
        """Names that addresses may begin with."""
        return sorted(self._by_name)

    def keep(self, file: KeptFile) -> list[str]:
        """Keeps the addresses of names there, of the one that knows some; what was damaged, in sentences.
        Raises StorageError."""
        for each in self._by_name.values():
            known = getattr(each, "known", None)
            if isinstance(known, KnownAddresses):
                return known.keep(file)
        return []

    def find(self, address: str) -> tuple[Transport, str]:
        """The transport of `name:rest`, and the rest. Raises ConfigError naming the choices."""
        name, colon, rest = address.partition(":")
        transport = self._by_name.get(name)
        if transport is None or not colon:
            choices = ", ".join(f"{each}:…" for each in self.names)
            raise ConfigError(f"{address!r} names no transport; write one of {choices}")
        transport.check(rest)
        return transport, rest
