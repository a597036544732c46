"""CSRF tokens: whoever wants to change something shows that it could read an answer of this server first.

    token   base64url(JSON {"Nonce": base64 of 64 bytes, "ExpiresAt": time}) "." base64url(HMAC-SHA-256)

The key is random for each run, and nothing is kept of a token: until it expires it is good any number of
times. It is opaque to clients. No clock and no randomness in here: both are arguments.
"""

from __future__ import annotations

import hmac
import json
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from binascii import Error as Base64Error
from datetime import datetime
from hashlib import sha256
from typing import Final

from coin.api.golang.text import moment

TOKEN_SECONDS: Final = 30.0
KEY_SIZE: Final = 64
NONCE_SIZE: Final = 64
LONGEST_TOKEN: Final = 1_024
HEADER: Final = b"x-csrf-token"


class Tokens:
    """Makes and checks them. `key` has `KEY_SIZE` random bytes."""

    def __init__(self, key: bytes) -> None:
        self._key = key

    def new(self, nonce: bytes, unix: float) -> str:
        """A token, good for `TOKEN_SECONDS`; `nonce` has `NONCE_SIZE` random bytes."""
        expires = moment(int((unix + TOKEN_SECONDS) * 1_000_000) * 1_000)
        body = {"Nonce": b64encode(nonce).decode(), "ExpiresAt": expires}
        data = json.dumps(body, separators=(",", ":")).encode()
        return f"{_text(data)}.{_text(self._tag(data))}"

    def refusal(self, token: str, unix: float) -> str:
        """Why a token is not good, in the Go node's words; empty if it is."""
        parts = token[: LONGEST_TOKEN + 1].split(".")
        if len(parts) != 2 or len(token) > LONGEST_TOKEN:
            return "invalid CSRF token"
        try:
            data = urlsafe_b64decode(parts[0] + "=" * (-len(parts[0]) % 4))
        except (Base64Error, ValueError):
            return "invalid CSRF token"
        if not hmac.compare_digest(_text(self._tag(data)).encode(), parts[1].encode()):
            return "invalid CSRF token signature"
        expires = datetime.fromisoformat(json.loads(data)["ExpiresAt"]).timestamp()
        return "csrf token expired" if unix > expires else ""

    def _tag(self, data: bytes) -> bytes:
        return hmac.new(self._key, data, sha256).digest()


def _text(data: bytes) -> str:
    return urlsafe_b64encode(data).rstrip(b"=").decode()
