"""Circuits to services that hide: what every node of a tail learns, and that all its failures look alike."""

from __future__ import annotations

from unittest.mock import patch

from attrs import evolve
from hypothesis import given
from hypothesis import strategies as st
from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher import onion_error
from meshnet.cipher.address import Address, BlindedHop, sign_address
from meshnet.cipher.blinding import Step, blind, enter
from meshnet.cipher.keys import SecretKey
from meshnet.cipher.sphinx import BadOnion, Peeled, peel
from meshnet.circuit import admission, tail
from meshnet.circuit.messages import (
    CREATE,
    FAILED,
    NO_PATH_KEY,
    Create,
    Failed,
)
from meshnet.circuit.policy import Policy
from meshnet.circuit.tail import HiddenTerms, Place, make_tail, padded, read_hidden, rounded
from meshnet.codec import decode, encode
from meshnet.errors import CircuitError, CodecError, Reason, UsageError
from meshnet.limits import HIDDEN_DATA, HIDDEN_DELAY, PATH_ID, TAIL_HOPS
from tests.meshnet.circuit.network import FIRST, NETWORK, FakeNetwork, FakeNode

SERVICE = SecretKey(b"\x77" * 32)
PATH = bytes(range(PATH_ID))


def hide(network: FakeNetwork, names: str, path_id: bytes = PATH, session: int = 0x55) -> Address:
    """An address whose tail passes these nodes, the last one's service."""
    *relays, own = network.route(names)
    path_key, hops = make_tail(SecretKey(bytes([session]) * 32), relays, own, path_id)
    return sign_address(SERVICE, NETWORK, 2_000_000_000, path_key, hops)


class TailCase(SynchronousTestCase):
    """a calls; b hides behind s and t."""

    def call(self, network: FakeNetwork, via: str, address: Address, caller: str = "a") -> FakeNode:
        """A circuit of the caller's over these relays; the caller."""
        node = network[caller]
        node.circuits.open([*network.route(via), address], FIRST, network.now, network.unix)
        network.pump()
        network.wait(HIDDEN_DELAY)
        return node

    def fails(self, network: FakeNetwork, via: str, address: Address) -> CircuitError:
        """Why it does not come about."""
        self.call(network, via, address)
        self.assertEqual(network["a"].built, [])
        return network["a"].failed[-1]


class WholeTails(TailCase):
    """What must work."""

    def test_every_tail(self) -> None:
        """1 to 4 hops of tail, with 0 to 4 relays before it, and cells both ways."""
        for hops in range(1, TAIL_HOPS + 1):
            for via in range(5):
                names = "abcdefghi"[: 1 + via + hops]
                network = FakeNetwork(names)
                caller = self.call(network, names[1 : 1 + via], hide(network, names[1 + via :]))
                self.assertEqual(caller.failed, [], (hops, via))
                near, far = caller.sessions[-1], network[names[-1]].sessions[-1]
                near.say(b"to")
                network.pump()
                far.say(b"fro")
                network.pump()
                self.assertEqual((far.heard, near.heard), ([b"to"], [b"fro"]), (hops, via))
                (arrival,) = network[names[-1]].arrivals
                self.assertEqual((arrival.path_id, arrival.first_message), (PATH, FIRST))

    def test_from_the_introduction_node(self) -> None:
        """Who is the introduction node of an address begins at the node behind it."""
        network = FakeNetwork("astb")
        caller = self.call(network, "", hide(network, "astb"))
        self.assertEqual([len(built.circuit.hops) for built in caller.built], [3])
        self.assertEqual(network["b"].arrivals[0].path_id, PATH)

    def test_path_key_on_the_way(self) -> None:
        """CREATE has a path key behind the introduction node only, and another one on each link."""
        network = FakeNetwork("arstb")
        seen: dict[str, bytes] = {}
        for one, other in ("ar", "rs", "st", "tb"):

            def watch(kind: int, body: bytes, link: str = one + other) -> bytes:
                if kind == CREATE:
                    seen[link] = decode(Create, body).path_key
                return body

            network[one].link(network[other]).tamper = watch
        address = hide(network, "stb")
        self.call(network, "r", address)
        self.assertEqual([seen["ar"], seen["rs"]], [NO_PATH_KEY] * 2)
        self.assertEqual(len({seen["st"], seen["tb"], NO_PATH_KEY, address.path_key}), 4)

    def test_max_cell(self) -> None:
        """Tails announce one of three sizes, whatever their links take."""
        for most, told in (
            (61_000, 61_000),
            (60_999, 16_384),
            (16_384, 16_384),
            (16_383, 1_200),
            (1_200, 1_200),
        ):
            network = FakeNetwork("arstb")
            network["t"].link(network["b"]).max_cell = most
            caller = self.call(network, "r", hide(network, "stb"))
            self.assertEqual(caller.built[0].max_cell, told)
        self.assertEqual(rounded(5_000, Place.OPEN), 5_000)
        self.assertEqual(rounded(100, Place.BLINDED), 1_200)

    def test_introduction_node_learns_nothing(self) -> None:
        """In all that the introduction node decrypts, or receives after it, there is no key of the service's
        node, of the service, nor the path id."""
        network = FakeNetwork("arstb")
        found: list[bytes] = []
        peeling, opening = peel, Step.open

        def spy(secret: SecretKey, packet: bytes, bound: bytes) -> Peeled:
            peeled = peeling(secret, packet, bound)
            if secret == network["s"].secret:
                found.extend((peeled.payload, peeled.next_packet or b"", peeled.shared_secret))
            return peeled

        def look(step: Step, data: bytes) -> bytes:
            clear = opening(step, data)
            if step.shared_secret == network["s"].secret.ecdh(step.path_key):
                found.append(clear)
            return clear

        for other in "rt":

            def keep(kind: int, body: bytes) -> bytes:
                found.append(body)
                return body

            network[other].link(network["s"]).tamper = keep
        address = hide(network, "stb")
        with patch.object(admission, "peel", spy), patch.object(Step, "open", look):
            caller = self.call(network, "r", address)
            caller.sessions[-1].say(b"hello")
            network.pump()
        self.assertGreaterEqual(len(found), 6)
        seen = b"|".join(found)
        self.assertIn(network["t"].key, seen)
        for secret in (network["b"].key, SERVICE.public, PATH):
            self.assertNotIn(secret, seen)
            self.assertNotIn(secret, address.tail[0].data)


