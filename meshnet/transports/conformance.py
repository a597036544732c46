"""What every stream transport promises (`interface.py`), as Trial tests to inherit. Only tests import this.

    class PigeonTests(conformance.TransportTests):
        def make(self):
            return PigeonWorld()          # an `OwnReactor` with near, far, bad and address()

A transport in a package of its own is tested by inheriting `TransportTests`, or those of its parts that fit;
a `World` says where the two ends live, how time passes, and what stands at the end. `docs/transports.md` has
a whole example. Import the module, not the classes out of it, or Trial runs them for themselves.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, Protocol
from unittest import SkipTest

from twisted.internet.base import ReactorBase
from twisted.internet.defer import CancelledError, Deferred
from twisted.python.failure import Failure
from twisted.trial.unittest import SynchronousTestCase

from meshnet.errors import ConfigError, LocalError, MeshError, UnreachableError
from meshnet.transports.interface import ByteCarrier, Listener, Transport

if sys.platform.startswith("linux"):
    from twisted.internet.epollreactor import EPollReactor as _Reactor
else:
    from twisted.internet.selectreactor import SelectReactor as _Reactor

MANY = 4 << 20
"""More bytes than any transport holds on the way."""
ROOM = 3_000
"""Of a sink's buffer; `MUCH_ROOM` where a test moves many bytes."""
MUCH_ROOM = 60_000


PATIENCE = 20.0
"""Seconds of real time after which a test is stuck; none waits for it otherwise."""


class OwnReactor:
    """Real sockets and threads under a reactor that nobody else uses."""

    def __init__(self) -> None:
        self.reactor: Any = _Reactor()
        assert isinstance(self.reactor, ReactorBase)
        self.reactor.startRunning(installSignalHandlers=False)
        self.reactor.iterate(0)
        self._own = set(self.reactor.getReaders())

    def until(self, done: Callable[[], object], seconds: float = PATIENCE) -> None:
        """Turns the reactor until `done()`."""
        limit = time.monotonic() + seconds
        while not done():
            if time.monotonic() > limit:
                raise AssertionError("nothing more happened")
            due = self.reactor.timeout()  # `iterate` itself does not look at timers
            self.reactor.iterate(0.05 if due is None else min(due, 0.05))

    def turns(self, number: int = 10) -> None:
        """Lets what is due happen, without waiting for anything."""
        for _ in range(number):
            self.reactor.iterate(0)

    def result(self, deferred: Deferred[Any]) -> Any:
        """Turns the reactor until the result is there; raises it if it is an error."""
        found: list[Any] = []
        deferred.addBoth(found.append)
        self.until(lambda: found)
        if isinstance(found[0], Failure):
            found[0].raiseException()
        return found[0]

    def left(self) -> list[object]:
        """Timers and sockets that still stand."""
        self.turns()
        reactor = self.reactor
        sockets = {*reactor.getReaders(), *reactor.getWriters()} - self._own
        return [*reactor.getDelayedCalls(), *sockets]

    def close(self) -> None:
        """Ends its threads and closes its own descriptors."""
        reactor = self.reactor
        if reactor.threadpool is not None:
            reactor.threadpool.stop()
        reactor.disconnectAll()
        for reader in self._own:
            reader.connectionLost(None)
        if hasattr(reactor, "_poller"):
            reactor._poller.close()


class World(Protocol):
    """Two places on one transport."""

    @property
    def near(self) -> Transport:
        """The dialling side's."""

    @property
    def far(self) -> Transport:
        """The listening side's."""

    @property
    def bad(self) -> Sequence[str]:
        """Texts that are no address of it."""

    def address(self) -> str:
        """What the far side listens on; what is dialled is the listener's own `address`."""

    def until(self, done: Callable[[], object]) -> None:
        """Lets time pass until `done()`; fails the test if that never comes."""

    def turns(self) -> None:
        """Lets everything happen that is under way."""

    def left(self) -> list[object]:
        """Timers, sockets and connections that still stand."""


