"""Why a request is not answered as asked: a status, a text, and the body that each version of the API has.

    v1   text/plain    `400 Bad Request - text` and a line's end; without a text `404 Not Found`
    v2   JSON          {"error": {"message": text, "code": 400}}, perhaps with "data" beside it
    v3   JSON          {"error": {"code": word, "message": text, "field": name or null, "details": {}}}

Texts and statuses of versions 1 and 2 are those of the Go node where it has one.
"""

from __future__ import annotations

import json
from typing import Any, Final

from meshnet.control.messages import to_json
from meshnet.errors import MeshError, RemoteError, UsageError

PLAIN: Final = b"text/plain; charset=utf-8"
JSON: Final = b"application/json"
REASONS: Final = {
    200: "OK",
    204: "No Content",
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Request Entity Too Large",
    415: "Unsupported Media Type",
    422: "Unprocessable Entity",
    426: "Upgrade Required",
    429: "Too Many Requests",
    431: "Request Header Fields Too Large",
    500: "Internal Server Error",
    501: "Not Implemented",
    502: "Bad Gateway",
    503: "Service Unavailable",
    504: "Gateway Timeout",
}
"""What the Go node calls a status."""
_WORDS: Final = {
    400: "usage",
    401: "denied",
    403: "denied",
    404: "not_found",
    405: "method",
    413: "too_large",
    415: "media_type",
    422: "refused",
    426: "usage",
    429: "too_many",
    501: "missing_dependency",
    503: "unavailable",
}
_LONGEST: Final = 4_096


class ApiError(MeshError):
    """A request is refused with `status` and `text` (empty: the status says all). `data` goes along with it
    in version 2; `field` names what was wrong in version 3; `headers` are sent with it."""

    def __init__(
        self,
        status: int,
        text: str = "",
        *,
        data: Any = None,
        field: str | None = None,
        headers: tuple[tuple[bytes, bytes], ...] = (),
    ) -> None:
        super().__init__(text or REASONS[status])
        self.status = status
        self.text = text[:_LONGEST]
        self.data = data
        self.field = field
        self.headers = headers


def bad(text: str, field: str | None = None) -> ApiError:
    """The usual one, 400."""
    return ApiError(400, text, field=field)


def refusal_of(error: MeshError) -> ApiError:
    """What an error of ours is to who asked."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UsageError | RemoteError):
        return ApiError(400, str(error), field=getattr(error, "field", None))
    return ApiError(500, str(error))


def body_of(error: ApiError, version: int) -> tuple[bytes, bytes]:
    """The body of a refusal and its media type, for an endpoint of a version."""
    if version == 1:
        text = f"{error.status} {REASONS[error.status]}" + (f" - {error.text}" if error.text else "")
        return text.encode("utf-8", "replace") + b"\n", PLAIN
    if version == 2:
        told: dict[str, Any] = {"error": {"message": str(error)[:_LONGEST], "code": error.status}}
        if error.data is not None:
            told["data"] = error.data
        return json.dumps(told).encode(), JSON
    _, body = to_json(error)
    body["error"]["code"] = _WORDS.get(error.status, "failed")
    body["error"]["field"] = error.field
    return json.dumps(body).encode(), JSON
