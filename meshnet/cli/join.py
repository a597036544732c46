"""The verbs `invite` and `join`: a newcomer's first peers and network, in one word.

meshnet invite [--expires 7d] [--peers N] [--address ADDRESS]      asks the running node; prints the invite
meshnet join INVITE [DIR]                                          makes a node, or adds its peers to one

`join` works on files and dials nobody. Who is trusted is not decided here: a link is made to whoever proves
the key that the invite names.
"""

from __future__ import annotations

import shlex
import sys
import time
import tomllib
from argparse import ArgumentParser, Namespace
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Final

from meshnet.cipher.address import ago
from meshnet.cipher.keys import PublicKey
from meshnet.cli.address import span
from meshnet.cli.files import load_settings, make_node, node_arguments, node_table, peer_lines, tell_made
from meshnet.cli.show import print_json
from meshnet.control.find import CONFIG_NAME, named_path
from meshnet.errors import ConfigError, StorageError, UsageError
from meshnet.node.app import Json, Verb
from meshnet.node.dropins import Dropins
from meshnet.node.identity import read_public
from meshnet.storage.disk import RealDisk
from meshnet.storage.files import write_file
from meshnet.topology.invite import Invite, read_invite

Call = Callable[[str, str, Json | None], Json]

JOIN: Final = "make a node of an invite, or add the invite's peers to the node that is there"


def _invite_arguments(parser: ArgumentParser) -> None:
    parser.add_argument("--expires", type=span, metavar="SPAN", help="90m, 12h or 30d (default 7d)")
    parser.add_argument(
        "--peers", type=int, metavar="N", help="at most so many first peers, 1 to 8 (default 3)"
    )
    parser.add_argument(
        "--address",
        action="append",
        default=[],
        metavar="ADDRESS",
        help="where newcomers reach this node, such as tcp:192.0.2.1:7001; repeatable (default: where it "
        "listens)",
    )


def _invite(arguments: Namespace, call: Call) -> int:
    body: Json = {"addresses": arguments.address}
    if arguments.expires is not None:
        body["seconds"] = arguments.expires
    if arguments.peers is not None:
        body["peers"] = arguments.peers
    made = call("POST", "/invite", body)
    if arguments.json:
        print_json(made)
        return 0
    print(made["invite"])
    for note in [f"It is valid for {ago(made['expires'] - time.time() + 1)}.", *made["notes"]]:
        print(note, file=sys.stderr)
    return 0


INVITE: Final = Verb(
    "invite", "make a text with which newcomers join this network", _invite_arguments, _invite
)


def join_arguments(parser: ArgumentParser) -> None:
    """`meshnet join`."""
    parser.add_argument("invite", metavar="INVITE", help="what `meshnet invite` printed")
    parser.add_argument(
        "directory", nargs="?", default=".", help="where the node is, or will be (default: here)"
    )
    node_arguments(parser)


def join(arguments: Namespace, found: Dropins) -> int:
    """Makes a node whose first peers are the invite's, or adds them to one of the same network. Raises
    UsageError, with nothing changed, for an invite that cannot be used."""
    invite = read_invite("".join(arguments.invite.split()))
    refusal = invite.refusal(time.time())
    if refusal:
        raise UsageError(refusal)
    rows = _rows(invite, found)
    directory = named_path(arguments.directory)
    if (directory / CONFIG_NAME).exists() or directory.is_file():
        return _add(arguments, invite, rows, directory, found)
    table = node_table(arguments, invite.network)
    table["link"]["peer"] = rows
    settings, public = make_node(directory, table, found)
    if arguments.json:
        print_json(_told(invite, public, directory / CONFIG_NAME, rows, made=True))
    else:
        tell_made(directory, settings, public)
    return 0


def _add(arguments: Namespace, invite: Invite, rows: Sequence[Json], directory: Path, found: Dropins) -> int:
    settings = load_settings(str(directory), found)
    file = settings.file
    assert file is not None
    if arguments.name or arguments.listen or arguments.relay or arguments.metrics or arguments.accept:
        raise UsageError(f"{file} is there already; edit it for anything but new peers.")
    if settings.node.network != invite.network:
        raise UsageError(
            f"The invite is into network {invite.network}, and {file} is of network {settings.node.network}; "
            "name another directory to make another node."
        )
    public = read_public(RealDisk(), settings.node.key)
    known = {public.hex(), *(peer.key.hex() for peer in settings.link.peer)}
    new = [row for row in rows if row["key"] not in known]
    if new:
        _append(file, new)
    if arguments.json:
        print_json(_told(invite, public, file, new, made=False))
    elif new:
        again = shlex.quote(str(file.parent))
        print(
            f"{len(new)} {'peers were' if len(new) > 1 else 'peer was'} added to {file}; tell a running node:"
        )
        print(f"meshnet reload --node {again}")
    else:
        print(f"{file} has all peers of the invite already.")
    return 0


def _rows(invite: Invite, found: Dropins) -> list[Json]:
    """The invite's peers as [[link.peer]], with those addresses that the transports here can dial."""
    transports, _ = found.open_transports(None)
    rows = []
    for peer in invite.peers:
        usable = [address for address in peer.addresses if _dialled_by(transports, address)]
        if usable:
            rows.append({"key": peer.key.hex(), "address": usable[0] if len(usable) == 1 else usable})
    if not rows:
        kinds = sorted({address.partition(":")[0] for peer in invite.peers for address in peer.addresses})
        raise UsageError(f"The invite names no address that can be dialled here, only {', '.join(kinds)}.")
    return rows


def _dialled_by(transports: Any, address: str) -> bool:
    try:
        transports.find(address)
    except ConfigError:
        return False
    return True


def _append(file: Path, rows: Sequence[Json]) -> None:
    """Adds [[link.peer]] sections behind what is there; what was written by hand stays as it is."""
    text = file.read_text().rstrip("\n") + "\n" + "\n".join(peer_lines(rows)) + "\n"
    try:
        tomllib.loads(text)
    except tomllib.TOMLDecodeError:  # `peer = [{…}]`, which TOML lets nobody add to
        raise UsageError(
            f"{file} lists its peers in [link]; write them as [[link.peer]] sections, then join again."
        ) from None
    try:
        write_file(RealDisk(), str(file), text.encode(), mode=file.stat().st_mode & 0o777)
    except StorageError as error:
        raise UsageError(f"{file} cannot be changed: {error}.") from None


def _told(invite: Invite, public: PublicKey, file: Path, rows: Sequence[Json], *, made: bool) -> Json:
    return {
        "public_key": public.hex(),
        "config": str(file),
        "made": made,
        "network": invite.network,
        "inviter": invite.inviter.hex(),
        "expires": invite.expiry,
        "added": [row["key"] for row in rows],
    }
