"""What the node is and how it is: version, health, the chain's head, how far it has come, tokens."""

from __future__ import annotations

import secrets
from typing import TYPE_CHECKING, Any, Final

from coin.api.endpoint import ApiSet, Endpoint, Given
from coin.api.golang.text import duration
from coin.api.refusals import ApiError
from coin.api.tokens import NONCE_SIZE
from coin.api.view import View
from coin.chain.params import Limits
from coin.readable import header_json
from meshnet import __version__
from meshnet.node.app import Json

if TYPE_CHECKING:
    from coin.api.service import Api

READ_OR_STATUS: Final = frozenset((ApiSet.READ, ApiSet.STATUS))
ALWAYS: Final[frozenset[ApiSet]] = frozenset()
_NANO: Final = 1_000_000_000
_BUILD: Final = {"version": __version__, "commit": "", "branch": ""}


def limits_json(limits: Limits) -> Json:
    """What is asked of a transaction."""
    return {
        "burn_factor": limits.burn,
        "max_transaction_size": limits.size,
        "max_decimals": limits.decimals,
    }


def _token(api: Api, given: Given) -> Any:
    if api.tokens is None:
        raise ApiError(404)
    return {"csrf_token": api.tokens.new(secrets.token_bytes(NONCE_SIZE), api.clock.unix())}


def _version(api: Api, given: Given) -> Any:
    return _BUILD


def metadata(view: View) -> Json:
    """The head, and how many outputs and loose transactions there are."""
    return {
        "head": header_json(view.head.header, view.head.hash),
        "unspents": view.store.unspent_count(),
        "unconfirmed": len(view.pool),
    }


def _metadata(view: View, given: Given) -> Any:
    return metadata(view)


def _progress(api: Api, given: Given) -> Any:
    height, network = api.parts.books.height, api.parts.network
    peers = [
        {"address": peer.address.removeprefix("tcp:"), "height": network.sync.height_of(peer.number) or 0}
        for peer in network.peers.values()
        if peer.ready
    ]
    return {"current": height, "highest": max(height, network.sync.highest), "peers": peers}


def _fiber(api: Api) -> Json:
    chain = api.parts.chain
    names = chain.names
    return {
        "name": chain.name,
        "display_name": names.display,
        "ticker": names.ticker,
        "coin_hours_display_name": names.hours,
        "coin_hours_display_name_singular": names.hour,
        "coin_hours_ticker": names.hours_ticker,
        "qr_uri_prefix": names.uri,
        "explorer_url": names.explorer,
        "version_url": "",
        "bip44_coin": chain.bip44,
    }


async def _health(api: Api, given: Given) -> Any:
    found = await api.look(metadata)
    unix, parts = api.clock.unix(), api.parts
    age = int(unix) - found["head"]["timestamp"]
    outgoing = sum(peer.outgoing for peer in parts.network.peers.values())
    count = len(parts.network.peers)
    return {
        "blockchain": {**found, "time_since_last_block": duration(age * _NANO)},
        "version": _BUILD,
        "coin": parts.chain.name,
        "user_agent": parts.network.ourselves.agent,
        "open_connections": count,
        "outgoing_connections": outgoing,
        "incoming_connections": count - outgoing,
        "uptime": duration(int((unix - api.started) * _NANO)),
        "csrf_enabled": api.tokens is not None,
        "header_check_enabled": api.section.header_check,
        "csp_enabled": False,
        "wallet_api_enabled": ApiSet.WALLET in api.sets,
        "gui_enabled": False,
        "block_publisher": parts.publishes,
        "user_verify_transaction": limits_json(parts.chain.user),
        "unconfirmed_verify_transaction": limits_json(parts.chain.pool),
        "started_at": int(api.started),
        "fiber": _fiber(api),
    }


ENDPOINTS: Final = (
    Endpoint("GET", "/api/v1/csrf", ALWAYS, act=_token, csrf=False),
    Endpoint("GET", "/api/v1/version", ALWAYS, act=_version),
    Endpoint("GET", "/api/v1/health", READ_OR_STATUS, act=_health),
    Endpoint("GET", "/api/v1/blockchain/metadata", READ_OR_STATUS, _metadata),
    Endpoint("GET", "/api/v1/blockchain/progress", READ_OR_STATUS, act=_progress),
)
