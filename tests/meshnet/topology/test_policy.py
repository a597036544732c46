"""Path policies: what is understood, and how a mistake is told."""

from __future__ import annotations

import contextlib

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.topology.policy import PRESETS, PolicyError, Prefer, parse_policy
from tests.support.topology import key, lookup


class Rules(SynchronousTestCase):
    """Texts that are right."""

    def test_chain(self) -> None:
        """Every rule of a chain is read, in its unit."""
        policy = parse_policy(
            "prefer throughput; countries cn > HK>JP; avoid n1,n2; min_hops 4;max_hops 6; max_delay 80; "
            "max_loss 1; min_capacity 8; price_cap 100; disjoint 2; apart; onion_keys; avoid_countries ru,us",
            lookup,
        )
        self.assertEqual(policy.prefer, Prefer.THROUGHPUT)
        self.assertEqual(policy.countries, ("CN", "HK", "JP"))
        self.assertEqual(policy.avoid, {key(1).public, key(2).public})
        self.assertEqual((policy.min_hops, policy.max_hops, policy.disjoint), (4, 6, 2))
        self.assertEqual((policy.max_delay, policy.max_loss, policy.min_capacity), (0.08, 0.01, 1e6))
        self.assertEqual(policy.avoid_countries, {"RU", "US"})
        self.assertTrue(policy.apart and policy.onion_keys)

    def test_presets(self) -> None:
        """A preset is what it is alone, and is refined by what follows."""
        for word, preset in PRESETS.items():
            self.assertEqual(parse_policy(word, lookup).prefer, preset.prefer)
        private = parse_policy("private; max_hops 5", lookup)
        self.assertEqual((private.apart, private.guarded, private.max_hops), (True, True, 5))

    def test_pin(self) -> None:
        """Pinned relays keep their order."""
        self.assertEqual(parse_policy("pin n3,n1", lookup).pin, (key(3).public, key(1).public))


class Mistakes(SynchronousTestCase):
    """Texts that are wrong."""

    def test_place_and_reason(self) -> None:
        """The character and the reason are named, with the choices where there are some."""
        for text, said in (
            ("fast; foo 3", "character 7: there is no rule 'foo'; choices: fast, bulk"),
            ("prefer speed", "character 1: a path cannot be preferred for 'speed'; choices: latency"),
            ("max_hops 9", "'9' is not hops from 1 to 8"),
            ("max_hops 3; max_hops 4", "character 13: max_hops is there twice"),
            ("max_hops", "max_hops needs a value: hops"),
            ("avoid bob", "'bob' is not a known name"),
            ("countries DE>Japan", "'JAPAN' is no country"),
            ("max_hops 2; fast", "character 13: the preset fast comes first"),
            ("apart yes", "apart takes no value"),
            ("onion_keys 2", "onion_keys takes no value"),
            ("max_delay nan", "'nan' is not ms from"),
        ):
            with self.assertRaises(PolicyError) as caught:
                parse_policy(text, lookup)
            self.assertIn(said, str(caught.exception), text)

    def test_impossible(self) -> None:
        """Rules that no path can keep together are refused at once."""
        for text in (
            "min_hops 5; max_hops 4",
            "countries DE>JP>CN; max_hops 3",
            "countries DE>JP; avoid_countries JP",
            "countries DE>JP; only_countries DE",
            "pin n1,n2; avoid n2",
            "countries DE>DE; apart",
        ):
            with self.assertRaises(PolicyError, msg=text):
                parse_policy(text, lookup)

    @given(st.text(max_size=60))
    def test_anything(self, text: str) -> None:
        """Any text is a policy or raises PolicyError."""
        with contextlib.suppress(PolicyError):
            parse_policy(text, lookup)
