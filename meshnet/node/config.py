"""The config file of a node: its sections, and how it is read.

TOML, checked by `meshnet.node.schema`. The sections of apps come from their `settings` classes. Relative
paths are relative to the file. Nothing here opens a port or reads a key.
"""

from __future__ import annotations

import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

import attrs
from attrs import field, frozen

from meshnet import limits
from meshnet.cipher.address import Address, Target, looks_like_address, parse_target
from meshnet.cipher.keys import PublicKey
from meshnet.errors import ConfigError, UsageError
from meshnet.node.schema import Between, Context, FieldError, HostPort, Parse, nearest, read, show

U32 = Annotated[int, Between(0, (1 << 32) - 1)]
LARGEST_FILE = 1 << 20  # bytes of a config file
UNLIMITED = 0


@frozen
class NodeSettings:
    """[node]: who this node is and where it keeps its things."""

    name: str = ""
    """Shown in status; sent to nobody unless [about] says so."""
    network: U32 = 1
    """Nodes of different networks never link."""
    key: Path = Path("key")
    password_file: Path | None = None
    """Holds the password of an encrypted key."""
    data: Path = Path("data")
    cipher: Literal["openssl", "sodium"] = "openssl"


@frozen
class PeerSettings:
    """[[link.peer]]: a neighbour to dial and to keep linked."""

    key: PublicKey
    address: str | tuple[str, ...]
    """Such as `tcp:192.0.2.1:7001`; several are tried in turn."""

    @property
    def addresses(self) -> tuple[str, ...]:
        """One or several."""
        return (self.address,) if isinstance(self.address, str) else self.address


@frozen
class LinkSettings:
    """[link]: neighbours."""

    listen: tuple[str, ...] = ()
    accept: Literal["any"] | tuple[PublicKey, ...] = "any"
    """Who may link to this node; the dialled peers may always."""
    peer: tuple[PeerSettings, ...] = ()
    lanes: Literal[1, 2, 4, 8, 16] = 1
    """Connections to each neighbour; the side that wants more of them decides."""


@frozen
class RelaySettings:
    """[relay]: what this node carries for others."""

    enabled: bool = True
    max_rate: Annotated[int, Between(0)] = UNLIMITED
    """Bytes per second relayed in all, both directions; 0: no limit."""
    max_circuits: Annotated[int, Between(0, 1_000_000)] = limits.CIRCUITS_IN_ALL
    max_circuits_per_neighbour: Annotated[int, Between(0, 1_000_000)] = limits.CIRCUITS_PER_NEIGHBOUR
    creates_per_second: Annotated[float, Between(0)] = limits.CREATES_PER_SECOND
    """Circuits per second and neighbour, refilling a bucket of `create_burst`."""
    create_burst: Annotated[int, Between(1, 1_000_000)] = limits.CREATE_BURST
    creates_in_all: Annotated[float, Between(0)] = limits.CREATES_IN_ALL
    """Circuits per second of all neighbours together; twice as many at once."""


@frozen
class MetricsSettings:
    """[metrics]: where Prometheus reads."""

    listen: HostPort
    neighbours: Annotated[int, Between(0, 1000)] = 20
    """Neighbours with series of their own, the busiest; the rest is summed as `other`."""


@frozen
class ControlSettings:
    """[control]: where commands reach this node."""

    socket: Path | None = None
    """A UNIX socket; left out: control.sock in the data directory."""
    listen: HostPort | None = None
    """Also HTTP on a loopback address, with the bearer token of `token`."""
    token: Path | None = None
    """Left out: control.token in the data directory, made at the first start."""
    door: bool = True
    """Whether other programs of this user may use the node, by `attach`."""
    attach: Path | None = None
    """A UNIX socket; left out: attach.sock beside the control socket."""


@frozen
class AboutSettings:
    """[about]: what this node says of itself to whoever asks on mesh port 1; without any of it, the port is
    closed."""

    version: bool = False
    name: bool = False
    clock: bool = False
    """The time, so that others can measure how long each way takes. How it drifts tells machines apart."""


def _country(text: str) -> str:
    if len(text) != 2 or not text.isascii() or not text.isalpha():
        raise ValueError("is not the two letters of a country, such as DE")
    return text.upper()


def _place(text: str) -> tuple[int, int]:
    latitude, comma, longitude = text.partition(",")
    try:
        place = round(float(latitude)), round(float(longitude))
    except (ValueError, OverflowError):
        place = (91, 0)
    if not comma or not (-90 <= place[0] <= 90 and -180 <= place[1] <= 180):
        raise ValueError("is not latitude,longitude in degrees, such as 52.5,13.4")
    return place


