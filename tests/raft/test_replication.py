"""Pipelining, conflict hints, repair of what was lost, and entries that have left memory.

Source: Raft paper §5.3; thesis §10.2.2 (pipelining).
"""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from huton.raft.effects import Apply, Committed, Effect, Persist, ReadLog, Reason, Rejected, Undecided
from huton.raft.events import Applied, LogRead, PeerUnreachable, Persisted, Receive, Timeout
from huton.raft.messages import AppendEntries, AppendEntriesReply
from huton.raft.types import Entry, EntryKind, Index, NodeId, RequestId, Role, Term
from tests.harness import (
    ELECTION,
    HEARTBEAT,
    N1,
    N2,
    N3,
    NOW,
    acknowledgement,
    append,
    appends,
    entries_of,
    make_follower,
    make_leader,
    make_raft,
    make_working_leader,
    only,
    persisted,
    pre_vote_reply,
    propose,
    refusal,
    sent,
    unmatched,
    vote,
)
from tests.raft.minicluster import Cluster, Flight

# ------------------------------------------------------------------- pipelining


def test_entries_follow_each_other_without_waiting() -> None:
    """Thesis §10.2.2: 'the leader ... can send the next entry without waiting for an acknowledgement of the
    previous one'.
    """
    raft = make_working_leader()

    sent_to_n2 = []
    for number in range(5):
        sent_to_n2 += appends(raft.step(NOW, propose(b"x", first_id=number + 1)), N2)

    assert [(message.prev_log_index, len(message.entries)) for message in sent_to_n2] == [(i, 1) for i in range(1, 6)]


def test_proposals_of_one_step_travel_together() -> None:
    """One write and one message for all that came at once."""
    raft = make_working_leader()

    effects = raft.step(NOW, propose(b"a", b"b", b"c"))

    assert [len(persist.entries) for persist in only(effects, Persist)] == [3]
    assert [len(message.entries) for message in appends(effects)] == [3, 3]


def test_messages_in_flight_are_bounded() -> None:
    """inflight_messages_max: 'AppendEntries with entries sent to one follower and not yet acknowledged'."""
    raft = make_working_leader(inflight_messages_max=3)

    sent_to_n2 = []
    for number in range(10):
        sent_to_n2 += appends(raft.step(NOW, propose(b"x", first_id=number + 1)), N2)
    assert [message.prev_log_index for message in sent_to_n2] == [1, 2, 3]

    [freed] = appends(raft.step(NOW, acknowledgement(N2, 1, 2)), N2)
    assert (freed.prev_log_index, len(freed.entries)) == (4, 7)


def test_bytes_in_flight_are_bounded() -> None:
    """inflight_bytes_max: 'payload bytes sent to one follower and not yet acknowledged'; one message may cross it."""
    raft = make_working_leader(inflight_bytes_max=100, append_bytes_max=40)

    effects = raft.step(NOW, propose(*[b"." * 40] * 10))
    assert [message.prev_log_index for message in appends(effects, N2)] == [1, 2, 3]
    assert appends(raft.step(NOW, propose(b"x", first_id=11)), N2) == []

    effects = raft.step(NOW, acknowledgement(N2, 1, 3))
    assert [message.prev_log_index for message in appends(effects, N2)] == [4, 5]


def test_followers_do_not_wait_for_each_other() -> None:
    """The bounds are each follower's own."""
    raft = make_working_leader(inflight_messages_max=1)
    raft.step(NOW, propose(b"x"))

    raft.step(NOW, acknowledgement(N3, 1, 2))
    effects = raft.step(NOW, propose(b"y", first_id=2))

    assert appends(effects, N2) == []
    assert [message.prev_log_index for message in appends(effects, N3)] == [2]


def test_one_message_is_bounded_and_a_large_entry_travels_alone() -> None:
    """append_bytes_max: 'the payload bytes of one AppendEntries ... one larger entry travels alone'."""
    raft = make_working_leader(append_bytes_max=10)

    effects = raft.step(NOW, propose(b"." * 4, b"." * 6, b"." * 99, b"." * 1))

    assert [[len(entry.data) for entry in message.entries] for message in appends(effects, N2)] == [[4, 6], [99], [1]]


