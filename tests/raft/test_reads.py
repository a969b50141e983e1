"""ReadIndex: linearizable reads without a log entry. Source: thesis §6.4."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from huton.raft import Raft
from huton.raft.effects import Effect, Persist, ReadReady, Reason, Rejected
from huton.raft.events import Persisted, Timeout
from huton.raft.messages import AppendEntriesReply
from huton.raft.reads import READS_MAX
from huton.raft.types import Index, NodeId, RequestId, Role
from tests.harness import (
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
    make_candidate,
    make_follower,
    make_leader,
    make_raft,
    make_working_leader,
    matched,
    only,
    persisted,
    pre_vote_reply,
    propose,
    read,
    refusal,
    sent,
    vote,
)
from tests.raft.minicluster import Cluster


def ready(effects: list[Effect]) -> list[tuple[int, int]]:
    """Return (id, index) of the reads that *effects* answer."""
    return [(answer.id, answer.index) for answer in only(effects, ReadReady)]


def test_a_read_costs_one_round_and_no_log_entry() -> None:
    """Thesis §6.4: 'The leader needs to make sure it has not been superseded by a newer leader of which it is
    unaware. It issues a new round of heartbeats and waits for their acknowledgments from a majority.'
    """
    raft = make_working_leader()

    effects = raft.step(NOW, read(7))
    assert only(effects, Persist) == []
    assert [(message.round, message.entries) for message in appends(effects)] == [(1, ()), (1, ())]
    assert ready(effects) == []

    assert ready(raft.step(NOW, acknowledgement(N2, 1, 1, round=1))) == [(7, 1)]


def test_a_read_waits_for_a_commit_of_the_leaders_own_term() -> None:
    """Thesis §6.4, step 1: 'If the leader has not yet marked an entry from its current term committed, it waits
    until it has done so.' Before that it may not know what is committed.
    """
    raft = make_leader(term=3, log_terms=(1, 2))

    effects = raft.step(NOW, read(7))
    effects += raft.step(NOW, acknowledgement(N2, 3, 2))
    effects += raft.step(NOW, acknowledgement(N3, 3, 2))
    assert ready(effects) == []

    effects = raft.step(NOW, acknowledgement(N2, 3, 3))
    assert ready(effects) == []
    assert {message.round for message in appends(effects)} == {1}
    assert ready(raft.step(NOW, acknowledgement(N2, 3, 3, round=1))) == [(7, 3)]


def test_answers_to_former_rounds_do_not_confirm() -> None:
    """A heartbeat's answer from before the read was asked says nothing about the time after (etcd #7331)."""
    raft = make_working_leader()
    raft.step(NOW, read(1))
    raft.step(NOW, acknowledgement(N2, 1, 1, round=1))

    raft.step(NOW, read(2))
    effects = raft.step(NOW, acknowledgement(N2, 1, 1, round=1))
    effects += raft.step(NOW, acknowledgement(N3, 1, 1, round=1))
    effects += raft.step(NOW, acknowledgement(N3, 1, 1, round=0))
    assert ready(effects) == []

    assert ready(raft.step(NOW, acknowledgement(N3, 1, 1, round=2))) == [(2, 1)]


def test_reads_that_come_during_a_round_wait_for_the_next() -> None:
    """Rounds are batches: however many reads come, one round is under way, and one follows."""
    raft = make_working_leader()

    effects = raft.step(NOW, read(1, 2))
    effects += raft.step(NOW, read(3))
    effects += raft.step(NOW, read(4))
    assert {message.round for message in appends(effects)} == {1}

    effects = raft.step(NOW, acknowledgement(N2, 1, 1, round=1))
    assert ready(effects) == [(1, 1), (2, 1)]
    assert {message.round for message in appends(effects)} == {2}
    assert ready(raft.step(NOW, acknowledgement(N3, 1, 1, round=2))) == [(3, 1), (4, 1)]


