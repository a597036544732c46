"""A node put together."""

from __future__ import annotations

import json
import os
import socket
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from attrs import frozen
from twisted.application.service import Service
from twisted.internet import reactor  # noqa: TID251  (real sockets)
from twisted.internet.defer import Deferred
from twisted.internet.task import Clock
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase

from meshnet.cipher.keys import SecretKey
from meshnet.control.client import ControlClient
from meshnet.control.messages import from_json
from meshnet.endpoints import NODES
from meshnet.errors import CircuitError, ConfigError, LocalError, Reason, UnreachableError, UsageError
from meshnet.node.app import Json
from meshnet.node.node import Node
from meshnet.storage.disk import DiskFullError, RealDisk
from meshnet.storage.files import write_secret
from tests.support.nodes import FakeRouter, link_snapshot, make_node, new_folder

A, B, C = (SecretKey(bytes(31) + bytes([number])).public for number in (1, 2, 3))


@frozen
class Door:
    colour: str = "red"


@frozen
class DoorSettings:
    door: Door = Door()


class DoorService(Service):
    def __init__(self, fault: Exception | None) -> None:
        self.fault = fault

    def startService(self) -> None:
        if self.fault is not None:
            raise self.fault
        super().startService()

    def status(self) -> Json:
        return {"open": bool(self.running)}

    def routes(self) -> dict[str, Any]:
        return {"POST /knock": lambda body: {"heard": body}, "GET /fail": self.fail_}

    def fail_(self, body: Json) -> Json:
        raise RuntimeError("not told to anybody")


class DoorApp:
    name = "door"
    settings = DoorSettings

    def __init__(self, fault: Exception | None = None, making: Exception | None = None) -> None:
        self.fault = fault
        self.making = making
        self.service: DoorService | None = None

    def verbs(self) -> list[Any]:
        return []

    def make_service(self, node: Node, settings: DoorSettings) -> DoorService:
        if self.making is not None:
            raise self.making
        self.service = DoorService(self.fault)
        return self.service


class RunningCase(TestCase):
    """Starts nodes on the real reactor and stops them."""

    async def started(self, table: dict[str, Any] | None = None, **more: Any) -> tuple[Node, FakeRouter]:
        folder = new_folder(self)
        table = {"control": {"socket": self.socket()}, **(table or {})}
        node, router = make_node(folder, reactor, table, **more)
        node.startService()
        await node.ready()
        self.addCleanup(node.stopService)
        return node, router

    def socket(self) -> str:
        """A path short enough for a socket."""
        return f"/tmp/meshnet-test-{id(self)}.sock"

    def call(self, node: Node, method: str, path: str, body: Any = None) -> Deferred[Any]:
        client = ControlClient(node.settings.control_socket, 10)
        return deferToThread(client.call, method, path, body)


