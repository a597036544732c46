"""docs/wire-format.md has the numbers of the code: frames, TLVs, reasons, items, codes, limits."""

from __future__ import annotations

import re
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import attrs
import pytest

from apps.vpn import datagrams, lease
from apps.vpn import messages as exit_messages
from apps.vpn.mesh.network import MESH_PORT
from apps.vpn.packets import virtio
from meshnet import limits
from meshnet.cipher import address, bolt8, onion_error, sphinx
from meshnet.circuit import created, tail
from meshnet.circuit import messages as circuit
from meshnet.codec.fields import Fixed, Int, Rest, Tlv
from meshnet.errors import Reason
from meshnet.link import frame
from meshnet.node import lan
from meshnet.session import items, keys
from meshnet.session.codes import Code
from meshnet.topology import beacon, invite, record
from meshnet.topology import frames as spoken
from tests.docs.pages import ROOT, number, page, plain, section, table, tables

PAGE = page("docs/wire-format.md")
MESSAGES: dict[int, Any] = {
    frame.HELLO: frame.Hello,
    frame.PING: frame.Ping,
    frame.PONG: frame.Pong,
    circuit.CREATE: circuit.Create,
    circuit.CREATED: circuit.Created,
    circuit.FAILED: circuit.Failed,
    circuit.DESTROY: circuit.Destroy,
}
CELL = "label u32 · seq u64 · body"
TOPOLOGY = {
    str(spoken.OFFER): ["OFFER", "rows (§9)"],
    str(spoken.ASK): ["ASK", "count u16 · names 8 each"],
    str(spoken.RECORD): ["RECORD", "a link-state record (§9)"],
    str(spoken.DIGEST): ["DIGEST", "level u8 · digests u64 each"],
    str(spoken.SUMMARY): ["SUMMARY", "level u8 · count u16 · buckets u16 each · more u8 · rows (§9)"],
}
LIMITS: dict[str, tuple[str, ...]] = {
    "docs/operations.md": (
        "SECRET_",
        "JOURNAL_",
        "QUARANTINE_",
        "DATABASE_",
        "RESERVE",
        "SPACE_",
        "PASSWORD",
        "LOG_",
    ),
    "docs/rpc.md": ("RPC_",),
    "docs/topology.md": (
        *("LINKS_STATED", "RECORD_", "RECORDS", "OFFER", "ASK_", "SPREAD_", "SUMMARY_", "BUCKETS", "POLICY_"),
        *("SUSPECTS", "PATHS_", "THROUGH_", "INVITE_", "LAN_", "BEACON_"),
        *("SYNC_", "ROUTE_QUESTIONS", "TRAILS", "WAYS_MEASURED"),
    ),
    "docs/coin-api.md": ("COIN_API_",),
    "docs/coin.md": ("COIN_",),
}


def part(heading: str) -> str:
    """One section of the page, by its number."""
    title = re.search(rf"^## {re.escape(heading)}\. .*$", PAGE, re.MULTILINE)
    assert title is not None
    return section(PAGE, title[0])


def kind_text(kind: Any) -> str:
    """A kind of field as the page writes it."""
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[1]
    if isinstance(kind, Int):
        return f"u{kind.size * 8}"
    if isinstance(kind, Fixed):
        return f"{kind.size:,}"
    if isinstance(kind, Rest):
        return f"≤ {kind.maximum:,}"
    raise AssertionError(f"how is {kind!r} written?")


def fields(cls: Any) -> list[tuple[str, Any]]:
    """Names and annotations of a message, in its order."""
    hints = get_type_hints(cls, include_extras=True)
    return [(field.name, hints[field.name]) for field in attrs.fields(cls)]


def layout(cls: Any) -> str:
    """The body of a message as the page writes it."""
    return " · ".join(f"{name} {kind_text(hint)}" for name, hint in fields(cls))


def tlvs(cls: Any) -> list[list[str]]:
    """Number, name and value of each TLV."""
    found = []
    for name, hint in fields(cls):
        (tlv,) = [extra for extra in get_args(hint) if isinstance(extra, Tlv)]
        found.append([str(tlv.number), name, kind_text(tlv.kind)])
    return found


def test_frames() -> None:
    """Kinds, names and bodies of all frames that are built."""
    written = {row[0]: row[1:] for row in table(part("2"), "kind", "frame", "body")}
    built = {kind: row for kind, row in written.items() if row[1] != "reserved"}
    expected = {str(kind): [cls.__name__.upper(), layout(cls)] for kind, cls in MESSAGES.items()}
    expected |= {
        str(frame.PAD): ["PAD", "any bytes"],
        str(circuit.CELL_FORWARD): ["CELL forward", CELL],
        str(circuit.CELL_BACKWARD): ["CELL back", CELL],
    }
    expected |= TOPOLOGY
    assert built == expected
    assert frame.CELL == circuit.CELL_FORWARD
    assert f"(`0x{frame.MARKED:02x}`)" in part("2")
    assert f"version is {frame.VERSION};" in part("2")


