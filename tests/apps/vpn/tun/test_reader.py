"""A device, its flows and their streams, without a kernel."""

from __future__ import annotations

import errno

from hypothesis import given
from hypothesis import strategies as st
from twisted.internet.error import ConnectionDone
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn.packets.cut import singles
from apps.vpn.packets.faults import Fault
from apps.vpn.packets.headers import source, target
from apps.vpn.tun.flow import PacketFlow
from apps.vpn.tun.reader import ANSWER_BYTES, ANSWER_SECONDS, FRAMES_PER_TURN, PATIENCE, Tun
from meshnet.errors import MeshError
from meshnet.limits import TUN_FLOW_BYTES
from tests.support.packets import plain, superpacket, tcp, udp, vouched
from tests.support.tuns import FakeCarrier, FakeDevice, FakeReactor, bodies, frames

A, B, C = "fc00::a", "fc00::b", "fc00::c"


def framed(*each: bytes) -> bytes:
    """A body of these frames."""
    return b"".join(len(frame).to_bytes(2, "big") + frame for frame in each)


def payloads(*found: bytes) -> list[bytes]:
    """What the TCP segments of some bodies carry."""
    return [
        bytes(each)[10 + 40 + 20 :] for body in found for frame in frames(body) for each in singles_of(frame)
    ]


