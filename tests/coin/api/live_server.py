"""A coin that makes its own blocks and serves its API, in a process of its own, for outside tools."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

from prometheus_client import CollectorRegistry
from twisted.internet.defer import Deferred

from coin.api.settings import ApiSection
from coin.newchain import chain_file, new_chain
from coin.service import CoinService
from coin.settings import CoinSection, CoinSettings
from coin.wallet import encryption
from coin.wallet.wallet import new_wallet
from meshnet.cipher.keys import SecretKey
from meshnet.node.clock import NodeClock
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import write_secret

SEED = "the first coins of a test"
WALLET = new_wallet(SEED, "test", "test.wlt", 0, 3)
SETS = ("READ", "STATUS", "TXN", "NET_CTRL", "STORAGE")


def service(reactor: Any, folder: Path, port: int, **more: Any) -> CoinService:
    """The coin on a stand-in for a node, its data in `folder`."""
    publisher = SecretKey(b"\7" * 32)
    chain = new_chain("test", 1_000, WALLET.addresses[0], publisher, 1_700_000_000)
    (folder / "test.toml").write_text(chain_file(chain))
    if not (folder / "publisher").exists():
        write_secret(RealDisk(), str(folder / "publisher"), publisher.secret.hex().encode() + b"\n")
    node: Any = SimpleNamespace(
        public_key=SecretKey(b"\5" * 32).public,
        clock=NodeClock(reactor),
        disk=RealDisk(),
        reactor=reactor,
        registry=CollectorRegistry(),
        listen=lambda port, accept: SimpleNamespace(stop=lambda: None),
    )
    section = CoinSection(
        chain=folder / "test.toml",
        data=folder / "data",
        exchange=False,
        publish=folder / "publisher",
        interval=0.1,
        api=ApiSection(listen=("127.0.0.1", port), **{"sets": SETS, **more}),
    )
    return CoinService(node, CoinSettings(section))


def serve(reactor: Any, folder: str, port: int) -> None:
    """Serves until it is ended; with the wallets of `folder/wallets`, where that is there, without keys, and
    with passwords that cost nothing."""
    wallets = Path(folder) / "wallets"
    more: dict[str, Any] = {}
    if wallets.exists():
        encryption._COSTS = dict.fromkeys(encryption._COSTS, 16)  # type: ignore[misc]
        more = {"wallets": wallets, "sets": (*SETS, "WALLET", "INSECURE_WALLET_SEED"), "keys": "none"}
    coin = service(reactor, Path(folder), port, csrf=False, **more)

    async def start() -> None:
        await coin.startService()
        print("ready", flush=True)

    reactor.callWhenRunning(lambda: Deferred.fromCoroutine(start()))
    reactor.addSystemEventTrigger("before", "shutdown", coin.stopService)
    reactor.run()
