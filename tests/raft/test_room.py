"""A disk without room: what was not written is forgotten, and a leader makes way (D6)."""

from __future__ import annotations

from huton.raft.effects import Apply, Persist, Reason, Rejected, RoleChanged, Undecided
from huton.raft.events import Checkpointed, PersistDeferred, Persisted, RoomChanged
from huton.raft.messages import AppendEntriesReply, RequestVoteReply
from huton.raft.types import EntryKind, Index, Role
from tests.harness import (
    ELECTION,
    N2,
    NOW,
    append,
    make_follower,
    make_leader,
    make_raft,
    make_working_leader,
    only,
    persisted,
    propose,
    request_vote,
    sent,
    win,
)

FULL = RoomChanged(enough=False)
ROOM = RoomChanged(enough=True)


def test_a_leader_that_is_full_makes_way() -> None:
    """Once: if the others have no room either it leads again."""
    raft = make_working_leader()

    effects = raft.step(NOW, FULL)

    assert only(effects, RoleChanged)[-1].role is Role.FOLLOWER
    assert raft.step(NOW, FULL) == []


def test_a_full_member_campaigns_later_than_others() -> None:
    """Whoever has room goes first; if nobody has, somebody has to lead all the same."""
    raft = make_working_leader()
    raft.step(NOW, FULL)

    assert raft.deadline() == NOW + 4 * ELECTION


def test_a_full_leader_refuses_commands_and_goes_on_leading() -> None:
    """Nobody could lead in its place, and reads need a leader."""
    raft = make_raft(size=1)
    persisted(raft, win(raft))
    raft.step(NOW, FULL)
    assert raft.status().role is Role.LEADER

    effects = raft.step(NOW, propose(b"x"))

    assert [rejected.reason for rejected in only(effects, Rejected)] == [Reason.STORAGE_FULL]
    assert only(effects, Persist) == []
    raft.step(NOW, ROOM)
    assert only(raft.step(NOW, propose(b"x", first_id=2)), Persist)


def test_a_leader_that_could_not_write_does_not_know_what_became_of_it() -> None:
    """Its followers may have the entry: R5 sent it before the disk was asked."""
    raft = make_leader()
    (write,) = only(raft.step(NOW, propose(b"x")), Persist)

    effects = raft.step(NOW, PersistDeferred(write.seq))

    assert [undecided.id for undecided in only(effects, Undecided)] == [1]
    assert raft.status().role is Role.FOLLOWER
    assert raft.status().last_index == raft.status().durable_index == 1


def test_what_was_put_off_is_forgotten_and_the_term_written_anew() -> None:
    """D6: 'continues as after a restart from what is durable and persists its newest term alone'."""
    raft = make_follower(term=1)
    persisted(raft, raft.step(NOW, append(N2, 1, terms=(1, 1))))
    (write,) = only(raft.step(NOW, append(N2, 2, prev=(1, 1), terms=(2, 2))), Persist)

    (again,) = only(raft.step(NOW, PersistDeferred(write.seq)), Persist)

    # Entry 2 of term 1 was truncated in memory: nobody commits it, so it goes from the disk, too.
    assert (again.truncate_from, again.entries) == (2, ())
    assert again.hard_state is not None
    assert again.hard_state.term == 2
    assert raft.status().last_index == 1


def test_nothing_that_waited_for_the_write_is_said() -> None:
    """A vote in a term that the disk does not know, an acknowledgement of an entry that it does not hold."""
    raft = make_raft(log_terms=(1,))
    vote_write = only(raft.step(NOW, request_vote(N2, 2, last_log=(1, 1))), Persist)[0]
    append_write = only(raft.step(NOW, append(N2, 2, prev=(1, 1), terms=(2,))), Persist)[0]
    assert vote_write.seq < append_write.seq

    effects = raft.step(NOW, PersistDeferred(vote_write.seq))
    (again,) = only(effects, Persist)
    effects += raft.step(NOW, Persisted(again.seq))

    assert not [message for message in sent(effects) if isinstance(message, RequestVoteReply | AppendEntriesReply)]


def test_a_late_completion_of_what_was_put_off_means_nothing() -> None:
    """The next write is done: it does not make the one before it durable, as D3 else says."""
    raft = make_follower(term=1)
    (write,) = only(raft.step(NOW, append(N2, 1, terms=(1, 1))), Persist)
    (again,) = only(raft.step(NOW, PersistDeferred(write.seq)), Persist)

    raft.step(NOW, Persisted(again.seq))

    assert raft.status().durable_index == raft.status().last_index == 0


def test_a_full_follower_takes_no_entries_and_hears_its_leader() -> None:
    """As if they were lost: the leader tries again, and nobody begins an election."""
    raft = make_follower(term=1)
    raft.step(NOW, FULL)

    effects = raft.step(NOW + ELECTION // 2, append(N2, 1, terms=(1,)))

    assert effects == []
    assert raft.status().leader == N2
    assert raft.deadline() is not None
    assert raft.deadline() > NOW + ELECTION  # type: ignore[operator]  # not None, as the line before says
    (answer,) = sent(raft.step(NOW + ELECTION // 2, append(N2, 1)))
    assert isinstance(answer, AppendEntriesReply)
    assert answer.success


def test_with_room_again_it_takes_what_the_leader_sends_again() -> None:
    """Nothing has to be restarted."""
    raft = make_follower(term=1)
    (write,) = only(raft.step(NOW, append(N2, 1, terms=(1,))), Persist)
    persisted(raft, raft.step(NOW, PersistDeferred(write.seq)))
    raft.step(NOW, ROOM)

    effects = persisted(raft, raft.step(NOW, append(N2, 1, terms=(1,), commit=1)))

    assert len(only(effects, Apply)) == 1


def test_a_full_member_compacts_without_appending() -> None:
    """Compaction makes room: nothing is kept for others, and no append has to come along."""
    raft = make_working_leader(log_terms=(1,) * 20, term=2, size=1, log_entries_kept=10, compact_entries=5)
    raft.step(NOW, Checkpointed(Index(18)))
    assert raft.status().first_index == 1

    effects = raft.step(NOW, FULL)

    while writes := only(effects, Persist):
        assert all(entry.kind is not EntryKind.COMMAND for write in writes for entry in write.entries)
        effects = raft.step(NOW, Persisted(writes[-1].seq))
    assert raft.status().first_index > 10