class LifeTests(RunningCase):
    async def test_starts_and_stops(self) -> None:
        """What the config names is bound and dialled; afterwards everything is free again."""
        table = {"link": {"listen": ["tcp:a:1"], "peer": [{"key": A.hex(), "address": "tcp:b:2"}]}}
        node, router = await self.started(table)
        self.assertEqual(router.peers, [(A, "tcp:b:2")])
        self.assertTrue(router.running)
        self.assertEqual(node.settings.control_socket.stat().st_mode & 0o777, 0o600)
        self.assertIs(NODES.find(node.name), node)
        await node.stopService()
        self.assertFalse(router.running)
        self.assertFalse(node.settings.control_socket.exists())
        self.assertRaises(UsageError, NODES.find, node.name)
        node.startService()
        await node.ready()

    async def test_link_port_in_use(self) -> None:
        """The node does not start, says which address, and frees what it had."""
        folder = new_folder(self)
        router = FakeRouter(taken={"tcp:a:1"})
        node, _ = make_node(folder, reactor, {"link": {"listen": ["tcp:a:1"]}}, router)
        node.startService()
        error = await self.assertFailure(node.ready(), LocalError)
        self.assertIn("tcp:a:1", str(error))
        self.assertIsNotNone(node.failure)
        lock = node.disk.lock(node.data / "lock")
        lock.release()

    async def test_metrics_port_in_use(self) -> None:
        """A taken metrics port is named with its key, and the router is stopped again."""
        with socket.create_server(("127.0.0.1", 0)) as taken:
            address = f"127.0.0.1:{taken.getsockname()[1]}"
            node, router = make_node(new_folder(self), reactor, {"metrics": {"listen": address}})
            node.startService()
            error = await self.assertFailure(node.ready(), LocalError)
        self.assertIn(address, str(error))
        self.assertIn("metrics.listen", str(error))
        self.assertFalse(router.running)

    async def test_one_node_per_data_directory(self) -> None:
        """A second node on the same data is refused before it touches anything."""
        node, _ = await self.started()
        second, _ = make_node(node.data.parent, reactor, {"node": {"name": "second"}})
        second.startService()
        error = await self.assertFailure(second.ready(), LocalError)
        self.assertIn("Another node uses", str(error))

    async def test_stale_and_live_sockets(self) -> None:
        """A socket left by a crash is replaced; one that answers is not."""
        node, _ = await self.started()
        table = {"control": {"socket": str(node.settings.control_socket)}}
        second, _ = make_node(new_folder(self), reactor, {**table, "node": {"name": "2"}})
        second.startService()
        error = await self.assertFailure(second.ready(), LocalError)
        self.assertIn("Another node answers", str(error))
        await node.stopService()
        with socket.socket(socket.AF_UNIX) as left:
            left.bind(str(node.settings.control_socket))
        second.startService()
        await second.ready()
        await second.stopService()

    async def test_full_disk(self) -> None:
        """A node that cannot write its data says so and does not start."""

        class FullDisk(RealDisk):
            def mkdir(self, path: Any, permissions: int = 0o700) -> None:
                raise DiskFullError(f"no space left to make {path}: free some on that disk")

        node, router = make_node(new_folder(self), reactor)
        node.disk = FullDisk()
        node.startService()
        error = await self.assertFailure(node.ready(), DiskFullError)
        self.assertIn("no space left", str(error))
        self.assertFalse(router.running)

    async def test_control_on_loopback(self) -> None:
        """The same routes over TCP, for whoever holds the token of the 0600 file."""
        node, _ = await self.started({"control": {"listen": "127.0.0.1:0", "socket": self.socket()}})
        url = node.status()["control"]["url"]
        token = node.data / "control.token"
        self.assertEqual(token.stat().st_mode & 0o777, 0o600)
        headers = {"Authorization": f"Bearer {token.read_text().strip()}"}
        page = await deferToThread(urlopen, Request(f"{url}/status", headers=headers), timeout=10)
        with page:
            self.assertEqual(json.load(page)["pid"], os.getpid())
        await self.assertFailure(deferToThread(urlopen, f"{url}/status", timeout=10), HTTPError)

    async def test_long_socket_path(self) -> None:
        """A path that no socket can have is one sentence."""
        table = {"control": {"socket": "/tmp/" + "x" * 120}}
        node, _ = make_node(new_folder(self), reactor, table)
        node.startService()
        error = await self.assertFailure(node.ready(), LocalError)
        self.assertIn("[control] socket", str(error))


class AppTests(RunningCase):
    async def test_routes_and_status(self) -> None:
        """An app's routes lie under its name, its status in the node's."""
        node, _ = await self.started(apps=[DoorApp()])
        answer = await self.call(node, "POST", "/apps/door/knock", {"n": 1})
        self.assertEqual(answer, {"heard": {"n": 1}})
        status = await self.call(node, "GET", "/status")
        self.assertEqual(status["apps"], {"door": {"open": True}})

    async def test_a_broken_app_costs_a_sentence(self) -> None:
        """Whatever an app does wrong, the node runs and says so."""
        for app in (DoorApp(fault=RuntimeError("oh")), DoorApp(making=KeyError("oh"))):
            node, _ = await self.started(apps=[app])
            self.assertEqual(len(self.flushLoggedErrors(RuntimeError, KeyError)), 1)
            status = await self.call(node, "GET", "/status")
            self.assertEqual(status["apps"], {})
            self.assertIn("App door did not start", status["notes"][0])
            await node.stopService()

    async def test_an_app_may_refuse(self) -> None:
        """A port in use or a wrong section is the operator's: the node does not start."""
        for fault in (LocalError("port 1080 is in use."), ConfigError("exit.allow is wrong.")):
            app = DoorApp(fault=fault)
            node, _ = make_node(new_folder(self), reactor, apps=[app])
            node.startService()
            await self.assertFailure(node.ready(), type(fault))

    async def test_an_unexpected_error_tells_nothing(self) -> None:
        """The client learns that it failed, the log why."""
        node, _ = await self.started(apps=[DoorApp()])
        error = await self.assertFailure(self.call(node, "GET", "/apps/door/fail"), Exception)
        self.assertNotIn("not told", str(error))
        self.assertEqual(len(self.flushLoggedErrors(RuntimeError)), 1)


