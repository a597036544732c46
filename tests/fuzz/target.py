"""What is fuzzed: a function of bytes, the errors it may raise, the memory it may take, where to begin."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path

from attrs import field, frozen

CORPUS = Path(__file__).resolve().parent / "corpus"
MEGABYTE = 1 << 20


class Finding(Exception):
    """An input did what none may: the text says what, `data` is the input."""

    def __init__(self, target: str, data: bytes, what: str) -> None:
        super().__init__(f"{target}: {what}; input {data.hex()}")
        self.data = data


@frozen
class Target:
    """`run` takes any bytes and raises nothing but `allowed`. `most` bounds what one input may make it
    allocate, in bytes, at the peak. `seeds` are inputs that get far."""

    name: str
    run: Callable[[bytes], None]
    seeds: Callable[[], list[bytes]] = field(repr=False)
    allowed: tuple[type[Exception], ...] = ()
    most: int = MEGABYTE
    longest: int = 4_096

    def kept(self) -> Iterator[tuple[str, bytes]]:
        """Cases found once, by name: they are tried for ever."""
        folder = CORPUS / self.name
        for path in sorted(folder.glob("*")) if folder.is_dir() else []:
            yield path.name, path.read_bytes()

    def once(self, data: bytes) -> bool:
        """Runs one input; true if it was taken, false for an allowed error. Raises `Finding`."""
        try:
            self.run(data)
        except self.allowed:
            return False
        except Exception as error:
            raise Finding(self.name, data, f"{type(error).__name__}: {error}") from error
        return True

    def measured(self, data: bytes) -> bool:
        """The same, with tracemalloc running; raises `Finding` as well where it took too much memory."""
        tracemalloc.reset_peak()
        before = tracemalloc.get_traced_memory()[0]
        taken = self.once(data)
        peak = tracemalloc.get_traced_memory()[1] - before
        if peak > self.most:
            raise Finding(self.name, data, f"{peak} bytes allocated, {self.most} allowed")
        return taken


class Choices:
    """Reads an input as a series of choices; when it is used up, all following ones are zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def __bool__(self) -> bool:
        return self._at < len(self._data)

    def bytes(self, size: int) -> bytes:
        """The next bytes, filled up with zeros."""
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece.ljust(size, b"\0")

    def number(self, size: int = 1) -> int:
        """The next bytes as a number."""
        return int.from_bytes(self.bytes(size), "big")

    def piece(self) -> bytes:
        """As many bytes as the next two say, or as there are."""
        size = self.number(2)
        piece = self._data[self._at : self._at + size]
        self._at += size
        return piece

    def rest(self) -> bytes:
        """All that is left."""
        piece = self._data[self._at :]
        self._at = len(self._data)
        return piece


def piece(data: bytes) -> bytes:
    """`data` as `Choices.piece` reads it."""
    return len(data).to_bytes(2, "big") + data
