"""Published test vectors, which lie beside the checkout and are not part of the project.

`vectors("bolt/…")` finds a file under `../shared/vectors`, or under $MESHNET_VECTORS, or skips the test.
"""

from __future__ import annotations

import os
from pathlib import Path
from unittest import SkipTest

ROOT = Path(__file__).resolve().parent.parent.parent


def vectors(name: str) -> Path:
    """The path of a vector file or folder; skips the test where it is absent."""
    base = Path(os.environ.get("MESHNET_VECTORS") or ROOT.parent / "shared" / "vectors")
    if not (base / name).exists():
        raise SkipTest(f"published vectors {name} are not beside the checkout (set MESHNET_VECTORS)")
    return base / name
