"""A PostgreSQL server of a test's own: made in a temporary directory, reached over a UNIX socket in it.

The server refuses to run as root: where tests do, it gets the user `postgres` of its package. Nothing of the
machine's own clusters is touched.
"""

from __future__ import annotations

import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any
from urllib.parse import quote

USER = "mesh"
PASSWORD = "p%ss/Wort@here"


def programs() -> Path | None:
    """Where the newest server's programs are; None where none is installed."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda each: int(each.parts[4]))
    if found:
        return found[-1].parent
    other = shutil.which("initdb")
    return None if other is None else Path(other).parent


def why_not() -> str:
    """Why no server can be run here; empty if one can."""
    if importlib.util.find_spec("psycopg") is None:
        return "psycopg is not installed"
    if programs() is None:
        return "PostgreSQL is not installed"
    if os.geteuid() == 0:
        try:
            pwd.getpwnam("postgres")
        except KeyError:
            return "there is no user postgres, and PostgreSQL does not run as root"
    return ""


class Cluster:
    """A server that runs until `stop`; `url` leads to its database, with a password that it asks for."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-pg-"))
        found = programs()
        assert found is not None
        self._programs = found
        self._data = self.folder / "data"
        if os.geteuid() == 0:
            shutil.chown(self.folder, "postgres")
        secret = self.folder / "password"
        secret.write_text(PASSWORD)
        secret.chmod(0o644)
        self._run("initdb", "-U", USER, "-A", "scram-sha-256", "--pwfile", str(secret), "-N", "-E", "UTF8")
        self.url = f"postgresql://{USER}:{quote(PASSWORD, '')}@/postgres?host={quote(str(self.folder), '')}"
        self.start()

    def start(self) -> None:
        """Runs; returns when it takes connections."""
        options = f"-k {self.folder} -c listen_addresses= -c fsync=off -c max_connections=10"
        self._run("pg_ctl", "-w", "-l", str(self.folder / "log"), "-o", options, "start")

    def kill(self) -> None:
        """Ends at once, whatever it is doing."""
        self._run("pg_ctl", "-w", "-m", "immediate", "stop")

    def remove(self) -> None:
        """Nothing of it is left."""
        subprocess.run(
            [self._programs / "pg_ctl", "-D", self._data, "-m", "immediate", "stop"],
            capture_output=True,
            **self._user(),
        )
        shutil.rmtree(self.folder, ignore_errors=True)

    def _run(self, program: str, *arguments: str) -> None:
        command = [str(self._programs / program), "-D", str(self._data), *arguments]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=60, **self._user())

    def _user(self) -> dict[str, Any]:
        if os.geteuid() != 0:
            return {"cwd": self.folder}
        return {"user": "postgres", "group": "postgres", "extra_groups": [], "cwd": self.folder}