class TunTests(SynchronousTestCase):
    """`Tun` and `PacketFlow`."""

    def setUp(self) -> None:
        self.device = FakeDevice()
        self.reactor = FakeReactor()
        self.gone: list[MeshError] = []
        self.tun = Tun(self.device, self.reactor, self.reactor.seconds, self.gone.append)

    def single(self, carrier: FakeCarrier | None = None) -> PacketFlow:
        """A started device with one flow."""
        flow = self.tun.single()
        self.tun.start()
        flow.carry(carrier or FakeCarrier())
        return flow

    def read(self, *given: bytes) -> None:
        """The kernel has these, and they are read."""
        self.device.frames += given
        while self.device.frames and self.reactor.readers:
            self.reactor.read()

    # to the mesh

    def test_packed(self) -> None:
        """All that waits and fits goes into one cell, in order, and the stream is woken once a burst."""
        carrier = FakeCarrier()
        flow = self.single(carrier)
        given = [plain(udp(A, B, (1, 2), bytes(n))) for n in range(1, 12)]
        self.read(*given)
        self.assertEqual(carrier.woken, 1)
        found = bodies(flow, 60_000)
        self.assertEqual([frames(body) for body in found], [given])
        self.assertEqual((flow.frames_out, flow.bytes_out, flow.held), (11, len(found[0]), 0))

    def test_cell_by_cell(self) -> None:
        """What does not fit into a cell leads the next one; nothing is cut that may not be."""
        flow = self.single()
        given = [plain(udp(A, B, (1, 2), bytes(500))) for _ in range(9)]
        self.read(*given)
        found = bodies(flow, 1_200)
        self.assertEqual([len(frames(body)) for body in found], [2, 2, 2, 2, 1])

    @given(st.integers(1_000, 60_000), st.integers(1, 59_000), st.sampled_from([500, 1_400]))
    def test_superpackets(self, cell: int, size: int, segment: int) -> None:
        """A superpacket goes whole where it fits, else in pieces; no byte of it is lost or changed."""
        self.setUp()
        flow = self.single()
        packet = superpacket(
            tcp(A, B, (1, 2), bytes(range(256)) * (size // 256) + bytes(size % 256)), segment
        )
        self.read(packet, packet)
        found = bodies(flow, cell)
        for body in found:
            self.assertLessEqual(len(body), max(cell, 12 + self.device.mtu))
        pieces = [bytes(each) for body in found for frame in frames(body) for each in singles_of(frame)]
        self.assertEqual(pieces, [bytes(each) for each in singles_of(packet)] * 2)
        if len(packet) + 2 <= cell:
            self.assertEqual(frames(found[0])[0], packet)

    def test_waits_for_a_stream(self) -> None:
        """Packets may come before there is a stream; with none, they are dropped and counted at the end."""
        flow = self.tun.single()
        self.tun.start()
        self.read(*[plain(udp(A, B, (port, 2), b"x")) for port in range(3)])
        carrier = FakeCarrier()
        flow.carry(carrier)
        self.assertEqual(carrier.woken, 1)
        flow.stop()
        self.assertEqual(flow.waiting(), 0)
        self.assertEqual(flow.as_json()["dropped_out"], {"gone": 3})

    def test_too_large(self) -> None:
        """What fits into no cell of the path is dropped, its sender told what would; the next one goes."""
        told: list[tuple[int, int]] = []
        self.tun.too_large = lambda frame, most: told.append((len(frame), most))
        flow = self.single(FakeCarrier(1_200))
        large, small = plain(udp(A, B, (1, 2), bytes(1_400))), plain(udp(A, B, (1, 2), b"x"))
        super_large = superpacket(tcp(A, B, (1, 2), bytes(4_000)), 1_400)
        self.read(large, super_large, small)
        room = memoryview(bytearray(1_200))
        size = flow.pour(room, 0.0)
        self.assertEqual(frames(bytes(room[:size])), [small])
        self.assertEqual(told, [(len(large), 1_200), (len(super_large), 1_200)])
        self.assertEqual(flow.dropped_out[Fault.TOO_LARGE], 2)

    # straight into cells

    def large(self, number: int, size: int = 50_000) -> bytes:
        """A superpacket that can be told from others."""
        return superpacket(tcp(A, B, (1, 2), number.to_bytes(4, "big") + bytes(size)), 1_400)

    def test_straight(self) -> None:
        """A flow that had a superpacket reads the next ones as its cells are made, each straight into one."""
        carrier = FakeCarrier()
        flow = self.single(carrier)
        given = [self.large(number) for number in range(6)]
        self.read(given[0])
        self.assertEqual([frames(body) for body in bodies(flow, 60_900)], [given[:1]])
        self.device.frames += given[1:]
        self.reactor.read()
        self.assertEqual((len(self.device.frames), carrier.woken), (5, 2), "nothing is read yet")
        room = memoryview(bytearray(60_900))
        self.assertGreater(flow.waiting(), 0)
        size = flow.pour(room, 0.0)
        self.assertEqual(frames(bytes(room[:size])), given[1:2])
        self.assertEqual(len(self.device.frames), 4, "the next one does not fit behind it, and stays")
        self.assertEqual([frames(body) for body in bodies(flow, 60_900)], [[each] for each in given[2:]])
        self.assertEqual(flow.waiting(), 0)

    def test_straight_or_not_at_all(self) -> None:
        """Where no cell is made the device is read all the same, into the queue; all stays in order."""
        flow = self.single()
        given = [self.large(number) for number in range(40)]
        self.read(given[0])
        bodies(flow, 60_900)
        self.device.frames += given[1:]
        self.reactor.read()
        self.reactor.read()
        self.assertLess(len(self.device.frames), 39)
        self.assertTrue(payloads(framed(*given[1:])) == payloads(*bodies(flow, 60_900)))

    @given(
        st.lists(st.sampled_from([40, 1_000, 9_000, 20_000, 59_000]), max_size=12),
        st.lists(st.booleans(), min_size=12, max_size=12),
        st.sampled_from([2_000, 20_000, 40_000, 60_900]),
    )
    def test_straight_and_others(self, sizes: list[int], asked: list[bool], cell: int) -> None:
        """Small ones among them, cells of any size, events in between: all comes once, in order."""
        self.setUp()
        flow = self.single()
        given = [self.large(number, size) for number, size in enumerate([50_000, *sizes])]
        found: list[bytes] = []
        for frame, poured in zip(given, [True, *asked], strict=False):
            self.device.frames.append(frame)
            self.reactor.read()
            if poured:
                found += bodies(flow, cell)
        while self.device.frames or flow.waiting():
            self.reactor.read()
            found += bodies(flow, cell)
        self.assertTrue(payloads(framed(*given)) == payloads(*found))

    def test_straight_for_another(self) -> None:
        """What turns out to be another flow's waits in that one's queue."""
        one, other = self.tun.flow(), self.tun.flow()
        self.tun.routed(lambda frame: one if target(frame)[-1] == 0xB else other)
        self.tun.start()
        for flow in (one, other):
            flow.carry(FakeCarrier())
        ours = self.large(1)
        theirs = superpacket(tcp(A, C, (1, 2), bytes(50_000)), 1_400)
        self.read(ours)
        bodies(one, 60_900)
        self.device.frames += [theirs, ours]
        self.reactor.read()
        self.assertEqual(one.pour(memoryview(bytearray(60_900)), 0.0), 0)
        self.assertEqual([frames(body) for body in bodies(other, 60_900)], [[theirs]])
        self.reactor.read()
        self.assertEqual([frames(body) for body in bodies(one, 60_900)], [[ours]])

    def gathering(self) -> tuple[PacketFlow, FakeCarrier, memoryview]:
        """A flow over which much comes; what comes in a cell."""
        carrier = FakeCarrier()
        flow = self.single(carrier)
        self.read(plain(tcp(A, B, (1, 2), b"", seq=1)))
        bodies(flow, 60_900)
        self.reactor.advance(1.0)
        return flow, carrier, memoryview(bytearray(framed(self.large(0))))

    def test_answers_gather(self) -> None:
        """While much comes the device is read after so many bytes; the first cell of a burst is answered."""
        flow, carrier, body = self.gathering()
        woken = carrier.woken
        flow.packets_received(body, False)
        self.assertEqual((carrier.woken, flow.waiting()), (woken + 1, 0))
        count = 0
        while carrier.woken == woken + 1:
            self.assertEqual(bool(self.reactor.readers), not count)
            flow.packets_received(body, False)
            count += 1
        self.assertEqual(count, -(-ANSWER_BYTES // len(body)))
        self.assertTrue(self.reactor.readers)

    def test_answers_after_a_while(self) -> None:
        """A burst that ends leaves its answers to an alarm."""
        flow, _, body = self.gathering()
        flow.packets_received(body, False)
        flow.waiting()
        flow.packets_received(body, False)
        self.assertFalse(self.reactor.readers)
        self.reactor.advance(ANSWER_SECONDS)
        self.assertTrue(self.reactor.readers)

    def test_answers_accompany(self) -> None:
        """A cell that leaves anyway takes them along."""
        flow, carrier, body = self.gathering()
        flow.packets_received(body, False)
        flow.waiting()
        flow.packets_received(body, False)
        answer = plain(tcp(A, B, (1, 2), b"", seq=2))
        self.device.frames.append(answer)
        woken = carrier.woken
        flow.accompany()
        self.assertEqual(carrier.woken, woken + 1)
        self.assertEqual([frames(each) for each in bodies(flow, 60_900)], [[answer]])

    def test_stop_while_answers_gather(self) -> None:
        """The device is closed once, and no alarm is left."""
        flow, _, body = self.gathering()
        flow.packets_received(body, False)
        flow.waiting()
        flow.packets_received(body, False)
        self.tun.stop()
        self.assertEqual((self.reactor.readers, self.reactor.getDelayedCalls()), (set(), []))
        flow.packets_received(body, False)
        self.assertFalse(self.reactor.readers)

    def test_gone_while_read_straight(self) -> None:
        """The interface vanishes in the middle of a cell: told once, nothing is raised."""
        flow = self.single()
        self.read(self.large(0))
        bodies(flow, 60_900)
        self.device.frames.append(self.large(1))
        self.reactor.read()
        self.device.broken = OSError(errno.EBADFD, "gone")
        self.assertEqual(flow.pour(memoryview(bytearray(60_900)), 0.0), 0)
        self.assertEqual(len(self.gone), 1)

    def test_turns(self) -> None:
        """A flood does not keep the reactor from others."""
        self.single()
        self.device.frames += [plain(udp(A, B, (1, 2), bytes(9)))] * 100
        self.reactor.read()
        self.assertEqual(len(self.device.frames), 100 - FRAMES_PER_TURN)

    def test_flood(self) -> None:
        """Where one flow has everything, the kernel's queue waits, and nothing is dropped here."""
        flow = self.single()
        frame = vouched(udp(A, B, (1, 2), bytes(1_400), tos=0))
        self.read(*[frame] * 4_000)
        self.assertEqual(self.reactor.readers, set())
        self.assertLess(flow.held, TUN_FLOW_BYTES)
        self.assertGreater(flow.held, TUN_FLOW_BYTES // 3)
        left = len(self.device.frames)
        self.assertGreater(left, 0)
        bodies(flow, 60_000)
        self.assertEqual(self.reactor.readers, {self.tun})
        self.assertEqual(sum(flow.dropped_out), 0)

    def test_stop_while_full(self) -> None:
        """A flow that ends while the device waits for it does not leave it unread."""
        flow = self.single()
        self.read(*[plain(udp(A, B, (1, 2), bytes(1_400)))] * 4_000)
        flow.stop()
        self.assertEqual(self.reactor.readers, {self.tun})

    # several flows

    def routed(self) -> dict[bytes, PacketFlow]:
        """A started device with flows to B and C."""
        carriers = {host: self.tun.flow() for host in (B, C)}
        table = {bytes.fromhex("fc" + "00" * 14 + host[-1].rjust(2, "0")): f for host, f in carriers.items()}
        self.tun.routed(lambda frame: table.get(target(frame)))
        self.tun.start()
        for flow in table.values():
            flow.carry(FakeCarrier())
        return table

    def test_routed(self) -> None:
        """Each packet goes to who has its destination; what nobody has goes nowhere."""
        b, c = self.routed().values()
        to_b, to_c, stray = (plain(udp(A, host, (1, 2), b"x")) for host in (B, C, "fc00::d"))
        self.read(to_b, stray, to_c, to_b)
        self.assertEqual([frames(body) for body in bodies(b, 9_000)], [[to_b, to_b]])
        self.assertEqual([frames(body) for body in bodies(c, 9_000)], [[to_c]])

    def test_patience(self) -> None:
        """One flow that is full keeps others waiting for a moment only; then it drops its own."""
        b, c = self.routed().values()
        self.device.frames += [plain(udp(A, B, (1, 2), bytes(1_400)))] * 4_000
        self.device.frames.append(plain(udp(A, C, (1, 2), b"x")))
        for _ in range(1_000):
            self.reactor.read()
        self.assertEqual(c.held, 0)
        self.reactor.advance(PATIENCE)
        for _ in range(1_000):
            self.reactor.read()
        self.assertGreater(c.held, 0)
        self.assertGreater(b.dropped_out[Fault.FULL], 0)
        self.assertLessEqual(b.held, TUN_FLOW_BYTES + 3_000)
        bodies(b, 60_000)
        self.assertTrue(b.patient)

    # from the mesh

    def test_written(self) -> None:
        """Frames of a body are written as they are."""
        flow = self.single()
        given = [plain(udp(B, A, (1, 2), b"x")), superpacket(tcp(B, A, (1, 2), bytes(4_000)), 1_400)]
        flow.packets_received(memoryview(bytearray(framed(*given))), False)
        self.assertEqual(self.device.written, given)
        self.assertEqual(flow.frames_in, 2)

    def test_answers(self) -> None:
        """What the kernel answers at once leaves with the next cell, before the reactor tells of it."""
        carrier = FakeCarrier()
        flow = self.single(carrier)
        asked, answered = plain(udp(B, A, (1, 2), b"x")), plain(udp(A, B, (2, 1), b"y"))
        for answers in ([answered], []):
            woken = carrier.woken
            flow.packets_received(memoryview(bytearray(framed(asked))), False)
            self.device.frames += answers
            self.assertGreater(carrier.woken, woken)
            self.assertEqual([frames(body) for body in bodies(flow, 9_000)], [answers] if answers else [])
        self.tun.stop()
        flow.packets_received(memoryview(bytearray(framed(asked))), False)
        self.device.frames.append(answered)
        self.assertEqual(flow.waiting(), 0)

    def test_marked(self) -> None:
        """Congestion on the way is told to ends that understand."""
        flow = self.single()
        given = [plain(udp(B, A, (1, 2), b"x", tos=tos)) for tos in (0, 2)]
        flow.packets_received(memoryview(bytearray(framed(*given))), True)
        self.assertEqual(self.device.written, [given[0], plain(udp(B, A, (1, 2), b"x", tos=3))])

    def test_hostile(self) -> None:
        """What is wrong costs itself, and has a name; what follows it is read."""
        flow = self.tun.single(lambda frame: 0 if source(frame)[-1] == 0xB else Fault.SOURCE)
        good, spoofed = plain(udp(B, A, (1, 2), b"x")), plain(udp(C, A, (1, 2), b"x"))
        body = framed(b"", bytes(40), good + b"!", spoofed, b"\x01\x80" + good[2:], good) + b"\xff\xff" + good
        flow.packets_received(memoryview(bytearray(body)), False)
        self.assertEqual(self.device.written, [good])
        expected = {"short": 2, "not_ip": 1, "length": 1, "source": 1, "offload": 1}
        self.assertEqual(flow.as_json()["dropped_in"], expected)
        for cut in range(4):
            flow.packets_received(memoryview(bytearray(b"\0" * cut)), False)

    @given(st.binary(max_size=200))
    def test_any_body(self, body: bytes) -> None:
        """No body raises."""
        self.single().packets_received(memoryview(bytearray(body)), True)

    def test_kernel_refuses(self) -> None:
        """An interface that is down, or a full kernel, costs the packet and is counted."""
        flow = self.single()
        self.device.refuses = OSError(errno.EIO, "down")
        flow.packets_received(memoryview(bytearray(framed(plain(udp(B, A, (1, 2), b"x"))))), False)
        self.assertEqual(flow.as_json()["dropped_in"], {"kernel": 1})
        self.assertFalse(self.tun.write(udp(B, A, (1, 2), b"x")))
        self.device.refuses = None
        self.assertTrue(self.tun.write(udp(B, A, (1, 2), b"x")))

    # its life

    def test_gone(self) -> None:
        """An interface that is removed is told once, in a sentence, whoever notices it."""
        self.single()
        self.device.broken = OSError(errno.EBADFD, "File descriptor in bad state")
        self.reactor.read()
        self.tun.connectionLost(Failure(ConnectionDone()))
        self.assertEqual(
            [str(why) for why in self.gone], ["The interface fake0 is gone: File descriptor in bad state."]
        )
        self.assertEqual(self.reactor.readers, set())
        self.assertTrue(self.device.closed)

    def test_stop(self) -> None:
        """To stop it is no loss to tell."""
        flow = self.single()
        self.read(*[plain(udp(A, B, (1, 2), bytes(1_400)))] * 4_000)
        self.tun.stop()
        self.tun.stop()
        flow.stop()
        self.assertEqual((self.gone, self.reactor.readers, self.device.closed), ([], set(), True))
        self.assertEqual(self.reactor.getDelayedCalls(), [])


def singles_of(frame: bytes) -> list[bytes]:
    """The single packets of a frame."""
    return [bytes(each) for each in singles(memoryview(bytearray(frame)))]
