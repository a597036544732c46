"""Our own vectors, `tests/vectors/wire.json`: what the wire adds to published formats.

Where it is cheap, the bytes are computed a second time here, from docs/wire-format.md alone.
"""

from __future__ import annotations

import hmac
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from coincurve import PrivateKey
from cryptography.hazmat.primitives.ciphers import Cipher
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305
from cryptography.hazmat.primitives.ciphers.algorithms import ChaCha20
from twisted.trial.unittest import SynchronousTestCase

from apps.vpn import messages as exit_messages
from apps.vpn.destination import destination
from meshnet.bundle import Bundle
from meshnet.cipher.aead import BACKENDS, backend
from meshnet.cipher.keys import SecretKey
from meshnet.cipher.onion_error import create, open_error
from meshnet.cipher.rotation import RotatingKey
from meshnet.circuit import created, keys, messages
from meshnet.circuit.end import Layers
from meshnet.circuit.failure import error_onion
from meshnet.circuit.messages import Create, Destroy, Failed, HopTerms
from meshnet.circuit.origin import associated_data, expiry_at
from meshnet.circuit.relay import Hop
from meshnet.codec import decode, encode
from meshnet.errors import Drop, Reason
from meshnet.link.frame import Hello, Ping, Pong, our_hello
from meshnet.link.lane import prologue
from meshnet.link.record import LENGTH_SIZE, Opener, Sealer
from meshnet.session import items
from meshnet.session import keys as end_to_end

FOLDER = Path(__file__).parents[1] / "vectors"
WIRE = json.loads((FOLDER / "wire.json").read_text())
CIPHER = json.loads((FOLDER / "cipher.json").read_text())
NETWORK = 7
MODULUS = 1 << 64
MESSAGES: dict[str, Any] = {
    "HELLO": Hello, "PING": Ping, "PONG": Pong, "CREATE": Create, "FAILED": Failed, "DESTROY": Destroy,
}  # fmt: skip
ONION = bytes.fromhex(CIPHER["onion"]["packet"])


def mac(key: bytes, data: bytes) -> bytes:
    """HMAC-SHA-256."""
    return hmac.digest(key, data, "sha256")


def chacha(key: bytes, number: int, data: bytes) -> bytes:
    """ChaCha20 from block counter 1, nonce 0⁴ ‖ LE64(number)."""
    nonce = (1).to_bytes(4, "little") + bytes(4) + number.to_bytes(8, "little")
    return Cipher(ChaCha20(key, nonce), mode=None).encryptor().update(data)


def raw(case: dict[str, Any], *names: str) -> Iterator[bytes]:
    """Fields of a case as bytes."""
    return (bytes.fromhex(case[name]) for name in names)


