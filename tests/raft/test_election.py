"""Pre-votes, stickiness, and leaders that step down: what huton does beyond §5.2 of the paper.

Source: thesis §9.6 (pre-vote), §4.2.3 (stickiness), §6.2 (check-quorum).
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from huton.raft import Raft
from huton.raft.effects import Persist, RoleChanged
from huton.raft.events import Persisted, Receive, Timeout
from huton.raft.messages import AppendEntries, PreVote, PreVoteReply, RequestVote, RequestVoteReply
from huton.raft.types import HardState, NodeId, Role, Term
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
    campaign,
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
    pre_vote,
    pre_vote_reply,
    propose,
    refusal,
    request_vote,
    sent,
    unmatched,
    vote,
)
from tests.raft.minicluster import Cluster

# ------------------------------------------------------------ campaigning on a slow disk


def test_a_disk_slower_than_an_election_does_not_keep_a_candidate_from_voting_for_itself() -> None:
    """R2: its own vote counts once it is durable; a new campaign before that would put it off for ever."""
    raft = make_raft(size=3)
    pre_campaign(raft)
    effects = raft.step(NOW, pre_vote_reply(N2, 1))
    (persist,) = only(effects, Persist)

    now = NOW
    for _ in range(5):
        now = raft.deadline() or now
        assert raft.step(now, Timeout()) == []
    assert raft.status().term == 1

    effects = raft.step(now, Persisted(persist.seq))
    assert [type(message) for message in sent(effects)] == [RequestVote, RequestVote]
    raft.step(now, vote(N2, 1))
    assert raft.status().role is Role.LEADER


# ------------------------------------------------------------ asking for pre-votes


def test_a_pre_candidate_asks_for_the_next_term_and_keeps_its_own() -> None:
    """Thesis §9.6: 'a candidate only increments its term if it first learns from a majority of the cluster that
    they would be willing to grant the candidate their votes.'
    """
    raft = make_raft(log_terms=(1, 2), term=4)

    effects = pre_campaign(raft)

    assert (raft.status().role, raft.status().term, raft.status().leader) == (Role.PRE_CANDIDATE, 4, None)
    for peer in peers_of(raft):
        [message] = sent(effects, peer)
        assert isinstance(message, PreVote)
        assert (message.term, message.last_log_index, message.last_log_term) == (5, 2, 2)


@pytest.mark.parametrize(("size", "needed"), [(1, 0), (2, 1), (3, 1), (4, 2), (5, 2)])
def test_a_majority_of_pre_votes_starts_the_campaign(size: int, needed: int) -> None:
    """Thesis §9.6, the same sentence; it would vote for itself."""
    raft = make_raft(size=size)
    pre_campaign(raft)

    for peer in peers_of(raft)[:needed]:
        assert (raft.status().role, raft.status().term) == (Role.PRE_CANDIDATE, 0)
        raft.step(NOW, pre_vote_reply(peer, 1))

    assert (raft.status().role, raft.status().term) == (Role.CANDIDATE, 1)


def test_a_member_that_is_cut_off_does_not_raise_its_term() -> None:
    """Thesis §9.6: Pre-Vote 'prevents a partitioned server from disrupting the cluster when it rejoins'."""
    cluster = Cluster()
    cluster.elect(N1)
    for _ in range(20):
        cluster.timeout(N3)
        cluster.settle(N3)
    assert cluster.servers[N3].hard_state.term == 1
    cluster.elect(N1, N2)  # it has stepped down meanwhile: so much time has passed
    term = cluster.servers[N1].hard_state.term

    for _ in range(20):
        cluster.timeout(N1)
        cluster.settle()

    assert cluster.servers[N1].role is Role.LEADER
    assert {server.hard_state.term for server in cluster.servers.values()} == {term}


@pytest.mark.parametrize("role", [Role.PRE_CANDIDATE, Role.CANDIDATE])
def test_a_majority_of_refusals_makes_a_follower(role: Role) -> None:
    """A campaign that can't be won any more is over; the next one comes after a new timeout."""
    raft = make_candidate(size=3)
    refused = vote
    if role is Role.PRE_CANDIDATE:
        raft = make_raft(term=1)
        pre_campaign(raft)
        refused = pre_vote_reply

    raft.step(NOW, refused(N2, 1, granted=False))
    assert raft.status().role is role
    raft.step(NOW, refused(N3, 1, granted=False))

    assert (raft.status().role, raft.status().term) == (Role.FOLLOWER, 1)
    assert raft.deadline() == NOW + ELECTION


