"""Targets of declared messages, in both profiles, and of what the coin's peers send."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import Any

from apps.vpn import lease
from apps.vpn.datagrams import from_mesh, from_program, to_mesh, to_program
from apps.vpn.destination import Destination
from apps.vpn.messages import ExitReply, ExitRequest, asked, refusal
from apps.vpn.socks import SocksMachine
from coin.chain.block import decode_block
from coin.chain.rules import RuleError, check_form
from coin.chain.transaction import Output, decode_transaction
from coin.replication import messages as coin
from meshnet.circuit.messages import Create, Created, Destroy, Failed, Failure, FailureTerms, HopTerms
from meshnet.circuit.tail import HiddenTerms
from meshnet.codec import decode, encode
from meshnet.errors import CodecError, EncodeError
from meshnet.link.frame import Hello, HelloTail, Ping, Pong
from meshnet.node.route_service import Question, Ways
from meshnet.rpc import frames
from tests.fuzz.target import MEGABYTE, Target
from tests.meshnet.codec.test_skycoin import EveryType
from tests.support.chains import Ledger, small_chain

WIRE: tuple[type[Any], ...] = (
    *(Hello, HelloTail, Ping, Pong, Create, Created, Failed, Destroy, HopTerms, HiddenTerms, Failure),
    *(FailureTerms, frames.Hello, frames.Wanted, frames.Bind, Question, Ways, ExitRequest, ExitReply),
)
SKYCOIN: tuple[type[Any], ...] = (
    *(coin.Introduction, coin.GetPeers, coin.GivePeers, coin.Ping, coin.Pong, coin.GetBlocks),
    *(coin.AnnounceBlocks, coin.GetTransactions, coin.AnnounceTransactions, coin.Disconnect, EveryType),
)


def _declared(classes: tuple[type[Any], ...], data: bytes) -> None:
    """Byte 0 picks a class; what is read and written again must be read as the same."""
    if not data:
        return
    value = decode(classes[data[0] % len(classes)], data[1:])
    again = encode(value)
    back = decode(type(value), again)
    assert encode(back) == again, "what is written again differs"


def wire(data: bytes) -> None:
    """Messages of the wire, and what exits make of theirs."""
    _declared(WIRE, data)
    if data and data[0] % len(WIRE) >= len(WIRE) - 2:
        found = decode(WIRE[data[0] % len(WIRE)], data[1:])
        if isinstance(found, ExitReply):
            refusal(found)
        else:
            asked(found)


def skycoin(data: bytes) -> None:
    """Messages in Skycoin's profile."""
    _declared(SKYCOIN, data)


def _wires() -> list[bytes]:
    values: list[Any] = [
        Hello(1, 0, 61_440, 0, 1, encode(HelloTail(instance=1))), HelloTail(instance=1), Ping(1, 2),
        Pong(1, 2, 3, 4, 5), Create(1, 2, 0, bytes(33), bytes(1_366)), Created(1, bytes(459)), Failed(1, 2),
        Destroy(1, 1, bytes(292)), HopTerms(suite=0, idle=3), HiddenTerms(path_id=bytes(16)),
        Failure(4, "busy", FailureTerms(unix=1)), FailureTerms(unix=5),
        frames.Hello(b"mRPC", 1, 2, 3, 4, 5, 6),
        frames.Wanted(1, 2, bytes(8)), frames.Bind("sums", (frames.Wanted(1, 2, bytes(8)),)),
        ExitRequest(1, 1, 80, bytes(4)), ExitReply(1, "no"),
    ]  # fmt: skip
    return [bytes([WIRE.index(type(value))]) + encode(value) for value in values]


def _skycoins() -> list[bytes]:
    return [bytes([number]) + bytes(size) for number in range(len(SKYCOIN)) for size in (0, 4, 64, 200)]


def socks(data: bytes) -> None:
    """Byte 0: with a password or without; then all that a client says."""
    machine = SocksMachine((b"a", b"b") if data[:1] and data[0] & 1 else None)
    for start in range(1, len(data), 7):
        machine.receive(data[start : start + 7])
    assert machine.held <= 1 << 18


