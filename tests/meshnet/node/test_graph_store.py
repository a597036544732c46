"""Where a route service keeps its records: SQLite, and a real PostgreSQL that is killed."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

from twisted.internet.defer import Deferred
from twisted.trial.unittest import SkipTest, SynchronousTestCase

from meshnet.errors import MissingDependencyError, StorageError, UsageError
from meshnet.node import graph_postgres, route_service
from meshnet.node.config import RouteServiceSettings
from meshnet.node.graph_store import GraphStore, open_store
from meshnet.node.route_service import RouteService
from meshnet.storage.disk import RealDisk
from meshnet.storage.quarantine import Quarantine
from meshnet.topology.record import name_of, read
from tests.meshnet.node.test_route_lookup import Face, LookupCase
from tests.support.nodes import new_folder
from tests.support.postgres import PASSWORD, USER, Cluster, why_not
from tests.support.reactors import Threads
from tests.support.topology import data, row


def place(folder: Path) -> Any:
    """A node's directory."""
    disk = RealDisk()
    quarantine = Quarantine(disk, folder / "quarantine", lambda: 0.0)
    return type("Place", (), {"disk": disk, "data": folder, "quarantine": quarantine, "reactor": Threads()})


class StoreCase(SynchronousTestCase):
    """Stores whose threads run at once."""

    def done(self, work: Any) -> Any:
        return self.successResultOf(Deferred.fromCoroutine(work))

    def keeps(self, opened: Any) -> None:
        """What is put is there when it is opened again; what is forgotten or expired is not, nor ever
        again. A later record replaces the one before."""
        store = opened()
        one, two, old = (read(data(n, [row(4)], life=life)) for n, life in ((1, 60), (2, 60), (3, 1)))
        later = read(data(1, [row(5)], life=60, issued=one.issued + 9))
        self.done(store.save([one, two, old], []))
        self.done(store.save([later], [two.name]))
        self.done(store.close())
        store = opened()
        left = [(later.name, later.issued, later.data)]
        self.assertEqual(self.done(store.load(one.issued + 300.0)), left)
        self.assertEqual(self.done(store.load(0.0)), left)
        self.done(store.close())


class Files(StoreCase):
    """SQLite, and what is neither."""

    def test_kept(self) -> None:
        """Records stay; a damaged file costs what is in it."""
        folder = new_folder(self)
        self.keeps(lambda: open_store(place(folder), ""))
        (folder / "routes.sqlite").write_bytes(b"SQLite format 3\0" + bytes(9_000))
        store = open_store(place(folder), "")
        self.assertEqual(self.done(store.load(0.0)), [])
        self.assertTrue(store.notes)
        self.done(store.close())

    def test_other_databases(self) -> None:
        """The URL of another kind of database is refused in a sentence, before anything is made."""
        error = self.assertRaises(UsageError, open_store, place(new_folder(self)), "mysql://db/routes")
        self.assertIn("mysql://", str(error))

    def test_missing_extra(self) -> None:
        """Without the driver one sentence names the extra, with the exit code for it."""
        self.patch(graph_postgres, "psycopg", None)
        error = self.assertRaises(
            MissingDependencyError, open_store, place(new_folder(self)), "postgresql://db/routes"
        )
        self.assertEqual(error.exit_code, 3)
        self.assertIn("meshnet[postgres]", str(error))