def test_every_campaign_starts_with_an_empty_tally() -> None:
    """Pre-votes of a former wait, under the same term, are forgotten (etcd #8346)."""
    raft = make_raft(size=5)
    pre_campaign(raft)
    raft.step(NOW, pre_vote_reply(N2, 1))
    raft.step(NOW + ELECTION, Timeout())
    assert raft.status().role is Role.PRE_CANDIDATE

    raft.step(NOW + ELECTION, pre_vote_reply(N3, 1))
    assert raft.status().role is Role.PRE_CANDIDATE
    raft.step(NOW + ELECTION, pre_vote_reply(N4, 1))

    assert raft.status().role is Role.CANDIDATE


def test_grants_for_another_term_do_not_count() -> None:
    """A pre-vote that was asked for in a former term says nothing about this one."""
    raft = make_raft(term=5)
    pre_campaign(raft)

    for term in (1, 5, 7):
        raft.step(NOW, pre_vote_reply(N2, term))
        raft.step(NOW, pre_vote_reply(N3, term))

    assert (raft.status().role, raft.status().term) == (Role.PRE_CANDIDATE, 5)


def test_votes_of_an_earlier_candidacy_do_not_elect() -> None:
    """A candidate whose time is over asks for pre-votes again; late votes of its last term are void by then."""
    raft = make_candidate()
    raft.step(NOW + ELECTION, Timeout())
    raft.step(NOW + ELECTION, vote(N2, 1))
    assert raft.status().role is Role.PRE_CANDIDATE
    raft.step(NOW + ELECTION, pre_vote_reply(N2, 2))
    assert (raft.status().role, raft.status().term) == (Role.CANDIDATE, 2)

    raft.step(NOW + ELECTION, vote(N2, 1))
    raft.step(NOW + ELECTION, vote(N3, 1))

    assert raft.status().role is Role.CANDIDATE


# ----------------------------------------------------------- answering pre-votes


@pytest.mark.parametrize(
    ("last_log", "granted"), [((2, 3), True), ((2, 4), True), ((3, 1), True), ((2, 2), False), ((1, 9), False)]
)
def test_pre_votes_go_to_logs_that_are_up_to_date(last_log: tuple[int, int], granted: bool) -> None:
    """Thesis §9.6: granted 'if the candidate's log is sufficiently up-to-date' (and no leader is heard)."""
    raft = make_raft(log_terms=(1, 2, 2), term=2)

    [reply] = sent(raft.step(NOW, pre_vote(N2, 3, last_log=last_log)))

    assert reply == PreVoteReply(term=Term(3 if granted else 2), granted=granted)


def test_granting_a_pre_vote_changes_nothing() -> None:
    """Thesis §9.6: no term, no vote, no timer; and it binds nobody: two may get it for one term."""
    raft = make_raft(term=1)
    raft.step(BOOTED, Timeout())
    before, deadline = raft.status(), raft.deadline()

    effects = raft.step(NOW - 1, pre_vote(N2, 5))
    effects += raft.step(NOW - 1, pre_vote(N3, 5))

    granted = PreVoteReply(term=Term(5), granted=True)
    assert sent(effects) == [granted, granted]
    assert only(effects, Persist) == []
    assert (raft.status(), raft.deadline()) == (before, deadline)


