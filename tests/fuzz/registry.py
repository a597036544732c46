"""All targets, by name."""

from __future__ import annotations

from tests.fuzz import circuits, codecs, links, sessions, texts
from tests.fuzz.target import Target

TARGETS: dict[str, Target] = {
    target.name: target for module in (links, circuits, sessions, codecs, texts) for target in module.TARGETS
}
