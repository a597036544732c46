"""A request's way: the order of the checks, what each version says, errors in the Go node's words."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from coin.api.endpoint import Endpoint, Table
from coin.api.settings import ApiSection
from coin.api.status import ALWAYS
from coin.api.table import TABLE
from coin.chain.address import address_text
from coin.store.store import open_store
from meshnet.errors import StorageError, UsageError
from meshnet.limits import COIN_API_BLOCKS, COIN_API_FIELDS, COIN_API_NAMES
from meshnet.storage.files import write_secret
from tests.support.chains import owner, small_chain
from tests.support.coinapi import DISK, HOST, Served

OWNER = address_text(owner(1))
HASH = "ab" * 32


@pytest.fixture(scope="module")
def folder() -> Iterator[Path]:
    """A folder with a store and a password."""
    made = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
    write_secret(DISK, made / "password", b"secret\n")
    yield made
    shutil.rmtree(made)


@pytest.fixture(scope="module")
def make(folder: Path) -> Iterator[Any]:
    """Makes servers over one store."""
    store = open_store(DISK, folder / "chain.db", small_chain())
    yield lambda table=TABLE, **more: Served(store, ApiSection(**{"csrf": False, **more}), table=table)
    store.close()


@pytest.fixture(scope="module")
def node(make: Any) -> Served:
    """One that serves everything."""
    served: Served = make(sets=("READ", "STATUS", "TXN", "NET_CTRL", "STORAGE"))
    return served


def test_order(make: Any, folder: Path) -> None:
    """Password, media type, host, page, token, path, method, set: each told if all before are right."""
    node: Served = make(username="me", password=folder / "password", csrf=True, sets=("STATUS",))
    wrong: dict[str, str] = {"Host": "evil.example", "Origin": "http://evil.example"}
    path = "/api/v2/transaction/verify"

    def ask(headers: dict[str, str], where: str = path, method: str = "POST") -> tuple[int, str]:
        answer = node.connect().ask(method, where, headers, b"{}")
        if "json" in answer.headers["content-type"]:
            return answer.status, answer.json.get("error", {}).get("message", "")
        return answer.status, answer.text.partition(" - ")[2].strip()

    assert ask(wrong) == (401, "Unauthorized")
    wrong["Authorization"] = "Basic bWU6c2VjcmV0"  # me:secret
    assert ask(wrong) == (415, "Unsupported Media Type")
    wrong["Content-Type"] = "application/json; charset=utf-8"
    assert ask(wrong) == (403, "Invalid Host")
    wrong["Host"] = HOST
    assert ask(wrong) == (403, "Invalid Origin or Referer")
    wrong["Origin"] = f"http://{HOST}"
    assert ask(wrong) == ask(wrong, "/nowhere") == (403, "invalid CSRF token")
    answer = node.get("/api/v1/csrf", {"Authorization": wrong["Authorization"]})
    wrong["X-CSRF-Token"] = answer.json["csrf_token"]
    assert ask(wrong, "/nowhere") == (404, "")
    assert ask(wrong, "/api/v1/block") == (405, "")
    assert ask(wrong, path, "DELETE") == (405, "Method Not Allowed")
    assert ask(wrong) == (403, "Endpoint is disabled")
    assert ask(wrong, "/api/v1/blocks") == (403, "Endpoint is disabled")
    assert ask(wrong, "/api/v1/health", "GET")[0] == 200


def test_challenge(make: Any, folder: Path) -> None:
    """Who lacks a password is asked for one."""
    answer = make(password=folder / "password").get("/api/v1/version")
    assert (answer.status, answer.text) == (401, "401 Unauthorized\n")
    assert answer.headers["www-authenticate"] == 'Basic realm="test daemon"'


def test_tokens_over_http(make: Any) -> None:
    """A token is fetched, used, and old after half a minute; where none are asked for there are none."""
    node: Served = make(csrf=True)
    token = {"X-CSRF-Token": node.get("/api/v1/csrf").json["csrf_token"]}
    assert node.post("/api/v1/blocks", headers=token, start=0, end=0).status == 200
    assert node.post("/api/v1/blocks", start=0, end=0).text == "403 Forbidden - invalid CSRF token\n"
    node.reactor_clock.advance(31)
    answer = node.post("/api/v1/blocks", headers=token, start=0, end=0)
    assert answer.text == "403 Forbidden - csrf token expired\n"
    assert node.post("/api/v1/csrf").status == 405
    assert make().get("/api/v1/csrf").status == 404


REFUSALS: list[tuple[str, dict[str, Any], str]] = [
    ("block", {}, "400 Bad Request - should specify one filter, hash or seq"),
    ("block", {"seq": 1, "hash": HASH}, "400 Bad Request - should only specify one filter, hash or seq"),
    ("block", {"verbose": "x"}, "400 Bad Request - Invalid value for verbose"),
    ("block", {"seq": "-1"}, '400 Bad Request - Invalid seq value "-1"'),
    ("block", {"hash": "abcd"}, "400 Bad Request - Invalid hex length"),
    ("block", {"hash": "zz"}, "400 Bad Request - encoding/hex: invalid byte: U+007A 'z'"),
    ("block", {"seq": 1}, "404 Not Found"),
    ("block", {"seq": (1 << 64) - 1}, "404 Not Found"),
    ("block", {"hash": HASH}, "404 Not Found"),
    ("blocks", {}, "400 Bad Request - At least one of seqs or start or end are required"),
    ("blocks", {"seqs": "1", "end": 1}, "400 Bad Request - seqs cannot be used with start or end"),
    ("blocks", {"start": "a"}, '400 Bad Request - Invalid start value "a"'),
    ("blocks", {"end": "1.5"}, '400 Bad Request - Invalid end value "1.5"'),
    ("blocks", {"seqs": "0,x"}, '400 Bad Request - Invalid sequence "x" at seqs[1]'),
    ("blocks", {"seqs": "0,1,0"}, "400 Bad Request - Duplicate sequence 0 at seqs[2]"),
    ("blocks", {"seqs": "0,99999"}, "404 Not Found - block does not exist seq=99999"),
    ("last_blocks", {}, '400 Bad Request - Invalid num value ""'),
    ("last_blocks", {"num": "-1"}, '400 Bad Request - Invalid num value "-1"'),
    ("last_blocks", {"num": 257}, "400 Bad Request - num exceeds the maximum of 256"),
    ("transaction", {}, "400 Bad Request - txid is empty"),
    ("transaction", {"txid": "abcd"}, "400 Bad Request - Invalid hex length"),
    ("transaction", {"txid": HASH}, "404 Not Found"),
    ("transaction", {"txid": HASH, "encoded": "x"}, "400 Bad Request - Invalid value for encoded"),
    (
        "transaction",
        {"txid": "x", "encoded": 1, "verbose": 1},
        "400 Bad Request - verbose and encoded cannot be combined",
    ),
    ("rawtx", {}, "400 Bad Request - txid is empty"),
    ("rawtx", {"txid": "abcdeffedca"}, "400 Bad Request - encoding/hex: odd length hex string"),
    ("rawtx", {"txid": HASH}, "404 Not Found"),
    (
        "transactions",
        {"addrs": "abcd"},
        "400 Bad Request - parse parameter: 'addrs' failed: address "
        '"abcd" is invalid: Invalid address length',
    ),
    (
        "transactions",
        {"addrs": "2kvLEyXwAYvHfJuFCkjnYNRTUfHPyWgVwKk"},
        "400 Bad Request - parse parameter: 'addrs' failed: address "
        '"2kvLEyXwAYvHfJuFCkjnYNRTUfHPyWgVwKk" is invalid: Invalid checksum',
    ),
    (
        "transactions",
        {"confirmed": "x"},
        "400 Bad Request - invalid 'confirmed' value: strconv.ParseBool: parsing \"x\": invalid syntax",
    ),
    (
        "outputs",
        {"addrs": OWNER, "hashes": HASH},
        "400 Bad Request - addrs and hashes cannot be specified together",
    ),
    ("outputs", {"addrs": "x"}, '400 Bad Request - address "x" is invalid: Invalid address length'),
    (
        "outputs",
        {"hashes": "x1"},
        '400 Bad Request - SHA256 hash "x1" is invalid: encoding/hex: invalid byte',
    ),
    ("balance", {}, "400 Bad Request - addrs is required"),
    ("balance", {"addrs": ", ,"}, "400 Bad Request - addrs is required"),
    ("balance", {"addrs": "x"}, '400 Bad Request - address "x" is invalid: Invalid address length'),
    ("uxout", {}, "400 Bad Request - uxid is empty"),
    ("uxout", {"uxid": HASH}, "404 Not Found"),
    ("address_uxouts", {}, "400 Bad Request - address is empty"),
    ("address_uxouts", {"address": "prRXwTcDK24hs6AFxj"}, "400 Bad Request - Invalid address length"),
    ("richlist", {"n": "x"}, "400 Bad Request - invalid n"),
    ("richlist", {"include-distribution": "x"}, "400 Bad Request - invalid include-distribution"),
    ("network/connection", {}, "400 Bad Request - addr is required"),
    ("network/connection", {"addr": "127.0.0.1:4444"}, "404 Not Found"),
    (
        "network/connections",
        {"states": "x"},
        '400 Bad Request - Invalid state in states. Valid states are "pending", "connected" or "introduced"',
    ),
    (
        "network/connections",
        {"direction": "x"},
        '400 Bad Request - Invalid direction. Valid directions are "outgoing" or "incoming"',
    ),
]


@pytest.mark.parametrize(("path", "query", "text"), REFUSALS)
def test_refusals(node: Served, path: str, query: dict[str, Any], text: str) -> None:
    """Status and text as the Go node has them, in plain text with a line's end."""
    answer = node.get(f"/api/v1/{path}", **query)
    assert answer.text.startswith(text) and answer.text.endswith("\n")
    assert answer.status == int(text[:3])
    assert answer.headers["content-type"] == "text/plain; charset=utf-8"
    assert answer.headers["x-content-type-options"] == "nosniff"


