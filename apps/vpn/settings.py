"""The sections of a node's config that this app reads; permanent listeners stand there.

    [socks]      listen, exit, via, policy, identity, username, password, max_streams
    [[forward]]  listen, to, port, via, policy, identity
    [[serve]]    port, target, callers, address
    [vpn]        exit, via, hops, identity, killswitch, dns, split, outside, mtu, interface, up
    [exit]       enabled, callers, allow, deny, max_streams, source, connect_timeout, rate,
                 packets, pool4, pool6, max_clients, dns
    [tun]        enabled, name, mtu, hops, callers, max_peers, idle, dns

A route `via` is a list of keys; left out it is the node's configured route, or a way that `policy` allows;
empty a direct link.
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_address
from typing import Annotated, Literal

from attrs import field, frozen

from apps.vpn.host.changes import device_name
from apps.vpn.host.plan import networks
from apps.vpn.policy import PUBLIC, Policy, Rule, rule
from apps.vpn.pools import POOL4, POOL6, Pools
from apps.vpn.tun.device import LEAST_MTU, MOST_MTU, check_name
from meshnet.cipher.address import Address, Target
from meshnet.cipher.keys import PublicKey
from meshnet.limits import HOPS
from meshnet.node.config import route_refusal
from meshnet.node.schema import Between, HostPort, Parse, Port, host_port

RuleText = Annotated[Rule, Parse(rule, "a rule such as public, 10.0.0.0/8:80-443 or example.org")]
Identity = Literal["anonymous", "node"]
Callers = Literal["any"] | tuple[PublicKey, ...]
Via = tuple[PublicKey, ...] | None
Streams = Annotated[int, Between(1, 65_536)]
Mtu = Annotated[int, Between(1_280, 59_000)]
Hops = Annotated[int, Between(1, HOPS)]
Rate = Annotated[int, Between(0, 100_000_000_000)]


def _check_one(via: Via, policy: str | None) -> None:
    if via is not None and policy is not None:
        raise ValueError("via and policy are two ways to say where to go; leave one out")


def _check_route(via: Via, target: Target) -> None:
    refusal = route_refusal(via or (), target)
    if refusal:
        raise ValueError(f"via {refusal.rstrip('.')}")


def _target(text: str) -> tuple[str, int]:
    """An address to connect to; raises ValueError."""
    host, port = host_port(text)
    if port == 0:
        raise ValueError("has port 0, on which nothing listens")
    return host, port


def _pool4(text: str) -> IPv4Network | None:
    """A network, or none for an empty text; raises ValueError."""
    try:
        return IPv4Network(text) if text else None
    except ValueError:
        raise ValueError("is no IPv4 network, such as 10.181.0.0/16") from None


def _pool6(text: str) -> IPv6Network | None:
    """The same of IPv6."""
    try:
        return IPv6Network(text) if text else None
    except ValueError:
        raise ValueError("is no IPv6 network, such as fd6d:6573:6873::/64") from None


def _ip(text: str) -> str:
    """An IP address in its usual form; raises ValueError."""
    try:
        return str(ip_address(text))
    except ValueError:
        raise ValueError("is no IP address") from None


Pool4 = Annotated[IPv4Network | None, Parse(_pool4, "an IPv4 network, or empty")]
Pool6 = Annotated[IPv6Network | None, Parse(_pool6, "an IPv6 network, or empty")]
IpText = Annotated[str, Parse(_ip, "an IP address")]
Place = Annotated[tuple[str, int], Parse(_target, "host:port")]


@frozen
class Socks:
    """[socks]: a SOCKS5 listener. `exit` is the node that connects; with `identity = "node"` it learns our
    key. `username` and `password` are asked of programs if both are given (RFC 1929, sent in the clear)."""

    exit: Target
    listen: HostPort = ("127.0.0.1", 1080)
    via: Via = None
    identity: Identity = "anonymous"
    username: str = ""
    password: str = field(default="", repr=False)
    max_streams: Streams = 1_024
    policy: str | None = None

    def __attrs_post_init__(self) -> None:
        _check_one(self.via, self.policy)
        if bool(self.username) != bool(self.password):
            raise ValueError("username and password go together")
        _check_route(self.via, self.exit)
        if max(len(self.username.encode()), len(self.password.encode())) > 255:
            raise ValueError("username and password have at most 255 bytes each")


@frozen
class Forward:
    """[[forward]]: a local TCP port whose connections go to mesh port `port` of the node `to`."""

    listen: HostPort
    to: Target
    port: Port
    via: Via = None
    identity: Identity = "anonymous"
    policy: str | None = None

    def __attrs_post_init__(self) -> None:
        _check_one(self.via, self.policy)
        _check_route(self.via, self.to)


@frozen
class Serve:
    """[[serve]]: a mesh port whose streams go to the local TCP address `target`; `callers` may be a list of
    keys, and then callers must say who they are. `address` names a hidden service whose port it is."""

    port: Port
    target: Place
    callers: Callers = "any"
    address: str = ""


@frozen
class Exit:
    """[exit]: connects to the old internet for others. `source` is the local address to connect from;
    `connect_timeout` in seconds; `rate` in bytes a second, for the UDP of a program and for the packets of a
    client. `packets`: passes on IP packets of clients with addresses of `pool4` and `pool6` (None: none of
    that family), at most `max_clients`; `dns` are servers for their names, empty: those of the system."""

    enabled: bool = False
    callers: Callers = "any"
    allow: tuple[RuleText, ...] = (PUBLIC,)
    deny: tuple[RuleText, ...] = ()
    max_streams: Streams = 1_024
    source: str = ""
    connect_timeout: Annotated[float, Between(0.1, 120)] = 10.0
    rate: Rate = 0
    packets: bool = False
    pool4: Pool4 = POOL4
    pool6: Pool6 = POOL6
    max_clients: Annotated[int, Between(1, 16_384)] = 256
    dns: tuple[IpText, ...] = ()

    def __attrs_post_init__(self) -> None:
        if self.source:
            try:
                ip_address(self.source)
            except ValueError:
                raise ValueError(f"source {self.source!r} is no IP address of this machine") from None
        Pools(self.pool4, self.pool6)

    @property
    def policy(self) -> Policy:
        """Its lists."""
        return Policy(self.allow, self.deny)


def _network(text: str) -> str:
    """One network; raises ValueError."""
    return networks((text,))[0]


NetworkText = Annotated[str, Parse(_network, "a network such as 192.0.2.0/24")]


def _interface(text: str) -> str:
    device_name(None, None, text)
    return text


InterfaceName = Annotated[str, Parse(_interface, "a name of an interface")]


@frozen
class Tunnel:
    """[vpn]: leads this machine's packets through an exit. `hops`: so many nodes, the exit included, picked
    anew for each circuit; or `via` names them. `split`: only these networks; `outside`: all but these, with
    `lan` for private ones. `up`: from the node's start."""

    exit: Target
    via: Via = None
    hops: Annotated[int, Between(0, HOPS)] = 0
    identity: Identity = "anonymous"
    killswitch: bool = False
    dns: bool = True
    split: tuple[NetworkText, ...] = ()
    outside: tuple[NetworkText, ...] = ()
    mtu: Annotated[int, Between(LEAST_MTU, MOST_MTU)] = 1_500
    interface: InterfaceName = "mesh-vpn"
    up: bool = True

    def __attrs_post_init__(self) -> None:
        _check_route(self.via, self.exit)
        if self.via is not None and self.hops:
            raise ValueError("via and hops are two ways to say the same; leave one out")
        if self.hops and isinstance(self.exit, Address):
            raise ValueError("hops leads to nodes; to a hidden service name the relays with via")
        if "lan" in self.split:
            raise ValueError("split names networks that go through the tunnel; lan stands only in outside")
        if self.split and self.outside:
            raise ValueError("with split all else is outside anyway; leave outside out")
        networks(self.split)
        networks(self.outside)


@frozen
class Tun:
    """[tun]: the mesh interface, by which any program reaches any node at its mesh IPv6 address.

    `name` is the interface's, `%d` being the first number that is free; `mtu` its largest packet. `hops`
    picks the relays to each node by chance, so many nodes on the way, the last included; without, they are
    those of [[route]] and [[known]]. `callers` may send packets here, and have to prove their keys;
    `max_peers` nodes at a time, each forgotten after `idle` seconds. `dns`: names under .mesh are answered.
    """

    enabled: bool = False
    name: str = "mesh%d"
    mtu: Mtu = 1_500
    hops: Hops | None = None
    callers: Callers = "any"
    max_peers: Annotated[int, Between(1, 65_536)] = 256
    idle: Annotated[float, Between(10, 86_400)] = 300.0
    dns: bool = True

    def __attrs_post_init__(self) -> None:
        check_name(self.name)


@frozen
class VpnSettings:
    """All of them."""

    socks: Socks | None = None
    forward: tuple[Forward, ...] = ()
    serve: tuple[Serve, ...] = ()
    exit: Exit = Exit()
    vpn: Tunnel | None = None
    tun: Tun = Tun()