@pytest.mark.parametrize(("size", "needed"), [(2, 1), (3, 1), (4, 2), (5, 2)])
def test_a_majority_confirms(size: int, needed: int) -> None:
    """Thesis §6.4: 'acknowledgments from a majority of the cluster', the leader among it."""
    raft = make_working_leader(size=size)
    raft.step(NOW, read(1))

    peers = [N2, N3, N4, N5][:needed]
    for peer in peers[:-1]:
        assert ready(raft.step(NOW, acknowledgement(peer, 1, 1, round=1))) == []
    for _ in range(3):  # the same follower over and over is one
        for peer in peers[:-1]:
            assert ready(raft.step(NOW, acknowledgement(peer, 1, 1, round=1))) == []

    assert ready(raft.step(NOW, acknowledgement(peers[-1], 1, 1, round=1))) == [(1, 1)]


def test_strangers_do_not_confirm() -> None:
    """The same: of the cluster."""
    raft = make_working_leader(size=3)
    raft.step(NOW, read(1))

    effects = raft.step(NOW, acknowledgement(N4, 1, 1, round=1))
    effects += raft.step(NOW, acknowledgement(N5, 1, 1, round=1))

    assert ready(effects) == []


def test_a_rejection_confirms_as_well() -> None:
    """Any reply of the same term that echoes this round or a later one confirms it: who rejects an entry has not
    voted for anybody since, either.
    """
    raft = make_working_leader()
    raft.step(NOW, propose(b"x"))
    raft.step(NOW, read(1))

    assert ready(raft.step(NOW, refusal(N2, 1, 2, hint=(1, 1), round=1))) == [(1, 1)]


def test_an_answer_of_a_former_term_confirms_nothing() -> None:
    """The same: 'of the same term'. Rounds start anew in every term."""
    raft = make_working_leader(term=4)
    raft.step(NOW, read(1))

    effects = raft.step(NOW, acknowledgement(N2, 3, 1, round=9))
    effects += raft.step(NOW, acknowledgement(N3, 3, 1, round=9))

    assert ready(effects) == []


def test_a_read_sees_what_was_committed_when_it_was_asked() -> None:
    """Thesis §6.4, step 2: 'The leader saves its current commit index in a local variable readIndex.'"""
    raft = make_working_leader()
    persisted(raft, raft.step(NOW, propose(b"x")))
    raft.step(NOW, acknowledgement(N2, 1, 2))

    raft.step(NOW, read(1))

    assert ready(raft.step(NOW, acknowledgement(N3, 1, 1, round=1))) == [(1, 2)]


def test_a_single_voter_answers_at_once() -> None:
    """It is its own majority."""
    raft = make_leader(size=1)

    assert ready(raft.step(NOW, read(1, 2))) == [(1, 1), (2, 1)]


def test_a_single_voter_still_waits_for_its_own_terms_commit() -> None:
    """Thesis §6.4, step 1, where the disk alone decides."""
    raft = make_raft(size=1)
    raft.step(NOW - ELECTION, Timeout())
    raft.step(NOW, Timeout())
    raft.step(NOW, Persisted(1))
    assert raft.status().role is Role.LEADER

    assert ready(raft.step(NOW, read(1))) == []

    assert ready(raft.step(NOW, Persisted(2))) == [(1, 1)]


@pytest.mark.parametrize("make", [make_raft, make_follower, make_candidate])
def test_everybody_else_refuses(make: Callable[[], Raft]) -> None:
    """Rejected: 'leader: who leads, as far as this node knows'."""
    raft = make()

    effects = raft.step(NOW, read(1, 2))

    assert only(effects, Rejected) == [
        Rejected(RequestId(id), Reason.NOT_LEADER, raft.status().leader) for id in (1, 2)
    ]


@pytest.mark.parametrize("leader", [None, N3])
def test_a_leader_that_steps_down_refuses_what_waits(leader: NodeId | None) -> None:
    """Each read ends in exactly one answer: those of the round under way, and those that wait for the next."""
    raft = make_working_leader()
    raft.step(NOW, read(1, 2))
    raft.step(NOW, read(3))

    effects = raft.step(NOW, append(N3, 2) if leader else vote(N3, 2, granted=False))
    effects += raft.step(NOW, acknowledgement(N2, 1, 1, round=1))

    assert sorted(only(effects, Rejected), key=lambda answer: answer.id) == [
        Rejected(RequestId(id), Reason.NOT_LEADER, leader) for id in (1, 2, 3)
    ]
    assert ready(effects) == []