def test_a_pre_vote_does_not_use_up_the_vote() -> None:
    """The same: the vote itself is still free, for whoever asks first."""
    raft = make_raft(term=1)
    raft.step(NOW, pre_vote(N2, 2))

    effects = persisted(raft, raft.step(NOW, request_vote(N3, 2)))

    assert sent(effects) == [RequestVoteReply(term=Term(2), granted=True)]


def test_a_voter_that_has_voted_may_grant_a_pre_vote_for_a_later_term() -> None:
    """Votes bind in their term alone."""
    raft = make_raft(term=1, voted_for=N3)

    assert sent(raft.step(NOW, pre_vote(N2, 2))) == [PreVoteReply(term=Term(2), granted=True)]


@pytest.mark.parametrize("term", [1, 2, 3])
def test_a_pre_vote_for_a_term_that_is_past_is_refused_with_our_own(term: int) -> None:
    """PreVoteReply: 'the voter's own term, from which a sender that is behind learns'."""
    raft = make_raft(term=3)

    assert sent(raft.step(NOW, pre_vote(N2, term, last_log=(9, 9)))) == [PreVoteReply(term=Term(3), granted=False)]


@pytest.mark.parametrize("make", [make_follower, make_leader])
def test_nobody_grants_a_pre_vote_while_a_leader_is_heard(make: Callable[[], Raft]) -> None:
    """Thesis §9.6: and 'the voters have not received heartbeats from a valid leader for at least a baseline
    election timeout'. A leader hears itself.
    """
    raft = make()

    [reply] = sent(raft.step(NOW + ELECTION - 1, pre_vote(N3, 2, last_log=(9, 9))), N3)

    assert reply == PreVoteReply(term=Term(1), granted=False)


def test_a_follower_grants_once_its_leader_was_silent_for_a_minimum_timeout() -> None:
    """§4.2.3: the *minimum* election timeout counts, not this follower's longer one."""
    raft = make_raft(term=1, timeouts=lambda: 2 * ELECTION)
    raft.step(NOW, append(N2, 1))

    [reply] = sent(raft.step(NOW + ELECTION, pre_vote(N3, 2)))

    assert raft.status().role is Role.FOLLOWER
    assert reply == PreVoteReply(term=Term(2), granted=True)


def test_candidates_do_not_stand_in_each_others_way() -> None:
    """Without a leader any up-to-date log gets the pre-vote, from candidates too."""
    for raft in (make_candidate(), make_raft(term=1)):
        if raft.status().role is Role.FOLLOWER:
            pre_campaign(raft)
        assert sent(raft.step(NOW, pre_vote(N3, 2))) == [PreVoteReply(term=Term(2), granted=True)]


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE, Role.LEADER])
def test_a_refused_pre_vote_teaches_the_higher_term(role: Role) -> None:
    """A member that was away learns the term from whoever refuses it (openraft #1796), whatever it is by then."""
    raft = make_raft(term=1)
    if role is Role.PRE_CANDIDATE:
        pre_campaign(raft)
    elif role is not Role.FOLLOWER:
        raft = make_candidate() if role is Role.CANDIDATE else make_leader()
    assert raft.status().role is role

    effects = raft.step(NOW, pre_vote_reply(N2, 7, granted=False))

    assert (raft.status().role, raft.status().term) == (Role.FOLLOWER, 7)
    assert [persist.hard_state for persist in only(effects, Persist)] == [HardState(Term(7), None)]


def test_a_granted_pre_vote_teaches_no_term() -> None:
    """It carries the term that was asked about, in which nobody is yet."""
    raft = make_leader()

    assert raft.step(NOW, pre_vote_reply(N2, 7)) == []
    assert (raft.status().role, raft.status().term) == (Role.LEADER, 1)


@pytest.mark.parametrize("make", [make_candidate, make_leader, make_follower])
def test_a_pre_vote_never_changes_the_term(make: Callable[[], Raft]) -> None:
    """etcd: 'Never change our term in response to a PreVote.'"""
    raft = make()
    before = raft.status()

    raft.step(NOW, pre_vote(N2, 99, last_log=(98, 98)))

    assert raft.status() == before


