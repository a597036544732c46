"""What a tunnel needs of the machine, found out and asked for in the host's thread; no reactor is known here.

`raise_tunnel` makes the machine lead its packets into a tunnel that stands, `raise_block` only holds them
back. Before that it is looked at: another VPN in the way, addresses that this machine's networks have, what
the kernel and its tools can do.
"""

from __future__ import annotations

import socket
import sys
from collections.abc import Callable
from ipaddress import ip_address, ip_interface
from typing import Final

from attrs import evolve, frozen

from apps.vpn.host import plan
from apps.vpn.host.changes import AnyChange, Firewall, ResolverFile, Rule, Sysctl
from apps.vpn.host.firewall import TABLE, Arriving, arriving
from apps.vpn.host.host import Host
from apps.vpn.host.look import Look
from apps.vpn.host.resolver import current, is_ours, is_resolved
from apps.vpn.lease import Lease
from apps.vpn.settings import Tunnel
from meshnet.errors import LocalError, MissingDependencyError
from meshnet.transports.sockets import MARK, mark

_IPV6: Final = "net/ipv6/conf/all/disable_ipv6"
_OFF: Final = "net/ipv6/conf/{}/disable_ipv6"
OWNER: Final = "client"
"""In the book of changes."""
_WAYS: Final[tuple[Arriving, ...]] = ("socket", "ct")
KillSwitch = str
"""`off`, `nftables`, or `rules` where there is no nftables."""


@frozen
class Own:
    """What else of this node stands in the machine: interfaces, which may send as they like, and servers that
    know names of the mesh, and no others."""

    interfaces: tuple[str, ...] = ()
    servers: tuple[str, ...] = ()


@frozen
class Raised:
    """What was made."""

    kill_switch: KillSwitch
    names: bool
    notes: tuple[str, ...] = ()

    @property
    def blocks(self) -> bool:
        """Whether a kill switch stands."""
        return self.kill_switch != "off"


def require_rights() -> None:
    """Raises MissingDependencyError unless this process may change the machine's network."""
    if not sys.platform.startswith("linux"):
        raise MissingDependencyError("The VPN needs Linux; SOCKS5 ports and forwards do without.")
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        if not mark(probe):
            raise MissingDependencyError(
                "No right to change this machine's network; run the node as root or with CAP_NET_ADMIN."
            )


def raise_block(settings: Tunnel, own: Own) -> Callable[[Host], Raised]:
    """Work for the host: hold everything back, before there is a tunnel."""

    def work(host: Host) -> Raised:
        _look_around(host)
        wanted = _wanted(host, settings, own)
        host.apply(OWNER, plan.block(wanted))
        return _raised(wanted, ())

    return work


def raise_tunnel(settings: Tunnel, granted: Lease, own: Own) -> Callable[[Host], Raised]:
    """Work for the host: lead everything into the tunnel. What stands is kept if the system refuses."""

    def work(host: Host) -> Raised:
        look = _look_around(host)
        lease, notes = _of_this_machine(granted, look, settings.interface)
        _no_overlap(look, settings.interface, lease)
        addresses = tuple(str(each) for each in (lease.v4, lease.v6) if each is not None)
        servers = tuple(map(str, lease.dns))
        wanted = evolve(
            _wanted(host, settings, own), addresses=addresses, servers=servers, own_servers=own.servers
        )
        if settings.dns and not servers:
            notes += ("The exit answers no names, so there are none; choose another or say --no-dns.",)
        host.become(OWNER, (*plan.block(wanted), *plan.tunnel(wanted)))
        host.repair(OWNER)  # what has gone with an interface that is another one now
        return _raised(wanted, notes)

    return work


def lower(host: Host) -> list[str]:
    """Work for the host: undo everything; sentences of what could not be undone."""
    return host.undo(OWNER)


def lower_rest(host: Host) -> Raised | None:
    """Work for the host, at a start: undo what an earlier run has left, but for a kill switch, which is
    returned if it stands. What lets links live behind it stays, too."""
    if not any(is_block(change) for change in host.standing(OWNER)):
        host.undo(OWNER)
        return None
    host.undo(OWNER, lambda change: not isinstance(change, Rule | Firewall | Sysctl))
    host.repair(OWNER)
    guarded = any(isinstance(change, Firewall) for change in host.standing(OWNER))
    return Raised("nftables" if guarded else "rules", names=False)


