"""A storage in memory with the manners of a disk: what was not synced, a crash loses.

For the simulator and for tests. ``persist`` and ``checkpoint`` are done at once, as ``Storage`` says;
the simulator takes them apart to put time, and crashes, between a write and its sync:

    write(batch) ─► in place, read_log sees it, a crash may lose it ─► sync() ─► durable
    write_checkpoint(...) ─► not seen by anybody yet ─► sync_checkpoint() ─► durable and seen

Log and state are synced one without the other, as the two environments of ``LmdbStorage`` are.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence

import attrs

from huton.kv.statemachine import StateReader
from huton.raft.effects import Persist
from huton.raft.types import Boot, Entry, HardState, Index, Term
from huton.storage.interface import Birth, CheckpointMeta, Identity
from huton.storage.rules import LogScan, check_batch, check_birth, check_checkpoint, make_boot

__all__ = ["MemoryStorage"]


@attrs.frozen
class _Undo:
    """How to take one unsynced write back: cut the log to ``length`` entries, put ``removed`` behind them."""

    hard_state: HardState
    length: int
    removed: list[Entry]


class MemoryStorage:
    """A ``Storage`` whose ``crash`` loses what was not synced.

    Args:
        identity: whose it is.
        birth: the cluster it is born into; None leaves that to ``save_birth``.
    """

    def __init__(self, identity: Identity, birth: Birth | None = None) -> None:
        self._identity = identity
        self._birth: Birth | None = None
        self._pledge: bytes | None = None
        self._hard_state = HardState()
        self._entries: list[Entry] = []  # entry i stands at position i - 1
        self._unsynced: list[_Undo] = []
        self._applied = Index(0)
        self._state = _MemoryState()
        self._unsynced_checkpoint: tuple[list[tuple[bytes, bytes | None]], CheckpointMeta] | None = None
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
        self.sync()

    def save_birth(self, birth: Birth) -> None:
        self._check_open()
        check_birth(self._birth, birth)
        self._birth = birth
        self._pledge = None
        self.sync()

    def recover(self) -> Boot:
        self._check_open()
        birth = self._require_birth()
        self.sync()
        log = LogScan()
        for entry in self._entries:
            log.add(entry.term, entry.stamp)
        return make_boot(birth, self._hard_state, log, self._applied)

    def persist(self, batch: Sequence[Persist]) -> None:
        self.write(batch)
        self.sync()

    def read_log(self, first: Index, last: Index, bytes_max: int) -> tuple[Entry, ...]:
        self._check_open()
        self._require_birth()
        if not 1 <= first <= len(self._entries):
            raise LookupError(f"entry {first} is not in the log")
        end = first
        size = len(self._entries[first - 1].data)
        for entry in self._entries[first:last]:
            size += len(entry.data)
            if size > bytes_max:
                break
            end = Index(end + 1)
        return tuple(self._entries[first - 1 : end])

    def state(self) -> StateReader:
        self._check_open()
        return self._state

    def checkpoint(self, changes: Iterable[tuple[bytes, bytes | None]], meta: CheckpointMeta) -> None:
        self.write_checkpoint(changes, meta)
        self.sync_checkpoint()

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
        return self._unsynced[0].hard_state if self._unsynced else self._hard_state

    def durable_term(self, index: Index) -> Term | None:
        """Return the term of entry *index* in the log that a crash now would leave, or None for no such entry."""
        for undo in self._unsynced:
            # The oldest write that touched this place knows what stood there before it.
            if index > undo.length:
                position = index - undo.length - 1
                return undo.removed[position].term if position < len(undo.removed) else None
        return self._entries[index - 1].term if index <= len(self._entries) else None

    @property
    def entries(self) -> tuple[Entry, ...]:
        """The log as it stands, synced or not, from entry 1 on."""
        return tuple(self._entries)

    def write(self, batch: Sequence[Persist]) -> None:
        """Carry out *batch* as one atomic write that a crash loses, unless ``sync`` comes first."""
        self._check_open()
        self._require_birth()
        end = check_batch(batch, self._hard_state, Index(len(self._entries)), self._applied)
        self._unsynced.append(_Undo(self._hard_state, end.untouched, self._entries[end.untouched :]))
        self._hard_state = end.hard_state
        for persist in batch:
            if persist.truncate_from is not None:
                del self._entries[persist.truncate_from - 1 :]
            self._entries.extend(persist.entries)

    def sync(self) -> None:
        """Make everything that was written to the log durable."""
        self._check_open()
        self._unsynced.clear()

    def write_checkpoint(self, changes: Iterable[tuple[bytes, bytes | None]], meta: CheckpointMeta) -> None:
        """Write a checkpoint that nobody sees before ``sync_checkpoint``.

        Raises:
            RuntimeError: the one before is not synced yet.
        """
        self._check_open()
        self._require_birth()
        check_checkpoint(meta, self._applied, Index(len(self._entries)))
        if self._unsynced_checkpoint is not None:
            raise RuntimeError("a checkpoint is written and not synced yet")
        self._unsynced_checkpoint = (list(changes), meta)

    def sync_checkpoint(self) -> None:
        """Make the written checkpoint, if there is one, durable and visible."""
        self._check_open()
        if self._unsynced_checkpoint is not None:
            changes, meta = self._unsynced_checkpoint
            self._unsynced_checkpoint = None
            self._state.change(changes)
            self._applied = meta.index

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
        for undo in reversed(self._unsynced[keep:]):
            self._hard_state = undo.hard_state
            self._entries[undo.length :] = undo.removed
        self._unsynced.clear()
        if keep_checkpoint:
            self.sync_checkpoint()
        self._unsynced_checkpoint = None

    def _check_open(self) -> None:
        if self._closed:
            raise ValueError("the storage is closed")

    def _require_birth(self) -> Birth:
        if self._birth is None:
            raise ValueError("this node is not yet born into a cluster")
        return self._birth


class _MemoryState:
    """A StateReader; dict and sorted keys are replaced by a checkpoint, never changed, so a scan may hold them."""

    def __init__(self) -> None:
        self.closed = False
        self._items: dict[bytes, bytes] = {}
        self._keys: list[bytes] = []

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
