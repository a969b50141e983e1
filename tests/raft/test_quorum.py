"""Majorities, against plainer definitions."""

from __future__ import annotations

from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from huton.raft.quorum import acknowledged_by_majority, majority, vote_result
from huton.raft.types import NodeId

VOTERS = st.integers(1, 9).map(lambda size: tuple(NodeId(f"n{number}") for number in range(size)))
STRANGER = NodeId("stranger")


@st.composite
def voters_and_numbers(draw: st.DrawFn) -> tuple[tuple[NodeId, ...], dict[NodeId, int]]:
    voters = draw(VOTERS)
    known = draw(st.lists(st.sampled_from((*voters, STRANGER)), unique=True))
    return voters, {voter: draw(st.integers(1, 12)) for voter in known}


@st.composite
def voters_and_votes(draw: st.DrawFn) -> tuple[tuple[NodeId, ...], dict[NodeId, bool]]:
    voters = draw(VOTERS)
    return voters, draw(st.dictionaries(st.sampled_from((*voters, STRANGER)), st.booleans()))


@pytest.mark.parametrize(("size", "needed"), [(1, 1), (2, 2), (3, 2), (4, 3), (5, 3), (6, 4), (7, 4)])
def test_majority_is_more_than_half(size: int, needed: int) -> None:
    """Paper §5.2: 'votes from a majority of the servers'."""
    assert majority(tuple(NodeId(f"n{number}") for number in range(size))) == needed


@given(voters_and_numbers())
def test_acknowledged_is_the_highest_number_that_more_than_half_reached(
    drawn: tuple[tuple[NodeId, ...], dict[NodeId, int]],
) -> None:
    """Figure 2, Leaders: 'If there exists an N such that ... a majority of matchIndex[i] ≥ N'."""
    voters, numbers = drawn

    def reached(number: int) -> bool:
        return 2 * sum(1 for voter in voters if numbers.get(voter, 0) >= number) > len(voters)

    assert acknowledged_by_majority(voters, numbers, 0) == max(number for number in range(13) if reached(number))


@given(voters_and_votes())
def test_vote_result_against_all_ways_to_go_on(drawn: tuple[tuple[NodeId, ...], Mapping[NodeId, bool]]) -> None:
    """Won: more than half granted. Lost: they could not, even if all who are silent did. Else: open."""
    voters, votes = drawn
    granted = sum(1 for voter in voters if votes.get(voter, False))
    hoped_for = sum(1 for voter in voters if votes.get(voter, True))

    expected = True if 2 * granted > len(voters) else None if 2 * hoped_for > len(voters) else False

    assert vote_result(voters, votes) is expected
