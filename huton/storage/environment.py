"""One LMDB environment: how it is opened, and what its errors mean.

Flags, and why:

    sync, metasync on     a commit returns when its pages and the meta page are on disk: this *is* the durability
    writemap off          a full disk is an error of a write, not a SIGBUS; stray pointers can't reach the data
    lock on               readers of one thread run beside the writer of another
    meminit on            no forgotten memory of this process ends up on the disk
    readahead             on for the log, which is read in order; off for the state, which is read at random
    max_dbs 0             one tree: a named one would cost one more page in each commit
    max_spare_txns 0      measured: begin + get take 0.45 us, with a cached transaction 0.39: not worth a pinned slot
    map_size              virtual addresses, reserved once: enlarging a map under a reader kills the process
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from huton.errors import CorruptRecord, NoRoom, StorageError

__all__ = ["DATA_FILE", "READERS_MAX", "Environment", "make_environment"]

READERS_MAX: Final = 254
"""Read transactions open at once in one environment, which are unfinished scans; one more is a ``StorageError``."""

DATA_FILE: Final = "data.mdb"


class Environment:
    """One LMDB environment, whose errors are ours.

    Args:
        path: its directory.
        map_size_bytes: virtual addresses for it, and the most that it can hold.
        readahead: whether the system is to read ahead.
    """

    def __init__(self, path: Path, map_size_bytes: int, *, readahead: bool) -> None:
        self.path = path
        self._map_size_bytes = map_size_bytes
        self._closed = False
        self._failure: OSError | None = None
        file = path / DATA_FILE
        if not file.exists() or file.stat().st_size == 0:
            raise CorruptRecord(f"{file} is missing or empty")  # LMDB would begin a new one
        self.lmdb = _open(path, map_size_bytes, readahead)
        # Touching a page beyond the end of a file that was cut off kills the process.
        size = (self.lmdb.info()["last_pgno"] + 1) * self.lmdb.stat()["psize"]
        if file.stat().st_size < size:
            self.lmdb.close()
            raise CorruptRecord(f"{file} is cut off: shorter than the {size} bytes in use")

    def close(self) -> None:
        self._closed = True
        self.lmdb.close()

    def check_open(self) -> None:
        if self._closed:
            raise ValueError("the storage is closed")

    def sync(self) -> None:
        """Sync the data file, whoever wrote to it."""
        try:
            self.lmdb.sync(True)
        except lmdb.Error as error:
            raise self._fail(error) from error

    @property
    def used_bytes(self) -> int:
        """How much of the map is in use; what was deleted is free again."""
        stat = self.lmdb.stat()
        pages: int = stat["branch_pages"] + stat["leaf_pages"] + stat["overflow_pages"]
        return pages * int(stat["psize"])

    def room(self) -> int:
        """Return how many bytes can be added before the map or the file system is full."""
        system = os.statvfs(self.path)
        return min(self._map_size_bytes - self.used_bytes, system.f_bavail * system.f_frsize)

    def copy(self, fd: int) -> None:
        """Write all that is committed to the file *fd*, without the pages that are free."""
        try:
            self.lmdb.copyfd(fd, compact=True)
        except lmdb.Error as error:
            raise self.translate(error) from error

    @contextmanager
    def read(self) -> Iterator[lmdb.Transaction[bytes]]:
        """A read transaction."""
        try:
            with self.lmdb.begin() as transaction:
                yield transaction
        except lmdb.Error as error:
            raise self.translate(error) from error

    @contextmanager
    def read_buffers(self) -> Iterator[lmdb.Transaction[memoryview]]:
        """A read transaction that gives views of the map, good while it is open."""
        try:
            with self.lmdb.begin(buffers=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise self.translate(error) from error

    @contextmanager
    def write(self) -> Iterator[lmdb.Transaction[bytes]]:
        """A write transaction: committed and synced at the end of the block, or nothing of it."""
        self.check_open()
        if self._failure is not None:
            raise OSError(self._failure.errno, f"a write failed before: {self._failure.strerror}", str(self.path))
        try:
            with self.lmdb.begin(write=True) as transaction:
                yield transaction
        except lmdb.Error as error:
            raise self._fail(error) from error

    def _fail(self, error: lmdb.Error) -> Exception:
        """Translate, and let no write be tried again after an error of the disk (D6)."""
        translated = self.translate(error)
        if isinstance(translated, OSError):
            self._failure = translated
        return translated

    def translate(self, error: lmdb.Error) -> Exception:
        if self._closed:
            return ValueError("the storage is closed")
        if isinstance(error, lmdb.MapFullError):
            return NoRoom(f"{self.path}: the map of {self._map_size_bytes} bytes is full; nothing was written")
        return _translate(error, self.path)


def make_environment(path: Path, map_size_bytes: int, records: dict[bytes, bytes]) -> None:
    """Make the directory *path*, and in it an environment with *records*, synced."""
    path.mkdir(mode=0o700)
    environment = _open(path, map_size_bytes, readahead=True)
    try:
        with environment.begin(write=True) as transaction:
            for key, record in records.items():
                transaction.put(key, record)
        environment.sync(True)
    except lmdb.Error as error:
        raise _translate(error, path) from error
    finally:
        environment.close()


def _translate(error: lmdb.Error, path: Path) -> Exception:
    if isinstance(error, lmdb.BadValsizeError):
        return ValueError("a key is 1 to 500 bytes")
    if isinstance(error, (lmdb.CorruptedError, lmdb.PageNotFoundError, lmdb.InvalidError, lmdb.VersionMismatchError)):
        return CorruptRecord(f"{path}: {error}")
    if isinstance(error, lmdb.ReadersFullError):
        return StorageError(f"{path}: {error}: {READERS_MAX} scans are unfinished")
    # What is left are errors of the system. Older bindings give no code; and PanicError, which has one
    # of LMDB's own, below zero, means that the meta page could not be written.
    code = max(getattr(error, "code", 0), 0) or errno.EIO
    return OSError(code, f"{os.strerror(code)} ({error})", str(path))


def _open(path: Path, map_size_bytes: int, readahead: bool) -> lmdb.Environment:
    try:
        return lmdb.open(
            str(path),
            map_size=map_size_bytes,
            subdir=True,
            mode=0o700,
            sync=True,
            metasync=True,
            writemap=False,
            lock=True,
            meminit=True,
            readahead=readahead,
            max_readers=READERS_MAX,
            max_dbs=0,
            max_spare_txns=0,
        )
    except lmdb.Error as error:
        raise _translate(error, path) from error