def test_hello_tail() -> None:
    """What follows HELLO."""
    assert [row[:3] for row in table(part("2"), "type", "name", "value")] == tlvs(frame.HelloTail)


def test_link_state() -> None:
    """The fields of a record and of its links, in order and with their sizes, and what they add up to."""
    of_record, of_link, of_invite, of_beacon = [
        body for head, body in tables(part("9")) if head[:2] == ["field", "size"]
    ]
    for rows, cls in ((of_record, record.Statement), (of_link, record.LinkRow)):
        assert [row[0] for row in rows] == [name for name, _ in fields(cls)]
        for row, (_, kind) in zip(rows, fields(cls), strict=True):
            assert row[1] == ("u16 count" if row[0] == "links" else signed_text(kind)), row
    assert "166 bytes and 26 for each link" in part("9") and record.LARGEST == 166 + 26 * limits.LINKS_STATED
    assert f"tag `{record.TAG.decode()}`" in part("9")
    body = [(name, signed_text(kind)) for name, kind in fields(invite.Body)[:3]]
    assert [tuple(row[:2]) for row in of_invite[:3]] == body
    assert [row[0] for row in of_invite[3:]] == ["peers", "signature", "checksum"]
    assert [tuple(row[:2]) for row in of_beacon] == [
        *((name, signed_text(kind)) for name, kind in fields(beacon.Beacon)),
        ("signature", "64"),
    ]
    assert f"port {lan.PORT:,} of {' or '.join(lan.GROUPS.values())}," in " ".join(part("9").split())
    assert f"`{invite.PREFIX}`" in part("9") and f"tag `{invite.TAG.decode()}`" in part("9")


def signed_text(kind: Any) -> str:
    """The same as `kind_text`, of kinds that may be signed."""
    kind = get_args(kind)[1] if get_origin(kind) is Annotated else kind
    return f"i{kind.size * 8}" if getattr(kind, "signed", False) else kind_text(kind)


def test_acts() -> None:
    """The three acts add up."""
    sizes = [int(row[3]) for row in table(part("1"), "act", "from", "layout", "size")]
    assert sizes == [bolt8.ACT_ONE_SIZE, bolt8.ACT_TWO_SIZE, bolt8.ACT_THREE_SIZE]
    for row in table(part("1"), "act"):
        pieces = [int(text) for text in re.findall(r" (?:key|tag) (\d+)", row[2])]
        assert 1 + sum(pieces) == int(row[3])


def test_hop_terms() -> None:
    """What an onion tells a hop."""
    assert [row[:3] for row in table(part("3"), "type", "name", "value")] == tlvs(circuit.HopTerms)


def test_hidden_terms() -> None:
    """What a receiver tells the nodes of its tail, and what its address holds."""
    assert [row[:3] for row in table(part("6"), "type", "name", "value")] == tlvs(tail.HiddenTerms)
    assert ", ".join(f"{size:,}" for size in tail.CELLS[:2]) + f" and {tail.CELLS[2]:,}" in part("6")
    assert f"encrypted data {address.DATA_SIZE}" in part("6")
    assert f"BIP 340, {address.SIGNATURE_SIZE} bytes" in part("6")
    assert f"Text of an address**: `{address.PREFIX}`" in part("6")


def test_failure() -> None:
    """The content of an error onion."""
    (unix,) = tlvs(circuit.FailureTerms)
    written = {row[0]: row[1] for row in table(part("3"), "part", "layout")}
    assert written == {
        "code": "u8",
        "text": f"u8 length · UTF-8 ≤ {limits.ERROR_TEXT}",
        "terms": f"TLV {unix[0]} {unix[2]}",
    }
    assert f"{onion_error.ERROR_SIZE} bytes" in part("3")
    assert f"at most {onion_error.FAILURE_SIZE} bytes" in part("3")


def test_reasons() -> None:
    """Every reason with its number."""
    written = [[int(row[0]), plain(row[1])] for row in table(part("3"), "number", "reason")]
    assert written == [[reason.value, reason.name.lower()] for reason in Reason]


def test_sizes_of_set_up() -> None:
    """Onion and slots."""
    text = part("3")
    assert f"{sphinx.ONION_SIZE:,} bytes" in text
    assert f"9 slots of {created.SLOT} bytes, {circuit.SLOTS_SIZE} in all" in text
    assert 9 * created.SLOT == circuit.SLOTS_SIZE


