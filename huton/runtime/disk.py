"""What a replica asks of its disk, carried out in threads, in the order and with the care that it needs.

- D2: persists are written in the order of their seq. All that are pending go into one atomic batch with one sync, while
  the next ones gather (group commit); a snapshot that takes the place of log and state is a batch of its own.
- D3: ``Persisted`` follows the sync: it is said after ``storage.persist`` has returned.
- D6: the first error of the disk is the last.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import NoReturn, cast

import trio

from huton.env import Env
from huton.errors import StorageError
from huton.raft.effects import DropSnapshot, Persist, PersistSnapshot, ReadLog
from huton.raft.events import LogRead, Persisted, SnapshotReceived
from huton.raft.types import Index, NodeId, Term
from huton.replica import Checkpoint, Checkpointed, Event, SnapshotPersisted
from huton.runtime.bell import Bell
from huton.storage.interface import SnapshotReader, SnapshotWriter, Storage

__all__ = ["Disk"]

log = logging.getLogger("huton.disk")


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
        happened_now: takes in an event before it returns.
        failed: ends this run because of an error, and returns what to raise. The number is the seq of the oldest
            ``Persist`` that is lost, 0 for none.
    """

    def __init__(
        self,
        env: Env,
        storage: Storage,
        *,
        happened: Callable[[Event], None],
        happened_now: Callable[[Event], None],
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
            await self._env.offload.run_sync(partial(self._storage.persist, batch))
        except (OSError, StorageError) as error:
            raise self._failed(batch[0].seq, error) from error
        self._happened(Persisted(batch[-1].seq))

    async def _restore(self, effect: PersistSnapshot) -> None:
        received = self._received[effect.source]
        async with self._changing:
            try:
                await self._env.offload.run_sync(partial(self._storage.restore, received.writer))
            except (OSError, StorageError) as error:
                raise self._failed(effect.seq, error) from error
            self._restored = effect.snapshot.index
            # From here on nobody reads what was replaced.
            self._happened_now(SnapshotPersisted(effect.seq, self._storage.state()))
        log.info("the state is now a snapshot of entry %d", effect.snapshot.index)
        self._received.pop(effect.source).end(taken=True)
        async with self._pinning:
            try:
                await self._env.offload.run_sync(self._storage.release_replaced)
            except OSError as error:
                log.error("a state that was replaced can't be deleted: %s", error)

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
                    await self._write_checkpoint(self._checkpoints.popleft())

    async def _write_checkpoint(self, effect: Checkpoint) -> None:
        if effect.snapshot.index <= self._restored:
            return  # It is of a state that was replaced.
        try:
            await self._env.offload.run_sync(partial(self._storage.checkpoint, effect.changes, effect.snapshot))
        except (OSError, StorageError) as error:
            raise self._failed(0, error) from error
        log.debug("wrote a checkpoint of entry %d", effect.snapshot.index)
        self._happened(Checkpointed(effect.snapshot))
