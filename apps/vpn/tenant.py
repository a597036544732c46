"""A client of an exit that has a lease, or asks for one: its stream, what it may send, how fast.

    stream ─ ASK ─▶ the gateway decides ─ GRANT ─▶ packets both ways, until the stream ends

What comes from the client must be from its own addresses. Each direction has a rate of its own, and a bounded
queue for what is beyond it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from apps.vpn.bucket import Bucket
from apps.vpn.lease import Asked, ExitConversation, Lease, RefusalCode, Wish
from apps.vpn.packets.faults import Fault
from apps.vpn.packets.queue import PacketQueue
from apps.vpn.packets.virtio import HEADER
from apps.vpn.pools import Seat
from apps.vpn.tun.flow import PacketFlow
from meshnet.cipher.keys import PublicKey
from meshnet.errors import MeshError
from meshnet.limits import TUN_FLOW_BYTES
from meshnet.streams import Stream

if TYPE_CHECKING:
    from apps.vpn.tun.reader import Tun
    from meshnet.node.app import Clock

ASK_SECONDS: Final = 10.0
"""From a stream's beginning to what its client wants."""
LEAST_WAIT: Final = 0.001
PACE_SECONDS: Final = 0.25
"""At most so much of its rate waits from a client that sends faster …"""
LEAST_PACED: Final = 256 << 10
"""… but never less than some superpackets."""
_SOURCE4: Final = slice(HEADER + 12, HEADER + 16)
_SOURCE6: Final = slice(HEADER + 8, HEADER + 24)
_LINK_LOCAL: Final = 0xFE


class TenantFlow(PacketFlow):
    """The packets of one client: source addresses checked, each direction within a rate.

    Over its rate a client is slowed down, not cut: packets wait in a queue that keeps short (CoDel), towards
    the client in the flow's own, from it in one of `PACE_SECONDS`. Without a rate there is none of this.
    """

    __slots__ = (
        "_clock", "_held_back", "_now", "_paced", "_paced_until", "_v4", "_v6", "from_client", "to_client",
    )  # fmt: skip

    def __init__(self, tun: Tun, clock: Clock, lease: Lease) -> None:
        super().__init__(tun, self._admit)
        now = clock.now()
        self._clock = clock
        self._now = tun.now
        self._v4 = lease.v4.packed if lease.v4 is not None else b""
        self._v6 = lease.v6.packed if lease.v6 is not None else b""
        self._held_back: Callable[[], None] | None = None
        self._paced_until: Callable[[], None] | None = None
        self._paced = PacketQueue(0, self.dropped_in)
        self.from_client = Bucket(lease.rate, now)
        self.to_client = Bucket(lease.rate, now)
        self.change(lease.rate)

    def change(self, rate: int) -> None:
        """Another rate from now on."""
        self.from_client.change(rate)
        self.to_client.change(rate)
        self._paced.most = min(TUN_FLOW_BYTES, max(LEAST_PACED, int(rate * PACE_SECONDS)))
        self._write = self._pace if rate else self._tun.device.write

    def offer(self, frame: memoryview, now: float) -> bool:
        """Takes a frame, and the next one: what is too much for this client is dropped here, by its own
        queue, where flows are told apart and marked; not in the device's, which is everybody's."""
        super().offer(frame, now)
        return True

    # to the client

    def waiting(self) -> int:
        """Nothing, while the client is over its rate."""
        return 0 if self._held_back is not None else self.least

    def pour(self, room: memoryview, now: float) -> int:
        """As much as the rate allows, and one cell on credit."""
        bucket = self.to_client
        if not bucket.rate:
            return super().pour(room, now)
        seconds = bucket.wait(now)
        if seconds:
            if self._held_back is None:
                self._held_back = self._clock.call_later(max(seconds, LEAST_WAIT), self._again)
            return 0
        size = super().pour(room, now)
        bucket.take(size, now)
        return size

    def _again(self) -> None:
        self._held_back = None
        self.ready()

    # from the client

    def _admit(self, frame: memoryview) -> int:
        if frame[HEADER] >> 4 == 4:
            if frame[_SOURCE4] != self._v4:
                return Fault.SOURCE
        elif frame[_SOURCE6] != self._v6:
            # What a system says to its own link, such as about multicast, is no attempt at anything.
            return Fault.TARGET if frame[HEADER + 8] == _LINK_LOCAL else Fault.SOURCE
        return Fault.NONE

    def _pace(self, frame: memoryview) -> None:
        """Writes a frame to the device now, or when its turn comes."""
        now = self._now()
        if self._paced_until is None and self.from_client.take(len(frame) - HEADER, now):
            self._tun.device.write(frame)
            return
        self._paced.push(bytes(frame), now)
        if self._paced_until is None:
            self._wait(now)

    def _wait(self, now: float) -> None:
        seconds = max(self.from_client.wait(now), LEAST_WAIT)
        self._paced_until = self._clock.call_later(seconds, self._next)

    def _next(self) -> None:
        """Writes what may go by now."""
        now = self._now()
        self._paced_until = None
        while not self.from_client.wait(now):
            frame = self._paced.pull(now)
            if frame is None:
                return
            self.from_client.take(len(frame) - HEADER, now)
            try:
                self._tun.device.write(memoryview(bytearray(frame)))
            except OSError:
                self.dropped_in[Fault.KERNEL] += 1
        self._wait(now)

    def stop(self) -> None:
        """The lease is over: nothing of this client passes any more, whatever still comes."""
        self._v4 = self._v6 = b""
        for cancel in (self._held_back, self._paced_until):
            if cancel is not None:
                cancel()
        self._held_back = self._paced_until = None
        self._paced.clear()
        super().stop()


