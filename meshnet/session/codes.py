"""Codes of RESET, STOP and CLOSE, and the errors they become for the one who reads them.

Codes travel as varints (docs/wire-format.md §5). Below 16 they end one stream, from 16 on the session;
an app's own codes start at 256.
"""

from __future__ import annotations

from enum import IntEnum

from meshnet.errors import MeshError, ProtocolError, RefusedError, RemoteError, UnreachableError


class Code(IntEnum):
    """Why a stream or a session ended."""

    NONE = 0
    REFUSED = 1  # nothing listens on that port, or not for this caller
    CANCELLED = 2  # the other side is not interested any more
    TOO_MANY = 3  # streams open
    INTERNAL = 4  # the app on the other side failed
    UNREACHABLE = 5  # what the stream was to be passed on to did not answer

    MALFORMED = 16  # items that cannot be read
    FLOW_CONTROL = 17  # more bytes than the window allows
    STREAM_STATE = 18  # an item that does not fit the state of its stream
    AUTH = 19  # wrong or second AUTH, unknown session
    LIMIT = 20  # too many streams
    GONE = 21  # the node stops or gives the circuit up
    IDLE = 22  # nothing has been going on for long


class StreamResetError(RemoteError):
    """The other side ended a stream; `code` is what it said."""

    def __init__(self, text: str, code: int) -> None:
        super().__init__(text)
        self.code = code


class ForgottenError(UnreachableError):
    """The other end does not know the session any more: a circuit to it stands, but cannot join."""


class SessionFaultError(ProtocolError):
    """The authenticated peer broke a rule; its session is closed with this code. Never leaves the session."""

    def __init__(self, code: Code, text: str) -> None:
        super().__init__(text)
        self.code = code


def stream_error(code: int, port: int) -> MeshError:
    """What a stream to (or from) `port` ends with when the peer's RESET or STOP says `code`."""
    if code == Code.REFUSED:
        return RefusedError(f"the other node refused: port {port} is not open there")
    if code == Code.TOO_MANY:
        return RefusedError(f"the other node refused port {port}: too many streams are open")
    if code == Code.UNREACHABLE:
        return UnreachableError(f"what port {port} of the other node leads to does not answer")
    if code == Code.INTERNAL:
        return StreamResetError(f"the service on port {port} failed", code)
    if code in (Code.NONE, Code.CANCELLED):
        return StreamResetError(f"the other side ended the stream on port {port}", code)
    return StreamResetError(f"the other side ended the stream on port {port} with code {code}", code)


def session_error(code: int, text: str) -> MeshError:
    """What a session and its streams end with when the peer says CLOSE."""
    said = f": {text}" if text else ""
    if code in (Code.NONE, Code.GONE, Code.IDLE):
        return UnreachableError(f"the other node closed the session{said}")
    if code == Code.AUTH:
        return RefusedError(f"the other node does not believe who we are{said}")
    return RemoteError(f"the other node closed the session with code {code}{said}")
