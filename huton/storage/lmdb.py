"""``Storage`` in LMDB environments: ``log/``, synced batch by batch, and ``state.N/``, written behind.

Keys and records are those of ``layout``. A snapshot that is restored becomes a state of its own, N + 1, before one
write to the log makes it *the* state; the one before is deleted once nobody reads it.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Sequence
from pathlib import Path

import lmdb

from huton.errors import CorruptRecord, NoRoom, WrongIdentity
from huton.raft.effects import Persist
from huton.raft.types import Boot, Entry, HardState, Index, Snapshot, Term
from huton.storage import layout
from huton.storage.directory import LOG_DIRECTORY, SNAPSHOTS_DIRECTORY, DataDirectory, state_directory
from huton.storage.environment import DATA_FILE, Environment, make_environment
from huton.storage.interface import Birth, Identity, LiveState, Room, SnapshotReader, SnapshotWriter
from huton.storage.rules import LogEnds, LogScan, check_batch, check_birth, check_checkpoint, make_boot
from huton.storage.snapshots import FileReader, FileWriter
from huton.storage.state import State

__all__ = ["LmdbStorage", "open_lmdb_storage"]


def open_lmdb_storage(
    path: Path, name: str, incarnation: bytes, *, map_size_bytes: int, reserve_bytes: int = 0
) -> LmdbStorage:
    """Open the data directory *path* of the node *name*, or make it.

    Args:
        incarnation: 16 random bytes for a new directory; one that exists keeps its own.
        map_size_bytes: virtual addresses for each of the two maps, and the most either can hold.
        reserve_bytes: what is to stay free on the disk and in each map, but of a map no more than an eighth.

    Raises:
        WrongIdentity: it belongs to another name.
        StorageError: see ``DataDirectory``; ``CorruptRecord`` also for the hard state and all that is read here.
        OSError: the disk or its permissions.
    """
    directory = DataDirectory(path, lambda: _make(path, Identity(name, incarnation), map_size_bytes))
    try:
        return LmdbStorage(directory, name, map_size_bytes, reserve_bytes)
    except BaseException:
        directory.close()
        raise


class LmdbStorage:
    """See ``Storage``; made by ``open_lmdb_storage``.

    Invariants:
        ``_ends`` and ``_state.checkpoint`` are what the newest committed transactions hold.
    """

    def __init__(self, directory: DataDirectory, name: str, map_size_bytes: int, reserve_bytes: int) -> None:
        self._directory = directory
        self._reserve = min(reserve_bytes, map_size_bytes // 8)
        self._map_size_bytes = map_size_bytes
        self._log = Environment(directory.path / LOG_DIRECTORY, map_size_bytes, readahead=True)
        self._states: list[State] = []
        self._snapshots = 0
        self._birth: Birth | None = None
        self._ends: LogEnds
        try:
            self._load(name)
        except BaseException:
            self.close()
            raise

    @property
    def _state(self) -> State:
        """The state; those before it were replaced."""
        return self._states[-1]

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
        base = Snapshot(Index(0), Term(0), 0, birth.configuration)
        # The state first: once the log says "born", a missing record in either means damage.
        self._state.become(owner)
        self._state.write((), base)
        with self._log.write() as transaction:
            transaction.put(layout.BIRTH_KEY, layout.encode_birth(self._node, birth))
            transaction.put(layout.HARD_STATE_KEY, layout.encode_hard_state(owner, HardState()))
            transaction.put(layout.BASE_KEY, layout.encode_base(owner, base))
            transaction.delete(layout.PLEDGE_KEY)
        self._birth, self._owner, self._pledge = birth, owner, None
        self._ends = LogEnds(HardState(), base, base.index)

    def room(self) -> Room:
        self._log.check_open()
        environment = self._state.environment
        return Room(
            log=self._log.room() - self._reserve,
            state=environment.room() - self._reserve,
            state_used=environment.used_bytes,
            reserve=self._reserve,
        )

    def recover(self) -> Boot:
        self._require_birth()
        # A killed process leaves pages that are written and not synced: what is promised on them must be.
        self._log.sync()
        self._state.environment.sync()
        log = LogScan(self._ends.base)
        with self._log.read_buffers() as transaction, transaction.cursor() as cursor:
            # A cursor that found nothing would begin anew at the first key.
            found = cursor.set_range(layout.entry_key(Index(0)))
            for key, record in cursor.iternext() if found else ():
                expected = layout.entry_key(Index(log.last_index + 1))
                if key != expected:
                    raise CorruptRecord(f"log: entry {log.last_index + 1} is missing: {bytes(key)!r} stands there")
                header = layout.decode_entry_header(self._owner, expected, record)
                log.add(header.term, header.stamp, header.size)
        return make_boot(self._ends.hard_state, log, self._state.checkpoint.index)

    def persist(self, batch: Sequence[Persist]) -> None:
        self._require_birth()
        ends = check_batch(batch, self._ends, self._state.checkpoint.index)
        with self._log.write() as transaction, transaction.cursor() as cursor:
            if ends.hard_state != self._ends.hard_state:
                record = layout.encode_hard_state(self._owner, ends.hard_state)
                transaction.put(layout.HARD_STATE_KEY, record)
            for persist in batch:
                if persist.truncate_from is not None:
                    _delete(cursor, persist.truncate_from)
                self._append(cursor, persist)
            if ends.base != self._ends.base:
                transaction.put(layout.BASE_KEY, layout.encode_base(self._owner, ends.base))
                _delete(cursor, Index(0), ends.base.index)
        self._ends = ends

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

    def state(self) -> LiveState:
        self._log.check_open()
        return self._state.reader

    def checkpoint(self, changes: Iterable[tuple[bytes, bytes | None]], snapshot: Snapshot) -> None:
        self._require_birth()
        check_checkpoint(snapshot, self._state.checkpoint.index, self._ends.last_index)
        self._state.write(changes, snapshot)

    def read_snapshot(self) -> SnapshotReader:
        self._require_birth()
        self._check_room(self._state.environment.used_bytes)
        path = self._new_snapshot("out")
        path.mkdir(mode=0o700)
        try:
            with (path / DATA_FILE).open("xb") as file:
                self._state.environment.copy(file.fileno())
            return FileReader(path, self._checkpoint_in(path))
        except BaseException:
            shutil.rmtree(path)
            raise

    def write_snapshot(self, snapshot: Snapshot, size: int, digest: bytes) -> SnapshotWriter:
        self._require_birth()
        self._check_room(size)
        return FileWriter(self._new_snapshot("in"), snapshot, size, digest, self._check_snapshot)

    def restore(self, received: SnapshotWriter) -> None:
        self._require_birth()
        assert isinstance(received, FileWriter)
        generation = self._state.generation + 1
        path = self._directory.path / state_directory(generation)
        received.move(path)
        state = State(path, generation, self._map_size_bytes)
        try:
            state.load(self._owner)
            with self._log.write() as transaction, transaction.cursor() as cursor:
                transaction.put(layout.GENERATION_KEY, layout.encode_generation(self._node, generation))
                transaction.put(layout.BASE_KEY, layout.encode_base(self._owner, state.checkpoint))
                _delete(cursor, Index(0))
        except BaseException:
            state.environment.close()
            raise
        self._states.append(state)
        self._ends = LogEnds(self._ends.hard_state, state.checkpoint, state.checkpoint.index)

    def release_replaced(self) -> bool:
        self._log.check_open()
        for state in self._states[:-1]:
            if not state.reader.pins:
                self._states.remove(state)
                state.environment.close()
                shutil.rmtree(state.environment.path)
        return len(self._states) == 1

    def close(self) -> None:
        self._log.close()
        for state in self._states:
            state.environment.close()
        self._directory.close()

    # ------------------------------------------------------------------ snapshots

    def _check_room(self, size: int) -> None:
        """Check that the disk has room for a file of *size* bytes.

        Raises:
            NoRoom: it hasn't.
        """
        room = self.room().state
        if size > room:
            raise NoRoom(f"{self._directory.path}: no room for a snapshot of {size} bytes; there are {max(0, room)}")

    def _new_snapshot(self, name: str) -> Path:
        self._snapshots += 1
        return self._directory.path / SNAPSHOTS_DIRECTORY / f"{name}-{self._snapshots}"

    def _check_snapshot(self, path: Path, snapshot: Snapshot) -> None:
        """Check that the state in the directory *path* is *snapshot*.

        Raises:
            CorruptRecord: it is none, of another cluster, or another one.
            StorageError: the map has no room for it.
        """
        found = self._checkpoint_in(path)
        if found != snapshot:
            raise CorruptRecord(f"a snapshot of {snapshot.index} in term {snapshot.term} holds something else")

    def _checkpoint_in(self, path: Path) -> Snapshot:
        state = State(path, 0, self._map_size_bytes)
        try:
            state.load(self._owner)
        finally:
            state.environment.close()
        return state.checkpoint

    # ------------------------------------------------------------------ opening

    def _load(self, name: str) -> None:
        """Read everything but the entries, and clear away what nobody needs any more.

        Raises:
            CorruptRecord, WrongIdentity: see ``open_lmdb_storage``.
        """
        with self._log.read() as transaction:
            self._identity = layout.decode_identity(_require(transaction, layout.IDENTITY_KEY, "log: identity"))
            if self._identity.name != name:
                raise WrongIdentity(f"{self._directory.path} belongs to node {self._identity.name!r}, not {name!r}")
            self._node = layout.owner_checksum(self._identity.incarnation)
            record = _require(transaction, layout.GENERATION_KEY, "log: generation")
            generation = layout.decode_generation(self._node, record)
            pledge = transaction.get(layout.PLEDGE_KEY)
            self._pledge = None if pledge is None else layout.decode_pledge(self._node, pledge)
            birth = transaction.get(layout.BIRTH_KEY)
            if birth is not None:
                self._birth = layout.decode_birth(self._node, birth)
                self._load_ends(transaction, layout.owner_checksum(self._birth.cluster_id))
            elif transaction.stat()["entries"] > (2 if pledge is None else 3):
                raise CorruptRecord("log: birth: there is none, but there is what comes after it")
        self._clear_away(state_directory(generation))
        state = State(self._directory.path / state_directory(generation), generation, self._map_size_bytes)
        self._states.append(state)
        if self._birth is not None:
            state.load(self._owner)

    def _load_ends(self, transaction: lmdb.Transaction[bytes], owner: int) -> None:
        self._owner = owner
        hard_state = layout.decode_hard_state(owner, _require(transaction, layout.HARD_STATE_KEY, "log: hard state"))
        base = layout.decode_base(owner, _require(transaction, layout.BASE_KEY, "log: base"))
        last_index = base.index
        with transaction.cursor() as cursor:
            if cursor.last() and cursor.key() >= layout.entry_key(Index(0)):
                last_index = layout.entry_index(cursor.key())
        self._ends = LogEnds(hard_state, base, last_index)

    def _clear_away(self, state: str) -> None:
        """Delete what a stop left behind: snapshots on their way, and all states but that in the directory *state*."""
        path = self._directory.path
        shutil.rmtree(path / SNAPSHOTS_DIRECTORY, ignore_errors=True)
        (path / SNAPSHOTS_DIRECTORY).mkdir(mode=0o700)
        for other in sorted(path.glob(state_directory("*"))):
            if other.name != state:
                shutil.rmtree(other)

    def _require_birth(self) -> Birth:
        self._log.check_open()
        if self._birth is None:
            raise ValueError("this node is not yet born into a cluster")
        return self._birth


def _make(path: Path, identity: Identity, map_size_bytes: int) -> None:
    """Make both environments of a new directory, synced, with nothing in them but whose they are."""
    records = {
        layout.IDENTITY_KEY: layout.encode_identity(identity),
        layout.GENERATION_KEY: layout.encode_generation(layout.owner_checksum(identity.incarnation), 0),
    }
    make_environment(path / LOG_DIRECTORY, map_size_bytes, records)
    make_environment(path / state_directory(0), map_size_bytes, {})


def _delete(cursor: lmdb.Cursor[bytes], first: Index, last: Index | None = None) -> None:
    """Delete the entries from *first* on, up to *last* or the end."""
    stop = layout.ENTRIES_STOP if last is None else layout.entry_key(Index(last + 1))
    found = cursor.set_range(layout.entry_key(first))
    while found and cursor.key() < stop:
        found = cursor.delete() and bool(cursor.key())


def _require(transaction: lmdb.Transaction[bytes], key: bytes, place: str) -> bytes:
    record = transaction.get(key)
    if record is None:
        raise CorruptRecord(f"{place} is missing")
    return record
