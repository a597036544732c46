"""The onion keys of a node, kept over a restart and removed when they are forgotten.

    DATA/onion-keys/EPOCH-xxxxxxxx.key    0600: secret 32, framed (storage/kept.py), its generation the epoch

EPOCH is decimal, the x are the first hex digits of the key's x coordinate. The files are those of the ring
(`circuit/epochs.py`): a key is on the disk before it is stated, and its file is overwritten when the ring
forgets it. A disk that fails costs a sentence, never the node: its keys then live as long as the process.

Where replay tags may be missing the kept keys are not taken back: onions for new ones cannot have been seen
before, so that the node need not refuse all until those of before have expired.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Final

from twisted.logger import Logger

from meshnet.cipher.keys import BadKeyError, SecretKey
from meshnet.circuit.epochs import EpochKey, KeyRing, OnionKey
from meshnet.errors import StorageError
from meshnet.limits import EPOCHS
from meshnet.node.app import Json
from meshnet.storage.disk import Disk
from meshnet.storage.files import make_directory, read_secret, sweep, wipe, write_secret
from meshnet.storage.kept import pack, unpack

DIRECTORY: Final = "onion-keys"
AGAIN: Final = 60.0  # seconds until the disk is tried again

_SUFFIX: Final = ".key"

_log = Logger()


class OnionKeys:
    """One per router. Without a `disk` nothing outlives the process."""

    def __init__(
        self,
        identity: SecretKey,
        random: Callable[[int], bytes],
        disk: Disk | None = None,
        data: Path = Path(),
    ) -> None:
        self.ring = KeyRing(identity)
        self._random = random
        self._disk = disk
        self._directory = data / DIRECTORY
        self._again = 0.0
        self.fault = ""
        """Why the files are not those of the ring, in a sentence; empty while they are."""

    @property
    def stated(self) -> OnionKey | None:
        """What this node's record says; None before `start`."""
        current = self.ring.current
        return None if current is None else current.stated

    def start(self, now: float, unix: float, *, anew: bool = False) -> None:
        """Takes back the keys of the last run that are not too old, unless all are to be made `anew`."""
        kept = [] if self._disk is None or anew else self._read(self._disk)
        self.ring.recall(kept, unix)
        self.ring.roll(unix, self._random)
        self._save(now)

    def tick(self, now: float, unix: float) -> None:
        """Changes the key at its time; to be called now and then."""
        change = self.ring.roll(unix, self._random)
        if change.made is not None:
            _log.info("onion key of epoch {epoch}", epoch=change.made.epoch)
        if change.made is not None or (self.fault and now >= self._again):
            self._save(now)

    def figures(self) -> Json:
        """For status: `epoch` of the key that is stated, `held` how many open onions, `saved`."""
        current = self.ring.current
        return {
            "epoch": 0 if current is None else current.epoch,
            "held": len(self.ring.keys),
            "saved": self._disk is not None and not self.fault,
        }

    def _save(self, now: float) -> None:
        """Makes the files those of the ring; once more after a while if that fails."""
        if self._disk is None:
            return
        try:
            self._settle(self._disk)
        except StorageError as error:
            if not self.fault:
                _log.error("onion keys cannot be saved or removed: {why}", why=str(error))
            self.fault = f"onion keys cannot be saved, or old ones removed: {error}"
            self._again = now + AGAIN
        else:
            self.fault = ""

    def _settle(self, disk: Disk) -> None:
        """The new before the old goes. Raises StorageError."""
        make_directory(disk, self._directory)
        sweep(disk, self._directory)
        wanted = {_name(key): key for key in self.ring.keys}
        there = {name for name in disk.listdir(self._directory) if name.endswith(_SUFFIX)}
        for name in wanted.keys() - there:
            key = wanted[name]
            write_secret(disk, self._directory / name, pack(key.secret.secret, generation=key.epoch))
        for name in there - wanted.keys():
            wipe(disk, self._directory / name)

    def _read(self, disk: Disk) -> list[EpochKey]:
        """What is there and whole; the log is told of the rest, which goes with the old ones."""
        found: list[EpochKey] = []
        try:
            names = disk.listdir(self._directory) if disk.exists(self._directory) else []
        except StorageError as error:
            _log.warn("onion keys cannot be read: {why}", why=str(error))
            return found
        for name in names:
            if not name.endswith(_SUFFIX):
                continue
            try:
                frame = unpack(read_secret(disk, self._directory / name))
                key = EpochKey(frame.generation, SecretKey(frame.data))
            except (StorageError, BadKeyError) as error:
                _log.warn("the onion key {name} cannot be used: {why}", name=name, why=str(error))
                continue
            if 1 <= key.epoch <= EPOCHS and name == _name(key):
                found.append(key)
        return found


def _name(key: EpochKey) -> str:
    return f"{key.epoch}-{key.secret.public.hex()[2:10]}{_SUFFIX}"