class Failures(TailCase):
    """One error for everything behind the introduction node."""

    def blinded(self, error: CircuitError, hop: int = 1) -> None:
        """Said by the introduction node, the second of the route."""
        self.assertEqual((error.reason, error.hop), (Reason.BLINDED, hop))

    def test_who_answers(self) -> None:
        """No link at s or t, a node that relays nothing or is full, a service that refuses: it is always s
        that says `blinded`."""
        cases: list[tuple[str, FakeNetwork]] = []
        for cut in ("st", "tb"):
            network = FakeNetwork("arstb")
            network.cut(*cut)
            cases.append((cut, network))
        for name in "st":
            cases.append((name, FakeNetwork("arstb", policies={name: Policy(enabled=False)})))
        cases.append(("busy", FakeNetwork("arstb", policies={"b": Policy(max_circuits=0)})))
        for reason in (Reason.UNKNOWN_SERVICE, Reason.REFUSED, Reason.BUSY):
            network = FakeNetwork("arstb")
            network["b"].answers = reason
            cases.append((reason.name, network))
        sentences = set()
        for name, network in cases:
            error = self.fails(network, "r", hide(network, "stb"))
            self.blinded(error)
            sentences.add(str(error).replace(network["s"].key.hex()[:8], "S"))
            self.assertNotIn("not today", str(error), name)
        self.assertEqual(len(sentences), 1)

    def test_before_the_tail(self) -> None:
        """Relays in front of it speak for themselves."""
        network = FakeNetwork("arstb")
        network.cut("r", "s")
        error = self.fails(network, "r", hide(network, "stb"))
        self.assertEqual((error.reason, error.hop), (Reason.NO_LINK, 0))

    def test_hesitates(self) -> None:
        """The introduction node answers after up to 0.1 s that nobody can foretell; no other node does."""
        waits = []
        for seed in range(12):
            network = FakeNetwork("arstb", seed=seed)
            network.cut("t", "b")
            node = network["a"]
            node.circuits.open([*network.route("r"), hide(network, "stb")], FIRST, network.now, network.unix)
            network.pump()
            self.assertEqual(node.failed, [])
            began = network.now
            while not node.failed:
                due = network["s"].circuits.deadline()
                assert due is not None
                network.wait(due - network.now)
            waits.append(network.now - began)
        self.assertEqual(len(set(waits)), len(waits))
        self.assertTrue(all(0 <= each <= HIDDEN_DELAY for each in waits), waits)

    def test_silence(self) -> None:
        """A tail that does not answer ends after 10 s; a relay before it says so of all behind it, else the
        introduction node that it is blinded."""
        for names, via, reason in (("arstb", "r", Reason.TIMEOUT), ("astb", "", Reason.BLINDED)):
            network = FakeNetwork(names)
            network["b"].answers = None
            node = self.call(network, via, hide(network, "stb"))
            network.wait(11)
            self.assertEqual((node.failed[-1].reason, node.failed[-1].hop), (reason, 0))

    def test_later(self) -> None:
        """What ends an open circuit behind the introduction node is the same error."""
        for end in ("link", "refused", "idle"):
            network = FakeNetwork("arstb")
            node = self.call(network, "r", hide(network, "stb"))
            self.assertEqual(len(node.built), 1)
            if end == "link":
                network.cut("t", "b")
            elif end == "refused":
                network["b"].circuits.refuse(network["b"].arrivals[0], Reason.REFUSED, "go", network.now)
            else:
                network["t"].circuits.tick(network.now + 61, network.unix)
            network.pump()
            network.wait(HIDDEN_DELAY)
            (error,) = node.lost
            self.blinded(error)
            self.assertNotIn("go away", str(error))

    def test_at_the_introduction_node(self) -> None:
        """Who begins at the second node of a tail hears of a bare refusal that it is blinded, too."""
        network = FakeNetwork("astb", policies={"s": Policy(max_circuits=0)})
        node = self.call(network, "", hide(network, "astb"))
        self.assertEqual(node.failed[-1].reason, Reason.BLINDED)

    def test_one_hop(self) -> None:
        """A tail of one node says no more than others."""
        network = FakeNetwork("arb")
        network["b"].answers = Reason.UNKNOWN_SERVICE
        self.blinded(self.fails(network, "r", hide(network, "b")))