PAGES: list[tuple[dict[str, Any], str]] = [
    ({"page": 0}, "page number must be greater than 0"),
    ({"limit": 0}, "page size must be greater than 0"),
    ({"limit": 101}, "transaction page size must be not greater than 100"),
    ({"page": "x"}, "invalid 'page' value: strconv.ParseUint: parsing \"x\": invalid syntax"),
    ({"sort": "up"}, "Unknown sort order"),
]


@pytest.mark.parametrize(("query", "text"), PAGES)
def test_pages(node: Served, query: dict[str, Any], text: str) -> None:
    """The same of version 2, in JSON."""
    answer = node.get("/api/v2/transactions", **query)
    assert (answer.status, answer.json) == (400, {"error": {"message": text, "code": 400}})


@pytest.mark.parametrize(
    ("path", "body", "status", "text"),
    [
        ("v1/injectTransaction", b"", 400, "EOF"),
        ("v1/injectTransaction", b"{", 400, "unexpected EOF"),
        ("v1/injectTransaction", b"{}", 400, "rawtx is required"),
        ("v1/injectTransaction", b'{"rawtx": ""}', 400, "rawtx is required"),
        ("v1/injectTransaction", b'{"rawtx": "xyz"}', 400, "encoding/hex: invalid byte: U+0078 'x'"),
        ("v1/injectTransaction", b'{"rawtx": "00"}', 400, "Not enough buffer data to deserialize"),
        (
            "v1/injectTransaction",
            b'{"rawtx": 1}',
            400,
            "json: cannot unmarshal number into Go struct field InjectTransactionRequest.rawtx "
            "of type string",
        ),
        ("v2/address/verify", b'{"address": ""}', 400, "address is required"),
        ("v2/address/verify", b'{"address": "7apQ7t3PZZXvjTst8G7Uvs7XH4LeM8fBPD"}', 422, "Invalid checksum"),
        ("v2/transaction/verify", b"{}", 400, "encoded_transaction is required"),
        (
            "v2/transaction/verify",
            b'{"encoded_transaction": "00"}',
            400,
            "decode transaction failed: Not enough buffer data to deserialize",
        ),
        ("v2/data", b'{"key": "a"}', 400, "type is required"),
        ("v2/data", b'{"type": "txid"}', 400, "key is required"),
        ("v2/data", b'{"type": "x", "key": "a"}', 400, "unknown storage"),
    ],
)
def test_bodies(node: Served, path: str, body: bytes, status: int, text: str) -> None:
    """Bodies that are wrong."""
    answer = node.connect().ask("POST", f"/api/{path}", {"Content-Type": "application/json"}, body)
    assert answer.status == status
    told = answer.json["error"]["message"] if "v2" in path else answer.text.partition(" - ")[2].strip()
    assert told == text


