"""Wire messages: the Go node's recordings, layouts against declared messages, any bytes."""

from __future__ import annotations

import json
from typing import Annotated, Any

from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from coin.chain.block import decode_block
from coin.chain.transaction import Output, Transaction, Unspent, decode_transaction
from coin.replication.messages import (
    AnnounceBlocks,
    AnnounceTransactions,
    Disconnect,
    Extra,
    Frames,
    GetBlocks,
    GetPeers,
    GetTransactions,
    GiveBlocks,
    GivePeers,
    GiveTransactions,
    Introduction,
    Message,
    PeerAddress,
    Ping,
    Pong,
    Reason,
    decode_body,
    encode_body,
    encode_frame,
    message_id,
)
from meshnet.codec import SKYCOIN, U8, U32, U64, Fixed, Many, decode, encode, message
from meshnet.errors import CodecError
from meshnet.limits import COIN_FRAME
from tests.support.chains import Ledger, owner, small_chain
from tests.support.vectors import vectors

GOLDENS = {
    "announce-blocks-msg": b"ANNB",
    "announce-txns-msg": b"ANNT",
    "get-blocks-msg": b"GETB",
    "get-peers-msg": b"GETP",
    "get-txns-msg": b"GETT",
    "give-blocks-msg": b"GIVB",
    "give-peers-msg": b"GIVP",
    "give-txns-msg": b"GIVT",
    "intro-msg": b"INTR",
    "intro-msg-extra": b"INTR",
    "ping-msg": b"PING",
    "pong-msg": b"PONG",
}


def golden(name: str) -> bytes:
    """The body of a recorded message."""
    return vectors(f"skycoin/daemon-messages/{name}.golden").read_bytes()


def recorded() -> dict[str, Any]:
    """What they say, by id."""
    found: dict[str, Any] = json.loads(vectors("skycoin/daemon-messages/decoded.json").read_text())
    return found


class RecordedTests(SynchronousTestCase):
    def test_bytes(self) -> None:
        """Every recorded message decodes, and encodes to the same bytes; cut off or longer it is refused."""
        for name, kind in GOLDENS.items():
            data = golden(name)
            value = decode_body(kind, data)
            self.assertEqual(encode_body(value), data, name)
            self.assertEqual(message_id(value), kind.decode())
            self.assertRaises(CodecError, decode_body, kind, data + b"\0")
            for size in range(len(data)):
                if not (kind == b"INTR" and size == 10):  # without its last field it is whole too
                    self.assertRaises(CodecError, decode_body, kind, data[:size])

    def test_introduction(self) -> None:
        """Numbers, and the parts of the extra field."""
        said = recorded()["INTR intro-msg-extra"]
        found = decode_body(b"INTR", golden("intro-msg-extra"))
        assert isinstance(found, Introduction)
        self.assertEqual(found.mirror, said["mirror"])
        self.assertEqual(found.port, said["listen_port"])
        self.assertEqual(found.version, said["protocol_version"])
        self.assertEqual(len(found.extra), said["extra_len"])
        extra, more = Extra.decode(found.extra), said["extra"]
        self.assertEqual(extra.publisher.hex(), more["pubkey"])
        self.assertEqual(extra.burn, more["burn_factor"])
        self.assertEqual(extra.size, more["max_txn_size"])
        self.assertEqual(extra.decimals, more["max_decimals"])
        self.assertEqual(extra.agent, more["user_agent"])
        assert extra.genesis is not None
        self.assertEqual(extra.genesis.hex(), more["genesis_hash"])
        self.assertEqual(extra.encode(), found.extra)
        short = decode_body(b"INTR", golden("intro-msg"))
        assert isinstance(short, Introduction)
        self.assertEqual((short.mirror, short.extra), (said["mirror"], b""))

    def test_numbers(self) -> None:
        """Addresses, heights, ids."""
        said = recorded()
        peers = decode_body(b"GIVP", golden("give-peers-msg"))
        assert isinstance(peers, GivePeers)
        self.assertEqual(
            [(each.ip, each.host, each.port) for each in peers.peers],
            [(each["ip_u32"], each["ip"], each["port"]) for each in said["GIVP"]["peers"]],
        )
        asked = said["GETB"]
        self.assertEqual(
            decode_body(b"GETB", golden("get-blocks-msg")),
            GetBlocks(asked["last_block"], asked["requested_blocks"]),
        )
        self.assertEqual(
            decode_body(b"ANNB", golden("announce-blocks-msg")), AnnounceBlocks(said["ANNB"]["max_bk_seq"])
        )
        for kind, name, cls in (
            (b"ANNT", "announce-txns-msg", AnnounceTransactions),
            (b"GETT", "get-txns-msg", GetTransactions),
        ):
            ids = tuple(bytes.fromhex(each) for each in said[kind.decode()]["hashes"])
            self.assertEqual(decode_body(kind, golden(name)), cls(ids))

    def test_blocks_and_transactions(self) -> None:
        """Those that are given, part by part."""
        said = recorded()
        blocks = decode_body(b"GIVB", golden("give-blocks-msg"))
        assert isinstance(blocks, GiveBlocks)
        self.assertEqual(len(blocks.blocks), len(said["GIVB"]["blocks"]))
        for block, told in zip(blocks.blocks, said["GIVB"]["blocks"], strict=True):
            header = told["header"]
            self.assertEqual(block.hash.hex(), header["hash"])
            self.assertEqual((block.header.sequence, block.header.fee), (header["seq"], header["fee"]))
            for one, each in zip(block.transactions, told["txns"], strict=True):
                self._same(one, each)
        given = decode_body(b"GIVT", golden("give-txns-msg"))
        assert isinstance(given, GiveTransactions)
        for one, each in zip(given.transactions, said["GIVT"]["transactions"], strict=True):
            self._same(one, each)

    def _same(self, one: Transaction, said: dict[str, Any]) -> None:
        self.assertEqual((one.length, one.kind), (said["length"], said["type"]))
        self.assertEqual(one.inner.hex(), said["inner_hash"])
        self.assertEqual([each.hex() for each in one.signatures], said["sigs"])
        self.assertEqual([each.hex() for each in one.inputs], said["inputs"])