class Sink:
    """Keeps what it receives through a small buffer; sends `queue` as the carrier allows."""

    def __init__(self, carrier: ByteCarrier, room: int = ROOM) -> None:
        self.carrier = carrier
        self.got = bytearray()
        self.why: MeshError | None = None
        self.queue = b""
        self.drains = 0
        self.on_filled: Callable[[], object] = lambda: None
        self.on_lost: Callable[[], object] = lambda: None
        self._memory = memoryview(bytearray(room))

    def enlarge(self) -> None:
        """More room."""
        self._memory = memoryview(bytearray(MUCH_ROOM))

    def buffer(self) -> memoryview:
        """The same memory each time."""
        return self._memory

    def filled(self, size: int) -> None:
        """Keeps it."""
        assert self.why is None, "bytes after the end"
        assert 0 < size <= len(self._memory)
        self.got += self._memory[:size]
        self.on_filled()

    def drained(self) -> None:
        """Goes on sending."""
        assert self.why is None, "drained after the end"
        self.drains += 1
        self.send(b"")

    def lost(self, why: MeshError) -> None:
        """Once."""
        assert self.why is None, "lost is called once"
        assert isinstance(why, MeshError) and str(why)
        self.why = why
        self.on_lost()

    def send(self, data: bytes) -> int:
        """Sends as much as goes; returns what went now."""
        self.queue += data
        taken = self.carrier.write(memoryview(self.queue)) if self.queue else 0
        assert 0 <= taken <= len(self.queue)
        self.queue = self.queue[taken:]
        return taken


class TransportPromises(SynchronousTestCase):
    """Inherit this together with a `make` that returns the world."""

    def make(self) -> World:
        """A fresh world."""
        raise SkipTest("inherit this together with a `make`")

    def setUp(self) -> None:
        """A fresh world."""
        self.world = self.make()
        self.accepted: list[Sink] = []

    def accept(self, carrier: ByteCarrier) -> Sink:
        """The far side's sinks."""
        self.accepted.append(Sink(carrier))
        return self.accepted[-1]

    def result(self, deferred: Deferred[Any]) -> Any:
        """What a Deferred comes to."""
        found: list[Any] = []
        deferred.addBoth(found.append)
        self.world.until(lambda: found)
        if hasattr(found[0], "raiseException"):
            found[0].raiseException()
        return found[0]

    def listen(self) -> Listener:
        """The far side listens; `self.rest` is what to dial."""
        listener: Listener = self.result(self.world.far.listen(self.world.address(), self.accept))
        name, _, self.rest = listener.address.partition(":")
        self.assertEqual(name, self.world.far.name)
        self.addCleanup(listener.stop)
        return listener

    def dial(self) -> Sink:
        """One more connection; the near sink."""
        sinks: list[Sink] = []

        def attach(carrier: ByteCarrier) -> Sink:
            sinks.append(Sink(carrier))
            return sinks[0]

        number = len(self.accepted)
        self.assertIsNone(self.result(self.world.near.dial(self.rest, attach)))
        self.world.until(lambda: len(self.accepted) > number)
        return sinks[0]

    def connect(self) -> tuple[Sink, Sink]:
        """A listener and a connection: the near sink and the far one."""
        self.listener = self.listen()
        near = self.dial()
        return near, self.accepted[-1]

    def end(self, *sinks: Sink) -> None:
        """Closes everything; nothing may be left."""
        self.listener.stop()
        for sink in sinks:
            sink.carrier.close()
        self.world.until(lambda: all(sink.why for sink in sinks))
        self.assertEqual(self.world.left(), [])


