"""All that a core asks of its driver.

Every effect that is returned may be started at once, in list order, without waiting (D1): what
has to wait for the disk stays inside the core until ``Persisted`` arrives.
"""

from __future__ import annotations

import enum

import attrs

from huton.raft.messages import Message
from huton.raft.types import Entry, HardState, Index, NodeId, RequestId, Role, Snapshot, Term

__all__ = [
    "Apply",
    "Committed",
    "DropSnapshot",
    "Effect",
    "Persist",
    "PersistSnapshot",
    "ReadLog",
    "ReadReady",
    "Reason",
    "Rejected",
    "Restored",
    "RoleChanged",
    "Send",
    "SendSnapshot",
    "Undecided",
]


@attrs.frozen(kw_only=True)
class Persist:
    """Write this to the log atomically, sync, then answer ``Persisted(seq)`` (D2, D3).

    In this order: the hard state if given, then drop every entry from ``truncate_from`` on if
    given, then append ``entries`` from ``first_index`` on, then drop all entries that ``compact_to`` replaces.

    Attributes:
        seq: consecutive from 1 in each run.
        hard_state: the new term and vote, or None for no change.
        truncate_from: first index to drop, or None.
        first_index: the index of ``entries[0]``; meaningless without entries.
        entries: what to append.
        compact_to: what stands before the log from now on, or None for no change; a durable checkpoint
            holds at least as much (R11).
    """

    seq: int
    hard_state: HardState | None
    truncate_from: Index | None
    first_index: Index
    entries: tuple[Entry, ...]
    compact_to: Snapshot | None = None


@attrs.frozen
class PersistSnapshot:
    """Replace the state by the one that was received, and the whole log by nothing; sync, then ``Persisted(seq)``.

    Atomic, and in one line with ``Persist`` (D2, R8): after a crash either the old log and state are there,
    or ``snapshot`` with an empty log behind it.

    Attributes:
        seq: shared with ``Persist``.
        snapshot: what the state holds.
        source: as in ``SnapshotReceived``.
    """

    seq: int
    snapshot: Snapshot
    source: int


@attrs.frozen
class DropSnapshot:
    """What came with ``SnapshotReceived`` is of no use.

    Attributes:
        source: as there.
        needless: whether that is because all of it is here; otherwise its sender may try again.
    """

    source: int
    needless: bool


@attrs.frozen
class Send:
    """Try to deliver ``message``; it may be lost, delayed, duplicated or reordered (D5)."""

    to: NodeId
    message: Message


@attrs.frozen
class SendSnapshot:
    """Send ``to`` the newest durable checkpoint, as the leader of ``term``; then say ``SnapshotSent``."""

    to: NodeId
    term: Term


@attrs.frozen
class Apply:
    """Committed and locally durable (R7): apply in order, once, then say ``Applied``."""

    first_index: Index
    entries: tuple[Entry, ...]


@attrs.frozen
class Restored:
    """The state machine is from now on what the durable ``snapshot`` holds; no ``Applied`` is asked for."""

    snapshot: Snapshot


@attrs.frozen
class ReadLog:
    """Read entries ``first_index..last_index`` from storage, and answer ``LogRead``.

    The answer may hold fewer entries, to stay near ``bytes_max``, but at least the first.
    """

    first_index: Index
    last_index: Index
    bytes_max: int


@attrs.frozen
class ReadReady:
    """Leadership was confirmed: the read may be served once ``index`` is applied."""

    id: RequestId
    index: Index


@attrs.frozen
class Committed:
    """The proposal is committed at ``index``; its ``Apply`` comes in this list or later."""

    id: RequestId
    index: Index


class Reason(enum.Enum):
    """Why a request was rejected before anything was appended."""

    NOT_LEADER = "not leader"
    OVERLOADED = "overloaded"
    STORAGE_FULL = "storage full"


@attrs.frozen
class Rejected:
    """The request had no effect, and never will.

    Attributes:
        leader: who leads, as far as this node knows.
    """

    id: RequestId
    reason: Reason
    leader: NodeId | None


@attrs.frozen
class Undecided:
    """The proposal was appended, then leadership was lost: it may commit or not."""

    id: RequestId


@attrs.frozen
class RoleChanged:
    """This node's role, term or known leader is now this."""

    role: Role
    term: Term
    leader: NodeId | None


Effect = (
    Persist
    | PersistSnapshot
    | DropSnapshot
    | Send
    | SendSnapshot
    | Apply
    | Restored
    | ReadLog
    | ReadReady
    | Committed
    | Rejected
    | Undecided
    | RoleChanged
)