class FrameTests(SynchronousTestCase):
    """Frames and records (§1, §2)."""

    def test_frames(self) -> None:
        """Each frame is built from its fields and read back."""
        for case in WIRE["frames"]:
            kind, cls = case["kind"], MESSAGES[case["name"]]
            fields, tail = dict(case["fields"]), b""
            if fields.get("onion") == "cipher.json":
                fields["onion"], tail = ONION.hex(), ONION
            fields = {n: bytes.fromhex(v) if isinstance(v, str) else v for n, v in fields.items()}
            whole = bytes.fromhex(case["frame"]) + tail
            body = encode(cls(**fields))
            bundle = Bundle(4_096)
            room = bundle.room(kind, len(body))
            assert room is not None
            room[:] = body
            bundle.commit(len(body))
            self.assertEqual(bytes(bundle.view[: bundle.end]), whole, case["name"])
            self.assertEqual(whole[:3], (len(body) + 1).to_bytes(2, "big") + bytes([kind]))
            self.assertEqual(decode(cls, whole[3:]), cls(**fields))

    def test_our_hello(self) -> None:
        """What we say first is the vector."""
        self.assertEqual(encode(our_hello()).hex(), WIRE["frames"][0]["frame"][6:])

    def test_records(self) -> None:
        """The first records after the handshake of cipher.json, both ways, by either backend."""
        self.assertEqual(prologue(NETWORK).hex(), WIRE["link"]["prologue"])
        frames = {case["name"]: bytes.fromhex(case["frame"]) for case in reversed(WIRE["frames"])}
        handshake = CIPHER["link_handshake"]
        for side in ("initiator", "responder"):
            case = WIRE["link"][f"first_record_of_{side}"]
            key, chaining = raw(handshake, f"{side}_sends", "chaining_key")
            plain = b"".join(frames[name] for name in case["frames"])
            for name in BACKENDS:
                sealer = Sealer(RotatingKey(key, chaining, backend(name)))
                for frame in (frames[each] for each in case["frames"]):
                    room = sealer.room(frame[2], len(frame) - 3)
                    assert room is not None
                    room[:] = frame[3:]
                    sealer.commit(len(frame) - 3)
                self.assertEqual(bytes(sealer.seal()).hex(), case["record"])
                buffer = memoryview(bytearray.fromhex(case["record"]))
                stop = Opener(RotatingKey(key, chaining, backend(name))).open_next(buffer, 0, len(buffer))
                self.assertEqual(bytes(buffer[LENGTH_SIZE : stop - 16]), plain)
            aead = ChaCha20Poly1305(key)
            first = aead.encrypt(bytes(12), len(plain).to_bytes(2, "big"), None)
            second = aead.encrypt(bytes(4) + (1).to_bytes(8, "little"), plain, None)
            self.assertEqual((first + second).hex(), case["record"])


