"""The verbs that join a stream to standard input and output: `meshnet connect` and `meshnet listen`.

They are plain programs at the local door (docs/wire-format.md §7): bytes pass unchanged, the end of the
input becomes the end of one direction, and memory stays flat however many bytes pass, because each
direction is one thread that reads a piece and writes it. With `--exec` a command gets the connection itself
as its input and output, so nothing is copied at all. With `--json` a line on stderr says what passed:
stdout belongs to the stream.
"""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import sys
import threading
from argparse import ArgumentParser, ArgumentTypeError, Namespace
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

from attrs import define

from meshnet.cli.show import progress, progress_done
from meshnet.cli.verbs import hops
from meshnet.control.attach import ask, open_door
from meshnet.control.find import ATTACH, find_socket
from meshnet.control.lines import (
    ANONYMOUS,
    IDENTITIES,
    Accept,
    Connect,
    LineReader,
    Listen,
    Request,
    read_answer,
    read_incoming,
    write_request,
)
from meshnet.control.witness import Witness
from meshnet.errors import MeshError, UnreachableError
from meshnet.limits import DOOR_LINE
from meshnet.node.app import Json, Verb

PIECE: Final = 256 << 10
COMMANDS: Final = 64  # of --exec, at a time
LOOK: Final = 0.2  # seconds: so often somebody looks whether the other thread is done

_STDIN, _STDOUT = 0, 1
Call = Callable[[str, str, Json | None], Json]


class Line:
    """A connection to the door that has asked for something; `key` is the one of the answer. Without a
    witness where it shall be handed on `alone`."""

    def __init__(self, path: Path, request: Request, alone: bool = False) -> None:
        self.witness: Witness | None = None
        if alone:
            self.socket = open_door(path)
            self.socket.sendall(write_request(request))
        else:
            self.socket, self.witness = ask(path, request)
        self.socket.settimeout(None)
        self._reader = LineReader()
        try:
            self.key = read_answer(self.next()).key
        except OSError:
            raise UnreachableError("The node closed the connection.") from None

    @property
    def peer(self) -> str:
        """The key of the answer as people read it."""
        return ANONYMOUS if self.key is None else self.key.hex()

    def end(self) -> None:
        """Our direction ends in order."""
        if self.witness is not None:
            self.witness.leave()
        self.socket.shutdown(socket.SHUT_WR)

    def ended_in_order(self) -> bool:
        """Whether the other direction, which has ended, was ended by the other side."""
        return self.witness is None or self.witness.found()

    def next(self) -> str:
        """The next line, and not one byte behind it; raises UnreachableError where the node ended."""
        while True:
            data = self.socket.recv(DOOR_LINE, socket.MSG_PEEK)
            if not data:
                raise UnreachableError("The node closed the connection.")
            line, used = self._reader.feed(data)
            self.socket.recv(used)
            if line is not None:
                return line


@define
class Joint:
    """A stream joined with standard input and output; `sent` and `received` count bytes."""

    line: Line
    sent: int = 0
    received: int = 0
    ended: bool = False
    """Whether all input was sent, and its end."""

    def run(self) -> None:
        """Returns when both directions are done. Raises UnreachableError when the stream breaks, and
        BrokenPipeError when nobody reads our output any more."""
        sending = threading.Thread(target=self._send, daemon=True)
        sending.start()
        self._receive()
        if os.isatty(_STDIN):  # a person has nothing to say to somebody who has ended
            return
        while sending.is_alive() and not self._hung_up():
            sending.join(LOOK)
        if not self.ended:
            raise UnreachableError("The other side stopped reading before all was sent.")

    def _send(self) -> None:
        memory = memoryview(bytearray(PIECE))
        try:
            while size := os.readv(_STDIN, [memory]):
                self.line.socket.sendall(memory[:size])
                self.sent += size
            self.line.end()
            self.ended = True
        except OSError:
            pass  # the stream takes no more: who receives learns why

    def _receive(self) -> None:
        memory = memoryview(bytearray(PIECE))
        while size := self._take(memory):
            self.received += size
            data = memory[:size]
            while data:
                data = data[os.write(_STDOUT, data) :]
        if not self.line.ended_in_order():
            raise UnreachableError("The stream broke before the other side ended it.")

    def _take(self, memory: memoryview) -> int:
        try:
            return self.line.socket.recv_into(memory)
        except ConnectionError:
            raise UnreachableError("The stream broke.") from None

    def _hung_up(self) -> bool:
        """Whether the node has closed the connection."""
        poll = select.poll()
        poll.register(self.line.socket, 0)
        return bool(poll.poll(0)) and not self.ended


