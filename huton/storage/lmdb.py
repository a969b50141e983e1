"""``Storage`` in two LMDB environments: ``log/``, synced batch by batch, and ``state/``, written behind.

Keys and records are those of ``layout``. Flags of both environments, and why:

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
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import lmdb

from huton.errors import CorruptRecord, StorageError, WrongIdentity
from huton.kv.statemachine import StateReader
from huton.raft.effects import Persist
from huton.raft.types import Boot, Entry, HardState, Index
from huton.storage import layout
from huton.storage.directory import LOG_DIRECTORY, STATE_DIRECTORY, DataDirectory
from huton.storage.interface import Birth, CheckpointMeta, Identity
from huton.storage.rules import LogScan, check_batch, check_birth, check_checkpoint, make_boot

__all__ = ["LmdbStorage", "open_lmdb_storage"]

READERS_MAX: Final = 254
"""Read transactions open at once in one environment, which are unfinished scans; one more is a ``StorageError``."""

DATA_FILE: Final = "data.mdb"


def open_lmdb_storage(path: Path, name: str, incarnation: bytes, *, map_size_bytes: int) -> LmdbStorage:
    """Open the data directory *path* of the node *name*, or make it.

    Args:
        incarnation: 16 random bytes for a new directory; one that exists keeps its own.
        map_size_bytes: virtual addresses for each of the two maps, and the most either can hold.

    Raises:
        WrongIdentity: it belongs to another name.
        StorageError: see ``DataDirectory``; ``CorruptRecord`` also for the hard state and all that is read here.
        OSError: the disk or its permissions.
    """
    directory = DataDirectory(path, lambda: _make(path, Identity(name, incarnation), map_size_bytes))
    try:
        return LmdbStorage(directory, name, map_size_bytes)
    except BaseException:
        directory.close()
        raise


class LmdbStorage:
    """See ``Storage``; made by ``open_lmdb_storage``.

    Invariants:
        ``_hard_state``, ``_last_index`` and ``_applied`` are what the newest committed transactions hold.
    """

    def __init__(self, directory: DataDirectory, name: str, map_size_bytes: int) -> None:
        self._directory = directory
        self._log = _Environment(directory.path / LOG_DIRECTORY, map_size_bytes, readahead=True)
        try:
            self._state = _Environment(directory.path / STATE_DIRECTORY, map_size_bytes, readahead=False)
        except BaseException:
            self._log.close()
            raise
        self._reader = _LmdbState(self._state)
        self._birth: Birth | None = None
        self._owner = layout.NOBODY
        self._hard_state = HardState()
        self._last_index = Index(0)
        self._applied = Index(0)
        try:
            self._load(name)
        except BaseException:
            self.close()
            raise

    @property
    def identity(self) -> Identity:
        return self._identity

    @property
    def birth(self) -> Birth | None:
        return self._birth

    @property
    def pledge(self) -> bytes | None:
        return self._pledge

    def save_pledge(self, pledge: bytes | None) -> None:
        with self._log.write() as transaction:
            if pledge is None:
                transaction.delete(layout.PLEDGE_KEY)
            else:
                transaction.put(layout.PLEDGE_KEY, layout.encode_pledge(self._node, pledge))
        self._pledge = pledge

    def save_birth(self, birth: Birth) -> None:
        check_birth(self._birth, birth)
        if self._birth is not None:
            return
        owner = layout.owner_checksum(birth.cluster_id)
        # The state first: once the log says "born", a missing record in either means damage.
        with self._state.write() as transaction:
            transaction.put(layout.CHECKPOINT_KEY, layout.encode_checkpoint(owner, CheckpointMeta(Index(0))))
        with self._log.write() as transaction:
            transaction.put(layout.BIRTH_KEY, layout.encode_birth(self._node, birth))
            transaction.put(layout.HARD_STATE_KEY, layout.encode_hard_state(owner, HardState()))
            transaction.delete(layout.PLEDGE_KEY)
        self._become(birth)
        self._pledge = None

    def recover(self) -> Boot:
        birth = self._require_birth()
        # A killed process leaves pages that are written and not synced: what is promised on them must be.
        self._log.sync()
        self._state.sync()
        log = LogScan()
        with self._log.read_buffers() as transaction, transaction.cursor() as cursor:
            # A cursor that found nothing would begin anew at the first key.
            found = cursor.set_range(layout.entry_key(Index(0)))
            for key, record in cursor.iternext() if found else ():
                expected = layout.entry_key(Index(log.last_index + 1))
                if key != expected:
                    raise CorruptRecord(f"log: entry {log.last_index + 1} is missing: {bytes(key)!r} stands there")
                header = layout.decode_entry_header(self._owner, expected, record)
                log.add(header.term, header.stamp)
        return make_boot(birth, self._hard_state, log, self._applied)

    def persist(self, batch: Sequence[Persist]) -> None:
        self._require_birth()
        end = check_batch(batch, self._hard_state, self._last_index, self._applied)
        with self._log.write() as transaction, transaction.cursor() as cursor:
            if end.hard_state != self._hard_state:
                record = layout.encode_hard_state(self._owner, end.hard_state)
                transaction.put(layout.HARD_STATE_KEY, record)
            for persist in batch:
                if persist.truncate_from is not None and cursor.set_range(layout.entry_key(persist.truncate_from)):
                    while cursor.delete():
                        pass
                self._append(cursor, persist)
        self._hard_state, self._last_index = end.hard_state, end.last_index

    def _append(self, cursor: lmdb.Cursor[bytes], persist: Persist) -> None:
        owner = self._owner
        items = []
        for index, entry in enumerate(persist.entries, persist.first_index):
            key = layout.entry_key(Index(index))
            items.append((key, layout.encode_entry(owner, key, entry)))
        _, added = cursor.putmulti(items, overwrite=False, append=True)
        if added != len(items):
            raise CorruptRecord(f"log: something stands behind entry {persist.first_index - 1}, where the log ends")

    def read_log(self, first: Index, last: Index, bytes_max: int) -> tuple[Entry, ...]:
        self._require_birth()
        entries: list[Entry] = []
        size = 0
        with self._log.read() as transaction, transaction.cursor() as cursor:
            found = cursor.set_range(layout.entry_key(first))
            for key, record in cursor.iternext() if found else ():
                index = Index(first + len(entries))
                if key != layout.entry_key(index) or (index > last and entries):
                    break
                entry = layout.decode_entry(self._owner, key, record)
                size += len(entry.data)
                if size > bytes_max and entries:
                    break
                entries.append(entry)
        if not entries:
            raise LookupError(f"entry {first} is not in the log")
        return tuple(entries)

    def state(self) -> StateReader:
        self._state.check_open()
        return self._reader

    def checkpoint(self, changes: Iterable[tuple[bytes, bytes | None]], meta: CheckpointMeta) -> None:
        self._require_birth()
        check_checkpoint(meta, self._applied, self._last_index)
        begin = self._reader.checksum
        prefix = layout.STATE_PREFIX
        with self._state.write() as transaction:
            put, delete = transaction.put, transaction.delete
            for key, value in changes:
                if value is None:
                    delete(prefix + key)
                else:
                    put(prefix + key, layout.encode_value(begin, key, value))
            put(layout.CHECKPOINT_KEY, layout.encode_checkpoint(self._owner, meta))
        self._applied = meta.index

    def close(self) -> None:
        self._log.close()
        self._state.close()
        self._directory.close()

    # ------------------------------------------------------------------ opening

    def _load(self, name: str) -> None:
        """Read everything but the entries.

        Raises:
            CorruptRecord, WrongIdentity: see ``open_lmdb_storage``.
        """
        with self._log.read() as transaction:
            self._identity = layout.decode_identity(_require(transaction, layout.IDENTITY_KEY, "log: identity"))
            if self._identity.name != name:
                raise WrongIdentity(f"{self._directory.path} belongs to node {self._identity.name!r}, not {name!r}")
            self._node = layout.owner_checksum(self._identity.incarnation)
            pledge = transaction.get(layout.PLEDGE_KEY)
            self._pledge = None if pledge is None else layout.decode_pledge(self._node, pledge)
            record = transaction.get(layout.BIRTH_KEY)
            if record is None:
                if transaction.stat()["entries"] > (1 if pledge is None else 2):
                    raise CorruptRecord("log: birth: there is none, but there is what comes after it")
                return
            self._become(layout.decode_birth(self._node, record))
            record = _require(transaction, layout.HARD_STATE_KEY, "log: hard state")
            self._hard_state = layout.decode_hard_state(self._owner, record)
            with transaction.cursor() as cursor:
                if cursor.last() and cursor.key() >= layout.entry_key(Index(0)):
                    self._last_index = layout.entry_index(cursor.key())
        with self._state.read() as transaction:
            record = _require(transaction, layout.CHECKPOINT_KEY, "state: checkpoint")
            self._applied = layout.decode_checkpoint(self._owner, record).index

    def _become(self, birth: Birth) -> None:
        self._birth = birth
        self._owner = layout.owner_checksum(birth.cluster_id)
        self._reader.checksum = layout.value_checksum(self._owner)

    def _require_birth(self) -> Birth:
        self._log.check_open()
        if self._birth is None:
            raise ValueError("this node is not yet born into a cluster")
        return self._birth


class _LmdbState:
    """A StateReader; each call has a read transaction of its own.

    An unfinished scan keeps its transaction, and with it every page it could still reach, until it is dropped.
    """

    def __init__(self, environment: _Environment) -> None:
        self._environment = environment
        self._begin = environment.lmdb.begin
        # Nothing can be read before birth, so whatever stands here until then is never used.
        self.checksum = layout.NOBODY

    def get(self, key: bytes) -> bytes | None:
        try:
            with self._begin() as transaction:
                record = transaction.get(layout.STATE_PREFIX + key)
        except lmdb.Error as error:
            raise self._environment.translate(error) from error
        return None if record is None else layout.decode_value(self.checksum, key, record)

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        self._environment.check_open()
        first = layout.STATE_PREFIX + start
        end = layout.STATE_STOP if stop is None else layout.STATE_PREFIX + stop
        return self._scan_back(first, end) if reverse else self._scan(first, end)

    def _scan(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._environment.read() as transaction, transaction.cursor() as cursor:
            if not cursor.set_range(first):
                return
            for key, record in cursor.iternext():
                if key >= end:
                    return
                key = key[1:]
                yield key, layout.decode_value(self.checksum, key, record)

    def _scan_back(self, first: bytes, end: bytes) -> Iterator[tuple[bytes, bytes]]:
        with self._environment.read() as transaction, transaction.cursor() as cursor:
            if not (cursor.prev() if cursor.set_range(end) else cursor.last()):
                return
            for key, record in cursor.iterprev():
                if key < first:
                    return
                key = key[1:]
                yield key, layout.decode_value(self.checksum, key, record)


class _Environment:
    """One LMDB environment, whose errors are ours."""

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
            return StorageError(f"{self.path}: the map of {self._map_size_bytes} bytes is full; nothing was written")
        return _translate(error, self.path)


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


def _make(path: Path, identity: Identity, map_size_bytes: int) -> None:
    """Make both environments of a new directory, synced, with nothing but *identity* in them."""
    for name in (LOG_DIRECTORY, STATE_DIRECTORY):
        (path / name).mkdir(mode=0o700)
        environment = _open(path / name, map_size_bytes, readahead=True)
        try:
            if name == LOG_DIRECTORY:
                with environment.begin(write=True) as transaction:
                    transaction.put(layout.IDENTITY_KEY, layout.encode_identity(identity))
            environment.sync(True)
        except lmdb.Error as error:
            raise _translate(error, path / name) from error
        finally:
            environment.close()


def _require(transaction: lmdb.Transaction[bytes], key: bytes, place: str) -> bytes:
    record = transaction.get(key)
    if record is None:
        raise CorruptRecord(f"{place} is missing")
    return record