def _subnet(text: str) -> tuple[int, int]:
    first, dot, second = text.partition(".")
    if not dot or not all(part.isascii() and part.isdigit() and int(part) < 256 for part in (first, second)):
        raise ValueError("is not the first half of an IPv4 address, such as 192.0")
    return int(first), int(second)


@frozen
class TopologySettings:
    """[topology]: what this node tells the network of itself, and how ways through it are chosen."""

    enabled: bool = True
    """Whether link-state records are issued, kept and passed on."""
    policy: str = ""
    """The path policy of calls that name none, and no route."""
    country: Annotated[str | None, Parse(_country, "a country of two letters")] = None
    place: Annotated[tuple[int, int] | None, Parse(_place, "latitude,longitude")] = None
    """Rounded to whole degrees."""
    subnet: Annotated[tuple[int, int] | None, Parse(_subnet, "the first half of an IPv4 address")] = None
    operator: str = ""
    """Any text that all nodes of one operator share; only a hash of it is told."""
    price: U32 = 0
    """Units a MiB for relaying, told to others; nobody is charged yet."""
    spares: Annotated[int, Between(0, limits.SPARES)] = 16
    """Circuits kept in reserve, one of each session that found its way by itself."""
    route_services: tuple[PublicKey, ...] = ()
    """Nodes that are asked for the whole graph."""


@frozen
class RouteServiceSettings:
    """[route_service]: whether this node keeps the whole graph for others (docs/topology.md)."""

    enabled: bool = False
    database: str = ""
    """A file or a postgresql:// URL; left out: routes.sqlite in the node's directory."""
    records: Annotated[int, Between(1, limits.SYNC_RECORDS)] = limits.SYNC_RECORDS
    callers: Annotated[int, Between(1, limits.SYNC_CALLERS)] = limits.SYNC_CALLERS
    questions: bool = True
    """Whether it also answers questions for ways, which tell it their destination."""


@frozen
class LanSettings:
    """[lan]: whether this node and others of its local networks find each other."""

    enabled: bool = False
    """Says its key to everybody on the cable or in the air, every 20 seconds."""
    interfaces: tuple[str, ...] = ()
    """Names of the interfaces where it does so; none: all that broadcast."""


Level = Literal["debug", "info", "warn", "error"]
LOG_PARTS = (
    *("circuit", "cli", "coin", "control", "endpoints", "link", "node", "rpc", "session", "storage"),
    *("stream_transport", "transports", "twisted"),
)
"""What [log.parts] may name, besides apps."""


@frozen
class LogSettings:
    """[log]: what the node says, how, and where to."""

    level: Level = "info"
    format: Literal["text", "json"] = "text"
    file: Path | None = None
    """Left out: standard error. SIGHUP opens it anew."""
    parts: Mapping[str, Level] = field(factory=dict)
    """[log.parts]: levels of single parts."""


@frozen
class RouteSettings:
    """[[route]]: the relays to a node, nearest first; to a hidden service, those before its tail."""

    to: Target
    via: tuple[PublicKey, ...] = ()


@frozen
class KnownSettings:
    """[[known]]: a pet name, usable wherever a key is expected."""

    name: str
    key: str
    """A node's public key, or the address of a hidden service."""
    via: tuple[PublicKey, ...] | None = None
    """The relays to it, as in a [[route]]."""


@frozen
class CoreSections:
    """The sections that every node has; apps add theirs."""

    node: NodeSettings = field(factory=NodeSettings)
    link: LinkSettings = field(factory=LinkSettings)
    relay: RelaySettings = field(factory=RelaySettings)
    metrics: MetricsSettings | None = None
    control: ControlSettings = field(factory=ControlSettings)
    about: AboutSettings = field(factory=AboutSettings)
    log: LogSettings = field(factory=LogSettings)
    topology: TopologySettings = field(factory=TopologySettings)
    route_service: RouteServiceSettings = field(factory=RouteServiceSettings)
    lan: LanSettings = field(factory=LanSettings)
    route: tuple[RouteSettings, ...] = ()
    known: tuple[KnownSettings, ...] = ()