def test_a_follower_that_is_being_probed_gets_one_message() -> None:
    """Before it is known where the logs agree, there is no pipeline."""
    raft = make_leader()

    effects = raft.step(NOW, propose(b"x"))
    effects += raft.step(NOW, propose(b"y", first_id=2))
    assert appends(effects) == []

    effects = raft.step(NOW, acknowledgement(N2, 1, 1))
    assert [(message.prev_log_index, len(message.entries)) for message in appends(effects, N2)] == [(1, 2)]


@settings(max_examples=60)
@given(
    sizes=st.lists(st.integers(0, 50), min_size=1, max_size=20),
    messages=st.integers(1, 4),
    inflight=st.integers(1, 100),
    message=st.integers(1, 60),
)
def test_bounds_hold_and_everything_arrives(sizes: list[int], messages: int, inflight: int, message: int) -> None:
    """Whatever the bounds, what is unacknowledged stays within them, and acknowledgements move it all."""
    raft = make_working_leader(inflight_messages_max=messages, inflight_bytes_max=inflight, append_bytes_max=message)
    effects = raft.step(NOW, propose(*[b"." * size for size in sizes]))
    pending = appends(effects, N2)
    arrived = 0
    while pending:
        assert len(pending) <= messages
        load = [sum(len(entry.data) for entry in each.entries) for each in pending]
        assert sum(load[:-1]) < inflight, "only the last message crosses the bound"
        assert all(size <= message or len(each.entries) == 1 for size, each in zip(load, pending, strict=True))
        first = pending.pop(0)
        assert first.prev_log_index == arrived + 1, "in order, nothing twice"
        arrived += len(first.entries)
        pending += appends(raft.step(NOW, acknowledgement(N2, 1, arrived + 1)), N2)

    assert arrived == len(sizes)


# ------------------------------------------------------------------------ loss


@pytest.mark.parametrize("lost", [1, 5])
def test_heartbeats_repair_what_was_lost(lost: int) -> None:
    """The heartbeat goes on where the leader thinks the follower is; a rejection shows that it is not there."""
    cluster = Cluster()
    cluster.elect(N1)
    for _ in range(lost):
        cluster.propose(N1)
        cluster.settle(N1, N2)
    assert cluster.terms(N3) == (1,)

    cluster.timeout(N1)
    cluster.settle()

    assert cluster.terms(N3) == cluster.terms(N1) == (1,) * (lost + 1)


def test_a_lost_acknowledgement_is_made_good_by_a_heartbeat() -> None:
    """The answer to a heartbeat acknowledges all that the follower has on its disk up to there."""
    cluster = Cluster()
    cluster.elect(N1)
    [request] = cluster.propose(N1)
    cluster.settle(lose=lambda flight: isinstance(flight.message, AppendEntriesReply))
    assert cluster.answers[request] == []

    cluster.timeout(N1)
    cluster.settle()

    assert cluster.answers[request] == [Committed(request, Index(2))]


def test_a_broken_link_starts_over_from_what_is_known() -> None:
    """PeerUnreachable: 'what was in flight to it is probably lost'."""
    raft = make_working_leader()
    raft.step(NOW, propose(b"x"))
    raft.step(NOW, propose(b"y", first_id=2))
    raft.step(NOW, acknowledgement(N2, 1, 2))

    effects = raft.step(NOW, PeerUnreachable(N2))

    assert [(message.prev_log_index, len(message.entries)) for message in appends(effects, N2)] == [(2, 1)]
    assert appends(effects, N3) == []


def test_probes_to_a_silent_follower_carry_nothing() -> None:
    """It may be down: heartbeats ask it without entries, until it answers."""
    raft = make_working_leader()
    raft.step(NOW, propose(b"x" * 1000))
    raft.step(NOW, PeerUnreachable(N2))

    for beat in range(1, 5):
        now = NOW + beat * HEARTBEAT
        [message] = appends(raft.step(now, Timeout()), N2)
        assert message.entries == ()
        raft.step(now, acknowledgement(N3, 1, 2))


