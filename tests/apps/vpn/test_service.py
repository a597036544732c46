"""The app on a node: config, control routes, metrics; and over real sockets on loopback."""

from __future__ import annotations

import socket
from collections.abc import Generator
from typing import Any

from prometheus_client import generate_latest
from twisted.internet.defer import Deferred, inlineCallbacks
from twisted.internet.protocol import Factory
from twisted.internet.threads import deferToThread
from twisted.trial.unittest import SynchronousTestCase, TestCase
from zope.interface.verify import verifyObject

from apps.vpn.app import VpnApp
from apps.vpn.policy import rule
from apps.vpn.service import VpnService
from apps.vpn.settings import Exit, Forward, Serve, Socks, VpnSettings
from meshnet.errors import LocalError, UsageError
from meshnet.node.app import IApp, IAppService
from tests.support.loopback import Blob, fetch, talk
from tests.support.streams import FakeMesh
from tests.support.tcp import NamedReactor


class ServiceTests(SynchronousTestCase):
    def setUp(self) -> None:
        self.reactor = NamedReactor()
        self.mesh = FakeMesh(self.reactor)
        self.user, self.far = self.mesh.node("user"), self.mesh.node("far")

    def start(self, settings: VpnSettings | None = None) -> VpnService:
        self.service = VpnApp().make_service(self.user, settings or VpnSettings())  # type: ignore[arg-type]
        self.service.startService()
        return self.service

    def call(self, route: str, **body: Any) -> Any:
        """The answer of a control route."""
        answer = self.service.routes()[route](body)
        return self.successResultOf(answer) if isinstance(answer, Deferred) else answer

    def test_interfaces(self) -> None:
        """The dropin and the service are what the node expects; without config nothing listens."""
        verifyObject(IApp, VpnApp())
        verifyObject(IAppService, self.start())
        self.assertEqual((self.reactor.tcpServers, self.user.ports), ([], {}))
        self.assertEqual(
            [verb.name for verb in VpnApp().verbs()], ["socks", "forward", "serve", "exit", "vpn", "tun"]
        )

    def test_config(self) -> None:
        """All sections take effect at the start and end with the service."""
        key = self.far.public_key
        self.start(
            VpnSettings(
                socks=Socks(exit=key),
                forward=(Forward(("127.0.0.1", 8080), key, 80),),
                serve=(Serve(22, ("127.0.0.1", 22)),),
                exit=Exit(enabled=True),
            )
        )
        self.assertEqual([server[0] for server in self.reactor.tcpServers], [1080, 8080])
        self.assertEqual(sorted(self.user.ports), [22, 1080])
        status = self.service.status()
        self.assertEqual(status["exit"]["allow"], ["public"])
        served = {"port": 22, "target": "127.0.0.1:22", "callers": "any", "address": ""}
        self.assertEqual(status["serve"], [{**served, "last_error": "", "last_error_seconds": None}])
        client = self.reactor.connect()
        d = self.service.stopService()
        self.assertNoResult(d)
        self.mesh.flush()
        self.successResultOf(d)
        self.assertEqual((client.closed, self.user.ports), ("aborted", {}))

    def test_taken_port(self) -> None:
        """A mesh port that is taken stops the start, and what was bound before is given back."""
        self.user.listen(22, lambda stream: None)
        settings = VpnSettings(serve=(Serve(21, ("127.0.0.1", 1)), Serve(22, ("127.0.0.1", 1))))
        self.assertRaises(LocalError, self.start, settings)
        self.assertEqual(list(self.user.ports), [22])

    def test_socks_route(self) -> None:
        """Add by name, list, remove."""
        self.start()
        made = self.call("POST /socks", exit="far", listen="127.0.0.1:9999", via=[], identity="node")
        self.assertEqual((made["exit"], made["via"]), (self.far.public_key.hex(), []))
        self.assertEqual(self.call("GET /socks")["socks"], [made])
        self.assertEqual(self.call("DELETE /socks", listen=made["listen"]), {"removed": made["listen"]})
        self.assertEqual(self.call("GET /socks")["socks"], [])
        self.assertRaises(UsageError, self.call, "DELETE /socks", listen=made["listen"])

    def test_forward_route(self) -> None:
        """The same for forwards; no route named is the configured one."""
        self.start()
        made = self.call("POST /forward", listen="127.0.0.1:0", to="far", port=80)
        self.assertEqual((made["port"], made["via"]), (80, None))
        self.assertEqual(self.call("GET /forward")["forward"], [made])
        self.call("DELETE /forward", listen=made["listen"])
        self.assertEqual(self.call("GET /forward")["forward"], [])

    def test_serve_route(self) -> None:
        """The same for served ports."""
        self.start()
        made = self.call("POST /serve", port=80, target="127.0.0.1:8000", callers=["far"])
        self.assertEqual(made["callers"], [self.far.public_key.hex()])
        self.assertRaises(LocalError, self.call, "POST /serve", port=80, target="127.0.0.1:8000")
        self.assertEqual(self.call("DELETE /serve", port=80), {"removed": 80})
        self.assertRaises(UsageError, self.call, "DELETE /serve", port=80)
        self.assertEqual(self.user.ports, {})

    def test_exit_route(self) -> None:
        """On with rules, changed, off."""
        self.start()
        state = self.call("POST /exit", enabled=True, allow=["127.0.0.0/8:80"], remove=["public"])["exit"]
        self.assertEqual((state["enabled"], state["allow"]), (True, ["127.0.0.0/8:80"]))
        self.assertEqual(self.call("POST /exit", deny=["127.0.0.1"])["exit"]["deny"], ["127.0.0.1"])
        self.assertIn(1080, self.user.ports)
        self.assertEqual(self.call("POST /exit", enabled=False)["exit"]["enabled"], False)
        self.assertEqual(self.user.ports, {})

    def test_bad_requests(self) -> None:
        """What is wrong in a request is said with its key; nothing happens."""
        self.start()
        for route, body, key in (
            ("POST /socks", {}, "exit"),
            ("POST /socks", {"exit": "nobody"}, "exit"),
            ("POST /socks", {"exit": "far", "colour": "red"}, "colour"),
            ("POST /socks", {"exit": "far", "listen": "nonsense"}, "listen"),
            ("POST /forward", {"listen": "127.0.0.1:0", "to": "far", "port": 0}, "port"),
            ("POST /serve", {"port": 80, "target": "x"}, "target"),
            ("POST /exit", {"allow": ["nonsense/"]}, "allow"),
            ("GET /exit", {"x": 1}, "x"),
        ):
            failure = self.assertRaises(UsageError, self.call, route, **body)
            self.assertIn(key, str(failure))
        self.assertEqual(self.reactor.tcpServers, [])

    def test_metrics(self) -> None:
        """Each role has its series, each with a help text."""
        self.start()
        self.service._roles["exit"].counts.refuse("private")
        text = generate_latest(self.user.registry).decode()
        self.assertIn('meshnet_vpn_refusals_total{reason="private",role="exit"} 1.0', text)
        self.assertIn('meshnet_vpn_bytes_total{direction="to_mesh",role="socks"} 0.0', text)
        self.assertEqual(text.count("# HELP meshnet_vpn_"), 4 + 8 + 4)


