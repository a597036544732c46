"""What can be called at a node: its own key, and every key it answers for beside it.

Ports and sessions belong to the static key of the end-to-end handshake (docs/wire-format.md §5): who called
one service sees no port of another, and a circuit joins only a session of the service it was opened to.
"""

from __future__ import annotations

from attrs import define, field

from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.circuit.arrival import Arrival
from meshnet.circuit.tail import Place
from meshnet.node.ports import Ports
from meshnet.session.session import Session


@define(eq=False)
class Service:
    """One static key: the ports that are open under it, and the sessions begun under it by their 16-byte id,
    those that another circuit may join."""

    secret: SecretKey = field(repr=False)
    ports: Ports = field(factory=Ports)
    sessions: dict[bytes, Session] = field(factory=dict)

    @property
    def public(self) -> PublicKey:
        """The key that callers ask for."""
        return self.secret.public


class Services:
    """All services of a node; `own` is that of its identity. The others hide: a circuit names one by the
    path id that its address's tail brings, and by nothing else."""

    def __init__(self, secret: SecretKey) -> None:
        self.own = Service(secret)
        self._hidden: dict[bytes, tuple[Service, float]] = {}

    def add(self, path_id: bytes, service: Service, expiry: float) -> None:
        """Lets circuits with this path id reach a hidden service, until `expiry` (Unix seconds)."""
        self._hidden[path_id] = (service, expiry)

    def remove(self, path_id: bytes) -> None:
        """No longer; harmless if it is unknown. Sessions that stand stay."""
        self._hidden.pop(path_id, None)

    def of(self, arrival: Arrival, unix: float) -> Service | None:
        """Whom a circuit that ends here asks for; None: nobody who is here now."""
        if arrival.place is Place.OPEN:
            return self.own
        found = self._hidden.get(arrival.path_id or b"")
        return found[0] if found is not None and unix < found[1] else None
