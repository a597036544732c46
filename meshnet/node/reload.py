"""A changed config in a running node: what can be taken over is, the rest is named, links that stay stay.

    at once      [link] accept, [[link.peer]], [relay], [metrics] neighbours, [[route]], [[known]], [log],
                 sections of apps that provide `IReloads`
    at a start   everything else

The new config is read and checked as a whole before anything changes: a wrong one changes nothing. What the
machine refuses afterwards (a port is taken) is told as failed, and tried again at the next reload.
"""

from __future__ import annotations

from collections.abc import Awaitable, Mapping, Sequence
from typing import Any, Final, Protocol

import attrs
from attrs import define, evolve, field

from meshnet.cipher.keys import PublicKey
from meshnet.circuit.policy import Policy
from meshnet.errors import ConfigError
from meshnet.node.app import IAppService, IReloads, Json
from meshnet.node.config import CoreSections, LinkSettings, RelaySettings, Settings
from meshnet.node.dropins import sentence

_PARTLY: Final = {"link": ("accept", "peer"), "metrics": ("neighbours",)}
"""Keys of sections that are otherwise for the start."""
_WHOLE: Final = ("relay", "route", "known", "log")
_SILENT: Final = {("node", "password_file")}


class Changing(Protocol):
    """What of a router can be changed (`meshnet.node.router.Router`)."""

    def add_peer(self, key: PublicKey, *addresses: str) -> None:
        """Dials it from now on."""

    def remove_peer(self, key: PublicKey) -> None:
        """Dials it no more; its link ends."""

    def move_peer(self, key: PublicKey, *addresses: str) -> None:
        """Dials it elsewhere; its link stays."""

    def accept_only(self, accept: frozenset[PublicKey] | None) -> None:
        """Who may link (None: anyone); the links of others end."""

    def limit(self, policy: Policy) -> None:
        """Limits of circuits."""


@define
class Report:
    """What became of a reload: sentences without full stops. `settings` are those that hold now."""

    settings: Settings
    applied: list[str] = field(factory=list)
    later: list[str] = field(factory=list)
    """Keys that take effect at the next start."""
    failed: list[str] = field(factory=list)
    """What the machine refused, sentences."""

    @property
    def sentence(self) -> str:
        """For the log."""
        parts = [", ".join(self.applied) or "nothing has changed"]
        if self.later:
            parts.append(f"for the next start: {', '.join(self.later)}")
        return "; ".join((*parts, *self.failed))

    def as_json(self) -> Json:
        """For the control API."""
        return {"applied": self.applied, "restart": self.later, "failed": self.failed}


def circuit_policy(relay: RelaySettings) -> Policy:
    """[relay] as the circuits' policy."""
    return Policy(**attrs.asdict(relay))


def accepted(link: LinkSettings) -> frozenset[PublicKey] | None:
    """Who may link: None for anyone; the dialled peers always."""
    if link.accept == "any":
        return None
    return frozenset(link.accept) | {peer.key for peer in link.peer}


def check(old: Settings, new: Settings, own: PublicKey, apps: Mapping[str, IAppService]) -> None:
    """What reading the file alone does not show; raises ConfigError, and nothing has changed."""
    for index, peer in enumerate(new.link.peer):
        if peer.key == own:
            raise ConfigError(f"{new.file}: link.peer.{index}.key is this node's own key.")
    for name, service in apps.items():
        if IReloads.providedBy(service) and old.apps.get(name) != new.apps.get(name):
            service.check(new.apps[name])


async def take_over(
    old: Settings, new: Settings, router: Changing, apps: Mapping[str, IAppService]
) -> Report:
    """Changes what differs; `check` came first."""
    report = Report(_kept(old, new))
    report.later = _later(old, new)
    _peers(old, new, router, report)
    if accepted(old.link) != accepted(new.link):
        router.accept_only(accepted(new.link))
        who = "anyone" if new.link.accept == "any" else f"{len(new.link.accept)} keys and the peers"
        report.applied.append(f"link.accept: {who}")
    if old.relay != new.relay:
        router.limit(circuit_policy(new.relay))
        report.applied += _changes("relay", old.relay, new.relay)
    for name in ("route", "known", "log"):
        if getattr(old, name) != getattr(new, name):
            report.applied.append(name)
    if report.settings.metrics != old.metrics and new.metrics is not None:
        report.applied.append(f"metrics.neighbours: {new.metrics.neighbours}")
    await _apps(old, new, apps, report)
    return report


def _peers(old: Settings, new: Settings, router: Changing, report: Report) -> None:
    before = {peer.key: peer.addresses for peer in old.link.peer}
    after = {peer.key: peer.addresses for peer in new.link.peer}
    for key in before.keys() - after.keys():
        router.remove_peer(key)
        report.applied.append(f"link.peer {key.hex()}: removed")
    for key, addresses in after.items():
        if key not in before:
            router.add_peer(key, *addresses)
            report.applied.append(f"link.peer {key.hex()}: added")
        elif addresses != before[key]:
            router.move_peer(key, *addresses)
            report.applied.append(f"link.peer {key.hex()}: now at {', '.join(addresses)}")


async def _apps(old: Settings, new: Settings, apps: Mapping[str, IAppService], report: Report) -> None:
    """Each app by its own means; the settings of those that cannot stay the old ones."""
    held = dict(old.apps)
    for name, wanted in new.apps.items():
        before = old.apps.get(name)
        if wanted == before:
            continue
        service = apps.get(name)
        if service is None or not IReloads.providedBy(service):
            report.later += [f"[{section}]" for section in _differing(before, wanted)]
            continue
        try:
            answer = service.reload(wanted)
            done = await answer if isinstance(answer, Awaitable) else answer
        except Exception as error:  # a stranger's code
            report.failed.append(f"App {name} could not take over its sections: {sentence(error)}")
            continue
        held[name] = done.settings
        report.applied += done.applied
        report.failed += done.failed
    report.settings = evolve(report.settings, apps=held)


def _kept(old: Settings, new: Settings) -> Settings:
    """The settings that hold after a reload: the new ones where they take effect at once."""
    metrics = old.metrics
    if metrics is not None and new.metrics is not None:
        metrics = evolve(metrics, neighbours=new.metrics.neighbours)
    link = evolve(old.link, accept=new.link.accept, peer=new.link.peer)
    whole = {name: getattr(new, name) for name in _WHOLE}
    return evolve(old, link=link, metrics=metrics, names=new.names, **whole)


def _later(old: Settings, new: Settings) -> list[str]:
    """Keys whose change takes effect at the next start."""
    found: list[str] = []
    for attribute in attrs.fields(CoreSections):
        name = attribute.name
        before, after = getattr(old, name), getattr(new, name)
        if name in _WHOLE or before == after:
            continue
        if before is None or after is None:
            found.append(f"[{name}]")
            continue
        at_once = _PARTLY.get(name, ())
        found += [
            f"{name}.{key}"
            for key in _differing(before, after)
            if key not in at_once and (name, key) not in _SILENT
        ]
    return found


def _differing(before: Any, after: Any) -> list[str]:
    """Names of the fields in which two values of a class differ; all of them where there is no first one."""
    return [
        attribute.name
        for attribute in attrs.fields(type(after))
        if before is None or getattr(before, attribute.name) != getattr(after, attribute.name)
    ]


def _changes(section: str, before: Any, after: Any) -> Sequence[str]:
    return [f"{section}.{key}: {getattr(after, key)}" for key in _differing(before, after)]
