"""What an exit connects to."""

from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from apps.vpn.policy import Policy, is_special, rule


def policy(allow: str = "public", deny: str = "") -> Policy:
    """Lists from words."""
    return Policy(tuple(rule(text) for text in allow.split()), tuple(rule(text) for text in deny.split()))


SPECIAL = (
    "0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 127.0.0.1 127.255.255.254 169.254.169.254 172.16.0.1 172.31.255.255 "
    "192.0.0.1 192.0.2.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1 "
    "255.255.255.255 :: ::1 ::127.0.0.1 fe80::1 fc00::1 fd12:3456::1 ff02::1 2001:db8::1 2001::1 "
    "2002:7f00:1:: 64:ff9b::127.0.0.1 64:ff9b::10.0.0.1 64:ff9b:1::1 100::1 fec0::1 4000::1"
)
PUBLIC = (
    "1.1.1.1 8.8.8.8 9.255.255.255 11.0.0.0 100.63.255.255 100.128.0.0 126.255.255.255 128.0.0.1 "
    "172.15.255.255 172.32.0.0 192.167.255.255 192.169.0.0 223.255.255.255 2606:4700::1111 2a00:1450::1  "
    "64:ff9b::8.8.8.8 2001:4860:4860::8888"
)


@pytest.mark.parametrize("text", SPECIAL.split())
def test_special_addresses(text: str) -> None:
    """Private, loopback, link-local, multicast, reserved, and IPv6 that carries such an IPv4 address."""
    address = ip_address(text)
    assert is_special(address)
    for lists in ("public", "0.0.0.0/0 [::/0]", "public *.example.org example.org"):
        assert policy(lists).refusal("example.org", address, 80) == "private"


@pytest.mark.parametrize("text", PUBLIC.split())
def test_public_addresses(text: str) -> None:
    """The neighbours of special ranges are public."""
    assert not is_special(ip_address(text))
    assert policy().refusal("", ip_address(text), 80) == ""


@pytest.mark.parametrize(
    ("allow", "deny", "name", "address", "port", "verdict"),
    [
        # a private range is open only by its own network
        ("public 127.0.0.0/8", "", "", "127.0.0.1", 80, ""),
        ("127.0.0.0/8", "", "", "127.0.0.1", 80, ""),
        ("127.0.0.0/8", "", "", "8.8.8.8", 80, "not_listed"),
        ("127.0.0.1", "", "", "127.0.0.2", 80, "private"),
        ("10.0.0.0/8:80-443", "", "", "10.1.2.3", 443, ""),
        ("10.0.0.0/8:80-443", "", "", "10.1.2.3", 444, "private"),
        ("[::1]:22", "", "", "::1", 22, ""),
        ("[::1]:22", "", "", "::1", 23, "private"),
        ("::1", "", "", "::1", 23, ""),
        ("fd00::/8", "", "", "fd00::5", 1, ""),
        ("0.0.0.0/0", "", "", "8.8.8.8", 1, ""),
        # an IPv4-mapped address is the address it stands for
        ("public", "", "", "::ffff:127.0.0.1", 80, "private"),
        ("127.0.0.0/8", "", "", "::ffff:127.0.0.1", 80, ""),
        ("public", "8.8.8.8", "", "::ffff:8.8.8.8", 80, "denied"),
        # names are what the client asked for, and open only public addresses
        ("example.org", "", "example.org", "8.8.8.8", 443, ""),
        ("example.org:443", "", "example.org", "8.8.8.8", 80, "not_listed"),
        ("example.org", "", "www.example.org", "8.8.8.8", 80, "not_listed"),
        ("*.example.org", "", "www.example.org", "8.8.8.8", 80, ""),
        ("*.example.org", "", "badexample.org", "8.8.8.8", 80, "not_listed"),
        ("example.org", "", "", "8.8.8.8", 80, "not_listed"),
        ("rebind.example", "", "rebind.example", "192.168.1.1", 80, "private"),
        ("rebind.example 192.168.1.1:81", "", "rebind.example", "192.168.1.1", 80, "private"),
        # deny wins
        ("public", "public:25", "", "8.8.8.8", 25, "denied"),
        ("public", "public:25", "", "8.8.8.8", 26, ""),
        ("public", "8.8.0.0/16", "dns.google", "8.8.8.8", 53, "denied"),
        ("public", "*.ads.example", "x.ads.example", "8.8.8.8", 80, "denied"),
        ("127.0.0.0/8", "127.0.0.1:22", "", "127.0.0.1", 22, "denied"),
        ("", "", "", "8.8.8.8", 80, "not_listed"),
        ("*:443", "", "", "8.8.8.8", 443, ""),
        ("*:443", "", "", "8.8.8.8", 80, "not_listed"),
    ],
)
def test_verdicts(allow: str, deny: str, name: str, address: str, port: int, verdict: str) -> None:
    """Lists, and what they say of an address."""
    assert policy(allow, deny).refusal(name, ip_address(address), port) == verdict


@pytest.mark.parametrize(
    "text",
    [
        *("", "10.0.0.0/33", "10.0.0.0/8:", "10.0.0.0/8:0", "10.0.0.0/8:9-8", "10.0.0.0/8:65536", "a b"),
        *("*.", "1.2.3", "300.1.1.1", "[::1", "[::1]x", "public:x", "public:1-2-3", "localhost:80", "a/b"),
        *("*x.org", ":80"),
    ],
)
def test_no_rules(text: str) -> None:
    """What is no rule is refused with a sentence."""
    with pytest.raises(ValueError, match=r"\w"):
        rule(text)


@given(st.text(max_size=40))
def test_any_text(text: str) -> None:
    """Arbitrary text is a rule or a ValueError."""
    try:
        assert rule(text).text == text
    except ValueError:
        pass


@given(st.ip_addresses(), st.integers(1, 65_535))
def test_the_default_opens_no_special_address(address: object, port: int) -> None:
    """For every address: allowed by default exactly if it is public."""
    found = ip_address(str(address))
    verdict = policy().refusal("", found, port)
    mapped = getattr(found, "ipv4_mapped", None)
    assert verdict == ("private" if is_special(mapped or found) else "")
