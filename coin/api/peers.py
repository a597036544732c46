"""The chain's network: connections, known addresses, and the end of a connection."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

from coin.api.endpoint import ApiSet, Endpoint, Given, Kind, Parameter
from coin.api.kinds import TEXT
from coin.api.refusals import ApiError
from coin.api.status import READ_OR_STATUS, limits_json
from coin.chain.params import Limits
from coin.replication.messages import Reason
from coin.replication.peer import Peer
from meshnet.node.app import Json

if TYPE_CHECKING:
    from coin.api.service import Api

_STATES: Final = ("pending", "connected", "introduced")
_WAYS: Final = ("outgoing", "incoming")
_NO_LIMITS: Final = {"burn_factor": 0, "max_transaction_size": 0, "max_decimals": 0}


def _shown(address: str) -> str:
    """`127.0.0.1:6000` for a TCP peer, `mesh:KEY` for one of the mesh."""
    return address.removeprefix("tcp:")


def _peer(api: Api, peer: Peer) -> Json:
    now, unix = api.clock.now(), api.clock.unix()
    network, said, extra = api.parts.network, peer.said, peer.extra
    limits = None if extra is None else Limits(extra.burn, extra.size, extra.decimals)
    return {
        "id": peer.number,
        "address": _shown(peer.address),
        "last_sent": int(unix - (now - peer.spoken)),
        "last_received": int(unix - (now - peer.heard)),
        "connected_at": int(unix - (now - peer.born)),
        "outgoing": peer.outgoing,
        "state": "introduced" if peer.ready else "connected",
        "mirror": said.mirror if said is not None else 0,
        "listen_port": said.port if said is not None else 0,
        "height": network.sync.height_of(peer.number) or 0,
        "user_agent": extra.agent if extra is not None else "",
        "is_trusted_peer": peer.address in network.addresses.trusted(),
        "unconfirmed_verify_transaction": _NO_LIMITS if limits is None else limits_json(limits),
    }


def _dialled(api: Api, address: str) -> Json:
    """A connection that is still to come."""
    return {
        "id": 0,
        "address": _shown(address),
        "last_sent": 0,
        "last_received": 0,
        "connected_at": 0,
        "outgoing": True,
        "state": "pending",
        "mirror": 0,
        "listen_port": 0,
        "height": 0,
        "user_agent": "",
        "is_trusted_peer": address in api.parts.network.addresses.trusted(),
        "unconfirmed_verify_transaction": _NO_LIMITS,
    }


def _all(api: Api) -> list[Json]:
    """In the order of their addresses."""
    peers = [_peer(api, each) for each in api.parts.network.peers.values()]
    peers += [_dialled(api, each) for each in api.parts.peers.dialling]
    return sorted(peers, key=lambda each: (each["address"], each["id"]))


def _one(api: Api, given: Given) -> Any:
    for each in _all(api):
        if each["address"] == given["addr"]:
            return each
    raise ApiError(404)


def _connections(api: Api, given: Given) -> Any:
    states, way = given["states"], given["direction"]
    return {
        "connections": [
            each
            for each in _all(api)
            if each["state"] in states and (not way or each["outgoing"] == (way == "outgoing"))
        ]
    }


def _default(api: Api, given: Given) -> Any:
    return sorted(api.parts.chain.peers)


def _trusted(api: Api, given: Given) -> Any:
    return sorted(map(_shown, api.parts.network.addresses.trusted()))


def _exchanged(api: Api, given: Given) -> Any:
    return sorted(map(_shown, api.parts.network.addresses.reachable()))


def _disconnect(api: Api, given: Given) -> Any:
    peer = api.parts.network.peers.get(given["id"])
    if peer is None:
        raise ApiError(404)
    peer.life.part(Reason.OPERATOR, "The operator ended the connection.")
    return {}


def _states(text: str) -> frozenset[str]:
    found = frozenset(text.split(","))
    if not found.issubset(_STATES):
        pending, connected, introduced = _STATES
        raise ValueError(
            f'Invalid state in states. Valid states are "{pending}", "{connected}" or "{introduced}"'
        )
    return found


def _way(text: str) -> str:
    if text not in _WAYS:
        raise ValueError('Invalid direction. Valid directions are "outgoing" or "incoming"')
    return text


def _number(text: str) -> int:
    number = int(text) if text.isascii() and text.isdigit() and len(text) <= 20 else 0
    if not 0 < number < 1 << 64:
        raise ValueError("invalid id")
    return number


ENDPOINTS: Final = (
    Endpoint(
        "GET",
        "/api/v1/network/connection",
        READ_OR_STATUS,
        act=_one,
        takes=(Parameter("addr", TEXT, missing="addr is required"),),
    ),
    Endpoint(
        "GET",
        "/api/v1/network/connections",
        READ_OR_STATUS,
        act=_connections,
        takes=(
            Parameter("states", Kind(_states, "string", "states"), default=frozenset(_STATES[1:])),
            Parameter("direction", Kind(_way, "string", "direction"), default=""),
        ),
    ),
    Endpoint("GET", "/api/v1/network/defaultConnections", READ_OR_STATUS, act=_default),
    Endpoint("GET", "/api/v1/network/connections/trust", READ_OR_STATUS, act=_trusted),
    Endpoint("GET", "/api/v1/network/connections/exchange", READ_OR_STATUS, act=_exchanged),
    Endpoint(
        "POST",
        "/api/v1/network/connection/disconnect",
        frozenset((ApiSet.NET_CTRL,)),
        act=_disconnect,
        takes=(Parameter("id", Kind(_number, "integer", "uint64"), missing="id is required"),),
    ),
)