class SetUpTests(SynchronousTestCase):
    """Circuit set-up (§3)."""

    def test_expiry(self) -> None:
        """The grid, and what the onion is bound to."""
        for case in WIRE["expiry"]:
            self.assertEqual(expiry_at(float(case["unix"])), case["expiry"])
            self.assertEqual((case["unix"] // 300 + 3) * 300, case["expiry"])
        bound = WIRE["associated"]
        made = associated_data(bound["network"], bound["expiry"])
        self.assertEqual(made.hex(), bound["bytes"])
        self.assertEqual(made, (7).to_bytes(4, "big") + b"circ" + bound["expiry"].to_bytes(4, "big"))

    def test_hop_terms(self) -> None:
        """A relay's and a last hop's payload."""
        for case in WIRE["hop_terms"]:
            fields = {n: bytes.fromhex(v) if isinstance(v, str) else v for n, v in case["fields"].items()}
            self.assertEqual(encode(HopTerms(**fields)).hex(), case["payload"])
            self.assertEqual(decode(HopTerms, bytes.fromhex(case["payload"])), HopTerms(**fields))

    def test_keys(self) -> None:
        """ck, layer keys, offsets and starts of each hop, seen from both sides, and by hand."""
        for hop, onion_hop in zip(WIRE["hops"], CIPHER["onion"]["hops"], strict=True):
            secret, ephemeral, own = raw(hop, "shared_secret", "ephemeral", "secret")
            self.assertEqual(hop["shared_secret"], onion_hop["shared_secret"])
            self.assertEqual(SecretKey(own).public.hex(), hop["public"])
            self.assertEqual(keys.circuit_key(secret, SecretKey(own), ephemeral).hex(), hop["ck"])
            ck = mac(mac(secret, PrivateKey(own).ecdh(ephemeral)), b"\x01")
            self.assertEqual(ck.hex(), hop["ck"])
            for d in (b"f", b"b"):
                way = d.decode()
                self.assertEqual(keys.layer_key(ck, d).hex(), hop[f"layer_{way}"])
                self.assertEqual(mac(ck, b"cell" + d).hex(), hop[f"layer_{way}"])
                self.assertEqual(f"{keys.offset(ck, d):016x}", hop[f"offset_{way}"])
                self.assertEqual(mac(ck, b"off" + d)[:8].hex(), hop[f"offset_{way}"])
                self.assertEqual(f"{keys.sequence_start(ck, d):016x}", hop[f"start_{way}"])
                self.assertEqual(mac(ck, b"seq" + d)[:8].hex(), hop[f"start_{way}"])

    def test_created(self) -> None:
        """The slots as each hop sends them on, and what the origin reads."""
        case, hops = WIRE["created"], WIRE["hops"]
        fill = bytes.fromhex(case["fill"])
        reply = bytes.fromhex(CIPHER["circuit_handshake"]["messages"][1])
        shared = [bytes.fromhex(hop["shared_secret"]) for hop in hops]
        public = [bytes.fromhex(hop["public"]) for hop in hops]
        sizes = case["max_cells"]
        for name in BACKENDS:
            chosen = backend(name)
            slots = created.answer(shared[2], public[2], sizes[2], reply, lambda size: fill[:size], chosen)
            self.assertEqual(slots.hex(), case["from_hop"]["2"])
            for hop in (1, 0):
                slots = created.insert(shared[hop], public[hop], sizes[hop], slots, chosen)
                self.assertEqual(slots.hex(), case["from_hop"][str(hop)])
            found, message = created.read(shared, slots, chosen)
            self.assertEqual(
                [(slot.key, slot.max_cell) for slot in found], list(zip(public, sizes, strict=True))
            )
            self.assertEqual(message, reply)

    def test_created_by_hand(self) -> None:
        """The same slots from the page's formulas."""
        case, hops = WIRE["created"], WIRE["hops"]
        below = (
            bytes.fromhex(CIPHER["circuit_handshake"]["messages"][1]) + bytes(2) + bytes.fromhex(case["fill"])
        )
        for hop in (2, 1, 0):
            secret, public = raw(hops[hop], "shared_secret", "public")
            clear = public + case["max_cells"][hop].to_bytes(2, "big")
            slot = clear + mac(mac(b"crtm", secret), clear + below[:51])[:16]
            below = chacha(mac(b"crtd", secret), 0, (slot + below)[:459])
            self.assertEqual(below.hex(), case["from_hop"][str(hop)])
            self.assertEqual(len(below), 459)

    def test_errors(self) -> None:
        """What error onions hold; how they are sealed is in cipher.json."""
        for case in WIRE["errors"]:
            secret = bytes.fromhex(WIRE["hops"][case["hop"]]["shared_secret"])
            onion = error_onion(secret, Reason(case["code"]), case["text"], case["unix"])
            content = bytes.fromhex(case["content"])
            self.assertEqual(onion, create(secret, content))
            self.assertEqual(open_error([secret], onion), (0, content))
            text = case["text"].encode()
            terms = b"" if case["unix"] is None else b"\x01\x08" + case["unix"].to_bytes(8, "big")
            self.assertEqual(content, bytes([case["code"], len(text)]) + text + terms)


class CellTests(SynchronousTestCase):
    """Cells on each link of a circuit over two relays (§4, §5)."""

    def test_by_hand(self) -> None:
        """AEAD innermost, then the layers, each with the seq that its relay receives."""
        hops, service = WIRE["hops"], CIPHER["circuit_handshake"]
        for case in WIRE["cells"]:
            d, number = case["direction"], case["number"]
            key = bytes.fromhex(service["forward" if d == "f" else "backward"])
            nonce = bytes(4) + number.to_bytes(8, "little")
            body = ChaCha20Poly1305(key).encrypt(nonce, bytes.fromhex(case["plain"]), d.encode())
            seq = int(hops[2][f"start_{d}"], 16) + number
            offsets = [int(hop[f"offset_{d}"], 16) for hop in hops[:2]]
            layers = [bytes.fromhex(hop[f"layer_{d}"]) for hop in hops[:2]]
            links = [(seq % MODULUS, body)]  # at the last hop
            for hop in (1, 0):
                if d == "f":
                    seq = (seq - offsets[hop]) % MODULUS
                    body = chacha(layers[hop], seq, body)
                else:
                    body = chacha(layers[hop], seq % MODULUS, body)
                    seq = (seq + offsets[hop]) % MODULUS
                links.append((seq, body))
            if d == "f":
                links.reverse()
            written = [(int(link["seq"], 16), bytes.fromhex(link["body"])) for link in case["links"]]
            self.assertEqual(links, written)

    def test_relays(self) -> None:
        """`Hop` makes of a cell what the next link carries, by either backend."""
        for case in WIRE["cells"]:
            d = case["direction"]
            order = (0, 1) if d == "f" else (1, 0)
            for name in BACKENDS:
                for place, hop in enumerate(order):
                    layer = backend(name).stream(bytes.fromhex(WIRE["hops"][hop][f"layer_{d}"]))
                    shift = int(WIRE["hops"][hop][f"offset_{d}"], 16)
                    outlet = FakeOutlet()
                    relay = Hop(outlet, messages.CELL_FORWARD, 9, layer, shift, 1_200, 0.0)
                    before, after = case["links"][place], case["links"][place + 1]
                    body = memoryview(bytearray.fromhex(before["body"]))
                    self.assertEqual(relay.relay(int(before["seq"], 16), body, 0.0, False), Drop.NONE)
                    sent = bytes(outlet.bundle.view[: outlet.bundle.end])
                    self.assertEqual(sent[3:].hex(), f"{9:08x}" + after["seq"] + after["body"])

    def test_origin_layers(self) -> None:
        """`Layers` puts all layers on, or takes them off, by packet number."""
        for case in WIRE["cells"]:
            d = case["direction"]
            offsets = [int(hop[f"offset_{d}"], 16) for hop in WIRE["hops"][:2]]
            start = int(WIRE["hops"][2][f"start_{d}"], 16)
            firsts = [start - sum(offsets), start - offsets[1]] if d == "f" else [start + offsets[1], start]
            streams = [backend().stream(bytes.fromhex(hop[f"layer_{d}"])) for hop in WIRE["hops"][:2]]
            layers = Layers(0, [(s, first % MODULUS) for s, first in zip(streams, firsts, strict=True)])
            near, far = (0, -1) if d == "f" else (-1, 0)
            body = bytearray.fromhex(case["links"][far]["body"])
            layers.apply(case["number"], memoryview(body))
            self.assertEqual(body.hex(), case["links"][near]["body"])


class FakeOutlet:
    """A bundle that has room."""

    def __init__(self) -> None:
        self.bundle = Bundle(4_096)

    def ready(self, source: object) -> None:
        raise AssertionError("there is room")


class EndTests(SynchronousTestCase):
    """Items, AUTH, and the exit's messages (§5)."""

    def test_auth(self) -> None:
        """Proofs over the handshake of cipher.json."""
        case, handshake = WIRE["auth"], CIPHER["circuit_handshake"]
        service, answer = SecretKey(bytes.fromhex(handshake["service_static"])), handshake["messages"][1]
        ephemeral = SecretKey(bytes.fromhex(handshake["origin_ephemeral"]))
        opening = end_to_end.start(service.public, NETWORK, ephemeral, backend())
        origin = opening.finish(bytes.fromhex(answer))
        caller = SecretKey(bytes.fromhex(case["caller"]))
        self.assertEqual(items.auth_item(items.AUTH_ANONYMOUS).hex(), case["anonymous"])
        self.assertEqual(end_to_end.caller_auth(origin, caller).hex(), case["caller_item"])
        self.assertEqual(end_to_end.join_auth(origin, origin).hex(), case["join_item"])
        self.assertEqual(origin.session_id.hex(), case["session_id"])
        self.assertEqual(origin.session_secret.hex(), case["session_secret"])

    def test_auth_by_hand(self) -> None:
        """The same from the page's formulas."""
        case, handshake = WIRE["auth"], CIPHER["circuit_handshake"]
        digest, ck = raw(handshake, "hash", "chaining_key")
        answer = bytes.fromhex(handshake["messages"][1])
        caller = PrivateKey(bytes.fromhex(case["caller"]))
        public = caller.public_key.format()
        proof = mac(caller.ecdh(answer[:33]), b"meshnet/caller" + digest + public)
        self.assertEqual((b"\x06\x01" + public + proof).hex(), case["caller_item"])
        number, secret = mac(ck, b"sid")[:16], mac(ck, b"session")
        self.assertEqual((number.hex(), secret.hex()), (case["session_id"], case["session_secret"]))
        self.assertEqual((b"\x06\x02" + number + mac(secret, digest)).hex(), case["join_item"])

    def test_items_are_read(self) -> None:
        """Each item tells the sink what it was made of."""
        for case in WIRE["items"]:
            told = Told()
            items.read(memoryview(bytes.fromhex(case["bytes"])), told)  # type: ignore[arg-type]  # any method
            self.assertEqual(told.calls, [[case["call"], *case["arguments"]]])

    def test_items_are_written(self) -> None:
        """And they are written so."""
        for case in WIRE["items"]:
            if case.get("only") != "read":
                self.assertEqual(written(case["call"], case["arguments"]).hex(), case["bytes"], case)

    def test_exit(self) -> None:
        """Requests and replies."""
        for case in WIRE["exit"]["requests"]:
            where = destination(case["kind"], bytes.fromhex(case["address"]), case["port"])
            self.assertEqual(exit_messages.request(where).hex(), case["bytes"])
            taken = exit_messages.take(
                exit_messages.ExitRequest, bytearray.fromhex(case["bytes"]), exit_messages.LARGEST_REQUEST
            )
            assert taken is not None
            self.assertEqual(exit_messages.asked(taken), where)
        for case in WIRE["exit"]["replies"]:
            made = exit_messages.reply(exit_messages.Code(case["code"]), case["text"])
            self.assertEqual(made.hex(), case["bytes"])


class Told:
    """A sink that writes down what it hears, in JSON's types."""

    def __init__(self) -> None:
        self.calls: list[list[Any]] = []

    def __getattr__(self, name: str) -> Any:
        def note(*arguments: Any) -> None:
            self.calls.append([name, *(_plain(each) for each in arguments)])

        return note


def _plain(value: Any) -> Any:
    if isinstance(value, bytes | memoryview):
        return value.hex()
    return [list(each) for each in value] if isinstance(value, list) else value


def written(call: str, arguments: list[Any]) -> bytes:
    """The bytes of an item by the writer that makes it."""
    room = bytearray(256)
    if call == "data":
        stream, offset, data, fin = arguments
        payload = bytes.fromhex(data)
        items.put_data(memoryview(room), 0, stream, offset, len(payload), fin)
        return bytes(room[: items.DATA_HEADER]) + payload
    if call == "datagram":
        payload = bytes.fromhex(arguments[2])
        items.put_datagram(memoryview(room), 0, arguments[0], arguments[1], len(payload))
        return bytes(room[: items.DATAGRAM_HEADER]) + payload
    if call == "packets":
        payload = bytes.fromhex(arguments[1])
        items.put_packets(memoryview(room), 0, arguments[0], len(payload))
        return bytes(room[: items.PACKETS_HEADER]) + payload
    if call == "ack":
        _, delay, marks, ranges = arguments
        lows, highs = [low for low, _ in reversed(ranges)], [high for _, high in reversed(ranges)]
        return bytes(room[: items.put_ack(memoryview(room), 0, 256, delay, marks, lows, highs)])
    if call == "open":
        return items.open_item(*arguments)
    if call == "close":
        return items.close_item(*arguments)
    if call == "auth":
        return items.auth_item(arguments[0], bytes.fromhex(arguments[1]))
    return items.item(getattr(items, call.upper()), *arguments)
