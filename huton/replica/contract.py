"""What a driver tells a replica, and what a replica asks of its driver.

A driver owns the storage and carries the effects out under the rules D1 to D6 of
``docs/architecture.md``: start them in list order, wait for none of them.
"""

from __future__ import annotations

import attrs

from huton.errors import RequestError
from huton.raft import effects as core_effects
from huton.raft import events as core_events
from huton.raft.types import Index, NodeId, RaftConfig, RequestId, Snapshot
from huton.storage.interface import LiveState
from huton.wire import PeerMessage

__all__ = [
    "Answer",
    "Checkpoint",
    "Checkpointed",
    "Effect",
    "Event",
    "PeerReachable",
    "Read",
    "Receive",
    "ReplicaConfig",
    "Send",
    "SnapshotPersisted",
    "Submit",
    "ViewReady",
]


@attrs.frozen(kw_only=True)
class ReplicaConfig:
    """How one replica behaves.

    Attributes:
        raft: how its core behaves.
        request_timeout_ns: after this long a request is answered with an error.
        overlay_bytes_max: applied changes held in memory before a checkpoint writes them; it also comes after
            four times as much in commands, so that a restart has a bounded number to carry out again. At four
            times as much the disk is behind: callers' writes are refused as overloaded, and what is committed
            is applied only when the checkpoint is done.
        requests_max: callers' writes open at once, and likewise reads; beyond it they are refused as overloaded.
        requests_bytes_max: bytes of callers' commands open at once; likewise, but one alone is always taken.
        session_idle_ns: how long a session lives without a command, in cluster time. All members have to agree.
        sessions_max: how many sessions there are at most; for one more, the one that was not used for longest ends.
            All members have to agree.
    """

    raft: RaftConfig
    request_timeout_ns: int = 5_000_000_000
    overlay_bytes_max: int = 32 << 20
    requests_max: int = 65_536
    requests_bytes_max: int = 256 << 20
    session_idle_ns: int = 3_600_000_000_000
    sessions_max: int = 4_096


# ---------------------------------------------------------------------- events


@attrs.frozen
class Submit:
    """Callers' writes: (id, command) pairs. Each id ends in exactly one ``Answer``.

    Ids are positive, unique within a run, ascending, and shared with ``Read``.
    """

    requests: tuple[tuple[RequestId, bytes], ...]


@attrs.frozen
class Read:
    """Callers' linearizable reads. Each id ends in exactly one ``ViewReady`` or ``Answer`` with an error."""

    requests: tuple[RequestId, ...]


@attrs.frozen
class Receive:
    """A message arrived from ``sender``, who is who it says it is and addressed this very node."""

    sender: NodeId
    message: PeerMessage


@attrs.frozen
class Checkpointed:
    """The ``Checkpoint`` of this snapshot is on disk and synced."""

    snapshot: Snapshot


@attrs.frozen
class SnapshotPersisted:
    """``Persisted`` for a ``PersistSnapshot``.

    Attributes:
        seq: that of the effect.
        base: live reader of the state that was restored.
    """

    seq: int
    base: LiveState


@attrs.frozen
class PeerReachable:
    """A link to ``peer`` stands. Until then, and from ``PeerUnreachable`` on, what is sent to it goes nowhere."""

    peer: NodeId


Event = (
    Submit
    | Read
    | Receive
    | Checkpointed
    | SnapshotPersisted
    | core_events.Timeout
    | core_events.Persisted
    | core_events.PersistFailed
    | core_events.PersistDeferred
    | core_events.RoomChanged
    | core_events.LogRead
    | core_events.SnapshotReceived
    | core_events.SnapshotSent
    | core_events.PeerUnreachable
    | PeerReachable
)

# ---------------------------------------------------------------------- effects


@attrs.frozen
class Send:
    """Try to deliver ``message``; it may be lost, delayed, duplicated or reordered (D5)."""

    to: NodeId
    message: PeerMessage


@attrs.frozen
class Answer:
    """The end of a request: the state machine's answer, or the error for its caller."""

    id: RequestId
    result: bytes | RequestError


@attrs.frozen
class ViewReady:
    """The local state now holds at least ``index``: the read may be served from ``replica.state``."""

    id: RequestId
    index: Index


@attrs.frozen
class Checkpoint:
    """Write these changes (sorted; None deletes) with ``storage.checkpoint``, then say ``Checkpointed``.

    It waits while there is no room for it. At most one is under way at a time, and none along with a
    ``PersistSnapshot``: whichever comes second waits for the first, and a checkpoint that is older than the restored
    snapshot is not written at all.
    """

    changes: tuple[tuple[bytes, bytes | None], ...]
    snapshot: Snapshot


Effect = (
    core_effects.Persist
    | core_effects.PersistSnapshot
    | core_effects.DropSnapshot
    | core_effects.SendSnapshot
    | core_effects.ReadLog
    | core_effects.RoleChanged
    | Send
    | Answer
    | ViewReady
    | Checkpoint
)