def test_old_rejections_do_not_take_the_leader_back() -> None:
    """A rejection of a message from before, reordered or doubled (D5), says nothing about now."""
    raft = make_working_leader()
    for number in range(3):
        raft.step(NOW, propose(b"x", first_id=number + 1))
    raft.step(NOW, acknowledgement(N2, 1, 3))

    for index in (0, 1, 2, 3):
        effects = raft.step(NOW, refusal(N2, 1, index, hint=(0, 0)))
        assert appends(effects, N2) == []

    assert raft.status().match_index[0] == (N2, 3)


def test_old_rejections_do_not_disturb_a_probe() -> None:
    """The same, while the leader looks for agreement: only the answer to this very probe counts."""
    raft = make_leader(term=3, log_terms=(1,) * 8)  # probes with prev 8
    assert len(only(raft.step(NOW, refusal(N2, 3, 8, hint=(1, 5))), ReadLog)) == 1

    assert raft.step(NOW, refusal(N2, 3, 8, hint=(1, 2))) == []
    assert raft.step(NOW, refusal(N2, 3, 7, hint=(1, 2))) == []


def test_old_acknowledgements_do_not_take_match_index_back() -> None:
    """Figure 2: matchIndex 'increases monotonically'."""
    raft = make_working_leader()
    raft.step(NOW, propose(b"x", b"y"))
    raft.step(NOW, acknowledgement(N2, 1, 3))

    raft.step(NOW, acknowledgement(N2, 1, 1))

    assert raft.status().match_index[0] == (N2, 3)


def test_answers_of_strangers_count_for_nothing() -> None:
    """§5.3: a majority of the servers of the cluster."""
    raft = make_leader()

    for stranger in ("n7", "n8", "n9"):
        assert raft.step(NOW, acknowledgement(NodeId(stranger), 1, 1)) == []

    assert raft.status().commit_index == 0
    assert [peer for peer, _ in raft.status().match_index] == [N2, N3]


# -------------------------------------------------------------- conflict hints


@pytest.mark.parametrize(
    ("log", "prev", "hint"),
    [
        # log              prev     hint (term, index)
        ((), (1, 5), (0, 0)),
        ((1, 1), (1, 5), (1, 2)),
        ((1, 1), (4, 5), (1, 2)),
        ((1, 1, 3, 3), (2, 4), (1, 2)),
        ((1, 1, 3, 3), (2, 3), (1, 2)),
        ((3, 3, 3), (2, 2), (0, 0)),
        ((1, 1, 1, 1), (3, 3), (1, 3)),
    ],
)
def test_followers_hint_skips_terms_above_the_leaders(
    log: tuple[int, ...], prev: tuple[int, int], hint: tuple[int, int]
) -> None:
    """AppendEntriesReply: 'the follower's last index of a term not above the leader's prev_log_term'."""
    raft = make_raft(log_terms=log, term=5)

    assert sent(persisted(raft, raft.step(NOW, append(N2, 5, prev=prev)))) == [unmatched(5, prev[1], hint=hint)]


@pytest.mark.parametrize(
    ("leader_log", "hint", "next_prev"),
    [
        ((1, 1, 1, 3, 3), (1, 2), 2),
        ((1, 1, 1, 3, 3), (2, 4), 3),
        ((1, 4, 4, 4, 4), (3, 4), 1),
        ((2, 2, 2), (1, 2), 0),
        ((1, 1), (1, 1), 1),
    ],
)
def test_leader_skips_terms_above_the_followers(
    leader_log: tuple[int, ...], hint: tuple[int, int], next_prev: int
) -> None:
    """§5.3: 'the leader can decrement nextIndex to bypass all of the conflicting entries in that term.'"""
    raft = make_leader(term=5, log_terms=leader_log)

    effects = raft.step(NOW, refusal(N2, 5, len(leader_log), hint=hint))

    # Entries from before the restart are asked from storage; their place shows where the next probe goes.
    places = [ask.first_index - 1 for ask in only(effects, ReadLog)]
    assert (places or [message.prev_log_index for message in appends(effects, N2)]) == [next_prev]


