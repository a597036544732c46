"""What makes a cable of the lab worse: packets dropped at random, packets of wire size.

Loss is a rule of nftables at the receiving host, before anything else of it sees the packet; the build
machines have no netem. A packet is what the interface hands over, and between namespaces that may be 64 KB at
once: only `plain` makes 1 % of them mean what it means on a wire. Delay and rates are the simulated network's
business.

Layout of what `plain` hands the kernel: `struct ethtool_value` of linux/ethtool.h, command u32 | value u32.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import socket
import struct
from typing import Final

from lab.namespaces import Host, require
from meshnet.errors import UsageError

TABLE: Final = "meshlab_loss"
_SIOCETHTOOL: Final = 0x8946
_SWITCHES: Final = {"tso": 0x1F, "gso": 0x24, "gro": 0x2C}
"""ETHTOOL_STSO, ETHTOOL_SGSO, ETHTOOL_SGRO."""
PARTS: Final = 1_000_000


def drop(host: Host, share: float, *interfaces: str) -> None:
    """Drops this share (0 to 1) of the packets that arrive by these interfaces, of all cables if none is
    named. It replaces what an earlier call did. Raises MissingDependencyError without nft."""
    if not 0 <= share <= 1:
        raise UsageError(f"A share of {share} packets cannot be dropped; it lies between 0 and 1.")
    require("nft")
    named = interfaces or tuple(end.name for end in host.cables.values())
    among = ", ".join(f'"{name}"' for name in named)
    parts = round(share * PARTS)
    if not parts:
        heal(host)
        return
    chance = f"numgen random mod {PARTS} < {parts} " if parts < PARTS else ""
    rule = f"iifname {{ {among} }} {chance}counter drop"
    host.run(
        *("nft", "-f", "-"),
        text=f"table inet {TABLE}\n"
        f"delete table inet {TABLE}\n"
        f"table inet {TABLE} {{\n chain arriving {{\n"
        f"  type filter hook prerouting priority raw - 10; policy accept;\n  {rule}\n }}\n}}\n",
    )


def dropped(host: Host) -> int:
    """How many packets `drop` has taken so far."""
    listed = json.loads(host.run("nft", "-j", "list", "table", "inet", TABLE))
    rules = [each["rule"]["expr"] for each in listed["nftables"] if "rule" in each]
    return sum(int(part["counter"]["packets"]) for rule in rules for part in rule if "counter" in part)


def heal(host: Host) -> None:
    """Ends what `drop` does."""
    host.run("nft", "-f", "-", text=f"table inet {TABLE}\ndelete table inet {TABLE}\n")


def plain(host: Host) -> None:
    """Lets the cables of a host carry packets of their MTU only, as a wire does: no segmentation offload."""
    with host.inside(lambda: socket.socket(socket.AF_INET, socket.SOCK_DGRAM)) as asking:
        for end in host.cables.values():
            for command in _SWITCHES.values():
                value = ctypes.create_string_buffer(struct.pack("II", command, 0))
                request = struct.pack("16sP", end.name.encode(), ctypes.addressof(value))
                fcntl.ioctl(asking, _SIOCETHTOOL, request)
