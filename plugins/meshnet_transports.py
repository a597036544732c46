"""The transports that come with the node; each is imported when a node makes it."""

from __future__ import annotations

from importlib import import_module
from typing import Any

from attrs import frozen
from twisted.plugin import IPlugin
from zope.interface import implementer

from meshnet.transports.interface import Transport
from meshnet.transports.registry import ITransport


@implementer(IPlugin, ITransport)
@frozen
class _Transport:
    name: str
    place: str  # module:class

    def make(self, reactor: Any) -> Transport:
        module, _, name = self.place.partition(":")
        made: Transport = getattr(import_module(module), name)(reactor)
        return made


tcp = _Transport("tcp", "meshnet.transports.tcp:TcpTransport")
unix = _Transport("unix", "meshnet.transports.unix:UnixTransport")
