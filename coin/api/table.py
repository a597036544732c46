"""All endpoints together; each group is a module's `ENDPOINTS`."""

from __future__ import annotations

from typing import Final

from coin.api import (
    blocks,
    document,
    events,
    figures,
    histories,
    notes,
    outputs,
    peers,
    sending,
    spending,
    status,
    transactions,
    verifying,
    wallet_paying,
    wallets,
    withdrawals,
)
from coin.api.endpoint import Table

TABLE: Final = Table(
    status.ENDPOINTS,
    blocks.ENDPOINTS,
    transactions.ENDPOINTS,
    outputs.ENDPOINTS,
    figures.ENDPOINTS,
    peers.ENDPOINTS,
    sending.ENDPOINTS,
    verifying.ENDPOINTS,
    notes.ENDPOINTS,
    document.ENDPOINTS,
    histories.ENDPOINTS,
    events.ENDPOINTS,
    spending.ENDPOINTS,
    wallets.ENDPOINTS,
    wallet_paying.ENDPOINTS,
    withdrawals.ENDPOINTS,
)
