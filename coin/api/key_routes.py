"""The control routes of the API's keys: made, listed, revoked. Who may use the node's control socket may."""

from __future__ import annotations

import secrets
from collections.abc import Callable
from typing import Annotated, Any

from attrs import frozen
from twisted.internet.defer import Deferred

from coin.api.keys import ID_SIZE, SECRET_SIZE, Key, Keys, Scope
from meshnet.limits import COIN_KEY_RATE
from meshnet.node.app import Json
from meshnet.node.schema import Between, read_body, read_query


@frozen
class Nothing:
    """No keys."""


@frozen
class New:
    """A key to be made: at most `rate` requests per second."""

    name: str
    scopes: tuple[Scope, ...] = ("read", "events")
    rate: Annotated[int, Between(1, COIN_KEY_RATE)] = 100


@frozen
class Which:
    """A key's id."""

    id: str


class KeyRoutes:
    """Answers for `keys`; `write` runs what writes in a thread, `revoked` is told of a key that is gone."""

    def __init__(
        self,
        keys: Keys,
        write: Callable[..., Deferred[Any]],
        revoked: Callable[[str], None],
        unix: Callable[[], float],
    ) -> None:
        self._keys = keys
        self._write = write
        self._revoked = revoked
        self._unix = unix

    def list(self, body: Json) -> Json:
        """All keys, without what is secret."""
        read_query(Nothing, body)
        return {"keys": [each.as_json() for each in self._keys]}

    def make(self, body: Json) -> Deferred[Json]:
        """A new one; `key` is its text, told this once."""
        new = read_body(New, body)
        random = secrets.token_bytes(ID_SIZE + SECRET_SIZE)

        def made(found: tuple[Key, str]) -> Json:
            return {**found[0].as_json(), "key": found[1]}

        made_key = self._write(self._keys.make, new.name, new.scopes, new.rate, random, int(self._unix()))
        return made_key.addCallback(made)

    def revoke(self, body: Json) -> Deferred[Json]:
        """Takes one away; who listens with it is told goodbye."""

        def gone(key: Key) -> Json:
            self._revoked(key.id)
            return key.as_json()

        return self._write(self._keys.revoke, read_body(Which, body).id).addCallback(gone)
