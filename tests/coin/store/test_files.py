"""Chains in files: blocks with checksums, bolt files, the Go node's databases."""

from __future__ import annotations

from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.params import Chain
from coin.chain.rules import BlockError
from coin.chain.skycoin import SKYCOIN
from coin.chain.transaction import Output
from coin.store.blockfile import read_blocks, write_blocks
from coin.store.bolt import PAGE, BoltFile, encode_bolt, read_bolt, write_bolt
from coin.store.feed import feed
from coin.store.gofile import go_buckets, read_go_file, write_go_file
from coin.store.signing import Signing
from coin.store.store import ChainStore, open_store
from meshnet.errors import CodecError, LocalError
from meshnet.storage.disk import CorruptFileError, RealDisk
from tests.support.chains import Ledger, owner, small_chain
from tests.support.vectors import vectors

DISK = RealDisk()


class Files(SynchronousTestCase):
    def setUp(self) -> None:
        self.folder = Path(self.mktemp())
        self.folder.mkdir()

    def open(self, chain: Chain, name: str = "chain.db") -> ChainStore:
        """A store, closed with the test."""
        store = open_store(DISK, self.folder / name, chain)
        self.addCleanup(store.close)
        return store


class BlockFiles(Files):
    def setUp(self) -> None:
        super().setUp()
        self.ledger = Ledger(small_chain(1_000_000_000))
        for _ in range(5):
            self.ledger.add(self.ledger.block(self.ledger.pay(1, Output(owner(1), 1_000_000_000, 0))))
        self.path = self.folder / "blocks"
        write_blocks(DISK, self.path, self.ledger.blocks)

    def test_round(self) -> None:
        """The same blocks come back, and feed a store."""
        self.assertEqual(list(read_blocks(DISK, self.path)), self.ledger.blocks)
        store = self.open(self.ledger.chain)
        heights: list[int] = []
        with_processes = Signing(self.ledger.chain.seal, 0)
        self.assertEqual(feed(store, with_processes, read_blocks(DISK, self.path), heights.append), 5)
        self.assertEqual((store.head, heights), (self.ledger.head, [5]))
        self.assertEqual(feed(store, with_processes, read_blocks(DISK, self.path)), 0, "known ones")

    def test_every_byte_counts(self) -> None:
        """Wherever a byte is changed, or the file cut, it is refused with a sentence."""
        right = self.path.read_bytes()
        for at in (*range(0, len(right), 37), len(right) - 1):
            spoilt = right[:at] + bytes([right[at] ^ 1]) + right[at + 1 :]
            if 12 <= at < 44:
                continue  # the chain's name, which the first block tells again
            self.path.write_bytes(spoilt)
            self.assertRaises(CorruptFileError, list, read_blocks(DISK, self.path))
            self.path.write_bytes(right[:at])
            self.assertRaises(CorruptFileError, list, read_blocks(DISK, self.path))

    def test_another_chain(self) -> None:
        """A store takes no blocks of another chain, and none that break a rule."""
        store = self.open(small_chain(7), "other.db")
        signing = Signing(self.ledger.chain.seal, 0)
        self.assertRaises(LocalError, feed, store, signing, self.ledger.blocks)
        store = self.open(self.ledger.chain)
        spoilt = [*self.ledger.blocks[:3], self.ledger.blocks[3].with_signature(bytes(65))]
        self.assertRaises(BlockError, feed, store, signing, spoilt)
        self.assertEqual(store.head.header.sequence, 2)


class Bolt(Files):
    @settings(max_examples=40, deadline=None)
    @given(
        st.dictionaries(
            st.binary(min_size=1, max_size=20),
            st.dictionaries(st.binary(min_size=1, max_size=300), st.binary(max_size=3 * PAGE), max_size=40),
            max_size=6,
        )
    )
    def test_round(self, buckets: dict[bytes, dict[bytes, bytes]]) -> None:
        """Whatever is written is read again, in the order of keys."""
        file = BoltFile(encode_bolt(buckets))
        self.assertEqual(file.buckets, frozenset(buckets))
        for name, values in buckets.items():
            self.assertEqual(list(file.items(name)), sorted(values.items()))
        self.assertEqual(list(file.items(b"not there at all, not at all")), [])

    def test_branches(self) -> None:
        """A tree of several levels, and values of many pages."""
        values = {number.to_bytes(4, "big") * 16: bytes(number % 900) for number in range(5_000)}
        values[b"large"] = bytes(100_000)
        write_bolt(DISK, self.folder / "b", {b"x": values})
        self.assertEqual(dict(read_bolt(DISK, self.folder / "b").items(b"x")), values)

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_hostile(self, data: st.DataObject) -> None:
        """Damaged bytes give CodecError or other values, nothing else."""
        right = encode_bolt({b"a": {b"k%d" % i: bytes(i) for i in range(200)}, b"b": {}})
        spoilt = bytearray(right)
        for _ in range(data.draw(st.integers(1, 8))):
            spoilt[data.draw(st.integers(0, len(right) - 1))] = data.draw(st.integers(0, 255))
        cut = data.draw(st.integers(0, len(right)))
        try:
            file = BoltFile(bytes(spoilt[: len(right) - cut * data.draw(st.integers(0, 1))]))
            for name in file.buckets:
                list(file.items(name))
        except CodecError:
            pass


