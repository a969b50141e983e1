"""Snapshots, the leader's side: when one is asked for, and what comes after its transfer."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from huton.raft import Raft
from huton.raft.effects import Effect, SendSnapshot
from huton.raft.events import Checkpointed, PeerUnreachable, SnapshotSent, Timeout
from huton.raft.types import Term
from tests.harness import (
    HEARTBEAT,
    N2,
    N3,
    NOW,
    acknowledgement,
    appends,
    applied,
    make_working_leader,
    only,
    persisted,
    propose,
    refusal,
)


def make_leader_beyond_n3() -> tuple[Raft, list[Effect]]:
    """Return a leader whose log no longer holds what N3 lacks, and the effects of the step in which that came up."""
    raft = make_working_leader(log_entries_kept=0, compact_entries=1)
    grow(raft, 3)
    assert raft.status().first_index > 2
    return raft, raft.step(NOW, PeerUnreachable(N3))


def grow(raft: Raft, entries: int) -> list[Effect]:
    """Commit *entries* by the disks of N1 and N2, each in a checkpoint before the next; return all effects."""
    everything: list[Effect] = []
    for _ in range(entries):
        effects = persisted(raft, raft.step(NOW, propose(b"x")))
        last = raft.status().last_index
        effects += applied(raft, raft.step(NOW, acknowledgement(N2, 1, last)))
        everything += effects + raft.step(NOW, Checkpointed(last))
    return everything


def asked_for(effects: Sequence[Effect]) -> list[SendSnapshot]:
    return only(effects, SendSnapshot)


def test_a_follower_behind_the_log_is_sent_a_snapshot() -> None:
    """§7: 'the leader must occasionally send snapshots to followers that lag behind.'"""
    _, effects = make_leader_beyond_n3()

    assert asked_for(effects) == [SendSnapshot(N3, Term(1))]


def test_there_is_one_transfer_at_a_time() -> None:
    """The log moves on while a snapshot is under way: another one is asked for once that has come to its end.

    Whoever asked at once would begin anew for ever, where a transfer takes longer than the log is kept.
    """
    raft, _ = make_leader_beyond_n3()

    assert asked_for(grow(raft, 5)) == []
    assert asked_for(raft.step(NOW, SnapshotSent(N3, Term(1), taken=True))) == [SendSnapshot(N3, Term(1))]


def test_the_end_of_a_transfer_may_come_after_what_it_led_to() -> None:
    """The follower acknowledges the snapshot, the log moves on, and then only the transfer is known to be over."""
    raft, _ = make_leader_beyond_n3()
    restored = raft.status().last_index
    raft.step(NOW, acknowledgement(N3, 1, restored))

    assert asked_for(grow(raft, 5) + raft.step(NOW, PeerUnreachable(N3))) == []
    assert asked_for(raft.step(NOW, SnapshotSent(N3, Term(1), taken=True))) == [SendSnapshot(N3, Term(1))]


@pytest.mark.parametrize("moves_on", [False, True])
def test_a_broken_transfer_begins_anew_once_the_follower_answers(moves_on: bool) -> None:
    """A heartbeat asks where the logs agree first: nobody sends a snapshot to whoever is not there."""
    raft, _ = make_leader_beyond_n3()
    if moves_on:
        grow(raft, 5)

    assert asked_for(raft.step(NOW, SnapshotSent(N3, Term(1), taken=False))) == []
    effects = raft.step(NOW + HEARTBEAT, Timeout())
    assert asked_for(effects) == []
    while probes := appends(effects, N3):
        # Down to where the log begins, and there it lacks what comes before.
        effects = raft.step(NOW + HEARTBEAT, refusal(N3, 1, probes[-1].prev_log_index, hint=(1, 1)))

    assert asked_for(effects) == [SendSnapshot(N3, Term(1))]


def test_the_end_of_a_transfer_of_a_former_term_means_nothing() -> None:
    """It was asked for by another leadership."""
    raft, _ = make_leader_beyond_n3()
    grow(raft, 5)

    assert asked_for(raft.step(NOW, SnapshotSent(N3, Term(0), taken=True))) == []
    assert asked_for(raft.step(NOW, SnapshotSent(N3, Term(1), taken=True))) == [SendSnapshot(N3, Term(1))]
