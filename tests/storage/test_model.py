"""Both storages in step with a plain model, crashed at random points.

The memory storage writes first and syncs later, as the simulator does. The real one always syncs; so it gets
each write when the memory storage syncs it, or when a crash kept it. After each step both must hold what the
model holds: three lists and a dict.
"""

from __future__ import annotations

import copy
import tempfile
from pathlib import Path

import attrs
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from huton.raft.effects import Persist
from huton.raft.types import Entry, HardState, Index, NodeId, Term
from huton.storage.interface import Storage
from tests.storage.harness import BIRTH, LmdbDisk, MemoryDisk, entry, persist, read_all, snapshot_at

Changes = list[tuple[bytes, "bytes | None"]]

KEYS = st.sampled_from([b"a", b"b", b"bb", b"c\0", b"\xff"])
CHANGES = st.dictionaries(KEYS, st.none() | st.binary(max_size=3), max_size=5).map(lambda items: sorted(items.items()))


@attrs.define
class Model:
    """What a disk holds, as plainly as it can be said."""

    hard_state: HardState = attrs.Factory(HardState)
    entries: list[Entry] = attrs.Factory(list)
    state: dict[bytes, bytes] = attrs.Factory(dict)
    applied: int = 0

    def write(self, batch: list[Persist]) -> None:
        for item in batch:
            if item.hard_state is not None:
                self.hard_state = item.hard_state
            if item.truncate_from is not None:
                self.entries = self.entries[: item.truncate_from - 1]
            self.entries = [*self.entries, *item.entries]

    def checkpoint(self, changes: Changes, index: int) -> None:
        self.state = {key: value for key, value in (self.state | dict(changes)).items() if value is not None}
        self.applied = index

    def check(self, storage: Storage) -> None:
        boot = storage.recover()
        assert boot.hard_state == self.hard_state
        assert boot.last_index == len(self.entries)
        assert boot.last_stamp == (self.entries[-1].stamp if self.entries else 0)
        assert boot.applied == self.applied
        terms = [item.term for item in self.entries]
        starts = [at for at, term in enumerate(terms) if at == 0 or terms[at - 1] != term]
        assert [(run.first_index, run.term) for run in boot.term_runs] == [(at + 1, terms[at]) for at in starts]
        self.check_log(storage)
        assert list(storage.state().scan(b"", None)) == sorted(self.state.items())
        assert storage.state().get(b"a") == self.state.get(b"a")

    def check_log(self, storage: Storage) -> None:
        assert read_all(storage, len(self.entries)) == tuple(self.entries)


