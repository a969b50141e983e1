"""Figure 2 and section 5 of the Raft paper, sentence by sentence.

Quotes are from Ongaro and Ousterhout, "In Search of an Understandable Consensus Algorithm (Extended
Version)", 2014. Where huton does more than the paper (pre-vote, what waits for the disk), the tests of
those are elsewhere, and a docstring here says what is different.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from huton.errors import SafetyViolation
from huton.raft import Raft
from huton.raft.effects import Apply, Committed, Persist
from huton.raft.events import Receive, Timeout
from huton.raft.messages import AppendEntries, AppendEntriesReply, RequestVote, RequestVoteReply
from huton.raft.types import EntryKind, HardState, NodeId, Role, Term
from tests.harness import (
    BOOTED,
    ELECTION,
    HEARTBEAT,
    N1,
    N2,
    N3,
    N4,
    N5,
    NOW,
    acknowledgement,
    append,
    appends,
    applied,
    campaign,
    entries_of,
    make_candidate,
    make_follower,
    make_leader,
    make_raft,
    make_working_leader,
    matched,
    only,
    peers_of,
    persisted,
    pre_campaign,
    propose,
    refusal,
    request_vote,
    sent,
    unmatched,
    vote,
    win,
)
from tests.raft.minicluster import Cluster, Flight


def make_pre_candidate_in_term_1() -> Raft:
    raft = make_raft(term=1)
    pre_campaign(raft)
    return raft


EVERY_ROLE = [
    pytest.param(make_follower, id="follower"),
    pytest.param(make_pre_candidate_in_term_1, id="pre-candidate"),
    pytest.param(make_candidate, id="candidate"),
    pytest.param(make_leader, id="leader"),
]
"""Makers of N1 in each role, in term 1 of three members."""

# ------------------------------------------------------------------ §5.1 terms


@pytest.mark.parametrize("make", EVERY_ROLE)
@pytest.mark.parametrize(
    "event",
    [append(N3, 2), acknowledgement(N3, 2, 0), refusal(N3, 2, 0, hint=(0, 0)), vote(N3, 2), vote(N3, 2, granted=False)],
    ids=["append", "acknowledgement", "refusal", "vote", "denied vote"],
)
def test_larger_term_is_taken_over_and_makes_a_follower(make: Callable[[], Raft], event: Receive) -> None:
    """§5.1: 'if one server's current term is smaller than the other's, then it updates its current term to
    the larger value. If a candidate or leader discovers that its term is out of date, it immediately
    reverts to follower state.'
    """
    raft = make()

    effects = raft.step(NOW, event)

    assert (raft.status().role, raft.status().term) == (Role.FOLLOWER, 2)
    assert [persist.hard_state for persist in only(effects, Persist)] == [HardState(Term(2), None)]


@pytest.mark.parametrize("make", [make_pre_candidate_in_term_1, make_candidate])
def test_larger_term_of_a_candidate_is_taken_over(make: Callable[[], Raft]) -> None:
    """§5.1, the same sentence, for RequestVote: only servers that hear a leader do not listen (§6, below)."""
    raft = make()

    raft.step(NOW, request_vote(N3, 5, last_log=(0, 0)))

    assert (raft.status().role, raft.status().term, raft.status().voted_for) == (Role.FOLLOWER, 5, N3)


@pytest.mark.parametrize("make", [make_follower, make_leader])
def test_servers_that_hear_a_leader_disregard_request_vote(make: Callable[[], Raft]) -> None:
    """§6: 'if a server receives a RequestVote RPC within the minimum election timeout of hearing from a
    current leader, it does not update its term or grant its vote.'
    """
    raft = make()

    effects = raft.step(NOW + ELECTION - 1, request_vote(N3, 5, last_log=(9, 9)))

    assert sent(effects) == []
    assert raft.status().term == 1


@pytest.mark.parametrize("make", EVERY_ROLE)
def test_request_with_a_stale_term_is_rejected(make: Callable[[], Raft]) -> None:
    """§5.1: 'If a server receives a request with a stale term number, it rejects the request.'"""
    raft = make()
    role = raft.status().role

    [denied] = sent(raft.step(NOW, request_vote(N3, 0, last_log=(9, 9))), N3)
    [rejected] = [
        message
        for message in sent(raft.step(NOW, append(N3, 0, terms=(0, 0))), N3)
        if not isinstance(message, AppendEntries)
    ]

    assert denied == RequestVoteReply(term=Term(1), granted=False)
    assert isinstance(rejected, AppendEntriesReply)
    assert (rejected.term, rejected.success) == (1, False)
    assert raft.status().role is role


def test_stale_append_leaves_the_log_alone() -> None:
    """Figure 2, AppendEntries, step 1: 'Reply false if term < currentTerm.'"""
    raft = make_raft(log_terms=(1, 1, 2), term=3)

    effects = persisted(raft, raft.step(NOW, append(N2, 2, prev=(1, 1), terms=(2, 2), commit=3)))

    assert only(effects, Persist) == []
    assert (raft.status().last_index, raft.status().commit_index, raft.status().leader) == (3, 0, None)


@pytest.mark.parametrize("make", EVERY_ROLE)
@pytest.mark.parametrize(
    "event",
    [vote(N2, 0), vote(N3, 0), acknowledgement(N2, 0, 1), refusal(N2, 0, 0, hint=(0, 0))],
    ids=["vote of n2", "vote of n3", "acknowledgement", "refusal"],
)
def test_answers_of_former_terms_change_nothing(make: Callable[[], Raft], event: Receive) -> None:
    """§5.1: terms 'allow servers to detect obsolete information'."""
    raft = make()
    before = raft.status()

    effects = raft.step(NOW, event)

    assert effects == []
    assert raft.status() == before


# --------------------------------------------------------------- §5.2 elections


def test_servers_start_as_followers() -> None:
    """§5.2: 'When servers start up, they begin as followers.'"""
    raft = make_raft(log_terms=(1, 2), term=2, voted_for=N1)

    raft.step(BOOTED, Timeout())

    assert raft.status().role is Role.FOLLOWER
    assert raft.status().leader is None


def test_follower_stays_one_while_it_hears_a_leader() -> None:
    """§5.2: 'A server remains in follower state as long as it receives valid RPCs from a leader or candidate.'"""
    raft = make_follower()
    now = NOW

    for _ in range(20):
        now += ELECTION - 1
        raft.step(now, Timeout())
        assert raft.status().role is Role.FOLLOWER
        raft.step(now, append(N2, 1))
        assert raft.deadline() == now + ELECTION


@pytest.mark.parametrize("term", [1, 2])
def test_granting_a_vote_restarts_the_wait(term: int) -> None:
    """Figure 2, Followers: 'If election timeout elapses without receiving AppendEntries RPC from current
    leader or granting vote to candidate: convert to candidate.'
    """
    raft = make_raft(term=1)
    raft.step(BOOTED, Timeout())

    raft.step(NOW - 1, request_vote(N2, term))
    raft.step(NOW, Timeout())

    assert raft.status().role is Role.FOLLOWER
    assert raft.deadline() == NOW - 1 + ELECTION


def test_denying_a_vote_does_not_restart_the_wait() -> None:
    """Figure 2, Followers, the same sentence: only a *granted* vote keeps a follower waiting."""
    raft = make_raft(log_terms=(1,), term=1, voted_for=N3)
    raft.step(BOOTED, Timeout())

    raft.step(NOW - 1, request_vote(N2, 1, last_log=(1, 1)))

    assert raft.deadline() == NOW


def test_append_of_a_stale_leader_does_not_restart_the_wait() -> None:
    """Figure 2, Followers, the same sentence: 'from *current* leader'."""
    raft = make_raft(term=2)
    raft.step(BOOTED, Timeout())

    raft.step(NOW - 1, append(N2, 1))

    assert raft.deadline() == NOW


def test_leader_sends_periodic_heartbeats() -> None:
    """§5.2: 'Leaders send periodic heartbeats (AppendEntries RPCs that carry no log entries) to all followers
    in order to maintain their authority.'
    """
    raft = make_working_leader(size=5)

    for beat in range(1, 6):
        due = NOW + beat * HEARTBEAT
        assert raft.deadline() == due
        effects = raft.step(due, Timeout())
        for peer in peers_of(raft):
            [message] = appends(effects, peer)
            assert (message.term, message.entries, message.prev_log_index) == (1, (), 1)


def test_silence_starts_an_election() -> None:
    """§5.2: 'If a follower receives no communication over a period of time called the election timeout, then
    it assumes there is no viable leader and begins an election to choose a new leader.'
    """
    raft = make_follower()

    raft.step(NOW + ELECTION - 1, Timeout())
    assert raft.status().role is Role.FOLLOWER
    raft.step(NOW + ELECTION, Timeout())

    assert raft.status().role is Role.PRE_CANDIDATE


@pytest.mark.parametrize("size", [2, 3, 4, 5])
def test_candidate_increments_its_term_votes_for_itself_and_asks_everybody(size: int) -> None:
    """§5.2: 'To begin an election, a follower increments its current term and transitions to candidate state.
    It then votes for itself and issues RequestVote RPCs in parallel to each of the other servers.'
    """
    raft = make_raft(log_terms=(1, 2), term=4, size=size)

    effects = persisted(raft, campaign(raft))

    assert (raft.status().role, raft.status().term, raft.status().voted_for) == (Role.CANDIDATE, 5, N1)
    assert only(effects, Persist)[0].hard_state == HardState(Term(5), N1)
    for peer in peers_of(raft):
        requests = [message for message in sent(effects, peer) if isinstance(message, RequestVote)]
        assert [(m.term, m.last_log_index, m.last_log_term) for m in requests] == [(5, 2, 2)]


@pytest.mark.parametrize(("size", "needed"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_candidate_wins_with_a_majority(size: int, needed: int) -> None:
    """§5.2: 'A candidate wins an election if it receives votes from a majority of the servers in the full
    cluster for the same term.'
    """
    raft = make_raft(size=size)
    persisted(raft, campaign(raft))

    for voter in peers_of(raft)[:needed]:
        assert raft.status().role is Role.CANDIDATE
        raft.step(NOW, vote(voter, 1))

    assert raft.status().role is Role.LEADER


def test_the_same_vote_counts_once() -> None:
    """§5.2, the same sentence: a vote that arrives again (D5) is no second one."""
    raft = make_candidate(size=5)

    for _ in range(5):
        raft.step(NOW, vote(N2, 1))

    assert raft.status().role is Role.CANDIDATE


def test_votes_of_strangers_do_not_count() -> None:
    """§5.2, the same sentence: 'the servers in the full cluster'."""
    raft = make_candidate(size=3)

    raft.step(NOW, vote(N4, 1))
    raft.step(NOW, vote(N5, 1))

    assert raft.status().role is Role.CANDIDATE


def test_votes_for_a_former_term_do_not_count() -> None:
    """§5.2, the same sentence: 'for the same term'."""
    raft = make_candidate(term=3)

    raft.step(NOW, vote(N2, 2))

    assert (raft.status().role, raft.status().term) == (Role.CANDIDATE, 3)


def test_one_vote_per_term_first_come_first_served() -> None:
    """§5.2: 'Each server will vote for at most one candidate in a given term, on a first-come-first-served
    basis.'
    """
    raft = make_raft()

    first = persisted(raft, raft.step(NOW, request_vote(N2, 1)))
    second = persisted(raft, raft.step(NOW, request_vote(N3, 1)))
    again = persisted(raft, raft.step(NOW, request_vote(N2, 1)))

    assert sent(first, N2) == [RequestVoteReply(term=Term(1), granted=True)]
    assert sent(second, N3) == [RequestVoteReply(term=Term(1), granted=False)]
    assert sent(again, N2) == [RequestVoteReply(term=Term(1), granted=True)]
    assert raft.status().voted_for == N2


def test_a_candidate_has_given_its_vote_to_itself() -> None:
    """§5.2, the same sentence."""
    raft = make_candidate()

    effects = persisted(raft, raft.step(NOW, request_vote(N2, 1, last_log=(0, 0))))

    assert sent(effects) == [RequestVoteReply(term=Term(1), granted=False)]


def test_winner_becomes_leader_and_says_so_at_once() -> None:
    """§5.2: 'Once a candidate wins an election, it becomes leader. It then sends heartbeat messages to all of
    the other servers to establish its authority and prevent new elections.'
    """
    raft = make_raft(size=5)

    effects = win(raft)

    assert raft.status().leader == N1
    for peer in peers_of(raft):
        assert [message.term for message in appends(effects, peer)] == [1]


@pytest.mark.parametrize("term", [1, 2])
@pytest.mark.parametrize("make", [make_pre_candidate_in_term_1, make_candidate])
def test_candidate_recognizes_a_leader_of_its_term_or_a_later_one(make: Callable[[], Raft], term: int) -> None:
    """§5.2: 'If the leader's term (included in its RPC) is at least as large as the candidate's current term,
    then the candidate recognizes the leader as legitimate and returns to follower state.'
    """
    raft = make()

    raft.step(NOW, append(N3, term))

    assert (raft.status().role, raft.status().term, raft.status().leader) == (Role.FOLLOWER, term, N3)


@pytest.mark.parametrize("make", [make_pre_candidate_in_term_1, make_candidate])
def test_candidate_rejects_a_leader_of_a_former_term(make: Callable[[], Raft]) -> None:
    """§5.2: 'If the term in the RPC is smaller than the candidate's current term, then the candidate rejects
    the RPC and continues in candidate state.'
    """
    raft = make()
    role = raft.status().role

    effects = raft.step(NOW, append(N3, 0, terms=(0,)))

    assert sent(effects, N3) == [unmatched(1, 0, hint=(0, 0))]
    assert raft.status().role is role


def test_split_vote_leads_to_a_new_term() -> None:
    """§5.2: 'each candidate will time out and start a new election by incrementing its term and initiating
    another round of RequestVote RPCs.' (After asking by pre-votes again, thesis §9.6.)
    """
    cluster = Cluster(5)
    cluster.timeout(N1)
    cluster.timeout(N2)
    supporters = {(N1, N3), (N2, N4)}  # and N5 hears from neither
    cluster.settle(lose=lambda f: isinstance(f.message, RequestVote) and (f.sender, f.to) not in supporters)
    assert [server.role for server in cluster.servers.values()][:2] == [Role.CANDIDATE, Role.CANDIDATE]
    before = max(server.hard_state.term for server in cluster.servers.values())

    cluster.elect(N1, N2, N3, N4)

    status = cluster.servers[N1].status
    assert status is not None
    assert status.term > before


def test_election_timeouts_are_drawn_anew_for_every_election() -> None:
    """§5.2: 'Each candidate restarts its randomized election timeout at the start of an election, and it waits
    for that timeout to elapse before starting the next election.'
    """
    draws = iter([ELECTION, ELECTION + 7, ELECTION + 13, ELECTION + 29, ELECTION + 31])
    raft = make_raft(timeouts=lambda: next(draws))
    raft.step(BOOTED, Timeout())
    assert raft.deadline() == BOOTED + ELECTION

    raft.step(NOW, Timeout())
    assert raft.deadline() == NOW + ELECTION + 7
    raft.step(NOW + ELECTION + 6, Timeout())
    assert raft.deadline() == NOW + ELECTION + 7
    raft.step(NOW + ELECTION + 7, Timeout())

    assert raft.deadline() == NOW + ELECTION + 7 + ELECTION + 13


def test_two_leaders_of_one_term_stop_the_node() -> None:
    """Figure 3, Election Safety: 'at most one leader can be elected in a given term.'"""
    with pytest.raises(SafetyViolation):
        make_leader().step(NOW, append(N2, 1))
    with pytest.raises(SafetyViolation):
        make_follower(leader=N2).step(NOW, append(N3, 1))


# ------------------------------------------------------------- §5.3 replication


def test_leader_appends_the_command_and_sends_it_in_parallel() -> None:
    """§5.3: 'The leader appends the command to its log as a new entry, then issues AppendEntries RPCs in
    parallel to each of the other servers to replicate the entry.'
    """
    raft = make_working_leader(size=5)

    effects = raft.step(NOW, propose(b"x"))

    [persist] = only(effects, Persist)
    assert [(entry.term, entry.kind, entry.data) for entry in persist.entries] == [(1, EntryKind.COMMAND, b"x")]
    assert persist.first_index == 2
    for peer in peers_of(raft):
        [message] = appends(effects, peer)
        assert (message.prev_log_index, message.prev_log_term, message.entries) == (1, 1, persist.entries)


def test_replicated_entry_is_applied_and_answered() -> None:
    """§5.3: 'When the entry has been safely replicated, the leader applies the entry to its state machine and
    returns the result of that execution to the client.'
    """
    raft = make_working_leader()
    persisted(raft, raft.step(NOW, propose(b"x")))

    effects = raft.step(NOW, acknowledgement(N2, 1, 2))

    assert [(committed.id, committed.index) for committed in only(effects, Committed)] == [(1, 2)]
    assert [(apply.first_index, apply.entries[0].data) for apply in only(effects, Apply)] == [(2, b"x")]


@pytest.mark.parametrize(("size", "needed"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_committed_is_what_a_majority_has(size: int, needed: int) -> None:
    """§5.3: 'A log entry is committed once the leader that created the entry has replicated it on a majority
    of the servers.'
    """
    raft = make_working_leader(size=size) if size > 1 else make_leader(size=1)
    assert raft.status().commit_index == 1
    effects = persisted(raft, raft.step(NOW, propose(b"x")))

    for peer in peers_of(raft)[:needed]:
        assert raft.status().commit_index == 1
        effects = raft.step(NOW, acknowledgement(peer, 1, 2))

    assert raft.status().commit_index == 2
    assert [committed.index for committed in only(effects, Committed)] == [2]


def test_commit_takes_all_preceding_entries_along() -> None:
    """§5.3: 'This also commits all preceding entries in the leader's log, including entries created by
    previous leaders.'
    """
    raft = make_leader(term=4, log_terms=(1, 2, 2, 3))

    effects = raft.step(NOW, acknowledgement(N2, 4, 5))

    assert raft.status().commit_index == 5
    assert only(effects, Apply) == [] or only(effects, Apply)[0].first_index == 1


def test_leader_retries_for_ever() -> None:
    """§5.3: 'If followers crash or run slowly, or if network packets are lost, the leader retries AppendEntries
    RPCs indefinitely (even after it has responded to the client).'
    """
    cluster = Cluster()
    cluster.elect(N1)
    cluster.propose(N1, 3)
    cluster.settle(N1, N2)  # N3 gets nothing, and the client has its answer
    for _ in range(50):
        cluster.timeout(N1)
        cluster.settle(N1, N2)
    assert cluster.terms(N3) == (1,)

    for _ in range(2):
        cluster.timeout(N1)
        cluster.settle()

    assert cluster.terms(N3) == cluster.terms(N1) == (1, 1, 1, 1)


def test_followers_learn_the_commit_index_and_apply() -> None:
    """§5.3: 'it includes that index in future AppendEntries RPCs (including heartbeats) so that the other
    servers eventually find out. Once a follower learns that a log entry is committed, it applies the entry
    to its local state machine (in log order).'
    """
    raft = make_raft()
    persisted(raft, raft.step(NOW, append(N2, 1, terms=(1, 1, 1))))

    effects = applied(raft, raft.step(NOW, append(N2, 1, prev=(1, 3), commit=2)))
    assert [(a.first_index, a.entries) for a in only(effects, Apply)] == [(1, entries_of((1, 1)))]
    effects = applied(raft, raft.step(NOW, append(N2, 1, prev=(1, 3), commit=3)))

    assert [(a.first_index, a.entries) for a in only(effects, Apply)] == [(3, entries_of((1,), first=3))]


def test_heartbeats_carry_the_commit_index() -> None:
    """§5.3, the same sentence, seen from the leader."""
    raft = make_working_leader()

    effects = raft.step(NOW + HEARTBEAT, Timeout())

    assert [message.leader_commit for message in appends(effects)] == [1, 1]


@pytest.mark.parametrize(
    ("log", "prev"),
    [((), (1, 1)), ((1, 1), (1, 3)), ((1, 1), (2, 2)), ((1, 2), (1, 2)), ((1, 1, 3), (2, 3))],
)
def test_follower_refuses_entries_after_one_that_it_does_not_have(log: tuple[int, ...], prev: tuple[int, int]) -> None:
    """§5.3: 'If the follower does not find an entry in its log with the same index and term, then it refuses
    the new entries.'
    """
    raft = make_raft(log_terms=log, term=4)

    effects = persisted(raft, raft.step(NOW, append(N2, 4, prev=prev, terms=(4, 4), commit=9)))

    [reply] = sent(effects, N2)
    assert isinstance(reply, AppendEntriesReply)
    assert (reply.success, reply.index) == (False, prev[1])
    assert only(effects, Persist) == []
    assert (raft.status().last_index, raft.status().commit_index) == (len(log), 0)


@pytest.mark.parametrize(
    ("log", "prev", "terms", "truncate_from", "first", "added"),
    [
        # log        prev    entries     truncate  appended
        ((), (0, 0), (1, 1), None, 1, (1, 1)),
        ((1, 1), (1, 2), (1, 4), None, 3, (1, 4)),
        ((1, 1, 1), (1, 1), (1, 1, 4), None, 4, (4,)),
        ((1, 1, 2), (1, 2), (4,), 3, 3, (4,)),
        ((1, 2, 2, 2), (1, 1), (3, 4), 2, 2, (3, 4)),
        ((1, 2, 2, 2), (1, 1), (2, 3), 3, 3, (3,)),
        ((3, 3), (0, 0), (1, 1, 2), 1, 1, (1, 1, 2)),
    ],
)
def test_conflicting_entries_are_overwritten(
    log: tuple[int, ...],
    prev: tuple[int, int],
    terms: tuple[int, ...],
    truncate_from: int | None,
    first: int,
    added: tuple[int, ...],
) -> None:
    """Figure 2, AppendEntries, steps 3 and 4: 'If an existing entry conflicts with a new one (same index but
    different terms), delete the existing entry and all that follow it. Append any new entries not already
    in the log.'
    """
    raft = make_raft(log_terms=log, term=4)

    effects = persisted(raft, raft.step(NOW, append(N2, 4, prev=prev, terms=terms)))

    [persist] = only(effects, Persist)
    assert (persist.truncate_from, persist.first_index) == (truncate_from, first)
    assert tuple(entry.term for entry in persist.entries) == added
    assert sent(effects, N2) == [matched(4, prev[1] + len(terms))]
    assert raft.status().last_index == prev[1] + len(terms)


@pytest.mark.parametrize(
    ("prev", "terms"), [((0, 0), ()), ((0, 0), (1,)), ((1, 1), (1,)), ((1, 2), (2,)), ((1, 1), ())]
)
def test_entries_that_agree_are_never_deleted(prev: tuple[int, int], terms: tuple[int, ...]) -> None:
    """Figure 2, AppendEntries, step 3 deletes only on a conflict; §5.5: 'if a follower receives an
    AppendEntries request that includes log entries already present in its log, it ignores those entries'.
    A message that was delayed must not shorten the log, of which later entries are acknowledged already.
    """
    raft = make_raft(log_terms=(1, 1, 2, 2), term=2)

    effects = persisted(raft, raft.step(NOW, append(N2, 2, prev=prev, terms=terms)))

    assert only(effects, Persist) == []
    assert sent(effects, N2) == [matched(2, prev[1] + len(terms))]
    assert raft.status().last_index == 4


@pytest.mark.parametrize(
    ("prev", "terms", "leader_commit", "commit"),
    [
        ((0, 0), (1,), 0, 0),
        ((0, 0), (1,), 1, 1),
        ((0, 0), (1,), 4, 1),
        ((1, 1), (), 4, 1),
        ((1, 2), (2,), 4, 3),
        ((1, 2), (2, 2), 3, 3),
    ],
)
def test_commit_goes_no_further_than_the_message_matched(
    prev: tuple[int, int], terms: tuple[int, ...], leader_commit: int, commit: int
) -> None:
    """Figure 2, AppendEntries, step 5: 'If leaderCommit > commitIndex, set commitIndex = min(leaderCommit,
    index of last new entry).' What the log holds beyond that may be another leader's.
    """
    raft = make_raft(log_terms=(1, 1, 2, 2), term=2)

    raft.step(NOW, append(N2, 2, prev=prev, terms=terms, commit=leader_commit))

    assert raft.status().commit_index == commit


def test_commit_index_never_goes_back() -> None:
    """Figure 2: commitIndex 'increases monotonically'."""
    raft = make_raft(log_terms=(1, 1), term=1)
    raft.step(NOW, append(N2, 1, prev=(1, 2), commit=2))

    raft.step(NOW, append(N2, 1, prev=(1, 1), commit=1))
    raft.step(NOW, append(N2, 1, prev=(1, 2), commit=0))

    assert raft.status().commit_index == 2


@pytest.mark.parametrize(("prev", "terms"), [((0, 0), (2,)), ((1, 1), (2, 2)), ((0, 0), (1, 2, 2))])
def test_conflict_with_a_committed_entry_stops_the_node(prev: tuple[int, int], terms: tuple[int, ...]) -> None:
    """Figure 3, Leader Completeness: 'If a log entry is committed in a given term, then that entry will be
    present in the logs of the leaders for all higher-numbered terms.' One that lacks it is no leader.
    """
    raft = make_raft(log_terms=(1, 1, 1), term=1)
    raft.step(NOW, append(N2, 1, prev=(1, 3), commit=2))

    with pytest.raises(SafetyViolation):
        raft.step(NOW, append(N3, 2, prev=prev, terms=terms))


def test_new_leader_begins_after_its_last_entry() -> None:
    """§5.3: 'When a leader first comes to power, it initializes all nextIndex values to the index just after
    the last one in its log.'
    """
    raft = make_raft(log_terms=(1, 1, 2), term=2)

    effects = win(raft)

    for peer in peers_of(raft):
        assert [(m.prev_log_index, m.prev_log_term) for m in appends(effects, peer)] == [(3, 2)]


FIGURE_7_LEADER = (1, 1, 1, 4, 4, 5, 5, 6, 6, 6)
FIGURE_7 = {
    "a": (1, 1, 1, 4, 4, 5, 5, 6, 6),
    "b": (1, 1, 1, 4),
    "c": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 6),
    "d": (1, 1, 1, 4, 4, 5, 5, 6, 6, 6, 7, 7),
    "e": (1, 1, 1, 4, 4, 4, 4),
    "f": (1, 1, 1, 2, 2, 2, 3, 3, 3, 3, 3),
}


@pytest.mark.parametrize("follower", FIGURE_7)
def test_figure_7(follower: str) -> None:
    """§5.3: 'the leader must find the latest log entry where the two logs agree, delete any entries in the
    follower's log after that point, and send the follower all of the leader's entries after that point.'
    """
    cluster = Cluster(3, log_terms=(FIGURE_7_LEADER, FIGURE_7[follower], FIGURE_7_LEADER), terms=(7, 7, 7))
    cluster.elect(N1, N3)

    cluster.timeout(N1)
    cluster.settle()

    assert cluster.terms(N2) == (*FIGURE_7_LEADER, 8)
    assert cluster.servers[N2].disk == cluster.servers[N1].disk


@pytest.mark.parametrize(("follower", "rejections"), [("a", 1), ("b", 1), ("c", 0), ("d", 0), ("e", 1), ("f", 2)])
def test_a_rejection_bypasses_whole_terms(follower: str, rejections: int) -> None:
    """§5.3: 'one AppendEntries RPC will be required for each term with conflicting entries, rather than one
    RPC per entry.' (At most: both sides skip terms.)
    """
    cluster = Cluster(3, log_terms=(FIGURE_7_LEADER, FIGURE_7[follower], FIGURE_7_LEADER), terms=(7, 7, 7))
    cluster.elect(N1, N3)
    refused: list[Flight] = []

    def count(flight: Flight) -> bool:
        if isinstance(flight.message, AppendEntriesReply) and not flight.message.success:
            refused.append(flight)
        return False

    cluster.timeout(N1)
    cluster.settle(lose=count)

    assert cluster.terms(N2) == (*FIGURE_7_LEADER, 8)
    assert len(refused) <= rejections


# ----------------------------------------------------- §5.4.1 election restriction


@pytest.mark.parametrize(
    ("own_log", "last_log", "granted"),
    [
        ((), (0, 0), True),
        ((1,), (1, 1), True),
        ((1,), (0, 0), False),
        # 'the log with the later term is more up-to-date'
        ((1, 1, 1), (2, 1), True),
        ((2,), (1, 9), False),
        ((1, 3), (2, 2), False),
        # 'whichever log is longer'
        ((1, 2, 2), (2, 2), False),
        ((1, 2, 2), (2, 3), True),
        ((1, 2, 2), (2, 4), True),
    ],
)
def test_voter_denies_its_vote_to_a_log_less_up_to_date(
    own_log: tuple[int, ...], last_log: tuple[int, int], granted: bool
) -> None:
    """§5.4.1: 'the voter denies its vote if its own log is more up-to-date than that of the candidate. ... If
    the logs have last entries with different terms, then the log with the later term is more up-to-date. If
    the logs end with the same term, then whichever log is longer is more up-to-date.'
    """
    raft = make_raft(log_terms=own_log, term=3)

    effects = persisted(raft, raft.step(NOW, request_vote(N2, 4, last_log=last_log)))

    assert sent(effects) == [RequestVoteReply(term=Term(4), granted=granted)]
    assert raft.status().voted_for == (N2 if granted else None)
    assert raft.status().term == 4


# ---------------------------------------------------------- §5.4.2 commit rule


@pytest.mark.parametrize(("matched_index", "commit"), [(1, 0), (2, 0), (3, 0), (4, 4)])
def test_entries_of_former_terms_are_not_counted(matched_index: int, commit: int) -> None:
    """§5.4.2: 'Raft never commits log entries from previous terms by counting replicas. Only log entries from
    the leader's current term are committed by counting replicas.'
    """
    raft = make_leader(term=3, log_terms=(1, 2, 2))

    raft.step(NOW, acknowledgement(N2, 3, matched_index))
    raft.step(NOW, acknowledgement(N3, 3, matched_index))

    assert raft.status().commit_index == commit


def test_entries_keep_their_terms() -> None:
    """§5.4.2: 'log entries retain their original term numbers when a leader replicates entries from previous
    terms.'
    """
    cluster = Cluster(3, log_terms=((1, 2, 2), (), (1,)))

    cluster.elect(N1)
    cluster.settle()

    assert cluster.terms(N2) == cluster.terms(N3) == (1, 2, 2, 3)


def figure_8_c() -> Cluster:
    """Return Figure 8 in state (c): 'S5 crashes; S1 restarts, is elected leader, and continues replication.'

    The entry of term 2 is on S1, S2 and S3, a majority; the entry of term 4 (S1's no-op) is on S1 alone.
    """
    cluster = Cluster(5, log_terms=((1, 2), (1, 2), (1,), (1,), (1, 3)), terms=(3, 2, 3, 3, 3))
    cluster.crash(N5)
    cluster.elect(N1, N2, N3, lose=carries_term_4)
    for _ in range(3):
        cluster.timeout(N1)
        cluster.settle(N1, N2, N3, lose=carries_term_4)
    assert [cluster.terms(id) for id in (N1, N2, N3, N4)] == [(1, 2, 4), (1, 2), (1, 2), (1,)]
    return cluster


def carries_term_4(flight: Flight) -> bool:
    return isinstance(flight.message, AppendEntries) and any(entry.term == 4 for entry in flight.message.entries)


def test_figure_8_an_entry_on_a_majority_is_not_yet_committed() -> None:
    """Figure 8, (c) and (d): 'the log entry from term 2 has been replicated on a majority of the servers, but
    it is not committed. If S1 crashes as in (d), S5 could be elected leader ... and overwrite the entry
    with its own entry from term 3.'
    """
    cluster = figure_8_c()
    assert cluster.committed == {}

    cluster.crash(N1)
    cluster.restart(N5)
    cluster.elect(N5, N2, N3, N4)
    cluster.restart(N1)
    cluster.timeout(N5)
    cluster.settle()

    assert {cluster.terms(id)[:2] for id in cluster.servers} == {(1, 3)}
    assert cluster.committed[2].term == 3


def test_figure_8_an_entry_of_its_own_term_commits_those_before() -> None:
    """Figure 8, (e): 'if S1 replicates an entry from its current term on a majority of the servers before
    crashing, ... then this entry is committed (S5 cannot win an election). At this point all preceding
    entries in the log are committed as well.'
    """
    cluster = figure_8_c()

    cluster.timeout(N1)
    cluster.settle(N1, N2, N3)
    assert [cluster.committed[index].term for index in (1, 2, 3)] == [1, 2, 4]

    cluster.crash(N1)
    cluster.restart(N5)
    for _ in range(10):
        cluster.timeout(N5)
        cluster.settle(N2, N3, N4, N5)
        assert cluster.servers[N5].role is not Role.LEADER
    cluster.elect(N3, N2, N4, N5)
    assert cluster.terms(N5)[:3] == (1, 2, 4)


# --------------------------------------------- §5.5 crashes, §5.6 timing, §8 clients


@pytest.mark.parametrize("victim", [N2, N3])
def test_crashed_followers_are_caught_up_after_their_restart(victim: NodeId) -> None:
    """§5.5: 'If a follower or candidate crashes, then future RequestVote and AppendEntries RPCs sent to it will
    fail. Raft handles these failures by retrying indefinitely; if the crashed server restarts, then the RPC
    will complete successfully.'
    """
    cluster = Cluster()
    cluster.elect(N1)
    cluster.crash(victim)
    cluster.propose(N1, 5)
    cluster.settle()

    cluster.restart(victim)
    cluster.timeout(N1)
    cluster.settle()

    assert cluster.servers[victim].machine == cluster.servers[N1].machine
    assert len(cluster.servers[victim].machine) == 6


def test_crashed_candidate_campaigns_again_in_a_later_term() -> None:
    """§5.5, the same sentence: its vote is on disk, so it can't ask for the same term twice."""
    cluster = Cluster()
    cluster.timeout(N1)
    cluster.settle(lose=lambda flight: isinstance(flight.message, RequestVote))
    assert cluster.servers[N1].hard_state == HardState(Term(1), N1)

    cluster.crash(N1)
    cluster.restart(N1)
    cluster.elect(N1)

    assert cluster.servers[N1].hard_state == HardState(Term(2), N1)


def test_requests_are_idempotent() -> None:
    """§5.5: 'If a server crashes after completing an RPC but before responding, then it will receive the same
    RPC again after it restarts. Raft RPCs are idempotent, so this causes no harm.'
    """
    request = append(N2, 1, terms=(1, 1), commit=1)
    raft = make_raft()
    first = sent(persisted(raft, raft.step(NOW, request)))
    restarted = make_raft(log_terms=(1, 1), term=1)

    again = persisted(restarted, restarted.step(NOW, request))

    assert sent(again) == first == [matched(1, 2)]
    assert only(again, Persist) == []
    assert restarted.status().last_index == 2


def test_heartbeats_keep_elections_away() -> None:
    """§5.6: 'the broadcast time should be an order of magnitude less than the election timeout so that leaders
    can reliably send the heartbeat messages required to keep followers from starting elections.'
    """
    cluster = Cluster(5)
    cluster.elect(N1)
    for _ in range(100):
        cluster.timeout(N1)
        cluster.settle()
        for server in cluster.servers.values():
            assert server.raft is not None
            deadline = server.raft.deadline()
            assert deadline is not None
            assert deadline > cluster.now
            cluster.step(server.id, Timeout())  # early: it does no harm

    assert [server.role for server in cluster.servers.values()] == [Role.LEADER] + [Role.FOLLOWER] * 4
    assert all(server.hard_state.term == 1 for server in cluster.servers.values())


def test_leader_begins_its_term_with_a_no_op() -> None:
    """§8: 'each leader commit a blank no-op entry into the log at the start of its term.'"""
    raft = make_raft(log_terms=(1, 1), term=1)

    [persist] = only(win(raft), Persist)

    assert [(entry.term, entry.kind, entry.data) for entry in persist.entries] == [(2, EntryKind.NOOP, b"")]
    assert persist.first_index == 3


# Reads (§8, "must check whether it has been deposed before processing a read-only request") are in test_reads.py;
# Figure 3 as a whole, in random runs, is in test_figure_3.py.
