"""Addresses, conduct and what is asked of whom, each by itself."""

from __future__ import annotations

from random import Random

from twisted.trial.unittest import SynchronousTestCase

from coin.chain.transaction import Output
from coin.newchain import chain_file, new_chain
from coin.replication.addresses import Addresses
from coin.replication.conduct import FIRST_BAN, LONGEST_BAN, Conduct
from coin.replication.messages import PeerAddress
from coin.replication.service import place_of
from coin.replication.sync import ANSWER_SECONDS, RUNS, Sync
from coin.settings import load_chain
from lab.simulation.disk import SimulatedDisk
from meshnet.cipher.keys import SecretKey
from meshnet.errors import ConfigError
from meshnet.limits import COIN_ADDRESSES, COIN_CONDUCT
from meshnet.storage.files import make_directory, write_file
from tests.support.chains import Ledger, owner, small_chain


class ConductTests(SynchronousTestCase):
    def test_bans(self) -> None:
        """100 points are a ban, the next one is twice as long, none longer than a day; points fade."""
        conduct, now = Conduct(), 0.0
        self.assertFalse(conduct.note("a", 99.0, "bad", now))
        self.assertFalse(conduct.note("a", 60.0, "bad", now + 360.0))
        self.assertTrue(conduct.note("a", 60.0, "worse", now + 361.0))
        lengths = []
        for _ in range(8):
            ban = conduct.ban("a", now + 362.0)
            if ban is not None:
                lengths.append(ban.until - now - 361.0)
                now = ban.until + 1 - 361.0
            conduct.note("a", 100.0, "again", now + 361.0)
        self.assertEqual(lengths[:3], [FIRST_BAN, 2 * FIRST_BAN, 4 * FIRST_BAN])
        self.assertEqual(max(lengths), LONGEST_BAN)
        self.assertTrue(conduct.pardon("a"))
        self.assertEqual(conduct.bans(now), {})

    def test_bounded(self) -> None:
        """A crowd of bad peers does not fill the memory."""
        conduct = Conduct()
        for number in range(2 * COIN_CONDUCT):
            conduct.note(str(number), 1.0, "bad", 0.0)
        self.assertLessEqual(len(conduct._records), COIN_CONDUCT)

    def test_places(self) -> None:
        """An IPv6 host is its network; a mapped IPv4 one is the IPv4 one."""
        self.assertEqual(place_of("192.0.2.7"), "192.0.2.7")
        self.assertEqual(place_of("::ffff:192.0.2.7"), "192.0.2.7")
        self.assertEqual(place_of("2001:db8:1:2:3::4"), "2001:db8:1:2::/64")
        self.assertEqual(place_of("2001:db8:1:2::9"), place_of("2001:db8:1:2:3::4"))


class AddressTests(SynchronousTestCase):
    def test_learned(self) -> None:
        """Private ones and low ports of strangers are not dialled; only what was reached is told; capped."""
        addresses = Addresses(["tcp:127.0.0.1:6000"], Random(1).randrange)
        addresses.learn([PeerAddress(0x0A000001, 6_000), PeerAddress(0x08080808, 80)], 0.0)
        self.assertEqual(len(addresses), 1)
        addresses.learn([PeerAddress(0x08080808, 6_000)], 0.0)
        self.assertEqual(addresses.give(), ())
        self.assertEqual(addresses.next([], 0.0, True), "tcp:127.0.0.1:6000")
        self.assertEqual(addresses.next(["tcp:127.0.0.1:6000"], 0.0, False), None)
        self.assertEqual(addresses.next(["tcp:127.0.0.1:6000"], 0.0, True), "tcp:8.8.8.8:6000")
        addresses.reached("tcp:8.8.8.8:6000", 1.0)
        self.assertEqual(addresses.give(), (PeerAddress(0x08080808, 6_000),))
        addresses.learn([PeerAddress(0x08080000 + n, 6_000) for n in range(2 * COIN_ADDRESSES)], 2.0)
        self.assertEqual(len(addresses), COIN_ADDRESSES)
        addresses.tick(8 * 86_400.0)
        self.assertEqual(len(addresses), 1)


class SyncTests(SynchronousTestCase):
    def test_pipeline(self) -> None:
        """The next run is asked for while one is checked; not more than two wait; a bad run voids them."""
        ledger = Ledger(small_chain())
        for _ in range(9):
            (mine,) = ledger.of(1)
            ledger.add(ledger.block(ledger.pay(1, Output(owner(1), mine.coins, mine.hours // 2))))
        sync = Sync(0)
        sync.join(1)
        sync.says(1, 9)
        for run in range(RUNS):
            ask = sync.ask(0.0)
            assert ask is not None
            self.assertEqual(ask.last, 3 * run)
            self.assertEqual(len(sync.given(1, ledger.blocks[3 * run + 1 : 3 * run + 4], 0.0)), 3)
        self.assertIsNone(sync.ask(0.0))
        sync.runs -= 1
        sync.executed(2, False)
        ask = sync.ask(0.0)
        assert ask is not None
        self.assertEqual(ask.last, 2)
        self.assertIsNone(sync.tick(ANSWER_SECONDS - 0.1))
        self.assertEqual(sync.tick(ANSWER_SECONDS), 1)


class ChainFileTests(SynchronousTestCase):
    def test_round(self) -> None:
        """A chain file is read as the chain that it was written from; a spoilt one is refused."""
        disk = SimulatedDisk()
        make_directory(disk, "data")
        chain = new_chain("toy", 1_000, owner(1), SecretKey(b"\7" * 32), 1_700_000_000)
        text = chain_file(chain, ("192.0.2.1:6000",))
        write_file(disk, "data/toy.toml", text.encode())
        found = load_chain(disk, "data/toy.toml")  # type: ignore[arg-type]
        self.assertEqual(
            (found.name, found.genesis, found.peers), ("toy", chain.genesis, ("192.0.2.1:6000",))
        )
        self.assertEqual((found.names.display, found.names.ticker), ("toy", "TOY"))
        for wrong in (text.replace("1700000000", "1700000001"), "[node]\n", "no toml"):
            write_file(disk, "data/toy.toml", wrong.encode())
            self.assertRaises(ConfigError, load_chain, disk, "data/toy.toml")
        self.assertRaises(ConfigError, new_chain, "Bad Name", 1, owner(1), SecretKey(b"\7" * 32), 1)