def test_items() -> None:
    """Types and names of all items that are built."""
    written = {
        int(row[0]): row[1] for row in table(part("5"), "type", "item", "body") if row[2] != "reserved"
    }
    assert set(written) == {items.PAD, items.DATA, items.DATA | 1, *items._READERS}
    assert written.pop(items.DATA | 1).startswith("DATA")
    for kind, name in written.items():
        assert getattr(items, name.replace("-", "_")) == kind


def test_auth() -> None:
    """Kinds of AUTH and the sizes of their proofs."""
    written = {int(row[0]): row[2] for row in table(part("5"), "kind", "who", "proof")}
    assert set(written) == {items.AUTH_ANONYMOUS, items.AUTH_CALLER, items.AUTH_JOIN}
    for kind, proof in written.items():
        sizes = [int(text) for text in re.findall(r"(?:key|id|\)) (\d+)", proof)]
        assert sum(sizes) == items._AUTH_SIZES[kind]
    assert f'"{keys.PROLOGUE.decode()}"' in part("5")


def test_codes() -> None:
    """Codes of RESET, STOP and CLOSE, and of the exit's replies."""
    written = [[int(row[0]), plain(row[1])] for row in table(part("5"), "code", "name")]
    assert written == [[code.value, code.name.lower()] for code in Code]
    replies = [[int(row[0]), plain(row[1])] for row in table(part("5"), "code", "reply")]
    assert replies == [[code.value, code.name.lower()] for code in exit_messages.Code]
    assert f"Mesh port {exit_messages.EXIT_PORT:,} is an exit" in part("5")
    assert f"Kind {exit_messages.ASSOCIATE} asks for UDP" in part("5")
    assert f"datagram port {datagrams.ANSWERS_PORT:,} of the client" in part("5")
    assert f"Version is {exit_messages.VERSION}." in part("5")


def test_leases() -> None:
    """Messages of the port for packets, and the numbers about them."""
    written = {row[0]: row[1] for row in table(part("5"), "message", "layout") if row[0].isupper()}
    bodies = {kind: (cls, layout_of_lease(cls)) for kind, cls in lease.KINDS.items()}
    assert written == {
        cls.__name__.upper(): f"length u16 · {kind} · {body}" for kind, (cls, body) in bodies.items()
    }
    text = " ".join(part("5").split())
    assert f"Mesh port {lease.PACKETS_PORT:,} is an exit for IP packets" in text
    assert f"is at most {lease.LARGEST_MESSAGE}; up to {lease._APPENDED} bytes" in text
    assert f"Version is {lease.VERSION}." in text
    assert f"from {lease.LEAST_MTU:,} to {lease.MOST_MTU:,}" in text
    assert all(f"{code.value} " in text.partition("Refusals:")[2] for code in lease.RefusalCode)


def test_packets() -> None:
    """The frame of an IP packet, and the port of mesh interfaces."""
    written = {row[0]: row[1] for row in table(part("5"), "frame", "layout")}
    fields = {"B": "u8", "H": "u16"}
    names = ("flags", "gso", "header", "segment", "start", "offset")
    layout = " · ".join(f"{n} {fields[c]}" for n, c in zip(names, virtio._layout.format[1:], strict=True))
    assert written == {"one IP packet": f"size u16 · {layout} · packet"}
    text = " ".join(part("5").split())
    assert f"Mesh port {MESH_PORT:,} is a node's mesh interface" in text
    for gso in (virtio.Gso.TCP4, virtio.Gso.TCP6, virtio.Gso.UDP):
        assert f"{gso.value} (" in text
    assert f"at most {limits.TUN_SEGMENTS}; {virtio.ECN} is added" in text


def layout_of_lease(cls: Any) -> str:
    """The body of such a message; its text has a size before it."""
    if cls is lease.Refuse:
        return "code u8 · text size u8 · text"
    return layout(cls)


@pytest.mark.parametrize("pages", ["docs/wire-format.md", *LIMITS])
def test_limits(pages: str) -> None:
    """Every limit stands on its page with its value, and no limit that is not there."""
    known = {name: value for name, value in vars(limits).items() if name.isupper()}
    written = {plain(row[0]): number(row[1]) for row in table(page(pages), "limit", "value")}
    assert written == {name: value for name, value in known.items() if page_of(name) == pages}


def page_of(limit: str) -> str:
    """Where a limit stands."""
    return next((each for each, names in LIMITS.items() if limit.startswith(names)), "docs/wire-format.md")


def test_citations() -> None:
    """Sources cite sections that are there."""
    there = set(re.findall(r"^## (\d+)\. ", PAGE, re.MULTILINE))
    assert there == {str(each) for each in range(10)}
    for folder in ("meshnet", "apps", "lab", "plugins", "tests"):
        for path in (ROOT / folder).rglob("*.py"):
            for cited in re.findall(r"wire-format\.md §+(\d+)", path.read_text()):
                assert cited in there, f"{path.name} cites §{cited}"
