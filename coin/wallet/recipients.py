"""Who gets what, as text: one payment, or a list of them in a file.

    ADDRESS,COINS          coins such as 12.5; hours are shared out
    ADDRESS,COINS,HOURS    with so many hours

    skycoin:ADDRESS?amount=12.5&hours=3    a payment link; label and message are left out

A file (CSV) has one a line; empty lines and those that begin with # are left out, and so is a first line of
names. Pure: reads no file.
"""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from fractions import Fraction
from typing import Final
from urllib.parse import parse_qsl, urlsplit

from coin.chain.address import NULL, parse_address
from coin.chain.amounts import MOST, parse_coins
from coin.chain.spending import Payment
from meshnet.errors import UsageError

MOST_PAYMENTS: Final = 800
"""Receivers of one transaction: more do not fit into the largest that nodes pass on."""
LARGEST_LIST: Final = 1 << 20
"""Characters of a list."""
ALL: Final = -1
"""As coins: everything."""
_SHARE = re.compile(r"[01](?:\.[0-9]{1,18})?")


def parse_payment(text: str) -> Payment:
    """One; raises UsageError."""
    return _payment([each.strip() for each in text.split(",")])


def parse_link(text: str, scheme: str) -> Payment:
    """A payment link of a coin (the form of BIP 21), which says the amount. Raises UsageError."""
    found = urlsplit(text)
    try:
        asked = dict(parse_qsl(found.query, strict_parsing=True, max_num_fields=20))
    except ValueError:
        raise UsageError(f"{text[:80]!r} is no payment link.") from None
    if found.scheme != scheme or "amount" not in asked:
        raise UsageError(f"{text[:80]!r} is no payment link; write {scheme}:ADDRESS?amount=12.5.")
    required = [name for name in asked if name.startswith("req-")]
    if required:
        raise UsageError(f"The payment link asks for {required[0][:40]}, which is not known here.")
    parts = [found.path, asked["amount"], *([asked["hours"]] if asked.get("hours") else [])]
    return _payment(parts)


def payment_of(address: str, coins: str, hours: int | None) -> Payment:
    """One whose parts are given; `all` as coins is everything. Raises UsageError."""
    owner = parse_address(address)
    if owner == NULL:
        raise UsageError("The null address is nobody's: what goes there is lost.")
    amount = ALL if coins == "all" else parse_coins(coins)
    if hours is not None and not 0 <= hours <= MOST:
        raise UsageError(f"Hours are 0 to {MOST}, not {hours}.")
    return Payment(owner, amount, hours)


def _payment(parts: list[str]) -> Payment:
    if len(parts) not in (2, 3) or (len(parts) == 3 and not re.fullmatch("[0-9]{1,20}", parts[2])):
        shown = ",".join(parts)[:80]
        raise UsageError(f"{shown!r} is no payment; write it as ADDRESS,COINS or ADDRESS,COINS,HOURS.")
    return payment_of(parts[0], parts[1], int(parts[2]) if len(parts) == 3 else None)


def parse_payments(text: str) -> list[Payment]:
    """All of a list; raises UsageError that names the line."""
    if len(text) > LARGEST_LIST:
        raise UsageError(f"A list of payments has at most {LARGEST_LIST} characters.")
    lines: dict[Payment, int] = {}
    reader = csv.reader(text.splitlines())
    try:
        for row in reader:
            parts = [each.strip() for each in row]
            if not any(parts) or parts[0].startswith("#"):
                continue
            if not lines and parts[0].lower() == "address":
                continue
            payment = _payment(parts)
            _fit(payment, lines)
            lines[payment] = reader.line_num
    except (UsageError, csv.Error) as error:
        why = error if isinstance(error, UsageError) else "It is too long."
        raise UsageError(f"Line {reader.line_num}: {why}") from None
    if not 0 < len(lines) <= MOST_PAYMENTS:
        raise UsageError(f"A list has 1 to {MOST_PAYMENTS} payments, not {len(lines)}.")
    return list(lines)


def _fit(payment: Payment, lines: Mapping[Payment, int]) -> None:
    """That a payment of a list goes together with those of the lines before; raises UsageError."""
    if payment.coins == 0:
        raise UsageError("Every receiver gets more than 0 coins.")
    if payment in lines:
        raise UsageError(
            f"It is the payment of line {lines[payment]} again; put them together, or change one amount."
        )
    if not lines:
        return
    before = next(iter(lines))
    if ALL in (payment.coins, before.coins):
        raise UsageError("All of it goes to one receiver.")
    if (payment.hours is None) != (before.hours is None):
        raise UsageError("Hours are given in every line, or in none; then they are shared out.")


def parse_share(text: str) -> Fraction:
    """A share of the hours, 0 to 1, such as 0.25; raises UsageError."""
    if not _SHARE.fullmatch(text) or Fraction(text) > 1:
        raise UsageError(f"{text[:40]!r} is no share; write a number from 0 to 1, such as 0.5.")
    return Fraction(text)
