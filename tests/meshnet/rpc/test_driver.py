"""Calls as users see them: awaited, iterated, cancelled, limited in time, both ways at once."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterable, AsyncIterator, Awaitable
from contextlib import aclosing
from typing import Any, cast

from twisted.internet.defer import CancelledError, Deferred, gatherResults
from twisted.trial.unittest import SynchronousTestCase

from meshnet import limits
from meshnet.errors import (
    MeshError,
    RefusedError,
    StorageError,
    TimedOutError,
    UnreachableError,
    UsageError,
)
from meshnet.rpc import (
    CallError,
    CallLostError,
    InternalError,
    NotOfferedError,
    SchemaError,
    Service,
    call,
    follow,
)
from meshnet.rpc.failure import CancelledCallError
from meshnet.rpc.service import Caller, Peer, uses
from tests.meshnet.rpc.pairs import Joined
from tests.meshnet.rpc.samples import Number, OurSums, Sums
from tests.support.streams import a_key


def run(joined: Joined, work: Any, seconds: float = 0.0) -> Any:
    """What a coroutine returns; raises what it raises."""
    found: list[Any] = []
    Deferred.fromCoroutine(work).addBoth(found.append)
    joined.pass_time(seconds)
    assert found, "it still waits"
    if hasattr(found[0], "raiseException"):
        found[0].raiseException()
    return found[0]


class Slow(OurSums):
    """Answers when it is told to, and keeps what became of its calls."""

    def __init__(self) -> None:
        self.waiting: list[Deferred[Number]] = []
        self.seen: list[Any] = []

    async def double(self, request: Number) -> Number:
        """Waits."""
        waiting: Deferred[Number] = Deferred()
        self.waiting.append(waiting)
        try:
            return await waiting
        except CancelledError:
            self.seen.append("cancelled")
            raise

    async def count(self, request: Number) -> AsyncIterator[Number]:
        """Without end."""
        value = 0
        try:
            while True:
                yield Number(value, request.pad)
                value += 1
        finally:
            self.seen.append(value)

    async def total(self, request: Number, items: AsyncIterable[Number]) -> Number:
        """Answers after the first item."""
        async for item in items:
            return item
        return request


class CallTests(SynchronousTestCase):
    """One request, one answer."""

    def test_many_at_once(self) -> None:
        """More calls than may be under way: all are answered, each with its own answer."""
        joined = Joined()
        sums = joined.peer.use(Sums)
        count = 3 * limits.RPC_CALLS

        async def work() -> list[int]:
            calls: list[Any] = [sums.double(Number(value)) for value in range(count)]
            return [answer.value for answer in await gatherResults(calls)]

        self.assertEqual(run(joined, work()), [2 * value for value in range(count)])
        self.assertTrue(joined.channel.core.outgoing.idle)

    def test_one_write_per_turn(self) -> None:
        """Calls that are made in one turn leave in one write, and so do their answers."""
        joined = Joined()
        sums = joined.peer.use(Sums)
        run(joined, _all([sums.double(Number(1))]))
        near, far = joined.near.streams[0], joined.far.streams[0]
        writes: list[int] = []
        for stream in (near, far):
            write = stream.write
            stream.write = lambda data, write=write: writes.append(len(data)) or write(data)  # type: ignore[method-assign]
        run(joined, _all([sums.double(Number(value)) for value in range(50)]))
        self.assertEqual(writes, [50 * (8 + 8), 50 * (6 + 8)])

    def test_typed_attributes(self) -> None:
        """A class of peers names the services it uses; an implementation may return any awaitable."""

        class Direct(OurSums):
            def double(self, request: Number) -> Awaitable[Number]:  # type: ignore[override]
                later: Deferred[Number] = Deferred()
                later.callback(Number(5))
                return later

        class SumsPeer(Peer):
            sums = uses(Sums)

        joined = Joined(Direct())
        peer = SumsPeer.of_node(joined.near, joined.far.public_key, 7)
        self.assertEqual(run(joined, _one(peer.sums.double(Number(1)))), Number(5))

    def test_errors_travel(self) -> None:
        """Errors raised on purpose arrive as what they are; of others only that they happened."""
        raised: list[Exception] = []

        class Raising(OurSums):
            async def double(self, request: Number) -> Number:
                raise raised[-1]

        joined = Joined(Raising())
        double = joined.peer.use(Sums).double
        for error in (
            RefusedError("Not you."),
            UsageError("No."),
            UnreachableError("Gone."),
            TimedOutError("Late."),
        ):
            raised.append(error)
            caught = self.assertRaises(type(error), run, joined, _one(double(Number(1))))
            self.assertEqual(str(caught), str(error))
        raised.append(CallError("Only on Mondays.", 300))
        caught = self.assertRaises(CallError, run, joined, _one(double(Number(1))))
        self.assertEqual((caught.code, str(caught)), (300, "Only on Mondays."))
        raised.append(type("Inner", (UnreachableError,), {})("a secret"))
        caught = self.assertRaises(UnreachableError, run, joined, _one(double(Number(1))))
        self.assertNotIn("secret", str(caught))
        for hidden in (ValueError("a secret"), StorageError("a secret"), MeshError("a secret")):
            raised.append(hidden)
            caught = self.assertRaises(InternalError, run, joined, _one(double(Number(1))))
            self.assertEqual(str(caught), "sums.double failed on the other side.")
        self.assertEqual(len(self.flushLoggedErrors(ValueError, StorageError, MeshError)), 3)

    def test_wrong_answers(self) -> None:
        """An implementation that answers something else, or too much, fails on its own side."""
        answers: list[Any] = [7, Number(1, bytes(limits.RPC_BODY)), None]

        class Wrong(OurSums):
            async def double(self, request: Number) -> Number:
                made: Number = answers[request.value]
                return made

        joined = Joined(Wrong())
        for value in range(3):
            self.assertRaises(InternalError, run, joined, _one(joined.peer.use(Sums).double(Number(value))))
        self.assertEqual(len(self.flushLoggedErrors()), 3)

    def test_wrong_requests(self) -> None:
        """What is no request, and one that is too large, never leaves; the connection stands."""
        joined = Joined()
        double: Any = joined.peer.use(Sums).double
        self.assertRaises(UsageError, run, joined, _one(double(7)))
        self.assertRaises(MeshError, run, joined, _one(double(Number(1, bytes(limits.RPC_BODY)))))
        self.assertRaises(MeshError, run, joined, _one(double(Number(1 << 40))))
        self.assertEqual(run(joined, _one(double(Number(3)))), Number(6))
        self.assertRaises(UsageError, joined.peer.use, Sums, 0.0)
        self.assertRaises(UsageError, joined.peer.use, Sums, limits.RPC_LONGEST + 1)

    def test_deadline(self) -> None:
        """Both sides give up at the deadline; the slot is free again, and the connection stands."""
        slow = Slow()
        joined = Joined(slow)
        double = joined.peer.use(Sums, within=5.0).double
        self.assertRaises(TimedOutError, run, joined, _one(double(Number(1))), 6.0)
        self.assertEqual(slow.seen, ["cancelled"])
        self.assertTrue(joined.channel.core.outgoing.idle)
        self.assertIsNone(joined.channel.over)

    def test_longest(self) -> None:
        """A service grants no more time than it says, whatever its callers ask for."""

        class Hasty(Slow):
            longest = 2.0

        joined = Joined(Hasty())
        double = joined.peer.use(Sums, within=1_000.0).double
        self.assertRaises(TimedOutError, run, joined, _one(double(Number(1))), 3.0)
        self.assertIsNone(joined.channel.over)

    def test_deadline_without_an_answerer(self) -> None:
        """A deadline holds while the stream is not there yet, too."""
        joined = Joined()
        joined.near.connect = lambda *args, **more: Deferred()  # type: ignore[method-assign]
        self.assertRaises(
            TimedOutError, run, joined, _one(joined.peer.use(Sums, within=3).double(Number(1))), 4.0
        )

    def test_cancel(self) -> None:
        """A cancelled call ends here at once, and there when the word arrives."""
        slow = Slow()
        joined = Joined(slow)
        pending: Any = joined.peer.use(Sums).double(Number(1))
        joined.pass_time()
        pending.cancel()
        self.failureResultOf(pending, CancelledCallError)
        joined.pass_time()
        self.assertEqual(slow.seen, ["cancelled"])
        self.assertTrue(joined.channel.core.outgoing.idle)
        never: Any = joined.peer.use(Sums).double(Number(1))
        never.cancel()
        self.failureResultOf(never, CancelledCallError)
        joined.pass_time()
        self.assertTrue(joined.channel.core.outgoing.idle)


class ItemTests(SynchronousTestCase):
    """Streams of items."""

    def test_follow(self) -> None:
        """Items in order, then the end; more than the credit of one call, through a narrow stream."""
        joined = Joined(window=5_000)
        pad = bytes(1_000)

        async def work() -> list[int]:
            return [item.value async for item in joined.peer.use(Sums).count(Number(400, pad))]

        found: list[Any] = []
        Deferred.fromCoroutine(work()).addBoth(found.append)
        for _ in range(20):
            joined.pass_time()
        self.assertEqual(found, [list(range(400))])

    def test_collect(self) -> None:
        """The caller's items, from an ordinary list and from an asynchronous source."""
        joined = Joined()
        total = joined.peer.use(Sums).total

        async def source() -> AsyncIterator[Number]:
            for value in range(500):
                yield Number(value, bytes(1_000))

        self.assertEqual(run(joined, _one(total(Number(7), source()))), Number(7 + sum(range(500))))
        plain: Any = [Number(value) for value in range(10)]
        self.assertEqual(run(joined, _one(total(Number(0), plain))), Number(45))

    def test_converse(self) -> None:
        """Both ways at once, each answer to its item."""
        joined = Joined()
        answers: list[int] = []
        mine: list[Deferred[Number]] = [Deferred() for _ in range(3)]

        async def source() -> AsyncIterator[Number]:
            for each in mine:
                yield await each

        async def work() -> None:
            async for item in joined.peer.use(Sums).running(Number(100), source()):
                answers.append(item.value)

        done = Deferred.fromCoroutine(work())
        for place, each in enumerate(mine):
            each.callback(Number(place + 1))
            joined.pass_time()
            self.assertEqual(len(answers), place + 1)
        self.successResultOf(done)
        self.assertEqual(answers, [101, 103, 106])

    def test_credit(self) -> None:
        """Nobody reads: the sender stops at the credit, and goes on as items are taken."""
        slow = Slow()
        joined = Joined(slow)
        items: Any = joined.peer.use(Sums).count(Number(0, bytes(1_000)))
        joined.pass_time()
        held = len(items._call._queue)
        self.assertEqual(held, limits.RPC_CREDIT // (6 + 8 + 1_000))

        async def take(count: int) -> None:
            for _ in range(count):
                await items.__anext__()

        run(joined, take(held))
        self.assertGreater(len(items._call._queue), held // 3)
        items.cancel()
        joined.pass_time()
        self.assertEqual(len(slow.seen), 1)  # the generator was closed
        self.assertRaises(CancelledCallError, run, joined, take(1))
        self.assertTrue(joined.channel.core.outgoing.idle)

    def test_left_before_the_end(self) -> None:
        """Who leaves an `async for` early, or lets go of the items, gives the call up; both sides know."""
        slow = Slow()
        joined = Joined(slow)
        sums = joined.peer.use(Sums)

        async def breaks() -> int:
            async for item in sums.count(Number(0, bytes(1_000))):
                if item.value == 3:
                    break
            return item.value

        async def raises() -> None:
            async for _ in sums.count(Number(0, bytes(1_000))):
                raise ZeroDivisionError

        async def closes() -> None:
            async with aclosing(sums.count(Number(0, bytes(1_000)))) as items:  # type: ignore[type-var]
                async for _ in items:
                    break

        async def one() -> int:
            return (await anext(sums.count(Number(0)))).value

        self.assertEqual(run(joined, breaks()), 3)
        self.assertRaises(ZeroDivisionError, run, joined, raises())
        run(joined, closes())
        self.assertEqual(run(joined, one()), 0)
        never: Any = sums.count(Number(0))
        del never
        joined.pass_time()
        self.assertEqual(len(slow.seen), 5)
        self.assertTrue(joined.channel.idle)
        self.assertTrue(all(channel.idle for channel in joined.serving.channels))

    def test_early_answer(self) -> None:
        """An answer ends the caller's items, though they have no end."""
        joined = Joined(Slow())
        closed: list[int] = []

        async def source() -> AsyncIterator[Number]:
            value = 10
            try:
                while True:
                    yield Number(value, bytes(1_000))
                    value += 1
            finally:
                closed.append(value)

        self.assertEqual(run(joined, _one(joined.peer.use(Sums).total(Number(0), source()))).value, 10)
        joined.pass_time()
        self.assertEqual(len(closed), 1)
        self.assertTrue(joined.channel.core.outgoing.idle)
        channel = next(iter(joined.serving.channels))
        self.assertFalse(channel.core.incoming.calls)

    def test_source_fails(self) -> None:
        """What the caller's own source raises ends the call with it."""
        joined = Joined()

        async def source() -> AsyncIterator[Number]:
            yield Number(1)
            raise ValueError("mine")

        self.assertRaises(ValueError, run, joined, _one(joined.peer.use(Sums).total(Number(0), source())))
        self.assertTrue(joined.channel.core.outgoing.idle)

    def test_more_than_may_stream(self) -> None:
        """Streamed calls beyond those that were granted wait for their turn."""
        joined = Joined()
        count = 2 * limits.RPC_STREAMED + 3

        async def one() -> int:
            return len([item async for item in joined.peer.use(Sums).count(Number(3))])

        done = gatherResults([Deferred.fromCoroutine(one()) for _ in range(count)])
        joined.pass_time()
        self.assertEqual(self.successResultOf(done), [3] * count)


class AgreementTests(SynchronousTestCase):
    """What the two sides must share."""

    def test_not_offered(self) -> None:
        """Services that are not there, or not for this caller; streamed items to them are thrown away."""

        class Other(Service):
            name = "other"
            ask = call(1, Number, Number)

        joined = Joined()
        error = self.assertRaises(NotOfferedError, run, joined, _one(joined.peer.use(Other).ask(Number(1))))
        self.assertEqual(str(error), "other.ask is not offered by the other side.")
        refusing = Joined(OurElsewhere(), lambda caller: OurSums() if caller.key else None)
        items: Any = [Number(1)] * 100
        self.assertRaises(
            NotOfferedError, run, refusing, _one(refusing.peer.use(Sums).total(Number(1), items))
        )
        refusing.pass_time()
        self.assertTrue(refusing.channel.core.outgoing.idle)
        self.assertIsNone(refusing.channel.over)

    def test_identity(self) -> None:
        """An implementation knows who calls."""
        callers: list[Caller] = []

        def offer(caller: Caller) -> OurSums:
            callers.append(caller)
            return OurSums()

        for identity in ("anonymous", "node"):
            joined = Joined(offer, identity=identity)
            run(joined, _one(joined.peer.use(Sums).double(Number(1))))
        self.assertEqual([caller.key for caller in callers], [None, joined.near.public_key])

    def test_schema(self) -> None:
        """A method that is declared otherwise fails by its name; its neighbours work."""

        class Newer(Service):
            name = "sums"
            double = call(1, Number, Number)
            count = follow(2, Number, Number)
            total = call(3, Number, Number)

        joined = Joined()
        newer: Any = joined.peer.use(Newer)
        self.assertEqual(run(joined, _one(newer.double(Number(4)))), Number(8))
        error = self.assertRaises(SchemaError, run, joined, _one(newer.total(Number(4))))
        self.assertIn("sums.total is declared otherwise", str(error))


class LossTests(SynchronousTestCase):
    """The end of a connection, and what follows."""

    def test_lost_and_dialled_again(self) -> None:
        """Calls under way fail and say so; the next call dials."""
        slow = Slow()
        joined = Joined(slow)
        pending: Any = joined.peer.use(Sums).double(Number(1))
        joined.pass_time()
        joined.near.streams[0].lose(UnreachableError("the circuit is gone"))
        joined.pass_time()
        error: Any = self.failureResultOf(pending, CallLostError).value
        self.assertIn("sums.double was not answered: the circuit is gone", str(error))
        again: Any = joined.peer.use(Sums).double(Number(1))
        joined.pass_time()
        slow.waiting[-1].callback(Number(2))
        joined.pass_time()
        self.assertEqual(self.successResultOf(again), Number(2))
        self.assertEqual(len(joined.near.streams), 2)

    def test_an_answerer_that_reads_no_more(self) -> None:
        """A connection whose far end said STOP fails its calls at once; the next call dials again."""
        joined = Joined()
        sums = joined.peer.use(Sums)
        run(joined, _all([sums.double(Number(1))]))
        joined.far.streams[0].stop()
        failing: Any = sums.double(Number(2))
        joined.pass_time()
        self.failureResultOf(failing, CallLostError)
        self.assertTrue(joined.near.streams[0].gone)
        run(joined, _all([sums.double(Number(3))]), 60.0)
        self.assertEqual(len(joined.near.streams), 2)

    def test_not_reached(self) -> None:
        """A stream that cannot be opened fails the calls that waited for it, each with the reason."""
        joined = Joined()
        joined.mesh.connect_error = RefusedError("No way.")
        pending: list[Any] = [joined.peer.use(Sums).double(Number(1)) for _ in range(3)]
        joined.pass_time()
        for each in pending:
            self.assertIn("No way.", str(self.failureResultOf(each, RefusedError).value))

    def test_service_stops(self) -> None:
        """What is offered no more is refused; open connections end in order."""
        joined = Joined(Slow())
        pending: Any = joined.peer.use(Sums).double(Number(1))
        joined.pass_time()
        joined.serving.stop()
        joined.pass_time()
        self.assertIn("the service stops", str(self.failureResultOf(pending, CallLostError).value))
        self.assertFalse(joined.serving.channels)
        again: Any = joined.peer.use(Sums).double(Number(1))
        joined.pass_time()
        self.failureResultOf(again, RefusedError)

    def test_idle(self) -> None:
        """A connection that nobody uses is closed by who opened it; nothing is left, and calls dial again."""
        joined = Joined()
        run(joined, _one(joined.peer.use(Sums).double(Number(1))))
        joined.pass_time(2 * limits.RPC_IDLE + 2)
        self.assertIsNotNone(joined.channel.over)
        self.assertFalse(joined.serving.channels)
        self.assertEqual(run(joined, _one(joined.peer.use(Sums).double(Number(2)))), Number(4))
        joined.peer.close()
        joined.pass_time(limits.RPC_LINGER + 1)
        self.assertEqual([each for each in joined.mesh.reactor.getDelayedCalls() if each.active()], [])

    def test_waits_between_attempts(self) -> None:
        """Calls of a peer that is not reached fail at once with what the last attempt failed with; attempts
        are made more and more rarely, until one succeeds."""
        joined = Joined()
        joined.mesh.connect_error = RefusedError("No way.")
        for _ in range(2_000):
            pending: Any = joined.peer.use(Sums).double(Number(1))
            joined.mesh.reactor.advance(0.1)
            self.assertIn("No way.", str(self.failureResultOf(pending, RefusedError).value))
        self.assertEqual(len(joined.near.routes), 12)  # at 0, 0.5, 1.5, 3.5, 7.5, 15.5, 31.5, 61.5, …
        joined.mesh.connect_error = None
        joined.pass_time(limits.RPC_REDIAL_MOST)
        self.assertEqual(run(joined, _one(joined.peer.use(Sums).double(Number(2)))), Number(4))
        joined.near.streams[0].lose(UnreachableError("the circuit is gone"))
        joined.pass_time()
        self.assertEqual(run(joined, _one(joined.peer.use(Sums).double(Number(2)))), Number(4))

    def test_closed_peer_dials_at_once(self) -> None:
        """After `close` nothing is held against the other side."""
        joined = Joined()
        joined.mesh.connect_error = RefusedError("No way.")
        self.assertRaises(RefusedError, run, joined, _one(joined.peer.use(Sums).double(Number(2))))
        joined.mesh.connect_error = None
        joined.peer.close()
        self.assertEqual(run(joined, _one(joined.peer.use(Sums).double(Number(2)))), Number(4))

    def test_too_many_connections(self) -> None:
        """A port takes only so many connections; who has the most of them makes room for others, with one
        that is not in use if there is one, and gets no more himself."""
        joined = Joined()
        serving, rich, poor = joined.serving, a_key(1), a_key(2)
        held = [serving.channel(Caller(rich, 7)) for _ in range(limits.RPC_CONNECTIONS)]
        self.assertIsNone(serving.channel(Caller(rich, 7)))
        for channel in held[:-1]:
            assert channel is not None
            channel.core.incoming.calls[0] = cast(Any, object())  # in use
        self.assertIsNotNone(serving.channel(Caller(poor, 7)))
        self.assertIn("others have fewer", str(held[-1] and held[-1].over))
        count = len([channel for channel in held if channel is not None and channel.over is None])
        self.assertEqual((count, len(serving.channels)), (limits.RPC_CONNECTIONS - 1, limits.RPC_CONNECTIONS))
        for channel in held[:-1]:
            assert channel is not None
            channel.core.incoming.calls.clear()
        while serving.channel(Caller(None, 7)) is not None:
            self.assertEqual(len(serving.channels), limits.RPC_CONNECTIONS)
        whose = Counter(serving.channels.values())
        self.assertLessEqual(abs(whose[rich] - whose[None]), 1)
        self.assertEqual(whose[poor], 1)


class Elsewhere(Service):
    """Something else."""

    name = "elsewhere"
    ask = call(1, Number, Number)


class OurElsewhere(Elsewhere):
    """Says what it was asked."""

    async def ask(self, request: Number) -> Number:
        """The same."""
        return request


async def _one(awaitable: Any) -> Any:
    return await awaitable


async def _all(calls: list[Any]) -> Any:
    return await gatherResults(calls)
