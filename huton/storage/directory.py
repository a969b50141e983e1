"""The data directory: held by one process, marked with a format, complete or not there.

    DIR/format      "huton-data 1" and a line feed: it says that the rest is complete
    DIR/format.new  the same while the directory is being made; with it and without ``format``
                    nobody has used the directory yet, so it is made again from the start
    DIR/log/        the log environment, made by ``LmdbStorage``
    DIR/state.N/    the state environment: the one that the log names
    DIR/snapshots/  snapshots on their way to or from another node

What locks it is the directory itself (flock), so there is no lock file to be left behind, and a directory of a
newer huton is not even touched.
"""

from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

from huton.errors import CorruptRecord, DirectoryLocked, FormatTooNew, StorageError

__all__ = [
    "FORMAT_VERSION",
    "LOG_DIRECTORY",
    "SNAPSHOTS_DIRECTORY",
    "DataDirectory",
    "state_directory",
    "sync_directory",
]

FORMAT_VERSION: Final = 1
LOG_DIRECTORY: Final = "log"
SNAPSHOTS_DIRECTORY: Final = "snapshots"
"""For what is only on its way to another node or from one; empty at each start."""

FORMAT_FILE: Final = "format"
UNFINISHED_FILE: Final = "format.new"


class DataDirectory:
    """A complete data directory, locked until ``close`` or the end of the process.

    Args:
        path: where it is; made with its parents if missing, readable for its owner only.
        make: fills a new directory with ``log/`` and ``state.0/``, everything in them synced.

    Raises:
        DirectoryLocked: another process, or this one, has it open.
        FormatTooNew: a newer huton wrote it; nothing was touched.
        CorruptRecord: the format file makes no sense.
        StorageError: there is data, but no format file.
        OSError: the disk or its permissions.
    """

    def __init__(self, path: Path, make: Callable[[], None]) -> None:
        self.path = path
        _make_directories(path)
        self._fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
        try:
            self._lock()
            if not self._is_complete():
                self._make(make)
        except BaseException:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the lock. Idempotent."""
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def _lock(self) -> None:
        try:
            # flock belongs to this one opening of the directory, so a second one in this process is excluded, too.
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise DirectoryLocked(f"{self.path}: another process has this data directory open") from None

    def _is_complete(self) -> bool:
        try:
            text = (self.path / FORMAT_FILE).read_bytes()
        except FileNotFoundError:
            return False
        # A newer format may say more after the first line.
        match = re.match(rb"huton-data ([1-9][0-9]{0,8})\n", text)
        if match is None:
            raise CorruptRecord(f"{self.path / FORMAT_FILE}: {text[:40]!r} is no format of a data directory")
        version = int(match[1])
        if version > FORMAT_VERSION:
            raise FormatTooNew(f"{self.path}: format {version}, but this huton knows {FORMAT_VERSION} at most")
        return True

    def _make(self, make: Callable[[], None]) -> None:
        unfinished = self.path / UNFINISHED_FILE
        data = [self.path / name for name in (LOG_DIRECTORY, state_directory(0))]
        if not unfinished.exists() and any(directory.exists() for directory in data):
            raise StorageError(f"{self.path}: there is data, but no file {FORMAT_FILE!r}; nothing was touched")
        with unfinished.open("wb") as file:
            file.write(b"huton-data %d\n" % FORMAT_VERSION)
            file.flush()
            os.fsync(file.fileno())
        # From here on a crash leaves the mark of an unfinished directory ...
        os.fsync(self._fd)
        for directory in data:
            shutil.rmtree(directory, ignore_errors=True)
        make()
        for directory in data:
            sync_directory(directory)
        os.fsync(self._fd)
        # Its own name, too: a start that was killed, or an operator, may have made the directory. Whoever may not
        # read the directory above has not made it, and can't do better.
        with suppress(PermissionError):
            sync_directory(self.path.parent)
        # ... up to here, where all of it is on disk: the name of the file says so.
        unfinished.rename(self.path / FORMAT_FILE)
        os.fsync(self._fd)


def state_directory(generation: int | str) -> str:
    """Return the name of the directory in which the state of this *generation* is; each restore begins one."""
    return f"state.{generation}"


def sync_directory(path: Path) -> None:
    """Make the names in *path* durable."""
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)


def _make_directories(path: Path) -> None:
    """Make *path* and its parents, each durable in the one above it."""
    if path.is_dir():
        return
    _make_directories(path.parent)
    path.mkdir(mode=0o700, exist_ok=True)
    sync_directory(path.parent)