@frozen
class Settings(CoreSections):
    """A whole config file."""

    file: Path | None = None
    names: Mapping[str, Target] = field(factory=dict)
    """Pet names and what they stand for."""
    apps: Mapping[str, Any] = field(factory=dict)
    """By app name, an instance of its `settings` class."""
    notes: tuple[str, ...] = ()
    """Sentences for the operator: sections nobody read because an app is broken."""

    @property
    def control_socket(self) -> Path:
        """Where the control socket is."""
        return self.control.socket or self.node.data / "control.sock"

    @property
    def attach_socket(self) -> Path | None:
        """Where the local door is; None where there is none."""
        if not self.control.door:
            return None
        return self.control.attach or self.control_socket.parent / "attach.sock"

    def lookup(self, text: str) -> Target:
        """What hex digits, an address or a pet name stand for; raises UsageError."""
        return lookup_in(self.names, text)

    def route_to(self, target: Target) -> tuple[PublicKey, ...]:
        """The relays to a node or a hidden service, as the file names them; none: a direct link."""
        return next((via for _, to, via in self._routes() if to == target), ())

    def _routes(self) -> Iterator[tuple[str, Target, tuple[PublicKey, ...]]]:
        """Where the file names the relays to somebody, to whom, and these."""
        for index, route in enumerate(self.route):
            yield f"route.{index}", route.to, route.via
        for index, entry in enumerate(self.known):
            if entry.via is not None:
                yield f"known.{index}", self.names[entry.name], entry.via


class AppSections(Protocol):
    """What reading a config needs of an app (`meshnet.node.app.IApp` in all)."""

    name: str
    settings: type


class AddressBook(Protocol):
    """What reading a config needs of the transports (`meshnet.transports.registry.Transports` in all)."""

    def find(self, address: str) -> object:
        """Raises ConfigError unless `address` is one of a known transport."""


def lookup_in(names: Mapping[str, Target], text: str) -> Target:
    """What hex digits, an address or one of `names` stand for; raises UsageError."""
    if text in names:
        return names[text]
    if len(text) == 66 or looks_like_address(text):
        return parse_target(text)
    known = list(names)
    choices = f"; known names: {', '.join(sorted(known))}" if known else "; no names are known ([[known]])"
    raise UsageError(
        f"{show(text)} is neither 66 hex digits nor an address nor a known name"
        f"{nearest(text, known)}{choices}."
    )


def load(
    file: Path,
    apps: Sequence[AppSections] = (),
    transports: AddressBook | None = None,
    broken: Sequence[str] = (),
) -> Settings:
    """Reads and checks a config file; raises ConfigError.

    `broken` are sentences about apps that could not be loaded: where there are any, a section nobody knows
    becomes a note instead of an error, since it may be theirs.
    """
    try:
        with file.open("rb") as handle:
            data = handle.read(LARGEST_FILE + 1)
    except OSError as error:
        raise ConfigError(f"Cannot read {file}: {error.strerror}; `meshnet init` makes one.") from None
    settings = read_config(data, file, apps, broken)
    if transports is not None:
        check_addresses(settings, transports)
    return settings


def read_config(
    data: bytes, file: Path, apps: Sequence[AppSections] = (), broken: Sequence[str] = ()
) -> Settings:
    """The same of a file's bytes."""
    if len(data) > LARGEST_FILE:
        raise ConfigError(f"{file} is larger than {LARGEST_FILE} bytes; that is no config file.")
    try:
        table = tomllib.loads(data.decode())
    except RecursionError:
        raise ConfigError(f"{file} is nested too deeply to be a config file.") from None
    except ValueError as error:  # TOMLDecodeError, UnicodeDecodeError, numbers of thousands of digits
        raise ConfigError(f"{file} is not TOML: {error}.") from None
    return from_table(table, file, apps, broken)


def from_table(
    table: Mapping[str, Any], file: Path, apps: Sequence[AppSections] = (), broken: Sequence[str] = ()
) -> Settings:
    """The same of a table that was read already; relative paths are relative to `file`'s directory."""
    base, source = file.absolute().parent, str(file)
    names = _names(table.get("known", []), Context(base=base, source=source))
    context = Context(base=base, source=source, lookup=lambda text: lookup_in(names, text))
    ours = {attribute.name for attribute in attrs.fields(CoreSections)}
    owners = {attribute.name: app for app in apps for attribute in attrs.fields(app.settings)}
    stray = [key for key in table if key not in ours and key not in owners]
    notes: tuple[str, ...] = ()
    if stray and broken:
        notes = tuple(f"{source}: [{key}] was not read: {' '.join(broken)}" for key in stray)
    elif stray:
        choices = sorted({*ours, *owners})
        meant = nearest(stray[0], choices)
        raise FieldError(
            f"{source}: [{stray[0]}] is not a known section{meant}; choices: {', '.join(choices)}.", stray[0]
        )
    core = read(CoreSections, {key: table[key] for key in table if key in ours}, "", context)
    sections = {app.name: _app_settings(app, table, context) for app in apps}
    values = {attribute.name: getattr(core, attribute.name) for attribute in attrs.fields(CoreSections)}
    settings = Settings(**values, file=file, names=names, apps=sections, notes=notes)
    _check_sense(settings, source)
    return settings


