"""What `vpn up` asks for, with what the config says."""

from __future__ import annotations

import attrs
import pytest

from apps.vpn.client.routes import Up, wanted
from apps.vpn.settings import Tunnel
from meshnet.cipher.keys import SecretKey
from meshnet.errors import UsageError

EXIT, OTHER, RELAY = (SecretKey(bytes([number]) * 32).public for number in (1, 2, 3))


def test_keys() -> None:
    """A request has the keys of the section, but for `up`."""
    assert {each.name for each in attrs.fields(Tunnel)} - {"up"} == {each.name for each in attrs.fields(Up)}


def test_without_config() -> None:
    """An exit is needed, the rest has defaults."""
    assert wanted(Up(EXIT), None) == Tunnel(EXIT)
    assert wanted(Up(EXIT, killswitch=True, via=()), None) == Tunnel(EXIT, via=(), killswitch=True)
    with pytest.raises(UsageError, match="Which exit"):
        wanted(Up(), None)


def test_with_config() -> None:
    """What is left out is as there; another exit has another way; via and hops replace each other."""
    configured = Tunnel(EXIT, via=(RELAY,), killswitch=True, outside=("lan",))
    assert wanted(Up(), configured) == configured
    assert wanted(Up(dns=False), configured) == attrs.evolve(configured, dns=False)
    assert wanted(Up(EXIT), configured) == configured
    assert wanted(Up(OTHER), configured) == attrs.evolve(configured, exit=OTHER, via=None)
    assert wanted(Up(hops=3), configured) == attrs.evolve(configured, via=None, hops=3)
    picked = attrs.evolve(configured, via=None, hops=3)
    assert wanted(Up(via=(RELAY,)), picked) == configured
    assert wanted(Up(OTHER), picked) == attrs.evolve(picked, exit=OTHER, hops=0)
    assert wanted(Up(split=("10.0.0.0/8",), outside=()), configured).split == ("10.0.0.0/8",)


@pytest.mark.parametrize(
    ("up", "sentence"),
    [
        (Up(EXIT, via=(RELAY,), hops=2), "Via and hops are two ways"),
        (Up(EXIT, via=(EXIT,)), "."),
        (Up(EXIT, split=("10.0.0.0/8",), outside=("lan",)), "With split all else is outside"),
        (Up(EXIT, split=("lan",)), "Split names networks"),
    ],
)
def test_refused(up: Up, sentence: str) -> None:
    """What makes no sense together is a sentence."""
    with pytest.raises(UsageError, match=rf"^[A-Z].*{sentence[1:]}.*\.$"):
        wanted(up, None)
