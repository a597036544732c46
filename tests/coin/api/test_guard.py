"""Who may ask: passwords, hosts, pages, tokens."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from coin.api.guard import Guard, new_guard
from coin.api.refusals import ApiError
from coin.api.tokens import HEADER, KEY_SIZE, NONCE_SIZE, TOKEN_SECONDS, Tokens

TOKENS = Tokens(b"\1" * KEY_SIZE)
NONCE = b"\2" * NONCE_SIZE


def guard(host: str = "127.0.0.1", **more: Any) -> Guard:
    """A guard on port 6420."""
    given: dict[str, Any] = {"listed": (), "check": True, "pair": None, "tokens": TOKENS, "realm": "test"}
    return new_guard(host, 6420, **{**given, **more})


def refusal(check: Any, *arguments: Any, **headers: str) -> tuple[int, str]:
    """Status and text, or 200 if there is none."""
    known = {name.replace("_", "-").encode(): value.encode() for name, value in headers.items()}
    try:
        check(*arguments, known.get)
    except ApiError as error:
        return error.status, error.text
    return 200, ""


@pytest.mark.parametrize("host", ["127.0.0.1:6420", "localhost:6420", "my.example:443", ""])
def test_own_hosts(host: str) -> None:
    """The address itself, its names, those of the operator, and none at all."""
    assert refusal(guard(listed=["my.example:443"]).check_place, host=host) == (200, "")


@pytest.mark.parametrize("host", ["evil.example", "127.0.0.1", "127.0.0.1:80", "localhost:6420.evil.example"])
def test_other_hosts(host: str) -> None:
    """A page whose own name leads to 127.0.0.1 is turned away."""
    assert refusal(guard().check_place, host=host) == (403, "Invalid Host")
    assert refusal(guard("192.0.2.1").check_place, host=host) == (200, "")
    assert refusal(guard(check=False).check_place, host=host) == (200, "")


@pytest.mark.parametrize("name", ["origin", "referer"])
def test_pages(name: str) -> None:
    """Pages of this server, and no others."""
    check = guard(listed=["my.example:443"]).check_place
    for own in ("http://127.0.0.1:6420", "http://localhost:6420/page?x#y", "https://my.example:443"):
        assert refusal(check, **{name: own}) == (200, "")
    for other in ("http://evil.example", "null", "http://127.0.0.1:6420@evil.example", "http://localhost"):
        assert refusal(check, **{name: other}) == (403, "Invalid Origin or Referer")
    for wrong in ("http://[::1", "127.0.0.1:6420", "http://a\nb", "http://127.0.0.1:x/"):
        assert refusal(check, **{name: wrong}) == (403, "Invalid URL in Origin or Referer header")
    assert refusal(guard("192.0.2.1").check_place, **{name: "http://192.0.2.1:6420"}) == (200, "")
    assert refusal(guard("192.0.2.1").check_place, **{name: "http://127.0.0.1:6420"})[0] == 403


def basic(pair: str) -> str:
    """The header for a user and password."""
    return "Basic " + base64.b64encode(pair.encode()).decode()


def test_passwords() -> None:
    """Only the right pair; and who sends one where none is asked for is told."""
    check = guard(pair=b"me:secret").check_user
    assert refusal(check, authorization=basic("me:secret")) == (200, "")
    for wrong in ("me:", ":secret", "mes:ecret", "me:secretx", "", ":"):
        assert refusal(check, authorization=basic(wrong)) == (401, "")
    assert refusal(check)[0] == refusal(check, authorization="Bearer x")[0] == 401
    assert refusal(check, authorization="Basic !!!")[0] == 401
    free = guard().check_user
    assert refusal(free, authorization=basic("me:secret"))[0] == 401
    assert refusal(free) == refusal(free, authorization=basic(":")) == (200, "")


def test_tokens() -> None:
    """A token is good for half a minute, any number of times, and nobody else's is."""
    token = TOKENS.new(NONCE, 1_000.0)
    assert TOKENS.refusal(token, 1_000.0) == TOKENS.refusal(token, 1_000.0 + TOKEN_SECONDS) == ""
    assert TOKENS.refusal(token, 1_000.1 + TOKEN_SECONDS) == "csrf token expired"
    assert Tokens(b"\3" * KEY_SIZE).refusal(token, 1_000.0) == "invalid CSRF token signature"
    first, _, second = token.partition(".")
    assert TOKENS.refusal(f"{first}.{second[:-1]}", 1_000.0) == "invalid CSRF token signature"
    assert TOKENS.refusal(first, 1_000.0) == TOKENS.refusal("", 0) == "invalid CSRF token"


@given(st.text(max_size=200))
def test_any_token(token: str) -> None:
    """Whatever is sent is refused with a reason."""
    assert TOKENS.refusal(token, 0.0)


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE"])
def test_who_needs_a_token(method: str) -> None:
    """Whatever changes something; where none is asked for, nothing."""
    name = HEADER.decode().replace("-", "_")

    def ask(it: Guard, how: str, **headers: str) -> tuple[int, str]:
        return refusal(lambda header: it.check_token(how, header, 0.0), **headers)

    assert ask(guard(), method) == (403, "invalid CSRF token")
    assert ask(guard(), method, **{name: TOKENS.new(NONCE, 0.0)}) == (200, "")
    assert ask(guard(tokens=None), method) == ask(guard(), "GET") == (200, "")