class Tenant:
    """One stream to the port for packets (`meshnet.streams.StreamReader`).

    `decide` is called with what the client wants, and then calls `admit` or `deny`; `gone` when it has ended,
    once. `wish` is what it asked for; `flow` and `seat` are there while it has a lease.
    """

    def __init__(
        self,
        stream: Stream,
        clock: Clock,
        decide: Callable[[Tenant, Wish], None],
        gone: Callable[[Tenant], None],
    ) -> None:
        self.since = clock.now()
        self.seat: Seat | None = None
        self.flow: TenantFlow | None = None
        self.lease: Lease | None = None
        self.wish: Wish | None = None
        self._stream = stream
        self._clock = clock
        self._talk = ExitConversation()
        self._decide = decide
        self._gone: Callable[[Tenant], None] | None = gone
        self._stop_waiting: Callable[[], None] | None = clock.call_later(ASK_SECONDS, self._waited)

    @property
    def caller(self) -> PublicKey | None:
        """Who it is, where it said so."""
        return self._stream.peer

    @property
    def most(self) -> int:
        """Bytes of packets that one of its cells takes."""
        return self._stream.largest_packets

    # what the gateway says

    def admit(self, seat: Seat, lease: Lease, flow: TenantFlow) -> None:
        """It has a lease, and its packets pass from now on."""
        self.seat, self.lease, self.flow = seat, lease, flow
        self._stream.carry(flow, flow)
        flow.carry(self._stream)
        self._say(self._talk.granted(lease))

    def change(self, lease: Lease) -> None:
        """Other terms."""
        assert self.flow is not None
        self.lease = lease
        self.flow.change(lease.rate)
        self._say(self._talk.granted(lease))

    def deny(self, code: RefusalCode, text: str) -> None:
        """It has none, or no longer."""
        self._say(self._talk.denied(code, text))
        self._stream.finish()
        self._end()

    # what the stream says

    def data_received(self, data: memoryview) -> None:
        """Bytes of the conversation."""
        self._stream.consumed(len(data))
        for event in self._talk.receive(data):
            if isinstance(event, Asked):
                self._stop()
                self.wish = event.wish
                self._decide(self, event.wish)
            else:
                self.deny(RefusalCode.MALFORMED, f"not understood: {event.reason}")

    def finished(self) -> None:
        """The client wants no more."""
        self._stream.finish()
        self._end()

    def lost(self, why: MeshError) -> None:
        """The stream is gone."""
        self._end()

    def drained(self) -> None:
        """Nothing waits here."""

    def describe(self) -> dict[str, Any]:
        """For `status`."""
        assert self.flow is not None and self.lease is not None
        caller = self.caller
        flow = self._stream.flow()
        return {
            "v4": str(self.lease.v4) if self.lease.v4 is not None else None,
            "v6": str(self.lease.v6) if self.lease.v6 is not None else None,
            "caller": caller.hex() if caller is not None else "anonymous",
            "seconds": round(self._clock.now() - self.since, 1),
            "mtu": self.lease.mtu,
            "rate": self.lease.rate,
            "rtt_ms": round(flow.rtt * 1_000, 3),
            **self.flow.as_json(),
        }

    def _say(self, data: bytes) -> None:
        self._stream.write(data)  # a few hundred bytes at most, which every stream takes

    def _waited(self) -> None:
        self._stop_waiting = None
        self.deny(RefusalCode.MALFORMED, "nothing was asked for")

    def _stop(self) -> None:
        if self._stop_waiting is not None:
            self._stop_waiting()
            self._stop_waiting = None

    def _end(self) -> None:
        self._stop()
        gone, self._gone = self._gone, None
        if gone is not None:
            gone(self)
