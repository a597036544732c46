"""The VPN's long run: its pure parts, and with `--long` a short one."""

from __future__ import annotations

import pytest
from twisted.trial.unittest import SynchronousTestCase

from lab.load.vpn import RELAYS, pauses, shape, soak
from lab.namespaces import refusal


class PartTests(SynchronousTestCase):
    """What needs no root."""

    def test_pauses(self) -> None:
        """Between one echo and the next."""
        self.assertEqual(pauses([1.0, 1.5, 4.0]), [0.5, 2.5])
        self.assertEqual(pauses([1.0]), [])

    def test_shape(self) -> None:
        """Every relay alone joins the client with the exit."""
        made = shape()
        for relay in RELAYS:
            self.assertEqual(set(made.neighbours()[relay]), {"client", "exit"})
        self.assertEqual(len(made.cables), 2 * len(RELAYS))


@pytest.mark.long
def test_a_minute() -> None:
    """Nothing leaks while relays fall, and traffic goes on."""
    why = refusal()
    if why:
        pytest.skip(why)
    report = soak(60.0, 1)
    assert report.leaked == 0 and report.falls
    assert len(report.done) == 6
