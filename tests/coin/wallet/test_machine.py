"""A folder of wallets under any order of what a node, a command and a restart do to it."""

from __future__ import annotations

from attrs import define
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    Bundle,
    MultipleResults,
    RuleBasedStateMachine,
    consumes,
    invariant,
    multiple,
    rule,
)

from coin.wallet import encryption
from coin.wallet.errors import DuplicateWalletError, EncryptedError, NotEncryptedError, PasswordError
from coin.wallet.folder import Folder, NewWallet
from coin.wallet.keeping import changing, load_wallet
from coin.wallet.wallet import new_bip44, new_wallet
from coin.wallet.words import words_of
from lab.simulation.disk import SimulatedDisk
from tests.coin.wallet.test_encryption import counted

LABELS = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=8)
KINDS = st.sampled_from(["deterministic", "bip44"])
PASSWORDS = st.sampled_from(["one", "two"])


@define
class Known:
    """What a wallet must be."""

    kind: str
    seed: str
    label: str
    count: int
    password: str = ""


class Wallets(RuleBasedStateMachine):
    """`known` by file name is the model."""

    names: Bundle[str] = Bundle("names")

    def __init__(self) -> None:
        super().__init__()
        self.disk = SimulatedDisk()
        self.random = counted()
        self.known: dict[str, Known] = {}
        self.costs = encryption._COSTS
        encryption._COSTS = dict.fromkeys(self.costs, 16)  # type: ignore[misc]  # passwords that cost nothing
        self.restart()

    def teardown(self) -> None:
        encryption._COSTS = self.costs  # type: ignore[misc]

    @rule()
    def restart(self) -> None:
        """The node reads the folder anew."""
        self.folder = Folder(self.disk, "/w", self.random, lambda: 1_600_000_000.0)
        self.folder.open()
        assert not self.folder.notes

    @rule(target=names, kind=KINDS, number=st.integers(0, 3), label=LABELS)
    def create(self, kind: str, number: int, label: str) -> MultipleResults[str] | str:
        """A new wallet; two of one seed there never are."""
        seed = words_of(bytes([number]) * 16)
        wanted = NewWallet(kind, label, seed=seed)
        if any((each.kind, each.seed) == (kind, seed) for each in self.known.values()):
            try:
                self.folder.create(wanted)
            except DuplicateWalletError:
                return multiple()
            raise AssertionError("the same wallet twice")
        name = self.folder.create(wanted).filename
        self.known[name] = Known(kind, seed, label, 1)
        return name

    @rule(name=names, label=LABELS)
    def relabel(self, name: str, label: str) -> None:
        """Another label; no password is asked."""
        self.folder.relabel(name, label)
        self.known[name].label = label

    @rule(name=names, count=st.integers(1, 2), wrong=st.booleans())
    def grow(self, name: str, count: int, wrong: bool) -> None:
        """Addresses, with the right password, a wrong one, or a needless one."""
        known = self.known[name]
        password = "wrong" if wrong else known.password or None
        try:
            self.folder.new_addresses(name, count, password)
        except (PasswordError, NotEncryptedError):
            assert wrong
        else:
            assert not wrong
            known.count += count

    @rule(name=names, password=PASSWORDS)
    def encrypt(self, name: str, password: str) -> None:
        """A password, if it has none."""
        known = self.known[name]
        try:
            self.folder.encrypt(name, password)
        except EncryptedError:
            assert known.password
        else:
            assert not known.password
            known.password = password

    @rule(name=names, password=PASSWORDS)
    def decrypt(self, name: str, password: str) -> None:
        """Without a password again, if this is it."""
        known = self.known[name]
        try:
            self.folder.decrypt(name, password)
        except (PasswordError, NotEncryptedError):
            assert known.password != password
        else:
            assert known.password == password
            known.password = ""

    @rule(name=names, label=LABELS)
    def command(self, name: str, label: str) -> None:
        """Another program changes the file behind the node's back."""
        with changing(self.disk, f"/w/{name}") as opened:
            opened.wallet.label = label
        self.known[name].label = label

    @rule(name=names)
    def recover(self, name: str) -> None:
        """From the seed, without the password."""
        known = self.known[name]
        try:
            self.folder.recover(name, known.seed)
        except NotEncryptedError:
            assert not known.password
        else:
            assert known.password
            known.password = ""

    @rule(name=consumes(names))
    def remove(self, name: str) -> None:
        """Its owner deletes the file."""
        self.folder.unload(name)
        self.disk.unlink(f"/w/{name}")
        del self.known[name]

    @invariant()
    def all_is_there(self) -> None:
        """Files and answers are what the model says; with its password a wallet has the keys of its seed."""
        assert list(self.folder.ids()) == sorted(self.known)
        for name, known in self.known.items():
            kept, served = load_wallet(self.disk, f"/w/{name}"), self.folder.get(name)
            assert kept.encode() == served.encode()
            assert (kept.label, kept.encrypted) == (known.label, bool(known.password))
            assert known.password == "" or known.seed.encode() not in kept.encode()
            plain = kept.unlocked(known.password) if known.password else kept
            make = new_wallet if known.kind == "deterministic" else new_bip44
            made = make(known.seed, "x", "x", 0, known.count)
            assert [each.key for each in plain.entries] == [each.key for each in made.entries]


Wallets.TestCase.settings = settings(max_examples=25, stateful_step_count=15, deadline=None)
WalletsTests = Wallets.TestCase