@message(profile=SKYCOIN)
class DeclaredOutput:
    """An output as the codec would have it."""

    address: Annotated[bytes, Fixed(21)]
    coins: U64
    hours: U64


@message(profile=SKYCOIN)
class DeclaredUnspent:
    """An unspent output."""

    time: U64
    block: U64
    source: Annotated[bytes, Fixed(32)]
    output: DeclaredOutput


@message(profile=SKYCOIN)
class DeclaredTransaction:
    """A transaction."""

    length: U32
    kind: U8
    inner: Annotated[bytes, Fixed(32)]
    signatures: Annotated[tuple[Annotated[bytes, Fixed(65)], ...], Many(U32, 65_535)]
    inputs: Annotated[tuple[Annotated[bytes, Fixed(32)], ...], Many(U32, 65_535)]
    outputs: Annotated[tuple[DeclaredOutput, ...], Many(U32, 65_535)]


@message(profile=SKYCOIN)
class DeclaredHeader:
    """A header."""

    version: U32
    time: U64
    sequence: U64
    fee: U64
    previous: Annotated[bytes, Fixed(32)]
    body: Annotated[bytes, Fixed(32)]
    unspents: Annotated[bytes, Fixed(32)]


@message(profile=SKYCOIN)
class DeclaredBlock:
    """A signed block."""

    header: DeclaredHeader
    transactions: Annotated[tuple[DeclaredTransaction, ...], Many(U32, 65_535)]
    signature: Annotated[bytes, Fixed(65)]


def parts(one: Transaction) -> DeclaredTransaction:
    """The same, declared."""
    outputs = tuple(DeclaredOutput(each.address, each.coins, each.hours) for each in one.outputs)
    return DeclaredTransaction(one.length, one.kind, one.inner, one.signatures, one.inputs, outputs)