def leases(data: bytes) -> None:
    """Byte 0: which side hears it, and in how large pieces."""
    if not data:
        return
    client, exit_ = lease.ClientConversation(lease.Wish()), lease.ExitConversation()
    side = client if data[0] & 1 else exit_
    step = 1 + data[0] // 2
    for start in range(1, len(data), step):
        side.receive(data[start : start + step])
        if exit_.state is lease.State.DECIDING:
            exit_.denied(lease.RefusalCode.FULL, "full")
    assert len(side._held) <= lease.LARGEST_MESSAGE + 2


def datagrams(data: bytes) -> None:
    """Byte 0: from a program, or over the mesh; what is read is written as it was read."""
    if data[:1] and data[0] & 1:
        where, payload = from_program(data[1:])
        assert from_program(to_program(where, payload)) == (where, payload)
    else:
        name, where, payload = from_mesh(data[1:])
        assert from_mesh(to_mesh(name, where, payload)) == (name, where, payload)


def _datagrams() -> list[bytes]:
    places = [Destination(IPv4Address("192.0.2.1"), 53), Destination("a.example", 53)]
    return [
        *(b"\1" + to_program(where, b"payload") for where in places),
        *(b"\0" + to_mesh(bytes(16), where, b"payload") for where in places),
    ]


def _leases() -> list[bytes]:
    given = lease.Lease(IPv4Address("10.1.1.1"), None, (), 1_500, lease.Offloads.CSUM)
    refused = lease.refuse(lease.RefusalCode.FULL, "no")
    return [b"\x40" + lease.ask(lease.Wish()), b"\x41" + lease.grant(given) * 2, b"\x41" + refused]


def _ledger() -> Ledger:
    ledger = Ledger(small_chain())
    ledger.add(ledger.block(ledger.pay(1, Output(ledger.of(1)[0].address, 1_000_000_000, 0))))
    return ledger


def block(data: bytes) -> None:
    """A block, its hashes, and the bytes it is written as."""
    found = decode_block(data)
    assert found.encode() == data
    assert len(found.hash) == 32 and found.size >= 0 and len(found.body_hash) == 32


def transaction(data: bytes) -> None:
    """A transaction, its bytes, and the rules of its form."""
    found = decode_transaction(data)
    assert found.raw == data and found._encode() == data
    check_form(found)


def daemon(data: bytes) -> None:
    """What a peer of the coin sends, in pieces of 100 bytes."""
    cut = coin.Frames()
    for start in range(0, len(data), 100):
        for message in cut.feed(data[start : start + 100]):
            try:
                assert coin.decode_body(*_split(coin.encode_frame(message))) == message
            except EncodeError:  # what others may send and we do not
                continue


def _split(frame: bytes) -> tuple[bytes, bytes]:
    return frame[4:8], frame[8:]


def _blocks() -> list[bytes]:
    return [each.encode() for each in _ledger().blocks]


def _transactions() -> list[bytes]:
    return [each.raw for found in _ledger().blocks for each in found.transactions]


def _daemons() -> list[bytes]:
    last = _ledger().blocks[-1]
    given: list[Any] = [
        coin.GetPeers(), coin.Ping(), coin.Pong(), coin.GetBlocks(1, 20), coin.AnnounceBlocks(5),
        coin.GiveBlocks((last,)), coin.GiveTransactions(last.transactions),
        coin.GetTransactions((bytes(32),)),
    ]  # fmt: skip
    return [coin.encode_frame(each) for each in given]


TARGETS = [
    Target("codec", wire, _wires, (CodecError,), MEGABYTE, 1_500),
    Target("datagram", datagrams, _datagrams, (CodecError,), MEGABYTE, 600),
    Target("lease", leases, _leases, (), MEGABYTE, 1_200),
    Target("codec-skycoin", skycoin, _skycoins, (CodecError,), MEGABYTE),
    Target("socks", socks, lambda: [b"\0\5\1\0\5\1\0\1" + bytes(6), b"\1\5\1\2\1\1a\1b"], (), MEGABYTE, 700),
    Target("coin-block", block, _blocks, (CodecError,), MEGABYTE),
    Target("coin-transaction", transaction, _transactions, (CodecError, RuleError), MEGABYTE),
    Target("coin-peer", daemon, _daemons, (CodecError,), 2 * MEGABYTE),
]