class ApiTests(RunningCase):
    TABLE: dict[str, Any] = {  # noqa: RUF012  (never changed)
        "known": [{"name": "ann", "key": A.hex()}, {"name": "bob", "key": B.hex()}],
        "route": [{"to": "ann", "via": ["bob"]}],
        "link": {"peer": [{"key": "bob", "address": "tcp:b:2"}]},
    }

    async def test_status(self) -> None:
        """Who, where, limits and drops."""
        node, router = await self.started(self.TABLE)
        router.dropped = {"replayed": 2}
        status = await self.call(node, "GET", "/status")
        self.assertEqual(status["public_key"], node.public_key.hex())
        self.assertEqual(status["limits"]["max_circuits"], 65_536)
        self.assertEqual(status["dropped"], {"replayed": 2})
        self.assertEqual(status["links"], {"up": 0, "configured": 1})

    async def test_links(self) -> None:
        """Configured neighbours are shown also while they are down, with their pet names."""
        node, router = await self.started(self.TABLE)
        links = (await self.call(node, "GET", "/links"))["links"]
        self.assertEqual([(link["name"], link["up"]) for link in links], [("bob", False)])
        router.links = [link_snapshot(B), link_snapshot(C)]
        links = (await self.call(node, "GET", "/links"))["links"]
        self.assertEqual([(link["name"], link["up"]) for link in links], [("bob", True), (None, True)])

    async def test_lost_links(self) -> None:
        """A configured neighbour that was lost says since when and why; so does one that is not dialled."""
        node, router = await self.started(self.TABLE)
        router.why = {B.hex(): "nothing listens there"}
        (link,) = node.links()
        self.assertEqual((link["lost_seconds"], link["why"]), (None, "nothing listens there"))
        router.links = [link_snapshot(B), link_snapshot(C)]
        self.assertEqual([(each["lost_seconds"], each["why"]) for each in node.links()], [(None, None)] * 2)
        router.links = [link_snapshot(C, up=False)]
        other, peer = node.links()
        self.assertEqual((peer["peer"], peer["why"]), (B.hex(), "nothing listens there"))
        self.assertIsInstance(peer["lost_seconds"], float)
        self.assertIsInstance(other["lost_seconds"], float)
        self.assertIn("dials us", other["why"])

    async def test_linked(self) -> None:
        """Tells when a configured neighbour is linked, by key, by name, or any; nobody else is waited for."""
        node, router = await self.started(self.TABLE)
        waiting = [node.linked(), node.linked("bob"), node.linked(B)]
        fired: list[None] = []
        for each in waiting:
            each.addCallback(fired.append)
        self.assertEqual(fired, [])
        router.on_link(B)
        self.assertEqual(fired, [None] * 3)
        for peer, words in (("ann", "does not dial ann"), ("bo", "did you mean bob?"), (C, C.hex())):
            error = await self.assertFailure(node.linked(peer), UsageError)
            self.assertIn(words, str(error))
        lonely, _ = make_node(new_folder(self), reactor)
        self.assertIn("anybody", str(await self.assertFailure(lonely.linked(), UsageError)))

    async def test_stopped_before_it_was_linked(self) -> None:
        """Who waits for a link is told that there will be none."""
        node, _ = await self.started(self.TABLE)
        waiting = node.linked()
        await node.stopService()
        await self.assertFailure(waiting, UnreachableError)

    async def test_a_missing_first_link_is_explained(self) -> None:
        """The sentence says what is known of the first node's link, or that a route is missing."""
        node, router = await self.started(self.TABLE)
        router.no_link = CircuitError("there is no link", Reason.NO_LINK)
        router.why = {B.hex(): "nothing listens there"}
        for body, words in (
            ({"target": "ann"}, "first node of the route: not linked yet: nothing listens there"),
            ({"target": C.hex()}, f"no link to {C.hex()[:8]}…: name the relays to it with --via"),
            ({"target": "ann", "via": [C.hex()]}, "no [[link.peer]] here"),
        ):
            error = await self.assertFailure(self.call(node, "POST", "/ping", body), CircuitError)
            self.assertIn(words, str(error))
            self.assertEqual((error.reason, error.hop, error.exit_code), (Reason.NO_LINK, None, 4))
        router.no_link = CircuitError("relay 1 has no link to the next node", Reason.NO_LINK, 0)
        error = await self.assertFailure(self.call(node, "POST", "/ping", {"target": "ann"}), CircuitError)
        self.assertIn("relay 1 has no link", str(error))

    async def test_ping_routes(self) -> None:
        """Given relays win over the configured route, which wins over a direct link."""
        node, router = await self.started(self.TABLE)
        for body, via in (
            ({"target": "ann"}, (B,)),
            ({"target": "ann", "via": []}, ()),
            ({"target": "ann", "via": [C.hex()], "count": 4}, (C,)),
            ({"target": C.hex()}, ()),
        ):
            report = await self.call(node, "POST", "/ping", body)
            self.assertEqual(report["via"], [hop.hex() for hop in via])
        self.assertEqual(
            [(via, count) for _, via, count in router.pinged], [((B,), 1), ((), 1), ((C,), 4), ((), 1)]
        )

    async def test_trace(self) -> None:
        """Each prefix of the route is measured; a hop that fails does not end it."""
        node, router = await self.started(self.TABLE)
        router.unreachable = {A}
        report = await self.call(node, "POST", "/trace", {"target": "ann", "via": [C.hex(), "bob"]})
        self.assertEqual([(t, via) for t, via, _ in router.pinged], [(C, ()), (B, (C,)), (A, (C, B))])
        self.assertEqual([hop.get("rtt_ms") for hop in report["hops"]], [2.0, 2.0, None])
        self.assertFalse(report["complete"])
        error = from_json(report["hops"][2])
        self.assertIsInstance(error, CircuitError)
        self.assertIn("hop 2", str(error))

    async def test_bad_requests(self) -> None:
        """Unknown keys and wrong values name the field; unknown paths say so."""
        node, _ = await self.started(self.TABLE)
        for method, path, body, words in (
            ("POST", "/ping", {"target": "ann", "cuont": 3}, "did you mean count?"),
            ("POST", "/ping", {}, "target is missing"),
            ("POST", "/ping", {"target": "an"}, "did you mean ann?"),
            ("POST", "/ping", {"target": "ann", "count": 1.5}, "whole number"),
            ("POST", "/ping", {"target": "ann", "via": ["bob", "bob"]}, "twice"),
            ("POST", "/ping", {"target": node.public_key.hex()}, "this node's own key"),
            ("POST", "/trace", {"target": "ann", "via": [node.public_key.hex()]}, "leave its own key out"),
            ("GET", "/status", {"x": "1"}, "not a known key"),
            ("GET", "/history", {"ring": "2s"}, "1s, 10s, 1min, 1h"),
            ("POST", "/status", {}, "no POST /status"),
            ("GET", "/apps/none/x", None, "no GET /apps/none/x"),
            ("POST", "/stop", {}, "inside another program"),
        ):
            error = await self.assertFailure(self.call(node, method, path, body), UsageError)
            self.assertIn(words, str(error))

    async def test_errors_keep_their_kind(self) -> None:
        """A circuit's error arrives as one, with its reason and hop."""
        node, router = await self.started(self.TABLE)
        router.unreachable = {A}
        error = await self.assertFailure(self.call(node, "POST", "/ping", {"target": "ann"}), CircuitError)
        self.assertEqual((error.hop, error.reason.name, error.exit_code), (1, "NO_LINK", 4))
        await node.stopService()
        await self.assertFailure(self.call(node, "GET", "/status"), UnreachableError)

    async def test_metrics_and_history(self) -> None:
        """Both are there through the API too."""
        node, _ = await self.started(self.TABLE)
        text = (await self.call(node, "GET", "/metrics"))["text"]
        self.assertIn("meshnet_links 0.0", text)
        history = await self.call(node, "GET", "/history", {"ring": "1min"})
        self.assertEqual(history["step_seconds"], 60)
        self.assertIn("links", history["series"])

    async def test_stop(self) -> None:
        """POST /stop answers, then tells whoever runs the node."""
        node, _ = await self.started(self.TABLE)
        finished: Deferred[None] = Deferred()
        node.finished = finished
        self.assertEqual(await self.call(node, "POST", "/stop"), {"stopping": True})
        await finished