def test_forms(node: Served) -> None:
    """Fields of a form come before those of the query; a body of another kind is none."""
    path = "/api/v1/balance?addrs=x"
    form = f"addrs={OWNER}".encode()
    kind = {"Content-Type": "application/x-www-form-urlencoded; charset=utf-8"}
    assert node.connect().ask("POST", path, kind, form).status == 200
    assert node.connect().ask("POST", path, {}, form).status == 400
    assert node.connect().ask("GET", path, kind, form).status == 400


def test_bounds(node: Served) -> None:
    """What one question may ask for."""
    query = "&".join(f"a{each}=1" for each in range(COIN_API_FIELDS + 1))
    assert node.get(f"/api/v1/version?{query}").status == 400
    names = ",".join(f"{each:064x}" for each in range(COIN_API_NAMES + 1))
    assert node.post("/api/v1/outputs", hashes=names[: 65 * 1_000 - 1]).status == 200
    assert node.post("/api/v1/outputs", hashes=names).status == 400
    assert node.post("/api/v1/blocks", start=0, end=(1 << 64) - 1).status == 200
    many = ",".join(map(str, range(COIN_API_BLOCKS + 1)))
    assert node.post("/api/v1/blocks", seqs=many).status == 404


def test_unknown(node: Served) -> None:
    """What is no path of the API, in the words of the version it is near to."""
    for path in ("/", "/api/v1/", "/api/v2/nothing", "/api/v1/block/", "/index.html"):
        assert node.get(path).text == "404 Not Found\n"
    assert node.get("/api/v3/nothing").json["error"]["code"] == "not_found"


