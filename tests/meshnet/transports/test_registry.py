"""Which transport an address names."""

from __future__ import annotations

from twisted.internet.testing import MemoryReactorClock
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import ConfigError
from meshnet.transports.memory import MemoryTransport
from meshnet.transports.registry import Transports
from meshnet.transports.tcp import TcpTransport


class RegistryTests(SynchronousTestCase):
    """Two transports."""

    def test_find(self) -> None:
        """By the name before the first colon; else the choices are named."""
        reactor = MemoryReactorClock()
        tcp, memory = TcpTransport(reactor), MemoryTransport(reactor)
        transports = Transports([tcp, memory])
        self.assertEqual(transports.names, ["memory", "tcp"])
        self.assertEqual(transports.find("tcp:[::1]:7001"), (tcp, "[::1]:7001"))
        self.assertEqual(transports.find("memory:a:b"), (memory, "a:b"))
        for text in ("", "tcp", "udp:1.2.3.4:5", ":x", "127.0.0.1:7001", "tcp:127.0.0.1", "memory:"):
            error = self.assertRaises(ConfigError, transports.find, text)
            if ":" not in text or text.partition(":")[0] not in ("tcp", "memory"):
                self.assertIn("memory:…, tcp:…", str(error))