# ------------------------------------------------------------------ stickiness


@pytest.mark.parametrize(("after", "granted"), [(0, False), (ELECTION - 1, False), (ELECTION, True)])
def test_votes_are_refused_while_a_leader_is_heard(after: int, granted: bool) -> None:
    """Thesis §4.2.3: 'if a server receives a RequestVote request within the minimum election timeout of hearing
    from a current leader, it does not update its term or grant its vote.'
    """
    raft = make_raft(term=1, timeouts=lambda: 2 * ELECTION)
    raft.step(NOW, append(N2, 1))

    persisted(raft, raft.step(NOW + after, request_vote(N3, 2)))

    assert (raft.status().term, raft.status().voted_for) == ((2, N3) if granted else (1, None))


def test_an_append_that_is_rejected_is_a_sign_of_the_leader_too() -> None:
    """§5.2: any AppendEntries of the current leader counts, also one that does not match."""
    raft = make_raft(term=1)
    raft.step(BOOTED, Timeout())

    raft.step(NOW - 1, append(N2, 1, prev=(1, 5)))

    assert (raft.status().leader, raft.deadline()) == (N2, NOW - 1 + ELECTION)


def test_no_vote_in_a_term_whose_leader_is_known() -> None:
    """§5.2: that term's election is over, though this node took no part in it."""
    raft = make_follower(leader=N2)

    effects = persisted(raft, raft.step(NOW + ELECTION, request_vote(N3, 1, last_log=(9, 9))))

    assert sent(effects) == [RequestVoteReply(term=Term(1), granted=False)]
    assert raft.status().voted_for is None


# ------------------------------------------------------------- stepping down


def test_check_quorum_a_leader_that_nobody_answers_steps_down() -> None:
    """Thesis §6.2: 'a leader in Raft steps down if an election timeout elapses without a successful round of
    heartbeats to a majority of its cluster.'
    """
    raft = make_leader(size=5)
    effects = []

    for beat in range(1, 11):
        effects = raft.step(NOW + beat * HEARTBEAT, Timeout())
        raft.step(NOW + beat * HEARTBEAT, acknowledgement(N2, 1, 0))

    assert raft.status().role is Role.FOLLOWER
    assert only(effects, RoleChanged) == [RoleChanged(Role.FOLLOWER, Term(1), None)]
    assert raft.status().term == 1


def test_check_quorum_counts_answers_since_the_last_count_only() -> None:
    """§6.2, the same: that everybody answered once is no sign of life for ever."""
    raft = make_working_leader(size=3)

    for beat in range(1, 21):
        raft.step(NOW + beat * HEARTBEAT, Timeout())

    assert raft.status().role is Role.FOLLOWER


@pytest.mark.parametrize("success", [True, False])
def test_check_quorum_any_answer_of_a_majority_keeps_the_leader(success: bool) -> None:
    """§6.2, the same: a follower that rejects is alive as well."""
    raft = make_leader(size=5)

    for beat in range(1, 50):
        now = NOW + beat * HEARTBEAT
        raft.step(now, Timeout())
        for peer in (N2, N3):
            reply = acknowledgement(peer, 1, 0) if success else refusal(peer, 1, 0, hint=(0, 0))
            raft.step(now, reply)

    assert raft.status().role is Role.LEADER


def test_check_quorum_strangers_do_not_keep_the_leader() -> None:
    """§6.2: 'a majority of its cluster'."""
    raft = make_leader(size=3)

    for beat in range(1, 21):
        raft.step(NOW + beat * HEARTBEAT, Timeout())
        if raft.status().role is Role.LEADER:
            raft.step(NOW + beat * HEARTBEAT, acknowledgement(N4, 1, 0))
            raft.step(NOW + beat * HEARTBEAT, acknowledgement(N5, 1, 0))

    assert raft.status().role is not Role.LEADER


def test_a_single_voter_never_steps_down() -> None:
    """It is its own majority."""
    raft = make_leader(size=1)

    for beat in range(1, 50):
        raft.step(NOW + beat * HEARTBEAT, Timeout())

    assert raft.status().role is Role.LEADER


