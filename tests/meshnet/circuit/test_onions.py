"""CREATE frames made by hand: what a relay checks, and what it answers."""

from __future__ import annotations

from twisted.trial.unittest import SynchronousTestCase

from meshnet.cipher.keys import SecretKey
from meshnet.cipher.onion_error import open_error
from meshnet.cipher.sphinx import build
from meshnet.circuit.messages import (
    CREATE,
    CREATED,
    DESTROY,
    ERROR,
    FAILED,
    NO_PATH_KEY,
    Create,
    Destroy,
    Failed,
    HopTerms,
)
from meshnet.circuit.origin import associated_data, expiry_at
from meshnet.circuit.policy import Policy
from meshnet.circuit.replay import NoLog, Replays
from meshnet.circuit.side import Side
from meshnet.codec import decode, encode
from meshnet.errors import ProtocolError, Reason
from meshnet.limits import CREATE_BURST, LABEL_QUARANTINE
from tests.meshnet.circuit.network import FIRST, NETWORK, UNIX, FakeNetwork


class OnionFaults(SynchronousTestCase):
    """CREATE frames made by hand, from a to its neighbour r (whose other neighbour is s)."""

    def setUp(self) -> None:
        self.network = FakeNetwork("ars")
        self.relay = self.network["r"]
        self.answers: list[tuple[int, bytes]] = []
        self.relay.link(self.network["a"]).tamper = self._swallow
        self.label = 5 | (0x8000_0000 if self.network["a"].key > self.relay.key else 0)

    def _swallow(self, kind: int, body: bytes) -> None:
        self.answers.append((kind, body))

    def create(
        self,
        payload: bytes | None = None,
        *,
        last: bool = False,
        expiry: int | None = None,
        epoch: int = 0,
        path_key: bytes = NO_PATH_KEY,
        label: int | None = None,
        session: bytes | None = None,
    ) -> Create:
        """A CREATE whose onion gives r that payload (usually: on to s)."""
        if payload is None:
            payload = encode(HopTerms(next_node=self.network["s"].key))
        expiry = expiry_at(UNIX) if expiry is None else expiry
        route = [(self.relay.key, payload)]
        if not last:
            route.append((self.network["s"].key, encode(HopTerms(first_message=FIRST))))
        session = session or self.network.random.randbytes(32)
        self.onion = build(SecretKey(session), route, associated_data(NETWORK, expiry))
        return Create(self.label if label is None else label, expiry, epoch, path_key, self.onion.packet)

    def send(self, frame: Create) -> tuple[int, Reason | None]:
        """What comes back: FAILED's code, and the reason in its onion; (-1, None) for CREATED."""
        self.answers.clear()
        link = self.relay.link(self.network["a"])
        self.relay.circuits.receive(
            link, CREATE, memoryview(encode(frame)), self.network.now, self.network.unix
        )
        self.network.pump()
        if not self.answers:
            return -2, None
        ((kind, body),) = self.answers
        if kind == CREATED:
            return -1, None
        failed = decode(Failed, body)
        if not failed.onion:
            return failed.code, None
        found = open_error(self.onion.shared_secrets, failed.onion)
        assert found is not None
        return failed.code, Reason(found[1][0])

    def fresh(self, **terms: object) -> tuple[int, Reason | None]:
        """The same under a label not used yet."""
        self.label += 1
        return self.send(self.create(**terms))  # type: ignore[arg-type]

    def test_a_good_one(self) -> None:
        self.assertEqual(self.send(self.create()), (-1, None))

    def test_replay(self) -> None:
        """The same onion is refused under any label, also after its circuit ended."""
        frame = self.create()
        self.send(frame)
        for label in (self.label + 1, self.label + 2):
            again = Create(label, frame.expiry, 0, NO_PATH_KEY, frame.onion)
            self.assertEqual(self.send(again), (Reason.REPLAY, None))
        self.assertEqual(self.relay.circuits.totals.refused, {Reason.REPLAY: 2})

    def test_a_skewed_onion_gets_one_error(self) -> None:
        """An error onion is never made twice under one stream."""
        for expiry in (expiry_at(UNIX) + 7 * 300, expiry_at(UNIX) - 5 * 300):
            self.label += 1
            frame = self.create(expiry=expiry)
            self.assertEqual(self.send(frame), (0, Reason.CLOCK_SKEW))
            self.label += 1
            again = Create(self.label, expiry, 0, NO_PATH_KEY, frame.onion)
            self.assertEqual(self.send(again), (Reason.REPLAY, None))

    def test_another_expiry_breaks_the_onion(self) -> None:
        frame = self.create()
        other = Create(frame.label, frame.expiry + 300, 0, NO_PATH_KEY, frame.onion)
        self.assertEqual(self.send(other), (Reason.BAD_ONION, None))

    def test_another_network_breaks_the_onion(self) -> None:
        frame = self.create()
        payload = encode(HopTerms(first_message=FIRST))
        onion = build(
            SecretKey(b"5" * 32), [(self.relay.key, payload)], associated_data(NETWORK + 1, frame.expiry)
        )
        foreign = Create(frame.label, frame.expiry, 0, NO_PATH_KEY, onion.packet)
        self.assertEqual(self.send(foreign), (Reason.BAD_ONION, None))

    def test_epochs_and_path_keys(self) -> None:
        """A node without onion keys refuses both without peeling."""
        self.assertEqual(self.fresh(epoch=3), (Reason.WRONG_EPOCH, None))
        self.assertEqual(self.fresh(path_key=self.relay.key), (Reason.BAD_ONION, None))

    def test_terms_that_are_not_understood(self) -> None:
        """Unknown even types, blinded tails, another suite, terms that fit neither relay nor last hop."""
        to_s = encode(HopTerms(next_node=self.network["s"].key))
        for payload, last in (
            (to_s + b"\x10\x01x", False),
            (to_s + b"\x12\x01x", False),
            (to_s + b"\x14\x00", False),
            (b"\x02\x02xx", False),
            (encode(HopTerms(next_node=self.network["s"].key, suite=1)), False),
            (encode(HopTerms(next_node=self.network["s"].key)), True),
            (encode(HopTerms(first_message=FIRST)), False),
            (encode(HopTerms(suite=0)), True),
            (encode(HopTerms(next_node=self.network["s"].key, first_message=FIRST)), False),
        ):
            self.label += 1
            answer = self.send(self.create(payload, last=last))
            self.assertEqual(answer, (0, Reason.NOT_UNDERSTOOD), payload.hex())

    def test_unknown_odd_terms_are_skipped(self) -> None:
        payload = encode(HopTerms(next_node=self.network["s"].key)) + b"\x15\x01x"
        self.assertEqual(self.send(self.create(payload)), (-1, None))

    def test_never_back(self) -> None:
        """Not to where it came from, and not to itself."""
        back = encode(HopTerms(next_node=self.network["a"].key))
        self.assertEqual(self.fresh(payload=back), (0, Reason.REFUSED))
        self.assertEqual(self.fresh(payload=encode(HopTerms(next_node=self.relay.key))), (0, Reason.NO_LINK))

    def test_labels(self) -> None:
        """Ours may not be chosen by them; one in use is ignored; a resting one is refused."""
        with self.assertRaises(ProtocolError):
            self.send(self.create(label=self.label ^ 0x8000_0000))
        first = self.create()
        self.assertEqual(self.send(first), (-1, None))
        self.assertEqual(self.send(self.create()), (-2, None))
        self.assertEqual(self.relay.circuits.totals.stray, 1)
        destroy = encode(Destroy(self.label, 0))
        link = self.relay.link(self.network["a"])
        self.relay.circuits.receive(link, DESTROY, memoryview(destroy), self.network.now, UNIX)
        self.assertEqual(self.send(self.create()), (Reason.BUSY, None))
        self.network.now += LABEL_QUARANTINE
        self.assertEqual(self.send(self.create()), (-1, None))

    def test_destroy_of_an_unknown_label_rests_it(self) -> None:
        link = self.relay.link(self.network["a"])
        body = memoryview(encode(Destroy(self.label, 0)))
        self.relay.circuits.receive(link, DESTROY, body, self.network.now, UNIX)
        self.assertEqual(self.send(self.create()), (Reason.BUSY, None))
        self.assertEqual(self.relay.circuits.totals.stray, 1)

    def test_a_flood_is_refused_before_any_cryptography(self) -> None:
        """Beyond its burst a neighbour gets busy, nothing is kept, and time gives it tokens again."""
        frame = self.create()
        answers = []
        for number in range(CREATE_BURST + 50):
            broken = Create(self.label + number, frame.expiry, 0, NO_PATH_KEY, bytes(1366))
            answers.append(self.send(broken)[0])
        self.assertEqual(answers, [Reason.BAD_ONION] * CREATE_BURST + [Reason.BUSY] * 50)
        side: Side = self.relay.circuits._shared.sides[self.network["a"].key]
        self.assertEqual((len(side.labels), len(side.circuits), len(self.relay.replays)), (0, 0, 0))
        self.network.now += 1
        self.assertEqual(self.fresh(), (-1, None))

    def test_limits_of_circuits(self) -> None:
        """Per neighbour and in all; a circuit that ends makes room."""
        for policy in (Policy(max_circuits_per_neighbour=2), Policy(max_circuits=2)):
            self.setUp()
            self.network.named["r"].circuits._shared.policy = policy
            self.assertEqual([self.fresh()[0] for _ in range(3)], [-1, -1, Reason.BUSY])
            link = self.relay.link(self.network["a"])
            body = memoryview(encode(Destroy(self.label - 1, 0)))
            self.relay.circuits.receive(link, DESTROY, body, self.network.now, UNIX)
            self.assertEqual(self.fresh(), (-1, None))

    def test_after_a_start_without_its_replay_set(self) -> None:
        """Onions that may have been seen before are refused until they have expired."""

        class Torn(NoLog):
            def load(self, unix: float) -> tuple[dict[int, set[bytes]], int]:
                return {}, int(unix) + 1_500

        self.relay.circuits._admission._replays = Replays(Torn(), UNIX)
        self.assertEqual(self.fresh(), (Reason.BUSY, None))
        self.network.unix += 1_000
        self.assertEqual(self.fresh(expiry=expiry_at(self.network.unix)), (-1, None))

    def test_malformed_frames(self) -> None:
        """Frames that break the format close the connection; nothing else is raised."""
        link = self.relay.link(self.network["a"])
        good = encode(self.create())
        ours = self.label ^ 0x8000_0000
        for kind, body in (
            (CREATE, good[:-1]),
            (CREATE, good + b"\x00"),
            (CREATED, bytes(10)),
            (FAILED, encode(Failed(ours, 0))),
            (FAILED, encode(Failed(ours, 3, bytes(292)))),
            (FAILED, encode(Failed(ours, 9))),
            (FAILED, encode(Failed(ours, 0, bytes(291)))),
            (DESTROY, encode(Destroy(ours, ERROR, bytes(5)))),
            (DESTROY, encode(Destroy(ours, 2, bytes(292)))),
            (DESTROY, b""),
            (16, b""),
        ):
            with self.assertRaises(ProtocolError):
                self.relay.circuits.receive(link, kind, memoryview(body), 0.0, UNIX)
