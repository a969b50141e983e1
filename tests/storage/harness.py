"""What the storage tests share: both implementations behind one door, and short ways to say things."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Protocol

from huton.raft.effects import Persist
from huton.raft.types import Configuration, Entry, EntryKind, HardState, Index, Member, NodeId, Snapshot, Term
from huton.storage.interface import Birth, Identity, Storage
from huton.storage.lmdb import LmdbStorage, open_lmdb_storage
from huton.storage.memory import MemoryStorage

MAP_SIZE_BYTES = 1 << 26
IDENTITY = Identity("n1", b"incarnation 0001")
BIRTH = Birth(
    b"cluster 00000001",
    Configuration(
        (Member(NodeId("n1#01"), "127.0.0.1:7420"), Member(NodeId("n2#02"), "[::1]:7420")),
    ),
)


class Disk(Protocol):
    """Where a storage lives, beyond the life of one process."""

    def open(self) -> Storage:
        """Open the storage, as the only process that has it."""
        ...

    def restart(self) -> Storage:
        """Kill the process that has it open, and open it again. What was not synced is lost or not."""
        ...


class MemoryDisk:
    """A ``MemoryStorage``, which outlives its crashes."""

    def __init__(self) -> None:
        self.storage = MemoryStorage(IDENTITY)

    def open(self) -> MemoryStorage:
        return self.storage

    def restart(self) -> MemoryStorage:
        self.storage.crash()
        return self.storage


class LmdbDisk:
    """An ``LmdbStorage``; a restart opens a copy of its files, taken without closing it, as a kill leaves them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._copies = 0
        self._storage: LmdbStorage | None = None

    def open(self) -> LmdbStorage:
        self._storage = open_lmdb_storage(self.path, IDENTITY.name, IDENTITY.incarnation, map_size_bytes=MAP_SIZE_BYTES)
        return self._storage

    def restart(self) -> LmdbStorage:
        self._copies += 1
        copy = self.path.with_name(f"{self.path.name}-{self._copies}")
        shutil.copytree(self.path, copy)
        self.close()
        self.path = copy
        return self.open()

    def close(self) -> None:
        if self._storage is not None:
            self._storage.close()


def entry(term: int, data: bytes = b"", *, stamp: int = 0, kind: EntryKind = EntryKind.COMMAND) -> Entry:
    return Entry(Term(term), kind, stamp, data)


def persist(
    *entries: Entry, first: int = 0, truncate_from: int | None = None, hard_state: HardState | None = None
) -> Persist:
    return Persist(
        seq=1,  # storages leave the order of seqs to their caller
        hard_state=hard_state,
        truncate_from=None if truncate_from is None else Index(truncate_from),
        first_index=Index(first),
        entries=entries,
    )


def snapshot_at(index: int, term: int = 0) -> Snapshot:
    """Return what a state of everything up to entry *index* holds; storages do not look at the rest."""
    return Snapshot(Index(index), Term(term), 0, BIRTH.configuration)


def in_term(term: int, voted_for: str | None = None) -> Persist:
    return persist(hard_state=HardState(Term(term), None if voted_for is None else NodeId(voted_for)))


def read_all(storage: Storage, last_index: int) -> tuple[Entry, ...]:
    return storage.read_log(Index(1), Index(last_index), 1 << 30) if last_index else ()