def test_a_leader_whose_disk_stands_still_steps_down() -> None:
    """A leader that can't commit gives up leadership, though all followers answer (LeaseGuard's "faux leader",
    openraft #1651).
    """
    raft = make_working_leader()
    raft.step(NOW, propose(b"x"))

    for beat in range(1, 12):
        now = NOW + beat * HEARTBEAT
        raft.step(now, Timeout())
        if raft.status().role is Role.LEADER:
            raft.step(now, acknowledgement(N2, 1, 1))
            raft.step(now, acknowledgement(N3, 1, 1))

    assert raft.status().role is Role.FOLLOWER


def test_a_leader_with_a_slow_disk_leads_on() -> None:
    """The same bound: a disk that moves within an election timeout is alive, however long its queue."""
    raft = make_working_leader()
    seq = 2
    for beat in range(1, 50):
        now = NOW + beat * HEARTBEAT
        raft.step(now, Timeout())
        raft.step(now, propose(b"x", first_id=beat))
        raft.step(now, acknowledgement(N2, 1, 1))
        if beat > 5:
            seq += 1
            raft.step(now, Persisted(seq))

    assert raft.status().role is Role.LEADER


def test_a_candidate_of_a_higher_term_frees_itself() -> None:
    """etcd ``TestFreeStuckCandidate``: votes are refused to it while a leader is heard, so its answer to that
    leader's AppendEntries has to make the leader step down; otherwise it could never follow again.
    """
    leader = make_working_leader()
    stuck = make_raft(N3, term=4)
    assert leader.step(NOW, request_vote(N3, 5)) == []  # disregarded

    [heartbeat, *_] = sent(leader.step(NOW + HEARTBEAT, Timeout()), N3)
    [answer] = sent(stuck.step(NOW, Receive(N1, heartbeat)), N1)
    assert answer.term == 4
    leader.step(NOW + HEARTBEAT, Receive(N3, answer))

    assert (leader.status().role, leader.status().term) == (Role.FOLLOWER, 4)


def test_the_cluster_takes_a_stuck_candidate_back() -> None:
    """The same, to its end: one more election, then everybody follows."""
    cluster = Cluster(3, terms=(1, 1, 7))
    cluster.elect(N1, N2)

    for _ in range(40):
        cluster.timeout(min(cluster.servers, key=lambda each: due(cluster, each)))
        cluster.settle()

    roles = sorted(str(server.role) for server in cluster.servers.values())
    assert roles == ["Role.FOLLOWER", "Role.FOLLOWER", "Role.LEADER"]
    [term] = {server.hard_state.term for server in cluster.servers.values()}
    assert term > 7


def due(cluster: Cluster, id: NodeId) -> int:
    raft = cluster.servers[id].raft
    assert raft is not None
    deadline = raft.deadline()
    assert deadline is not None
    return deadline


def test_a_deposed_leader_forgets_who_answered() -> None:
    """Leading again, in a later term, it knows nothing of its followers yet (Figure 2: 'Reinitialized after
    election').
    """
    raft = make_working_leader()
    assert [index for _, index in raft.status().match_index] == [1, 1]
    persisted(raft, raft.step(NOW, vote(N3, 5, granted=False)), NOW)
    assert raft.status().match_index == ()
    now = NOW + ELECTION

    raft.step(now, Timeout())
    raft.step(now, pre_vote_reply(N2, 6))
    seq = 4  # vote, no-op, term 5, vote
    raft.step(now, Persisted(seq))
    raft.step(now, vote(N2, 6))

    assert raft.status().role is Role.LEADER
    assert raft.status().match_index == ((N2, 0), (N3, 0))


def test_a_vote_is_kept_when_a_candidate_steps_down_in_its_term() -> None:
    """§5.2, one vote in a term: recognizing a leader of the same term gives no second vote (akka-raft #56)."""
    raft = make_candidate()

    effects = raft.step(NOW, append(N2, 1))

    assert (raft.status().role, raft.status().voted_for) == (Role.FOLLOWER, N1)
    assert only(effects, Persist) == []