class Hostile(TailCase):
    """Who changes an address, or an onion, gets nothing but the same answer."""

    def frames(self, address: Address, via: str = "r", names: str = "arstb") -> list[tuple[str, int, int]]:
        """Kind and size of each frame towards the caller, per link, for a circuit that fails."""
        network = FakeNetwork(names)
        seen: list[tuple[str, int, int]] = []
        network["b"].answers = Reason.UNKNOWN_SERVICE
        for one, other in ("ra", "sr", "ts", "bt"):
            if one in names and other in names:

                def keep(kind: int, body: bytes, link: str = one + other) -> bytes:
                    seen.append((link, kind, len(body)))
                    return body

                network[one].link(network[other]).tamper = keep
        self.call(network, via, address)
        self.assertEqual(network["a"].built, [])
        return seen

    def test_swapped(self) -> None:
        """Data of another hop or address, a path key of another address, a tail cut short."""
        network = FakeNetwork("arstb")
        one, other = hide(network, "stb"), hide(network, "stb", session=0x56)
        first, middle, last = one.tail
        tails: list[tuple[BlindedHop, ...]] = [
            (first, middle, evolve(last, data=middle.data)),
            (first, evolve(middle, data=last.data), last),
            (evolve(first, data=middle.data), middle, last),
            (first, middle, evolve(last, data=other.tail[2].data)),
            (first, *other.tail[1:]),
            (first, middle),
            (first, last),
        ]
        for number, hops in enumerate(tails):
            error = self.fails(FakeNetwork("arstb"), "r", evolve(one, tail=hops))
            self.assertEqual((error.reason, error.hop), (Reason.BLINDED, 1), number)
        error = self.fails(FakeNetwork("arstb"), "r", evolve(one, path_key=other.path_key))
        self.assertEqual((error.reason, error.hop), (Reason.BLINDED, 1))

    def test_probe(self) -> None:
        """Is the service at b? For whoever makes a tail to b, a wrong path id and a service that is not there
        give frames of the same kinds and sizes on every link."""
        network = FakeNetwork("arstb")
        right = self.frames(hide(network, "stb"))
        wrong = self.frames(hide(network, "stb", bytes(PATH_ID)))
        self.assertEqual(right, wrong)
        self.assertEqual([(kind, size) for _, kind, size in right], [(FAILED, 4 + 1 + 292)] * 4)

    def test_bare(self) -> None:
        """What a node of a tail answers before it peels is one code, whatever the reason."""
        for change in ("replay", "busy", "epoch", "onion", "key"):
            network = FakeNetwork("arstb", policies={"t": Policy(max_circuits=0 if change == "busy" else 9)})
            codes: list[int] = []
            creates: list[bytes] = []

            def spoil(kind: int, body: bytes, change: str = change, creates: list[bytes] = creates) -> bytes:
                if kind != CREATE:
                    return body
                frame = decode(Create, body)
                creates.append(body)
                if change == "epoch":
                    return encode(Create(frame.label, frame.expiry, 7, frame.path_key, frame.onion))
                if change == "onion":
                    return body[:-1] + bytes([body[-1] ^ 1])
                if change == "key":
                    return encode(Create(frame.label, frame.expiry, 0, b"\x02" + bytes(32), frame.onion))
                if change == "replay" and len(creates) > 1:
                    old = decode(Create, creates[0])
                    return encode(Create(frame.label, old.expiry, 0, old.path_key, old.onion))
                return body

            def listen(kind: int, body: bytes, codes: list[int] = codes) -> bytes:
                if kind == FAILED:
                    codes.append(decode(Failed, body).code)
                return body

            network["s"].link(network["t"]).tamper = spoil
            network["t"].link(network["s"]).tamper = listen
            address = hide(network, "stb")
            node = self.call(network, "r", address)
            if change == "replay":
                self.call(network, "r", address)
            self.assertEqual(codes, [Reason.BAD_ONION], change)
            self.assertEqual(node.failed[-1].reason, Reason.BLINDED)

    def test_payloads(self) -> None:
        """Payloads that say too much or too little of a tail are refused without a word."""
        network = FakeNetwork("arstb")
        address = hide(network, "stb")
        other = network["r"].key
        good = tail.find_way([other, address], network["a"].secret)
        _, intro, middle, last = good.told
        for number, told in enumerate(
            [
                (evolve(intro, path_key=None), middle, last),
                (evolve(intro, encrypted=None), middle, last),
                (evolve(intro, next_node=other), middle, last),
                (intro, evolve(middle, path_key=address.path_key), last),
                (intro, evolve(middle, encrypted=None, next_node=network["b"].key), last),
                (intro, middle, evolve(last, encrypted=None)),
            ]
        ):
            fresh = FakeNetwork("arstb")
            way = evolve(good, told=(good.told[0], *told))
            with patch("meshnet.circuit.table.find_way", lambda route, own, way=way: way):
                error = self.fails(fresh, "r", address)
            plain = number < 2  # what is no introduction node's payload makes none
            self.assertEqual(error.reason, Reason.NOT_UNDERSTOOD if plain else Reason.BLINDED, number)

    def test_error_onions_say_nothing(self) -> None:
        """What the introduction node sends has the code and nothing else."""
        network = FakeNetwork("arstb")
        network["b"].answers = Reason.REFUSED
        told: list[bytes] = []

        def keep(kind: int, body: bytes) -> bytes:
            if kind == FAILED:
                told.append(decode(Failed, body).onion)
            return body

        network["s"].link(network["r"]).tamper = keep
        caller = network["a"]
        circuit = caller.circuits.open(
            [*network.route("r"), hide(network, "stb")], FIRST, network.now, network.unix
        )
        secret = circuit.shared_secrets[1]
        network.pump()
        network.wait(HIDDEN_DELAY)
        (onion,) = told
        self.assertEqual(onion_error.open_error([secret], onion), (0, bytes([Reason.BLINDED, 0])))


