"""All targets, by name."""

from __future__ import annotations

from tests.fuzz import (
    circuits,
    codecs,
    coinapi,
    joining,
    links,
    packets,
    requests,
    sessions,
    texts,
    topology,
    wallets,
)
from tests.fuzz.target import Target

MODULES = (links, circuits, sessions, codecs, coinapi, packets, requests, texts, topology, joining, wallets)
TARGETS: dict[str, Target] = {target.name: target for module in MODULES for target in module.TARGETS}
