"""The floors of the house hold, and the checker sees when they do not."""

from __future__ import annotations

import pytest

from tests.support.layering import violations
from tests.support.sources import INSTALLED, ROOT, python_files


def test_the_house_stands() -> None:
    """No file imports what its floor forbids."""
    found = [
        sentence
        for path in python_files(*INSTALLED, "lab")
        for sentence in violations(path, (ROOT / path).read_text())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("meshnet/link/record.py", "from meshnet.circuit.relay import Hop"),
        ("meshnet/link/record.py", "from ..circuit import relay"),
        ("meshnet/link/record.py", "from meshnet.transports.tcp import Tcp"),
        ("meshnet/circuit/relay.py", "import time"),
        ("meshnet/circuit/relay.py", "def f():\n    from os import urandom"),
        ("meshnet/codec/fields.py", "from meshnet.link import record"),
        ("meshnet/storage/files.py", "import os"),
        ("meshnet/cipher/sphinx.py", "import secrets"),
        ("meshnet/session/session.py", "from twisted.internet.defer import Deferred"),
        ("meshnet/session/session.py", "import prometheus_client"),
        ("meshnet/session/session.py", "from meshnet.session.driver import Driver"),
        ("meshnet/node/node.py", "from apps.vpn import service"),
        ("meshnet/node/node.py", "from twisted.internet import reactor"),
        ("meshnet/node/node.py", "import coin.chain"),
        ("apps/vpn/service.py", "from apps.messaging.envelope import Envelope"),
        ("apps/vpn/service.py", "from lab.processes import start"),
        ("apps/vpn/service.py", "import twisted.internet.reactor"),
        ("meshnet/link/record.py", "from meshnet import circuit"),
        ("coin/chain/rules.py", "import time"),
        ("coin/chain/rules.py", "from coin.store import store"),
        ("coin/replication/network.py", "from twisted.internet.defer import Deferred"),
        ("coin/replication/sync.py", "from coin.store.store import ChainStore"),
        ("coin/replication/peer.py", "from meshnet.node.app import MeshNode"),
        ("coin/service.py", "from apps.vpn import socks"),
        ("apps/vpn/service.py", "from coin.chain import block"),
    ],
)
def test_the_checker_refuses(path: str, source: str) -> None:
    """Each rule has a file that breaks it."""
    assert violations(path, source)


@pytest.mark.parametrize(
    ("path", "source"),
    [
        ("meshnet/link/driver.py", "from twisted.internet.defer import Deferred\nimport os"),
        ("meshnet/link/record.py", "from meshnet.link.lane import Lane\nfrom meshnet import errors"),
        ("meshnet/storage/disk.py", "import os"),
        ("meshnet/cipher/keys.py", "import secrets"),
        ("meshnet/node/router.py", "from meshnet.circuit.table import Circuits"),
        ("meshnet/cli/main.py", "from twisted.internet import reactor"),
        ("apps/vpn/service.py", "from apps.vpn.socks import Socks\nfrom meshnet.node.app import MeshNode"),
        ("lab/processes.py", "from twisted.internet import reactor"),
        ("coin/replication/network.py", "from coin.store.pool import Taken"),
        ("coin/replication/service.py", "from twisted.internet.defer import Deferred"),
        ("coin/chain/rules.py", "from coin.chain.block import Block\nfrom meshnet.errors import MeshError"),
    ],
)
def test_the_checker_allows(path: str, source: str) -> None:
    """What the house allows is not refused."""
    assert not violations(path, source)
