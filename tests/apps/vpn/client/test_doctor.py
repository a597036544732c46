"""The doctor, on a machine that is none: what is left behind, in the book or without one."""

from __future__ import annotations

from attrs import evolve
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.client.doctor import examine
from apps.vpn.client.system import OWNER
from apps.vpn.host import plan
from apps.vpn.host.host import BOOK, Host
from apps.vpn.host.tools import Tools
from meshnet.storage.disk import RealDisk
from tests.support.machine import TOOLS, Machine
from tests.support.nodes import new_folder

WANTED = plan.Wanted("t0", 0x6D657368, ("100.64.0.7",), ("100.64.0.1",), kill_switch=True, names=True)
CHANGES = (*plan.block(WANTED), *plan.tunnel(WANTED))
OLD = "nameserver 192.0.2.53\n"


class DoctorTests(SynchronousTestCase):
    """A machine with a VPN that was up."""

    def setUp(self) -> None:
        self.folder = new_folder(self)
        self.resolv = self.folder / "resolv.conf"
        self.resolv.write_text(OLD)
        self.machine = Machine("t0")
        self.before = self.machine.state()
        self.tools = TOOLS

    def host(self, book: str = BOOK) -> Host:
        host = Host(
            RealDisk(),
            self.folder / book,
            tools=self.tools,
            run=self.machine.run,
            resolv=self.resolv,
            proc=self.folder,
        )
        self.addCleanup(host.close)
        return host

    def levels(self, host: Host, standing: bool = False) -> list[str]:
        return [each["level"] for each in examine(host, (), standing)]

    def test_nothing(self) -> None:
        """All is well, and that is said."""
        self.assertEqual(self.levels(self.host()), ["ok"])

    def test_left_behind(self) -> None:
        """Whatever stands in the book is undone, whoever it was for."""
        host = self.host()
        host.apply(OWNER, CHANGES)
        host.apply("exit", [plan.Rule(4, 100, "nop")])
        findings = examine(self.host(), (), standing=False)
        self.assertEqual([each["level"] for each in findings], ["fixed", "fixed"])
        self.assertIn(f"{len(CHANGES)} changes of the system ({OWNER})", findings[0]["text"])
        self.assertEqual(self.machine.state(), self.before)
        self.assertEqual(self.resolv.read_text(), OLD)

    def test_one_that_is_up(self) -> None:
        """What stands stays; what others took away comes back."""
        host = self.host()
        host.apply(OWNER, CHANGES)
        stands = self.machine.state()
        self.assertEqual(self.levels(host, standing=True), ["ok"])
        self.machine.tables.clear()
        self.assertEqual(self.levels(host, standing=True), ["fixed"])
        self.assertEqual(self.machine.state(), stands)

    def test_without_a_book(self) -> None:
        """The node's directory is gone: rules and table are known by their numbers and name. What resolv.conf
        was before nobody knows, which is a problem until somebody writes another."""
        self.host("lost.log").apply(OWNER, CHANGES)
        self.machine.remove("t0")
        host = self.host()
        findings = examine(host, (), standing=False)
        self.assertEqual({each["level"] for each in findings}, {"fixed", "problem"})
        self.assertIn("write a new one", findings[-1]["text"])
        self.assertEqual(self.machine.state(), self.before)
        self.resolv.write_text(OLD)
        self.assertEqual(self.levels(host), ["ok"])

    def test_what_cannot_be_undone(self) -> None:
        """It is named, and stays in the book for the next time."""
        host = self.host()
        host.apply(OWNER, CHANGES)
        self.machine.refuse = "rule delete preference 5221"
        self.assertEqual(self.levels(host), ["fixed", *["problem"] * 4])
        self.machine.refuse = ""
        self.assertEqual(self.levels(host), ["fixed"])
        self.assertEqual(self.machine.state(), self.before)

    def test_tools(self) -> None:
        """What is missing is named, by its package."""
        self.tools = Tools(None, None, None)
        (finding,) = examine(self.host(), (), standing=False)
        self.assertIn("install iproute2", finding["text"])
        self.tools = evolve(TOOLS, nft=None)
        (finding,) = examine(self.host(), (), standing=False)
        self.assertIn("install nftables", finding["text"])
