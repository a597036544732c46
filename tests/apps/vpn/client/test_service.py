"""The tunnel of a node: its life with all that belongs to it."""

from __future__ import annotations

from ipaddress import IPv4Address

from attrs import evolve

from apps.vpn.client import service, system
from apps.vpn.lease import RefusalCode
from apps.vpn.settings import Tunnel
from meshnet.errors import LocalError, MeshError, UnreachableError, UsageError
from meshnet.streams import Flow
from tests.support.tunnel import LEASE, OLD, TunnelCase


class TunnelTests(TunnelCase):
    """Its life with all that belongs to it."""

    def test_up_and_down(self) -> None:
        """A lease, an interface with its addresses and MTU, routes, names; then all as before."""
        shown = self.up(killswitch=True)
        self.assertEqual(shown["state"], "up")
        self.assertEqual(shown["kill_switch"], "nftables")
        self.assertEqual(shown["lease"]["v4"], "100.64.0.7")
        self.assertEqual(shown["exit"], self.far.public_key.hex())
        self.assertEqual(self.mtus, [1_400])
        self.assertEqual(self.machine.addresses, [("mesh-vpn", "100.64.0.7/32"), ("mesh-vpn", "fd64::7/128")])
        self.assertIn("nameserver 100.64.0.1\n", self.resolv.read_text())
        self.assertEqual(self.exit.asked[0].mtu, 1_500)
        down = self.tunnel.down()
        self.flush()
        self.assertEqual(self.successResultOf(down), [])
        self.assertEqual(self.state(), "down")
        self.assert_as_before()
        self.assertEqual(self.reactor.readers, set())
        self.assertEqual(self.reactor.getDelayedCalls(), [])

    def test_packets(self) -> None:
        """What the device has goes out over the stream, and over the next one after a loss."""
        self.up()
        for _ in range(2):
            near = self.user.streams[-1]
            packet = bytes(10) + b"E" + bytes(39)
            self.devices[0].frames.append(packet)
            self.reactor.read()
            self.assertIsNotNone(near.source)
            room = memoryview(bytearray(100))
            self.assertEqual(near.source.pour(room, 0.0), 52)  # type: ignore[union-attr]
            self.exit.streams[-1].reset()
            self.flush()
            self.assertEqual(self.state(), "up")
        self.assertEqual(self.tunnel.describe()["redials"], 2)

    def test_redials_while_everything_stands(self) -> None:
        """The exit dies: nothing in the system changes, it is called until it answers, with the ticket."""
        self.up()
        standing = self.machine.state()
        self.mesh.connect_error = UnreachableError("no way leads to that node")
        self.exit.streams[-1].reset()
        self.flush()
        self.assertEqual(self.state(), "reconnecting")
        self.machine.calls.clear()
        for _ in range(30):
            self.flush(5.0)
        self.assertEqual(self.state(), "reconnecting")
        self.assertEqual(self.machine.state(), standing)
        self.assertEqual(self.machine.calls, [])
        self.assertIn("no way leads", self.tunnel.describe()["why"])
        self.mesh.connect_error = None
        self.flush(15.0)
        self.assertEqual(self.state(), "up")
        self.assertEqual(self.exit.asked[-1].ticket, LEASE.ticket)
        self.assertEqual(self.machine.state(), standing)
        self.assertEqual(len(self.devices), 1)

    def test_other_addresses(self) -> None:
        """The next lease has others: they take the place of the old ones, the guard without a gap."""
        self.up(killswitch=True)
        self.exit.lease = evolve(LEASE, v4=IPv4Address("100.64.0.9"), dns=(IPv4Address("100.64.0.2"),))
        self.machine.calls.clear()
        self.exit.streams[-1].reset()
        self.flush()
        self.assertEqual(self.state(), "up")
        self.assertEqual(self.machine.addresses, [("mesh-vpn", "fd64::7/128"), ("mesh-vpn", "100.64.0.9/32")])
        self.assertIn("100.64.0.2", self.resolv.read_text())
        deleted = [
            text for _, text in self.machine.calls if "delete table" in text and "chain output" not in text
        ]
        self.assertEqual(deleted, [])
        self.tunnel.down()
        self.assert_as_before()

    def test_first_attempt_fails(self) -> None:
        """`vpn up` that cannot be: why, and nothing has changed."""
        self.mesh.connect_error = UnreachableError("no way leads to that node")
        up = self.tunnel.up(evolve(self.settings, killswitch=True))
        self.flush()
        self.assertIn("no way leads", str(self.failureResultOf(up, UnreachableError).value))
        self.assertEqual(self.state(), "down")
        self.assert_as_before()
        self.mesh.connect_error = None
        self.up()

    def test_refused(self) -> None:
        """An exit that is full, at the first attempt."""
        self.exit.code = RefusalCode.FULL
        up = self.tunnel.up(self.settings)
        self.flush()
        self.assertIn("for a reason", str(self.failureResultOf(up, MeshError).value))
        self.assert_as_before()

    def test_silent_exit(self) -> None:
        """One that never answers is given up."""
        self.exit.silent = True
        up = self.tunnel.up(self.settings)
        self.flush(21.0)
        self.assertIn("no lease within", str(self.failureResultOf(up, MeshError).value))
        self.assertTrue(self.user.streams[-1].gone)
        self.assert_as_before()

    def test_blocked(self) -> None:
        """An exit that has nothing for us any more: with the kill switch everything stays blocked, until
        somebody takes it down; without, all is undone."""
        for killswitch, state in ((True, "blocked"), (False, "down")):
            self.up(killswitch=killswitch)
            self.exit.code = RefusalCode.NO_SUCH_FAMILY
            self.exit.streams[-1].reset()
            self.flush()
            self.assertEqual(self.state(), state)
            self.exit.code = None
            if killswitch:
                self.assertIn("meshnet_vpn", self.machine.tables)
                self.successResultOf(self.tunnel.down())
            self.assert_as_before()

    def test_refused_by_the_system(self) -> None:
        """What the machine does not let us do is told, and nothing of it stays."""
        self.machine.refuse = "route replace"
        up = self.tunnel.up(self.settings)
        self.flush()
        self.assertIn("The system refused", str(self.failureResultOf(up, LocalError).value))
        self.machine.refuse = ""
        self.assert_as_before()

    def test_an_address_of_our_network(self) -> None:
        """An exit may not take the place of a host in a network of ours."""
        self.machine.addresses.append(("eth0", "100.64.0.0/16"))
        self.before = self.machine.state()
        up = self.tunnel.up(self.settings)
        self.flush()
        self.assertIn("lies in a network of eth0", str(self.failureResultOf(up, LocalError).value))
        self.assert_as_before()

    def test_another_vpn(self) -> None:
        """Rules of another node are not touched, and ours are not put beside them."""
        self.machine.rules[4].append("preference 5220 lookup 28005")
        self.before = self.machine.state()
        up = self.tunnel.up(self.settings)
        self.flush()
        self.assertIn("Another VPN stands here", str(self.failureResultOf(up, LocalError).value))
        self.assert_as_before()

    def test_interface_gone(self) -> None:
        """Somebody deletes the interface: another one, the same addresses."""
        self.up(killswitch=True)
        standing = self.machine.state()
        self.machine.remove("mesh-vpn")
        self.devices[0].broken = OSError(5, "gone")
        self.reactor.read()
        self.flush(1.0)
        self.assertEqual(self.state(), "up")
        self.assertEqual(len(self.devices), 2)
        self.assertEqual(self.machine.state(), standing)
        self.successResultOf(self.tunnel.down())
        self.assert_as_before()

    def test_put_back(self) -> None:
        """What others take away comes back when the kernel tells of it."""
        self.up(killswitch=True)
        standing = self.machine.state()
        self.machine.tables.clear()
        self.machine.rules[4].clear()
        self.changed[0]()
        self.assertEqual(self.machine.state(), standing)
        shown = self.tunnel.describe()
        self.assertEqual(shown["repairs"], len(shown["events"]) - 1)
        self.assertIn("put back: nftables table", shown["events"][1]["text"])

    def test_down_at_any_time(self) -> None:
        """While it dials, while the system is being changed, while it dials again."""
        for held in (False, True):
            up = self.tunnel.up(self.settings)
            if held:
                self.host.held = []
                self.flush()
            down = self.tunnel.down()
            self.host.let_go()
            self.flush(30.0)
            self.failureResultOf(up, LocalError)
            self.assertEqual(self.successResultOf(down), [])
            self.assert_as_before()
        self.up()
        self.mesh.connect_error = UnreachableError("gone")
        self.exit.streams[-1].reset()
        self.flush()
        self.successResultOf(self.tunnel.down())
        self.assert_as_before()

    def test_lost_while_the_system_is_changed(self) -> None:
        """The lease ends before the system is ready: the first attempt fails, and undoes itself."""
        self.host.held = []
        up = self.tunnel.up(self.settings)
        self.flush()
        self.exit.streams[-1].reset()
        self.flush()
        self.host.let_go()
        self.failureResultOf(up, MeshError)
        self.flush()
        self.assert_as_before()

    def test_usage(self) -> None:
        """What cannot be meant."""
        self.assertRaises(UsageError, self.tunnel.up, Tunnel(self.user.public_key))
        self.assertRaises(
            UsageError, self.tunnel.up, Tunnel(self.far.public_key, via=(self.user.public_key,))
        )
        self.up()
        self.assertRaises(UsageError, self.tunnel.up, self.settings)

    def test_hops(self) -> None:
        """Relays are picked among those that are known; too few are a sentence."""
        other = self.mesh.node("other")
        shown = self.up(hops=2)
        self.assertEqual(shown["via"], [other.public_key.hex()])
        self.successResultOf(self.tunnel.down())
        up = self.tunnel.up(evolve(self.settings, hops=3))
        self.flush()
        self.assertIn("needs 2 relays", str(self.failureResultOf(up, UsageError).value))
        self.assert_as_before()

    def test_new_terms(self) -> None:
        """The exit may say other terms later; the MTU follows."""
        self.up()
        reader = self.exit.streams[-1].reader  # type: ignore[attr-defined]
        self.exit.streams[-1].write(reader.conversation.granted(evolve(LEASE, mtu=1_280)))
        self.flush()
        self.assertEqual(self.mtus, [1_400, 1_280])
        self.assertEqual(self.tunnel.describe()["lease"]["mtu"], 1_280)

    def test_beside_it(self) -> None:
        """Another interface of the node comes up: it may send past the kill switch, and its server of names
        is asked first; both end with it."""
        self.up(killswitch=True)
        stands, resolv = self.machine.state(), self.resolv.read_text()
        self.own = system.Own(("mesh0",), ("fc12::1",))
        self.tunnel.refresh()
        self.assertIn('{ "mesh-vpn", "mesh0" } accept', self.machine.tables["meshnet_vpn"])
        self.assertIn("nameserver fc12::1\nnameserver 100.64.0.1\n", self.resolv.read_text())
        self.own = system.Own()
        self.tunnel.refresh()
        self.assertEqual(self.machine.state(), stands)
        self.assertEqual(self.resolv.read_text(), resolv)
        self.successResultOf(self.tunnel.down())
        self.tunnel.refresh()
        self.assert_as_before()

    def test_stalled(self) -> None:
        """Something was sent and nothing comes: told, and no longer called up; with a way that the node
        picks, another one is."""
        self.mesh.node("other")
        for hops, redials in ((0, 0), (2, 1)):
            self.up(hops=hops)
            self.user.streams[-1].flow = lambda: Flow(0.0, 0.0, 0, 100)  # type: ignore[method-assign]
            for _ in range(9):
                self.flush(1.0)
            self.assertEqual(self.tunnel.redials, 0)
            self.assertGreater(self.tunnel.describe()["stalled_seconds"], 7)
            for _ in range(3):
                self.flush(1.0)
            self.assertEqual(self.tunnel.redials, redials)
            self.assertEqual(self.state(), "up" if hops else "stalled")
            self.assertEqual(self.tunnel.is_up, bool(hops))
            self.successResultOf(self.tunnel.down())

    def test_looked_at(self) -> None:
        """Who looks is told how it is: at once where the exit answers, also after a long silence; where it
        does not, within a second that nothing comes through; and again when something does."""
        self.up()
        self.flush(3_600.0)
        stream = self.user.streams[-1]
        shown = self.successResultOf(self.tunnel.look())
        self.assertEqual((shown["state"], stream.probes), ("up", 1))
        stream.mute = True
        look = self.tunnel.look()
        self.flush(0.5)
        self.assertNoResult(look)
        for _ in range(12):
            self.flush(0.05)
        self.assertEqual(self.successResultOf(look)["state"], "stalled")
        again = self.successResultOf(self.tunnel.look())
        self.assertGreaterEqual(again["stalled_seconds"], 1.0)
        self.flush(20.0)
        self.assertEqual(self.state(), "stalled")
        stream.mute = False
        stream.heard += 1
        self.assertEqual(self.successResultOf(self.tunnel.look())["state"], "up")

    def test_lost_while_looked_at(self) -> None:
        """The call ends under who looks: told at once."""
        self.up()
        self.user.streams[-1].mute = True
        look = self.tunnel.look()
        self.exit.silent = True
        self.user.streams[-1].other.reset()
        self.flush(0.1)
        self.assertEqual(self.successResultOf(look)["state"], "reconnecting")

    def test_systemd(self) -> None:
        """Where systemd-resolved answers it is told, and resolv.conf stays the link that it is."""
        self.resolv.unlink()
        self.resolv.symlink_to("../run/systemd/resolve/stub-resolv.conf")
        self.up()
        self.assertEqual(self.machine.dns, {"mesh-vpn": ["100.64.0.1"]})
        self.assertTrue(self.resolv.is_symlink())
        self.machine.dns.clear()
        self.changed[0]()
        self.assertEqual(self.machine.dns, {"mesh-vpn": ["100.64.0.1"]})
        self.successResultOf(self.tunnel.down())
        self.assertEqual(self.machine.state(), self.before)

    def test_no_ipv6(self) -> None:
        """A kernel without IPv6 gets nothing of it; an exit that has nothing else cannot be used there."""
        self.v6.unlink()
        self.assertIn("IPv6 is turned off", self.up(killswitch=True)["notes"][0])
        self.assertEqual(self.machine.rules[6], [])
        self.assertEqual(self.machine.routes[6], [])
        self.successResultOf(self.tunnel.down())
        self.exit.lease = evolve(LEASE, v4=None, dns=())
        up = self.tunnel.up(self.settings)
        self.flush()
        self.assertIn("IPv6 alone", str(self.failureResultOf(up, LocalError).value))
        self.assert_as_before()

    def test_set_down(self) -> None:
        """Somebody sets the interface down: it is up again before anything is put back."""
        self.up()
        lifted: list[str] = []
        self.patch(service, "set_up", lambda name, *more: lifted.append(name))
        self.changed[0]()
        self.devices[-1].closed = True
        self.changed[0]()
        self.assertEqual(lifted, ["mesh-vpn"])
        self.assertIn("was set down", self.tunnel.describe()["events"][-1]["text"])

    def test_no_names(self) -> None:
        """An exit without a server of names: told, since without it there are none."""
        self.exit.lease = evolve(LEASE, dns=())
        self.assertIn("answers no names", self.up()["notes"][0])
        self.successResultOf(self.tunnel.down())
        self.assertEqual(self.up(dns=False)["notes"], [])
        self.assertEqual(self.resolv.read_text(), OLD)
