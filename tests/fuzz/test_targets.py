"""Every target meets its seeds, the cases found once, and a few thousand mutations of them."""

from __future__ import annotations

import tracemalloc
from collections.abc import Iterator
from itertools import islice
from random import Random

import pytest

from tests.fuzz.mutations import mutated
from tests.fuzz.registry import TARGETS
from tests.fuzz.target import Finding, Target

SEED = 20_261
SHORT = {
    "handshake": 60,
    "record": 60,
    "create": 150,
    "circuit": 150,
    "cell": 250,
    "items": 150,
    "config": 100,
    "topology-look": 150,
    "topology-talk": 150,
}
USUAL = 400


@pytest.fixture(autouse=True)
def traced() -> Iterator[None]:
    """Memory is measured."""
    tracemalloc.start()
    yield
    tracemalloc.stop()


@pytest.mark.parametrize("name", TARGETS)
def test_seeds(name: str) -> None:
    """The seeds get past the first check: what is fuzzed is not only the door."""
    target = TARGETS[name]
    assert sum(target.measured(seed) for seed in target.seeds())


@pytest.mark.parametrize("name", TARGETS)
def test_kept(name: str) -> None:
    """Inputs that did harm once do none."""
    for _, data in TARGETS[name].kept():
        TARGETS[name].measured(data)


@pytest.mark.parametrize("name", TARGETS)
def test_mutations(name: str) -> None:
    """Mutated inputs raise the declared errors and take the declared memory."""
    target = TARGETS[name]
    print(f"seed {SEED}")
    for data in islice(mutated(target.seeds(), Random(SEED), target.longest), SHORT.get(name, USUAL)):
        target.measured(data)


def _brittle(data: bytes) -> None:
    if data[:1] == b"x" and len(data) > 3:
        raise KeyError("planted")


def test_a_planted_fault_is_found() -> None:
    """The mutation fuzzer finds an error that is not declared, and says by which input."""
    target = Target("planted", _brittle, lambda: [b"xy", b"abcd"])
    with pytest.raises(Finding, match=r"KeyError.*input 78"):
        for data in islice(mutated(target.seeds(), Random(SEED), 100), 2_000):
            target.measured(data)


def test_planted_greed_is_found() -> None:
    """An input that makes a target take too much memory is found."""
    target = Target("greedy", lambda data: bytes(len(data) << 16) and None, lambda: [b"x"], most=1 << 20)
    with pytest.raises(Finding, match="bytes allocated"):
        for data in islice(mutated(target.seeds(), Random(SEED), 100), 2_000):
            target.measured(data)
