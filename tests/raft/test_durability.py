"""What has to wait for the disk, rule by rule (R1 to R10), and what need not.

The rules are those of docs/architecture.md; every test leaves the disk busy, looks at what left all the
same, then lets it finish.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest

from huton.raft import Raft
from huton.raft.durability import WITHHELD_MAX
from huton.raft.effects import Apply, Committed, Persist, Reason, Rejected, Undecided
from huton.raft.events import Persisted, PersistFailed, Timeout
from huton.raft.messages import AppendEntriesReply, PreVote, PreVoteReply, RequestVote, RequestVoteReply
from huton.raft.types import HardState, RequestId, Role, Term
from tests.harness import (
    BOOTED,
    ELECTION,
    N1,
    N2,
    N3,
    NOW,
    acknowledgement,
    append,
    appends,
    applied,
    campaign,
    make_candidate,
    make_follower,
    make_leader,
    make_raft,
    make_working_leader,
    matched,
    only,
    persisted,
    pre_campaign,
    pre_vote,
    pre_vote_reply,
    propose,
    read,
    request_vote,
    sent,
    unmatched,
    vote,
)

# --------------------------------------------------------------------- R1 votes


def test_r1_a_vote_leaves_only_when_it_is_durable() -> None:
    """R1: (term, vote) durable in one atomic record, then the granted RequestVoteReply."""
    raft = make_raft()

    effects = raft.step(NOW, request_vote(N2, 1))
    assert [persist.hard_state for persist in only(effects, Persist)] == [HardState(Term(1), N2)]
    assert sent(effects) == []

    assert sent(raft.step(NOW, Persisted(1))) == [RequestVoteReply(term=Term(1), granted=True)]


def test_r1_a_repeated_request_is_not_answered_before_the_vote_is_durable() -> None:
    """R1: the same request, doubled by the network, must not get what the first one has to wait for."""
    raft = make_raft()
    raft.step(NOW, request_vote(N2, 1))

    assert sent(raft.step(NOW, request_vote(N2, 1))) == []

    granted = RequestVoteReply(term=Term(1), granted=True)
    assert sent(raft.step(NOW, Persisted(1))) == [granted, granted]


def test_r1_a_vote_in_a_term_that_is_durable_waits_all_the_same() -> None:
    """R1: the term may be on disk from before; the vote is not."""
    raft = make_raft(term=5)

    effects = raft.step(NOW, request_vote(N2, 5))

    assert sent(effects) == []
    assert [persist.hard_state for persist in only(effects, Persist)] == [HardState(Term(5), N2)]
    assert sent(persisted(raft, effects)) == [RequestVoteReply(term=Term(5), granted=True)]


def test_r1_a_rejection_of_a_durable_term_leaves_at_once() -> None:
    """R1: 'may leave before: a rejection that carries an already durable term'."""
    raft = make_raft(term=5, voted_for=N3)

    assert sent(raft.step(NOW, request_vote(N2, 5))) == [RequestVoteReply(term=Term(5), granted=False)]


def test_r1_a_vote_survives_a_restart() -> None:
    """R1, seen after a crash: what the disk holds binds the new run."""
    raft = make_raft(term=5, voted_for=N3)

    refused = sent(raft.step(NOW, request_vote(N2, 5, last_log=(9, 9))))
    granted = persisted(raft, raft.step(NOW, request_vote(N3, 5)))

    assert refused == [RequestVoteReply(term=Term(5), granted=False)]
    assert sent(granted) == [RequestVoteReply(term=Term(5), granted=True)]


# --------------------------------------------------------------- R2 candidacies


def test_r2_request_vote_leaves_only_when_the_own_vote_is_durable() -> None:
    """R2: own (term, vote = self) durable, then RequestVote."""
    raft = make_raft()

    effects = campaign(raft)
    assert [persist.hard_state for persist in only(effects, Persist)] == [HardState(Term(1), N1)]
    assert sent(effects) == []

    requests = sent(raft.step(NOW, Persisted(1)))
    assert [type(message) for message in requests] == [RequestVote, RequestVote]


def test_r2_the_own_vote_counts_only_when_it_is_durable() -> None:
    """R2: 'and counting the self-vote'. (The vote of a peer can't come first unless it is of an earlier run.)"""
    raft = make_raft()
    campaign(raft)

    raft.step(NOW, vote(N2, 1))
    assert raft.status().role is Role.CANDIDATE

    raft.step(NOW, Persisted(1))
    assert raft.status().role is Role.LEADER


def test_r2_a_single_voter_waits_for_its_disk() -> None:
    """R2: also where nobody else has to be asked."""
    raft = make_raft(size=1)
    pre_campaign(raft)

    assert (raft.status().role, raft.status().term) == (Role.CANDIDATE, 1)
    raft.step(NOW, Persisted(1))

    assert raft.status().role is Role.LEADER


def test_r2_request_vote_waits_for_the_log_that_it_advertises() -> None:
    """R2: 'and the whole log up to the advertised last index': entries on their way to disk count as its log."""
    raft = make_raft(term=1)
    raft.step(BOOTED, append(N2, 1, terms=(1, 1)))
    timeout = raft.deadline()
    assert timeout is not None
    raft.step(timeout, Timeout())
    effects = raft.step(timeout, pre_vote_reply(N3, 2))
    assert raft.status().role is Role.CANDIDATE
    assert [persist.seq for persist in only(effects, Persist)] == [2]

    assert sent(raft.step(timeout, Persisted(1))) == []
    requests = sent(raft.step(timeout, Persisted(2)))

    assert {(m.last_log_index, m.last_log_term) for m in requests if isinstance(m, RequestVote)} == {(2, 1)}


def test_r2_a_candidate_that_follows_asks_for_no_votes_any_more() -> None:
    """R2: another won the term while the own vote was on its way to disk, and replaced what the request promises."""
    raft = make_raft(log_terms=(1, 1), term=1)
    campaign(raft)

    raft.step(NOW, append(N2, 2, prev=(1, 1), terms=(2,)))
    late = [message for seq in (1, 2) for message in sent(raft.step(NOW, Persisted(seq)))]

    assert raft.status().role is Role.FOLLOWER
    assert {type(message) for message in late} == {AppendEntriesReply}


def test_r2_pre_votes_need_no_disk() -> None:
    """R2: 'may leave before: pre-vote messages'; nothing is written for them."""
    raft = make_raft()

    effects = pre_campaign(raft)

    assert only(effects, Persist) == []
    assert [type(message) for message in sent(effects)] == [PreVote, PreVote]


# ----------------------------------------------------------- R3 acknowledgements


def test_r3_entries_are_acknowledged_when_they_are_durable() -> None:
    """R3: the entries ≤ match durable, then AppendEntriesReply(ok, match)."""
    raft = make_follower()

    effects = raft.step(NOW, append(N2, 1, terms=(1, 1)))
    assert sent(effects) == []

    assert sent(raft.step(NOW, Persisted(1))) == [matched(1, 2)]


def test_r3_duplicates_of_entries_under_way_are_not_acknowledged_early() -> None:
    """R3: that an entry is in the log says nothing about the disk."""
    raft = make_follower()
    raft.step(NOW, append(N2, 1, terms=(1, 1)))

    effects = raft.step(NOW, append(N2, 1, terms=(1, 1)))

    assert max((m.index for m in sent(effects) if isinstance(m, AppendEntriesReply)), default=0) == 0
    assert sent(raft.step(NOW, Persisted(1)))[-1] == matched(1, 2)


def test_r3_a_heartbeat_after_entries_under_way_does_not_acknowledge_them() -> None:
    """R3: match = min(prev + n, durable)."""
    raft = make_follower()
    raft.step(NOW, append(N2, 1, terms=(1, 1)))

    effects = raft.step(NOW, append(N2, 1, prev=(1, 2)))

    assert sent(effects) in ([], [matched(1, 0)])


def test_r3_match_is_never_my_last_index() -> None:
    """R3: 'never "my last index"': what lies beyond the message may be another leader's."""
    raft = make_raft(log_terms=(1, 1, 1), term=1)

    assert sent(raft.step(NOW, append(N2, 1, prev=(1, 1)))) == [matched(1, 1)]
    assert sent(raft.step(NOW, append(N2, 1, prev=(1, 1), terms=(1,)))) == [matched(1, 2)]


def test_r3_writes_that_are_done_one_by_one_are_acknowledged_so_far() -> None:
    """R3: a Persisted covers its own entries, not those of a later write."""
    raft = make_follower()
    raft.step(NOW, append(N2, 1, terms=(1, 1)))
    raft.step(NOW, append(N2, 1, prev=(1, 2), terms=(1,)))

    assert sent(raft.step(NOW, Persisted(1)))[-1:] == [matched(1, 2)]
    assert sent(raft.step(NOW, Persisted(2)))[-1:] == [matched(1, 3)]


def test_r3_a_persisted_implies_all_before_it() -> None:
    """D3: 'Persisted(seq) only after the sync, and it implies all smaller seqs.'"""
    raft = make_follower()
    raft.step(NOW, append(N2, 1, terms=(1, 1)))
    raft.step(NOW, append(N2, 1, prev=(1, 2), terms=(1,)))

    assert sent(raft.step(NOW, Persisted(2)))[-1:] == [matched(1, 3)]
    assert raft.step(NOW, Persisted(1)) == []
    assert raft.status().durable_index == 3


def test_r3_a_rejection_needs_no_disk() -> None:
    """R3: 'may leave before: a rejection with a conflict hint, if its term is durable'."""
    raft = make_follower()
    raft.step(NOW, append(N2, 1, terms=(1, 1)))

    assert sent(raft.step(NOW, append(N2, 1, prev=(1, 5)))) == [unmatched(1, 5, hint=(1, 2))]


def test_truncation_a_late_persisted_does_not_mark_replaced_entries() -> None:
    """R3: 'On a truncating append, durable and older pending seqs are capped at truncate_from - 1.'"""
    raft = make_raft(log_terms=(1,), term=1)
    raft.step(NOW, append(N2, 1, prev=(1, 1), terms=(1, 1, 1)))  # 2..4 of term 1, seq 1
    effects = raft.step(NOW, append(N3, 2, prev=(1, 2), terms=(2, 2, 2)))  # 3..5 of term 2, seq 2
    assert [(p.seq, p.truncate_from) for p in only(effects, Persist)] == [(2, 3)]

    late = raft.step(NOW, Persisted(1))
    assert raft.status().durable_index == 2
    assert all(not isinstance(m, AppendEntriesReply) or m.index <= 2 for m in sent(late))

    assert sent(raft.step(NOW, Persisted(2)))[-1:] == [matched(2, 5)]
    assert raft.status().durable_index == 5


def test_truncation_takes_back_what_was_durable() -> None:
    """R3: the truncation itself is part of what an acknowledgement waits for."""
    raft = make_raft(log_terms=(1, 1, 1), term=1)

    effects = raft.step(NOW, append(N2, 2, prev=(1, 1), terms=(2,)))
    assert raft.status().durable_index == 1
    assert sent(effects) == []

    assert sent(raft.step(NOW, Persisted(1))) == [matched(2, 2)]
    assert raft.status().durable_index == 2


def test_truncation_caps_every_write_under_way() -> None:
    """R3: 'and older pending seqs', all of them, also when they end one after the other."""
    raft = make_raft(log_terms=(1,), term=1)
    raft.step(NOW, append(N2, 1, prev=(1, 1), terms=(1,)))  # seq 1: 2
    raft.step(NOW, append(N2, 1, prev=(1, 2), terms=(1,)))  # seq 2: 3
    raft.step(NOW, append(N2, 1, prev=(1, 3), terms=(1,)))  # seq 3: 4
    raft.step(NOW, append(N3, 2, prev=(1, 1), terms=(2, 2, 2)))  # seq 4: 2..4 of term 2

    for seq in (1, 2, 3):
        raft.step(NOW, Persisted(seq))
        assert raft.status().durable_index == 1
    raft.step(NOW, Persisted(4))

    assert raft.status().durable_index == 4


def test_an_acknowledgement_goes_to_the_leader_of_its_term_alone() -> None:
    """R3: entries of a former leader that reach the disk under a new one prove nothing to the new one."""
    raft = make_raft(term=1)
    raft.step(NOW, append(N2, 1, terms=(1, 1)))  # seq 1
    raft.step(NOW, append(N3, 2))  # a new leader; it knows nothing of those entries. seq 2: the term

    released = sent(persisted(raft, raft.step(NOW, Persisted(2))))

    assert [m.index for m in released if isinstance(m, AppendEntriesReply)] == [0]


def test_what_matched_a_former_leader_is_not_acknowledged_to_the_next() -> None:
    """R3: match = min(prev + n, durable), of what *this* leader sent; the tail may not be its own."""
    raft = make_raft(term=1)
    raft.step(NOW, append(N2, 1, terms=(1, 1, 1)))  # seq 1
    raft.step(NOW, append(N3, 2, terms=(1, 1)))  # seq 2: the term; of the entries two are known to agree

    replies = [m for m in sent(raft.step(NOW, Persisted(2))) if isinstance(m, AppendEntriesReply)]

    assert raft.status().durable_index == 3
    assert replies[-1:] == [matched(2, 2)]


# -------------------------------------------------------------------- R4 terms


def test_r4_a_new_term_is_durable_before_anything_carries_it() -> None:
    """R4: 'any newly learnt term' durable, then 'every message stamped with it': here an acknowledgement ..."""
    raft = make_raft()

    effects = raft.step(NOW, append(N2, 3))
    assert [persist.hard_state for persist in only(effects, Persist)] == [HardState(Term(3), None)]
    assert sent(effects) == []

    assert sent(raft.step(NOW, Persisted(1))) == [matched(3, 0)]


def test_r4_rejections_wait_for_a_new_term_too() -> None:
    """R4: ... here the refusal of a vote, of a pre-vote, and of entries."""
    raft = make_raft(log_terms=(2,), term=2)

    effects = raft.step(NOW, request_vote(N2, 3, last_log=(1, 1)))
    effects += raft.step(NOW, pre_vote(N2, 3, last_log=(1, 1)))
    effects += raft.step(NOW, append(N3, 2))
    assert sent(effects) == []

    assert sent(raft.step(NOW, Persisted(1))) == [
        RequestVoteReply(term=Term(3), granted=False),
        PreVoteReply(term=Term(3), granted=False),
        unmatched(3, 0, hint=(0, 0)),
    ]


def test_r4_a_deposed_leader_falls_silent() -> None:
    """R4: what it learnt from a reply is on disk before it says anything in the new term."""
    raft = make_leader()

    effects = raft.step(NOW, vote(N3, 7, granted=False))

    assert [persist.hard_state for persist in only(effects, Persist)] == [HardState(Term(7), None)]
    assert sent(effects) == []


# ------------------------------------------------- R5, R6: the leader's own disk


def test_r5_a_leader_sends_entries_before_it_has_synced_them() -> None:
    """R5: 'nothing of the entry itself (thesis §10.2.1)' has to be durable for the leader's AppendEntries."""
    raft = make_working_leader()

    effects = raft.step(NOW, propose(b"x"))

    assert [len(message.entries) for message in appends(effects)] == [1, 1]


def test_r6_a_leader_counts_itself_only_when_durable() -> None:
    """R6: 'the leader's own copy' durable, then 'counting itself for commit'."""
    raft = make_working_leader(size=3)
    raft.step(NOW, propose(b"x"))
    seq = 3  # vote, no-op, x

    raft.step(NOW, acknowledgement(N2, 1, 2))
    assert raft.status().commit_index == 1

    effects = raft.step(NOW, Persisted(seq))
    assert raft.status().commit_index == 2
    assert [committed.id for committed in only(effects, Committed)] == [1]


def test_r6_others_may_commit_without_the_leader() -> None:
    """R6: 'may happen before: commit by a quorum of others'; thesis §10.2.1."""
    raft = make_working_leader(size=3)
    raft.step(NOW, propose(b"x"))
    raft.step(NOW, acknowledgement(N2, 1, 2))

    effects = raft.step(NOW, acknowledgement(N3, 1, 2))

    assert [committed.index for committed in only(effects, Committed)] == [2]


# --------------------------------------------------------------- R7, R9: apply


def test_r7_a_leader_applies_only_what_is_on_its_own_disk() -> None:
    """R7: 'committed and locally durable', then Apply."""
    raft = make_working_leader(size=3)
    raft.step(NOW, propose(b"x"))
    raft.step(NOW, acknowledgement(N2, 1, 2))
    effects = raft.step(NOW, acknowledgement(N3, 1, 2))
    assert only(effects, Apply) == []

    [apply] = only(raft.step(NOW, Persisted(3)), Apply)
    assert apply.first_index == 2


def test_r7_a_follower_applies_only_what_is_on_its_own_disk() -> None:
    """R7, for a follower: the leader may know the commit before this disk has the entry."""
    raft = make_follower()

    effects = raft.step(NOW, append(N2, 1, terms=(1, 1), commit=2))
    assert raft.status().commit_index == 2
    assert only(effects, Apply) == []

    [apply] = only(raft.step(NOW, Persisted(1)), Apply)
    assert (apply.first_index, len(apply.entries)) == (1, 2)


def test_r7_each_entry_is_applied_once() -> None:
    """D4: 'Apply in order, exactly once above the recovered applied.'"""
    raft = make_raft(term=1)
    effects = persisted(raft, raft.step(NOW, append(N2, 1, terms=(1, 1), commit=2)))
    effects += persisted(raft, raft.step(NOW, append(N2, 1, terms=(1, 1, 1), commit=3)))
    effects = applied(raft, effects)
    effects += raft.step(NOW, append(N2, 1, terms=(1, 1, 1), commit=3))

    indexes = [apply.first_index + n for apply in only(effects, Apply) for n in range(len(apply.entries))]
    assert indexes == [1, 2, 3]


def test_r9_a_commit_index_costs_no_write() -> None:
    """R9: 'the commit index need not be durable'."""
    raft = make_raft(log_terms=(1, 1), term=1)

    assert only(raft.step(NOW, append(N2, 1, prev=(1, 2), commit=2)), Persist) == []


def test_r9_after_a_restart_the_commit_index_is_what_was_applied() -> None:
    """R9: 'commitIndex: initialized to 0' (Figure 2), or to what the durable state holds, which was committed."""
    assert make_raft(log_terms=(1, 1, 1), term=1).status().commit_index == 0
    assert make_raft(log_terms=(1, 1, 1), term=1, applied=2).status().commit_index == 2


# --------------------------------------------------------------- R10 restarts


def test_r10_a_restarted_leader_leads_no_more() -> None:
    """R10: 'a restarted node never resumes leadership of a term it led'."""
    raft = make_raft(log_terms=(1,), term=1, voted_for=N1)
    assert raft.status().role is Role.FOLLOWER

    raft.step(BOOTED, vote(N2, 1))
    raft.step(BOOTED, acknowledgement(N3, 1, 1))
    effects = raft.step(BOOTED, propose(b"x"))

    assert raft.status().role is Role.FOLLOWER
    assert only(effects, Rejected) == [Rejected(RequestId(1), Reason.NOT_LEADER, None)]


# ------------------------------------------------------------- what waits is bounded


def test_what_waits_for_the_disk_is_bounded() -> None:
    """WITHHELD_MAX: 'Messages that wait for the disk; beyond it the newest is dropped, as a network may drop it.'"""
    raft = make_raft()
    for _ in range(WITHHELD_MAX + 10):
        assert sent(raft.step(NOW, request_vote(N2, 1))) == []

    assert len(sent(raft.step(NOW, Persisted(1)))) == WITHHELD_MAX
    assert len(sent(raft.step(NOW, request_vote(N2, 1)))) == 1


# ---------------------------------------------------------- D6: the disk fails


def test_d6_a_failed_sync_halts_the_core_and_answers_everybody() -> None:
    """D6: 'any sync error is PersistFailed and ends this run of the process: no retry'."""
    raft = make_working_leader()
    raft.step(NOW, propose(b"x", b"y"))
    raft.step(NOW, read(3, 4))
    raft.step(NOW, read(5))

    effects = raft.step(NOW, PersistFailed(3, "input/output error"))

    assert sorted(undecided.id for undecided in only(effects, Undecided)) == [1, 2]
    assert sorted(rejected.id for rejected in only(effects, Rejected)) == [3, 4, 5]
    assert (sent(effects), only(effects, Persist), only(effects, Committed)) == ([], [], [])
    assert raft.status().role is Role.FOLLOWER
    assert raft.deadline() is None


@pytest.mark.parametrize("make", [make_follower, make_candidate, make_leader])
def test_d6_a_halted_core_does_nothing_any_more(make: Callable[[], Raft]) -> None:
    """D6: 'a failed fsync proves nothing about what is on disk', so nothing may be promised again."""
    raft = make()
    raft.step(NOW, PersistFailed(1, "input/output error"))

    for event in (Persisted(1), append(N2, 9), request_vote(N2, 9), Timeout()):
        with pytest.raises(RuntimeError):
            raft.step(NOW + 10 * ELECTION, event)


def test_d6_what_was_withheld_never_leaves() -> None:
    """D6: a vote that waits for a sync that fails is lost."""
    raft = make_raft()
    raft.step(NOW, request_vote(N2, 1))

    assert sent(raft.step(NOW, PersistFailed(1, "input/output error"))) == []


# ------------------------------------------------------------ driver's numbers


def test_writes_are_numbered_one_by_one() -> None:
    """Persist: 'consecutive from 1 in each run'; a step asks for one write at most."""
    raft = make_raft()
    seqs = []
    for event in (append(N2, 1, terms=(1,)), append(N2, 1), append(N2, 2, prev=(1, 1), terms=(2,)), append(N3, 3)):
        effects = raft.step(NOW, event)
        seqs.append([persist.seq for persist in only(effects, Persist)])

    assert seqs == [[1], [], [2], [3]]


def test_term_and_entries_of_one_message_are_one_write() -> None:
    """D2: 'the hard state is in the same atomic write as, or before, its entries'."""
    raft = make_raft(log_terms=(1, 1), term=1)

    [persist] = only(raft.step(NOW, append(N2, 2, prev=(1, 1), terms=(2,))), Persist)

    assert persist.hard_state == HardState(Term(2), None)
    assert (persist.truncate_from, persist.first_index, len(persist.entries)) == (2, 2, 1)
