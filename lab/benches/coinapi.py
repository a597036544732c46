"""Bench `coinapi`: what an exchange asks of a node whose chain is large.

A generated chain of 200,000 unspent outputs and 10,000 addresses, one of which 10,000 transactions touch, is
served by a process of its own on one core; this one asks it over loopback, on connections that stay. Times
are those of a client: from sending the question to having read the answer. Before each question about the
supply, the rich list or balances a block comes, so that no answer is one that was kept. Of the last page of
the long history the slower of two is told, version 2's by its number and version 3's by its cursor.
"""

from __future__ import annotations

import json
import selectors
import socket
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256
from http.client import HTTPConnection
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from attrs import define

from coin.chain.address import address_of, address_text
from coin.store.signing import Signing
from coin.store.store import open_store
from coin.wallet.keeping import create_wallet
from coin.wallet.wallet import new_collection
from lab.benches.rows import Options, Row, row_of
from lab.chains import Maker, busy_chain, measured_chain, nobody
from lab.processes import Process, Processes, python
from meshnet.cipher.keys import SecretKey
from meshnet.errors import MeshError
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import make_directory

OUTPUTS, ADDRESSES, BUSY = 200_000, 10_000, 10_000
ASKED = 1_000
"""Addresses of one question about balances."""
CONNECTIONS = 8
OWNED, SPENT = 1_000, 300
"""Outputs of the wallet that pays, and about how many of them a payment takes, which is nearly the most that
fit into a transaction."""
WALLET = "paying.wlt"
PATIENCE = 60.0


@define
class Bench:
    """What is measured with: the served chain, and who makes its next blocks."""

    folder: Path
    port: int
    maker: Maker
    blocks: socket.socket
    client: HTTPConnection
    note: str

    def block(self) -> float:
        """A block with a deposit for nobody number 1 comes; the monotonic time at which it was committed."""
        line = self.maker.block(self.maker.tip(1)).encode().hex().encode()
        self.blocks.sendall(line + b"\n")
        return float(_line(self.blocks))

    def ask(self, path: str, form: dict[str, str] | None = None, body: Any = None) -> tuple[float, Any]:
        """Milliseconds until an answer was read, and its value; of a GET, a form or a JSON body."""
        begun = time.perf_counter()
        if body is not None:
            self.client.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
        elif form is None:
            self.client.request("GET", path)
        else:
            kind = {"Content-Type": "application/x-www-form-urlencoded"}
            self.client.request("POST", path, urlencode(form), kind)
        answer = self.client.getresponse()
        body = answer.read()
        taken = (time.perf_counter() - begun) * 1e3
        if answer.status != 200:
            raise MeshError(f"{path[:60]} was answered with {answer.status}: {body[:200]!r}.")
        return taken, json.loads(body)


def run(options: Options) -> list[Row]:
    """All rows of this bench."""
    samples = 3 if options.quick else 30
    scale = 20 if options.quick else 1
    with tempfile.TemporaryDirectory(prefix="meshnet-") as name, Processes() as processes:
        bench = _start(processes, Path(name), scale)
        rows = [
            _measured(bench, "richlist_ms", samples, _fresh("/api/v1/richlist"), "20 addresses"),
            _measured(bench, "coinsupply_ms", samples, _fresh("/api/v1/coinSupply"), "of a new block"),
            _measured(bench, "balance_1000_addresses_ms", samples, _balances, f"{ASKED} addresses"),
            _measured(
                bench,
                "history_last_page_ms",
                samples,
                _last_page(bench),
                "the slower of v2's 10 and v3's 100 entries",
            ),
            _measured(
                bench,
                "create_transaction_ms",
                samples,
                _payment,
                f"wallet of {OWNED} outputs, {SPENT} of them spent; chosen, signed, checked by all rules",
                100.0,
            ),
            _deposits(bench, samples),
            _requests(bench, 0.5 if options.quick else 3.0, 2 if options.quick else 5),
        ]
        bench.client.close()
        bench.blocks.close()
    return rows


