"""Whatever is kept goes through meshnet/storage; nothing else writes, renames or opens a database."""

from __future__ import annotations

import pytest

from tests.support.sources import INSTALLED, ROOT, python_files
from tests.support.writes import writes


def test_only_storage_writes() -> None:
    """No other installed file opens a file for writing, renames, removes, or opens SQLite."""
    found = [
        sentence for path in python_files(*INSTALLED) for sentence in writes(path, (ROOT / path).read_text())
    ]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    "source",
    [
        "open(path, 'w')",
        "open(path, mode='ab')",
        "open(path, mode)",
        "io.open(path, 'x')",
        "path.open('r+b')",
        "Path(path).open(mode='w')",
        "path.write_text('x')",
        "Path('a').write_bytes(b'x')",
        "path.with_suffix('.tmp').rename(path)",
        "path.replace(other)",
        "path.unlink(missing_ok=True)",
        "(a / b).mkdir()",
        "path.touch()",
        "os.rename(a, b)",
        "os.fsync(descriptor)",
        "os.open(path, os.O_RDWR)",
        "os.open(path, os.O_RDONLY | os.O_CREAT)",
        "os.open(path, flags)",
        "from os import unlink",
        "from os import open",
        "import os.path, shutil",
        "def f():\n    import tempfile",
        "from tempfile import mkstemp",
        "import sqlite3",
        "from sqlite3 import connect",
        "from twisted.python.filepath import FilePath",
        "from twisted.enterprise import adbapi",
    ],
)
def test_writes_are_seen(source: str) -> None:
    """Each way to write without the library is refused, everywhere but in it."""
    for path in ("meshnet/node/a.py", "apps/vpn/a.py", "coin/chain/a.py", "plugins/a.py"):
        assert writes(path, source)
    assert not writes("meshnet/storage/a.py", source)


@pytest.mark.parametrize(
    "source",
    [
        "open(path)",
        "open(path, 'rb')",
        "path.open('rb')",
        "self._disk.unlink(path)",
        "node.disk.rename(a, b)",
        "disk.open(path, 'write')",
        "RealDisk().unlink(path)",
        "text.replace('a', 'b')",
        "moment.replace(hour=1)",
        "session.open(port, now, reader)",
        "stream.write(data)",
        "os.open(os.devnull, os.O_WRONLY)",
        "os.open('/dev/net/tun', os.O_RDWR)",
        "os.open(path, os.O_RDONLY | os.O_CLOEXEC)",
        "os.write(descriptor, data)",
        "import os",
        "from os import urandom",
    ],
)
def test_reading_is_allowed(source: str) -> None:
    """Reading, the seam itself, and what only sounds alike are allowed."""
    assert not writes("meshnet/node/a.py", source)
