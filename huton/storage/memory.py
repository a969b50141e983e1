"""A storage in memory with the manners of a disk: what was not synced, a crash loses.

For the simulator and for tests. ``persist``, ``restore`` and ``checkpoint`` are done at once, as ``Storage`` says;
the simulator takes them apart to put time, and crashes, between a write and its sync:

    write(batch), write_restore(received) ─► read_log sees it, a crash may lose it ─► sync() ─► durable
    write_checkpoint(...) ─► not seen by anybody yet ─► sync_checkpoint() ─► durable and seen

Log and state are synced one without the other, as the two environments of ``LmdbStorage`` are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from hashlib import blake2b

import attrs

from huton.errors import CorruptRecord
from huton.raft.effects import Persist
from huton.raft.types import Boot, Entry, HardState, Index, Snapshot, Term
from huton.storage.interface import Birth, Identity, LiveState, PinnedState, Room, SnapshotReader, SnapshotWriter
from huton.storage.rules import LogEnds, LogScan, check_batch, check_birth, check_checkpoint, make_boot

__all__ = ["MemoryStorage"]

DIGEST_BYTES = 32

ENDLESS = Room(log=1 << 62, state=1 << 62, state_used=0, reserve=0)


class MemoryStorage:
    """A ``Storage`` whose ``crash`` loses what was not synced.

    Invariant: ``_written`` is ``_durable`` after all ``_unsynced`` writes, in order.

    Args:
        identity: whose it is.
        birth: the cluster it is born into; None leaves that to ``save_birth``.
    """

    def __init__(self, identity: Identity, birth: Birth | None = None) -> None:
        self._identity = identity
        self._birth: Birth | None = None
        self._pledge: bytes | None = None
        self._durable: _Log
        self._written: _Log
        self._unsynced: list[Sequence[Persist] | _MemoryWriter] = []
        self._applied = Index(0)
        self._checkpoint: Snapshot
        self._state = _MemoryState()
        self._unsynced_checkpoint: tuple[list[tuple[bytes, bytes | None]], Snapshot] | None = None
        self._closed = False
        if birth is not None:
            self.save_birth(birth)

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
        self._check_open()
        self._pledge = pledge

    def save_birth(self, birth: Birth) -> None:
        self._check_open()
        check_birth(self._birth, birth)
        if self._birth is None:
            self._birth = birth
            base = self._checkpoint = Snapshot(Index(0), Term(0), 0, birth.configuration)
            self._durable, self._written = _Log(base), _Log(base)
        self._pledge = None

    def room(self) -> Room:
        return ENDLESS

    def recover(self) -> Boot:
        self._require_birth()
        self.sync()
        log = LogScan(self._durable.base)
        for entry in self._durable.entries:
            log.add(entry.term, entry.stamp, len(entry.data))
        return make_boot(self._durable.hard_state, log, self._applied)

    def persist(self, batch: Sequence[Persist]) -> None:
        self.write(batch)
        self.sync()

    def read_log(self, first: Index, last: Index, bytes_max: int) -> tuple[Entry, ...]:
        self._require_birth()
        log = self._written
        begin = first - log.base.index - 1
        if not 0 <= begin < len(log.entries):
            raise LookupError(f"entry {first} is not in the log")
        end = begin + 1
        size = len(log.entries[begin].data)
        for entry in log.entries[end : last - log.base.index]:
            size += len(entry.data)
            if size > bytes_max:
                break
            end += 1
        return tuple(log.entries[begin:end])

    def state(self) -> LiveState:
        self._check_open()
        return self._state

    def checkpoint(self, changes: Iterable[tuple[bytes, bytes | None]], snapshot: Snapshot) -> None:
        self.write_checkpoint(changes, snapshot)
        self.sync_checkpoint()

    def read_snapshot(self) -> SnapshotReader:
        self._require_birth()
        return _MemoryReader(self._checkpoint, self._state)

    def write_snapshot(self, snapshot: Snapshot, size: int, digest: bytes) -> SnapshotWriter:
        self._require_birth()
        return _MemoryWriter(snapshot, size, digest)

    def restore(self, received: SnapshotWriter) -> None:
        self.write_restore(received)
        self.sync()

    def release_replaced(self) -> bool:
        self._check_open()
        return True

    def close(self) -> None:
        self._closed = True
        self._state.closed = True

    # ------------------------------------------------------------------ the simulated disk

    @property
    def unsynced(self) -> int:
        """How many writes a crash may lose."""
        return len(self._unsynced)

    @property
    def durable_hard_state(self) -> HardState:
        """The term and vote that a crash now would leave."""
        return self._durable.hard_state

    @property
    def durable_last_index(self) -> Index:
        """The last entry that a crash now would leave, or that a state stands for."""
        return self._durable.last_index

    def durable_term_at(self, index: Index) -> Term | None:
        """Return the term of the entry that a crash now would leave at *index*, None where the log has none."""
        return self._durable.term_at(index)

    def holds(self, index: Index, term: Term) -> bool:
        """Return whether a crash now would leave the entry of *term* at *index*, or a state that holds it.

        A state stands for committed entries only, and of those there is one at each index.
        """
        return index < self._durable.base.index or self._durable.term_at(index) == term

    @property
    def base(self) -> Snapshot:
        """What stands before ``entries``."""
        return self._written.base

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The log as it stands, synced or not."""
        return tuple(self._written.entries)

    def write(self, batch: Sequence[Persist]) -> None:
        """Carry out *batch* as one atomic write that a crash loses, unless ``sync`` comes first."""
        self._require_birth()
        self._written.write(batch, self._applied)
        self._unsynced.append(batch)

    def write_restore(self, received: SnapshotWriter) -> None:
        """Restore *received* as one atomic write that a crash loses, unless ``sync`` comes first."""
        self._require_birth()
        assert isinstance(received, _MemoryWriter)
        received.check_finished()
        self._written.begin_anew(received.snapshot)
        self._unsynced.append(received)

    def sync(self) -> None:
        """Make everything that was written to the log durable, and a restored state seen."""
        self._check_open()
        self._keep(len(self._unsynced))

    def _keep(self, count: int) -> None:
        """Make the oldest *count* writes durable."""
        for written in self._unsynced[:count]:
            if isinstance(written, _MemoryWriter):
                self._durable.begin_anew(written.snapshot)
                self._state = _MemoryState(written.items())
                self._checkpoint = written.snapshot
                self._applied = written.snapshot.index
                # It was of the state that is no more.
                self._unsynced_checkpoint = None
            else:
                self._durable.write(written, self._applied)
        del self._unsynced[:count]

    def write_checkpoint(self, changes: Iterable[tuple[bytes, bytes | None]], snapshot: Snapshot) -> None:
        """Write a checkpoint that nobody sees before ``sync_checkpoint``.

        Raises:
            RuntimeError: the one before is not synced yet.
        """
        self._require_birth()
        check_checkpoint(snapshot, self._applied, self._written.last_index)
        if self._unsynced_checkpoint is not None:
            raise RuntimeError("a checkpoint is written and not synced yet")
        self._unsynced_checkpoint = (list(changes), snapshot)

    def sync_checkpoint(self) -> None:
        """Make the written checkpoint, if there is one, durable and visible."""
        self._check_open()
        if self._unsynced_checkpoint is not None:
            changes, self._checkpoint = self._unsynced_checkpoint
            self._unsynced_checkpoint = None
            self._state.change(changes)
            self._applied = self._checkpoint.index

    def crash(self, keep: int = 0, *, keep_checkpoint: bool = False) -> None:
        """Lose what was not synced; then this is what the next process finds, as if just opened.

        Args:
            keep: how many of the ``unsynced`` writes reached the disk all the same; the oldest ones,
                for each is one atomic transaction on top of the one before.
            keep_checkpoint: whether a checkpoint that was written and not synced reached the disk.
        """
        if not 0 <= keep <= len(self._unsynced):
            raise ValueError(f"{keep} of {len(self._unsynced)} unsynced writes can't be kept")
        self._closed = self._state.closed = False
        if keep_checkpoint:
            self.sync_checkpoint()
        self._unsynced_checkpoint = None
        if self._birth is not None:
            self._keep(keep)
            self._unsynced.clear()
            self._written = self._durable.copy()

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the storage is closed")

    def _require_birth(self) -> Birth:
        self._check_open()
        if self._birth is None:
            raise ValueError("this node is not yet born into a cluster")
        return self._birth


