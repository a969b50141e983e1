"""Linearizable reads without a log entry: ReadIndex, batched by round.

A leader notes its commit index, opens a *round*, and confirms that it still leads by a majority that
echoes this round or a later one. The round is the leader's own counter: a caller's id never
identifies it, and an answer from before the round was opened never carries it.

Source: Raft thesis §6.4.
"""

from __future__ import annotations

from typing import Final

from huton.raft.effects import ReadReady, Reason, Rejected
from huton.raft.events import ReadIndex
from huton.raft.quorum import acknowledged_by_majority
from huton.raft.state import RaftState, ReadRound
from huton.raft.types import Role

__all__ = ["READS_MAX", "confirm_rounds", "open_round", "read_index", "refuse_reads"]

READS_MAX: Final = 65_536
"""Reads that wait for a round; further ones are refused. Only a leader that can't commit gathers as many."""


def read_index(state: RaftState, now: int, event: ReadIndex) -> None:
    """Leader: let the reads wait for a round, together with all others that wait."""
    room = max(0, READS_MAX - len(state.reads_waiting))
    state.reads_waiting.extend(event.requests[:room])
    # As by one that does not lead: whoever asked waits, and asks again.
    state.effects.extend(Rejected(id, Reason.NOT_LEADER, state.leader) for id in event.requests[room:])
    open_round(state)


def refuse_reads(state: RaftState, now: int, event: ReadIndex) -> None:
    """Everybody else: only the leader can tell what is committed."""
    state.effects.extend(Rejected(id, Reason.NOT_LEADER, state.leader) for id in event.requests)


def open_round(state: RaftState) -> None:
    """Open a round for all waiting reads, unless one is under way.

    A leader that has not committed an entry of its own term does not yet know what is committed
    (thesis §6.4, step 1): its reads wait for that. The messages go out at the end of the step.
    """
    if not state.reads_waiting or state.read_rounds:
        return
    if state.log.term_at(state.commit_index) != state.current_term:
        return
    state.round += 1
    state.read_rounds.append(ReadRound(state.round, state.commit_index, tuple(state.reads_waiting)))
    state.reads_waiting.clear()
    confirm_rounds(state)


def confirm_rounds(state: RaftState) -> None:
    """Answer the reads of every round that a majority has echoed, then open the next one."""
    if not state.read_rounds or state.role is not Role.LEADER:
        return
    echoed = {peer: progress.round_acknowledged for peer, progress in state.progress.items()}
    echoed[state.id] = state.round
    confirmed = acknowledged_by_majority(state.voters, echoed, 0)
    if state.read_rounds[0].round > confirmed:
        return
    done = state.read_rounds.popleft()
    state.effects.extend(ReadReady(id, done.index) for id in done.requests)
    open_round(state)
