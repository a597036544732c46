"""Services for the tests of calls."""

from __future__ import annotations

from collections.abc import AsyncIterable, AsyncIterator
from typing import Annotated

from meshnet.codec import U32, Var, message
from meshnet.rpc import Service, call, collect, converse, follow


@message
class Number:
    """A number, and bytes that make it as large as wanted."""

    value: U32
    pad: Annotated[bytes, Var(U32, 1 << 20)] = b""


class Sums(Service):
    """One method of each form."""

    name = "sums"
    double = call(1, Number, Number)
    count = follow(2, Number, Number)
    total = collect(3, Number, Number, Number)
    running = converse(4, Number, Number, Number)


class OurSums(Sums):
    """As they should be."""

    async def double(self, request: Number) -> Number:
        """Twice as much."""
        return Number(2 * request.value)

    async def count(self, request: Number) -> AsyncIterator[Number]:
        """All numbers below."""
        for value in range(request.value):
            yield Number(value, request.pad)

    async def total(self, request: Number, items: AsyncIterable[Number]) -> Number:
        """All of them and the first."""
        return Number(request.value + sum([item.value async for item in items]))

    async def running(self, request: Number, items: AsyncIterable[Number]) -> AsyncIterator[Number]:
        """After each the sum so far."""
        value = request.value
        async for item in items:
            value += item.value
            yield Number(value)
