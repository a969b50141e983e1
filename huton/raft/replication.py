"""Log replication: what a leader sends, what a follower accepts, and when an entry is committed.

Source: Raft paper §5.3, §5.4.2, Figure 2 "AppendEntries RPC"; thesis §3.5, §3.6.2, §10.2.1.
"""

from __future__ import annotations

from huton.errors import SafetyViolation
from huton.raft.effects import Apply, Committed, ReadLog, Reason, Rejected
from huton.raft.events import Applied, LogRead, PeerUnreachable, Propose, Receive
from huton.raft.messages import AppendEntries, AppendEntriesReply
from huton.raft.progress import Inflights, Progress, ProgressState
from huton.raft.quorum import acknowledged_by_majority
from huton.raft.reads import confirm_rounds, open_round
from huton.raft.state import Proposal, RaftState
from huton.raft.types import ZERO_INDEX, ZERO_TERM, Entry, EntryKind, Index, NodeId

__all__ = [
    "accept_entries",
    "acknowledge_durable",
    "append_command",
    "apply_committed",
    "commit_by_majority",
    "count_reply",
    "entries_applied",
    "log_read",
    "peer_unreachable",
    "refuse_commands",
    "reject_stale_leader",
    "replicate",
    "start_leading",
    "two_leaders",
]

# ------------------------------------------------------------------- the leader


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
    append_entries(state, [Entry(state.current_term, EntryKind.NOOP, state.stamp, b"")])


def append_command(state: RaftState, now: int, event: Propose) -> None:
    """Leader: append the commands, or refuse those that would exceed the bound on uncommitted bytes.

    A command that is larger than the bound is taken when nothing else is uncommitted.
    """
    entries = []
    for id, command in event.requests:
        size = len(command)
        if state.uncommitted_bytes and state.uncommitted_bytes + size > state.config.uncommitted_bytes_max:
            state.effects.append(Rejected(id, Reason.OVERLOADED, state.leader))
            continue
        entries.append(Entry(state.current_term, EntryKind.COMMAND, state.stamp, command))
        state.proposals.append(Proposal(Index(state.log.last_index + len(entries)), id, size))
        state.uncommitted_bytes += size
    if entries:
        append_entries(state, entries)


def refuse_commands(state: RaftState, now: int, event: Propose) -> None:
    """Everybody else: only the leader appends."""
    state.effects.extend(Rejected(id, Reason.NOT_LEADER, state.leader) for id, _ in event.requests)


def append_entries(state: RaftState, entries: list[Entry]) -> None:
    """Add *entries* to this node's log, in memory now and on disk at the end of the step."""
    state.durability.append(Index(state.log.last_index + 1), entries)
    state.log.append(entries)


def replicate(state: RaftState, *, heartbeat: bool = False) -> None:
    """Send every follower what it may get now; the end of each step of a leader.

    Entries leave before the leader has synced them itself (R5, thesis §10.2.1). A message without
    entries goes out for a heartbeat, also to a follower that is probed and may be down; for a new
    round of leadership confirmation; or to tell a follower with nothing in flight that more is
    committed.
    """
    for peer, progress in state.progress.items():
        sent = _send_entries(state, peer, progress)
        quiet = not progress.inflights and progress.state is ProgressState.REPLICATE
        news = progress.round_sent < state.round or (quiet and progress.commit_sent < state.commit_index)
        if not sent and (heartbeat or news):
            _send(state, peer, progress, ())


def _send_entries(state: RaftState, peer: NodeId, progress: Progress) -> bool:
    """Send entries as far as flow control allows; return whether anything was sent."""
    sent = False
    while progress.next_index <= state.log.last_index and progress.reading_from is None:
        if progress.probing or progress.inflights.full:
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
    """Send one AppendEntries that continues at the follower's next index."""
    prev_log_index = Index(progress.next_index - 1)
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
    """Take up the follower's hint, unless the rejection is of a message from before (reordered, doubled)."""
    if progress.state is ProgressState.REPLICATE:
        if reply.index <= progress.match_index:
            return
    elif reply.index != progress.next_index - 1:
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
    if progress is not None:
        progress.become_probe(Index(progress.match_index + 1))


def two_leaders(state: RaftState, now: int, event: Receive) -> None:
    """A leader hears of another one in its own term: Election Safety is broken (Figure 3)."""
    raise SafetyViolation(f"{event.sender} and {state.id} both lead term {state.current_term}")


# ----------------------------------------------------------------- the follower


def accept_entries(state: RaftState, now: int, event: Receive) -> None:
    """Follow the sender, and take in its entries where the logs agree (Figure 2, steps 2 to 5)."""
    message = event.message
    assert isinstance(message, AppendEntries)
    _follow(state, now, event.sender)
    state.round_seen = max(state.round_seen, message.round)
    prev, entries = message.prev_log_index, message.entries
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
    _commit(state, min(message.leader_commit, matched))
    if appended or (entries and matched > state.durability.index):
        state.owes_reply = True
    else:
        _acknowledge(state, event.sender, matched)


def _follow(state: RaftState, now: int, leader: NodeId) -> None:
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
        append_entries(state, list(entries[position:]))
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


def _acknowledge(state: RaftState, leader: NodeId, matched: Index) -> None:
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
    _acknowledge(state, state.leader, state.matched)


def reject_stale_leader(state: RaftState, leader: NodeId, message: AppendEntries) -> None:
    """Tell a leader of a former term about this one.

    Without it, a member that campaigned alone and is now sticky-ignored could never rejoin: the
    leader has to learn of the higher term to step down. Source: etcd ``TestFreeStuckCandidate``.
    """
    _reject(state, leader, message)


# ----------------------------------------------------------- commit and apply


def _commit(state: RaftState, index: Index) -> None:
    if index > state.commit_index:
        state.commit_index = index
        apply_committed(state)


def apply_committed(state: RaftState) -> None:
    """Hand over the next entries that are committed and on this node's disk (R7), one batch at a time."""
    if state.handed_over > state.applied or state.apply_reading is not None:
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


def entries_applied(state: RaftState, now: int, event: Applied) -> None:
    """The state machine is done with a batch: give it the next one."""
    state.applied = event.index
    state.log.release(state.applied)
    apply_committed(state)


def log_read(state: RaftState, now: int, event: LogRead) -> None:
    """Entries came from storage: for the state machine, for followers, or for nobody any more.

    The log may have been truncated and grown again meanwhile: what has its terms still is taken.
    """
    first = event.first_index
    entries = _still_ours(state, first, event.entries)
    wanted_to_apply = state.apply_reading == first
    if wanted_to_apply:
        state.apply_reading = None
    readers = [(peer, progress) for peer, progress in state.progress.items() if progress.reading_from == first]
    for _, progress in readers:
        progress.reading_from = None
    if not entries:
        return
    if wanted_to_apply:
        # A read for a follower may have begun at the same entry, and go on beyond what is committed.
        last = min(state.commit_index, state.durability.index)
        _hand_over(state, first, entries[: last + 1 - first])
    for peer, progress in readers:
        if progress.next_index == first and not progress.probing and not progress.inflights.full:
            _send(state, peer, progress, entries)


def _still_ours(state: RaftState, first: Index, entries: tuple[Entry, ...]) -> tuple[Entry, ...]:
    """Return *entries* up to the first whose term is not the log's: index and term determine an entry."""
    for position, entry in enumerate(entries):
        if state.log.term_at(Index(first + position)) != entry.term:
            return entries[:position]
    return entries
