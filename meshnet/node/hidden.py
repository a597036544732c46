"""The hidden services of a node: their keys and addresses, made, kept and found again.

    DATA/services/NAME.key     64 hex digits of the service's secret key, 0600
    DATA/services/NAME.json    {"addresses": [{"address": text, "path_id": hex, "hops": [hex …]}, …]}, 0600

A service keeps its key; its addresses expire, and `renew` adds one, so that callers of the old one have time
to move. A service whose files cannot be read costs a sentence, not the node. Files are written before an
address is told. Nothing here sees a circuit: `services.py` does.
"""

from __future__ import annotations

import json
import re
import secrets
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any, Final

from attrs import define, field, frozen

from meshnet.cipher.address import Address, parse_address, sign_address
from meshnet.cipher.keys import PublicKey, SecretKey, public_key
from meshnet.circuit.tail import make_tail
from meshnet.errors import LocalError, MeshError, StorageError, UsageError
from meshnet.limits import (
    ADDRESS_LIFE,
    ADDRESSES_PER_SERVICE,
    HIDDEN_SERVICES,
    PATH_ID,
    SECRET_FILE,
)
from meshnet.node.app import Json
from meshnet.node.identity import read_key
from meshnet.node.services import Service, Services
from meshnet.storage.disk import Disk
from meshnet.storage.files import make_directory, read_file, sweep, write_file, write_secret

DEFAULT_LIFE: Final = 30 * 86_400
"""Seconds that an address is good for, unless it is told otherwise."""
SHORTEST_LIFE: Final = 600

_NAME: Final = re.compile(r"[a-z0-9][a-z0-9_-]{0,31}")


@frozen
class Published:
    """An address as its owner keeps it: the path id that its tail brings, and the relays of the tail."""

    address: Address
    path_id: bytes = field(repr=False)
    hops: tuple[PublicKey, ...]


@define(eq=False)
class HiddenService:
    """One service of this node, its addresses newest first."""

    name: str
    service: Service
    published: list[Published] = field(factory=list)