class OracleTests(SynchronousTestCase):
    """Layouts that are cut by hand, against the codec."""

    @given(st.binary(max_size=400))
    def test_any_bytes(self, data: bytes) -> None:
        """Both read the same, or both refuse."""
        for mine, cls in ((decode_transaction, DeclaredTransaction), (decode_block, DeclaredBlock)):
            try:
                oracle = decode(cls, data)
            except CodecError:
                self.assertRaises(CodecError, mine, data)
                continue
            found = mine(data)
            if isinstance(found, Transaction):
                self.assertEqual(parts(found), oracle)
            else:
                self.assertEqual(tuple(parts(each) for each in found.transactions), oracle.transactions)

    def test_real_ones(self) -> None:
        """A chain of our own: equal parts, equal bytes, and every single cut is refused by both."""
        ledger = Ledger(small_chain())
        first = ledger.pay(1, Output(owner(2), 600_000_000, 1_000), Output(owner(1), 400_000_000, 10_000))
        ledger.add(ledger.block(first))
        ledger.add(
            ledger.block(
                ledger.pay(1, Output(owner(3), 400_000_000, 10)),
                ledger.pay(2, Output(owner(3), 600_000_000, 7)),
            )
        )
        for block in ledger.blocks:
            data = block.encode()
            oracle = decode(DeclaredBlock, data)
            self.assertEqual(encode(oracle), data)
            self.assertEqual(decode_block(data), block)
            self.assertEqual(tuple(parts(each) for each in block.transactions), oracle.transactions)
            self.assertEqual(oracle.header.previous, block.header.previous)
            self.assertEqual(oracle.header.unspents, block.header.unspents)
            for size in range(len(data)):
                self.assertRaises(CodecError, decode, DeclaredBlock, data[:size])
                self.assertRaises(CodecError, decode_block, data[:size])
        for each in ledger.unspent.values():
            output = DeclaredOutput(each.address, each.coins, each.hours)
            self.assertEqual(
                encode(DeclaredUnspent(each.time, each.block, each.source, output)), each.encode()
            )
            self.assertEqual(Unspent.decode(each.encode()), each)


MESSAGES: list[Message] = [
    Introduction(7, 6_000, 2, b"extra"),
    GetPeers(),
    GivePeers((PeerAddress(0x01020304, 6_000),)),
    Ping(),
    Pong(),
    GetBlocks(3, 20),
    GiveBlocks(()),
    AnnounceBlocks(9),
    GetTransactions((bytes(32),)),
    AnnounceTransactions((bytes(32), b"\1" * 32)),
    GiveTransactions(()),
    Disconnect(Reason.FULL),
]


class FrameTests(SynchronousTestCase):
    @given(st.lists(st.integers(1, 40), min_size=1, max_size=40))
    def test_any_cuts(self, cuts: list[int]) -> None:
        """However the bytes arrive, the same messages come out."""
        data = b"".join(map(encode_frame, MESSAGES))
        frames, found, at, turn = Frames(), [], 0, 0
        while at < len(data):
            size = cuts[turn % len(cuts)]
            found += frames.feed(data[at : at + size])
            at, turn = at + size, turn + 1
        self.assertEqual(found, MESSAGES)

    def test_lengths(self) -> None:
        """A length below 4 or above a mebibyte is refused before anything of it is held."""
        for length in (0, 3, COIN_FRAME + 1, 0xFFFF_FFFF):
            self.assertRaises(CodecError, list, Frames().feed(length.to_bytes(4, "little")))
        self.assertEqual(list(Frames().feed(COIN_FRAME.to_bytes(4, "little"))), [])

    def test_unknown(self) -> None:
        """An id that is none is refused."""
        self.assertRaises(CodecError, list, Frames().feed(b"\4\0\0\0FOOO"))

    def test_too_many(self) -> None:
        """More items than a message may have are refused by their count alone."""
        for kind, count in ((b"GIVB", 129), (b"GIVT", 257), (b"GETT", 257), (b"ANNT", 257), (b"GIVP", 513)):
            body = count.to_bytes(4, "little") + bytes(40 * count)
            self.assertRaises(CodecError, decode_body, kind, body)

    @given(st.sampled_from(sorted(set(GOLDENS.values()))), st.binary(max_size=300))
    def test_any_body(self, kind: bytes, body: bytes) -> None:
        """Any body is a message that encodes to it again, or a CodecError."""
        try:
            value = decode_body(kind, body)
        except CodecError:
            return
        if not (isinstance(value, Introduction) and not value.extra):  # two ways to say nothing
            self.assertEqual(encode_body(value), body)

    @given(st.binary(max_size=200))
    def test_any_extra(self, data: bytes) -> None:
        """Any extra field is one, or a CodecError; its agent can be shown."""
        try:
            extra = Extra.decode(data)
        except CodecError:
            return
        self.assertTrue(extra.agent.isprintable() or not extra.agent)