class StreamPromises(TransportPromises):
    """Bytes on a standing connection."""

    def test_bytes_arrive_in_order(self) -> None:
        """Both ways at once, more than fits on the way, through small buffers."""
        near, far = self.connect()
        near.enlarge()
        far.enlarge()
        one = bytes(range(256)) * (MANY // 256)
        other = one[::-1]
        near.send(one)
        far.send(other)
        self.world.until(lambda: len(far.got) == len(one) and len(near.got) == len(other))
        self.assertEqual((bytes(far.got), bytes(near.got)), (one, other))
        self.end(near, far)

    def test_a_paused_reader_stops_the_writer(self) -> None:
        """Writes become short while the other side pauses; `drained` follows when it goes on."""
        near, far = self.connect()
        far.enlarge()
        far.carrier.pause()
        near.send(bytes(MANY))
        self.world.turns()
        self.assertGreater(len(near.queue), 0)
        before = len(far.got)
        self.world.turns()
        self.assertEqual(len(far.got), before)
        drains = near.drains
        far.carrier.resume()
        self.world.until(lambda: len(far.got) == MANY)
        self.assertGreater(near.drains, drains)
        self.assertEqual(near.queue, b"")
        self.end(near, far)

    def test_pause_inside_filled(self) -> None:
        """A sink that pauses while it is given bytes gets no more until it resumes; twice is once."""
        near, far = self.connect()
        far.on_filled = far.carrier.pause
        near.send(bytes(10_000))
        self.world.until(lambda: far.got)
        self.world.turns()
        self.assertLessEqual(len(far.got), ROOM)
        far.on_filled = lambda: None
        far.carrier.resume()
        far.carrier.resume()
        self.world.until(lambda: len(far.got) == 10_000)
        self.end(near, far)

    def test_answers_from_filled(self) -> None:
        """Writing while being given bytes is safe; an echo of everything comes back whole."""
        near, far = self.connect()
        seen = 0

        def echo() -> None:
            nonlocal seen
            far.send(bytes(far.got[seen:]))
            seen = len(far.got)

        far.on_filled = echo
        data = bytes(range(250)) * 2_000
        near.send(data)
        self.world.until(lambda: len(near.got) == len(data))
        self.assertEqual(bytes(near.got), data)
        self.end(near, far)

    def test_an_empty_write(self) -> None:
        """Nothing taken of nothing, and nothing happens."""
        near, far = self.connect()
        self.assertEqual(near.carrier.write(memoryview(b"")), 0)
        self.world.turns()
        self.assertEqual((far.got, near.drains), (b"", 0))
        self.end(near, far)

    def test_the_data_is_the_callers_again(self) -> None:
        """Memory given to `write` may be overwritten as soon as it returns."""
        near, far = self.connect()
        memory = bytearray(b"first")
        self.assertEqual(near.carrier.write(memoryview(memory)), 5)
        memory[:] = b"xxxxx"
        self.world.until(lambda: len(far.got) == 5)
        self.assertEqual(far.got, b"first")
        self.end(near, far)


class EndPromises(TransportPromises):
    """How connections end."""

    def test_close(self) -> None:
        """Both sides are told once, the closing one in a later turn; what was sent before arrives."""
        near, far = self.connect()
        near.send(b"last words")
        near.carrier.close()
        self.assertIsNone(near.why)
        near.carrier.close()
        self.world.until(lambda: near.why and far.why)
        self.assertEqual(far.got, b"last words")
        self.end(near, far)

    def test_both_close(self) -> None:
        """At the same time."""
        near, far = self.connect()
        near.carrier.close()
        far.carrier.close()
        self.world.until(lambda: near.why and far.why)
        self.end(near, far)

    def test_after_the_end(self) -> None:
        """Whatever is asked of a carrier that has ended is harmless."""
        near, far = self.connect()
        near.carrier.close()
        for _ in range(2):
            for sink in (near, far):
                sink.carrier.write(memoryview(b"late"))
                sink.carrier.pause()
                sink.carrier.resume()
                sink.carrier.close()
            self.world.turns()
        self.assertEqual(far.got, b"")
        self.end(near, far)

    def test_close_inside_filled(self) -> None:
        """A sink may close while it is given bytes; it gets no more."""
        near, far = self.connect()
        far.on_filled = far.carrier.close
        near.send(bytes(100_000))
        self.world.until(lambda: near.why and far.why)
        self.assertLessEqual(len(far.got), ROOM)
        self.end(near, far)

    def test_close_inside_lost(self) -> None:
        """Closing what is lost already."""
        near, far = self.connect()
        far.on_lost = far.carrier.close
        near.on_lost = near.carrier.close
        near.carrier.close()
        self.world.until(lambda: near.why and far.why)
        self.end(near, far)

    def test_close_while_much_waits(self) -> None:
        """Unsent bytes are the sink's own; a paused reader does not keep the closing side from its end."""
        near, far = self.connect()
        far.carrier.pause()
        near.send(bytes(MANY))
        near.carrier.close()
        self.world.until(lambda: near.why)
        far.carrier.resume()
        self.world.until(lambda: far.why)
        self.end(near, far)

    def test_close_inside_attach(self) -> None:
        """Either side may hang up at once."""
        self.listener = self.listen()
        sinks: list[Sink] = []

        def attach(carrier: ByteCarrier) -> Sink:
            carrier.close()
            sinks.append(Sink(carrier))
            return sinks[-1]

        self.result(self.world.near.dial(self.rest, attach).addErrback(lambda _: None))
        self.world.until(lambda: sinks[0].why)
        self.world.until(lambda: all(sink.why for sink in self.accepted))
        self.listener.stop()
        self.listener = self.result(self.world.far.listen(self.world.address(), attach))
        self.rest = self.listener.address.partition(":")[2]
        dialled: list[Sink] = []

        def keep(carrier: ByteCarrier) -> Sink:
            dialled.append(Sink(carrier))
            return dialled[-1]

        self.result(self.world.near.dial(self.rest, keep).addErrback(lambda _: None))
        self.world.until(lambda: len(sinks) == 2 and sinks[1].why)
        self.world.until(lambda: all(sink.why for sink in dialled))
        self.end(*sinks, *dialled)

    def test_listener_stops(self) -> None:
        """Connections stay; nobody new comes; the address is free again; twice is once."""
        near, far = self.connect()
        self.listener.stop()
        self.listener.stop()
        self.assertRaises(MeshError, self.dial)
        near.send(b"still here")
        self.world.until(lambda: far.got)
        again = self.result(self.world.far.listen(self.rest, self.accept))
        self.dial().carrier.close()
        self.world.until(lambda: self.accepted[-1].why)
        again.stop()
        self.end(near, far)


class AddressPromises(TransportPromises):
    """Addresses, and connections that do not come about."""

    def test_nobody_listens(self) -> None:
        """UnreachableError, and nothing is left."""
        self.listener = self.listen()
        self.listener.stop()
        self.world.turns()
        error = self.assertRaises(UnreachableError, self.dial)
        self.assertIn(self.rest.split(":")[0], str(error))
        self.end()

    def test_taken(self) -> None:
        """A second listener on the same address fails with a sentence that names it; the first goes on."""
        near, far = self.connect()
        error = self.assertRaises(
            LocalError, self.result, self.world.far.listen(self.rest, lambda carrier: self.accept(carrier))
        )
        self.assertIn(self.rest, str(error))
        second = self.dial()
        self.end(near, far, second, self.accepted[-1])

    def test_bad_addresses(self) -> None:
        """Are told from good ones before anything is done."""
        self.world.near.check(self.world.address())
        for text in ["", *self.world.bad]:
            self.assertRaises(ConfigError, self.world.near.check, text)

    def test_a_dial_is_given_up(self) -> None:
        """A cancelled dial ends with CancelledError; no connection of it stays."""
        self.listener = self.listen()
        sinks: list[Sink] = []

        def attach(carrier: ByteCarrier) -> Sink:
            sinks.append(Sink(carrier))
            return sinks[-1]

        dialled = self.world.near.dial(self.rest, attach)
        if not sinks:  # else it stood at once
            dialled.cancel()
            self.assertRaises(CancelledError, self.result, dialled)
        self.world.turns()
        for sink in [*sinks, *self.accepted]:
            sink.carrier.close()
        self.world.turns()
        self.end(*sinks, *self.accepted)
        self.assertFalse(sinks and not self.accepted)

    def test_attach_fails(self) -> None:
        """Where making a sink raises, that connection ends, and later ones are not touched by it."""
        self.listener = self.listen()

        def broken(carrier: ByteCarrier) -> Sink:
            raise ZeroDivisionError

        self.assertRaises(ZeroDivisionError, self.result, self.world.near.dial(self.rest, broken))
        self.world.until(lambda: all(sink.why for sink in self.accepted))
        accept, self.accept = self.accept, broken  # type: ignore[method-assign]
        self.listener.stop()
        self.listener = self.listen()
        ends: list[Sink] = []

        def keep(carrier: ByteCarrier) -> Sink:
            ends.append(Sink(carrier))
            return ends[-1]

        self.result(self.world.near.dial(self.rest, keep).addErrback(lambda _: None))
        self.world.until(lambda: all(sink.why for sink in ends))
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        self.accept = accept  # type: ignore[method-assign]
        self.end(*ends)


class FaultPromises(TransportPromises):
    """Faults of the sink: for transports under a reactor that logs what is raised."""

    def test_filled_raises(self) -> None:
        """Whatever a sink raises ends its connection and no other, and is logged."""
        near, far = self.connect()
        other = self.dial()
        far.on_filled = lambda: 1 // 0
        near.send(b"x")
        self.world.until(lambda: far.why and near.why)
        self.assertEqual(len(self.flushLoggedErrors(ZeroDivisionError)), 1)
        other.send(b"fine")
        self.world.until(lambda: self.accepted[-1].got)
        self.assertIsNone(other.why)
        self.end(near, far, other, self.accepted[-1])


class TransportTests(StreamPromises, EndPromises, AddressPromises, FaultPromises):
    """Everything that is promised."""
