"""Finds apps and transports among the installed dropins; a broken one costs a sentence, never the node.

Dropins are modules of `twisted.plugins` (in a checkout: `plugins/`), as for Twisted's own plugins. Ours are
named `meshnet_*.py`: only those are imported, so that a command starts fast, and each in its own try, where
`twisted.plugin.getPlugins` would log a traceback for a module that fails.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterable, Sequence
from types import ModuleType
from typing import Any

import attrs
import twisted.plugins
from attrs import field, frozen
from zope.interface import Interface

from meshnet.errors import MeshError, MissingDependencyError
from meshnet.node.app import IApp
from meshnet.node.config import CoreSections
from meshnet.transports.interface import Transport
from meshnet.transports.registry import ITransport, Transports

PREFIX = "meshnet_"


@frozen
class Dropins:
    """What was found; `broken` holds one sentence for each that could not be used."""

    apps: tuple[Any, ...] = ()
    """Objects that provide IApp."""
    transports: tuple[Any, ...] = ()
    """Objects that provide ITransport."""
    broken: tuple[str, ...] = ()

    def open_transports(self, reactor: Any) -> tuple[Transports, list[str]]:
        """The transports under this reactor, and a sentence for each that lacks something."""
        made: list[Transport] = []
        lacking: list[str] = []
        for each in self.transports:
            try:
                made.append(each.make(reactor))
            except MissingDependencyError as error:
                lacking.append(f"Transport {each.name} is not available: {error}")
        return Transports(made), lacking


@frozen
class _Modules:
    loaded: list[ModuleType] = field(factory=list)
    broken: list[str] = field(factory=list)


def find_dropins(package: ModuleType = twisted.plugins) -> Dropins:
    """Imports every `meshnet_*` module of the dropin package; never raises."""
    modules = _import_all(package)
    broken = list(modules.broken)
    apps = _usable_apps(_providers(IApp, modules.loaded), broken)
    transports = _providers(ITransport, modules.loaded)
    return Dropins(tuple(apps), tuple(transports), tuple(broken))


def _import_all(package: ModuleType) -> _Modules:
    found = _Modules()
    names = {info.name for info in pkgutil.iter_modules(package.__path__) if info.name.startswith(PREFIX)}
    for name in sorted(names):
        try:
            found.loaded.append(importlib.import_module(f"{package.__name__}.{name}"))
        except Exception as error:  # a stranger's code: whatever it raises is its own fault
            found.broken.append(f"Dropin {name} cannot be loaded ({_what(error)}).")
    return found


def _what(error: BaseException) -> str:
    text = str(error).splitlines()
    return f"{type(error).__name__}: {text[0]}" if text else type(error).__name__


def _providers(interface: type[Interface], modules: Iterable[ModuleType]) -> list[Any]:
    """Objects at the top level of the modules that provide the interface, each once."""
    found: dict[int, Any] = {}
    for module in modules:
        for value in vars(module).values():
            if interface.providedBy(value):
                found.setdefault(id(value), value)
    return list(found.values())


def _usable_apps(apps: Sequence[Any], broken: list[str]) -> list[Any]:
    """Those whose name and sections are their own; the rest is told in `broken`."""
    usable: list[Any] = []
    names: set[str] = set()
    taken = {attribute.name for attribute in attrs.fields(CoreSections)}
    for app in apps:
        try:
            name = app.name
            sections = {attribute.name for attribute in attrs.fields(app.settings)}
            app.settings()
        except Exception as error:  # as above
            broken.append(f"App {getattr(app, 'name', app)!r} cannot be used ({_what(error)}).")
            continue
        clash = sections & taken
        if name in names or clash:
            what = f"its section [{min(clash)}]" if clash else "its name"
            broken.append(f"App {name} cannot be used: {what} is another's already.")
            continue
        names.add(name)
        taken |= sections
        usable.append(app)
    return usable


def sentence(error: BaseException) -> str:
    """What to tell the operator of an exception: a MeshError's own words, else its type and first line."""
    return str(error) if isinstance(error, MeshError) else _what(error)
