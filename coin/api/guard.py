"""Who may ask at all: Basic auth, the Host that was named, the page that asks, the CSRF token.

The checks, their order and their texts are those of the Go node. On a loopback address the Host header must
name that address, or one of the operator's list: so no web page can reach the node by a name of its own that
resolves to 127.0.0.1. An Origin (or else Referer) must be of this server or of the list. On any other address
the server is meant to be public, and only Origin is looked at.
"""

from __future__ import annotations

import hmac
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable, Iterable
from hashlib import sha256
from ipaddress import ip_address
from typing import Final
from urllib.parse import urlsplit

from attrs import frozen

from coin.api.refusals import ApiError
from coin.api.tokens import HEADER, Tokens

Header = Callable[[bytes], bytes | None]
"""Gives the value of a header by its name in small letters."""
_CHANGING: Final = ("POST", "PUT", "DELETE")


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address."""
    try:
        return ip_address(host.strip("[]")).is_loopback
    except ValueError:
        return host == "localhost"


def names_of(host: str, port: int) -> frozenset[str]:
    """What clients may call a server that listens there."""
    if is_loopback(host):
        own = f"[{host}]" if ":" in host else host
        return frozenset((f"127.0.0.1:{port}", f"localhost:{port}", f"{own}:{port}"))
    return frozenset((f"{host}:{port}",))


@frozen
class Guard:
    """What is asked of each request. `hosts`: the values of Host, None: any; `origins`: those of Origin and
    Referer, None: any; `secret`: the digest of user and password, None: nobody has any; `tokens`: None where
    none are asked for. `realm` is told to who lacks a password. Scripts of `pages` (values of Origin) may
    read the answers."""

    hosts: frozenset[str] | None
    origins: frozenset[str] | None
    secret: bytes | None
    tokens: Tokens | None
    realm: str
    pages: frozenset[bytes]

    def check_user(self, header: Header) -> None:
        """Basic auth; raises ApiError."""
        given = header(b"authorization") or b""
        kind, _, rest = given.partition(b" ")
        if kind.lower() != b"basic":
            if self.secret is not None:
                raise self._unknown()
            return
        try:
            pair = b64decode(rest.strip(), validate=True)
        except (Base64Error, ValueError):
            pair = b""
        if self.secret is None:
            # Who sends a password believes that one is asked for.
            if pair.strip(b":"):
                raise self._unknown()
        elif not hmac.compare_digest(digest_of(pair), self.secret):
            raise self._unknown()

    def _unknown(self) -> ApiError:
        challenge = b'Basic realm="%s"' % self.realm.encode()
        return ApiError(401, headers=((b"WWW-Authenticate", challenge),))

    def check_place(self, header: Header) -> None:
        """Host, then Origin or Referer; raises ApiError."""
        host = header(b"host")
        if self.hosts is not None and host and host.decode("latin-1") not in self.hosts:
            raise ApiError(403, "Invalid Host")
        page = header(b"origin") or header(b"referer")
        if self.origins is not None and page:
            try:
                found = _host_of(page.decode("latin-1"))
            except ValueError:
                raise ApiError(403, "Invalid URL in Origin or Referer header") from None
            if found not in self.origins:
                raise ApiError(403, "Invalid Origin or Referer")

    def check_token(self, method: str, header: Header, unix: float) -> None:
        """The CSRF token of a request that changes something; raises ApiError."""
        if self.tokens is not None and method in _CHANGING:
            refusal = self.tokens.refusal((header(HEADER) or b"").decode("latin-1"), unix)
            if refusal:
                raise ApiError(403, refusal)


def digest_of(pair: bytes) -> bytes:
    """What is compared of `user:password`: lengths do not show."""
    return sha256(pair).digest()


def new_guard(
    host: str,
    port: int,
    *,
    listed: Iterable[str],
    check: bool,
    pair: bytes | None,
    tokens: Tokens | None,
    realm: str,
) -> Guard:
    """A guard for a server on `host` and `port`. `listed` are further names; `check`: whether Host, Origin
    and Referer are looked at; `pair` is `user:password`."""
    names = names_of(host, port) | frozenset(listed)
    return Guard(
        hosts=names if check and is_loopback(host) else None,
        origins=names if check else None,
        secret=digest_of(pair) if pair is not None else None,
        tokens=tokens,
        realm=realm,
        pages=frozenset(f"http://{name}".encode() for name in names),
    )


def _host_of(url: str) -> str:
    if not url.isprintable():
        raise ValueError(url)
    parts = urlsplit(url)
    if not parts.scheme and ":" in url.partition("/")[0]:
        raise ValueError(url)
    _ = parts.port  # raises ValueError for one that is no number
    return parts.netloc.rpartition("@")[2]
