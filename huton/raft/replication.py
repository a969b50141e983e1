"""Log replication, the leader's side: what it sends, and when an entry is committed.

Source: Raft paper §5.3, §5.4.2, Figure 2 "AppendEntries RPC"; thesis §3.5, §3.6.2, §10.2.1.
"""

from __future__ import annotations

from huton.raft.applying import apply_committed, take_entries_read
from huton.raft.effects import Committed, ReadLog, Reason, Rejected
from huton.raft.events import LogRead, PeerUnreachable, Propose, Receive
from huton.raft.messages import AppendEntries, AppendEntriesReply
from huton.raft.progress import Inflights, Progress, ProgressState
from huton.raft.quorum import acknowledged_by_majority
from huton.raft.reads import confirm_rounds, open_round
from huton.raft.snapshots import send_snapshot
from huton.raft.state import Proposal, RaftState
from huton.raft.types import Entry, EntryKind, Index, NodeId

__all__ = [
    "append_command",
    "commit_by_majority",
    "count_reply",
    "log_read",
    "peer_unreachable",
    "refuse_commands",
    "replicate",
    "start_leading",
]


def start_leading(state: RaftState, now: int) -> None:
    """Know nothing of the followers yet, and append a no-op.

    Only an entry of its own term tells a leader what is committed (§5.4.2, §8).
    """
    config = state.config
    state.progress = {
        peer: Progress(
            inflights=Inflights(config.inflight_messages_max, config.inflight_bytes_max),
            next_index=Index(state.log.last_index + 1),
        )
        for peer in state.peers
    }
    state.stamp = state.log.last_stamp
    state.round = 0
    state.heartbeat_deadline = now + config.heartbeat_interval_ns
    state.quorum_deadline = now + config.election_timeout_ns
    state.append([Entry(state.current_term, EntryKind.NOOP, state.stamp, b"")])


def append_command(state: RaftState, now: int, event: Propose) -> None:
    """Leader: append the commands, or refuse those that would exceed the disk or the bound on uncommitted bytes.

    A command that is larger than the bound is taken when nothing else is uncommitted.
    """
    entries = []
    for id, command in event.requests:
        size = len(command)
        if state.full:
            state.effects.append(Rejected(id, Reason.STORAGE_FULL, state.leader))
            continue
        if state.uncommitted_bytes and state.uncommitted_bytes + size > state.config.uncommitted_bytes_max:
            state.effects.append(Rejected(id, Reason.OVERLOADED, state.leader))
            continue
        entries.append(Entry(state.current_term, EntryKind.COMMAND, state.stamp, command))
        state.proposals.append(Proposal(Index(state.log.last_index + len(entries)), id, size))
        state.uncommitted_bytes += size
    if entries:
        state.append(entries)


def refuse_commands(state: RaftState, now: int, event: Propose) -> None:
    """Everybody else: only the leader appends."""
    state.effects.extend(Rejected(id, Reason.NOT_LEADER, state.leader) for id, _ in event.requests)


def replicate(state: RaftState, *, heartbeat: bool = False) -> None:
    """Send every follower what it may get now; the end of each step of a leader.

    Entries leave before the leader has synced them itself (R5, thesis §10.2.1). A message without
    entries goes out for a heartbeat, also to a follower that is probed and may be down; for a new
    round of leadership confirmation; or to tell a follower with nothing in flight that more is
    committed.
    """
    for peer, progress in state.progress.items():
        if progress.next_index <= state.log.base_index and not progress.probing:
            send_snapshot(state, peer, progress)
        sent = _send_entries(state, peer, progress)
        quiet = not progress.inflights and progress.state is ProgressState.REPLICATE
        news = progress.round_sent < state.round or (quiet and progress.commit_sent < state.commit_index)
        if not sent and (heartbeat or news):
            _send(state, peer, progress, ())


def _send_entries(state: RaftState, peer: NodeId, progress: Progress) -> bool:
    """Send entries as far as flow control allows; return whether anything was sent."""
    sent = False
    while progress.next_index <= state.log.last_index and progress.reading_from is None:
        if progress.probing or progress.inflights.full or progress.sends_snapshot:
            break
        entries = state.log.payload(progress.next_index, state.log.last_index, state.config.append_bytes_max)
        if entries is None:
            _read_for(state, progress)
            break
        _send(state, peer, progress, entries)
        sent = True
    return sent


