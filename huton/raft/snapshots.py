"""Log compaction: a checkpoint stands for the entries that it holds, and is sent to whoever lacks them.

Every member compacts its own log, as far as its durable checkpoint goes (R11), and keeps some of what it could drop
for followers that lag. What leaves goes with writes that come anyway, a few entries at a time.

Source: Raft paper §7, Figure 13; thesis chapter 5; rule R8.
"""

from __future__ import annotations

from typing import Final

from huton.raft.applying import apply_committed, commit
from huton.raft.effects import DropSnapshot, Restored, SendSnapshot
from huton.raft.events import Checkpointed, SnapshotReceived, SnapshotSent
from huton.raft.following import acknowledge, follow
from huton.raft.progress import Progress
from huton.raft.state import RaftState
from huton.raft.types import Index, NodeId, Snapshot

__all__ = ["accept_snapshot", "checkpointed", "compact", "finish_restoring", "send_snapshot", "snapshot_sent"]

HOLD_FACTOR: Final = 4
"""A leader keeps up to so many times as much of its log as long as a follower lacks it, or waits for a snapshot."""


# ------------------------------------------------------------------- compaction


def checkpointed(state: RaftState, now: int, event: Checkpointed) -> None:
    """A checkpoint is durable; one from before a snapshot was restored says nothing of the log any more."""
    state.checkpoint = max(state.checkpoint, event.index)


def compact(state: RaftState) -> None:
    """Drop the log's oldest entries along with what this step appends; at least as fast as it grows.

    On a full disk nothing is appended, and every step drops some.
    """
    appended = state.durability.appended
    if not (appended or state.full) or state.restoring is not None:
        return
    base, step = state.log.base_index, state.config.compact_entries
    if state.checkpoint - base < step:
        return
    upto = min(_last_to_drop(state), Index(base + max(step, 2 * appended)))
    if upto - base < step:
        return
    state.log.compact(upto)
    term = state.log.term_at(upto)
    assert term is not None, "the log knows the term in front of it"
    state.durability.compact(Snapshot(upto, term, state.log.last_stamp, state.configuration))
    for progress in state.progress.values():
        if progress.next_index <= upto:
            # What is read for it is gone; see ``replicate``.
            progress.reading_from = None


def _last_to_drop(state: RaftState) -> Index:
    if state.full:
        return state.checkpoint
    entries, size = state.config.log_entries_kept, state.config.log_bytes_kept
    upto = state.log.last_to_drop(entries, size)
    known = min((progress.match_index for progress in state.progress.values()), default=upto)
    held = max(known, state.log.last_to_drop(HOLD_FACTOR * entries, HOLD_FACTOR * size))
    return min(state.checkpoint, upto, held)


# ------------------------------------------------------------------- the leader


def send_snapshot(state: RaftState, peer: NodeId, progress: Progress) -> None:
    """The follower lacks entries that only a checkpoint holds: have that sent, and heartbeats beside it.

    Where the log has moved on beyond a snapshot that is still under way, that one comes to its end first: a transfer
    that takes longer than the log is kept would else be begun again and again.
    """
    if progress.transferring:
        progress.become_snapshot(Index(progress.next_index - 1))
        return
    progress.become_snapshot(state.checkpoint)
    progress.transferring = True
    state.effects.append(SendSnapshot(peer, state.current_term))


def snapshot_sent(state: RaftState, now: int, event: SnapshotSent) -> None:
    """Leader: the transfer is over; see where the logs agree now.

    Where it broke off the next heartbeat asks first: its answer shows that somebody is there.
    """
    progress = state.progress.get(event.peer)
    if progress is None or event.term != state.current_term:
        return
    progress.transferring = False
    if not progress.sends_snapshot:
        return
    progress.become_probe(progress.next_index)
    progress.probing = not event.taken


# ----------------------------------------------------------------- the follower


def accept_snapshot(state: RaftState, now: int, event: SnapshotReceived) -> None:
    """Take the snapshot for log and state, unless this log holds all that it stands for (Figure 13; R8)."""
    snapshot = event.snapshot
    follow(state, now, event.sender)
    if snapshot.index <= state.commit_index or state.log.term_at(snapshot.index) == snapshot.term:
        # What a leader has applied is committed, and a log that has its last entry has all before (Log Matching).
        state.effects.append(DropSnapshot(event.source, needless=True))
        state.matched = max(state.matched, snapshot.index)
        commit(state, snapshot.index)
        acknowledge(state, event.sender, snapshot.index)
    elif state.restoring is not None:
        state.effects.append(DropSnapshot(event.source, needless=False))
    else:
        _restore(state, snapshot, event.source)


def _restore(state: RaftState, snapshot: Snapshot, source: int) -> None:
    state.log.restore(snapshot)
    state.durability.restore(snapshot, source, state.handed_over)
    state.restoring = snapshot
    state.configuration = snapshot.configuration
    state.commit_index = state.matched = snapshot.index
    state.apply_reading = None
    state.owes_reply = True


def finish_restoring(state: RaftState) -> None:
    """Go on from the snapshot once it is on disk."""
    snapshot = state.restoring
    if snapshot is None or not state.durability.snapshot_durable:
        return
    state.restoring = None
    state.applied = state.handed_over = state.checkpoint = snapshot.index
    state.effects.append(Restored(snapshot))
    apply_committed(state)
