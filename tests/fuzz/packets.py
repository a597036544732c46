"""Targets of IP packets: what comes over a stream, what programs write; and the names of the mesh."""

from __future__ import annotations

from ipaddress import ip_address

from apps.vpn.forwarder import LONGEST_NAME, NO_SUCH_NAME, REFUSED, question, said
from apps.vpn.mesh.addresses import Addresses
from apps.vpn.mesh.names import answer
from apps.vpn.packets.cut import singles
from apps.vpn.packets.faults import new_counts
from apps.vpn.packets.headers import check, flow_key, source, target
from apps.vpn.packets.icmp import too_big, unreachable
from apps.vpn.packets.queue import PacketQueue
from apps.vpn.tun.reader import Tun
from meshnet.cipher.keys import SecretKey
from tests.fuzz.target import MEGABYTE, Target
from tests.support.packets import plain, superpacket, tcp, udp, vouched
from tests.support.tuns import FakeDevice, FakeReactor

FOUR, SIX = ("10.0.0.1", "10.0.0.2"), ("fc00::1", "fc00::2")
OWN = {4: ip_address("10.0.0.9").packed, 6: ip_address("fc00::9").packed}


def packets(data: bytes) -> None:
    """A body of a PACKETS item, first byte apart: whatever it holds, what is written has been checked."""
    device = FakeDevice()
    reactor = FakeReactor()
    Tun(device, reactor, reactor.seconds).flow().packets_received(
        memoryview(bytearray(data[1:])), data[:1] > b"x"
    )
    for frame in device.written:
        assert not check(memoryview(frame))
        total = sum(len(each) for each in singles(memoryview(bytearray(frame))))
        assert total <= 600 * len(frame), "a few bytes became many"


def frames(data: bytes) -> None:
    """A frame that a kernel wrote, as programs make it write."""
    frame = memoryview(data)
    target(frame)
    if check(frame):
        return
    source(frame)
    flow_key(frame)
    queue = PacketQueue(MEGABYTE, new_counts())
    queue.push(data, 0.0)
    assert queue.pull(0.0) == data
    for reply in (unreachable(frame, OWN[frame[10] >> 4]), too_big(frame, OWN[frame[10] >> 4], 1_400)):
        assert reply is None or not check(memoryview(plain(reply)))


def names(data: bytes) -> None:
    """A question to the DNS server of the mesh."""
    key = SecretKey(bytes(31) + b"\x01").public
    known = Addresses(key, "home")
    known.take({"ann": key})
    answer(data, known)


def asked(data: bytes) -> None:
    """A query to the name server of an exit; its question goes on as it is."""
    name, part = question(data)
    assert part in data and len(name) < LONGEST_NAME
    for code in (REFUSED, NO_SUCH_NAME):
        answered = said(data, code, part)
        assert answered[:2] == data[:2] and answered[3] & 15 == code


def _frames() -> list[bytes]:
    found = []
    for ends in (FOUR, SIX):
        one, many = udp(*ends, (1, 2), b"x" * 20), tcp(*ends, (1, 2), bytes(600), options=bytes(12))
        found += [
            plain(one),
            vouched(one),
            superpacket(many, 100),
            superpacket(udp(*ends, (1, 2), bytes(300)), 90),
        ]
    return found


def _bodies() -> list[bytes]:
    return [b"\x00" + b"".join(len(each).to_bytes(2, "big") + each for each in _frames())] + [
        b"\xff" + len(each).to_bytes(2, "big") + each for each in _frames()
    ]


def _names() -> list[bytes]:
    head = bytes.fromhex("000701000001000000000000")
    return [
        head + name + kind
        for name in (b"\x03ann\x04mesh\x00", b"\x00")
        for kind in (b"\0\x1c\0\1", b"\0\xff\0\1")
    ]


TARGETS = (
    Target("packets", packets, _bodies),
    Target("frames", frames, _frames),
    Target("mesh-names", names, _names),
    Target("exit-names", asked, _names, (ValueError,), longest=600),
)
