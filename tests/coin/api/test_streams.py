"""Events over HTTP: server-sent events and WebSockets, from the request's first byte to the last one."""

from __future__ import annotations

import json
from base64 import b64encode
from hashlib import sha1
from pathlib import Path
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase
from wsproto.connection import Connection as Frames
from wsproto.connection import ConnectionType
from wsproto.events import BytesMessage, CloseConnection, Ping, Pong, TextMessage

from coin.api.settings import ApiSection
from coin.api.streams import KEEPALIVE_SECONDS
from coin.api.websocket import SILENT_SECONDS
from coin.chain.address import address_text
from coin.store.store import open_store
from meshnet.limits import (
    COIN_API_WRITE_SECONDS,
    COIN_EVENT_FRAMES,
    COIN_EVENT_LISTENERS,
    COIN_EVENT_MESSAGE,
    COIN_EVENT_STALL_SECONDS,
)
from meshnet.storage.disk import RealDisk
from tests.support.chains import owner
from tests.support.coinapi import HOST, Connection, Served
from tests.support.described import fits, pointer
from tests.support.random_chains import RandomChain, shared_chain

KEY = b64encode(bytes(16)).decode()
UPGRADE = {
    "Upgrade": "websocket",
    "Connection": "keep-alive, Upgrade",
    "Sec-WebSocket-Version": "13",
    "Sec-WebSocket-Key": KEY,
}


class Cases(SynchronousTestCase):
    def setUp(self) -> None:
        self.model = RandomChain(4, shared_chain())
        store = open_store(RealDisk(), self.mktemp() + "/chain.db", self.model.chain)
        self.addCleanup(store.close)
        self.model.grow(store, 3)
        folder = Path(self.mktemp())
        folder.mkdir()
        self.served = Served(store, ApiSection(), folder=folder)
        self.keys = self.served.api.admission.keys
        _, self.key = self.keys.make("shop", ["events"], 50, bytes(range(36)), 0)
        self.hub = self.served.api.streams.hub

    def block(self) -> None:
        """One more block comes."""
        service: Any = self.served.books.service
        service.add([self.model.block()])

    def open(self, target: str, headers: dict[str, str] | None = None, body: bytes = b"") -> Connection:
        """A connection on which that was asked."""
        connection = self.served.connect()
        method = "POST" if body else "GET"
        given = {"Host": HOST, "Authorization": f"Bearer {self.key}", **(headers or {})}
        if body:
            given["Content-Length"] = str(len(body))
        lines = [f"{method} {target} HTTP/1.1", *(f"{name}: {value}" for name, value in given.items())]
        connection.send("\r\n".join(lines).encode() + b"\r\n\r\n" + body)
        return connection

    def described(self, event: Any) -> None:
        """An event is what the API's description says."""
        self.assertEqual(fits(pointer("components", "schemas", "Event"), event), "", event)

    def pause(self, connection: Connection, full: bool) -> None:
        """The connection's buffer is full, or empty again."""
        if full:
            connection.channel.pauseProducing()
        else:
            connection.channel.resumeProducing()


