"""Typed calls over a stream: declare a service once, implement it here, call it from there.

    class Clock(Service):
        name = "clock"
        now = call(1, Ask, Answer)

    class OurClock(Clock):                                  # on one node
        async def now(self, request: Ask) -> Answer: …

    answer = await peer.use(Clock).now(Ask(…))              # on another

Floor 1: no I/O, no clock. `connection.py` is the core of one connection, `driver.py` its floor-2 part, and
`service.py` joins it with the ports of a node and with Twisted's endpoints. docs/rpc.md tells it all.
"""

from meshnet.rpc.declare import Method, Service, call, collect, converse, follow
from meshnet.rpc.failure import CallError, CallLostError, Fault, InternalError, NotOfferedError, SchemaError

__all__ = [
    "CallError",
    "CallLostError",
    "Fault",
    "InternalError",
    "Method",
    "NotOfferedError",
    "SchemaError",
    "Service",
    "call",
    "collect",
    "converse",
    "follow",
]