class _Log:
    """Hard state and entries; entry ``base.index + 1 + i`` stands at position i."""

    def __init__(self, base: Snapshot) -> None:
        self.hard_state = HardState()
        self.base = base
        self.entries: list[Entry] = []

    @property
    def last_index(self) -> Index:
        return Index(self.base.index + len(self.entries))

    def term_at(self, index: Index) -> Term | None:
        if index == self.base.index:
            return self.base.term
        position = index - self.base.index - 1
        return self.entries[position].term if 0 <= position < len(self.entries) else None

    def write(self, batch: Sequence[Persist], applied: Index) -> None:
        end = check_batch(batch, LogEnds(self.hard_state, self.base, self.last_index), applied)
        self.hard_state = end.hard_state
        for persist in batch:
            if persist.truncate_from is not None:
                del self.entries[persist.truncate_from - self.base.index - 1 :]
            self.entries.extend(persist.entries)
            if persist.compact_to is not None:
                del self.entries[: persist.compact_to.index - self.base.index]
                self.base = persist.compact_to

    def begin_anew(self, base: Snapshot) -> None:
        self.base = base
        self.entries = []

    def copy(self) -> _Log:
        copy = _Log(self.base)
        copy.hard_state = self.hard_state
        copy.entries = self.entries.copy()
        return copy


