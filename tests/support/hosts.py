"""Hosts for tests: skipped with a reason where there can be none."""

from __future__ import annotations

from functools import cache
from unittest import SkipTest, TestCase

from lab.namespaces import Hosts, refusal, require
from meshnet.errors import MissingDependencyError


@cache
def _why_not(programs: tuple[str, ...]) -> str:
    try:
        require(*programs)
    except MissingDependencyError as error:
        return str(error)
    return refusal()


def hosts_for(test: TestCase, *programs: str) -> Hosts:
    """Hosts that are removed when the test is over, whatever becomes of it. Skips the test without root, or
    without one of these programs."""
    why = _why_not(programs)
    if why:
        raise SkipTest(why)
    hosts = Hosts()
    hosts.__enter__()
    test.addCleanup(hosts.remove)
    return hosts
