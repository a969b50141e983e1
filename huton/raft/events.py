"""All that can happen to a core. A driver turns the world into these, one at a time."""

from __future__ import annotations

import attrs

from huton.raft.messages import Message
from huton.raft.types import Entry, Index, NodeId, RequestId, Snapshot, Term

__all__ = [
    "Applied",
    "Checkpointed",
    "Event",
    "LogRead",
    "PeerUnreachable",
    "PersistDeferred",
    "PersistFailed",
    "Persisted",
    "Propose",
    "ReadIndex",
    "Receive",
    "RoomChanged",
    "SnapshotReceived",
    "SnapshotSent",
    "Timeout",
]


@attrs.frozen
class Timeout:
    """``deadline()`` has passed. Early or late ones do no harm."""


@attrs.frozen
class Receive:
    """A message arrived from ``sender``, who is who it says it is and addressed this very node."""

    sender: NodeId
    message: Message


@attrs.frozen
class Propose:
    """Append these commands if this node leads.

    Each request ends in exactly one ``Committed``, ``Rejected`` or ``Undecided``.
    """

    requests: tuple[tuple[RequestId, bytes], ...]


@attrs.frozen
class ReadIndex:
    """Confirm leadership for these reads (thesis §6.4).

    Each request ends in exactly one ``ReadReady`` or ``Rejected``.
    """

    requests: tuple[RequestId, ...]


@attrs.frozen
class Persisted:
    """The ``Persist`` or ``PersistSnapshot`` with this ``seq``, and every earlier one, is on disk and synced (D3)."""

    seq: int


@attrs.frozen
class PersistFailed:
    """A sync failed: nothing from ``seq`` on may be counted as durable, ever, in this run (D6).

    Every open request is answered and the core halts; the driver ends the process.
    """

    seq: int
    error: str


@attrs.frozen
class PersistDeferred:
    """There is no room for the ``Persist`` of ``seq``: neither it nor a later one has touched the disk, or will (D6).

    All before it are done. Never said of a write without commands: there is room in reserve for those. Until
    ``RoomChanged`` no room is taken to be there.
    """

    seq: int


@attrs.frozen
class RoomChanged:
    """There is ``enough`` room on the disk for commands, or there is not."""

    enough: bool


@attrs.frozen
class Applied:
    """The state machine holds everything up to ``index``."""

    index: Index


@attrs.frozen
class Checkpointed:
    """A synced checkpoint holds everything up to ``index``: the log may do without it (R11)."""

    index: Index


@attrs.frozen
class SnapshotReceived:
    """A whole snapshot has arrived, and is intact: the paper's InstallSnapshot RPC, chunks and all (Figure 13).

    It ends in exactly one ``PersistSnapshot`` or ``DropSnapshot``. What the leader hears of it is an
    AppendEntriesReply.

    Attributes:
        sender: who leads ``term``.
        snapshot: what the received state holds.
        source: the driver's name for it; unique within one run of a process.
    """

    sender: NodeId
    term: Term
    snapshot: Snapshot
    source: int


@attrs.frozen
class SnapshotSent:
    """The transfer that ``SendSnapshot`` asked for is over.

    Attributes:
        term: that of the ``SendSnapshot``.
        taken: whether the peer has it on disk, or had no need of it; not so if the transfer broke off.
    """

    peer: NodeId
    term: Term
    taken: bool


@attrs.frozen
class LogRead:
    """What a ``ReadLog`` found: entries from ``first_index`` on, at least one."""

    first_index: Index
    entries: tuple[Entry, ...]


@attrs.frozen
class PeerUnreachable:
    """The link to ``peer`` broke; what was in flight to it is probably lost."""

    peer: NodeId


Event = (
    Timeout
    | Receive
    | Propose
    | ReadIndex
    | Persisted
    | PersistFailed
    | PersistDeferred
    | RoomChanged
    | Applied
    | Checkpointed
    | SnapshotReceived
    | SnapshotSent
    | LogRead
    | PeerUnreachable
)
