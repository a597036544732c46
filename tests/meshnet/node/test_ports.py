"""The mesh ports of one node."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import LocalError, UsageError
from meshnet.node.ports import Ports


class PortTests(SynchronousTestCase):
    """Taken and given back."""

    def test_taken_once(self) -> None:
        """A port is taken once at a time; giving it back twice does not take it from its next owner."""
        ports = Ports()
        first = ports.listen(7, lambda stream: None)
        self.assertRaises(LocalError, ports.listen, 7, lambda stream: None)
        first.stop()
        second = ports.listen(7, lambda stream: None)
        first.stop()
        self.assertRaises(LocalError, ports.listen, 7, lambda stream: None)
        second.stop()
        ports.listen(7, lambda stream: None)

    def test_numbers(self) -> None:
        """1 to 65,535."""
        ports = Ports()
        for number in (1, 65_535):
            self.assertEqual(ports.listen(number, lambda stream: None).port, number)
        for number in (-1, 0, 65_536):
            error = self.assertRaises(UsageError, ports.listen, number, lambda stream: None)
            self.assertIn(str(number), str(error))
