"""Keys of the API: who has one may do what its scopes say, at its rate.

A key is a text that is shown once, when it is made. Kept is its SHA-256, which tells nothing: the text is 256
random bits. The file is one JSON object, mode 0600, replaced as a whole, so that a key that was revoked is
never good again after a power cut.

    key     mk_ID_SECRET      ID 8 hex digits, SECRET 43 characters (base64url of 32 bytes)
    file    {"keys": [{"id", "name", "scopes", "rate", "created", "digest"}]}

No clock and no randomness in here: both are arguments.
"""

from __future__ import annotations

import hmac
import json
import re
from base64 import urlsafe_b64encode
from collections.abc import Sequence
from hashlib import sha256
from typing import Any, Final, Literal

from attrs import frozen

from meshnet.errors import LocalError, RefusedError, UsageError
from meshnet.limits import COIN_KEY_RATE, COIN_KEYS
from meshnet.storage.disk import CorruptFileError, Disk
from meshnet.storage.files import read_secret, write_secret

Scope = Literal["read", "events", "send", "admin"]
SCOPES: Final[tuple[Scope, ...]] = ("read", "events", "send", "admin")
"""What a key may be good for: questions, listening, payments; `admin` is good for all of it and the node's
network."""
ID_SIZE: Final = 4
SECRET_SIZE: Final = 32
_LARGEST_FILE: Final = 1 << 20
_NAME: Final = re.compile(r"[\w .:@-]{1,64}")
_KEY: Final = re.compile(r"mk_([0-9a-f]{8})_[A-Za-z0-9_-]{43}")


@frozen
class Key:
    """A key as it is kept. `rate` are requests per second, `created` unix seconds, `digest` 32 bytes."""

    id: str
    name: str
    scopes: frozenset[Scope]
    rate: int
    created: int
    digest: bytes

    def may(self, scope: str) -> bool:
        """Whether it is good for a scope."""
        return scope in self.scopes or "admin" in self.scopes

    def as_json(self) -> dict[str, Any]:
        """For people: all but the digest."""
        scopes = [each for each in SCOPES if each in self.scopes]
        return {
            "id": self.id,
            "name": self.name,
            "scopes": scopes,
            "rate": self.rate,
            "created": self.created,
        }


class Allowance:
    """Requests that a key has left: `rate` come each second, two seconds' worth at most."""

    __slots__ = ("_left", "_most", "_now", "_rate")

    def __init__(self, rate: int, now: float) -> None:
        self._rate = rate
        self._most = self._left = 2.0 * rate
        self._now = now

    def take(self, now: float) -> float:
        """Takes one; 0 if there was one, else the seconds until there is."""
        self._left = min(self._most, self._left + (now - self._now) * self._rate)
        self._now = now
        if self._left >= 1.0:
            self._left -= 1.0
            return 0.0
        return (1.0 - self._left) / self._rate


class Keys:
    """The keys in the file at `path`, which need not be there. Reading and writing it blocks. Raises
    StorageError; LocalError if the file is damaged."""

    def __init__(self, disk: Disk, path: str) -> None:
        self._disk = disk
        self._path = path
        self._keys: dict[str, Key] = {}
        self._allowances: dict[str, Allowance] = {}
        if disk.exists(path):
            self._load()

    def __len__(self) -> int:
        return len(self._keys)

    def __iter__(self) -> Any:
        return iter(self._keys.values())

    # -- who is it?

    def find(self, text: str) -> Key | None:
        """The key of a text, None if that is none of them. How long that takes says nothing of the secret."""
        match = _KEY.fullmatch(text)
        key = self._keys.get(match[1]) if match is not None else None
        same = hmac.compare_digest(_digest(text), key.digest if key is not None else bytes(32))
        return key if key is not None and same else None

    def wait(self, key: Key, now: float) -> float:
        """Counts a request of a key; 0 if it may have it, else the seconds until it may have one."""
        allowance = self._allowances.get(key.id)
        if allowance is None:
            allowance = self._allowances[key.id] = Allowance(key.rate, now)
        return allowance.take(now)

    # -- made and revoked

    def make(self, name: str, scopes: Sequence[str], rate: int, random: bytes, unix: int) -> tuple[Key, str]:
        """A new key and its text; durable when it is there. `random` has 36 bytes. Raises UsageError,
        RefusedError, StorageError."""
        if not _NAME.fullmatch(name):
            raise UsageError("A key's name has 1 to 64 characters: letters, digits, spaces, . : @ _ and -.")
        for scope in scopes:
            if scope not in SCOPES:
                raise UsageError(f"{scope[:60]!r} is no scope; choose of {', '.join(SCOPES)}.")
        if not scopes:
            raise UsageError(f"A key without scopes is good for nothing; choose of {', '.join(SCOPES)}.")
        if not 1 <= rate <= COIN_KEY_RATE:
            raise UsageError(f"The rate is 1 to {COIN_KEY_RATE} requests per second, not {rate}.")
        if len(self._keys) >= COIN_KEYS:
            raise RefusedError(f"There are {COIN_KEYS} keys already; revoke one.")
        number = random[:ID_SIZE].hex()
        if number in self._keys:
            raise RefusedError("Another key has that id by chance; try again.")
        secret = urlsafe_b64encode(random[ID_SIZE : ID_SIZE + SECRET_SIZE]).rstrip(b"=").decode()
        text = f"mk_{number}_{secret}"
        key = Key(number, name, frozenset(scopes), rate, unix, _digest(text))  # type: ignore[arg-type]
        self._store({**self._keys, number: key})
        return key, text

    def revoke(self, number: str) -> Key:
        """Takes a key away, durably; raises UsageError if there is none of that id."""
        key = self._keys.get(number)
        if key is None:
            raise UsageError(f"There is no key {number[:60]!r}; `meshnet coin api key list` shows all.")
        self._store({each: found for each, found in self._keys.items() if each != number})
        self._allowances.pop(number, None)
        return key

    def _store(self, keys: dict[str, Key]) -> None:
        rows = [{**each.as_json(), "digest": each.digest.hex()} for each in keys.values()]
        write_secret(self._disk, self._path, json.dumps({"keys": rows}, indent=1).encode(), replace=True)
        self._keys = keys

    def _load(self) -> None:
        try:
            rows = json.loads(read_secret(self._disk, self._path, _LARGEST_FILE))["keys"]
            keys = [_key(row) for row in rows]
        except (ValueError, OverflowError, LookupError, TypeError, RecursionError, CorruptFileError):
            raise LocalError(
                f"{self._path}, the keys of the coin's API, is damaged: remove it and make new keys."
            ) from None
        self._keys = {each.id: each for each in keys}


def _key(row: Any) -> Key:
    scopes = frozenset(str(each) for each in row["scopes"])
    found = Key(
        str(row["id"]),
        str(row["name"]),
        scopes,  # type: ignore[arg-type]
        int(row["rate"]),
        int(row["created"]),
        bytes.fromhex(row["digest"]),
    )
    if not scopes <= set(SCOPES) or len(found.digest) != 32 or not 1 <= found.rate <= COIN_KEY_RATE:
        raise ValueError(row)
    return found


def _digest(text: str) -> bytes:
    return sha256(text.encode()).digest()
