"""Rates and health of a tunnel, from counts."""

from __future__ import annotations

from apps.vpn.client.health import Health
from apps.vpn.client.rates import Rates


def test_rates() -> None:
    """Over the last second and the last ten; nothing before there are two samples."""
    rates = Rates()
    assert set(rates.describe().values()) == {0}
    rates.sample(0.0, 0, 0)
    assert set(rates.describe().values()) == {0}
    for second in range(1, 31):
        rates.sample(float(second), 1_000 * second, 0 if second < 30 else 500)
    assert rates.describe() == {"in_1s": 1_000, "out_1s": 500, "in_10s": 1_000, "out_10s": 50}
    rates.sample(31.0, 0, 0)  # another interface, whose counts begin anew
    assert rates.describe()["in_1s"] == 0
    rates.clear()
    assert set(rates.describe().values()) == {0}


def test_health() -> None:
    """Nothing is missed while nothing is waited for; what is waited for counts from the first look, or from
    when it was asked for; any sign ends it."""
    health = Health()
    for second in range(5):
        health.look(float(second), 7, outstanding=False)
    assert (health.silent(5.0), health.waits) == (0.0, False)
    for second in range(5, 11):
        health.look(float(second), 7, outstanding=True)
    assert health.silent(10.0) == 5.0
    health.look(10.0, 8, outstanding=False)
    assert health.silent(11.0) == 0.0
    health.ask(11.0)
    health.look(11.5, 8, outstanding=False)
    assert health.silent(12.0) == 1.0
    assert [health.stalled(12.0, rtt) for rtt in (0.0, 0.2, 0.3)] == [True, True, False]
    health.look(12.0, 9, outstanding=False)
    assert not health.waits
