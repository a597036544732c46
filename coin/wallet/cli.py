"""The verbs `coin wallet …`: files of this machine; balances and payments ask the running node.

Keys never leave the file: a payment is put together and signed here, the node gets it signed. The verbs
themselves are in `file_verbs`, `money_verbs` and `pay_verbs`.
"""

from __future__ import annotations

from typing import Final

from coin.wallet.file_verbs import FILE_VERBS
from coin.wallet.money_verbs import MONEY_VERBS
from coin.wallet.pay_verbs import PAY_VERBS
from meshnet.node.app import Group

VERBS: Final = (*FILE_VERBS, *MONEY_VERBS, *PAY_VERBS)
WALLET: Final = Group("wallet", "wallets in files, as the Go node has them", VERBS)
