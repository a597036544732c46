"""Opens the TUN device of the system that this runs on."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from meshnet.errors import MissingDependencyError

if TYPE_CHECKING:
    from apps.vpn.tun.device import Device
    from apps.vpn.tun.rtnetlink import Interface, Network


def open_device(
    name: str,
    mtu: int,
    addresses: Sequence[Interface] = (),
    routes: Sequence[Network] = (),
    platform: str = sys.platform,
) -> Device:
    """An interface that is up, with its addresses and routes. Raises LocalError, MissingDependencyError."""
    if platform.startswith("linux"):
        from apps.vpn.tun.linux import open_linux

        return open_linux(name, mtu, addresses, routes)
    if platform == "darwin":
        from apps.vpn.tun.macos import open_macos

        return open_macos(name, mtu, addresses, routes)
    raise MissingDependencyError(f"There are no TUN devices here for {platform}, only on Linux and macOS.")
