"""The control API as HTTP: a UNIX socket (0600), and if asked a loopback address with a bearer token.

It maps `"METHOD /path"` to routes and knows nothing of what they do. A browser page must not reach it: on
TCP the Host must be ours, an Origin is refused, and the token is compared in constant time. On the socket
the file mode is the right to ask. Bodies are bounded while they arrive.
"""

from __future__ import annotations

import errno
import hmac
import inspect
import json
import os
import socket
import stat
from collections.abc import Awaitable, Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl

from twisted.internet.defer import CancelledError, Deferred
from twisted.logger import Logger
from twisted.web.resource import Resource
from twisted.web.server import NOT_DONE_YET, Request, Site

from meshnet.control.messages import LARGEST_BODY, DeniedError, NotFoundError, to_json
from meshnet.errors import LocalError, MeshError, UsageError
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import discard

Json = dict[str, Any]
Route = Callable[[Json], Json | Awaitable[Json]]

LONGEST_SOCKET_PATH: Final = 107  # bytes of sun_path on Linux, less its NUL
_log = Logger()


class _Body(BytesIO):
    """A request body that stops growing at LARGEST_BODY."""

    overflow = False

    def write(self, data: Any) -> int:
        if self.tell() + len(data) > LARGEST_BODY:
            self.overflow = True
            return len(data)
        return super().write(data)


class ControlRequest(Request):
    """A request whose body stays in bounded memory."""

    def gotLength(self, length: int | None) -> None:
        """The body's length, None if chunked: either way it goes into a bounded buffer."""
        self.content = _Body()


class ControlResource(Resource):
    """Every path of the API. `find(method, path)` gives a route or None."""

    isLeaf = True

    def __init__(self, find: Callable[[str, str], Route | None], guard: Callable[[Request], None]) -> None:
        super().__init__()
        self._find = find
        self._guard = guard

    def render(self, request: Request) -> Any:
        """Answers now or later; every failure is a JSON error."""
        try:
            self._guard(request)
            route, body = self._read(request)
        except MeshError as error:
            return self._finish(request, *to_json(error))
        answer = Deferred.fromCoroutine(self._answer(request, route, body))
        request.notifyFinish().addErrback(lambda _: answer.cancel())  # the client has gone
        return NOT_DONE_YET

    async def _answer(self, request: Request, route: Route, body: Json) -> None:
        """Runs the route and writes what it gives; a client that has gone gets nothing."""
        try:
            result = route(body)
            self._finish(request, 200, await result if inspect.isawaitable(result) else result)
        except CancelledError:
            return
        except MeshError as error:
            self._finish(request, *to_json(error))
        except Exception:
            _log.failure("a control request failed")
            self._finish(request, *to_json(MeshError("The node failed at this request; its log says why.")))

    def _read(self, request: Request) -> tuple[Route, Json]:
        method = request.method.decode("latin-1")
        path, _, query = request.uri.decode("latin-1").partition("?")
        route = self._find(method, path)
        if route is None:
            raise NotFoundError(f"This node has no {method} {path}.")
        if method == "GET":
            return route, dict(parse_qsl(query, keep_blank_values=True, max_num_fields=64))
        content: Any = request.content
        if content.overflow:
            raise UsageError(f"The request's body is larger than {LARGEST_BODY} bytes.")
        return route, _object(content.getvalue())

    def _finish(self, request: Request, status: int, body: Json) -> Any:
        data = json.dumps(body).encode() + b"\n"
        request.setResponseCode(status)
        request.setHeader(b"content-length", str(len(data)).encode())
        request.setHeader(b"content-type", b"application/json")
        request.setHeader(b"cache-control", b"no-store")
        request.write(data)
        request.finish()
        return NOT_DONE_YET


def _object(data: bytes) -> Json:
    if not data.strip():
        return {}
    try:
        body = json.loads(data, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        raise UsageError("The request's body is not JSON.") from None
    if not isinstance(body, dict):
        raise UsageError("The request's body is not a JSON object.")
    return body


def _no_constant(name: str) -> None:
    raise ValueError(name)


def routes_of(routes: Mapping[str, Route]) -> Callable[[str, str], Route | None]:
    """A finder over a mapping of `"METHOD /path"` that may still grow."""
    return lambda method, path: routes.get(f"{method} {path}")


def _everyone(request: Request) -> None:
    """The file mode of the socket has decided already."""


def local_site(routes: Mapping[str, Route]) -> Site:
    """The API for a UNIX socket."""
    return _site(ControlResource(routes_of(routes), _everyone))


def token_site(routes: Mapping[str, Route], token: bytes, hosts: Callable[[], frozenset[bytes]]) -> Site:
    """The API for a loopback address; `hosts` are the allowed values of Host, lower case."""

    def guard(request: Request) -> None:
        host = (request.getHeader(b"host") or b"").lower()
        if host not in hosts():
            raise DeniedError("The Host header names another server.")
        if request.getHeader(b"origin") is not None:
            raise DeniedError("Web pages may not use the control API.")
        given = request.getHeader(b"authorization") or b""
        if not hmac.compare_digest(given, b"Bearer " + token):
            raise DeniedError("The bearer token is missing or wrong; it is in the node's control.token file.")

    return _site(ControlResource(routes_of(routes), guard))


class QuietSite(Site):
    """A server that logs no requests: routes log what matters."""

    noisy = False

    def log(self, request: Any) -> None:
        """Nothing."""


def _site(resource: Resource) -> Site:
    return QuietSite(resource, requestFactory=ControlRequest, timeout=120)


def claim_socket(path: Path, what: str = "control socket", key: str = "[control] socket") -> None:
    """Makes room for a socket at `path`: a stale one is removed, anything else raises LocalError.

    `what` it is and which config key names it are for the sentences.
    """
    if len(os.fsencode(path)) > LONGEST_SOCKET_PATH:
        raise LocalError(
            f"The path {path} of the {what} is longer than {LONGEST_SOCKET_PATH} bytes; "
            f"set {key} to a shorter one."
        )
    try:
        mode = path.lstat().st_mode
    except FileNotFoundError:
        return
    except OSError as error:
        raise LocalError(f"Cannot use the {what} {path}: {error.strerror}.") from None
    if not stat.S_ISSOCK(mode):
        raise LocalError(f"{path} is in the way of the {what}; move it away.")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(os.fspath(path))
        except OSError as error:
            if error.errno not in (errno.ECONNREFUSED, errno.ENOENT):
                raise LocalError(f"Cannot use the {what} {path}: {error.strerror}.") from None
            discard(RealDisk(), path)
            return
    raise LocalError(f"Another node answers on {path}; stop it first (meshnet stop --node {path}).")
