"""Strangers at a node's door: `python -m lab.load.strangers KIND HOST PORT KEY RATE SECONDS`.

    act      act one of a real handshake with the node's KEY, then silence: it costs the node two ECDH
    garbage  fifty bytes of noise, one ECDH
    silent   a connection and nothing else

RATE connections a second for SECONDS; each is left half open until `HELD` newer ones are. With PORT 0 they go
to a socket of its own that listens and never accepts: what strangers cost the machine, and no node. Prints
{tried}, how many there were.
"""

from __future__ import annotations

import contextlib
import json
import secrets
import socket
import sys
import time
from collections import deque

from meshnet.cipher.aead import backend
from meshnet.cipher.bolt8 import Initiator
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.link.lane import prologue

HELD = 400
ACTS = 256  # made beforehand and said again and again: a stranger need not pay for what he says
NETWORK = 77
SLICE = 0.005
BACKLOG = 256


def says(kind: str, key: PublicKey) -> list[bytes]:
    """What strangers of this kind say."""
    if kind == "act":
        return [_act(key) for _ in range(ACTS)]
    return [b"\0" + secrets.token_bytes(49) for _ in range(ACTS)] if kind == "garbage" else [b""]


def _act(key: PublicKey) -> bytes:
    return Initiator(SecretKey.generate(), key, prologue(NETWORK), SecretKey.generate(), backend()).act_one()


def flood(kind: str, where: tuple[str, int], key: PublicKey, rate: float, seconds: float) -> int:
    """So many connections a second for so long; behind schedule it does what it can, and no more later."""
    words, held = says(kind, key), deque[socket.socket]()
    tried = 0
    begun = time.monotonic()
    due, last = 0.0, begun
    while (now := time.monotonic()) < begun + seconds:
        due, last = min(rate * SLICE * 4, due + (now - last) * rate), now
        while due >= 1:
            due -= 1
            tried += 1
            sock = socket.socket()
            sock.setblocking(False)
            held.append(sock)
            sock.connect_ex(where)
            with contextlib.suppress(OSError):  # no answer yet, or it was hung up on
                sock.send(words[tried % len(words)])
        while len(held) > HELD:
            held.popleft().close()
        time.sleep(SLICE)
    for sock in held:
        sock.close()
    return tried


def main(kind: str, host: str, port: str, key: str, rate: str, seconds: str) -> None:
    """See the module."""
    with socket.create_server((host, 0), backlog=BACKLOG) as decoy:
        where = host, int(port) or int(decoy.getsockname()[1])
        tried = flood(kind, where, PublicKey(bytes.fromhex(key)), float(rate), float(seconds))
    print(json.dumps({"tried": tried}))


if __name__ == "__main__":
    main(*sys.argv[1:])
