"""The table of events by roles has no holes, and nothing that is no event."""

from __future__ import annotations

from typing import get_args

import pytest

from huton.errors import SafetyViolation
from huton.raft import Raft, events, messages
from huton.raft.core import COLUMN, HANDLERS
from huton.raft.effects import Apply, Persist
from huton.raft.events import (
    Applied,
    Checkpointed,
    Event,
    LogRead,
    PeerUnreachable,
    PersistDeferred,
    Persisted,
    PersistFailed,
    Receive,
    RoomChanged,
    SnapshotReceived,
    SnapshotSent,
    Timeout,
)
from huton.raft.types import Index, Role, Term
from tests.harness import (
    N1,
    N2,
    NOW,
    acknowledgement,
    append,
    entries_of,
    make_candidate,
    make_follower,
    make_leader,
    make_raft,
    only,
    pre_campaign,
    pre_vote,
    pre_vote_reply,
    propose,
    read,
    refusal,
    request_vote,
    snapshot_of,
    vote,
)

EVENTS = set(get_args(events.Event))
MESSAGES = set(get_args(messages.Message))


def make_pre_candidate() -> Raft:
    raft = make_raft(term=1)
    pre_campaign(raft)
    return raft


MAKERS = {
    Role.FOLLOWER: make_follower,
    Role.PRE_CANDIDATE: make_pre_candidate,
    Role.CANDIDATE: make_candidate,
    Role.LEADER: make_leader,
}

SNAPSHOT = SnapshotReceived(N2, Term(1), snapshot_of(entries_of((1,) * 9), 9), source=1)

SAMPLES: list[Event] = [
    Timeout(),
    propose(b"x"),
    read(1),
    Persisted(0),
    PersistFailed(1, "input/output error"),
    Applied(Index(0)),
    LogRead(Index(1), entries_of((1,))),
    PersistDeferred(1),
    RoomChanged(enough=True),
    RoomChanged(enough=False),
    Checkpointed(Index(0)),
    SNAPSHOT,
    SnapshotSent(N2, Term(1), taken=True),
    PeerUnreachable(N2),
    pre_vote(N2, 1),
    pre_vote(N2, 2),
    pre_vote_reply(N2, 2),
    pre_vote_reply(N2, 1, granted=False),
    request_vote(N2, 1),
    vote(N2, 1),
    vote(N2, 1, granted=False),
    append(N2, 1),
    acknowledgement(N2, 1, 1),
    refusal(N2, 1, 0, hint=(0, 0)),
]
"""At least one of every event and every message, for the cores of ``MAKERS``: N1 in term 1."""


def test_every_event_has_a_row() -> None:
    """Receive dispatches on its message, so the rows are all other events, and all messages."""
    assert set(HANDLERS) == (EVENTS - {Receive}) | MESSAGES


def test_no_event_of_the_module_is_forgotten() -> None:
    """A new event or message has to be part of its union, and so of the table."""
    assert {name for name in events.__all__ if name != "Event"} == {event.__name__ for event in EVENTS}
    assert {name for name in messages.__all__ if name != "Message"} == {message.__name__ for message in MESSAGES}


def test_every_row_decides_for_every_role() -> None:
    """'Every cell decided': as many handlers as there are roles, each role with its own column."""
    assert sorted(COLUMN.values()) == list(range(len(Role)))
    assert set(COLUMN) == set(Role)
    for row in HANDLERS.values():
        assert len(row) == len(Role)
        assert all(callable(handler) for handler in row)


def test_the_samples_below_are_complete() -> None:
    """What follows tries every row."""
    kinds = {type(event.message) if isinstance(event, Receive) else type(event) for event in SAMPLES}
    assert kinds == set(HANDLERS)


@pytest.mark.parametrize("role", Role)
@pytest.mark.parametrize("event", SAMPLES, ids=lambda event: type(getattr(event, "message", event)).__name__)
def test_every_cell_can_be_entered(role: Role, event: Event) -> None:
    """No event is an error in any role, but a second leader of the same term (Election Safety)."""
    raft = MAKERS[role]()
    assert raft.status().role is role
    if role is Role.LEADER and event in (append(N2, 1), SNAPSHOT):
        with pytest.raises(SafetyViolation):
            raft.step(NOW, event)
        return

    effects = raft.step(NOW, event)

    assert len(only(effects, Persist)) <= 1
    assert len(only(effects, Apply)) <= 1
    assert raft.status().id == N1


@pytest.mark.parametrize("role", [Role.FOLLOWER, Role.PRE_CANDIDATE, Role.CANDIDATE])
@pytest.mark.parametrize(
    "event",
    [
        acknowledgement(N2, 1, 1),
        refusal(N2, 1, 0, hint=(0, 0)),
        PeerUnreachable(N2),
        LogRead(Index(1), entries_of((1,))),
        SnapshotSent(N2, Term(1), taken=False),
    ],
    ids=["acknowledgement", "refusal", "unreachable", "log read", "snapshot sent"],
)
def test_what_only_a_leader_asked_for_means_nothing_to_others(role: Role, event: Event) -> None:
    """Answers that come late find somebody else: they change nothing."""
    raft = MAKERS[role]()
    before = raft.status()

    assert raft.step(NOW, event) == []
    assert raft.status() == before


@pytest.mark.parametrize(
    ("role", "event"),
    [
        (Role.FOLLOWER, vote(N2, 1)),
        (Role.FOLLOWER, pre_vote_reply(N2, 2)),
        (Role.PRE_CANDIDATE, vote(N2, 1)),
        (Role.CANDIDATE, pre_vote_reply(N2, 2)),
        (Role.LEADER, vote(N2, 1)),
        (Role.LEADER, pre_vote_reply(N2, 2)),
    ],
)
def test_votes_count_only_in_the_role_that_asked_for_them(role: Role, event: Event) -> None:
    """A pre-vote is no vote, and a vote no pre-vote."""
    raft = MAKERS[role]()
    before = raft.status()

    assert raft.step(NOW, event) == []
    assert raft.status() == before
