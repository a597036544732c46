"""A payment burns what the chain of the node asks, not what the known chain does."""

from __future__ import annotations

from typing import Any

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.address import address_text
from coin.chain.spending import Payment
from coin.wallet.payment import sign_payment
from coin.wallet.wallet import new_wallet


class BurnTests(SynchronousTestCase):
    wallet = new_wallet("a wallet of a test", "test", "test.wlt", 0, 2)

    def fee(self, burn: int) -> int:
        """What a payment out of 1,000 hours burns on a chain with this factor."""
        output = {"coins": "8.000000", "calculated_hours": 1_000, "block_seq": 1, "hash": "11" * 32}
        first = address_text(self.wallet.addresses[0])

        def call(method: str, route: str, body: Any) -> Any:
            if route == "/apps/coin/status":
                return {"burn": burn}
            owned = [output] if body["address"] == first else []
            return {"head_outputs": owned, "outgoing_outputs": []}

        made, plan = sign_payment(self.wallet, Payment(self.wallet.addresses[1], 3_000_000), call)
        self.assertEqual(sum(each.hours for each in made.outputs), 1_000 - plan.fee)
        return plan.fee

    def test_of_the_chain(self) -> None:
        """Half of the hours with a factor of 2, a tenth with 10."""
        self.assertEqual([self.fee(burn) for burn in (2, 4, 10)], [500, 250, 100])
