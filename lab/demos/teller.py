"""The program of an exchange: hears of deposits, credits them, pays withdrawals. Nothing of ours is in it.

    python teller.py URL BOOKS WALLET CHANGE CONFIRMATIONS KEYFILE

It speaks HTTP to a node and keeps its books in one SQLite file, so any language could do it;
`docs/exchange-api.md` explains it. It may be killed at any moment and started again: where it was stands in
the books, and the books change in one transaction with what made them change. CHANGE is an address of the
wallet that belongs to no customer: else what comes back would be a deposit.

    customer     name, the address that is his, droplets that are his
    deposit      an output that he was given: uxid, txid, customer, droplets; whether it is credited
    withdrawal   id, customer, address, droplets; state: new, sent, confirmed, failed
    place        one row: the id of the last event that is in the books
"""

from __future__ import annotations

import json
import sqlite3
import sys
import threading
import time
from collections.abc import Iterator
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

SCHEMA = """
CREATE TABLE IF NOT EXISTS customer (name TEXT PRIMARY KEY, address TEXT UNIQUE, droplets INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS deposit (
    uxid TEXT PRIMARY KEY, txid TEXT, customer TEXT, droplets INTEGER, credited INTEGER) STRICT;
CREATE TABLE IF NOT EXISTS withdrawal (
    id TEXT PRIMARY KEY, customer TEXT, address TEXT, droplets INTEGER, state TEXT) STRICT;
CREATE TABLE IF NOT EXISTS place (one INTEGER PRIMARY KEY CHECK (one = 1), id TEXT) STRICT;
"""
PAUSE = 0.2


def open_books(path: str) -> sqlite3.Connection:
    """The books; what is committed is on the disk."""
    books = sqlite3.connect(path, timeout=20, isolation_level=None)
    books.execute("PRAGMA journal_mode = WAL")
    books.execute("PRAGMA synchronous = FULL")
    books.executescript(SCHEMA)
    return books


def droplets(text: str) -> int:
    """Coins as text, with six decimals, as a whole number: money is never a float."""
    whole, _, rest = text.partition(".")
    return int(whole) * 1_000_000 + int(rest.ljust(6, "0") or "0")


def coins(amount: int) -> str:
    """The other way."""
    return f"{amount // 1_000_000}.{amount % 1_000_000:06d}"


class Node:
    """A node's API."""

    def __init__(self, url: str, key: str) -> None:
        self.place = urlsplit(url).netloc
        self.headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json"}

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer; raises OSError and HTTPException, after which nobody knows what happened."""
        client = HTTPConnection(self.place, timeout=20)
        try:
            client.request(method, path, None if body is None else json.dumps(body), self.headers)
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())
        finally:
            client.close()

    def events(self, body: Any) -> Iterator[dict[str, Any]]:
        """Server-sent events: lines, of which those that begin with `data:` are events."""
        client = HTTPConnection(self.place, timeout=60)
        try:
            client.request("POST", "/api/v3/events", json.dumps(body), self.headers)
            answer = client.getresponse()
            if answer.status != 200:
                raise HTTPException(answer.read())
            for line in answer:
                if line.startswith(b"data:"):
                    yield json.loads(line[5:])
        finally:
            client.close()


def listen(node: Node, path: str, confirmations: int) -> None:
    """Hears of deposits from where the books end, for ever."""
    books = open_books(path)
    while True:
        owners = dict(books.execute("SELECT address, name FROM customer"))
        (place,) = books.execute("SELECT id FROM place").fetchone() or ("0",)
        wanted = {
            "kinds": ["address", "transaction"],
            "addresses": list(owners),
            "confirmations": confirmations,
            "from": place,
        }
        try:
            for event in node.events(wanted):
                if "id" in event:
                    note(books, owners, event)
        except (OSError, HTTPException, ValueError):
            time.sleep(PAUSE)  # the node is gone for a moment; go on from the place


def note(books: sqlite3.Connection, owners: dict[str, str], event: dict[str, Any]) -> None:
    """What an event changes, and its place, in one transaction: so each counts once."""
    books.execute("BEGIN IMMEDIATE")
    if event["kind"] == "address":
        for each in event["outputs"]:
            row = (each["uxid"], event["txid"], owners[event["address"]], droplets(each["coins"]))
            books.execute("INSERT OR IGNORE INTO deposit VALUES (?, ?, ?, ?, 0)", row)
    elif event["kind"] == "transaction":
        due = "SELECT uxid, customer, droplets FROM deposit WHERE txid = ? AND credited = 0"
        for uxid, customer, amount in books.execute(due, (event["txid"],)).fetchall():
            books.execute("UPDATE deposit SET credited = 1 WHERE uxid = ?", (uxid,))
            books.execute("UPDATE customer SET droplets = droplets + ? WHERE name = ?", (amount, customer))
    books.execute("INSERT OR REPLACE INTO place VALUES (1, ?)", (event["id"],))
    books.execute("COMMIT")


def pay(node: Node, path: str, wallet: str, change: str) -> None:
    """Sends what is to be paid, and looks how it goes, for ever. What was asked is asked again until an
    answer is there: the id makes that safe."""
    books = open_books(path)
    while True:
        rows = books.execute(
            "SELECT id, address, droplets FROM withdrawal WHERE state IN ('new', 'sent') ORDER BY rowid"
        ).fetchall()
        for id, address, amount in rows:
            body = {
                "id": id,
                "wallet": wallet,
                "to": [{"address": address, "coins": coins(amount)}],
                "change": change,
            }
            try:
                status, answer = node.ask("POST", "/api/v3/withdrawals", body)
            except (OSError, HTTPException, ValueError):
                continue
            if status == 200 and answer["state"] != "recorded":
                books.execute("UPDATE withdrawal SET state = ? WHERE id = ?", (answer["state"], id))
        time.sleep(PAUSE)


def main(url: str, path: str, wallet: str, change: str, confirmations: str, key: str) -> None:
    """Both, until it is killed. The key is in a file: command lines can be read by everybody."""
    open_books(path).close()
    node = Node(url, Path(key).read_text().strip())
    threading.Thread(target=listen, args=(node, path, int(confirmations)), daemon=True).start()
    pay(node, path, wallet, change)


if __name__ == "__main__":
    main(*sys.argv[1:])
