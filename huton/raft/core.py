"""The core: one table, ``step(now, event) -> effects``, ``deadline()``.

Pure and deterministic: no clock, no chance, no I/O. The same events in the same order give the same
effects; time comes in as ``now``, chance as the injected ``timeouts``.

Source: Raft paper (extended version), Figure 2; thesis chapters 3, 6 and 9.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from huton.raft.applying import apply_committed, entries_applied
from huton.raft.effects import DropSnapshot, Effect, RoleChanged
from huton.raft.election import (
    answer_pre_vote,
    answer_request_vote,
    campaign,
    count_own_vote,
    count_pre_vote,
    count_vote,
    lead_on,
    observe_term,
)
from huton.raft.events import (
    Applied,
    Checkpointed,
    Event,
    LogRead,
    PeerUnreachable,
    PersistDeferred,
    Persisted,
    PersistFailed,
    Propose,
    ReadIndex,
    Receive,
    RoomChanged,
    SnapshotReceived,
    SnapshotSent,
    Timeout,
)
from huton.raft.following import accept_entries, acknowledge_durable, reject_stale_leader, two_leaders
from huton.raft.messages import AppendEntries, AppendEntriesReply, PreVote, PreVoteReply, RequestVote, RequestVoteReply
from huton.raft.reads import read_index, refuse_reads
from huton.raft.replication import (
    append_command,
    commit_by_majority,
    count_reply,
    log_read,
    peer_unreachable,
    refuse_commands,
    replicate,
)
from huton.raft.room import defer, room_changed
from huton.raft.snapshots import accept_snapshot, checkpointed, compact, finish_restoring, snapshot_sent
from huton.raft.state import RaftState, new_state
from huton.raft.types import Boot, Index, RaftConfig, Role, Status

__all__ = ["HANDLERS", "Raft"]

Handler = Callable[[RaftState, int, Any], None]


def ignore(state: RaftState, now: int, event: Event) -> None:
    """This event means nothing to this role."""


def persisted(state: RaftState, now: int, event: Persisted) -> None:
    """More is on disk: let go what waited for it, in whatever role."""
    state.effects.extend(state.durability.persisted(event.seq))
    count_own_vote(state, now)
    finish_restoring(state)
    if state.role is Role.LEADER:
        commit_by_majority(state)
    else:
        acknowledge_durable(state)
    apply_committed(state)


def halt(state: RaftState, now: int, event: PersistFailed) -> None:
    """A failed sync proves nothing about what is on disk: answer everybody and never act again (D6)."""
    state.become_follower(now, state.current_term, None)
    state.halted = True


# fmt: off
HANDLERS: Final[Mapping[type, tuple[Handler, Handler, Handler, Handler]]] = {
    # event              follower             pre-candidate        candidate            leader
    Timeout:            (campaign,            campaign,            campaign,            lead_on),
    Propose:            (refuse_commands,     refuse_commands,     refuse_commands,     append_command),
    ReadIndex:          (refuse_reads,        refuse_reads,        refuse_reads,        read_index),
    Persisted:          (persisted,           persisted,           persisted,           persisted),
    PersistFailed:      (halt,                halt,                halt,                halt),
    PersistDeferred:    (defer,               defer,               defer,               defer),
    RoomChanged:        (room_changed,        room_changed,        room_changed,        room_changed),
    Applied:            (entries_applied,     entries_applied,     entries_applied,     entries_applied),
    LogRead:            (log_read,            log_read,            log_read,            log_read),
    Checkpointed:       (checkpointed,        checkpointed,        checkpointed,        checkpointed),
    SnapshotReceived:   (accept_snapshot,     accept_snapshot,     accept_snapshot,     two_leaders),
    SnapshotSent:       (ignore,              ignore,              ignore,              snapshot_sent),
    PeerUnreachable:    (ignore,              ignore,              ignore,              peer_unreachable),
    # Receive dispatches on its message, once the terms have been compared.
    PreVote:            (answer_pre_vote,     answer_pre_vote,     answer_pre_vote,     answer_pre_vote),
    PreVoteReply:       (ignore,              count_pre_vote,      ignore,              ignore),
    RequestVote:        (answer_request_vote, answer_request_vote, answer_request_vote, answer_request_vote),
    RequestVoteReply:   (ignore,              ignore,              count_vote,          ignore),
    AppendEntries:      (accept_entries,      accept_entries,      accept_entries,      two_leaders),
    AppendEntriesReply: (ignore,              ignore,              ignore,              count_reply),
}
# fmt: on

COLUMN: Final = {Role.FOLLOWER: 0, Role.PRE_CANDIDATE: 1, Role.CANDIDATE: 2, Role.LEADER: 3}


class Raft:
    """One member of a cluster.

    Args:
        config: how it behaves.
        boot: what its storage recovered; all of it synced.
        timeouts: returns a randomised election timeout in nanoseconds, at least
            ``config.election_timeout_ns``; the only source of chance.
    """

    def __init__(self, config: RaftConfig, boot: Boot, timeouts: Callable[[], int]) -> None:
        self._state = new_state(config, boot, timeouts)
        self._announced: RoleChanged | None = None

    def step(self, now: int, event: Event) -> list[Effect]:
        """Take in *event* at *now* (monotonic nanoseconds) and return what the driver has to do.

        Every effect may be started at once, in list order (D1).

        Raises:
            SafetyViolation: a guarantee of Figure 3 is broken; the node must stop.
            RuntimeError: the core has halted after ``PersistFailed``.
        """
        state = self._state
        if state.halted:
            raise RuntimeError("the disk failed; this run of the node is over")
        _advance_clock(state, now)
        if isinstance(event, Receive):
            _receive(state, now, event)
        elif isinstance(event, SnapshotReceived):
            _receive_snapshot(state, now, event)
        else:
            HANDLERS[type(event)][COLUMN[state.role]](state, now, event)
        compact(state)
        if state.role is Role.LEADER:
            replicate(state)
        return self._seal(now)

    def deadline(self) -> int | None:
        """Return when the driver must send ``Timeout`` next, or None for never (the core has halted)."""
        state = self._state
        if state.halted:
            return None
        if state.role is Role.LEADER:
            return min(state.heartbeat_deadline, state.quorum_deadline)
        return state.election_deadline

    def status(self) -> Status:
        """Return an immutable view of this member."""
        state = self._state
        return Status(
            id=state.id,
            role=state.role,
            term=state.current_term,
            voted_for=state.voted_for,
            leader=state.leader,
            commit_index=state.commit_index,
            applied=state.applied,
            first_index=Index(state.log.base_index + 1),
            last_index=state.log.last_index,
            last_term=state.log.last_term,
            durable_index=state.durability.index,
            configuration=state.configuration,
            match_index=tuple((peer, progress.match_index) for peer, progress in state.progress.items()),
        )

    @property
    def state(self) -> RaftState:
        """The member itself, for checkers to look at; nobody else may, and nobody may change it."""
        return self._state

    def _seal(self, now: int) -> list[Effect]:
        """Gather the step's effects: first what has to be on disk, then the rest in order."""
        state = self._state
        effects: list[Effect] = [*state.durability.seal(now, state.hard_state, state.log.last_index), *state.effects]
        state.effects.clear()
        role = state.role_changed()
        if role != self._announced:
            self._announced = role
            effects.append(role)
        return effects