def _fails(error: Exception) -> Any:
    def act(api: Any, given: Any) -> None:
        raise error

    return act


def test_own_failures(make: Any, caplog: Any) -> None:
    """Our errors are told as such; a fault of the program says nothing of its inside."""
    kinds: dict[str, Exception] = {
        "a": UsageError("No."),
        "b": StorageError("The disk is full."),
        "c": ZeroDivisionError("secret"),
    }
    made = [
        Endpoint("GET", f"/api/v{version}/{name}", ALWAYS, act=_fails(error))
        for name, error in kinds.items()
        for version in (1, 2, 3)
    ]
    node: Served = make(Table(tuple(made)))
    found = {}
    for each in made:
        client = node.connect()
        client.send(f"GET {each.path} HTTP/1.1\r\nHost: {HOST}\r\n\r\n".encode())
        found[each.path] = client.response()
    assert found["/api/v1/a"].text == "400 Bad Request - No.\n"
    assert found["/api/v1/b"].text == "500 Internal Server Error - The disk is full.\n"
    assert found["/api/v1/c"].text == "500 Internal Server Error\n"
    assert found["/api/v2/c"].json == {"error": {"message": "Internal Server Error", "code": 500}}
    assert found["/api/v3/a"].json["error"] == {
        "code": "usage",
        "message": "No.",
        "field": None,
        "details": {},
    }


def test_health(node: Served, make: Any) -> None:
    """Figures of the node that stands still."""
    node.reactor_clock.advance(61.5)
    found = node.get("/api/v1/health").json
    assert found["coin"] == found["fiber"]["name"] == "test"
    assert found["uptime"] == "1m1.5s"
    assert found["blockchain"]["time_since_last_block"].startswith("-")
    assert (found["csrf_enabled"], found["header_check_enabled"]) == (False, True)
    assert found["open_connections"] == 0
    assert node.get("/api/v1/version").json == found["version"]


def test_two_at_one_path() -> None:
    """A path and method stands for one endpoint."""
    one = Endpoint("GET", "/api/v1/a", ALWAYS, act=lambda api, given: 1)
    with pytest.raises(ValueError, match="twice"):
        Table((one,), (one,))
