"""Which paths are wanted: a chain of rules as text, read and checked.

    prefer latency | throughput | price | hops      what the best path is best at; latency if nothing is said
    countries A>B>C                                 relays in these countries, in this order
    only_countries A,B     avoid_countries X,Y      where relays stand, where they do not
    avoid NODE,NODE                                 nodes that no path enters
    min_hops N   max_hops N                         hops, the last node counted; at most 8
    max_delay MS   max_loss PERCENT   min_capacity MBIT   price_cap UNITS     sums and bounds over the path
    disjoint N                                      so many paths that share no relay
    pin NODE,NODE                                   exactly these relays
    apart                                           never two relays of one operator, /16 or country
    onion_keys                                      relays that state an onion key, which changes, alone
    fast | bulk | private | cheap                   presets, which further rules refine

Rules are separated by semicolons. A node is a key, or a name that the reader's `lookup` knows. What is not
understood raises PolicyError, which says where and why. Prices are units a MiB, summed over the relays.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import Enum
from typing import Any, Final

from attrs import evolve, frozen

from meshnet.cipher.keys import PublicKey
from meshnet.errors import UsageError
from meshnet.limits import HOPS, POLICY_PATHS, POLICY_TEXT

Lookup = Callable[[str], PublicKey]
"""A node by what a person calls it; raises UsageError."""


class PolicyError(UsageError):
    """A rule that is not understood or cannot be right; the message says where."""


class Prefer(Enum):
    """What the best path is best at."""

    LATENCY = "latency"
    THROUGHPUT = "throughput"
    PRICE = "price"
    HOPS = "hops"


@frozen
class Policy:
    """Rules, read. Delay in seconds, loss 0 to 1, capacity in bytes per second, `price_cap` units a MiB;
    None: no such bound. `pin` is None, or the relays in order. `text` is what it was read from."""

    prefer: Prefer = Prefer.LATENCY
    countries: tuple[str, ...] = ()
    only_countries: frozenset[str] = frozenset()
    avoid_countries: frozenset[str] = frozenset()
    avoid: frozenset[PublicKey] = frozenset()
    min_hops: int = 1
    max_hops: int = HOPS
    max_delay: float | None = None
    max_loss: float | None = None
    min_capacity: float | None = None
    price_cap: int | None = None
    disjoint: int = 1
    pin: tuple[PublicKey, ...] | None = None
    apart: bool = False
    onion_keys: bool = False
    guarded: bool = False
    """The first relay behind our neighbour is one of two that are kept for long (`private`)."""
    text: str = ""


PRESETS: Final[dict[str, Policy]] = {
    "fast": Policy(prefer=Prefer.LATENCY),
    "bulk": Policy(prefer=Prefer.THROUGHPUT),
    "private": Policy(min_hops=4, apart=True, guarded=True),
    "cheap": Policy(prefer=Prefer.PRICE),
}
DEFAULT: Final = Policy(text="")

_FLAGS: Final = ("apart", "onion_keys")
_COUNTRY = re.compile(r"[A-Z]{2}")


def parse_policy(text: str, lookup: Lookup) -> Policy:
    """Reads a chain of rules; empty text is the default. Raises PolicyError."""
    if len(text) > POLICY_TEXT:
        raise PolicyError(f"A policy has at most {POLICY_TEXT} characters, and this one has {len(text)}.")
    policy, said = DEFAULT, set()
    start = 0
    for part in text.split(";"):
        rule = part.strip()
        place = start + len(part) - len(part.lstrip()) + 1
        start += len(part) + 1
        if not rule:
            continue
        word, _, value = rule.partition(" ")
        if word in said:
            raise PolicyError(f"Policy, character {place}: {word} is there twice; say it once.")
        said.add(word)
        try:
            policy = _apply(policy, word, value.strip(), lookup, bool(said - {word}))
        except (ValueError, UsageError) as error:
            raise PolicyError(f"Policy, character {place}: {str(error).rstrip('.')}.") from None
    _check(policy)
    return evolve(policy, text=text.strip())


def _apply(policy: Policy, word: str, value: str, lookup: Lookup, later: bool) -> Policy:
    if word in PRESETS:
        if value:
            raise ValueError(f"{word} takes no value, and {value!r} follows it")
        if later:
            raise ValueError(f"the preset {word} comes first, and what refines it after it")
        return PRESETS[word]
    if word in _FLAGS:
        if value:
            raise ValueError(f"{word} takes no value, and {value!r} follows it")
        flags: dict[str, Any] = {word: True}
        return evolve(policy, **flags)
    rule = _RULES.get(word)
    if rule is None:
        known = ", ".join([*PRESETS, *_FLAGS, *_RULES])
        raise ValueError(f"there is no rule {word[:40]!r}; choices: {known}")
    if not value:
        raise ValueError(f"{word} needs a value: {rule[2]}")
    name, read, _ = rule
    return evolve(policy, **{name: read(value, lookup)})


def _countries(value: str, separator: str) -> tuple[str, ...]:
    found = tuple(part.strip().upper() for part in value.split(separator))
    for code in found:
        if not _COUNTRY.fullmatch(code):
            raise ValueError(f"{code!r} is no country; two letters each, as in DE{separator}JP")
    return found


def _nodes(value: str, lookup: Lookup) -> tuple[PublicKey, ...]:
    return tuple(lookup(part.strip()) for part in value.split(","))


def _number(value: str, low: float, high: float, unit: str) -> float:
    try:
        number = float(value)
    except ValueError:
        number = -1.0
    if not low <= number <= high:
        raise ValueError(f"{value!r} is not {unit} from {low:g} to {high:g}")
    return number


def _whole(value: str, low: int, high: int, unit: str) -> int:
    if not value.isascii() or not value.isdigit() or not low <= int(value[:20]) <= high:
        raise ValueError(f"{value[:40]!r} is not {unit} from {low} to {high}")
    return int(value)


def _prefer(value: str) -> Prefer:
    try:
        return Prefer(value)
    except ValueError:
        choices = ", ".join(each.value for each in Prefer)
        raise ValueError(f"a path cannot be preferred for {value!r}; choices: {choices}") from None


_Read = Callable[[str, Lookup], Any]
_RULES: Final[dict[str, tuple[str, _Read, str]]] = {
    "prefer": ("prefer", lambda text, _: _prefer(text), "latency, throughput, price or hops"),
    "countries": ("countries", lambda text, _: _countries(text, ">"), "as in DE>JP"),
    "only_countries": (
        "only_countries",
        lambda text, _: frozenset(_countries(text, ",")),
        "as in DE,CH",
    ),
    "avoid_countries": (
        "avoid_countries",
        lambda text, _: frozenset(_countries(text, ",")),
        "as in RU,US",
    ),
    "avoid": ("avoid", lambda text, lookup: frozenset(_nodes(text, lookup)), "keys or names"),
    "min_hops": ("min_hops", lambda text, _: _whole(text, 1, HOPS, "hops"), "hops"),
    "max_hops": ("max_hops", lambda text, _: _whole(text, 1, HOPS, "hops"), "hops"),
    "max_delay": ("max_delay", lambda text, _: _number(text, 0.001, 60_000, "ms") / 1e3, "ms, one way"),
    "max_loss": ("max_loss", lambda text, _: _number(text, 0, 100, "a percentage") / 100, "percent"),
    "min_capacity": (
        "min_capacity",
        lambda text, _: _number(text, 0, 1e6, "Mbit/s") * 125_000,
        "Mbit/s",
    ),
    "price_cap": ("price_cap", lambda text, _: _whole(text, 0, 1 << 32, "units a MiB"), "units a MiB"),
    "disjoint": ("disjoint", lambda text, _: _whole(text, 1, POLICY_PATHS, "paths"), "how many"),
    "pin": ("pin", lambda text, lookup: _nodes(text, lookup), "keys or names, in order"),
}


def _check(policy: Policy) -> None:
    """What no single rule shows."""
    if policy.min_hops > policy.max_hops:
        raise PolicyError(
            f"Policy: min_hops {policy.min_hops} is more than max_hops {policy.max_hops}; no path has both."
        )
    if len(policy.countries) >= policy.max_hops:
        raise PolicyError(
            f"Policy: {len(policy.countries)} countries need as many relays, which max_hops "
            f"{policy.max_hops} leaves no room for; the last hop is not one."
        )
    barred = [
        code
        for code in policy.countries
        if code in policy.avoid_countries or (policy.only_countries and code not in policy.only_countries)
    ]
    if barred:
        raise PolicyError(f"Policy: a path shall go through {barred[0]}, and no relay may stand there.")
    if policy.pin is not None:
        if len(policy.pin) >= HOPS:
            raise PolicyError(f"Policy: pin names {len(policy.pin)} relays; a path has at most {HOPS - 1}.")
        both = policy.avoid & set(policy.pin)
        if both:
            raise PolicyError(f"Policy: {next(iter(both)).hex()} is pinned and to be avoided.")
    if policy.apart and len(set(policy.countries)) < len(policy.countries):
        raise PolicyError("Policy: apart allows each country once, and countries names one twice.")