def _advance_clock(state: RaftState, now: int) -> None:
    """Let cluster time pass while this node leads; a gap counts for one election timeout at most.

    Entries are stamped with it. It never jumps: after a pause things live longer, never shorter.
    """
    if state.stepped_at is None:
        # The first event: from here on the node waits for a leader.
        state.await_leader(now)
    elif state.role is Role.LEADER:
        state.stamp += min(max(now - state.stepped_at, 0), state.config.election_timeout_ns)
    state.stepped_at = now


def _receive(state: RaftState, now: int, event: Receive) -> None:
    message = event.message
    if not observe_term(state, now, event):
        return
    if isinstance(message, AppendEntries) and message.term < state.current_term:
        reject_stale_leader(state, event.sender, message)
        return
    HANDLERS[type(message)][COLUMN[state.role]](state, now, event)


def _receive_snapshot(state: RaftState, now: int, event: SnapshotReceived) -> None:
    """Compare the terms, as for a message; a snapshot of a former term's leader is of no use."""
    if event.term < state.current_term:
        state.effects.append(DropSnapshot(event.source, needless=False))
        return
    if event.term > state.current_term:
        state.become_follower(now, event.term, event.sender)
    HANDLERS[SnapshotReceived][COLUMN[state.role]](state, now, event)
