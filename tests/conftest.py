"""What all tests share: plugins/ on twisted's plugin path, the hypothesis profile, `--long`."""

from __future__ import annotations

from pathlib import Path

import pytest
import twisted.plugins
from hypothesis import HealthCheck, settings

ROOT = Path(__file__).resolve().parent.parent
if str(ROOT / "plugins") not in twisted.plugins.__path__:
    twisted.plugins.__path__.append(str(ROOT / "plugins"))

settings.register_profile(
    "mesh",
    print_blob=True,
    deadline=None,
    max_examples=50,
    database=None,
    suppress_health_check=[HealthCheck.too_slow],
)
settings.register_profile("long", settings.get_profile("mesh"), max_examples=1000)


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--long", action="store_true", help="more examples, larger simulations")


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "long: only with --long")
    settings.load_profile("long" if config.getoption("--long") else "mesh")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves `long` tests out (deselected, not skipped) unless asked for."""
    if config.getoption("--long"):
        return
    slow = [item for item in items if item.get_closest_marker("long")]
    if slow:
        config.hook.pytest_deselected(items=slow)
        items[:] = [item for item in items if item not in slow]
