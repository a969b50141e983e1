"""What a replica asks of its disk, carried out in threads, in the order and with the care that it needs.

- D2: persists are written in the order of their seq. All that are pending go into one atomic batch with one sync, while
  the next ones gather (group commit); a snapshot that takes the place of log and state is a batch of its own.
- D3: ``Persisted`` follows the sync: it is said after ``storage.persist`` has returned.
- D6: the first error of the disk is the last. Before a write of commands or a checkpoint begins there has to be room
  for it; if not, it is put off, and the replica hears of it.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable, Sequence
from functools import partial
from typing import Final, NoReturn, cast

import attrs
import trio

from huton.env import Env
from huton.errors import NoRoom, StorageError
from huton.raft.effects import DropSnapshot, Persist, PersistSnapshot, ReadLog
from huton.raft.events import LogRead, PersistDeferred, Persisted, RoomChanged, SnapshotReceived
from huton.raft.types import EntryKind, Index, NodeId, Term
from huton.replica import Checkpoint, Checkpointed, Event, SnapshotPersisted
from huton.runtime.bell import Bell
from huton.storage.interface import Room, SnapshotReader, SnapshotWriter, Storage

__all__ = ["Disk"]

log = logging.getLogger("huton.disk")

ROOM_POLL_NS: Final = 1_000_000_000
"""How often a full disk is asked whether there is room again."""

RELEASE_POLL_NS: Final = 1_000_000_000
"""How often it is asked whether a view still shows a state that was replaced."""

PAGE_BYTES: Final = 4096
RECORD_BYTES: Final = 100
PAGES_BYTES: Final = 32 * PAGE_BYTES
"""What any write takes beside its records: the inner pages of a tree, and the list of free ones."""


class _Received:
    """A snapshot that has arrived, and the task that waits to hear what becomes of it."""

    __slots__ = ("ended", "taken", "writer")

    def __init__(self, writer: SnapshotWriter) -> None:
        self.writer = writer
        self.ended = trio.Event()
        self.taken = False

    def end(self, *, taken: bool) -> None:
        self.writer.close()
        self.taken = taken
        self.ended.set()


class Disk:
    """The storage of a node that is born, and what is to be done there.

    Args:
        env: threads.
        storage: what is written to and read from.
        happened: takes in an event, sooner or later.
        happened_now: takes in everything that has happened, and then these events, before it returns.
        failed: ends this run because of an error, and returns what to raise. The number is the seq of the oldest
            ``Persist`` that is lost, 0 for none.
    """

    def __init__(
        self,
        env: Env,
        storage: Storage,
        *,
        happened: Callable[[Event], None],
        happened_now: Callable[..., None],
        failed: Callable[[int, Exception], StorageError],
    ) -> None:
        self._env = env
        self._storage = storage
        self._happened = happened
        self._happened_now = happened_now
        self._failed = failed
        self._persists: deque[Persist | PersistSnapshot] = deque()
        self._persists_bell = Bell()
        self._checkpoints: deque[Checkpoint] = deque()
        self._checkpoints_bell = Bell()
        self._log_reads: deque[ReadLog] = deque()
        self._log_reads_bell = Bell()
        self._received: dict[int, _Received] = {}
        self._last_source = 0
        # Held by whoever changes the state: a checkpoint, or a snapshot that takes its place.
        self._changing = trio.Lock()
        # Held by whoever copies a state, or deletes one.
        self._pinning = trio.Lock()
        self._restored = Index(0)
        self._replaced_bell = Bell()
        self._full = False
        self._full_bell = Bell()
        self._over = False

    async def run(self) -> None:
        """Carry out what is asked for until cancelled.

        Raises:
            StorageError: the disk failed.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write_log)
                nursery.start_soon(self._write_checkpoints)
                nursery.start_soon(self._read_log)
                nursery.start_soon(self._wait_for_room)
                nursery.start_soon(self._release_replaced)
        finally:
            self._over = True
            received, self._received = self._received, {}
            for snapshot in received.values():
                snapshot.end(taken=False)

    # ------------------------------------------------------------------ what the replica asks for

    def persist(self, effect: Persist | PersistSnapshot) -> None:
        """Write to the log, or put a snapshot in the place of log and state."""
        self._persists.append(effect)
        self._persists_bell.ring()

    def checkpoint(self, effect: Checkpoint) -> None:
        """Write the state."""
        self._checkpoints.append(effect)
        self._checkpoints_bell.ring()

    def read_log(self, effect: ReadLog) -> None:
        """Read entries."""
        self._log_reads.append(effect)
        self._log_reads_bell.ring()

    def drop_snapshot(self, effect: DropSnapshot) -> None:
        """Forget a snapshot that was received."""
        self._received.pop(effect.source).end(taken=effect.needless)

    # ------------------------------------------------------------------ snapshots on their way

    @property
    def restoring(self) -> bool:
        """Whether a snapshot has arrived that is neither restored nor dropped."""
        return bool(self._received)

    async def read_snapshot(self) -> SnapshotReader:
        """See ``Storage``."""
        async with self._pinning:
            return await self._env.offload.run_sync(self._storage.read_snapshot)

    async def take_snapshot(self, sender: NodeId, term: Term, writer: SnapshotWriter) -> bool:
        """Hand over a snapshot of *sender*, who leads *term*; return whether it is on disk, or was not needed.

        From now on *writer* is closed here.
        """
        received = _Received(writer)
        if self._over:
            received.end(taken=False)
        else:
            self._last_source += 1
            self._received[self._last_source] = received
            self._happened(SnapshotReceived(sender, term, writer.snapshot, self._last_source))
        await received.ended.wait()
        return received.taken

    # ------------------------------------------------------------------ the log

    async def _write_log(self) -> NoReturn:
        while True:
            await self._persists_bell.wait()
            while self._persists:
                if isinstance(self._persists[0], PersistSnapshot):
                    await self._restore(cast("PersistSnapshot", self._persists.popleft()))
                else:
                    await self._write(self._take_batch())

    def _take_batch(self) -> list[Persist]:
        """Take everything that waits for the log, up to the next snapshot."""
        batch: list[Persist] = []
        while self._persists and isinstance(self._persists[0], Persist):
            batch.append(cast("Persist", self._persists.popleft()))
        return batch

    async def _write(self, batch: list[Persist]) -> None:
        try:
            room = await self._env.offload.run_sync(partial(self._persist, batch))
        except (OSError, StorageError) as error:
            raise self._failed(batch[0].seq, error) from error
        if room is None:
            await self._defer(batch)
            return
        self._happened(Persisted(batch[-1].seq))
        if room.log < 0:
            self._no_room("the log")

    def _persist(self, batch: Sequence[Persist]) -> Room | None:
        """Write *batch*, in a thread; return how much room there was before, or None if there is none for it."""
        room = self._storage.room()
        size = _commands_size(batch)
        if size and size > room.log:
            return None
        try:
            self._storage.persist(batch)
        except NoRoom:
            if size:
                return None
            raise
        return room

    async def _defer(self, batch: list[Persist]) -> None:
        """There is no room for *batch*: begin anew from what is on disk, without it and what came after it."""
        # Whatever has happened meanwhile may ask for more writes. From here on nothing else does.
        self._happened_now()
        if any(isinstance(effect, PersistSnapshot) for effect in self._persists):
            # A snapshot takes the place of the whole log, and of these entries with it.
            await self._write(
                [attrs.evolve(persist, truncate_from=None, entries=(), compact_to=None) for persist in batch]
            )
            return
        self._persists.clear()
        self._say_full("the log")
        self._happened_now(PersistDeferred(batch[0].seq))

    # ------------------------------------------------------------------ room

    def _no_room(self, what: str) -> None:
        """There is too little room from now on, as far as the replica does not know that yet."""
        if not self._full:
            self._say_full(what)
            self._happened(RoomChanged(enough=False))

    def _say_full(self, what: str) -> None:
        if not self._full:
            log.error("no room for %s: no more writes until there is; reads go on", what)
        self._full = True
        self._full_bell.ring()

    async def _wait_for_room(self) -> NoReturn:
        while True:
            await self._full_bell.wait()
            while self._full:
                await self._env.clock.sleep_until(self._env.clock.now() + ROOM_POLL_NS)
                room = await self._env.offload.run_sync(self._storage.room)
                # More than enough, lest it be over again at once.
                if min(room.log, room.state) > room.reserve // 2:
                    log.info("there is room again")
                    self._full = False
                    self._happened(RoomChanged(enough=True))
                    self._checkpoints_bell.ring()

    async def _restore(self, effect: PersistSnapshot) -> None:
        received = self._received[effect.source]
        async with self._changing:
            try:
                await self._env.offload.run_sync(partial(self._storage.restore, received.writer))
            except (OSError, StorageError) as error:
                raise self._failed(effect.seq, error) from error
            self._restored = effect.snapshot.index
            # From here on nobody but views that are open reads what was replaced.
            self._happened_now(SnapshotPersisted(effect.seq, self._storage.state()))
        log.info("the state is now a snapshot of entry %d", effect.snapshot.index)
        self._received.pop(effect.source).end(taken=True)
        self._replaced_bell.ring()

    async def _release_replaced(self) -> NoReturn:
        """Delete states that were replaced, once no view shows them any more."""
        while True:
            await self._replaced_bell.wait()
            while not await self._release():
                await self._env.clock.sleep_until(self._env.clock.now() + RELEASE_POLL_NS)

    async def _release(self) -> bool:
        async with self._pinning:
            try:
                return await self._env.offload.run_sync(self._storage.release_replaced)
            except OSError as error:
                log.error("a state that was replaced can't be deleted: %s", error)
                return True

    async def _read_log(self) -> NoReturn:
        while True:
            await self._log_reads_bell.wait()
            while self._log_reads:
                wanted = self._log_reads.popleft()
                read = partial(self._storage.read_log, wanted.first_index, wanted.last_index, wanted.bytes_max)
                try:
                    entries = await self._env.offload.run_sync(read)
                except LookupError:
                    continue  # Truncated or compacted meanwhile: who asked knows, and asks for something else.
                except (OSError, StorageError) as error:
                    raise self._failed(0, error) from error
                self._happened(LogRead(wanted.first_index, entries))

    # ------------------------------------------------------------------ the state

    async def _write_checkpoints(self) -> NoReturn:
        while True:
            await self._checkpoints_bell.wait()
            while self._checkpoints:
                async with self._changing:
                    written = await self._write_checkpoint(self._checkpoints[0])
                if not written:
                    self._no_room("a checkpoint")
                    break  # The bell rings when there is room.
                self._checkpoints.popleft()

    async def _write_checkpoint(self, effect: Checkpoint) -> bool:
        """Write the checkpoint, unless it is of a state that was replaced; return False if there is no room for it."""
        if effect.snapshot.index <= self._restored:
            return True
        try:
            if not await self._env.offload.run_sync(partial(self._checkpoint, effect)):
                return False
        except (OSError, StorageError) as error:
            raise self._failed(0, error) from error
        log.debug("wrote a checkpoint of entry %d", effect.snapshot.index)
        self._happened(Checkpointed(effect.snapshot))
        return True

    def _checkpoint(self, effect: Checkpoint) -> bool:
        room = self._storage.room()
        if _changes_size(effect, room) > room.state:
            return False
        try:
            self._storage.checkpoint(effect.changes, effect.snapshot)
        except NoRoom:
            return False
        return True


def _commands_size(batch: Sequence[Persist]) -> int:
    """Return about how many bytes *batch* adds to the log; 0 if no command is in it."""
    entries = [entry for persist in batch for entry in persist.entries]
    if all(entry.kind is not EntryKind.COMMAND for entry in entries):
        return 0
    return sum(_page_size(len(entry.data)) for entry in entries) + PAGES_BYTES


def _changes_size(effect: Checkpoint, room: Room) -> int:
    """Return about how many bytes *effect* needs: each page that it touches is written anew, beside the old one."""
    added = sum(_page_size(len(key) + len(value or b"")) for key, value in effect.changes)
    return added + min(room.state_used, len(effect.changes) * PAGE_BYTES) + PAGES_BYTES


def _page_size(size: int) -> int:
    """Return what a record of *size* bytes of data takes; large ones have pages of their own."""
    return size + RECORD_BYTES if size < PAGE_BYTES // 2 else size + PAGE_BYTES
