"""What is committed goes to the state machine, in order and once (Figure 2, "Rules for Servers, All Servers")."""

from __future__ import annotations

from huton.raft.effects import Apply, ReadLog
from huton.raft.events import Applied
from huton.raft.state import RaftState
from huton.raft.types import Entry, Index

__all__ = ["apply_committed", "commit", "entries_applied", "take_entries_read"]


def commit(state: RaftState, index: Index) -> None:
    """Everything up to *index* is committed."""
    if index > state.commit_index:
        state.commit_index = index
        apply_committed(state)


def apply_committed(state: RaftState) -> None:
    """Hand over the next entries that are committed and on this node's disk (R7), one batch at a time."""
    if state.handed_over > state.applied or state.apply_reading is not None or state.restoring is not None:
        return
    first = Index(state.applied + 1)
    last = min(state.commit_index, state.durability.index)
    if first > last:
        return
    entries = state.log.payload(first, last, state.config.append_bytes_max)
    if entries is None:
        state.apply_reading = first
        last = min(last, Index(state.log.window_first - 1))
        state.effects.append(ReadLog(first, last, state.config.append_bytes_max))
        return
    _hand_over(state, first, entries)


def _hand_over(state: RaftState, first: Index, entries: tuple[Entry, ...]) -> None:
    state.handed_over = Index(first + len(entries) - 1)
    state.effects.append(Apply(first, entries))


def take_entries_read(state: RaftState, first: Index, entries: tuple[Entry, ...]) -> None:
    """Hand over *entries*, read from storage, if they are what was asked for."""
    if state.apply_reading != first:
        return
    state.apply_reading = None
    if entries:
        # A read for a follower may have begun at the same entry, and go on beyond what is committed.
        last = min(state.commit_index, state.durability.index)
        _hand_over(state, first, entries[: last + 1 - first])


def entries_applied(state: RaftState, now: int, event: Applied) -> None:
    """The state machine is done with a batch: give it the next one."""
    state.applied = event.index
    state.log.release(state.applied)
    apply_committed(state)