class LoopbackTests(TestCase):
    """Real sockets at both ends, in-memory streams between the nodes."""

    def setUp(self) -> None:
        from twisted.internet import reactor  # noqa: TID251

        self.reactor: Any = reactor
        self.mesh = FakeMesh(reactor, window=1 << 20)
        self.user, self.far = self.mesh.node("user"), self.mesh.node("far")
        blob = type("Blob", (Blob,), {"callers": []})
        self.callers = blob.callers
        self.server = reactor.listenTCP(0, Factory.forProtocol(blob), interface="127.0.0.1")  # type: ignore[attr-defined]
        self.addCleanup(self.server.stopListening)
        self.port = self.server.getHost().port

    def start(self, node: Any, settings: VpnSettings) -> VpnService:
        service = VpnService(node, settings)
        service.startService()
        self.addCleanup(service.stopService)
        return service

    @inlineCallbacks
    def test_socks(self) -> Generator[Deferred[Any], Any, None]:
        """Megabytes from a real server through SOCKS and the exit, which comes from its source address."""
        key = self.far.public_key
        exit_settings = Exit(enabled=True, allow=(rule("127.0.0.0/8"),), source="127.0.0.9")
        self.start(self.far, VpnSettings(exit=exit_settings))
        service = self.start(self.user, VpnSettings(socks=Socks(exit=key, listen=("127.0.0.1", 0), via=())))
        proxy = service.status()["socks"][0]["listen"]
        received = yield deferToThread(fetch, proxy, self.port, b"0123456789")
        self.assertEqual(received, b"0123456789" * 300_000)
        self.assertEqual(self.callers, ["127.0.0.9"])
        counts = service.status()["counts"]["socks"]
        self.assertEqual((counts["bytes_from_mesh"], counts["bytes_to_mesh"]), (3_000_000, 10))

    @inlineCallbacks
    def test_forward_to_serve(self) -> Generator[Deferred[Any], Any, None]:
        """A forward to a served port; a second service on the same port is told that it is taken."""
        self.start(self.far, VpnSettings(serve=(Serve(80, ("127.0.0.1", self.port)),)))
        forward = Forward(("127.0.0.1", 0), self.far.public_key, 80, via=())
        service = self.start(self.user, VpnSettings(forward=(forward,)))
        host, _, port = service.status()["forward"][0]["listen"].rpartition(":")

        def use() -> bytes:
            with socket.create_connection((host, int(port)), timeout=10) as client:
                return talk(client, b"abc")

        received = yield deferToThread(use)
        self.assertEqual(len(received), 3_000_000)
        again = Forward((host, int(port)), self.far.public_key, 80)
        self.assertRaises(LocalError, service.add_forward, again)

    @inlineCallbacks
    def test_refused_by_policy(self) -> Generator[Deferred[Any], Any, None]:
        """The default exit does not reach loopback: SOCKS says "not allowed"."""
        self.start(self.far, VpnSettings(exit=Exit(enabled=True)))
        settings = VpnSettings(socks=Socks(exit=self.far.public_key, listen=("127.0.0.1", 0)))
        service = self.start(self.user, settings)
        proxy = service.status()["socks"][0]["listen"]
        answer = yield deferToThread(fetch, proxy, self.port, b"x")
        self.assertEqual(answer[1], 2)
        self.assertEqual(self.callers, [])