class Parts(SynchronousTestCase):
    """Encrypted data, and tails as their receiver makes them."""

    @given(st.binary(max_size=80))
    def test_any_data(self, data: bytes) -> None:
        """Any clear data is terms or refused."""
        try:
            terms = decode(HiddenTerms, data)
        except CodecError:
            return
        self.assertEqual(decode(HiddenTerms, encode(terms)), terms)

    @given(st.binary(max_size=64))
    def test_any_sealed(self, data: bytes) -> None:
        """Whatever a receiver seals: terms with one of both, or BadOnion."""
        secret, session = SecretKey(b"\x01" * 32), SecretKey(b"\x02" * 32)
        path = blind(session, [(secret.public, data)])
        try:
            terms = read_hidden(enter(secret, path.path_key), path.hops[0].data)
        except BadOnion:
            return
        self.assertNotEqual(terms.next_node is None, terms.path_id is None)

    def test_sizes(self) -> None:
        """A relay's and a last hop's data cannot be told apart by their lengths."""
        key = SecretKey(b"\x01" * 32).public
        self.assertEqual([len(padded(next_node=key)), len(padded(path_id=PATH))], [HIDDEN_DATA] * 2)

    def test_tails_that_cannot_be(self) -> None:
        """No five hops, nobody twice, no address on the way."""
        network = FakeNetwork("abcdef")
        keys, session = network.route("abcde"), SecretKey(b"\x05" * 32)
        self.assertRaises(UsageError, make_tail, session, keys[:4], keys[4], PATH)
        self.assertRaises(UsageError, make_tail, session, [keys[0], keys[0]], keys[4], PATH)
        self.assertRaises(UsageError, make_tail, session, [keys[4]], keys[4], PATH)
        address = hide(network, "cd")
        opened = network["a"].circuits.open
        for route in ([address, keys[1]], [network["b"].key, network["c"].key, address]):
            self.assertRaises(UsageError, opened, route, FIRST, network.now, network.unix)
        longest = [*network.route("bcdef"), hide(FakeNetwork("ghijk"), "ghij")]
        self.assertRaises(UsageError, opened, longest, FIRST, network.now, network.unix)
