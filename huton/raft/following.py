"""Log replication, the follower's side: what it accepts, and what it confirms.

Source: Raft paper §5.3, Figure 2 "AppendEntries RPC"; thesis §3.5.
"""

from __future__ import annotations

from huton.errors import SafetyViolation
from huton.raft.applying import commit
from huton.raft.events import Receive, SnapshotReceived
from huton.raft.messages import AppendEntries, AppendEntriesReply
from huton.raft.state import RaftState
from huton.raft.types import ZERO_INDEX, ZERO_TERM, Entry, Index, NodeId

__all__ = ["accept_entries", "acknowledge", "acknowledge_durable", "follow", "reject_stale_leader", "two_leaders"]


def accept_entries(state: RaftState, now: int, event: Receive) -> None:
    """Follow the sender, and take in its entries where the logs agree (Figure 2, steps 2 to 5)."""
    message = event.message
    assert isinstance(message, AppendEntries)
    follow(state, now, event.sender)
    state.round_seen = max(state.round_seen, message.round)
    prev, entries = message.prev_log_index, message.entries
    if entries and state.full:
        # As if it were lost. The leader asks again with each heartbeat, no more often.
        return
    if prev < state.commit_index:
        _check_committed(state, message)
        entries = entries[state.commit_index - prev :]
        prev = state.commit_index
    elif state.log.term_at(prev) != message.prev_log_term:
        _reject(state, event.sender, message)
        return
    appended = _append_new(state, prev, entries)
    # No further than this very message matched, never "my last index": what lies beyond may be another leader's.
    matched = Index(prev + len(entries))
    state.matched = max(state.matched, matched)
    commit(state, min(message.leader_commit, matched))
    if appended or (entries and matched > state.durability.index):
        state.owes_reply = True
    else:
        acknowledge(state, event.sender, matched)


def follow(state: RaftState, now: int, leader: NodeId) -> None:
    """*leader* speaks in the current term: follow it, and wait for it again.

    Raises:
        SafetyViolation: another one leads this term.
    """
    if state.leader is None:
        state.become_follower(now, state.current_term, leader)
    elif state.leader != leader:
        raise SafetyViolation(f"{leader} and {state.leader} both lead term {state.current_term}")
    state.heard_at = now
    state.election_deadline = now + state.election_timeout_ns


def _check_committed(state: RaftState, message: AppendEntries) -> None:
    """Committed entries are every later leader's (Leader Completeness): what overlaps them must agree."""
    overlap = message.entries[: state.commit_index - message.prev_log_index]
    for index, entry in enumerate(overlap, start=message.prev_log_index + 1):
        term = state.log.term_at(Index(index))
        if term not in (None, entry.term):
            raise SafetyViolation(f"committed entry {index} has term {term}, yet the leader has term {entry.term}")


def _append_new(state: RaftState, prev: Index, entries: tuple[Entry, ...]) -> bool:
    """Append the entries that are not in the log yet; replace a conflicting tail, and only that.

    Source: Figure 2, AppendEntries receiver steps 3 and 4. Entries that agree are left alone: the
    message may be an old one, and the log already longer.
    """
    for position, entry in enumerate(entries):
        index = Index(prev + 1 + position)
        term = state.log.term_at(index)
        if term == entry.term:
            continue
        if term is not None:
            state.log.truncate(index)
            state.durability.truncate(index)
        state.append(list(entries[position:]))
        return True
    return False


def _reject(state: RaftState, leader: NodeId, message: AppendEntries) -> None:
    """Say where the logs may still agree, skipping whole terms (§5.3)."""
    hint = state.log.last_index_not_above(message.prev_log_index, message.prev_log_term)
    hint_term = state.log.term_at(hint)
    assert hint_term is not None, "hints lie within the log"
    reply = AppendEntriesReply(
        term=state.current_term,
        round=state.round_seen,
        success=False,
        index=message.prev_log_index,
        hint_index=hint,
        hint_term=hint_term,
    )
    state.send_durably(leader, reply)


def acknowledge(state: RaftState, leader: NodeId, matched: Index) -> None:
    """Confirm up to *matched*, but no further than this disk (R3)."""
    reply = AppendEntriesReply(
        term=state.current_term,
        round=state.round_seen,
        success=True,
        index=min(matched, state.durability.index),
        hint_index=ZERO_INDEX,
        hint_term=ZERO_TERM,
    )
    state.send_durably(leader, reply)


def acknowledge_durable(state: RaftState) -> None:
    """Follower: tell the leader of entries that have reached the disk since it sent them (R3)."""
    if not state.owes_reply or state.leader is None:
        return
    state.owes_reply = state.matched > state.durability.index
    acknowledge(state, state.leader, state.matched)


def reject_stale_leader(state: RaftState, leader: NodeId, message: AppendEntries) -> None:
    """Tell a leader of a former term about this one.

    Without it, a member that campaigned alone and is now sticky-ignored could never rejoin: the
    leader has to learn of the higher term to step down. Source: etcd ``TestFreeStuckCandidate``.
    """
    _reject(state, leader, message)


def two_leaders(state: RaftState, now: int, event: Receive | SnapshotReceived) -> None:
    """A leader hears of another one in its own term: Election Safety is broken (Figure 3)."""
    raise SafetyViolation(f"{event.sender} and {state.id} both lead term {state.current_term}")