class GoFiles(Files):
    def path(self, name: str) -> Path:
        """A database of the vectors."""
        return Path(str(vectors(f"skycoin/db/{name}")))

    def test_all_databases(self) -> None:
        """Those with wrong or missing indexes have all their blocks; others are refused in a sentence."""
        counts = {
            "blockchain-180.db": 181,
            "blockchain-180-no-unconfirmed.db": 181,
            "blockchain-180.no-unspent-addr-index.db": 181,
            "data.db.ok": 11,
            "data.db.notxn": 11,
            "data.db.nouxout": 11,
            "data.db.no-addr-txn-index": 11,
            "data.db.no-addr-uxout-index": 11,
        }
        for name, count in counts.items():
            self.assertEqual(len(list(read_go_file(DISK, self.path(name)).blocks())), count, name)
        for name in ("data.db.garbage", "no-version.db", "version-0.25.0.db"):
            self.assertRaises(CorruptFileError, read_go_file, DISK, self.path(name))

    def test_in_and_out(self) -> None:
        """A Go node's database fed to a store and written again has the same in each bucket."""
        theirs = read_bolt(DISK, self.path("blockchain-180.db"))
        source = read_go_file(DISK, self.path("blockchain-180.db"))
        store = self.open(SKYCOIN)
        self.assertEqual(feed(store, Signing(SKYCOIN.seal, 0), source.blocks()), 180)
        (loose,) = source.unconfirmed()
        self.assertTrue(store.pool.add([loose.transaction], loose.received / 1e9)[0].new)
        write_go_file(DISK, self.folder / "go.db", store)
        ours = read_bolt(DISK, self.folder / "go.db")
        self.assertEqual(ours.buckets - theirs.buckets, {b"db_meta"})
        for name in theirs.buckets:
            mine, other = dict(ours.items(name)), dict(theirs.items(name))
            if name == b"unspent_pool_addr_index":  # the Go node's lists have the order of its removals
                mine, other = ({k: sorted(_items(v)) for k, v in each.items()} for each in (mine, other))
            if name == b"unconfirmed_txns":  # our times have no nanoseconds
                mine, other = ({k: v[:-25] for k, v in each.items()} for each in (mine, other))
            self.assertEqual(mine, other, name)
        self.assertEqual(list(read_go_file(DISK, self.folder / "go.db").blocks()), list(source.blocks()))

    def test_a_block_is_missing(self) -> None:
        """Those before it come, then a sentence names it; so with a signature."""
        source = read_bolt(DISK, self.path("data.db.ok"))
        buckets = {name: dict(source.items(name)) for name in source.buckets}
        fifth = next(read_go_file(DISK, self.path("data.db.ok")).blocks())
        for name, bucket in ((b"blocks", 5), (b"block_sigs", 7)):
            digest = list(read_go_file(DISK, self.path("data.db.ok")).blocks())[bucket].hash
            left = {**buckets, name: {k: v for k, v in buckets[name].items() if k != digest}}
            write_bolt(DISK, self.folder / "less.db", left)
            found = []
            with self.assertRaisesRegex(CorruptFileError, str(bucket)):
                for block in read_go_file(DISK, self.folder / "less.db").blocks():
                    found.append(block)
            self.assertEqual(len(found), bucket)
        self.assertEqual(fifth, SKYCOIN.genesis)

    def test_genesis_alone(self) -> None:
        """A chain of one block can be written and read too."""
        store = self.open(small_chain(5))
        self.assertEqual(len(go_buckets(store)[b"blocks"]), 1)
        write_go_file(DISK, self.folder / "one.db", store)
        self.assertEqual(list(read_go_file(DISK, self.folder / "one.db").blocks()), [store.chain.genesis])


def _items(value: bytes) -> list[bytes]:
    return [value[at : at + 32] for at in range(4, len(value), 32)]
