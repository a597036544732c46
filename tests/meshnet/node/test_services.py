"""What can be called at a node."""

from __future__ import annotations

import random

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import SecretKey
from meshnet.node.services import Service, Services


class ServiceTests(SynchronousTestCase):
    """Ports and sessions belong to a key."""

    def test_apart(self) -> None:
        """Two services of one node can take the same port, and neither sees what the other has."""
        draw = random.Random("services").randbytes
        one, other = Service(SecretKey.draw(draw)), Service(SecretKey.draw(draw))
        one.ports.listen(7, lambda stream: None)
        other.ports.listen(7, lambda stream: None)
        one.sessions[bytes(16)] = None  # type: ignore[assignment]
        self.assertEqual(other.sessions, {})
        self.assertNotEqual(one.public, other.public)

    def test_own(self) -> None:
        """The node's identity is a service; its secret is not shown."""
        secret = SecretKey.draw(random.Random("own").randbytes)
        services = Services(secret)
        self.assertEqual(services.own.public, secret.public)
        self.assertNotIn(secret.secret.hex(), repr(services.own))
