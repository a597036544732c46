"""The exit's rules for packets: the same answers as for connections, and a table that the kernel takes."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.destination import Address
from apps.vpn.policy import NAT64, PUBLIC, SPECIAL, Policy, Rule, rule
from apps.vpn.pools import POOL4, POOL6
from apps.vpn.ruleset import Gateway, clauses, special_networks, table, verdict
from tests.support.hosts import hosts_for

TEXTS = (
    *(
        "public",
        "public:25",
        "0.0.0.0/0",
        "[::/0]:443",
        "10.0.0.0/8:80-443",
        "10.1.0.0/16",
        "8.8.8.8",
        "8.0.0.0/7",
    ),
    *(
        "64:ff9b::a00:0/104",
        "64:ff9b::808:808",
        "[fd00::/8]:1-1024",
        "2001:db8::/33",
        "127.0.0.1",
        "9.9.9.9:53",
    ),
    *("example.org", "*.example.org:25"),
)
NETWORKS = (*SPECIAL, NAT64, *(each.network for each in map(rule, TEXTS) if each.network is not None))
EDGES = [address for network in NETWORKS for address in (network[0], network[-1])]
addresses = st.one_of(
    st.sampled_from(EDGES),
    st.integers(0, (1 << 32) - 1).map(IPv4Address),
    st.integers(0, (1 << 128) - 1).map(IPv6Address),
    st.integers(0, (1 << 32) - 1).map(lambda low: IPv6Address(int(NAT64[0]) | low)),
).filter(lambda each: isinstance(each, IPv4Address) or each.ipv4_mapped is None)
lists = st.lists(st.sampled_from(TEXTS).map(rule), max_size=5).map(tuple)
GATEWAY = Gateway("mesh_test", "mtun0", POOL4, POOL6, POOL4[1], POOL6[1])


def rendered(gateway: Gateway, policy: Policy) -> str:
    """The script that puts the table there."""
    return table(gateway, policy).make


class ClauseTests(SynchronousTestCase):
    @given(lists, lists, addresses, st.sampled_from((1, 25, 53, 80, 443, 1_024, 65_535)))
    def test_like_connections(
        self, allow: tuple[Rule, ...], deny: tuple[Rule, ...], address: Address, port: int
    ) -> None:
        """A packet passes if and only if a connection to that address and port, without a name, would."""
        policy = Policy(allow, deny)
        self.assertEqual(verdict(clauses(policy), address, port), not policy.refusal("", address, port))

    def test_without_ports(self) -> None:
        """What has no ports is decided by the rules without ports alone."""
        there = ip_address("8.8.8.8")
        self.assertTrue(verdict(clauses(Policy()), there, None))
        self.assertTrue(verdict(clauses(Policy(deny=(rule("public:25"),))), there, None))
        self.assertFalse(verdict(clauses(Policy((rule("public:443"),))), there, None))
        self.assertFalse(verdict(clauses(Policy(deny=(rule("8.8.8.8"),))), there, None))

    def test_special(self) -> None:
        """The special ranges, IPv4 inside NAT64 too, and nothing twice."""
        nets = special_networks()
        for text in ("10.1.2.3", "169.254.169.254", "::1", "fe80::1", "fc12::1", "64:ff9b::a00:1"):
            self.assertTrue(any(ip_address(text) in net for net in nets), text)
        for text in ("8.8.8.8", "2606:4700::1", "64:ff9b::808:808"):
            self.assertFalse(any(ip_address(text) in net for net in nets), text)
        for one, other in pairwise(nets):
            self.assertFalse(one.version == other.version and one.overlaps(other), (one, other))


class TextTests(SynchronousTestCase):
    def test_names(self) -> None:
        """A name that is not one of an interface cannot get into the text."""
        for bad in ("", "a b", 'x"', "a;b", "x" * 16, "-x"):
            self.assertRaises(ValueError, Gateway, "mesh", bad)
            self.assertRaises(ValueError, Gateway, bad, "mtun0")

    def test_families(self) -> None:
        """A family without a pool is not let in; a fixed source is used where it fits."""
        text = rendered(
            Gateway("mesh", "mtun0", POOL4, None, POOL4[1], None, ip_address("192.0.2.9")), Policy()
        )
        self.assertIn('iifname "mtun0" meta nfproto ipv6 counter name spoofed drop', text)
        self.assertIn("snat ip to 192.0.2.9", text)
        self.assertNotIn("masquerade", text)
        text = rendered(Gateway("mesh", "mtun0", POOL4, POOL6, source=ip_address("192.0.2.9")), Policy())
        self.assertIn(f'ip6 saddr {POOL6} oifname != {{ "mtun0", "lo" }} masquerade', text)

    def test_alone(self) -> None:
        """A machine that forwarded nothing before does not become everybody's router."""
        alone = Gateway("mesh", "mtun0", POOL4, alone=True)
        self.assertIn("\n\t\tdrop\n", rendered(alone, Policy()))
        self.assertNotIn("\n\t\tdrop\n", rendered(GATEWAY, Policy()))


class KernelTests(SynchronousTestCase):
    """In a network namespace; skipped without root."""

    def setUp(self) -> None:
        self.host = hosts_for(self, "nft").add("x")

    def load(self, text: str) -> str:
        """Loads a text; the tables that are there then."""
        self.host.run("nft", "-f", "-", text=text)
        return self.host.run("nft", "list", "ruleset")

    @settings(max_examples=8)
    @given(lists, lists)
    def test_any_policy(self, allow: tuple[Rule, ...], deny: tuple[Rule, ...]) -> None:
        """Whatever the lists, the kernel takes the table."""
        self.assertIn("table inet mesh_test", self.load(rendered(GATEWAY, Policy(allow, deny))))

    def test_replaced_and_removed(self) -> None:
        """Loading it twice leaves one; removing it leaves nothing, also where nothing was."""
        text = rendered(GATEWAY, Policy((PUBLIC,), (rule("public:25"),)))
        self.assertEqual(self.load(text), self.load(text))
        gone = table(GATEWAY, Policy()).unmake
        self.assertEqual((self.load(gone), self.load(gone)), ("", ""))

    def test_many_rules(self) -> None:
        """A list as long as may be, full of overlaps, is one set."""
        many = tuple(rule(str(IPv4Network((0x08000000 + (n << 7), 24), strict=False))) for n in range(4_096))
        text = rendered(GATEWAY, Policy((PUBLIC,), (*many, rule("8.0.0.0/16"))))
        self.assertIn("8.0.0.0/13", self.load(text))