TERMS = st.lists(st.integers(1, 6), max_size=25).map(sorted)


@settings(max_examples=100)
@given(leader=TERMS, follower=TERMS)
def test_agreement_is_found_within_one_rejection_per_term(leader: list[int], follower: list[int]) -> None:
    """§5.3: 'one AppendEntries RPC will be required for each term with conflicting entries, rather than one RPC
    per entry', whatever the two logs hold (here they agree in all entries of one index and term).
    """
    common = 0
    while common < min(len(leader), len(follower)) and leader[common] == follower[common]:
        common += 1
    # Index and term must determine the log before them: no term of one's tail may stand in the other's.
    own = [term * 2 for term in leader[:common]] + [term * 2 for term in leader[common:]]
    other = [term * 2 for term in follower[:common]] + [term * 2 + 1 for term in follower[common:]]
    cluster = Cluster(3, log_terms=(own, other, own), terms=(20, 20, 20))
    cluster.elect(N1, N3)
    rejections = 0

    def count(flight: Flight) -> bool:
        nonlocal rejections
        rejections += isinstance(flight.message, AppendEntriesReply) and not flight.message.success
        return False

    cluster.timeout(N1)
    cluster.settle(lose=count)

    assert cluster.terms(N2) == cluster.terms(N1)
    assert rejections <= min(len(set(own[common:])), len(set(other[common:]))) + 1


# ------------------------------------------------------------------ the commit


def test_no_commit_beyond_what_the_message_matched() -> None:
    """Figure 2, AppendEntries, step 5: entries 3 and 4 here may be another leader's, whatever leader_commit says."""
    raft = make_raft(log_terms=(1, 1, 1, 1), term=2)

    effects = raft.step(NOW, append(N2, 2, prev=(1, 2), commit=4))

    assert raft.status().commit_index == 2
    assert [ask.last_index for ask in only(effects, ReadLog)] == [2]


def test_a_heartbeat_for_a_follower_that_lags_commits_what_it_has() -> None:
    """The commit index in a heartbeat is the leader's own: the follower takes of it what the heartbeat matched."""
    raft = make_follower()
    persisted(raft, raft.step(NOW, append(N2, 1, terms=(1, 1))))

    raft.step(NOW, append(N2, 1, prev=(1, 1), commit=9))

    assert raft.status().commit_index == 1


def test_followers_without_traffic_hear_of_the_commit_at_once() -> None:
    """A follower with nothing in flight would otherwise wait for the next heartbeat."""
    raft = make_working_leader()
    persisted(raft, raft.step(NOW, propose(b"x")))

    effects = raft.step(NOW, acknowledgement(N2, 1, 2))

    assert [(m.leader_commit, m.entries, m.prev_log_index) for m in appends(effects, N2)] == [(2, (), 2)]
    assert appends(effects, N3) == []  # its entry is still in flight


def test_a_doubled_acknowledgement_counts_once() -> None:
    """D5: messages may be doubled; the same acknowledgement by one follower is one acknowledgement."""
    raft = make_working_leader(size=5)
    persisted(raft, raft.step(NOW, propose(b"x")))

    for _ in range(5):
        raft.step(NOW, acknowledgement(N2, 1, 2))

    assert raft.status().commit_index == 1


# --------------------------------------------------- proposals and their answers


@pytest.mark.parametrize("leader", [None, N2])
def test_only_the_leader_takes_proposals(leader: NodeId | None) -> None:
    """Rejected: 'leader: who leads, as far as this node knows'; nothing was appended."""
    raft = make_follower() if leader else make_raft()

    effects = raft.step(NOW, propose(b"a", b"b"))

    assert only(effects, Rejected) == [Rejected(RequestId(id), Reason.NOT_LEADER, leader) for id in (1, 2)]
    assert raft.status().last_index == 0


