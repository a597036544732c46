"""The config file."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from attrs import field, frozen
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.address import DATA_SIZE, BlindedHop, sign_address
from meshnet.cipher.keys import SecretKey
from meshnet.errors import ConfigError
from meshnet.node.config import Settings, from_table, load, read_config
from meshnet.node.schema import FieldError
from meshnet.transports.registry import Transports
from meshnet.transports.tcp import TcpTransport
from tests.support.nodes import new_folder

KEYS = [SecretKey(bytes(31) + bytes([number])).public.hex() for number in range(1, 12)]
FILE = Path("/etc/mesh/node.toml")


@frozen
class Door:
    colour: str = "red"


@frozen
class DoorSettings:
    door: Door | None = None
    window: tuple[Door, ...] = field(default=())


class DoorApp:
    name = "doors"
    settings = DoorSettings


class ConfigTests(SynchronousTestCase):
    def refused(self, table: dict[str, Any], *words: str, **more: Any) -> FieldError:
        error = self.assertRaises(FieldError, from_table, table, FILE, **more)
        for word in (str(FILE), *words):
            self.assertIn(word, str(error))
        return error

    def test_empty(self) -> None:
        """An empty file is a node with defaults; paths are relative to the file."""
        settings = from_table({}, FILE)
        self.assertEqual(settings.node.key, Path("/etc/mesh/key"))
        self.assertEqual(settings.control_socket, Path("/etc/mesh/data/control.sock"))
        self.assertEqual((settings.node.network, settings.link.accept, settings.metrics), (1, "any", None))

    def test_names(self) -> None:
        """Pet names stand for keys everywhere, and for nothing else."""
        table: dict[str, Any] = {
            "known": [{"name": "ann", "key": KEYS[0]}, {"name": "bob", "key": KEYS[1]}],
            "link": {"accept": ["ann"], "peer": [{"key": "bob", "address": "tcp:h:1"}]},
            "route": [{"to": "ann", "via": ["bob", KEYS[2]]}],
        }
        settings = from_table(table, FILE)
        self.assertEqual(settings.link.accept, (bytes.fromhex(KEYS[0]),))
        self.assertEqual(settings.route[0].via[0].hex(), KEYS[1])
        self.assertEqual(settings.lookup("ann").hex(), KEYS[0])
        self.assertEqual(settings.lookup(KEYS[5]).hex(), KEYS[5])
        table["link"]["accept"] = ["an"]
        self.refused(table, "link.accept.0", '"an"', "did you mean ann?", "ann, bob")

    def test_hidden(self) -> None:
        """An address stands where a call goes to, by itself or by name, and nowhere else."""
        hop = BlindedHop(bytes.fromhex(KEYS[1]), bytes(DATA_SIZE))  # type: ignore[arg-type]
        address = sign_address(SecretKey(b"\x05" * 32), 1, 1 << 31, hop.key, [hop])
        table: dict[str, Any] = {
            "known": [{"name": "blog", "key": address.text}],
            "route": [{"to": "blog", "via": [KEYS[2]]}, {"to": KEYS[3]}],
        }
        settings = from_table(table, FILE)
        self.assertEqual((settings.route[0].to, settings.lookup(address.text)), (address, address))
        self.refused({**table, "link": {"accept": ["blog"]}}, "link.accept.0", "a hidden service")
        self.refused({**table, "route": [{"to": KEYS[0], "via": ["blog"]}]}, "route.0.via.0", "hidden")
        self.refused({"route": [{"to": address.text, "via": [KEYS[1]]}]}, "route.0.via", "twice")
        self.refused(
            {"route": [{"to": address.text, "via": KEYS[2:10]}]}, "route.0.via", "1 hops of the address"
        )
        self.refused({"route": [{"to": address.text[:-1]}]}, "route.0.to", "damaged")
        self.refused({"route": [{"to": 7}]}, "route.0.to", "address of a hidden service")

    def test_known_ways(self) -> None:
        """The relays to a known node may stand beside its name; whoever has them twice is told."""
        known = [{"name": "ann", "key": KEYS[0], "via": ["bob", KEYS[2]]}, {"name": "bob", "key": KEYS[1]}]
        settings = from_table({"known": known, "route": [{"to": KEYS[3], "via": ["bob"]}]}, FILE)
        ways = [[hop.hex() for hop in settings.route_to(settings.lookup(KEYS[n]))] for n in (0, 1, 3)]
        self.assertEqual(ways, [[KEYS[1], KEYS[2]], [], [KEYS[1]]])
        self.refused({"known": known, "route": [{"to": "ann"}]}, "known.0.via", "has a route already")
        known[0]["via"] = ["ann"]
        self.refused({"known": known}, "known.0.via", "twice")
        self.refused({"known": [{**known[0], "via": ["carl"]}]}, "known.0.via.0", '"carl"')
        self.refused({"known": [{**known[0], "via": 7}]}, "known.0.via")
        self.refused({"known": ["ann"]}, "known.0")

    def test_bad_names(self) -> None:
        """Names that could be taken for something else, twice or without a key."""
        for known, words in (
            ([{"name": "a b", "key": KEYS[0]}], ["known.0.name", "is not a name"]),
            ([{"name": "", "key": KEYS[0]}], ["is not a name"]),
            ([{"name": "a" * 66, "key": KEYS[0]}], ["is not a name"]),
            ([{"name": "a", "key": "b"}], ["known.0.key", "leads nowhere"]),
            ([{"name": "a", "key": KEYS[0]}] * 2, ["known.1", "twice"]),
            ([{"name": "a"}], ["known.0.key", "missing"]),
        ):
            self.refused({"known": known}, *words)

    def test_wrong(self) -> None:
        """Wrong keys and values, each named."""
        for table, words in (
            ({"nod": {}}, ["[nod]", "did you mean node?", "choices", "relay"]),
            ({"node": {"netwrok": 2}}, ["node.netwrok = 2", "did you mean network?"]),
            ({"node": {"network": 1 << 32}}, ["node.network", "between 0 and 4294967295"]),
            ({"node": {"cipher": "aes"}}, ["node.cipher", "openssl, sodium"]),
            ({"relay": {"max_rate": -1}}, ["relay.max_rate = -1", "less than 0"]),
            ({"metrics": {}}, ["metrics.listen", "missing", "host:port"]),
            ({"control": {"listen": "0.0.0.0:1"}}, ["control.listen", "loopback"]),
            ({"link": {"peer": [{"key": KEYS[0], "address": "tcp:h:1"}] * 2}}, ["link.peer.1.key", "twice"]),
            ({"route": [{"to": KEYS[0]}] * 2}, ["route.1.to"]),
            ({"route": [{"to": KEYS[0], "via": KEYS[1:9]}]}, ["route.0.via", "8 relays", "at most 7"]),
            ({"route": [{"to": KEYS[0], "via": [KEYS[0]]}]}, ["route.0.via", "twice"]),
        ):
            self.refused(table, *words)

    def test_addresses(self) -> None:
        """Link addresses are checked by their transports."""
        transports = Transports([TcpTransport(None)])
        folder = new_folder(self)
        for line, words in (
            ('listen = ["tpc:h:1"]', ["link.listen.0", "tcp:"]),
            ('listen = ["7001"]', ["link.listen.0"]),
            ('listen = ["tcp:h:99999"]', ["link.listen.0", "99999"]),
            (f'peer = [{{key = "{KEYS[0]}", address = "tcp:h"}}]', ["link.peer.0.address"]),
            (f'peer = [{{key = "{KEYS[0]}", address = ["tcp:h:1", "tcp:h"]}}]', ["link.peer.0.address"]),
            (f'peer = [{{key = "{KEYS[0]}", address = []}}]', ["link.peer.0.address", "at least one"]),
            ("lanes = 3", ["link.lanes", "1, 2, 4, 8, 16"]),
        ):
            file = folder / "node.toml"
            file.write_text(f"[link]\n{line}\n")
            error = self.assertRaises(FieldError, load, file, (), transports)
            for word in words:
                self.assertIn(word, str(error))

    def test_files(self) -> None:
        """Missing, binary, huge and broken files are one sentence each."""
        folder = new_folder(self)
        file = folder / "node.toml"
        self.assertIn("meshnet init", str(self.assertRaises(ConfigError, load, file)))
        for content, words in ((b"\xff", "not TOML"), (b"[node\n", "line 1"), (b"#" * (2 << 20), "larger")):
            file.write_bytes(content)
            self.assertIn(words, str(self.assertRaises(ConfigError, load, file)))

    def test_files_made_to_hurt(self) -> None:
        """Nesting without end and numbers without end are refused with a sentence, as all that is no TOML."""
        for text in ("x = " + "[" * 20_000, "x = " + "9" * 5_000, "[node]\nname = " + "{a=" * 9_000):
            error = self.assertRaises(ConfigError, read_config, text.encode(), FILE)
            self.assertIn(str(FILE), str(error))

    def test_app_sections(self) -> None:
        """An app's fields are sections; a list section may come many times."""
        apps = [DoorApp()]
        settings = from_table({"door": {"colour": "blue"}, "window": [{}, {"colour": "b"}]}, FILE, apps)
        self.assertEqual(settings.apps["doors"], DoorSettings(Door("blue"), (Door(), Door("b"))))
        self.assertEqual(from_table({}, FILE, apps).apps["doors"], DoorSettings())
        self.refused({"door": {"color": "x"}}, "door.color", "did you mean colour?", apps=apps)
        self.refused({"dor": {}}, "did you mean door?", apps=apps)

    def test_broken_app(self) -> None:
        """Sections nobody reads because an app is broken become notes, so that the node still starts."""
        settings = from_table({"door": {}}, FILE, (), ["Dropin x cannot be loaded."])
        self.assertIn("[door]", settings.notes[0])
        self.assertIn("Dropin x", settings.notes[0])

    def test_settings_are_values(self) -> None:
        """Two readings of one table are equal."""
        self.assertEqual(from_table({}, FILE), from_table({}, FILE))
        self.assertIsInstance(from_table({}, FILE), Settings)