class _MemoryReader:
    """A ``SnapshotReader``: keys and values, each behind its length of four bytes."""

    def __init__(self, snapshot: Snapshot, state: _MemoryState) -> None:
        self.snapshot = snapshot
        items = state.scan(b"", None)
        self._data = b"".join(len(part).to_bytes(4, "big") + part for item in items for part in item)
        self.size = len(self._data)
        self.digest = blake2b(self._data, digest_size=DIGEST_BYTES).digest()

    def read(self, offset: int, size: int) -> bytes:
        return self._data[offset : offset + size]

    def close(self) -> None:
        self._data = b""


@attrs.define
class _MemoryWriter:
    """A ``SnapshotWriter``; what it has written stays in memory until it is restored."""

    snapshot: Snapshot
    _size: int
    _digest: bytes
    _data: bytearray = attrs.field(factory=bytearray, init=False)
    _finished: bool = attrs.field(default=False, init=False)

    def write(self, data: bytes) -> None:
        if len(self._data) + len(data) > self._size:
            raise CorruptRecord(f"a snapshot of {self._size} bytes goes on")
        self._data += data

    def finish(self) -> None:
        if len(self._data) != self._size or blake2b(self._data, digest_size=DIGEST_BYTES).digest() != self._digest:
            raise CorruptRecord("a snapshot is not what was announced")
        self._finished = True

    def close(self) -> None:
        self._data.clear()
        self._finished = False

    def check_finished(self) -> None:
        if not self._finished:
            raise ValueError("only a finished snapshot can be restored")

    def items(self) -> dict[bytes, bytes]:
        parts, at = [], 0
        while at < len(self._data):
            end = at + 4 + int.from_bytes(self._data[at : at + 4], "big")
            parts.append(bytes(self._data[at + 4 : end]))
            at = end
        return dict(zip(parts[::2], parts[1::2], strict=True))


class _MemoryState:
    """A LiveState; dict and sorted keys are replaced by a checkpoint, never changed, so a scan or pin may hold them."""

    def __init__(self, items: dict[bytes, bytes] | None = None) -> None:
        self.closed = False
        self._items = items or {}
        self._keys = sorted(self._items)

    def pin(self) -> PinnedState:
        if self.closed:
            raise ValueError("the storage is closed")
        pinned = _MemoryState()
        pinned._items, pinned._keys = self._items, self._keys
        return pinned

    def close(self) -> None:
        """Let go of what was pinned."""
        self.closed = True

    def get(self, key: bytes) -> bytes | None:
        if self.closed:
            raise ValueError("the storage is closed")
        return self._items.get(key)

    def scan(self, start: bytes, stop: bytes | None, *, reverse: bool = False) -> Iterator[tuple[bytes, bytes]]:
        if self.closed:
            raise ValueError("the storage is closed")
        items, keys = self._items, self._keys
        low = bisect_left(keys, start)
        high = max(low, len(keys) if stop is None else bisect_left(keys, stop))
        positions = range(high - 1, low - 1, -1) if reverse else range(low, high)
        return ((keys[position], items[keys[position]]) for position in positions)

    def change(self, changes: Iterable[tuple[bytes, bytes | None]]) -> None:
        """Carry out *changes*; None deletes."""
        items = self._items.copy()
        for key, value in changes:
            if value is None:
                items.pop(key, None)
            else:
                items[key] = value
        self._items, self._keys = items, sorted(items)