def test_uncommitted_bytes_are_bounded() -> None:
    """uncommitted_bytes_max: 'payload bytes a leader holds uncommitted before it refuses proposals as overloaded'."""
    raft = make_working_leader(uncommitted_bytes_max=100)

    effects = raft.step(NOW, propose(b"." * 60, b"." * 41, b"." * 40, b"."))
    assert only(effects, Rejected) == [Rejected(RequestId(id), Reason.OVERLOADED, N1) for id in (2, 4)]
    assert raft.status().last_index == 3

    persisted(raft, effects)
    raft.step(NOW, acknowledgement(N2, 1, 3))
    assert only(raft.step(NOW, propose(b"." * 100, first_id=5)), Rejected) == []


def test_a_proposal_above_the_bound_is_taken_alone() -> None:
    """'A command that is larger than the bound is taken when nothing else is uncommitted.'"""
    raft = make_working_leader(uncommitted_bytes_max=100)

    effects = raft.step(NOW, propose(b"." * 500, b"x"))

    assert [rejected.id for rejected in only(effects, Rejected)] == [2]


def test_a_new_term_starts_with_a_clean_bound() -> None:
    """What a former leadership left uncommitted is not held against this one."""
    raft = make_working_leader(uncommitted_bytes_max=100)
    persisted(raft, raft.step(NOW, propose(b"." * 100)))
    effects = persisted(raft, raft.step(NOW, vote(N2, 2, granted=False)))
    assert only(effects, Undecided) == [Undecided(RequestId(1))]
    now = NOW + ELECTION
    raft.step(now, Timeout())
    persisted(raft, raft.step(now, pre_vote_reply(N2, 3)), now)
    persisted(raft, raft.step(now, vote(N2, 3)), now)
    assert raft.status().role is Role.LEADER

    assert only(raft.step(now, propose(b"x" * 100, first_id=2)), Rejected) == []


def test_a_lost_leadership_leaves_proposals_undecided() -> None:
    """Undecided: 'The proposal was appended, then leadership was lost: it may commit or not.'"""
    raft = make_working_leader()
    raft.step(NOW, propose(b"x", b"y"))

    effects = raft.step(NOW, append(N2, 2, prev=(1, 1), terms=(2,)))
    effects += raft.step(NOW, append(N2, 2, prev=(2, 2), commit=2))

    assert only(effects, Undecided) == [Undecided(RequestId(1)), Undecided(RequestId(2))]
    assert only(effects, Committed) == []


def test_commands_are_opaque() -> None:
    """Entry: 'data: the command, opaque to the core'; the same bytes leave that were proposed, empty ones too."""
    raft = make_working_leader()

    [persist] = only(raft.step(NOW, propose(b"", b"\x00\xff")), Persist)

    assert [(entry.kind, entry.data) for entry in persist.entries] == [
        (EntryKind.COMMAND, b""),
        (EntryKind.COMMAND, b"\x00\xff"),
    ]


# --------------------------------------------- what has left memory, or never was


def test_entries_from_before_the_restart_are_read_for_a_follower() -> None:
    """Payloads that are not in memory are asked for with ReadLog, and sent when they come."""
    raft = make_leader(term=2, log_terms=(1, 1, 1))

    effects = raft.step(NOW, refusal(N2, 2, 3, hint=(1, 1)))
    [ask] = only(effects, ReadLog)
    assert (ask.first_index, ask.last_index) == (2, 3)
    assert appends(effects, N2) == []
    assert only(raft.step(NOW, propose(b"x")), ReadLog) == []  # one at a time

    [message] = appends(raft.step(NOW, LogRead(Index(2), entries_of((1, 1), first=2))), N2)
    assert (message.prev_log_index, message.prev_log_term, message.entries) == (1, 1, entries_of((1, 1), first=2))


def test_a_follower_far_behind_catches_up_through_reads() -> None:
    """A whole log from storage, in pieces near append_bytes_max, while new commands arrive."""
    log = (1,) * 30
    cluster = Cluster(3, log_terms=(log, (), log), append_bytes_max=10, inflight_messages_max=2)
    cluster.elect(N1, N3)
    cluster.propose(N1, 3)

    cluster.timeout(N1)
    cluster.settle()
    cluster.timeout(N1)
    cluster.settle()

    assert cluster.servers[N2].disk == cluster.servers[N1].disk
    assert cluster.servers[N2].machine == cluster.servers[N1].machine
    assert len(cluster.servers[N2].machine) == 34


