"""All peers of a node together: who is talked to, who is asked for what, what is told to whom.

Sans-IO: bytes come by `Peer.filled`, leave by `Connection.send`; the chain and the pool are `Books`, which
answer later; `now` comes with every call, `tick` about once a second. Blocks are checked one run after the
other, off this thread. It decides nothing about what is a right block: the books do.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Final

from coin.chain.block import Block
from coin.chain.rules import BlockError, HardRuleError, MissingInputError, RuleError
from coin.chain.transaction import Transaction
from coin.replication.addresses import Addresses
from coin.replication.books import Answer, Books, Executed
from coin.replication.conduct import Conduct
from coin.replication.gossip import Gossip
from coin.replication.introduction import Ourselves, PartingError
from coin.replication.mending import Mending
from coin.replication.messages import (
    AnnounceBlocks,
    AnnounceTransactions,
    Disconnect,
    GetBlocks,
    GetPeers,
    GetTransactions,
    GiveBlocks,
    GivePeers,
    GiveTransactions,
    Introduction,
    Message,
    Ping,
    Pong,
    Reason,
    blocks_body,
    frame,
    message_id,
)
from coin.replication.peer import Connection, Peer
from coin.replication.sync import Sync
from coin.store.pool import Taken
from meshnet.errors import LocalError, MeshError
from meshnet.limits import COIN_BLOCKS, COIN_IDS, COIN_PEERS, COIN_PEERS_OF_PLACE, COIN_SENT_FRAME

INTRODUCTION_SECONDS: Final = 30.0
PING_AFTER: Final = 5.0
SILENCE: Final = 60.0
TELL_EVERY: Final = 60.0
MESSAGES_PER_SECOND: Final = 50.0
MESSAGE_BURST: Final = 1_000.0
INCOMING: Final = COIN_PEERS - 8
_GIVE_PEERS_EVERY: Final = 10.0
_ROOM: Final = COIN_SENT_FRAME - 64


class Network:
    """The peers of a node. `note` takes sentences for the operator; `counts` what happened, by name;
    `on_mended` is called when the last damaged block is whole again."""

    def __init__(
        self,
        ourselves: Ourselves,
        books: Books,
        addresses: Addresses,
        now: float,
        note: Callable[[str], None] = lambda text: None,
    ) -> None:
        self.ourselves = ourselves
        self.addresses = addresses
        self.conduct = Conduct()
        self.gossip = Gossip()
        self.sync = Sync(books.height)
        self.mending = Mending()
        self.on_mended: Callable[[], None] = lambda: None
        self.peers: dict[int, Peer] = {}
        self.counts: Counter[str] = Counter()
        self.now = now
        self._books = books
        self._note = note
        self._numbers = 0
        self._runs: deque[tuple[int, tuple[Block, ...]]] = deque()
        self._executing = False
        self._told = now
        self._told_height = books.height
        self._gave_peers: dict[int, float] = {}

    # -- connections

    def connected(
        self, connection: Connection, place: str, address: str, now: float, *, outgoing: bool = False
    ) -> Peer | None:
        """A new connection; None if it is not wanted: it is closed then."""
        self.now = now
        self._numbers += 1
        peer = Peer(self, connection, self._numbers, place, address, now)
        peer.outgoing = outgoing
        if address.startswith("mesh:"):
            self._make_way(place)
        refused = self._refusal(place, outgoing, now)
        if refused is not None:
            self.counts[f"refused {refused.name.lower()}"] += 1
            peer.life.part(refused, "It is not taken.")
            return None
        self.peers[peer.number] = peer
        peer.send(self.ourselves.introduction())
        return peer

    def _make_way(self, key: str) -> None:
        """Who calls over the mesh has proved its key: nobody but it can push its own old connections out, and
        after a crash it must be able to, since the mesh keeps those for a while."""
        old = [each for each in self.peers.values() if each.place == key and not each.outgoing]
        for each in old[: max(0, len(old) + 1 - COIN_PEERS_OF_PLACE)]:
            each.life.part(Reason.IP_LIMIT, "It is connected anew.")

    def _refusal(self, place: str, outgoing: bool, now: float) -> Reason | None:
        if self.conduct.ban(place, now) is not None:
            return Reason.BANNED
        if len(self.peers) >= COIN_PEERS:
            return Reason.FULL
        if not outgoing:
            if sum(not each.outgoing for each in self.peers.values()) >= INCOMING:
                return Reason.FULL
            if sum(each.place == place for each in self.peers.values()) >= COIN_PEERS_OF_PLACE:
                return Reason.IP_LIMIT
        return None

    def introduced(self, peer: Peer, said: Introduction) -> None:
        """See `peer.Owner`."""
        try:
            extra = self.ourselves.judge(said)
            others = [each for each in self.peers.values() if each is not peer and each.place == peer.place]
            if any(_mirror(each) == said.mirror for each in others):
                raise PartingError(Reason.TWICE, "It is connected already.")
            for each in others if peer.address.startswith("mesh:") else ():
                if each.ready:  # another run of the same node: that one is no more
                    each.life.part(Reason.SHUTDOWN, "It has started anew.")
        except PartingError as error:
            peer.life.part(error.reason, str(error))
            return
        peer.extra = extra
        self.sync.join(peer.number)
        if peer.outgoing:
            self.addresses.reached(peer.address, peer.now)
        peer.send(AnnounceBlocks(self._books.height))
        self._books.pool_ids(lambda ids: self._announce([peer], ids))
        self._ask()

    def ended(self, peer: Peer, reason: Reason, text: str) -> None:
        """See `peer.Owner`."""
        self.counts[f"ended {reason.name.lower()}"] += 1
        if peer.extra is None or reason is not Reason.NONE:
            self._note(f"Peer {peer.address}: {text}")
        self.peers.pop(peer.number, None)
        self._gave_peers.pop(peer.number, None)
        self.sync.leave(peer.number)
        self.mending.leave(peer.number)
        self.gossip.leave(peer.number)
        self._ask()

    def stop(self) -> None:
        """Says good-bye to all."""
        for peer in list(self.peers.values()):
            peer.life.part(Reason.SHUTDOWN, "This node stops.")

    # -- messages

    def received(self, peer: Peer, message: Message) -> None:
        """See `peer.Owner`."""
        self.now = now = peer.now
        self.counts[f"received {message_id(message)}"] += 1
        peer.messages = max(0.0, peer.messages - (now - peer.points_at) * MESSAGES_PER_SECOND) + 1.0
        peer.points_at = now
        if peer.messages > MESSAGE_BURST:
            self._points(peer, 5.0, "It sends too many messages.")
            return
        answer = self._answers.get(type(message))
        if answer is not None:
            answer(self, peer, message)

    def _on_blocks_wanted(self, peer: Peer, message: GetBlocks) -> None:
        if (self.sync.height_of(peer.number) or 0) < message.last:
            self.sync.says(peer.number, message.last)
        if message.last >= self._books.height or not self._question(peer, "GETB"):
            return

        def give(raw: list[bytes]) -> None:
            peer.questions.discard("GETB")
            if raw and peer.number in self.peers:
                peer.send_frame(frame(b"GIVB", blocks_body(raw)))

        wanted = self.mending.whole(message.last + 1, min(message.wanted, COIN_BLOCKS))
        self._books.raw_blocks(message.last, wanted, _ROOM, give)

    def _on_blocks(self, peer: Peer, message: GiveBlocks) -> None:
        found = self.mending.given(peer.number, message.blocks)
        if found is not None:
            self._books.restore(found, lambda error: self._restored(peer.number, found, error))
            return
        blocks = self.sync.given(peer.number, message.blocks, peer.now)
        if blocks:
            self._runs.append((peer.number, blocks))
            self._execute()
        self._ask()

    def _on_height(self, peer: Peer, message: AnnounceBlocks) -> None:
        self.sync.says(peer.number, message.highest)
        self._ask()

    def _on_announced(self, peer: Peer, message: AnnounceTransactions) -> None:
        heard = self.gossip.wanted(message.ids, peer.now)
        if not heard or not self._question(peer, "ANNT"):
            return

        def ask(unknown: list[bytes]) -> None:
            peer.questions.discard("ANNT")
            chosen = self.gossip.ask(peer.number, unknown, peer.now) if peer.number in self.peers else ()
            if chosen:
                peer.send(GetTransactions(chosen))

        self._books.unknown(heard, ask)

    def _on_wanted(self, peer: Peer, message: GetTransactions) -> None:
        if not self._question(peer, "GETT"):
            return

        def give(raw: list[bytes]) -> None:
            peer.questions.discard("GETT")
            if raw and peer.number in self.peers:
                for part in _parts(raw):
                    peer.send_frame(frame(b"GIVT", blocks_body(part)))

        self._books.loose(message.ids, give)

    def _on_transactions(self, peer: Peer, message: GiveTransactions) -> None:
        if self.sync.highest > self._books.height + COIN_BLOCKS:
            return  # what they spend is not known here yet
        kept = self.gossip.given(peer.number, message.transactions, peer.now)
        if kept:
            self._books.inject(kept, lambda results: self._injected(peer, results))

    def _injected(self, peer: Peer, results: Sequence[Taken]) -> None:
        for each in results:
            if isinstance(each.refused, MissingInputError) or each.full:
                self.gossip.refuse(each.id)  # perhaps a block behind: no fault
            elif isinstance(each.refused, HardRuleError):
                self.gossip.refuse(each.id)
                self._points(peer, 20.0, f"It gave a transaction that is wrong: {each.refused}")
        self.announce([each.id for each in results if each.new], but=peer.number)

    def _on_peers_wanted(self, peer: Peer, message: GetPeers) -> None:
        given = self._gave_peers.get(peer.number)
        if given is None or given + _GIVE_PEERS_EVERY <= peer.now:
            self._gave_peers[peer.number] = peer.now
            peer.send(GivePeers(self.addresses.give()))

    def _on_peers(self, peer: Peer, message: GivePeers) -> None:
        if "GETP" in peer.questions:
            peer.questions.discard("GETP")
            self.addresses.learn(message.peers, peer.now)

    def _on_ping(self, peer: Peer, message: Ping) -> None:
        peer.send(Pong())

    def _on_disconnect(self, peer: Peer, message: Disconnect) -> None:
        known = message.reason in Reason._value2member_map_
        why = Reason(message.reason).name.lower().replace("_", " ") if known else str(message.reason)
        peer.life.part(Reason.RECEIVED_DISCONNECT, f"It ends the connection: {why}.")

    _answers: Final[dict[type, Callable[[Any, Peer, Any], None]]] = {
        GetBlocks: _on_blocks_wanted,
        GiveBlocks: _on_blocks,
        AnnounceBlocks: _on_height,
        AnnounceTransactions: _on_announced,
        GetTransactions: _on_wanted,
        GiveTransactions: _on_transactions,
        GetPeers: _on_peers_wanted,
        GivePeers: _on_peers,
        Ping: _on_ping,
        Disconnect: _on_disconnect,
    }

    def _question(self, peer: Peer, kind: str) -> bool:
        """Whether a message that costs a look into the store is taken: one of a kind at a time."""
        if kind in peer.questions:
            self.counts["too soon"] += 1
            return False
        peer.questions.add(kind)
        return True

    def _points(self, peer: Peer, points: float, why: str) -> None:
        if self.conduct.note(peer.place, points, why, peer.now):
            self.counts["banned"] += 1
            for each in [each for each in self.peers.values() if each.place == peer.place]:
                each.life.part(Reason.BANNED, f"{why} It is banned for a while.")

    # -- blocks

    def _ask(self, unknown: bool = False) -> None:
        ask = self.sync.ask(self.now, unknown)
        if ask is not None:
            self.peers[ask.peer].send(GetBlocks(ask.last, ask.wanted))

    def _execute(self) -> None:
        if self._executing or not self._runs:
            return
        self._executing = True
        number, blocks = self._runs.popleft()
        self._books.execute(blocks, lambda done: self._executed(number, done))

    def _executed(self, number: int, done: Executed) -> None:
        self._executing = False
        right = done.refused is None and done.failed is None
        if not right:
            self.sync.runs -= len(self._runs)
            self._runs.clear()
        self.sync.executed(done.height, right)
        if done.failed is not None:
            self._note(f"Blocks could not be stored: {done.failed}")
        if done.refused is not None:
            self._refuse(number, done.refused)
        self.gossip.forgive()
        if self.sync.runs == 0 or done.height >= self.sync.highest:
            self._tell_height()
        self._execute()
        self._ask()

    def _refuse(self, number: int, why: RuleError) -> None:
        self._note(f"A block was refused ({why.rule}): {why}")
        peer = self.peers.get(number)
        if peer is not None:
            # A sealed block that does not fit is its maker's fault, not that of who passes it on.
            fits = not isinstance(why, BlockError) or why.rule in ("seal", "body")
            self._points(peer, 100.0 if fits else 25.0, f"It gave a block that is wrong: {why}")

    def mend(self, sequences: Iterable[int]) -> None:
        """Asks peers for these blocks of ours, which are damaged; `on_mended` follows."""
        self.mending.want(sequences)
        self._mend()

    def _mend(self) -> None:
        ask = self.mending.ask(self.sync.heights(), self.now)
        if ask is not None:
            self.peers[ask.peer].send(GetBlocks(ask.last, ask.wanted))

    def _restored(self, number: int, block: Block, error: MeshError | None) -> None:
        sequence = block.header.sequence
        self.mending.stored(number, sequence, error is None, self.now)
        if error is not None:
            self._note(f"Damaged block {sequence} could not be put right: {error}")
        if isinstance(error, LocalError) and number in self.peers:
            self._points(self.peers[number], 25.0, f"It gave a wrong block {sequence}.")
        if error is None and not self.mending.wanted:
            self.on_mended()
        self._mend()

    def made(self, height: int) -> None:
        """We have made a block."""
        self.sync.made(height)
        self.gossip.forgive()
        self._tell_height()

    def _tell_height(self, all_of_them: bool = False) -> None:
        height = self._books.height
        for peer in list(self.peers.values()):
            known = self.sync.height_of(peer.number)
            if peer.ready and (all_of_them or known is None or known < height):
                peer.send(AnnounceBlocks(height))

    # -- loose transactions

    def inject(self, transaction: Transaction, answer: Answer[Taken | None]) -> None:
        """One that is made here: into the pool and, unless it breaks a hard rule, to all peers. None if the
        pool could not keep it; then nobody is told."""

        def injected(results: Sequence[Taken]) -> None:
            found = results[0] if results else None
            if found is not None and not isinstance(found.refused, HardRuleError) and not found.full:
                self.announce([found.id])
            answer(found)

        self._books.inject([transaction], injected)

    def announce(self, ids: Sequence[bytes], but: int = 0) -> None:
        """Tells all peers but one of loose transactions."""
        self._announce([each for each in self.peers.values() if each.number != but], ids)

    def _announce(self, peers: Iterable[Peer], ids: Sequence[bytes]) -> None:
        for peer in list(peers):
            if peer.ready and peer.number in self.peers:
                for start in range(0, len(ids), COIN_IDS):
                    peer.send(AnnounceTransactions(tuple(ids[start : start + COIN_IDS])))

    # -- time

    def tick(self, now: float) -> None:
        """About once a second."""
        self.now = now
        for peer in list(self.peers.values()):
            peer.now = now
            if not peer.ready and peer.born + INTRODUCTION_SECONDS <= now:
                peer.life.expire()
            elif peer.heard + SILENCE <= now:
                peer.life.part(Reason.IDLE, "It says nothing any more.")
            elif peer.ready and peer.spoken + PING_AFTER <= now:
                peer.send(Ping())
        stalled = self.sync.tick(now)
        if stalled is not None and stalled in self.peers:
            self.counts["stalled"] += 1
            self._points(self.peers[stalled], 10.0, "It has blocks and does not give them.")
        self.mending.tick(now)
        self._mend()
        self.gossip.tick(now)
        if self._told + TELL_EVERY <= now:
            self._told = now
            self._tell_height(True)
            self.addresses.tick(now)
            self._ask_for_addresses()
        self._ask(unknown=True)

    def _ask_for_addresses(self) -> None:
        for peer in list(self.peers.values()):
            if peer.ready and peer.address.startswith("tcp:"):
                peer.questions.add("GETP")
                peer.send(GetPeers())


def _mirror(peer: Peer) -> int | None:
    return peer.said.mirror if peer.said is not None else None


def _parts(raw: Sequence[bytes]) -> Iterable[list[bytes]]:
    """Transactions for frames that are not too large."""
    part: list[bytes] = []
    room = _ROOM
    for each in raw:
        if len(each) > room and part:
            yield part
            part, room = [], _ROOM
        part.append(each)
        room -= len(each)
    if part:
        yield part
