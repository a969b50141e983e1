"""Leader election: terms, pre-votes, votes, and a leader that notices that it is alone.

Source: Raft paper §5.2, §5.4.1; pre-vote: thesis §9.6; stickiness: §4.2.3; check-quorum: §6.2.
"""

from __future__ import annotations

from huton.raft.events import Receive, Timeout
from huton.raft.messages import AppendEntries, PreVote, PreVoteReply, RequestVote, RequestVoteReply
from huton.raft.quorum import vote_result
from huton.raft.replication import replicate, start_leading
from huton.raft.state import RaftState
from huton.raft.types import NodeId, Role, Term

__all__ = [
    "answer_pre_vote",
    "answer_request_vote",
    "campaign",
    "count_own_vote",
    "count_pre_vote",
    "count_vote",
    "lead_on",
    "observe_term",
]


def observe_term(state: RaftState, now: int, event: Receive) -> bool:
    """Compare the message's term with ours; return whether the message is still worth handling.

    Source: Figure 2, "Rules for Servers, All Servers": a higher term makes a follower.
    """
    message = event.message
    if isinstance(message, PreVote) or (isinstance(message, PreVoteReply) and message.granted):
        # Their term is one that somebody *would* campaign in: never change ours for it (thesis §9.6).
        return True
    if message.term > state.current_term:
        if isinstance(message, RequestVote) and state.hears_leader(now):
            return False
        state.become_follower(now, message.term, event.sender if isinstance(message, AppendEntries) else None)
    # A request of a former term is still answered, so that its sender learns of ours.
    return message.term == state.current_term or isinstance(message, AppendEntries | RequestVote)


# ------------------------------------------------------------------- campaigning


def campaign(state: RaftState, now: int, event: Timeout) -> None:
    """No leader was heard for a whole election timeout: ask whether a campaign could be won."""
    if now < state.election_deadline:
        return
    voting = state.role is Role.CANDIDATE and not state.durability.hard_state_durable
    if voting or state.id not in state.voters:
        # On a disk that is slower than an election a further campaign would put off every vote for itself.
        state.await_leader(now)
        return
    state.role = Role.PRE_CANDIDATE
    state.leader = None
    state.votes = {state.id: True}
    state.await_leader(now)
    message = PreVote(
        term=Term(state.current_term + 1),
        last_log_index=state.log.last_index,
        last_log_term=state.log.last_term,
    )
    for peer in state.peers:
        state.send(peer, message)
    _decide_pre_vote(state, now)


def count_pre_vote(state: RaftState, now: int, event: Receive) -> None:
    """Pre-candidate: count an answer to the campaign it is thinking of; others are old ones."""
    reply = event.message
    assert isinstance(reply, PreVoteReply)
    if reply.granted and reply.term != state.current_term + 1:
        return
    state.votes[event.sender] = reply.granted
    _decide_pre_vote(state, now)


def _decide_pre_vote(state: RaftState, now: int) -> None:
    result = vote_result(state.voters, state.votes)
    if result is True:
        _become_candidate(state, now)
    elif result is False:
        state.become_follower(now, state.current_term, None)


def _become_candidate(state: RaftState, now: int) -> None:
    """Vote for oneself in a new term, and ask for votes once that and the log are on disk (R2)."""
    state.role = Role.CANDIDATE
    state.enter_term(Term(state.current_term + 1), state.id)
    state.votes = {}
    state.await_leader(now)
    message = RequestVote(
        term=state.current_term,
        last_log_index=state.log.last_index,
        last_log_term=state.log.last_term,
    )
    for peer in state.peers:
        state.send_durably(peer, message)


def count_own_vote(state: RaftState, now: int) -> None:
    """Candidate: the own vote counts once it is on disk (R2)."""
    if state.role is Role.CANDIDATE and state.durability.hard_state_durable:
        state.votes[state.id] = True
        _decide_vote(state, now)


def count_vote(state: RaftState, now: int, event: Receive) -> None:
    """Candidate: count a vote of this term."""
    reply = event.message
    assert isinstance(reply, RequestVoteReply)
    state.votes[event.sender] = reply.granted
    _decide_vote(state, now)


def _decide_vote(state: RaftState, now: int) -> None:
    result = vote_result(state.voters, state.votes)
    if result is True:
        state.role = Role.LEADER
        state.leader = state.id
        start_leading(state, now)
    elif result is False:
        state.become_follower(now, state.current_term, None)


# ------------------------------------------------------------------------ voting


def answer_pre_vote(state: RaftState, now: int, event: Receive) -> None:
    """Say whether this node would vote for the sender; nothing here changes by it.

    Source: thesis §9.6: granted if the log is up-to-date and no leader was heard within the
    minimum election timeout.
    """
    message = event.message
    assert isinstance(message, PreVote)
    granted = (
        message.term > state.current_term
        and not state.hears_leader(now)
        and state.log.is_up_to_date(message.last_log_index, message.last_log_term)
    )
    if granted:
        state.send(event.sender, PreVoteReply(term=message.term, granted=True))
    else:
        state.send_durably(event.sender, PreVoteReply(term=state.current_term, granted=False))


def answer_request_vote(state: RaftState, now: int, event: Receive) -> None:
    """Vote, at most once in a term, first come first served, for an up-to-date log (§5.2, §5.4.1)."""
    message = event.message
    assert isinstance(message, RequestVote)
    free = state.voted_for is None and state.leader is None
    granted = (
        message.term == state.current_term
        and (free or state.voted_for == event.sender)
        and state.log.is_up_to_date(message.last_log_index, message.last_log_term)
    )
    if granted:
        _vote_for(state, now, event.sender)
    state.send_durably(event.sender, RequestVoteReply(term=state.current_term, granted=granted))


def _vote_for(state: RaftState, now: int, candidate: NodeId) -> None:
    if state.voted_for is None:
        state.voted_for = candidate
        state.durability.change_hard_state()
    # §5.2: granting a vote is a sign that an election is under way: wait for it.
    state.await_leader(now)


# ----------------------------------------------------------------------- leading


def lead_on(state: RaftState, now: int, event: Timeout) -> None:
    """Leader: send heartbeats when they are due, and step down when it can't do its work any more."""
    if now >= state.quorum_deadline:
        if _must_step_down(state, now):
            state.become_follower(now, state.current_term, None)
            return
        state.quorum_deadline = now + state.config.election_timeout_ns
        for progress in state.progress.values():
            progress.active = False
    if now >= state.heartbeat_deadline:
        state.heartbeat_deadline = now + state.config.heartbeat_interval_ns
        replicate(state, heartbeat=True)


def _must_step_down(state: RaftState, now: int) -> bool:
    """Whether a majority was silent, or the own disk has not moved, for an election timeout.

    A leader that can't be heard, or can't apply, holds everybody up: §6.2 of the thesis for the
    first; for the second, a stalled disk with a lively network would go on suppressing elections.
    """
    answered = {peer: progress.active for peer, progress in state.progress.items()}
    answered[state.id] = True
    pending_since = state.durability.oldest_pending_since()
    stalled = pending_since is not None and now - pending_since >= state.config.election_timeout_ns
    return stalled or vote_result(state.voters, answered) is not True
