"""What a node's program asks of the system before it runs."""

from __future__ import annotations

import resource

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cli.running import raise_file_limit

FILES = resource.RLIMIT_NOFILE


class FileLimitTests(SynchronousTestCase):
    """The limit of open files."""

    def setUp(self) -> None:
        """The limits of this process are as before afterwards."""
        self.soft, self.hard = resource.getrlimit(FILES)
        self.addCleanup(resource.setrlimit, FILES, (self.soft, self.hard))

    def test_raised(self) -> None:
        """It goes up to what is wanted, never beyond what the system grants."""
        low = min(256, self.hard) if self.hard > 0 else 256
        resource.setrlimit(FILES, (low, self.hard))
        granted = raise_file_limit(300)
        self.assertEqual(granted, resource.getrlimit(FILES)[0])
        self.assertEqual(resource.getrlimit(FILES)[1], self.hard)
        self.assertGreaterEqual(granted, low)
        self.assertLessEqual(granted, 300)

    def test_never_lowered(self) -> None:
        """Where more is allowed already, it stays."""
        self.assertEqual(raise_file_limit(1), self.soft)
        self.assertEqual(resource.getrlimit(FILES), (self.soft, self.hard))
