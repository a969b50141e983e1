"""Figure 2 as a class: what one member holds, and the few moves that every chapter shares.

The handlers in ``election``, ``replication`` and ``reads`` change it; ``core`` calls them from its table.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final

import attrs

from huton.raft.durability import Durability
from huton.raft.effects import Effect, Reason, Rejected, RoleChanged, Send, Undecided
from huton.raft.log import RaftLog
from huton.raft.messages import Message
from huton.raft.progress import Progress
from huton.raft.types import (
    Boot,
    Configuration,
    Entry,
    HardState,
    Index,
    NodeId,
    RaftConfig,
    RequestId,
    Role,
    Snapshot,
    Term,
)

__all__ = ["Proposal", "RaftState", "ReadRound", "new_state"]


FULL_FACTOR: Final = 4
"""A member whose disk is full waits so many times as long before it campaigns."""


@attrs.frozen
class Proposal:
    """A caller's command in the leader's log, not yet committed."""

    index: Index
    id: RequestId
    size: int


@attrs.frozen
class ReadRound:
    """Reads that wait until a majority has echoed ``round`` (thesis §6.4)."""

    round: int
    index: Index
    requests: tuple[RequestId, ...]


@attrs.define(kw_only=True)
class RaftState:
    """One member.

    Invariants:
        ``applied <= handed_over <= commit_index <= log.last_index``, and ``handed_over <= durability.index``;
        ``log.base_index <= checkpoint <= applied``, but while a snapshot is being restored the log is ahead of both;
        ``leader == config.id`` exactly while the role is LEADER;
        ``progress``, ``proposals``, ``reads_waiting`` and ``read_rounds`` are empty unless it is.

    Attributes:
        current_term, voted_for, log: paper Figure 2, "Persistent state".
        commit_index: highest entry known to be committed. Not persistent (R9).
        applied: highest entry the state machine holds.
        handed_over: highest entry given to it with ``Apply``.
        checkpoint: highest entry that a durable checkpoint of it holds.
        restoring: the snapshot that is on its way to disk, to replace log and state, or None.
        apply_reading: first index of a ``ReadLog`` under way for it, or None.
        heard_at: when this term's leader was last heard.
        election_timeout_ns: this wait's randomised timeout.
        election_deadline: when to campaign.
        votes: answers to this node's PreVote or RequestVote, its own included once it may be counted.
        matched: entries known to equal those of this term's leader, durable or not.
        owes_reply: entries of this leader are on their way to disk, and it waits to hear of them.
        round_seen: the newest round of this term's leader.
        progress: leader: per follower.
        proposals: leader: in log order.
        uncommitted_bytes: leader: payload bytes of ``proposals``.
        round: leader: its newest round of leadership confirmation.
        reads_waiting: leader: reads that no round covers yet.
        read_rounds: leader: rounds under way, at most one.
        heartbeat_deadline, quorum_deadline: leader: when to send, when to count who answered.
        stamp: leader: cluster time; grows only while it leads.
        stepped_at: when the last event was taken in.
        full: the disk has no room for more commands.
        halted: the disk failed; nothing happens any more.
        effects: what this step asks of the driver.
    """

    config: RaftConfig
    timeouts: Callable[[], int]
    configuration: Configuration
    current_term: Term
    voted_for: NodeId | None
    log: RaftLog
    durability: Durability
    commit_index: Index
    applied: Index
    handed_over: Index
    checkpoint: Index
    restoring: Snapshot | None = None
    apply_reading: Index | None = None
    role: Role = Role.FOLLOWER
    leader: NodeId | None = None
    heard_at: int = 0
    election_timeout_ns: int = 0
    election_deadline: int = 0
    votes: dict[NodeId, bool] = attrs.Factory(dict)
    matched: Index = Index(0)
    owes_reply: bool = False
    round_seen: int = 0
    progress: dict[NodeId, Progress] = attrs.Factory(dict)
    proposals: deque[Proposal] = attrs.Factory(deque)
    uncommitted_bytes: int = 0
    round: int = 0
    reads_waiting: list[RequestId] = attrs.Factory(list)
    read_rounds: deque[ReadRound] = attrs.Factory(deque)
    heartbeat_deadline: int = 0
    quorum_deadline: int = 0
    stamp: int = 0
    stepped_at: int | None = None
    full: bool = False
    halted: bool = False
    effects: list[Effect] = attrs.Factory(list)

    @property
    def id(self) -> NodeId:
        return self.config.id

    @property
    def voters(self) -> tuple[NodeId, ...]:
        return self.configuration.voters

    @property
    def peers(self) -> tuple[NodeId, ...]:
        """Every member but this one."""
        return tuple(voter for voter in self.voters if voter != self.id)

    @property
    def hard_state(self) -> HardState:
        return HardState(self.current_term, self.voted_for)

    def append(self, entries: list[Entry]) -> None:
        """Add *entries* to this node's log, in memory now and on disk at the end of the step."""
        self.durability.append(Index(self.log.last_index + 1), entries)
        self.log.append(entries)

    def send(self, to: NodeId, message: Message) -> None:
        """Send *message*, which promises nothing that this node's disk has to remember."""
        self.effects.append(Send(to, message))

    def send_durably(self, to: NodeId, message: Message) -> None:
        """Send *message* once the current term and vote are on disk (R1, R2, R4)."""
        if self.durability.hard_state_durable:
            self.effects.append(Send(to, message))
        else:
            self.durability.withhold(Send(to, message))

    def hears_leader(self, now: int) -> bool:
        """Return whether a leader was heard within the minimum election timeout (stickiness).

        A leader counts as hearing itself: it steps down by itself when a majority is silent.

        Source: Raft paper §6, last paragraph; thesis §4.2.3.
        """
        if self.role is Role.LEADER:
            return True
        return self.leader is not None and now - self.heard_at < self.config.election_timeout_ns

    def await_leader(self, now: int) -> None:
        """Start a new wait of a random length before campaigning (§5.2); those with room on their disks go first."""
        self.election_timeout_ns = self.timeouts() * (FULL_FACTOR if self.full else 1)
        self.election_deadline = now + self.election_timeout_ns

    def become_follower(self, now: int, term: Term, leader: NodeId | None) -> None:
        """Follow *leader*, if known, in *term*; answer every request that was open here.

        The vote is forgotten only with its term (§5.2: at most one vote in a term).
        """
        if term > self.current_term:
            self.enter_term(term, None)
        self.give_up_requests(leader)
        if self.role is Role.CANDIDATE:
            self.durability.withdraw_campaign()
        self.role = Role.FOLLOWER
        self.leader = leader
        self.votes.clear()
        self.forget_leader()
        self.await_leader(now)

    def enter_term(self, term: Term, vote: NodeId | None) -> None:
        """Begin *term*, in which this node has given its *vote*, and owes nothing to the leader of the last one."""
        self.current_term = term
        self.voted_for = vote
        self.durability.change_hard_state()
        self.forget_leader()

    def forget_leader(self) -> None:
        """Forget what was heard of a leader: an answer may speak of its own term's leader only."""
        self.matched = Index(0)
        self.owes_reply = False
        self.round_seen = 0

    def give_up_requests(self, leader: NodeId | None) -> None:
        """Answer all open proposals and reads of a leader that leads no more."""
        self.effects.extend(Undecided(proposal.id) for proposal in self.proposals)
        waiting = [*self.reads_waiting, *(id for pending in self.read_rounds for id in pending.requests)]
        self.effects.extend(Rejected(id, Reason.NOT_LEADER, leader) for id in waiting)
        self.proposals.clear()
        self.uncommitted_bytes = 0
        self.reads_waiting.clear()
        self.read_rounds.clear()
        self.progress.clear()

    def role_changed(self) -> RoleChanged:
        """Return what this node is now."""
        return RoleChanged(self.role, self.current_term, self.leader)


def new_state(config: RaftConfig, boot: Boot, timeouts: Callable[[], int]) -> RaftState:
    """Return a follower that knows what *boot* holds, and has promised nothing else (R10)."""
    return RaftState(
        config=config,
        timeouts=timeouts,
        configuration=boot.snapshot.configuration,
        current_term=boot.hard_state.term,
        voted_for=boot.hard_state.voted_for,
        log=RaftLog(boot, config.window_bytes_max),
        durability=Durability(index=boot.last_index),
        commit_index=boot.applied,
        applied=boot.applied,
        handed_over=boot.applied,
        checkpoint=boot.applied,
    )