def _read_for(state: RaftState, progress: Progress) -> None:
    """Ask storage for what has left memory."""
    progress.reading_from = progress.next_index
    last = min(state.log.last_index, Index(state.log.window_first - 1))
    state.effects.append(ReadLog(progress.next_index, last, state.config.append_bytes_max))


def _send(state: RaftState, peer: NodeId, progress: Progress, entries: tuple[Entry, ...]) -> None:
    """Send one AppendEntries that continues at the follower's next index.

    A heartbeat for a follower that lacks more than the log holds continues where the log begins.
    """
    prev_log_index = max(Index(progress.next_index - 1), state.log.base_index)
    prev_log_term = state.log.term_at(prev_log_index)
    assert prev_log_term is not None, "the log holds everything up to next_index - 1"
    message = AppendEntries(
        term=state.current_term,
        prev_log_index=prev_log_index,
        prev_log_term=prev_log_term,
        leader_commit=state.commit_index,
        round=state.round,
        entries=entries,
    )
    progress.round_sent = state.round
    progress.commit_sent = state.commit_index
    if progress.state is ProgressState.PROBE:
        progress.probing = True
    elif entries:
        progress.next_index = Index(progress.next_index + len(entries))
        progress.inflights.add(Index(progress.next_index - 1), sum(len(entry.data) for entry in entries))
    state.send_durably(peer, message)


def count_reply(state: RaftState, now: int, event: Receive) -> None:
    """Leader: learn from a follower's answer how far its log agrees."""
    reply = event.message
    assert isinstance(reply, AppendEntriesReply)
    progress = state.progress.get(event.sender)
    if progress is None:
        return
    progress.active = True
    progress.round_acknowledged = max(progress.round_acknowledged, reply.round)
    if not reply.success:
        _step_back(state, progress, reply)
    elif progress.acknowledge(reply.index):
        commit_by_majority(state)
    confirm_rounds(state)


def _step_back(state: RaftState, progress: Progress, reply: AppendEntriesReply) -> None:
    """Take up the follower's hint, unless the rejection is of a message from before (reordered, doubled).

    Heartbeats to a follower that lacks more than the log holds go on where the log begins, and that moves.
    """
    if progress.sends_snapshot:
        return
    if progress.state is ProgressState.REPLICATE:
        if reply.index <= progress.match_index:
            return
    elif reply.index != progress.next_index - 1 and progress.next_index > state.log.base_index:
        return
    hint = state.log.last_index_not_above(reply.hint_index, reply.hint_term)
    progress.become_probe(Index(min(hint + 1, reply.index)))


def commit_by_majority(state: RaftState) -> None:
    """Commit what a majority has on disk, if it ends in an entry of the current term.

    Entries of former terms are committed only along with one of this term (§5.4.2). The leader
    counts itself by what it has synced (R6).
    """
    match = {peer: progress.match_index for peer, progress in state.progress.items()}
    match[state.id] = state.durability.index
    index = acknowledged_by_majority(state.voters, match, Index(0))
    if index <= state.commit_index or state.log.term_at(index) != state.current_term:
        return
    state.commit_index = index
    while state.proposals and state.proposals[0].index <= index:
        proposal = state.proposals.popleft()
        state.uncommitted_bytes -= proposal.size
        state.effects.append(Committed(proposal.id, proposal.index))
    open_round(state)
    apply_committed(state)


def peer_unreachable(state: RaftState, now: int, event: PeerUnreachable) -> None:
    """Leader: what was in flight is probably lost, so look for agreement anew."""
    progress = state.progress.get(event.peer)
    # A snapshot goes over a link of its own, and its end is told.
    if progress is not None and not progress.sends_snapshot:
        progress.become_probe(Index(progress.match_index + 1))


def log_read(state: RaftState, now: int, event: LogRead) -> None:
    """Entries came from storage: for the state machine, for followers, or for nobody any more.

    The log may have been truncated and grown again meanwhile: what has its terms still is taken.
    """
    first = event.first_index
    entries = _still_ours(state, first, event.entries)
    take_entries_read(state, first, entries)
    for peer, progress in state.progress.items():
        if progress.reading_from != first:
            continue
        progress.reading_from = None
        if entries and progress.next_index == first and not progress.probing and not progress.inflights.full:
            _send(state, peer, progress, entries)


def _still_ours(state: RaftState, first: Index, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Return *entries* up to the first whose term is not the log's: index and term determine an entry."""
    for position, entry in enumerate(entries):
        if state.log.term_at(Index(first + position)) != entry.term:
            return entries[:position]
    return entries