def is_block(change: AnyChange) -> bool:
    """Whether this is a sign of a kill switch."""
    return isinstance(change, Rule) and change.preference == plan.NOWHERE and change.action == "blackhole"


def strays(host: Host) -> tuple[AnyChange, ...]:
    """Changes of ours in the machine that are in no book: of a node whose directory is gone."""
    look, standing = host.look(), set(host.standing())
    found: list[AnyChange] = [
        rule
        for version in (4, 6)
        for rule in look.rules(version)
        if rule.preference in plan.OURS and rule not in standing
    ]
    tables = {change.name for change in standing if isinstance(change, Firewall)}
    if TABLE not in tables and look.table(TABLE) is not None:
        found.append(Firewall(TABLE, f"table inet {TABLE} {{\n}}\n"))
    return tuple(found)


def is_orphan(host: Host) -> bool:
    """Whether resolv.conf is ours, and no book knows what was there before."""
    text = current(host.disk, host.resolv)
    return is_ours(text) and not any(isinstance(change, ResolverFile) for change in host.standing())


def _look_around(host: Host) -> Look:
    """Raises LocalError if another VPN of this kind stands in the way."""
    host.tools.require_ip()
    found = strays(host)
    if found:
        raise LocalError(
            f"Another VPN stands here ({found[0].sentence}): end it with `meshnet vpn down` of its node, or "
            "with `meshnet vpn doctor`."
        )
    return host.look()


def _of_this_machine(lease: Lease, look: Look, tunnel: str) -> tuple[Lease, tuple[str, ...]]:
    """What of a lease can be used here, and what is to be said of the rest. Raises LocalError for nothing."""
    if lease.v6 is None or (look.sysctl(_IPV6) is not None and not look.sysctl(_OFF.format(tunnel))):
        return lease, ()
    if lease.v4 is None:
        raise LocalError("The exit has IPv6 alone, which is turned off on this machine; choose another.")
    servers = tuple(each for each in lease.dns if each.version == 4)
    note = "IPv6 is turned off on this machine: only IPv4 goes through the tunnel."
    return evolve(lease, v6=None, dns=servers), (note,)


def _no_overlap(look: Look, tunnel: str, lease: Lease) -> None:
    """An exit could otherwise take the place of a neighbour in a network of ours."""
    for each in (lease.v4, lease.v6, *lease.dns):
        for name, network in look.networks():
            inside = ip_interface(network).network
            if each is not None and name not in (tunnel, "lo") and ip_address(each) in inside:
                raise LocalError(f"The exit uses the address {each}, which lies in a network of {name} here.")


def _wanted(host: Host, settings: Tunnel, own: Own) -> plan.Wanted:
    tools = host.tools
    if settings.killswitch and tools.nft is None and tools.ip is None:
        raise MissingDependencyError("A kill switch needs nftables or iproute2; install one of them.")
    return plan.Wanted(
        tunnel=settings.interface,
        mark=MARK,
        own=tuple(name for name in own.interfaces if name != settings.interface),
        inside=settings.split,
        outside=settings.outside,
        kill_switch=settings.killswitch,
        names=settings.dns,
        filters=tuple(sorted(host.filters() | plan.unfiltered(host.standing(OWNER)))),
        arriving=next((how for how in _WAYS if host.knows(arriving(how, MARK))), ""),
        resolved=tools.resolvectl is not None and is_resolved(host.resolv),
        firewall=tools.nft is not None,
        v6=host.look().sysctl(_IPV6) is not None,
        strong=host.knows("ip daddr 192.0.2.1 fib saddr type != local drop"),
    )


def _raised(wanted: plan.Wanted, notes: tuple[str, ...]) -> Raised:
    kind = "off"
    if wanted.kill_switch:
        kind = "nftables" if wanted.firewall else "rules"
        if not wanted.firewall:
            notes += (
                "Without nftables a program that binds itself to a network card still reaches hosts of that "
                "card's own network; install nftables.",
            )
    return Raised(kind, wanted.names, notes)
