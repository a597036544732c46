"""Changes made and undone: in order, written down first, whole again after a death at any point."""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.host import plan, resolver
from apps.vpn.host.changes import Address, Firewall, ResolverFile, Route, Rule, Sysctl
from apps.vpn.host.host import BOOK, Host
from meshnet.errors import LocalError
from meshnet.storage.disk import RealDisk
from tests.support.machine import TOOLS, Killed, Machine

WANTED = plan.Wanted(
    tunnel="t0",
    mark=0x6D657368,
    addresses=("100.64.0.7", "fd00::7"),
    servers=("100.64.0.1",),
    outside=("lan", "198.51.100.0/24"),
    kill_switch=True,
    names=True,
    filters=("all",),
)
CHANGES = (*plan.block(WANTED), *plan.tunnel(WANTED))
OLD = "nameserver 192.0.2.53\nsearch example\n"


class HostTests(SynchronousTestCase):
    """A machine that is none, files in a folder of the test."""

    def setUp(self) -> None:
        folder = TemporaryDirectory()
        self.addCleanup(folder.cleanup)
        self.folder = Path(folder.name)
        self.resolv = self.folder / "resolv.conf"
        self.resolv.write_text(OLD)
        self.resolv.chmod(0o640)
        self.proc = self.folder / "proc"
        for name, text in (("net/ipv4/conf/all/rp_filter", "1"), ("kernel/random/boot_id", "boot-1")):
            (self.proc / name).parent.mkdir(parents=True, exist_ok=True)
            (self.proc / name).write_text(f"{text}\n")
        self.machine = Machine("t0", "eth0")
        self.machine.rules[4].append("preference 32766 lookup 254")
        self.machine.tables["other"] = "table inet other {\n}\n"

    def host(self) -> Host:
        """Opened anew, as by a process that has just started."""
        host = Host(
            RealDisk(),
            self.folder / BOOK,
            tools=TOOLS,
            run=self.machine.run,
            resolv=self.resolv,
            proc=self.proc,
        )
        self.addCleanup(host.close)
        self.assertEqual(host.notes, [])
        return host

    def everything(self) -> object:
        """All that a change could have touched."""
        found = self.resolv.lstat()
        content = os.readlink(self.resolv) if self.resolv.is_symlink() else self.resolv.read_text()
        rp_filter = (self.proc / "net/ipv4/conf/all/rp_filter").read_text()
        return self.machine.state(), content, oct(found.st_mode), found.st_uid, rp_filter

    def test_up_and_down(self) -> None:
        """All stands after `apply`, nothing after `undo`; the guard comes first and goes last."""
        before, host = self.everything(), self.host()
        host.apply("client", CHANGES)
        self.assertEqual(host.standing("client"), CHANGES)
        self.assertEqual(host.missing("client"), ())
        self.assertEqual(self.resolv.read_text(), resolver.text_for(("100.64.0.1",)))
        self.assertIn("table inet meshnet_vpn", self.machine.calls[0][1])
        self.machine.calls.clear()
        self.assertEqual(host.undo("client"), [])
        self.assertEqual(self.everything(), before)
        done = [text for command, text in self.machine.calls if "-f" in command or "-batch" in command]
        self.assertEqual(done[-1], "add table inet meshnet_vpn\ndelete table inet meshnet_vpn\n")
        self.assertEqual(host.standing(), ())

    def test_again_changes_nothing(self) -> None:
        """What stands is not made twice."""
        host = self.host()
        host.apply("client", CHANGES)
        self.machine.calls.clear()
        host.apply("client", CHANGES)
        self.assertEqual(self.machine.calls, [])

    def test_killed_at_any_point(self) -> None:
        """A process that died in the middle of `apply`, before any of its steps, leaves what is undone."""
        before, steps = self.everything(), 0
        for steps in range(200):
            self.machine.lines, self.machine.die_after = 0, steps
            try:
                self.host().apply("client", CHANGES)
            except Killed:
                pass
            else:
                break
            self.machine.die_after = None
            self.assertEqual(self.host().undo("client"), [])
            self.assertEqual(self.everything(), before, f"killed before step {steps}")
        self.assertGreater(steps, 30)

    def test_killed_while_undoing(self) -> None:
        """Also in the middle of `undo`, once and again."""
        before = self.everything()
        self.host().apply("client", CHANGES)
        for steps in range(0, 60, 7):
            self.machine.lines, self.machine.die_after = 0, steps
            try:
                self.host().undo("client")
            except Killed:
                continue
            break
        self.machine.die_after = None
        self.assertEqual(self.host().undo("client"), [])
        self.assertEqual(self.everything(), before)

    def test_refused_at_any_point(self) -> None:
        """What the system refuses is one sentence, and nothing of the rest stays."""
        before = self.everything()
        for word in ("table inet", "blackhole", "goto", "address replace fd00", "route replace ::/0"):
            self.machine.refuse = word
            error = self.assertRaises(LocalError, self.host().apply, "client", CHANGES)
            self.assertRegex(str(error), r"^The system refused the .*: .*Operation not permitted\.$")
            self.assertEqual(self.everything(), before)
            self.assertEqual(self.host().standing(), ())
        self.machine.refuse = "address replace fd00"
        error = self.assertRaises(LocalError, self.host().apply, "client", CHANGES)
        self.assertIn("address fd00::7/128 on t0", str(error))

    def test_what_cannot_be_undone_stays_in_the_book(self) -> None:
        """It is told, and tried again."""
        before, host = self.everything(), self.host()
        host.apply("client", CHANGES)
        self.machine.refuse = "rule delete preference 5221"
        faults = host.undo("client")
        self.assertEqual(len(faults), 4)
        self.assertTrue(all("blackhole is still there" in fault for fault in faults))
        self.assertEqual(
            [each.sentence for each in host.standing()],
            [each.sentence for each in CHANGES if isinstance(each, Rule) and each.preference == 5221],
        )
        self.machine.refuse = ""
        self.assertEqual(self.host().undo("client"), [])
        self.assertEqual(self.everything(), before)

    def test_repair(self) -> None:
        """What others took away is seen and comes back; what they wrote comes back in the end."""
        host = self.host()
        host.apply("client", CHANGES)
        stands = self.machine.state()
        self.machine.tables["meshnet_vpn"] = "table inet meshnet_vpn {\n}\n"
        self.machine.rules[6].clear()
        self.machine.routes[4].clear()
        self.resolv.write_text("nameserver 203.0.113.9\n")
        lost = host.missing("client")
        self.assertEqual({type(each) for each in lost}, {Firewall, Rule, Route, ResolverFile})
        self.assertEqual(host.repair("client"), lost)
        self.assertEqual(host.missing("client"), ())
        self.assertEqual(self.machine.state(), stands)
        self.assertEqual(self.host().undo("client"), [])
        self.assertEqual(self.resolv.read_text(), "nameserver 203.0.113.9\n")

    def test_a_table_is_replaced_in_one_step(self) -> None:
        """Another table of the same name takes the place of the first without a moment in between; one that
        is refused leaves the first."""
        host = self.host()
        first = Firewall("x", "table inet x {\n}\n")
        host.apply("client", [first])
        self.machine.calls.clear()
        second = Firewall("x", "table inet x {\n\tcounter c { }\n}\n")
        host.apply("client", [second])
        self.assertEqual(host.standing(), (second,))
        self.assertEqual([text for command, text in self.machine.calls if "-f" in command], [second.make])
        self.machine.refuse = "route"
        third = Firewall("x", "table inet x {\n\tcounter d { }\n}\n")
        self.assertRaises(LocalError, host.apply, "client", [third, Route("10.0.0.0/8", "t0", 9)])
        self.assertEqual(self.machine.tables["x"], second.text)
        self.assertEqual(host.standing(), (second,))
        self.assertEqual(host.missing("client"), ())

    def test_interface_gone(self) -> None:
        """With the interface go its addresses and routes; undoing the rest is no fault."""
        before, host = self.everything(), self.host()
        host.apply("client", CHANGES)
        self.machine.interfaces.discard("t0")
        self.machine.addresses.clear()
        self.machine.routes[4].clear()
        self.machine.routes[6].clear()
        self.assertEqual(
            {type(each) for each in host.missing("client")},
            {Address, Route},
        )
        self.assertEqual(host.undo("client"), [])
        self.assertEqual(self.everything(), before)

    def test_links_to_the_resolver(self) -> None:
        """A symbolic link is one again afterwards; nothing at all is nothing again."""
        self.resolv.unlink()
        self.resolv.symlink_to("../run/somewhere/stub.conf")
        before, host = self.everything(), self.host()
        host.apply("client", CHANGES)
        self.assertFalse(self.resolv.is_symlink())
        host.undo("client")
        self.assertEqual(self.everything(), before)
        self.resolv.unlink()
        host.apply("client", CHANGES)
        self.assertTrue(self.resolv.exists())
        host.undo("client")
        self.assertFalse(self.resolv.exists())
        self.assertEqual([each.name for each in self.folder.iterdir() if "tmp" in each.name], [])

    def test_resolver_written_by_others_stays(self) -> None:
        """Who wrote there while we were up, and was not seen, knows better."""
        host = self.host()
        host.apply("client", CHANGES)
        self.resolv.write_text("nameserver 203.0.113.9\n")
        self.assertEqual(host.undo("client"), [])
        self.assertEqual(self.resolv.read_text(), "nameserver 203.0.113.9\n")

    def test_another_boot(self) -> None:
        """After a restart of the machine only files are put back; a sysctl is what the new run made it."""
        self.host().apply("client", CHANGES)
        (self.proc / "kernel/random/boot_id").write_text("boot-2\n")
        self.machine = Machine("eth0")
        self.assertEqual(self.host().undo("client"), [])
        self.assertEqual([each for each in self.machine.calls if "show" not in each[0]], [])
        self.assertEqual(self.resolv.read_text(), OLD)
        self.assertEqual((self.proc / "net/ipv4/conf/all/rp_filter").read_text(), "0\n")

    def test_owners(self) -> None:
        """One owner's changes are not another's."""
        host = self.host()
        host.apply("exit", [Sysctl("net/ipv4/conf/all/rp_filter", 0)])
        host.apply("client", [Rule(4, 5250, "nop")])
        host.undo("client")
        self.assertEqual(host.standing(), (Sysctl("net/ipv4/conf/all/rp_filter", 0),))
        self.assertEqual((self.proc / "net/ipv4/conf/all/rp_filter").read_text(), "0\n")

    def test_damaged_book(self) -> None:
        """What is not understood is told; the rest is undone."""
        host = self.host()
        host.apply("client", [Rule(4, 5250, "nop")])
        host._book._journal.commit(
            [b'{"made": 9, "owner": "client", "boot": "", "change": {}, "before": null}']
        )
        host.close()
        host = Host(RealDisk(), self.folder / BOOK, tools=TOOLS, run=self.machine.run, proc=self.proc)
        self.addCleanup(host.close)
        self.assertIn("A change in the book is not understood", host.notes[0])
        self.assertEqual(host.undo("client"), [])
