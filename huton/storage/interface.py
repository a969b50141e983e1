"""What huton asks of a disk. One contract suite runs over every implementation.

A storage is two things: the *log* (hard state, entries, identity, birth), which is the authority and is
synced batch by batch, and the *state*, which is written behind, one synced checkpoint at a time. After a
crash the state is the last checkpoint, and the log above it is applied again. A snapshot is a checkpoint as
bytes: what one node reads piece by piece another one writes, and puts in the place of its own state and log.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol

import attrs

from huton.kv.statemachine import StateReader
from huton.raft.effects import Persist
from huton.raft.types import Boot, Configuration, Entry, Index, NodeId, Snapshot

__all__ = ["Birth", "Identity", "LiveState", "PinnedState", "Room", "SnapshotReader", "SnapshotWriter", "Storage"]


@attrs.frozen
class Identity:
    """Whose data directory this is; made with it and never changed.

    Attributes:
        name: the member's name, unique in its cluster.
        incarnation: 16 random bytes, drawn when the directory was made.
    """

    name: str
    incarnation: bytes

    @property
    def node_id(self) -> NodeId:
        return NodeId(f"{self.name}#{self.incarnation.hex()}")


@attrs.frozen
class Birth:
    """The cluster that this node belongs to, and the members it began with.

    Attributes:
        cluster_id: 16 random bytes, drawn by whoever proposed the birth.
        configuration: the first configuration: what stands at index 0 of every member's log.
    """

    cluster_id: bytes
    configuration: Configuration


class PinnedState(StateReader, Protocol):
    """A state as it was when it was pinned, whatever is written since. From ``LiveState.pin``."""

    def close(self) -> None:
        """Let go of it; every later call fails with ``ValueError``. Idempotent."""
        ...


class LiveState(StateReader, Protocol):
    """A state that changes: each call sees what it is now."""

    def pin(self) -> PinnedState:
        """Return the state as it is now.

        While it is open the disk keeps what it shows, beside everything that is written since.
        """
        ...


class SnapshotReader(Protocol):
    """A checkpoint as bytes, from when it was asked for; later ones do not change it. Blocking calls."""

    @property
    def snapshot(self) -> Snapshot:
        """What it holds."""
        ...

    @property
    def size(self) -> int:
        """How many bytes it has."""
        ...

    @property
    def digest(self) -> bytes:
        """BLAKE2b of all of them, 32 bytes."""
        ...

    def read(self, offset: int, size: int) -> bytes:
        """Return *size* bytes from *offset* on; fewer only at the end."""
        ...

    def close(self) -> None:
        """Let go of its room on the disk. Idempotent."""
        ...


class SnapshotWriter(Protocol):
    """A snapshot that arrives, to be seen by nobody before it is whole and restored. Blocking calls."""

    @property
    def snapshot(self) -> Snapshot:
        """What it holds, as its sender says."""
        ...

    def write(self, data: bytes) -> None:
        """Add *data*, the next bytes.

        Raises:
            CorruptRecord: they are more than were announced.
        """
        ...

    def finish(self) -> None:
        """Check that it is whole and what was announced, and sync it.

        Raises:
            CorruptRecord: it is not.
        """
        ...

    def close(self) -> None:
        """Let go of its room on the disk, unless it was restored. Idempotent."""
        ...


@attrs.frozen
class Room:
    """How many bytes may still be written before what is held in reserve is touched; negative if it is.

    Attributes:
        log, state: to each of them. One disk may be under both.
        state_used: what the state takes now: no checkpoint writes more than that and its changes.
        reserve: what is held back, for writes that a member can't do without.
    """

    log: int
    state: int
    state_used: int
    reserve: int


class Storage(Protocol):
    """Blocking calls, from one thread at a time each for the log and the state.

    ``persist``, ``restore``, ``save_birth`` and ``save_pledge`` have one caller at a time, so have ``checkpoint``
    and ``restore``; log and state may be written beside each other and beside any reader. Whatever returns is on
    disk and synced.

    Raises (any call):
        CorruptRecord: a record that fails its checksum was met; the message names it.
        OSError: the disk failed; every later write to the same part (log or state) fails, too, for nothing may be
            tried again after a failed sync (D6).
        NoRoom: it is full; nothing was written. Whoever asks ``room`` first does not get this far.
    """

    @property
    def identity(self) -> Identity: ...

    @property
    def birth(self) -> Birth | None:
        """The cluster this node belongs to; None for a node that is not yet born."""
        ...

    @property
    def pledge(self) -> bytes | None:
        """The birth this node is pledged to, as the birth protocol encodes it; None for none."""
        ...

    def save_pledge(self, pledge: bytes | None) -> None:
        """Replace the pledge."""
        ...

    def save_birth(self, birth: Birth) -> None:
        """Become a member of a cluster, once; drops the pledge in the same write.

        To be born again as the same changes nothing.

        Raises:
            WrongIdentity: this node already belongs to another cluster.
        """
        ...

    def room(self) -> Room:
        """Return how much may still be written."""
        ...

    def recover(self) -> Boot:
        """Return what is durable; what is returned has been synced, so that it may be promised.

        Raises:
            ValueError: this node is not yet born.
            CorruptRecord: also where pieces contradict each other.
        """
        ...

    def persist(self, batch: Sequence[Persist]) -> None:
        """Carry out *batch* in order as one atomic write with one sync (group commit).

        Raises:
            SafetyViolation: it would cut off an entry that a checkpoint holds, or compact one that none
                holds; nothing was written.
            ValueError: it would leave a gap, or an entry of a term that the hard state has not reached, or this
                node is not yet born; nothing was written.
        """
        ...

    def read_log(self, first: Index, last: Index, bytes_max: int) -> tuple[Entry, ...]:
        """Return entries *first* to *last* inclusive, at least one, then as many as stay within *bytes_max* of data.

        Raises:
            LookupError: entry *first* is not in the log.
        """
        ...

    def state(self) -> LiveState:
        """Return a live reader: each call on it sees the newest completed checkpoint, never a part of one.

        One from before a ``restore`` shows the state that was replaced, until ``release_replaced``. What is pinned
        is let go of before ``close``.
        """
        ...

    def checkpoint(self, changes: Iterable[tuple[bytes, bytes | None]], snapshot: Snapshot) -> None:
        """Write *changes* (sorted by key; None deletes) as one atomic, synced write: the state of *snapshot*.

        Raises:
            ValueError: *snapshot* goes back, or above the end of the log; nothing was written.
        """
        ...

    def read_snapshot(self) -> SnapshotReader:
        """Return the newest checkpoint as bytes; the caller closes it."""
        ...

    def write_snapshot(self, snapshot: Snapshot, size: int, digest: bytes) -> SnapshotWriter:
        """Begin to take in what another member's ``read_snapshot`` returned; the caller closes it."""
        ...

    def restore(self, received: SnapshotWriter) -> None:
        """Put *received*, which is finished, in the place of the state, and of the whole log; atomic and synced."""
        ...

    def release_replaced(self) -> bool:
        """Let go of states that a ``restore`` has replaced, for nobody reads them any more, unless they are pinned.

        Returns:
            Whether none is left.
        """
        ...

    def close(self) -> None:
        """Close; after this every call fails with ``ValueError``. Idempotent."""
        ...
