"""What travels on the control API: errors as JSON, and back into exceptions.

An answer is a JSON object; a failure is `{"error": {"code", "message", "field", "details"}}` with an HTTP
status. The code decides which exception the client raises, and with it the exit code of a command.
"""

from __future__ import annotations

from typing import Any, Final

from meshnet.errors import (
    CircuitError,
    LocalError,
    MeshError,
    MissingDependencyError,
    Reason,
    RefusedError,
    StorageError,
    TimedOutError,
    UnreachableError,
    UsageError,
)

LARGEST_BODY: Final = 1 << 20  # bytes of a request
LARGEST_ANSWER: Final = 64 << 20  # bytes a client reads


class NotFoundError(UsageError):
    """No such route."""


class DeniedError(RefusedError):
    """The request may not use this API: wrong token, host or origin."""


_CODES: Final[tuple[tuple[type[MeshError], str, int], ...]] = (
    (NotFoundError, "not_found", 404),
    (DeniedError, "denied", 403),
    (UsageError, "usage", 400),
    (MissingDependencyError, "missing_dependency", 501),
    (RefusedError, "refused", 403),
    (TimedOutError, "timed_out", 504),
    (UnreachableError, "unreachable", 502),
    (StorageError, "storage", 500),
    (LocalError, "local", 409),
    (MeshError, "failed", 500),
)
"""First match wins: subclasses come before what they refine."""


def to_json(error: MeshError) -> tuple[int, dict[str, Any]]:
    """HTTP status and body for an error."""
    code, status = next((code, status) for kind, code, status in _CODES if isinstance(error, kind))
    details: dict[str, Any] = {}
    if isinstance(error, CircuitError):
        code, details = "circuit", {"reason": error.reason.name.lower(), "hop": error.hop}
    message = str(error) or type(error).__name__
    return status, {
        "error": {
            "code": code,
            "message": message,
            "field": getattr(error, "field", None),
            "details": details,
        }
    }


def from_json(answer: Any) -> MeshError:
    """The exception that an error body stands for; never raises."""
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        return MeshError("The node answered something that is no control API answer.")
    code, message = error.get("code"), str(error.get("message") or "The node gave no reason.")
    if code == "circuit":
        return _circuit_error(message, error.get("details"))
    kind = next((kind for kind, name, _ in _CODES if name == code), MeshError)
    return kind(message)


def _circuit_error(message: str, details: Any) -> MeshError:
    details = details if isinstance(details, dict) else {}
    try:
        reason = Reason[str(details.get("reason")).upper()]
    except KeyError:
        return UnreachableError(message)
    hop = details.get("hop")
    return CircuitError(message, reason, hop if isinstance(hop, int) else None)
