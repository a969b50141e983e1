"""The nouns of the core: who, when, what is stored. Values only, no behaviour.

Source: Raft paper, Figure 2; thesis chapter 3.
"""

from __future__ import annotations

import enum
from typing import Final, NewType

import attrs

__all__ = [
    "ZERO_INDEX",
    "ZERO_TERM",
    "Boot",
    "Configuration",
    "Entry",
    "EntryKind",
    "HardState",
    "Index",
    "Member",
    "NodeId",
    "RaftConfig",
    "RequestId",
    "Role",
    "SizeMark",
    "Snapshot",
    "Status",
    "Term",
    "TermRun",
]

NodeId = NewType("NodeId", str)
"""One incarnation of one member; opaque to the core.

Everybody else builds it from the member's name and its incarnation (128 random
bits made with the data directory), so votes and acknowledgements of a wiped disk
can never be counted as those of the node that owned the name before.
"""

Term = NewType("Term", int)
Index = NewType("Index", int)
RequestId = NewType("RequestId", int)
"""A driver's name for one proposal or read; unique within one run of a process."""

ZERO_TERM: Final = Term(0)
ZERO_INDEX: Final = Index(0)


class Role(enum.Enum):
    """What a member is in its current term (§5.1; PRE_CANDIDATE: thesis §9.6)."""

    FOLLOWER = "follower"
    PRE_CANDIDATE = "pre-candidate"
    CANDIDATE = "candidate"
    LEADER = "leader"


class EntryKind(enum.IntEnum):
    """What an entry's data means. The numbers are on disk and wire: never reuse one."""

    NOOP = 0
    COMMAND = 1


@attrs.frozen
class Entry:
    """One log entry; its index is its position.

    Attributes:
        term: the term in which a leader received it.
        kind: what ``data`` means.
        stamp: cluster time in nanoseconds, never less than the entry's before it.
        data: the command, opaque to the core, encoded once: the same bytes on wire and disk.
    """

    term: Term
    kind: EntryKind
    stamp: int
    data: bytes


@attrs.frozen
class HardState:
    """What must be on disk before it is acted upon (paper Figure 2, "Persistent state").

    ``commit`` is not part of it: a commit index need not survive (rule R9).
    """

    term: Term = ZERO_TERM
    voted_for: NodeId | None = None


@attrs.frozen
class Member:
    """One member of the cluster.

    Attributes:
        id: the member and its incarnation.
        address: ``host:port`` at which its peers reach it.
    """

    id: NodeId
    address: str


@attrs.frozen
class Configuration:
    """The members whose majority decides, sorted by id."""

    members: tuple[Member, ...]

    @property
    def voters(self) -> tuple[NodeId, ...]:
        return tuple(member.id for member in self.members)


@attrs.frozen
class Snapshot:
    """What a state holds: everything applied up to ``index``, and nothing above it (paper §7).

    It stands for the entries up to there: in front of a compacted log, for a checkpoint, and for what one
    member sends to another. A newborn cluster starts at index 0, term 0, with its first configuration.

    Attributes:
        index: the last entry that it replaces; the paper's lastIncludedIndex.
        term: that entry's term.
        stamp: cluster time, not below that entry's.
        configuration: the members that decided then.
    """

    index: Index
    term: Term
    stamp: int
    configuration: Configuration


@attrs.frozen
class SizeMark:
    """How much data lies in the log up to entry ``index``, counted from the first mark of the same log on."""

    index: Index
    bytes: int


@attrs.frozen
class TermRun:
    """Consecutive entries of one term, from ``first_index`` up to the next run."""

    first_index: Index
    term: Term


@attrs.frozen(kw_only=True)
class Boot:
    """What storage recovered; a core starts from nothing else.

    Attributes:
        hard_state: the newest durable term and vote.
        snapshot: what stands before the log.
        term_runs: the terms of the log's entries, ascending; empty for an empty log.
        sizes: where its data lies, as ``LogSizes`` marks it.
        last_index: the last durable entry, or ``snapshot.index`` for an empty log.
        last_stamp: the cluster time of the last entry, or ``snapshot.stamp`` for an empty log.
        applied: the index that the durable state holds;
            ``snapshot.index <= applied <= last_index``.
    """

    hard_state: HardState
    snapshot: Snapshot
    term_runs: tuple[TermRun, ...]
    sizes: tuple[SizeMark, ...]
    last_index: Index
    last_stamp: int
    applied: Index


@attrs.frozen(kw_only=True)
class RaftConfig:
    """How one core behaves; the same on all members of a healthy cluster.

    Attributes:
        id: this node.
        election_timeout_ns: the *minimum* election timeout. A follower that heard from a leader
            within it refuses votes (stickiness), and a leader that heard from no majority for as
            long steps down. The randomised timeouts come from the injected chance.
        heartbeat_interval_ns: how often an idle leader sends an empty AppendEntries.
        append_bytes_max: the payload bytes of one AppendEntries, and of one Apply; one larger
            entry travels alone.
        inflight_bytes_max: payload bytes sent to one follower and not yet acknowledged.
        inflight_messages_max: AppendEntries with entries sent to one follower and not yet acknowledged.
        uncommitted_bytes_max: payload bytes a leader holds uncommitted before it refuses
            proposals as overloaded.
        window_bytes_max: payload bytes of applied entries kept in memory for slow followers;
            older ones are read from storage.
        log_entries_kept: how many of its last entries the log keeps, though a checkpoint holds what
            they did: for members that lag, which else need a snapshot. A leader keeps up to four
            times as many while a follower needs them.
        log_bytes_kept: the same in payload bytes; whichever is less counts.
        compact_entries: how many entries leave the log at a time.
    """

    id: NodeId
    election_timeout_ns: int = 1_000_000_000
    heartbeat_interval_ns: int = 100_000_000
    append_bytes_max: int = 1 << 20
    inflight_bytes_max: int = 8 << 20
    inflight_messages_max: int = 256
    uncommitted_bytes_max: int = 64 << 20
    window_bytes_max: int = 16 << 20
    log_entries_kept: int = 50_000
    log_bytes_kept: int = 64 << 20
    compact_entries: int = 512


@attrs.frozen(kw_only=True)
class Status:
    """A view of a core at one moment, for people and checkers.

    Attributes:
        first_index: the first entry that the log still holds, or would hold.
        match_index: per follower, what a leader knows to be on its disk; empty elsewhere.
    """

    id: NodeId
    role: Role
    term: Term
    voted_for: NodeId | None
    leader: NodeId | None
    commit_index: Index
    applied: Index
    first_index: Index
    last_index: Index
    last_term: Term
    durable_index: Index
    configuration: Configuration
    match_index: tuple[tuple[NodeId, Index], ...]