class Sent(Cases):
    """Server-sent events."""

    def events(self, connection: Connection) -> list[dict[str, str]]:
        """What came since the last look, comments too."""
        data = connection.transport.value().decode()
        connection.transport.clear()
        if data.startswith("HTTP/"):
            head, _, data = data.partition("\r\n\r\n")
            self.assertIn("200 OK", head)
            self.assertIn("Content-Type: text/event-stream", head)
        found = []
        for part in data.split("\n\n"):
            lines = [line.partition(":") for line in part.splitlines()]
            found.append({name or "comment": value.strip() for name, _, value in lines})
            if "data" in found[-1]:
                self.described(json.loads(found[-1]["data"]))
        return [each for each in found if each]

    def ids(self, connection: Connection) -> list[str]:
        """Of the events that came."""
        return [each["id"] for each in self.events(connection) if "id" in each]

    def test_past_and_present(self) -> None:
        """From a height on, each event once, and each new block's when it comes."""
        connection = self.open("/api/v3/events?from=2&kinds=block,address")
        begun, *past = self.events(connection)
        self.assertEqual(begun["retry"], "1000")
        start, *past = past
        self.assertEqual(json.loads(start["data"]), {"kind": "start", "height": 3, "from": "2.0"})
        self.assertEqual([each["id"] for each in past if each["event"] == "block"], ["2.0", "3.0"])
        for each in past:
            told = json.loads(each["data"])
            self.assertEqual((told["id"], told["kind"]), (each["id"], each["event"]))
        self.block()
        self.assertEqual(self.ids(connection)[0], "4.0")

    def test_going_on(self) -> None:
        """Who comes again with the last id misses nothing and hears nothing twice."""
        whole = self.ids(self.open("/api/v3/events?from=0"))
        for place in range(0, len(whole), 5):
            rest = self.ids(self.open("/api/v3/events?from=0", {"Last-Event-ID": whole[place]}))
            self.assertEqual(rest, whole[place + 1 :])
            self.assertEqual(self.ids(self.open(f"/api/v3/events?from={whole[place]}")), rest)

    def test_filters(self) -> None:
        """One address, one kind, some confirmations; the same in a body."""
        text = address_text(owner(1))
        connection = self.open(f"/api/v3/events?from=0&kinds=transaction&confirmations=2&addresses={text}")
        found = [json.loads(each["data"]) for each in self.events(connection)[2:]]
        mine = [it.id.hex() for block, it, touched in self.model.made if owner(1) in touched and block < 3]
        self.assertEqual([each["txid"] for each in found], mine)
        body = {"from": 0, "kinds": ["transaction"], "confirmations": 2, "addresses": [text]}
        same = self.open("/api/v3/events", body=json.dumps(body).encode())
        self.assertEqual([json.loads(each["data"]) for each in self.events(same)[2:]], found)

    def test_pending(self) -> None:
        """A transaction that comes into the pool."""
        connection = self.open("/api/v3/events")
        self.events(connection)
        block = self.model.block()
        it = block.transactions[0]
        service: Any = self.served.books.service
        self.successResultOf(self._inject(service, it))
        (told,) = self.events(connection)
        self.assertEqual(told["event"], "pending")
        self.assertNotIn("id", told)
        self.assertEqual(json.loads(told["data"])["txid"], it.id.hex())

    @staticmethod
    def _inject(service: Any, it: Any) -> Any:
        from twisted.internet.defer import Deferred

        return Deferred.fromCoroutine(service.inject([it], 1.7e9))

    def test_wrong_questions(self) -> None:
        """Each fault names its parameter, before anything is sent."""
        many = ",".join([address_text(owner(1))] * 10_001)
        for query, status, field in (
            ("kinds=blocks", 400, "kinds"),
            ("kinds=", 200, None),
            ("addresses=abc", 400, "addresses"),
            (f"addresses={many}", 431, None),
            ("confirmations=0", 400, "confirmations"),
            ("confirmations=1001", 400, "confirmations"),
            ("from=x", 400, "from"),
            ("from=1.", 400, "from"),
            ("from_=1", 400, "from_"),
        ):
            connection = self.open(f"/api/v3/events?{query}")
            data = connection.transport.value()
            self.assertIn(b" %d " % status, data[:20], query[:50])
            if field:
                self.assertEqual(json.loads(data.partition(b"\r\n\r\n")[2])["error"]["field"], field)
        for body in (b"[]", b"{", b"[" * 100_000, b'{"kinds": "block"}', b'{"from": []}', b'{"what": 1}'):
            self.assertIn(b" 400 ", self.open("/api/v3/events", body=body).transport.value()[:20], body[:20])
        wrong = self.open("/api/v3/events", {"Last-Event-ID": "abc"})
        self.assertIn(b"Last-Event-ID", wrong.transport.value())
        self.assertEqual(len(self.hub.listeners), 1)

    def test_a_slow_client(self) -> None:
        """While its buffer is full nothing is written for it; afterwards it hears all of it."""
        connection = self.open("/api/v3/events?kinds=block")
        self.events(connection)
        self.pause(connection, True)
        for _ in range(5):
            self.block()
        self.served.reactor_clock.advance(KEEPALIVE_SECONDS + 1)
        self.assertEqual(connection.transport.value(), b"")
        self.pause(connection, False)
        self.assertEqual(self.ids(connection), [f"{height}.0" for height in range(4, 9)])

    def test_a_client_that_does_not_read(self) -> None:
        """It is told why, and cut off if it does not even read that."""
        connection = self.open("/api/v3/events?kinds=block")
        self.events(connection)
        self.pause(connection, True)
        for _ in range(int(COIN_EVENT_STALL_SECONDS) + 2):
            self.served.reactor_clock.advance(1.0)
        (end,) = self.events(connection)
        self.assertEqual(end["event"], "end")
        self.assertIn("Nothing was read", end["data"])
        self.assertEqual(self.hub.listeners, set())
        self.assertTrue(connection.transport.disconnecting)
        for _ in range(int(COIN_API_WRITE_SECONDS) + 2):
            self.served.reactor_clock.advance(1.0)
        self.assertTrue(connection.transport.disconnected)

    def test_keepalive(self) -> None:
        """A quiet connection is not ended, and is not wholly quiet."""
        connection = self.open("/api/v3/events?kinds=block")
        self.events(connection)
        for _ in range(300):
            self.served.reactor_clock.advance(1.0)
        self.assertEqual(self.events(connection), [{"comment": ""}] * int(300 / KEEPALIVE_SECONDS))
        self.block()
        self.assertEqual(self.ids(connection), ["4.0"])

    def test_it_goes(self) -> None:
        """A client that has gone is forgotten; so is one whose key was revoked, which is told so."""
        first, second = self.open("/api/v3/events"), self.open("/api/v3/events")
        self.events(second)
        first.channel.connectionLost()
        self.assertEqual(len(self.hub.listeners), 1)
        (key,) = self.keys
        self.served.api.streams.revoked("others")
        self.served.api.streams.revoked(key.id)
        self.assertIn("revoked", self.events(second)[0]["data"])
        self.assertEqual(self.hub.listeners, set())

    def test_too_many(self) -> None:
        """One more than may listen is told to come later."""
        for _ in range(COIN_EVENT_LISTENERS):
            self.hub.listen(*self.nobody())
        self.assertIn(b" 503 ", self.open("/api/v3/events").transport.value()[:20])

    @staticmethod
    def nobody() -> Any:
        """Somebody who listens in the test's own process."""
        from coin.events.wanted import Wanted

        return Wanted(), None, None

    def test_the_node_stops(self) -> None:
        """Who listens is told, and may come again."""
        connection = self.open("/api/v3/events")
        self.events(connection)
        self.served.api.stop()
        self.assertIn("stops", self.events(connection)[0]["data"])
        self.assertTrue(connection.transport.disconnecting)
        self.assertFalse(connection.transport.disconnected)


