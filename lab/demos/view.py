"""What a running node says of itself, and a table of it."""

from __future__ import annotations

from attrs import field, frozen
from prometheus_client.parser import text_string_to_metric_families

from lab.nodes import Node
from meshnet.errors import MeshError


@frozen
class Seen:
    """A node at one moment; counts are totals since its start."""

    name: str
    role: str
    pubkey: str
    metrics: str
    links: int = 0
    circuits: int = 0
    cells_relayed: int = 0
    bytes_relayed: int = 0
    received: int = 0
    sent: int = 0
    dropped: dict[str, int] = field(factory=dict)
    error: str = ""


def look(node: Node) -> Seen:
    """Asks a node; one that does not answer is seen with its error."""
    plan = node.plan
    fixed = (plan.name, plan.role, plan.public.hex(), f"http://{plan.metrics}/metrics")
    try:
        status = node.call("GET", "/status", timeout=5.0)
    except MeshError as error:
        return Seen(*fixed, error=str(error))
    totals = status["totals"]
    return Seen(
        *fixed,
        links=status["links"]["up"],
        circuits=status["circuits"],
        cells_relayed=totals.get("cells_relayed", 0),
        bytes_relayed=totals.get("bytes_relayed", 0),
        received=status["bytes"]["received"],
        sent=status["bytes"]["sent"],
        dropped={reason: count for reason, count in status["dropped"].items() if count},
    )


def parses(text: str) -> bool:
    """Whether this is Prometheus's text format, with something in it."""
    try:
        return any(family.samples for family in text_string_to_metric_families(text))
    except ValueError:
        return False


def table(nodes: list[Seen]) -> list[str]:
    """Aligned lines for a person."""
    head = ("node", "role", "links", "circuits", "cells relayed", "MB in", "MB out", "dropped", "metrics")
    rows = [head]
    for node in nodes:
        dropped = ", ".join(f"{count} {reason}" for reason, count in node.dropped.items()) or "-"
        rows.append(
            (
                node.name,
                node.role,
                str(node.links),
                str(node.circuits),
                f"{node.cells_relayed:,}",
                f"{node.received / 1e6:.1f}",
                f"{node.sent / 1e6:.1f}",
                node.error or dropped,
                node.metrics,
            )
        )
    widths = [max(len(row[place]) for row in rows) for place in range(len(head))]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    ]