def test_entries_that_left_the_window_are_read_for_a_follower() -> None:
    """window_bytes_max: 'payload bytes of applied entries kept in memory for slow followers; older ones are read'."""
    cluster = Cluster(3, window_bytes_max=20)
    cluster.elect(N1)
    cluster.crash(N3)
    for _ in range(20):
        cluster.propose(N1, 2, padding=5)
        cluster.settle()
    asked = []

    cluster.restart(N3)
    for _ in range(2):
        cluster.timeout(N1)
        while cluster.network or cluster.servers[N1].busy or cluster.servers[N3].busy:
            asked += list(cluster.servers[N1].reading)
            cluster.settle() if not cluster.network else cluster.deliver()

    assert asked
    assert cluster.servers[N3].disk == cluster.servers[N1].disk


@pytest.mark.parametrize(
    ("late", "asked_again"),
    [
        (LogRead(Index(2), entries_of((9, 9), first=2)), [2]),  # terms that are not ours any more
        (LogRead(Index(3), entries_of((1,), first=3)), []),  # nobody asked for that
        (LogRead(Index(9), entries_of((1,), first=9)), []),  # beyond the log
    ],
)
def test_stale_reads_are_ignored(late: LogRead, asked_again: list[int]) -> None:
    """What is not ours, or not what was asked for, goes nowhere; the follower that waits is not forgotten."""
    raft = make_leader(term=2, log_terms=(1, 1, 1))
    raft.step(NOW, refusal(N2, 2, 3, hint=(1, 1)))

    effects = raft.step(NOW, late)

    assert appends(effects) == []
    assert only(effects, Apply) == []
    assert [ask.first_index for ask in only(effects, ReadLog)] == asked_again


def test_a_read_that_comes_after_the_leadership_is_ignored() -> None:
    """Whoever asked is gone."""
    raft = make_leader(term=2, log_terms=(1, 1, 1))
    raft.step(NOW, refusal(N2, 2, 3, hint=(1, 1)))
    persisted(raft, raft.step(NOW, append(N3, 3, prev=(1, 3))))

    assert raft.step(NOW, LogRead(Index(2), entries_of((1, 1), first=2))) == []


def test_of_a_read_that_was_overtaken_by_a_truncation_the_part_that_is_still_ours_counts() -> None:
    """Index and term determine an entry (Log Matching), so a read serves up to where its terms are the log's.

    Here a follower's read outlives the leadership that asked for it, and its end is no more; it must not make
    the state machine's own read, from the same entry, count for answered with nothing.
    """
    raft = make_raft(log_terms=(1,) * 6, term=1)
    [ask] = only(raft.step(NOW - ELECTION, append(N2, 1, prev=(1, 6), commit=2)), ReadLog)
    assert (ask.first_index, ask.last_index) == (1, 2)
    raft.step(NOW, Timeout())
    persisted(raft, raft.step(NOW, pre_vote_reply(N2, 2)))
    persisted(raft, raft.step(NOW, vote(N2, 2)))
    [ask] = only(raft.step(NOW, refusal(N3, 2, 6, hint=(0, 0))), ReadLog)
    assert (ask.first_index, ask.last_index) == (1, 6)
    persisted(raft, raft.step(NOW, append(N2, 3, prev=(1, 4), terms=(3,))))

    effects = raft.step(NOW, LogRead(Index(1), entries_of((1,) * 6)))
    effects += raft.step(NOW, LogRead(Index(1), entries_of((1,) * 2)))

    assert [batch.entries for batch in only(effects, Apply)] == [entries_of((1, 1))]


