"""The MTU of an interface of ours: what it shall be, and what others make of it.

`mtus_in` reads what rtnetlink(7) tells of interfaces: messages `length u32 | type u16 | … 16 | family u8 … |
index i32 … 32 | attributes`, each `length u16 | type u16 | value`, in the machine's byte order.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterator
from struct import Struct
from typing import Any, Final

from twisted.internet.interfaces import IReactorFDSet

from apps.vpn.tun.device import LEAST_MTU, MOST_MTU, Device
from apps.vpn.tun.rtnetlink import set_mtu
from meshnet.errors import MeshError
from meshnet.transports.changes import Changes, kernel_socket

SETTLE: Final = 0.02
AGAIN: Final = 0.2
"""Seconds until a change is told, and between two."""
HISTORY: Final = 64
"""Changes that are told together, the last ones."""
_LINKS: Final = 1  # the group of rtnetlink that tells of interfaces
_NEW_LINK: Final = 16
_NAME, _MTU = 3, 4
_HEAD: Final = 32  # of a message about an interface
_head: Final = Struct("=IH").unpack_from
_attribute: Final = Struct("=HH").unpack_from
_number: Final = Struct("=I").unpack_from


def mtus_in(data: bytes, name: str, index: int) -> list[int]:
    """The MTUs that messages tell of the interface of this name and index, in order."""
    found, at = [], 0
    while at + 16 <= len(data):
        length, kind = _head(data, at)
        end = at + length
        if length < 16 or end > len(data):
            break
        if kind == _NEW_LINK and length >= _HEAD and _number(data, at + 20)[0] == index:
            told = dict(_attributes(data, at + _HEAD, end))
            if told.get(_NAME, b"").rstrip(b"\0") == name.encode() and len(told.get(_MTU, b"")) == 4:
                found.append(int.from_bytes(told[_MTU], sys.byteorder))
        at = end + 3 & ~3
    return found


def _attributes(data: bytes, at: int, end: int) -> Iterator[tuple[int, bytes]]:
    while at + 4 <= end:
        length, kind = _attribute(data, at)
        if length < 4 or at + length > end:
            return
        yield kind, data[at + 4 : at + length]
        at += length + 3 & ~3


class KeptMtu:
    """The MTU of an interface: as little as its owner (`limit`), the way (`fits`) and whoever sets it on the
    interface allow, and no less than IPv6 needs. `device.mtu` follows.

    `note` takes what happens, for people; `changed` is called when the interface has another MTU. Where the
    kernel does not tell what others do, only the owner and the way count.
    """

    def __init__(
        self,
        device: Device,
        reactor: Any,
        note: Callable[[str], None],
        changed: Callable[[], None] = lambda: None,
        most: int | None = None,
    ) -> None:
        self._device = device
        self._note = note
        self._changed = changed
        self._most = device.mtu if most is None else most
        self._others = self._way = MOST_MTU
        self._kernel = device.mtu  # as the kernel has told it so far
        self._ours: deque[int] = deque(maxlen=HISTORY)  # set by us, and not told yet
        self._told: deque[int] = deque(maxlen=HISTORY)
        sock = kernel_socket(_LINKS) if IReactorFDSet.providedBy(reactor) else None
        self._watch: Changes | None = None
        if sock is not None:
            self._watch = Changes(reactor, sock, self._look, tells=self._tells, settle=SETTLE, again=AGAIN)

    def stop(self) -> None:
        """Follows no more; twice is once."""
        if self._watch is not None:
            self._watch.stop()

    def limit(self, most: int) -> None:
        """Its owner allows so much."""
        self._most = most
        self._settle(lambda what: None)

    def fits(self, mtu: int) -> None:
        """The way takes packets of so many bytes now."""
        if mtu != self._way:
            self._way = mtu
            self._settle(self._note)

    def seen(self, mtus: list[int]) -> None:
        """The interface had these MTUs, one after the other: some set by us, and some by others."""
        foreign = False
        for mtu in mtus:
            if mtu == self._kernel:  # something else was told
                continue
            self._kernel = mtu
            if self._ours and self._ours[0] == mtu:
                self._ours.popleft()
            else:
                self._others, foreign = mtu, True
        if foreign:
            self._device.mtu = self._kernel
            self._note(f"somebody has set the MTU of {self._device.name} to {self._others}")
            self._settle(self._note)
            self._changed()

    def _tells(self, data: bytes) -> bool:
        found = mtus_in(data, self._device.name, self._device.index)
        self._told.extend(found)
        return bool(found)

    def _look(self) -> None:
        told = list(self._told)
        self._told.clear()
        self.seen(told)

    def _settle(self, note: Callable[[str], None]) -> None:
        """Gives the interface the MTU that it shall have; its kernel then tells all programs."""
        device = self._device
        mtu = max(LEAST_MTU, min(self._most, self._others, self._way))
        if mtu == device.mtu:
            return
        try:
            set_mtu(device.name, device.index, mtu)
        except MeshError as why:
            self._note(f"the MTU of {device.name} is {device.mtu} and not {mtu}: {why}")
            return
        note(f"the MTU of {device.name} is {mtu}, it was {device.mtu}")
        device.mtu = mtu
        self._ours.append(mtu)
        self._changed()