class SeamTests(SynchronousTestCase):
    def test_connect_takes_the_route(self) -> None:
        """Apps that name no relays get the configured ones."""
        node, router = make_node(new_folder(self), Clock(), ApiTests.TABLE)
        for via in (None, (), (C,)):
            self.failureResultOf(node.connect(A, 80, None, via=via), CircuitError)  # type: ignore[arg-type]
        self.assertEqual([entry[2] for entry in router.connected], [(B,), (), (C,)])
        self.assertRaises(LocalError, node.listen, 80, lambda stream: None)
        self.assertEqual(node.lookup("ann"), A)

    def test_samples_once_a_second(self) -> None:
        """The rings move with the clock, and a late reactor shows."""
        clock = Clock()
        node, router = make_node(new_folder(self), clock, now=clock.seconds)
        router.links = [link_snapshot(A)]
        node._sample()
        for _ in range(3):
            router.links = [link_snapshot(A, bytes_in=router.links[0]["bytes_in"] + 10)]
            clock.advance(1)
        self.assertEqual(node.history.series("1s")["bytes_in"], [0, 10, 10, 10])
        clock.advance(0.5)
        node._stop_sampling()
        self.assertEqual(clock.getDelayedCalls(), [])


class SecretTests(RunningCase):
    async def test_no_secret_anywhere(self) -> None:
        """The secret key is in no answer."""
        node, _ = await self.started()
        secret = SecretKey.generate()
        write_secret(node.disk, node.data / "key", secret.secret.hex().encode())
        for path in ("/status", "/links", "/circuits", "/metrics"):
            self.assertNotIn(secret.secret.hex(), json.dumps(await self.call(node, "GET", path)))
