"""What a leader knows of one follower, and the bounds on what it may send."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huton.raft.progress import Inflights, Progress, ProgressState
from huton.raft.types import Index


def make_progress(*, next_index: int = 5, match_index: int = 0, messages: int = 3, bytes_max: int = 100) -> Progress:
    return Progress(Inflights(messages, bytes_max), Index(next_index), Index(match_index))


def test_inflights_are_bounded_in_messages() -> None:
    """inflight_messages_max: what was sent and not yet acknowledged."""
    inflights = Inflights(2, 1000)
    inflights.add(Index(1), 1)
    assert not inflights.full
    inflights.add(Index(2), 1)
    assert inflights.full

    inflights.acknowledge(Index(1))

    assert not inflights.full
    assert len(inflights) == 1


def test_inflights_are_bounded_in_bytes() -> None:
    """inflight_bytes_max: payload bytes; a message that crosses the bound is the last one."""
    inflights = Inflights(100, 10)
    inflights.add(Index(1), 9)
    assert not inflights.full
    inflights.add(Index(2), 9)
    assert inflights.full

    inflights.acknowledge(Index(1))
    assert not inflights.full
    inflights.add(Index(3), 1)
    assert inflights.full
    inflights.clear()

    assert not inflights.full
    assert len(inflights) == 0


@given(st.lists(st.tuples(st.integers(1, 4), st.integers(0, 30)), max_size=12), st.integers(0, 40))
def test_an_acknowledgement_frees_all_that_it_covers(sent: list[tuple[int, int]], match: int) -> None:
    """An index stands for all messages that end at or below it, in messages and in bytes."""
    inflights = Inflights(1000, 50)
    last = 0
    left = []
    for count, size in sent:
        last += count
        inflights.add(Index(last), size)
        if last > match:
            left.append(size)

    inflights.acknowledge(Index(match))

    assert len(inflights) == len(left)
    assert inflights.full == (sum(left) >= 50)


def test_match_index_never_goes_back() -> None:
    """'It never goes back within a term': an old acknowledgement, delayed by the network, is no news."""
    progress = make_progress(next_index=9)

    assert progress.acknowledge(Index(6))
    assert not progress.acknowledge(Index(3))
    assert not progress.acknowledge(Index(6))

    assert (progress.match_index, progress.next_index) == (6, 7)


@pytest.mark.parametrize("next_index", [0, 1, 4, 6, 7, 8])
def test_next_index_stays_above_match_index(next_index: int) -> None:
    """Invariant: 0 <= match_index < next_index, wherever a hint points."""
    progress = make_progress(next_index=9)
    progress.acknowledge(Index(6))

    progress.become_probe(Index(next_index))

    assert progress.next_index == max(next_index, 7)
    assert progress.state is ProgressState.PROBE


def test_an_acknowledgement_starts_the_pipeline() -> None:
    """PROBE until it is known where the logs agree, then REPLICATE from there."""
    progress = make_progress(next_index=5)
    progress.probing = True

    progress.acknowledge(Index(2))

    assert (progress.state, progress.probing, progress.next_index) == (ProgressState.REPLICATE, False, 3)


def test_in_the_pipeline_an_acknowledgement_does_not_take_next_index_back() -> None:
    """What is in flight is not sent again because of an answer to something earlier."""
    progress = make_progress()
    progress.acknowledge(Index(4))
    progress.next_index = Index(9)

    progress.acknowledge(Index(6))

    assert progress.next_index == 9


def test_a_probe_forgets_what_was_in_flight() -> None:
    """After a rejection, or when the link broke, those messages count for lost."""
    progress = make_progress(messages=1)
    progress.acknowledge(Index(4))
    progress.inflights.add(Index(5), 10)
    progress.reading_from = Index(6)
    assert progress.inflights.full

    progress.become_probe(Index(5))

    assert not progress.inflights.full
    assert progress.reading_from is None
    assert not progress.probing
