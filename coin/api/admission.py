"""Which requests need an API key, and whether the one they bring will do.

    Authorization: Bearer KEY      or, where that header has a password for a proxy,      X-API-Key: KEY

What a key must be good for is an endpoint's `scope`; for versions 1 and 2, where a key is asked for only if
the operator wants it, the scope of its sets. Whoever brings a good key needs neither password nor CSRF token:
no web page of another server can send that header.
"""

from __future__ import annotations

from math import ceil
from typing import Final, Literal

from coin.api.endpoint import ApiSet, Endpoint
from coin.api.keys import Key, Keys
from coin.api.refusals import ApiError
from coin.api.server import ApiRequest

_CHALLENGE: Final = ((b"WWW-Authenticate", b'Bearer realm="coin"'),)
_SCOPES: Final = {
    ApiSet.READ: "read",
    ApiSet.STATUS: "read",
    ApiSet.TXN: "send",
    ApiSet.WALLET: "admin",
    ApiSet.NET_CTRL: "admin",
    ApiSet.INSECURE_WALLET_SEED: "admin",
    ApiSet.STORAGE: "admin",
}
_ORDER: Final = ("read", "send", "admin")


def scope_of(endpoint: Endpoint) -> str:
    """What a key must be good for; of an endpoint in several sets the least. Empty if it is for everybody."""
    if endpoint.scope or not endpoint.sets:
        return endpoint.scope
    return min((_SCOPES[each] for each in endpoint.sets), key=_ORDER.index)


class Admission:
    """Asks for keys: of no version, of version 3, or of all."""

    def __init__(self, keys: Keys, asks: Literal["none", "v3", "all"]) -> None:
        self.keys = keys
        self._asks = asks

    def key_of(self, request: ApiRequest) -> Key | None:
        """The key of a request, None if it has none or that is not good."""
        text = _text(request)
        return self.keys.find(text) if text else None

    def check(self, request: ApiRequest, endpoint: Endpoint, now: float) -> None:
        """Whether a request may go on; raises ApiError. A request that came with a key counts for that key,
        also where none is asked for."""
        key = request.key
        scope = scope_of(endpoint)
        asked = bool(scope) and (self._asks == "all" or (self._asks == "v3" and endpoint.version == 3))
        if key is None:
            if asked:
                raise ApiError(401, self._missing(request), headers=_CHALLENGE)
            return
        if asked:
            self.need(key, scope)
        self.count(key, now)

    def need(self, key: Key | None, scope: str) -> None:
        """That a key, where one was asked for, is good for a scope; raises ApiError."""
        if key is not None and not key.may(scope):
            raise ApiError(403, f"The key {key.name!r} is not good for {scope!r}.")

    def count(self, key: Key, now: float) -> None:
        """One request more of a key; raises ApiError if those were too many."""
        wait = self.keys.wait(key, now)
        if wait:
            headers = ((b"Retry-After", b"%d" % ceil(wait)),)
            raise ApiError(429, f"The key has {key.rate} requests per second.", headers=headers)

    def _missing(self, request: ApiRequest) -> str:
        if _text(request):
            return "That is no key of this node, or it was revoked."
        return "A key is needed: `meshnet coin api key new` makes one; send it as Authorization: Bearer KEY."


def _text(request: ApiRequest) -> str:
    own = request.header(b"x-api-key")
    if own is not None:
        return own.decode("latin-1").strip()
    kind, _, rest = (request.header(b"authorization") or b"").partition(b" ")
    return rest.decode("latin-1").strip() if kind.lower() == b"bearer" else ""