def _app_settings(app: AppSections, table: Mapping[str, Any], context: Context) -> Any:
    mine = {attribute.name for attribute in attrs.fields(app.settings)}
    return read(app.settings, {key: table[key] for key in table if key in mine}, "", context)


def _names(raw: object, context: Context) -> dict[str, Target]:
    if isinstance(raw, list):  # relays may be named by names that are not read yet
        raw = [
            {k: v for k, v in each.items() if k != "via"} if isinstance(each, dict) else each for each in raw
        ]
    known = read(CoreSections, {"known": raw}, "", context).known
    names: dict[str, Target] = {}
    for index, entry in enumerate(known):
        place = f"known.{index}"
        if not entry.name or any(c in " ,:\t\n" for c in entry.name) or len(entry.name) >= 66:
            why = "is not a name: 1 to 65 characters without space, comma or colon"
            raise FieldError(f"{context.source}: {place}.name = {show(entry.name)} {why}.", f"{place}.name")
        if entry.name in names:
            raise FieldError(f"{context.source}: {place}.name = {show(entry.name)} is there twice.", place)
        try:
            names[entry.name] = parse_target(entry.key)
        except UsageError as error:
            text = f"{context.source}: {place}.key = {show(entry.key)} leads nowhere: {error}"
            raise FieldError(text, f"{place}.key") from None
    return names


def _check_sense(settings: Settings, source: str) -> None:
    """What no single key shows: things named twice, routes too long."""
    dialled: set[PublicKey] = set()
    for index, peer in enumerate(settings.link.peer):
        if peer.key in dialled:
            raise FieldError(f"{source}: link.peer.{index}.key is there twice.", f"link.peer.{index}.key")
        dialled.add(peer.key)
        if not peer.addresses:
            name = f"link.peer.{index}.address"
            raise FieldError(f"{source}: {name} = [] names no address; give at least one.", name)
    routed: set[Target] = set()
    for name, to, via in settings._routes():
        if to in routed:
            key = f"{name}.to" if name.startswith("route") else f"{name}.via"
            raise FieldError(f"{source}: {key} has a route already; give each node one.", key)
        routed.add(to)
        refusal = route_refusal(via, to)
        if refusal:
            raise FieldError(f"{source}: {name}.via {refusal}", f"{name}.via")
    parts = sorted({*LOG_PARTS, *settings.apps})
    for part in settings.log.parts:
        if part not in parts:
            why = f"is no part{nearest(part, parts)}; choices: {', '.join(parts)}"
            raise FieldError(f"{source}: log.parts.{part} {why}.", f"log.parts.{part}")
    listen = settings.control.listen
    if listen is not None and listen[0] not in ("127.0.0.1", "::1", "localhost"):
        why = "is not a loopback address; choices: 127.0.0.1, ::1"
        raise FieldError(f"{source}: control.listen = {show(listen[0])} {why}.", "control.listen")


def route_refusal(via: Sequence[PublicKey], target: Target) -> str:
    """Why these relays do not lead to the target: a sentence, empty if they do."""
    tail = len(target.tail) if isinstance(target, Address) else 1
    if len(via) + tail > limits.HOPS:
        behind = f", and {tail} hops of the address follow" if isinstance(target, Address) else ""
        return f"names {len(via)} relays{behind}; at most {limits.HOPS - tail} fit."
    first = target.introduction if isinstance(target, Address) else target
    if len({*via, first}) < len(via) + 1:
        return "passes a node twice."
    return ""


def check_addresses(settings: Settings, transports: AddressBook) -> None:
    """Raises FieldError unless every link address is one of these transports."""
    named = [(f"link.listen.{i}", address) for i, address in enumerate(settings.link.listen)]
    for i, peer in enumerate(settings.link.peer):
        named += [(f"link.peer.{i}.address", address) for address in peer.addresses]
    for name, address in named:
        try:
            transports.find(address)
        except UsageError as error:
            raise FieldError(f"{settings.file}: {name} = {show(address)}: {error}", name) from None
