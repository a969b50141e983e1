"""Snapshots as files: a copy of a checkpoint on its way to another member, and one that comes from another.

What travels is the copy of a state environment, made by LMDB at the speed of the disk and without its free pages:
no key is looked at one by one, and what arrives is a state as it stands.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from hashlib import blake2b
from pathlib import Path
from typing import Final

from huton.errors import CorruptRecord
from huton.raft.types import Snapshot
from huton.storage.directory import sync_directory
from huton.storage.environment import DATA_FILE

__all__ = ["DIGEST_BYTES", "FileReader", "FileWriter"]

DIGEST_BYTES: Final = 32
READ_BYTES: Final = 1 << 20


class FileReader:
    """A ``SnapshotReader`` from a directory of its own, which ``close`` deletes.

    Args:
        path: the directory.
        snapshot: what is in it.
    """

    def __init__(self, path: Path, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        self._path = path
        self._file = (path / DATA_FILE).open("rb")
        self.size = 0
        digest = blake2b(digest_size=DIGEST_BYTES)
        while piece := self._file.read(READ_BYTES):
            digest.update(piece)
            self.size += len(piece)
        self.digest = digest.digest()

    def read(self, offset: int, size: int) -> bytes:
        return os.pread(self._file.fileno(), size, offset)

    def close(self) -> None:
        self._file.close()
        shutil.rmtree(self._path, ignore_errors=True)


class FileWriter:
    """A ``SnapshotWriter`` into a directory of its own, which ``close`` deletes unless it was taken.

    Args:
        path: the directory, to be made.
        snapshot: what its sender says it holds.
        size: how many bytes come.
        digest: BLAKE2b of them.
        check: raises if the state in a directory is not *snapshot*.
    """

    def __init__(
        self, path: Path, snapshot: Snapshot, size: int, digest: bytes, check: Callable[[Path, Snapshot], None]
    ) -> None:
        self.snapshot = snapshot
        self.path = path
        self._missing = size
        self._announced = digest
        self._check = check
        self._digest = blake2b(digest_size=DIGEST_BYTES)
        self._finished = False
        path.mkdir(mode=0o700)
        self._file = (path / DATA_FILE).open("wb")

    def write(self, data: bytes) -> None:
        if len(data) > self._missing:
            raise CorruptRecord("a snapshot is longer than announced")
        self._missing -= len(data)
        self._digest.update(data)
        self._file.write(data)

    def finish(self) -> None:
        if self._missing or self._digest.digest() != self._announced:
            raise CorruptRecord("a snapshot is not what was announced")
        self._file.flush()
        os.fsync(self._file.fileno())
        self._file.close()
        self._check(self.path, self.snapshot)
        sync_directory(self.path)
        self._finished = True

    def move(self, path: Path) -> None:
        """Make its directory the one at *path*, durably."""
        if not self._finished:
            raise ValueError("only a finished snapshot can be restored")
        self._finished = False
        self.path.rename(path)
        sync_directory(path.parent)

    def close(self) -> None:
        self._file.close()
        self._finished = False
        shutil.rmtree(self.path, ignore_errors=True)
