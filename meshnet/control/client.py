"""A blocking client of a node's control API, for commands and scripts.

One request per connection, over the node's UNIX socket. It raises what the route raised.
"""

from __future__ import annotations

import http.client
import json
import os
import socket
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

from attrs import frozen

from meshnet.control.messages import LARGEST_ANSWER, from_json
from meshnet.errors import MeshError, TimedOutError, UnreachableError

PATIENCE: Final = 300.0  # seconds that something asked of a node may take
QUICK: Final = 10.0  # the same for what a node only has to say


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(os.fspath(self._path))


@frozen
class ControlClient:
    """Calls of the node that listens on `path`; `timeout` in seconds per call."""

    path: Path
    timeout: float = PATIENCE

    def call(self, method: str, path: str, body: dict[str, Any] | None = None) -> dict[str, Any]:
        """The JSON answer of a route; a GET sends `body` as its query.

        Raises UnreachableError when no node answers, TimedOutError, else the MeshError that the route raised.
        """
        payload: bytes | None = None
        if method == "GET":
            path += f"?{urlencode(body)}" if body else ""
        else:
            payload = json.dumps(body or {}).encode()
        timeout = min(self.timeout, QUICK) if method == "GET" else self.timeout
        connection = _UnixConnection(self.path, timeout)
        try:
            connection.request(method, path, payload, {"Content-Type": "application/json"})
            response = connection.getresponse()
            data = response.read(LARGEST_ANSWER)
        except TimeoutError:
            raise TimedOutError(f"The node at {self.path} did not answer in {timeout:.0f} s.") from None
        except (OSError, http.client.HTTPException) as error:
            raise _unreachable(self.path, error) from None
        finally:
            connection.close()
        return _read(response.status, data)


def _unreachable(path: Path, error: Exception) -> MeshError:
    if isinstance(error, PermissionError):
        return UnreachableError(f"No permission to use {path}; run as the user that runs the node.")
    return UnreachableError(f"No node answers on {path}; start it with meshnet up.")


def _read(status: int, data: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(data)
    except (ValueError, RecursionError):
        answer = None
    if status != 200 or not isinstance(answer, dict):
        raise from_json(answer)
    return answer