def _start(processes: Processes, folder: Path, scale: int) -> Bench:
    """Makes the chain, a store of it, and the process that serves it."""
    blocks, maker = busy_chain(OUTPUTS // scale, ADDRESSES // scale, BUSY // scale)
    purse = SecretKey(sha256(b"the wallet that pays").digest())
    for _ in range(2):
        blocks.append(maker.block(maker.fill(address_of(purse.public), OWNED // 2, 100_000_000)))
    make_directory(RealDisk(), str(folder / "wallets"))
    wallet = new_collection("paying", WALLET, 0)
    wallet.add(purse)
    create_wallet(RealDisk(), str(folder / "wallets" / WALLET), wallet)
    chain = measured_chain()
    store, signing = open_store(RealDisk(), folder / "chain.db", chain), Signing(chain.seal)
    for at in range(0, len(blocks), 20):
        part = blocks[at : at + 20]
        verdicts = signing.blocks(part)
        added = store.add(part, [each.signed for each in verdicts], [each.refusal for each in verdicts])
        if added.refused is not None:
            raise MeshError(f"a generated block was refused: {added.refused}")
    note = f"{store.unspent_count()} outputs, {store.address_count()} addresses"
    store.close()
    signing.close()
    process = processes.start(
        "served", python("-m", "lab.benches.coinapi_served", str(folder)), folder / "log"
    )
    port = _port(process, folder)
    control = socket.socket(socket.AF_UNIX)
    control.connect(str(folder / "blocks"))
    return Bench(folder, port, maker, control, HTTPConnection("127.0.0.1", port), note)


def _port(process: Process, folder: Path) -> int:
    process.wait_for((folder / "port").exists, PATIENCE, "its port")
    return int((folder / "port").read_text())


def _measured(
    bench: Bench, name: str, samples: int, ask: Callable[[Bench], float], note: str, target: float = 50.0
) -> Row:
    ask(bench)
    found = [ask(bench) for _ in range(samples)]
    return row_of(name, found, "ms", target=target, note=f"{note}; {bench.note}")


def _fresh(path: str) -> Callable[[Bench], float]:
    """A question about a block that has just come."""

    def ask(bench: Bench) -> float:
        bench.block()
        return bench.ask(path)[0]

    return ask


def _balances(bench: Bench) -> float:
    bench.block()
    addresses = ",".join(address_text(nobody(number)) for number in range(ASKED))
    taken, found = bench.ask("/api/v1/balance", {"addrs": addresses})
    assert found["confirmed"]["coins"] > 0
    return taken


def _payment(bench: Bench) -> float:
    """A block comes, then a payment out of the wallet is made; nothing is sent."""
    bench.block()
    body = {
        "wallet_id": WALLET,
        "hours_selection": {"type": "auto", "mode": "share", "share_factor": "0.5"},
        "to": [{"address": address_text(nobody(1)), "coins": str(SPENT * 100)}],
    }
    taken, found = bench.ask("/api/v1/wallet/transaction", body=body)
    assert len(found["transaction"]["inputs"]) > SPENT * 0.9
    return taken


def _last_page(bench: Bench) -> Callable[[Bench], float]:
    """Asks for the last page of a long history, of version 2 by its number, of version 3 by its cursor."""
    text = address_text(nobody(0))
    path = f"/api/v3/addresses/{text}/history?limit=100"
    cursor, page = "", bench.ask(path)[1]
    while page["next"] is not None:
        cursor = page["next"]
        page = bench.ask(f"{path}&cursor={cursor}")[1]
    number = -(-page["total"] // 10)

    def ask(bench: Bench) -> float:
        old, found = bench.ask(f"/api/v2/transactions?addrs={text}&sort=desc&limit=10&page={number}")
        assert found["data"]["txns"]
        return max(old, bench.ask(f"{path}&cursor={cursor}")[0])

    return ask


def _deposits(bench: Bench, samples: int) -> Row:
    """From a block's commit to a client that hears of a deposit, over server-sent events."""
    text = address_text(nobody(1))
    found = []
    with socket.create_connection(("127.0.0.1", bench.port)) as listening:
        path = f"/api/v3/events?kinds=address&addresses={text}"
        listening.sendall(f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode())
        _until(listening, b"event: start")
        for _ in range(samples):
            committed = bench.block()
            found.append((_until(listening, b"event: address") - committed) * 1e3)
    note = f"a block of one payment; one listener on one address; {bench.note}"
    return row_of("deposit_event_ms", found, "ms", target=20.0, note=note)


def _until(listening: socket.socket, mark: bytes) -> float:
    """When a mark came."""
    listening.settimeout(PATIENCE)
    seen = b""
    while True:
        data = listening.recv(65_536)
        now = time.monotonic()
        if not data:
            raise MeshError(f"the events ended: {seen[-200:]!r}")
        seen += data
        if mark in seen and seen.endswith(b"\n\n"):
            return now


def _requests(bench: Bench, seconds: float, samples: int) -> Row:
    """Answers a second to questions for one balance, over a few connections that stay."""
    request = (
        f"GET /api/v1/balance?addrs={address_text(nobody(2))} HTTP/1.1\r\nHost: 127.0.0.1\r\n\r\n".encode()
    )
    size = _size_of_answer(bench.port, request)
    found = [_rate(bench.port, request, size, seconds) for _ in range(samples)]
    note = f"one balance, {CONNECTIONS} connections, server on one core; {bench.note}"
    return row_of("api_requests_per_s", found, "1/s", target=1_500.0, better="higher", note=note)


def _size_of_answer(port: int, request: bytes) -> int:
    with socket.create_connection(("127.0.0.1", port)) as one:
        one.sendall(request)
        data = b""
        while b"\r\n\r\n" not in data or not data.endswith(b"}"):
            data += one.recv(65_536)
        return len(data)


def _rate(port: int, request: bytes, size: int, seconds: float) -> float:
    selector = selectors.DefaultSelector()
    left: dict[int, int] = {}
    for _ in range(CONNECTIONS):
        one = socket.create_connection(("127.0.0.1", port))
        selector.register(one, selectors.EVENT_READ)
        left[one.fileno()] = size
        one.sendall(request)
    answered, begun = 0, time.perf_counter()
    while (now := time.perf_counter()) - begun < seconds:
        for key, _ in selector.select(1.0):
            connection: Any = key.fileobj
            left[key.fd] -= len(connection.recv(65_536))
            if left[key.fd] == 0:
                answered += 1
                left[key.fd] = size
                connection.sendall(request)
    for key in list(selector.get_map().values()):
        key.fileobj.close()  # type: ignore[union-attr]
    selector.close()
    return answered / (now - begun)


def _line(connection: socket.socket) -> bytes:
    data = b""
    while not data.endswith(b"\n"):
        part = connection.recv(4_096)
        if not part:
            raise MeshError("the served node has ended")
        data += part
    return data.strip()
