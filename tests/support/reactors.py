"""A reactor of a test's own: the one of the transports' conformance suite."""

from __future__ import annotations

from meshnet.transports.conformance import PATIENCE, OwnReactor

__all__ = ["PATIENCE", "OwnReactor"]