class HiddenServices:
    """All hidden services of one node. `reaches` says whether there is a link to a node now; `leave` ends
    the sessions of a service."""

    def __init__(
        self,
        disk: Disk,
        data: Path,
        network: int,
        own: PublicKey,
        services: Services,
        *,
        unix: Callable[[], float],
        reaches: Callable[[PublicKey], bool],
        leave: Callable[[Service], None],
    ) -> None:
        self._disk = disk
        self._directory = data / "services"
        self._network = network
        self._own = own
        self._services = services
        self._unix = unix
        self._reaches = reaches
        self._leave = leave
        self._known: dict[str, HiddenService] = {}

    def load(self) -> list[str]:
        """Reads what is on the disk and lets circuits reach it; sentences about what cannot be read."""
        if not self._disk.exists(self._directory):
            return []
        sweep(self._disk, self._directory)
        faults: list[str] = []
        for file in sorted(self._disk.listdir(self._directory)):
            name, _, ending = file.rpartition(".")
            if ending != "key" or not _NAME.fullmatch(name):
                continue
            try:
                hidden = self._read(name)
            except (MeshError, ValueError, KeyError, TypeError, RecursionError) as error:
                text = (
                    str(error).rstrip(".")
                    if isinstance(error, MeshError)
                    else "its list of addresses is damaged"
                )
                faults.append(f"The hidden service {name} cannot be reached: {text}.")
                continue
            self._known[name] = hidden
            self._register(hidden.service, hidden.published)
        return faults

    def find(self, text: str) -> Service:
        """The service of this node with this name, key (66 hex digits) or address; raises UsageError."""
        for name, hidden in self._known.items():
            texts = (each.address.text for each in hidden.published)
            if text == name or text == hidden.service.public.hex() or text in texts:
                return hidden.service
        known = ", ".join(sorted(self._known)) or "none"
        shown = text if len(text) < 70 else f"{text[:12]}…"
        raise UsageError(
            f"This node has no hidden service {shown!r} (there are: {known}); see `meshnet address --help`."
        )

    # -- what the operator asks

    def new(self, hops: Sequence[PublicKey], name: str | None = None, seconds: int = DEFAULT_LIFE) -> Json:
        """A new service, its key and first address. Raises UsageError, LocalError."""
        if len(self._known) >= HIDDEN_SERVICES:
            raise LocalError(f"There are {HIDDEN_SERVICES} hidden services already; remove some.")
        secret = SecretKey.generate()
        name = secret.public.hex()[2:10] if name is None else name
        if not _NAME.fullmatch(name):
            why = "is no name for a service: 1 to 32 of a-z, 0-9, - and _, the first a letter or digit"
            raise UsageError(f"{name[:80]!r} {why}.")
        if name in self._known or self._disk.exists(self._key_file(name)):
            raise UsageError(f"There is a hidden service {name} already; renew it, or choose another name.")
        service = Service(secret)
        published = self._publish(service, hops, seconds)
        make_directory(self._disk, self._directory)
        write_secret(self._disk, self._key_file(name), secret.secret.hex().encode() + b"\n")
        hidden = self._known[name] = HiddenService(name, service)
        self._keep(hidden, [published])
        return self._shown(hidden, published)

    def renew(self, name: str, hops: Sequence[PublicKey] | None = None, seconds: int = DEFAULT_LIFE) -> Json:
        """Another address of a service, over the relays of the last one unless others are named; those before
        stay good until they expire. Raises UsageError, LocalError."""
        hidden = self._named(name)
        if hops is None:
            hops = hidden.published[0].hops if hidden.published else ()
        published = self._publish(hidden.service, hops, seconds)
        live = [each for each in hidden.published if each.address.expiry > self._unix()]
        if len(live) >= ADDRESSES_PER_SERVICE:
            most = f"{ADDRESSES_PER_SERVICE} addresses that have not expired"
            raise LocalError(f"The service {name} has {most}; remove it, or wait for the first to expire.")
        self._keep(hidden, [published, *live])
        return self._shown(hidden, published)

    def remove(self, name: str) -> Json:
        """Forgets a service, its key and addresses; its sessions end. Raises UsageError, LocalError."""
        hidden = self._named(name)
        del self._known[name]
        self._withdraw(hidden.published)
        self._leave(hidden.service)
        for file in (self._book_file(name), self._key_file(name)):
            if self._disk.exists(file):
                self._disk.unlink(file)
        self._disk.fsyncdir(self._directory)
        return {"removed": name, "key": hidden.service.public.hex()}

    def shown(self) -> list[Json]:
        """Every service with its addresses."""
        return [
            {
                "name": name,
                "key": hidden.service.public.hex(),
                "ports": hidden.service.ports.taken,
                "addresses": [self._shown(hidden, each) for each in hidden.published],
            }
            for name, hidden in sorted(self._known.items())
        ]

    def faults(self) -> Iterable[str]:
        """Services that nobody can reach now, in sentences."""
        for name, hidden in sorted(self._known.items()):
            states = [self._state(each) for each in hidden.published]
            if "ready" not in states:
                why = states[0] if states else "it has no address"
                yield f"The hidden service {name} cannot be reached: {why}."

    # -- within

    def _publish(self, service: Service, hops: Sequence[PublicKey], seconds: int) -> Published:
        """An address whose path was never used before."""
        if not SHORTEST_LIFE <= seconds <= ADDRESS_LIFE:
            least, most = SHORTEST_LIFE // 60, ADDRESS_LIFE // 86_400
            raise UsageError(f"An address lives for {least} minutes to {most} days, not {seconds} s.")
        path_id = secrets.token_bytes(PATH_ID)
        path_key, tail = make_tail(SecretKey.generate(), hops, self._own, path_id)
        expiry = int(self._unix()) + seconds
        address = sign_address(service.secret, self._network, expiry, path_key, tail)
        return Published(address, path_id, tuple(hops))

    def _keep(self, hidden: HiddenService, published: list[Published]) -> None:
        """Writes the list, then lets circuits reach it."""
        book = [
            {
                "address": each.address.text,
                "path_id": each.path_id.hex(),
                "hops": [hop.hex() for hop in each.hops],
            }
            for each in published
        ]
        data = json.dumps({"addresses": book}, indent=1).encode() + b"\n"
        write_file(self._disk, self._book_file(hidden.name), data)
        self._withdraw(hidden.published)
        hidden.published = published
        self._register(hidden.service, published)

    def _register(self, service: Service, published: Iterable[Published]) -> None:
        for each in published:
            self._services.add(each.path_id, service, each.address.expiry)

    def _withdraw(self, published: Iterable[Published]) -> None:
        for each in published:
            self._services.remove(each.path_id)

    def _read(self, name: str) -> HiddenService:
        """Raises MeshError, ValueError, KeyError, TypeError, RecursionError."""
        secret = read_key(self._disk, self._key_file(name))
        hidden = HiddenService(name, Service(secret))
        if not self._disk.exists(self._book_file(name)):  # the power went before there was an address
            return hidden
        book: Any = json.loads(read_file(self._disk, self._book_file(name), SECRET_FILE))
        for entry in book["addresses"]:
            address = parse_address(entry["address"])
            if address.service != secret.public or address.network != self._network:
                raise StorageError("its addresses are of another key or network")
            path_id = bytes.fromhex(entry["path_id"])
            hops = tuple(public_key(bytes.fromhex(hop)) for hop in entry["hops"])
            hidden.published.append(Published(address, path_id, hops))
        return hidden

    def _named(self, name: str) -> HiddenService:
        self.find(name)  # says what there is
        for hidden in self._known.values():
            if name == hidden.name or name == hidden.service.public.hex():
                return hidden
        raise UsageError("Name the service: an address goes with all others of its service.")

    def _shown(self, hidden: HiddenService, published: Published) -> Json:
        address = published.address
        return {
            "name": hidden.name,
            "key": hidden.service.public.hex(),
            "address": address.text,
            "expires_unix": address.expiry,
            "hops": [hop.hex() for hop in published.hops],
            "hidden": bool(published.hops),
            "state": self._state(published),
        }

    def _state(self, published: Published) -> str:
        """`ready`, or the end of a sentence that says why not."""
        if published.address.expiry <= self._unix():
            return "its address has expired"
        if published.hops and not self._reaches(published.hops[-1]):
            return f"there is no link to {published.hops[-1].hex()[:8]}…, the last relay of its address"
        return "ready"

    def _key_file(self, name: str) -> Path:
        return self._directory / f"{name}.key"

    def _book_file(self, name: str) -> Path:
        return self._directory / f"{name}.json"