def _connect_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("address", metavar="ADDRESS", help="public key, address or known name")
    parser.add_argument("port", metavar="PORT", type=port, help="its mesh port")
    via = "relays, keys or known names, nearest first; left out: the configured route"
    parser.add_argument("--via", type=hops, metavar="A,B", help=via)
    parser.add_argument("--policy", metavar="P", help="a path policy, where no relays are named")
    parser.add_argument(
        "--as", dest="identity", choices=IDENTITIES, default=ANONYMOUS, help="who the other side sees"
    )


def _listen_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("port", metavar="PORT", type=port, help="the mesh port")
    parser.add_argument("--address", metavar="SERVICE", help="of this service instead of the node itself")
    parser.add_argument("--once", action="store_true", help="end after one stream (always without --exec)")
    parser.add_argument(
        "--exec", metavar="CMD", help="a shell command for each stream, as its input and output"
    )


def port(text: str) -> int:
    """A mesh port."""
    if not text.isascii() or not text.isdigit() or not 1 <= int(text[:6]) <= 65_535:
        raise ArgumentTypeError(f"{text!r} is no mesh port, a number from 1 to 65535")
    return int(text)


def _connect(arguments: Namespace, call: Call) -> int:
    via = None if arguments.via is None else tuple(arguments.via)
    request = Connect(arguments.address, arguments.port, arguments.identity, via, arguments.policy)
    line = Line(_door(arguments), request)
    return _join(line, arguments.json)


def _listen(arguments: Namespace, call: Call) -> int:
    path = _door(arguments)
    listening = Line(path, Listen(arguments.port, arguments.address))
    if arguments.json:
        _tell({"listening": listening.peer, "port": arguments.port})
    else:
        progress(f"listening on mesh port {arguments.port} of {listening.peer}")
    if arguments.exec is not None:
        return _serve(path, listening, arguments.exec, arguments.once)
    line = _next_stream(path, listening)
    listening.socket.close()
    progress_done()
    return _join(line, arguments.json)


def _next_stream(path: Path, listening: Line, alone: bool = False) -> Line:
    """Waits for one and accepts it; those that have gone meanwhile are passed over."""
    while True:
        incoming = read_incoming(listening.next())
        try:
            return Line(path, Accept(incoming.id), alone)
        except UnreachableError:
            continue


def _join(line: Line, as_json: bool) -> int:
    joint = Joint(line)
    try:
        joint.run()
    finally:
        if as_json:
            _tell({"peer": line.peer, "sent": joint.sent, "received": joint.received})
    return 0


def _serve(path: Path, listening: Line, command: str, once: bool) -> int:
    """A command per stream; with `once` its failure is ours."""
    running: list[subprocess.Popen[bytes]] = []
    while True:
        line = _next_stream(path, listening, alone=True)
        running = [each for each in running if each.poll() is None]
        if len(running) >= COMMANDS:
            running.pop(0).wait()
        running.append(_start(command, line))
        if once:
            listening.socket.close()
            code = running[-1].wait()
            if code:
                raise MeshError(f"The command ended with exit code {code}.")
            return 0


def _start(command: str, line: Line) -> subprocess.Popen[bytes]:
    with line.socket as connection:
        return subprocess.Popen(  # noqa: S603  (the caller is who wrote the command)
            ["/bin/sh", "-c", command],
            stdin=connection.fileno(),
            stdout=connection.fileno(),
            env={**os.environ, "MESHNET_PEER": line.peer},
        )


def _door(arguments: Namespace) -> Path:
    return find_socket(arguments.node, os.environ, Path.cwd(), ATTACH)


def _tell(facts: dict[str, Any]) -> None:
    print(json.dumps(facts), file=sys.stderr, flush=True)


STDIO_VERBS: Final = (
    Verb("connect", "a stream to a mesh port, as standard input and output", _connect_arguments, _connect),
    Verb("listen", "take a mesh port: its stream as standard input and output", _listen_arguments, _listen),
)