def test_a_lost_round_is_repeated_by_heartbeats() -> None:
    """Every message carries the newest round."""
    raft = make_working_leader()
    raft.step(NOW, read(1))

    effects = raft.step(NOW + HEARTBEAT, Timeout())

    assert [message.round for message in appends(effects)] == [1, 1]
    assert ready(raft.step(NOW + HEARTBEAT, acknowledgement(N2, 1, 1, round=1))) == [(1, 1)]


def test_entries_carry_the_round_too() -> None:
    """A busy leader needs no empty messages: the pipeline confirms."""
    raft = make_working_leader()
    raft.step(NOW, read(1))

    [message] = appends(raft.step(NOW, propose(b"x")), N2)

    assert (message.round, len(message.entries)) == (1, 1)


def test_followers_echo_the_newest_round_of_their_leader() -> None:
    """AppendEntriesReply: 'the newest round it has seen of this leader', also if an older message comes later."""
    raft = make_follower()

    effects = raft.step(NOW, append(N2, 1, round=4))
    effects += raft.step(NOW, append(N2, 1, round=3))
    effects += raft.step(NOW, append(N2, 1, prev=(1, 9), round=5))

    assert [m.round for m in sent(effects) if isinstance(m, AppendEntriesReply)] == [4, 4, 5]


def test_a_new_leaders_rounds_start_over() -> None:
    """What was seen of a former leader confirms nothing to the next."""
    raft = make_follower()
    raft.step(NOW, append(N2, 1, round=40))

    effects = persisted(raft, raft.step(NOW, append(N3, 2, round=1)))

    assert sent(effects) == [matched(2, 0, round=1)]


def test_reads_that_wait_are_bounded() -> None:
    """A leader that can't commit takes no more than it has promised to hold; the others may be asked again."""
    raft = make_leader()
    taken = raft.step(NOW, read(*range(1, READS_MAX)))
    assert only(taken, Rejected) == []

    over = raft.step(NOW, read(READS_MAX, READS_MAX + 1, READS_MAX + 2))

    assert [(rejected.id, rejected.reason) for rejected in only(over, Rejected)] == [
        (READS_MAX + 1, Reason.NOT_LEADER),
        (READS_MAX + 2, Reason.NOT_LEADER),
    ]


def test_a_candidate_echoes_no_round_of_a_former_term() -> None:
    """Whoever wins its term may be the leader of the former one: it would take the echo for a confirmation."""
    raft = make_raft(log_terms=(1,), term=1)
    raft.step(NOW, append(N2, 1, prev=(1, 1), round=50))
    late = append(N2, 1, prev=(1, 1), round=50)
    timeout = raft.deadline()
    assert timeout is not None
    raft.step(timeout, Timeout())
    persisted(raft, raft.step(timeout, pre_vote_reply(N3, 2)), timeout)
    assert raft.status().role is Role.CANDIDATE

    (refused,) = sent(raft.step(timeout, late))

    assert isinstance(refused, AppendEntriesReply)
    assert (refused.term, refused.success, refused.round) == (2, False, 0)


def test_a_follower_cut_off_from_its_leader_confirms_nothing() -> None:
    """The whole of it: a deposed leader that does not know of its successor can't serve a read."""
    cluster = Cluster()
    cluster.elect(N1)
    cluster.network.clear()
    cluster.timeout(N2)
    cluster.settle(N2, N3)
    while cluster.servers[N2].role is not Role.LEADER:
        cluster.timeout(N2)
        cluster.settle(N2, N3)
    cluster.propose(N2)
    cluster.settle(N2, N3)

    [request] = cluster.read(N1)
    cluster.settle()

    [answer] = cluster.answers[request]
    assert isinstance(answer, Rejected)
    assert cluster.servers[N1].role is Role.FOLLOWER


def test_the_read_index_may_be_ahead_of_what_is_applied() -> None:
    """ReadReady: 'the read may be served once ``index`` is applied'; the core does not wait for that."""
    raft = make_working_leader(applies=False)

    raft.step(NOW, read(1))

    assert raft.status().applied == 0
    assert only(raft.step(NOW, acknowledgement(N2, 1, 1, round=1)), ReadReady) == [ReadReady(RequestId(1), Index(1))]
    assert raft.status().leader == N1