class Postgres(StoreCase, LookupCase):
    """A server that runs for these tests."""

    cluster: ClassVar[Cluster | None] = None

    @classmethod
    def setUpClass(cls) -> None:
        if why_not():
            raise SkipTest(why_not())
        cls.cluster = Cluster()

    @classmethod
    def tearDownClass(cls) -> None:
        if cls.cluster is not None:
            cls.cluster.remove()

    def open(self, url: str | None = None) -> GraphStore:
        assert self.cluster is not None
        return open_store(place(new_folder(self)), url or self.cluster.url)

    def stored(self) -> int:
        """How many records the server has."""
        import psycopg

        assert self.cluster is not None
        with psycopg.connect(self.cluster.url) as connection:
            found = connection.execute("SELECT count(*) FROM meshnet_records").fetchone()
        assert found is not None
        return int(found[0])

    def emptied(self) -> None:
        """No table is left of tests before."""
        import psycopg

        assert self.cluster is not None
        with psycopg.connect(self.cluster.url) as connection:
            connection.execute("DROP TABLE IF EXISTS meshnet_records")

    def test_kept(self) -> None:
        """The same as of a file."""
        self.emptied()
        self.keeps(self.open)

    def test_one_service(self) -> None:
        """Two services do not share a graph; when the first has ended the second may have it."""
        self.emptied()
        first, second = self.open(), self.open()
        self.done(first.load(0.0))
        error = self.failureResultOf(Deferred.fromCoroutine(second.load(0.0)), StorageError)
        self.assertIn("another route service", str(error.value))
        self.done(first.close())
        self.assertEqual(self.done(second.load(0.0)), [])
        self.done(second.close())

    def test_no_secret_is_told(self) -> None:
        """Neither where it is kept, nor what is wrong with it, has the password or a part of it."""
        assert self.cluster is not None
        wrong = [
            self.cluster.url.replace("/postgres?", "/nowhere?"),
            self.cluster.url.replace(f"//{USER}:", "//other:"),
        ]
        for url in wrong:
            store = self.open(url)
            error = self.failureResultOf(Deferred.fromCoroutine(store.load(0.0)), StorageError)
            for text in (store.place, str(error.value)):
                self.assertNotIn("Wort", text)
            self.assertIn("cannot be used now", str(error.value))
            self.done(store.close())
        error = self.assertRaises(UsageError, self.open, f"postgresql://{USER}:{PASSWORD}@db/routes")
        self.assertNotIn("Wort", str(error))
        self.assertNotIn("%ss", str(error))

    def again(self) -> RouteService:
        """The service, started anew with its graph in the cluster."""
        self.m.wait(Deferred.fromCoroutine(self.service.stop()))
        self.service = RouteService(
            Face(self.m["bob"], self.m.clock, None),  # type: ignore[arg-type]
            self.of("bob"),
            RouteServiceSettings(),
            self.open(),
        )
        self.service.start()
        self.m.wait(self.service.asked())
        return self.service

    def test_killed(self) -> None:
        """The server is killed: the service says so, answers on, and writes all of it when the server is
        back, also what changed meanwhile, and also if the server has lost what it had."""
        assert self.cluster is not None
        self.emptied()
        self.start()
        service = self.again()
        self.m.network.run(route_service.SAVE + 1.0)
        self.assertGreaterEqual(self.stored(), 4)
        self.assertEqual(service.status()["notes"], [])
        self.cluster.kill()
        bob = self.of("bob")
        bob._due, bob._tokens = 0.0, 4.0
        self.m.network.run(route_service.SAVE + 1.0)
        (note,) = service.status()["notes"]
        self.assertIn("goes on with what it has in memory", note)
        self.sync.start()
        self.until(lambda: self.sync.services[0].looks == 1)
        self.assertTrue(self.of("alice").book.issued(name_of(self.m["x3"].public)))
        self.cluster.start()
        self.emptied()
        self.m.network.run(route_service.SAVE + 1.0)
        self.assertEqual(service.status()["notes"], [])
        self.assertEqual(self.stored(), service.status()["records"])
        self.finish()

    def test_down_at_the_start(self) -> None:
        """A service whose server is down starts all the same, and takes what is there when it is up."""
        assert self.cluster is not None
        self.emptied()
        stranger = read(data(77, [row(4)], life=1_440, issued=1_800_000_000))
        store = self.open()
        self.done(store.save([stranger], []))
        self.done(store.close())
        self.cluster.kill()
        self.start()
        service = self.again()
        self.assertTrue(service.status()["notes"])
        self.cluster.start()
        self.m.network.run(2 * route_service.SAVE + 1.0)
        self.assertEqual((service.status()["notes"], service._loaded), ([], True))
        self.assertEqual(self.stored(), service.status()["records"])
        self.finish()