class Sockets(Cases):
    """WebSockets."""

    def socket(self, query: str = "", headers: dict[str, str] | None = None) -> tuple[Connection, Frames]:
        """A connection that has become one."""
        connection = self.open(f"/api/v3/events?{query}", {**UPGRADE, **(headers or {})})
        head, _, rest = connection.transport.value().partition(b"\r\n\r\n")
        self.assertIn(b"101 Switching Protocols", head)
        proof = b64encode(sha1(KEY.encode() + b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11").digest())
        self.assertIn(b"Sec-WebSocket-Accept: " + proof, head)
        frames = Frames(ConnectionType.CLIENT)
        connection.transport.clear()
        connection.transport.io.write(rest)
        return connection, frames

    def told(self, pair: tuple[Connection, Frames]) -> list[Any]:
        """What came since the last look: values of texts, other events as they are."""
        connection, frames = pair
        frames.receive_data(connection.transport.value())
        connection.transport.clear()
        events = list(frames.events())
        for each in events:
            if isinstance(each, TextMessage):
                self.described(json.loads(each.data))
        return [json.loads(each.data) if isinstance(each, TextMessage) else each for each in events]

    def say(self, pair: tuple[Connection, Frames], value: Any) -> None:
        """Says a text."""
        text = value if isinstance(value, str) else json.dumps(value)
        pair[0].send(pair[1].send(TextMessage(text)))

    def test_past_and_present(self) -> None:
        """The same events as over the other way."""
        pair = self.socket("from=1")
        start, *past = self.told(pair)
        self.assertEqual(start, {"kind": "start", "height": 3, "from": "1.0"})
        self.assertEqual([each["id"] for each in past if each["kind"] == "block"], ["1.0", "2.0", "3.0"])
        self.block()
        self.assertEqual(self.told(pair)[0]["id"], "4.0")

    def test_watching(self) -> None:
        """Addresses come and go; a change is told when it holds, a wrong one is refused and harms nothing."""
        text, other = address_text(owner(1)), address_text(owner(2))
        pair = self.socket(f"kinds=address&addresses={text}")
        self.told(pair)
        self.say(pair, {"watch": [other], "unwatch": [text]})
        self.assertEqual(self.told(pair), [{"kind": "watching", "addresses": 1, "from": "4.0"}])
        heard = []
        for _ in range(10):
            self.block()
            heard += self.told(pair)
        self.assertEqual({each["address"] for each in heard}, {other})
        for wrong in ("{", "[]", {"watch": ["x"]}, {"watch": "x"}, {"what": 1}, "[" * 10_000):
            self.say(pair, wrong)
            (error,) = self.told(pair)
            self.assertEqual((error["kind"], error["error"]["code"]), ("error", "usage"))
        self.assertEqual(len(self.hub.listeners), 1)

    def test_watching_all(self) -> None:
        """Who hears of everybody has nothing to add."""
        pair = self.socket()
        self.told(pair)
        self.say(pair, {"watch": [address_text(owner(1))]})
        self.assertIn("all addresses", self.told(pair)[0]["error"]["message"])

    def test_messages_are_counted(self) -> None:
        """They are requests of the key."""
        pair = self.socket(f"addresses={address_text(owner(1))}")
        self.told(pair)
        for _ in range(120):
            self.say(pair, {"watch": []})
        codes = [each["error"]["code"] for each in self.told(pair) if each["kind"] == "error"]
        self.assertEqual(set(codes), {"too_many"})
        self.assertGreater(len(codes), 10)

    def test_pings(self) -> None:
        """Theirs are answered; ours must be."""
        pair = self.socket("kinds=block")
        self.told(pair)
        pair[0].send(pair[1].send(Ping(b"hello")))
        self.assertEqual(self.told(pair), [Pong(b"hello")])
        for _ in range(int(KEEPALIVE_SECONDS) + 1):
            self.served.reactor_clock.advance(1.0)
        self.assertEqual(self.told(pair), [Ping(b"")])
        for _ in range(int(SILENT_SECONDS) + 1):
            self.served.reactor_clock.advance(1.0)
        *_, last = self.told(pair)
        self.assertIsInstance(last, CloseConnection)
        self.assertEqual(self.hub.listeners, set())

    def test_close(self) -> None:
        """A close is answered and the connection ends."""
        pair = self.socket()
        self.told(pair)
        pair[0].send(pair[1].send(CloseConnection(1000, "bye")))
        (closed,) = self.told(pair)
        self.assertEqual(closed.code, 1000)
        self.assertTrue(pair[0].transport.disconnecting)
        self.assertEqual(self.hub.listeners, set())

    def test_what_is_no_text(self) -> None:
        """Bytes, frames that are too long, not masked or not UTF-8 end it with the code for that."""
        frames = Frames(ConnectionType.CLIENT)
        part = TextMessage("x" * 65_536, message_finished=False)
        long = b"".join(frames.send(part) for _ in range(COIN_EVENT_MESSAGE // 65_536 + 1))
        for data, code in (
            (Frames(ConnectionType.CLIENT).send(BytesMessage(b"x")), 1003),
            (long, 1009),
            (b"\x81\x01x", 1002),
            (b"\x81\x82\0\0\0\0\xc3\x28", 1007),
            (b"\xf1\x80\0\0\0\0", 1002),
            (b"\x01\x80\0\0\0\0" + b"\x00\x80\0\0\0\0" * COIN_EVENT_FRAMES, 1008),
            (b"\x8a\x80\0\0\0\0" * (COIN_EVENT_FRAMES + 1), 1008),
        ):
            pair = self.socket()
            self.told(pair)
            pair[0].send(data)
            *_, closed = self.told(pair)
            self.assertEqual(closed.code, code, data[:10])
            self.assertEqual(self.hub.listeners, set())

    @settings(max_examples=60, deadline=None)
    @given(st.lists(st.binary(max_size=40), max_size=5))
    def test_any_bytes(self, parts: list[bytes]) -> None:
        """Whatever comes after the handshake raises nothing."""
        pair = self.socket()
        for part in parts:
            if not pair[0].transport.disconnecting:
                pair[0].send(part)
        pair[0].channel.connectionLost()
        self.assertEqual(self.hub.listeners, set())

    def test_slow_clients_are_not_read(self) -> None:
        """Whose buffer is full sends in vain: answers do not pile up."""
        pair = self.socket()
        self.told(pair)
        paused: list[bool] = []
        pair[0].transport.pauseProducing = lambda: paused.append(True)
        pair[0].transport.resumeProducing = lambda: paused.append(False)
        self.pause(pair[0], True)
        self.block()
        self.assertEqual(pair[0].transport.value(), b"")
        self.pause(pair[0], False)
        self.assertEqual(paused[:1] + paused[-1:], [True, False])
        self.assertEqual(self.told(pair)[0]["id"], "4.0")

    def test_wrong_handshakes(self) -> None:
        """Each is refused by a status, and nobody listens."""
        for change, status in (
            ({"Sec-WebSocket-Key": ""}, 400),
            ({"Sec-WebSocket-Key": "abc"}, 400),
            ({"Connection": "close"}, 400),
            ({"Sec-WebSocket-Version": "12"}, 426),
            ({"Authorization": "Bearer no"}, 401),
            ({"Origin": "https://example.com"}, 403),
        ):
            connection = self.open("/api/v3/events", {**UPGRADE, **change})
            self.assertIn(b" %d " % status, connection.transport.value()[:20], change)
        self.assertEqual(self.hub.listeners, set())