# ------------------------------------------------------------ time, and no time


def test_early_timeouts_do_no_harm() -> None:
    """Timeout: 'Early or late ones do no harm.'"""
    raft = make_raft()
    raft.step(BOOTED, Timeout())

    for now in range(BOOTED, NOW, ELECTION // 10):
        assert raft.step(now, Timeout()) == []

    assert (raft.status().role, raft.deadline()) == (Role.FOLLOWER, NOW)


def test_a_booted_core_waits_a_whole_timeout_from_its_first_event() -> None:
    """§5.2: whatever the clock showed before; the first deadline is one that is already over."""
    raft = make_raft()
    deadline = raft.deadline()
    assert deadline is not None
    assert deadline <= BOOTED

    raft.step(BOOTED, Timeout())

    assert raft.status().role is Role.FOLLOWER
    assert raft.deadline() == NOW


@pytest.mark.parametrize("size", [2, 3, 5])
def test_random_timeouts_are_what_ends_split_votes(size: int) -> None:
    """§5.2: 'Raft uses randomized election timeouts to ensure that split votes are rare': the shortest wait wins."""
    waits = iter([ELECTION + 5, ELECTION + 1, ELECTION + 9, ELECTION + 7, ELECTION + 3] * 10)
    cluster = Cluster(size, timeouts=lambda: next(waits))
    first = min(cluster.servers, key=lambda each: due(cluster, each))

    cluster.timeout(first)
    cluster.settle()

    assert first == N2
    assert cluster.servers[N2].role is Role.LEADER
    assert all(server.hard_state.term == 1 for server in cluster.servers.values())


def test_every_change_of_role_is_announced() -> None:
    """RoleChanged: 'This node's role, term or known leader is now this'; nothing in between."""
    raft = make_raft(term=1)
    announced = []
    for now, event in (
        (BOOTED, Timeout()),
        (NOW, Timeout()),
        (NOW, pre_vote_reply(N2, 2)),
        (NOW, Persisted(1)),
        (NOW, vote(N2, 2)),
        (NOW, acknowledgement(N2, 2, 0)),
        (NOW, append(N3, 3)),
    ):
        announced += only(raft.step(now, event), RoleChanged)

    assert announced == [
        RoleChanged(Role.FOLLOWER, Term(1), None),
        RoleChanged(Role.PRE_CANDIDATE, Term(1), None),
        RoleChanged(Role.CANDIDATE, Term(2), None),
        RoleChanged(Role.LEADER, Term(2), N1),
        RoleChanged(Role.FOLLOWER, Term(3), N3),
    ]


def test_whoever_is_no_member_does_not_campaign() -> None:
    """A node that the configuration does not name has no vote to ask for."""
    raft = make_raft(N5, size=3)

    effects = pre_campaign(raft)

    assert (raft.status().role, sent(effects)) == (Role.FOLLOWER, [])


def test_a_rejection_of_a_stale_leader_names_the_new_term_only() -> None:
    """An answer to a leader of a former term must not look like an acknowledgement in it."""
    raft = make_raft(log_terms=(1, 1), term=3)

    assert sent(raft.step(NOW, append(N2, 2, prev=(1, 2)))) == [unmatched(3, 2, hint=(1, 2))]
    assert matched(3, 2) not in sent(raft.step(NOW, append(N2, 2, prev=(1, 2))))


def test_requests_for_votes_go_out_once_for_each_campaign() -> None:
    """§5.2: 'issues RequestVote RPCs in parallel'; losses are made good by the next campaign."""
    raft = make_raft()

    effects = persisted(raft, campaign(raft))
    effects += raft.step(NOW + ELECTION // 2, Timeout())

    assert len([message for message in sent(effects) if isinstance(message, RequestVote)]) == 2
    assert not [message for message in sent(effects) if isinstance(message, AppendEntries)]
