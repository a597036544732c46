"""The exchange of the demonstration: its books count everything once; all of it with real nodes if asked."""

from __future__ import annotations

from pathlib import Path

import pytest

from lab.demos import exchange, teller

ADA = "address of ada"
GIVEN = {
    "kind": "address",
    "id": "7.1",
    "txid": "aa",
    "address": ADA,
    "outputs": [{"uxid": "01", "coins": "1.5"}, {"uxid": "02", "coins": "0.000001"}],
}
DUE = {"kind": "transaction", "id": "8.0", "txid": "aa"}


def test_amounts() -> None:
    """Texts and droplets, without a float in between."""
    for text, amount in (("12.500000", 12_500_000), ("0.000001", 1), ("7", 7_000_000)):
        assert teller.droplets(text) == amount
        assert teller.droplets(teller.coins(amount)) == amount


def test_counted_once(tmp_path: Path) -> None:
    """A deposit is credited when it is due and not before, and once, though its events come again; the place
    in the books is that of the last event."""
    books = teller.open_books(str(tmp_path / "books.db"))
    books.execute("INSERT INTO customer VALUES ('ada', ?, 0)", (ADA,))

    def owned() -> int:
        return int(books.execute("SELECT droplets FROM customer").fetchone()[0])

    teller.note(books, {ADA: "ada"}, GIVEN)
    assert owned() == 0
    for event in (DUE, GIVEN, DUE):
        teller.note(books, {ADA: "ada"}, event)
        assert owned() == 1_500_001
    assert books.execute("SELECT id FROM place").fetchall() == [("8.0",)]
    books.close()


@pytest.mark.long
def test_exchange() -> None:
    """The demonstration holds, and says so."""
    report = exchange.once()
    assert report["ok"], report
    assert "all checks hold" in exchange.told(report)