class StorageMachine(RuleBasedStateMachine):
    """Drives both; ``durable`` is what a crash must leave, ``written`` what a reader of the log sees."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.lmdb_disk = LmdbDisk(Path(self.directory.name) / "data")
        self.memory_disk = MemoryDisk()
        self.real: Storage = self.lmdb_disk.open()
        self.memory = self.memory_disk.open()
        self.real.save_birth(BIRTH)
        self.memory.save_birth(BIRTH)
        self.durable = Model()
        self.written = Model()
        self.unsynced: list[list[Persist]] = []
        self.unsynced_checkpoint: tuple[Changes, int] | None = None
        self.stamp = 0

    def teardown(self) -> None:
        self.lmdb_disk.close()
        self.directory.cleanup()

    def draw_persist(self, data: st.DataObject, model: Model) -> Persist:
        """Draw what a core could ask for after *model*, and carry it out there."""
        term = model.hard_state.term
        hard_state = None
        if data.draw(st.booleans()):
            term = Term(term + data.draw(st.integers(0, 2)))
            hard_state = HardState(term, data.draw(st.sampled_from([None, NodeId("n1#01"), NodeId("n2#02")])))
        # What is applied, or on its way into a checkpoint, is committed: no core cuts it off.
        applied = self.durable.applied if self.unsynced_checkpoint is None else self.unsynced_checkpoint[1]
        cut = data.draw(st.none() | st.integers(applied + 1, len(model.entries) + 1))
        kept = len(model.entries) if cut is None else cut - 1
        lowest = model.entries[kept - 1].term if kept else 0
        entries = []
        for entry_term in sorted(data.draw(st.lists(st.integers(lowest, term), max_size=4))):
            self.stamp += 1
            entries.append(entry(entry_term, data.draw(st.binary(max_size=4)), stamp=self.stamp))
        item = persist(*entries, first=kept + 1, truncate_from=cut, hard_state=hard_state)
        model.write([item])
        return item

    @rule(data=st.data(), size=st.integers(0, 3))
    def write(self, data: st.DataObject, size: int) -> None:
        batch = [self.draw_persist(data, self.written) for _ in range(size)]
        self.memory.write(batch)
        self.unsynced.append(batch)

    @rule()
    def sync(self) -> None:
        self.memory.sync()
        self.keep(len(self.unsynced))

    def keep(self, count: int) -> None:
        """The oldest *count* unsynced writes are durable now."""
        for batch in self.unsynced[:count]:
            self.real.persist(batch)
            self.durable.write(batch)
        del self.unsynced[:count]

    @precondition(lambda self: self.unsynced_checkpoint is None)
    @rule(data=st.data(), changes=CHANGES)
    def write_checkpoint(self, data: st.DataObject, changes: Changes) -> None:
        # Applied is what is durable (R7) and not about to be cut off by a write that is not synced yet.
        lowest = self.durable.applied
        cuts = [item.truncate_from - 1 for batch in self.unsynced for item in batch if item.truncate_from is not None]
        index = data.draw(st.integers(lowest, min([len(self.durable.entries), *cuts])))
        self.memory.write_checkpoint(changes, snapshot_at(index))
        self.unsynced_checkpoint = changes, index

    @rule()
    def sync_checkpoint(self) -> None:
        self.memory.sync_checkpoint()
        self.keep_checkpoint()

    def keep_checkpoint(self) -> None:
        if self.unsynced_checkpoint is not None:
            changes, index = self.unsynced_checkpoint
            self.real.checkpoint(changes, snapshot_at(index))
            for model in (self.durable, self.written):
                model.checkpoint(changes, index)
            self.unsynced_checkpoint = None

    @rule(data=st.data(), keep_checkpoint=st.booleans())
    def crash(self, data: st.DataObject, keep_checkpoint: bool) -> None:
        assert self.memory.unsynced == len(self.unsynced)
        count = data.draw(st.integers(0, len(self.unsynced)))
        self.memory.crash(count, keep_checkpoint=keep_checkpoint)
        self.keep(count)
        if keep_checkpoint:
            self.keep_checkpoint()
        self.unsynced.clear()
        self.unsynced_checkpoint = None
        self.written = copy.deepcopy(self.durable)
        self.real = self.lmdb_disk.restart()
        self.durable.check(self.memory)

    @rule(first=st.integers(1, 12), last=st.integers(1, 12), bytes_max=st.integers(0, 12))
    def read_log(self, first: int, last: int, bytes_max: int) -> None:
        expected = self.written.entries[first - 1 : first]
        for item in self.written.entries[first : max(first, last)]:
            if sum(len(entry.data) for entry in [*expected, item]) > bytes_max:
                break
            expected.append(item)
        if expected:
            assert list(self.memory.read_log(Index(first), Index(last), bytes_max)) == expected
            if not self.unsynced:
                assert list(self.real.read_log(Index(first), Index(last), bytes_max)) == expected

    @invariant()
    def both_hold_what_the_model_holds(self) -> None:
        self.durable.check(self.real)
        self.written.check_log(self.memory)
        assert list(self.memory.state().scan(b"", None)) == sorted(self.durable.state.items())


TestStorageMachine = StorageMachine.TestCase
TestStorageMachine.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