def test_after_a_restart_committed_entries_are_read_and_applied() -> None:
    """The log in memory begins empty: what is committed anew is read from storage, in bounded pieces."""
    log = entries_of((1,) * 6)
    raft = make_raft(log_terms=(1,) * 6, term=1, applied=2, append_bytes_max=6)

    effects = raft.step(NOW, append(N2, 1, prev=(1, 6), commit=5))
    handed_over: list[Entry] = []
    for _ in range(3):
        for ask in only(effects, ReadLog):
            assert ask.last_index <= 5
            found = log[ask.first_index - 1 : min(ask.last_index, ask.first_index + 1)]  # two entries: six bytes
            effects = raft.step(NOW, LogRead(ask.first_index, found))
        for batch in only(effects, Apply):
            assert batch.first_index == 3 + len(handed_over)
            handed_over += batch.entries
            effects = raft.step(NOW, Applied(Index(2 + len(handed_over))))

    assert tuple(handed_over) == log[2:5]


def test_a_read_for_apply_never_hands_over_what_is_not_committed() -> None:
    """A read for a follower may begin at the same entry, and go on beyond the commit index."""
    raft = make_raft(log_terms=(1, 1, 1, 1), term=1)
    raft.step(NOW, append(N2, 1, prev=(1, 4), commit=2))

    [batch] = only(raft.step(NOW, LogRead(Index(1), entries_of((1, 1, 1, 1)))), Apply)

    assert batch.entries == entries_of((1, 1))


def test_one_batch_is_applied_at_a_time() -> None:
    """Apply: the next batch comes when the state machine has said Applied."""
    raft = make_follower()
    effects = persisted(raft, raft.step(NOW, append(N2, 1, terms=(1, 1), commit=1)))
    effects += persisted(raft, raft.step(NOW, append(N2, 1, prev=(1, 2), terms=(1,), commit=3)))
    assert [(batch.first_index, len(batch.entries)) for batch in only(effects, Apply)] == [(1, 1)]

    effects = raft.step(NOW, Applied(Index(1)))

    assert [(batch.first_index, len(batch.entries)) for batch in only(effects, Apply)] == [(2, 2)]


# ------------------------------------------------------------------ cluster time


def stamps(effects: list[Effect]) -> list[int]:
    return [entry.stamp for persist in only(effects, Persist) for entry in persist.entries]


def test_stamps_grow_with_the_time_a_leader_has_led() -> None:
    """Cluster time is the last stamp in the leader's log plus the time it has led."""
    raft = make_leader(term=2, log_terms=(1, 1))  # the last stamp is 2

    first = stamps(raft.step(NOW, propose(b"x")))
    later = stamps(raft.step(NOW + 50, propose(b"y", first_id=2)))

    assert (first, later) == ([2], [52])


def test_a_gap_counts_for_one_election_timeout_at_most() -> None:
    """core.py: 'It never jumps: after a pause things live longer, never shorter.'"""
    raft = make_leader(size=1)

    [stamp] = stamps(raft.step(NOW + 100 * ELECTION, propose(b"x")))

    assert stamp == ELECTION


def test_a_clock_that_goes_back_takes_no_stamp_along() -> None:
    """Entry: 'never less than the entry's before it'."""
    raft = make_leader(size=1)

    effects = raft.step(NOW + 70, propose(b"x"))
    effects += raft.step(NOW + 20, propose(b"y", first_id=2))
    effects += raft.step(NOW + 30, propose(b"z", first_id=3))

    assert stamps(effects) == sorted(stamps(effects))
    assert stamps(effects)[0] == 70


def test_a_new_leader_goes_on_from_the_last_stamp_of_its_log() -> None:
    """The same for a log that came from another leader: its stamps are the cluster's time."""
    raft = make_raft(size=3)
    entry = Entry(Term(1), EntryKind.COMMAND, 5_000, b"")
    message = AppendEntries(
        term=Term(1),
        prev_log_index=Index(0),
        prev_log_term=Term(0),
        leader_commit=Index(0),
        round=0,
        entries=(entry,),
    )
    persisted(raft, raft.step(NOW - ELECTION, Receive(N2, message)))
    raft.step(NOW, Timeout())
    raft.step(NOW, pre_vote_reply(N3, 2))
    raft.step(NOW, Persisted(2))
    effects = raft.step(NOW, vote(N3, 2))

    assert raft.status().role is Role.LEADER
    assert stamps(effects) == [5_000]
