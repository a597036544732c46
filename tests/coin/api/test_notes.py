"""Notes of programs: kept, bounded, there after a restart, in the Go node's files."""

from __future__ import annotations

import json
import shutil
import tempfile
from pathlib import Path

from twisted.trial.unittest import SynchronousTestCase

from coin.api.notes import Notes
from coin.api.refusals import ApiError
from coin.api.settings import ApiSection
from coin.store.store import open_store
from lab.simulation.disk import PowerCut, SimulatedDisk
from meshnet.errors import StorageError
from meshnet.limits import COIN_API_NOTE_BYTES, COIN_API_NOTES, COIN_API_NOTES_BYTES
from meshnet.storage.files import make_directory, read_file, write_file
from tests.support.chains import small_chain
from tests.support.coinapi import DISK, Served
from tests.support.vectors import vectors

DATA = "/api/v2/data"
FOLDER = Path("/notes")


class OverHttp(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="meshnet-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        store = open_store(DISK, self.folder / "chain.db", small_chain())
        self.addCleanup(store.close)
        self.served = Served(store, ApiSection(csrf=False, sets=("STORAGE",)), folder=self.folder)

    def test_life(self) -> None:
        """Kept, read, replaced, forgotten."""
        for value in ("b", 'b "quoted" é\x00', ""):
            answer = self.served.post(DATA, {"type": "txid", "key": "a", "val": value})
            self.assertEqual((answer.status, answer.json), (200, {}))
            self.assertEqual(self.served.get(DATA, type="txid", key="a").json, {"data": value})
        self.assertEqual(self.served.get(DATA, type="txid").json, {"data": {"a": ""}})
        self.assertEqual(self.served.get(DATA, type="client").json, {"data": {}})
        gone = self.served.connect().ask("DELETE", f"{DATA}?type=txid&key=a")
        self.assertEqual((gone.status, gone.json), (200, {}))
        self.assertEqual(self.served.get(DATA, type="txid").json, {"data": {}})

    def test_refusals(self) -> None:
        """What is not there, and what is no kind of notes."""
        missing = {"error": {"message": "Not Found", "code": 404}}
        self.assertEqual(self.served.get(DATA, type="txid", key="a").json, missing)
        self.assertEqual(self.served.connect().ask("DELETE", f"{DATA}?type=txid&key=a").json, missing)
        told = self.served.get(DATA, type="other").json
        self.assertEqual(told, {"error": {"message": "unknown storage", "code": 400}})
        for query, text in (("", "type is required"), ("?type=txid", "key is required")):
            told = self.served.connect().ask("DELETE", DATA + query).json
            self.assertEqual(told["error"]["message"], text)

    def test_go_files(self) -> None:
        """A file of the Go node is read."""
        (self.folder / "notes").mkdir()
        known = vectors("skycoin/kvstorage/data.json")
        shutil.copy(known, self.folder / "notes" / "client.json")
        self.assertEqual(self.served.get(DATA, type="client").json["data"], json.loads(known.read_text()))


class OnDisk(SynchronousTestCase):
    def setUp(self) -> None:
        self.disk = SimulatedDisk()
        self.notes = Notes(self.disk, FOLDER)

    def test_power_cut(self) -> None:
        """Whenever the power goes, what was acknowledged is there, and what was not is there or not."""
        self.notes.set("txid", "a", "old")
        for operations in range(12):
            disk = self.disk.fork()
            disk.cut_after(operations)
            done = True
            try:
                Notes(disk, FOLDER).set("txid", "a", "new")
            except PowerCut:
                done = False
            for state in disk.crash_states():
                found = Notes(state, FOLDER).all("txid")
                self.assertIn(found, [{"a": "new"}] if done else [{"a": "new"}, {"a": "old"}])
        self.assertTrue(done, "the last one had operations enough")

    def test_bounds(self) -> None:
        """Not too large, not too many, not too much."""
        with self.assertRaises(ApiError) as told:
            self.notes.set("txid", "a", "x" * COIN_API_NOTE_BYTES)
        self.assertEqual(told.exception.status, 413)
        self.notes._kinds["txid"] = {str(each): "" for each in range(COIN_API_NOTES)}
        self.assertRaises(ApiError, self.notes.set, "txid", "one more", "")
        self.notes.set("txid", "1", "changed")
        self.notes._kinds["client"] = {
            str(each): "x" * 60_000 for each in range(COIN_API_NOTES_BYTES // 60_001)
        }
        self.assertRaises(ApiError, self.notes.set, "client", "more", "x" * 60_000)

    def test_damaged(self) -> None:
        """A file that is none is named, and left as it is."""
        for data in (b"", b"[]", b'{"a": 1}', b"\xff"):
            disk = SimulatedDisk()
            make_directory(disk, "/notes")
            write_file(disk, "/notes/txid.json", data)
            self.assertRaises(StorageError, Notes(disk, FOLDER).all, "txid")
            self.assertEqual(read_file(disk, "/notes/txid.json", 100), data)
