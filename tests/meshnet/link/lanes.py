"""Two lanes joined by plain memory, and everything one can do to the bytes between them."""

from __future__ import annotations

from collections.abc import Callable

from attrs import define, field

from meshnet.cipher.aead import TAG_SIZE, backend
from meshnet.cipher.bolt8 import Initiator, Responder
from meshnet.cipher.keys import PublicKey, SecretKey
from meshnet.cipher.rotation import NONCES, RotatingKey
from meshnet.codec import encode
from meshnet.errors import Drop, MeshError
from meshnet.link.frame import HELLO, Hello, our_hello
from meshnet.link.lane import Lane, Run, Steps, prologue
from meshnet.link.record import LENGTH_SIZE, OVERHEAD, Sealer
from tests.meshnet.link.test_record import Receiver
from tests.meshnet.test_bundle import Frame, put

NETWORK = 7
OPENSSL = backend("openssl")
ALICE, BOB, EVE = (SecretKey(bytes([number]) * 32) for number in (1, 2, 3))


class Owner:
    """Takes every lane that comes up; keeps the frames and cells that come by it."""

    def __init__(self, refuses: MeshError | None = None) -> None:
        self.refuses = refuses
        self.peers: list[PublicKey] = []
        self.hellos: list[Hello] = []
        self.frames: list[Frame] = []
        self.forward: Steps = {}
        self.backward: Steps = {}
        self.runs: dict[int, Run] = {}
        self.drops = [0] * len(Drop)

    def identified(self, lane: Lane, peer: PublicKey) -> None:
        self.peers.append(peer)
        if self.refuses is not None:
            raise self.refuses

    def up(self, lane: Lane, hello: Hello, now: float) -> None:
        self.hellos.append(hello)
        lane.serve(self, self.control)

    def control(self, kind: int, body: memoryview, now: float) -> None:
        self.frames.append((kind, bytes(body)))


def dialler(owner: Owner, remote: SecretKey = BOB, secret: SecretKey = ALICE, network: int = NETWORK) -> Lane:
    """A lane towards `remote`; act one lies in `outgoing`."""
    lane = Lane(secret, network, SecretKey(b"\x11" * 32), OPENSSL, owner, 0.0)
    lane.dial(remote.public)
    return lane


def acceptor(owner: Owner, secret: SecretKey = BOB, network: int = NETWORK) -> Lane:
    """A lane that waits for act one."""
    lane = Lane(secret, network, SecretKey(b"\x12" * 32), OPENSSL, owner, 0.0)
    lane.accept()
    return lane


def feed(lane: Lane, data: bytes, chunk: int = 1 << 20, now: float = 1.0) -> None:
    """The bytes arrive, so many at a time. Raises what the lane raises."""
    while data:
        room = lane.buffer()
        assert len(room) > 0, "a lane always has room"
        size = min(len(room), len(data), chunk)
        room[:size] = data[:size]
        lane.filled(size, now)
        data = data[size:]


def take(lane: Lane) -> bytes:
    """What the handshake wants to send."""
    data = bytes(lane.outgoing)
    lane.outgoing.clear()
    return data


def exchange(one: Lane, other: Lane, chunk: int = 1 << 20) -> None:
    """Carries both handshakes' bytes over until both are silent."""
    while one.outgoing or other.outgoing:
        feed(other, take(one), chunk)
        feed(one, take(other), chunk)


@define
class Voice:
    """A peer that keeps to the handshake and afterwards says what a test wants: frames, or plain bundles."""

    sealer: Sealer = field(init=False)
    ears: Receiver = field(init=False)

    def key(self, keys: tuple[bytes, bytes, bytes]) -> None:
        """After the handshake: (sending, receiving, chaining)."""
        self.sealer = Sealer(RotatingKey(keys[0], keys[2], OPENSSL))
        self.ears = Receiver(secret=RotatingKey(keys[1], keys[2], OPENSSL))

    def hear(self, data: bytes) -> list[Frame]:
        """The frames in what the other side has sent."""
        self.ears.receive(data)
        frames = self.ears.frames
        self.ears.bundles.clear()
        return frames

    def frames(self, *frames: Frame) -> bytes:
        """One record of these frames."""
        for kind, body in frames:
            assert put(self.sealer, kind, body)
        return self._record()

    def bundle(self, data: bytes) -> bytes:
        """One record of these bytes, whatever they are."""
        sealer = self.sealer
        sealer.view[sealer.end : sealer.end + len(data)] = data
        sealer.end += len(data)
        return self._record()

    def empty(self) -> bytes:
        """One record of nothing, which our sealer never makes."""
        sealer, record = self.sealer, bytearray(OVERHEAD)
        for data, start in ((b"\0\0", 0), (b"", LENGTH_SIZE)):
            sealer._encrypt(
                NONCES[sealer._nonce], data, None, memoryview(record)[start : start + len(data) + TAG_SIZE]
            )
            sealer._nonce += 1
        return bytes(record)

    def hello(self, **changes: int) -> bytes:
        """One record with a HELLO."""
        ours = our_hello()
        values = {
            name: getattr(ours, name) for name in ("version", "features", "largest_frame", "lane", "lanes")
        }
        return self.frames((HELLO, encode(Hello(**{**values, **changes}))))

    def _record(self) -> bytes:
        data = bytes(self.sealer.seal())
        self.sealer.sent(len(data))
        return data


def calling(lane: Lane, secret: SecretKey = ALICE) -> Voice:
    """A peer that has dialled `lane` (an acceptor of BOB's) as far as act three."""
    noise = Initiator(secret, BOB.public, prologue(NETWORK), SecretKey(b"\x21" * 32), OPENSSL)
    feed(lane, noise.act_one())
    feed(lane, noise.act_two(take(lane)))
    voice = Voice()
    voice.key(noise.keys)
    return voice


def called(lane: Lane) -> Voice:
    """A peer that has answered `lane` (a dialler towards BOB) as far as act three."""
    noise = Responder(BOB, prologue(NETWORK), SecretKey(b"\x22" * 32), OPENSSL)
    feed(lane, noise.act_one(take(lane)))
    noise.act_three(take(lane)[:66])
    voice = Voice()
    voice.key(noise.keys)
    return voice


ROLES: dict[str, tuple[Callable[[Owner], Lane], Callable[[Lane], Voice]]] = {
    "acceptor": (acceptor, calling),
    "dialler": (dialler, called),
}
