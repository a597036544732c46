"""Withdrawals while a real process is killed again and again: each is paid once, as the chain has it."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from http.client import HTTPConnection, HTTPException
from pathlib import Path
from typing import Any

import pytest

from coin.chain.address import address_text
from coin.wallet.keeping import create_wallet
from lab.processes import environment, free_ports
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import make_directory
from tests.coin.api.live_server import WALLET
from tests.support.chains import owner

NAME = "test.wlt"
SERVE = (
    "import sys; from twisted.internet import reactor; from tests.coin.api.live_server import serve; "
    "serve(reactor, sys.argv[1], int(sys.argv[2]))"
)
ORDERS, KILLS, SEED = 12, 8, 1
PATIENCE = 60.0


class Served:
    """The process, ended with the test."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (self.port,) = free_ports(1)
        self.process = self._begin()

    def _begin(self) -> subprocess.Popen[bytes]:
        command = [sys.executable, "-P", "-c", SERVE, str(self.folder), str(self.port)]
        log = (self.folder / "log").open("ab")
        return subprocess.Popen(command, env=environment(), stdout=log, stderr=log)

    def kill(self) -> None:
        """At once, and another is begun."""
        self.process.send_signal(signal.SIGKILL)
        self.process.wait()
        self.process = self._begin()

    def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        """Status and answer; 0 if nobody knows."""
        client = HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            data = None if body is None else json.dumps(body)
            client.request(method, path, data, {"Content-Type": "application/json"})
            answer = client.getresponse()
            return answer.status, json.loads(answer.read())
        except (OSError, HTTPException, ValueError):
            return 0, None
        finally:
            client.close()


@pytest.mark.long
def test_killed_again_and_again() -> None:
    """Every order is asked for until it is confirmed, through kills at random moments: it always has the same
    transaction, and its receiver gets it once."""
    chance = random.Random(SEED)
    print(f"seed {SEED}")
    folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
    make_directory(RealDisk(), str(folder / "wallets"))
    create_wallet(RealDisk(), str(folder / "wallets" / NAME), WALLET)
    served = Served(folder)
    known: dict[str, str] = {}
    confirmed: set[str] = set()
    kills, limit = 0, time.monotonic() + PATIENCE
    next_kill = time.monotonic() + 2.0
    try:
        while len(confirmed) < ORDERS or kills < KILLS:
            assert time.monotonic() < limit, f"{len(confirmed)} of {ORDERS} after {kills} kills"
            for number in range(ORDERS):
                to = [{"address": address_text(owner(100 + number)), "coins": f"{1 + number}"}]
                body: dict[str, Any] = {"id": f"order-{number}", "wallet": NAME, "to": to}
                status, answer = served.ask("POST", "/api/v3/withdrawals", body)
                assert status in (0, 200, 503), answer
                if status == 200:
                    assert known.setdefault(body["id"], answer["txid"]) == answer["txid"], "paid twice"
                    if answer["state"] == "confirmed":
                        confirmed.add(body["id"])
                if kills < KILLS and time.monotonic() > next_kill:
                    served.kill()
                    kills += 1
                    next_kill = time.monotonic() + chance.uniform(0.8, 2.0)
        for number in range(ORDERS):
            path = f"/api/v1/balance?addrs={address_text(owner(100 + number))}"
            status, answer = served.ask("GET", path)
            while status == 0:
                status, answer = served.ask("GET", path)
            assert answer["confirmed"]["coins"] == (1 + number) * 1_000_000
    finally:
        os.kill(served.process.pid, signal.SIGKILL)
        served.process.wait()
        shutil.rmtree(folder, ignore_errors=True)
